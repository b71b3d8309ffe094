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

/// What went through the interfaces of a network namespace, loopback left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Bytes in.
    pub received: u64,
    /// Bytes out.
    pub sent: u64,
}
