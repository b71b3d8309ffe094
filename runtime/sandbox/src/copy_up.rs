//! Filling a new file system with what the image has in its place (`tmpcopyup`, VOLUME). Both sides are reached by
//! descriptor only; links are copied as links and never followed.

use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, Uid, chownat, fchmod, fchown, fstat, mkdirat, openat, readlinkat,
    statat, symlinkat,
};
use rustix::io::Errno;
use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

const READ: OFlags = OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Whether the top directory keeps its own owner and mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Own {
    /// They were asked for.
    Keep,
    /// They become those of the image's directory.
    Copy,
}

/// Copies what is in directory `from` into directory `to`, with owners and modes. `from` may be an O_PATH descriptor.
pub(crate) fn copy(from: &OwnedFd, to: &OwnedFd, own: Own) -> Result<(), Errno> {
    let from = openat(from, ".", READ | OFlags::DIRECTORY, Mode::empty())?;
    let to = openat(to, ".", READ | OFlags::DIRECTORY, Mode::empty())?;
    if own == Own::Copy {
        same_owner_and_mode(&from, &to)?;
    }
    // An explicit stack: how deep the tree goes is the image's choice.
    let mut pending = vec![(from, to)];
    while let Some((from, to)) = pending.pop() {
        for entry in Dir::read_from(&from)? {
            let entry = entry?;
            let name = entry.file_name();
            if name != c"." && name != c".." {
                pending.extend(copy_entry(from.as_fd(), to.as_fd(), name)?);
            }
        }
    }
    Ok(())
}

/// Copies one entry; a directory is made and returned to be filled.
fn copy_entry(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr) -> Result<Option<(OwnedFd, OwnedFd)>, Errno> {
    let stat = statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            mkdirat(to, name, Mode::RWXU)?;
            let pair = (
                openat(from, name, READ | OFlags::DIRECTORY, Mode::empty())?,
                openat(to, name, READ | OFlags::DIRECTORY, Mode::empty())?,
            );
            same_owner_and_mode(&pair.0, &pair.1)?;
            return Ok(Some(pair));
        }
        FileType::Symlink => {
            symlinkat(readlinkat(from, name, Vec::new())?.as_c_str(), to, name)?;
            let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
            chownat(to, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        FileType::RegularFile => copy_file(from, to, name)?,
        // Sockets, pipes and devices of an image are not data.
        _ => {}
    }
    Ok(None)
}

fn copy_file(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
    let source = openat(from, name, READ | OFlags::NONBLOCK, Mode::empty())?;
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    let copy = openat(to, name, flags, Mode::RWXU)?;
    while rustix::fs::sendfile(&copy, &source, None, 1 << 30)? > 0 {}
    same_owner_and_mode(&source, &copy)
}

/// Owner first: a change of owner clears set-user-ID bits (chown(2)).
fn same_owner_and_mode(from: &OwnedFd, to: &OwnedFd) -> Result<(), Errno> {
    let stat = fstat(from)?;
    fchown(to, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn a_tree_is_copied_with_modes_and_links_as_links() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir(from.path().join("d")).unwrap();
        let file = from.path().join("d/f");
        std::io::Write::write_all(&mut fs::File::create(&file).unwrap(), b"data").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        symlink("/etc/passwd", from.path().join("link")).unwrap();
        let open = |p: &std::path::Path| OwnedFd::from(fs::File::open(p).unwrap());
        copy(&open(from.path()), &open(to.path()), Own::Copy).unwrap();
        assert_eq!(fs::read(to.path().join("d/f")).unwrap(), b"data");
        assert_eq!(fs::metadata(to.path().join("d/f")).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(fs::read_link(to.path().join("link")).unwrap().to_str(), Some("/etc/passwd"));
    }
}
