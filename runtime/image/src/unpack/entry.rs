//! One entry of a layer becomes one file. Names are last components; their directory is an open descriptor.

use super::failure::{At, errno};
use super::tree::{Before, Tree, clean, in_root, split};
use super::whiteout::{self, is_whiteout, set_opaque};
use crate::tarball::{Entry, Kind, SparseMap, TarError, TarReader};
use rlrun_spec::Failure;
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;
use std::io::BufRead;
use std::os::fd::{AsFd, OwnedFd};

/// Owner, mode and times as they will be.
#[derive(Clone, Copy)]
pub(super) struct Attributes {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mode: u32,
    pub(super) mtime: (i64, u32),
}

impl Attributes {
    pub(super) fn times(&self) -> Timestamps {
        let time = Timespec { tv_sec: self.mtime.0, tv_nsec: i64::from(self.mtime.1) };
        Timestamps { last_access: time, last_modification: time }
    }

    /// Owner before mode: chown(2) clears the set-user-ID bits.
    pub(super) fn apply(&self, fd: impl AsFd) -> Result<(), Errno> {
        rustix::fs::fchown(&fd, Some(Uid::from_raw(self.uid)), Some(Gid::from_raw(self.gid)))?;
        rustix::fs::fchmod(&fd, Mode::from_raw_mode(self.mode))
    }

    /// As [`Attributes::apply`], for a file that was just made with [`Attributes::first_mode`]: what is right already,
    /// mostly all of it, is not set again. Asking is cheap, and setting is a step of the file system's journal.
    fn settle(&self, fd: impl AsFd) -> Result<(), Errno> {
        let made = rustix::fs::fstat(&fd)?;
        if (made.st_uid, made.st_gid) != (self.uid, self.gid) {
            rustix::fs::fchown(&fd, Some(Uid::from_raw(self.uid)), Some(Gid::from_raw(self.gid)))?;
        }
        if made.st_mode & 0o7777 != self.mode {
            rustix::fs::fchmod(&fd, Mode::from_raw_mode(self.mode))
        } else {
            Ok(())
        }
    }

    /// Nothing that changes who may do what, and nothing that chown(2) clears.
    fn first_mode(&self) -> Mode {
        Mode::from_raw_mode(self.mode & 0o777)
    }

    fn apply_at(&self, dir: impl AsFd, name: &[u8]) -> Result<(), Errno> {
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        rustix::fs::chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
    }
}

/// Attributes of an image that are put on files. Overlay file systems keep their books in others, and an image must not
/// write those: `redirect` and `metacopy` would make files of other layers appear.
pub(crate) fn is_harmless(xattr: &[u8]) -> bool {
    const BOOKS: [&[u8]; 3] = [b"user.overlay.", b"user.fuseoverlayfs.", b"user.containers."];
    xattr == b"security.capability"
        || (xattr.starts_with(b"user.") && !BOOKS.iter().any(|b| xattr.starts_with(b)) && !xattr.contains(&0))
}

/// Attributes that the file system refuses are left out, as tar(1) does: an image works without them.
fn set_xattrs(fd: &OwnedFd, entry: &Entry) {
    for (name, value) in entry.xattrs.iter().filter(|(name, _)| is_harmless(name)) {
        rustix::fs::fsetxattr(fd, &name[..], value, XattrFlags::empty()).ok();
    }
}

/// Makes the directory of an entry; its times are set when the layer is complete.
pub(super) fn directory(tree: &mut Tree, path: &[u8], entry: &Entry, attributes: Attributes) -> Result<(), Errno> {
    let before = if path.is_empty() { Before::Directory } else { tree.make_room(path, true)? };
    let fd = if path.is_empty() {
        whiteout::open_dir(tree.root(), b".")?
    } else {
        let (parent, name) = split(path);
        let dir = tree.directory(parent)?;
        if before != Before::Directory {
            rustix::fs::mkdirat(dir, name, Mode::RWXU)?;
        }
        whiteout::open_dir(dir, name)?
    };
    if before == Before::Whiteout {
        // What the layer hid below stays hidden behind what it makes anew.
        set_opaque(&fd)?;
    }
    attributes.apply(&fd)?;
    set_xattrs(&fd, entry);
    tree.is_explicit(path);
    Ok(())
}

/// Makes a regular file and writes its body.
pub(super) fn file<R: BufRead>(
    tree: &mut Tree,
    path: &[u8],
    entry: &Entry,
    attributes: Attributes,
    reader: &mut TarReader<R>,
    at: At<'_>,
) -> Result<(), Failure> {
    let system = |e| at.system(e);
    let fd = create(tree, path, attributes.first_mode()).map_err(system)?;
    match &entry.sparse {
        None => write_body(&fd, 0, u64::MAX, reader, at)?,
        Some(map) => write_sparse(&fd, map, reader, at)?,
    }
    attributes.settle(&fd).map_err(system)?;
    set_xattrs(&fd, entry);
    rustix::fs::futimens(&fd, &attributes.times()).map_err(system)
}

