//! Whiteouts: how layers say that something below is gone (OCI image specification, "Whiteouts"), and how overlay file
//! systems say it. A character device 0/0 hides a name; an attribute on a directory hides what is below it. The kernel with
//! `userxattr` and fuse-overlayfs understand both.

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, XattrFlags};
use rustix::io::Errno;
use std::os::fd::{AsFd, OwnedFd};

const PREFIX: &[u8] = b".wh.";
/// Marks with which aufs kept its books; all but the opaque mark mean nothing elsewhere.
const META: &[u8] = b".wh..wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
pub(super) const OPAQUE_XATTR: &str = "user.overlay.opaque";

/// What the last component of an entry's path means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark<'a> {
    /// An ordinary name.
    None,
    /// This name is gone.
    Whiteout(&'a [u8]),
    /// What lower layers have in this directory is gone.
    Opaque,
    /// Aufs' own, to be passed over.
    Ignored,
    /// `.wh.`, `.wh..` and `.wh...` would hide a directory itself, or its parent.
    Hostile,
}

pub(super) fn mark(name: &[u8]) -> Mark<'_> {
    if name == OPAQUE {
        return Mark::Opaque;
    }
    if name.starts_with(META) {
        return Mark::Ignored;
    }
    match name.strip_prefix(PREFIX) {
        None => Mark::None,
        Some(b"" | b"." | b"..") => Mark::Hostile,
        Some(hidden) => Mark::Whiteout(hidden),
    }
}

pub(crate) fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

pub(crate) fn stat(dir: impl AsFd, name: &[u8]) -> Result<Stat, Errno> {
    rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)
}

/// Hides `name` in lower layers. What the same layer itself has by that name stays (the specification says so), and a
/// directory then hides what is below it.
pub(super) fn hide(dir: impl AsFd, name: &[u8]) -> Result<(), Errno> {
    // Unprivileged processes may make this one device since Linux 5.8.
    match rustix::fs::mknodat(&dir, name, FileType::CharacterDevice, Mode::empty(), 0) {
        Err(Errno::EXIST) => {
            let there = stat(&dir, name)?;
            let is_dir = FileType::from_raw_mode(there.st_mode) == FileType::Directory;
            if is_dir { set_opaque(&open_dir(dir, name)?) } else { Ok(()) }
        }
        other => other,
    }
}

pub(super) fn set_opaque(dir: &OwnedFd) -> Result<(), Errno> {
    rustix::fs::fsetxattr(dir, OPAQUE_XATTR, b"y", XattrFlags::empty())
}

pub(crate) fn is_opaque(dir: &OwnedFd) -> Result<bool, Errno> {
    let mut value = [0u8; 2];
    match rustix::fs::fgetxattr(dir, OPAQUE_XATTR, &mut value[..]) {
        Ok(n) => Ok(value[..n] == *b"y"),
        Err(Errno::NODATA | Errno::NOTSUP) => Ok(false),
        Err(e) => Err(e),
    }
}

/// A directory of this name itself, never through a symlink; open for reading, since attributes need that.
pub(crate) fn open_dir(dir: impl AsFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, Mode::empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_their_marks() {
        assert_eq!(mark(b"a"), Mark::None);
        assert_eq!(mark(b".wh"), Mark::None);
        assert_eq!(mark(b"x.wh.y"), Mark::None);
        assert_eq!(mark(b".wh.a"), Mark::Whiteout(b"a"));
        assert_eq!(mark(b".wh..a"), Mark::Whiteout(b".a"));
        assert_eq!(mark(b".wh...."), Mark::Whiteout(b"..."));
        assert_eq!(mark(b".wh..wh..opq"), Mark::Opaque);
        assert_eq!(mark(b".wh..wh.plnk"), Mark::Ignored);
        for dots in [&b".wh."[..], b".wh..", b".wh..."] {
            assert_eq!(mark(dots), Mark::Hostile);
        }
    }
}
