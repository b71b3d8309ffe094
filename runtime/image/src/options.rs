//! What a caller may choose about a pull.

use crate::registry::Credentials;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// How to pull.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullOptions {
    /// `linux/arm64`, `linux/arm/v7`; the machine's own when None.
    pub platform: Option<String>,
    /// `--tls-verify`. None: certificates are verified, and plain http is spoken to loopback addresses and to registries
    /// that registries.conf calls insecure. `Some(false)`: neither is asked of any registry. `Some(true)`: of every one.
    pub tls_verify: Option<bool>,
    /// `--authfile`; the containers/* search order when None.
    pub authfile: Option<PathBuf>,
    /// `--cert-dir`, in the place of the directories of containers-certs.d(5).
    pub cert_dir: Option<PathBuf>,
    /// `--creds`, instead of what the files say. A record of a request must not hold it.
    #[serde(skip)]
    pub credentials: Option<Credentials>,
}
