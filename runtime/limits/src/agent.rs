//! Carries the controllers' decisions out on the processes of one container.

use crate::census::Census;
use crate::guard::{Guard, Look, Rough};
use crate::memory::{self, Memory, MemoryFiles};
use crate::oom;
use crate::signals::{Freezer, Traced};
use crate::throttle::{Order, Throttle};
use rlrun_spec::limits::Limits;
use rlrun_spec::protocol::OutOfMemory;
use rlrun_spec::usage::{Spent, Traffic, Usage};
use rustix::io::Result;
use rustix::time::{ClockId, clock_gettime};
use std::os::fd::OwnedFd;
use std::time::Duration;

const MS: u64 = 1_000_000;
/// Files in memory are looked at this often while anything runs.
const FILES: u64 = 20 * MS;
/// And all open ones this often, in case the rest of the machine hides their growth.
const OPEN_FILES: u64 = 1000 * MS;
/// What stands still because of its memory is looked at this often.
const HELD: u64 = 250 * MS;

/// For so long what a debugger has is stopped like the rest once it used what it was spared.
const STRICT: u64 = 10_000 * MS;
/// A look at processor time may be so much too early.
const EARLY: u64 = 30 * MS;

/// What the agent needs to know beside the limits.
#[derive(Debug)]
pub struct Surroundings {
    /// How many CPUs the container can run on.
    pub cpus: usize,
    /// The container's first process.
    pub init: i32,
    /// The container has network interfaces of its own, and this process is among them.
    pub own_network: bool,
    /// A file system in memory that the container writes to and does not see as such.
    pub hidden: Option<OwnedFd>,
    /// Whether two processes are one as far as memory goes (vfork(2)).
    pub share_memory: fn(i32, i32) -> bool,
}

/// The agent of one container.
pub struct Agent {
    census: Census,
    around: Surroundings,
    freezer: Freezer,
    throttle: Option<Throttle>,
    order: Order,
    /// When it was stopped last, and what it had used by then.
    stopped_at: (u64, u64),
    /// Until then what a debugger has is stopped with the rest.
    strict_until: u64,
    guard: Option<Guard>,
    /// Nothing is killed for memory.
    waits: bool,
    /// It stands still because of its memory.
    held: bool,
    paused: bool,
    files: Files,
    oom_kills: u64,
    // When the throttle and the guard are to be asked next.
    throttle_due: u64,
    guard_due: u64,
}

/// What is known of shared memory: files in memory, and what has no file and is mapped.
#[derive(Debug, Default)]
struct Files {
    mounts: MemoryFiles,
    /// When they were measured last, and when with all open ones.
    looked: u64,
    scanned: u64,
    /// Bytes in the container's own file systems.
    mounted: u64,
    /// Bytes of all files at the last scan; with what was mapped by then; and of the whole machine by then.
    all: u64,
    with_mapped: u64,
    machine: u64,
    /// Bytes of shared memory at the last look, and all that it ever grew by.
    last: u64,
    grown: u64,
    /// What was mapped then, each page as often as it is, and all that this ever grew by.
    mapped: u64,
    mapped_grown: u64,
}

/// CLOCK_MONOTONIC in nanoseconds: it stands still while the machine sleeps.
pub(crate) fn clock() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

/// Whether what was left running in a stop used what the stop was to save.
fn is_evasion((stopped, then): (u64, u64), now: u64, used: u64) -> bool {
    let (elapsed, spent) = (now.saturating_sub(stopped), used.saturating_sub(then));
    spent > 5 * MS && spent > elapsed / 8
}

/// Nanoseconds of processor time that this process has used.
fn own_time() -> u64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

impl Agent {
    /// Whether any limit needs an agent.
    #[must_use]
    pub fn is_needed(limits: &Limits) -> bool {
        limits.cpu.is_some() || limits.memory.is_some()
    }

