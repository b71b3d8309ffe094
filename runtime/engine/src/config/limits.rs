//! Resource limits: what contradicts itself or cannot start is refused, the rest goes into the configuration and
//! becomes controls that say by which mechanism each holds on this host.

use super::block_io;
use super::controls::{Controls, held, weak};
use crate::request::limits::{DEFAULT_PIDS, LimitRequest, Pids, Swap};
use crate::request::{LimitsLevel, StorageDriver};
use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;
use oci_spec::runtime::{LinuxCpu, LinuxMemory, LinuxPids, LinuxResources};
use rlrun_spec::cgroup::Held;
use rlrun_spec::host::{Cgroup, CgroupAccess, HostFacts};
use rlrun_spec::limits::{DEFAULT_PERIOD_US, PidsScope, Weight, cpu_list, weight};
use rlrun_spec::{Control, Enforced, Failure, Kind, Level, Stage};
use rustix::process::{Resource, getrlimit};
use std::path::Path;

/// A shell and its libraries; less than this ends before its first line.
const LEAST_MEMORY: u64 = 1 << 20;
/// The directories that an overlay makes.
const LEAST_DISK: u64 = 64 << 10;
/// What mke2fs makes a file system of that can be used.
const LEAST_FILE: u64 = 1 << 20;
/// A hundredth of a CPU, as the least that docker takes.
const LEAST_CPU_MILLIS: u32 = 10;

/// Whether the limits go together and with this machine.
///
/// # Errors
/// With the first option that does not.
pub fn check(request: &LimitRequest, init: bool) -> Result<(), Failure> {
    check_cpu(request)?;
    check_memory(request)?;
    check_score(request)?;
    request.block_io.iter().try_for_each(|(option, value)| block_io::check(option, value))?;
    let Some(Pids::AtMost(wanted)) = request.pids else { return Ok(()) };
    if init && wanted < 2 {
        return Err(refused("--pids-limit", wanted, "with --init the container starts with two processes"));
    }
    match getrlimit(Resource::Nproc).maximum {
        Some(own) if u64::from(wanted) > own => {
            Err(refused("--pids-limit", wanted, &format!("you may have {own} processes yourself (RLIMIT_NPROC)")))
        }
        Some(_) | None => Ok(()),
    }
}

/// Whether what the container writes can be bounded.
///
/// # Errors
/// When it would be lost, does not fit, or has no layer of its own.
pub fn check_disk(request: &LimitRequest, remove: bool, driver: StorageDriver, store: &Path) -> Result<(), Failure> {
    let Some(size) = request.disk else { return Ok(()) };
    let option = "--storage-opt size";
    if driver == StorageDriver::Copy {
        return Err(refused(option, size, "the storage driver copy writes where the image is")
            .hint("use the storage driver overlay or fuse-overlayfs"));
    }
    if driver == StorageDriver::Directory {
        return Err(refused(option, size, "a directory as the root is written to itself")
            .hint("--rootfs DIRECTORY:O writes to a layer of the container's"));
    }
    if size < LEAST_DISK {
        return Err(refused(option, size, "nothing can be written to less than 64k"));
    }
    if !remove {
        return check_lasting(size, driver, store);
    }
    match total_memory() {
        Some(total) if size > total => Err(refused(option, size, &format!("the machine has {total} bytes of memory"))),
        Some(_) | None => Ok(()),
    }
}

/// The same for what stays when the container ends.
fn check_lasting(size: u64, driver: StorageDriver, store: &Path) -> Result<(), Failure> {
    let option = "--storage-opt size";
    if driver != StorageDriver::FuseOverlayfs {
        let why = format!(
            "without --rm it is a file that fuse2fs mounts, and the storage driver {driver} cannot write there"
        );
        return Err(
            refused(option, size, &why).hint("leave --storage-driver and RLRUN_STORAGE_DRIVER out, or give --rm")
        );
    }
    if size < LEAST_FILE {
        return Err(
            refused(option, size, "a file system that lasts has at least 1m").hint("ask for more, or give --rm")
        );
    }
    let found = store.ancestors().find_map(|directory| rustix::fs::statvfs(directory).ok());
    match found.map(|found| found.f_blocks.saturating_mul(found.f_frsize)) {
        Some(whole) if size > whole => {
            Err(refused(option, size, &format!("the file system of the store has {whole} bytes in all")))
        }
        Some(_) | None => Ok(()),
    }
}

