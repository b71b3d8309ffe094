//! The end of a command that adds: layers, blobs, records and names appear, in this order, each by a rename.

use super::ingest::{Ingest, NewImage, chain_ids, layer_dir};
use super::record::{Record, RecordName, RecordParts};
use super::sweep::unlink;
use super::{Store, Stored};
use crate::digest::Digest;
use crate::error::{ImageError, store_io};
use crate::provenance::Provenance;
use crate::unpack::ImageFacts;
use crate::work::Event;
use rustix::fs::{Mode, OFlags};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// The record of an image, on its way into the store.
struct Pending {
    record: Record,
    /// Where the finished file waits; None when the store had the record already.
    file: Option<PathBuf>,
}

impl Ingest<'_> {
    /// Makes the images visible.
    pub(crate) fn commit(self, images: Vec<NewImage>) -> Result<Vec<Stored>, ImageError> {
        let pending = self.prepare(&images)?;
        self.publish(&images, &pending)?;
        self.sync_names()?;
        let stored: Vec<Stored> = images.iter().map(|image| self.describe(image)).collect();
        for image in &stored {
            (self.work.progress)(&Event::Finished(image.identity.reference.clone()));
        }
        Ok(stored)
    }

    /// All that takes time: what remains after it are renames.
    fn prepare(&self, images: &[NewImage]) -> Result<Vec<Pending>, ImageError> {
        let known = images.iter().map(|i| self.store.known(i)).collect::<Result<Vec<_>, _>>()?;
        let provenances = images.iter().map(|i| self.provenance(i)).collect::<Result<Vec<_>, _>>()?;
        let fresh: Vec<&NewImage> = images.iter().zip(&known).filter(|(_, k)| k.is_none()).map(|(i, _)| i).collect();
        let mut facts = Vec::new();
        if !fresh.is_empty() {
            facts = self.finish_layers(&fresh)?;
            fresh.iter().try_for_each(|image| self.keep_blobs(image))?;
            self.sync()?;
        }
        let mut facts = facts.into_iter();
        let mut pending = Vec::new();
        for ((image, known), provenance) in images.iter().zip(known).zip(provenances) {
            pending.push(match (known, provenance) {
                // More may be known of where it is from than when it came.
                (Some(mut record), Some(provenance)) => {
                    let file = record.provenance.learn(provenance).then(|| self.write_record(&record)).transpose()?;
                    Pending { record, file }
                }
                (Some(record), None) => Pending { record, file: None },
                (None, provenance) => {
                    let facts = facts.next().unwrap_or_default();
                    let record = record(image, facts, self.unpacked(image)?, provenance.unwrap_or_default());
                    Pending { file: Some(self.write_record(&record)?), record }
                }
            });
        }
        Ok(pending)
    }

    /// Keeps the signatures that came along.
    fn provenance(&self, image: &NewImage) -> Result<Option<Provenance>, ImageError> {
        let Some(found) = &image.found else { return Ok(None) };
        let mut kept = Vec::new();
        for raw in found.raw.iter().filter(|raw| raw.about == image.manifest) {
            let digest = self.add_blob(&raw.bytes)?;
            let from = self.dir.join(digest.hex());
            if from.exists() {
                File::open(&from).and_then(|file| file.sync_all()).map_err(store_io("write a blob", &from))?;
                std::fs::rename(&from, self.store.blob(&digest)).map_err(store_io("write a blob", &from))?;
            }
            kept.push(digest);
        }
        Ok(Some(Provenance { signatures: found.verified.clone(), statements: found.statements.clone(), kept }))
    }

    fn finish_layers(&self, images: &[&NewImage]) -> Result<Vec<ImageFacts>, ImageError> {
        let mut extract = Vec::new();
        let mut seen = BTreeSet::new();
        let mut finish = Vec::new();
        for image in images {
            let chain = chain_ids(&image.contents.layers);
            for (layer, chain_id) in image.contents.layers.iter().zip(&chain) {
                let job = self.layer_job(layer, chain_id)?;
                extract.extend(job.filter(|j| seen.insert(j.id.clone())));
            }
            finish.push(chain.iter().rev().map(layer_dir).collect());
        }
        if !extract.is_empty() {
            (self.work.progress)(&Event::Unpacking { layers: extract.len() });
        }
        let images = self.run_unpack(extract, finish)?.images;
        Ok(images)
    }

    /// Bytes of an image's layers, uncompressed; all of them are extracted.
    fn unpacked(&self, image: &NewImage) -> Result<u64, ImageError> {
        let layers = chain_ids(&image.contents.layers);
        let bytes = layers.iter().map(layer_dir).map(|id| Ok(self.store.layer_facts(&id)?.map_or(0, |f| f.bytes)));
        bytes.sum()
    }

    /// Only what an image is made of: archives have further files.
    fn keep_blobs(&self, image: &NewImage) -> Result<(), ImageError> {
        for digest in blobs(image) {
            let from = self.dir.join(digest.hex());
            match std::fs::rename(&from, self.store.blobs().join(digest.hex())) {
                // It is in the store, or an image of the same command has it too.
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                other => other.map_err(store_io("write a blob", &from))?,
            }
        }
        Ok(())
    }

    /// Layers and blobs reach the disk before a record speaks of them. One syncfs(2), because an fsync(2) for each of
    /// 100,000 files takes minutes.
    fn sync(&self) -> Result<(), ImageError> {
        self.end_writeback();
        let fail = || store_io::<rustix::io::Errno>("write the image to disk", self.store.root());
        let dir = open_dir(self.store.root()).map_err(fail())?;
        rustix::fs::syncfs(&dir).map_err(fail())
    }

    /// Writes the record where nobody looks yet.
    fn write_record(&self, record: &Record) -> Result<PathBuf, ImageError> {
        let name = record.name().file_name();
        let path = self.incoming(&name);
        let fail = || store_io::<std::io::Error>("write the image record", &path);
        let bytes = serde_json::to_vec(record).map_err(|e| ImageError::malformed(name, e.to_string()))?;
        // The archive may list the same image twice.
        let mut file = File::create(&path).map_err(fail())?;
        file.write_all(&bytes).map_err(fail())?;
        file.sync_all().map_err(fail())?;
        Ok(path)
    }

    /// Under the lock, so that a record and its names come and go as one for removals and other commands.
    fn publish(&self, images: &[NewImage], pending: &[Pending]) -> Result<(), ImageError> {
        let _lock = self.store.lock_images()?;
        for Pending { record, file } in pending {
            let path = self.store.record_path(&record.name());
            let file = match file {
                Some(file) => file.clone(),
                None if path.exists() => continue,
                // Removed a moment ago. Its layers and blobs are there: nothing is swept while this command runs.
                None => self.write_record(record)?,
            };
            match std::fs::rename(&file, &path) {
                // The same image twice in one archive.
                Err(e) if e.kind() == std::io::ErrorKind::NotFound && path.exists() => {}
                other => other.map_err(store_io("write the image record", &path))?,
            }
        }
        for image in images {
            let record = record_name(image);
            image.names.iter().try_for_each(|name| self.store.link(&self.dir, name, &record))?;
        }
        self.drop_shadowed(images)
    }

    /// The same configuration came before with another manifest, whose last name has just moved: nobody would miss it, and
    /// `images` would list its id twice. Its layers are the new image's too; its blobs go with the next sweep.
    fn drop_shadowed(&self, images: &[NewImage]) -> Result<(), ImageError> {
        let named = self.store.names_by_record()?;
        for image in images.iter().filter(|i| !i.names.is_empty()) {
            let same_id = self.store.records_by_id(image.config_digest.hex())?;
            for record in same_id.iter().filter(|r| !named.contains_key(r)) {
                unlink(&self.store.record_path(record))?;
                self.store.mark()?;
            }
        }
        Ok(())
    }

    fn sync_names(&self) -> Result<(), ImageError> {
        for dir in [self.store.images_dir(), self.store.refs()] {
            let fail = || store_io::<rustix::io::Errno>("write the image to disk", &dir);
            rustix::fs::fsync(open_dir(&dir).map_err(fail())?).map_err(fail())?;
        }
        Ok(())
    }

    fn describe(&self, image: &NewImage) -> Stored {
        let ids: Vec<String> = chain_ids(&image.contents.layers).iter().map(layer_dir).collect();
        let staged = self.staged.borrow();
        let fresh = || ids.iter().filter_map(|id| staged.get(id));
        let names: Vec<String> = image.names.iter().map(ToString::to_string).collect();
        Stored {
            identity: image.identity(),
            names,
            skipped_devices: fresh().map(|f| f.skipped_devices).sum(),
            squashed_owners: fresh().map(|f| f.squashed_owners).sum(),
        }
    }
}

