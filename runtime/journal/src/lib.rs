//! The journal: one file of JSON lines that only grows. Each line begins with the digest of the line before, so that
//! none can be changed, taken out or put in unseen. Commands and supervisors append to it; a container cannot, because
//! nothing of rlrun's data is mounted into one. `audit` and `events` read it.
//!
//! Appending is an open, a lock, a read of the last line and one write: no sync, so that a power cut may take the last
//! lines; what it leaves of a line counts as a line and breaks no chain.

use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io::{self, BufRead, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// What the first line names as the line before.
pub const START: &str = "0000000000000000000000000000000000000000000000000000000000000000";

const CHUNK: usize = 8192;

/// Appends one line. `members` are those of a JSON object without its braces, and hold no line break.
///
/// # Errors
/// When the file cannot be opened, locked or written.
pub fn append(path: &Path, members: &str) -> io::Result<()> {
    let flags = OFlags::RDWR | OFlags::APPEND | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR)?);
    flock(&file, FlockOperation::LockExclusive)?;
    let (last, whole) = last_line(&file)?;
    let mut line = String::with_capacity(members.len() + 100);
    if !whole {
        // Somebody was killed, or the disk was full: what is there is a line from now on.
        line.push('\n');
    }
    line.push_str("{\"prev\":\"");
    line.push_str(&last.map_or_else(|| START.to_owned(), |last| digest(&last)));
    line.push_str("\",");
    line.push_str(members);
    line.push_str("}\n");
    file.write_all(line.as_bytes())
}

/// The last line without its end, and whether it has one; an empty file is whole.
fn last_line(file: &File) -> io::Result<(Option<Vec<u8>>, bool)> {
    let mut start = file.metadata()?.len();
    let mut tail: Vec<u8> = Vec::new();
    while start > 0 {
        let take = usize::try_from(start).unwrap_or(usize::MAX).min(CHUNK);
        start -= take as u64;
        let mut chunk = vec![0; take];
        file.read_exact_at(&mut chunk, start)?;
        chunk.append(&mut tail);
        tail = chunk;
        let text = tail.strip_suffix(b"\n").unwrap_or(&tail);
        if let Some(at) = text.iter().rposition(|b| *b == b'\n') {
            return Ok((Some(text[at + 1..].to_vec()), tail.ends_with(b"\n")));
        }
    }
    if tail.is_empty() {
        return Ok((None, true));
    }
    let whole = tail.ends_with(b"\n");
    Ok((Some(tail.strip_suffix(b"\n").unwrap_or(&tail).to_vec()), whole))
}

/// A line's digest, as the next line names it.
#[must_use]
pub fn digest(line: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let bytes = Sha256::digest(line);
    let digit = |d: u8| char::from(DIGITS[usize::from(d)]);
    bytes.iter().flat_map(|b| [digit(b >> 4), digit(b & 15)]).collect()
}

/// What reading the whole journal found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// How many lines.
    pub lines: u64,
    /// The digest of the last one; [`START`] of an empty journal.
    pub head: String,
    /// Whether the digest that was looked for is one of the chain's.
    pub seen: bool,
}

/// Why a journal is not what it was.
#[derive(Debug)]
pub enum Broken {
    /// This line does not continue the one before.
    Line(u64),
    /// It cannot be read.
    Io(io::Error),
}

/// Follows the chain from its beginning. `expected` is a digest that it must have gone through, the head of an earlier
/// verification: only so can it be seen that the end was cut off.
///
/// # Errors
/// [`Broken::Line`] for the first line that does not fit.
pub fn verify(journal: impl BufRead, expected: Option<&str>) -> Result<Verified, Broken> {
    let mut found = Verified { lines: 0, head: START.to_owned(), seen: expected.is_none_or(|e| e == START) };
    for line in journal.split(b'\n') {
        let line = line.map_err(Broken::Io)?;
        found.lines += 1;
        let names = line.strip_prefix(b"{\"prev\":\"").and_then(|rest| rest.get(..found.head.len()));
        if names != Some(found.head.as_bytes()) {
            return Err(Broken::Line(found.lines));
        }
        found.head = digest(&line);
        found.seen |= expected == Some(found.head.as_str());
    }
    Ok(found)
}

