//! One command that adds images: everything is made in a directory of its own, then appears by renames.

use super::lock::Lock;
use super::record::{Record, RecordName, RecordParts};
use super::sweep::unlink;
use super::{BlobWriter, Store, Stored};
use crate::config::{self, ImageConfig};
use crate::digest::Digest;
use crate::error::{ImageError, store_io};
use crate::reference::Reference;
use crate::unpack::{self, ImageFacts, Job, LayerFacts, LayerJob, RemoveJob, UnpackJob, UnpackReply};
use crate::work::{Event, Work};
use rlrun_spec::ImageIdentity;
use rustix::fs::{CWD, Mode, OFlags};
use sha2::{Digest as _, Sha256};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};

/// A layer that has arrived.
#[derive(Clone, Debug)]
pub(crate) struct NewLayer {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    pub(crate) diff_id: Digest,
}

/// An image whose blobs have all arrived.
#[derive(Debug)]
pub(crate) struct NewImage {
    pub(crate) manifest: Digest,
    pub(crate) config_digest: Digest,
    pub(crate) config: ImageConfig,
    /// Bottom first.
    pub(crate) layers: Vec<NewLayer>,
    /// Further blobs to keep: the index that the manifest was chosen from.
    pub(crate) others: Vec<Digest>,
    pub(crate) names: Vec<Reference>,
}

/// A running command that adds to the store.
pub(crate) struct Ingest<'a> {
    pub(crate) work: &'a Work<'a>,
    store: &'a Store,
    dir: PathBuf,
    /// Layers that are extracted into this command's directory.
    staged: RefCell<BTreeMap<String, LayerFacts>>,
    _lock: Lock,
}

impl<'a> Ingest<'a> {
    pub(crate) fn begin(store: &'a Store, work: &'a Work<'a>) -> Result<Self, ImageError> {
        store.create()?;
        store.recover(work.ids)?;
        let lock = store.lock_shared()?;
        let dir = tempfile::Builder::new()
            .prefix("op-")
            .tempdir_in(store.tmp())
            .map_err(store_io("create a directory", &store.tmp()))?
            .keep();
        let ingest = Ingest { work, store, dir, staged: RefCell::default(), _lock: lock };
        let stage = ingest.stage();
        rustix::fs::mkdir(&stage, Mode::RWXU).map_err(store_io("create a directory", &stage))?;
        Ok(ingest)
    }

    fn stage(&self) -> PathBuf {
        self.dir.join("layers")
    }

    /// Where a blob may be written until it is complete; [`Ingest::keep_blob`] gives it its name.
    pub(crate) fn incoming(&self, name: &str) -> PathBuf {
        self.dir.join(format!("incoming-{name}"))
    }

    /// The file is complete and has this digest.
    pub(crate) fn keep_blob(&self, path: &Path, digest: &Digest) -> Result<(), ImageError> {
        std::fs::rename(path, self.dir.join(digest.hex())).map_err(store_io("write a blob", path))
    }

    pub(crate) fn add_blob(&self, bytes: &[u8]) -> Result<Digest, ImageError> {
        let digest = Digest::of(bytes);
        if self.blob_path(&digest).is_none() {
            let mut writer = BlobWriter::new(self, digest.hex())?;
            writer.write(bytes)?;
            writer.keep(self)?;
        }
        Ok(digest)
    }

    /// Where a blob is, here or in the store.
    pub(crate) fn blob_path(&self, digest: &Digest) -> Option<PathBuf> {
        [self.dir.join(digest.hex()), self.store.blobs().join(digest.hex())].into_iter().find(|p| p.is_file())
    }

    /// Extracts layers that have arrived, while others are still on their way. `layers` and `diff_ids` are the whole
    /// image's, bottom first; `arrived` are indices.
    pub(crate) fn unpack(&self, layers: &[NewLayer], arrived: &[usize]) -> Result<(), ImageError> {
        let chain = chain_ids(layers);
        let mut extract = Vec::new();
        for &index in arrived {
            extract.extend(self.layer_job(&layers[index], &chain[index])?);
        }
        if extract.is_empty() {
            return Ok(());
        }
        (self.work.progress)(&Event::Unpacking { layers: extract.len() });
        self.run_unpack(extract, Vec::new()).map(drop)
    }

    /// None when the layer is extracted already, here or in the store.
    fn layer_job(&self, layer: &NewLayer, chain_id: &Digest) -> Result<Option<LayerJob>, ImageError> {
        let id = layer_dir(chain_id);
        if self.staged.borrow().contains_key(&id) || self.store.has_layer(&id, chain_id)? {
            return Ok(None);
        }
        let missing = || ImageError::malformed(layer.digest.as_str(), "the layer's blob is missing");
        let blob = self.blob_path(&layer.digest).ok_or_else(missing)?;
        Ok(Some(LayerJob { id, blob, diff_id: layer.diff_id.clone(), chain_id: chain_id.clone() }))
    }

