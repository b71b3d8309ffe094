//! OCI layouts and `dir:` directories: manifests with their blobs under names that follow from digests. In an OCI layout
//! `index.json` lists manifests, and their names are annotations; a `dir:` is one manifest without a name.

use super::spool::{Spool, read_blob};
use crate::digest::Digest;
use crate::error::ImageError;
use crate::manifest::{self, Descriptor, MAX_CONFIG, MAX_MANIFEST, Manifest, Platform};
use crate::reference::Reference;
use crate::registry::{MAX_SIGNATURE, RawSignature, read_signatures};
use crate::store::{Ingest, NewImage, read_config};

/// Where a full name stands before the specification's annotation, which most tools fill with a tag or a short name.
const NAMES: [&str; 2] = ["io.containerd.image.name", "org.opencontainers.image.ref.name"];

/// What a digest's file is called.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Naming {
    /// `blobs/sha256/<hex>`
    Oci,
    /// `<hex>`, manifests of an index `<hex>.manifest.json`
    Dir,
}

impl Naming {
    fn blob(self, digest: &Digest) -> String {
        match self {
            Naming::Oci => format!("blobs/sha256/{}", digest.hex()),
            Naming::Dir => digest.hex().to_owned(),
        }
    }

    fn manifest(self, digest: &Digest) -> String {
        match self {
            Naming::Oci => self.blob(digest),
            Naming::Dir => format!("{}.manifest.json", digest.hex()),
        }
    }
}

/// The images of an OCI layout: all that fit this machine, or the one of a name.
pub(super) fn images(ingest: &Ingest<'_>, spool: &Spool, wanted: Option<&str>) -> Result<Vec<NewImage>, ImageError> {
    let object = spool.object.as_str();
    let (digest, _) = spool.blob(ingest, "index.json")?;
    let bytes = read_blob(ingest, &digest, MAX_MANIFEST, object)?;
    let Manifest::Index(mut list) = manifest::parse(&bytes, None, &format!("{object}: index.json"))? else {
        return Err(ImageError::malformed(object, "index.json is no index"));
    };
    if list.is_empty() {
        return Err(ImageError::malformed(object, "index.json lists no image"));
    }
    if let Some(wanted) = wanted {
        list.retain(|d| is_called(d, wanted));
        if list.is_empty() {
            return Err(ImageError::Unknown { name: format!("{object}:{wanted}") });
        }
    }
    let alone = list.len() == 1;
    let image = |listed: &Descriptor| listed_image(ingest, spool, listed, alone);
    if list.iter().any(|d| name(d).is_some()) {
        // Each name is an image; the same name twice means several platforms, and the last that fits this machine stays.
        return list.iter().filter(|d| for_this_machine(d)).map(image).collect();
    }
    match &list[..] {
        [only] => Ok(vec![image(only)?]),
        several => Ok(vec![listed_image(ingest, spool, Platform::host().choose(several, object)?, true)?]),
    }
}

/// The one image of a `dir:`.
pub(super) fn directory(ingest: &Ingest<'_>, spool: &Spool) -> Result<NewImage, ImageError> {
    let (digest, _) = spool.blob(ingest, "manifest.json")?;
    image(ingest, spool, Naming::Dir, digest, Vec::new())
}

/// The signatures that a `dir:` holds beside its manifest.
pub(super) fn signatures(ingest: &Ingest<'_>, spool: &Spool) -> Result<Vec<RawSignature>, ImageError> {
    let (manifest, _) = spool.blob(ingest, "manifest.json")?;
    read_signatures(&manifest, |name| {
        if !spool.has(name) {
            return Ok(None);
        }
        let (digest, _) = spool.blob(ingest, name)?;
        read_blob(ingest, &digest, MAX_SIGNATURE, &spool.object).map(Some)
    })
}

