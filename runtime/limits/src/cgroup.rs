//! Limits that a cgroup holds: what is written where, the making and the end of a container's cgroups, and what the
//! kernel says of them. The engine makes them before the start; the supervisor watches and removes them.
//!
//! Nothing is believed: every value is read back, and what the controllers count is looked at before the payload runs,
//! because there are kernels that take a limit and do nothing with it.

mod block_io;
mod files;
mod freeze;
mod manager;
mod settings;
mod usage;

pub use block_io::unlimited;
pub use files::{ineffective, remove};
pub use freeze::{can_freeze, freeze, thaw};
pub use settings::{Setting, lifted, loosened, settings};
pub use usage::Count;

use files::{make_directory, write_file, write_setting};
use rlrun_spec::cgroup::{Held, Membership};
use rlrun_spec::host::{Cgroup, CgroupAccess};
use rlrun_spec::{Failure, Kind, Stage};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Where version 2 is mounted.
const MOUNT: &str = "/sys/fs/cgroup";
/// In a scope: where the supervisor and its helpers are, and where the payload is.
const SUPERVISOR: &str = "supervisor";
const CONTAINER: &str = "container";

fn failed(operation: &str, object: &Path, error: &io::Error) -> Failure {
    let failure = Failure::new(Stage::Cli, Kind::Host, "cgroup", operation, object.display().to_string());
    match error.raw_os_error() {
        Some(errno) => failure.errno(errno),
        None => failure.why(error.to_string()),
    }
    .hint("--cgroups=disabled keeps the limits without a cgroup")
}

/// Writes down which cgroups there will be, before they are made.
pub type Note<'a> = &'a dyn Fn(&Membership) -> Result<(), Failure>;

/// Makes the cgroups of container `id` with `settings`. Where a systemd user manager gives them, this process, which
/// becomes the supervisor, moves into the container's scope.
///
/// # Errors
/// When one cannot be made, or does not keep what is written to it; nothing stays then.
pub fn create(
    host: &Cgroup,
    id: &str,
    held: Held,
    settings: &[Setting],
    note: Note<'_>,
) -> Result<Membership, Failure> {
    let (directories, scope) = match host {
        Cgroup::V1 { writable } => (version_1(writable, id, settings)?, None),
        Cgroup::V2 { access: CgroupAccess::Directory(parent), .. } => {
            enable(parent, settings)?;
            (vec![parent.join(format!("rlrun-{id}"))], None)
        }
        Cgroup::V2 { access: CgroupAccess::UserManager(socket), .. } => {
            let scope = format!("rlrun-{id}.scope");
            (vec![in_scope(socket, &scope, id, settings)?], Some(scope))
        }
        Cgroup::V2 { access: CgroupAccess::None, .. } | Cgroup::None => {
            let none = io::Error::other("no cgroup of this host is the caller's to use");
            return Err(failed("make a cgroup in", Path::new(MOUNT), &none));
        }
    };
    let membership = Membership { directories, scope, held };
    note(&membership)?;
    match membership.directories.iter().try_for_each(|d| made(d)).and_then(|()| fill(&membership, settings)) {
        Ok(()) => Ok(membership),
        Err(failure) => {
            remove(&membership.directories)?;
            Err(failure)
        }
    }
}

fn fill(membership: &Membership, settings: &[Setting]) -> Result<(), Failure> {
    for directory in &membership.directories {
        let (own, parent) = (directory.join("cpuset.mems"), directory.join("../cpuset.mems"));
        if settings.iter().any(|s| s.file == "cpuset.cpus") && own.exists() && membership.scope.is_none() {
            // Version 1: without memory nodes nothing may join (cpuset(7)). Version 2 inherits what is not said.
            let nodes = fs::read_to_string(&parent).map_err(|e| failed("read", &parent, &e))?;
            write_file(&own, nodes.trim()).map_err(|e| failed("set", &own, &e))?;
        }
    }
    settings.iter().try_for_each(|setting| apply(membership, setting))
}

