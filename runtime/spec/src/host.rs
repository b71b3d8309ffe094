//! What the host offers, probed before the verdict by `rlrun-engine`'s probe and shown by `doctor`.

use crate::ids::IdRange;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The cgroup hierarchy of the calling user (`cgroups(7)`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cgroup {
    /// Version 2 everywhere; `delegated` lists the controllers that the user's own cgroup offers.
    V2 {
        /// Controllers the user may use.
        delegated: Vec<String>,
    },
    /// Version 1 controllers, perhaps with an empty version 2 tree beside them.
    V1,
    /// No cgroup file system.
    None,
}

/// Host facts. Plain data: a test builds one by hand.
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
    /// Ranges from /etc/subuid.
    pub subuids: Vec<IdRange>,
    /// Ranges from /etc/subgid.
    pub subgids: Vec<IdRange>,
    /// Path of newuidmap, if found and set-user-ID root or with CAP_SETUID as a file capability.
    pub newuidmap: Option<PathBuf>,
    /// Path of newgidmap, likewise.
    pub newgidmap: Option<PathBuf>,
    /// Why user namespaces cannot be created, if they cannot (`sysctl`, AppArmor); None when they can.
    pub userns_blocked: Option<String>,
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
