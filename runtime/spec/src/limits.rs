//! Resource limits as the stages apply them where no cgroup can be had, read from the admitted configuration.

use oci_spec::runtime::LinuxResources;
use serde::{Deserialize, Serialize};

/// `cpu.cfs_period_us` where only a quota is given, as in podman and docker.
pub const DEFAULT_PERIOD_US: u64 = 100_000;

/// What a container may use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Processes and threads.
    pub pids: Option<Pids>,
    /// Processor time.
    pub cpu: Option<Cpu>,
    /// CPUs it may run on; empty: those of the caller.
    pub cpus: Vec<u32>,
    /// Share of the processor beside others; None: as the caller.
    pub weight: Option<Weight>,
    /// Memory.
    pub memory: Option<Memory>,
}

/// At most so many processes and threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pids {
    /// How many.
    pub max: u32,
    /// Who counts together.
    pub scope: PidsScope,
}

/// Who counts together against a limit on processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PidsScope {
    /// The whole container: it lives in a second user namespace, whose processes all count against the one id that
    /// made it (`RLIMIT_NPROC` in getrlimit(2), counted by user namespace since Linux 5.14).
    Container,
    /// Every user id of the container for itself, for a container that must own its other namespaces.
    EachId,
}

/// Processor time within a period.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cpu {
    /// Microseconds of processor time.
    pub quota_us: u64,
    /// Microseconds on the clock.
    pub period_us: u64,
}

impl Cpu {
    /// In thousandths of a CPU, rounded up.
    #[must_use]
    pub fn millis(self) -> u64 {
        (self.quota_us * 1000).div_ceil(self.period_us.max(1))
    }
}

/// The weight of one process against others on the same CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Weight {
    /// nice(2), 1 to 19.
    Nice(u8),
    /// `SCHED_IDLE` of sched(7).
    Idle,
}

/// Memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// Bytes in memory.
    pub limit: u64,
    /// Bytes in memory and swap together; None: as much swap as there is.
    pub with_swap: Option<u64>,
    /// Nothing is killed: what is over the limit waits (`--oom-kill-disable`).
    pub wait: bool,
}

impl Memory {
    /// What a process may have set up to write to, touched or not (`RLIMIT_DATA`); None without a limit on swap. Twice
    /// the limit and room for the stacks of threads, which are set up long before they are used.
    #[must_use]
    pub fn wall(self) -> Option<u64> {
        const STACKS: u64 = 512 << 20;
        self.with_swap.map(|both| both.max(self.limit)).map(|all| all.saturating_add(all.max(STACKS)))
    }
}

/// Capabilities that are asked of the owner of a network, mount, IPC, UTS or pid namespace (capabilities(7)): net_admin,
/// net_raw, net_broadcast, ipc_owner, sys_admin, sys_boot, checkpoint_restore. Not net_bind_service: every port is free
/// to all in a container's own network.
const OF_OWNERS: u64 = 1 << 12 | 1 << 13 | 1 << 11 | 1 << 15 | 1 << 21 | 1 << 22 | 1 << 40;

impl PidsScope {
    /// What fits a bounding set: in the second user namespace nobody owns the container's other namespaces, so a
    /// payload that is to have power over them stays in the first.
    #[must_use]
    pub fn of(bounding: u64) -> Self {
        if bounding & OF_OWNERS == 0 { PidsScope::Container } else { PidsScope::EachId }
    }
}

/// nice(2) for cgroup shares, of which 1024 are the usual: each step down is worth a fifth (sched(7), "The nice value").
/// None for 1024 and more, which would need privilege.
#[must_use]
pub fn weight(shares: u64) -> Option<Weight> {
    /// The kernel's weights of nice 0 to 19 (`sched_prio_to_weight`).
    const WEIGHTS: [u64; 20] =
        [1024, 820, 655, 526, 423, 335, 272, 215, 172, 137, 110, 87, 70, 56, 45, 36, 29, 23, 18, 15];
    // SCHED_IDLE weighs 3.
    if shares < 9 {
        return Some(Weight::Idle);
    }
    let nearest = (0_u8..).zip(WEIGHTS).min_by_key(|(_, weight)| weight.abs_diff(shares))?;
    (nearest.0 > 0).then_some(Weight::Nice(nearest.0))
}

