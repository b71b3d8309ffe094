//! Every process of the container and the processor time of all of them together, reaped children included.
//!
//! Cheap because little is read: the clock of each process is one system call, the list of processes is read again
//! only when the kernel has given out a new pid, and lines in /proc only where they can have changed and matter: one
//! that did not run cannot have stopped, waited for a child or grown, and nobody has waited for a child where no pid
//! was given out and none has gone.

use crate::memory::Memory;
use crate::stat::Stat;
use nix::time::{ClockId, clock_gettime};
use rustix::fs::{Dir, Mode, OFlags, openat};
use rustix::io::Result;
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Nanoseconds of a clock tick (USER_HZ is 100 in every ABI that rlrun is built for).
const TICK: u64 = 10_000_000;
/// What rounding to ticks may hide of the time of reaped children, user and kernel mode each.
const ROUNDING: u64 = 3 * TICK;
/// A page that stops being shared is one fault.
const PAGE: u64 = 4096;
/// No file of /proc that is read whole is longer; a mountinfo or smaps beyond it is cut.
const MOST: usize = 16 << 20;

/// Lines of so many processes at most are kept open, which makes reading them again three times as cheap.
const MOST_KEPT: u64 = 256;

/// One process.
#[derive(Debug, Default)]
pub(crate) struct Entry {
    pub(crate) stat: Stat,
    /// Its line, open; a number that came back cannot be mistaken for it.
    line: Option<OwnedFd>,
    /// Nanoseconds that it and its threads have run.
    pub(crate) clock: u64,
    /// Nanoseconds of ended children that its parent should have been charged with and, so far, was not.
    owed: u64,
    /// Nanoseconds of ended children that it was charged with since the last census, and in the one before beyond what
    /// was owed: a child may be waited for between a look at it and one at its parent.
    charged: u64,
    surplus: u64,
    /// Its memory, pages that others share included, as of the last [`Census::weigh`].
    pub(crate) memory: Memory,
    /// It has run since.
    stale: bool,
    /// Its page faults by then.
    faults: u64,
    /// Its clock when its line was read, and when it was continued last: what it did before that is of no interest.
    read_at: u64,
    continued_at: u64,
    /// Whether a debugger has it, and whether that is known.
    traced: Option<bool>,
}

impl Entry {
    /// Takes a new line over, with what was waited for since the one before.
    fn charge(&mut self, stat: Stat) {
        // The first line tells of what was waited for before anybody looked.
        if self.stat.state != 0 {
            self.charged += stat.waited.saturating_sub(self.stat.waited).saturating_mul(TICK);
        }
        self.stat = stat;
        self.read_at = self.clock;
    }

    /// A debugger has it, whether it holds it at this moment or lets it run.
    pub(crate) fn is_traced(&self) -> bool {
        self.stat.is_traced() || self.traced == Some(true)
    }

    /// What it was charged with counts against what it owes.
    fn settle(&mut self) {
        let (older, newer) = (std::mem::take(&mut self.surplus), std::mem::take(&mut self.charged));
        self.surplus = newer.saturating_sub(self.owed.saturating_sub(older));
        self.owed = self.owed.saturating_sub(older.saturating_add(newer));
    }

    /// It may have stopped, or have made or left a group, since anybody looked.
    fn is_unread(&self) -> bool {
        self.clock != self.read_at && self.clock != self.continued_at
    }
}

/// What processes ever grew by, whatever went meanwhile.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Grown {
    /// Private memory, with pages that stopped being shared.
    pub(crate) private: u64,
    /// Shared memory, as often as it is mapped.
    pub(crate) shared: u64,
}

impl Grown {
    fn add(&mut self, now: Memory, before: Memory, unshared: u64) {
        let private = |memory: Memory| memory.anon.saturating_add(memory.swap);
        let grown = private(now).saturating_sub(private(before)).saturating_add(unshared);
        self.private = self.private.saturating_add(grown);
        self.shared = self.shared.saturating_add(now.shared.saturating_sub(before.shared));
    }
}

