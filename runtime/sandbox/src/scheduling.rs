//! Where and with what weight the container's processes run: affinity, nice, `SCHED_IDLE`. Set once on init, inherited
//! by all, and not to be raised again without privilege outside (sched(7)).

use crate::at::At;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use rlrun_spec::Failure;
use rlrun_spec::limits::Weight;
use rlrun_spec::plan::Launch;

/// Applies both.
pub(crate) fn apply(launch: &Launch) -> Result<(), Failure> {
    let limits = &launch.limits;
    if !limits.cpus.is_empty() {
        let object = format!("CPUs {:?}", limits.cpus);
        let mut set = CpuSet::new();
        for cpu in &limits.cpus {
            let cpu = usize::try_from(*cpu).unwrap_or(usize::MAX);
            set.set(cpu).map_err(std::io::Error::from).at("", "run on", &object)?;
        }
        // As a set of the caller's own: the kernel takes the intersection, and an empty one is EINVAL.
        sched_setaffinity(Pid::from_raw(0), &set).map_err(std::io::Error::from).at("", "run on", object)?;
    }
    match limits.weight {
        None => Ok(()),
        Some(Weight::Nice(steps)) => {
            // Below the caller, who may be nice already; going back up would need privilege.
            let own = rustix::process::getpriority_process(None).at("", "read", "nice")?;
            let nice = (own + i32::from(steps)).min(19);
            rustix::process::setpriority_process(None, nice).at("", "set", format!("nice {nice}"))
        }
        Some(Weight::Idle) => crate::sys::become_idle().at("", "set", "SCHED_IDLE"),
    }
}
