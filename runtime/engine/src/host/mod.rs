//! What this host gives the calling user: subordinate ids, helpers, devices, kernel features. Facts are read once,
//! before any policy is asked; nothing here starts a container or changes the host.

pub mod account;
pub mod cause;
mod cgroup;
pub mod doctor;
pub mod filesystem;
mod getsubids;
pub mod idmap;
pub mod overlay;
mod probe;
pub mod programs;
pub mod subid;
mod text;
mod userns;

pub use probe::probe;

/// The cgroup hierarchy of the calling user, alone.
#[must_use]
pub fn cgroup() -> rlrun_spec::host::Cgroup {
    cgroup::probe(rustix::process::geteuid().as_raw())
}

/// A host that lacks nothing, for tests to take something away from.
#[cfg(test)]
pub(crate) fn test_facts() -> rlrun_spec::HostFacts {
    use rlrun_spec::IdRange;
    use rlrun_spec::host::{Cgroup, CgroupAccess, Helper};
    rlrun_spec::HostFacts {
        kernel: (6, 18),
        uid: 1500,
        gid: 1500,
        user: "ann".to_owned(),
        local_account: true,
        subuids: vec![IdRange { start: 100_000, count: 65536 }],
        subgids: vec![IdRange { start: 100_000, count: 65536 }],
        newuidmap: Helper::Usable("/usr/bin/newuidmap".into()),
        newgidmap: Helper::Usable("/usr/bin/newgidmap".into()),
        userns_blocked: None,
        fuse_overlayfs: Some("/usr/bin/fuse-overlayfs".into()),
        dev_fuse: true,
        slirp4netns: Some("/usr/bin/slirp4netns".into()),
        dev_net_tun: true,
        native_overlay: true,
        cgroup: Cgroup::V2 {
            delegated: vec!["cpu".to_owned(), "memory".to_owned(), "pids".to_owned()],
            access: CgroupAccess::None,
        },
        unprivileged_port_start: 1024,
    }
}
