//! Which policies are asked: the built-in one, the user's, the administrator's.

use crate::host::probe;
use crate::images::caller;
use crate::place::{Place, own_program};
use crate::request::{Baseline, Launching};
use rlrun_admission::{Builtin, LoadError, PolicySet, Sources, Switch};
use rlrun_spec::policy::{Admitted, Denied, PolicyId};
use rlrun_spec::{ContainerSpec, Failure, Kind, SpecParts, Stage};
use std::path::{Path, PathBuf};

pub use rlrun_admission::{Inspection, Listed, MANDATORY_DIR};

/// Made by the build script.
static BUILTINS: &[Builtin] = include!(concat!(env!("OUT_DIR"), "/builtins.rs"));

/// What of the sources the command line decides.
#[derive(Clone, Debug, Default)]
pub struct Choice {
    /// `--policy`.
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
        user_dir: place.config.join("policy.d"),
        files: choice.files,
        cache_dir: place.cache.join("policy"),
        // Needed only when something is to be compiled, and missed by name then.
        policyc: own_program("rlrun-policyc").unwrap_or_else(|_| PathBuf::from("rlrun-policyc")),
        data_dir: place.data.clone(),
        home: None,
        log: Some(log),
    })
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
    let set = PolicySet::load(&sources(place, choice)?).map_err(|e| with_path(&e, &files))?;
    for notice in set.notices() {
        eprintln!("warning: {notice}");
    }
    Ok(set)
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
    rlrun_admission::check(file, settings, &sources(place, choice)?).map_err(|e| with_path(&e, &[file.to_owned()]))
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
