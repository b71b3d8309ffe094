//! What a policy says of itself: one custom section with JSON, so that its digest and its signature cover it.

use serde_json::Value;

/// The section's name.
const SECTION: &str = "rlrun:policy-meta";
/// Magic and version.
const HEADER: usize = 8;

/// Reads the section; None when there is none, or it is not JSON.
#[must_use]
pub fn read(wasm: &[u8]) -> Option<Value> {
    let mut rest = wasm.get(HEADER..)?;
    while let Some((&id, after)) = rest.split_first() {
        let (size, after) = number(after)?;
        let (section, next) = after.split_at_checked(size)?;
        if let Some(json) = (id == 0).then(|| named(section)).flatten() {
            return serde_json::from_slice(json).ok();
        }
        rest = next;
    }
    None
}

/// The contents of a custom section of our name.
fn named(section: &[u8]) -> Option<&[u8]> {
    let (length, rest) = number(section)?;
    let (name, contents) = rest.split_at_checked(length)?;
    (name == SECTION.as_bytes()).then_some(contents)
}

/// The component with the section at its end; one that is there already is replaced.
#[must_use]
pub fn write(wasm: &[u8], metadata: &Value) -> Vec<u8> {
    let mut out = without(wasm);
    let json = metadata.to_string();
    let mut section = Vec::with_capacity(json.len() + SECTION.len() + 4);
    append_number(&mut section, SECTION.len());
    section.extend_from_slice(SECTION.as_bytes());
    section.extend_from_slice(json.as_bytes());
    out.push(0);
    append_number(&mut out, section.len());
    out.extend_from_slice(&section);
    out
}

/// What cannot be read stays as it is.
fn without(wasm: &[u8]) -> Vec<u8> {
    let mut out = wasm.get(..HEADER).unwrap_or(wasm).to_vec();
    let mut rest = wasm.get(HEADER..).unwrap_or_default();
    while let Some((&id, after)) = rest.split_first() {
        let Some((size, body)) = number(after) else { break };
        let Some((section, next)) = body.split_at_checked(size) else { break };
        if id != 0 || named(section).is_none() {
            out.extend_from_slice(rest.get(..rest.len() - next.len()).unwrap_or_default());
        }
        rest = next;
    }
    out.extend_from_slice(rest);
    out
}

/// LEB128 of at most 32 bits.
fn number(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut value = 0_u64;
    for (index, byte) in bytes.iter().take(5).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((usize::try_from(value).ok()?, bytes.get(index + 1..)?));
        }
    }
    None
}

fn append_number(out: &mut Vec<u8>, mut value: usize) {
    loop {
        let low = u8::try_from(value & 0x7f).unwrap_or(0);
        value >>= 7;
        out.push(if value == 0 { low } else { low | 0x80 });
        if value == 0 {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_written_is_read_and_replaced() {
        let bare = b"\0asm\x0d\0\x01\0";
        let long = json!({"description": "x".repeat(300)});
        let once = write(bare, &long);
        assert_eq!(read(&once), Some(long));
        let twice = write(&once, &json!({"n": 1}));
        assert_eq!(read(&twice), Some(json!({"n": 1})));
        assert!(twice.len() < once.len());
        assert_eq!(read(bare), None);
    }

    #[test]
    fn lying_lengths_are_no_section() {
        for bytes in [&b"\0asm\x0d\0\x01\0\0\xff\xff\xff\xff\x0f"[..], b"\0asm\x0d\0\x01\0\0\xff", b"\0asm"] {
            assert_eq!(read(bytes), None);
            assert_eq!(read(&write(bytes, &json!(1))).is_some(), bytes.len() == 8);
        }
    }
}
