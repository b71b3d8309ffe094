//! How a container lives beside what it is: where its output goes, when it is started again, how it is stopped. Part
//! of the sealed plan and of the record; nothing here loosens confinement.

use crate::health::Health;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Stop signal when neither the user nor the image names one: SIGTERM.
pub const DEFAULT_STOP_SIGNAL: i32 = 15;
/// Seconds from the stop signal to SIGKILL (podman-stop(1)).
pub const DEFAULT_STOP_SECONDS: u32 = 10;

/// Where journald takes what is to be logged (systemd.io/JOURNAL_NATIVE_PROTOCOL).
pub const JOURNALD: &str = "/run/systemd/journal/socket";

/// What the supervisor needs to know beside the plan of the container itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Life {
    /// The supervisor is a process of its own: `-d`, `start`.
    pub detached: bool,
    /// Of a detached one: whoever started it is attached before it runs, and may leave it (`--detach-keys`).
    #[serde(default)]
    pub accompanied: bool,
    /// Of a detached one: it is complete and waits for one more word before its program is executed.
    #[serde(default)]
    pub hold: Hold,
    /// Where its output is kept.
    pub log: Log,
    /// `--restart`.
    #[serde(default)]
    pub restart: Restart,
    /// Signal that stops it.
    pub stop_signal: i32,
    /// Seconds from that signal to SIGKILL.
    pub stop_seconds: u32,
    /// `--timeout`: it is killed when it has run that many seconds.
    #[serde(default)]
    pub timeout_seconds: Option<u32>,
    /// `--health-*`.
    #[serde(default)]
    pub health: Option<Health>,
}

/// What `create` of an OCI runtime asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Hold {
    /// Nothing: its program is executed as soon as that can be done.
    #[default]
    No,
    /// It waits for `start`, and has the caller's own standard streams.
    UntilStart,
    /// It waits for `start`, and the master of its terminal goes to the caller.
    WithConsole,
}

/// `--log-driver` and `--log-opt`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Log {
    /// Nowhere.
    None,
    /// Lines of `TIME STREAM F|P TEXT`, as CRI and podman's `k8s-file` have them.
    File {
        /// Absolute path; `PATH.1` is the one before, and so on.
        path: PathBuf,
        /// A file that would become longer than this is rotated.
        max_size: u64,
        /// How many files there are at most, the current one among them.
        max_file: u32,
    },
    /// With journald, where `logs` finds it by the container's id.
    Journald {
        /// `tag=`: what stands before each line; the container's name when None.
        tag: Option<String>,
    },
}

/// `--restart`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Restart {
    /// Never.
    #[default]
    No,
    /// After another exit code than 0.
    OnFailure {
        /// At most that many times; None: for ever.
        at_most: Option<u32>,
    },
    /// Whatever the exit code, and after a reboot.
    Always,
    /// The same, unless the user stopped it.
    UnlessStopped,
}

impl Restart {
    /// Podman's word for it, without the number.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Restart::No => "no",
            Restart::OnFailure { .. } => "on-failure",
            Restart::Always => "always",
            Restart::UnlessStopped => "unless-stopped",
        }
    }
}
