//! What was pulled, each time it is used: still what its manifest says, whose digest is its directory's name.

use crate::code::Digest;
use crate::error::LoadError;
use crate::file::{self, Trust};
use crate::limits;
use crate::sources::Settings;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Beside the files that came with it.
pub const MANIFEST: &str = "manifest.json";
const DIRECTORY: &str = "policies";
const TITLE: &str = "org.opencontainers.image.title";

/// Where what was pulled is kept, by the digest of its manifest: a directory of `NAME.wasm`, with `NAME.toml` where
/// settings came along, and the manifest.
#[must_use]
pub fn pulled(data_dir: &Path, digest: &str) -> PathBuf {
    data_dir.join(DIRECTORY).join(digest.trim_start_matches("sha256:"))
}

/// The digest that a file has to have because it was pulled, and who says so; None for all other files. Settings that
/// came along are compared here.
///
/// # Errors
/// When what is there is not what was pulled.
pub(crate) fn pin(file: &Path, beside: &Settings, data_dir: &Path) -> Result<Option<(String, PathBuf)>, LoadError> {
    let Some((directory, name)) = place_of(file, data_dir) else { return Ok(None) };
    let manifest = directory.join(MANIFEST);
    let stem = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let changed = |why: &str| LoadError::NotAPolicy {
        name: stem.clone(),
        why: format!("is not what was pulled: {why}"),
        hint: Some("rlrun policy pull brings it anew".to_owned()),
    };
    let text = file::read_text(&manifest, Trust::User, limits::SETTINGS_BYTES)?;
    let text = text.ok_or_else(|| changed("its manifest is missing"))?;
    if Digest::of(text.as_bytes()).to_string() != name {
        return Err(changed("its manifest was changed"));
    }
    let parsed: Value = serde_json::from_str(&text).map_err(|_| changed("its manifest is none"))?;
    let layers = parsed["layers"].as_array().map(Vec::as_slice).unwrap_or_default();
    let titled = |title: &str| layers.iter().find(|layer| layer["annotations"][TITLE] == title);
    let digest = |layer: &Value| layer["digest"].as_str().unwrap_or_default().to_owned();
    // Older tools give a single component no name.
    let component = titled(&format!("{stem}.wasm")).or(layers.first().filter(|_| layers.len() == 1));
    let component = component.ok_or_else(|| changed("its manifest knows no such policy"))?;
    let none = format!("sha256:{}", Settings::default().digest());
    let came_along = titled(&format!("{stem}.toml")).map_or(none, digest);
    if came_along != format!("sha256:{}", beside.digest()) {
        return Err(changed("its settings are others"));
    }
    Ok(Some((digest(component), manifest)))
}

/// The directory of what was pulled, and its name.
fn place_of<'f>(file: &'f Path, data_dir: &Path) -> Option<(&'f Path, &'f str)> {
    let directory = file.parent()?;
    let name = directory.file_name()?.to_str()?;
    let is_digest = name.len() == 64 && name.bytes().all(|b| b.is_ascii_hexdigit());
    let same = |path: &Path| std::fs::canonicalize(path).ok();
    (is_digest && same(directory.parent()?)? == same(&data_dir.join(DIRECTORY))?).then_some((directory, name))
}
