//! All that is known of one image, for those who look; reads only.

use super::Store;
use super::lookup::ImageSummary;
use crate::error::{ImageError, store_io};
use crate::manifest::{MAX_CONFIG, MAX_MANIFEST};
use serde_json::Value;
use std::fs::File;
use std::io::Read;
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
    pub layers: Vec<PathBuf>,
}

impl Store {
    /// Finds an image as [`Store::resolve`] does, and reads its documents.
    ///
    /// # Errors
    /// As [`Store::resolve`], or when a document is missing.
    pub fn details(&self, name: &str) -> Result<ImageDetails, ImageError> {
        let (_, record) = self.find(name)?;
        let names = self.names_by_record()?.remove(&record.name()).unwrap_or_default();
        let layers = self.layers();
        Ok(ImageDetails {
            config: self.document(&record.id, MAX_CONFIG)?,
            manifest: self.document(&record.manifest, MAX_MANIFEST)?,
            layers: record.layers.iter().chain(&record.hidden_layers).map(|l| layers.join(l)).collect(),
            summary: ImageSummary::new(&record, names),
        })
    }

    fn document(&self, digest: &crate::Digest, max: u64) -> Result<Value, ImageError> {
        let path = self.blobs().join(digest.hex());
        let mut bytes = Vec::new();
        let read = File::open(&path).and_then(|file| file.take(max).read_to_end(&mut bytes));
        read.map_err(store_io("read a blob", &path))?;
        serde_json::from_slice(&bytes).map_err(|e| ImageError::malformed(digest.as_str(), e.to_string()))
    }
}
