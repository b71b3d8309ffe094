//! What the user asked for, as plain data. The command line fills it through the parsers below; everything that
//! needs an image or the host is decided later. A word that means nothing is an error here, never ignored.

pub mod capability;
pub mod change;
pub mod csv;
pub mod device;
pub mod env;
pub mod exec;
pub mod health;
pub mod labels;
pub mod life;
pub mod limits;
pub mod mount;
pub mod network;
pub mod secret;
pub mod security;
pub mod share;
pub mod userns;

pub use rlrun_image::PullOptions;
use rlrun_net::files::{AddHost, Dns};
use rlrun_net::ports::PortRequest;
use rlrun_spec::container::{NetworkMode, UserNamespace};
use rlrun_spec::{Failure, HostFacts, Kind, Stage};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// A word of the command line that cannot be taken as it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{option} {value}: {why}")]
pub struct Invalid {
    /// The option, `--volume`.
    pub option: &'static str,
    /// What was written after it.
    pub value: String,
    /// What is wrong with it.
    pub why: String,
    /// What to write instead, where that is known.
    pub hint: Option<String>,
}

impl Invalid {
    pub(crate) fn new(option: &'static str, value: impl Into<String>, why: impl Into<String>) -> Self {
        Invalid { option, value: value.into(), why: why.into(), hint: None }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl From<Invalid> for Failure {
    fn from(invalid: Invalid) -> Self {
        let operation = format!("invalid {}", invalid.option);
        let mut failure =
            Failure::new(Stage::Cli, Kind::Usage, "parse-arguments", &operation, invalid.value).why(invalid.why);
        let usage = || format!("`rlrun run --help` tells what {} takes", invalid.option);
        failure.hint = Some(invalid.hint.unwrap_or_else(usage));
        failure
    }
}

/// When and how an image is fetched.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fetch {
    /// `--pull`.
    pub when: Pull,
    /// `--platform`, `--tls-verify`, `--authfile`.
    pub options: PullOptions,
}

/// `--pull`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Pull {
    /// Ask the registry every time.
    Always,
    /// Ask the registry when the store has no such image.
    #[default]
    Missing,
    /// Never ask.
    Never,
    /// Ask, and keep what the store has when the registry cannot be reached.
    Newer,
}

/// `--limits`: what happens to a resource limit that this host cannot enforce.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum LimitsLevel {
    /// The container does not start.
    Require,
    /// One warning.
    #[default]
    Prefer,
}

/// Whether the built-in `baseline` policy is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Baseline {
    /// It is.
    #[default]
    On,
    /// It is not, unless a mandatory policy configuration requires it.
    Off,
}

/// `--read-only` and its tmpfs mounts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReadOnly {
    /// The root file system is writable.
    #[default]
    No,
    /// Read-only, with a tmpfs on /run, /tmp and /var/tmp.
    WithTmpfs,
    /// Read-only and nothing else (`--read-only-tmpfs=false`).
    Bare,
}

/// `--image-volume`: what becomes of the volumes that an image declares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ImageVolumes {
    /// Volumes of the container's own.
    #[default]
    Anonymous,
    /// File systems in memory.
    Tmpfs,
    /// Nothing.
    Ignore,
}

impl std::str::FromStr for ImageVolumes {
    type Err = Invalid;

    fn from_str(word: &str) -> Result<Self, Invalid> {
        match word {
            "anonymous" | "bind" => Ok(ImageVolumes::Anonymous),
            "tmpfs" => Ok(ImageVolumes::Tmpfs),
            "ignore" => Ok(ImageVolumes::Ignore),
            _ => Err(Invalid::new("--image-volume", word, "no such choice").hint("choose anonymous, tmpfs or ignore")),
        }
    }
}

/// `--storage-driver`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StorageDriver {
    /// The kernel's overlay.
    Overlay,
    /// fuse-overlayfs(1).
    FuseOverlayfs,
    /// Layers copied into one directory.
    Copy,
    /// A directory as it is: a bundle's.
    Directory,
}

impl std::str::FromStr for StorageDriver {
    type Err = Invalid;

