//! Servers that send just enough not to time out, and would keep a command for ever.

use std::io::{self, Read};
use std::time::{Duration, Instant};

/// How often the pace is looked at.
const WINDOW: Duration = Duration::from_secs(60);
/// Bytes that have to come in that time; a telephone line brings fifty times as many.
const LEAST: u64 = 8 << 10;

/// Reads, and ends with an error when next to nothing comes.
pub(super) struct Paced<R> {
    inner: R,
    window: Duration,
    since: Instant,
    came: u64,
}

impl<R> Paced<R> {
    pub(super) fn new(inner: R) -> Self {
        Self::with(inner, WINDOW)
    }

    fn with(inner: R, window: Duration) -> Self {
        Paced { inner, window, since: Instant::now(), came: 0 }
    }
}

impl<R: Read> Read for Paced<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.came += n as u64;
        if n > 0 && self.since.elapsed() >= self.window {
            if self.came < LEAST {
                let why = format!("the server sent {} bytes in {} seconds", self.came, self.since.elapsed().as_secs());
                return Err(io::Error::new(io::ErrorKind::TimedOut, why));
            }
            (self.since, self.came) = (Instant::now(), 0);
        }
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As much a read as the buffer takes, at most so many bytes.
    struct Drip(usize);

    impl Read for Drip {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            Ok(self.0.min(buf.len()))
        }
    }

    #[test]
    fn who_sends_next_to_nothing_is_left() {
        // Every read is a whole window apart.
        let mut drip = Paced::with(Drip(1), Duration::ZERO);
        let error = drip.read(&mut [0; 64]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(error.to_string().contains("sent 1 bytes"), "{error}");
    }

    #[test]
    fn who_sends_enough_is_not_and_neither_is_an_end() {
        let mut enough = Paced::with(Drip(8 << 10), Duration::ZERO);
        let mut buf = vec![0; 16 << 10];
        for _ in 0..10 {
            assert_eq!(enough.read(&mut buf).unwrap(), 8 << 10);
        }
        assert_eq!(Paced::with(io::empty(), Duration::ZERO).read(&mut buf).unwrap(), 0);
        let mut within = Paced::with(Drip(1), Duration::from_secs(3600));
        assert_eq!(within.read(&mut buf).unwrap(), 1);
    }
}
