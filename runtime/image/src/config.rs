//! The OCI image configuration: an allow-list of the fields that a container is made of. It is hostile input; what is
//! not named here is not read, and nothing here selects a security setting.

use crate::digest::Digest;
use crate::error::ImageError;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What an image says about containers made from it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageConfig {
    /// `NAME=value`.
    pub env: Vec<String>,
    /// The program and its first arguments; `cmd` or the user's words follow.
    pub entrypoint: Vec<String>,
    /// Default arguments.
    pub cmd: Vec<String>,
    /// `user`, `uid`, `user:group` or `uid:gid`; empty is root.
    pub user: String,
    /// Working directory; empty is `/`.
    pub workdir: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Paths that the image wants to be volumes.
    pub volumes: Vec<String>,
    /// `80/tcp`.
    pub exposed_ports: Vec<String>,
    /// `SIGTERM` or a number; the engine's default when None.
    pub stop_signal: Option<String>,
    /// How to see whether a container is well; docker's, which OCI does not have.
    pub healthcheck: Option<Healthcheck>,
    /// RFC 3339, as the image says it.
    pub created: Option<String>,
    /// `amd64`.
    pub architecture: String,
    /// `linux`.
    pub os: String,
    /// `v8`.
    pub variant: Option<String>,
}

/// `HEALTHCHECK` of a Dockerfile, as docker writes it. A container is checked with it as with a command of its own:
/// inside, and confined.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Healthcheck {
    /// `["CMD", ...]`, `["CMD-SHELL", ...]` or `["NONE"]`.
    pub test: Vec<String>,
    /// Nanoseconds; 0 for nothing said.
    pub interval: u64,
    /// The same.
    pub timeout: u64,
    /// The same.
    pub start_period: u64,
    /// 0 for nothing said.
    pub retries: u32,
}

impl ImageConfig {
    /// `linux/amd64`, `linux/arm64/v8`.
    #[must_use]
    pub fn platform(&self) -> String {
        Self::platform_of(&self.os, &self.architecture, self.variant.as_deref())
    }

    pub(crate) fn platform_of(os: &str, architecture: &str, variant: Option<&str>) -> String {
        match variant {
            Some(variant) => format!("{os}/{architecture}/{variant}"),
            None => format!("{os}/{architecture}"),
        }
    }
}

/// A parsed configuration: what containers need, and what its layers unpack to.
#[derive(Debug)]
pub(crate) struct ParsedConfig {
    pub(crate) config: ImageConfig,
    /// Bottom first.
    pub(crate) diff_ids: Vec<Digest>,
    /// `created_by` of each history entry.
    pub(crate) history: Vec<String>,
}

/// As on the wire: docker writes null where OCI leaves out, so every container is optional.
#[derive(Deserialize)]
struct Wire {
    #[serde(default)]
    created: Option<String>,
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
    #[serde(default)]
    variant: Option<String>,
    #[serde(default)]
    config: Option<WireConfig>,
    rootfs: WireRootfs,
    #[serde(default)]
    history: Option<Vec<WireHistory>>,
}