    fn from_str(word: &str) -> Result<Self, Invalid> {
        match word {
            "overlay" => Ok(StorageDriver::Overlay),
            "fuse-overlayfs" => Ok(StorageDriver::FuseOverlayfs),
            "copy" => Ok(StorageDriver::Copy),
            _ => {
                Err(Invalid::new("--storage-driver", word, "no such driver")
                    .hint("choose overlay, fuse-overlayfs or copy"))
            }
        }
    }
}

impl std::fmt::Display for StorageDriver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            StorageDriver::Overlay => "overlay",
            StorageDriver::FuseOverlayfs => "fuse-overlayfs",
            StorageDriver::Copy => "copy",
            StorageDriver::Directory => "directory",
        })
    }
}

/// The network words of the command line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// `--network`.
    pub mode: NetworkMode,
    /// `-p`.
    pub ports: Vec<PortRequest>,
    /// `--dns`.
    pub dns: Dns,
    /// `--add-host`.
    pub hosts: Vec<AddHost>,
    /// `--expose`: further ports that `-P` publishes.
    #[serde(default)]
    pub exposed: Vec<PortRequest>,
    /// `-P`: everything that is exposed is published on a free port.
    #[serde(default)]
    pub publish_all: bool,
}

/// How a container is launched, beside what it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launching {
    /// `--rm`.
    pub remove: bool,
    /// When and how the image is fetched.
    pub fetch: Fetch,
    /// `--cidfile`.
    pub cidfile: Option<PathBuf>,
    /// `--replace`.
    #[serde(default)]
    pub replace: bool,
    /// `--storage-driver`; None lets the host decide.
    pub storage_driver: Option<StorageDriver>,
    /// `--policy`, files of components.
    pub policies: Vec<PathBuf>,
    /// `--policy-baseline`.
    pub baseline: Baseline,
    /// `--trace`.
    pub trace: bool,
    /// How it lives.
    pub life: life::LifeRequest,
    /// `--pidfile`.
    #[serde(default)]
    pub pidfile: Option<PathBuf>,
    /// `--preserve-fds`.
    #[serde(default)]
    pub preserve_fds: u32,
    /// The command line that made it.
    #[serde(default)]
    pub argv: Vec<String>,
}

/// `rlrun run` and `rlrun plan`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunRequest {
    /// The image as the user wrote it.
    pub image: String,
    /// The words after the image.
    pub command: Vec<String>,
    /// `--name`.
    pub name: Option<String>,
    /// `-i`.
    pub interactive: bool,
    /// `-t`.
    pub tty: bool,
    /// `--env-file` and `-e`, later ones win.
    pub env: Vec<(String, String)>,
    /// `-v`, `--mount`, `--tmpfs`.
    pub mounts: Vec<mount::MountRequest>,
    /// `--image-volume`.
    pub image_volumes: ImageVolumes,
    /// `-w`.
    pub workdir: Option<String>,
    /// `-u`.
    pub user: Option<String>,
    /// `--group-add`.
    pub groups: Vec<String>,
    /// `--entrypoint`; an empty list removes the image's.
    pub entrypoint: Option<Vec<String>>,
    /// `--hostname`.
    pub hostname: Option<String>,
    /// `--read-only`.
    pub read_only: ReadOnly,
    /// `--privileged`.
    pub privileged: bool,
    /// `--cap-add` and `--cap-drop`.
    pub capabilities: capability::CapabilityRequest,
    /// `--security-opt`.
    pub security: security::SecurityRequest,
    /// Network.
    pub network: Network,
    /// `--userns`.
    pub userns: UserNamespaceRequest,
    /// `--init`.
    pub init: bool,
    /// `--stop-signal`.
    pub stop_signal: Option<i32>,
    /// `--umask`.
    pub umask: u32,
    /// `--sysctl`.
    pub sysctls: Vec<(String, String)>,
    /// `--label`.
    pub labels: Vec<(String, String)>,
    /// `--annotation`.
    pub annotations: Vec<(String, String)>,
    /// `--ulimit`, `--shm-size`, `--memory` and the like.
    pub limits: limits::LimitRequest,
    /// `--secret`.
    #[serde(default)]
    pub secrets: Vec<secret::SecretRequest>,
    /// `--device`.
    #[serde(default)]
    pub devices: Vec<device::DeviceRequest>,
    /// `--ipc`, `--uts` and `--cgroupns`.
    #[serde(default)]
    pub shared: share::Shared,
    /// Files that rlrun makes.
    #[serde(default)]
    pub own_files: OwnFiles,
    /// `--unsetenv`, `--unsetenv-all`, `--env-merge`.
    #[serde(default)]
    pub env_changes: env::Changes,
    /// How it is launched.
    pub launching: Launching,
    /// `--personality`.
    #[serde(default)]
    pub personality: Option<Personality>,
    /// `--rootfs`.
    #[serde(default)]
    pub rootfs: Option<RootDirectory>,
    /// What there is instead of an image.
    #[serde(default)]
    pub bundle: Option<crate::bundle::Bundle>,
}

