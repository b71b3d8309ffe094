//! The caller's standard input on its way to the payload. Bytes go by `splice(2)` where the kernel can (never copied
//! here), else through a small buffer. A payload that does not read stops only this stream.

use crate::keys::{Keys, Typed};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rlrun_spec::{Failure, Kind, Stage};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
use rustix::pipe::{SpliceFlags, splice};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

/// What poll promises to take without blocking (PIPE_BUF, `pipe(7)`); terminals and sockets take as much.
pub(crate) const CHUNK: usize = 4096;
/// How much one splice moves: a whole default pipe.
pub(crate) const SPLICE: usize = 65536;
/// End of transmission, which a terminal's line discipline turns into end of file.
const EOT: u8 = 4;

/// What an input goes into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sink {
    /// Our own pipe to the payload: closing it is end of file.
    Pipe,
    /// The master of its terminal: end of file is a character.
    Terminal,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waiting {
    Source,
    Sink,
}

/// The stream from `source` to `sink`.
pub(crate) struct Relay {
    source: OwnedFd,
    sink: OwnedFd,
    kind: Sink,
    waiting: Waiting,
    spliceable: bool,
    pending: Vec<u8>,
    // The rest of `pending` once end of file was seen and its mark is to be written.
    closing: bool,
    // Looked for in what comes from a terminal.
    keys: Option<Keys>,
    left: bool,
    // The end of the source is not the payload's: somebody else may go on typing.
    borrowed: bool,
}

impl Relay {
    /// From the caller to the payload.
    pub(crate) fn input(source: OwnedFd, sink: OwnedFd, kind: Sink) -> Result<Self, Failure> {
        // Our own description, so nobody else's mode changes: a payload that does not read must not block us.
        fcntl_getfl(&sink).and_then(|flags| fcntl_setfl(&sink, flags | OFlags::NONBLOCK)).map_err(|errno| {
            Failure::new(Stage::Supervisor, Kind::Runtime, "relay", "set up", "standard input")
                .errno(errno.raw_os_error())
        })?;
        let (waiting, pending) = (Waiting::Source, Vec::new());
        Ok(Relay {
            source,
            sink,
            kind,
            waiting,
            spliceable: true,
            pending,
            closing: false,
            keys: None,
            left: false,
            borrowed: false,
        })
    }

    /// From here on these keys are taken out of what is typed.
    pub(crate) fn leave_by(&mut self, keys: Option<Keys>) {
        self.spliceable &= keys.is_none();
        self.keys = keys;
    }

    /// The end of this source means nothing to the payload, until somebody says so.
    pub(crate) fn borrow(&mut self, borrowed: bool) {
        self.borrowed = borrowed;
    }

    /// Whether they were typed.
    pub(crate) fn left(&self) -> bool {
        self.left
    }