    /// An agent for these limits, of which there may be none. `proc` is /proc of the pid namespace whose pid 1 this
    /// process is.
    #[must_use]
    pub fn new(limits: &Limits, proc: OwnedFd, around: Surroundings) -> Self {
        let machine = memory::shared_of_machine();
        let census = Census::new(proc);
        let mut agent = Agent {
            census,
            freezer: Freezer::new(around.init),
            around,
            throttle: None,
            order: Order::Run,
            stopped_at: (0, 0),
            strict_until: 0,
            guard: None,
            waits: false,
            held: false,
            paused: false,
            files: Files { machine, ..Files::default() },
            oom_kills: 0,
            throttle_due: 0,
            guard_due: 0,
        };
        agent.set_limits(limits);
        agent
    }

    /// Other limits from now on.
    pub fn set_limits(&mut self, limits: &Limits) {
        match (&mut self.throttle, limits.cpu) {
            (Some(throttle), Some(cpu)) => throttle.set_limit(cpu, self.around.cpus),
            (throttle, cpu) => {
                *throttle = cpu.map(|cpu| Throttle::new(cpu, self.around.cpus));
                self.order = Order::Run;
            }
        }
        match (&mut self.guard, limits.memory) {
            (Some(guard), Some(memory)) => guard.set_limit(memory),
            (guard, memory) => *guard = memory.map(Guard::new),
        }
        self.waits = limits.memory.is_some_and(|memory| memory.wait);
        self.held &= self.guard.is_some();
        (self.throttle_due, self.guard_due) = (clock(), clock());
    }

    /// How many CPUs it can run on from now on.
    pub fn set_cpus(&mut self, cpus: usize) {
        self.around.cpus = cpus;
    }

    /// How long to wait before the next [`Agent::wake`]; None: until somebody wants something.
    #[must_use]
    pub fn rest(&self) -> Option<Duration> {
        let throttle = self.throttle.as_ref().filter(|_| !self.paused && !self.held).map(|_| self.throttle_due);
        let guard = self.guard.as_ref().filter(|_| !self.paused).map(|_| self.guard_due);
        let due = throttle.into_iter().chain(guard).min()?;
        Some(Duration::from_nanos(due.saturating_sub(clock())))
    }

    /// Measures and acts, if it is time. Returns what was done about memory.
    ///
    /// # Errors
    /// When /proc cannot be read or the container not be signalled.
    pub fn wake(&mut self) -> Result<Vec<OutOfMemory>> {
        let now = clock();
        let throttle = self.throttle.is_some() && !self.paused && !self.held;
        let guard = self.guard.is_some() && !self.paused && now >= self.guard_due;
        // Who is up already for memory need not get up again soon for time.
        let throttle = throttle && (now >= self.throttle_due || guard && self.throttle_due - now < EARLY);
        if !throttle && !guard {
            return self.settle().map(|()| Vec::new());
        }
        self.census.take()?;
        if throttle && let Some(controller) = &mut self.throttle {
            let now = clock();
            controller.pay(own_time());
            let used = self.census.used();
            if self.freezer.spares() && is_evasion(self.stopped_at, now, used) {
                self.strict_until = now + STRICT;
            }
            let (order, wait) = controller.step(now, used);
            if order == Order::Stop && self.order == Order::Run {
                self.stopped_at = (now, used);
            }
            (self.order, self.throttle_due) = (order, now + wait);
        }
        // Stopped before memory is looked at: that takes longer.
        self.settle()?;
        let told = if guard { self.guard_memory()? } else { Vec::new() };
        self.settle()?;
        Ok(told)
    }

    /// Stops or continues the container as it should be.
    fn settle(&mut self) -> Result<()> {
        if self.paused || self.held {
            self.freezer.stop(&mut self.census, Traced::Stop)
        } else if self.order == Order::Stop {
            let traced = if clock() < self.strict_until { Traced::Stop } else { Traced::Spare };
            self.freezer.stop(&mut self.census, traced)
        } else {
            self.freezer.go_on(&mut self.census)
        }
    }

    /// Stops everything until [`Agent::unpause`].
    ///
    /// # Errors
    /// When /proc cannot be read or the container not be signalled.
    pub fn pause(&mut self) -> Result<()> {
        self.census.take()?;
        self.paused = true;
        self.settle()
    }