#[derive(Deserialize)]
struct WireHistory {
    #[serde(default)]
    created_by: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct WireConfig {
    user: Option<String>,
    env: Option<Vec<String>>,
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    working_dir: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    volumes: Option<BTreeMap<String, serde::de::IgnoredAny>>,
    exposed_ports: Option<BTreeMap<String, serde::de::IgnoredAny>>,
    stop_signal: Option<String>,
    healthcheck: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct WireRootfs {
    #[serde(default)]
    diff_ids: Option<Vec<Digest>>,
}

/// Reads the configuration `bytes` of the image called `object`.
pub(crate) fn parse(bytes: &[u8], object: &str) -> Result<ParsedConfig, ImageError> {
    let wire: Wire = serde_json::from_slice(bytes)
        .map_err(|e| ImageError::malformed(object, format!("image configuration: {e}")))?;
    let inner = wire.config.unwrap_or_default();
    let config = ImageConfig {
        env: inner.env.unwrap_or_default(),
        entrypoint: inner.entrypoint.unwrap_or_default(),
        cmd: inner.cmd.unwrap_or_default(),
        user: inner.user.unwrap_or_default(),
        workdir: inner.working_dir.unwrap_or_default(),
        labels: inner.labels.unwrap_or_default(),
        volumes: inner.volumes.unwrap_or_default().into_keys().collect(),
        exposed_ports: inner.exposed_ports.unwrap_or_default().into_keys().collect(),
        stop_signal: inner.stop_signal.filter(|s| !s.is_empty()),
        // One that is not as docker writes it checks nothing; the image is none the worse for it.
        healthcheck: inner.healthcheck.and_then(|check| serde_json::from_value(check).ok()),
        created: wire.created,
        architecture: wire.architecture,
        os: wire.os,
        variant: wire.variant.filter(|v| !v.is_empty()),
    };
    let check = config.healthcheck.as_ref().map(|check| check.test.as_slice()).unwrap_or_default();
    let words = config
        .env
        .iter()
        .chain(check)
        .chain(&config.entrypoint)
        .chain(&config.cmd)
        .chain([&config.user, &config.workdir]);
    if words.into_iter().any(|w| w.contains('\0')) {
        return Err(ImageError::malformed(object, "image configuration: a NUL byte in a string"));
    }
    if config.os != "linux" {
        let why = format!("it is for the operating system `{}`, not linux", config.os.escape_default());
        return Err(ImageError::malformed(object, why));
    }
    let history = wire.history.unwrap_or_default().into_iter().map(|h| h.created_by.unwrap_or_default()).collect();
    Ok(ParsedConfig { config, diff_ids: wire.rootfs.diff_ids.unwrap_or_default(), history })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docker_writes_null_where_oci_leaves_out() {
        let text = br#"{"architecture":"amd64","os":"linux","created":null,"config":{"Env":["A=1"],"Cmd":null,
            "Entrypoint":["/a"],"User":"","Volumes":{"/v":{}},"ExposedPorts":{"80/tcp":{}},"Labels":null,
            "OnBuild":null,"ArgsEscaped":true},"container_config":{},"rootfs":{"type":"layers","diff_ids":null}}"#;
        let parsed = parse(text, "x").unwrap();
        assert_eq!(parsed.config.env, ["A=1"]);
        assert_eq!(parsed.config.entrypoint, ["/a"]);
        assert_eq!(parsed.config.volumes, ["/v"]);
        assert_eq!(parsed.config.exposed_ports, ["80/tcp"]);
        assert_eq!(parsed.config.platform(), "linux/amd64");
        assert!(parsed.diff_ids.is_empty());
    }

    #[test]
    fn a_health_check_is_read_as_docker_writes_it() {
        let with = |check: &str| {
            let text =
                format!(r#"{{"architecture":"amd64","os":"linux","config":{{"Healthcheck":{check}}},"rootfs":{{}}}}"#);
            parse(text.as_bytes(), "x").map(|parsed| parsed.config.healthcheck)
        };
        let check = with(r#"{"Test":["CMD-SHELL","true"],"Interval":5000000000,"Retries":3,"StartInterval":1}"#);
        let check = check.unwrap().unwrap();
        assert_eq!((check.test.len(), check.interval, check.timeout, check.retries), (2, 5_000_000_000, 0, 3));
        assert_eq!(with(r#"{"Test":"x"}"#).unwrap(), None);
        assert_eq!(with("null").unwrap(), None);
        assert!(with(r#"{"Test":["CMD","a\u0000"]}"#).is_err());
    }

    #[test]
    fn other_systems_and_nul_bytes_are_refused() {
        let windows = br#"{"architecture":"amd64","os":"windows","rootfs":{}}"#;
        assert!(parse(windows, "x").unwrap_err().to_string().contains("windows"));
        let nul = br#"{"architecture":"amd64","os":"linux","config":{"Env":["A=\u0000"]},"rootfs":{}}"#;
        assert!(parse(nul, "x").unwrap_err().to_string().contains("NUL"));
    }
}
