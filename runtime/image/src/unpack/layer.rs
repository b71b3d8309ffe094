//! One layer: decompress, hash, read, extract, in one pass; then compare the hash with what was promised.

use super::entry::{self, Attributes};
use super::failure::At;
use super::idmap::IdMap;
use super::pipe::read_ahead;
use super::privileged::Notes;
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
    let privileged = std::mem::take(&mut extraction.privileged).finish(&extraction.tree);
    Ok(Extracted {
        facts: LayerFacts {
            chain_id: job.chain_id.clone(),
            diff_id: digest,
            bytes,
            entries: extraction.entries,
            skipped_devices: extraction.skipped_devices,
            squashed_owners: extraction.squashed_owners,
            opaque_root: extraction.opaque_root,
            privileged: Some(privileged),
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
    privileged: Notes,
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
            privileged: Notes::default(),
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
            entry::hard_link(&mut self.tree, path, entry, at)?;
            self.privileged.link(&self.tree, path);
            return Ok(());
        }
        let attributes = self.attributes(entry, at)?;
        let system = |e| at.system(e);
        match entry.kind {
            Kind::Directory => {
                entry::directory(&mut self.tree, path, entry, attributes).map_err(system)?;
                self.directory_times.push((path.to_vec(), attributes));
                Ok(())
            }
            Kind::File => {
                entry::file(&mut self.tree, path, entry, attributes, reader, at)?;
                self.privileged.file(&self.tree, path, entry);
                Ok(())
            }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use proptest::prelude::*;

    /// Names made of what goes wrong: dots, slashes, whiteouts, and few enough others that they meet.
    fn name() -> impl Strategy<Value = String> {
        let part = prop_oneof![
            20 => "[ab]",
            2 => Just("outside".to_owned()),
            1 => Just("..".to_owned()),
            1 => Just(".".to_owned()),
            1 => Just(String::new()),
            1 => ".wh.[ab.]{0,2}",
            1 => Just(".wh..wh..opq".to_owned()),
        ];
        proptest::collection::vec(part, 1..4).prop_map(|parts| parts.join("/"))
    }

    fn link() -> impl Strategy<Value = String> {
        let up = ["../../outside", "../outside", "..", "../..", "/", "../../outside/a", "/outside", "../../blob"];
        prop_oneof![2 => proptest::sample::select(up.to_vec()).prop_map(str::to_owned), 1 => name()]
    }

    /// Kind, name, link.
    fn entries() -> impl Strategy<Value = Vec<(u8, String, String)>> {
        let kind = proptest::sample::select(b"0122555".to_vec());
        proptest::collection::vec((kind, name(), link()), 1..12)
    }

    fn archive(entries: &[(u8, String, String)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        for (kind, name, link) in entries {
            let mut header = tar::Header::new_gnu();
            let fields = header.as_gnu_mut().unwrap();
            fields.name[..name.len()].copy_from_slice(name.as_bytes());
            fields.linkname[..link.len()].copy_from_slice(link.as_bytes());
            header.set_entry_type(tar::EntryType::new(*kind));
            header.set_size(0);
            header.set_mode(0o755);
            header.set_uid(uid.into());
            header.set_gid(gid.into());
            header.set_mtime(1);
            header.set_cksum();
            builder.append(&header, &[][..]).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn names(dir: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(dir).unwrap();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        /// Needs no user namespace: the owner of every entry is the one who runs the test.
        #[test]
        fn nothing_leaves_the_layers_directory(entries in entries()) {
            let scratch = tempfile::tempdir().unwrap();
            let at = |path: &str| scratch.path().join(path);
            std::fs::create_dir_all(at("outside/a")).unwrap();
            std::fs::create_dir(at("stage")).unwrap();
            let mut blob = File::create(at("blob")).unwrap();
            let bytes = archive(&entries);
            std::io::Write::write_all(&mut blob, &bytes).unwrap();
            let all = IdMap::read("/proc/self/uid_map").unwrap();
            let rules = Rules { uids: all.clone(), gids: all, limits: Limits::default() };
            let digest = Digest::of(&bytes);
            let job = LayerJob { id: "layer".into(), blob: at("blob"), diff_id: digest.clone(), chain_id: digest };
            // Most of these are refused; what matters is where they got to.
            drop(extract(&job, &at("stage"), &rules));
            prop_assert_eq!(names(scratch.path()), ["blob", "outside", "stage"]);
            prop_assert_eq!(names(&at("stage")), ["layer"]);
            prop_assert_eq!(names(&at("outside")), ["a"]);
            prop_assert_eq!(names(&at("outside/a")), Vec::<String>::new());
            prop_assert_eq!(std::fs::read(at("blob")).unwrap(), bytes);
        }
    }
}
