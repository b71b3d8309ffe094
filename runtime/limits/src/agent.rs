//! Carries the controllers' decisions out: stops and continues every process of the container at once.
//!
//! Job control must not notice. A shell that waits for a job with WUNTRACED sees its stop if it is not yet stopped
//! itself, and its continuing if it runs again first. So what watches over other process groups is stopped before the
//! rest and continued after it, children before parents. A process that had stopped itself is left as it was.

use crate::census::Census;
use crate::throttle::{Order, Throttle, Throttled};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rlrun_spec::limits::Limits;
use rustix::io::Result;
use rustix::time::{ClockId, clock_gettime};
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::time::Duration;

/// How long a watcher may take to stop before the rest is stopped all the same.
const PATIENCE: u64 = 5_000_000;

/// The agent of one container.
pub struct Agent {
    census: Census,
    throttle: Option<Throttle>,
    order: Order,
    due: u64,
    /// Stopped by themselves, with what they had run by then.
    held: BTreeSet<i32>,
}

/// CLOCK_MONOTONIC in nanoseconds: it stands still while the machine sleeps.
fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

impl Agent {
    /// Whether any limit needs an agent.
    #[must_use]
    pub fn is_needed(limits: &Limits) -> bool {
        limits.cpu.is_some()
    }

    /// For the processes of the pid namespace whose /proc is `proc`; this process must be its pid 1. `cpus` is how many
    /// CPUs the container can run on.
    #[must_use]
    pub fn new(limits: &Limits, proc: OwnedFd, cpus: usize) -> Self {
        let throttle = limits.cpu.map(|cpu| Throttle::new(cpu, cpus));
        Agent { census: Census::new(proc), throttle, order: Order::Run, due: now(), held: BTreeSet::new() }
    }

    /// How long to wait before the next [`Agent::wake`].
    #[must_use]
    pub fn rest(&self) -> Duration {
        Duration::from_nanos(self.due.saturating_sub(now()))
    }

    /// What throttling has cost.
    #[must_use]
    pub fn throttled(&self) -> Throttled {
        self.throttle.as_ref().map(Throttle::throttled).unwrap_or_default()
    }

    /// The processes.
    #[must_use]
    pub fn census(&self) -> &Census {
        &self.census
    }

    /// Measures and acts, if it is time.
    ///
    /// # Errors
    /// When /proc cannot be read or the container not be signalled.
    pub fn wake(&mut self) -> Result<()> {
        if now() < self.due {
            return Ok(());
        }
        self.census.take()?;
        let now = now();
        let Some(throttle) = &mut self.throttle else { return Ok(()) };
        let (order, wait) = throttle.step(now, self.census.used());
        self.due = now + wait;
        match (self.order, order) {
            (Order::Run, Order::Stop) => self.stop()?,
            (Order::Stop, Order::Run) => self.go_on()?,
            (Order::Run, Order::Run) | (Order::Stop, Order::Stop) => {}
        }
        self.order = order;
        Ok(())
    }

    /// Stops everything; the census was taken a moment ago.
    fn stop(&mut self) -> Result<()> {
        self.held = self.census.entries.iter().filter(|(_, e)| e.stat.is_stopped()).map(|(pid, _)| *pid).collect();
        for pid in self.watchers() {
            self.stop_watcher(pid)?;
        }
        if self.is_traced() {
            return self.stop_each();
        }
        signal(-1, Signal::SIGSTOP)
    }

    /// A debugger would be told of the signal, so what it traces is left alone.
    fn stop_each(&self) -> Result<()> {
        let tracees = self.census.entries.iter().filter(|(_, entry)| !entry.stat.is_traced());
        tracees.map(|(pid, _)| *pid).try_for_each(|pid| signal(pid, Signal::SIGSTOP))
    }

    fn is_traced(&self) -> bool {
        self.census.entries.values().any(|entry| entry.stat.is_traced())
    }

    /// Those with a child in another process group, parents first: shells with job control.
    fn watchers(&self) -> Vec<i32> {
        let entries = &self.census.entries;
        let watched = |child: &crate::census::Entry| {
            let parent = entries.get(&child.stat.parent)?;
            (parent.stat.group != child.stat.group).then_some(child.stat.parent)
        };
        let found: BTreeSet<i32> =
            entries.values().filter_map(watched).filter(|pid| !self.held.contains(pid)).collect();
        let depths = self.depths();
        let mut found: Vec<i32> = found.into_iter().collect();
        found.sort_by_key(|pid| depths.get(pid));
        found
    }

    /// How far each process is from the top.
    fn depths(&self) -> BTreeMap<i32, usize> {
        let entries = &self.census.entries;
        let depth = |pid: i32| {
            let chain = std::iter::successors(Some(pid), |pid| entries.get(pid).map(|entry| entry.stat.parent));
            // A parent that ended a moment ago ends the chain; a pid that came back could close it.
            chain.take(entries.len() + 1).count()
        };
        entries.keys().map(|pid| (*pid, depth(*pid))).collect()
    }

    fn stop_watcher(&mut self, pid: i32) -> Result<()> {
        signal(pid, Signal::SIGSTOP)?;
        let until = now() + PATIENCE;
        let mut line = Vec::new();
        while now() < until {
            let stat = self.census.read(&format!("{pid}/stat"), &mut line).ok();
            let stopped = stat.and_then(|()| crate::stat::Stat::parse(&line)).is_none_or(|stat| stat.is_stopped());
            if stopped {
                break;
            }
            std::thread::yield_now();
        }
        Ok(())
    }

    /// Continues everything that was not stopped before.
    fn go_on(&mut self) -> Result<()> {
        if self.held.is_empty() && self.watchers().is_empty() && !self.is_traced() {
            signal(-1, Signal::SIGCONT)?;
            self.forget_stop();
            return Ok(());
        }
        let depths = self.depths();
        let mut order: Vec<i32> = depths.keys().copied().filter(|pid| !self.held.contains(pid)).collect();
        order.sort_by_key(|pid| std::cmp::Reverse(depths.get(pid)));
        order.into_iter().try_for_each(|pid| signal(pid, Signal::SIGCONT))?;
        self.forget_stop();
        Ok(())
    }

    /// What the census saw during the stop was our doing; whoever does not run until the next one is not looked at
    /// again, and must not be taken for one that stopped itself.
    fn forget_stop(&mut self) {
        for (pid, entry) in &mut self.census.entries {
            if entry.stat.is_stopped() && !self.held.contains(pid) {
                entry.stat.state = b'S';
            }
        }
    }
}

/// A process that is gone already needs no signal.
fn signal(pid: i32, signal: Signal) -> Result<()> {
    match kill(Pid::from_raw(pid), signal) {
        Ok(()) | Err(nix::errno::Errno::ESRCH) => Ok(()),
        Err(errno) => Err(rustix::io::Errno::from_raw_os_error(errno as i32)),
    }
}
