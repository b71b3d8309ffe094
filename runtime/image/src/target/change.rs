//! What may be changed about an image on its way out: how its layers are compressed, whose names its manifest uses. Its
//! configuration stays, and with it its id; its digest does not.

use super::outgoing::{Outgoing, OutgoingLayer};
use super::{no_place_for_signatures, unfit, write_error};
use crate::digest::{Digest, HashingReader};
use crate::error::{ImageError, store_io};
use crate::manifest::{DOCKER_MANIFEST, Form};
use crate::parallel;
use crate::store::Store;
use flate2::read::GzEncoder;
use serde_json::Value;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use tempfile::TempDir;

/// How layers are compressed where they go. Foreign ones stay as their publisher has them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// As they are.
    #[default]
    Kept,
    /// With gzip those that are not compressed.
    Missing,
    /// With gzip, all of them.
    Gzip,
    /// With zstd, all of them.
    Zstd,
}

/// Whose names the manifest uses where it goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ManifestForm {
    /// Those of whoever wrote it, unless what is in it has no name there.
    #[default]
    Kept,
    /// OCI's.
    Oci,
    /// Docker's, schema 2.
    Docker,
}

/// What becomes of an image's signatures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Signatures {
    /// They go along; what cannot take them is refused.
    #[default]
    Kept,
    /// They stay behind.
    Removed,
}

/// All of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Of the layers.
    pub compression: Compression,
    /// 1 to 9 for gzip, 1 to 20 for zstd; None is what each calls its default.
    pub level: Option<u8>,
    /// Of the manifest.
    pub form: ManifestForm,
    /// Beside the image.
    pub signatures: Signatures,
}

/// An image as it is to go; its new layers live as long as this.
pub(super) struct Changed {
    pub(super) image: Outgoing,
    _layers: Option<TempDir>,
}

impl Changes {
    /// Makes of the image what was asked for. The caller holds [`Store::lock_for_reading`], which keeps what is written
    /// here from being swept, and has it swept should it be killed.
    pub(super) fn apply(&self, store: &Store, mut image: Outgoing) -> Result<Changed, ImageError> {
        if self.signatures == Signatures::Removed {
            image.signatures.clear();
        }
        let before = image.digest();
        let scratch = match self.compression {
            Compression::Kept => None,
            _ => Some(
                tempfile::Builder::new()
                    .prefix("op-")
                    .tempdir_in(store.tmp())
                    .map_err(store_io("create a directory", &store.tmp()))?,
            ),
        };
        if let Some(scratch) = &scratch {
            image.layers = parallel::for_each(&image.layers, |layer| self.layer(layer, scratch.path()))?;
        }
        let form = self.form_of(&image)?;
        let (manifest_type, config_type) = form.types();
        let is_other = image.media_type != manifest_type;
        if is_other || image.layers.iter().any(|layer| layer.path.parent() == scratch.as_ref().map(TempDir::path)) {
            for layer in &mut image.layers {
                layer.media_type = form.layer(&layer.media_type).unwrap_or_default();
            }
            manifest_type.clone_into(&mut image.media_type);
            image.manifest = image.written_anew(config_type)?;
        }
        if form == Form::Docker && is_other {
            image.manifest = without_annotations(&image.manifest)?;
        }
        if image.digest() != before && !image.signatures.is_empty() {
            return Err(no_place_for_signatures("what is changed about the image changes the digest that was signed"));
        }
        Ok(Changed { image, _layers: scratch })
    }

    /// Docker's form has no name for zstd.
    fn form_of(&self, image: &Outgoing) -> Result<Form, ImageError> {
        let fits = |form: Form| image.layers.iter().all(|layer| form.layer(&layer.media_type).is_some());
        let docker = match self.form {
            // What nothing is changed about goes as it came, right or wrong.
            ManifestForm::Kept => {
                image.media_type == DOCKER_MANIFEST && (self.compression == Compression::Kept || fits(Form::Docker))
            }
            ManifestForm::Oci => false,
            ManifestForm::Docker if fits(Form::Docker) => true,
            ManifestForm::Docker => {
                let why = "docker's format has no layers compressed with zstd";
                return Err(unfit("--format v2s2", why, "--compression-format gzip makes others of them"));
            }
        };
        Ok(if docker { Form::Docker } else { Form::Oci })
    }

    fn layer(&self, layer: &OutgoingLayer, scratch: &Path) -> Result<OutgoingLayer, ImageError> {
        let there = layer.compression()?;
        let wanted = match (self.compression, there) {
            (Compression::Kept, _) | (Compression::Missing, Some(_)) => return Ok(layer.clone()),
            (Compression::Missing | Compression::Gzip, _) => "gzip",
            (Compression::Zstd, _) => "zstd",
        };
        if layer.foreign || there == Some(wanted) {
            return Ok(layer.clone());
        }
        // Two layers of one archive would be written at once.
        let path = tempfile::Builder::new().tempfile_in(scratch).map_err(|e| write_error(scratch, &e))?;
        let (file, path) = path.keep().map_err(|e| write_error(scratch, &e.error))?;
        let plain = layer.plain()?;
        let (digest, size) = match wanted {
            "gzip" => {
                let level =
                    self.level.map_or_else(flate2::Compression::default, |l| flate2::Compression::new(l.into()));
                write(GzEncoder::new(plain, level), file, &path)?
            }
            _ => {
                let level = self.level.map_or(zstd::DEFAULT_COMPRESSION_LEVEL, i32::from);
                let encoder = zstd::stream::read::Encoder::new(plain, level).map_err(|e| write_error(&path, &e))?;
                write(encoder, file, &path)?
            }
        };
        let bare = layer.media_type.trim_end_matches("+zstd").trim_end_matches("+gzip").trim_end_matches(".gzip");
        let media_type = format!("{bare}+{wanted}");
        Ok(OutgoingLayer { digest, size, media_type, path, ..layer.clone() })
    }
}

fn write(encoder: impl Read, mut file: File, path: &Path) -> Result<(Digest, u64), ImageError> {
    let mut hashing = HashingReader::new(encoder);
    io::copy(&mut hashing, &mut file).map_err(|e| write_error(path, &e))?;
    let size = hashing.count();
    Ok((hashing.digest(), size))
}

/// Docker's manifests have no place for what else an OCI manifest says about itself.
fn without_annotations(manifest: &[u8]) -> Result<Vec<u8>, ImageError> {
    let bad = |e: serde_json::Error| ImageError::malformed("the manifest", e.to_string());
    let mut manifest: Value = serde_json::from_slice(manifest).map_err(bad)?;
    if let Some(members) = manifest.as_object_mut() {
        members.retain(|key, _| matches!(key.as_str(), "schemaVersion" | "mediaType" | "config" | "layers"));
    }
    serde_json::to_vec(&manifest).map_err(bad)
}
