//! The cgroups of a container: which of its limits they hold, and where its processes join them. Decided in one place
//! from the admitted configuration and the host, so that what is said, what is made and what the stages leave to it
//! cannot differ.

use crate::host::Cgroup;
use crate::limits::{Limits, PidsScope};
use oci_spec::runtime::{LinuxBlockIo, LinuxResources};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The file in a container's directory that names its cgroups, for whoever finds them when the supervisor was killed.
pub const FILE: &str = "cgroup";

/// Which limits cgroups hold; the others are kept without one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[allow(clippy::struct_excessive_bools, reason = "each is one limit, and any of them may be held")]
pub struct Held {
    /// Processor time.
    pub cpu: bool,
    /// Share of the processor beside others.
    pub weight: bool,
    /// CPUs it may run on.
    pub cpuset: bool,
    /// Memory, and memory that is kept back for it.
    pub memory: bool,
    /// Processes and threads.
    pub pids: bool,
    /// Reading and writing of block devices.
    pub io: bool,
}

impl Held {
    /// What cgroups of this host can hold of `resources`. The number of processes is one of them only where nothing
    /// else counts it exactly, or where there is a cgroup anyway: a cgroup costs more than it adds.
    #[must_use]
    pub fn of(resources: &LinuxResources, scope: PidsScope, host: &Cgroup) -> Self {
        let positive = |n: Option<i64>| n.is_some_and(|n| n > 0);
        let cpu = resources.cpu().as_ref();
        let memory = resources.memory().as_ref();
        // Version 2 always kills; what is to wait instead is kept waiting without it.
        let waits = memory.and_then(|m| m.disable_oom_killer()).unwrap_or(false);
        let bounded = memory.is_some_and(|m| positive(m.limit()) || positive(m.reservation()));
        let mut held = Held {
            cpu: cpu.is_some_and(|c| positive(c.quota())) && host.has("cpu"),
            weight: cpu.and_then(|c| c.shares()).is_some_and(|s| s > 0) && host.has("cpu"),
            cpuset: cpu.is_some_and(|c| c.cpus().as_deref().is_some_and(|s| !s.is_empty())) && host.has("cpuset"),
            memory: bounded && host.has("memory") && !(waits && matches!(host, Cgroup::V2 { .. })),
            pids: false,
            io: resources.block_io().as_ref().is_some_and(is_asked) && host.has("io"),
        };
        let counted = positive(resources.pids().as_ref().map(oci_spec::runtime::LinuxPids::limit));
        held.pids = counted && host.has("pids") && (held.any() || scope == PidsScope::EachId);
        held
    }

    /// Whether there is anything for a cgroup to do.
    #[must_use]
    pub fn any(self) -> bool {
        self.cpu || self.weight || self.cpuset || self.memory || self.pids || self.io
    }

    /// Whether a controller has anything to do.
    #[must_use]
    pub fn uses(self, controller: &str) -> bool {
        match controller {
            "cpu" => self.cpu || self.weight,
            "cpuset" => self.cpuset,
            "memory" => self.memory,
            "pids" => self.pids,
            "io" | "blkio" => self.io,
            _ => false,
        }
    }

    /// Leaves what the stages must keep themselves.
    pub fn take_from(self, limits: &mut Limits) {
        if self.cpu {
            limits.cpu = None;
        }
        if self.weight {
            limits.weight = None;
        }
        if self.cpuset {
            limits.cpus.clear();
        }
        if self.memory {
            limits.memory = None;
        }
        if self.pids {
            limits.pids = None;
        }
    }
}

/// Whether it limits anything.
fn is_asked(block_io: &LinuxBlockIo) -> bool {
    let all = [
        block_io.throttle_read_bps_device(),
        block_io.throttle_write_bps_device(),
        block_io.throttle_read_iops_device(),
        block_io.throttle_write_iops_device(),
    ];
    block_io.weight().is_some_and(|n| n > 0) || all.into_iter().flatten().any(|devices| !devices.is_empty())
}

/// The cgroups that the container's processes are in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// One directory with version 2, one a controller with version 1.
    pub directories: Vec<PathBuf>,
    /// The scope of the systemd user manager that they are in.
    pub scope: Option<String>,
    /// What they hold.
    pub held: Held,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::CgroupAccess;
    use oci_spec::runtime::{LinuxCpu, LinuxMemory, LinuxPids};

    fn resources() -> LinuxResources {
        let (mut cpu, mut memory, mut pids) = (LinuxCpu::default(), LinuxMemory::default(), LinuxPids::default());
        cpu.set_quota(Some(50_000)).set_cpus(Some("0".to_owned()));
        memory.set_limit(Some(1 << 30));
        pids.set_limit(10);
        let mut resources = LinuxResources::default();
        resources.set_cpu(Some(cpu)).set_memory(Some(memory)).set_pids(Some(pids));
        resources
    }

    fn v2(controllers: &[&str]) -> Cgroup {
        let delegated = controllers.iter().map(|c| (*c).to_owned()).collect();
        Cgroup::V2 { delegated, access: CgroupAccess::Directory("/x".into()) }
    }

    #[test]
    fn each_limit_goes_to_a_cgroup_where_its_controller_is_delegated() {
        let held = Held::of(&resources(), PidsScope::Container, &v2(&["cpu", "pids"]));
        assert_eq!(held, Held { cpu: true, pids: true, ..Held::default() });
        assert!(!Held::of(&resources(), PidsScope::EachId, &v2(&[])).any());
        assert!(!Held::of(&resources(), PidsScope::EachId, &Cgroup::None).any());
    }

    #[test]
    fn a_limit_on_processes_alone_needs_a_cgroup_only_where_it_would_not_be_exact() {
        let mut only = LinuxResources::default();
        only.set_pids(*resources().pids());
        assert!(!Held::of(&only, PidsScope::Container, &v2(&["pids"])).any());
        assert!(Held::of(&only, PidsScope::EachId, &v2(&["pids"])).pids);
    }

    #[test]
    fn what_is_to_wait_for_memory_is_not_given_to_a_kernel_that_kills() {
        let mut waiting = resources();
        let mut memory = waiting.memory().unwrap();
        memory.set_disable_oom_killer(Some(true));
        waiting.set_memory(Some(memory));
        assert!(!Held::of(&waiting, PidsScope::Container, &v2(&["memory"])).memory);
        let v1 = Cgroup::V1 { writable: vec![("memory".to_owned(), "/m".into())] };
        assert!(Held::of(&waiting, PidsScope::Container, &v1).memory);
    }
}