pub(super) fn refused(option: &str, value: impl std::fmt::Display, why: &str) -> Failure {
    Failure::new(Stage::Cli, Kind::Usage, "limits", "set the limit", format!("{option} {value}")).why(why)
}

fn check_cpu(request: &LimitRequest) -> Result<(), Failure> {
    if let Some(millis) = request.cpu_millis {
        let cpus = millis_text(millis);
        if request.cpu_period.is_some() || request.cpu_quota.is_some() {
            return Err(refused("--cpus", cpus, "it is the same limit as --cpu-quota with --cpu-period")
                .hint("give one or the other"));
        }
        if millis < LEAST_CPU_MILLIS {
            return Err(refused("--cpus", cpus, "a container needs at least 0.01"));
        }
        let there = own_cpus().len();
        if u64::from(millis) > there as u64 * 1000 {
            return Err(refused("--cpus", cpus, &format!("there are {there} CPUs")));
        }
    }
    if let Some(quota) = request.cpu_quota
        && quota > request.cpu_period.unwrap_or(DEFAULT_PERIOD_US).saturating_mul(own_cpus().len() as u64)
    {
        let there = own_cpus().len();
        return Err(refused("--cpu-quota", quota, &format!("there are {there} CPUs, which have that many periods")));
    }
    if let (Some(period), None, None) = (request.cpu_period, request.cpu_quota, request.cpu_millis) {
        return Err(refused("--cpu-period", period, "it means nothing without a quota").hint("give --cpu-quota too"));
    }
    let Some(words) = &request.cpuset else { return Ok(()) };
    let own = own_cpus();
    let chosen = cpu_list(words).unwrap_or_default();
    if let Some(millis) = request.cpu_millis.filter(|millis| u64::from(*millis) > chosen.len() as u64 * 1000) {
        let why = format!("--cpuset-cpus {words} leaves {} of them", chosen.len());
        return Err(refused("--cpus", millis_text(millis), &why).hint("ask for fewer, or give it more CPUs"));
    }
    match chosen.iter().find(|cpu| !own.contains(cpu)) {
        Some(missing) => {
            let there: Vec<String> = own.iter().map(u32::to_string).collect();
            let hint = format!("these are there: {}", there.join(","));
            Err(refused("--cpuset-cpus", words, &format!("CPU {missing} is not there for you")).hint(hint))
        }
        None => Ok(()),
    }
}

/// CPUs that the caller may run on (sched_setaffinity(2)).
fn own_cpus() -> Vec<u32> {
    let set = sched_getaffinity(Pid::from_raw(0)).unwrap_or_else(|_| CpuSet::new());
    let all = (0_u32..).zip(0..CpuSet::count());
    all.filter(|(_, n)| set.is_set(*n).unwrap_or(false)).map(|(cpu, _)| cpu).collect()
}

/// Who is more likely to be ended than others cannot make itself less so without privilege.
fn check_score(request: &LimitRequest) -> Result<(), Failure> {
    let Some(wanted) = request.oom_score_adj else { return Ok(()) };
    let own = std::fs::read_to_string("/proc/self/oom_score_adj").ok().and_then(|text| text.trim().parse().ok());
    match own {
        Some(own) if wanted < own => Err(refused("--oom-score-adj", wanted, &format!("your own score is {own}"))
            .hint(format!("a score can only be raised without privilege: ask for {own} or more"))),
        Some(_) | None => Ok(()),
    }
}