/// The container's processes, by pid in the namespace of whoever reads.
pub(crate) struct Census {
    proc: OwnedFd,
    pub(crate) entries: BTreeMap<i32, Entry>,
    /// Its last field is the pid that was given out last.
    loadavg: Option<OwnedFd>,
    newest: Vec<u8>,
    /// Time of processes that ended without anybody waiting for them.
    lost: u64,
    used: u64,
    /// Bytes that processes ever grew by.
    grown: Grown,
    own: i32,
    /// Whose debugger was looked for last.
    turn: i32,
    /// How many lines may be open.
    kept: usize,
    buffer: Vec<u8>,
}

/// How many descriptors may be spent on lines: what else is done needs some too.
fn most_kept() -> usize {
    let most = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from((most / 2).min(MOST_KEPT)).unwrap_or(0)
}

impl Census {
    /// Of the pid namespace whose /proc is `proc`, without this process.
    pub(crate) fn new(proc: OwnedFd) -> Self {
        let own = rustix::process::getpid().as_raw_nonzero().get();
        let entries = BTreeMap::new();
        Census {
            proc,
            entries,
            loadavg: None,
            newest: Vec::new(),
            lost: 0,
            used: 0,
            grown: Grown::default(),
            own,
            turn: 0,
            kept: most_kept(),
            buffer: Vec::new(),
        }
    }

    /// Nanoseconds of processor time that the container has used, as of the last [`Census::take`].
    pub(crate) fn used(&self) -> u64 {
        self.used
    }

    /// How many processes and threads there are, as of the last [`Census::take`].
    pub(crate) fn tasks(&self) -> u64 {
        self.entries.values().map(|entry| entry.stat.threads).fold(0, u64::saturating_add)
    }

    /// Bytes that the container had read from and written to block devices, reaped children included
    /// (proc_pid_io(5)).
    pub(crate) fn block_io(&self) -> (u64, u64) {
        let mut text = Vec::new();
        self.entries.keys().fold((0, 0), |(read, written), pid| {
            let found = self.read(&format!("{pid}/io"), &mut text).map(|()| crate::stat::block_io(&text));
            let (r, w) = found.unwrap_or_default();
            (u64::saturating_add(read, r), u64::saturating_add(written, w))
        })
    }

    /// Weighs those that ran since the last time, roughly. Returns the sum of all, whether any ran, and how much all
    /// ever grew by.
    pub(crate) fn weigh(&mut self) -> (Memory, bool, Grown) {
        let keep = self.keeps();
        let mut line = std::mem::take(&mut self.buffer);
        let mut entries = std::mem::take(&mut self.entries);
        let mut sum = Memory::default();
        let mut moved = false;
        for (pid, entry) in &mut entries {
            if std::mem::take(&mut entry.stale) {
                moved = true;
                self.read_line(*pid, entry, keep, &mut line);
                let memory = crate::memory::rough(self, *pid, &mut line);
                let unshared = entry.stat.faults.saturating_sub(entry.faults).saturating_mul(PAGE);
                self.grown.add(memory, entry.memory, unshared);
                (entry.memory, entry.faults) = (memory, entry.stat.faults);
            }
            sum.add(entry.memory);
        }
        (self.entries, self.buffer) = (entries, line);
        (sum, moved, self.grown)
    }

