//! `oci:` and `dir:`: directories, which must not hold anything yet.

use super::archive::{LAYOUT, index};
use super::outgoing::Outgoing;
use super::{Compression, create, no_place_for_signatures, write_error};
use crate::digest::{Digest, HashingReader};
use crate::error::ImageError;
use crate::manifest::{DOCKER_CONFIG, DOCKER_MANIFEST, OCI_CONFIG, OCI_LAYER};
use flate2::Compression as Level;
use flate2::read::GzEncoder;
use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::Path;

const DIR_VERSION: &[u8] = b"Directory Transport Version: 1.1\n";
const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";

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

/// Gives back the digest of the manifest, which compression changes.
pub(super) fn dir(image: &Outgoing, target: &Path, compression: Compression) -> Result<Digest, ImageError> {
    make_empty(target)?;
    let mut image = image.clone();
    let mut changed = false;
    for layer in &mut image.layers {
        if compression == Compression::Kept || layer.is_compressed()? {
            let path = target.join(layer.digest.hex());
            if !path.exists() {
                layer.copy_to(&mut create(&path)?, &path)?;
            }
            continue;
        }
        let path = target.join("incoming");
        let mut hashing = HashingReader::new(GzEncoder::new(layer.open()?, Level::default()));
        io::copy(&mut hashing, &mut create(&path)?).map_err(|e| write_error(&path, &e))?;
        (layer.size, layer.digest) = (hashing.count(), hashing.digest());
        let docker = image.media_type == DOCKER_MANIFEST;
        layer.media_type = if docker { DOCKER_LAYER_GZIP.to_owned() } else { format!("{OCI_LAYER}+gzip") };
        std::fs::rename(&path, target.join(layer.digest.hex())).map_err(|e| write_error(&path, &e))?;
        changed = true;
    }
    if changed && !image.signatures.is_empty() {
        return Err(no_place_for_signatures("compressing its layers changes the digest that was signed"));
    }
    if changed {
        let config = if image.media_type == DOCKER_MANIFEST { DOCKER_CONFIG } else { OCI_CONFIG };
        image.manifest = image.written_anew(config)?;
    }
    write(&target.join(image.config_digest().hex()), &image.config)?;
    for (number, signature) in (1..).zip(&image.signatures) {
        write(&target.join(format!("signature-{number}")), &signature.bytes)?;
    }
    write(&target.join("version"), DIR_VERSION)?;
    write(&target.join("manifest.json"), &image.manifest)?;
    Ok(image.digest())
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
