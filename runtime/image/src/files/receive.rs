//! From a tar stream to files. The stream may come from a hostile container and the destination may be in one: names
//! are cleaned, parents are opened below the destination without following links, and files are made anew.

use super::base::{Base, below, reopen};
use super::{archive, failure, io, on};
use crate::decompress::decompressed;
use crate::tarball::{Entry, Kind, TarReader};
use crate::unpack::{clean, is_harmless, remove_tree, split};
use rlrun_spec::Failure;
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags, fstat, statat,
};
use rustix::io::Errno;
use std::io::{BufReader, Read};
use std::os::fd::{AsFd, OwnedFd};

/// Where what arrives is put.
pub struct Destination<'a> {
    /// Where the path begins.
    pub base: &'a Base,
    /// As the user wrote it.
    pub path: &'a [u8],
    /// How.
    pub how: Manner<'a>,
    /// Whose it becomes.
    pub owner: Owner,
    /// A directory may take the place of a file, and a file that of a directory.
    pub overwrite: bool,
}

/// How what arrives is put into its place.
#[derive(Clone, Copy)]
pub enum Manner<'a> {
    /// As cp(1) does: into a directory under this name (none: the contents of a source directory), or else as the path.
    Copy(Option<&'a [u8]>),
    /// An archive, unpacked into a directory.
    Unpack,
}

/// Whose the files become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// As the archive says.
    Kept,
    /// Of this user and group.
    Given(u32, u32),
    /// Of whoever receives. Nothing becomes set-user-ID then: a container must not make programs that run as its user.
    Receiver,
}

/// What became of the stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// Device nodes that were left out.
    pub devices: u64,
}

/// Where entries go.
enum Place {
    /// Below a directory, which has this path.
    Below(OwnedFd, Vec<u8>),
    /// One file, under this name.
    As(OwnedFd, Vec<u8>),
    /// Into a file that is there.
    Over(OwnedFd),
}

/// Reads the whole stream and makes its files.
///
/// # Errors
/// When the stream is no archive or ends early, or something cannot be made; what was made until then stays.
pub fn receive(input: impl Read + Send, to: &Destination<'_>) -> Result<Received, Failure> {
    let mut input = input;
    let plain: Box<dyn Read + '_> = match to.how {
        Manner::Unpack => Box::new(decompressed(&mut input).map_err(io("read the archive", to.path))?),
        Manner::Copy(_) => Box::new(&mut input),
    };
    let mut reader = TarReader::new(BufReader::with_capacity(256 << 10, plain));
    let mut next = reader.next_entry().map_err(archive(to.path))?;
    let place = match (to.how, &next) {
        (Manner::Unpack, _) => {
            let flags = OFlags::PATH | OFlags::DIRECTORY;
            let directory =
                to.base.open(to.path, flags).map_err(on("unpack an archive into the directory", to.path))?;
            Place::Below(directory, to.path.to_vec())
        }
        (Manner::Copy(_), None) => return Err(failure("copy to", to.path).why("nothing arrived")),
        (Manner::Copy(name), Some(first)) => place(to, name, first.kind == Kind::Directory)?,
    };
    let mut receiver = Receiver { to, place, parent: None, directories: Vec::new(), received: Received::default() };
    while let Some(entry) = next {
        receiver.entry(&entry, &mut reader)?;
        next = reader.next_entry().map_err(archive(to.path))?;
    }
    if !reader.ended() {
        return Err(failure("copy to", to.path).why("the archive ends early"));
    }
    // Whoever writes is to be read to the end.
    std::io::copy(&mut reader.into_inner(), &mut std::io::sink()).map_err(io("read the archive", to.path))?;
    receiver.finish()
}

/// Podman's rules, which are those of cp(1).
fn place(to: &Destination<'_>, name: Option<&[u8]>, is_directory: bool) -> Result<Place, Failure> {
    let path = to.path;
    let told = |why: &str| failure("copy to", path).why(why);
    match to.base.open(path, OFlags::PATH) {
        Ok(there) => {
            let stat = fstat(&there).map_err(on("look at", path))?;
            match (FileType::from_raw_mode(stat.st_mode), is_directory, name) {
                (FileType::Directory, true, None) => Ok(Place::Below(there, path.to_vec())),
                (FileType::Directory, true, Some(name)) => {
                    let below_path = join_path(path, name);
                    let made = make_directory(&there, name, to.overwrite).map_err(on("make", &below_path))?;
                    Ok(Place::Below(made, below_path))
                }
                (FileType::Directory, false, Some(name)) => Ok(Place::As(there, name.to_vec())),
                (FileType::Directory, false, None) => Err(told("it is a directory, and what is copied is not")),
                (FileType::RegularFile, false, _) => Ok(Place::Over(there)),
                (_, true, _) if to.overwrite => {
                    let (parent, leaf) = parent_of(to)?;
                    let made = make_directory(&parent, &leaf, true).map_err(on("make", path))?;
                    Ok(Place::Below(made, path.to_vec()))
                }
                (_, true, _) => {
                    Err(told("it is not a directory, and what is copied is one").hint("--overwrite replaces it"))
                }
                (_, false, _) => Err(told("it is neither a file nor a directory")),
            }
        }
        Err(Errno::NOENT) if !is_directory && path.ends_with(b"/") => Err(told("there is no such directory")),
        Err(Errno::NOENT) => {
            let (parent, leaf) = parent_of(to)?;
            if !is_directory {
                return Ok(Place::As(parent, leaf));
            }
            rustix::fs::mkdirat(&parent, &leaf[..], Mode::RWXU).map_err(on("make the directory", path))?;
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW;
            let made = below(&parent, &leaf, flags, ResolveFlags::BENEATH).map_err(on("open", path))?;
            Ok(Place::Below(made, path.to_vec()))
        }
        Err(errno) => Err(on("copy to", path)(errno)),
    }
}

