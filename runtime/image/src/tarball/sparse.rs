//! Files with holes, in the four forms that GNU tar writes.

use super::TarError;
use super::header::{Header, count};
use super::pax::decimal;

/// Far more pieces than any real file has; bounds memory.
pub(super) const MAX_SEGMENTS: usize = 1 << 16;

/// Where the stored bytes belong in the file; the rest are holes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SparseMap {
    /// Offset and length, ascending, disjoint.
    pub(crate) segments: Vec<(u64, u64)>,
    /// Size of the file with its holes.
    pub(crate) real_size: u64,
}

impl SparseMap {
    /// Checks a map against the bytes that are stored.
    pub(super) fn new(numbers: &[u64], real_size: u64, stored: u64) -> Result<Self, TarError> {
        let bad = |why: &str| TarError::malformed(format!("a sparse file is malformed: {why}"));
        if !numbers.len().is_multiple_of(2) || numbers.len() / 2 > MAX_SEGMENTS {
            return Err(bad("its map has the wrong length"));
        }
        let mut segments = Vec::with_capacity(numbers.len() / 2);
        let (mut end, mut total) = (0u64, 0u64);
        for pair in numbers.chunks_exact(2) {
            let (offset, length) = (pair[0], pair[1]);
            let next = offset.checked_add(length).ok_or_else(|| bad("a piece is out of range"))?;
            if offset < end || next > real_size {
                return Err(bad("pieces overlap or lie beyond its end"));
            }
            end = next;
            total += length;
            if length > 0 {
                segments.push((offset, length));
            }
        }
        if total != stored {
            return Err(bad("its pieces do not add up to what is stored"));
        }
        Ok(SparseMap { segments, real_size })
    }
}

/// The pieces in an old GNU header (`S`): four in the header, 21 in each block that follows.
pub(super) fn old_gnu_numbers(
    header: &Header,
    mut next_block: impl FnMut() -> Result<[u8; 512], TarError>,
) -> Result<(Vec<u64>, u64), TarError> {
    let real_size = header.count(483..495)?;
    let mut numbers = Vec::new();
    take_pieces(header.field(386..482), &mut numbers)?;
    let mut extended = header.field(482..483)[0] != 0;
    while extended {
        let block = next_block()?;
        take_pieces(&block[..504], &mut numbers)?;
        extended = block[504] != 0;
    }
    Ok((numbers, real_size))
}

fn take_pieces(fields: &[u8], numbers: &mut Vec<u64>) -> Result<(), TarError> {
    for piece in fields.chunks_exact(24) {
        // An empty piece ends the list.
        if piece[0] == 0 {
            break;
        }
        numbers.push(count(&piece[..12])?);
        numbers.push(count(&piece[12..])?);
    }
    if numbers.len() / 2 > MAX_SEGMENTS {
        return Err(TarError::malformed("a sparse file has too many pieces"));
    }
    Ok(())
}

/// Pax 1.0: the map comes before the data, a decimal number a line, filled up to a block. Gives back the numbers after
/// the count and how many bytes the map took.
pub(super) fn pax_1_0_numbers(
    mut next_block: impl FnMut() -> Result<[u8; 512], TarError>,
) -> Result<(Vec<u64>, u64), TarError> {
    let mut numbers = Vec::new();
    let mut line = Vec::new();
    let mut wanted = None;
    let mut taken = 0;
    while wanted.is_none_or(|w| numbers.len() < w) {
        let block = next_block()?;
        taken += 512;
        for &byte in &block {
            if byte != b'\n' {
                line.push(byte);
                continue;
            }
            let number = decimal(&line)?;
            line.clear();
            match wanted {
                None => wanted = Some(pieces(number)?),
                Some(w) if numbers.len() < w => numbers.push(number),
                Some(_) => {}
            }
            if wanted == Some(numbers.len()) {
                break;
            }
        }
        if line.len() > 20 {
            return Err(TarError::malformed("a sparse file's map is malformed"));
        }
    }
    Ok((numbers, taken))
}

fn pieces(count: u64) -> Result<usize, TarError> {
    let count = usize::try_from(count).ok().filter(|&c| c <= MAX_SEGMENTS);
    count.map(|c| c * 2).ok_or_else(|| TarError::malformed("a sparse file has too many pieces"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_must_ascend_and_add_up() {
        assert_eq!(SparseMap::new(&[0, 2, 10, 3], 20, 5).unwrap().segments, [(0, 2), (10, 3)]);
        for (numbers, real, stored) in [
            (&[0, 2, 1, 3][..], 20, 5),
            (&[0, 2, 10, 3], 12, 5),
            (&[0, 2, 10, 3], 20, 6),
            (&[0], 20, 0),
            (&[u64::MAX, 2], 20, 2),
        ] {
            assert!(SparseMap::new(numbers, real, stored).is_err(), "{numbers:?}");
        }
    }

    #[test]
    fn a_pax_map_ends_with_its_block() {
        let mut block = [0u8; 512];
        block[..12].copy_from_slice(b"2\n0\n5\n9\n44\n\0");
        let mut blocks = vec![block];
        let next = || blocks.pop().ok_or_else(|| TarError::malformed("short"));
        assert_eq!(pax_1_0_numbers(next).unwrap(), (vec![0, 5, 9, 44], 512));
    }

    #[test]
    fn a_pax_map_that_promises_too_much_is_refused() {
        let mut block = [b'9'; 512];
        block[511] = b'\n';
        assert!(pax_1_0_numbers(|| Ok(block)).is_err());
        block = [b'0'; 512];
        block[..9].copy_from_slice(b"99999999\n");
        assert!(pax_1_0_numbers(|| Ok(block)).is_err());
    }
}
