//! Manifests and indexes, OCI's and docker's schema 2, which differ in names only. Hostile input.

use crate::digest::Digest;
use crate::error::ImageError;
use serde::Deserialize;
use std::fmt;
use std::str::FromStr;

pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const OCI_FOREIGN_LAYER: &str = "application/vnd.oci.image.layer.nondistributable.v1.tar";
const DOCKER_FOREIGN_LAYER: &str = "application/vnd.docker.image.rootfs.foreign.diff.tar";
pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub(crate) const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// A layer that is not compressed.
pub(crate) const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
pub(crate) const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

/// As large as other engines accept.
pub(crate) const MAX_MANIFEST: u64 = 4 << 20;
/// Room for a configuration with a long history and many labels.
pub(crate) const MAX_CONFIG: u64 = 8 << 20;

/// Names a blob, its size and kind.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default)]
    pub(crate) media_type: String,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    #[serde(default)]
    platform: Option<WirePlatform>,
    #[serde(default)]
    annotations: Option<std::collections::BTreeMap<String, String>>,
    #[serde(default)]
    urls: Option<Vec<String>>,
}

impl Descriptor {
    /// Where the publisher of a layer has it, if only he distributes it.
    pub(crate) fn foreign_urls(&self) -> &[String] {
        let urls = self.urls.as_deref().unwrap_or_default();
        if is_foreign(&self.media_type) { urls } else { &[] }
    }

    pub(crate) fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.as_ref()?.get(key).map(String::as_str)
    }

    /// Whether a machine runs it; what is said about images stands in an index as `unknown/unknown`.
    pub(crate) fn is_for_a_machine(&self) -> bool {
        self.platform.as_ref().is_some_and(|platform| platform.os != "unknown")
    }

    pub(crate) fn has_platform(&self) -> bool {
        self.platform.is_some()
    }
}

#[derive(Clone, Debug, Deserialize)]
struct WirePlatform {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    variant: Option<String>,
}

/// What bytes under a manifest's digest turn out to be.
#[derive(Debug)]
pub(crate) enum Manifest {
    /// One image.
    Image(ImageManifest),
    /// One image for each of several platforms.
    Index(Vec<Descriptor>),
}

/// Configuration and layers, bottom first.
#[derive(Debug)]
pub(crate) struct ImageManifest {
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire {
    #[serde(default)]
    schema_version: u32,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Option<Vec<Descriptor>>,
    #[serde(default)]
    manifests: Option<Vec<Descriptor>>,
}

/// Reads a manifest or an index. `content_type` is what the registry calls it, if it said so.
pub(crate) fn parse(bytes: &[u8], content_type: Option<&str>, object: &str) -> Result<Manifest, ImageError> {
    let bad = |why: String| ImageError::malformed(object, why);
    let wire: Wire = serde_json::from_slice(bytes).map_err(|e| bad(format!("manifest: {e}")))?;
    if wire.schema_version != 2 {
        return Err(bad(format!("manifest: schema version {} is not supported, only 2", wire.schema_version)));
    }
    // One document must not be an image to one reader and an index to another (CVE-2021-41190).
    match (wire.config, wire.layers, wire.manifests) {
        (None, None, Some(manifests)) => {
            check_type(&wire.media_type, content_type, &[OCI_INDEX, DOCKER_INDEX]).map_err(bad)?;
            Ok(Manifest::Index(manifests))
        }
        (Some(config), layers, None) => {
            check_type(&wire.media_type, content_type, &[OCI_MANIFEST, DOCKER_MANIFEST]).map_err(bad)?;
            if !matches!(config.media_type.as_str(), OCI_CONFIG | DOCKER_CONFIG) {
                return Err(bad(format!(
                    "it is no image but an artifact of type `{}`",
                    config.media_type.escape_default()
                )));
            }
            let layers = layers.unwrap_or_default();
            layers.iter().try_for_each(check_layer).map_err(bad)?;
            Ok(Manifest::Image(ImageManifest { config, layers }))
        }
        _ => Err(bad("manifest: it is neither an image nor an index".to_owned())),
    }
}

/// Manifests of an index which are statements about another of its (buildkit, "attestation storage").
pub(crate) fn statements_in(index: &[u8], about: &Digest) -> Vec<Digest> {
    let wire = serde_json::from_slice::<Wire>(index).ok();
    let says = |described: &Descriptor, key, value: &str| described.annotation(key) == Some(value);
    let about_it = |described: &Descriptor| {
        says(described, "vnd.docker.reference.type", "attestation-manifest")
            && says(described, "vnd.docker.reference.digest", about.as_str())
    };
    wire.and_then(|w| w.manifests).unwrap_or_default().into_iter().filter(about_it).map(|d| d.digest).collect()
}

fn check_type(own: &Option<String>, header: Option<&str>, allowed: &[&str]) -> Result<(), String> {
    // Registries that know no better call everything JSON or bytes.
    let header = header.filter(|h| h.starts_with("application/vnd."));
    for given in own.as_deref().into_iter().chain(header) {
        if !allowed.contains(&given) {
            return Err(format!("manifest: its type `{}` does not fit its content", given.escape_default()));
        }
    }
    Ok(())
}

/// Whether layers of this type are distributed by their publisher alone: docker's name for it and OCI's.
fn is_foreign(media_type: &str) -> bool {
    media_type.contains(".foreign.") || media_type.contains(".nondistributable.")
}

fn check_layer(layer: &Descriptor) -> Result<(), String> {
    if layer.media_type.contains("encrypted") {
        return Err(format!("layer {} is encrypted", layer.digest));
    }
    Ok(())
}

/// What an image must be made for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Platform {
    os: String,
    architecture: String,
    variant: Option<String>,
}

