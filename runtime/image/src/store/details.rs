//! All that is known of one image, for those who look; reads only.

use super::Store;
use super::list::ImageSummary;
use crate::error::{ImageError, store_io};
use crate::manifest::{MAX_CONFIG, MAX_MANIFEST};
use crate::provenance::Provenance;
use serde_json::Value;
use std::path::PathBuf;

/// One image with the documents it came with.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageDetails {
    /// As in a list.
    pub summary: ImageSummary,
    /// Its configuration.
    pub config: Value,
    /// Its manifest.
    pub manifest: Value,
    /// Extracted layers, top first.
    pub layers: Vec<LayerDetails>,
    /// What was found out about it when it came in.
    pub provenance: Provenance,
}

/// One extracted layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerDetails {
    /// What it is called in the store: begins the digest over this layer and all below it.
    pub id: String,
    /// Its directory.
    pub path: PathBuf,
    /// Bytes of its archive, uncompressed.
    pub bytes: u64,
}

impl Store {
    /// Finds an image as [`Store::resolve`] does, and reads its documents.
    ///
    /// # Errors
    /// As [`Store::resolve`], or when a document is missing.
    pub fn details(&self, name: &str) -> Result<ImageDetails, ImageError> {
        let record = match self.find(name) {
            Ok((_, record)) => record,
            Err(unknown @ ImageError::Unknown { .. }) => {
                let elsewhere = self.elsewhere(name)?.ok_or(unknown)?;
                let mut details = elsewhere.store.details(name)?;
                details.summary.read_only = true;
                return Ok(details);
            }
            Err(e) => return Err(e),
        };
        let names = self.names_by_record()?.remove(&record.name()).unwrap_or_default();
        Ok(ImageDetails {
            config: self.document(&record.id, MAX_CONFIG)?,
            manifest: self.document(&record.manifest, MAX_MANIFEST)?,
            layers: record.all_layers().map(|id| self.layer(id)).collect::<Result<_, _>>()?,
            summary: ImageSummary::new(&record, names),
            provenance: record.provenance,
        })
    }

    fn layer(&self, id: &str) -> Result<LayerDetails, ImageError> {
        let facts = match self.layer_facts(id) {
            // A store that others share keeps its layers closed.
            Err(ImageError::System { errno, .. }) if errno.0 == rustix::io::Errno::ACCESS.raw_os_error() => None,
            other => other?,
        };
        Ok(LayerDetails { id: id.to_owned(), path: self.layers().join(id), bytes: facts.map_or(0, |f| f.bytes) })
    }

    fn document(&self, digest: &crate::Digest, max: u64) -> Result<Value, ImageError> {
        let path = self.blobs().join(digest.hex());
        let bytes = super::read_plain(&path, max).map_err(store_io("read a blob", &path))?;
        let actual = crate::Digest::of(&bytes);
        if &actual != digest {
            return Err(ImageError::mismatch("blob", digest, actual));
        }
        serde_json::from_slice(&bytes).map_err(|e| ImageError::malformed(digest.as_str(), e.to_string()))
    }
}
