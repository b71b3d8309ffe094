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
        self.life = Life::Released;
        Ok(())
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
    fn a_log_becomes_one_harmless_line() {
        assert_eq!(printable(b"  open failed\n\n\x1b[2Jgone\t\xff\n"), "open failed; [2Jgone\u{fffd}");
        assert_eq!(printable(b""), "");
    }
}
