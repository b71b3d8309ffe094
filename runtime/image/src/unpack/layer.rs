//! One layer: decompress, hash, read, extract, in one pass; then compare the hash with what was promised.

use super::entry::{self, Attributes};
use super::failure::At;
use super::idmap::IdMap;
use super::pipe::read_ahead;
use super::tree::{Tree, clean, split};
use super::whiteout::{self, Mark, mark};
use super::{LayerFacts, LayerJob};
use crate::decompress::{Bounded, decompressed};
use crate::digest::HashingReader;
use crate::limits::Limits;
use crate::tarball::{Entry, Kind, TarError, TarReader};
use rlrun_spec::Failure;
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::BufRead;
use std::os::fd::OwnedFd;
use std::path::Path;

/// What all layers of a job share.
pub(super) struct Rules {
    pub(super) uids: IdMap,
    pub(super) gids: IdMap,
    pub(super) limits: Limits,
}

/// An extracted layer.
pub(super) struct Extracted {
    pub(super) facts: LayerFacts,
    /// Directories without an entry of their own, whose attributes are those of the layers below.
    pub(super) implied: BTreeSet<Vec<u8>>,
}

/// Extracts a layer into `<stage>/<id>`, which must not exist.
pub(super) fn extract(job: &LayerJob, stage: &Path, rules: &Rules) -> Result<Extracted, Failure> {
    let name = format!("layer {}", &job.diff_id.hex()[..12]);
    let at = At { layer: &name, path: b"" };
    let blob = File::open(&job.blob).map_err(|e| entry::io_failure(at, &e))?;
    let plain = decompressed(blob).map_err(|e| at.tar(TarError::from(e)))?;
    let source = HashingReader::new(Bounded::new(plain, rules.limits.layer_bytes));
    let mut extraction = Extraction::new(make_root(&stage.join(&job.id)).map_err(|e| at.system(e))?, rules, &name);
    let ((), source) = read_ahead(source, |pipe| extraction.run(TarReader::new(pipe)), |e| at.tar(TarError::from(e)))?;
    let bytes = source.count();
    let digest = source.digest();
    if digest != job.diff_id {
        return Err(at.hostile(format!("its content has the digest {digest}, the image promises {}", job.diff_id)));
    }
    extraction.set_directory_times();
    Ok(Extracted {
        facts: LayerFacts {
            chain_id: job.chain_id.clone(),
            diff_id: digest,
            bytes,
            entries: extraction.entries,
            skipped_devices: extraction.skipped_devices,
            squashed_owners: extraction.squashed_owners,
            opaque_root: extraction.opaque_root,
        },
        implied: extraction.tree.implied().clone(),
    })
}

fn make_root(path: &Path) -> Result<OwnedFd, Errno> {
    rustix::fs::mkdir(path, Mode::from_raw_mode(0o755))?;
    rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// A layer being extracted.
struct Extraction<'a> {
    tree: Tree,
    rules: &'a Rules,
    layer: &'a str,
    /// Set at the end, since every entry made in a directory changes its times.
    directory_times: Vec<(Vec<u8>, Attributes)>,
    entries: u64,
    /// Sum of the files' sizes with their holes.
    content: u64,
    skipped_devices: u64,
    squashed_owners: u64,
    opaque_root: bool,
}

impl<'a> Extraction<'a> {
    fn new(root: OwnedFd, rules: &'a Rules, layer: &'a str) -> Self {
        Extraction {
            tree: Tree::new(root),
            rules,
            layer,
            directory_times: Vec::new(),
            entries: 0,
            content: 0,
            skipped_devices: 0,
            squashed_owners: 0,
            opaque_root: false,
        }
    }

    fn run<R: BufRead>(&mut self, mut reader: TarReader<R>) -> Result<(), Failure> {
        let whole = At { layer: self.layer, path: b"" };
        while let Some(entry) = reader.next_entry().map_err(|e| whole.tar(e))? {
            self.count(&entry)?;
            self.take(&entry, &mut reader)?;
        }
        Ok(())
    }

    /// Keeps within the limits; implied directories count as entries.
    fn count(&mut self, entry: &Entry) -> Result<(), Failure> {
        let at = At { layer: self.layer, path: &entry.path };
        let limits = &self.rules.limits;
        self.entries += 1;
        if self.entries + self.tree.implied().len() as u64 > limits.layer_entries {
            return Err(at.hostile(format!("it has more than {} entries", limits.layer_entries)));
        }
        self.content = self.content.saturating_add(entry::disk_size(entry));
        if self.content > limits.layer_bytes {
            return Err(at.hostile(format!("its files add up to more than {} bytes", limits.layer_bytes)));
        }
        Ok(())
    }

