//! Layers copied together into one directory, for hosts where nothing can be mounted: the merge that an overlay mount
//! would show, each file once.

use super::entry::Attributes;
use super::failure::{on, system};
use super::whiteout::{self, is_opaque, is_whiteout, open_dir};
use rlrun_spec::Failure;
use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Uid, XattrFlags};
use rustix::io::Errno;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Copies `lowers` (top first) into `target`, which is missing or empty. Nothing of it remains after a failure.
pub(super) fn rootfs(lowers: &[PathBuf], target: &Path) -> Result<(), Failure> {
    let root = make_target(target).map_err(on("create the container's root", target))?;
    let mut dirs = Vec::new();
    for lower in lowers {
        let dir = rustix::fs::open(lower, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        dirs.push(dir.map_err(on("open the layer", lower))?);
    }
    let mut copier = Copier { links: HashMap::new(), root: &root, path: Vec::new() };
    copier.merge(&dirs, &root).map_err(|errno| {
        let at = String::from_utf8_lossy(&copier.path.join(&b'/')).into_owned();
        // The container cannot start anyway; what is left of the copy goes with its directory.
        super::remove::empty(&root).ok();
        system("copy the image into the container's root", at, errno)
    })
}

fn make_target(target: &Path) -> Result<OwnedFd, Errno> {
    match rustix::fs::mkdir(target, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(e) => return Err(e),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let root = rustix::fs::open(target, flags, Mode::empty())?;
    for entry in Dir::read_from(&root)? {
        if !matches!(entry?.file_name().to_bytes(), b"." | b"..") {
            return Err(Errno::NOTEMPTY);
        }
    }
    Ok(root)
}

struct Copier<'a> {
    /// Copied files that have further names: device and inode to the path of the copy.
    links: HashMap<(u64, u64), Vec<u8>>,
    root: &'a OwnedFd,
    /// Where the copy is, for errors and links.
    path: Vec<Vec<u8>>,
}

impl Copier<'_> {
    /// Merges directories of the same path, top first, into `target`, and gives it the attributes of the topmost.
    fn merge(&mut self, layers: &[OwnedFd], target: &OwnedFd) -> Result<(), Errno> {
        let Some(top) = layers.first() else { return Ok(()) };
        let mut seen = HashSet::new();
        for (depth, layer) in layers.iter().enumerate() {
            for entry in Dir::read_from(layer)? {
                let name = entry?.file_name().to_bytes().to_vec();
                if matches!(&name[..], b"." | b"..") || !seen.insert(name.clone()) {
                    continue;
                }
                self.path.push(name.clone());
                self.copy(&layers[depth..], &name, target)?;
                self.path.pop();
            }
        }
        copy_xattrs(top, target)?;
        let stat = rustix::fs::fstat(top)?;
        attributes(&stat).apply(target)?;
        rustix::fs::futimens(target, &attributes(&stat).times())
    }

    /// Copies one name, which the first of `layers` has.
    fn copy(&mut self, layers: &[OwnedFd], name: &[u8], target: &OwnedFd) -> Result<(), Errno> {
        let Some(layer) = layers.first() else { return Ok(()) };
        let stat = whiteout::stat(layer, name)?;
        match FileType::from_raw_mode(stat.st_mode) {
            _ if is_whiteout(&stat) => Ok(()),
            FileType::Directory => {
                rustix::fs::mkdirat(target, name, Mode::RWXU)?;
                let below = visible_directories(layers, name)?;
                self.merge(&below, &open_dir(target, name)?)
            }
            kind => self.copy_leaf(layer, name, &stat, kind, target),
        }
    }

    fn copy_leaf(
        &mut self,
        layer: &OwnedFd,
        name: &[u8],
        stat: &Stat,
        kind: FileType,
        target: &OwnedFd,
    ) -> Result<(), Errno> {
        let key = (stat.st_dev, stat.st_ino);
        if stat.st_nlink > 1
            && let Some(first) = self.links.get(&key)
        {
            return rustix::fs::linkat(self.root, &first[..], target, name, AtFlags::empty());
        }
        match kind {
            FileType::RegularFile => copy_file(layer, name, stat, target)?,
            FileType::Symlink => {
                let link = rustix::fs::readlinkat(layer, name, Vec::new())?;
                rustix::fs::symlinkat(&link, target, name)?;
                own_at(stat, target, name)?;
            }
            FileType::Fifo => {
                let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
                rustix::fs::mknodat(target, name, FileType::Fifo, mode, 0)?;
                own_at(stat, target, name)?;
                rustix::fs::chmodat(target, name, mode, AtFlags::empty())?;
            }
            // The extractor makes no others.
            _ => return Ok(()),
        }
        if stat.st_nlink > 1 {
            self.links.insert(key, self.path.join(&b'/'));
        }
        rustix::fs::utimensat(target, name, &attributes(stat).times(), AtFlags::SYMLINK_NOFOLLOW)
    }
}

