//! Why the policies cannot be asked. Every one of these is a denial.

use crate::answer::printable;
use rlrun_spec::{Failure, Kind, Stage};
use std::io;
use std::path::PathBuf;

/// A policy, or the set of them, that cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A file or directory cannot be read.
    #[error("{path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A directory, a device, a socket.
    #[error("{path}: is not a regular file")]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// A file or directory that somebody else could have written.
    #[error("{path}: {why}")]
    Untrusted {
        /// The file.
        path: PathBuf,
        /// Who owns it, who may write it.
        why: String,
    },
    /// Settings that are not settings, or belong to nothing.
    #[error("{path}: {why}")]
    Settings {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A file that is no policy, or one that this version cannot ask.
    #[error("policy {name}: {why}")]
    NotAPolicy {
        /// Its name.
        name: String,
        /// What is wrong.
        why: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// The administrator requires a policy that is not there.
    #[error("policy {name} is required by {path} and not installed")]
    Required {
        /// Its name.
        name: String,
        /// Who says so.
        path: PathBuf,
    },
    /// `rlrun-policyc` is missing or failed for a reason of its own.
    #[error("{path}: {why}")]
    Compiler {
        /// The program.
        path: PathBuf,
        /// What happened.
        why: String,
    },
    /// The engine cannot start on this host.
    #[error("the WebAssembly engine cannot start: {0}")]
    Engine(String),
}

const UNREADABLE: &str =
    "--policy and policy.d take files that you may read; `rlrun policy ls` lists the policies that are asked";
const NOT_A_POLICY: &str = "a policy is a WebAssembly component: `rlrun policy new` begins one, `rlrun policy build` \
    makes one of a CEL or Rego text; `rlrun policy ls` lists those that are asked";

/// What is wrong with a TOML text, and where, on one line: an excerpt of it belongs to an editor.
#[must_use]
pub fn of_toml(error: &toml::de::Error, text: &str) -> String {
    let said = printable(error.message());
    match error.span().and_then(|span| text.get(..span.start)) {
        Some(before) => format!("line {}: {said}", before.matches('\n').count() + 1),
        None => said,
    }
}

impl LoadError {
    /// What is wrong may quote the policy, which must not control a terminal.
    pub(crate) fn not_a_policy(name: &str, why: impl Into<String>) -> Self {
        LoadError::NotAPolicy { name: name.to_owned(), why: printable(&why.into()), hint: None }
    }

    /// The failure that the command line prints; a policy that cannot be asked denies.
    #[must_use]
    pub fn failure(&self) -> Failure {
        let failure = |object: String, why: String| {
            Failure::new(Stage::Cli, Kind::Denied, "load-policy", "load the policies", object).why(why)
        };
        let shown = |path: &PathBuf| path.display().to_string();
        match self {
            LoadError::Unreadable { path, source } => {
                let failure = failure(shown(path), String::new()).hint(UNREADABLE);
                match source.raw_os_error() {
                    Some(errno) => failure.errno(errno),
                    None => failure.why(source.to_string()),
                }
            }
            LoadError::NotAFile { path } => {
                failure(shown(path), "is not a regular file".to_owned()).hint("name the policy's own file, NAME.wasm")
            }
            LoadError::Untrusted { path, why } => failure(shown(path), why.clone()).hint(format!(
                "look at what it holds, then: chown it to its rightful owner and chmod go-w {}",
                path.display()
            )),
            LoadError::Settings { path, why } => failure(shown(path), why.clone()),
            LoadError::NotAPolicy { name, why, hint } => {
                let mut failure = failure(format!("policy {name}"), why.clone());
                failure.hint = Some(hint.clone().unwrap_or_else(|| NOT_A_POLICY.to_owned()));
                failure
            }
            LoadError::Required { name, path } => {
                failure(format!("policy {name}"), format!("required by {} and not installed", path.display()))
                    .hint(format!("install {name}.wasm in {}", super::MANDATORY_DIR))
            }
            LoadError::Compiler { path, why } => {
                failure(shown(path), why.clone()).hint("install rlrun-policyc beside rlrun or in ../libexec/rlrun")
            }
            LoadError::Engine(why) => failure(String::new(), why.clone()),
        }
    }
}