    /// Continues what [`Agent::pause`] stopped.
    ///
    /// # Errors
    /// As [`Agent::pause`].
    pub fn unpause(&mut self) -> Result<()> {
        if std::mem::take(&mut self.paused) {
            self.census.take()?;
            (self.throttle_due, self.guard_due) = (clock(), clock());
        }
        self.settle()
    }

    /// Does something to every thread of the container while all stand still, so that none is missed.
    ///
    /// # Errors
    /// As [`Agent::pause`], and what `act` says.
    pub fn on_every_thread(&mut self, act: &mut dyn FnMut(i32) -> Result<()>) -> Result<()> {
        self.census.take()?;
        self.freezer.stop(&mut self.census, Traced::Stop)?;
        self.census.take()?;
        let pids: Vec<i32> = self.census.entries.keys().copied().filter(|pid| !self.is_helper(*pid)).collect();
        let threads = pids.iter().flat_map(|pid| self.census.threads(*pid));
        let done = threads.collect::<Vec<_>>().into_iter().try_for_each(act);
        self.settle()?;
        done
    }

    /// How much is used.
    ///
    /// # Errors
    /// When /proc cannot be read.
    pub fn count(&mut self) -> Result<Usage> {
        self.census.take()?;
        self.census.refresh_all();
        self.files.mounts = MemoryFiles::find(&self.census, self.around.init);
        let memory = self.exact().0;
        let (block_read, block_written) = self.census.block_io();
        let throttled = self.throttle.as_ref().map(Throttle::throttled).unwrap_or_default();
        Ok(Usage {
            cpu_ns: self.census.used(),
            throttled_periods: throttled.periods,
            throttled_ns: throttled.ns,
            memory: memory.anon.saturating_add(memory.shared),
            memory_peak: 0,
            swap: memory.swap,
            memory_limit: self.guard.as_ref().map(Guard::limit),
            oom_kills: self.oom_kills,
            tasks: self.census.tasks(),
            block_read,
            block_written,
            network: self.around.own_network.then(|| self.traffic()),
        })
    }

    /// What only the agent knows of what the container has used: where it stood in its way.
    #[must_use]
    pub fn spent(&self) -> Spent {
        let throttled = self.throttle.as_ref().map(Throttle::throttled).unwrap_or_default();
        let (throttled_periods, throttled_ns) = (throttled.periods, throttled.ns);
        Spent { throttled_periods, throttled_ns, oom_kills: self.oom_kills, ..Spent::default() }
    }

    /// What went through the interfaces (proc_pid_net(5)).
    fn traffic(&self) -> Traffic {
        let mut text = Vec::new();
        // Without the file nothing went through that anybody counted.
        self.census.read_all("self/net/dev", &mut text).map(|()| crate::stat::traffic(&text)).unwrap_or_default()
    }

    /// Each page once, with what each process has.
    fn exact(&self) -> (Memory, Vec<(i32, Memory)>) {
        let pids: Vec<i32> = self.census.entries.keys().copied().filter(|pid| !self.is_helper(*pid)).collect();
        memory::exact_sum(&self.census, &pids, &self.files.mounts, &self.around)
    }

    /// Serves the root file system and is no part of the container.
    fn is_helper(&self, pid: i32) -> bool {
        self.freezer.is_helper(&self.census, pid)
    }

    /// A rough measurement, files in memory included.
    fn rough(&mut self, now: u64) -> Rough {
        let (sum, moved, grown) = self.census.weigh();
        if moved {
            self.look_at_shared(now, sum.shared, grown.shared);
        }
        let (memory, swap) = (sum.anon.saturating_add(self.files.last), sum.swap);
        let bytes = self.guard.as_ref().map_or(0, |guard| guard.counted(memory, swap));
        Rough { bytes, grown: grown.private.saturating_add(self.files.grown), moved }
    }

