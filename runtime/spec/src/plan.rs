//! The sealed plan: what the stages execute, decided in full before anything starts. It is serialised once, into
//! a sealed memfd; the stages read nothing else.

use crate::attach::Attach;
use crate::cgroup::Membership;
use crate::container::{EgressRule, NetworkMode, PortMapping};
use crate::exec::Exec;
use crate::ids::{IdMapping, IdMaps};
use crate::life::Life;
use crate::limits::Limits;
use crate::policy::Admitted;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Raised with every change of the types below; a supervisor of another version refuses the plan.
pub const VERSION: u32 = 12;

/// What the engine knows beside the admitted configuration: where things are on this host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LaunchFacts {
    /// Id maps and who writes them.
    pub id_maps: IdMaps,
    /// The root file system.
    pub rootfs: Rootfs,
    /// The container's own directory on the host; the supervisor writes `state` there and may remove it.
    pub container_dir: PathBuf,
    /// The journal, where the supervisor tells what becomes of the container.
    pub journal: PathBuf,
    /// Where volumes are: `<volumes>/<name>/_data`.
    pub volumes: PathBuf,
    /// What is written to the root file system is limited (`--storage-opt size=`).
    pub disk: Option<Disk>,
    /// Mounts that are made of layers, by destination: an overlay of a directory (`O`), an image.
    pub layered: Vec<(String, Rootfs)>,
    /// Descriptors from 3 on that the payload gets from the caller (`--preserve-fds`).
    pub preserved: u32,
    /// The link that claims the container's name, removed with the container.
    pub name_link: PathBuf,
    /// The link in `<data>/live` that exists from the container's creation to its clean end; what is there with a free
    /// lock is cleaned by the next command.
    pub live_link: PathBuf,
    /// The container is removed when it ends (`--rm`).
    pub remove: bool,
    /// The container is removed when it cannot be started (`run`); one that was created before stays.
    pub remove_unstarted: bool,
    /// How it lives.
    pub life: Life,
    /// Compiled seccomp filters, installed in order; empty only with `seccomp_unconfined`.
    pub seccomp_filters: Vec<Vec<u8>>,
    /// The user said `seccomp=unconfined` and no policy objected.
    pub seccomp_unconfined: bool,
    /// The cgroups that hold some of its limits, made already.
    pub cgroup: Option<Membership>,
    /// How slirp4netns is started, when the network asks for it.
    pub slirp: Option<Slirp>,
    /// `/etc/resolv.conf`, `/etc/hosts`, `/etc/hostname` and the like: path inside, contents.
    pub files: Vec<(String, Vec<u8>)>,
    /// Secrets as files in memory.
    pub secrets: Vec<SecretFile>,
    /// Secrets as variables of pid 1, `NAME=value`; the configuration does not have them.
    pub secret_variables: Vec<String>,
    /// Where the pid of the container's pid 1 is written, for those who watch it.
    pub pidfile: Option<PathBuf>,
    /// `--trace`: the stages record their times and the supervisor prints them all to stderr at the end.
    pub trace: bool,
    /// What the command line recorded before: step and CLOCK_MONOTONIC in nanoseconds.
    pub trace_marks: Vec<(String, u64)>,
}

/// A secret, given as a file.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretFile {
    /// Absolute path inside.
    pub path: String,
    /// Owner inside.
    pub uid: u32,
    /// Group inside.
    pub gid: u32,
    /// Mode.
    pub mode: u32,
    /// The secret.
    pub contents: Vec<u8>,
}

impl std::fmt::Debug for SecretFile {
    /// Without the secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SecretFile").field("path", &self.path).finish_non_exhaustive()
    }
}

/// How slirp4netns is started (slirp4netns(1)).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slirp {
    /// Absolute path.
    pub binary: PathBuf,
    /// Maximum transmission unit of the tap device.
    pub mtu: u32,
    /// IPv6 inside.
    pub ipv6: bool,
}

/// Where the root file system comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rootfs {
    /// Kernel overlay with `userxattr`.
    Overlay {
        /// Extracted layers, top first.
        lowers: Vec<PathBuf>,
    },
    /// fuse-overlayfs(1) as a process.
    FuseOverlay {
        /// Extracted layers, top first.
        lowers: Vec<PathBuf>,
        /// Absolute path of fuse-overlayfs.
        binary: PathBuf,
        /// How owners on disk (`host`, as the namespace sees them) are shown (`container`); empty: as they are.
        uids: Vec<IdMapping>,
        /// The same for groups.
        gids: Vec<IdMapping>,
    },
    /// A directory as it is: the layers that the engine copied together before the seal (driver `copy`), a bundle.
    Directory {
        /// The directory.
        path: PathBuf,
    },
}

