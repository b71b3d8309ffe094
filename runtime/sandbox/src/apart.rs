//! A process that goes on in the place of this one, which waits for its end: for what is to be done afterwards.

use crate::at::At;
use crate::mapper::exit_code;
use crate::sys::{self, Fork};
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rlrun_spec::Failure;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Signal, WaitOptions, getpid, getppid, set_parent_process_death_signal, waitpid};
use std::os::fd::{AsFd, OwnedFd};

/// Which side of [`apart`] this is.
#[derive(Debug)]
pub enum Apart {
    /// The one that goes on.
    Here,
    /// The one that has waited; the other's exit code.
    Ended(u8),
}

/// Forks. The old process passes on the signals that it is sent, and returns when the new one has ended; the new one ends
/// with the old one.
///
/// # Errors
/// When there can be no further process.
pub fn apart() -> Result<Apart, Failure> {
    let (step, what) = ("run-apart", "the container");
    let mut before = SigSet::empty();
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&SigSet::all()), Some(&mut before)).map_err(std::io::Error::from).at(
        step,
        "block signals for",
        what,
    )?;
    let old = getpid();
    match sys::clone_stage(0).at(step, "start a process for", what)? {
        Fork::Child => {
            sigprocmask(SigmaskHow::SIG_SETMASK, Some(&before), None).map_err(std::io::Error::from).at(
                step,
                "unblock signals for",
                what,
            )?;
            set_parent_process_death_signal(Some(Signal::TERM)).at(step, "tie to", "the caller's life")?;
            // It may have died before.
            if getppid() == Some(old) { Ok(Apart::Here) } else { sys::exit_now(125) }
        }
        Fork::Parent { pid, pidfd } => {
            wait_for(&pidfd).at(step, "wait for", what)?;
            let status = waitpid(Some(pid), WaitOptions::empty()).at(step, "wait for", what)?;
            Ok(Apart::Ended(status.map_or(125, |(_, status)| exit_code(status))))
        }
    }
}

fn wait_for(pidfd: &OwnedFd) -> Result<(), Errno> {
    let error = |e: nix::Error| Errno::from_io_error(&std::io::Error::from(e)).unwrap_or(Errno::IO);
    let signals =
        SignalFd::with_flags(&SigSet::all(), SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).map_err(error)?;
    loop {
        let mut ready = [PollFd::new(pidfd, PollFlags::IN), PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN)];
        poll(&mut ready, None)?;
        if !ready[0].revents().is_empty() {
            return Ok(());
        }
        while let Some(signal) = signals.read_signal().map_err(error)? {
            // What the terminal sends, it sends to both.
            let by_kernel = signal.ssi_code > 0;
            let number = i32::try_from(signal.ssi_signo).unwrap_or_default();
            if !by_kernel && sys::send_signal(pidfd.as_fd(), number).is_err() {
                // It has ended: the next turn sees it.
            }
        }
    }
}