    /// When a beginning of them that is held back is to be passed on.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.keys.as_ref().and_then(Keys::due)
    }

    /// Passes it on, if it is time.
    pub(crate) fn wake(&mut self, now: Instant) {
        if let Some(keys) = &mut self.keys
            && keys.due().is_some_and(|due| due <= now)
        {
            self.pending.extend(keys.give_up());
            // A sink that is full is waited for.
            self.waiting = Waiting::Sink;
        }
    }

    /// What to wait for.
    pub(crate) fn poll_fd(&self) -> PollFd<'_> {
        match self.waiting {
            Waiting::Source => PollFd::new(self.source.as_fd(), PollFlags::POLLIN),
            Waiting::Sink => PollFd::new(self.sink.as_fd(), PollFlags::POLLOUT),
        }
    }

    /// Moves what can be moved; false when the stream is over.
    pub(crate) fn pump(&mut self) -> bool {
        if !ready(&self.sink, PollFlags::POLLOUT) {
            self.waiting = Waiting::Sink;
            return true;
        }
        self.waiting = Waiting::Source;
        if !self.pending.is_empty() {
            return self.flush();
        }
        if !ready(&self.source, PollFlags::POLLIN) {
            return true;
        }
        if self.spliceable {
            match splice(&self.source, None, &self.sink, None, SPLICE, SpliceFlags::NONBLOCK) {
                Ok(0) => return self.end_of_file(),
                Ok(_) | Err(Errno::AGAIN | Errno::INTR) => return true,
                // A terminal, a file opened for appending: not for splice(2).
                Err(Errno::INVAL) => self.spliceable = false,
                Err(_) => return false,
            }
        }
        self.copy()
    }

    fn copy(&mut self) -> bool {
        let mut buffer = [0; CHUNK];
        match rustix::io::read(&self.source, &mut buffer) {
            Ok(0) => self.end_of_file(),
            Ok(n) => {
                match &mut self.keys {
                    None => self.pending.extend_from_slice(&buffer[..n]),
                    Some(keys) => match keys.take(&buffer[..n], Instant::now()) {
                        Typed::Goes(bytes) => self.pending.extend(bytes),
                        Typed::Leaves(bytes) => {
                            self.pending.extend(bytes);
                            self.left = true;
                        }
                    },
                }
                self.flush()
            }
            Err(Errno::AGAIN | Errno::INTR) => true,
            // EIO: a terminal whose last user closed it.
            Err(_) => false,
        }
    }

    fn flush(&mut self) -> bool {
        if self.pending.is_empty() {
            return true;
        }
        match rustix::io::write(&self.sink, &self.pending) {
            Ok(n) => {
                self.pending.drain(..n);
                !(self.closing && self.pending.is_empty())
            }
            Err(Errno::AGAIN) => {
                self.waiting = Waiting::Sink;
                true
            }
            Err(Errno::INTR) => true,
            // EPIPE: nobody reads any more. Dropping the relay closes the other side, so the writer learns it too.
            Err(_) => false,
        }
    }

    fn end_of_file(&mut self) -> bool {
        if self.kind != Sink::Terminal || self.closing || self.borrowed {
            return false;
        }
        self.closing = true;
        self.pending.push(EOT);
        self.flush()
    }
}

pub(crate) fn ready(fd: &OwnedFd, events: PollFlags) -> bool {
    let mut fds = [PollFd::new(fd.as_fd(), events)];
    poll(&mut fds, PollTimeout::ZERO).is_ok_and(|n| n > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::pipe::pipe;

    #[test]
    fn the_end_of_file_of_a_terminal_is_a_character() {
        let ((source, write), (read, sink)) = (pipe().unwrap(), pipe().unwrap());
        let mut relay = Relay::input(source, sink, Sink::Terminal).unwrap();
        rustix::io::write(&write, b"hello").unwrap();
        assert!(relay.pump());
        drop(write);
        assert!(!relay.pump(), "end of file");
        let mut bytes = [0; 16];
        assert_eq!(rustix::io::read(&read, &mut bytes).unwrap(), 6);
        assert_eq!(&bytes[..6], b"hello\x04");
    }

    #[test]
    fn a_full_sink_is_waited_for_and_loses_nothing() {
        let ((source, write), (read, sink)) = (pipe().unwrap(), pipe().unwrap());
        let mut relay = Relay::input(source, sink, Sink::Pipe).unwrap();
        let data = vec![7; 65536];
        let mut sent = 0;
        for _ in 0..3 {
            sent += rustix::io::write(&write, &data).unwrap();
            while relay.pump() && relay.waiting == Waiting::Source && ready(&relay.source, PollFlags::POLLIN) {}
            if sent == 2 * 65536 {
                assert_eq!(relay.waiting, Waiting::Sink);
                break;
            }
        }
        drop(write);
        let mut got = 0;
        let mut open = true;
        let mut bytes = vec![0; 65536];
        while got < sent {
            got += rustix::io::read(&read, &mut bytes).unwrap();
            while open && ready(&relay.sink, PollFlags::POLLOUT) {
                open = relay.pump();
            }
        }
        assert_eq!(got, sent);
    }
}
