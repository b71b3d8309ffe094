//! Two processes for a command that the caller may leave: one is the command's parent and relays, as long as anybody
//! looks, and beyond; the other is the one that the caller waits for, and ends when the command is left.

use super::failure;
use crate::signals::{Signals, convert};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rlrun_sandbox::exit_code;
use rlrun_sandbox::sys::{self, Fork};
use rlrun_spec::Failure;
use rustix::process::{Signal, getppid, pidfd_send_signal, set_parent_process_death_signal};
use std::os::fd::{AsFd, OwnedFd};

/// The process that the caller waits for, as the other one sees it.
pub(super) struct Companion {
    /// A byte in it means that the command was left.
    left: OwnedFd,
}

fn failed(operation: &str, errno: rustix::io::Errno) -> Failure {
    failure("detach", operation, "the process that the caller waits for").errno(errno.raw_os_error())
}

/// Returns in a new process, in the caller's session and process group. This one goes on to stand for it.
pub(super) fn fork(signals: &Signals) -> Result<Companion, Failure> {
    let (theirs, left) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(|e| failed("reach", e))?;
    let parent = rustix::process::getpid();
    match sys::clone_stage(0).map_err(|e| failed("leave", e))? {
        Fork::Parent { pidfd, .. } => {
            drop(left);
            sys::exit_now(stand_for(&pidfd, &theirs, signals))
        }
        Fork::Child => {
            drop(theirs);
            // A caller that is killed takes the relays with it, as if there were one process.
            set_parent_process_death_signal(Some(Signal::KILL)).map_err(|e| failed("follow", e))?;
            if getppid() != Some(parent) {
                sys::exit_now(125);
            }
            Ok(Companion { left })
        }
    }
}

/// Passes signals on until the other process ends, and is its exit code; or until the command is left. A signal to the
/// whole process group reaches the other one twice: the kernel does not tell how it was sent.
fn stand_for(other: &OwnedFd, left: &OwnedFd, signals: &Signals) -> u8 {
    loop {
        let mut fds = [signals.as_fd(), left.as_fd(), other.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        if poll(&mut fds, PollTimeout::NONE).is_err() {
            // Interrupted; there is nothing else that could be wrong with these.
            continue;
        }
        let [signalled, told, ended] = fds.map(|fd| fd.any().unwrap_or(true));
        if signalled {
            let passed = signals.take(|signal| {
                // Of a new size the terminal tells its whole process group.
                if let Some(signal) = convert(signal).filter(|signal| *signal != Signal::WINCH)
                    && pidfd_send_signal(other, signal).is_err()
                {
                    // It has ended, which comes next.
                }
                Ok(())
            });
            if passed.is_err() {
                return 125;
            }
        }
        if told && rustix::io::read(left, &mut [0; 1]).is_ok_and(|count| count == 1) {
            return 0;
        }
        if ended {
            return exit_code(other).unwrap_or(125);
        }
    }
}

impl Companion {
    /// The command was left: the caller's process ends with success, and this one stays.
    pub(super) fn leave(self) -> Result<(), Failure> {
        set_parent_process_death_signal(None).map_err(|e| failed("stay without", e))?;
        rustix::io::write(&self.left, b"l").map(drop).map_err(|e| failed("tell", e))
    }
}
