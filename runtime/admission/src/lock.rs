//! `policy.lock`: what was added to a directory of policies, exactly, and what was approved of it then.

use crate::error::{LoadError, of_toml};
use crate::file::{self, Trust};
use crate::limits;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The name of the file.
pub const LOCK: &str = "policy.lock";

/// The file, by the policies' names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Lock {
    /// What was added.
    pub policies: BTreeMap<String, Locked>,
}

/// One policy as it was added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Locked {
    /// Of the component: `sha256:...`. Another file under its name is refused.
    pub digest: String,
    /// Where it came from: a reference or a file.
    pub source: String,
    /// Of the manifest that a reference meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<String>,
    /// The public key that its signature was verified with, PEM; an update has to be signed with it too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The digest of the key whose signature held, this one or one that policy.json names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signer: Option<String>,
    /// What it may reach.
    pub imports: BTreeSet<String>,
    /// What it is asked.
    pub exports: BTreeSet<String>,
    /// Of the imports those that somebody had to grant.
    #[serde(default)]
    pub grants: BTreeSet<String>,
}

impl Lock {
    /// Reads the user's file; none is an empty one.
    ///
    /// # Errors
    /// When it cannot be read, belongs to somebody else, or is no such file.
    pub fn read(path: &Path) -> Result<Self, LoadError> {
        Self::read_trusted(path, Trust::User)
    }

    pub(crate) fn read_trusted(path: &Path, trust: Trust) -> Result<Self, LoadError> {
        let Some(text) = file::read_text(path, trust, limits::SETTINGS_BYTES)? else { return Ok(Self::default()) };
        let invalid = |e: toml::de::Error| LoadError::Settings { path: path.to_owned(), why: of_toml(&e, &text) };
        toml::from_str(&text).map_err(invalid)
    }

    /// The file's text.
    ///
    /// # Errors
    /// When it holds what TOML cannot.
    pub fn text(&self) -> Result<String, LoadError> {
        let invalid = |e: toml::ser::Error| LoadError::Settings { path: LOCK.into(), why: e.to_string() };
        let body = toml::to_string(self).map_err(invalid)?;
        Ok(format!("# Written by `rlrun policy add`, `update` and `rm`.\n\n{body}"))
    }
}
