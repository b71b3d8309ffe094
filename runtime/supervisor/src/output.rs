//! One of the payload's streams, on its way to the log and to whoever watches. With one watcher and no log the bytes
//! go by `splice(2)` and are never copied here. A watcher that does not read stops only this stream: nothing is
//! written before poll says so, and never more than a pipe takes without blocking.

use crate::log::{Log, Stream};
use crate::relay::{CHUNK, SPLICE, ready};
use crate::run::failure;
use nix::poll::{PollFd, PollFlags};
use rlrun_spec::{Failure, Kind};
use rustix::fs::{FileType, fstat};
use rustix::io::Errno;
use rustix::pipe::{SpliceFlags, splice};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// How long somebody who attached may leave the stream standing before it goes on without him.
const PATIENCE: Duration = Duration::from_secs(10);

/// What happens to the stream when a watcher goes away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Departure {
    /// The payload learns it, as the writer of any pipe does.
    Ends,
    /// The stream goes on without it.
    Ignored,
}

struct Watcher {
    sink: OwnedFd,
    departure: Departure,
    /// Who attached; None for whoever started the container.
    guest: Option<u64>,
    stuck: Option<Instant>,
    // What of the last bytes it has not taken yet.
    pending: Vec<u8>,
}

/// The stream.
pub(crate) struct Output {
    source: OwnedFd,
    stream: Stream,
    watchers: Vec<Watcher>,
    spliceable: bool,
    blocked: Option<usize>,
    lost: Option<Errno>,
}

enum Sent {
    All,
    Some,
    Gone(Errno),
}

impl Output {
    pub(crate) fn new(source: OwnedFd, stream: Stream) -> Output {
        Output { source, stream, watchers: Vec::new(), spliceable: true, blocked: None, lost: None }
    }

    /// Sends the stream there too.
    pub(crate) fn watch(&mut self, sink: OwnedFd, departure: Departure) {
        self.watchers.push(Watcher { sink, departure, guest: None, stuck: None, pending: Vec::new() });
    }

    /// Which one it is.
    pub(crate) fn stream(&self) -> Stream {
        self.stream
    }

    /// Sends the stream to somebody who attached, until he leaves or leaves it standing for too long.
    pub(crate) fn invite(&mut self, guest: u64, sink: OwnedFd) {
        let departure = Departure::Ignored;
        self.watchers.push(Watcher { sink, departure, guest: Some(guest), stuck: None, pending: Vec::new() });
    }

    /// He watches no more.
    pub(crate) fn dismiss(&mut self, guest: u64) {
        self.watchers.retain(|w| w.guest != Some(guest));
        self.blocked = None;
    }

    /// When the stream goes on without the guest it waits for.
    pub(crate) fn due(&self) -> Option<Instant> {
        let watcher = self.watchers.get(self.blocked?).filter(|w| w.guest.is_some())?;
        Some(watcher.stuck? + PATIENCE)
    }

    /// Goes on without him, if it is time; who that is.
    pub(crate) fn wake(&mut self, now: Instant) -> Option<u64> {
        self.due().filter(|due| *due <= now)?;
        self.watchers.remove(self.blocked.take()?).guest
    }

    /// Nobody watches any more; the stream goes on.
    pub(crate) fn unwatch(&mut self) {
        self.watchers.clear();
        self.blocked = None;
    }

