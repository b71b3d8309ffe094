//! Policies in registries, as the CNCF lays out WebAssembly artifacts: a configuration that tells what a component
//! imports and exports, and the component as the only layer. With settings beside the components, or with several of
//! them, it is a bundle: more layers, each with its file name. Signed and verified like images.

use crate::digest::Digest;
use crate::error::ImageError;
use crate::manifest::{MAX_CONFIG, OCI_INDEX, OCI_MANIFEST};
use crate::options::PullOptions;
use crate::reference::Reference;
use crate::registry::{Bytes, Client, Credentials, Lookaside, Purpose, Registries, Upload};
use crate::source::reach;
use crate::trust::{self, VerifiedSignature};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

const WASM: &str = "application/wasm";
const CONFIG: &str = "application/vnd.wasm.config.v0+json";
const SETTINGS: &str = "application/vnd.rlrun.policy.settings.v1+toml";
const TITLE: &str = "org.opencontainers.image.title";

/// What else a component's layer and its configuration are called, by older tools.
const WASM_TYPES: [&str; 2] = [WASM, "application/vnd.wasm.content.layer.v1+wasm"];
const CONFIG_TYPES: [&str; 2] = [CONFIG, "application/vnd.wasm.config.v1+json"];

/// Bytes of one component, and of one file of settings.
const MAX_WASM: u64 = 64 << 20;
const MAX_SETTINGS: u64 = 1 << 20;
/// Bytes of all together; they are held in memory.
const MAX_TOTAL: u64 = 128 << 20;
/// Policies of a bundle.
const MAX_MEMBERS: usize = 16;

/// One policy of an artifact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// The component.
    pub wasm: Vec<u8>,
    /// Settings that come with it, TOML.
    pub settings: Option<Vec<u8>>,
    /// Interfaces that it imports and exports, as its configuration is to tell.
    pub imports: Vec<String>,
    /// See there.
    pub exports: Vec<String>,
}

/// What came from a registry.
#[derive(Clone, Debug)]
pub struct Artifact {
    /// Under which name, in full.
    pub reference: String,
    /// Of the manifest.
    pub digest: String,
    /// The manifest as it came.
    pub manifest: Vec<u8>,
    /// At least one.
    pub members: Vec<Member>,
    /// Signatures that hold.
    pub signatures: Vec<VerifiedSignature>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    schema_version: u32,
    #[serde(default)]
    media_type: String,
    config: Described,
    #[serde(default)]
    layers: Vec<Described>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Described {
    media_type: String,
    digest: Digest,
    size: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
}

/// Of the layout, version 0.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Config<'a> {
    created: &'a str,
    architecture: &'a str,
    os: &'a str,
    layer_digests: Vec<String>,
    component: Component<'a>,
}

#[derive(Debug, Serialize)]
struct Component<'a> {
    exports: Vec<&'a str>,
    imports: Vec<&'a str>,
}

impl Described {
    fn of(media_type: &str, bytes: &[u8], title: Option<String>) -> Self {
        let annotations = title.map(|title| (TITLE.to_owned(), title)).into_iter().collect();
        let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        Described { media_type: media_type.to_owned(), digest: Digest::of(bytes), size, annotations }
    }

    fn title(&self) -> Option<&str> {
        self.annotations.get(TITLE).map(String::as_str)
    }
}

/// Sends policies to a registry; gives back the digest of the manifest.
///
/// # Errors
/// When the registry does not take them.
pub fn push_artifact(name: &str, members: &[Member], options: &PullOptions) -> Result<String, ImageError> {
    let reference = Reference::parse(name)?;
    let tag = match (reference.tag(), reference.digest()) {
        (Some(tag), None) => tag.to_owned(),
        _ => return Err(ImageError::reference(name, "a policy is pushed to a tag")),
    };
    let layers = layers(members);
    let config = config(members, &layers).map_err(|e| ImageError::malformed(name, e.to_string()))?;
    let manifest = Manifest {
        schema_version: 2,
        media_type: OCI_MANIFEST.to_owned(),
        config: Described::of(CONFIG, &config, None),
        layers: layers.iter().map(|(layer, _)| layer.clone()).collect(),
    };
    let bytes = serde_json::to_vec(&manifest).map_err(|e| ImageError::malformed(name, e.to_string()))?;
    let endpoint = Registries::from_system()?.endpoint_of_registry(&reference)?;
    let credentials = Credentials::chosen(&endpoint.reference, options)?;
    let client = Client::connect(&endpoint, credentials, options, Purpose::Push)?;
    for (layer, bytes) in layers.iter().map(|(layer, bytes)| (layer, *bytes)).chain([(&manifest.config, &*config)]) {
        let upload = Upload { digest: &layer.digest, size: layer.size, bytes: Bytes::Memory(bytes), mount_from: None };
        client.send_blob(&upload, &|_| {})?;
    }
    client.put_manifest(&tag, &bytes, OCI_MANIFEST)?;
    Ok(Digest::of(&bytes).to_string())
}

