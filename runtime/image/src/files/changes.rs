//! What a container has changed of its image: as a list, and as the layer that makes an image of it.

use super::base::below;
use super::lowers::Lowers;
use super::pack::xattrs;
use super::write::{Body, Meta, Writer, Xattrs, fits};
use super::{MAX_DEPTH, failure, io, join, on};
use crate::unpack::{is_whiteout, open_dir, stat};
use rlrun_spec::Failure;
use rustix::fs::{Dir, FileType, OFlags, ResolveFlags, Stat, readlinkat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashMap};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// How a container's files lie over its image's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Style {
    /// Only what differs is there, and marks for what is gone (overlay, fuse-overlayfs).
    Overlay,
    /// Everything is there (driver `copy`).
    Whole,
}

/// A container's files and its image's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upper {
    /// How they lie.
    pub style: Style,
    /// The container's.
    pub directory: PathBuf,
    /// The image's layers, top first.
    pub lowers: Vec<PathBuf>,
}

/// What happened to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ChangeKind {
    /// The image has no such file.
    Added,
    /// It is another one, or another directory's contents changed.
    Changed,
    /// The image's is gone.
    Deleted,
}

/// One file that is not as the image has it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Change {
    /// Absolute.
    pub path: Vec<u8>,
    /// What happened.
    pub kind: ChangeKind,
}

/// Everything that differs, sorted by path.
///
/// # Errors
/// When something cannot be read.
pub fn changes(upper: &Upper) -> Result<Vec<Change>, Failure> {
    let mut all = Vec::new();
    walk(upper, &mut |seen| {
        all.push(Change { path: [b"/", seen.path].concat(), kind: seen.kind });
        Ok(())
    })?;
    all.sort();
    Ok(all)
}

/// Writes the layer.
///
/// # Errors
/// When something cannot be read, or the stream not be written.
pub fn layer(upper: &Upper, out: impl Write) -> Result<(), Failure> {
    let mut writer = Writer::new(out);
    let mut links = HashMap::new();
    walk(upper, &mut |seen| entry(&mut writer, &mut links, seen).map_err(io("copy", seen.path)))?;
    writer.finish().map_err(io("write the layer of", upper.directory.as_os_str().as_encoded_bytes()))
}

/// Files with further names: device and inode to the name in the layer.
type Links = HashMap<(u64, u64), Vec<u8>>;

fn entry<W: Write>(writer: &mut Writer<W>, links: &mut Links, seen: &Seen<'_>) -> std::io::Result<()> {
    let none = Xattrs::new();
    let mark = Meta { uid: 0, gid: 0, mode: 0, mtime: 0 };
    let Some((stat, fd)) = &seen.there else {
        let cut = seen.path.iter().rposition(|b| *b == b'/').map_or(0, |slash| slash + 1);
        let path = [&seen.path[..cut], WHITEOUT, &seen.path[cut..]].concat();
        return writer.entry(&path, mark, &none, Body::File(0, &mut std::io::empty()));
    };
    let (meta, kind) = (Meta::of(stat), FileType::from_raw_mode(stat.st_mode));
    if kind == FileType::Directory {
        let attributes = super::base::reopen(fd, OFlags::RDONLY | OFlags::DIRECTORY).map(|fd| xattrs(&fd))?;
        writer.entry(seen.path, meta, &attributes, Body::Directory)?;
        if seen.opaque {
            writer.entry(&join(seen.path, OPAQUE), mark, &none, Body::File(0, &mut std::io::empty()))?;
        }
        return Ok(());
    }
    let key = (stat.st_dev, stat.st_ino);
    if stat.st_nlink > 1 {
        if let Some(first) = links.get(&key) {
            return writer.entry(seen.path, meta, &none, Body::HardLink(first));
        }
        links.insert(key, seen.path.to_vec());
    }
    match kind {
        FileType::RegularFile => {
            let mut file = super::base::reader(fd)?;
            let attributes = xattrs(&file);
            let size = u64::try_from(stat.st_size).unwrap_or(0);
            writer.entry(seen.path, meta, &attributes, Body::File(size, &mut file))
        }
        FileType::Symlink => {
            let target = readlinkat(fd, "", Vec::new())?;
            writer.entry(seen.path, meta, &none, Body::Symlink(target.as_bytes()))
        }
        _ => writer.entry(seen.path, meta, &none, Body::Fifo),
    }
}

/// One difference, parents before what is in them.
struct Seen<'a> {
    /// Below the root, without a slash before it.
    path: &'a [u8],
    kind: ChangeKind,
    /// What is there now, as an O_PATH descriptor; None: nothing.
    there: Option<(Stat, OwnedFd)>,
    /// A directory that hides what the image has in it.
    opaque: bool,
}

type Visit<'a> = &'a mut dyn FnMut(&Seen<'_>) -> Result<(), Failure>;

fn walk(upper: &Upper, visit: Visit<'_>) -> Result<(), Failure> {
    let shown = upper.directory.as_os_str().as_encoded_bytes();
    let top = open_dir(rustix::fs::CWD, shown).map_err(on("open", shown))?;
    let lowers = Lowers::open(&upper.lowers).map_err(on("open the image's layers below", shown))?;
    Walker { style: upper.style, visit }.directory(&top, &lowers, b"", 0)
}

struct Walker<'a> {
    style: Style,
    visit: Visit<'a>,
}

