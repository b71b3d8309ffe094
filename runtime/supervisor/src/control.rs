//! The commands that ask this supervisor for something (`rlrun_spec::supervision`), served between two turns of its
//! one loop. A command that does not read its replies is left alone: nothing here ever waits.

use crate::run::failure;
use nix::poll::{PollFd, PollFlags};
use rlrun_sandbox::control::{Connection, Listener, Received};
use rlrun_spec::Failure;
use rlrun_spec::supervision::{Reply, Request};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How many commands are served at a time; more wait to be accepted.
const MOST: usize = 512;

/// The number of the client that started the container and is attached to it.
pub(crate) const ACCOMPANYING: u64 = 0;

/// A command.
struct Client {
    number: u64,
    connection: Connection,
    watches: bool,
}

/// The socket and who is connected to it.
pub(crate) struct Control {
    listener: Listener,
    path: PathBuf,
    clients: Vec<Client>,
    next: u64,
    /// Who has gone since somebody asked.
    gone: Vec<u64>,
}

/// A request and the number of the client that made it.
pub(crate) struct Call {
    pub(crate) client: u64,
    pub(crate) request: Request,
    pub(crate) descriptors: Vec<OwnedFd>,
}

impl Control {
    /// Makes the socket in the container's directory.
    pub(crate) fn open(directory: &Path) -> Result<Control, Failure> {
        let path = directory.join(rlrun_spec::supervision::SOCKET);
        Ok(Control { listener: Listener::open(directory)?, path, clients: Vec::new(), next: 0, gone: Vec::new() })
    }

    /// What to wait for: first the socket, then every connection.
    pub(crate) fn poll_fds(&self) -> Vec<PollFd<'_>> {
        let accepts = if self.clients.len() < MOST { PollFlags::POLLIN } else { PollFlags::empty() };
        let listener = std::iter::once(PollFd::new(self.listener.as_fd(), accepts));
        listener.chain(self.clients.iter().map(|c| PollFd::new(c.connection.as_fd(), PollFlags::POLLIN))).collect()
    }

    /// What came, where `ready` says so; in the order of [`Control::poll_fds`]. Every call wants a [`Control::reply`].
    pub(crate) fn take(&mut self, ready: &[bool]) -> Result<Vec<Call>, Failure> {
        let mut calls = Vec::new();
        let mut turn = ready.iter().skip(1);
        let gone = &mut self.gone;
        self.clients.retain(|client| {
            if turn.next() != Some(&true) {
                return true;
            }
            match client.connection.receive::<Request>(Some(Duration::ZERO)) {
                Ok(Received::Message(request, descriptors)) => {
                    calls.push(Call { client: client.number, request, descriptors });
                    true
                }
                Ok(Received::Nothing) => true,
                Ok(Received::End) => {
                    gone.push(client.number);
                    false
                }
                Err(failure) => {
                    if client.connection.send(&Reply::Refused(Box::new(failure)), &[]).is_err() {
                        // It does not listen either.
                    }
                    gone.push(client.number);
                    false
                }
            }
        });
        if ready.first() == Some(&true)
            && let Some(connection) = self.listener.accept()?
        {
            self.next += 1;
            self.clients.push(Client { number: self.next, connection, watches: false });
        }
        Ok(calls)
    }

    /// Answers a client, if it is still there.
    pub(crate) fn reply(&mut self, client: u64, reply: &Reply) {
        let Some(client) = self.clients.iter().find(|c| c.number == client) else { return };
        if client.connection.send(reply, &[]).is_err() {
            // It has not waited for its answer; the end of the connection is seen in the next turn.
        }
    }

    /// Takes in the one that started the container.
    pub(crate) fn accompany(&mut self, connection: Connection) {
        self.clients.push(Client { number: ACCOMPANYING, connection, watches: true });
    }

    /// From here on this client is told what happens.
    pub(crate) fn watch(&mut self, client: u64) {
        self.clients.iter_mut().filter(|c| c.number == client).for_each(|c| c.watches = true);
    }

    /// Takes the numbers of those who have gone.
    pub(crate) fn gone(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.gone)
    }

    /// Tells everybody who watches.
    pub(crate) fn tell(&self, news: &Reply) {
        for client in self.clients.iter().filter(|c| c.watches) {
            if client.connection.send(news, &[]).is_err() {
                // Gone, or not reading: it sees the state when it looks.
            }
        }
    }

    /// Takes the socket away. While the lock is held: afterwards it could be another supervisor's.
    pub(crate) fn close(&self) -> Result<(), Failure> {
        match std::fs::remove_file(&self.path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(failure("control", "remove", &self.path.display().to_string()).why(e.to_string()))
            }
            _ => Ok(()),
        }
    }
}
