//! Image archives as docker and OCI tools write them, and as attackers would.

use crate::rootfs::Rootfs;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::io::Write as _;

/// `sha256:...` of some bytes.
pub fn digest(data: &[u8]) -> String {
    sha256(data)
}

pub(crate) fn sha256(data: &[u8]) -> String {
    let mut text = "sha256:".to_owned();
    for byte in Sha256::digest(data) {
        write!(text, "{byte:02x}").unwrap();
    }
    text
}

fn hex(digest: &str) -> &str {
    digest.strip_prefix("sha256:").unwrap_or(digest)
}

/// Compressed as gzip(1) would.
pub fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

/// Compressed as zstd(1) would.
pub fn zstd(data: &[u8]) -> Vec<u8> {
    zstd::encode_all(data, 1).unwrap()
}

/// An image: layers and configuration.
#[derive(Clone)]
pub struct Image {
    /// `name:tag`.
    pub name: String,
    /// Layers, the lowest first.
    pub layers: Vec<Rootfs>,
    /// The `config` object of the image configuration.
    pub config: Value,
    /// Overrides `architecture`.
    pub architecture: String,
    /// Overrides the diff-ids.
    pub diff_ids: Option<Vec<String>>,
}

impl Image {
    /// An image with one layer and a plain configuration.
    pub fn new(name: &str, layer: Rootfs) -> Image {
        Image {
            name: name.to_owned(),
            layers: vec![layer],
            config: json!({
                "Cmd": ["sh"],
                "Env": ["PATH=/usr/local/bin:/usr/bin:/bin", "FROM_IMAGE=yes"],
                "WorkingDir": "/",
                "Labels": { "org.example.purpose": "test" },
            }),
            architecture: host_architecture().to_owned(),
            diff_ids: None,
        }
    }

    /// With one more layer on top.
    #[must_use]
    pub fn layer(mut self, layer: Rootfs) -> Image {
        self.layers.push(layer);
        self
    }

    /// With a member of `config` set.
    #[must_use]
    pub fn with(mut self, key: &str, value: Value) -> Image {
        self.config[key] = value;
        self
    }

    /// The image configuration, as stored.
    pub fn config_json(&self) -> Vec<u8> {
        let diff_ids = self.diff_ids.clone().unwrap_or_else(|| self.layers.iter().map(Rootfs::diff_id).collect());
        let config = json!({
            "architecture": self.architecture,
            "os": "linux",
            "created": "2024-01-01T00:00:00Z",
            "config": self.config,
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
            "history": [],
        });
        config.to_string().into_bytes()
    }

    /// `docker save`.
    pub fn docker_archive(&self) -> Archive {
        let config = self.config_json();
        let mut archive = Archive::new();
        let mut names = Vec::new();
        for layer in &self.layers {
            let name = format!("{}/layer.tar", hex(&layer.diff_id()));
            archive = archive.file(&name, &layer.tar());
            names.push(name);
        }
        let config_name = format!("{}.json", hex(&sha256(&config)));
        let manifest = json!([{ "Config": config_name, "RepoTags": [self.name], "Layers": names }]);
        archive.file(&config_name, &config).file("manifest.json", manifest.to_string().as_bytes())
    }

    /// An OCI image layout in a tar archive; `compress` is applied to each layer and named by `suffix` (`+gzip`).
    pub fn oci_archive(&self, suffix: &str, compress: fn(&[u8]) -> Vec<u8>) -> Archive {
        let mut archive = Archive::new().file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
        let (manifest, blobs) = self.oci_manifest(suffix, compress);
        for blob in blobs.iter().chain([&manifest]) {
            archive = archive.file(&format!("blobs/sha256/{}", hex(&sha256(blob))), blob);
        }
        let index = json!({
            "schemaVersion": 2,
            "manifests": [{
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": sha256(&manifest),
                "size": manifest.len(),
                "annotations": { "org.opencontainers.image.ref.name": self.name },
            }],
        });
        archive.file("index.json", index.to_string().as_bytes())
    }

    /// The OCI manifest and the blobs it names: configuration first, then layers.
    pub fn oci_manifest(&self, suffix: &str, compress: fn(&[u8]) -> Vec<u8>) -> (Vec<u8>, Vec<Vec<u8>>) {
        let config = self.config_json();
        let layers: Vec<Vec<u8>> = self.layers.iter().map(|layer| compress(&layer.tar())).collect();
        let described: Vec<Value> = layers
            .iter()
            .map(|layer| {
                json!({
                    "mediaType": format!("application/vnd.oci.image.layer.v1.tar{suffix}"),
                    "digest": sha256(layer),
                    "size": layer.len(),
                })
            })
            .collect();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": sha256(&config),
                "size": config.len(),
            },
            "layers": described,
        });
        let mut blobs = vec![config];
        blobs.extend(layers);
        (manifest.to_string().into_bytes(), blobs)
    }
}

/// The architecture of this machine in Go's words, as image configurations have it.
fn host_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// A tar archive of plain files.
#[derive(Clone)]
pub struct Archive {
    files: Vec<(String, Vec<u8>)>,
}

impl Archive {
    /// An empty archive.
    #[expect(clippy::new_without_default, reason = "an archive is always filled at once")]
    pub fn new() -> Archive {
        Archive { files: Vec::new() }
    }

    /// With a file added, or replaced when the name is there already.
    #[must_use]
    pub fn file(mut self, name: &str, data: &[u8]) -> Archive {
        self.files.retain(|(known, _)| known != name);
        self.files.push((name.to_owned(), data.to_vec()));
        self
    }

    /// Without the files whose name the predicate picks.
    #[must_use]
    pub fn without(mut self, pick: impl Fn(&str) -> bool) -> Archive {
        self.files.retain(|(name, _)| !pick(name));
        self
    }

    /// With the content of picked files changed.
    #[must_use]
    pub fn change(mut self, pick: impl Fn(&str) -> bool, change: impl Fn(&[u8]) -> Vec<u8>) -> Archive {
        for (name, data) in &mut self.files {
            if pick(name) {
                *data = change(data);
            }
        }
        self
    }

    /// The archive.
    pub fn bytes(&self) -> Vec<u8> {
        let mut tar = Rootfs::new();
        for (name, data) in &self.files {
            tar = tar.file(name, 0o644, data);
        }
        tar.tar()
    }
}
