//! The payload's place in the container's cgroups, which the engine has made. Whoever enters does it first of all, while
//! it sees the host's file systems and may still go there.

use crate::at::At;
use crate::sys;
use rlrun_spec::Failure;
use rlrun_spec::plan::Launch;
use rustix::fs::{CWD, Mode, OFlags, openat};

/// Moves this process there.
pub(crate) fn join(launch: &Launch) -> Result<(), Failure> {
    let directories = launch.facts.cgroup.iter().flat_map(|cgroup| &cgroup.directories);
    for directory in directories {
        let path = directory.join("cgroup.procs");
        let object = path.display().to_string();
        let file = openat(CWD, &path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()).at("cgroup", "open", &object)?;
        // 0 is whoever writes.
        rustix::io::write(&file, b"0").at("cgroup", "join", object)?;
    }
    Ok(())
}

/// Init's part: joins, and makes it the root of what the container sees (cgroup_namespaces(7)).
pub(crate) fn enter(launch: &Launch) -> Result<(), Failure> {
    if launch.facts.cgroup.is_none() {
        return Ok(());
    }
    join(launch)?;
    let flags = if launch.namespaces.cgroup { libc::CLONE_NEWCGROUP } else { 0 };
    sys::unshare(flags).at("unshare", "create", "the container's cgroup namespace")
}
