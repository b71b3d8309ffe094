//! Cases in files: what is asked, and what the policy has to say to it.
//!
//! ```json
//! {
//!   "hook": "create",
//!   "settings": {"allowed": ["docker.io/"]},
//!   "request": {"privileged": true},
//!   "expect": {"decision": "deny", "codes": ["BASE001"]}
//! }
//! ```
//!
//! `request`, `container` and `caller` hold what differs from `fixtures/defaults.json`, an ordinary interactive
//! busybox. Objects are merged, lists replaced. `restrictions` and `narrowings` in `expect` are compared when they are
//! there. `now` is what the clock says, in milliseconds since 1970; `contents` what `contents.privileged` says.

use crate::contents::PrivilegedFiles;
use crate::{
    Caller, Container, CopyOutRequest, Decision, Diagnostic, ExecRequest, ExitEvent, ImageInfo, MountRequest, Narrowed,
    Port, Pull, Restriction, SecretRequest, Subject, Verdict,
};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// What a case asks.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "one at a time, in tests")]
pub enum Ask {
    /// `pull`
    Pull(Pull, Caller),
    /// `image`
    Image(ImageInfo, Caller),
    /// `create`
    Create(Container, Caller),
    /// `validate`
    Validate(Container, Caller),
    /// `exec`
    Exec(ExecRequest, Container, Caller),
    /// `publish`
    Publish(Port, Subject, Caller),
    /// `mount`
    Mount(MountRequest, Subject, Caller),
    /// `secret`
    Secret(SecretRequest, Subject, Caller),
    /// `copy-out`
    CopyOut(CopyOutRequest, Subject, Caller),
    /// `exit`
    Exit(ExitEvent),
}

/// What a policy says natively.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Its verdict.
    pub verdict: Verdict,
    /// How it narrows a port or a mount, in the words of the ABI.
    pub narrowings: Vec<String>,
}

impl From<Verdict> for Reply {
    fn from(verdict: Verdict) -> Self {
        Reply { verdict, narrowings: Vec::new() }
    }
}

impl Reply {
    /// Of a port or a mount.
    pub fn narrowed<T: serde::Serialize>(narrowed: Narrowed<T>) -> Self {
        let word = |narrowing: &T| match serde_json::to_value(narrowing) {
            Ok(Value::String(word)) => word,
            other => format!("{other:?}"),
        };
        Reply { narrowings: narrowed.narrowings.iter().map(word).collect(), verdict: narrowed.verdict }
    }
}

/// What the policy has to say.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    /// Its decision.
    pub decision: Decision,
    /// The codes of its findings, in order.
    #[serde(default)]
    pub codes: Vec<String>,
    /// What it tightens, if that matters.
    pub restrictions: Option<Vec<Restriction>>,
    /// How it narrows a port or a mount, if that matters.
    pub narrowings: Option<Vec<String>>,
}

/// One case.
#[derive(Clone, Debug)]
pub struct Case {
    /// The file.
    pub path: PathBuf,
    /// Settings as JSON.
    pub settings: String,
    /// The question.
    pub ask: Ask,
    /// The answer.
    pub expect: Expect,
    /// The time of it.
    pub now: u64,
    /// What is in the image.
    pub contents: Option<PrivilegedFiles>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    hook: String,
    #[serde(default)]
    settings: Option<Value>,
    #[serde(default)]
    request: Value,
    #[serde(default)]
    container: Value,
    #[serde(default)]
    caller: Value,
    #[serde(default)]
    now: u64,
    contents: Option<PrivilegedFiles>,
    expect: Expect,
}

/// Why a policy cannot be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unasked {
    /// It does not accept its settings; a host would deny with the code `SETTINGS`.
    Settings(String),
    /// It does not have the hook.
    NoSuchHook,
}

/// A policy that can be asked on the host; [`policy!`](crate::policy) implements it.
pub trait Asked {
    /// # Errors
    /// When the settings are wrong or the policy does not have the hook.
    fn ask(settings: &str, ask: &Ask) -> Result<Reply, Unasked>;
}

impl Case {
    /// # Errors
    /// What is wrong with the file.
    pub fn load(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
        Self::parse(path, &text).map_err(|e| format!("{}: {e}", path.display()))
    }

