//! Which policies are asked: the built-in one, the user's, the project's, the administrator's.

mod added;
mod exits;
mod leaving;
mod pulled;
mod said;

pub use added::{Addition, Change, Outcome as Added, add, read as read_key, remove, update};
pub(crate) use leaving::may_leave;
pub use pulled::{Kept, Pushed, pull, push};
pub use rlrun_admission::is_capability;
pub use said::{described, hooks_of_text, meanings, of_user};

pub mod case;
pub mod project;
pub mod replay;
pub mod schema;

use crate::host::probe;
use crate::images::caller;
use crate::place::{Place, own_program};
use crate::request::{Baseline, Launching};
use rlrun_admission::{Builtin, Given, LoadError, PolicySet, Sources, Switch};
use rlrun_spec::policy::{Admitted, Denied, Permit, PolicyId};
use rlrun_spec::{ContainerSpec, Failure, Kind, SpecParts, Stage};
use std::path::{Path, PathBuf};

pub use rlrun_admission::{Function, Inspection, Listed, Lock, MANDATORY_DIR, Reply, Workbench};

/// Made by the build script.
static BUILTINS: &[Builtin] = include!(concat!(env!("OUT_DIR"), "/builtins.rs"));

/// What of the sources the command line decides.
#[derive(Clone, Debug, Default)]
pub struct Choice {
    /// `--policy`: files, references, names of those that come with rlrun.
    pub files: Vec<PathBuf>,
    /// `--policy-baseline`.
    pub baseline: Baseline,
}

impl Choice {
    /// The choice of a `run`.
    #[must_use]
    pub fn of(launching: &Launching) -> Self {
        Choice { files: launching.policies.clone(), baseline: launching.baseline }
    }
}

fn sources(place: &Place, choice: Choice) -> Result<Sources, Failure> {
    let builtin_tier = match choice.baseline {
        Baseline::On if BUILTINS.is_empty() => return Err(without_builtins()),
        Baseline::On => Switch::On,
        Baseline::Off => Switch::Off,
    };
    Ok(Sources {
        builtins: BUILTINS,
        builtin_tier,
        user_dir: user_dir(place),
        files: named(place, &choice.files)?,
        cache_dir: place.cache.join("policy"),
        // Needed only when something is to be compiled, and missed by name then.
        policyc: own_program("rlrun-policyc").unwrap_or_else(|_| PathBuf::from("rlrun-policyc")),
        data_dir: place.data.clone(),
        home: None,
        log: Some(log),
        shipped_dir: shipped_dir(),
        moment: None,
        look_inside: Some(|data, image| rlrun_image::Store::new(data).privileged_files(image)),
        // A directory that is gone has no project above it.
        project: std::env::current_dir().ok(),
    })
}

fn user_dir(place: &Place) -> PathBuf {
    place.config.join("policy.d")
}

/// Where `make install` puts the policies that come with rlrun.
fn shipped_dir() -> PathBuf {
    let running = std::env::current_exe().unwrap_or_default();
    running.parent().unwrap_or(Path::new("/")).join("../share/rlrun/policies")
}

/// The files that the words of `--policy` mean.
fn named(place: &Place, words: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
    let mut files = Vec::with_capacity(words.len());
    for word in words {
        match Source::parse(word) {
            Source::File(path) | Source::Shipped(_, path) => files.push(path),
            Source::Reference(reference) => files.extend(pulled::at_hand(place, &reference)?),
        }
    }
    Ok(files)
}

/// What a word for a policy means.
enum Source {
    File(PathBuf),
    /// One that comes with rlrun.
    Shipped(String, PathBuf),
    Reference(String),
}

impl Source {
    /// A path as it is written; a reference when it begins with a registry, so that a misspelt path asks no server; a
    /// plain name when there is such a policy.
    fn parse(word: &Path) -> Source {
        let text = word.to_string_lossy();
        let is_path = text.starts_with(['/', '.']) || text.ends_with(".wasm") || word.is_file();
        if is_path {
            return Source::File(word.to_owned());
        }
        let registry = text.split_once('/').map(|(first, _)| first).unwrap_or_default();
        if registry.contains(['.', ':']) || registry == "localhost" {
            return Source::Reference(text.into_owned());
        }
        if text.contains('/') {
            return Source::File(word.to_owned());
        }
        let shipped = shipped_dir().join(format!("{text}.wasm"));
        if shipped.is_file() { Source::Shipped(text.into_owned(), shipped) } else { Source::File(word.to_owned()) }
    }
}

/// A program that should have had its policy must not run as if it never had one.
fn without_builtins() -> Failure {
    Failure::new(Stage::Cli, Kind::Denied, "load-policy", "load the policies", "policy baseline")
        .why("this rlrun was built without it")
        .hint("build it with `make`, or start without it: --policy-baseline=off")
}

