//! oci-archive: an OCI image layout in a tar archive. `index.json` lists manifests; their names are annotations.

use super::spool::{Spool, read_blob};
use crate::error::ImageError;
use crate::manifest::{self, Descriptor, MAX_CONFIG, MAX_MANIFEST, Manifest, Platform};
use crate::reference::Reference;
use crate::store::{Ingest, NewImage, read_config};

/// Where a full name stands before the specification's annotation, which most tools fill with a tag or a short name.
const NAMES: [&str; 2] = ["io.containerd.image.name", "org.opencontainers.image.ref.name"];

pub(super) fn images(ingest: &Ingest<'_>, spool: &Spool) -> Result<Vec<NewImage>, ImageError> {
    let object = spool.object.as_str();
    let (digest, _) = spool.blob("index.json")?;
    let bytes = read_blob(ingest, digest, MAX_MANIFEST, object)?;
    let Manifest::Index(list) = manifest::parse(&bytes, None, &format!("{object}: index.json"))? else {
        return Err(ImageError::malformed(object, "index.json is no index"));
    };
    if list.is_empty() {
        return Err(ImageError::malformed(object, "index.json lists no image"));
    }
    if list.iter().any(|d| name(d).is_some()) {
        // Each name is an image; the same name twice means several platforms, and the last that fits this machine stays.
        return list.iter().filter(|d| for_this_machine(d)).map(|d| image(ingest, spool, d)).collect();
    }
    let host = Platform::host();
    match &list[..] {
        [only] => Ok(vec![image(ingest, spool, only)?]),
        several => Ok(vec![image(ingest, spool, host.choose(several, object)?)?]),
    }
}

fn for_this_machine(descriptor: &Descriptor) -> bool {
    !descriptor.has_platform() || Platform::host().fits(descriptor)
}

fn name(descriptor: &Descriptor) -> Option<Reference> {
    // A layout may call its images what it likes; what is no reference leaves the image without a name.
    NAMES.iter().find_map(|key| Reference::parse_local(descriptor.annotation(key)?).ok())
}

fn image(ingest: &Ingest<'_>, spool: &Spool, listed: &Descriptor) -> Result<NewImage, ImageError> {
    let object = format!("{}: manifest {}", spool.object, listed.digest);
    let mut others = Vec::new();
    let mut descriptor = listed.clone();
    let found = loop {
        spool.oci_blob(&descriptor.digest, descriptor.size)?;
        let bytes = read_blob(ingest, &descriptor.digest, MAX_MANIFEST, &object)?;
        match manifest::parse(&bytes, None, &object)? {
            Manifest::Image(image) => break image,
            // An index within an index is one too many.
            Manifest::Index(_) if !others.is_empty() => {
                return Err(ImageError::malformed(object, "indexes are nested"));
            }
            Manifest::Index(list) => {
                let chosen = Platform::host().choose(&list, &object)?.clone();
                others.push(std::mem::replace(&mut descriptor, chosen).digest);
            }
        }
    };
    spool.oci_blob(&found.config.digest, found.config.size)?;
    let bytes = read_blob(ingest, &found.config.digest, MAX_CONFIG, &object)?;
    let mut layers = Vec::new();
    for layer in &found.layers {
        spool.oci_blob(&layer.digest, layer.size)?;
        layers.push((layer.digest.clone(), layer.size));
    }
    let contents = read_config(&bytes, &object, layers, &ingest.work.limits)?;
    Ok(NewImage {
        manifest: descriptor.digest,
        config_digest: found.config.digest,
        contents,
        others,
        names: name(listed).into_iter().collect(),
    })
}