impl Platform {
    /// This machine's.
    pub(crate) fn host() -> Self {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", None),
            "aarch64" => ("arm64", Some("v8")),
            "arm" => ("arm", Some("v7")),
            "x86" => ("386", None),
            "powerpc64" => ("ppc64le", None),
            other => (other, None),
        };
        Platform { os: "linux".into(), architecture: architecture.into(), variant: variant.map(str::to_owned) }
    }

    pub(crate) fn architecture(&self) -> &str {
        &self.architecture
    }

    pub(crate) fn os(&self) -> &str {
        &self.os
    }

    pub(crate) fn variant(&self) -> Option<&str> {
        self.variant.as_deref()
    }

    pub(crate) fn fits(&self, descriptor: &Descriptor) -> bool {
        descriptor.platform.as_ref().is_some_and(|p| self.fit(p).is_some())
    }

    /// How well a descriptor fits: None not at all, more is better.
    fn fit(&self, offered: &WirePlatform) -> Option<u32> {
        if offered.os != self.os || offered.architecture != self.architecture {
            return None;
        }
        match (&self.variant, offered.variant.as_deref().filter(|v| !v.is_empty())) {
            (None, None) => Some(3),
            (Some(mine), Some(theirs)) if mine == theirs => Some(3),
            // arm64 without a variant is v8.
            (_, None) => Some(2),
            // x86-64 levels are a promise about the processor that nobody has checked.
            (None, Some(_)) => (self.architecture != "amd64").then_some(1),
            // A v7 machine runs v6 and v5; letters decide the order.
            (Some(mine), Some(theirs)) => (theirs < mine.as_str()).then_some(1),
        }
    }

    /// The best descriptor of an index.
    pub(crate) fn choose<'a>(&self, index: &'a [Descriptor], object: &str) -> Result<&'a Descriptor, ImageError> {
        let scored = index.iter().filter_map(|d| Some((self.fit(d.platform.as_ref()?)?, d)));
        // The first of the best, as the order of an index is its author's preference.
        let best = scored.fold(None, |best: Option<(u32, &Descriptor)>, next| match best {
            Some(b) if b.0 >= next.0 => Some(b),
            _ => Some(next),
        });
        // An index of one that names no platform leaves no choice.
        let only = || match index {
            [only] if only.platform.is_none() => Some(only),
            _ => None,
        };
        best.map(|(_, d)| d).or_else(only).ok_or_else(|| {
            let offered: Vec<String> =
                index.iter().filter_map(|d| d.platform.as_ref()).map(ToString::to_string).collect();
            let offered = if offered.is_empty() { "none".to_owned() } else { offered.join(", ") };
            ImageError::malformed(object, format!("it has no image for {self}; it has {offered}"))
        })
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.iter().try_for_each(|v| write!(f, "/{v}"))
    }
}

