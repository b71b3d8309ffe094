//! Whether an extracted layer is still what its archive says. Both are read to the end; nothing is changed.

use super::failure::{At, on};
use super::idmap::IdMap;
use super::pipe::{PipeReader, read_ahead};
use super::tree::{clean, in_root, split};
use super::whiteout::{self, Mark, is_opaque, is_whiteout, mark, open_dir};
use super::{VerifyJob, VerifyLayer};
use crate::decompress::{Bounded, decompressed};
use crate::limits::Limits;
use crate::parallel;
use crate::tarball::{Entry, Kind, TarError, TarReader};
use rlrun_spec::Failure;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{BufRead, Read};
use std::os::fd::OwnedFd;
use std::path::Path;

const BUFFER: usize = 256 << 10;

/// What is wrong with each layer; None where nothing is.
pub(super) fn run(job: &VerifyJob) -> Result<Vec<Option<String>>, Failure> {
    let map = |file| IdMap::read(file).map_err(on("read the id map", Path::new(file)));
    let owners = (map("/proc/self/uid_map")?, map("/proc/self/gid_map")?);
    parallel::for_each(&job.layers, |layer| verify(layer, &owners, &job.limits))
}

fn verify(layer: &VerifyLayer, owners: &(IdMap, IdMap), limits: &Limits) -> Result<Option<String>, Failure> {
    let name = layer.blob.display().to_string();
    let at = At { layer: &name, path: b"" };
    let io = |e: std::io::Error| at.tar(TarError::from(e));
    let plain = decompressed(File::open(&layer.blob).map_err(io)?).map_err(io)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fail = on("look into the layer", &layer.directory);
    let root = rustix::fs::open(&layer.directory, flags, Mode::empty()).map_err(fail)?;
    let mut comparison = Comparison { root, owners, wrong: BTreeMap::new(), seen: HashSet::new() };
    let compare = |pipe: &mut PipeReader| {
        let mut reader = TarReader::new(pipe);
        while let Some(entry) = reader.next_entry().map_err(|e| at.tar(e))? {
            comparison.compare(&entry, &mut reader, at)?;
        }
        Ok(())
    };
    read_ahead(Bounded::new(plain, limits.layer_bytes), compare, io)?;
    comparison.look_for_more().map_err(on("look into the layer", &layer.directory))?;
    Ok(comparison.told())
}

/// One that is under way.
struct Comparison<'a> {
    root: OwnedFd,
    owners: &'a (IdMap, IdMap),
    /// What is wrong with a path, until a later entry of the archive is about the same path: the last of them counts.
    wrong: BTreeMap<Vec<u8>, Wrong>,
    /// Inodes of all that the archive has; a path may lead through symlinks.
    seen: HashSet<u64>,
}

struct Wrong {
    why: &'static str,
    /// What a hard link was compared with.
    with: Option<Vec<u8>>,
}

