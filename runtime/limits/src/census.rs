//! Every process of the container and the processor time of all of them together, reaped children included.
//!
//! Cheap because little is read: the clock of each process is one system call, the list of processes is read again
//! only when the kernel has given out a new pid, and the line in /proc only of a process whose clock has moved: one
//! that did not run cannot have stopped, waited for a child or grown.

use crate::stat::Stat;
use nix::time::{ClockId, clock_gettime};
use rustix::fs::{Dir, Mode, OFlags, openat};
use rustix::io::Result;
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

/// Nanoseconds of a clock tick (USER_HZ is 100 in every ABI that rlrun is built for).
const TICK: u64 = 10_000_000;
/// What rounding to ticks may hide of the time of reaped children, user and kernel mode each.
const ROUNDING: u64 = 3 * TICK;

/// One process.
#[derive(Clone, Debug, Default)]
pub(crate) struct Entry {
    pub(crate) stat: Stat,
    /// Nanoseconds that it and its threads have run.
    pub(crate) clock: u64,
    /// Nanoseconds of ended children that its parent should have been charged with and, so far, was not.
    owed: u64,
    /// Nanoseconds of ended children that its parent was charged with in this census.
    charged: u64,
}

impl Entry {
    /// Takes a new line over, with what was waited for since the one before.
    fn charge(&mut self, stat: Stat) {
        // The first line tells of what was waited for before anybody looked.
        if self.stat.state != 0 {
            self.charged += stat.waited.saturating_sub(self.stat.waited).saturating_mul(TICK);
        }
        self.stat = stat;
    }
}

/// The container's processes, by pid in the namespace of whoever reads.
pub struct Census {
    proc: OwnedFd,
    pub(crate) entries: BTreeMap<i32, Entry>,
    newest: Vec<u8>,
    /// Time of processes that ended without anybody waiting for them.
    lost: u64,
    used: u64,
    own: i32,
    buffer: Vec<u8>,
}

impl Census {
    /// Of the pid namespace whose /proc is `proc`, without this process.
    #[must_use]
    pub fn new(proc: OwnedFd) -> Self {
        let own = rustix::process::getpid().as_raw_nonzero().get();
        let entries = BTreeMap::new();
        Census { proc, entries, newest: Vec::new(), lost: 0, used: 0, own, buffer: Vec::new() }
    }

    /// Nanoseconds of processor time that the container has used, as of the last [`Census::take`].
    #[must_use]
    pub fn used(&self) -> u64 {
        self.used
    }