/// What is written to the root file system, limited (`--storage-opt size=`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// Bytes.
    pub size: u64,
    /// What keeps it in a file of the container's directory; None: it is kept in memory.
    pub file: Option<DiskPrograms>,
}

/// Programs that make, check and mount a file system in a file; absolute paths.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskPrograms {
    /// mke2fs(8).
    pub mke2fs: PathBuf,
    /// e2fsck(8).
    pub e2fsck: PathBuf,
    /// fuse2fs(1).
    pub fuse2fs: PathBuf,
}

/// What the stages execute. Filled from the admitted configuration only.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Launch {
    /// [`VERSION`].
    pub version: u32,
    /// Container id, 64 hex digits.
    pub id: String,
    /// Container name.
    pub name: String,
    /// Facts of the host.
    pub facts: LaunchFacts,
    /// Root file system read-only.
    pub read_only: bool,
    /// Namespaces that are the container's own; the user namespace always is.
    pub namespaces: Namespaces,
    /// Host name.
    pub hostname: String,
    /// Mounts in order, /proc, /sys, /dev and the user's.
    pub mounts: Vec<Mount>,
    /// Paths hidden by /dev/null or an empty tmpfs.
    pub masked_paths: Vec<String>,
    /// Paths made read-only.
    pub read_only_paths: Vec<String>,
    /// Sysctls, name and value.
    pub sysctls: Vec<(String, String)>,
    /// The payload.
    pub process: Process,
    /// Network.
    pub network: NetworkMode,
    /// Published ports.
    pub ports: Vec<PortMapping>,
    /// What may be reached; None: everything but the blocks that are always refused.
    pub egress: Option<Vec<EgressRule>>,
    /// The built-in init is pid 1 and the payload its child.
    pub init: bool,
    /// What it may use.
    pub limits: Limits,
}

/// What the supervisor binary is started for; the first and only thing it reads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Job {
    /// A container.
    Launch(Box<Launch>),
    /// A command that joins a running container.
    Exec(Box<Exec>),
    /// Somebody who attaches to a running container.
    Attach(Attach),
    /// A program of rlrun's own as mapped root in the caller's id map: unpacking, removal.
    Mapped(Mapped),
}

/// A program to run inside the caller's id map, with nothing else changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mapped {
    /// [`VERSION`].
    pub version: u32,
    /// Id maps and who writes them.
    pub id_maps: IdMaps,
    /// Where it runs.
    pub home: Home,
    /// Who started it, and whose death ends it.
    pub parent: i32,
    /// Program (absolute path) and arguments.
    pub argv: Vec<String>,
    /// Its environment, `NAME=value`.
    pub env: Vec<String>,
    /// Its standard input.
    pub input: Input,
}

/// The standard input of a mapped program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Input {
    /// These bytes.
    Bytes(Vec<u8>),
    /// What this inherited descriptor is.
    Inherited(i32),
}

/// Where a mapped program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Home {
    /// In a new user namespace.
    New,
    /// The same, with mounts of its own: what is mounted there ends with it.
    Shell,
    /// In a new user namespace, as pid 1 of a pid namespace: whatever it starts ends with it.
    Apart,
    /// In the user namespace that this inherited descriptor names; its maps are written already.
    Of(i32),
}

/// Which namespaces are new.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespaces {
    /// `pid_namespaces(7)`.
    pub pid: bool,
    /// `network_namespaces(7)`.
    pub net: bool,
    /// `ipc_namespaces(7)`.
    pub ipc: bool,
    /// `uts_namespaces(7)`.
    pub uts: bool,
    /// `cgroup_namespaces(7)`.
    pub cgroup: bool,
}

/// One mount inside the container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// What.
    pub source: MountSource,
    /// Absolute path inside.
    pub destination: String,
    /// `mount(2)` flags: read-only, nosuid and the like.
    pub options: MountOptions,
}

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountSource {
    /// A host file or directory.
    Bind {
        /// Absolute host path, symlinks resolved.
        path: PathBuf,
        /// With everything mounted below it.
        recursive: bool,
    },
    /// A volume of rlrun's: a directory with the data in `_data`, beside it `fresh` until its first use.
    Volume {
        /// The volume's directory.
        path: PathBuf,
        /// Below `_data`; empty for all of it.
        subpath: String,
    },
    /// Layers, which the mapper has mounted ([`LaunchFacts::layered`]).
    Layered {
        /// Where.
        at: PathBuf,
    },
    /// A new file system.
    New {
        /// `proc`, `tmpfs`, `ramfs`, `devpts`, `mqueue`, `sysfs`, `cgroup2`.
        kind: String,
        /// Options that are the file system's own: `size=64m,mode=1777`.
        data: String,
    },
}