impl Comparison<'_> {
    fn compare<R: BufRead>(&mut self, entry: &Entry, reader: &mut TarReader<R>, at: At<'_>) -> Result<(), Failure> {
        // What could not be extracted is not there, and was told then.
        let Ok(mut path) = clean(&entry.path) else { return Ok(()) };
        let (parent, name) = split(&path);
        if entry.kind == Kind::Device || parent.split(|&b| b == b'/').any(|part| mark(part) != Mark::None) {
            return Ok(());
        }
        let directory = in_root(&self.root, parent, OFlags::PATH | OFlags::DIRECTORY);
        let why = match (mark(name), directory) {
            (Mark::Ignored | Mark::Hostile, _) => return Ok(()),
            (_, Err(_)) => Some("is missing"),
            (Mark::Whiteout(hidden), Ok(dir)) => self.see(&dir, hidden).is_none().then_some("is not hidden"),
            (Mark::Opaque, Ok(_)) if parent.is_empty() => None,
            (Mark::Opaque, Ok(dir)) => {
                let opaque = open_dir(&dir, b".").and_then(|dir| is_opaque(&dir));
                (!opaque.is_ok_and(|opaque| opaque)).then_some("does not hide what is below")
            }
            (Mark::None, Ok(dir)) => {
                self.settle(&path, entry.kind == Kind::Directory);
                let name = if name.is_empty() { &b"."[..] } else { name };
                match self.see(&dir, name) {
                    None => Some("is missing"),
                    Some(stat) if entry.kind == Kind::HardLink => {
                        self.linked(path, &stat, entry);
                        return Ok(());
                    }
                    Some(stat) => match self.differs(entry, &stat) {
                        None => content(entry, &dir, name, reader, at)?,
                        other => other,
                    },
                }
            }
        };
        if let Some(why) = why {
            if let Mark::Whiteout(hidden) = mark(name) {
                path = if parent.is_empty() { hidden.to_vec() } else { [parent, hidden].join(&b'/') };
            }
            self.wrong.insert(path, Wrong { why, with: None });
        }
        Ok(())
    }

    fn see(&mut self, dir: &OwnedFd, name: &[u8]) -> Option<Stat> {
        let stat = whiteout::stat(dir, name).ok()?;
        self.seen.insert(stat.st_ino);
        Some(stat)
    }

    /// A new entry replaces an earlier one, and all that was below it if it is no directory.
    fn settle(&mut self, path: &[u8], is_directory: bool) {
        if self.wrong.is_empty() {
            return;
        }
        let below = |p: &[u8]| p.strip_prefix(path).is_some_and(|rest| !is_directory && rest.first() == Some(&b'/'));
        self.wrong.retain(|p, wrong| p != path && wrong.with.as_deref() != Some(path) && !below(p));
    }

    fn linked(&mut self, path: Vec<u8>, stat: &Stat, entry: &Entry) {
        let Ok(target) = clean(&entry.link) else { return };
        let (parent, name) = split(&target);
        let there = in_root(&self.root, parent, OFlags::PATH | OFlags::DIRECTORY);
        let there = there.and_then(|dir| whiteout::stat(&dir, name));
        if !there.is_ok_and(|there| there.st_ino == stat.st_ino) {
            self.wrong.insert(path, Wrong { why: "is no link to what it should be", with: Some(target) });
        }
    }

    fn differs(&self, entry: &Entry, stat: &Stat) -> Option<&'static str> {
        let (uids, gids) = self.owners;
        let kind = match entry.kind {
            Kind::Directory => FileType::Directory,
            Kind::Symlink => FileType::Symlink,
            Kind::Fifo => FileType::Fifo,
            Kind::File | Kind::HardLink | Kind::Device => FileType::RegularFile,
        };
        let owner = (u64::from(stat.st_uid), u64::from(stat.st_gid));
        if FileType::from_raw_mode(stat.st_mode) != kind {
            Some("is of another kind")
        } else if kind != FileType::Symlink && stat.st_mode & 0o7777 != entry.mode & 0o7777 {
            Some("has another mode")
        } else if !uids.is_single() && !gids.is_single() && owner != (entry.uid, entry.gid) {
            Some("has another owner")
        } else if kind == FileType::RegularFile && u64::try_from(stat.st_size) != Ok(entry.size) {
            Some("has another size")
        } else {
            None
        }
    }

    /// Files that the archive knows nothing of. Directories may be there without an entry of their own.
    fn look_for_more(&mut self) -> Result<(), Errno> {
        let root = open_dir(&self.root, b".")?;
        self.walk(&root, &mut Vec::new())
    }

    fn walk(&mut self, dir: &OwnedFd, path: &mut Vec<u8>) -> Result<(), Errno> {
        for entry in Dir::read_from(dir)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            let whole = path.len();
            if whole > 0 {
                path.push(b'/');
            }
            path.extend_from_slice(name);
            let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                self.walk(&open_dir(dir, name)?, path)?;
            } else if !self.seen.contains(&stat.st_ino) {
                let why = if is_whiteout(&stat) { "is hidden" } else { "is no part of it" };
                self.wrong.entry(path.clone()).or_insert(Wrong { why, with: None });
            }
            path.truncate(whole);
        }
        Ok(())
    }

    fn told(&self) -> Option<String> {
        let (path, Wrong { why, .. }) = self.wrong.first_key_value()?;
        let path = if path.is_empty() { "/".to_owned() } else { path.escape_ascii().to_string() };
        let more = match self.wrong.len() - 1 {
            0 => String::new(),
            more => format!(", and {more} more"),
        };
        Some(format!("`{path}` {why}{more}"))
    }
}

/// What is wrong with the content of a file or a link.
fn content<R: BufRead>(
    entry: &Entry,
    dir: &OwnedFd,
    name: &[u8],
    reader: &mut TarReader<R>,
    at: At<'_>,
) -> Result<Option<&'static str>, Failure> {
    if entry.kind == Kind::Symlink {
        let link = rustix::fs::readlinkat(dir, name, Vec::new());
        return Ok((!link.is_ok_and(|link| link.to_bytes() == entry.link)).then_some("leads elsewhere"));
    }
    // Holes hold nothing, and the sizes are the same.
    if entry.kind != Kind::File || entry.sparse.is_some() {
        return Ok(None);
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::openat(dir, name, flags, Mode::empty()).map_err(|e| at.system(e))?);
    let mut there = vec![0; BUFFER.min(usize::try_from(entry.size).unwrap_or(BUFFER))];
    loop {
        let piece = reader.body(BUFFER as u64).map_err(|e| at.tar(e))?;
        if piece.is_empty() {
            return Ok(None);
        }
        let n = piece.len().min(there.len());
        match file.read_exact(&mut there[..n]) {
            Ok(()) if there[..n] == piece[..n] => reader.consume(n),
            // What is left of the archive's is passed over with the next entry.
            Ok(()) => return Ok(Some("has other content")),
            Err(_) => return Ok(Some("cannot be read")),
        }
    }
}