fn join_path(path: &[u8], name: &[u8]) -> Vec<u8> {
    [path, b"/", name].concat()
}

fn parent_of(to: &Destination<'_>) -> Result<(OwnedFd, Vec<u8>), Failure> {
    let end = to.path.iter().rposition(|b| *b != b'/').map_or(0, |i| i + 1);
    let trimmed = &to.path[..end];
    let (parent, leaf) = match trimmed.iter().rposition(|b| *b == b'/') {
        Some(slash) => (&trimmed[..=slash], &trimmed[slash + 1..]),
        None => (&b""[..], trimmed),
    };
    if matches!(leaf, b"" | b"." | b"..") {
        return Err(failure("copy to", to.path).why("there is no such directory"));
    }
    let fd = to.base.open(parent, OFlags::PATH | OFlags::DIRECTORY).map_err(on("copy into", to.path))?;
    Ok((fd, leaf.to_vec()))
}

/// A directory of this name, which may be there. A link to a directory is not one.
fn make_directory(parent: &OwnedFd, name: &[u8], overwrite: bool) -> Result<OwnedFd, Errno> {
    let open = || {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        below(parent, name, flags, ResolveFlags::BENEATH)
    };
    match rustix::fs::mkdirat(parent, name, Mode::RWXU) {
        Ok(()) => open(),
        Err(Errno::EXIST) => match open() {
            Err(Errno::NOTDIR | Errno::LOOP) if overwrite => {
                rustix::fs::unlinkat(parent, name, AtFlags::empty())?;
                rustix::fs::mkdirat(parent, name, Mode::RWXU)?;
                open()
            }
            other => other,
        },
        Err(errno) => Err(errno),
    }
}

struct Receiver<'a> {
    to: &'a Destination<'a>,
    place: Place,
    /// The last parent directory: entries mostly come directory by directory.
    parent: Option<(Vec<u8>, OwnedFd)>,
    /// Directories that were made, whose modes and times come last.
    directories: Vec<(Vec<u8>, u32, (i64, u32))>,
    received: Received,
}

