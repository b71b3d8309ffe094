//! Decompression by what the first bytes say, with a bound on what comes out.

use std::io::{self, Read};

const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
/// Formats that are told apart only to be refused by name.
const UNSUPPORTED: &[(&[u8], &str)] =
    &[(b"BZh", "bzip2"), (&[0xfd, b'7', b'z', b'X', b'Z', 0], "xz"), (b"PK\x03\x04", "zip")];
/// 128 MiB, the most that zstd's own tool takes without being asked to (zstd(1), --memory).
const ZSTD_WINDOW_LOG: u32 = 27;

/// A frame that decoders skip; some compressors begin with one (RFC 8878, 3.1.2).
fn is_zstd(magic: &[u8]) -> bool {
    magic.starts_with(ZSTD) || matches!(magic, [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..])
}

/// Plain bytes of `reader`, whatever it is compressed with.
pub(crate) fn decompressed<'a, R: Read + Send + 'a>(mut reader: R) -> io::Result<Box<dyn Read + Send + 'a>> {
    let mut magic = Vec::new();
    reader.by_ref().take(8).read_to_end(&mut magic)?;
    let whole = io::Cursor::new(magic.clone()).chain(reader);
    let whole = io::BufReader::with_capacity(256 << 10, whole);
    if magic.starts_with(GZIP) {
        // Several members in a row are one file (RFC 1952, 2.2); parallel compressors write them.
        return Ok(Box::new(flate2::bufread::MultiGzDecoder::new(whole)));
    }
    if is_zstd(&magic) {
        let mut decoder = zstd::stream::read::Decoder::with_buffer(whole)?;
        decoder.window_log_max(ZSTD_WINDOW_LOG)?;
        return Ok(Box::new(decoder));
    }
    match UNSUPPORTED.iter().find(|(bytes, _)| magic.starts_with(bytes)) {
        Some((_, name)) => {
            Err(io::Error::new(io::ErrorKind::InvalidData, format!("{name} is not supported, only gzip and zstd")))
        }
        None => Ok(Box::new(whole)),
    }
}

/// Ends with an error when more than `limit` bytes are read.
pub(crate) struct Bounded<R> {
    inner: R,
    left: u64,
    limit: u64,
}

impl<R> Bounded<R> {
    pub(crate) fn new(inner: R, limit: u64) -> Self {
        Bounded { inner, left: limit, limit }
    }
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.left = self.left.checked_sub(n as u64).ok_or_else(|| {
            let why = format!("it decompresses to more than {} bytes: a decompression bomb", self.limit);
            io::Error::new(io::ErrorKind::InvalidData, why)
        })?;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn all(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        decompressed(bytes)?.read_to_end(&mut out)?;
        Ok(out)
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn the_first_bytes_decide() {
        assert_eq!(all(b"plain").unwrap(), b"plain");
        assert_eq!(all(b"").unwrap(), b"");
        assert_eq!(all(&[gzip(b"one "), gzip(b"two")].concat()).unwrap(), b"one two");
        assert_eq!(all(&zstd::encode_all(&b"zst"[..], 1).unwrap()).unwrap(), b"zst");
        assert!(all(b"BZh91AY").unwrap_err().to_string().contains("bzip2"));
        assert!(all(&gzip(b"cut off")[..15]).is_err());
    }

    #[test]
    fn a_short_first_read_still_tells() {
        struct OneByOne<'a>(&'a [u8]);
        impl Read for OneByOne<'_> {
            fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
                self.0.take(1).read(buf).inspect(|&n| self.0 = &self.0[n..])
            }
        }
        let mut out = Vec::new();
        decompressed(OneByOne(&gzip(b"abc"))).unwrap().read_to_end(&mut out).unwrap();
        assert_eq!(out, b"abc");
    }

    #[test]
    fn many_empty_members_are_as_one_and_garbage_behind_them_is_an_error() {
        assert_eq!(all(&gzip(b"").repeat(100_000)).unwrap(), b"");
        assert!(all(&[gzip(b"a"), b"garbage".to_vec()].concat()).is_err());
        let frame = zstd::encode_all(&b""[..], 1).unwrap();
        // Frames that are to be skipped among them, one of them with a length that is not there.
        let skipped = [0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3];
        assert_eq!(all(&[&frame[..], &skipped].concat().repeat(100_000)).unwrap(), b"");
        assert!(all(&[0x50, 0x2a, 0x4d, 0x18, 0xff, 0xff, 0xff, 0xff, 1]).is_err());
        assert!(all(&[zstd::encode_all(&b"a"[..], 1).unwrap(), b"garbage".to_vec()].concat()).is_err());
    }

    #[test]
    fn a_window_that_would_fill_memory_is_refused() {
        // No content size, window descriptor with exponent 21 and 10 (RFC 8878, 3.1.1.1.2): 2 GiB, 1 MiB; an empty last block.
        let frame = |exponent: u8| [0x28, 0xb5, 0x2f, 0xfd, 0, exponent << 3, 1, 0, 0];
        assert!(all(&frame(21)).unwrap_err().to_string().contains("memory"));
        assert_eq!(all(&frame(10)).unwrap(), b"");
    }

    #[test]
    fn a_bomb_is_cut_short() {
        let bomb = gzip(&vec![0; 1 << 20]);
        let mut reader = Bounded::new(decompressed(&bomb[..]).unwrap(), 1000);
        let error = io::copy(&mut reader, &mut io::sink()).unwrap_err();
        assert!(error.to_string().contains("bomb"));
    }
}
