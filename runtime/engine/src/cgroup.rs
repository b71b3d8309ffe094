//! The cgroups of a container, from the engine's side: made before the start, noted in the container's directory before
//! they exist, and removed by whatever command comes by when the supervisor was killed.

use crate::prepare::Prepared;
use crate::record::{failed, file};
use oci_spec::runtime::{LinuxMemory, LinuxResources};
use rlrun_limits::cgroup;
use rlrun_spec::Failure;
use rlrun_spec::cgroup::{Held, Membership};
use rlrun_spec::host::{Cgroup, CgroupAccess};
use rlrun_spec::limits::PidsScope;
use rlrun_spec::plan_from_oci;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

/// The file in the container's directory that names its cgroups.
pub const FILE: &str = rlrun_spec::cgroup::FILE;

/// Makes the cgroups that hold what they can of an admitted configuration; None where nothing is for them.
///
/// # Errors
/// When the host does not give what it promised.
pub fn create(prepared: &Prepared, directory: &Path) -> Result<Option<Membership>, Failure> {
    let parts = prepared.admitted.spec().parts();
    let resources = parts.oci.linux().as_ref().and_then(|linux| linux.resources().clone()).unwrap_or_default();
    let scope = PidsScope::of(plan_from_oci::bounding(prepared.admitted.spec()));
    let host = &prepared.host.cgroup;
    let held = Held::of(&resources, scope, host);
    if !held.any() {
        return Ok(None);
    }
    let settings = cgroup::settings(&resources, held, host);
    let path = directory.join(FILE);
    let note = |membership: &Membership| {
        let text = serde_json::to_vec(membership).map_err(|e| failed("data-dir", "write", &path, &e.into()))?;
        file::write_aside(directory, FILE, &text).map_err(|e| failed("data-dir", "write", &path, &e))
    };
    cgroup::create(host, &parts.id, held, &settings, &note).map(Some)
}

/// Gives the cgroups of a running container other limits. Returns what they hold of `resources`; what is no longer
/// limited is set free.
///
/// # Errors
/// When the kernel does not take a value.
pub fn update(membership: &Membership, resources: &LinuxResources, host: &Cgroup) -> Result<Held, Failure> {
    // Where there is a cgroup already it counts processes too, if it did.
    let held = Held::of(resources, PidsScope::EachId, host);
    // The same controller may have something left to keep back while nothing bounds it any more.
    let bounded = resources.memory().as_ref().and_then(LinuxMemory::limit).is_some_and(|limit| limit > 0);
    let lifted = cgroup::lifted(membership.held, Held { memory: held.memory && bounded, ..held }, host);
    let settings = cgroup::settings(resources, held, host);
    let loosened = cgroup::loosened(held, host);
    let unlimited = if membership.held.io { cgroup::unlimited(membership) } else { Vec::new() };
    unlimited
        .iter()
        .chain(&loosened)
        .chain(&lifted)
        .chain(&settings)
        .try_for_each(|setting| cgroup::apply(membership, setting))?;
    Ok(held)
}

/// The cgroups that a container's directory names.
#[must_use]
pub fn of(directory: &Path) -> Option<Membership> {
    serde_json::from_slice(&fs::read(directory.join(FILE)).ok()?).ok()
}

/// Removes them; nobody looks after the container any more.
///
/// # Errors
/// When something still runs in one.
pub fn remove(directory: &Path) -> Result<(), Failure> {
    let Some(membership) = of(directory) else { return Ok(()) };
    cgroup::remove(&membership.directories)?;
    let file = directory.join(FILE);
    match fs::remove_file(&file) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(failed("data-dir", "remove", &file, &e)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// For a command that is to join the container: moves this process to where it may enter the cgroups.
///
/// # Errors
/// When the systemd user manager that gave them does not let it.
pub fn approach(directory: &Path) -> Result<Option<Membership>, Failure> {
    let Some(membership) = of(directory) else { return Ok(None) };
    if let Some(scope) = &membership.scope
        && let Cgroup::V2 { access: CgroupAccess::UserManager(socket), .. } = crate::host::cgroup()
    {
        cgroup::enter_scope(&socket, scope)?;
    }
    Ok(Some(membership))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rlrun_spec::host::CgroupAccess;

    #[test]
    fn what_nothing_bounds_any_more_is_set_free_though_something_is_kept_back() {
        let dir = tempfile::tempdir().unwrap();
        for file in ["memory.max", "memory.low", "memory.swap.max"] {
            std::io::Write::flush(&mut fs::File::create(dir.path().join(file)).unwrap()).unwrap();
        }
        let held = Held { memory: true, ..Held::default() };
        let membership = Membership { directories: vec![dir.path().to_owned()], scope: None, held };
        let access = CgroupAccess::Directory(dir.path().to_owned());
        let host = Cgroup::V2 { delegated: vec!["memory".to_owned()], access };
        let mut memory = LinuxMemory::default();
        memory.set_reservation(Some(1 << 20));
        let mut resources = LinuxResources::default();
        resources.set_memory(Some(memory));
        assert!(update(&membership, &resources, &host).unwrap().memory);
        let read = |file: &str| fs::read_to_string(dir.path().join(file)).unwrap();
        assert_eq!((read("memory.max"), read("memory.swap.max")), ("max".to_owned(), "max".to_owned()));
        assert_eq!(read("memory.low"), "1048576");
    }
}
