//! Stops and continues every process of the container at once.
//!
//! Job control must not notice. A shell that waits for a job with WUNTRACED sees its stop if it is not yet stopped
//! itself, and its continuing if it runs again first. So what watches over other process groups is stopped before the
//! rest and continued after it, children before parents. A process that had stopped itself is left as it was.

use crate::agent::clock;
use crate::census::{Census, Entry};
use crate::stat::Stat;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::io::Result;
use std::collections::{BTreeMap, BTreeSet};

/// How long a watcher may take to stop before the rest is stopped all the same. It must get a CPU for that first, and
/// on a busy machine that takes long; one that sleeps on (vfork(2), a disk) does not stop for as long as it does.
const PATIENCE: u64 = 20_000_000;
const WITHOUT_CPU: u64 = 1_000_000_000;
const PAUSE: std::time::Duration = std::time::Duration::from_micros(100);

/// Whether the container runs.
#[derive(Debug)]
pub(crate) struct Freezer {
    init: i32,
    stopped: bool,
    /// Stopped by themselves, with what they had run by then.
    held: BTreeSet<i32>,
    /// Left running, because a debugger would be told.
    spared: BTreeSet<i32>,
}

/// Whether what a debugger has is stopped, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Traced {
    /// A debugger would show the signal to its user: not as long as it uses next to nothing.
    Spare,
    /// All the same.
    Stop,
}

/// How often to look for what was born while processes were stopped one by one.
const ROUNDS: usize = 8;

impl Freezer {
    pub(crate) fn new(init: i32) -> Self {
        Freezer { init, stopped: false, held: BTreeSet::new(), spared: BTreeSet::new() }
    }

    /// A child of this process's own that is not the container's first: it serves the root file system. Whoever reads
    /// a file there, this process among them, waits for it.
    pub(crate) fn is_helper(&self, census: &Census, pid: i32) -> bool {
        pid != self.init && census.entries.get(&pid).is_some_and(|entry| entry.stat.parent == census.own())
    }

    /// Something runs on because a debugger has it.
    pub(crate) fn spares(&self) -> bool {
        !self.spared.is_empty()
    }

    /// Stops everything that runs; the census was taken a moment ago.
    pub(crate) fn stop(&mut self, census: &mut Census, traced: Traced) -> Result<()> {
        if self.stopped {
            if traced == Traced::Stop && self.spares() {
                self.spared.clear();
                return self.stop_all(census);
            }
            return Ok(());
        }
        census.refresh();
        census.find_traced();
        self.held = census.entries.iter().filter(|(_, e)| e.stat.is_stopped()).map(|(pid, _)| *pid).collect();
        for pid in self.watchers(census) {
            stop_watcher(census, pid)?;
        }
        self.stopped = true;
        if traced == Traced::Spare && census.entries.values().any(Entry::is_traced) {
            return self.stop_each(census);
        }
        self.stop_all(census)
    }

    fn stop_all(&self, census: &Census) -> Result<()> {
        signal(-1, Signal::SIGSTOP)?;
        let helpers = census.entries.keys().filter(|pid| self.is_helper(census, **pid));
        helpers.copied().try_for_each(|pid| signal(pid, Signal::SIGCONT))
    }

    /// All but what a debugger has. What is born meanwhile is found by looking again.
    fn stop_each(&mut self, census: &mut Census) -> Result<()> {
        let mut stopped = BTreeSet::new();
        for _ in 0..ROUNDS {
            let mut new = Vec::new();
            for (pid, entry) in &census.entries {
                if entry.is_traced() {
                    self.spared.insert(*pid);
                } else if !self.is_helper(census, *pid) && stopped.insert(*pid) {
                    new.push(*pid);
                }
            }
            if new.is_empty() {
                break;
            }
            new.into_iter().try_for_each(|pid| signal(pid, Signal::SIGSTOP))?;
            census.take()?;
        }
        Ok(())
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
        let spared = std::mem::take(&mut self.spared);
        if self.held.is_empty() && spared.is_empty() && self.watchers(census).is_empty() {
            signal(-1, Signal::SIGCONT)?;
            census.forget_stop(&self.held);
            return Ok(());
        }
        let depths = depths(census);
        let ours = |pid: &i32| !self.held.contains(pid) && !spared.contains(pid);
        let mut order: Vec<i32> = depths.keys().copied().filter(ours).collect();
        order.sort_by_key(|pid| std::cmp::Reverse(depths.get(pid)));
        order.into_iter().try_for_each(|pid| signal(pid, Signal::SIGCONT))?;
        census.forget_stop(&self.held);
        Ok(())
    }
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
    let began = clock();
    let mut line = Vec::new();
    loop {
        let stat = census.read(&format!("{pid}/stat"), &mut line).ok().and_then(|()| Stat::parse(&line));
        let Some(stat) = stat.filter(|stat| !stat.is_stopped()) else { return Ok(()) };
        let patience = if stat.is_runnable() { WITHOUT_CPU } else { PATIENCE };
        if clock() - began > patience {
            return Ok(());
        }
        // Nothing tells when a process that is no child of this one has stopped.
        std::thread::sleep(PAUSE);
    }
}

/// A process that is gone already needs no signal.
pub(crate) fn signal(pid: i32, signal: Signal) -> Result<()> {
    match kill(Pid::from_raw(pid), signal) {
        Ok(()) | Err(nix::errno::Errno::ESRCH) => Ok(()),
        Err(errno) => Err(rustix::io::Errno::from_raw_os_error(errno as i32)),
    }
}
