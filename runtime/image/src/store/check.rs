//! `system check` and `system df`: whether the store holds what its records promise, and how much it is.

use super::Store;
use super::lookup::read_dir_names;
use super::record::{Record, RecordName};
use super::remove::InUse;
use super::sweep::unlink;
use crate::digest::{Digest, HashingReader};
use crate::error::{ImageError, store_io};
use crate::parallel;
use crate::unpack::{self, VerifyLayer};
use crate::work::{Event, InIdMap};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read as _};
use std::sync::atomic::{AtomicU64, Ordering};

/// Read at a time of a blob.
const CHUNK: usize = 256 << 10;
/// Bytes of archives that go to the process in the id map in one job: between two of them progress can be told.
const BATCH: u64 = 128 << 20;

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Images that were looked at.
    pub images: usize,
    /// Blobs whose content was compared with their digest.
    pub blobs: usize,
    /// Extracted layers that were compared with the archives they are from.
    pub layers: usize,
    /// What is wrong, each with the image that it concerns.
    pub damage: Vec<Damage>,
}

/// Something that is not as it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Image id; the file name of a record that cannot be read.
    pub image: String,
    /// The record: one id may have several.
    pub(crate) record: RecordName,
    /// What is wrong with it.
    pub why: String,
}

/// What images take of the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// How many images.
    pub images: usize,
    /// How many of them a container uses.
    pub active: usize,
    /// Bytes of blobs and extracted layers, each counted once.
    pub bytes: u64,
    /// Bytes that go when the images go that no container uses.
    pub reclaimable: u64,
}

/// How far a check is: bytes of blobs, and of archives whose layers were looked into.
struct Told<'a> {
    done: AtomicU64,
    total: u64,
    progress: &'a (dyn Fn(&Event) + Sync),
}

impl Told<'_> {
    fn more(&self, bytes: u64) {
        let done = self.done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        (self.progress)(&Event::Checking { done, total: self.total });
    }
}

/// A layer to look into.
struct Suspect {
    id: String,
    layer: VerifyLayer,
    /// Of its archive.
    bytes: u64,
}

impl Store {
    /// Reads every blob, and compares every extracted layer that a record names with its archive. Nothing is swept
    /// meanwhile. `progress` is told [`Event::Checking`], from several threads.
    ///
    /// # Errors
    /// When the store cannot be read, or the id map not be entered.
    pub fn check(&self, ids: &dyn InIdMap, progress: &(dyn Fn(&Event) + Sync)) -> Result<Checked, ImageError> {
        let _writers = self.lock_for_reading()?;
        let mut checked = Checked::default();
        let mut records = Vec::new();
        for name in self.record_names()? {
            checked.images += 1;
            match Record::read(&self.record_path(&name)) {
                Ok(Some(record)) => records.push(record),
                Ok(None) => {}
                Err(ImageError::Malformed { why, .. }) => {
                    checked.damage.push(Damage { image: name.file_name(), record: name, why });
                }
                Err(e) => return Err(e),
            }
        }
        // Blobs and layers are shared; each is read once.
        let digests: BTreeSet<&Digest> = records.iter().flat_map(Record::all_blobs).collect();
        let sized = |digest| (digest, std::fs::metadata(self.blob(digest)).map_or(0, |meta| meta.len()));
        let sizes: BTreeMap<&Digest, u64> = digests.into_iter().map(sized).collect();
        let mut archives: BTreeMap<&str, Vec<&Digest>> = BTreeMap::new();
        for (id, digest) in records.iter().flat_map(Record::layers_with_blobs) {
            archives.entry(id).or_default().push(digest);
        }
        let of_layers = archives.values().filter_map(|digests| sizes.get(digests.first()?));
        let told = Told { done: AtomicU64::new(0), total: sizes.values().chain(of_layers).sum(), progress };
        let items: Vec<&Digest> = sizes.keys().copied().collect();
        let found = parallel::for_each(&items, |digest| self.blob_damage(digest, &told))?;
        let blobs: BTreeMap<&Digest, Option<String>> = items.into_iter().zip(found).collect();
        let layers = self.layers_damage(&archives, (&blobs, &sizes), ids, &told)?;
        for record in &records {
            let bad_blobs = record.all_blobs().filter_map(|digest| blobs.get(digest)?.clone());
            let bad = bad_blobs.chain(record.all_layers().filter_map(|id| layers.get(id)?.clone()));
            let damage = |why| Damage { image: record.id.to_string(), record: record.name(), why };
            checked.damage.extend(bad.map(damage));
        }
        (checked.blobs, checked.layers) = (blobs.len(), layers.len());
        Ok(checked)
    }