fn check_memory(request: &LimitRequest) -> Result<(), Failure> {
    let total = total_memory().unwrap_or(u64::MAX);
    let whole = [("--shm-size", request.shm), ("--memory-reservation", request.memory_reservation)];
    for (option, wanted) in whole {
        if let Some(wanted) = wanted.filter(|wanted| *wanted > total) {
            return Err(refused(option, wanted, &format!("the machine has {total} bytes of memory")));
        }
    }
    let Some(memory) = request.memory else {
        let orphan =
            [(request.memory_swap.is_some(), "--memory-swap"), (request.oom_kill_disable, "--oom-kill-disable")];
        return match orphan.into_iter().find_map(|(given, option)| given.then_some(option)) {
            Some(option) => Err(refused(option, "", "it means nothing without a limit").hint("give --memory too")),
            None => Ok(()),
        };
    };
    if memory < LEAST_MEMORY {
        return Err(refused("--memory", memory, "nothing starts in less than 1m"));
    }
    if let Some(total) = total_memory()
        && memory > total
    {
        return Err(refused("--memory", memory, &format!("the machine has {total} bytes")));
    }
    if let Some(Swap::AtMost(both)) = request.memory_swap
        && both < memory
    {
        return Err(refused("--memory-swap", both, "it counts memory and swap together, and --memory is more"));
    }
    match request.memory_reservation {
        Some(reserved) if reserved > memory => {
            Err(refused("--memory-reservation", reserved, "it is more than --memory"))
        }
        Some(_) | None => Ok(()),
    }
}

/// Bytes of the machine's memory.
pub(crate) fn total_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let kib = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?.trim().strip_suffix(" kB")?;
    kib.parse::<u64>().ok()?.checked_mul(1024)
}

/// The OCI section of what was asked for.
#[must_use]
pub fn resources(limits: &LimitRequest) -> LinuxResources {
    let mut resources = LinuxResources::default();
    let signed = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    if limits.memory.is_some() || limits.memory_reservation.is_some() || limits.memory_swappiness.is_some() {
        let mut memory = LinuxMemory::default();
        memory.set_limit(limits.memory.map(signed)).set_reservation(limits.memory_reservation.map(signed));
        memory.set_swap(limits.memory.map(|memory| match limits.memory_swap {
            Some(Swap::AtMost(both)) => signed(both),
            Some(Swap::Unlimited) => -1,
            // As much swap as memory, as in podman and docker.
            None => signed(memory.saturating_mul(2)),
        }));
        memory.set_swappiness(limits.memory_swappiness);
        memory.set_disable_oom_killer(limits.oom_kill_disable.then_some(true));
        resources.set_memory(Some(memory));
    }
    let quota = limits.cpu_millis.map(|millis| signed(u64::from(millis) * DEFAULT_PERIOD_US / 1000));
    let quota = quota.or_else(|| limits.cpu_quota.map(signed));
    if quota.is_some() || limits.cpu_period.is_some() || limits.cpu_shares.is_some() || limits.cpuset.is_some() {
        let mut cpu = LinuxCpu::default();
        let period = limits.cpu_period.or_else(|| quota.map(|_| DEFAULT_PERIOD_US));
        cpu.set_period(period).set_quota(quota).set_shares(limits.cpu_shares).set_cpus(limits.cpuset.clone());
        resources.set_cpu(Some(cpu));
    }
    if let Pids::AtMost(limit) = limits.pids.unwrap_or(Pids::AtMost(DEFAULT_PIDS)) {
        let mut pids = LinuxPids::default();
        pids.set_limit(i64::from(limit));
        resources.set_pids(Some(pids));
    }
    resources.set_block_io(block_io::resources(&limits.block_io));
    resources
}

fn millis_text(millis: u32) -> String {
    format!("{}.{:03}", millis / 1000, millis % 1000)
}

/// The names of controls that say how a limit holds.
pub(crate) const NAMES: &[&str] = &[
    "blkio-weight",
    "cpu-limit",
    "cpu-shares",
    "cpuset",
    "device-read-bps",
    "device-read-iops",
    "device-write-bps",
    "device-write-iops",
    "disk-limit",
    "memory-limit",
    "memory-reservation",
    "memory-swappiness",
    "pids-limit",
];

