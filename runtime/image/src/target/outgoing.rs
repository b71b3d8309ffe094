//! An image of the store with all its parts, ready to be written somewhere.

use crate::config;
use crate::decompress::decompressed;
use crate::digest::Digest;
use crate::error::{ImageError, from_io, store_io};
use crate::manifest::{self, DOCKER_MANIFEST, Form, Manifest, OCI_CONFIG, OCI_MANIFEST};
use crate::reference::Reference;
use crate::registry::RawSignature;
use crate::store::Store;
use crate::store::record::Record;
use serde_json::Value;
use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;

/// One image.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing {
    /// What it is to be called: the words that it was asked for by, where they are names.
    pub(crate) names: Vec<Reference>,
    pub(crate) manifest: Vec<u8>,
    pub(crate) media_type: String,
    pub(crate) config: Vec<u8>,
    /// Bottom first.
    pub(crate) layers: Vec<OutgoingLayer>,
    /// What it is called, if it is one of several platforms of what it was pulled from.
    pub(crate) one_platform_of: Option<String>,
    /// Signatures of the manifest that came with it.
    pub(crate) signatures: Vec<RawSignature>,
}

#[derive(Clone, Debug)]
pub(crate) struct OutgoingLayer {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    pub(crate) media_type: String,
    pub(crate) diff_id: Digest,
    pub(crate) path: PathBuf,
    /// Only its publisher distributes it, and the manifest says where: registries take the manifest without it.
    pub(crate) foreign: bool,
}

impl Store {
    /// Finds the image that all of `names` name.
    pub(crate) fn outgoing(&self, names: &[String]) -> Result<Outgoing, ImageError> {
        let first = names.first().ok_or_else(|| ImageError::reference("", "an image is missing"))?;
        let (_, record) = self.find(first)?;
        let mut references = Vec::new();
        for (index, name) in names.iter().enumerate() {
            match self.find_by_name(name) {
                Ok(Some((reference, _))) if index == 0 => references.push(reference),
                // An id is no name.
                Ok(None) | Err(ImageError::Reference { .. }) if index == 0 => {}
                Ok(_) => references.push(Reference::parse_local(name)?),
                Err(e) => return Err(e),
            }
        }
        let manifest = self.read_blob(&record.manifest)?;
        let Manifest::Image(image) = manifest::parse(&manifest, None, first)? else {
            return Err(ImageError::malformed(first, "its manifest is an index"));
        };
        let config = self.read_blob(&record.id)?;
        let about = |bytes| RawSignature { about: record.manifest.clone(), bytes };
        let signatures = record.provenance.kept.iter().map(|digest| self.read_blob(digest).map(about));
        let signatures = signatures.collect::<Result<_, _>>()?;
        let diff_ids = config::parse(&config, first)?.diff_ids;
        let layers = image.layers.into_iter().zip(diff_ids).map(|(layer, diff_id)| OutgoingLayer {
            path: self.blob(&layer.digest),
            foreign: !layer.foreign_urls().is_empty(),
            digest: layer.digest,
            size: layer.size,
            media_type: layer.media_type,
            diff_id,
        });
        let written = serde_json::from_slice::<Value>(&manifest).ok();
        let written = written.as_ref().and_then(|m| m.get("mediaType")?.as_str()).unwrap_or(OCI_MANIFEST).to_owned();
        let one_platform_of = self.is_of_several(&record, first)?.then(|| first.clone());
        let layers = layers.collect();
        Ok(Outgoing { names: references, media_type: written, layers, manifest, config, one_platform_of, signatures })
    }

    /// Whether an index that the image was chosen from has it for further platforms.
    fn is_of_several(&self, record: &Record, object: &str) -> Result<bool, ImageError> {
        for digest in record.manifests().skip(1) {
            if let Manifest::Index(list) = manifest::parse(&self.read_blob(digest)?, None, object)?
                && list.iter().filter(|listed| listed.is_for_a_machine()).count() > 1
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn read_blob(&self, digest: &Digest) -> Result<Vec<u8>, ImageError> {
        let path = self.blob(digest);
        std::fs::read(&path).map_err(store_io("read a blob", &path))
    }
}

impl Outgoing {
    pub(crate) fn digest(&self) -> Digest {
        Digest::of(&self.manifest)
    }

    pub(crate) fn config_digest(&self) -> Digest {
        Digest::of(&self.config)
    }

    /// With a manifest of OCI's types: readers of OCI layouts take no other. An OCI manifest stays byte for byte.
    pub(crate) fn as_oci(&self) -> Result<Self, ImageError> {
        if self.media_type != DOCKER_MANIFEST {
            return Ok(self.clone());
        }
        let mut oci = Outgoing { media_type: OCI_MANIFEST.to_owned(), ..self.clone() };
        for layer in &mut oci.layers {
            layer.media_type = Form::Oci.layer(&layer.media_type).unwrap_or_default();
        }
        oci.manifest = oci.written_anew(OCI_CONFIG)?;
        Ok(oci)
    }

    /// The manifest with its layers as they are now, and everything else as it was.
    pub(crate) fn written_anew(&self, config_type: &str) -> Result<Vec<u8>, ImageError> {
        let bad = |e: serde_json::Error| ImageError::malformed(self.digest().to_string(), e.to_string());
        let mut manifest: Value = serde_json::from_slice(&self.manifest).map_err(bad)?;
        let written = |(index, layer): (usize, &OutgoingLayer)| {
            let digest = layer.digest.as_str();
            let before = &manifest["layers"][index];
            // What else is said about a layer (annotations, where its publisher has it) is about these very bytes.
            let mut descriptor = if before["digest"] == digest { before.clone() } else { serde_json::json!({}) };
            descriptor["mediaType"] = layer.media_type.clone().into();
            descriptor["digest"] = digest.into();
            descriptor["size"] = layer.size.into();
            descriptor
        };
        let layers: Vec<Value> = self.layers.iter().enumerate().map(written).collect();
        manifest["mediaType"] = self.media_type.clone().into();
        manifest["layers"] = layers.into();
        manifest["config"]["mediaType"] = config_type.into();
        serde_json::to_vec(&manifest).map_err(bad)
    }
}

impl OutgoingLayer {
    pub(crate) fn open(&self) -> Result<File, ImageError> {
        File::open(&self.path).map_err(store_io("read a blob", &self.path))
    }

    /// Its archive, uncompressed.
    pub(crate) fn plain(&self) -> Result<Box<dyn Read + Send>, ImageError> {
        let fail = |e: io::Error| from_io("data-dir", "read a blob", self.path.display().to_string(), &e);
        decompressed(self.open()?).map_err(fail)
    }

    /// Bytes of its archive, uncompressed. They are counted where the blob is compressed: no header is to be believed.
    pub(crate) fn plain_size(&self) -> Result<u64, ImageError> {
        if self.compression()?.is_none() {
            return Ok(self.size);
        }
        let fail = |e: io::Error| from_io("data-dir", "read a blob", self.path.display().to_string(), &e);
        io::copy(&mut self.plain()?, &mut io::sink()).map_err(fail)
    }

    /// What it is compressed with, by its first bytes.
    pub(crate) fn compression(&self) -> Result<Option<&'static str>, ImageError> {
        let mut magic = Vec::new();
        let read = self.open()?.take(4).read_to_end(&mut magic);
        read.map_err(store_io("read a blob", &self.path))?;
        Ok(match magic[..] {
            [0x1f, 0x8b, ..] => Some("gzip"),
            [0x28, 0xb5, 0x2f, 0xfd] => Some("zstd"),
            _ => None,
        })
    }
}
