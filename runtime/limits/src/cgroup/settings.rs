//! From the resources of a configuration to files and values, for each version. Pure.

use super::block_io;
use oci_spec::runtime::{LinuxCpu, LinuxMemory, LinuxResources};
use rlrun_spec::cgroup::Held;
use rlrun_spec::host::Cgroup;
use rlrun_spec::limits::DEFAULT_PERIOD_US;

/// One value of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Whose file it is.
    pub controller: &'static str,
    /// The file's name.
    pub file: &'static str,
    /// What is written.
    pub value: String,
    /// A kernel without the file (swap accounting) has nothing to limit.
    pub optional: bool,
}

pub(super) fn set(controller: &'static str, file: &'static str, value: impl ToString) -> Setting {
    Setting { controller, file, value: value.to_string(), optional: false }
}

fn positive(n: Option<i64>) -> Option<i64> {
    n.filter(|n| *n > 0)
}

/// What to write, in this order, for what cgroups are to hold.
#[must_use]
pub fn settings(resources: &LinuxResources, held: Held, host: &Cgroup) -> Vec<Setting> {
    let newer = matches!(host, Cgroup::V2 { .. });
    let mut all = Vec::new();
    if let Some(cpu) = resources.cpu() {
        all.extend(processor(cpu, held, newer));
    }
    if let Some(memory) = resources.memory().as_ref().filter(|_| held.memory) {
        all.extend(if newer { memory_2(memory) } else { memory_1(memory) });
    }
    if let Some(pids) = resources.pids().as_ref().filter(|_| held.pids) {
        all.push(set("pids", "pids.max", pids.limit()));
    }
    if let Some(asked) = resources.block_io().as_ref().filter(|_| held.io) {
        all.extend(block_io::settings(asked, newer));
    }
    all
}

/// What to write before other limits on memory: version 1 never lets memory be more than memory and swap together, so
/// the second goes out of the way.
#[must_use]
pub fn loosened(held: Held, host: &Cgroup) -> Option<Setting> {
    let older = matches!(host, Cgroup::V1 { .. }) && held.memory;
    older.then(|| Setting { optional: true, ..set("memory", "memory.memsw.limit_in_bytes", -1) })
}

/// What to write where `before` was held and is to be no more.
#[must_use]
pub fn lifted(before: Held, after: Held, host: &Cgroup) -> Vec<Setting> {
    let newer = matches!(host, Cgroup::V2 { .. });
    let choose = |controller, two: (&'static str, &str), one: (&'static str, &str)| {
        let (file, value) = if newer { two } else { one };
        Setting { optional: true, ..set(controller, file, value) }
    };
    let mut all = Vec::new();
    if before.cpu && !after.cpu {
        all.push(choose("cpu", ("cpu.max", "max 100000"), ("cpu.cfs_quota_us", "-1")));
    }
    if before.weight && !after.weight {
        all.push(choose("cpu", ("cpu.weight", "100"), ("cpu.shares", "1024")));
    }
    if before.memory && !after.memory {
        // Together before alone: version 1 never lets memory be more than both.
        all.push(choose("memory", ("memory.swap.max", "max"), ("memory.memsw.limit_in_bytes", "-1")));
        all.push(choose("memory", ("memory.max", "max"), ("memory.limit_in_bytes", "-1")));
        all.push(choose("memory", ("memory.low", "0"), ("memory.soft_limit_in_bytes", "-1")));
    }
    if before.pids && !after.pids {
        all.push(set("pids", "pids.max", "max"));
    }
    all
}

fn processor(cpu: &LinuxCpu, held: Held, newer: bool) -> Vec<Setting> {
    let mut all = Vec::new();
    let period = cpu.period().filter(|p| *p > 0).unwrap_or(DEFAULT_PERIOD_US);
    match positive(cpu.quota()).filter(|_| held.cpu) {
        Some(quota) if newer => all.push(set("cpu", "cpu.max", format!("{quota} {period}"))),
        Some(quota) => {
            all.extend([set("cpu", "cpu.cfs_period_us", period), set("cpu", "cpu.cfs_quota_us", quota)]);
        }
        None => {}
    }
    match cpu.shares().filter(|_| held.weight) {
        // 1024 shares are the usual weight, which version 2 calls 100.
        Some(shares) if newer => all.push(set("cpu", "cpu.weight", (shares * 100 / 1024).clamp(1, 10_000))),
        Some(shares) => all.push(set("cpu", "cpu.shares", shares)),
        None => {}
    }
    if let Some(cpus) = cpu.cpus().as_ref().filter(|_| held.cpuset) {
        all.push(set("cpuset", "cpuset.cpus", cpus));
    }
    all
}

/// Swap for itself, not together with memory.
fn memory_2(memory: &LinuxMemory) -> Vec<Setting> {
    let mut all = Vec::new();
    if let Some(reserved) = positive(memory.reservation()) {
        all.push(set("memory", "memory.low", reserved));
    }
    if let Some(limit) = positive(memory.limit()) {
        all.push(set("memory", "memory.max", limit));
        if let Some(both) = positive(memory.swap()) {
            let swap = both.saturating_sub(limit).max(0);
            all.push(Setting { optional: true, ..set("memory", "memory.swap.max", swap) });
        }
    }
    all
}

