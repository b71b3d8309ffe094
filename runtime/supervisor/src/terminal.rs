//! The caller's terminal while the payload has one of its own: raw, so that every key reaches the payload, and put
//! back whatever happens.

use rlrun_spec::plan::Process;
use rlrun_spec::{Failure, Kind, Stage};
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetsid, tcgetwinsize, tcsetattr, tcsetwinsize};
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

/// The terminal of somebody who attached, before he made it raw.
pub(crate) struct Screen {
    terminal: OwnedFd,
    before: Termios,
}

impl Screen {
    /// None where it is no terminal, or this process's own: a shell's job control would stop whoever sets its mode.
    pub(crate) fn of_guest(output: &OwnedFd) -> Option<Screen> {
        let before = tcgetattr(output).ok()?;
        // ENOTTY: it is not the controlling terminal of this process (ioctl_tty(2)).
        if tcgetsid(output).is_ok() {
            return None;
        }
        Some(Screen { terminal: output.try_clone().ok()?, before })
    }

    /// Puts back what somebody who was killed has left raw. Whoever went by himself has done it, and a shell may have
    /// set another mode since.
    pub(crate) fn put_back(self) {
        let mut raw = self.before.clone();
        raw.make_raw();
        let is_raw = tcgetattr(&self.terminal).is_ok_and(|now| modes(&now) == modes(&raw));
        if is_raw && tcsetattr(&self.terminal, OptionalActions::Now, &self.before).is_err() {
            // The terminal was closed: nobody is left to see its mode.
        }
    }
}

fn modes(of: &Termios) -> (u32, u32, u32, u32) {
    (of.input_modes.bits(), of.output_modes.bits(), of.control_modes.bits(), of.local_modes.bits())
}