impl fmt::Display for WirePlatform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (os, architecture) = (self.os.escape_default(), self.architecture.escape_default());
        write!(f, "{os}/{architecture}")?;
        self.variant.iter().try_for_each(|v| write!(f, "/{}", v.escape_default()))
    }
}

impl FromStr for Platform {
    type Err = String;

    /// `os/architecture[/variant]`, or the architecture alone.
    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split('/').collect();
        let (os, architecture, variant) = match parts[..] {
            [architecture] => ("linux", architecture, None),
            [os, architecture] => (os, architecture, None),
            [os, architecture, variant] => (os, architecture, Some(variant)),
            _ => return Err("a platform is os/architecture[/variant]".to_owned()),
        };
        let word = |w: &str| !w.is_empty() && w.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        if !word(os) || !word(architecture) || !variant.is_none_or(word) {
            return Err("a platform is os/architecture[/variant]".to_owned());
        }
        let architecture = match architecture {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        Ok(Platform { os: os.into(), architecture: architecture.into(), variant: variant.map(str::to_owned) })
    }
}

/// Whose names a manifest uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Oci,
    /// Schema 2.
    Docker,
}

impl Form {
    /// Media types of a manifest and a configuration.
    pub(crate) fn types(self) -> (&'static str, &'static str) {
        match self {
            Form::Oci => (OCI_MANIFEST, OCI_CONFIG),
            Form::Docker => (DOCKER_MANIFEST, DOCKER_CONFIG),
        }
    }

    /// What a layer of this media type is called; None when the form has no name for it. One without a type is plain.
    pub(crate) fn layer(self, media_type: &str) -> Option<String> {
        let compression = ["gzip", "zstd"].into_iter().find(|name| media_type.ends_with(name));
        let plain = match (self, is_foreign(media_type)) {
            (Form::Oci, false) => OCI_LAYER,
            (Form::Oci, true) => OCI_FOREIGN_LAYER,
            (Form::Docker, false) => DOCKER_LAYER,
            (Form::Docker, true) => DOCKER_FOREIGN_LAYER,
        };
        match (self, compression) {
            (_, None) => Some(plain.to_owned()),
            (Form::Oci, Some(name)) => Some(format!("{plain}+{name}")),
            (Form::Docker, Some("gzip")) => Some(format!("{plain}.gzip")),
            (Form::Docker, Some(_)) => None,
        }
    }
}

/// An OCI manifest for images that came without one; layers as they are, uncompressed.
pub(crate) fn write(config: (&Digest, u64), layers: &[(Digest, u64, String)]) -> Vec<u8> {
    document(Form::Oci, config, layers).to_string().into_bytes()
}