/// Adds a control for each limit.
///
/// # Errors
/// With the first limit that does not hold as asked, when the user said `--limits=require`.
pub(crate) fn decide(
    controls: &mut Controls,
    request: &LimitRequest,
    host: &HostFacts,
    (bounding, remove): (u64, bool),
) -> Result<(), Failure> {
    let held = Held::of(&resources(request), PidsScope::of(bounding), &host.cgroup);
    let by = Kernel::of(&host.cgroup);
    let mut all = vec![
        (None, by.or(held.pids, "pids.max", pids(request, host, bounding))),
        (None, by.or(held.cpu, by.name("cpu.max", "cpu.cfs_quota_us"), cpu(request))),
        (
            None,
            by.or(
                held.memory && request.memory.is_some(),
                by.name("memory.max", "memory.limit_in_bytes"),
                memory(request),
            ),
        ),
    ];
    all[0].0 = request.pids.map(|_| "--pids-limit");
    all[1].0 = request.cpu_millis.map(|_| "--cpus").or_else(|| request.cpu_quota.map(|_| "--cpu-quota"));
    all[2].0 = request.memory.map(|_| "--memory");
    let cpuset =
        request.cpuset.iter().map(|words| (Some("--cpuset-cpus"), by.or(held.cpuset, "cpuset.cpus", affinity(words))));
    let shares = request.cpu_shares.iter().map(|shares| {
        (Some("--cpu-shares"), by.or(held.weight, by.name("cpu.weight", "cpu.shares"), shares_control(*shares)))
    });
    let reservation = request.memory_reservation.iter().map(|n| {
        let file = by.name("memory.low", "memory.soft_limit_in_bytes");
        (Some("--memory-reservation"), reserved(*n, by.or(held.memory, file, reservation(*n)), host))
    });
    let older = held.memory && !by.newer;
    let swappiness = request
        .memory_swappiness
        .iter()
        .map(|n| (Some("--memory-swappiness"), by.or(older, "memory.swappiness", swappiness(*n))));
    let disk = request.disk.iter().map(|n| (Some("--storage-opt"), disk(*n, host, remove)));
    let lasting = request.disk.is_some() && !remove;
    let block_io = request.block_io.iter().map(|(option, value)| {
        let without = block_io::control(option, value);
        let with = by.or(held.io, block_io::file(option, by.newer), without);
        (Some(option.as_str()), if held.io { block_io::truth(option, with, host, lasting) } else { with })
    });
    all.extend(cpuset.chain(shares).chain(reservation).chain(swappiness).chain(disk).chain(block_io));
    for (asked, control) in all {
        if control.enforced != Enforced::Yes
            && let Some(option) = asked
        {
            if request.level == LimitsLevel::Require {
                return Err(Failure::new(Stage::Cli, Kind::Host, "limits", "enforce the limit", option)
                    .why(control.why)
                    .hint(format!("leave out --limits=require to start with what there is, or {option}")));
            }
            let holds = if control.enforced == Enforced::No { "is not enforced" } else { "holds only in part" };
            controls.warnings.push(format!("{option} {} {holds}: {}", control.requested, control.why));
        }
        controls.all.push(control);
    }
    Ok(())
}

/// By what limits would hold that a policy imposes beside those of `request`.
#[must_use]
pub(crate) fn imposable(request: &LimitRequest, host: &HostFacts, bounding: u64) -> Vec<Control> {
    let mut all = LimitRequest { level: LimitsLevel::Prefer, ..request.clone() };
    if all.memory.is_none() {
        // A policy bounds memory and says nothing of swap.
        (all.memory, all.memory_swap) = (Some(LEAST_MEMORY), Some(Swap::Unlimited));
    }
    if all.cpu_quota.is_none() {
        all.cpu_millis = all.cpu_millis.or(Some(1000));
    }
    if !matches!(all.pids, Some(Pids::AtMost(_))) {
        all.pids = Some(Pids::AtMost(DEFAULT_PIDS));
    }
    let mut controls = Controls::default();
    // Nothing is required of it, so nothing can be refused.
    if decide(&mut controls, &all, host, (bounding, true)).is_err() {
        controls.all.clear();
    }
    controls.all.retain(|control| ["cpu-limit", "memory-limit", "pids-limit"].contains(&control.name.as_str()));
    controls.all
}