/// A single component without settings is exactly what the layout knows.
fn layers(members: &[Member]) -> Vec<(Described, &[u8])> {
    let mut layers = Vec::new();
    for member in members {
        let title = |extension: &str| Some(format!("{}.{extension}", member.name));
        layers.push((Described::of(WASM, &member.wasm, title("wasm")), &*member.wasm));
        if let Some(settings) = &member.settings {
            layers.push((Described::of(SETTINGS, settings, title("toml")), &**settings));
        }
    }
    layers
}

fn config(members: &[Member], layers: &[(Described, &[u8])]) -> serde_json::Result<Vec<u8>> {
    let all = |interfaces: fn(&Member) -> &Vec<String>| {
        let mut names: Vec<&str> = members.iter().flat_map(|m| interfaces(m).iter().map(String::as_str)).collect();
        names.sort_unstable();
        names.dedup();
        names
    };
    serde_json::to_vec(&Config {
        // Not the time of the push: the same policy has the same digest whoever sends it.
        created: "1970-01-01T00:00:00Z",
        architecture: "wasm",
        // What the layout calls a component.
        os: "wasip2",
        layer_digests: layers.iter().map(|(layer, _)| layer.digest.to_string()).collect(),
        component: Component { exports: all(|m| &m.exports), imports: all(|m| &m.imports) },
    })
}

/// Fetches policies. Their signatures are verified as policy.json demands for that name, and with `key` (PEM) if there
/// is one.
///
/// # Errors
/// When they cannot be had, are no policies, or are not signed as demanded.
pub fn pull_artifact(name: &str, key: Option<&[u8]>, options: &PullOptions) -> Result<Artifact, ImageError> {
    let reference = Reference::parse(name)?;
    let policy = trust::Policy::from_system()?;
    trust::check_name(&policy, &reference)?;
    let client = reach(&reference, options)?;
    let wanted = reference.digest().map(Digest::to_string).or(reference.tag().map(str::to_owned)).unwrap_or_default();
    let fetched = client.manifest(&wanted)?;
    let manifest = parse(&fetched.bytes, fetched.content_type.as_deref(), &reference)?;
    let raw = Lookaside::to_read(&reference)?.signatures(&[&fetched.digest])?;
    let mut signatures = trust::check_registry(&policy, &reference, &client, &[&fetched.digest], &raw)?;
    if let Some(pem) = key {
        signatures.push(trust::check_key(pem, &reference, &client, &[&fetched.digest])?);
    }
    let members = members(&client, &reference, &manifest)?;
    let (reference, digest) = (reference.to_string(), fetched.digest.to_string());
    Ok(Artifact { reference, digest, manifest: fetched.bytes, members, signatures })
}

fn parse(bytes: &[u8], content_type: Option<&str>, reference: &Reference) -> Result<Manifest, ImageError> {
    let malformed = |why: String| ImageError::malformed(reference.to_string(), why);
    if content_type == Some(OCI_INDEX) {
        return Err(malformed("is an index, and a policy is one artifact".to_owned()));
    }
    let manifest: Manifest = serde_json::from_slice(bytes).map_err(|e| malformed(format!("its manifest: {e}")))?;
    if !CONFIG_TYPES.contains(&manifest.config.media_type.as_str()) {
        let kind = manifest.config.media_type.escape_default();
        return Err(malformed(format!("is no policy: its configuration is `{kind}`, not {CONFIG}")));
    }
    if manifest.config.size > MAX_CONFIG {
        return Err(malformed(format!("its configuration has {} bytes", manifest.config.size)));
    }
    Ok(manifest)
}

