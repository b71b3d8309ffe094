//! Policy answers and their merge. Answers only tighten; they merge by meet in a lattice, so their order never
//! matters. The types mirror `policy-sdk/wit`.

use crate::container::{EgressRule, PortMapping, Protocol};
use serde::{Deserialize, Serialize};

mod apply;
mod egress;
#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod laws;
mod looser;
mod merge;
mod refusal;
mod request;
mod seccomp;
mod tightening;

pub use merge::{Admitted, Merged, Permit, Roster, merge, permit};
pub use refusal::{Denied, Refusal, code};
pub use request::{
    Attestation, CopyOut, ExecRequest, ExitEvent, HistoryEntry, ImageFacts, LayerFacts, Mode, Origin, Outward,
    PrivilegedFile, PrivilegedFiles, PullRequest, Signature, Subject,
};
pub use seccomp::SeccompOverlay;

/// Who may overrule a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// Ships inside rlrun; on unless the user says otherwise.
    Builtin,
    /// `~/.config/rlrun/policy.d` and `--policy`.
    User,
    /// `.rlrun/policy.toml` of the directory that one works in.
    Project,
    /// `/etc/rlrun/policy.d`, owned by root; nothing turns it off.
    Mandatory,
}

/// Which policy spoke.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PolicyId {
    /// Its name.
    pub name: String,
    /// `sha256:` of the component.
    pub digest: String,
    /// Its tier.
    pub tier: Tier,
}

/// A policy's word on a request. `Deny` wins over `Allow`, `Allow` over `Abstain`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decision {
    /// No opinion.
    Abstain,
    /// Fine.
    Allow,
    /// No.
    Deny,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// For the record.
    Info,
    /// Low.
    Low,
    /// Medium.
    Medium,
    /// High.
    High,
    /// Critical.
    Critical,
}

/// One finding of a policy, for a person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnostic {
    /// Stable code, `CAP001`.
    pub code: String,
    /// How bad.
    pub severity: Severity,
    /// What is wrong.
    pub message: String,
    /// JSON pointer into the request.
    pub path: Option<String>,
    /// What to do about it.
    pub help: Option<String>,
}

/// What a denied system call does. The order is the kernel's precedence (seccomp(2)): of two filters the later
/// variant here wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SeccompAction {
    /// Allowed and logged.
    Log,
    /// A supervisor decides; reserved, refused by this version.
    Notify,
    /// Fails with the errno of the rule.
    Errno,
    /// Kills the process.
    KillProcess,
}

/// Upper bounds; None leaves a limit as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes of memory.
    pub memory_bytes: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u32>,
    /// Thousandths of a CPU.
    pub cpu_millis: Option<u32>,
    /// RLIMIT_NOFILE.
    pub nofile: Option<u32>,
}

/// A published port, whichever address of the host it is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PortName {
    /// Port of the host.
    pub host_port: u16,
    /// Port inside.
    pub container_port: u16,
    /// Transport.
    pub protocol: Protocol,
}

impl From<&PortMapping> for PortName {
    fn from(port: &PortMapping) -> Self {
        PortName { host_port: port.host_port, container_port: port.container_port, protocol: port.protocol }
    }
}

/// One tightening. Nothing here can loosen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Restriction {
    /// Remove capabilities from all five sets.
    DropCapabilities(Vec<String>),
    /// Keep at most these.
    KeepOnlyCapabilities(Vec<String>),
    /// Set no_new_privs.
    NoNewPrivileges,
    /// Root file system read-only.
    ReadOnlyRootfs,
    /// Add ro, nosuid, nodev or noexec to a mount.
    TightenMount {
        /// Where it is mounted.
        destination: String,
        /// Options to add.
        add_options: Vec<String>,
    },
    /// Leave a mount out.
    RemoveMount(String),
    /// Mask a path.
    MaskPath(String),
    /// Make a path read-only.
    ReadOnlyPath(String),
    /// Leave a device out.
    RemoveDevice(String),
    /// Deny system calls.
    SeccompDeny {
        /// Their names.
        syscalls: Vec<String>,
        /// What happens.
        action: SeccompAction,
        /// With [`SeccompAction::Errno`]; EPERM when absent.
        errno: Option<u32>,
    },
    /// Allow at most these system calls.
    SeccompKeepOnly(Vec<String>),
    /// Reach at most these addresses.
    EgressOnly(Vec<EgressRule>),
    /// No network but loopback.
    NoNetwork,
    /// Lower limits.
    Limit(Limits),
    /// Remove an environment variable.
    UnsetEnv(String),
    /// The image must be pinned to this digest.
    RequireDigest(String),
    /// Leave a port unpublished.
    WithholdPort(PortName),
    /// Publish a port to this host alone.
    LoopbackPort(PortName),
}

impl Restriction {
    /// Its name in the ABI.
    #[must_use]
    pub fn name(&self) -> &'static str {
        tightening::name(self)
    }
}

/// What one policy answered to one hook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Who.
    pub policy: PolicyId,
    /// Its word.
    pub decision: Decision,
    /// Its reasons.
    pub diagnostics: Vec<Diagnostic>,
    /// What it tightens.
    pub restrictions: Vec<Restriction>,
    /// For the audit log.
    pub audit: Vec<(String, String)>,
}