/// What becomes of the files that rlrun puts into a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnFiles {
    /// `--no-hosts`: /etc/hosts is the image's.
    pub no_hosts: bool,
    /// `--passwd=false`: /etc/passwd and /etc/group are the image's.
    pub no_passwd: bool,
    /// `--tz`: the contents of /etc/localtime.
    pub timezone: Option<Vec<u8>>,
    /// `--hosts-file`: what /etc/hosts is made of beside the container's own names.
    #[serde(default)]
    pub hosts: Option<String>,
}

/// `--rootfs`: a directory of the host in the place of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootDirectory {
    /// Absolute.
    pub path: PathBuf,
    /// `:O`: it stays as it is, and what is written is the container's.
    pub overlay: bool,
}

/// `--personality`: the execution domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Personality {
    /// That of the machine.
    Linux,
    /// uname(2) tells of a machine of 32 bits.
    Linux32,
}

impl std::str::FromStr for Personality {
    type Err = Invalid;

    fn from_str(word: &str) -> Result<Self, Invalid> {
        match word.to_ascii_uppercase().trim_start_matches("PER_") {
            "LINUX" => Ok(Personality::Linux),
            "LINUX32" => Ok(Personality::Linux32),
            _ => Err(Invalid::new("--personality", word, "no such personality").hint("choose LINUX or LINUX32")),
        }
    }
}

/// `--userns`: like [`UserNamespace`], with the ids of `keep-id` still open.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum UserNamespaceRequest {
    /// Container root is the caller.
    #[default]
    Default,
    /// The caller keeps its ids, or takes these inside.
    KeepId {
        /// uid inside; the caller's own when None.
        uid: Option<u32>,
        /// gid inside; the caller's own when None.
        gid: Option<u32>,
    },
    /// `--uidmap` and `--gidmap`.
    Mapped {
        /// Users.
        uids: Vec<userns::MapWord>,
        /// Groups.
        gids: Vec<userns::MapWord>,
    },
}

impl UserNamespaceRequest {
    /// With the ids of the caller filled in.
    ///
    /// # Errors
    /// When maps of the user's own cannot be had.
    pub fn decide(&self, host: &HostFacts) -> Result<UserNamespace, Failure> {
        match self {
            UserNamespaceRequest::Default => Ok(UserNamespace::Default),
            UserNamespaceRequest::KeepId { uid, gid } => {
                Ok(UserNamespace::KeepId { uid: uid.unwrap_or(host.uid), gid: gid.unwrap_or(host.gid) })
            }
            UserNamespaceRequest::Mapped { uids, gids } => crate::host::idmap::mapped(host, uids, gids),
        }
    }
}

/// `--entrypoint`: one program, or a JSON array of words; empty removes the image's.
///
/// # Errors
/// When it looks like a JSON array and is none.
pub fn entrypoint(word: &str) -> Result<Vec<String>, Invalid> {
    if word.starts_with('[') {
        return serde_json::from_str(word)
            .map_err(|_| Invalid::new("--entrypoint", word, "starts like a JSON array of strings and is none"));
    }
    Ok(if word.is_empty() { Vec::new() } else { vec![word.to_owned()] })
}

