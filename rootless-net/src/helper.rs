//! A helper process: it says once when it is ready, ends when a pipe closes, and writes what went wrong into a bounded
//! log. Nothing here knows which helper it is.

use crate::error::NetError;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{Pid, pipe2};
use std::ffi::OsString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long a helper may take to end once its pipe is closed.
const GRACE: Duration = Duration::from_millis(500);
/// How many of init's children are looked at.
const CHILDREN: usize = 64;
/// How many dead helpers below init show that it does not reap: fewer may be about to be reaped, as an init that only
/// looks from time to time does, and waiting for each would cost every start some 20 ms.
const LEFT: usize = 8;
/// How much of its log is told.
const LOG_BYTES: usize = 4096;

/// A running helper. Dropping it kills the process.
#[derive(Debug)]
pub(crate) struct Helper {
    binary: PathBuf,
    child: Child,
    life: Life,
    ready: OwnedFd,
    log: OwnedFd,
    /// The helper ends when this end closes, as it does however the supervisor ends.
    exit: Option<OwnedFd>,
}

#[derive(Clone, Copy, Debug)]
enum Life {
    /// To be ended and reaped here.
    Ours,
    /// Gone; how, unless somebody else reaped it.
    Reaped(Option<ExitStatus>),
    /// Killed and left to init.
    Released,
}

/// What the arguments of a helper name.
pub(crate) struct Ends {
    /// The helper writes one byte to this descriptor when it is ready.
    pub(crate) ready: i32,
    /// The helper ends when this descriptor hangs up.
    pub(crate) exit: i32,
}

impl Helper {
    /// Starts `binary` in `directory` with nothing but its own ends of three pipes.
    pub(crate) fn spawn(
        binary: &Path,
        directory: &Path,
        args: impl FnOnce(Ends) -> Vec<OsString>,
    ) -> Result<Self, NetError> {
        let (ready, ready_child) = new_pipe(OFlag::O_CLOEXEC)?;
        let (exit_child, exit) = new_pipe(OFlag::O_CLOEXEC)?;
        // The pipe's own size bounds the log: a helper that writes more gets EAGAIN and goes on, and nobody has to drain it.
        let (log, log_child) = new_pipe(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        let log_twin = log_child.try_clone().map_err(|e| spawn_error(binary, &e))?;
        // Safe from leaking into another child: this process has one thread and forks nothing else before the descriptor
        // is closed below.
        fcntl(&ready_child, FcntlArg::F_SETFD(FdFlag::empty())).map_err(pipe_error)?;

        let mut command = Command::new(binary);
        command.args(args(Ends { ready: ready_child.as_raw_fd(), exit: 0 }));
        command.env_clear().current_dir(directory);
        command.stdin(Stdio::from(exit_child)).stdout(Stdio::from(log_child)).stderr(Stdio::from(log_twin));
        let spawned = command.spawn().map_err(|e| spawn_error(binary, &e));
        // The command holds the helper's ends; as long as they are open here no end of file arrives.
        drop(command);
        drop(ready_child);
        Ok(Helper { binary: binary.to_owned(), child: spawned?, life: Life::Ours, ready, log, exit: Some(exit) })
    }

    pub(crate) fn ready_fd(&self) -> BorrowedFd<'_> {
        self.ready.as_fd()
    }

    pub(crate) fn death_fd(&self) -> Option<BorrowedFd<'_>> {
        self.exit.as_ref().map(AsFd::as_fd)
    }

    pub(crate) fn binary(&self) -> &Path {
        &self.binary
    }

    pub(crate) fn pid(&self) -> Pid {
        // Linux pids fit in 22 bits (PID_MAX_LIMIT, proc_sys_kernel(5)).
        Pid::from_raw(i32::try_from(self.child.id()).unwrap_or(i32::MAX))
    }

    /// True when the helper said that it is ready, false when it closed the pipe without a word.
    pub(crate) fn read_ready(&self) -> Result<bool, NetError> {
        let mut byte = [0];
        loop {
            match nix::unistd::read(&self.ready, &mut byte) {
                Ok(count) => return Ok(count == 1),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(pipe_error(errno)),
            }
        }
    }

    /// Reaps a helper that has ended or is about to, and tells how and what it wrote.
    pub(crate) fn autopsy(&mut self) -> (String, String) {
        // An error here would hide the log, which says more.
        let status = self.reap().ok().flatten().map_or_else(|| "unknown status".to_owned(), |s| s.to_string());
        (status, self.read_log())
    }

    fn read_log(&self) -> String {
        let mut bytes = [0; LOG_BYTES];
        // EAGAIN: it wrote nothing. Anything else leaves the log empty, and the caller has an error to tell already.
        let count = nix::unistd::read(&self.log, &mut bytes).unwrap_or(0);
        printable(bytes.get(..count).unwrap_or_default())
    }

    /// Asks the helper to end.
    fn hang_up(&mut self) {
        self.exit = None;
    }

    /// Ends and reaps the helper. Calling it again does nothing.
    pub(crate) fn stop(&mut self) -> Result<(), NetError> {
        self.hang_up();
        self.reap().map(drop)
    }

    /// Makes sure that the helper ends, and does not wait until it has.
    pub(crate) fn release(mut self) -> Result<(), NetError> {
        self.hang_up();
        if matches!(self.life, Life::Ours) && !hung_up(self.log.as_fd(), Duration::ZERO)? {
            self.kill()?;
        }
        let name = self.binary.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if init_reaps(&name) {
            self.life = Life::Released;
            return Ok(());
        }
        // As in a container whose first process is `sleep infinity`: what is left to that stays for ever. Waiting for
        // the first one too would cost every start on hosts whose init does reap.
        self.reap().map(drop)
    }

    /// Waits a moment for the end, then kills; `None` when somebody else has reaped it.
    fn reap(&mut self) -> Result<Option<ExitStatus>, NetError> {
        match self.life {
            Life::Ours => {}
            Life::Reaped(status) => return Ok(status),
            Life::Released => return Ok(None),
        }
        if !hung_up(self.log.as_fd(), GRACE)? {
            self.kill()?;
        }
        let status = match self.child.wait() {
            Ok(status) => Some(status),
            Err(error) if error.raw_os_error() == Some(Errno::ECHILD as i32) => None,
            Err(error) => {
                return Err(NetError::system("slirp-stop", "wait for the network helper", self.name(), &error));
            }
        };
        self.life = Life::Reaped(status);
        Ok(status)
    }

    /// For a helper whose log has not hung up: it lives, so the pid is its own.
    fn kill(&mut self) -> Result<(), NetError> {
        let killed = self.child.kill();
        killed.map_err(|e| NetError::system("slirp-stop", "kill the network helper", self.name(), &e))
    }

    fn name(&self) -> String {
        self.binary.display().to_string()
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        // Errors were reported by `stop`, or an earlier error is on its way already.
        self.stop().ok();
    }
}

