//! Somebody who is attached to a container that another supervisor looks after. What the container writes goes to this
//! process's output without passing through it; what is typed is looked at here for the keys that leave, and passed on.

use crate::keys::Keys;
use crate::relay::{Relay, Sink};
use crate::run::{failure, wait};
use crate::signals::Signals;
use crate::terminal::RawTerminal;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::signal::Signal;
use rlrun_sandbox::CONNECTION_FD;
use rlrun_sandbox::control::{Connection, Received};
use rlrun_sandbox::sys::take_inherited;
use rlrun_spec::attach::Attach;
use rlrun_spec::supervision::{Reply, Request};
use rlrun_spec::{Failure, Kind};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// The supervisor answers between two turns of its loop; it may be in the middle of a start.
const PATIENCE: Duration = Duration::from_secs(90);

/// The other side of the container's streams.
struct Attached<'a> {
    attach: &'a Attach,
    connection: Connection,
    raw: Option<RawTerminal>,
    input: Option<Relay>,
}

/// Attaches; the exit code is the container's, or 0 when the keys that leave it were typed.
pub(crate) fn run(attach: &Attach) -> Result<u8, Failure> {
    rustix::thread::set_name(c"rlrun:attach").map_err(|e| about(attach).errno(e.raw_os_error()))?;
    let signals = Signals::block()?;
    let connection = if attach.accompanies {
        take_inherited(CONNECTION_FD).map_err(|e| about(attach).errno(e.raw_os_error()))?.into()
    } else {
        Connection::to(&attach.directory)
            .map_err(|e| about(attach).errno(e.raw_os_error()).hint(format!("rlrun start {} starts it", attach.name)))?
    };
    let mut attached = Attached { attach, connection, raw: None, input: None };
    let code = match attached.begin(&signals)? {
        Some(code) => Ok(code),
        None => attached.until_end(&signals),
    };
    // The caller's terminal is put back before anything is said about the end.
    drop(attached);
    code
}

fn about(attach: &Attach) -> Failure {
    failure("attach", "attach to", &attach.name)
}