impl Receiver<'_> {
    fn entry<R: std::io::BufRead>(&mut self, entry: &Entry, reader: &mut TarReader<R>) -> Result<(), Failure> {
        let path = clean(&entry.path).map_err(|why| failure("unpack", &entry.path).why(why))?;
        if let Place::Over(there) = &self.place {
            let file = reopen(there, OFlags::WRONLY | OFlags::TRUNC).map_err(on("write", self.to.path))?;
            return self.fill(&file, entry, reader, self.to.path);
        }
        let (parent, name) = match &self.place {
            Place::As(parent, name) => (parent.try_clone().map_err(io("open", self.to.path))?, name.clone()),
            Place::Below(..) | Place::Over(_) if path.is_empty() => return self.top(entry),
            Place::Below(..) | Place::Over(_) => {
                let (parent, name) = split(&path);
                (self.directory(parent).map_err(on("open", parent))?, name.to_vec())
            }
        };
        match entry.kind {
            Kind::Directory => self.make(&parent, &name, &path, entry),
            Kind::File => {
                let file = self.create(&parent, &name).map_err(on("make", &path))?;
                self.fill(&file, entry, reader, &path)
            }
            Kind::Symlink => self
                .make_room(&parent, &name)
                .and_then(|()| rustix::fs::symlinkat(&entry.link[..], &parent, &name[..]))
                .and_then(|()| self.own_at(&parent, &name, entry))
                .map_err(on("make the link", &path)),
            Kind::HardLink => self.link(&parent, &name, &path, entry),
            Kind::Fifo => {
                let mode = Mode::from_raw_mode(entry.mode & 0o777);
                self.make_room(&parent, &name)
                    .and_then(|()| rustix::fs::mknodat(&parent, &name[..], FileType::Fifo, mode, 0))
                    .and_then(|()| self.own_at(&parent, &name, entry))
                    .map_err(on("make the pipe", &path))
            }
            Kind::Device => {
                self.received.devices += 1;
                Ok(())
            }
        }
    }

    /// The source directory itself, or the top of an archive, which is there already.
    fn top(&mut self, entry: &Entry) -> Result<(), Failure> {
        let Place::Below(directory, path) = &self.place else { return Ok(()) };
        let fresh = fstat(directory).is_ok_and(|stat| stat.st_mode & 0o7777 == 0o700 && stat.st_nlink <= 2);
        if fresh && matches!(self.to.how, Manner::Copy(_)) && is_empty(directory) {
            let fd = reopen(directory, OFlags::RDONLY | OFlags::DIRECTORY).map_err(on("open", path))?;
            self.own(&fd, entry).map_err(on("give away", path))?;
            self.directories.push((Vec::new(), entry.mode, entry.mtime));
        }
        Ok(())
    }

    fn make(&mut self, parent: &OwnedFd, name: &[u8], path: &[u8], entry: &Entry) -> Result<(), Failure> {
        match rustix::fs::mkdirat(parent, name, Mode::RWXU) {
            Ok(()) => {}
            Err(Errno::EXIST) => {
                let stat = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).map_err(on("look at", path))?;
                // A directory that was there keeps its owner and mode; a link to one serves inside a container.
                if FileType::from_raw_mode(stat.st_mode) == FileType::Directory || self.directory(path).is_ok() {
                    return Ok(());
                }
                if !self.to.overwrite {
                    let failure = failure("make the directory", path).why("something else has this name");
                    return Err(failure.hint("--overwrite replaces it"));
                }
                rustix::fs::unlinkat(parent, name, AtFlags::empty())
                    .and_then(|()| rustix::fs::mkdirat(parent, name, Mode::RWXU))
                    .map_err(on("make the directory", path))?;
            }
            Err(errno) => return Err(on("make the directory", path)(errno)),
        }
        self.own_at(parent, name, entry).map_err(on("give away", path))?;
        self.directories.push((path.to_vec(), entry.mode, entry.mtime));
        Ok(())
    }

    /// A directory of the destination, made with its parents where it is missing.
    fn directory(&mut self, path: &[u8]) -> Result<OwnedFd, Errno> {
        let again = |fd: &OwnedFd| rustix::io::fcntl_dupfd_cloexec(fd, 3);
        if let Some((cached, fd)) = &self.parent
            && cached == path
        {
            return again(fd);
        }
        let found = self.open_or_make(path)?;
        self.parent = Some((path.to_vec(), again(&found)?));
        Ok(found)
    }

    fn open_or_make(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        let Place::Below(top, top_path) = &self.place else { return Err(Errno::NOTDIR) };
        if path.is_empty() {
            return rustix::io::fcntl_dupfd_cloexec(top, 3);
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        match below(top, path, flags, ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS) {
            // In a container its own links lead to its own directories; on the host they could lead anywhere.
            Err(Errno::LOOP) if matches!(self.to.base, Base::Root(_)) => {
                self.to.base.open(&join_path(top_path, path), flags)
            }
            Err(Errno::NOENT) => {
                let (parent, name) = split(path);
                let parent = self.open_or_make(parent)?;
                match rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755)) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(errno) => return Err(errno),
                }
                below(&parent, name, flags | OFlags::NOFOLLOW, ResolveFlags::BENEATH)
            }
            other => other,
        }
    }

    fn create(&self, parent: &OwnedFd, name: &[u8]) -> Result<OwnedFd, Errno> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let make = || rustix::fs::openat(parent, name, flags, Mode::RUSR | Mode::WUSR);
        match make() {
            Err(Errno::EXIST) => match self.make_room(parent, name) {
                // Something is mounted there: a file that is written through.
                Err(Errno::BUSY) => {
                    let there = below(parent, name, OFlags::PATH | OFlags::NOFOLLOW, ResolveFlags::BENEATH)?;
                    match FileType::from_raw_mode(fstat(&there)?.st_mode) {
                        FileType::RegularFile => reopen(&there, OFlags::WRONLY | OFlags::TRUNC),
                        _ => Err(Errno::BUSY),
                    }
                }
                other => other.and_then(|()| make()),
            },
            other => other,
        }
    }

    /// Takes away what has the name of a file that comes.
    fn make_room(&self, parent: &OwnedFd, name: &[u8]) -> Result<(), Errno> {
        match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(Errno::ISDIR | Errno::PERM) if self.to.overwrite => remove_tree(parent, name),
            Err(errno) => Err(errno),
        }
    }

    fn link(&mut self, parent: &OwnedFd, name: &[u8], path: &[u8], entry: &Entry) -> Result<(), Failure> {
        let target = clean(&entry.link).map_err(|why| failure("unpack", path).why(why))?;
        let (target_parent, target_name) = split(&target);
        let directory = self.directory(target_parent).map_err(on("find", &target))?;
        self.make_room(parent, name)
            .and_then(|()| rustix::fs::linkat(&directory, target_name, parent, name, AtFlags::empty()))
            .map_err(on("make the hard link", path))
    }

    fn fill<R: std::io::BufRead>(
        &self,
        file: &OwnedFd,
        entry: &Entry,
        reader: &mut TarReader<R>,
        path: &[u8],
    ) -> Result<(), Failure> {
        let whole = [(0, u64::MAX)];
        let segments = entry.sparse.as_ref().map_or(&whole[..], |map| &map.segments);
        for &(mut offset, mut left) in segments {
            loop {
                let piece = reader.body(left).map_err(archive(path))?;
                if piece.is_empty() {
                    break;
                }
                let written = rustix::io::retry_on_intr(|| rustix::io::pwrite(file, piece, offset));
                let written = written.map_err(on("write", path))?;
                reader.consume(written);
                offset += written as u64;
                left -= written as u64;
            }
        }
        if let Some(map) = &entry.sparse {
            rustix::fs::ftruncate(file, map.real_size).map_err(on("write", path))?;
        }
        self.own(file, entry).map_err(on("give away", path))?;
        let mode = rustix::fs::fchmod(file, self.mode(entry.mode));
        mode.map_err(on("set the mode of", path))?;
        if self.to.owner != Owner::Receiver {
            for (name, value) in entry.xattrs.iter().filter(|(name, _)| is_harmless(name)) {
                // What the file system refuses is left out, as tar(1) does.
                rustix::fs::fsetxattr(file, &name[..], value, XattrFlags::empty()).ok();
            }
        }
        rustix::fs::futimens(file, &times(entry.mtime)).map_err(on("set the time of", path))
    }

    fn mode(&self, mode: u32) -> Mode {
        let bits = if self.to.owner == Owner::Receiver { 0o777 } else { 0o7777 };
        Mode::from_raw_mode(mode & bits)
    }

    fn ids(&self, entry: &Entry) -> Option<(Uid, Gid)> {
        let (uid, gid) = match self.to.owner {
            Owner::Receiver => return None,
            Owner::Given(uid, gid) => (uid, gid),
            Owner::Kept => (u32::try_from(entry.uid).ok()?, u32::try_from(entry.gid).ok()?),
        };
        // The kernel takes -1 for "as it is".
        (uid != u32::MAX && gid != u32::MAX).then(|| (Uid::from_raw(uid), Gid::from_raw(gid)))
    }

    fn own(&self, fd: impl AsFd, entry: &Entry) -> Result<(), Errno> {
        self.ids(entry).map_or(Ok(()), |(uid, gid)| rustix::fs::fchown(fd, Some(uid), Some(gid)))
    }

    fn own_at(&self, parent: &OwnedFd, name: &[u8], entry: &Entry) -> Result<(), Errno> {
        self.ids(entry).map_or(Ok(()), |(uid, gid)| {
            rustix::fs::chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
        })
    }

    /// Modes and times of directories, deepest first: making a file changes the time, and a mode may forbid it.
    fn finish(self) -> Result<Received, Failure> {
        let Place::Below(top, _) = &self.place else { return Ok(self.received) };
        for (path, mode, mtime) in self.directories.iter().rev() {
            let inside = if path.is_empty() { &b"."[..] } else { path };
            let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
            let set = below(top, inside, OFlags::RDONLY | OFlags::DIRECTORY, resolve).and_then(|directory| {
                rustix::fs::futimens(&directory, &times(*mtime))?;
                rustix::fs::fchmod(&directory, self.mode(*mode))
            });
            match set {
                // Somebody has taken it away or put a link there: it is theirs now.
                Ok(()) | Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR) => {}
                Err(errno) => return Err(on("set the mode of", path)(errno)),
            }
        }
        Ok(self.received)
    }
}

fn times(mtime: (i64, u32)) -> Timestamps {
    let time = Timespec { tv_sec: mtime.0, tv_nsec: i64::from(mtime.1) };
    Timestamps { last_access: time, last_modification: time }
}

fn is_empty(directory: &OwnedFd) -> bool {
    let Ok(fd) = reopen(directory, OFlags::RDONLY | OFlags::DIRECTORY) else { return false };
    let names = rustix::fs::Dir::read_from(&fd).into_iter().flatten().flatten();
    names.into_iter().all(|e| matches!(e.file_name().to_bytes(), b"." | b".."))
}