/// Flags of a mount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountOptions {
    /// MS_RDONLY.
    pub read_only: bool,
    /// MS_NOSUID.
    pub nosuid: bool,
    /// MS_NODEV.
    pub nodev: bool,
    /// MS_NOEXEC.
    pub noexec: bool,
    /// MS_STRICTATIME; of a new file system only.
    pub strictatime: bool,
    /// MS_NOATIME; of a new file system only.
    pub noatime: bool,
    /// Propagation: never back to the host; `rslave` lets host mounts appear inside.
    pub slave: bool,
    /// A tmpfs or a volume that was never used starts with a copy of what the image has there (`tmpcopyup`, `copy`).
    pub copy_up: bool,
    /// What is mounted is given to the payload's user (`U`).
    pub chown: bool,
}

/// The five capability sets as bit masks, bit N is capability N (`capabilities(7)`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapabilitySets {
    /// Bounding.
    pub bounding: u64,
    /// Effective.
    pub effective: u64,
    /// Permitted.
    pub permitted: u64,
    /// Inheritable.
    pub inheritable: u64,
    /// Ambient.
    pub ambient: u64,
}

/// One `setrlimit(2)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    /// RLIMIT_* number.
    pub resource: u32,
    /// Soft limit.
    pub soft: u64,
    /// Hard limit.
    pub hard: u64,
}

/// The payload and how it is confined.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Arguments; the first names the program.
    pub args: Vec<String>,
    /// Environment, `NAME=value`.
    pub env: Vec<String>,
    /// Working directory inside.
    pub cwd: String,
    /// uid inside.
    pub uid: u32,
    /// gid inside.
    pub gid: u32,
    /// Supplementary groups inside.
    pub groups: Vec<u32>,
    /// The caller's groups stay with it instead (`--group-add keep-groups`).
    pub keep_groups: bool,
    /// Execution domain (`personality(2)`), if it is to change.
    pub personality: Option<u32>,
    /// umask.
    pub umask: u32,
    /// A pseudo-terminal is its standard input, output and error.
    pub terminal: bool,
    /// Standard input is relayed; otherwise it is empty.
    pub interactive: bool,
    /// `PR_SET_NO_NEW_PRIVS`.
    pub no_new_privs: bool,
    /// Capabilities.
    pub capabilities: CapabilitySets,
    /// Resource limits.
    pub rlimits: Vec<Rlimit>,
    /// `/proc/self/oom_score_adj`, if it is to change.
    pub oom_score_adj: Option<i32>,
    /// Descriptors from 3 on that it gets from the caller.
    pub preserved: u32,
}

/// Why an admitted configuration cannot be launched.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SealError {
    /// The configuration asks for something this version cannot do; nothing is ignored silently.
    #[error("{field}: {why}")]
    Unsupported {
        /// JSON pointer into the OCI configuration.
        field: String,
        /// What cannot be done.
        why: String,
    },
    /// The plan did not serialise.
    #[error("the plan could not be serialised: {0}")]
    Encode(String),
}

/// The serialised plan. Made from an [`Admitted`] configuration and nothing else.
#[derive(Debug)]
pub struct SealedPlan {
    bytes: Vec<u8>,
    launch: Launch,
}

impl SealedPlan {
    /// The only way to a `SealedPlan`.
    ///
    /// # Errors
    /// [`SealError::Unsupported`] when the configuration asks for what this version cannot do.
    pub fn seal(admitted: &Admitted, facts: LaunchFacts) -> Result<Self, SealError> {
        let launch = crate::plan_from_oci::launch(admitted.spec(), facts)?;
        let job = Job::Launch(Box::new(launch));
        let bytes = postcard::to_stdvec(&job).map_err(|e| SealError::Encode(e.to_string()))?;
        let Job::Launch(launch) = job else { return Err(SealError::Encode("not a launch".to_owned())) };
        Ok(SealedPlan { bytes, launch: *launch })
    }

    /// What goes into the memfd.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What the bytes say.
    #[must_use]
    pub fn launch(&self) -> &Launch {
        &self.launch
    }
}