/// A text as a JSON string.
#[must_use]
pub fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if u32::from(c) < 0x20 || c == '\u{7f}' => {
                out.push_str("\\u00");
                let code = u32::from(c);
                out.extend([char::from_digit(code >> 4, 16), char::from_digit(code & 15, 16)].into_iter().flatten());
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fs;

    fn journal(lines: &[&str]) -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        for line in lines {
            append(&path, line).unwrap();
        }
        (dir, path)
    }

    fn overwrite(path: &Path, text: &str) {
        let mut file = fs::OpenOptions::new().write(true).truncate(true).open(path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    fn verified(path: &Path, expected: Option<&str>) -> Result<Verified, u64> {
        verify(&fs::read(path).unwrap()[..], expected).map_err(|broken| match broken {
            Broken::Line(line) => line,
            Broken::Io(e) => panic!("{e}"),
        })
    }

    #[test]
    fn a_change_anywhere_is_seen() {
        let (_dir, path) = journal(&["\"n\":1", "\"n\":2", "\"n\":3"]);
        let whole = verified(&path, None).unwrap();
        assert_eq!(whole.lines, 3);
        let text = fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let write = |text: String| overwrite(&path, &text);
        write(text.replace("\"n\":2", "\"n\":7"));
        assert_eq!(verified(&path, None), Err(3));
        write(format!("{}\n{}\n", lines[0], lines[2]));
        assert_eq!(verified(&path, None), Err(2));
        write(format!("{}\n{}\n", lines[1], lines[2]));
        assert_eq!(verified(&path, None), Err(1));
        // Only who remembers the head can tell that the end is missing.
        write(format!("{}\n{}\n", lines[0], lines[1]));
        assert!(!verified(&path, Some(&whole.head)).unwrap().seen);
        write(text.clone());
        append(&path, "\"n\":4").unwrap();
        assert!(verified(&path, Some(&whole.head)).unwrap().seen);
    }

    #[test]
    fn half_a_line_stays_and_breaks_nothing_after_it() {
        let (_dir, path) = journal(&["\"n\":1"]);
        let mut text = fs::read_to_string(&path).unwrap();
        let half = format!("{{\"prev\":\"{}\",\"n\":", digest(text.trim_end().as_bytes()));
        text.push_str(&half);
        overwrite(&path, &text);
        append(&path, "\"n\":3").unwrap();
        assert_eq!(verified(&path, None).unwrap().lines, 3);
    }

    #[test]
    fn many_append_at_once() {
        let (_dir, path) = journal(&[]);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let path = &path;
                scope.spawn(move || (0..50).for_each(|n| append(path, &format!("\"n\":\"{thread}.{n}\"")).unwrap()));
            }
        });
        assert_eq!(verified(&path, None).unwrap().lines, 200);
    }

    #[test]
    fn a_link_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(dir.path().join("elsewhere"), dir.path().join("journal")).unwrap();
        assert!(append(&dir.path().join("journal"), "\"n\":1").is_err());
        assert!(!dir.path().join("elsewhere").exists());
    }

    proptest! {
        #[test]
        fn lines_of_any_length_continue_the_chain(lengths in proptest::collection::vec(0_usize..20_000, 1..6)) {
            let (_dir, path) = journal(&[]);
            for length in &lengths {
                append(&path, &format!("\"x\":{}", quoted(&"y".repeat(*length)))).unwrap();
            }
            prop_assert_eq!(verified(&path, None).unwrap().lines, lengths.len() as u64);
        }

        #[test]
        fn a_quoted_text_has_no_line_break_and_no_bare_quote(text in "(?s).{0,50}") {
            let inner = quoted(&text);
            let inner = &inner[1..inner.len() - 1];
            prop_assert!(inner.chars().all(|c| u32::from(c) >= 0x20));
            prop_assert!(!inner.replace("\\\\", "").replace("\\\"", "").contains('"'));
        }
    }
}