/// `alone`: no other image is taken from there.
fn listed_image(ingest: &Ingest<'_>, spool: &Spool, listed: &Descriptor, alone: bool) -> Result<NewImage, ImageError> {
    spool.promised(ingest, &Naming::Oci.manifest(&listed.digest), &listed.digest, listed.size)?;
    let mut name = name(listed);
    if alone && spool.is_directory() && !has_whole_name(listed) {
        // A tag says which image of a directory it is, not what it is called: it gets the directory's name, as in podman.
        name = called_as(&spool.object).or(name);
    }
    image(ingest, spool, Naming::Oci, listed.digest.clone(), name.into_iter().collect())
}

fn has_whole_name(descriptor: &Descriptor) -> bool {
    NAMES.iter().any(|key| descriptor.annotation(key).is_some_and(|text| text.contains('/')))
}

/// None for a path that no image can be called by: names have no capitals.
fn called_as(path: &str) -> Option<Reference> {
    Reference::parse(&format!("localhost/{}", path.trim_matches('/'))).ok().filter(|name| name.digest().is_none())
}

fn is_called(descriptor: &Descriptor, wanted: &str) -> bool {
    let same = |text: &str| text == wanted || Reference::parse_local(wanted).ok() == Reference::parse_local(text).ok();
    NAMES.iter().any(|key| descriptor.annotation(key).is_some_and(same))
}

fn for_this_machine(descriptor: &Descriptor) -> bool {
    !descriptor.has_platform() || Platform::host().fits(descriptor)
}

fn name(descriptor: &Descriptor) -> Option<Reference> {
    // A layout may call its images what it likes; what is no reference leaves the image without a name.
    NAMES.iter().find_map(|key| Reference::parse_local(descriptor.annotation(key)?).ok())
}

/// The image of a manifest or index that has arrived.
fn image(
    ingest: &Ingest<'_>,
    spool: &Spool,
    naming: Naming,
    mut digest: Digest,
    names: Vec<Reference>,
) -> Result<NewImage, ImageError> {
    let object = format!("{}: manifest {digest}", spool.object);
    let mut others = Vec::new();
    let found = loop {
        let bytes = read_blob(ingest, &digest, MAX_MANIFEST, &object)?;
        match manifest::parse(&bytes, None, &object)? {
            Manifest::Image(image) => break image,
            // An index within an index is one too many.
            Manifest::Index(_) if !others.is_empty() => {
                return Err(ImageError::malformed(object, "indexes are nested"));
            }
            Manifest::Index(list) => {
                let chosen = Platform::host().choose(&list, &object)?;
                spool.promised(ingest, &naming.manifest(&chosen.digest), &chosen.digest, chosen.size)?;
                others.push(std::mem::replace(&mut digest, chosen.digest.clone()));
            }
        }
    };
    spool.promised(ingest, &naming.blob(&found.config.digest), &found.config.digest, found.config.size)?;
    let bytes = read_blob(ingest, &found.config.digest, MAX_CONFIG, &object)?;
    let mut layers = Vec::new();
    for layer in &found.layers {
        let file = naming.blob(&layer.digest);
        if let (false, Some(url)) = (spool.has(&file), layer.foreign_urls().first()) {
            // Its publisher gave it to another image that is here.
            if ingest.blob_path(&layer.digest).is_some() {
                layers.push((layer.digest.clone(), layer.size));
                continue;
            }
            let why = format!("layer {} is not in it: only its publisher distributes it", layer.digest);
            let hint = format!("its publisher has it at {}; `rlrun pull` fetches it from there", url.escape_default());
            return Err(ImageError::Registry { object, why, hint: Some(hint) });
        }
        spool.promised(ingest, &file, &layer.digest, layer.size)?;
        layers.push((layer.digest.clone(), layer.size));
    }
    let contents = read_config(&bytes, &object, layers, &ingest.work.limits)?;
    Ok(NewImage { manifest: digest, config_digest: found.config.digest, contents, others, names, found: None })
}
