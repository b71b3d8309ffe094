//! Policies of the directory that one works in: `.rlrun/policy.toml`, looked for from there upwards.
//!
//! They are asked beside all others, so that they can only tighten. Whoever hands on a directory hands on its policies,
//! so these get nothing but the request: no data, no grants, no file outside `.rlrun`, nothing fetched on their word.

use crate::answer::printable;
use crate::error::{LoadError, of_toml};
use crate::file::{self, Trust};
use crate::limits;
use crate::pulled::{self, pulled};
use crate::sources::{Found, Origin, Settings, Sources};
use rlrun_spec::policy::{Mode, Tier};
use rustix::fs::{Mode as FileMode, OFlags};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

const DIRECTORY: &str = ".rlrun";
const FILE: &str = "policy.toml";
/// A directory of work can be anybody's idea; more than this is nobody's.
const POLICIES: usize = 32;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    #[serde(default)]
    policy: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    /// One that comes with rlrun.
    #[serde(rename = "use")]
    shipped: Option<String>,
    /// One beside the file.
    file: Option<String>,
    /// One that was pulled, by its digest.
    #[serde(rename = "ref")]
    reference: Option<String>,
    #[serde(default)]
    mode: Mode,
    #[serde(default)]
    settings: toml::Table,
}

/// The policies of the nearest project above `directory`, and a word about them for the user.
pub(crate) fn policies(sources: &Sources, directory: &Path, told: &mut Vec<String>) -> Result<Vec<Found>, LoadError> {
    for above in directory.ancestors() {
        let place = above.join(DIRECTORY);
        match is_ours(&place) {
            Ok(false) => continue,
            // Not an error: whoever can write above one's work could otherwise stop it.
            Err(why) => {
                told.push(printable(&format!("policies in {} are not asked: the directory {why}", place.display())));
                continue;
            }
            Ok(true) => {}
        }
        let path = place.join(FILE);
        let Some(text) = file::read_text(&path, Trust::Project, limits::SETTINGS_BYTES)? else { continue };
        let found = read(sources, &place, &path, &text)?;
        let names: Vec<&str> = found.iter().map(|f| f.name.as_str()).collect();
        // A directory's name can hold anything, and this goes to a terminal.
        let word = format!("policies of the project are asked too: {} ({})", names.join(", "), path.display());
        told.push(printable(&word));
        return Ok(found);
    }
    Ok(Vec::new())
}

/// Whether there is such a directory, of this user's.
fn is_ours(place: &Path) -> Result<bool, String> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let Ok(fd) = rustix::fs::open(place, flags, FileMode::empty()) else { return Ok(false) };
    let stat = rustix::fs::fstat(&fd).map_err(|e| format!("cannot be looked at: {e}"))?;
    Trust::Project.check(&stat).map(|()| true).map_err(|why| match why.strip_prefix("others may write it") {
        Some(rest) => format!("can be written by others{rest}"),
        None => why,
    })
}

fn read(sources: &Sources, place: &Path, path: &Path, text: &str) -> Result<Vec<Found>, LoadError> {
    let wrong = |why: String| LoadError::Settings { path: path.to_owned(), why };
    let config: Config = toml::from_str(text).map_err(|e| wrong(of_toml(&e, text)))?;
    if config.policy.is_empty() || config.policy.len() > POLICIES {
        return Err(wrong(format!("holds {} [[policy]], not 1 to {POLICIES}", config.policy.len())));
    }
    let entry = |entry: Entry| {
        let (name, file, trust) = whereabouts(sources, place, &entry).map_err(wrong)?;
        let Some(checked) = file::open(&file, trust)? else {
            return Err(match &entry.reference {
                Some(reference) => LoadError::NotAPolicy {
                    name,
                    why: "the project asks for it and it was not pulled".to_owned(),
                    hint: Some(format!("rlrun policy pull {reference}")),
                },
                None => LoadError::Unreadable { path: file, source: rustix::io::Errno::NOENT.into() },
            });
        };
        let beside = match entry.reference {
            Some(_) => Settings::read(file.with_extension("toml"), Trust::User)?.unwrap_or_default(),
            None => Settings::default(),
        };
        Ok(Found {
            name,
            tier: Tier::Project,
            pinned: pulled::pin(&file, &beside, &sources.data_dir)?,
            wasm: Origin::File { path: file.clone(), checked },
            settings: if entry.reference.is_some() && entry.settings.is_empty() {
                beside
            } else {
                Settings::within(path, &entry.settings)
            },
            data: None,
            mode: entry.mode,
            grants: BTreeSet::new(),
        })
    };
    config.policy.into_iter().map(entry).collect()
}

/// Name, file, whose file it has to be.
fn whereabouts(sources: &Sources, place: &Path, entry: &Entry) -> Result<(String, PathBuf, Trust), String> {
    let plain = |word: &str| !word.is_empty() && !word.starts_with('.') && !word.contains(['/', '\0']);
    match (&entry.shipped, &entry.file, &entry.reference) {
        (Some(name), None, None) if plain(name) => {
            Ok((name.clone(), sources.shipped_dir.join(format!("{name}.wasm")), Trust::User))
        }
        (None, Some(file), None) if plain(file) => {
            let name = file.strip_suffix(".wasm").unwrap_or(file).to_owned();
            Ok((name, place.join(file), Trust::Project))
        }
        (None, None, Some(reference)) => {
            let digest = digest(reference).ok_or(format!("`{reference}` names no digest: NAME@sha256:..."))?;
            let (name, file) = only_one(&pulled(&sources.data_dir, &digest), reference)?;
            Ok((name, file, Trust::User))
        }
        (Some(word), None, None) | (None, Some(word), None) => Err(format!("`{word}` is not a plain name")),
        _ => Err("a [[policy]] has one of use, file and ref".to_owned()),
    }
}

/// The policy of a reference. One that was not pulled is missed by the name of its repository.
fn only_one(directory: &Path, reference: &str) -> Result<(String, PathBuf), String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let names = entries.filter_map(|e| e.file_name().into_string().ok());
    let mut names: Vec<String> = names.filter_map(|n| n.strip_suffix(".wasm").map(str::to_owned)).collect();
    names.sort();
    let name = match &names[..] {
        [] => {
            let repository = reference.split('@').next().unwrap_or_default();
            let last = repository.rsplit('/').next().unwrap_or_default();
            last.split(':').next().unwrap_or_default().to_owned()
        }
        [one] => one.clone(),
        _ => return Err(format!("`{reference}` is a bundle: use file or `rlrun policy add`")),
    };
    let file = directory.join(format!("{name}.wasm"));
    Ok((name, file))
}

/// What a reference is pinned to.
fn digest(reference: &str) -> Option<String> {
    let (_, digest) = reference.split_once('@')?;
    let hex = digest.strip_prefix("sha256:")?;
    let good = hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    good.then(|| digest.to_owned())
}
