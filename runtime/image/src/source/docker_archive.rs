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

pub(super) fn images(ingest: &Ingest<'_>, spool: &Spool) -> Result<Vec<NewImage>, ImageError> {
    let object = spool.object.as_str();
    let (digest, _) = spool.blob("manifest.json")?;
    let bytes = read_blob(ingest, digest, MAX_MANIFEST, object)?;
    let items: Vec<Item> =
        serde_json::from_slice(&bytes).map_err(|e| ImageError::malformed(object, format!("manifest.json: {e}")))?;
    if items.is_empty() {
        return Err(ImageError::malformed(object, "manifest.json lists no image"));
    }
    items.iter().map(|item| image(ingest, spool, item)).collect()
}

fn image(ingest: &Ingest<'_>, spool: &Spool, item: &Item) -> Result<NewImage, ImageError> {
    let object = spool.object.as_str();
    let (config_digest, config_size) = spool.blob(&item.config)?;
    // Its name is its digest; an archive whose name lies was tampered with.
    let stem = item.config.trim_end_matches(".json");
    let promised = stem.strip_prefix("blobs/sha256/").unwrap_or(stem);
    if crate::digest::is_hex64(promised) && promised != config_digest.hex() {
        return Err(ImageError::mismatch(
            format!("{object}: {}", item.config),
            format!("sha256:{promised}"),
            config_digest,
        ));
    }
    let bytes = read_blob(ingest, config_digest, MAX_CONFIG, object)?;
    let layers: Vec<(Digest, u64)> = item
        .layers
        .iter()
        .flatten()
        .map(|name| spool.blob(name).map(|(digest, size)| (digest.clone(), size)))
        .collect::<Result<_, _>>()?;
    let contents = read_config(&bytes, object, layers, &ingest.work.limits)?;
    let described: Vec<_> =
        contents.layers.iter().map(|l| (l.digest.clone(), l.size, layer_media_type(ingest, &l.digest))).collect();
    let manifest = manifest::write((config_digest, config_size), &described);
    let names = item.repo_tags.iter().flatten().map(|name| Reference::parse(name)).collect::<Result<_, _>>()?;
    Ok(NewImage {
        manifest: ingest.add_blob(&manifest)?,
        config_digest: config_digest.clone(),
        contents,
        others: Vec::new(),
        names,
    })
}
