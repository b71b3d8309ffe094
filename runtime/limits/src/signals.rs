//! Stops and continues every process of the container at once.
//!
//! Job control must not notice. A shell that waits for a job with WUNTRACED sees its stop if it is not yet stopped
//! itself, and its continuing if it runs again first. So what watches over other process groups is stopped before the
//! rest and continued after it, children before parents. A process that had stopped itself is left as it was.

use crate::agent::clock;
use crate::census::{Census, Entry};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::io::Result;
use std::collections::{BTreeMap, BTreeSet};

/// How long a watcher may take to stop before the rest is stopped all the same: it must get a CPU for that first.
const PATIENCE: u64 = 50_000_000;

/// Whether the container runs.
#[derive(Debug)]
pub(crate) struct Freezer {
    init: i32,
    stopped: bool,
    /// Stopped by themselves, with what they had run by then.
    held: BTreeSet<i32>,
}

impl Freezer {
    pub(crate) fn new(init: i32) -> Self {
        Freezer { init, stopped: false, held: BTreeSet::new() }
    }

    /// A child of this process's own that is not the container's first: it serves the root file system. Whoever reads
    /// a file there, this process among them, waits for it.
    pub(crate) fn is_helper(&self, census: &Census, pid: i32) -> bool {
        pid != self.init && census.entries.get(&pid).is_some_and(|entry| entry.stat.parent == census.own())
    }

    /// Stops everything that runs; the census was taken a moment ago.
    pub(crate) fn stop(&mut self, census: &mut Census) -> Result<()> {
        if self.stopped {
            return Ok(());
        }
        self.held = census.entries.iter().filter(|(_, e)| e.stat.is_stopped()).map(|(pid, _)| *pid).collect();
        for pid in self.watchers(census) {
            stop_watcher(census, pid)?;
        }
        self.stopped = true;
        if is_traced(census) {
            return self.stop_each(census);
        }
        signal(-1, Signal::SIGSTOP)?;
        let helpers = census.entries.keys().filter(|pid| self.is_helper(census, **pid));
        helpers.copied().try_for_each(|pid| signal(pid, Signal::SIGCONT))
    }

    /// A debugger would be told of the signal, so what it traces is left alone.
    fn stop_each(&self, census: &Census) -> Result<()> {
        let ours = |pid: i32, entry: &Entry| !entry.stat.is_traced() && !self.is_helper(census, pid);
        let tracees = census.entries.iter().filter(|(pid, entry)| ours(**pid, entry));
        tracees.map(|(pid, _)| *pid).try_for_each(|pid| signal(pid, Signal::SIGSTOP))
    }

    /// Those with a child in another process group, parents first: shells with job control.
    fn watchers(&self, census: &Census) -> Vec<i32> {
        let entries = &census.entries;
        let watched = |child: &Entry| {
            let parent = entries.get(&child.stat.parent)?;
            (parent.stat.group != child.stat.group).then_some(child.stat.parent)
        };
        let found: BTreeSet<i32> =
            entries.values().filter_map(watched).filter(|pid| !self.held.contains(pid)).collect();
        let depths = depths(census);
        let mut found: Vec<i32> = found.into_iter().collect();
        found.sort_by_key(|pid| depths.get(pid));
        found
    }

    /// Continues everything that was not stopped before.
    pub(crate) fn go_on(&mut self, census: &mut Census) -> Result<()> {
        if !self.stopped {
            return Ok(());
        }
        self.stopped = false;
        if self.held.is_empty() && self.watchers(census).is_empty() && !is_traced(census) {
            signal(-1, Signal::SIGCONT)?;
            self.forget_stop(census);
            return Ok(());
        }
        let depths = depths(census);
        let mut order: Vec<i32> = depths.keys().copied().filter(|pid| !self.held.contains(pid)).collect();
        order.sort_by_key(|pid| std::cmp::Reverse(depths.get(pid)));
        order.into_iter().try_for_each(|pid| signal(pid, Signal::SIGCONT))?;
        self.forget_stop(census);
        Ok(())
    }

    /// What the census saw during the stop was our doing; whoever does not run until the next one is not looked at
    /// again, and must not be taken for one that stopped itself.
    fn forget_stop(&self, census: &mut Census) {
        for (pid, entry) in &mut census.entries {
            if entry.stat.is_stopped() && !self.held.contains(pid) {
                entry.stat.state = b'S';
            }
        }
    }
}

fn is_traced(census: &Census) -> bool {
    census.entries.values().any(|entry| entry.stat.is_traced())
}

/// How far each process is from the top.
fn depths(census: &Census) -> BTreeMap<i32, usize> {
    let entries = &census.entries;
    let depth = |pid: i32| {
        let chain = std::iter::successors(Some(pid), |pid| entries.get(pid).map(|entry| entry.stat.parent));
        // A parent that ended a moment ago ends the chain; a pid that came back could close it.
        chain.take(entries.len() + 1).count()
    };
    entries.keys().map(|pid| (*pid, depth(*pid))).collect()
}

fn stop_watcher(census: &Census, pid: i32) -> Result<()> {
    signal(pid, Signal::SIGSTOP)?;
    let until = clock() + PATIENCE;
    let mut line = Vec::new();
    while clock() < until {
        let stat = census.read(&format!("{pid}/stat"), &mut line).ok();
        let stopped = stat.and_then(|()| crate::stat::Stat::parse(&line)).is_none_or(|stat| stat.is_stopped());
        if stopped {
            break;
        }
        std::thread::yield_now();
    }
    Ok(())
}

/// A process that is gone already needs no signal.
pub(crate) fn signal(pid: i32, signal: Signal) -> Result<()> {
    match kill(Pid::from_raw(pid), signal) {
        Ok(()) | Err(nix::errno::Errno::ESRCH) => Ok(()),
        Err(errno) => Err(rustix::io::Errno::from_raw_os_error(errno as i32)),
    }
}
