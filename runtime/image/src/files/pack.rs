//! From files to a tar stream. Each file is opened once, and what was opened is what is read.

use super::base::{Base, below, reader, reopen};
use super::write::{Body, Meta, Writer, Xattrs, fits};
use super::{MAX_DEPTH, failure, io, join, on};
use crate::unpack::is_harmless;
use rlrun_spec::Failure;
use rustix::fs::{Dir, FileType, OFlags, PROC_SUPER_MAGIC, ResolveFlags, Stat, fstat, fstatfs, readlinkat};
use rustix::io::Errno;
use std::collections::HashMap;
use std::io::Write;
use std::os::fd::OwnedFd;

const SYSFS_MAGIC: i64 = 0x6265_6572;
const CGROUP2_MAGIC: i64 = 0x6367_7270;

/// What is packed.
pub struct Source<'a> {
    /// Where the path begins.
    pub base: &'a Base,
    /// A file, or a directory with all that is in it; a link is followed.
    pub path: &'a [u8],
    /// What it is called in the archive; empty for a directory whose contents are at the archive's top.
    pub name: &'a [u8],
    /// From owners here to owners in the archive.
    pub owner: &'a dyn Fn(u32, u32) -> (u32, u32),
}

/// Writes the archive.
///
/// # Errors
/// When something cannot be read, or the stream not be written.
pub fn pack(source: &Source<'_>, out: impl Write) -> Result<(), Failure> {
    let shown = source.path;
    let fd = source.base.open(shown, OFlags::PATH).map_err(on("find", shown))?;
    let stat = fstat(&fd).map_err(on("look at", shown))?;
    let mut packer = Packer { writer: Writer::new(out), links: HashMap::new(), owner: source.owner, shown };
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            let top = if source.name.is_empty() { b"." } else { source.name };
            packer.directory(&fd, &stat, top, source.name, 0)?;
        }
        FileType::RegularFile => packer.leaf(None, &fd, &stat, source.name)?,
        _ => return Err(failure("copy", shown).why("it is neither a file nor a directory")),
    }
    packer.writer.finish().map_err(io("write the archive of", shown))
}

struct Packer<'a, W: Write> {
    writer: Writer<W>,
    /// Files with further names: device and inode to the name in the archive.
    links: HashMap<(u64, u64), Vec<u8>>,
    owner: &'a dyn Fn(u32, u32) -> (u32, u32),
    shown: &'a [u8],
}

impl<W: Write> Packer<'_, W> {
    fn meta(&self, stat: &Stat) -> Meta {
        let (uid, gid) = (self.owner)(stat.st_uid, stat.st_gid);
        Meta { uid, gid, ..Meta::of(stat) }
    }

    fn told(&self, name: &[u8]) -> Vec<u8> {
        join(self.shown, name)
    }

    /// A directory under its own name, then what is in it below `prefix`.
    fn directory(
        &mut self,
        fd: &OwnedFd,
        stat: &Stat,
        name: &[u8],
        prefix: &[u8],
        depth: usize,
    ) -> Result<(), Failure> {
        let told = self.told(prefix);
        if depth > MAX_DEPTH {
            return Err(failure("copy", &told).why("it is too deep"));
        }
        let directory = reopen(fd, OFlags::RDONLY | OFlags::DIRECTORY).map_err(on("open", &told))?;
        let xattrs = xattrs(&directory);
        self.writer.entry(name, self.meta(stat), &xattrs, Body::Directory).map_err(io("copy", &told))?;
        if depth > 0 && is_kernels(&directory) {
            return Ok(());
        }
        for entry in Dir::read_from(&directory).map_err(on("list", &told))? {
            let entry = entry.map_err(on("list", &told))?;
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            let path = join(prefix, name);
            let told = self.told(&path);
            let flags = OFlags::PATH | OFlags::NOFOLLOW;
            let fd = match below(&directory, name, flags, ResolveFlags::BENEATH) {
                Ok(fd) => fd,
                // It has gone meanwhile.
                Err(Errno::NOENT) => continue,
                Err(errno) => return Err(on("open", &told)(errno)),
            };
            let stat = fstat(&fd).map_err(on("look at", &told))?;
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => self.directory(&fd, &stat, &path, &path, depth + 1)?,
                kind if fits(kind) => self.leaf(Some((&directory, name)), &fd, &stat, &path)?,
                // Sockets and devices are nothing that could be copied.
                _ => {}
            }
        }
        Ok(())
    }

    fn leaf(
        &mut self,
        place: Option<(&OwnedFd, &[u8])>,
        fd: &OwnedFd,
        stat: &Stat,
        path: &[u8],
    ) -> Result<(), Failure> {
        let told = self.told(path);
        let meta = self.meta(stat);
        let key = (stat.st_dev, stat.st_ino);
        if stat.st_nlink > 1 {
            if let Some(first) = self.links.get(&key) {
                let written = self.writer.entry(path, meta, &Vec::new(), Body::HardLink(first));
                return written.map_err(io("copy", &told));
            }
            self.links.insert(key, path.to_vec());
        }
        let none = Vec::new();
        let written = match (FileType::from_raw_mode(stat.st_mode), place) {
            (FileType::RegularFile, _) => {
                let mut file = reader(fd).map_err(on("open", &told))?;
                let xattrs = xattrs(&file);
                let size = u64::try_from(stat.st_size).unwrap_or(0);
                self.writer.entry(path, meta, &xattrs, Body::File(size, &mut file))
            }
            (FileType::Symlink, _) => {
                // The link itself, which the descriptor names (readlinkat(2), empty path).
                let target = readlinkat(fd, "", Vec::new()).map_err(on("read the link", &told))?;
                self.writer.entry(path, meta, &none, Body::Symlink(target.as_bytes()))
            }
            (FileType::Fifo, Some(_)) => self.writer.entry(path, meta, &none, Body::Fifo),
            _ => return Ok(()),
        };
        written.map_err(io("copy", &told))
    }
}

/// What the kernel shows of itself is no file of the container: an archive of / is not to hold it.
fn is_kernels(directory: &OwnedFd) -> bool {
    fstatfs(directory).is_ok_and(|fs| fs.f_type == PROC_SUPER_MAGIC || matches!(fs.f_type, SYSFS_MAGIC | CGROUP2_MAGIC))
}

/// Attributes that may be put on files again. A file system that has none is fine.
pub(super) fn xattrs(fd: impl std::os::fd::AsFd) -> Xattrs {
    let mut names = vec![0u8; 1 << 14];
    let Ok(length) = rustix::fs::flistxattr(&fd, &mut names[..]) else { return Vec::new() };
    let mut all = Vec::new();
    for name in names[..length].split(|&b| b == 0).filter(|n| is_harmless(n)) {
        let mut value = vec![0u8; 1 << 16];
        if let Ok(length) = rustix::fs::fgetxattr(&fd, name, &mut value[..]) {
            value.truncate(length);
            all.push((name.to_vec(), value));
        }
    }
    all
}
