//! The caller's terminal while the payload has one of its own: raw, so that every key reaches the payload, and put
//! back whatever happens.

use rlrun_spec::plan::Process;
use rlrun_spec::{Failure, Kind, Stage};
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};
use std::os::fd::OwnedFd;

/// The caller's terminal in raw mode; dropping it puts the old mode back.
pub(crate) struct RawTerminal {
    saved: Option<Termios>,
    /// The payload's, where this process has it.
    master: Option<OwnedFd>,
}

fn failure(operation: &str, errno: rustix::io::Errno) -> Failure {
    Failure::new(Stage::Supervisor, Kind::Runtime, "terminal", operation, "the terminal").errno(errno.raw_os_error())
}

impl RawTerminal {
    /// Takes the terminal over when the payload has one; the mode changes only when keys are passed on.
    pub(crate) fn enter(process: &Process, master: Option<&OwnedFd>) -> Result<Option<Self>, Failure> {
        let Some(master) = master else { return Ok(None) };
        let master = rustix::io::fcntl_dupfd_cloexec(master, 3).map_err(|e| failure("share", e))?;
        let mut terminal = RawTerminal::of_caller(process.interactive)?;
        terminal.master = Some(master);
        terminal.resize()?;
        Ok(Some(terminal))
    }

    /// Takes the terminal over for a payload that another process looks after.
    pub(crate) fn of_caller(passes_keys: bool) -> Result<Self, Failure> {
        let stdin = std::io::stdin();
        let mut terminal = RawTerminal { saved: None, master: None };
        if passes_keys && isatty(&stdin) {
            let saved = tcgetattr(&stdin).map_err(|e| failure("read the mode of", e))?;
            let mut raw = saved.clone();
            raw.make_raw();
            tcsetattr(&stdin, OptionalActions::Now, &raw).map_err(|e| failure("set the mode of", e))?;
            terminal.saved = Some(saved);
        }
        Ok(terminal)
    }

    /// Rows and columns of the caller's terminal, if there is one.
    pub(crate) fn size() -> Option<(u16, u16)> {
        let size = tcgetwinsize(std::io::stdin()).or_else(|_| tcgetwinsize(std::io::stdout())).ok()?;
        Some((size.ws_row, size.ws_col))
    }

    /// Gives the payload's terminal the size of the caller's, if there is one.
    pub(crate) fn resize(&self) -> Result<(), Failure> {
        let size = tcgetwinsize(std::io::stdin()).or_else(|_| tcgetwinsize(std::io::stdout()));
        match size {
            Ok(size) => self
                .master
                .as_ref()
                .map_or(Ok(()), |master| tcsetwinsize(master, size))
                .map_err(|e| failure("resize", e)),
            // Neither is a terminal: the payload keeps the size it has.
            Err(_) => Ok(()),
        }
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        if let Some(saved) = &self.saved
            && tcsetattr(std::io::stdin(), OptionalActions::Now, saved).is_err()
        {
            // The terminal was closed: nobody is left to see its mode.
        }
    }
}