fn members(client: &Client, reference: &Reference, manifest: &Manifest) -> Result<Vec<Member>, ImageError> {
    let malformed = |why: String| ImageError::malformed(reference.to_string(), why);
    let is_wasm = |layer: &&Described| WASM_TYPES.contains(&layer.media_type.as_str());
    let is_settings = |layer: &&Described| layer.media_type == SETTINGS;
    if let Some(other) = manifest.layers.iter().find(|l| !is_wasm(l) && !is_settings(l)) {
        return Err(malformed(format!(
            "holds a `{}`, which is no part of a policy",
            other.media_type.escape_default()
        )));
    }
    let components: Vec<&Described> = manifest.layers.iter().filter(is_wasm).collect();
    if components.is_empty() || components.len() > MAX_MEMBERS {
        return Err(malformed(format!("holds {} policies, not 1 to {MAX_MEMBERS}", components.len())));
    }
    let total = manifest.layers.iter().fold(0u64, |sum, layer| sum.saturating_add(layer.size));
    if total > MAX_TOTAL {
        return Err(malformed(format!("has {total} bytes, more than {MAX_TOTAL}")));
    }
    let mut members: Vec<Member> = Vec::with_capacity(components.len());
    for layer in &components {
        let name = match layer.title().and_then(|title| title.strip_suffix(".wasm")) {
            Some(name) => plain(name).map_err(malformed)?,
            None => plain(reference.path().rsplit('/').next().unwrap_or_default()).map_err(malformed)?,
        };
        if members.iter().any(|m| m.name == name) {
            return Err(malformed(format!("holds two policies called {name}")));
        }
        let settings = manifest.layers.iter().filter(is_settings).find(|l| l.title() == Some(&format!("{name}.toml")));
        let settings = settings.map(|l| fetch(client, reference, l, MAX_SETTINGS)).transpose()?;
        let wasm = fetch(client, reference, layer, MAX_WASM)?;
        members.push(Member { name, wasm, settings, imports: Vec::new(), exports: Vec::new() });
    }
    let used = members.iter().filter(|m| m.settings.is_some()).count();
    if used != manifest.layers.iter().filter(is_settings).count() {
        return Err(malformed("holds settings that belong to no policy of it".to_owned()));
    }
    Ok(members)
}

fn fetch(client: &Client, reference: &Reference, layer: &Described, most: u64) -> Result<Vec<u8>, ImageError> {
    if layer.size > most {
        let why = format!("a part of it has {} bytes, more than {most}", layer.size);
        return Err(ImageError::malformed(reference.to_string(), why));
    }
    client.small_blob(&layer.digest, layer.size)
}

/// It becomes a file's name.
fn plain(name: &str) -> Result<String, String> {
    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let fits = !name.is_empty() && name.len() <= 64 && !name.starts_with('.');
    if fits && name.bytes().all(good) && name != "policy" {
        return Ok(name.to_owned());
    }
    Err(format!("holds a policy called `{}`: letters, digits, `-`, `_` and `.` make a name", name.escape_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str, settings: Option<&str>) -> Member {
        Member {
            name: name.to_owned(),
            wasm: b"\0asm".to_vec(),
            settings: settings.map(|s| s.as_bytes().to_vec()),
            imports: vec!["rlrun:policy/log@0.1.0".to_owned()],
            exports: vec!["rlrun:policy/create@0.2.0".to_owned()],
        }
    }

    #[test]
    fn one_component_is_one_layer_and_settings_make_it_two() {
        let types = |members: &[Member]| layers(members).into_iter().map(|(l, _)| l.media_type).collect::<Vec<_>>();
        assert_eq!(types(&[member("a", None)]), [WASM]);
        assert_eq!(types(&[member("a", Some("x = 1"))]), [WASM, SETTINGS]);
    }

    #[test]
    fn the_configuration_tells_imports_and_exports() {
        let members = [member("a", None)];
        let config: serde_json::Value = serde_json::from_slice(&config(&members, &layers(&members)).unwrap()).unwrap();
        assert_eq!(config["component"]["imports"][0], "rlrun:policy/log@0.1.0");
        assert_eq!(config["component"]["exports"][0], "rlrun:policy/create@0.2.0");
        assert_eq!((config["architecture"].as_str(), config["os"].as_str()), (Some("wasm"), Some("wasip2")));
    }

    #[test]
    fn what_is_no_policy_is_refused() {
        let reference = Reference::parse("r.io/p:1").unwrap();
        let described = |kind: &str| format!(r#"{{"mediaType":"{kind}","digest":"{}","size":2}}"#, Digest::of(b"{}"));
        let manifest = |config: &str| format!(r#"{{"schemaVersion":2,"config":{},"layers":[]}}"#, described(config));
        let parsed = |text: &str, kind| parse(text.as_bytes(), kind, &reference);
        assert!(parsed(&manifest(CONFIG), None).is_ok() && parsed(&manifest(CONFIG_TYPES[1]), None).is_ok());
        assert!(parsed(&manifest("application/vnd.oci.image.config.v1+json"), None).is_err());
        assert!(parsed(&manifest(CONFIG), Some(OCI_INDEX)).is_err() && parsed("[]", None).is_err());
    }

    #[test]
    fn names_stay_in_their_directory() {
        for bad in ["", ".", "..", "a/b", "../a", ".a", "policy", "a\0", "a b"] {
            assert!(plain(bad).is_err(), "{bad}");
        }
        assert_eq!(plain("no-root_2.x").unwrap(), "no-root_2.x");
    }
}