/// What policies imposed and does not hold as they ask, in words. `before`: the controls that they were shown.
///
/// # Errors
/// When there is such and the user said `--limits=require`.
pub(crate) fn check_imposed(level: LimitsLevel, before: &[Control], after: &[Control]) -> Result<Vec<String>, Failure> {
    let imposed = after.iter().filter(|control| {
        control.enforced != Enforced::Yes && NAMES.contains(&control.name.as_str()) && !before.contains(control)
    });
    let mut told = Vec::new();
    for control in imposed {
        if level == LimitsLevel::Require {
            return Err(Failure::new(
                Stage::Cli,
                Kind::Host,
                "limits",
                "enforce what a policy imposes",
                &*control.name,
            )
            .why(&*control.why)
            .hint("leave out --limits=require to start with what there is"));
        }
        let holds = if control.enforced == Enforced::No { "is not enforced" } else { "holds only in part" };
        told.push(format!("{} {} of a policy {holds}: {}", control.name, control.requested, control.why));
    }
    Ok(told)
}

/// By what each limit would hold on this host, for a container that asks for all of them.
#[must_use]
pub fn overview(host: &HostFacts) -> Vec<Control> {
    let all = LimitRequest {
        memory: Some(1 << 30),
        memory_reservation: Some(1 << 29),
        cpu_millis: Some(500),
        cpu_shares: Some(512),
        cpuset: Some("0".to_owned()),
        disk: Some(1 << 30),
        block_io: ["--blkio-weight", "--device-read-bps", "--device-write-bps"]
            .map(|option| {
                (option.to_owned(), if option == "--blkio-weight" { "500" } else { "/dev/null:1" }.to_owned())
            })
            .into(),
        ..LimitRequest::default()
    };
    let mut controls = Controls::default();
    // Nothing is required of it, so nothing can be refused.
    if decide(&mut controls, &all, host, (0, false)).is_err() {
        controls.all.clear();
    }
    controls.all.sort_by(|a, b| a.name.cmp(&b.name));
    controls.all.into_iter().map(|control| Control { requested: String::new(), ..control }).collect()
}

pub(super) fn limit(name: &str, requested: impl Into<String>, mechanism: &str) -> Control {
    Control { level: Level::Prefer, ..held(name, requested, mechanism) }
}

/// Whose cgroups these are.
#[derive(Clone, Copy)]
struct Kernel {
    newer: bool,
    from: &'static str,
}

impl Kernel {
    fn of(host: &Cgroup) -> Self {
        match host {
            Cgroup::V2 { access: CgroupAccess::UserManager(_), .. } => {
                Kernel { newer: true, from: "cgroup v2, a scope of the systemd user manager" }
            }
            Cgroup::V2 { .. } => Kernel { newer: true, from: "cgroup v2, a directory of the caller's" },
            Cgroup::V1 { .. } | Cgroup::None => Kernel { newer: false, from: "cgroup v1" },
        }
    }

    fn name(self, newer: &'static str, older: &'static str) -> &'static str {
        if self.newer { newer } else { older }
    }

    /// The control of a limit that a cgroup holds, else `without`.
    fn or(self, held: bool, file: &str, without: Control) -> Control {
        if !held {
            return without;
        }
        limit(&without.name, without.requested, &format!("{file} ({})", self.from))
    }
}

fn pids(request: &LimitRequest, host: &HostFacts, bounding: u64) -> Control {
    let requested = match request.pids.unwrap_or(Pids::AtMost(DEFAULT_PIDS)) {
        Pids::Unlimited => "unlimited".to_owned(),
        Pids::AtMost(limit) => limit.to_string(),
    };
    let counted = "RLIMIT_NPROC of a nested user namespace";
    if host.kernel < (5, 14) {
        let why = "before Linux 5.14 the kernel counts all processes of a user together";
        return weak(limit("pids-limit", requested, "none"), Enforced::No, why);
    }
    match PidsScope::of(bounding) {
        PidsScope::Container => limit("pids-limit", requested, counted),
        PidsScope::EachId => {
            let why = "each user id of the container is counted for itself, because an added capability needs a \
                       container that owns its network and mounts";
            weak(limit("pids-limit", requested, "RLIMIT_NPROC"), Enforced::Partly, why)
        }
    }
}

