//! `policy add`, `update` and `rm`: the user's directory of policies and its `policy.lock`.
//!
//! Whatever is killed half-way leaves something that stops every start until the command is given again: settings
//! without a policy, a lock without its policy, a policy that is not what the lock says. Never a policy that is not
//! asked although it was, or asked without its settings.

use super::pulled::{self, write};
use super::{Choice, Source, check_with, sources, user_dir};
use crate::place::Place;
use crate::record::failed;
use crate::request::{Baseline, PullOptions};
use rlrun_admission::{Inspection, LOCK, Lock, Locked, is_capability};
use rlrun_spec::{Failure, Kind, Stage};
use rustix::fs::FlockOperation;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

/// What is to be added.
#[derive(Clone, Debug, Default)]
pub struct Addition {
    /// A file, a reference, or the name of one that comes with rlrun.
    pub source: PathBuf,
    /// Another name than its own.
    pub name: Option<String>,
    /// Its settings, instead of those that come with it.
    pub settings: Option<PathBuf>,
    /// Capabilities that it may have.
    pub grants: Vec<String>,
    /// The public key that has to have signed it.
    pub key: Option<PathBuf>,
    /// Another reach or other hooks than before are fine.
    pub approve: bool,
    /// How the registry is spoken to.
    pub options: PullOptions,
}

/// One line of what was done.
#[derive(Debug)]
pub struct Outcome {
    /// The policy.
    pub name: String,
    /// What it is now.
    pub locked: Locked,
    /// How it came about.
    pub change: Change,
}

/// What became of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is new.
    Added,
    /// It is another.
    Updated,
    /// Nothing.
    None,
}

/// One policy with everything that is known of it, not yet in place.
struct Candidate {
    name: String,
    wasm: Vec<u8>,
    settings: Option<Vec<u8>>,
    locked: Locked,
}

/// `rlrun policy add`.
///
/// # Errors
/// When it cannot be had, is no policy, wants what was not granted, or is another than the one that was approved.
pub fn add(place: &Place, addition: &Addition) -> Result<Vec<Outcome>, Failure> {
    let directory = own_directory(place)?;
    let _one_at_a_time = hold(&directory)?;
    let key = addition.key.as_deref().map(read).transpose()?;
    let candidates = candidates(place, addition, key.as_deref(), None)?;
    if candidates.len() > 1 && (addition.name.is_some() || addition.settings.is_some()) {
        return Err(refusal(&addition.source, "is a bundle: each of its policies has its own name and settings"));
    }
    let mut lock = Lock::read(&directory.join(LOCK)).map_err(|e| e.failure())?;
    for candidate in &candidates {
        let known = lock.policies.get(&candidate.name);
        if known.is_none() && !addition.approve && directory.join(format!("{}.wasm", candidate.name)).exists() {
            return Err(refusal(Path::new(&candidate.name), "is there already, and not by `rlrun policy add`")
                .hint("give it another --name, or take its place: --approve"));
        }
        approve(candidate, known, addition.approve)?;
    }
    let put_in = |mut candidate: Candidate| {
        // What the user has written is not replaced by what came along.
        if addition.settings.is_none() && directory.join(format!("{}.toml", candidate.name)).exists() {
            candidate.settings = None;
        }
        put(&directory, &mut lock, candidate)
    };
    candidates.into_iter().map(put_in).collect()
}

/// `rlrun policy update`: what the references of added policies mean now.
///
/// # Errors
/// With the first that cannot be had, is not signed by the same key, or wants more than was approved.
pub fn update(
    place: &Place,
    names: &[String],
    approve_changes: bool,
    options: &PullOptions,
) -> Result<Vec<Outcome>, Failure> {
    let directory = own_directory(place)?;
    let _one_at_a_time = hold(&directory)?;
    let mut lock = Lock::read(&directory.join(LOCK)).map_err(|e| e.failure())?;
    let named = |name: &str| names.is_empty() || names.iter().any(|n| n == name);
    if let Some(unknown) = names.iter().find(|name| !lock.policies.contains_key(*name)) {
        return Err(refusal(Path::new(unknown), "was not added").hint("rlrun policy ls"));
    }
    let before: Vec<(String, Locked)> =
        lock.policies.iter().filter(|(name, _)| named(name)).map(|(n, l)| (n.clone(), l.clone())).collect();
    let mut done = Vec::new();
    for (name, old) in before {
        let settings = directory.join(format!("{name}.toml"));
        let addition = Addition {
            settings: settings.exists().then_some(settings),
            source: PathBuf::from(&old.source),
            grants: old.grants.iter().cloned().collect(),
            options: options.clone(),
            ..Addition::default()
        };
        let key = old.key.as_deref().map(str::as_bytes);
        let Some(mut candidate) = candidates(place, &addition, key, Some(&name))?.pop() else {
            return Err(refusal(Path::new(&name), &format!("is no longer in {}", old.source)));
        };
        candidate.name.clone_from(&name);
        // The user's settings stay the user's.
        candidate.settings = None;
        if candidate.locked.digest == old.digest {
            done.push(Outcome { name, locked: old, change: Change::None });
            continue;
        }
        approve(&candidate, Some(&old), approve_changes)?;
        done.push(put(&directory, &mut lock, candidate)?);
    }
    Ok(done)
}

