//! Taking over an image of an additional store: as a pull, with a directory in the place of the registry. What is read
//! there may be anything; only digests count.

use super::spool::read_blob;
use crate::digest::Digest;
use crate::error::{ImageError, from_io};
use crate::manifest::{self, MAX_CONFIG, MAX_MANIFEST, Manifest};
use crate::provenance::Found;
use crate::reference::Reference;
use crate::registry::{MAX_SIGNATURE, MAX_SIGNATURES, RawSignature};
use crate::store::{BlobWriter, Elsewhere, Ingest, NewImage, Store, Stored, read_config};
use crate::trust::{self, Policy};
use crate::work::Event;
use rustix::fs::{Mode, OFlags};
use std::fs::File;
use std::io::Read;

const CHUNK: usize = 256 << 10;

pub(super) fn adopt(ingest: Ingest<'_>, found: &Elsewhere) -> Result<Stored, ImageError> {
    let Elsewhere { store, reference, record } = found;
    let object = reference.as_str();
    let name = Reference::parse(reference).ok();
    let policy = Policy::from_system()?;
    let mut raw = Vec::new();
    // At most so many are kept of one image.
    for digest in record.provenance.kept.iter().take(MAX_SIGNATURES) {
        copy(&ingest, store, digest, MAX_SIGNATURE)?;
        let bytes = read_blob(&ingest, digest, MAX_SIGNATURE, object)?;
        raw.push(RawSignature { about: record.manifest.clone(), bytes });
    }
    let verified = trust::check_adopted(&policy, name.as_ref(), store.root(), &raw)?;
    copy(&ingest, store, &record.manifest, MAX_MANIFEST)?;
    let bytes = read_blob(&ingest, &record.manifest, MAX_MANIFEST, object)?;
    let Manifest::Image(image) = manifest::parse(&bytes, None, object)? else {
        return Err(ImageError::malformed(object, "its manifest is an index"));
    };
    if image.config.digest != record.id {
        return Err(ImageError::mismatch("configuration", &record.id, image.config.digest));
    }
    copy(&ingest, store, &image.config.digest, MAX_CONFIG)?;
    let config = read_blob(&ingest, &image.config.digest, MAX_CONFIG, object)?;
    let described: Vec<(Digest, u64)> = image.layers.iter().map(|l| (l.digest.clone(), l.size)).collect();
    let contents = read_config(&config, object, described, &ingest.work.limits)?;
    let at = name.iter().map(|name| name.at(&record.manifest));
    let names = name.iter().filter_map(Reference::tagged).chain(at).collect();
    let new = NewImage {
        manifest: record.manifest.clone(),
        config_digest: image.config.digest,
        contents,
        others: Vec::new(),
        names,
        found: Some(Found { verified, statements: None, raw }),
    };
    ingest.approve(&new)?;
    for layer in &new.contents.layers {
        copy(&ingest, store, &layer.digest, layer.size)?;
    }
    let stored = ingest.commit(vec![new])?;
    stored.into_iter().next().ok_or_else(|| ImageError::Unknown { name: object.to_owned() })
}

/// Brings a blob of at most `max` bytes over, unless it is here.
fn copy(ingest: &Ingest<'_>, store: &Store, digest: &Digest, max: u64) -> Result<(), ImageError> {
    let name = digest.to_string();
    if ingest.blob_path(digest).is_some() {
        (ingest.work.progress)(&Event::Present(name));
        return Ok(());
    }
    let path = store.blob(digest);
    let fail = |e: std::io::Error| from_io("additional-store", "read a blob of", path.display().to_string(), &e);
    // Somebody else's directory may hold a pipe, which would keep whoever opens it waiting.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let fd = rustix::fs::open(&path, flags, Mode::empty()).map_err(|e| fail(e.into()))?;
    let mut file = File::from(fd).take(max.saturating_add(1));
    (ingest.work.progress)(&Event::BlobStarted { name: name.clone(), size: max });
    let mut writer = BlobWriter::new(ingest, digest.hex())?;
    let mut chunk = vec![0; CHUNK];
    loop {
        match file.read(&mut chunk).map_err(fail)? {
            0 => break,
            n => writer.write(&chunk[..n])?,
        }
        (ingest.work.progress)(&Event::BlobProgress { name: name.clone(), done: writer.size() });
    }
    let (actual, _, written) = writer.finish();
    if &actual != digest {
        return Err(ImageError::mismatch(path.display().to_string(), digest, actual));
    }
    (ingest.work.progress)(&Event::BlobDone(name));
    ingest.keep_blob(&written, digest)
}
