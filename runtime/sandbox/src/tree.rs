//! Removing a tree whose names and links are hostile: by descriptors, never through a symlink. Another process may be
//! about the same: what is gone already is what was wanted.

use crate::at::At;
use rlrun_spec::Failure;
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, chmodat, openat, unlinkat};
use rustix::io::Errno;
use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// Goes last: a container's directory without it is one whose removal has come to that point.
const LAST: &CStr = c"lock";

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Removes everything below `path`, its `lock` last, and leaves `path` itself.
///
/// # Errors
/// The first removal that failed.
pub fn remove_contents(path: &Path) -> Result<(), Failure> {
    remove_contents_but_lock(path)?;
    match unlinkat(CWD, path.join("lock"), AtFlags::empty()) {
        Err(Errno::NOENT) => Ok(()),
        other => other.at("remove", "remove what is left of the container in", path.display().to_string()),
    }
}

/// The same, for whoever is not the one that holds the lock.
///
/// # Errors
/// The first removal that failed.
pub(crate) fn remove_contents_but_lock(path: &Path) -> Result<(), Failure> {
    let object = path.display().to_string();
    let directory = match openat(CWD, path, DIRECTORY, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        other => other.at("remove", "remove what is left of the container in", &object)?,
    };
    empty(&directory, Some(LAST)).at("remove", "remove what is left of the container in", &object)
}

/// Depth first with an explicit stack, because the depth is the payload's choice. A file called `spared` in the root stays.
pub(crate) fn empty(root: &OwnedFd, spared: Option<&CStr>) -> Result<(), Errno> {
    let mut stack: Vec<(OwnedFd, Option<std::ffi::CString>)> =
        vec![(root.try_clone().map_err(|_| Errno::MFILE)?, None)];
    while let Some((directory, _)) = stack.last() {
        let spared = spared.filter(|_| stack.len() == 1);
        match remove_files(directory.as_fd(), spared)? {
            Some((child, name)) => stack.push((child, Some(name))),
            None => {
                let Some((_, Some(name))) = stack.pop() else { return Ok(()) };
                if let Some((parent, _)) = stack.last() {
                    or_gone(unlinkat(parent, &name, AtFlags::REMOVEDIR))?;
                }
            }
        }
    }
    Ok(())
}

/// Removes the files of a directory and its empty subdirectories; returns the first subdirectory that is not empty.
fn remove_files(
    directory: BorrowedFd<'_>,
    spared: Option<&CStr>,
) -> Result<Option<(OwnedFd, std::ffi::CString)>, Errno> {
    for entry in Dir::read_from(directory)? {
        let entry = match entry {
            // The directory itself was removed.
            Err(Errno::NOENT) => break,
            other => other?,
        };
        let name = entry.file_name();
        if name == c"." || name == c".." || (Some(name) == spared && entry.file_type() != FileType::Directory) {
            continue;
        }
        if entry.file_type() != FileType::Directory && remove_file(directory, name)? {
            continue;
        }
        match unlinkat(directory, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::NOTEMPTY | Errno::EXIST) => match open_child(directory, name) {
                Err(Errno::NOENT) => {}
                child => return Ok(Some((child?, name.to_owned()))),
            },
            // A directory without write or search permission, as overlay's own work directory is.
            Err(errno) => return Err(errno),
        }
    }
    Ok(None)
}

/// What somebody else has removed or renamed since it was listed is gone: the supervisor still writes its state aside
/// while the mapper removes.
fn or_gone(result: Result<(), Errno>) -> Result<(), Errno> {
    if result == Err(Errno::NOENT) { Ok(()) } else { result }
}

/// False when it is a directory after all (file systems that do not report types).
fn remove_file(directory: BorrowedFd<'_>, name: &CStr) -> Result<bool, Errno> {
    match or_gone(unlinkat(directory, name, AtFlags::empty())) {
        Ok(()) => Ok(true),
        Err(Errno::ISDIR) => Ok(false),
        Err(errno) => Err(errno),
    }
}

fn open_child(directory: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    match openat(directory, name, DIRECTORY, Mode::empty()) {
        Err(Errno::ACCESS) => {
            chmodat(directory, name, Mode::RWXU, AtFlags::empty())?;
            openat(directory, name, DIRECTORY, Mode::empty())
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_deep_tree_goes_and_what_its_links_point_to_stays() {
        let outside = tempfile::tempdir().unwrap();
        fs::File::create(outside.path().join("keep")).unwrap();
        let root = tempfile::tempdir().unwrap();
        let mut path = root.path().to_path_buf();
        for _ in 0..200 {
            path.push("d");
            fs::create_dir(&path).unwrap();
            fs::File::create(path.join("f")).unwrap();
            symlink(outside.path(), path.join("link")).unwrap();
        }
        fs::File::create(root.path().join("lock")).unwrap();
        remove_contents_but_lock(root.path()).unwrap();
        let left: Vec<_> = fs::read_dir(root.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["lock"]);
        remove_contents(root.path()).unwrap();
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
        assert!(outside.path().join("keep").exists());
    }

    #[test]
    fn what_is_renamed_meanwhile_is_no_error() {
        let root = tempfile::tempdir().unwrap();
        let (path, ended) = (root.path().to_path_buf(), std::sync::atomic::AtomicBool::new(false));
        let relaxed = std::sync::atomic::Ordering::Relaxed;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !ended.load(relaxed) {
                    // The other side may have taken any of it away already.
                    drop(fs::File::create(path.join("state.new")));
                    drop(fs::rename(path.join("state.new"), path.join("state")));
                }
            });
            let failed = (0..2000).find_map(|_| remove_contents_but_lock(&path).err());
            ended.store(true, relaxed);
            assert!(failed.is_none(), "{failed:?}");
        });
    }

    #[test]
    fn two_may_remove_the_same_tree() {
        for _ in 0..20 {
            let root = tempfile::tempdir().unwrap();
            for n in 0..50 {
                fs::create_dir_all(root.path().join(format!("{n}/d/d"))).unwrap();
                fs::File::create(root.path().join(format!("{n}/d/f"))).unwrap();
            }
            std::thread::scope(|scope| {
                let both = [(); 2].map(|()| scope.spawn(|| remove_contents(root.path())));
                both.into_iter().for_each(|one| one.join().unwrap().unwrap());
            });
            assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
            remove_contents(&root.path().join("never")).unwrap();
        }
    }
}
