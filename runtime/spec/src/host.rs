//! What the host offers, probed before the verdict by `rlrun-engine`'s `host` and shown by `doctor`. Plain data: a
//! test builds one by hand.

use crate::ids::IdRange;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The cgroup hierarchy of the calling user (`cgroups(7)`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cgroup {
    /// Version 2 everywhere.
    V2 {
        /// Controllers the user may use.
        delegated: Vec<String>,
        /// How a cgroup is had.
        access: CgroupAccess,
    },
    /// Version 1 controllers, perhaps with an empty version 2 tree beside them.
    V1 {
        /// Controllers whose cgroup of the caller's is the caller's to write, and that cgroup.
        writable: Vec<(String, PathBuf)>,
    },
    /// No cgroup file system.
    None,
}

/// How the caller gets a cgroup of version 2 for a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CgroupAccess {
    /// Not at all.
    None,
    /// In a directory that is the caller's to write, to which its processes belong.
    Directory(PathBuf),
    /// From the systemd user manager, which listens there.
    UserManager(PathBuf),
}

impl Cgroup {
    /// Whether the caller can use a controller.
    #[must_use]
    pub fn has(&self, controller: &str) -> bool {
        match self {
            Cgroup::V2 { access: CgroupAccess::None, .. } | Cgroup::None => false,
            Cgroup::V2 { delegated, .. } => delegated.iter().any(|name| name == controller),
            Cgroup::V1 { writable } => writable.iter().any(|(name, _)| older(name) == controller),
        }
    }

    /// Makes no use of the others.
    pub fn keep(&mut self, wanted: impl Fn(&str) -> bool) {
        match self {
            Cgroup::V2 { delegated, .. } => delegated.retain(|name| wanted(name)),
            Cgroup::V1 { writable } => writable.retain(|(name, _)| wanted(name)),
            Cgroup::None => {}
        }
    }

    /// Controllers that the caller can use.
    #[must_use]
    pub fn controllers(&self) -> Vec<&str> {
        match self {
            Cgroup::V2 { access: CgroupAccess::None, .. } | Cgroup::None => Vec::new(),
            Cgroup::V2 { delegated, .. } => delegated.iter().map(String::as_str).collect(),
            Cgroup::V1 { writable } => writable.iter().map(|(name, _)| name.as_str()).collect(),
        }
    }
}

/// The name of version 2 for a controller of version 1.
fn older(name: &str) -> &str {
    if name == "blkio" { "io" } else { name }
}

/// Why a set-user-ID helper would run without its privilege.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Powerless {
    /// Neither set-user-ID root nor given the capability as a file capability.
    NotSetuid,
    /// Its file system is mounted nosuid.
    NosuidMount,
    /// This process has `no_new_privs` set, so no program it starts can gain anything (prctl(2)).
    NoNewPrivs,
}

/// newuidmap(1) or newgidmap(1) as found on this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Helper {
    /// It can do its work.
    Usable(PathBuf),
    /// It is there and would fail.
    Unprivileged {
        /// Where.
        path: PathBuf,
        /// Why it would fail.
        why: Powerless,
    },
    /// It is nowhere.
    Missing,
}

impl Helper {
    /// The path, when the helper can do its work.
    #[must_use]
    pub fn usable(&self) -> Option<&Path> {
        match self {
            Helper::Usable(path) => Some(path),
            Helper::Unprivileged { .. } | Helper::Missing => None,
        }
    }
}

/// What forbids user namespaces to the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UsernsBlock {
    /// The kernel was built without CONFIG_USER_NS.
    NotInKernel,
    /// `user.max_user_namespaces` is 0 (namespaces(7)).
    MaxUserNamespaces,
    /// `kernel.unprivileged_userns_clone` is 0 (Debian's and Arch's own sysctl).
    UnprivilegedClone,
    /// `kernel.apparmor_restrict_unprivileged_userns` is 1 and no AppArmor profile exempts rlrun (Ubuntu 23.10 on).
    AppArmor,
}

/// Host facts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostFacts {
    /// Kernel release, major and minor.
    pub kernel: (u32, u32),
    /// Effective uid and gid of the caller.
    pub uid: u32,
    /// Effective gid of the caller.
    pub gid: u32,
    /// Login name, or the uid in digits when there is none.
    pub user: String,
    /// The account stands in /etc/passwd, so usermod(8) can change it.
    pub local_account: bool,
    /// Host uids the caller may map beside its own, in the order they are used; overlaps and the caller's own uid
    /// are already taken out.
    pub subuids: Vec<IdRange>,
    /// Host gids, likewise.
    pub subgids: Vec<IdRange>,
    /// newuidmap.
    pub newuidmap: Helper,
    /// newgidmap.
    pub newgidmap: Helper,
    /// What forbids user namespaces, if anything does.
    pub userns_blocked: Option<UsernsBlock>,
    /// Path of fuse-overlayfs.
    pub fuse_overlayfs: Option<PathBuf>,
    /// /dev/fuse can be opened for reading and writing.
    pub dev_fuse: bool,
    /// Path of slirp4netns.
    pub slirp4netns: Option<PathBuf>,
    /// /dev/net/tun can be opened for reading and writing.
    pub dev_net_tun: bool,
    /// Overlay can be mounted in a user namespace (kernel 5.11 and a file system that can be its upper layer).
    pub native_overlay: bool,
    /// The cgroup hierarchy.
    pub cgroup: Cgroup,
    /// `net.ipv4.ip_unprivileged_port_start` (`ip(7)`).
    pub unprivileged_port_start: u16,
}