impl Attached<'_> {
    /// The exit code, where a signal came before anything else.
    fn begin(&mut self, signals: &Signals) -> Result<Option<u8>, Failure> {
        let attach = self.attach;
        let failed = |e: std::io::Error| about(attach).why(e.to_string());
        let (stdout, stderr) = (std::io::stdout(), std::io::stderr());
        let mut descriptors = vec![stdout.as_fd(), stderr.as_fd()];
        let pipe = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(|e| failed(e.into()))?;
        let (theirs, ours): (OwnedFd, OwnedFd) = pipe;
        if attach.input {
            descriptors.push(theirs.as_fd());
        }
        if attach.accompanies {
            // A payload that looks at once sees the right size.
            self.resize()?;
        }
        self.connection.send(&Request::Attach, &descriptors)?;
        if let Some(code) = self.interrupted(signals)? {
            return Ok(Some(code));
        }
        let (terminal, input) = match self.connection.receive::<Reply>(Some(PATIENCE))? {
            Received::Message(Reply::Attached { terminal, input }, _) => (terminal, input),
            Received::Message(Reply::Refused(failure) | Reply::Failed(failure), _) => return Err(*failure),
            Received::Message(..) => return Err(about(attach).why("its supervisor answers something else")),
            Received::End => return Err(about(attach).why("it has just ended")),
            Received::Nothing => return Err(about(attach).why("its supervisor does not answer")),
        };
        if attach.input && input {
            let stdin = std::io::stdin().as_fd().try_clone_to_owned().map_err(failed)?;
            let mut relay = Relay::input(stdin, ours, Sink::Pipe)?;
            if terminal {
                relay.leave_by(Keys::new(&attach.detach_keys));
            }
            self.input = Some(relay);
        }
        if terminal {
            self.raw = Some(RawTerminal::of_caller(attach.input && input)?);
            self.resize()?;
        }
        Ok(None)
    }

    /// Waits for the answer; the exit code if a signal that ends this process comes first.
    fn interrupted(&self, signals: &Signals) -> Result<Option<u8>, Failure> {
        let end = Instant::now() + PATIENCE;
        loop {
            let mut fds = [
                PollFd::new(self.connection.as_fd(), PollFlags::POLLIN),
                PollFd::new(signals.as_fd(), PollFlags::POLLIN),
            ];
            let now = Instant::now();
            wait(&mut fds, crate::fate::until(end, now))?;
            if fds[0].any().unwrap_or(true) || now >= end {
                return Ok(None);
            }
            let mut own = None;
            signals.take(|signal| {
                own = if signal == Signal::SIGWINCH { own } else { u8::try_from(128 + signal as i32).ok() };
                Ok(())
            })?;
            if own.is_some() {
                return Ok(own);
            }
        }
    }

    fn resize(&self) -> Result<(), Failure> {
        match RawTerminal::size() {
            Some((rows, columns)) => self.connection.send(&Request::Resize { rows, columns }, &[]),
            None => Ok(()),
        }
    }

    fn until_end(&mut self, signals: &Signals) -> Result<u8, Failure> {
        loop {
            let mut fds = vec![
                PollFd::new(signals.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.connection.as_fd(), PollFlags::POLLIN),
            ];
            fds.extend(self.input.iter().map(Relay::poll_fd));
            let due = self.input.as_ref().and_then(Relay::due);
            wait(&mut fds, due.map_or(PollTimeout::NONE, |at| crate::fate::until(at, Instant::now())))?;
            let ready: Vec<bool> = fds.iter().map(|fd| fd.any().unwrap_or(true)).collect();
            drop(fds);
            if ready[0]
                && let Some(signal) = self.take_signals(signals)?
            {
                return self.leave().map(|()| signal);
            }
            if ready[1]
                && let Some(code) = self.hear()?
            {
                return Ok(code);
            }
            if self.type_on(ready.get(2) == Some(&true))? {
                return self.leave().map(|()| 0);
            }
        }
    }

    /// Says that the container is to go on.
    fn leave(&self) -> Result<(), Failure> {
        if self.attach.accompanies { self.connection.send(&Request::Leave, &[]) } else { Ok(()) }
    }

    /// The exit code of this process, if a signal is for it and not for the container: the terminal is put back first.
    fn take_signals(&self, signals: &Signals) -> Result<Option<u8>, Failure> {
        let mut own = None;
        signals.take(|signal| match signal {
            Signal::SIGWINCH => self.resize(),
            signal if self.attach.sig_proxy => self.connection.send(&Request::Signal(signal as i32), &[]),
            signal => {
                own = u8::try_from(128 + signal as i32).ok();
                Ok(())
            }
        })?;
        Ok(own)
    }

    /// The container's exit code, once it has ended.
    fn hear(&mut self) -> Result<Option<u8>, Failure> {
        match self.connection.receive::<Reply>(Some(Duration::ZERO))? {
            Received::Message(Reply::Ended(code), _) => {
                // Nothing is left of the container when the connection ends; one that starts again says so.
                self.connection.receive::<Reply>(Some(PATIENCE))?;
                Ok(Some(code))
            }
            Received::Message(Reply::Failed(failure), _) => Err(*failure),
            Received::Message(Reply::Left, _) => Err(Failure { kind: Kind::Runtime, ..about(self.attach) }
                .why("what it writes was not read for too long")
                .hint("the container goes on: rlrun logs shows what was missed, rlrun attach comes back to it")),
            Received::Message(..) | Received::Nothing => Ok(None),
            Received::End => Err(about(self.attach)
                .why("its supervisor was killed, and the container with it")
                .hint(format!("rlrun start {} starts it again, if it was not to be removed", self.attach.name))),
        }
    }

    /// Passes on what was typed; true when it was the keys that leave.
    fn type_on(&mut self, ready: bool) -> Result<bool, Failure> {
        let Some(input) = &mut self.input else { return Ok(false) };
        input.wake(Instant::now());
        let open = if ready { input.pump() } else { true };
        if input.left() {
            return Ok(true);
        }
        if !open {
            // First the word, then the end of the pipe, which alone would mean that this process was killed.
            self.connection.send(&Request::EndInput, &[])?;
            self.input = None;
        }
        Ok(false)
    }
}
