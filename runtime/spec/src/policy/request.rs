//! What policies are asked about beside a container's configuration.

use serde::{Deserialize, Serialize};

/// Asked before any byte is fetched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullRequest {
    /// The normalised reference: `docker.io/library/busybox:latest`.
    pub reference: String,
    /// The digest that the user's reference names, `sha256:...`.
    pub digest: Option<String>,
    /// `linux/amd64`.
    pub platform: String,
    /// Plain http, or TLS without verification.
    pub insecure: bool,
    /// The mirror that registries.conf chose instead; or where the manifest says that a foreign layer is, without the scheme.
    pub mirror: Option<String>,
}

/// What an image says of itself: hostile data, for policies to judge and for nothing else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageFacts {
    /// The normalised reference.
    pub reference: String,
    /// Digest of the manifest.
    pub digest: String,
    /// `linux/amd64`.
    pub platform: String,
    /// When it was made, as the configuration says.
    pub created: Option<String>,
    /// `User`.
    pub user: String,
    /// `Env`, `NAME=value`.
    pub env: Vec<String>,
    /// `Labels`.
    pub labels: Vec<(String, String)>,
    /// `Entrypoint`.
    pub entrypoint: Vec<String>,
    /// `ExposedPorts`.
    pub exposed_ports: Vec<String>,
    /// `Volumes`.
    pub volumes: Vec<String>,
    /// How many layers.
    pub layers: u32,
    /// Sum of the layers' compressed sizes.
    pub size_bytes: u64,
    /// `created_by` of each history entry.
    pub history: Vec<String>,
    /// Signatures that were verified before this image was taken in.
    #[serde(default)]
    pub signatures: Vec<Signature>,
    /// The manifest as it came; empty where there was none, as with `import`.
    #[serde(default)]
    pub manifest: String,
    /// The configuration as it came.
    #[serde(default)]
    pub config: String,
    /// Of the manifest.
    #[serde(default)]
    pub media_type: String,
    /// Of the manifest.
    #[serde(default)]
    pub annotations: Vec<(String, String)>,
    /// Bottom first.
    #[serde(default)]
    pub layer_list: Vec<LayerFacts>,
    /// In full.
    #[serde(default)]
    pub history_list: Vec<HistoryEntry>,
    /// What is said about it; nobody has verified that.
    #[serde(default)]
    pub attestations: Vec<Attestation>,
    /// Whether anybody has asked what is said about it.
    #[serde(default)]
    pub looked: bool,
}

/// Where an image is from, as far as that was found out when it came in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Origin {
    /// The request names the image by its digest.
    pub pinned: bool,
    /// Signatures that were verified because policy.json demands them.
    pub signatures: Vec<Signature>,
    /// Whether anybody has asked what is said about it.
    pub looked: bool,
    /// What is said about it; nobody has verified that.
    pub attestations: Vec<Attestation>,
}

/// Files of an image that give whoever executes them more than he has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PrivilegedFiles {
    /// From the top layer down, without those that a layer above hides, as far as that can be told.
    pub files: Vec<PrivilegedFile>,
    /// There are more.
    pub truncated: bool,
    /// Nothing is known of some layer.
    pub unknown: bool,
}

/// One of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct PrivilegedFile {
    /// `/usr/bin/su`; what is not UTF-8 is escaped.
    pub path: String,
    /// Whoever executes it is its owner.
    pub set_user_id: bool,
    /// Whoever executes it is of its group.
    pub set_group_id: bool,
    /// It has `security.capability`.
    pub file_capabilities: bool,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Digest of the layer's archive, uncompressed.
    pub layer: String,
}

impl Attestation {
    /// Whether it lists what is in the image, by the names that tools give such lists.
    #[must_use]
    pub fn is_sbom(&self) -> bool {
        let said = self.media_type.to_ascii_lowercase();
        ["spdx", "cyclonedx", "application/vnd.syft"].iter().any(|word| said.contains(word))
    }
}

/// A layer as the manifest has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerFacts {
    /// `sha256:...`
    pub digest: String,
    /// `application/vnd.oci.image.layer.v1.tar+gzip`
    pub media_type: String,
    /// As it comes.
    pub size_bytes: u64,
}

/// How a layer came to be, as the image says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HistoryEntry {
    /// The instruction.
    pub created_by: String,
    /// Whatever.
    pub comment: String,
    /// When.
    pub created: Option<String>,
    /// It changed no file.
    pub empty_layer: bool,
}

/// A statement about an image: an SBOM, a provenance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attestation {
    /// `sha256:...`
    pub digest: String,
    /// Of its content; of an in-toto statement with what it is about:
    /// `application/vnd.in-toto+json; predicate=https://slsa.dev/provenance/v1`.
    pub media_type: String,
}

/// Which container it is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its image.
    pub image: Option<crate::container::ImageIdentity>,
}

/// By which verb something leaves a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outward {
    /// `cp`
    Cp,
    /// `export`
    Export,
    /// `commit`
    Commit,
}

/// Something is to leave a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyOut {
    /// By which verb.
    pub operation: Outward,
    /// In the container; `/` for all of it.
    pub source: String,
    /// On the host, `-` for standard output; for `commit` the image's name.
    pub destination: String,
}

/// A container has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitEvent {
    /// Which.
    pub container: Subject,
    /// Its exit code.
    pub exit_code: i32,
    /// Nanoseconds since 1970.
    pub finished: u64,
    /// For want of memory.
    pub oom_killed: bool,
}

/// What a policy's no does. The later, the stricter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// It is written into the audit log.
    Audit,
    /// It is told as well.
    Warn,
    /// It is done.
    #[default]
    Enforce,
}

/// A signature that was verified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    /// `cosign-key` or `gpg-key`
    pub scheme: String,
    /// What the signer called the image.
    pub identity: String,
    /// Digest of the public key; of a GnuPG key its fingerprint.
    pub key_id: String,
}

/// A process that is to be started in a running container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecRequest {
    /// The container's id.
    pub container_id: String,
    /// Arguments.
    pub args: Vec<String>,
    /// Environment, `NAME=value`.
    pub env: Vec<String>,
    /// uid inside.
    pub uid: u32,
    /// With a terminal.
    pub tty: bool,
    /// `--privileged`.
    pub privileged: bool,
}