/// `--name`: what podman takes.
///
/// # Errors
/// When it is empty, begins with a sign or holds another character than letters, digits, `_`, `.` and `-`.
pub fn container_name(word: &str) -> Result<String, Invalid> {
    let ok = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    // The name becomes a file name, whose length the file system limits (NAME_MAX).
    let fits = word.len() <= 128;
    if fits && word.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric()) && word.bytes().all(ok) {
        return Ok(word.to_owned());
    }
    Err(Invalid::new("--name", word, "is not a container name")
        .hint("use up to 128 letters, digits, `_`, `.` and `-`, beginning with a letter or digit"))
}

/// `--hostname`.
///
/// # Errors
/// When the kernel or a resolver would not take it (`hostname(7)`).
pub fn hostname(word: &str) -> Result<String, Invalid> {
    let label = |l: &str| {
        !l.is_empty()
            && l.len() <= 63
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    // __NEW_UTS_LEN (uname(2)).
    if word.len() <= 64 && word.split('.').all(label) {
        return Ok(word.to_owned());
    }
    Err(Invalid::new("--hostname", word, "is not a host name")
        .hint("use at most 64 letters, digits and `-`, in labels divided by `.`"))
}

/// `-u`. Who that is, only the image knows.
///
/// # Errors
/// When it is empty: nobody means root by that.
pub fn user(word: &str) -> Result<String, Invalid> {
    if word.is_empty() {
        return Err(Invalid::new("--user", "\"\"", "names nobody").hint("leave it out for the image's own user"));
    }
    Ok(word.to_owned())
}

/// The word of `--group-add` that keeps the caller's own groups.
pub const KEEP_GROUPS: &str = "keep-groups";

/// `--group-add`.
///
/// # Errors
/// For `keep-groups` beside others: it is a process's own groups or those that it is given.
pub fn groups(words: &[String]) -> Result<Vec<String>, Invalid> {
    if words.iter().any(|w| w == KEEP_GROUPS) && words.iter().any(|w| w != KEEP_GROUPS) {
        let why = "your own groups are kept as they are, and no others can be added to them";
        return Err(Invalid::new("--group-add", KEEP_GROUPS, why).hint("leave out the other --group-add"));
    }
    Ok(words.to_vec())
}

/// `-w`.
///
/// # Errors
/// When it is not an absolute path.
pub fn workdir(word: &str) -> Result<String, Failure> {
    if word.starts_with('/') {
        return Ok(word.to_owned());
    }
    let invalid = Invalid::new("--workdir", word, "is not an absolute path").hint("begin it with a slash: -w /srv");
    // As podman: nothing could be started there.
    Err(Failure { kind: Kind::CannotInvoke, ..invalid.into() })
}

/// `--umask`, octal.
///
/// # Errors
/// When it is not an octal number up to 0777.
pub fn umask(word: &str) -> Result<u32, Invalid> {
    u32::from_str_radix(word, 8)
        .ok()
        .filter(|m| *m <= 0o777)
        .ok_or_else(|| Invalid::new("--umask", word, "is not an octal number from 0 to 0777"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_podman_takes_are_taken() {
        assert_eq!(container_name("web-1.a_B").unwrap(), "web-1.a_B");
        for bad in ["", "-a", ".a", "_a", "a/b", "a b", "ä", "../x", &"a".repeat(129)] {
            assert!(container_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn host_names_follow_hostname_7() {
        assert!(hostname("a.example").is_ok());
        for bad in ["", "a b", "a..b", "-a", "a-", &"a".repeat(65), "a\nb"] {
            assert!(hostname(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_entrypoint_is_a_word_a_json_array_or_nothing() {
        assert_eq!(entrypoint("/bin/sh").unwrap(), ["/bin/sh"]);
        assert_eq!(entrypoint(r#"["a","b c"]"#).unwrap(), ["a", "b c"]);
        assert!(entrypoint("").unwrap().is_empty());
        assert!(entrypoint("[a").is_err());
    }

    #[test]
    fn a_umask_is_octal() {
        assert_eq!(umask("0027").unwrap(), 0o027);
        assert!(umask("0888").is_err());
        assert!(umask("1777").is_err());
    }
}
