//! `oci:` and `dir:`: directories, which must not hold anything yet.

use super::archive::{LAYOUT, index};
use super::outgoing::Outgoing;
use super::{create, write_error};
use crate::error::ImageError;
use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;

const DIR_VERSION: &[u8] = b"Directory Transport Version: 1.1\n";

pub(super) fn oci(image: &Outgoing, name: Option<&str>, target: &Path) -> Result<(), ImageError> {
    make_empty(target)?;
    let blobs = target.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).map_err(|e| write_error(&blobs, &e))?;
    write(&blobs.join(image.config_digest().hex()), &image.config)?;
    let mut written = BTreeSet::new();
    for layer in image.layers.iter().filter(|l| written.insert(&l.digest)) {
        let path = blobs.join(layer.digest.hex());
        layer.copy_to(&mut create(&path)?, &path)?;
    }
    write(&blobs.join(image.digest().hex()), &image.manifest)?;
    write(&target.join("oci-layout"), LAYOUT)?;
    // Last: what has no index is no layout yet.
    write(&target.join("index.json"), &index(image, name))
}

pub(super) fn dir(image: &Outgoing, target: &Path) -> Result<(), ImageError> {
    make_empty(target)?;
    let mut written = BTreeSet::new();
    for layer in image.layers.iter().filter(|l| written.insert(&l.digest)) {
        let path = target.join(layer.digest.hex());
        layer.copy_to(&mut create(&path)?, &path)?;
    }
    write(&target.join(image.config_digest().hex()), &image.config)?;
    for (number, signature) in (1..).zip(&image.signatures) {
        write(&target.join(format!("signature-{number}")), &signature.bytes)?;
    }
    write(&target.join("version"), DIR_VERSION)?;
    write(&target.join("manifest.json"), &image.manifest)
}

fn make_empty(target: &Path) -> Result<(), ImageError> {
    std::fs::create_dir_all(target).map_err(|e| write_error(target, &e))?;
    let mut entries = std::fs::read_dir(target).map_err(|e| write_error(target, &e))?;
    match entries.next() {
        None => Ok(()),
        Some(_) => Err(ImageError::NotEmpty { path: target.display().to_string() }),
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), ImageError> {
    create(path)?.write_all(bytes).map_err(|e| write_error(path, &e))
}