    /// The /proc that is read.
    pub(crate) fn proc(&self) -> BorrowedFd<'_> {
        self.proc.as_fd()
    }

    /// This process there.
    pub(crate) fn own(&self) -> i32 {
        self.own
    }

    /// Looks at every process.
    ///
    /// # Errors
    /// When /proc cannot be read.
    pub(crate) fn take(&mut self) -> Result<()> {
        let mut gone = self.read_clocks();
        if self.has_new()? {
            self.list()?;
            gone.extend(self.read_clocks());
            gone.extend(self.read_lines(|entry| entry.clock != entry.read_at));
        } else if !gone.is_empty() {
            gone.extend(self.read_lines(|entry| entry.clock != entry.read_at));
        }
        self.bury(gone);
        let (clocks, waited) = self.entries.values().fold((0_u64, 0_u64), |(clocks, waited), entry| {
            (clocks.saturating_add(entry.clock), waited.saturating_add(entry.stat.waited))
        });
        self.used = clocks.saturating_add(waited.saturating_mul(TICK)).saturating_add(self.lost);
        Ok(())
    }

    /// Whether a pid was given out since the last time.
    fn has_new(&mut self) -> Result<bool> {
        let file = match self.loadavg.take() {
            Some(file) => file,
            None => self.open("loadavg")?,
        };
        let mut line = [0; 128];
        let length = rustix::io::pread(&file, &mut line, 0)?;
        self.loadavg = Some(file);
        let newest = line[..length].split(|b| *b == b' ').next_back().unwrap_or_default();
        let new = newest != self.newest;
        if new {
            self.newest = newest.to_vec();
        }
        Ok(new)
    }

    fn list(&mut self) -> Result<()> {
        for pid in self.numbers(".")?.into_iter().filter(|pid| *pid != self.own) {
            self.entries.entry(pid).or_default();
        }
        Ok(())
    }

    /// The threads of a process; none once it has ended.
    pub(crate) fn threads(&self, pid: i32) -> Vec<i32> {
        self.numbers(&format!("{pid}/task")).unwrap_or_default()
    }

    /// Names in a directory of /proc that are numbers.
    fn numbers(&self, name: &str) -> Result<Vec<i32>> {
        let directory = openat(&self.proc, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let mut found = Vec::new();
        for entry in Dir::new(directory)? {
            found.extend(entry?.file_name().to_str().ok().and_then(|name| name.parse::<i32>().ok()));
        }
        Ok(found)
    }

    /// Reads all clocks; returns what has ended.
    fn read_clocks(&mut self) -> Vec<i32> {
        let mut gone = Vec::new();
        for (pid, entry) in &mut self.entries {
            match process_clock(*pid) {
                Some(clock) if clock != entry.clock || entry.stat.state == 0 => {
                    (entry.clock, entry.stale) = (clock, true);
                }
                Some(_) => {}
                None => gone.push(*pid),
            }
        }
        gone
    }

    /// Reads the lines of some; returns what has ended.
    fn read_lines(&mut self, which: impl Fn(&Entry) -> bool) -> Vec<i32> {
        let mut gone = Vec::new();
        let keep = self.keeps();
        let mut entries = std::mem::take(&mut self.entries);
        let mut line = std::mem::take(&mut self.buffer);
        for (pid, entry) in entries.iter_mut().filter(|(_, entry)| entry.stat.state == 0 || which(entry)) {
            if !self.read_line(*pid, entry, keep, &mut line) {
                gone.push(*pid);
            }
        }
        (self.entries, self.buffer) = (entries, line);
        gone
    }

    /// No more lines are open than there are processes.
    fn keeps(&self) -> Keep {
        if self.entries.len() <= self.kept { Keep::Open } else { Keep::Nothing }
    }

    /// False when it has ended.
    fn read_line(&self, pid: i32, entry: &mut Entry, keep: Keep, line: &mut Vec<u8>) -> bool {
        let read = match &entry.line {
            Some(file) => pread_line(file, line),
            None => self.open(&format!("{pid}/stat")).and_then(|file| {
                let read = pread_line(&file, line);
                // Most processes are read once and never again.
                entry.line = (keep == Keep::Open && entry.stat.state != 0).then_some(file);
                read
            }),
        };
        let stat = read.ok().and_then(|()| Stat::parse(line));
        stat.map(|stat| entry.charge(stat)).is_some()
    }

    /// Who is stopped or traced, and who belongs to whom, as of now.
    pub(crate) fn refresh(&mut self) {
        // What has ended is found by the next census.
        self.read_lines(Entry::is_unread);
    }

    /// Looks who has a debugger: some of the new ones, and of the others a few in turn, for only a long file tells it.
    pub(crate) fn find_traced(&mut self) {
        const NEW: usize = 16;
        const OLD: usize = 4;
        let unknown = self.entries.iter().filter(|(_, entry)| entry.traced.is_none());
        let mut chosen: Vec<i32> = unknown.map(|(pid, _)| *pid).take(NEW).collect();
        let in_turn = self.entries.range(self.turn + 1..).chain(self.entries.range(..=self.turn));
        chosen.extend(in_turn.map(|(pid, _)| *pid).take(OLD));
        self.turn = chosen.last().copied().unwrap_or(0);
        let mut text = std::mem::take(&mut self.buffer);
        for pid in chosen {
            let read = self.read(&format!("{pid}/status"), &mut text);
            let traced = read.is_ok() && crate::stat::has_tracer(&text);
            if let Some(entry) = self.entries.get_mut(&pid) {
                entry.traced = Some(traced);
            }
        }
        self.buffer = text;
    }

    /// Everything that a line tells, as of now.
    pub(crate) fn refresh_all(&mut self) {
        self.read_lines(|entry| entry.clock != entry.read_at);
    }

    /// What a process did until now, which includes being stopped by us, is of no interest any more.
    pub(crate) fn forget_stop(&mut self, held: &BTreeSet<i32>) {
        for (_, entry) in self.entries.iter_mut().filter(|(pid, _)| !held.contains(*pid)) {
            entry.continued_at = entry.clock;
            if entry.stat.is_stopped() {
                entry.stat.state = b'S';
            }
        }
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
        let keep = self.keeps();
        let mut line = std::mem::take(&mut self.buffer);
        let mut entries = std::mem::take(&mut self.entries);
        entries.values_mut().for_each(Entry::settle);
        for (pid, entry) in entries.iter_mut().filter(|(_, entry)| entry.owed > ROUNDING) {
            if self.read_line(*pid, entry, keep, &mut line) {
                entry.settle();
            }
            if entry.owed > ROUNDING {
                self.lost += entry.owed;
                entry.owed = 0;
            }
        }
        (self.entries, self.buffer) = (entries, line);
    }

    /// A file of /proc of one record, whole: only a read that fills the buffer is followed by another.
    pub(crate) fn read(&self, name: &str, into: &mut Vec<u8>) -> Result<()> {
        let file = self.open(name)?;
        let mut length = 0;
        loop {
            into.resize(length + 4096, 0);
            let read = rustix::io::read(&file, &mut into[length..])?;
            length += read;
            if read < 4096 || length >= MOST {
                into.truncate(length);
                return Ok(());
            }
        }
    }

    fn open(&self, name: &str) -> Result<OwnedFd> {
        openat(&self.proc, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
    }

    /// A file of /proc of any length, whole.
    pub(crate) fn read_all(&self, name: &str, into: &mut Vec<u8>) -> Result<()> {
        let file = self.open(name)?;
        let mut length = 0;
        while length < MOST {
            into.resize(length + 65_536, 0);
            match rustix::io::read(&file, &mut into[length..])? {
                0 => break,
                read => length += read,
            }
        }
        into.truncate(length);
        Ok(())
    }
}

/// Whether a line stays open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keep {
    Open,
    Nothing,
}

/// A line of /proc/PID/stat is shorter than the buffer, its name included.
fn pread_line(file: &OwnedFd, into: &mut Vec<u8>) -> Result<()> {
    into.resize(2048, 0);
    let length = rustix::io::pread(file, into.as_mut_slice(), 0)?;
    into.truncate(length);
    Ok(())
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
