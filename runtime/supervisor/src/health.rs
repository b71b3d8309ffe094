//! The container's health checks. Each is made by a process of its own, which starts the check's command in the
//! container as `exec` does and reads what it says: nothing that a check does can hold up the container's streams.

use crate::book;
use crate::relay::ready as is_ready;
use crate::run::failure as failed_at;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rlrun_journal::quoted;
use rlrun_sandbox::sys::{self, Fork};
use rlrun_sandbox::{Joined, Streams};
use rlrun_spec::Failure;
use rlrun_spec::health::{Consequence, HEALTH, Health, KEPT_OUTPUT, Outcome, Record};
use rlrun_spec::plan::Launch;
use rlrun_spec::time::timestamp;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, set_parent_process_death_signal, waitpid};
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// The exit code of a check that took too long, as docker tells it.
const TIMED_OUT: i32 = -1;

/// The checks of a running container.
pub(crate) struct Checks<'a> {
    health: &'a Health,
    launch: &'a Launch,
    pub(crate) record: Record,
    began: Instant,
    next: Option<Instant>,
    running: Option<Check>,
    /// Who is to be told how the next check went.
    pub(crate) asking: Vec<u64>,
    file: PathBuf,
}

/// One that is being made.
struct Check {
    process: Pid,
    result: OwnedFd,
    started: u64,
    age: Duration,
    bytes: Vec<u8>,
}

impl<'a> Checks<'a> {
    /// None where nothing is checked. The container has just started.
    pub(crate) fn of(launch: &'a Launch, now: Instant) -> Option<Checks<'a>> {
        let health = launch.facts.life.health.as_ref()?;
        let file = launch.facts.container_dir.join(HEALTH);
        let mut checks = Checks {
            health,
            launch,
            record: Record::new(health),
            began: now,
            next: None,
            running: None,
            asking: Vec::new(),
            file,
        };
        checks.next = checks.interval().map(|interval| now + interval);
        checks.write();
        Some(checks)
    }

    fn interval(&self) -> Option<Duration> {
        match (&self.health.startup, self.record.is_starting_up()) {
            (Some(startup), true) => Some(Duration::from_millis(startup.interval_ms)),
            _ => self.health.interval_ms.map(Duration::from_millis),
        }
    }

    /// When something is to be done that nothing else wakes this process for.
    pub(crate) fn due(&self) -> Option<Instant> {
        if self.running.is_some() { None } else { self.next }
    }

    /// What to wait for.
    pub(crate) fn poll_fd(&self) -> Option<PollFd<'_>> {
        self.running.as_ref().map(|check| PollFd::new(check.result.as_fd(), PollFlags::POLLIN))
    }

    /// This client wants to know how it is now.
    pub(crate) fn ask(&mut self, client: u64) {
        self.asking.push(client);
        self.next = Some(self.began);
    }

    /// Begins the check that is due, in the container whose pid 1 is `init`. A paused container cannot answer.
    pub(crate) fn begin(&mut self, init: BorrowedFd<'_>, paused: bool, now: Instant) -> Result<(), Failure> {
        if paused || self.running.is_some() || self.next.is_none_or(|next| next > now) {
            return Ok(());
        }
        let failed = |errno: rustix::io::Errno| {
            failed_at("health", "start a health check of", &self.launch.name).errno(errno.raw_os_error())
        };
        let (result, tell) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(failed)?;
        let (command, timeout_ms) = match (&self.health.startup, self.record.is_starting_up()) {
            (Some(startup), true) => (&startup.command, startup.timeout_ms),
            _ => (&self.health.command, self.health.timeout_ms),
        };
        let process = match sys::clone_stage(0).map_err(failed)? {
            Fork::Child => check(self.launch, command, Duration::from_millis(timeout_ms), init, tell),
            Fork::Parent { pid, .. } => pid,
        };
        drop(tell);
        self.next = None;
        let age = now.saturating_duration_since(self.began);
        let started = book::now();
        self.running = Some(Check { process, result, started, age, bytes: Vec::new() });
        Ok(())
    }

