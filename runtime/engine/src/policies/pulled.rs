//! Policies from registries, kept by the digest of their manifest: `policies/<hex>/NAME.wasm`, with `NAME.toml` where
//! settings come with them, and the manifest. `policies/refs/` has what a reference meant when it was pulled. Everything appears by rename.

use super::added::unlink;
use super::{Choice, Source, check_with, sources};
use crate::place::Place;
use crate::record::failed;
use crate::request::{Baseline, PullOptions};
use rlrun_admission::{Inspection, MANIFEST};
use rlrun_image::{Artifact, Member, Reference, pull_artifact, push_artifact};
use rlrun_spec::{Failure, Kind, Stage};
use std::fs;
use std::path::{Path, PathBuf};

const DIRECTORY: &str = "policies";
const REFS: &str = "policies/refs";

/// What was pulled.
#[derive(Debug)]
pub struct Kept {
    /// The reference in full.
    pub reference: String,
    /// Of the manifest.
    pub digest: String,
    /// The digest of the key whose signature was verified.
    pub signer: Option<String>,
    /// The policies of it.
    pub files: Vec<PathBuf>,
}

/// What was pushed.
#[derive(Debug)]
pub struct Pushed {
    /// Of the manifest.
    pub digest: String,
    /// How many policies.
    pub policies: usize,
}

/// `rlrun policy pull`.
///
/// # Errors
/// When it cannot be had, is no policy, or is not signed as policy.json or the key demand.
pub fn pull(place: &Place, reference: &str, key: Option<&[u8]>, options: &PullOptions) -> Result<Kept, Failure> {
    let artifact = pull_artifact(reference, key, options).map_err(|e| said_of_policy(e.into()))?;
    let directory = place.own(DIRECTORY)?.join(hex(&artifact.digest));
    keep(place, &directory, &artifact)?;
    remember(place, &artifact.reference, &artifact.digest)?;
    Ok(Kept {
        files: artifact.members.iter().map(|m| directory.join(format!("{}.wasm", m.name))).collect(),
        signer: artifact.signatures.last().map(|signature| signature.key.clone()),
        reference: artifact.reference,
        digest: artifact.digest,
    })
}

fn hex(digest: &str) -> &str {
    digest.trim_start_matches("sha256:")
}

fn said_of_policy(mut failure: Failure) -> Failure {
    failure.operation = match failure.operation.as_str() {
        "pull the image" => "pull the policy".to_owned(),
        "push the image" => "push the policy".to_owned(),
        "accept the image" => "accept the policy".to_owned(),
        _ => failure.operation,
    };
    failure
}

/// The same manifest is the same files, so that those that are there and whole are left as they are.
fn keep(place: &Place, directory: &Path, artifact: &Artifact) -> Result<(), Failure> {
    let files = files(artifact);
    let failed = |error| failed("keep-policy", "keep the policy", directory, &error);
    if directory.is_dir() {
        if files.iter().all(|(name, bytes)| fs::read(directory.join(name)).is_ok_and(|there| there == **bytes)) {
            return Ok(());
        }
        fs::remove_dir_all(directory).map_err(failed)?;
    }
    let incoming = place.own(DIRECTORY)?.join(format!(".incoming-{}", std::process::id()));
    match fs::remove_dir_all(&incoming) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        // Left by a process of the same id that was killed.
        Ok(()) | Err(_) => {}
    }
    place.own(&format!("{DIRECTORY}/.incoming-{}", std::process::id()))?;
    for (name, bytes) in &files {
        write(&incoming.join(name), bytes)?;
    }
    match fs::rename(&incoming, directory) {
        // Another command was faster.
        Err(_) if directory.is_dir() => fs::remove_dir_all(&incoming).map_err(failed),
        other => other.map_err(failed),
    }
}

/// The manifest too: its digest is the directory's name, and it has those of the others.
fn files(artifact: &Artifact) -> Vec<(String, &[u8])> {
    let mut files: Vec<(String, &[u8])> = vec![(MANIFEST.to_owned(), &artifact.manifest)];
    for member in &artifact.members {
        files.push((format!("{}.wasm", member.name), &member.wasm));
        files.extend(member.settings.as_deref().map(|settings| (format!("{}.toml", member.name), settings)));
    }
    files
}

/// A file of the user's alone, on disk before it has its name.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let failed = |error| failed("keep-policy", "write", path, &error);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.{}", std::process::id()));
    let mut options = fs::File::options();
    // Truncated: what a killed process of the same id left.
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&temporary).map_err(failed)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(failed)?;
    fs::rename(&temporary, path).map_err(failed)
}

/// A reference holds no `%`.
fn ref_file(place: &Place, reference: &str) -> PathBuf {
    place.data.join(REFS).join(reference.replace('/', "%2F"))
}

fn remember(place: &Place, reference: &str, digest: &str) -> Result<(), Failure> {
    place.own(REFS)?;
    write(&ref_file(place, reference), digest.as_bytes())
}