    /// Never too little: the files and what is mapped, or what both were at the last scan and all that the machine's
    /// grew by since. A page that was filled shows in both.
    fn look_at_shared(&mut self, now: u64, mapped: u64, mapped_grown: u64) {
        let files = &mut self.files;
        if now >= files.looked + FILES {
            files.looked = now;
            files.mounted = files.mounts.used(&self.census, &self.around);
        }
        let grown = memory::shared_of_machine().saturating_sub(files.machine);
        let known = files.all.max(files.mounted).saturating_add(mapped);
        let bytes = known.max(files.with_mapped.saturating_add(grown));
        let more = bytes.saturating_sub(files.last).max(mapped_grown.saturating_sub(files.mapped_grown));
        files.grown = files.grown.saturating_add(more);
        (files.last, files.mapped, files.mapped_grown) = (bytes, mapped, mapped_grown);
    }

    fn guard_memory(&mut self) -> Result<Vec<OutOfMemory>> {
        let now = clock();
        let rough = self.rough(now);
        let due = now >= self.files.scanned + OPEN_FILES && rough.moved;
        let Some(guard) = &mut self.guard else { return Ok(Vec::new()) };
        let mut look = guard.rough(now, rough);
        if look == Look::Closer || look == Look::Still || self.held {
            if look == Look::Still {
                // What it filled meanwhile would be beyond the limit.
                self.freezer.stop(&mut self.census, Traced::Stop)?;
            }
            look = self.look_closely(rough);
        } else if due {
            self.scan_files(now);
        }
        let told = match look {
            Look::Over => self.out_of_memory()?,
            Look::Rest(_) | Look::Closer | Look::Still => {
                self.held = false;
                Vec::new()
            }
        };
        let wait = if let Look::Rest(wait) = look { wait } else { MS };
        self.guard_due = clock() + if self.held { HELD } else { wait };
        Ok(told)
    }

    fn look_closely(&mut self, rough: Rough) -> Look {
        let began = clock();
        self.scan_files(began);
        let (sum, _) = self.exact();
        let Some(guard) = &mut self.guard else { return Look::Rest(HELD) };
        let used = guard.counted(sum.anon.saturating_add(sum.shared), sum.swap);
        let ended = clock();
        guard.exact(ended, used, rough, ended.saturating_sub(began))
    }

    /// Looks for file systems in memory, and at all open files there.
    fn scan_files(&mut self, now: u64) {
        let init = self.around.init;
        let mounts = MemoryFiles::find(&self.census, init);
        let machine = memory::shared_of_machine();
        let mounted = mounts.used(&self.census, &self.around);
        let pids: Vec<i32> = self.census.entries.keys().copied().collect();
        let all = memory::files(&self.census, &pids).saturating_add(mounted);
        let Files { mapped, grown, mapped_grown, .. } = self.files;
        let with_mapped = all.saturating_add(mapped);
        let (looked, scanned, last) = (now, now, with_mapped);
        self.files =
            Files { mounts, looked, scanned, mounted, all, with_mapped, machine, last, grown, mapped, mapped_grown };
    }

    /// The limit is reached: everything stops, is measured again, and as many are killed as have to be.
    fn out_of_memory(&mut self) -> Result<Vec<OutOfMemory>> {
        self.freezer.stop(&mut self.census, Traced::Stop)?;
        let mut told = Vec::new();
        for _ in 0..oom::ROUNDS {
            self.census.take()?;
            let (sum, each) = self.exact();
            let Some(guard) = &self.guard else { break };
            let (used, limit) = (guard.counted(sum.anon.saturating_add(sum.shared), sum.swap), guard.limit());
            if used <= limit {
                self.held = false;
                break;
            }
            if self.waits {
                if !std::mem::replace(&mut self.held, true) {
                    told.push(OutOfMemory { used, limit, killed: None });
                }
                break;
            }
            for killed in oom::kill(&self.census, &each, used - limit, limit)? {
                self.oom_kills += 1;
                told.push(OutOfMemory { used, limit, killed: Some(killed) });
            }
        }
        Ok(told)
    }
}