/// Whether pid 1 waits for what is left to it. One that neither catches, blocks nor ignores SIGCHLD may all the same; the
/// proof that it does not are [`LEFT`] helpers that are there as zombies.
fn init_reaps(helper: &str) -> bool {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    // Unreadable with hidepid: an ordinary host's, with an ordinary init.
    let status = read("/proc/1/status");
    if status.is_empty() || heeds_children(&status) {
        return true;
    }
    let children = read("/proc/1/task/1/children");
    let newest = children.split_whitespace().rev().take(CHILDREN);
    newest.filter(|pid| is_zombie(&read(&format!("/proc/{pid}/stat")), helper)).take(LEFT).count() < LEFT
}

/// From `/proc/PID/stat`; the kernel cuts names to 15 bytes.
fn is_zombie(stat: &str, name: &str) -> bool {
    let named = stat.split_once('(').and_then(|(_, rest)| rest.rsplit_once(") "));
    named.is_some_and(|(comm, state)| state.starts_with('Z') && !comm.is_empty() && name.starts_with(comm))
}

/// From the lines `SigBlk`, `SigIgn` and `SigCgt` of `/proc/PID/status` (proc_pid_status(5)).
fn heeds_children(status: &str) -> bool {
    const SIGCHLD: u64 = 1 << (nix::libc::SIGCHLD - 1);
    let masks = status.lines().filter_map(|line| {
        let (name, mask) = line.split_once(':')?;
        ["SigBlk", "SigIgn", "SigCgt"].contains(&name).then(|| u64::from_str_radix(mask.trim(), 16).ok())?
    });
    masks.fold(0, |all, mask| all | mask) & SIGCHLD != 0
}

/// Waits until the last writer of a pipe is gone.
fn hung_up(fd: BorrowedFd<'_>, patience: Duration) -> Result<bool, NetError> {
    let deadline = Instant::now() + patience;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
        let mut fds = [PollFd::new(fd, PollFlags::empty())];
        match poll(&mut fds, timeout) {
            Ok(count) => return Ok(count > 0),
            Err(Errno::EINTR) => {}
            Err(errno) => {
                return Err(NetError::system("slirp-stop", "wait for the network helper", "", errno));
            }
        }
    }
}

fn new_pipe(flags: OFlag) -> Result<(OwnedFd, OwnedFd), NetError> {
    pipe2(flags).map_err(pipe_error)
}

fn pipe_error(errno: Errno) -> NetError {
    NetError::system("slirp-start", "make a pipe to the network helper", "", errno)
}

fn spawn_error(binary: &Path, error: &std::io::Error) -> NetError {
    if error.kind() == std::io::ErrorKind::NotFound {
        return NetError::HelperMissing { binary: binary.to_owned() };
    }
    NetError::system("slirp-start", "start the network helper", binary.display().to_string(), error)
}

/// The helper's words in one line that cannot drive the user's terminal.
fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let mut out = String::new();
    for line in lines {
        if !out.is_empty() {
            out.push_str("; ");
        }
        out.extend(line.chars().filter(|c| !c.is_control()));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_init_that_has_thought_of_its_children_shows_it() {
        let status = |blocked: &str, caught: &str| {
            format!(
                "Name:\tinit\nSigPnd:\tffffffffffffffff\nSigBlk:\t{blocked}\nSigIgn:\t0000000000001000\nSigCgt:\t{caught}\n"
            )
        };
        // `sleep infinity`, a shell, systemd with its signalfd.
        assert!(!heeds_children(&status("0000000000000000", "0000000000000000")));
        assert!(heeds_children(&status("0000000000000000", "0000000000010002")));
        assert!(heeds_children(&status("7be3c0fe28014a03", "0000000000000000")));
        assert!(!heeds_children(""));
        assert!(is_zombie("7 (slirp4netns) Z 1 7 7 0 -1", "slirp4netns"));
        assert!(is_zombie("7 (very-long-helpe) Z 1 7 7", "very-long-helper-name"));
        assert!(!is_zombie("7 (slirp4netns) S 1 7 7 0 -1", "slirp4netns"));
        assert!(!is_zombie("7 (other) Z 1 7 7 0 -1", "slirp4netns"));
        assert!(!is_zombie("", "slirp4netns"));
    }

    #[test]
    fn a_log_becomes_one_harmless_line() {
        assert_eq!(printable(b"  open failed\n\n\x1b[2Jgone\t\xff\n"), "open failed; [2Jgone\u{fffd}");
        assert_eq!(printable(b""), "");
    }
}