/// `rlrun policy rm`: also what a killed command left of one; of a reference, what was pulled.
///
/// # Errors
/// When there is nothing of that name, or data of the user's with it.
pub fn remove(place: &Place, name: &str) -> Result<(), Failure> {
    if let Source::Reference(reference) = Source::parse(Path::new(name)) {
        return super::pulled::forget(place, &reference);
    }
    let directory = own_directory(place)?;
    let _one_at_a_time = hold(&directory)?;
    let path = |extension: &str| directory.join(format!("{name}.{extension}"));
    if !is_plain(name) {
        return Err(refusal(Path::new(name), "is not the name of a policy"));
    }
    let mut lock = Lock::read(&directory.join(LOCK)).map_err(|e| e.failure())?;
    let (wasm, settings) = (path("wasm"), path("toml"));
    if !wasm.exists() && !lock.policies.contains_key(name) {
        let failure = refusal(Path::new(name), "is not among your policies");
        return Err(failure.hint(format!("rlrun policy ls; yours are in {}", directory.display())));
    }
    if path("data").exists() {
        let data = path("data").display().to_string();
        return Err(refusal(Path::new(name), &format!("has data in {data}")).hint(format!("rm -r {data}")));
    }
    let tier = directory.join(super::project::FILE);
    if let Some(table) = table_that_names(&tier, name) {
        // Without the policy that line would be about nobody, and nothing would start.
        let hint = format!("take its line out of [{table}] first");
        return Err(refusal(Path::new(name), &format!("is named in {}", tier.display())).hint(hint));
    }
    // The policy first: until the rest is gone, nothing starts.
    unlink(&wasm)?;
    unlink(&settings)?;
    if lock.policies.remove(name).is_some() {
        write(&directory.join(LOCK), lock.text().map_err(|e| e.failure())?.as_bytes())?;
    }
    crate::journal::event("policy", "remove", "", name, serde_json::json!({}));
    Ok(())
}

/// Where the directory's `policy.toml` says something about a policy.
fn table_that_names(tier: &Path, name: &str) -> Option<&'static str> {
    let table: toml::Table = fs::read_to_string(tier).ok()?.parse().ok()?;
    let names = |of: &str| table.get(of).and_then(toml::Value::as_table).is_some_and(|of| of.contains_key(name));
    ["modes", "grants"].into_iter().find(|of| names(of))
}

pub(super) fn unlink(path: &Path) -> Result<(), Failure> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(failed("remove-policy", "remove", path, &e)),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn own_directory(place: &Place) -> Result<PathBuf, Failure> {
    let directory = user_dir(place);
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory);
    made.map_err(|e| failed("policy-dir", "make", &directory, &e))?;
    Ok(directory)
}

/// Held by whoever changes the directory.
fn hold(directory: &Path) -> Result<fs::File, Failure> {
    let failed = |e: std::io::Error| failed("policy-dir", "lock", directory, &e);
    let file = fs::File::open(directory).map_err(failed)?;
    rustix::fs::flock(&file, FlockOperation::LockExclusive).map_err(|e| failed(e.into()))?;
    Ok(file)
}

/// A key's file.
///
/// # Errors
/// When it cannot be read.
pub fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    fs::read(path).map_err(|e| failed("add-policy", "read", path, &e))
}

fn refusal(object: &Path, why: &str) -> Failure {
    Failure::new(Stage::Cli, Kind::Usage, "add-policy", "use the policy", object.display().to_string()).why(why)
}

fn is_plain(name: &str) -> bool {
    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    !name.is_empty() && name.len() <= 64 && !name.starts_with('.') && name.bytes().all(good) && name != "policy"
}

/// Where the policies are, and what the lock says of where they are from; of a bundle only one of that name.
fn candidates(
    place: &Place,
    addition: &Addition,
    key: Option<&[u8]>,
    only: Option<&str>,
) -> Result<Vec<Candidate>, Failure> {
    let (mut files, source, manifest, signer) = match Source::parse(&addition.source) {
        Source::Reference(reference) => {
            let kept = pulled::pull(place, &reference, key, &addition.options)?;
            (kept.files, kept.reference, Some(kept.digest), kept.signer)
        }
        Source::File(_) | Source::Shipped(..) if key.is_some() => {
            return Err(refusal(&addition.source, "is a file, and files carry no signatures").hint("leave out --key"));
        }
        Source::File(path) => {
            let absolute = std::path::absolute(&path).unwrap_or_else(|_| path.clone());
            (vec![path], absolute.display().to_string(), None, None)
        }
        Source::Shipped(name, path) => (vec![path], name, None, None),
    };
    if let Some(name) = only.filter(|_| files.len() > 1) {
        files.retain(|file| file.file_stem().is_some_and(|stem| stem == name));
    }
    let candidate = |file: &PathBuf| {
        let mut candidate = candidate(place, file, addition, (&source, manifest.as_deref(), key))?;
        candidate.locked.signer.clone_from(&signer);
        Ok(candidate)
    };
    files.iter().map(candidate).collect()
}

