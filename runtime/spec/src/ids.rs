//! User and group ids on both sides of a user namespace (`user_namespaces(7)`).

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Host ids that `/etc/subuid` or `/etc/subgid` grants: `start..start + count`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdRange {
    /// First host id.
    pub start: u32,
    /// How many ids.
    pub count: u32,
}

/// One line of `/proc/PID/uid_map` or `gid_map`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMapping {
    /// First id inside the namespace.
    pub container: u32,
    /// First id on the host.
    pub host: u32,
    /// How many ids.
    pub count: u32,
}

impl IdMapping {
    /// The host id of `container`, if this line maps it.
    #[must_use]
    pub fn to_host(self, container: u32) -> Option<u32> {
        let offset = container.checked_sub(self.container)?;
        (offset < self.count).then(|| self.host.checked_add(offset)).flatten()
    }
}

/// Who writes the maps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MapWriter {
    /// `newuidmap(1)` and `newgidmap(1)`, set-user-ID programs that check `/etc/subuid` and `/etc/subgid`.
    Helpers {
        /// Absolute path of newuidmap.
        newuidmap: PathBuf,
        /// Absolute path of newgidmap.
        newgidmap: PathBuf,
    },
    /// The process itself: one id only, `setgroups` denied (`user_namespaces(7)`).
    Single,
}

/// Both maps of a container and who writes them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMaps {
    /// Lines of `uid_map`.
    pub uids: Vec<IdMapping>,
    /// Lines of `gid_map`.
    pub gids: Vec<IdMapping>,
    /// Who writes them.
    pub writer: MapWriter,
}

impl IdMaps {
    /// The host uid of a container uid, if it is mapped.
    #[must_use]
    pub fn host_uid(&self, container: u32) -> Option<u32> {
        self.uids.iter().find_map(|m| m.to_host(container))
    }

    /// The host gid of a container gid, if it is mapped.
    #[must_use]
    pub fn host_gid(&self, container: u32) -> Option<u32> {
        self.gids.iter().find_map(|m| m.to_host(container))
    }
}
