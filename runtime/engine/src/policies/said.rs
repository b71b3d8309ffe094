//! What policies say of themselves, in their metadata.

use super::{BUILTINS, list, project, shipped_dir, user_dir};
use crate::place::Place;
use rlrun_spec::{Failure, Kind, Stage};
use std::path::{Path, PathBuf};

/// What one file says of itself: a JSON object, empty when it says nothing.
///
/// # Errors
/// When it cannot be read.
pub fn described(file: &Path) -> Result<serde_json::Map<String, serde_json::Value>, Failure> {
    let wasm = std::fs::read(file).map_err(|e| {
        Failure::new(Stage::Cli, Kind::Usage, "read-policy", "read the policy", file.display().to_string())
            .why(e.to_string())
    })?;
    Ok(project::described(&wasm))
}

/// Of a policy that reads a text the hooks that the text has: the reader has them all.
#[must_use]
pub fn hooks_of_text(said: &serde_json::Map<String, serde_json::Value>) -> Option<Vec<String>> {
    let hooks = said.get("hooks")?.as_array()?;
    Some(hooks.iter().filter_map(|hook| hook.as_str().map(str::to_owned)).collect())
}

/// Where a policy of the user's is.
#[must_use]
pub fn of_user(place: &Place, name: &str) -> PathBuf {
    user_dir(place).join(format!("{name}.wasm"))
}

/// What a code means, by the word of each policy at hand that has it: who says so, and what.
///
/// # Errors
/// When the policies cannot be looked for.
pub fn meanings(place: &Place, code: &str) -> Result<Vec<(String, String)>, Failure> {
    let of = |name: String, wasm: &[u8]| {
        let said = project::described(wasm);
        let meaning = said.get("codes").and_then(|codes| codes.get(code)).and_then(serde_json::Value::as_str);
        meaning.map(|meaning| (name, meaning.to_owned()))
    };
    let mut all: Vec<_> = BUILTINS.iter().filter_map(|b| of(b.name.to_owned(), b.wasm)).collect();
    let asked = list(place)?.into_iter().filter_map(|listed| Some((listed.name, listed.path?)));
    let shipped = std::fs::read_dir(shipped_dir()).into_iter().flatten().flatten().map(|entry| entry.path());
    let name = |path: &Path| path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    for (name, path) in asked.chain(shipped.map(|path| (name(&path), path))) {
        // What cannot be read says nothing.
        if path.extension().is_some_and(|e| e == "wasm")
            && !all.iter().any(|(known, _)| *known == name)
            && let Ok(wasm) = std::fs::read(&path)
        {
            all.extend(of(name, &wasm));
        }
    }
    Ok(all)
}
