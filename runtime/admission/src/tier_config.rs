//! `policy.toml` of a directory of policies: what is said about them, not to them.

use crate::error::{LoadError, of_toml};
use crate::file::{self, Trust};
use crate::limits;
use rlrun_spec::policy::Mode;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The name of the file, so that no policy may have it.
pub(crate) const TIER_CONFIG: &str = "policy";

/// The file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct TierConfig {
    /// Policies without which nothing starts.
    pub(crate) required: Vec<String>,
    /// What the no of a policy does. For the administrator's policies a user's word counts where it is stricter.
    pub(crate) modes: BTreeMap<String, Mode>,
    /// Capabilities that a policy has only where somebody says so.
    pub(crate) grants: BTreeMap<String, BTreeSet<String>>,
}

impl TierConfig {
    pub(crate) fn read(path: &Path, trust: Trust) -> Result<Self, LoadError> {
        let Some(text) = file::read_text(path, trust, limits::SETTINGS_BYTES)? else { return Ok(Self::default()) };
        let invalid = |e: toml::de::Error| LoadError::Settings { path: path.to_owned(), why: of_toml(&e, &text) };
        toml::from_str(&text).map_err(invalid)
    }
}
