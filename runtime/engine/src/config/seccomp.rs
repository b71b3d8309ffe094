//! Which system calls a container may make.

use crate::request::RunRequest;
use crate::request::capability::{self, Set};
use crate::request::security::Seccomp;
use oci_spec::runtime::{Capabilities, LinuxSeccomp};
use rlrun_sandbox::seccomp::{SeccompError, default_profile, load_profile};
use rlrun_spec::{Failure, Kind, Stage};

/// A chosen profile.
#[derive(Clone, Debug, PartialEq)]
pub struct Chosen {
    /// `default`, `unconfined` or a path.
    pub name: String,
    /// What is compiled; None when unconfined.
    pub section: Option<LinuxSeccomp>,
}

/// The profile of the request. What it allows depends on the capabilities: a call that needs one which nobody inside
/// can have is refused.
///
/// # Errors
/// When the user's file is not a profile.
pub fn choose(request: &RunRequest, bounding: &Set) -> Result<Chosen, Failure> {
    let capabilities: Capabilities = capability::members(bounding).collect();
    let unconfined = || Chosen { name: "unconfined".to_owned(), section: None };
    Ok(match &request.security.seccomp {
        Seccomp::Unconfined => unconfined(),
        Seccomp::Default if request.privileged => unconfined(),
        Seccomp::Default => Chosen { name: "default".to_owned(), section: Some(default_profile(&capabilities)) },
        Seccomp::Profile(path) => {
            let section = load_profile(path, &capabilities).map_err(|e| failure(&e))?;
            Chosen { name: path.display().to_string(), section: Some(section) }
        }
    })
}

/// As the failure that the user sees.
#[must_use]
pub fn failure(error: &SeccompError) -> Failure {
    let kind = match error {
        SeccompError::Library { .. } => Kind::Internal,
        SeccompError::Read { .. }
        | SeccompError::NotAProfile { .. }
        | SeccompError::Unsupported(_)
        | SeccompError::UnknownCall { .. } => Kind::Usage,
    };
    let failure = Failure::new(Stage::Cli, kind, "seccomp", "make the seccomp filter", "");
    match error {
        SeccompError::Read { path, source } => {
            let failure = Failure { object: path.display().to_string(), ..failure };
            match source.raw_os_error() {
                Some(errno) => failure.errno(errno),
                None => failure.why(source.to_string()),
            }
        }
        SeccompError::NotAProfile { path, why } => {
            Failure { object: path.display().to_string(), ..failure }.why(why.clone())
        }
        SeccompError::Unsupported(_) | SeccompError::UnknownCall { .. } | SeccompError::Library { .. } => {
            failure.why(error.to_string())
        }
    }
}
