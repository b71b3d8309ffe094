//! The byte streams that the probe writes (`emit`) and digests (`digest-stdin`), so that both ends know every byte.

use std::io::{Read, Write};

const BLOCK: usize = 65536;

fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

fn block(state: &mut u64) -> Vec<u8> {
    (0..BLOCK / 8).flat_map(|_| next(state).to_ne_bytes()).collect()
}

/// Writes the first `bytes` of the stream of `seed`.
///
/// # Errors
/// When the writer fails.
pub fn emit(out: &mut impl Write, seed: u64, bytes: u64) -> std::io::Result<()> {
    let mut state = seed;
    let mut left = usize::try_from(bytes).unwrap();
    while left > 0 {
        let block = block(&mut state);
        let size = left.min(BLOCK);
        out.write_all(&block[..size])?;
        left -= size;
    }
    Ok(())
}

/// Reads to the end and compares with the stream of `seed`; the number of bytes, or the offset of the first wrong one.
///
/// # Errors
/// The offset of the first byte that differs.
pub fn compare(input: &mut impl Read, seed: u64) -> Result<u64, u64> {
    let mut state = seed;
    let mut got = vec![0; BLOCK];
    let mut total = 0;
    loop {
        let expected = block(&mut state);
        let mut filled = 0;
        while filled < BLOCK {
            match input.read(&mut got[filled..]).expect("the stream can be read") {
                0 => break,
                n => filled += n,
            }
        }
        if let Some(wrong) = got[..filled].iter().zip(&expected).position(|(a, b)| a != b) {
            return Err(total + wrong as u64);
        }
        total += filled as u64;
        if filled < BLOCK {
            return Ok(total);
        }
    }
}

/// What `probe digest-stdin` prints for these bytes.
pub fn digest(bytes: &[u8]) -> String {
    let hash = bytes
        .iter()
        .fold(1_469_598_103_934_665_603_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(1_099_511_628_211));
    format!("{} {hash:016x}", bytes.len())
}
