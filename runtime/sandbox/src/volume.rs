//! Volumes of rlrun's: filled with what the image has in their place when they are used for the first time, and given
//! to the payload's user where that was asked for. Volumes and images are hostile alike; both are reached by descriptor
//! and no link of theirs is followed.

use crate::at::At;
use crate::copy_up::{self, Own};
use crate::tree;
use rlrun_spec::Failure;
use rustix::fs::{
    AtFlags, CWD, Dir, FileType, FlockOperation, Gid, Mode, OFlags, Uid, chownat, flock, mkdirat, openat, renameat,
    statat, unlinkat,
};
use rustix::io::Errno;
use std::os::fd::OwnedFd;
use std::path::Path;

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
/// Where the data is.
const DATA: &str = "_data";
/// There until the first use.
const FRESH: &str = "fresh";
/// A copy that is not finished yet.
const STAGE: &str = "stage";

/// A volume's directory.
pub(crate) fn open(path: &Path) -> Result<OwnedFd, Failure> {
    openat(CWD, path, DIRECTORY, Mode::empty()).at("open-volume", "open the volume", path.display().to_string())
}

/// Opens the data of a volume. A volume that was never used gets a copy of `image` first; it appears whole, by a
/// rename, so that whoever is killed in between leaves a volume that was never used.
pub(crate) fn data(volume: &OwnedFd, image: Option<&OwnedFd>, object: &str) -> Result<OwnedFd, Failure> {
    if is_fresh(volume) {
        // One of two containers that start at once fills it, the other waits; a lock goes with its process.
        flock(volume, FlockOperation::LockExclusive).at("open-volume", "lock the volume", object)?;
        if is_fresh(volume) {
            first_use(volume, image, object)?;
        }
    }
    openat(volume, DATA, DIRECTORY | OFlags::NOFOLLOW, Mode::empty()).at("open-volume", "open the volume", object)
}

fn is_fresh(volume: &OwnedFd) -> bool {
    statat(volume, FRESH, AtFlags::SYMLINK_NOFOLLOW).is_ok()
}

fn first_use(volume: &OwnedFd, image: Option<&OwnedFd>, object: &str) -> Result<(), Failure> {
    if let Some(image) = image {
        if statat(volume, STAGE, AtFlags::SYMLINK_NOFOLLOW).is_ok() {
            forget_stage(volume).at("fill-volume", "remove an unfinished copy of", object)?;
        }
        let filled = mkdirat(volume, STAGE, Mode::RWXU)
            .and_then(|()| openat(volume, STAGE, DIRECTORY | OFlags::NOFOLLOW, Mode::empty()))
            .and_then(|stage| copy_up::copy(image, &stage, Own::Copy));
        filled.at("fill-volume", "copy what the image has to the volume", object)?;
        match renameat(volume, STAGE, volume, DATA) {
            Ok(()) => {}
            // Somebody has put something there already: that is what the volume holds.
            Err(Errno::NOTEMPTY | Errno::EXIST) => {
                forget_stage(volume).at("fill-volume", "remove an unused copy of", object)?;
            }
            Err(errno) => return Err(errno).at("fill-volume", "fill the volume", object),
        }
    }
    unlinkat(volume, FRESH, AtFlags::empty()).at("fill-volume", "mark as used the volume", object)
}

fn forget_stage(volume: &OwnedFd) -> Result<(), Errno> {
    tree::empty(&openat(volume, STAGE, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())?, None)?;
    unlinkat(volume, STAGE, AtFlags::REMOVEDIR)
}

/// Gives everything in and below `root` to a user. What belongs to them already is not touched: a change of owner
/// clears set-user-ID bits (chown(2)).
pub(crate) fn give(root: &OwnedFd, uid: u32, gid: u32) -> Result<(), Errno> {
    let (user, group) = (Uid::from_raw(uid), Gid::from_raw(gid));
    let change = |directory: &OwnedFd, name: &std::ffi::CStr| -> Result<FileType, Errno> {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH;
        let stat = statat(directory, name, flags)?;
        if (stat.st_uid, stat.st_gid) != (uid, gid) {
            chownat(directory, name, Some(user), Some(group), flags)?;
        }
        Ok(FileType::from_raw_mode(stat.st_mode))
    };
    if change(root, c"")? != FileType::Directory {
        return Ok(());
    }
    // An explicit stack: how deep the tree goes is not ours to choose.
    let mut pending = vec![openat(root, ".", DIRECTORY, Mode::empty())?];
    while let Some(directory) = pending.pop() {
        for entry in Dir::read_from(&directory)? {
            let entry = entry?;
            let name = entry.file_name();
            if name != c"." && name != c".." && change(&directory, name)? == FileType::Directory {
                pending.push(openat(&directory, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())?);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};

    fn volume() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(DATA)).unwrap();
        fs::File::create(dir.path().join(FRESH)).unwrap();
        dir
    }

    fn image() -> (tempfile::TempDir, OwnedFd) {
        let dir = tempfile::tempdir().unwrap();
        fs::File::create(dir.path().join("f")).unwrap();
        symlink("/etc", dir.path().join("link")).unwrap();
        let fd = OwnedFd::from(fs::File::open(dir.path()).unwrap());
        (dir, fd)
    }

    fn names(path: &Path) -> Vec<String> {
        let mut all: Vec<_> =
            fs::read_dir(path).unwrap().map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
        all.sort();
        all
    }

    #[test]
    fn a_volume_is_filled_once() {
        let (volume, image) = (volume(), image());
        data(&open(volume.path()).unwrap(), Some(&image.1), "v").unwrap();
        let path = volume.path().join(DATA);
        assert_eq!(names(&path), ["f", "link"]);
        assert!(path.join("link").is_symlink());
        fs::remove_file(path.join("f")).unwrap();
        data(&open(volume.path()).unwrap(), Some(&image.1), "v").unwrap();
        assert_eq!(names(&path), ["link"]);
        assert_eq!(names(volume.path()), [DATA]);
    }

    #[test]
    fn what_is_in_a_volume_is_not_covered_and_half_a_copy_is_forgotten() {
        let (volume, image) = (volume(), image());
        fs::create_dir(volume.path().join(STAGE)).unwrap();
        fs::File::create(volume.path().join(STAGE).join("half")).unwrap();
        fs::File::create(volume.path().join(DATA).join("mine")).unwrap();
        data(&open(volume.path()).unwrap(), Some(&image.1), "v").unwrap();
        assert_eq!(names(&volume.path().join(DATA)), ["mine"]);
        assert_eq!(names(volume.path()), [DATA]);
    }

    #[test]
    fn giving_follows_no_link() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("d")).unwrap();
        symlink("/", dir.path().join("d/root")).unwrap();
        let stat = fs::metadata(dir.path()).unwrap();
        let root = OwnedFd::from(fs::File::open(dir.path()).unwrap());
        give(&root, stat.uid(), stat.gid()).unwrap();
        // The root of the file system belongs to somebody whom an ordinary user could not take it from.
        assert_eq!(fs::symlink_metadata(dir.path().join("d/root")).unwrap().uid(), stat.uid());
    }
}