    fn run_unpack(&self, extract: Vec<LayerJob>, finish: Vec<Vec<String>>) -> Result<UnpackReply, ImageError> {
        let ids: Vec<String> = extract.iter().map(|l| l.id.clone()).collect();
        let job = Job::Unpack(UnpackJob {
            stage: self.stage(),
            layers: self.store.layers(),
            extract,
            finish,
            limits: self.work.limits,
        });
        let answer = self.work.ids.run(&unpack::encode(&job)?)?;
        let reply: UnpackReply = serde_json::from_slice(&answer)
            .map_err(|e| ImageError::malformed("the answer of the unpacking process", e.to_string()))?;
        self.staged.borrow_mut().extend(ids.into_iter().zip(reply.extracted.iter().cloned()));
        Ok(reply)
    }

    /// Makes the images visible: layers, blobs, records, names, in this order.
    pub(crate) fn commit(self, images: Vec<NewImage>) -> Result<Vec<Stored>, ImageError> {
        let known = images.iter().map(|i| self.known(i)).collect::<Result<Vec<_>, _>>()?;
        let fresh: Vec<&NewImage> = images.iter().zip(&known).filter(|(_, k)| !**k).map(|(i, _)| i).collect();
        if !fresh.is_empty() {
            let facts = self.finish_layers(&fresh)?;
            fresh.iter().try_for_each(|image| self.keep_blobs(image))?;
            self.sync()?;
            for (image, facts) in fresh.iter().zip(facts) {
                self.write_record(image, facts)?;
            }
        }
        let mut stored = Vec::new();
        for image in &images {
            for name in &image.names {
                self.link(name, image)?;
            }
            stored.push(self.describe(image));
        }
        self.drop_shadowed(&images)?;
        self.sync_names()?;
        for image in &stored {
            (self.work.progress)(&Event::Finished(image.identity.reference.clone()));
        }
        Ok(stored)
    }

    /// The image is in the store with all its layers.
    fn known(&self, image: &NewImage) -> Result<bool, ImageError> {
        let path = self.store.record_path(&record_name(image));
        let record = match Record::read(&path) {
            Ok(Some(record)) => record,
            // A record that cannot be read is written anew.
            Ok(None) | Err(ImageError::Malformed { .. }) => return Ok(false),
            Err(e) => return Err(e),
        };
        Ok(record.layers.iter().all(|l| self.store.layers().join(l).is_dir()))
    }

    fn finish_layers(&self, images: &[&NewImage]) -> Result<Vec<ImageFacts>, ImageError> {
        let mut extract = Vec::new();
        let mut seen = BTreeSet::new();
        let mut finish = Vec::new();
        for image in images {
            let chain = chain_ids(&image.layers);
            for (layer, chain_id) in image.layers.iter().zip(&chain) {
                let job = self.layer_job(layer, chain_id)?;
                extract.extend(job.filter(|j| seen.insert(j.id.clone())));
            }
            finish.push(chain.iter().rev().map(layer_dir).collect());
        }
        if !extract.is_empty() {
            (self.work.progress)(&Event::Unpacking { layers: extract.len() });
        }
        Ok(self.run_unpack(extract, finish)?.images)
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
        let fail = || store_io::<rustix::io::Errno>("write the image to disk", self.store.root());
        let dir = open_dir(self.store.root()).map_err(fail())?;
        rustix::fs::syncfs(&dir).map_err(fail())
    }

    fn write_record(&self, image: &NewImage, facts: ImageFacts) -> Result<(), ImageError> {
        use std::io::Write as _;
        let name = record_name(image);
        let chain = chain_ids(&image.layers);
        let mut layers: Vec<String> = chain.iter().rev().map(layer_dir).collect();
        let hidden_layers = layers.split_off(facts.visible.min(layers.len()));
        let record = Record::new(RecordParts {
            name: name.clone(),
            config: image.config.clone(),
            layers,
            hidden_layers,
            blobs: blobs(image),
            size: image.layers.iter().map(|l| l.size).sum(),
            added: std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |d| d.as_secs()),
            passwd: facts.passwd,
            group: facts.group,
        });
        let bytes = serde_json::to_vec(&record)
            .map_err(|e| ImageError::malformed(image.config_digest.as_str(), format!("image record: {e}")))?;
        let path = self.incoming("record");
        let fail = || store_io::<std::io::Error>("write the image record", &path);
        let mut file = File::create_new(&path).map_err(fail())?;
        file.write_all(&bytes).map_err(fail())?;
        file.sync_all().map_err(fail())?;
        std::fs::rename(&path, self.store.record_path(&name)).map_err(fail())
    }

    fn link(&self, name: &Reference, image: &NewImage) -> Result<(), ImageError> {
        let file = name.file_name();
        let new = self.dir.join("link");
        let path = self.store.refs().join(&file);
        let fail = || store_io::<rustix::io::Errno>("name the image", &path);
        rustix::fs::symlinkat(record_name(image).link_target(), CWD, &new).map_err(fail())?;
        rustix::fs::rename(&new, &path).map_err(fail())
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
        let ids: Vec<String> = chain_ids(&image.layers).iter().map(layer_dir).collect();
        let staged = self.staged.borrow();
        let fresh = || ids.iter().filter_map(|id| staged.get(id));
        let names: Vec<String> = image.names.iter().map(ToString::to_string).collect();
        Stored {
            identity: ImageIdentity {
                reference: names.first().cloned().unwrap_or_else(|| image.config_digest.to_string()),
                digest: image.manifest.to_string(),
                id: image.config_digest.to_string(),
                platform: image.config.platform(),
            },
            names,
            skipped_devices: fresh().map(|f| f.skipped_devices).sum(),
            squashed_owners: fresh().map(|f| f.squashed_owners).sum(),
        }
    }
}