/// The directories of this name that show through each other: until a layer has something else there, or hides the rest.
fn visible_directories(layers: &[OwnedFd], name: &[u8]) -> Result<Vec<OwnedFd>, Errno> {
    let mut dirs = Vec::new();
    for layer in layers {
        match open_dir(layer, name) {
            Ok(dir) => {
                let opaque = is_opaque(&dir)?;
                dirs.push(dir);
                if opaque {
                    break;
                }
            }
            Err(Errno::NOENT) => {}
            Err(Errno::NOTDIR | Errno::LOOP) => break,
            Err(e) => return Err(e),
        }
    }
    Ok(dirs)
}

fn attributes(stat: &Stat) -> Attributes {
    Attributes {
        uid: stat.st_uid,
        gid: stat.st_gid,
        mode: stat.st_mode & 0o7777,
        mtime: (stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or(0)),
    }
}

fn own_at(stat: &Stat, dir: &OwnedFd, name: &[u8]) -> Result<(), Errno> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    rustix::fs::chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
}

fn copy_file(layer: &OwnedFd, name: &[u8], stat: &Stat, target: &OwnedFd) -> Result<(), Errno> {
    let read = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let write = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let from = rustix::fs::openat(layer, name, read, Mode::empty())?;
    let to = rustix::fs::openat(target, name, write, Mode::RUSR | Mode::WUSR)?;
    // File systems that can share blocks do; copy_file_range(2) inside std's copy stays in the kernel elsewhere.
    if rustix::fs::ioctl_ficlone(&to, &from).is_err() {
        let (mut from, mut to) = (File::from(from.try_clone().map_err(io)?), File::from(to.try_clone().map_err(io)?));
        std::io::copy(&mut from, &mut to).map_err(io)?;
    }
    attributes(stat).apply(&to)?;
    copy_xattrs(&from, &to)
}

fn io(error: std::io::Error) -> Errno {
    super::failure::errno(&error)
}

/// The image's own attributes; the overlay's books stay behind. A file system that has none is fine.
fn copy_xattrs(from: impl AsFd, to: impl AsFd) -> Result<(), Errno> {
    let mut names = vec![0u8; 1 << 16];
    let length = match rustix::fs::flistxattr(&from, &mut names[..]) {
        Ok(length) => length,
        Err(Errno::NOTSUP) => return Ok(()),
        Err(e) => return Err(e),
    };
    for name in names[..length].split(|&b| b == 0).filter(|n| super::entry::is_harmless(n)) {
        let mut value = vec![0u8; 1 << 16];
        let length = rustix::fs::fgetxattr(&from, name, &mut value[..])?;
        // As when the layer was extracted: what the file system refuses is left out.
        rustix::fs::fsetxattr(&to, name, &value[..length], XattrFlags::empty()).ok();
    }
    Ok(())
}