    /// By the layers' ids.
    fn layers_damage(
        &self,
        archives: &BTreeMap<&str, Vec<&Digest>>,
        (blobs, sizes): (&BTreeMap<&Digest, Option<String>>, &BTreeMap<&Digest, u64>),
        ids: &dyn InIdMap,
        told: &Told<'_>,
    ) -> Result<BTreeMap<String, Option<String>>, ImageError> {
        let mut found = BTreeMap::new();
        let mut there = Vec::new();
        for (&id, digests) in archives {
            let directory = self.layers().join(id);
            let missing = !directory.is_dir() || self.layer_facts(id)?.is_none();
            found.insert(id.to_owned(), missing.then(|| format!("the extracted layer {id} is missing")));
            // Of a blob that is damaged itself there is nothing to be learnt.
            let sound = digests.iter().find(|digest| blobs.get(*digest).is_some_and(Option::is_none));
            if let Some(digest) = sound.filter(|_| !missing) {
                let bytes = sizes.get(digest).copied().unwrap_or_default();
                let layer = VerifyLayer { directory, blob: self.blob(digest) };
                there.push(Suspect { id: id.to_owned(), layer, bytes });
            }
        }
        // The largest first, so that the last batch has something for every processor.
        there.sort_by_key(|suspect| std::cmp::Reverse(suspect.bytes));
        let mut there = there.into_iter().peekable();
        while there.peek().is_some() {
            let (mut names, mut jobs, mut bytes) = (Vec::new(), Vec::new(), 0);
            while bytes < BATCH || jobs.len() < parallel::processors() {
                let Some(suspect) = there.next() else { break };
                bytes += suspect.bytes;
                names.push(suspect.id);
                jobs.push(suspect.layer);
            }
            for (id, wrong) in names.into_iter().zip(unpack::verify(ids, jobs)?) {
                let why = wrong.map(|wrong| format!("the extracted layer {id} is not what its archive says: {wrong}"));
                found.insert(id, why);
            }
            told.more(bytes);
        }
        Ok(found)
    }

    /// Removes the images that [`Store::check`] found damaged, with all that no other image needs, so that they can be
    /// fetched again. An image that a container uses stays. Gives back what is still damaged.
    ///
    /// # Errors
    /// When the store cannot be read or changed.
    pub fn repair(&self, checked: &Checked, in_use: InUse<'_>, ids: &dyn InIdMap) -> Result<Vec<Damage>, ImageError> {
        let mut left = Vec::new();
        {
            let _images = self.lock_images()?;
            for damage in &checked.damage {
                if let Some(user) = in_use(&damage.image) {
                    let why = format!("{}; {user}", damage.why);
                    left.push(Damage { why, ..damage.clone() });
                    continue;
                }
                unlink(&self.record_path(&damage.record))?;
            }
        }
        self.sweep(ids)?;
        Ok(left)
    }

    fn blob_damage(&self, digest: &Digest, told: &Told<'_>) -> Result<Option<String>, ImageError> {
        let path = self.blob(digest);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Some(format!("the blob {digest} is missing"))),
            Err(e) => return Err(store_io("read a blob", &path)(e)),
        };
        let mut hashing = HashingReader::new(file);
        let mut chunk = vec![0; CHUNK];
        loop {
            match hashing.read(&mut chunk) {
                Ok(0) => break,
                Ok(n) => told.more(n as u64),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(store_io("read a blob", &path)(e)),
            }
        }
        let actual = hashing.digest();
        Ok((&actual != digest).then(|| format!("the blob {digest} has the digest {actual}")))
    }

    /// Sums up what images take. `in_use` answers for an image id with a container that uses it.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn usage(&self, in_use: InUse<'_>) -> Result<Usage, ImageError> {
        let mut usage = Usage::default();
        let (mut blobs, mut layers) = (BTreeSet::new(), BTreeSet::new());
        for name in self.record_names()? {
            let Ok(Some(record)) = Record::read(&self.record_path(&name)) else { continue };
            usage.images += 1;
            if in_use(record.id.as_str()).is_some() {
                usage.active += 1;
                blobs.extend(record.all_blobs().map(|d| d.hex().to_owned()));
                layers.extend(record.all_layers().map(str::to_owned));
            }
        }
        for name in read_dir_names(&self.blobs())? {
            let bytes = std::fs::metadata(self.blobs().join(&name)).map_or(0, |m| m.len());
            usage.add(bytes, blobs.contains(&name));
        }
        for name in read_dir_names(&self.layers())?.iter().filter_map(|name| name.strip_suffix(".json")) {
            let bytes = self.layer_facts(name)?.map_or(0, |facts| facts.bytes);
            usage.add(bytes, layers.contains(name));
        }
        Ok(usage)
    }
}

impl Usage {
    fn add(&mut self, bytes: u64, needed: bool) {
        self.bytes += bytes;
        self.reclaimable += if needed { 0 } else { bytes };
    }
}