impl Drop for Ingest<'_> {
    fn drop(&mut self) {
        if std::fs::remove_dir_all(&self.dir).is_err() {
            // Half a layer, with files of subordinate ids. If this fails too, the next command's recovery removes it.
            let job = Job::Remove(RemoveJob { paths: vec![self.dir.clone()], trash: self.store.tmp() });
            drop(unpack::encode(&job).and_then(|job| self.work.ids.run(&job)));
        }
    }
}

impl Store {
    /// Whether a layer is there, extracted and finished.
    fn has_layer(&self, id: &str, chain_id: &Digest) -> Result<bool, ImageError> {
        let dir = self.layers().join(id);
        if !dir.is_dir() {
            return Ok(false);
        }
        let path = self.layers().join(format!("{id}.json"));
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            Err(e) => return Err(store_io("read the layer's facts", &path)(e)),
        };
        let Ok(facts) = serde_json::from_slice::<LayerFacts>(&bytes) else { return Ok(false) };
        if &facts.chain_id == chain_id {
            return Ok(true);
        }
        // 128 bits of two chain ids are equal: somebody made them so.
        Err(ImageError::mismatch(format!("layer {id}"), chain_id, &facts.chain_id))
    }
}

fn blobs(image: &NewImage) -> Vec<Digest> {
    let layers = image.layers.iter().map(|l| &l.digest);
    [&image.manifest, &image.config_digest].into_iter().chain(layers).chain(&image.others).cloned().collect()
}

fn record_name(image: &NewImage) -> RecordName {
    RecordName { id: image.config_digest.clone(), manifest: image.manifest.clone() }
}

fn open_dir(path: &Path) -> Result<std::os::fd::OwnedFd, rustix::io::Errno> {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// A layer's directory: the first 128 bits of its chain id, so that a hundred of them fit into the page that mount(2)
/// takes. The rest is compared when a layer is reused.
pub(crate) fn layer_dir(chain_id: &Digest) -> String {
    chain_id.hex()[..32].to_owned()
}

/// The OCI image specification's ChainID of each layer: what a layer's directories look like depends on the layers
/// below when its archive leaves parent directories out.
pub(crate) fn chain_ids(layers: &[NewLayer]) -> Vec<Digest> {
    let mut chain: Vec<Digest> = Vec::with_capacity(layers.len());
    for layer in layers {
        let next = match chain.last() {
            None => layer.diff_id.clone(),
            Some(below) => Digest::from_hash(Sha256::new_with_prefix(format!("{below} {}", layer.diff_id))),
        };
        chain.push(next);
    }
    chain
}

/// Parses the configuration of an image whose manifest lists `layers` layers, and pairs them with their diff-ids.
pub(crate) fn read_config(
    bytes: &[u8],
    object: &str,
    layers: Vec<(Digest, u64)>,
    limits: &crate::limits::Limits,
) -> Result<(ImageConfig, Vec<NewLayer>), ImageError> {
    let parsed = config::parse(bytes, object)?;
    if parsed.diff_ids.len() != layers.len() {
        let why = format!("it has {} layers and {} diff-ids", layers.len(), parsed.diff_ids.len());
        return Err(ImageError::malformed(object, why));
    }
    if layers.len() > limits.layers {
        let why = format!("it has {} layers, more than the {} that can be mounted", layers.len(), limits.layers);
        return Err(ImageError::malformed(object, why));
    }
    let pair = |((digest, size), diff_id)| NewLayer { digest, size, diff_id };
    let layers = layers.into_iter().zip(parsed.diff_ids).map(pair).collect();
    Ok((parsed.config, layers))
}