    /// What to wait for.
    pub(crate) fn poll_fd(&self) -> PollFd<'_> {
        match self.blocked.and_then(|at| self.watchers.get(at)) {
            Some(watcher) => PollFd::new(watcher.sink.as_fd(), PollFlags::POLLOUT),
            None => PollFd::new(self.source.as_fd(), PollFlags::POLLIN),
        }
    }

    /// Whether there is something to move right now: bytes, or an end of file not yet seen.
    pub(crate) fn readable(&self) -> bool {
        self.watchers.iter().any(|w| !w.pending.is_empty()) || ready(&self.source, PollFlags::POLLIN)
    }

    /// Moves what can be moved; false when the stream is over.
    pub(crate) fn pump(&mut self, log: Option<&mut Log>) -> bool {
        self.blocked = None;
        if let Some(open) = self.flush() {
            return open;
        }
        if let Some(at) = self.watchers.iter().position(|w| !ready(&w.sink, PollFlags::POLLOUT)) {
            self.wait_for(at);
            return true;
        }
        self.watchers.iter_mut().for_each(|w| w.stuck = None);
        if !ready(&self.source, PollFlags::POLLIN) {
            return true;
        }
        if log.is_none() && self.spliceable && self.watchers.len() == 1 {
            match splice(&self.source, None, &self.watchers[0].sink, None, SPLICE, SpliceFlags::NONBLOCK) {
                Ok(0) => return false,
                Ok(_) | Err(Errno::AGAIN | Errno::INTR) => return true,
                // A terminal, a file opened for appending: not for splice(2).
                Err(Errno::INVAL) => self.spliceable = false,
                Err(errno) => return self.departed(0, errno),
            }
        }
        self.copy(log)
    }

    fn copy(&mut self, log: Option<&mut Log>) -> bool {
        let mut buffer = [0; CHUNK];
        let bytes = match rustix::io::read(&self.source, &mut buffer) {
            Ok(0) => return false,
            Ok(n) => &buffer[..n],
            Err(Errno::AGAIN | Errno::INTR) => return true,
            // EIO: a terminal whose last user closed it.
            Err(_) => return false,
        };
        if let Some(log) = log {
            log.write(self.stream, bytes);
        }
        for watcher in &mut self.watchers {
            watcher.pending.extend_from_slice(bytes);
        }
        self.flush().unwrap_or(true)
    }

    /// Sends what is pending. None when nothing is pending any more, else what [`Output::pump`] is to answer.
    fn flush(&mut self) -> Option<bool> {
        let mut at = 0;
        while at < self.watchers.len() {
            match self.watchers[at].send() {
                Sent::All => at += 1,
                Sent::Some => {
                    self.wait_for(at);
                    return Some(true);
                }
                Sent::Gone(errno) if !self.departed(at, errno) => return Some(false),
                Sent::Gone(_) => {}
            }
        }
        None
    }

    fn wait_for(&mut self, at: usize) {
        self.blocked = Some(at);
        if let Some(watcher) = self.watchers.get_mut(at) {
            watcher.stuck.get_or_insert_with(Instant::now);
        }
    }

    /// A watcher reads no more; false when the stream ends with it. Dropping the source is how the payload learns it.
    fn departed(&mut self, at: usize, errno: Errno) -> bool {
        self.blocked = None;
        let watcher = self.watchers.remove(at);
        let goes_on = watcher.departure == Departure::Ignored;
        if watcher.guest.is_none() && watcher.is_wanted_after(errno) {
            self.lost = Some(errno);
        }
        goes_on
    }

    /// What became of bytes that the caller still waited for.
    pub(crate) fn lost(&self) -> Option<Failure> {
        let errno = self.lost?;
        let name = match self.stream {
            Stream::Stdout => "standard output",
            Stream::Stderr => "standard error",
        };
        let hint = "make room in the file or device that it goes to, or send it elsewhere: what the container wrote there from then on is lost";
        Some(failure("write-output", "write to", name).errno(errno.raw_os_error()).hint(hint))
    }
}

/// Tells of the stream whose bytes were lost, if there is one. The exit code: success only where nothing was lost.
pub(crate) fn tell_lost(code: u8, lost: Option<&Failure>) -> u8 {
    let Some(failure) = lost else { return code };
    crate::report(failure);
    // As where podman cannot write either.
    if code == 0 { Kind::CannotInvoke.exit_code() } else { code }
}

impl Watcher {
    fn send(&mut self) -> Sent {
        while !self.pending.is_empty() {
            if !ready(&self.sink, PollFlags::POLLOUT) {
                return Sent::Some;
            }
            match rustix::io::write(&self.sink, &self.pending) {
                Ok(n) => {
                    self.pending.drain(..n);
                    self.stuck = None;
                }
                Err(Errno::AGAIN) => return Sent::Some,
                Err(Errno::INTR) => {}
                Err(errno) => return Sent::Gone(errno),
            }
        }
        Sent::All
    }

