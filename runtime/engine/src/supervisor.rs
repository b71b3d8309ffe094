//! Asking the supervisor of a running container for something, and waiting for its end.

use crate::containers::Container;
use crate::record::lock;
use rlrun_sandbox::control::{Connection, Received};
use rlrun_spec::protocol::{self, Answer};
use rlrun_spec::state::STATE;
use rlrun_spec::supervision::{Reply, Request};
use rlrun_spec::{Failure, Kind, Stage, State};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::fs;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a supervisor may take to answer: it may be in the middle of a start, whose steps have deadlines.
const PATIENCE: Duration = Duration::from_secs(90);
/// Between two looks at something that tells nobody when it changes.
const INTERVAL: Duration = Duration::from_millis(10);

/// A connection to the supervisor of one container.
pub struct Supervisor {
    connection: Connection,
    directory: PathBuf,
    name: String,
    patience: Duration,
}

impl Supervisor {
    /// Connects; None when nobody looks after the container.
    ///
    /// # Errors
    /// When somebody does and cannot be reached.
    pub fn of(container: &Container) -> Result<Option<Supervisor>, Failure> {
        Supervisor::within(container, PATIENCE)
    }

    /// The same, where neither connecting nor any answer may take longer than `patience`.
    ///
    /// # Errors
    /// As [`Supervisor::of`].
    pub fn within(container: &Container, patience: Duration) -> Result<Option<Supervisor>, Failure> {
        let (directory, name) = (&container.directory, &container.summary.name);
        let end = Instant::now() + patience;
        loop {
            match Connection::to(directory) {
                Ok(connection) => {
                    let (directory, name) = (directory.clone(), name.clone());
                    return Ok(Some(Supervisor { connection, directory, name, patience }));
                }
                // The command that starts it holds the lock before there is a supervisor that listens.
                Err(Errno::NOENT | Errno::CONNREFUSED) if lock::is_held(directory) && Instant::now() < end => {
                    std::thread::sleep(INTERVAL);
                }
                Err(Errno::NOENT | Errno::CONNREFUSED) if !lock::is_held(directory) => return Ok(None),
                Err(errno) => return Err(silent(name).errno(errno.raw_os_error())),
            }
        }
    }