fn candidate(
    place: &Place,
    file: &Path,
    addition: &Addition,
    (source, manifest, key): (&str, Option<&str>, Option<&[u8]>),
) -> Result<Candidate, Failure> {
    let choice = Choice { files: Vec::new(), baseline: Baseline::Off };
    let inspection = check_with(file, addition.settings.as_deref(), &sources(place, choice)?)?;
    let Inspection { id, imports, exports, grants, problems, settings, .. } = inspection;
    if let Some(problem) = problems.first().filter(|_| addition.settings.is_some() || settings != "{}") {
        return Err(refusal(file, &format!("does not take its settings: {}", problem.message)));
    }
    if let Some(problem) = problems.first() {
        return Err(refusal(file, &format!("needs settings: {}", problem.message)).hint("--settings FILE"));
    }
    let name = addition.name.clone().unwrap_or(id.name);
    if !is_plain(&name) {
        return Err(refusal(Path::new(&name), "is no name for a policy").hint("use letters, digits, `-` and `_`"));
    }
    if let Some(missing) = grants.iter().find(|grant| !addition.grants.iter().any(|g| g == *grant)) {
        let why = format!("wants the {missing}, with which the same request can have another answer");
        return Err(refusal(file, &why).hint(format!("if that is fine: --grant {missing}")));
    }
    if let Some(useless) = addition.grants.iter().find(|g| !grants.iter().any(|grant| grant == g)) {
        return Err(refusal(file, &format!("does not ask for `{useless}`")).hint("leave out --grant"));
    }
    let along = file.with_extension("toml");
    let settings = match &addition.settings {
        Some(path) => Some(read(path)?),
        None if along.exists() => Some(read(&along)?),
        None => None,
    };
    let locked = Locked {
        digest: id.digest,
        source: source.to_owned(),
        manifest: manifest.map(str::to_owned),
        signer: None,
        key: key.map(|pem| String::from_utf8_lossy(pem).into_owned()),
        imports: imports.into_iter().collect(),
        exports: exports.into_iter().collect(),
        grants: addition.grants.iter().cloned().collect(),
    };
    Ok(Candidate { name, wasm: read(file)?, settings, locked })
}

/// What reaches further than what was approved, or is asked less, needs another word.
fn approve(candidate: &Candidate, old: Option<&Locked>, approved: bool) -> Result<(), Failure> {
    let Some(old) = old.filter(|_| !approved) else { return Ok(()) };
    let difference = |kind: &str, before: &BTreeSet<String>, after: &BTreeSet<String>| {
        let more = after.difference(before).map(|i| format!("{kind} +{i}"));
        let less = before.difference(after).map(|i| format!("{kind} -{i}"));
        more.chain(less).collect::<Vec<_>>()
    };
    // Types reach nothing.
    let reach = |all: &BTreeSet<String>| all.iter().filter(|i| is_capability(i)).cloned().collect::<BTreeSet<_>>();
    let mut changes = difference("import", &reach(&old.imports), &reach(&candidate.locked.imports));
    changes.extend(difference("export", &old.exports, &candidate.locked.exports));
    let signer_gone = old.signer.is_some() && candidate.locked.signer != old.signer;
    changes.extend(signer_gone.then(|| "another signer".to_owned()));
    if changes.is_empty() {
        return Ok(());
    }
    let failure = Failure::new(Stage::Cli, Kind::Denied, "add-policy", "replace the policy", candidate.name.as_str());
    Err(failure.why(format!("it is not what was approved: {}", changes.join(", "))).hint("if that is fine: --approve"))
}

/// Settings, lock, policy: see the top of this file.
fn put(directory: &Path, lock: &mut Lock, candidate: Candidate) -> Result<Outcome, Failure> {
    let Candidate { name, wasm, settings, locked } = candidate;
    let before = lock.policies.insert(name.clone(), locked.clone());
    if let Some(settings) = settings {
        write(&directory.join(format!("{name}.toml")), &settings)?;
    }
    write(&directory.join(LOCK), lock.text().map_err(|e| e.failure())?.as_bytes())?;
    write(&directory.join(format!("{name}.wasm")), &wasm)?;
    let change = match before {
        None => Change::Added,
        Some(before) if before == locked => Change::None,
        Some(_) => Change::Updated,
    };
    let action = if change == Change::Added { "add" } else { "update" };
    let told = serde_json::json!({"source": locked.source, "digest": locked.digest});
    crate::journal::event("policy", action, &locked.digest, &name, told);
    Ok(Outcome { name, locked, change })
}
