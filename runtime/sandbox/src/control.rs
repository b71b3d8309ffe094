//! The socket in a container's directory on which its supervisor is asked for things ([`rlrun_spec::supervision`]):
//! both ends of it. Whoever can reach the directory can connect, so the supervisor asks the kernel who it is: the
//! user, and from no other user namespace than its own, which no process of a container is in.

use crate::at::{At, failed};
use rlrun_spec::supervision::{MAX_DESCRIPTORS, MAX_MESSAGE, SOCKET, decode, encode};
use rlrun_spec::{Failure, Kind};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, fchmod, openat, unlinkat};
use rustix::io::{Errno, IoSlice, IoSliceMut, retry_on_intr};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect, listen, recvmsg, sendmsg,
    socket_with, socketpair, sockopt::socket_peercred,
};
use serde::{Serialize, de::DeserializeOwned};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

/// How many commands may wait to be accepted.
const BACKLOG: i32 = 64;
const STEP: &str = "control";

/// The socket's address below an open directory: the path itself may be longer than the 107 bytes that an address holds
/// (unix(7)).
fn address(directory: &OwnedFd) -> Result<SocketAddrUnix, Errno> {
    SocketAddrUnix::new(format!("/proc/self/fd/{}/{SOCKET}", directory.as_raw_fd()))
}

fn open(directory: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(CWD, directory, flags, Mode::empty())
}

fn socket(flags: SocketFlags) -> Result<OwnedFd, Errno> {
    socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags | SocketFlags::CLOEXEC, None)
}

/// The supervisor's end.
pub struct Listener {
    socket: OwnedFd,
    /// Of this process: device and number of its user namespace.
    namespace: (u64, u64),
}

