//! Pax extended headers (pax(1), "pax Extended Header"): `length keyword=value\n`, and the keywords that matter here.

use super::TarError;

/// What the extended header of one entry overrides.
#[derive(Debug, Default)]
pub(super) struct Pax {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    /// Seconds and nanoseconds.
    pub(super) mtime: Option<(i64, u32)>,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) sparse: PaxSparse,
}

/// The three ways in which GNU tar tells of holes within pax.
#[derive(Debug, Default)]
pub(super) struct PaxSparse {
    pub(super) name: Option<Vec<u8>>,
    pub(super) real_size: Option<u64>,
    pub(super) major: Option<u64>,
    /// Versions 0.0 and 0.1: offsets and lengths in turn.
    pub(super) numbers: Vec<u64>,
}

const XATTR: &[u8] = b"SCHILY.xattr.";
/// GNU.sparse.offset may be repeated; more would only be there to use up memory.
const MAX_SPARSE_NUMBERS: usize = 2 * super::sparse::MAX_SEGMENTS;

impl Pax {
    pub(super) fn parse(mut rest: &[u8]) -> Result<Self, TarError> {
        let mut pax = Pax::default();
        while !rest.is_empty() {
            let (key, value, tail) = record(rest).ok_or_else(|| TarError::malformed("a pax header is malformed"))?;
            pax.take(key, value)?;
            rest = tail;
        }
        Ok(pax)
    }

    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), TarError> {
        match key {
            b"path" => self.path = Some(name(value)?),
            b"linkpath" => self.link = Some(name(value)?),
            b"size" => self.size = Some(decimal(value)?),
            b"uid" => self.uid = Some(decimal(value)?),
            b"gid" => self.gid = Some(decimal(value)?),
            b"mtime" => self.mtime = Some(time(value)?),
            b"GNU.sparse.name" => self.sparse.name = Some(name(value)?),
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => self.sparse.real_size = Some(decimal(value)?),
            b"GNU.sparse.major" => self.sparse.major = Some(decimal(value)?),
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => self.sparse.push(decimal(value)?)?,
            b"GNU.sparse.map" => {
                for number in value.split(|&b| b == b',') {
                    self.sparse.push(decimal(number)?)?;
                }
            }
            _ => {
                if let Some(attribute) = key.strip_prefix(XATTR) {
                    self.xattrs.push((attribute.to_vec(), value.to_vec()));
                }
            }
        }
        Ok(())
    }
}

impl PaxSparse {
    fn push(&mut self, number: u64) -> Result<(), TarError> {
        if self.numbers.len() >= MAX_SPARSE_NUMBERS {
            return Err(TarError::malformed("a sparse file has too many pieces"));
        }
        self.numbers.push(number);
        Ok(())
    }
}

/// Splits the first record off; the length counts itself, the blank and the newline.
fn record(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let blank = bytes.iter().take(20).position(|&b| b == b' ')?;
    let length: usize = std::str::from_utf8(&bytes[..blank]).ok()?.parse().ok()?;
    let (record, tail) = bytes.split_at_checked(length)?;
    let body = record.get(blank + 1..)?.strip_suffix(b"\n")?;
    let equals = body.iter().position(|&b| b == b'=')?;
    Some((&body[..equals], &body[equals + 1..], tail))
}

fn name(value: &[u8]) -> Result<Vec<u8>, TarError> {
    if value.contains(&0) {
        return Err(TarError::malformed("a name holds a NUL byte"));
    }
    Ok(value.to_vec())
}

pub(super) fn decimal(value: &[u8]) -> Result<u64, TarError> {
    let text = std::str::from_utf8(value).ok().filter(|t| t.bytes().all(|b| b.is_ascii_digit()));
    text.and_then(|t| t.parse().ok())
        .ok_or_else(|| TarError::malformed("a pax header holds no number where one belongs"))
}

/// Seconds with an optional fraction, perhaps before 1970.
fn time(value: &[u8]) -> Result<(i64, u32), TarError> {
    let bad = || TarError::malformed("a time is malformed");
    let text = std::str::from_utf8(value).map_err(|_| bad())?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().map_err(|_| bad())?;
    let digits: String = fraction.chars().chain(std::iter::repeat('0')).take(9).collect();
    let nanos: u32 = digits.parse().map_err(|_| bad())?;
    if nanos != 0 && whole.starts_with('-') {
        // timespec counts nanoseconds forward: -1.25 is -2 s and 0.75 s.
        return Ok((seconds.checked_sub(1).ok_or_else(bad)?, 1_000_000_000 - nanos));
    }
    Ok((seconds, nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_split_by_their_length() {
        let pax = Pax::parse(b"12 path=a=b\n20 mtime=1.25\nx=y\n \n").err();
        assert!(pax.is_some(), "a newline inside a value needs the right length");
        let pax = Pax::parse(b"12 path=a=b\n14 mtime=1.25\n30 SCHILY.xattr.user.k=v\nw\xff\0z\n").unwrap();
        assert_eq!(pax.path.unwrap(), b"a=b");
        assert_eq!(pax.mtime, Some((1, 250_000_000)));
        assert_eq!(pax.xattrs, [(b"user.k".to_vec(), b"v\nw\xff\0z".to_vec())]);
    }

    #[test]
    fn lying_lengths_are_refused() {
        for bad in
            [&b"0 a=b\n"[..], b"99999999999999999999 a=b\n", b"7 a=b\n", b"5 a=b\n", b"6 ab\n\n", b"x", b"-1 a=b\n"]
        {
            assert!(Pax::parse(bad).is_err(), "{}", bad.escape_ascii());
        }
    }

    #[test]
    fn times_before_1970() {
        assert_eq!(time(b"-1.25").unwrap(), (-2, 750_000_000));
        assert_eq!(time(b"5").unwrap(), (5, 0));
        assert!(time(b"1.2x").is_err());
    }
}