fn create(tree: &mut Tree, path: &[u8], mode: Mode) -> Result<OwnedFd, Errno> {
    let (parent, name) = split(path);
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(tree.directory(parent)?, name, flags, mode) {
        Err(Errno::EXIST) => {
            tree.make_room(path, false)?;
            rustix::fs::openat(tree.directory(parent)?, name, flags, mode)
        }
        other => other,
    }
}

fn write_sparse<R: BufRead>(
    fd: &OwnedFd,
    map: &SparseMap,
    reader: &mut TarReader<R>,
    at: At<'_>,
) -> Result<(), Failure> {
    for &(offset, length) in &map.segments {
        write_body(fd, offset, length, reader, at)?;
    }
    rustix::fs::ftruncate(fd, map.real_size).map_err(|e| at.system(e))
}

/// Writes up to `length` bytes of the body at `offset`.
fn write_body<R: BufRead>(
    fd: &OwnedFd,
    mut offset: u64,
    mut length: u64,
    reader: &mut TarReader<R>,
    at: At<'_>,
) -> Result<(), Failure> {
    loop {
        let piece = reader.body(length).map_err(|e: TarError| at.tar(e))?;
        if piece.is_empty() {
            return Ok(());
        }
        let written = rustix::io::retry_on_intr(|| rustix::io::pwrite(fd, piece, offset)).map_err(|e| at.system(e))?;
        reader.consume(written);
        offset += written as u64;
        length -= written as u64;
    }
}

pub(super) fn symlink(tree: &mut Tree, path: &[u8], entry: &Entry, attributes: Attributes) -> Result<(), Errno> {
    let (parent, name) = split(path);
    tree.make_room(path, false)?;
    let dir = tree.directory(parent)?;
    rustix::fs::symlinkat(&entry.link[..], dir, name)?;
    attributes.apply_at(dir, name)?;
    rustix::fs::utimensat(dir, name, &attributes.times(), AtFlags::SYMLINK_NOFOLLOW)
}

pub(super) fn fifo(tree: &mut Tree, path: &[u8], attributes: Attributes) -> Result<(), Errno> {
    let (parent, name) = split(path);
    tree.make_room(path, false)?;
    let dir = tree.directory(parent)?;
    rustix::fs::mknodat(dir, name, FileType::Fifo, Mode::from_raw_mode(attributes.mode), 0)?;
    attributes.apply_at(dir, name)?;
    // Nobody else has this name yet, and it is no symlink.
    rustix::fs::chmodat(dir, name, Mode::from_raw_mode(attributes.mode), AtFlags::empty())?;
    rustix::fs::utimensat(dir, name, &attributes.times(), AtFlags::SYMLINK_NOFOLLOW)
}

/// Links to an earlier file of the same layer; to nothing else, so neither to what a symlink names.
pub(super) fn hard_link(tree: &mut Tree, path: &[u8], entry: &Entry, at: At<'_>) -> Result<(), Failure> {
    let target = clean(&entry.link).map_err(|why| at.hostile(format!("hard link: {why}")))?;
    let missing = || at.hostile(format!("hard link to `{}`, which the layer does not have", target.escape_ascii()));
    let (target_parent, target_name) = split(&target);
    let target_dir = in_root(tree.root(), target_parent, OFlags::PATH | OFlags::DIRECTORY).map_err(|_| missing())?;
    let source = whiteout::stat(&target_dir, target_name).map_err(|_| missing())?;
    if is_whiteout(&source) || FileType::from_raw_mode(source.st_mode) == FileType::Directory {
        return Err(missing());
    }
    let (parent, name) = split(path);
    let dir = tree.directory(parent).map_err(|e| at.system(e))?;
    if whiteout::stat(dir, name).is_ok_and(|there| (there.st_dev, there.st_ino) == (source.st_dev, source.st_ino)) {
        // A link to itself; removing the old name first would lose the file.
        return Ok(());
    }
    tree.make_room(path, false).map_err(|e| at.system(e))?;
    let dir = tree.directory(parent).map_err(|e| at.system(e))?;
    rustix::fs::linkat(&target_dir, target_name, dir, name, AtFlags::empty()).map_err(|e| at.system(e))
}

/// Whether an entry has bytes of its own on disk.
pub(super) fn disk_size(entry: &Entry) -> u64 {
    if entry.kind == Kind::File { entry.size } else { 0 }
}

/// [`Errno`] of an io error, for callers that read through std.
pub(super) fn io_failure(at: At<'_>, error: &std::io::Error) -> Failure {
    at.system(errno(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlay_file_systems_keep_their_books_to_themselves() {
        for kept in [&b"user.mime_type"[..], b"security.capability"] {
            assert!(is_harmless(kept), "{}", kept.escape_ascii());
        }
        for dropped in [
            &b"user.overlay.redirect"[..],
            b"user.overlay.overlay.opaque",
            b"user.fuseoverlayfs.opaque",
            b"user.containers.override_stat",
            b"trusted.overlay.opaque",
            b"security.selinux",
            b"system.posix_acl_access",
            b"user.a\0b",
        ] {
            assert!(!is_harmless(dropped), "{}", dropped.escape_ascii());
        }
    }
}