    /// Whether somebody still wants what cannot be written: not where the reader has gone.
    fn is_wanted_after(&self, errno: Errno) -> bool {
        match errno {
            Errno::PIPE | Errno::CONNRESET => false,
            // Of a terminal that hung up, or of the payload's own that nobody has open any more; a disk's is a loss.
            Errno::IO => fstat(&self.sink).is_ok_and(|stat| {
                matches!(FileType::from_raw_mode(stat.st_mode), FileType::RegularFile | FileType::BlockDevice)
            }),
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::pipe::pipe;

    fn read(fd: &OwnedFd) -> Vec<u8> {
        let mut bytes = [0; 65536];
        let n = rustix::io::read(fd, &mut bytes).unwrap();
        bytes[..n].to_vec()
    }

    #[test]
    fn bytes_pass_and_end_of_file_closes() {
        let ((source, write), (reader, sink)) = (pipe().unwrap(), pipe().unwrap());
        let mut output = Output::new(source, Stream::Stdout);
        output.watch(sink, Departure::Ends);
        assert!(output.pump(None), "nothing there yet");
        rustix::io::write(&write, b"hello").unwrap();
        assert!(output.pump(None));
        drop(write);
        assert!(!output.pump(None), "end of file");
        drop(output);
        assert_eq!(read(&reader), b"hello");
        assert!(read(&reader).is_empty());
    }

    #[test]
    fn a_reader_that_went_away_ends_the_stream_or_not() {
        for (departure, goes_on) in [(Departure::Ends, false), (Departure::Ignored, true)] {
            let ((source, write), (reader, sink)) = (pipe().unwrap(), pipe().unwrap());
            let mut output = Output::new(source, Stream::Stdout);
            output.watch(sink, departure);
            drop(reader);
            rustix::io::write(&write, b"x").unwrap();
            assert_eq!(output.pump(None), goes_on);
            assert!(!goes_on || output.pump(None), "without a watcher it is read all the same");
        }
    }

    #[test]
    fn what_the_caller_cannot_be_given_is_lost_unless_nobody_reads() {
        let full = || OwnedFd::from(std::fs::File::options().write(true).open("/dev/full").unwrap());
        let unread = || pipe().unwrap().1;
        let cases = [
            (full(), Departure::Ends, true),
            (full(), Departure::Ignored, true),
            (unread(), Departure::Ends, false),
            (unread(), Departure::Ignored, false),
        ];
        for (sink, departure, is_lost) in cases {
            let (source, write) = pipe().unwrap();
            let mut output = Output::new(source, Stream::Stderr);
            output.watch(sink, departure);
            rustix::io::write(&write, b"x").unwrap();
            assert_eq!(output.pump(None), departure == Departure::Ignored);
            let told = output.lost().map(|failure| failure.to_string()).unwrap_or_default();
            assert_eq!(told.contains("standard error") && told.contains("No space left"), is_lost, "{told}");
        }
    }

    #[test]
    fn a_guest_who_leaves_it_standing_is_left_behind() {
        let ((source, write), (_reader, sink)) = (pipe().unwrap(), pipe().unwrap());
        let mut output = Output::new(source, Stream::Stdout);
        output.invite(7, sink);
        while output.blocked.is_none() {
            rustix::io::write(&write, &[7; CHUNK]).unwrap();
            assert!(output.pump(None));
        }
        let due = output.due().unwrap();
        assert_eq!(output.wake(due - Duration::from_millis(1)), None);
        assert_eq!(output.wake(due), Some(7));
        assert!(output.due().is_none() && output.watchers.is_empty());
        assert!(output.pump(None), "the stream goes on");
    }

    #[test]
    fn every_watcher_gets_every_byte_and_the_slowest_sets_the_pace() {
        let ((source, write), (fast, fast_sink), (slow, slow_sink)) =
            (pipe().unwrap(), pipe().unwrap(), pipe().unwrap());
        let mut output = Output::new(source, Stream::Stdout);
        output.watch(fast_sink, Departure::Ignored);
        output.watch(slow_sink, Departure::Ignored);
        let (mut sent, mut seen) = (0, 0);
        // Until the slow one's pipe is full; a pipe holds 65536 bytes (pipe(7)).
        while output.blocked.is_none() {
            sent += rustix::io::write(&write, &[7; CHUNK]).unwrap();
            assert!(output.pump(None));
            if ready(&fast, PollFlags::POLLIN) {
                seen += read(&fast).len();
            }
            assert!(sent < 1 << 20, "never blocked");
        }
        drop(write);
        let mut got = 0;
        while output.pump(None) {
            if ready(&slow, PollFlags::POLLIN) {
                got += read(&slow).len();
            }
            if ready(&fast, PollFlags::POLLIN) {
                seen += read(&fast).len();
            }
        }
        drop(output);
        for (fd, count) in [(&slow, &mut got), (&fast, &mut seen)] {
            loop {
                match read(fd).len() {
                    0 => break,
                    n => *count += n,
                }
            }
        }
        assert_eq!((got, seen), (sent, sent));
    }
}