/// The files of a reference that was pulled before, fetched if it never was.
pub(super) fn at_hand(place: &Place, reference: &str) -> Result<Vec<PathBuf>, Failure> {
    let full = Reference::parse(reference).map_err(Failure::from)?;
    let digest = match full.digest() {
        Some(digest) => Some(digest.to_string()),
        None => fs::read_to_string(ref_file(place, &full.to_string())).ok(),
    };
    if let Some(digest) = digest {
        let directory = place.data.join(DIRECTORY).join(hex(digest.trim()));
        let files = wasm_of(&directory);
        if !files.is_empty() {
            return Ok(files);
        }
    }
    crate::warn(&format!("the policy {full} is pulled: it was not there yet"));
    Ok(pull(place, reference, None, &PullOptions::default())?.files)
}

/// What was pulled is kept no longer, once no other reference means it. One that is asked by its directory is missed by
/// name then, with the command that brings it back.
///
/// # Errors
/// When nothing of that reference was pulled, or it cannot be removed.
pub(super) fn forget(place: &Place, reference: &str) -> Result<(), Failure> {
    let full = Reference::parse(reference).map_err(Failure::from)?;
    let own = ref_file(place, &full.to_string());
    let meaning = |path: &Path| fs::read_to_string(path).map(|digest| digest.trim().to_owned());
    let digest = full.digest().map(ToString::to_string).or_else(|| meaning(&own).ok()).unwrap_or_default();
    let directory = place.data.join(DIRECTORY).join(hex(&digest));
    if digest.is_empty() || !directory.is_dir() {
        return Err(Failure::new(Stage::Cli, Kind::Usage, "remove-policy", "remove the policy", full.to_string())
            .why("was not pulled")
            .hint("`rlrun policy ls` lists those that are asked, which have other names"));
    }
    unlink(&own)?;
    let refs = fs::read_dir(place.data.join(REFS)).into_iter().flatten().flatten().map(|entry| entry.path());
    let same: Vec<PathBuf> = refs.filter(|path| meaning(path).is_ok_and(|other| other == digest)).collect();
    match full.digest() {
        None if !same.is_empty() => return Ok(()),
        None => {}
        // All of its names go with it.
        Some(_) => same.iter().try_for_each(|path| unlink(path))?,
    }
    // Out of the way at once: half of a policy is none.
    let aside = place.own(DIRECTORY)?.join(format!(".incoming-{}", std::process::id()));
    let gone = fs::rename(&directory, &aside).and_then(|()| fs::remove_dir_all(&aside));
    gone.map_err(|e| failed("remove-policy", "remove", &directory, &e))?;
    crate::journal::event("policy", "remove", "", &full.to_string(), serde_json::json!({}));
    Ok(())
}

fn wasm_of(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut files: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|e| e == "wasm")).collect();
    files.sort();
    files
}

/// `rlrun policy push`: each file a policy, with the settings beside it if they are to go along.
///
/// # Errors
/// When one of them is no policy that can be asked, or the registry does not take them.
pub fn push(
    place: &Place,
    words: &[PathBuf],
    reference: &str,
    with_settings: bool,
    options: &PullOptions,
) -> Result<Pushed, Failure> {
    let members = words.iter().map(|word| member(place, word, with_settings)).collect::<Result<Vec<_>, _>>()?;
    let digest = push_artifact(reference, &members, options).map_err(|e| said_of_policy(e.into()))?;
    Ok(Pushed { digest, policies: members.len() })
}

fn member(place: &Place, word: &Path, with_settings: bool) -> Result<Member, Failure> {
    let path = match Source::parse(word) {
        Source::File(path) | Source::Shipped(_, path) => path,
        Source::Reference(_) => {
            return Err(Failure::new(
                Stage::Cli,
                Kind::Usage,
                "push-policy",
                "push the policy",
                word.display().to_string(),
            )
            .why("is not a file"));
        }
    };
    let choice = Choice { files: Vec::new(), baseline: Baseline::Off };
    let Inspection { id, imports, exports, .. } = check_with(&path, None, &sources(place, choice)?)?;
    let read = |path: &Path| fs::read(path).map_err(|e| failed("push-policy", "read", path, &e));
    let wasm = read(&path)?;
    let is_component = wasm.get(4..8) == Some(&[0x0d, 0, 1, 0]);
    if !is_component {
        return Err(Failure::new(
            Stage::Cli,
            Kind::Usage,
            "push-policy",
            "push the policy",
            path.display().to_string(),
        )
        .why("is a core module, and registries hold components")
        .hint("link it with wasm-component-ld, or make a component of it with `wasm-tools component new`"));
    }
    let settings = path.with_extension("toml");
    let settings = if with_settings && settings.exists() { Some(read(&settings)?) } else { None };
    Ok(Member { name: id.name, wasm, settings, imports, exports })
}
