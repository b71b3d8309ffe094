//! One failure, told once: who failed, doing what, on what, why. The frame that a stage sends up and that the
//! command line prints with its hint.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A kernel error number, kept as a number so that nothing is lost on the way up (`errno(3)`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Errno(pub i32);

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", std::io::Error::from_raw_os_error(self.0))
    }
}

/// The process in which something failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// The command line and the engine behind it.
    Cli,
    /// The process that lives as long as the container, on the host.
    Supervisor,
    /// The owner of the user namespace, pid 1 of the outer pid namespace.
    Mapper,
    /// Pid 1 of the container before it becomes the payload.
    Init,
    /// The process that enters a running container before it becomes a command there.
    Joiner,
}

/// What a caller can do about a failure; decides the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// The command line or a file of the user is wrong (125).
    Usage,
    /// A policy said no (125).
    Denied,
    /// The host lacks something (125).
    Host,
    /// The command exists and cannot be executed (126).
    CannotInvoke,
    /// The command does not exist (127).
    NotFound,
    /// Something went wrong while running (125).
    Runtime,
    /// A defect of rlrun (125).
    Internal,
}

impl Kind {
    /// The exit code that podman's users expect (podman-run(1), EXIT STATUS).
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Kind::CannotInvoke => 126,
            Kind::NotFound => 127,
            Kind::Usage | Kind::Denied | Kind::Host | Kind::Runtime | Kind::Internal => 125,
        }
    }
}

/// One failure. `step` is a stable key of the hint table ([`crate::hint`]).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Where.
    pub stage: Stage,
    /// Stable name of the step, for example `write-uid-map`, `mount-overlay`, `exec`.
    pub step: String,
    /// What was being done, as a verb phrase: `mount the root file system`.
    pub operation: String,
    /// On what: a path, an image, an id, a policy.
    pub object: String,
    /// Why, when the kernel said so.
    pub errno: Option<Errno>,
    /// Why, in words; may be empty when `errno` says it all.
    pub detail: String,
    /// What the caller can do about it.
    pub kind: Kind,
    /// A hint that only the place of the failure can give; the table is asked when there is none.
    pub hint: Option<String>,
}

impl Failure {
    /// A failure without errno, detail or hint; set those fields where they are known.
    #[must_use]
    pub fn new(stage: Stage, kind: Kind, step: &str, operation: &str, object: impl Into<String>) -> Self {
        Failure {
            stage,
            step: step.to_owned(),
            operation: operation.to_owned(),
            object: object.into(),
            errno: None,
            detail: String::new(),
            kind,
            hint: None,
        }
    }

    /// With the reason in words.
    #[must_use]
    pub fn why(mut self, detail: impl Into<String>) -> Self {
        self.detail = detail.into();
        self
    }

    /// With the kernel's reason.
    #[must_use]
    pub fn errno(mut self, errno: i32) -> Self {
        self.errno = Some(Errno(errno));
        self
    }

    /// With a hint: a command to run or a file to change.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// `what: on what: why`, one line, without the hint.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.operation)?;
        if !self.object.is_empty() {
            write!(f, ": {}", self.object)?;
        }
        if !self.detail.is_empty() {
            write!(f, ": {}", self.detail)?;
        }
        if let Some(errno) = self.errno {
            write!(f, ": {errno}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}
