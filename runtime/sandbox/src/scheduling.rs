//! Where and with what weight the container's processes run: affinity, nice, `SCHED_IDLE`. Set once on init, inherited
//! by all, and not to be raised again without privilege outside (sched(7)).

use crate::at::At;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use rlrun_spec::Failure;
use rlrun_spec::limits::{Limits, Weight};
use rlrun_spec::plan::Launch;
use rustix::io::Errno;

/// The CPUs that the container starts on: those that were named, or as few as its share of them needs, which spares it
/// most of the stopping. Different containers begin at different ones.
pub(crate) fn cpus(launch: &Launch, limits: &Limits) -> Vec<usize> {
    let named = &limits.cpus;
    let own = sched_getaffinity(Pid::from_raw(0)).unwrap_or_else(|_| CpuSet::new());
    let is_ours = |cpu: &usize| own.is_set(*cpu).unwrap_or(false);
    let is_named = |cpu: &usize| named.is_empty() || u32::try_from(*cpu).is_ok_and(|cpu| named.contains(&cpu));
    let mut cpus: Vec<usize> = (0..CpuSet::count()).filter(is_ours).filter(is_named).collect();
    let Some(limit) = limits.cpu else { return cpus };
    let wanted = usize::try_from(limit.millis().div_ceil(1000)).unwrap_or(usize::MAX).clamp(1, cpus.len().max(1));
    let seed = launch.id.bytes().take(8).map(usize::from).sum::<usize>();
    if !cpus.is_empty() {
        let first = seed % cpus.len();
        cpus.rotate_left(first);
    }
    cpus.truncate(wanted);
    cpus
}

/// Applies both.
pub(crate) fn apply(launch: &Launch) -> Result<(), Failure> {
    let limits = &launch.limits;
    if !limits.cpus.is_empty() || limits.cpu.is_some() {
        let cpus = cpus(launch, limits);
        let object = format!("CPUs {cpus:?}");
        let mut set = CpuSet::new();
        for cpu in cpus {
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

/// The same for a thread that runs already, whose weight can only be lowered. One that has ended needs none.
pub(crate) fn reschedule(thread: i32, cpus: &[usize], weight: Option<Weight>) -> Result<(), Errno> {
    let to_errno = |errno: nix::errno::Errno| Errno::from_raw_os_error(errno as i32);
    let mut set = CpuSet::new();
    for cpu in cpus {
        set.set(*cpu).map_err(to_errno)?;
    }
    match sched_setaffinity(Pid::from_raw(thread), &set).map_err(to_errno) {
        Ok(()) => {}
        Err(Errno::SRCH) => return Ok(()),
        Err(errno) => return Err(errno),
    }
    let steps = match weight {
        None => return Ok(()),
        Some(Weight::Nice(steps)) => i32::from(steps),
        Some(Weight::Idle) => 19,
    };
    let thread = rustix::process::Pid::from_raw(thread);
    let wanted = (rustix::process::getpriority_process(None)? + steps).min(19);
    match rustix::process::getpriority_process(thread) {
        Ok(now) if now < wanted => rustix::process::setpriority_process(thread, wanted),
        Ok(_) | Err(Errno::SRCH) => Ok(()),
        Err(errno) => Err(errno),
    }
}