fn cpu(request: &LimitRequest) -> Control {
    let requested = match (request.cpu_millis, request.cpu_quota) {
        (Some(millis), _) => millis_text(millis),
        (None, Some(quota)) => format!("{quota}/{} us", request.cpu_period.unwrap_or(DEFAULT_PERIOD_US)),
        (None, None) => return limit("cpu-limit", "unlimited", "none"),
    };
    limit("cpu-limit", requested, "affinity; SIGSTOP and SIGCONT of all processes by measured time")
}

fn memory(request: &LimitRequest) -> Control {
    let Some(bytes) = request.memory else { return limit("memory-limit", "unlimited", "none") };
    let wall = match request.memory_swap {
        Some(Swap::Unlimited) => "",
        Some(Swap::AtMost(_)) | None => "RLIMIT_DATA of each process; ",
    };
    let end = if request.oom_kill_disable { "stopped" } else { "stopped, the largest killed" };
    let mechanism = format!("{wall}the sum measured and the container {end}");
    let why = "a payload that fills memory as fast as it can gets beyond the limit for milliseconds; the page cache and \
               what the kernel holds for the container are not counted, and nothing is swapped out to make room";
    weak(limit("memory-limit", bytes.to_string(), &mechanism), Enforced::Partly, why)
}

fn affinity(words: &str) -> Control {
    let why = "the payload may choose other CPUs of the caller for itself";
    weak(limit("cpuset", words, "sched_setaffinity"), Enforced::Partly, why)
}

fn shares_control(shares: u64) -> Control {
    let (mechanism, enforced, why) = match weight(shares) {
        Some(Weight::Nice(nice)) => (
            format!("nice {nice}"),
            Enforced::Partly,
            "each process is weighed for itself, not the container as a whole",
        ),
        Some(Weight::Idle) => ("SCHED_IDLE".to_owned(), Enforced::Yes, ""),
        None if shares == 1024 => ("nice 0".to_owned(), Enforced::Yes, ""),
        None => ("none".to_owned(), Enforced::No, "more than the usual weight needs privilege outside the container"),
    };
    let control = limit("cpu-shares", shares.to_string(), &mechanism);
    if enforced == Enforced::Yes { control } else { weak(control, enforced, why) }
}

fn reservation(bytes: u64) -> Control {
    let why = "only a cgroup can keep memory back for a container";
    weak(limit("memory-reservation", bytes.to_string(), "none"), Enforced::No, why)
}

/// Version 2 keeps no more back for a cgroup than for all that it is in (cgroup-v2, "memory.low").
fn reserved(bytes: u64, control: Control, host: &HostFacts) -> Control {
    let above = match &host.cgroup {
        // The scopes of a user manager are in slices of its, for which it keeps nothing back.
        Cgroup::V2 { access: CgroupAccess::UserManager(_), .. } => Some(0),
        Cgroup::V2 { access: CgroupAccess::Directory(parent), .. } => kept_back(parent),
        Cgroup::V2 { .. } | Cgroup::V1 { .. } | Cgroup::None => None,
    };
    match above {
        Some(kept) if control.enforced == Enforced::Yes && kept < bytes => {
            let enforced = if kept == 0 { Enforced::No } else { Enforced::Partly };
            weak(control, enforced, format!("of the cgroups that it is in, one has {kept} bytes kept back for it"))
        }
        Some(_) | None => control,
    }
}

/// The least `memory.low` from here up; None where there is none, as in the outermost.
fn kept_back(directory: &Path) -> Option<u64> {
    let read = |directory: &Path| std::fs::read_to_string(directory.join("memory.low")).ok();
    let number = |text: String| if text.trim() == "max" { Some(u64::MAX) } else { text.trim().parse().ok() };
    directory.ancestors().map_while(read).filter_map(number).min()
}