impl Walker<'_> {
    fn directory(&mut self, upper: &OwnedFd, lowers: &Lowers, path: &[u8], depth: usize) -> Result<(), Failure> {
        if depth > MAX_DEPTH {
            return Err(failure("compare", path).why("it is too deep"));
        }
        let names = names(upper).map_err(on("list", path))?;
        for name in &names {
            if self.style == Style::Overlay && name.starts_with(WHITEOUT) {
                // What fuse-overlayfs does where it cannot make device nodes.
                let hidden = name[WHITEOUT.len()..].to_vec();
                if name != OPAQUE && lowers.find(&hidden).map_err(on("look up", path))?.is_some() {
                    self.deleted(&join(path, &hidden))?;
                }
                continue;
            }
            self.name(upper, lowers, name, &join(path, name), depth)?;
        }
        if self.style == Style::Whole || is_opaque(upper).map_err(on("look at", path))? {
            let gone = lowers.names().map_err(on("list", path))?;
            for name in gone.difference(&names) {
                self.deleted(&join(path, name))?;
            }
        }
        Ok(())
    }

    fn name(
        &mut self,
        upper: &OwnedFd,
        lowers: &Lowers,
        name: &[u8],
        path: &[u8],
        depth: usize,
    ) -> Result<(), Failure> {
        let fd = match below(upper, name, OFlags::PATH | OFlags::NOFOLLOW, ResolveFlags::BENEATH) {
            Ok(fd) => fd,
            // A running container has taken it away meanwhile.
            Err(Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(on("open", path)(errno)),
        };
        let now = stat(upper, name).map_err(on("look at", path))?;
        let was = lowers.find(name).map_err(on("look up", path))?;
        if is_whiteout(&now) {
            return if was.is_some() { self.deleted(path) } else { Ok(()) };
        }
        let kind = FileType::from_raw_mode(now.st_mode);
        if !fits(kind) {
            return Ok(());
        }
        let change = match &was {
            None => Some(ChangeKind::Added),
            Some(was) if self.is_same(&fd, &now, lowers, name, was).map_err(on("compare", path))? => None,
            Some(_) => Some(ChangeKind::Changed),
        };
        let directory = (kind == FileType::Directory).then(|| open_dir(upper, name)).transpose();
        let directory = directory.map_err(on("open", path))?;
        let opaque = self.style == Style::Overlay && directory.as_ref().is_some_and(|d| is_opaque(d).unwrap_or(false));
        if let Some(kind) = change {
            (self.visit)(&Seen { path, kind, there: Some((now, fd)), opaque: opaque && was.is_some() })?;
        }
        let Some(directory) = directory else { return Ok(()) };
        let lowers = match &was {
            None => Lowers::nothing(),
            Some(was) => lowers.enter(name, was).map_err(on("open", path))?,
        };
        self.directory(&directory, &lowers, path, depth + 1)
    }

    /// Over an overlay all that is there was written; of a copy what a changed file cannot keep is compared.
    fn is_same(
        &self,
        fd: &OwnedFd,
        now: &Stat,
        lowers: &Lowers,
        name: &[u8],
        was: &super::lowers::Below,
    ) -> Result<bool, Errno> {
        if self.style == Style::Overlay {
            return Ok(false);
        }
        let old = &was.stat;
        let alike = (now.st_mode, now.st_uid, now.st_gid, now.st_mtime, now.st_mtime_nsec)
            == (old.st_mode, old.st_uid, old.st_gid, old.st_mtime, old.st_mtime_nsec);
        Ok(match FileType::from_raw_mode(now.st_mode) {
            FileType::Directory | FileType::Fifo => alike,
            FileType::Symlink => alike && readlinkat(fd, "", Vec::new())?.into_bytes() == lowers.target(name, was)?,
            _ => alike && now.st_size == old.st_size,
        })
    }

    fn deleted(&mut self, path: &[u8]) -> Result<(), Failure> {
        (self.visit)(&Seen { path, kind: ChangeKind::Deleted, there: None, opaque: false })
    }
}

fn names(directory: &OwnedFd) -> Result<BTreeSet<Vec<u8>>, Errno> {
    let mut all = BTreeSet::new();
    for entry in Dir::read_from(directory)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if !matches!(&name[..], b"." | b"..") {
            all.insert(name);
        }
    }
    Ok(all)
}

/// The mark of the kernel, or one of those of fuse-overlayfs.
fn is_opaque(directory: &OwnedFd) -> Result<bool, Errno> {
    if crate::unpack::is_opaque(directory)? {
        return Ok(true);
    }
    let mut value = [0u8; 2];
    let marked = rustix::fs::fgetxattr(directory, "user.fuseoverlayfs.opaque", &mut value[..]);
    Ok(matches!(marked, Ok(1) if value[0] == b'y') || stat(directory, OPAQUE).is_ok())
}