impl Listener {
    /// Makes the socket in the container's directory, in the place of one that a killed supervisor left.
    ///
    /// # Errors
    /// When the file system takes no sockets, or the disk is full.
    pub fn open(directory: &Path) -> Result<Listener, Failure> {
        let make = || {
            let directory = open(directory)?;
            match unlinkat(&directory, SOCKET, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno),
            }
            let socket = socket(SocketFlags::NONBLOCK)?;
            // Before it has a name, so that there is no moment at which others could connect.
            fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
            bind(&socket, &address(&directory)?)?;
            listen(&socket, BACKLOG)?;
            let namespace = user_namespace("self")?;
            Ok(Listener { socket, namespace })
        };
        make().at(STEP, "make the control socket in", directory.display().to_string())
    }

    /// The next command that waits; None when there is none, or it is not one of the user's own.
    ///
    /// # Errors
    /// As `accept(2)`.
    pub fn accept(&self) -> Result<Option<Connection>, Failure> {
        let accepted = accept_with(&self.socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK);
        let socket = match accepted {
            Ok(socket) => socket,
            Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => return Ok(None),
            Err(errno) => return Err(errno).at(STEP, "accept", "a command"),
        };
        Ok(self.is_friend(&socket).then_some(Connection(socket)))
    }

    fn is_friend(&self, socket: &OwnedFd) -> bool {
        let Ok(peer) = socket_peercred(socket) else { return false };
        let namespace = user_namespace(&peer.pid.as_raw_nonzero().to_string());
        peer.uid == rustix::process::geteuid() && namespace == Ok(self.namespace)
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn user_namespace(process: &str) -> Result<(u64, u64), Errno> {
    let stat = rustix::fs::stat(format!("/proc/{process}/ns/user"))?;
    Ok((stat.st_dev, stat.st_ino))
}

/// One end of a connection.
pub struct Connection(OwnedFd);

/// What came.
#[derive(Debug)]
pub enum Received<T> {
    /// A message with its descriptors.
    Message(T, Vec<OwnedFd>),
    /// The other side is gone.
    End,
    /// Not in time.
    Nothing,
}

impl Connection {
    /// Both ends of one that has no name; the first, the supervisor's, never waits.
    ///
    /// # Errors
    /// As `socketpair(2)`.
    pub fn pair() -> Result<(Connection, Connection), Errno> {
        let (one, other) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        rustix::io::ioctl_fionbio(&one, true)?;
        Ok((Connection(one), Connection(other)))
    }

    /// Connects to the supervisor of the container with this directory.
    ///
    /// # Errors
    /// `NOENT` or `CONNREFUSED` when there is none.
    pub fn to(directory: &Path) -> Result<Connection, Errno> {
        let directory = open(directory)?;
        let socket = socket(SocketFlags::empty())?;
        retry_on_intr(|| connect(&socket, &address(&directory)?))?;
        Ok(Connection(socket))
    }

    /// Sends one message.
    ///
    /// # Errors
    /// When the other side is gone, or does not read what it was sent before.
    pub fn send(&self, message: &impl Serialize, descriptors: &[BorrowedFd<'_>]) -> Result<(), Failure> {
        let broken = |why: &str| failed(Kind::Internal, STEP, "send", "a message", why);
        let bytes = encode(message).map_err(|e| broken(&e.to_string()))?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(broken("too many descriptors"));
        }
        // NOSIGNAL: a peer that is gone is an error to report, not a signal to die of.
        retry_on_intr(|| sendmsg(&self.0, &[IoSlice::new(&bytes)], &mut ancillary, SendFlags::NOSIGNAL)).map(drop).at(
            STEP,
            "send",
            "a message",
        )
    }

    /// The next message; None waits as long as it takes.
    ///
    /// # Errors
    /// When what came is no message of this version.
    pub fn receive<T: DeserializeOwned>(&self, patience: Option<Duration>) -> Result<Received<T>, Failure> {
        let timeout = patience.and_then(|time| Timespec::try_from(time).ok());
        let mut fds = [PollFd::new(&self.0, PollFlags::IN)];
        if retry_on_intr(|| poll(&mut fds, timeout.as_ref())).at(STEP, "wait for", "a message")? == 0 {
            return Ok(Received::Nothing);
        }
        let mut bytes = [0; MAX_MESSAGE];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut receive = || {
            retry_on_intr(|| {
                recvmsg(&self.0, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)
            })
        };
        // The other side has left something unread behind; what it has sent is told after that (unix(7)).
        let received = match receive() {
            Err(Errno::CONNRESET) => receive(),
            other => other,
        };
        let len = match received {
            Ok(received) => received.bytes,
            Err(Errno::CONNRESET) => 0,
            Err(Errno::AGAIN) => return Ok(Received::Nothing),
            Err(errno) => return Err(errno).at(STEP, "receive", "a message"),
        };
        if len == 0 {
            return Ok(Received::End);
        }
        let rights = ancillary.drain().filter_map(|m| match m {
            RecvAncillaryMessage::ScmRights(fds) => Some(fds),
            _ => None,
        });
        let descriptors = rights.flatten().collect();
        let message = decode(&bytes[..len]).map_err(|_| {
            failed(Kind::Runtime, STEP, "understand", "a message", "it is of another version of rlrun")
                .hint("a container keeps the version that started it: rlrun restart CONTAINER starts it with this one")
        })?;
        Ok(Received::Message(message, descriptors))
    }
}

impl From<OwnedFd> for Connection {
    fn from(socket: OwnedFd) -> Self {
        Connection(socket)
    }
}

impl From<Connection> for OwnedFd {
    fn from(connection: Connection) -> Self {
        connection.0
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rlrun_spec::supervision::{Reply, Request};

    #[test]
    fn a_last_word_is_heard_although_something_was_left_unread() {
        let (supervisor, command) = Connection::pair().unwrap();
        command.send(&Request::Attach, &[]).unwrap();
        supervisor.send(&Reply::Left, &[]).unwrap();
        drop(supervisor);
        assert!(matches!(command.receive(None).unwrap(), Received::Message(Reply::Left, _)));
        assert!(matches!(command.receive::<Reply>(None).unwrap(), Received::End));
    }

    #[test]
    fn requests_come_with_descriptors_and_the_end_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        // Longer than the address of a socket may be.
        let deep = dir.path().join("x".repeat(120));
        std::fs::create_dir(&deep).unwrap();
        assert_eq!(Connection::to(&deep).err(), Some(Errno::NOENT));
        let listener = Listener::open(&deep).unwrap();
        assert!(listener.accept().unwrap().is_none());
        let command = Connection::to(&deep).unwrap();
        let (read, write) = rustix::pipe::pipe().unwrap();
        command.send(&Request::Signal(15), &[write.as_fd()]).unwrap();
        drop(write);
        let connection = listener.accept().unwrap().unwrap();
        let Received::Message(request, descriptors) = connection.receive::<Request>(None).unwrap() else { panic!() };
        assert_eq!((request, descriptors.len()), (Request::Signal(15), 1));
        rustix::io::write(&descriptors[0], b"x").unwrap();
        assert_eq!(rustix::io::read(&read, &mut [0; 4]).unwrap(), 1);
        assert!(matches!(connection.receive::<Request>(Some(Duration::ZERO)).unwrap(), Received::Nothing));
        connection.send(&Reply::Done, &[]).unwrap();
        drop(connection);
        assert!(matches!(command.receive(None).unwrap(), Received::Message(Reply::Done, _)));
        assert!(matches!(command.receive::<Reply>(None).unwrap(), Received::End));
        drop(listener);
        assert_eq!(Connection::to(&deep).err(), Some(Errno::CONNREFUSED));
        Listener::open(&deep).unwrap();
    }
}
