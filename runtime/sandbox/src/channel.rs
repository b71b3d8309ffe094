//! One end of a channel between two stages: messages in the order of its table, at most one descriptor with each,
//! every wait with a deadline.

use crate::at::{At, failed};
use rlrun_spec::protocol::{self, MAX_MESSAGE, Message, Sequence, Step};
use rlrun_spec::{Failure, Kind, Stage};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, IoSlice, IoSliceMut, retry_on_intr};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// How long a stage may take for a step. Generous: a cold disk or a swapping machine is slow, not broken.
pub(crate) const STEP_DEADLINE: Duration = Duration::from_secs(60);

/// One end.
pub(crate) struct Channel {
    socket: OwnedFd,
    sequence: Sequence,
    peer: Stage,
}

/// What came.
pub(crate) enum Received {
    Message(Message, Option<OwnedFd>),
    EndOfFile,
}

/// Both ends of a channel that follows `steps`; the first end's peer is `second`, and the other way round.
pub(crate) fn pair(steps: &'static [Step], first: Stage, second: Stage) -> Result<(Channel, Channel), Failure> {
    let (a, b) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).at(
        "channel",
        "create a socket pair",
        "",
    )?;
    let end = |socket, peer| Channel { socket, sequence: Sequence::new(steps), peer };
    Ok((end(a, second), end(b, first)))
}

impl Channel {
    /// An end that was inherited over an exec, at the beginning of `steps`.
    pub(crate) fn inherited(socket: OwnedFd, steps: &'static [Step], peer: Stage) -> Self {
        Channel { socket, sequence: Sequence::new(steps), peer }
    }

    /// The socket, to hand it on over an exec.
    pub(crate) fn into_socket(self) -> OwnedFd {
        self.socket
    }

    /// Tells the peer that `step` is complete.
    pub(crate) fn reached(&mut self, step: Step, fd: Option<BorrowedFd<'_>>) -> Result<(), Failure> {
        if !self.sequence.advance(step) {
            return Err(self.broken(&format!("{step:?} is not due")));
        }
        self.send(&Message::Reached(step), fd)
    }

    /// Sends any message, if the peer has room for it now.
    pub(crate) fn send_now(&self, message: &Message) -> Result<(), Failure> {
        self.send_with(message, None, SendFlags::DONTWAIT)
    }

    /// Sends any message.
    pub(crate) fn send(&self, message: &Message, fd: Option<BorrowedFd<'_>>) -> Result<(), Failure> {
        self.send_with(message, fd, SendFlags::empty())
    }

    fn send_with(&self, message: &Message, fd: Option<BorrowedFd<'_>>, how: SendFlags) -> Result<(), Failure> {
        let bytes = protocol::encode(message).map_err(|e| self.broken(&e.to_string()))?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let fds: Vec<_> = fd.into_iter().collect();
        if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(&fds)) {
            return Err(self.broken("no room for a descriptor"));
        }
        // NOSIGNAL: a dead peer is an error to report, not a signal to die of.
        retry_on_intr(|| sendmsg(&self.socket, &[IoSlice::new(&bytes)], &mut ancillary, SendFlags::NOSIGNAL | how))
            .map(drop)
            .at("channel", "send to a stage", format!("{:?}", self.peer))
    }

    /// Waits for `step`; a failure of the peer is returned as it is.
    pub(crate) fn expect(&mut self, step: Step) -> Result<Option<OwnedFd>, Failure> {
        match self.receive(STEP_DEADLINE)? {
            Received::Message(Message::Reached(got), fd) if got == step && self.sequence.advance(got) => Ok(fd),
            Received::Message(Message::Failed(failure), _) => Err(*failure),
            Received::Message(other, _) => Err(self.broken(&format!("expected {step:?}, got {other:?}"))),
            Received::EndOfFile => Err(self.died()),
        }
    }

    /// Waits until there is something to receive, as long as that takes.
    pub(crate) fn rest(&self) -> Result<(), Failure> {
        let mut fds = [PollFd::new(&self.socket, PollFlags::IN)];
        retry_on_intr(|| poll(&mut fds, None)).map(drop).at("channel", "wait for a stage", "")
    }

    /// Waits for the next message or the end.
    pub(crate) fn receive(&self, deadline: Duration) -> Result<Received, Failure> {
        let timeout = Timespec::try_from(deadline).map_err(|e| self.broken(&e.to_string()))?;
        let mut fds = [PollFd::new(&self.socket, PollFlags::IN)];
        let ready = retry_on_intr(|| poll(&mut fds, Some(&timeout))).at("channel", "wait for a stage", "")?;
        if ready == 0 {
            return Err(self.broken(&format!("no answer within {} s", deadline.as_secs())));
        }
        let mut bytes = [0; MAX_MESSAGE];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received = retry_on_intr(|| {
            recvmsg(&self.socket, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)
        });
        let len = match received {
            Ok(received) => received.bytes,
            // The peer died with something unread in its queue.
            Err(Errno::CONNRESET) => 0,
            Err(errno) => return Err(errno).at("channel", "receive from a stage", format!("{:?}", self.peer)),
        };
        if len == 0 {
            return Ok(Received::EndOfFile);
        }
        let fd = ancillary.drain().find_map(|m| match m {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        let message = protocol::decode(&bytes[..len]).map_err(|e| self.broken(&e.to_string()))?;
        Ok(Received::Message(message, fd))
    }

    fn broken(&self, why: &str) -> Failure {
        let last = self.sequence.last().map_or("nothing".to_owned(), |s| format!("{s:?}"));
        let object = format!("{:?} stage", self.peer).to_lowercase();
        failed(Kind::Internal, "protocol", "talk to", object, format!("{why} (last completed: {last})"))
    }

    fn died(&self) -> Failure {
        self.broken("it died without a word")
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
