//! What a container uses, as its mapper counts it.

use serde::{Deserialize, Serialize};

/// One count. What is only ever added to is counted from the container's start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Nanoseconds of processor time, that of reaped children included.
    pub cpu_ns: u64,
    /// Periods in which it was stopped because of its processor time.
    pub throttled_periods: u64,
    /// Nanoseconds that it stood still for that.
    pub throttled_ns: u64,
    /// Bytes of memory, shared pages once: anonymous, shared and in the container's own file systems in memory.
    pub memory: u64,
    /// The most that it ever was; 0: only a cgroup could know.
    pub memory_peak: u64,
    /// Bytes beside it that are swapped out.
    pub swap: u64,
    /// Bytes of memory that it may use; None: all of the machine's.
    pub memory_limit: Option<u64>,
    /// How often a process was killed because of the memory limit.
    pub oom_kills: u64,
    /// Processes and threads.
    pub tasks: u64,
    /// Bytes that it had read from block devices.
    pub block_read: u64,
    /// Bytes that it had written to block devices.
    pub block_written: u64,
    /// Bytes that came in by its own network interfaces; None in the host's network.
    pub network: Option<Traffic>,
}

impl Usage {
    /// What of it has been used up so far.
    #[must_use]
    pub fn spent(&self) -> Spent {
        let Usage { cpu_ns, throttled_periods, throttled_ns, oom_kills, memory_peak, .. } = *self;
        Spent { cpu_ns, throttled_periods, throttled_ns, oom_kills, memory_peak }
    }
}

/// What a container has used, known when it has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spent {
    /// Nanoseconds of processor time of everything that ran in it.
    pub cpu_ns: u64,
    /// Periods in which it was stopped because of its processor time.
    pub throttled_periods: u64,
    /// Nanoseconds that it stood still for that.
    pub throttled_ns: u64,
    /// How often a process was killed because of the memory limit.
    pub oom_kills: u64,
    /// The most bytes of memory that it ever used; 0: only a cgroup could know.
    pub memory_peak: u64,
}

impl Spent {
    /// Its numbers under their names in `events` and `inspect`, as far as they are known.
    pub fn named(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
        let peak = (self.memory_peak > 0).then_some(("MemoryPeak", self.memory_peak));
        let always = [
            ("CPUNano", self.cpu_ns),
            ("ThrottledPeriods", self.throttled_periods),
            ("ThrottledNano", self.throttled_ns),
            ("OOMKills", self.oom_kills),
        ];
        always.into_iter().chain(peak)
    }

    fn numbers(&mut self) -> [&mut u64; 5] {
        let Spent { cpu_ns, throttled_periods, throttled_ns, oom_kills, memory_peak } = self;
        [cpu_ns, throttled_periods, throttled_ns, oom_kills, memory_peak]
    }

    /// The reverse of how it is displayed; what is missing or no number is 0.
    #[must_use]
    pub fn parse(text: &str) -> Spent {
        let mut spent = Spent::default();
        for (number, word) in spent.numbers().into_iter().zip(text.split(' ')) {
            *number = word.parse().unwrap_or_default();
        }
        spent
    }
}

/// The numbers with a space between.
impl std::fmt::Display for Spent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Spent { cpu_ns, throttled_periods, throttled_ns, oom_kills, memory_peak } = self;
        write!(f, "{cpu_ns} {throttled_periods} {throttled_ns} {oom_kills} {memory_peak}")
    }
}

/// What went through the interfaces of a network namespace, loopback left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Bytes in.
    pub received: u64,
    /// Bytes out.
    pub sent: u64,
}
