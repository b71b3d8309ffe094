//! The record of one image: all that `run` needs, in one file, so that resolving is one read.

use super::Store;
use crate::config::ImageConfig;
use crate::digest::{Digest, is_hex64};
use crate::error::{ImageError, store_io};
use crate::provenance::Provenance;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

const VERSION: u32 = 1;
/// What a reference points to begins with.
pub(crate) const LINK_PREFIX: &str = "../images/";
/// A configuration, and the accounts of an image.
const MAX_RECORD: u64 = 16 << 20;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    version: u32,
    pub(crate) manifest: Digest,
    pub(crate) id: Digest,
    pub(crate) config: ImageConfig,
    /// Directory names below `layers/`, top first.
    pub(crate) layers: Vec<String>,
    /// Layers that are swept with the image but not mounted: a layer above them hides them entirely.
    pub(crate) hidden_layers: Vec<String>,
    /// Everything below `blobs/` that is the image's.
    pub(crate) blobs: Vec<Digest>,
    /// Bytes of its layers as they came.
    pub(crate) size: u64,
    /// Bytes of its layers, uncompressed.
    #[serde(default)]
    pub(crate) unpacked: Option<u64>,
    /// Seconds since the epoch when it was added.
    pub(crate) added: u64,
    pub(crate) passwd: Option<String>,
    pub(crate) group: Option<String>,
    #[serde(default)]
    pub(crate) provenance: Provenance,
}

/// What a [`Record`] is made of beside its version.
pub(crate) struct RecordParts {
    pub(crate) name: RecordName,
    pub(crate) config: ImageConfig,
    pub(crate) layers: Vec<String>,
    pub(crate) hidden_layers: Vec<String>,
    pub(crate) blobs: Vec<Digest>,
    pub(crate) size: u64,
    pub(crate) unpacked: u64,
    pub(crate) added: u64,
    pub(crate) passwd: Option<String>,
    pub(crate) group: Option<String>,
    pub(crate) provenance: Provenance,
}

/// File name of a record: configuration digest, a dot, manifest digest. One configuration may come with several
/// manifests (the same layers compressed differently), and each is an image of its own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RecordName {
    pub(crate) id: Digest,
    pub(crate) manifest: Digest,
}

impl RecordName {
    pub(crate) fn file_name(&self) -> String {
        format!("{}.{}", self.id.hex(), self.manifest.hex())
    }

    /// None for a file that is no record, which is then nobody's business.
    pub(crate) fn from_file_name(name: &str) -> Option<Self> {
        let (id, manifest) = name.split_once('.')?;
        let digest = |hex: &str| if is_hex64(hex) { format!("sha256:{hex}").parse().ok() } else { None };
        Some(RecordName { id: digest(id)?, manifest: digest(manifest)? })
    }

    /// What a reference points to.
    pub(crate) fn link_target(&self) -> String {
        format!("{LINK_PREFIX}{}", self.file_name())
    }

    pub(crate) fn from_link_target(target: &Path) -> Option<Self> {
        Self::from_file_name(target.to_str()?.strip_prefix(LINK_PREFIX)?)
    }
}

impl Record {
    pub(crate) fn new(parts: RecordParts) -> Self {
        Record {
            version: VERSION,
            manifest: parts.name.manifest,
            id: parts.name.id,
            config: parts.config,
            layers: parts.layers,
            hidden_layers: parts.hidden_layers,
            blobs: parts.blobs,
            size: parts.size,
            unpacked: Some(parts.unpacked),
            added: parts.added,
            passwd: parts.passwd,
            group: parts.group,
            provenance: parts.provenance,
        }
    }

    /// Reads a record by the path of the record or of a reference to it; None when there is none.
    pub(crate) fn read(path: &Path) -> Result<Option<Self>, ImageError> {
        let Some(bytes) = bytes(path)? else { return Ok(None) };
        let record: Record = parse(path, &bytes)?;
        check(path, record.version).map(|()| Some(record))
    }

    /// The manifest, and the indexes that it was chosen from: whoever signed one of them signed the image.
    pub(crate) fn manifests(&self) -> impl Iterator<Item = &Digest> {
        // Manifest, configuration, layers, indexes: as the commit writes them.
        let layers = self.layers.len() + self.hidden_layers.len();
        self.blobs.iter().take(1).chain(self.blobs.iter().skip(2 + layers))
    }

    /// Everything below `blobs/` that goes when the image goes.
    pub(crate) fn all_blobs(&self) -> impl Iterator<Item = &Digest> {
        self.blobs.iter().chain(&self.provenance.kept)
    }

    /// Top first, with those that are not mounted.
    pub(crate) fn all_layers(&self) -> impl Iterator<Item = &str> {
        self.layers.iter().chain(&self.hidden_layers).map(String::as_str)
    }

    /// Each extracted layer with the blob that it is from, bottom first.
    pub(crate) fn layers_with_blobs(&self) -> impl Iterator<Item = (&str, &Digest)> {
        let top_first: Vec<&str> = self.all_layers().collect();
        top_first.into_iter().rev().zip(self.blobs.iter().skip(2))
    }

    pub(crate) fn name(&self) -> RecordName {
        RecordName { id: self.id.clone(), manifest: self.manifest.clone() }
    }
}

/// What lists show of a record; the rest is passed over, not read into memory.
#[derive(Deserialize)]
pub(crate) struct Head {
    version: u32,
    pub(crate) manifest: Digest,
    pub(crate) id: Digest,
    pub(crate) config: HeadConfig,
    pub(crate) size: u64,
    #[serde(default)]
    pub(crate) unpacked: Option<u64>,
    pub(crate) added: u64,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct HeadConfig {
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) created: Option<String>,
    architecture: String,
    os: String,
    variant: Option<String>,
}

impl Head {
    /// As [`Record::read`].
    pub(crate) fn read(path: &Path) -> Result<Option<Self>, ImageError> {
        let Some(bytes) = bytes(path)? else { return Ok(None) };
        let head: Head = parse(path, &bytes)?;
        check(path, head.version).map(|()| Some(head))
    }

    /// Whether a file of this name may hold it.
    pub(crate) fn is_of(&self, file_name: &str) -> bool {
        file_name.split_once('.') == Some((self.id.hex(), self.manifest.hex()))
    }

    pub(crate) fn platform(&self) -> String {
        let HeadConfig { os, architecture, variant, .. } = &self.config;
        ImageConfig::platform_of(os, architecture, variant.as_deref())
    }
}

fn bytes(path: &Path) -> Result<Option<Vec<u8>>, ImageError> {
    match super::read_plain(path, MAX_RECORD) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(store_io("read the image record", path)(e)),
    }
}

fn parse<'a, T: Deserialize<'a>>(path: &Path, bytes: &'a [u8]) -> Result<T, ImageError> {
    let malformed = |e| ImageError::malformed(path.display().to_string(), format!("image record: {e}"));
    serde_json::from_slice(bytes).map_err(malformed)
}

fn check(path: &Path, version: u32) -> Result<(), ImageError> {
    if version == VERSION {
        return Ok(());
    }
    let why = format!("image record: version {version} is not this rlrun's {VERSION}");
    Err(ImageError::malformed(path.display().to_string(), why))
}

impl Store {
    pub(crate) fn record_path(&self, name: &RecordName) -> std::path::PathBuf {
        self.images_dir().join(name.file_name())
    }
}