/// With `--rm` nothing of it needs to last.
fn disk(size: u64, host: &HostFacts, remove: bool) -> Control {
    let control = |mechanism| limit("disk-limit", size.to_string(), mechanism);
    if remove {
        return control("upper layer in a file system in memory of that size");
    }
    match crate::storage::disk_programs(host) {
        Ok(_) => control("upper layer in a file of that size, mounted by fuse2fs"),
        Err(why) => weak(control("none"), Enforced::No, format!("{why}; with --rm it holds, in memory")),
    }
}

fn swappiness(percent: u64) -> Control {
    let why = "only a cgroup of version 1 that limits memory can set it for a container";
    weak(limit("memory-swappiness", percent.to_string(), "none"), Enforced::No, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> LimitRequest {
        LimitRequest::default()
    }

    fn why(request: &LimitRequest) -> String {
        check(request, false).unwrap_err().to_string()
    }

    #[test]
    fn contradictions_are_refused() {
        assert!(
            why(&LimitRequest { cpu_millis: Some(500), cpu_quota: Some(5000), ..request() }).contains("--cpu-quota")
        );
        assert!(why(&LimitRequest { memory_swap: Some(Swap::Unlimited), ..request() }).contains("without a limit"));
        assert!(why(&LimitRequest { cpu_period: Some(50_000), ..request() }).contains("without a quota"));
        let one = LimitRequest { cpu_millis: Some(1001), cpuset: Some("0".to_owned()), ..request() };
        if own_cpus().len() > 1 {
            assert!(why(&one).contains("leaves 1"));
        }
        let less = Some(Swap::AtMost(2 << 20));
        assert!(why(&LimitRequest { memory: Some(4 << 20), memory_swap: less, ..request() }).contains("together"));
        let more = Some(8 << 20);
        assert!(why(&LimitRequest { memory: Some(4 << 20), memory_reservation: more, ..request() }).contains("more"));
        assert!(check(&LimitRequest { pids: Some(Pids::AtMost(1)), ..request() }, true).is_err());
    }

    #[test]
    fn limits_that_this_machine_cannot_have_are_refused() {
        assert!(why(&LimitRequest { cpu_millis: Some(100_000_000), ..request() }).contains("CPUs"));
        assert!(why(&LimitRequest { cpu_quota: Some(1 << 40), ..request() }).contains("CPUs"));
        assert!(why(&LimitRequest { cpu_millis: Some(1), ..request() }).contains("0.01"));
        assert!(why(&LimitRequest { cpuset: Some("8000".to_owned()), ..request() }).contains("CPU 8000"));
        assert!(why(&LimitRequest { memory: Some(1 << 60), ..request() }).contains("the machine has"));
        assert!(why(&LimitRequest { memory: Some(1000), ..request() }).contains("1m"));
    }

    #[test]
    fn swap_is_as_much_as_memory_unless_said() {
        let swap = |swap| resources(&LimitRequest { memory: Some(100), memory_swap: swap, ..request() });
        let of = |r: LinuxResources| r.memory().unwrap().swap();
        assert_eq!(of(swap(None)), Some(200));
        assert_eq!(of(swap(Some(Swap::Unlimited))), Some(-1));
        assert_eq!(of(swap(Some(Swap::AtMost(150)))), Some(150));
    }

    #[test]
    fn less_than_asked_is_an_error_where_it_is_required() {
        let mut host = crate::host::test_facts();
        host.cgroup.keep(|_| false);
        let required = LimitRequest { level: LimitsLevel::Require, pids: Some(Pids::AtMost(5)), ..request() };
        decide(&mut Controls::default(), &required, &host, (0, true)).unwrap();
        let failure = decide(&mut Controls::default(), &required, &host, (1 << 21, true)).unwrap_err();
        assert_eq!((failure.kind, failure.object.as_str()), (Kind::Host, "--pids-limit"));
        let mut controls = Controls::default();
        decide(&mut controls, &LimitRequest { level: LimitsLevel::Prefer, ..required }, &host, (1 << 21, true))
            .unwrap();
        assert!(controls.warnings[0].starts_with("--pids-limit 5 holds only in part"), "{:?}", controls.warnings);
    }
}