    /// How many processes there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.entries.len()
    }

    /// Looks at every process.
    ///
    /// # Errors
    /// When /proc cannot be read.
    pub fn take(&mut self) -> Result<()> {
        let mut gone = self.read_clocks()?;
        if self.has_new()? {
            self.list()?;
            gone.extend(self.read_clocks()?);
        }
        self.bury(gone);
        let (clocks, waited) = self.entries.values().fold((0_u64, 0_u64), |(clocks, waited), entry| {
            (clocks.saturating_add(entry.clock), waited.saturating_add(entry.stat.waited))
        });
        self.used = clocks.saturating_add(waited.saturating_mul(TICK)).saturating_add(self.lost);
        Ok(())
    }

    /// Whether a pid was given out since the last time, by the last field of /proc/loadavg.
    fn has_new(&mut self) -> Result<bool> {
        let mut line = std::mem::take(&mut self.buffer);
        self.read("loadavg", &mut line)?;
        let newest = line.split(|b| *b == b' ').next_back().unwrap_or_default();
        let new = newest != self.newest;
        if new {
            self.newest = newest.to_vec();
        }
        self.buffer = line;
        Ok(new)
    }

    fn list(&mut self) -> Result<()> {
        let directory = openat(&self.proc, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        for entry in Dir::new(directory)? {
            let entry = entry?;
            let pid = entry.file_name().to_str().ok().and_then(|name| name.parse::<i32>().ok());
            let Some(pid) = pid.filter(|pid| *pid != self.own) else { continue };
            self.entries.entry(pid).or_default();
        }
        Ok(())
    }

    /// Reads what moved; returns what has ended.
    fn read_clocks(&mut self) -> Result<Vec<i32>> {
        let mut gone = Vec::new();
        let mut entries = std::mem::take(&mut self.entries);
        let mut line = std::mem::take(&mut self.buffer);
        for (pid, entry) in &mut entries {
            let Some(clock) = process_clock(*pid) else {
                gone.push(*pid);
                continue;
            };
            if clock == entry.clock && entry.stat.state != 0 {
                continue;
            }
            let stat = self.read(&format!("{pid}/stat"), &mut line).ok().and_then(|()| Stat::parse(&line));
            let Some(stat) = stat else {
                gone.push(*pid);
                continue;
            };
            entry.charge(stat);
            entry.clock = clock;
        }
        (self.entries, self.buffer) = (entries, line);
        Ok(gone)
    }

    /// Charges the nearest ancestor that is left with the time of those that ended: it, or nobody, has waited for
    /// them. Nobody waits for the children of a process that ignores SIGCHLD (wait(2), "NOTES"); their time is lost
    /// to the kernel's accounts and kept here.
    fn bury(&mut self, gone: Vec<i32>) {
        let mut ended = BTreeMap::new();
        for pid in gone {
            if let Some(entry) = self.entries.remove(&pid) {
                ended.insert(pid, entry);
            }
        }
        let init = self.entries.keys().next().copied();
        for entry in ended.values() {
            let time = entry.clock + entry.stat.waited * TICK + entry.owed;
            let mut parent = entry.stat.parent;
            // Each step leads to another ended process, so the chain is as long as there are such.
            for _ in 0..=ended.len() {
                match ended.get(&parent) {
                    Some(ancestor) => parent = ancestor.stat.parent,
                    None => break,
                }
            }
            if parent == 0 || parent == self.own {
                // Its parent is outside (exec) and is not counted here.
                self.lost += time;
                continue;
            }
            let heir = if self.entries.contains_key(&parent) { Some(parent) } else { init };
            if let Some(heir) = heir.and_then(|pid| self.entries.get_mut(&pid)) {
                heir.owed += time;
            }
        }
        self.settle();
    }

    /// What an heir was charged with since it was read counts against what it owes; the rest was waited for by nobody.
    fn settle(&mut self) {
        let mut line = std::mem::take(&mut self.buffer);
        let mut entries = std::mem::take(&mut self.entries);
        for entry in entries.values_mut() {
            entry.owed = entry.owed.saturating_sub(std::mem::take(&mut entry.charged));
        }
        for (pid, entry) in entries.iter_mut().filter(|(_, entry)| entry.owed > ROUNDING) {
            if let Some(stat) = self.read(&format!("{pid}/stat"), &mut line).ok().and_then(|()| Stat::parse(&line)) {
                entry.charge(stat);
                entry.owed = entry.owed.saturating_sub(std::mem::take(&mut entry.charged));
            }
            if entry.owed > ROUNDING {
                self.lost += entry.owed;
                entry.owed = 0;
            }
        }
        (self.entries, self.buffer) = (entries, line);
    }

    /// A small file of /proc, whole.
    pub(crate) fn read(&self, name: &str, into: &mut Vec<u8>) -> Result<()> {
        let file = openat(&self.proc, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        into.resize(2048, 0);
        let length = rustix::io::read(&file, &mut **into)?;
        into.truncate(length);
        Ok(())
    }
}

/// Nanoseconds that a process and its threads, ended ones included, have run; None when it has ended and was waited
/// for. The number is clock_getcpuclockid(3)'s, whose check of it would be a second system call.
pub(crate) fn process_clock(pid: i32) -> Option<u64> {
    /// CPUCLOCK_SCHED of linux/posix-timers.h: the scheduler's nanoseconds, not ticks.
    const SCHEDULED: i32 = 2;
    let time = clock_gettime(ClockId::from_raw(!pid << 3 | SCHEDULED)).ok()?;
    let seconds = u64::try_from(time.tv_sec()).ok()?;
    seconds.checked_mul(1_000_000_000)?.checked_add(u64::try_from(time.tv_nsec()).ok()?)
}
