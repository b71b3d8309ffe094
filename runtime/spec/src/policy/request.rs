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
    /// The mirror that registries.conf chose instead.
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
}

/// A signature that was verified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    /// `cosign-key`
    pub scheme: String,
    /// What the signer called the image.
    pub identity: String,
    /// Digest of the public key.
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