/// A manifest; digest, size and media type of each layer.
pub(crate) fn document(form: Form, config: (&Digest, u64), layers: &[(Digest, u64, String)]) -> serde_json::Value {
    let (own, config_type) = form.types();
    let layers: Vec<_> = layers
        .iter()
        .map(|(digest, size, media_type)| serde_json::json!({"mediaType": media_type, "digest": digest.as_str(), "size": size}))
        .collect();
    serde_json::json!({
        "schemaVersion": 2,
        "mediaType": own,
        "config": {"mediaType": config_type, "digest": config.0.as_str(), "size": config.1},
        "layers": layers,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor(platform: &str, n: u8) -> Descriptor {
        let digest = format!("sha256:{}", format!("{n:02x}").repeat(32));
        let json = match platform.split('/').collect::<Vec<_>>()[..] {
            [os, arch, variant] => {
                format!(r#","platform":{{"os":"{os}","architecture":"{arch}","variant":"{variant}"}}"#)
            }
            [os, arch] => format!(r#","platform":{{"os":"{os}","architecture":"{arch}"}}"#),
            _ => String::new(),
        };
        serde_json::from_str(&format!(r#"{{"digest":"{digest}","size":1{json}}}"#)).unwrap()
    }

    fn chosen(platform: &str, offered: &[&str]) -> Option<usize> {
        let index: Vec<_> = (0u8..).zip(offered).map(|(n, p)| descriptor(p, n)).collect();
        let digest = &platform.parse::<Platform>().unwrap().choose(&index, "x").ok()?.digest;
        index.iter().position(|d| &d.digest == digest)
    }

    #[test]
    fn the_best_platform_is_chosen() {
        assert_eq!(chosen("linux/amd64", &["linux/arm64/v8", "linux/amd64", "unknown/unknown"]), Some(1));
        assert_eq!(chosen("linux/arm64/v8", &["linux/amd64", "linux/arm64"]), Some(1));
        assert_eq!(chosen("linux/arm64", &["linux/amd64", "linux/arm64/v8"]), Some(1));
        assert_eq!(chosen("linux/arm/v7", &["linux/arm/v8", "linux/arm/v5", "linux/arm/v7"]), Some(2));
        assert_eq!(chosen("linux/arm/v7", &["linux/arm/v8"]), None);
        assert_eq!(chosen("linux/amd64", &["linux/amd64/v3"]), None);
        assert_eq!(chosen("linux/amd64", &["none"]), Some(0));
        assert_eq!(chosen("linux/amd64", &["windows/amd64"]), None);
        assert_eq!(chosen("linux/amd64", &[]), None);
    }

    #[test]
    fn a_document_is_one_thing_only() {
        let d = format!(r#"{{"mediaType":"{OCI_CONFIG}","digest":"sha256:{}","size":1}}"#, "0".repeat(64));
        let image = format!(r#"{{"schemaVersion":2,"config":{d},"layers":[]}}"#);
        assert!(matches!(parse(image.as_bytes(), None, "x").unwrap(), Manifest::Image(_)));
        assert!(parse(image.as_bytes(), Some(OCI_INDEX), "x").is_err(), "the header says otherwise");
        let both = format!(r#"{{"schemaVersion":2,"config":{d},"layers":[],"manifests":[]}}"#);
        assert!(parse(both.as_bytes(), None, "x").is_err());
        let lying = format!(r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","config":{d},"layers":[]}}"#);
        assert!(parse(lying.as_bytes(), None, "x").is_err());
        assert!(parse(br#"{"schemaVersion":1,"fsLayers":[]}"#, None, "x").is_err());
        assert!(parse(br#"{"schemaVersion":2}"#, None, "x").is_err());
        let negative = image.replace(r#""size":1"#, r#""size":-1"#);
        assert!(parse(negative.as_bytes(), None, "x").is_err());
        let deep = "[".repeat(200_000);
        assert!(parse(deep.as_bytes(), None, "x").is_err(), "deep nesting is an error, not a stack overflow");
    }

    #[test]
    fn layers_have_a_name_in_each_form() {
        let foreign = format!("{DOCKER_FOREIGN_LAYER}.gzip");
        for (from, oci, docker) in [
            ("", OCI_LAYER, Some(DOCKER_LAYER)),
            (&format!("{OCI_LAYER}+gzip"), &format!("{OCI_LAYER}+gzip"), Some(&*format!("{DOCKER_LAYER}.gzip"))),
            (&format!("{OCI_LAYER}+zstd"), &format!("{OCI_LAYER}+zstd"), None),
            (&format!("{OCI_FOREIGN_LAYER}+gzip"), &format!("{OCI_FOREIGN_LAYER}+gzip"), Some(&*foreign)),
            (&foreign, &format!("{OCI_FOREIGN_LAYER}+gzip"), Some(&*foreign)),
        ] {
            assert_eq!(Form::Oci.layer(from).as_deref(), Some(oci), "{from}");
            assert_eq!(Form::Docker.layer(from).as_deref(), docker, "{from}");
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let (config, layer) = (Digest::of(b"c"), Digest::of(b"l"));
        let bytes = write((&config, 1), &[(layer.clone(), 2, OCI_LAYER.to_owned())]);
        let Manifest::Image(image) = parse(&bytes, None, "x").unwrap() else { panic!("an image") };
        assert_eq!((image.config.digest, image.layers[0].digest.clone()), (config, layer));
    }
}