fn log(policy: &PolicyId, level: &str, message: &str) {
    eprintln!("policy {}: {level}: {message}", policy.name);
}

/// Loads every policy that has to be asked.
///
/// # Errors
/// When one cannot be loaded: nothing may start without its word.
pub fn load(place: &Place, choice: Choice) -> Result<PolicySet, Failure> {
    let files = choice.files.clone();
    let set = PolicySet::load(&sources(place, choice)?).map_err(|e| with_path(&e, &in_reach(place, files, &e)))?;
    for notice in set.notices() {
        eprintln!("warning: {notice}");
    }
    for word in set.told() {
        eprintln!("note: {word}");
    }
    exits::tell(place, &set);
    Ok(set)
}

/// The files that a policy which cannot be loaded may be: those of the command line, then those that are always asked.
fn in_reach(place: &Place, mut files: Vec<PathBuf>, error: &LoadError) -> Vec<PathBuf> {
    if let LoadError::NotAPolicy { name, .. } = error {
        let directories = [user_dir(place), PathBuf::from(MANDATORY_DIR)];
        files.extend(directories.map(|d| d.join(format!("{name}.wasm"))).into_iter().filter(|file| file.exists()));
    }
    files
}

/// What policies said of what has no configuration of its own: for the audit log, with their findings as warnings.
///
/// # Errors
/// When one of them refuses.
pub(crate) fn heard(said: Result<Permit, Box<Denied>>, object: &str) -> Result<Permit, Failure> {
    let permit = said.map_err(|denied| refused(&denied, object))?;
    crate::journal::permitted(&permit);
    warn(&permit, "");
    Ok(permit)
}

/// The same of an image that is to come in: one of several, maybe, and for a container that is asked about later.
///
/// # Errors
/// When one of them refuses.
pub(crate) fn heard_of_image(said: Result<Permit, Box<Denied>>, name: &str) -> Result<(), Failure> {
    let permit = said.map_err(|denied| refused(&denied, name))?;
    crate::journal::heard(&permit, name);
    warn(&permit, &format!("{name}: "));
    Ok(())
}

fn warn(permit: &Permit, about: &str) {
    for (policy, finding) in permit.warnings() {
        crate::warn(&format!("policy {}: {about}[{}] {}", policy.name, finding.code, finding.message));
    }
}

fn refused(denied: &Denied, object: &str) -> Failure {
    crate::journal::denied(denied);
    denied.failure(object)
}

/// What a denial is told as: wrong settings with the file that has them.
pub(crate) fn told(place: &Place, denied: &Denied, object: &str) -> Failure {
    let failure = denied.failure(object);
    let wrong = denied.refusals().iter().find(|r| r.diagnostics.iter().any(|d| d.code == "SETTINGS"));
    let Some(refusal) = wrong else { return failure };
    let directories = [PathBuf::from(MANDATORY_DIR), user_dir(place)];
    let files = directories.map(|d| d.join(format!("{}.toml", refusal.policy.name)));
    match files.into_iter().find(|file| file.exists()) {
        Some(file) => failure.hint(format!("correct {}; `rlrun policy check` tells what it may hold", file.display())),
        None => failure,
    }
}

/// A policy that the user named by its file is told by its file.
fn with_path(error: &LoadError, files: &[PathBuf]) -> Failure {
    let mut failure = error.failure();
    if let LoadError::NotAPolicy { name, .. } = error
        && let Some(path) = files.iter().find(|f| f.file_stem().is_some_and(|stem| stem == name.as_str()))
    {
        failure.object = path.display().to_string();
    }
    failure
}

/// `rlrun policy ls`: all of them, with those that cannot be loaded.
///
/// # Errors
/// When the directories themselves cannot be used.
pub fn list(place: &Place) -> Result<Vec<Listed>, Failure> {
    rlrun_admission::list(&sources(place, Choice::default())?).map_err(|e| e.failure())
}

/// `rlrun policy check FILE`.
///
/// # Errors
/// When it is not a policy that can be asked.
pub fn check(place: &Place, file: &Path, settings: Option<&Path>) -> Result<Inspection, Failure> {
    let choice = Choice { files: Vec::new(), baseline: Baseline::Off };
    let failure = Failure::new(Stage::Cli, Kind::Usage, "check-policy", "look at", file.display().to_string());
    let failure = failure.hint("look at one of the files that `rlrun policy pull` names");
    check_with(&single(place, file, failure)?, settings, &sources(place, choice)?)
}

