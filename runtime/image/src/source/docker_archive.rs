//! docker-archive: what `docker save` and `podman save` write. `manifest.json` names a configuration and layers for each
//! image; there is no registry manifest, so one is written.

use super::spool::{Spool, layer_media_type, read_blob};
use crate::digest::Digest;
use crate::error::ImageError;
use crate::manifest::{self, MAX_CONFIG, MAX_MANIFEST};
use crate::reference::Reference;
use crate::store::{Ingest, NewImage, read_config};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

/// The images of an archive: all, or the one of a name or, as `@N`, of a number.
pub(super) fn images(ingest: &Ingest<'_>, spool: &Spool, wanted: Option<&str>) -> Result<Vec<NewImage>, ImageError> {
    let object = spool.object.as_str();
    let (digest, _) = spool.blob(ingest, "manifest.json")?;
    let bytes = read_blob(ingest, &digest, MAX_MANIFEST, object)?;
    let items: Vec<Item> =
        serde_json::from_slice(&bytes).map_err(|e| ImageError::malformed(object, format!("manifest.json: {e}")))?;
    if items.is_empty() {
        return Err(ImageError::malformed(object, "manifest.json lists no image"));
    }
    let images = items.iter().enumerate().filter(|(index, item)| wanted.is_none_or(|w| is_meant(w, *index, item)));
    let images = images.map(|(_, item)| image(ingest, spool, item)).collect::<Result<Vec<_>, _>>()?;
    match (images.is_empty(), wanted) {
        (true, Some(wanted)) => Err(ImageError::Unknown { name: format!("{object}:{wanted}") }),
        _ => Ok(images),
    }
}

fn is_meant(wanted: &str, index: usize, item: &Item) -> bool {
    match wanted.strip_prefix('@') {
        Some(number) => number.parse() == Ok(index),
        None => {
            let wanted = Reference::parse(wanted).ok();
            wanted.is_some() && item.repo_tags.iter().flatten().any(|name| Reference::parse(name).ok() == wanted)
        }
    }
}

fn image(ingest: &Ingest<'_>, spool: &Spool, item: &Item) -> Result<NewImage, ImageError> {
    let object = spool.object.as_str();
    let (config_digest, config_size) = spool.blob(ingest, &item.config)?;
    // Its name is its digest; an archive whose name lies was tampered with.
    let stem = item.config.trim_end_matches(".json");
    let promised = stem.strip_prefix("blobs/sha256/").unwrap_or(stem);
    if crate::digest::is_hex64(promised) && promised != config_digest.hex() {
        return Err(ImageError::mismatch(
            format!("{object}: {}", item.config),
            format!("sha256:{promised}"),
            &config_digest,
        ));
    }
    let bytes = read_blob(ingest, &config_digest, MAX_CONFIG, object)?;
    let layers: Vec<(Digest, u64)> =
        item.layers.iter().flatten().map(|name| spool.blob(ingest, name)).collect::<Result<_, _>>()?;
    let contents = read_config(&bytes, object, layers, &ingest.work.limits)?;
    let described: Vec<_> =
        contents.layers.iter().map(|l| (l.digest.clone(), l.size, layer_media_type(ingest, &l.digest))).collect();
    let manifest = manifest::write((&config_digest, config_size), &described);
    let names = item.repo_tags.iter().flatten().map(|name| Reference::parse(name)).collect::<Result<_, _>>()?;
    Ok(NewImage {
        manifest: ingest.add_blob(&manifest)?,
        config_digest,
        contents,
        others: Vec::new(),
        names,
        found: None,
    })
}
