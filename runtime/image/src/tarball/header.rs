//! One 512-byte header block: where its fields are, and numbers that may lie.

use super::TarError;

pub(super) const BLOCK: usize = 512;
const CHECKSUM: std::ops::Range<usize> = 148..156;

/// A header block with a right checksum.
pub(super) struct Header {
    block: [u8; BLOCK],
}

impl Header {
    /// None for a block of zeros, which ends an archive.
    pub(super) fn parse(block: [u8; BLOCK]) -> Result<Option<Self>, TarError> {
        if block.iter().all(|&b| b == 0) {
            return Ok(None);
        }
        let header = Header { block };
        // Historic tars summed signed bytes.
        let unsigned = header.checksum(i64::from);
        let signed = header.checksum(|b| i64::from(b.cast_signed()));
        // Of what is no archive at all it is hardly ever a number.
        let stored = header.number(CHECKSUM).ok();
        if stored != Some(unsigned) && stored != Some(signed) {
            return Err(TarError::malformed("it is not a tar archive, or damaged: a header's checksum is wrong"));
        }
        Ok(Some(header))
    }

    fn checksum(&self, value: impl Fn(u8) -> i64) -> i64 {
        let sum = |(i, &b): (usize, &u8)| if CHECKSUM.contains(&i) { value(b' ') } else { value(b) };
        self.block.iter().enumerate().map(sum).sum()
    }

    pub(super) fn kind(&self) -> u8 {
        self.block[156]
    }

    pub(super) fn field(&self, range: std::ops::Range<usize>) -> &[u8] {
        &self.block[range]
    }

    fn text(&self, range: std::ops::Range<usize>) -> &[u8] {
        until_nul(&self.block[range])
    }

    pub(super) fn path(&self) -> Vec<u8> {
        let name = self.text(0..100);
        // GNU archives ("ustar  \0") keep other things where ustar has the prefix.
        let prefix = if &self.block[257..263] == b"ustar\0" { self.text(345..500) } else { b"" };
        if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
    }

    pub(super) fn link(&self) -> Vec<u8> {
        self.text(157..257).to_vec()
    }

    pub(super) fn mode(&self) -> Result<u32, TarError> {
        // Only permission bits are used; the file type some archivers add is in the type flag.
        u32::try_from(self.number(100..108)? & 0o7777).map_err(|_| TarError::malformed("a mode is out of range"))
    }

    pub(super) fn uid(&self) -> Result<u64, TarError> {
        self.count(108..116)
    }

    pub(super) fn gid(&self) -> Result<u64, TarError> {
        self.count(116..124)
    }

    pub(super) fn size(&self) -> Result<u64, TarError> {
        self.count(124..136)
    }

    pub(super) fn mtime(&self) -> Result<i64, TarError> {
        self.number(136..148)
    }

    /// A number that must not be negative.
    pub(super) fn count(&self, range: std::ops::Range<usize>) -> Result<u64, TarError> {
        count(&self.block[range])
    }

    fn number(&self, range: std::ops::Range<usize>) -> Result<i64, TarError> {
        number(&self.block[range])
    }
}

pub(super) fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|&b| b == 0).next().unwrap_or_default()
}

pub(super) fn count(field: &[u8]) -> Result<u64, TarError> {
    u64::try_from(number(field)?).map_err(|_| TarError::malformed("a size or id is negative"))
}

/// Octal digits among blanks, or base 256 when the first bit is set (GNU).
fn number(field: &[u8]) -> Result<i64, TarError> {
    let bad = || TarError::malformed("a number in a header is out of range or none");
    let (&first, rest) = field.split_first().ok_or_else(bad)?;
    if first & 0x80 != 0 {
        let negative = first & 0x40 != 0;
        let head = if negative { i128::from(first) - 0x100 } else { i128::from(first & 0x3f) };
        let mut value = head;
        for &byte in rest {
            value = value.checked_mul(256).and_then(|v| v.checked_add(i128::from(byte))).ok_or_else(bad)?;
        }
        return i64::try_from(value).map_err(|_| bad());
    }
    let digits = until_nul(field).trim_ascii();
    digits.iter().try_fold(0i64, |value, &digit| match digit {
        b'0'..=b'7' => value.checked_mul(8).and_then(|v| v.checked_add(i64::from(digit - b'0'))).ok_or_else(bad),
        _ => Err(bad()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_archive_is_told_as_that() {
        let why = Header::parse([b'x'; BLOCK]).err().unwrap().to_string();
        assert!(why.starts_with("it is not a tar archive"), "{why}");
    }

    #[test]
    fn numbers_octal_and_base_256() {
        assert_eq!(number(b"0000644\0").unwrap(), 0o644);
        assert_eq!(number(b"  644 \0\0").unwrap(), 0o644);
        assert_eq!(number(b"\0\0\0\0\0\0\0\0").unwrap(), 0);
        assert_eq!(number(&[0x80, 0, 0, 0, 0, 0, 1, 0]).unwrap(), 256);
        assert_eq!(number(&[0xff; 12]).unwrap(), -1);
        assert!(number(b"12x").is_err());
        assert!(number(&[0xbf; 12]).is_err(), "more than 63 bits");
        assert!(count(&[0xff; 12]).is_err(), "a negative size");
    }
}
