//! `commit`: an image becomes another one by a layer on top of it and a changed configuration.

use super::import::{Empty, now, spool};
use crate::digest::Digest;
use crate::error::ImageError;
use crate::manifest::{self, Form, Platform};
use crate::reference::Reference;
use crate::store::{Ingest, NewImage, Store, Stored, read_config};
use crate::work::Work;
use serde_json::{Map, Value, json};
use std::io::Read;

/// What a new image is made of, beside its layer.
pub struct Commit<'a> {
    /// The image that it grows from, by id; None: the layer is everything.
    pub base: Option<&'a str>,
    /// The configuration is the base's all the same, but the layer is everything.
    pub squash: bool,
    /// What it is to be called.
    pub name: Option<&'a str>,
    /// Changes the `config` of the configuration.
    pub change: &'a dyn Fn(&mut Map<String, Value>),
    /// Who made it.
    pub author: Option<&'a str>,
    /// The comment of its history entry.
    pub message: Option<&'a str>,
    /// What its history says that made it.
    pub created_by: &'a str,
    /// As docker's, or OCI's.
    pub docker: bool,
}

impl Store {
    /// Adds an image made of another one and a layer, a tar archive with OCI whiteouts.
    ///
    /// # Errors
    /// [`ImageError`] with what is wrong; the store is as it was.
    pub fn commit(
        &self,
        layer: &mut (dyn Read + Send),
        object: &str,
        what: &Commit<'_>,
        work: &Work<'_>,
    ) -> Result<Stored, ImageError> {
        let base = what.base.map(|id| self.details(id)).transpose()?;
        self.adding(work, |ingest| {
            let (config, manifest) = base.map_or((Value::Null, Value::Null), |b| (b.config, b.manifest));
            commit(ingest, layer, object, what, (config, &manifest))
        })
    }
}

/// Digest, size and media type.
type Layer = (Digest, u64, String);
/// What a layer's descriptor says beside that: where its publisher has it, annotations.
type Beside = Map<String, Value>;

fn commit(
    ingest: Ingest<'_>,
    layer: &mut (dyn Read + Send),
    object: &str,
    what: &Commit<'_>,
    (mut config, base): (Value, &Value),
) -> Result<Stored, ImageError> {
    let names: Vec<Reference> = what.name.map(Reference::parse_local).transpose()?.into_iter().collect();
    if names.iter().any(|n| n.digest().is_some()) {
        let why = "an image cannot be given a digest, it has one";
        return Err(ImageError::reference(what.name.unwrap_or_default(), why));
    }
    let (digest, size, diff_id) = spool(&ingest, layer, object, Empty::Allowed)?;
    let (mut layers, beside): (Vec<Layer>, Vec<Beside>) =
        if what.squash { Default::default() } else { layers_of(base, object)?.into_iter().unzip() };
    layers.push((digest, size, String::new()));
    edit(&mut config, &diff_id, what);
    let form = if what.docker { Form::Docker } else { Form::Oci };
    for (_, _, media_type) in &mut layers {
        *media_type = form.layer(media_type).ok_or_else(|| {
            ImageError::malformed(object, "docker's format has no layers compressed with zstd; --format oci has")
        })?;
    }
    let config = serde_json::to_vec(&config).map_err(|e| ImageError::malformed(object, e.to_string()))?;
    let config_digest = ingest.add_blob(&config)?;
    let plain = layers.iter().map(|(digest, size, _)| (digest.clone(), *size)).collect();
    let contents = read_config(&config, object, plain, &ingest.work.limits)?;
    let mut manifest = manifest::document(form, (&config_digest, config.len() as u64), &layers);
    let described = manifest["layers"].as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut);
    described.zip(beside).for_each(|(layer, beside)| layer.extend(beside));
    let manifest = manifest.to_string().into_bytes();
    let image = NewImage {
        manifest: ingest.add_blob(&manifest)?,
        config_digest,
        contents,
        others: Vec::new(),
        names,
        found: None,
    };
    ingest.approve(&image)?;
    let stored = ingest.commit(vec![image])?;
    stored.into_iter().next().ok_or_else(|| ImageError::malformed(object, "nothing was committed"))
}

fn layers_of(manifest: &Value, object: &str) -> Result<Vec<(Layer, Beside)>, ImageError> {
    let bad = || ImageError::malformed(object, "the manifest of the image below it lists no layers");
    if manifest.is_null() {
        return Ok(Vec::new());
    }
    let list = manifest["layers"].as_array().ok_or_else(bad)?;
    let layer = |layer: &Value| -> Option<(Layer, Beside)> {
        let digest = serde_json::from_value(layer["digest"].clone()).ok()?;
        let mut beside = layer.as_object()?.clone();
        beside.retain(|key, _| !matches!(key.as_str(), "digest" | "size" | "mediaType"));
        Some(((digest, layer["size"].as_u64()?, layer["mediaType"].as_str()?.to_owned()), beside))
    };
    list.iter().map(|l| layer(l).ok_or_else(bad)).collect()
}

/// A member that is to be an object, made one where a document has something else.
fn object<'a>(document: &'a mut Value, key: &str) -> &'a mut Map<String, Value> {
    let slot = &mut document[key];
    if !slot.is_object() {
        *slot = json!({});
    }
    slot.as_object_mut().unwrap_or_else(|| unreachable!("it was made an object"))
}

fn edit(config: &mut Value, diff_id: &Digest, what: &Commit<'_>) {
    if !config.is_object() {
        *config = json!({"os": "linux", "architecture": Platform::host().architecture()});
    }
    let created = now();
    (what.change)(object(config, "config"));
    let mut entry = json!({"created": created, "created_by": what.created_by});
    for (key, value) in [("author", what.author), ("comment", what.message)] {
        if let Some(value) = value.filter(|v| !v.is_empty()) {
            entry[key] = json!(value);
        }
    }
    if let Some(author) = what.author {
        config["author"] = json!(author);
    }
    config["created"] = json!(created);
    // Of the container that docker built it in.
    if let Some(members) = config.as_object_mut() {
        members.retain(|key, _| !matches!(key.as_str(), "container" | "container_config"));
    }
    let append = |list: &Value, new: Value| match list.as_array() {
        Some(old) if !what.squash => Value::Array(old.iter().cloned().chain([new]).collect()),
        _ => Value::Array(vec![new]),
    };
    let diff_ids = append(&config["rootfs"]["diff_ids"], json!(diff_id.as_str()));
    config["rootfs"] = json!({"type": "layers", "diff_ids": diff_ids});
    config["history"] = append(&config["history"], entry);
}