/// Writes one value to the cgroup that its controller is in.
///
/// # Errors
/// When the kernel does not take it, or keeps another.
pub fn apply(membership: &Membership, setting: &Setting) -> Result<(), Failure> {
    let mut several = membership.directories.iter();
    let directory = match membership.directories.as_slice() {
        [only] => only,
        _ => match several.find(|d| d.join(setting.file).exists()) {
            Some(found) => found,
            None if setting.optional => return Ok(()),
            None => return Err(failed("set", Path::new(setting.file), &io::Error::from(io::ErrorKind::NotFound))),
        },
    };
    write_setting(directory, setting).map_err(|e| failed("set", &directory.join(setting.file), &e))
}

fn made(directory: &Path) -> Result<(), Failure> {
    make_directory(directory).map_err(|e| failed("make the cgroup", directory, &e))
}

/// Several controllers may share a hierarchy, and then a directory.
fn version_1(writable: &[(String, PathBuf)], id: &str, settings: &[Setting]) -> Result<Vec<PathBuf>, Failure> {
    let mut directories: Vec<PathBuf> = Vec::new();
    for (controller, parent) in writable {
        if !settings.iter().any(|setting| setting.controller == controller) {
            continue;
        }
        // `cpu` may be a link to `cpu,cpuacct`.
        let parent = fs::canonicalize(parent).map_err(|e| failed("find the cgroup", parent, &e))?;
        let directory = parent.join(format!("rlrun-{id}"));
        if !directories.contains(&directory) {
            directories.push(directory);
        }
    }
    Ok(directories)
}

/// Gives the cgroups below `parent` the controllers that are needed.
fn enable(parent: &Path, settings: &[Setting]) -> Result<(), Failure> {
    let control = parent.join("cgroup.subtree_control");
    let enabled = fs::read_to_string(&control).map_err(|e| failed("read", &control, &e))?;
    let mut wanted: Vec<&str> = settings.iter().map(|setting| setting.controller).collect();
    if wanted.contains(&"io") && has_controller(parent, "memory") {
        // What is written through the page cache is the writer's only where memory is counted too (cgroup-v2, "Writeback").
        wanted.push("memory");
    }
    let mut missing: Vec<String> = Vec::new();
    for controller in wanted {
        let word = format!("+{controller}");
        if !enabled.split_whitespace().any(|name| name == controller) && !missing.contains(&word) {
            missing.push(word);
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    write_file(&control, &missing.join(" "))
        .map_err(|e| failed("give its controllers to the cgroups below", parent, &e))
}

fn has_controller(directory: &Path, controller: &str) -> bool {
    let all = fs::read_to_string(directory.join("cgroup.controllers")).unwrap_or_default();
    all.split_whitespace().any(|name| name == controller)
}

/// A scope of the container's own, in it a cgroup for the supervisor and one for the payload: where controllers are
/// handed down, no process may be (cgroups(7), "no internal processes").
fn in_scope(socket: &Path, scope: &str, id: &str, settings: &[Setting]) -> Result<PathBuf, Failure> {
    manager::start_scope(socket, scope, &format!("rlrun container {id:.12}"))
        .map_err(|e| failed("ask for a scope of the systemd user manager at", socket, &e))?;
    let own = own_cgroup().map_err(|e| failed("find the cgroup of", Path::new("/proc/self"), &e))?;
    if own.file_name().is_none_or(|name| name != scope) {
        let elsewhere = io::Error::other(format!("this process was not moved there, it is in {}", own.display()));
        return Err(failed("enter the scope", Path::new(scope), &elsewhere));
    }
    let supervisor = own.join(SUPERVISOR);
    made(&supervisor)?;
    write_file(&supervisor.join("cgroup.procs"), "0").map_err(|e| failed("enter the cgroup", &supervisor, &e))?;
    enable(&own, settings)?;
    Ok(own.join(CONTAINER))
}

/// Moves this process beside the supervisor in the container's scope, from where it may join the payload's cgroup:
/// a process is moved only by who may write to all that both places have in common (cgroups(7)).
///
/// # Errors
/// When the manager does not do it.
pub fn enter_scope(socket: &Path, scope: &str) -> Result<(), Failure> {
    manager::attach(socket, scope, SUPERVISOR)
        .map_err(|e| failed("enter the scope of the container by the systemd user manager at", socket, &e))
}

fn own_cgroup() -> io::Result<PathBuf> {
    let text = fs::read_to_string("/proc/self/cgroup")?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"));
    path.map(|path| Path::new(MOUNT).join(path)).ok_or_else(|| io::Error::other("no cgroup of version 2"))
}
