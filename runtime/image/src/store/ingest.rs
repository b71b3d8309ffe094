//! One command that adds images: everything is made in a directory of its own, then appears by renames.

use super::lock::Lock;
use super::record::{Record, RecordName};
use super::writeback::Writeback;
use super::{BlobWriter, Store};
use crate::config::{self, ImageConfig};
use crate::digest::Digest;
use crate::error::{ImageError, store_io};
use crate::manifest::{MAX_CONFIG, MAX_MANIFEST};
use crate::provenance::Found;
use crate::reference::Reference;
use crate::unpack::{self, Job, LayerFacts, LayerJob, RemoveJob, UnpackJob, UnpackReply};
use crate::work::{Event, Incoming, Work};
use rlrun_spec::ImageIdentity;
use rustix::fs::Mode;
use sha2::{Digest as _, Sha256};
use std::cell::RefCell;
use std::collections::BTreeMap;
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
    pub(crate) contents: Contents,
    /// Further blobs to keep: the index that the manifest was chosen from.
    pub(crate) others: Vec<Digest>,
    pub(crate) names: Vec<Reference>,
    /// None where the source knows nothing of it.
    pub(crate) found: Option<Found>,
}

/// What an image's configuration says, paired with what its manifest lists.
#[derive(Debug)]
pub(crate) struct Contents {
    pub(crate) config: ImageConfig,
    /// Bottom first.
    pub(crate) layers: Vec<NewLayer>,
    /// `created_by` of each history entry.
    pub(crate) history: Vec<String>,
}

impl NewImage {
    pub(super) fn identity(&self) -> ImageIdentity {
        ImageIdentity {
            reference: self.names.first().map_or_else(|| self.config_digest.to_string(), ToString::to_string),
            digest: self.manifest.to_string(),
            id: self.config_digest.to_string(),
            platform: self.contents.config.platform(),
        }
    }

    pub(super) fn size(&self) -> u64 {
        self.contents.layers.iter().map(|l| l.size).fold(0, u64::saturating_add)
    }
}

/// A running command that adds to the store.
pub(crate) struct Ingest<'a> {
    pub(crate) work: &'a Work<'a>,
    pub(super) store: &'a Store,
    pub(super) dir: PathBuf,
    /// Layers that are extracted into this command's directory.
    pub(super) staged: RefCell<BTreeMap<String, LayerFacts>>,
    writeback: RefCell<Option<Writeback>>,
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
        let ingest =
            Ingest { work, store, dir, staged: RefCell::default(), writeback: RefCell::default(), _lock: lock };
        let stage = ingest.stage();
        rustix::fs::mkdir(&stage, Mode::RWXU).map_err(store_io("create a directory", &stage))?;
        Ok(ingest)
    }

    /// Whether what is said about an image is known here.
    pub(crate) fn has_looked(&self, config: &Digest, manifest: &Digest) -> bool {
        let name = RecordName { id: config.clone(), manifest: manifest.clone() };
        let record = Record::read(&self.store.record_path(&name));
        record.is_ok_and(|record| record.is_some_and(|record| record.provenance.statements.is_some()))
    }

    /// Asks whether the image may come in. Every source does so before it has a layer unpacked.
    pub(crate) fn approve(&self, image: &NewImage) -> Result<(), ImageError> {
        let Contents { config, layers, history } = &image.contents;
        let (identity, layers) = (&image.identity(), layers.len());
        let object = identity.reference.as_str();
        let blob = |digest: &Digest, most| crate::source::read_blob(self, digest, most, object);
        let indexes = image.others.iter().map(|digest| blob(digest, MAX_MANIFEST)).collect::<Result<Vec<_>, _>>()?;
        Ok((self.work.approve)(&Incoming {
            manifest: &blob(&image.manifest, MAX_MANIFEST)?,
            config_json: &blob(&image.config_digest, MAX_CONFIG)?,
            indexes: &indexes,
            identity,
            config,
            history,
            layers,
            size: image.size(),
            signatures: image.found.as_ref().map_or(&[], |found| &found.verified),
            statements: image.found.as_ref().and_then(|found| found.statements.as_deref()),
        })?)
    }

    fn stage(&self) -> PathBuf {
        self.dir.join("layers")
    }

    /// There is something large to come.
    pub(crate) fn begin_writeback(&self) -> Result<(), ImageError> {
        let mut writeback = self.writeback.borrow_mut();
        if writeback.is_none() {
            *writeback = Some(Writeback::begin(self.store.root())?);
        }
        Ok(())
    }

    pub(super) fn end_writeback(&self) {
        drop(self.writeback.take());
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
    pub(super) fn layer_job(&self, layer: &NewLayer, chain_id: &Digest) -> Result<Option<LayerJob>, ImageError> {
        let id = layer_dir(chain_id);
        if self.staged.borrow().contains_key(&id) || self.store.has_layer(&id, chain_id)? {
            return Ok(None);
        }
        let missing = || ImageError::malformed(layer.digest.as_str(), "the layer's blob is missing");
        let blob = self.blob_path(&layer.digest).ok_or_else(missing)?;
        Ok(Some(LayerJob { id, blob, diff_id: layer.diff_id.clone(), chain_id: chain_id.clone() }))
    }

    pub(super) fn run_unpack(
        &self,
        extract: Vec<LayerJob>,
        finish: Vec<Vec<String>>,
    ) -> Result<UnpackReply, ImageError> {
        let ids: Vec<String> = extract.iter().map(|l| l.id.clone()).collect();
        if !ids.is_empty() {
            self.begin_writeback()?;
        }
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
        let Some(facts) = self.layer_facts(id)? else { return Ok(false) };
        if &facts.chain_id == chain_id {
            return Ok(true);
        }
        // 128 bits of two chain ids are equal: somebody made them so.
        Err(ImageError::mismatch(format!("layer {id}"), chain_id, &facts.chain_id))
    }
}

impl Store {
    /// None for a layer that is not there, or not complete.
    pub(super) fn layer_facts(&self, id: &str) -> Result<Option<LayerFacts>, ImageError> {
        let path = self.layers().join(format!("{id}.json"));
        match super::read_plain(&path, MAX_MANIFEST) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(store_io("read the layer's facts", &path)(e)),
        }
    }
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
) -> Result<Contents, ImageError> {
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
    Ok(Contents { config: parsed.config, layers, history: parsed.history })
}