/// The one file that a word means; the failure, with the reason, when it is a bundle.
fn single(place: &Place, word: &Path, failure: Failure) -> Result<PathBuf, Failure> {
    match <[PathBuf; 1]>::try_from(named(place, &[word.to_owned()])?) {
        Ok([file]) => Ok(file),
        Err(files) => Err(failure.why(format!("it is a bundle of {} policies", files.len()))),
    }
}

fn check_with(file: &Path, settings: Option<&Path>, sources: &Sources) -> Result<Inspection, Failure> {
    rlrun_admission::check(file, settings, sources).map_err(|e| with_path(&e, &[file.to_owned()]))
}

/// What the policies say of a configuration that nobody starts.
#[derive(Debug)]
pub struct Evaluation {
    /// The image, or the container's name where there is none.
    pub object: String,
    /// The verdict.
    pub verdict: Result<Admitted, Box<Denied>>,
}

/// `rlrun policy eval`: asks about a configuration as `rlrun plan` prints it, given as `text` from `path`.
///
/// # Errors
/// When it is no such configuration, or a policy cannot be loaded.
pub fn evaluate(place: &Place, choice: Choice, path: &str, text: &[u8]) -> Result<Evaluation, Failure> {
    let unreadable = |why: String| {
        Failure::new(Stage::Cli, Kind::Usage, "read-request", "read the request", path)
            .why(why)
            .hint("give it what `rlrun plan IMAGE CMD` prints")
    };
    let parts: SpecParts = serde_json::from_slice(text).map_err(|e| unreadable(e.to_string()))?;
    let object = parts.image.as_ref().map_or_else(|| parts.name.clone(), |image| image.reference.clone());
    let spec = ContainerSpec::new(parts).map_err(|e| unreadable(e.to_string()))?;
    let asking = caller(&probe(&place.data));
    Ok(Evaluation { object, verdict: load(place, choice)?.evaluate(spec, &asking) })
}

/// Takes what a policy logs: who, how grave, what.
pub use rlrun_admission::LogLine;

/// One policy on the bench, with `settings` given anew each time it is asked, or those beside it.
///
/// # Errors
/// When it is not a policy that can be asked.
pub fn bench(
    place: &Place,
    file: &Path,
    settings: Option<&serde_json::Value>,
    log: Option<LogLine>,
) -> Result<Workbench, Failure> {
    let sources = Sources { log, ..sources(place, Choice { baseline: Baseline::Off, ..Choice::default() })? };
    let text = settings.map(serde_json::Value::to_string);
    let given = text.as_deref().map_or(Given::Beside, Given::Anew);
    Workbench::open(file, given, &sources).map_err(|e| with_path(&e, &[file.to_owned()]))
}

/// Every policy that would be asked, on the bench.
///
/// # Errors
/// When one of them cannot be loaded.
pub fn benches(place: &Place, choice: Choice) -> Result<Vec<Workbench>, Failure> {
    let files = choice.files.clone();
    Workbench::all(&sources(place, choice)?).map_err(|e| with_path(&e, &files))
}

/// The settings beside a policy, or others, as JSON; None when there are none.
///
/// # Errors
/// When they are not TOML.
pub fn settings_of(path: &Path) -> Result<Option<serde_json::Value>, Failure> {
    let wrong = |why: String| {
        Failure::new(Stage::Cli, Kind::Usage, "read-settings", "read the settings", path.display().to_string()).why(why)
    };
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(wrong(e.to_string())),
    };
    let table: toml::Table =
        toml::from_str(&text).map_err(|e: toml::de::Error| wrong(rlrun_admission::of_toml(&e, &text)))?;
    serde_json::to_value(table).map(Some).map_err(|e| wrong(e.to_string()))
}

/// Settings that a policy refuses, in its own words.
fn accepts(file: &Path, settings: &serde_json::Value) -> Result<(), Failure> {
    let policy = bench(&Place::of_caller()?, file, Some(settings), None)?;
    policy.accepts().map_err(|refusal| {
        let words: Vec<&str> = refusal.diagnostics.iter().map(|d| d.message.as_str()).collect();
        Failure::new(Stage::Cli, Kind::Usage, "build-policy", "set up the policy", refusal.policy.name.as_str())
            .why(words.join("; "))
    })
}

/// What an author's own file is at fault for is no denial.
fn denied_as_usage(error: &LoadError) -> Failure {
    Failure { kind: Kind::Usage, ..error.failure() }
}

/// The name that somebody may have meant: at most two letters apart, or a third of a long one.
fn nearest<'a>(word: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let (distance, name) = names.map(|name| (distance(word, name), name)).min()?;
    (distance <= (word.len() / 3).max(2)).then_some(name)
}

/// Levenshtein's.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut before = i;
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let changed = before + usize::from(x != *y);
            before = row[j + 1];
            row[j + 1] = changed.min(before + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
