//! Decompressing and hashing in one thread, extracting in another: the two take about as long as each other.

use std::io::{self, BufRead, Read};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

const CHUNK: usize = 256 << 10;
/// Chunks under way; with [`CHUNK`] this is all the memory a layer takes.
const AHEAD: usize = 4;

/// What the consumer reads.
pub(super) struct PipeReader {
    full: Receiver<io::Result<Vec<u8>>>,
    empty: Sender<Vec<u8>>,
    chunk: Vec<u8>,
    at: usize,
}

/// Runs `consume` on what `source` yields, which is read ahead in a thread; gives back what became of both. Whatever
/// `consume` leaves is still read, so that `source` has seen all of it, unless `consume` failed.
pub(super) fn read_ahead<S: Read + Send, T, E>(
    mut source: S,
    consume: impl FnOnce(&mut PipeReader) -> Result<T, E>,
    drain: impl FnOnce(io::Error) -> E,
) -> Result<(T, S), E> {
    let (full_in, full) = sync_channel(AHEAD);
    let (empty, empty_out) = channel();
    std::thread::scope(|scope| {
        let source = &mut source;
        // The channel's ends move into the thread: when it ends, the consumer sees the end of the stream.
        let producer = scope.spawn(move || pump(source, &full_in, &empty_out));
        let mut pipe = PipeReader { full, empty, chunk: Vec::new(), at: 0 };
        let result = consume(&mut pipe).and_then(|value| match io::copy(&mut pipe, &mut io::sink()) {
            Ok(_) => Ok(value),
            Err(e) => Err(drain(e)),
        });
        // A producer that waits for room ends when nobody listens any more.
        drop(pipe);
        // A panic there is a defect of a decompressor; it is passed on.
        if let Err(panic) = producer.join() {
            std::panic::resume_unwind(panic);
        }
        result
    })
    .map(|value| (value, source))
}

fn pump(source: &mut impl Read, full: &SyncSender<io::Result<Vec<u8>>>, empty: &Receiver<Vec<u8>>) {
    loop {
        let mut chunk = empty.try_recv().unwrap_or_default();
        chunk.resize(CHUNK, 0);
        let message = match fill(source, &mut chunk) {
            Ok(0) => return,
            Ok(n) => {
                chunk.truncate(n);
                Ok(chunk)
            }
            Err(e) => Err(e),
        };
        let last = message.is_err();
        if full.send(message).is_err() || last {
            return;
        }
    }
}

/// Whole chunks while there is something, whatever pieces it comes in.
fn fill(source: &mut impl Read, chunk: &mut [u8]) -> io::Result<usize> {
    let mut have = 0;
    while have < chunk.len() {
        match source.read(&mut chunk[have..]) {
            Ok(0) => break,
            Ok(n) => have += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(have)
}

impl BufRead for PipeReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at == self.chunk.len()
            && let Ok(next) = self.full.recv()
        {
            let used = std::mem::replace(&mut self.chunk, next?);
            self.at = 0;
            // The producer may have ended; then nobody needs the buffer.
            drop(self.empty.send(used));
        }
        Ok(&self.chunk[self.at..])
    }

    fn consume(&mut self, n: usize) {
        self.at += n;
    }
}

impl Read for PipeReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let n = available.len().min(buf.len());
        buf[..n].copy_from_slice(&available[..n]);
        self.consume(n);
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_passes_and_the_rest_is_drained() {
        let bytes: Vec<u8> = (0..3_000_000u32).map(|i| i.to_le_bytes()[0]).collect();
        let mut hashing = crate::digest::HashingReader::new(&bytes[..]);
        let (first, _) = read_ahead(
            &mut hashing,
            |pipe| {
                let mut first = [0; 10];
                pipe.read_exact(&mut first).map(|()| first)
            },
            |e| e,
        )
        .unwrap();
        assert_eq!(first, bytes[..10]);
        assert_eq!(hashing.count(), 3_000_000);
    }

    #[test]
    fn errors_come_from_both_ends_and_nothing_hangs() {
        let broken = io::repeat(1).take(5_000_000).chain(Broken);
        let result = read_ahead(broken, |pipe| io::copy(pipe, &mut io::sink()), |e| e);
        assert_eq!(result.err().unwrap().to_string(), "broken");
        let result = read_ahead(io::repeat(1), |_| Err::<(), _>("enough"), |_| "drain");
        assert_eq!(result.err(), Some("enough"));
    }

    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("broken"))
        }
    }
}