    /// Asks for something and waits until it is done or begun.
    ///
    /// # Errors
    /// The supervisor's own, or when it does not answer.
    pub fn ask(&self, request: &Request, descriptors: &[BorrowedFd<'_>]) -> Result<(), Failure> {
        match self.reply(request, descriptors)? {
            Reply::Done => Ok(()),
            Reply::Refused(failure) => Err(*failure),
            Reply::Changed
            | Reply::Ended(_)
            | Reply::Mapper(_)
            | Reply::Checked { .. }
            | Reply::Attached { .. }
            | Reply::Left
            | Reply::Failed(_) => Err(silent(&self.name).why("it answers something else")),
        }
    }

    /// Asks something of the mapper.
    ///
    /// # Errors
    /// The mapper's own, or when there is no answer.
    pub fn ask_mapper(&self, request: protocol::Request) -> Result<Answer, Failure> {
        answered(self.reply(&Request::Mapper(request), &[])?, &self.name)
    }

    /// Has the container stand still as long as this connection lasts.
    ///
    /// # Errors
    /// The mapper's own, or when there is no answer.
    pub fn hold(&self) -> Result<(), Failure> {
        answered(self.reply(&Request::Hold, &[])?, &self.name).map(drop)
    }

    /// Has the container's health checked, which may take `patience`; whether it is well.
    ///
    /// # Errors
    /// When it has no health check, or ends meanwhile.
    pub fn check(&self, patience: Duration) -> Result<bool, Failure> {
        match self.reply_within(&Request::Check, &[], patience + self.patience)? {
            Reply::Checked { success, .. } => Ok(success),
            Reply::Refused(failure) => Err(*failure),
            Reply::Done
            | Reply::Changed
            | Reply::Ended(_)
            | Reply::Mapper(_)
            | Reply::Attached { .. }
            | Reply::Left
            | Reply::Failed(_) => Err(silent(&self.name).why("it answers something else")),
        }
    }

    fn reply(&self, request: &Request, descriptors: &[BorrowedFd<'_>]) -> Result<Reply, Failure> {
        self.reply_within(request, descriptors, self.patience)
    }

    fn reply_within(
        &self,
        request: &Request,
        descriptors: &[BorrowedFd<'_>],
        patience: Duration,
    ) -> Result<Reply, Failure> {
        match self.connection.send(request, descriptors) {
            Ok(()) => {}
            // It has just ended.
            Err(failure) if failure.errno == Some(rlrun_spec::Errno(Errno::PIPE.raw_os_error())) => {
                return Err(self.ended());
            }
            Err(failure) => return Err(failure),
        }
        match self.connection.receive::<Reply>(Some(patience))? {
            Received::Message(reply, _) => Ok(reply),
            Received::End => Err(self.ended()),
            Received::Nothing => {
                Err(silent(&self.name).why(format!("it has not answered for {} s", patience.as_secs())))
            }
        }
    }

    fn ended(&self) -> Failure {
        about(Kind::Runtime, "do this to", &self.name).why("it has just ended")
    }

    /// The next piece of news, after [`Request::Watch`]; None when it was silent that long.
    ///
    /// # Errors
    /// When it speaks another language.
    pub fn news(&self, patience: Duration) -> Result<Option<News>, Failure> {
        Ok(match self.connection.receive::<Reply>(Some(patience))? {
            Received::Message(Reply::Ended(code), _) => Some(News::Ended(code)),
            Received::Message(_, _) => Some(News::Changed),
            Received::End => Some(News::Gone),
            Received::Nothing => None,
        })
    }

    /// Waits until the supervisor has ended, and with it everything of the container; false when it has not in time.
    ///
    /// # Errors
    /// When it speaks another language.
    pub fn outlive(&self, patience: Duration) -> Result<bool, Failure> {
        let end = Instant::now() + patience;
        loop {
            match self.news(end.saturating_duration_since(Instant::now()))? {
                Some(News::Gone) => {
                    // The descriptors of an ending process are closed one after the other.
                    while lock::is_held(&self.directory) && Instant::now() < end {
                        std::thread::sleep(INTERVAL / 10);
                    }
                    return Ok(true);
                }
                Some(_) => {}
                None => return Ok(false),
            }
        }
    }
}

/// What a supervisor tells whoever watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// The state is another one.
    Changed,
    /// The payload has ended with this code.
    Ended(u8),
    /// The supervisor has ended.
    Gone,
}

fn answered(reply: Reply, name: &str) -> Result<Answer, Failure> {
    match reply {
        Reply::Mapper(Answer::Refused(failure)) | Reply::Refused(failure) => Err(*failure),
        Reply::Mapper(answer) => Ok(answer),
        Reply::Done
        | Reply::Changed
        | Reply::Ended(_)
        | Reply::Checked { .. }
        | Reply::Attached { .. }
        | Reply::Left
        | Reply::Failed(_) => Err(silent(name).why("it answers something else")),
    }
}

fn about(kind: Kind, operation: &str, name: &str) -> Failure {
    Failure::new(Stage::Cli, kind, "control", &format!("{operation} the container"), name)
}

fn silent(name: &str) -> Failure {
    about(Kind::Runtime, "reach", name).hint("rlrun rm -f ends and removes it whatever it does")
}

/// Kills the supervisor of a container; the kernel ends everything below it. For one that does not answer.
///
/// # Errors
/// When it is not to be found, or not ours to kill.
pub fn kill(container: &Container) -> Result<(), Failure> {
    let text = fs::read_to_string(container.directory.join(STATE)).unwrap_or_default();
    let supervisor = State::parse(&text).supervisor;
    let fd = Pid::from_raw(supervisor).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    let failure = about(Kind::Runtime, "kill", &container.summary.name);
    // The pidfd first: whoever holds the lock now, holds it under the number that was opened.
    match fd {
        Some(fd) if holds_lock(supervisor, &container.directory) => {
            killed(&fd).map_err(|e| failure.errno(e.raw_os_error()))?;
            let end = Instant::now() + PATIENCE;
            while lock::is_held(&container.directory) && Instant::now() < end {
                std::thread::sleep(INTERVAL);
            }
            Ok(())
        }
        _ => Err(failure.why("its supervisor is not to be found")),
    }
}

fn killed(supervisor: &OwnedFd) -> Result<(), Errno> {
    match pidfd_send_signal(supervisor, Signal::KILL) {
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        other => other,
    }
}

/// Whether this process has the container's lock where supervisors have it.
fn holds_lock(pid: i32, directory: &Path) -> bool {
    let held = fs::read_link(format!("/proc/{pid}/fd/{}", rlrun_sandbox::LOCK_FD));
    let lock = fs::canonicalize(directory.join(lock::LOCK));
    matches!((held, lock), (Ok(held), Ok(lock)) if held == lock)
}