    fn parse(path: &Path, text: &str) -> Result<Self, String> {
        let raw: Raw = serde_json::from_str(text).map_err(|e| e.to_string())?;
        let caller: Caller = filled("caller", raw.caller)?;
        let ask = match raw.hook.as_str() {
            "pull" => Ask::Pull(filled("pull", raw.request)?, caller),
            "image" => Ask::Image(filled("image", raw.request)?, caller),
            "create" => Ask::Create(filled("container", raw.request)?, caller),
            "validate" => Ask::Validate(filled("container", raw.request)?, caller),
            "exec" => Ask::Exec(filled("exec", raw.request)?, filled("container", raw.container)?, caller),
            "publish" => Ask::Publish(filled("port", raw.request)?, filled("subject", raw.container)?, caller),
            "mount" => Ask::Mount(filled("mount", raw.request)?, filled("subject", raw.container)?, caller),
            "secret" => Ask::Secret(filled("secret", raw.request)?, filled("subject", raw.container)?, caller),
            "copy-out" => Ask::CopyOut(filled("copy-out", raw.request)?, filled("subject", raw.container)?, caller),
            "exit" => Ask::Exit(filled("exit", raw.request)?),
            other => {
                return Err(format!(
                    "`{other}` is not a hook: pull, image, create, validate, exec, publish, mount, secret, copy-out or exit"
                ));
            }
        };
        let settings = raw.settings.map_or_else(|| "{}".to_owned(), |s| s.to_string());
        Ok(Case { path: path.to_owned(), settings, ask, expect: raw.expect, now: raw.now, contents: raw.contents })
    }

    /// All cases of a directory, by name.
    ///
    /// # Errors
    /// When there are none, or one is wrong.
    pub fn load_dir(dir: &Path) -> Result<Vec<Self>, String> {
        let entries = std::fs::read_dir(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
        let mut paths: Vec<PathBuf> = entries.flatten().map(|e| e.path()).collect();
        paths.retain(|p| p.extension().is_some_and(|e| e == "json"));
        paths.sort();
        if paths.is_empty() {
            return Err(format!("{}: holds no cases", dir.display()));
        }
        paths.iter().map(|p| Self::load(p)).collect()
    }

    /// # Errors
    /// How the answer differs from what is expected.
    pub fn compare(&self, decision: Decision, codes: &[&str], restrictions: &[Restriction]) -> Result<(), String> {
        let name = self.path.display();
        if decision != self.expect.decision || codes != self.expect.codes {
            return Err(format!(
                "{name}: expected {:?} {:?}, not {decision:?} {codes:?}",
                self.expect.decision, self.expect.codes
            ));
        }
        let shown = |r: &[Restriction]| serde_json::to_value(r).unwrap_or_default();
        match &self.expect.restrictions {
            Some(expected) if shown(expected) != shown(restrictions) => {
                Err(format!("{name}: expected {expected:?}, not {restrictions:?}"))
            }
            _ => Ok(()),
        }
    }
}

/// The default with what the case says on top.
fn filled<T: DeserializeOwned>(what: &str, change: Value) -> Result<T, String> {
    let defaults: Value =
        serde_json::from_str(include_str!("../fixtures/defaults.json")).map_err(|e| format!("defaults.json: {e}"))?;
    let mut value = defaults.get(what).cloned().unwrap_or_default();
    overlay(&mut value, change, what)?;
    serde_json::from_value(value).map_err(|e| e.to_string())
}

fn overlay(base: &mut Value, change: Value, place: &str) -> Result<(), String> {
    match (base, change) {
        (_, Value::Null) if !place.contains('/') => Ok(()),
        (Value::Object(base), Value::Object(change)) => {
            for (key, value) in change {
                let place = format!("{place}/{key}");
                let Some(old) = base.get_mut(&key) else { return Err(format!("{place}: there is no such field")) };
                overlay(old, value, &place)?;
            }
            Ok(())
        }
        (base, change) => {
            *base = change;
            Ok(())
        }
    }
}

/// Asks a policy every case of a directory.
///
/// # Panics
/// With every case that the policy answers otherwise.
pub fn check<P: Asked>(dir: &str) {
    let cases = Case::load_dir(Path::new(dir)).unwrap_or_else(|e| panic!("{e}"));
    let wrong: Vec<String> = cases.iter().filter_map(|case| outcome::<P>(case).err()).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn outcome<P: Asked>(case: &Case) -> Result<(), String> {
    crate::clock::set(case.now);
    crate::contents::set(case.contents.clone());
    let Reply { verdict, narrowings } = match P::ask(&case.settings, &case.ask) {
        Ok(reply) => reply,
        Err(Unasked::Settings(why)) => Verdict::deny(crate::finding("SETTINGS", crate::Severity::High, why)).into(),
        Err(Unasked::NoSuchHook) => return Err(format!("{}: the policy does not have this hook", case.path.display())),
    };
    if let Some(expected) = case.expect.narrowings.as_ref().filter(|expected| **expected != narrowings) {
        return Err(format!("{}: expected {expected:?}, not {narrowings:?}", case.path.display()));
    }
    let codes: Vec<&str> = verdict.diagnostics.iter().map(|d: &Diagnostic| d.code.as_str()).collect();
    case.compare(verdict.decision, &codes, &verdict.restrictions)
}