    /// Reads what the check says; its consequence when it is over.
    pub(crate) fn take(&mut self, paused: bool, now: Instant) -> Option<Consequence> {
        let check = self.running.as_mut()?;
        let mut chunk = [0; 1024];
        match rustix::io::read(&check.result, &mut chunk) {
            Ok(0) => {}
            Ok(n) => {
                check.bytes.extend_from_slice(&chunk[..n]);
                return None;
            }
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => return None,
            Err(_) => {}
        }
        let check = self.running.take()?;
        if waitpid(Some(check.process), WaitOptions::empty()).is_err() {
            // Somebody else reaped it: it is gone, which is all that matters.
        }
        // Killed before it could say anything, with memory short for instance: that is no health either.
        let code = check.bytes.get(..4).and_then(|code| code.try_into().ok()).map_or(125, i32::from_ne_bytes);
        let output = check.bytes.get(4..).unwrap_or_default().to_vec();
        let outcome = Outcome { started: check.started, ended: book::now(), exit_code: code, output };
        // While it was paused the check could not answer.
        let consequence = if paused && code == TIMED_OUT {
            None
        } else {
            let age = u64::try_from(check.age.as_millis()).unwrap_or(u64::MAX);
            Some(self.record.take(self.health, outcome, age))
        };
        self.next = self.interval().map(|interval| now + interval);
        self.write();
        consequence
    }

    /// Writes what is known, aside and whole. A disk that is full must not end the container: the state still tells.
    fn write(&self) {
        let text = self.record.render(&|nanos| timestamp(Duration::from_nanos(nanos)), &quoted);
        let temporary = self.file.with_extension("new");
        let written = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .and_then(|()| fs::rename(&temporary, &self.file));
        if written.is_err() {
            // Said above.
        }
    }
}

impl Drop for Checks<'_> {
    fn drop(&mut self) {
        // The check's command ends with the container.
        if let Some(check) = self.running.take()
            && kill_process(check.process, Signal::KILL)
                .and_then(|()| waitpid(Some(check.process), WaitOptions::empty()))
                .is_err()
        {
            // It is gone.
        }
    }
}

/// In a process of its own: makes one check, tells its exit code and its output, ends.
fn check(launch: &Launch, command: &[String], timeout: Duration, init: BorrowedFd<'_>, tell: OwnedFd) -> ! {
    let alone = set_parent_process_death_signal(Some(Signal::KILL))
        .and_then(|()| sys::close_others(&[init.as_raw_fd(), tell.as_raw_fd()]));
    let mut launch = launch.clone();
    command.clone_into(&mut launch.process.args);
    (launch.process.terminal, launch.process.interactive) = (false, false);
    let (code, output) = match alone {
        Ok(()) => made(&launch, timeout, init)
            .unwrap_or_else(|failure| (i32::from(failure.kind.exit_code()), failure.to_string().into_bytes())),
        Err(errno) => (125, errno.to_string().into_bytes()),
    };
    let mut bytes = code.to_ne_bytes().to_vec();
    bytes.extend_from_slice(&output[..output.len().min(KEPT_OUTPUT)]);
    let told = rustix::io::write(&tell, &bytes);
    sys::exit_now(u8::from(told.is_err()))
}

fn made(launch: &Launch, timeout: Duration, init: BorrowedFd<'_>) -> Result<(i32, Vec<u8>), Failure> {
    let end = Instant::now() + timeout;
    let (mut joined, streams) = Joined::start(launch, init, Vec::new())?;
    joined.proceed()?;
    let Streams { stdout, stderr, .. } = streams;
    let mut open: Vec<OwnedFd> = stdout.into_iter().chain(stderr).collect();
    let mut output = Vec::new();
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            joined.kill_group()?;
            output.truncate(KEPT_OUTPUT / 2);
            output.extend_from_slice(format!("health check exceeded timeout ({} ms)", timeout.as_millis()).as_bytes());
            return Ok((TIMED_OUT, output));
        }
        let mut fds = vec![PollFd::new(joined.ended(), PollFlags::POLLIN)];
        fds.extend(open.iter().map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN)));
        let millis = left.as_micros().div_ceil(1000);
        if poll(&mut fds, PollTimeout::from(u16::try_from(millis).unwrap_or(u16::MAX))).is_err() {
            continue;
        }
        let ready: Vec<bool> = fds.iter().map(|fd| fd.any().unwrap_or(true)).collect();
        drop(fds);
        let mut turn = ready[1..].iter();
        open.retain(|fd| turn.next() != Some(&true) || read_some(fd, &mut output));
        if ready[0] {
            // What it wrote is still in the pipes; what a child of its still writes is not waited for.
            for fd in &open {
                while is_ready(fd, PollFlags::POLLIN) && read_some(fd, &mut output) {}
            }
            return joined.exit_code().map(|code| (i32::from(code), output));
        }
    }
}

/// False at the end of the stream. What is more than is kept is read all the same, so that the command does not wait.
fn read_some(fd: &OwnedFd, output: &mut Vec<u8>) -> bool {
    let mut chunk = [0; 4096];
    match rustix::io::read(fd, &mut chunk) {
        Ok(0) => false,
        Ok(n) => {
            let room = KEPT_OUTPUT.saturating_sub(output.len());
            output.extend_from_slice(&chunk[..n.min(room)]);
            true
        }
        Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => true,
        Err(_) => false,
    }
}
