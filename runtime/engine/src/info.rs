//! `rlrun info`: what this host is, what rlrun keeps on it, and by what each limit holds here. Names of podman's, where
//! podman has the fact.

use crate::config::limits;
use crate::containers::{self, Status};
use crate::host::filesystem::FileSystem;
use crate::host::probe;
use crate::images;
use crate::place::Place;
use crate::storage;
use rlrun_spec::Failure;
use rlrun_spec::container::UserNamespace;
use rlrun_spec::host::{Cgroup, CgroupAccess, HostFacts};
use serde_json::{Value, json};
use std::path::Path;

/// Everything.
///
/// # Errors
/// When the store cannot be read.
pub fn info(place: &Place) -> Result<Value, Failure> {
    let host = probe(&place.data);
    let containers = containers::list(place)?;
    let count = |status: Status| containers.iter().filter(|c| c.status == status).count();
    let (running, paused) = (count(Status::Running), count(Status::Paused));
    let file_system = FileSystem::of(&place.data);
    let driver = storage::choose(None, &host, &UserNamespace::Default)?.driver.to_string();
    Ok(json!({
        "host": about_host(&host),
        "limits": limits::overview(&host),
        "store": {
            "configFile": place.config,
            "containerStore": {
                "number": containers.len(),
                "paused": paused,
                "running": running,
                "stopped": containers.len() - paused - running,
            },
            "graphDriverName": driver,
            "graphRoot": place.data,
            "graphStatus": {"Backing Filesystem": file_system.name, "Remark": file_system.remark().unwrap_or_default()},
            "imageStore": {"number": images::list(place)?.len()},
            "volumePath": place.data.join(crate::volumes::DIRECTORY),
        },
        "version": {"Version": env!("CARGO_PKG_VERSION"), "OsArch": images::platform()},
    }))
}

fn about_host(host: &HostFacts) -> Value {
    let names = rustix::system::uname();
    let text = |s: &std::ffi::CStr| s.to_string_lossy().into_owned();
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let bytes = |name: &str| {
        let line = memory.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|l| l.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()).map(|kib| kib * 1024)
    };
    let (version, manager) = hierarchy(&host.cgroup);
    json!({
        "arch": text(names.machine()),
        "cgroupControllers": host.cgroup.controllers(),
        "cgroupManager": manager,
        "cgroupVersion": version,
        "cpus": std::thread::available_parallelism().map(usize::from).unwrap_or(1),
        "distribution": distribution(),
        "hostname": text(names.nodename()),
        "idMappings": {"gidmap": host.subgids, "uidmap": host.subuids},
        "kernel": text(names.release()),
        "memFree": bytes("MemFree:"),
        "memTotal": bytes("MemTotal:"),
        "ociRuntime": {"name": "rlrun"},
        "os": "linux",
        "rootlessNetworkCmd": "slirp4netns",
        "security": {
            "apparmorEnabled": Path::new("/sys/kernel/security/apparmor").exists(),
            "rootless": true,
            "seccompEnabled": true,
            "selinuxEnabled": Path::new("/sys/fs/selinux/enforce").exists(),
        },
        "slirp4netns": {"executable": host.slirp4netns},
        "swapFree": bytes("SwapFree:"),
        "swapTotal": bytes("SwapTotal:"),
    })
}

/// Version, and who gives a container its cgroup.
fn hierarchy(cgroup: &Cgroup) -> (&'static str, &'static str) {
    match cgroup {
        Cgroup::V2 { access: CgroupAccess::UserManager(_), .. } => ("v2", "systemd"),
        Cgroup::V2 { access: CgroupAccess::Directory(_), .. } => ("v2", "cgroupfs"),
        Cgroup::V2 { access: CgroupAccess::None, .. } => ("v2", "none"),
        Cgroup::V1 { writable } if writable.is_empty() => ("v1", "none"),
        Cgroup::V1 { .. } => ("v1", "cgroupfs"),
        Cgroup::None => ("none", "none"),
    }
}

/// From os-release(5).
fn distribution() -> Value {
    let text = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        line.map(|value| value.trim_matches('"').to_owned()).unwrap_or_default()
    };
    json!({"codename": field("VERSION_CODENAME"), "distribution": field("ID"), "version": field("VERSION_ID")})
}
