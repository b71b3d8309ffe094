//! Signals for the payload: blocked, read from a descriptor, passed on. Job control (TSTP, TTIN, TTOU, CONT) stays
//! with the caller's shell.

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rlrun_spec::{Failure, Kind, Stage};
use rustix::process::Signal as RustixSignal;
use std::os::fd::{AsFd, BorrowedFd};

/// The blocked signals.
pub(crate) struct Signals(SignalFd);

fn failure(operation: &str, errno: nix::errno::Errno) -> Failure {
    Failure::new(Stage::Supervisor, Kind::Runtime, "signals", operation, "signals").errno(errno as i32)
}

impl Signals {
    /// Blocks what is to be passed on. Stages inherit the mask, and the payload gets an empty one.
    pub(crate) fn block() -> Result<Self, Failure> {
        let mut set = SigSet::empty();
        for signal in [
            Signal::SIGHUP,
            Signal::SIGINT,
            Signal::SIGQUIT,
            Signal::SIGTERM,
            Signal::SIGUSR1,
            Signal::SIGUSR2,
            Signal::SIGALRM,
            Signal::SIGWINCH,
        ] {
            set.add(signal);
        }
        set.thread_block().map_err(|e| failure("block", e))?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        SignalFd::with_flags(&set, flags).map(Signals).map_err(|e| failure("receive", e))
    }

    /// Hands every waiting signal to `deliver`.
    pub(crate) fn take(&self, mut deliver: impl FnMut(Signal) -> Result<(), Failure>) -> Result<(), Failure> {
        while let Some(info) = self.0.read_signal().map_err(|e| failure("receive", e))? {
            let number = i32::try_from(info.ssi_signo).unwrap_or(0);
            if let Ok(signal) = Signal::try_from(number) {
                deliver(signal)?;
            }
        }
        Ok(())
    }

    /// Whether one that means "stop" came; a change of window size does not.
    pub(crate) fn pending(&self) -> Result<bool, Failure> {
        let mut stop = false;
        self.take(|signal| {
            stop |= signal != Signal::SIGWINCH;
            Ok(())
        })?;
        Ok(stop)
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The same signal in the sandbox's vocabulary.
pub(crate) fn convert(signal: Signal) -> Option<RustixSignal> {
    RustixSignal::from_named_raw(signal as i32)
}