/// The limits that the resources of a configuration ask for, with the capabilities that the payload may have.
///
/// # Errors
/// With the field that is not understood, and why.
pub fn from_resources(resources: &LinuxResources, bounding: u64) -> Result<Limits, (&'static str, String)> {
    let positive = |n: Option<i64>| n.and_then(|n| u64::try_from(n).ok()).filter(|n| *n > 0);
    let mut limits = Limits::default();
    if let Some(max) = resources.pids().as_ref().and_then(|p| positive(Some(p.limit()))) {
        let max = u32::try_from(max).unwrap_or(u32::MAX);
        limits.pids = Some(Pids { max, scope: PidsScope::of(bounding) });
    }
    if let Some(cpu) = resources.cpu() {
        if let Some(quota_us) = positive(cpu.quota()) {
            limits.cpu =
                Some(Cpu { quota_us, period_us: cpu.period().filter(|p| *p > 0).unwrap_or(DEFAULT_PERIOD_US) });
        }
        let set = cpu.cpus().as_deref().unwrap_or_default();
        limits.cpus =
            cpu_list(set).ok_or_else(|| ("/linux/resources/cpu/cpus", format!("{set:?} is no list of CPUs")))?;
        limits.weight = cpu.shares().filter(|s| *s > 0).and_then(weight);
    }
    if let Some(memory) = resources.memory()
        && let Some(limit) = positive(memory.limit())
    {
        let wait = memory.disable_oom_killer().unwrap_or(false);
        limits.memory = Some(Memory { limit, with_swap: positive(memory.swap()).map(|s| s.max(limit)), wait });
    }
    Ok(limits)
}

/// `0-2,5` as kernel and podman write it. None when it is anything else.
#[must_use]
pub fn cpu_list(words: &str) -> Option<Vec<u32>> {
    /// More than any kernel is built for (CONFIG_NR_CPUS).
    const MOST: u32 = 8192;
    let mut cpus = Vec::new();
    for word in words.split(',').filter(|_| !words.is_empty()) {
        let (first, last) = word.split_once('-').unwrap_or((word, word));
        let number = |w: &str| w.parse::<u32>().ok().filter(|n| *n < MOST && w.bytes().all(|b| b.is_ascii_digit()));
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return None;
        }
        cpus.extend(first..=last);
    }
    cpus.sort_unstable();
    cpus.dedup();
    Some(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lists_of_cpus() {
        assert_eq!(cpu_list("0-2,5,1").unwrap(), [0, 1, 2, 5]);
        assert!(cpu_list("").unwrap().is_empty());
        for bad in [",", "1-", "-1", "2-1", "a", "0,,1", "99999", "+1"] {
            assert_eq!(cpu_list(bad), None, "{bad}");
        }
    }

    #[test]
    fn shares_become_the_nearest_weight() {
        assert_eq!(weight(1024), None);
        assert_eq!(weight(4096), None);
        assert_eq!(weight(512), Some(Weight::Nice(3)));
        assert_eq!(weight(15), Some(Weight::Nice(19)));
        assert_eq!(weight(2), Some(Weight::Idle));
    }

    #[test]
    fn the_wall_of_a_process_leaves_room_for_stacks() {
        let memory = |with_swap| Memory { limit: 64 << 20, with_swap, wait: false };
        assert_eq!(memory(Some(128 << 20)).wall(), Some(640 << 20));
        assert_eq!(memory(Some(2 << 30)).wall(), Some(4 << 30));
        assert_eq!(memory(Some(u64::MAX)).wall(), Some(u64::MAX));
        assert_eq!(memory(None).wall(), None);
    }

    #[test]
    fn a_payload_with_power_over_its_namespaces_counts_by_id() {
        assert_eq!(PidsScope::of(0x8004_05fb), PidsScope::Container);
        assert_eq!(PidsScope::of(0x8004_05fb | 1 << 13), PidsScope::EachId);
    }

    proptest! {
        #[test]
        fn no_word_breaks_the_list(words in ".{0,40}") {
            if let Some(cpus) = cpu_list(&words) {
                prop_assert!(cpus.is_sorted());
            }
        }
    }
}