impl Store {
    /// The record of an image that is in the store with all its layers.
    fn known(&self, image: &NewImage) -> Result<Option<Record>, ImageError> {
        match Record::read(&self.record_path(&record_name(image))) {
            Ok(record) => Ok(record.filter(|r| r.layers.iter().all(|l| self.layers().join(l).is_dir()))),
            // A record that cannot be read is written anew.
            Err(ImageError::Malformed { .. }) => Ok(None),
            Err(e) => Err(e),
        }
    }
}

fn record(image: &NewImage, facts: ImageFacts, unpacked: u64, provenance: Provenance) -> Record {
    let mut layers: Vec<String> = chain_ids(&image.contents.layers).iter().rev().map(layer_dir).collect();
    let hidden_layers = layers.split_off(facts.visible.min(layers.len()));
    Record::new(RecordParts {
        name: record_name(image),
        config: image.contents.config.clone(),
        layers,
        hidden_layers,
        blobs: blobs(image),
        size: image.size(),
        unpacked,
        added: std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |d| d.as_secs()),
        passwd: facts.passwd,
        group: facts.group,
        provenance,
    })
}

fn record_name(image: &NewImage) -> RecordName {
    RecordName { id: image.config_digest.clone(), manifest: image.manifest.clone() }
}

fn blobs(image: &NewImage) -> Vec<Digest> {
    let layers = image.contents.layers.iter().map(|l| &l.digest);
    [&image.manifest, &image.config_digest].into_iter().chain(layers).chain(&image.others).cloned().collect()
}

fn open_dir(path: &Path) -> Result<OwnedFd, rustix::io::Errno> {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}
