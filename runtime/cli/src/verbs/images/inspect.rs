//! `image inspect`: what podman shows of an image, under the same names.

use super::hex;
use super::list::created;
use rlrun_engine::images::ImageDetails;
use serde_json::{Value, json};

/// One element of the array.
pub(in crate::verbs) fn document(image: &ImageDetails) -> Value {
    let ImageDetails { summary, config, manifest, layers, provenance } = image;
    let text = |key: &str| config.get(key).and_then(Value::as_str).unwrap_or_default();
    let inner = complete(config.get("config"));
    let path = |index: usize| layers.get(index).map(|l| l.path.display().to_string()).unwrap_or_default();
    let lower: Vec<String> = (1..layers.len()).map(path).collect();
    json!({
        "Id": hex(&summary.id),
        "Digest": summary.digest,
        "RepoTags": summary.names,
        "RepoDigests": summary.digests,
        "NamesHistory": summary.names,
        "Parent": "",
        "Comment": last_comment(config),
        "Created": config.get("created").cloned().unwrap_or_else(|| json!(created(summary))),
        "Author": text("author"),
        "Architecture": text("architecture"),
        "Variant": text("variant"),
        "Os": text("os"),
        "Version": text("docker_version"),
        "User": inner.get("User").cloned().unwrap_or_else(|| json!("")),
        "Labels": summary.labels,
        "Annotations": manifest.get("annotations").cloned().unwrap_or_else(|| json!({})),
        "ManifestType": manifest_type(image),
        "Config": inner,
        "RootFS": {"Type": "layers", "Layers": config.pointer("/rootfs/diff_ids").cloned().unwrap_or_else(|| json!([]))},
        "History": config.get("history").cloned().unwrap_or_else(|| json!([])),
        "GraphDriver": {"Name": "overlay", "Data": {"UpperDir": path(0), "LowerDir": lower.join(":")}},
        "Size": summary.size,
        "VirtualSize": summary.size,
        "Signatures": provenance.signatures,
        "Attestations": provenance.statements,
        "Healthcheck": config.pointer("/config/Healthcheck").cloned().unwrap_or(Value::Null),
    })
}

/// For templates, which may ask for what an entry leaves out.
pub(super) fn complete_history(document: &mut Value) {
    for entry in document["History"].as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
        for (name, empty) in [("created_by", ""), ("author", ""), ("comment", "")] {
            entry.entry(name).or_insert_with(|| json!(empty));
        }
        entry.entry("empty_layer").or_insert_with(|| json!(false));
    }
}

/// The image's own words, with what it leaves out empty: a template may ask for any of it.
fn complete(config: Option<&Value>) -> Value {
    let mut whole = json!({
        "Cmd": [], "Entrypoint": [], "Env": [], "ExposedPorts": {}, "Labels": {}, "StopSignal": "", "User": "",
        "Volumes": {}, "WorkingDir": "",
    });
    for (name, value) in config.and_then(Value::as_object).into_iter().flatten() {
        if !value.is_null() {
            whole[name] = value.clone();
        }
    }
    whole
}

/// The specification leaves it to the manifest to say what it is; one that does not is OCI's.
pub(super) fn manifest_type(image: &ImageDetails) -> Value {
    let said = image.manifest.get("mediaType").filter(|said| said.is_string()).cloned();
    said.unwrap_or_else(|| json!("application/vnd.oci.image.manifest.v1+json"))
}

fn last_comment(config: &Value) -> &str {
    let history = config.get("history").and_then(Value::as_array);
    history.and_then(|h| h.last()?.get("comment")?.as_str()).unwrap_or_default()
}
