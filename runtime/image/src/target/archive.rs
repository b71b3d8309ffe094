//! docker-archive and oci-archive, written front to back: the target may be a pipe.

use super::outgoing::{Outgoing, OutgoingLayer};
use super::write_error;
use crate::error::ImageError;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::path::Path;
use tar::{Builder, EntryType, Header};

const ANNOTATION: &str = "org.opencontainers.image.ref.name";

/// What `docker save` writes, for `docker load` and everything that reads it. Layers are uncompressed, as it wants them.
pub(super) fn docker(images: &[Outgoing], name: Option<&str>, out: &mut dyn Write) -> Result<(), ImageError> {
    let mut archive = Archive::new(out);
    let mut items = Vec::new();
    let mut repositories = Map::new();
    for (index, image) in images.iter().enumerate() {
        let mut tags: Vec<String> = image.names.iter().filter_map(|n| Some(n.tagged()?.to_string())).collect();
        if let Some(name) = name.filter(|_| index == 0) {
            tags = vec![crate::reference::Reference::parse(name)?.to_string()];
        }
        let config = format!("{}.json", image.config_digest().hex());
        archive.bytes(&config, &image.config)?;
        let mut layers = Vec::new();
        for layer in &image.layers {
            let path = format!("{}.tar", layer.diff_id.hex());
            if archive.is_new(&path) {
                let (size, reader) = (layer.plain_size()?, layer.plain()?);
                archive.stream(&path, size, reader)?;
            }
            layers.push(path);
        }
        let top = image.layers.last().map_or("", |l| l.diff_id.hex());
        for (repository, tag) in tags.iter().filter_map(|tag| tag.rsplit_once(':')) {
            let entry = repositories.entry(repository).or_insert_with(|| json!({}));
            entry[tag] = top.into();
        }
        items.push(json!({"Config": config, "RepoTags": tags, "Layers": layers}));
    }
    archive.bytes("manifest.json", Value::Array(items).to_string().as_bytes())?;
    archive.bytes("repositories", Value::Object(repositories).to_string().as_bytes())?;
    archive.finish()
}

/// An OCI layout in an archive.
pub(super) fn oci(image: &Outgoing, name: Option<&str>, out: &mut dyn Write) -> Result<(), ImageError> {
    let mut archive = Archive::new(out);
    let blob = |hex: &str| format!("blobs/sha256/{hex}");
    // Without entries of their own some readers want to give these directories to root.
    archive.directory("blobs/")?;
    archive.directory("blobs/sha256/")?;
    archive.bytes("oci-layout", LAYOUT)?;
    archive.bytes("index.json", &index(image, name))?;
    archive.bytes(&blob(image.digest().hex()), &image.manifest)?;
    archive.bytes(&blob(image.config_digest().hex()), &image.config)?;
    for layer in &image.layers {
        let path = blob(layer.digest.hex());
        if archive.is_new(&path) {
            archive.stream(&path, layer.size, layer.open()?)?;
        }
    }
    archive.finish()
}

pub(super) const LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

/// `index.json` of a layout with one image.
pub(super) fn index(image: &Outgoing, name: Option<&str>) -> Vec<u8> {
    let name = name.map(str::to_owned).or_else(|| image.names.first().map(ToString::to_string));
    let mut listed = json!({
        "mediaType": image.media_type,
        "digest": image.digest().as_str(),
        "size": image.manifest.len(),
    });
    if let Some(name) = name {
        listed["annotations"] = json!({ANNOTATION: name});
    }
    json!({"schemaVersion": 2, "manifests": [listed]}).to_string().into_bytes()
}

/// Entries of root without times: the same image gives the same archive.
struct Archive<'a> {
    tar: Builder<&'a mut dyn Write>,
    written: BTreeSet<String>,
}

impl<'a> Archive<'a> {
    fn new(out: &'a mut dyn Write) -> Self {
        Archive { tar: Builder::new(out), written: BTreeSet::new() }
    }

    fn is_new(&mut self, path: &str) -> bool {
        !self.written.contains(path)
    }

    fn directory(&mut self, path: &str) -> Result<(), ImageError> {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Directory);
        header.set_mode(0o755);
        header.set_size(0);
        header.set_mtime(0);
        self.tar.append_data(&mut header, path, io::empty()).map_err(|e| write_error(Path::new(path), &e))
    }

    fn bytes(&mut self, path: &str, bytes: &[u8]) -> Result<(), ImageError> {
        if !self.is_new(path) {
            return Ok(());
        }
        self.stream(path, bytes.len() as u64, bytes)
    }

    fn stream(&mut self, path: &str, size: u64, reader: impl Read) -> Result<(), ImageError> {
        self.written.insert(path.to_owned());
        let mut header = Header::new_gnu();
        header.set_mode(0o444);
        header.set_size(size);
        header.set_mtime(0);
        let mut exact = Exact { inner: reader, left: size };
        self.tar.append_data(&mut header, path, &mut exact).map_err(|e| write_error(Path::new(path), &e))
    }

    fn finish(mut self) -> Result<(), ImageError> {
        self.tar.finish().map_err(|e| write_error(Path::new("the archive"), &e))
    }
}

/// Yields exactly so many bytes, or an error: an entry of another length would shift all that follows.
struct Exact<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Exact<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        let wrong = || io::Error::new(io::ErrorKind::InvalidData, "a blob of the store has another size than it must");
        self.left = self.left.checked_sub(n as u64).ok_or_else(wrong)?;
        if n == 0 && self.left > 0 && !buf.is_empty() {
            return Err(wrong());
        }
        Ok(n)
    }
}

impl OutgoingLayer {
    /// Writes the blob as it is.
    pub(super) fn copy_to(&self, out: &mut impl Write, path: &Path) -> Result<(), ImageError> {
        let mut exact = Exact { inner: self.open()?, left: self.size };
        io::copy(&mut exact, out).map(drop).map_err(|e| write_error(path, &e))
    }
}