    fn take<R: BufRead>(&mut self, entry: &Entry, reader: &mut TarReader<R>) -> Result<(), Failure> {
        let at = At { layer: self.layer, path: &entry.path };
        let path = clean(&entry.path).map_err(|why| at.hostile(why))?;
        let (parent, name) = split(&path);
        // Nothing can be below a whiteout.
        let mut above = parent.split(|&b| b == b'/').map(mark);
        if above.clone().any(|m| m == Mark::Ignored) {
            return Ok(());
        }
        if above.any(|m| m != Mark::None) {
            return Err(at.hostile("its path leads through a whiteout"));
        }
        match mark(name) {
            Mark::None => self.make(&path, entry, reader, at),
            Mark::Ignored => Ok(()),
            Mark::Hostile => Err(at.hostile("a whiteout must name something in its directory")),
            Mark::Opaque => self.opaque(parent).map_err(|e| at.system(e)),
            Mark::Whiteout(hidden) => self.hide(parent, hidden).map_err(|e| at.system(e)),
        }
    }

    fn hide(&mut self, parent: &[u8], hidden: &[u8]) -> Result<(), Errno> {
        whiteout::hide(self.tree.directory(parent)?, hidden)
    }

    fn opaque(&mut self, parent: &[u8]) -> Result<(), Errno> {
        if parent.is_empty() {
            self.opaque_root = true;
            return Ok(());
        }
        let dir = whiteout::open_dir(self.tree.directory(parent)?, b".")?;
        whiteout::set_opaque(&dir)
    }

    fn make<R: BufRead>(
        &mut self,
        path: &[u8],
        entry: &Entry,
        reader: &mut TarReader<R>,
        at: At<'_>,
    ) -> Result<(), Failure> {
        if path.is_empty() && entry.kind != Kind::Directory {
            return Err(at.hostile("the root of a layer must be a directory"));
        }
        if entry.kind == Kind::Device {
            // mknod(2) of a device needs a privilege over the whole machine; containers get theirs from the engine.
            self.skipped_devices += 1;
            return Ok(());
        }
        if entry.kind == Kind::HardLink {
            return entry::hard_link(&mut self.tree, path, entry, at);
        }
        let attributes = self.attributes(entry, at)?;
        let system = |e| at.system(e);
        match entry.kind {
            Kind::Directory => {
                entry::directory(&mut self.tree, path, entry, attributes).map_err(system)?;
                self.directory_times.push((path.to_vec(), attributes));
                Ok(())
            }
            Kind::File => entry::file(&mut self.tree, path, entry, attributes, reader, at),
            Kind::Symlink => entry::symlink(&mut self.tree, path, entry, attributes).map_err(system),
            Kind::Fifo => entry::fifo(&mut self.tree, path, attributes).map_err(system),
            Kind::HardLink | Kind::Device => Ok(()),
        }
    }

    fn attributes(&mut self, entry: &Entry, at: At<'_>) -> Result<Attributes, Failure> {
        let (uids, gids) = (&self.rules.uids, &self.rules.gids);
        let squash = uids.is_single();
        if squash && (entry.uid, entry.gid) != (0, 0) {
            self.squashed_owners += 1;
        }
        let id = |map: &IdMap, what, id| match map.get(id) {
            _ if squash => Ok(0),
            Some(id) => Ok(id),
            None => Err(at.unmapped(what, id, &map.shown())),
        };
        Ok(Attributes {
            uid: id(uids, "user", entry.uid)?,
            gid: id(gids, "group", entry.gid)?,
            mode: entry.mode,
            mtime: entry.mtime,
        })
    }

    /// A directory may have been replaced since its entry; then its times do not matter any more.
    fn set_directory_times(&mut self) {
        for (path, attributes) in std::mem::take(&mut self.directory_times) {
            let (parent, name) = split(&path);
            let name = if name.is_empty() { &b"."[..] } else { name };
            if let Ok(dir) = self.tree.directory(parent) {
                rustix::fs::utimensat(dir, name, &attributes.times(), AtFlags::SYMLINK_NOFOLLOW).ok();
            }
        }
    }
}