/// Swap together with memory, and no less than it, so it is written after it.
fn memory_1(memory: &LinuxMemory) -> Vec<Setting> {
    let mut all = Vec::new();
    if let Some(limit) = positive(memory.limit()) {
        all.push(set("memory", "memory.limit_in_bytes", limit));
        if let Some(both) = positive(memory.swap()) {
            all.push(Setting { optional: true, ..set("memory", "memory.memsw.limit_in_bytes", both.max(limit)) });
        }
    }
    if let Some(reserved) = positive(memory.reservation()) {
        all.push(set("memory", "memory.soft_limit_in_bytes", reserved));
    }
    if memory.disable_oom_killer() == Some(true) {
        all.push(set("memory", "memory.oom_control", 1));
    }
    if let Some(percent) = memory.swappiness() {
        all.push(set("memory", "memory.swappiness", percent));
    }
    all
}

/// Whether the kernel kept what was written: sizes are rounded to pages, lists written shorter.
pub(super) fn is_kept(setting: &Setting, read: &str) -> bool {
    /// The largest page of any architecture.
    const PAGE: u64 = 65536;
    let read = read.trim();
    // No limit reads as the largest number there is.
    if setting.value == "-1" {
        return read.parse::<i64>().is_ok_and(|n| !(0..=i64::MAX / 2).contains(&n));
    }
    if setting.value == "max" {
        return read == "max";
    }
    match setting.file {
        "cpuset.cpus" => rlrun_spec::limits::cpu_list(read) == rlrun_spec::limits::cpu_list(&setting.value),
        "memory.swappiness" => read == setting.value,
        file if file.starts_with("io.") || file.starts_with("blkio.") => block_io::is_kept(&setting.value, read),
        "memory.oom_control" => read.lines().any(|line| line == "oom_kill_disable 1"),
        file if file.starts_with("memory.") => match (read.parse::<u64>(), setting.value.parse::<u64>()) {
            (Ok(read), Ok(written)) => read.abs_diff(written) < PAGE,
            _ => false,
        },
        _ => read == setting.value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::LinuxPids;
    use rlrun_spec::host::CgroupAccess;

    const ALL: Held = Held { cpu: true, weight: true, cpuset: true, memory: true, pids: true, io: true };

    fn resources() -> LinuxResources {
        let (mut cpu, mut memory, mut pids) = (LinuxCpu::default(), LinuxMemory::default(), LinuxPids::default());
        cpu.set_quota(Some(50_000)).set_shares(Some(512)).set_cpus(Some("0-1".to_owned()));
        memory.set_limit(Some(1 << 20)).set_swap(Some(3 << 20)).set_reservation(Some(1 << 19));
        pids.set_limit(10);
        let mut resources = LinuxResources::default();
        resources.set_cpu(Some(cpu)).set_memory(Some(memory)).set_pids(Some(pids));
        resources
    }

    fn written(host: &Cgroup, held: Held) -> Vec<String> {
        settings(&resources(), held, host).iter().map(|s| format!("{}={}", s.file, s.value)).collect()
    }

    #[test]
    fn version_2() {
        let host = Cgroup::V2 { delegated: Vec::new(), access: CgroupAccess::None };
        let expected = [
            "cpu.max=50000 100000",
            "cpu.weight=50",
            "cpuset.cpus=0-1",
            "memory.low=524288",
            "memory.max=1048576",
            "memory.swap.max=2097152",
            "pids.max=10",
        ];
        assert_eq!(written(&host, ALL), expected);
        assert_eq!(written(&host, Held { pids: true, ..Held::default() }), ["pids.max=10"]);
    }

    #[test]
    fn version_1() {
        let expected = [
            "cpu.cfs_period_us=100000",
            "cpu.cfs_quota_us=50000",
            "cpu.shares=512",
            "cpuset.cpus=0-1",
            "memory.limit_in_bytes=1048576",
            "memory.memsw.limit_in_bytes=3145728",
            "memory.soft_limit_in_bytes=524288",
            "pids.max=10",
        ];
        assert_eq!(written(&Cgroup::V1 { writable: Vec::new() }, ALL), expected);
    }

    #[test]
    fn what_is_not_limited_any_more_is_set_free() {
        let none = Held::default();
        let lifted = |host: &Cgroup| -> Vec<String> {
            lifted(ALL, none, host).iter().map(|s| format!("{}={}", s.file, s.value)).collect()
        };
        let free = ["cpu.cfs_quota_us=-1", "cpu.shares=1024", "memory.memsw.limit_in_bytes=-1"];
        let v1 = Cgroup::V1 { writable: Vec::new() };
        assert_eq!(lifted(&v1)[..3], free);
        let host = Cgroup::V2 { delegated: Vec::new(), access: CgroupAccess::None };
        assert!(lifted(&host).contains(&"memory.max=max".to_owned()));
        let free = set("memory", "memory.limit_in_bytes", -1);
        assert!(is_kept(&free, "9223372036854771712\n") && !is_kept(&free, "4096\n"));
    }

    #[test]
    fn a_kernel_that_keeps_something_else_is_found_out() {
        let memory = set("memory", "memory.max", 1_000_000);
        assert!(is_kept(&memory, "999424\n"));
        assert!(!is_kept(&memory, "max\n"));
        assert!(!is_kept(&memory, "9223372036854771712\n"));
        let cpu = set("cpu", "cpu.max", "50000 100000");
        assert!(is_kept(&cpu, "50000 100000\n"));
        assert!(!is_kept(&cpu, "max 100000\n"));
        assert!(is_kept(&set("cpuset", "cpuset.cpus", "0,1"), "0-1\n"));
        assert!(!is_kept(&set("cpuset", "cpuset.cpus", "0"), "\n"));
    }
}
