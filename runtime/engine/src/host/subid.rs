//! /etc/subuid and /etc/subgid (subuid(5)): which host ids a user may map. The files are the administrator's, yet
//! lines may be anything; a line that is not exactly `owner:start:count` grants nothing. newuidmap(1) reads the same
//! files and has the last word, so reading less than it is safe and reading more is not.

use rlrun_spec::IdRange;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// No id above this can be mapped: `u32::MAX` is the "no id" of setresuid(2).
const LAST_ID: u64 = u32::MAX as u64 - 1;

/// A file larger than this is not read; 100 000 users need 3 MiB.
const MAX_FILE: u64 = 64 << 20;

/// Longest line worth looking at: a login name (256) and two numbers.
const MAX_LINE: usize = 512;

/// Whose ranges are wanted. Both spellings grant, as for newuidmap(1).
#[derive(Clone, Copy, Debug)]
pub struct Owner<'a> {
    /// Login name.
    pub name: &'a str,
    /// uid; for /etc/subgid too, whose owners are users.
    pub uid: u32,
}

impl Owner<'_> {
    /// Whether a first field names this owner.
    #[must_use]
    pub fn owns(self, field: &[u8]) -> bool {
        field == self.name.as_bytes() || parse_number(field) == Some(u64::from(self.uid))
    }
}

/// Why a line grants nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Not three non-empty fields, too long, or bytes that are no text.
    Malformed,
    /// Start or count is no plain decimal number.
    NotANumber,
    /// The count is zero.
    Empty,
    /// The range ends above the highest id.
    BeyondLastId,
    /// The range holds id 0: it would give the host's root away.
    GrantsRoot,
}

/// One line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// First field: a login name or a uid in digits.
    pub owner: &'a [u8],
    /// What is granted.
    pub range: IdRange,
}

/// The entries of a file and its faulty lines, each with its number from 1. Blank lines and comments are neither.
pub fn lines(text: &[u8]) -> impl Iterator<Item = (usize, Result<Entry<'_>, Fault>)> {
    let worth_it = |line: &&[u8]| !line.trim_ascii().is_empty() && !line.starts_with(b"#");
    (1..).zip(text.split(|b| *b == b'\n')).filter(move |(_, l)| worth_it(l)).map(|(n, l)| (n, parse_line(l)))
}

fn parse_line(line: &[u8]) -> Result<Entry<'_>, Fault> {
    if line.len() > MAX_LINE || line.contains(&0) {
        return Err(Fault::Malformed);
    }
    let mut fields = line.split(|b| *b == b':');
    let (Some(owner), Some(start), Some(count), None) = (fields.next(), fields.next(), fields.next(), fields.next())
    else {
        return Err(Fault::Malformed);
    };
    if owner.is_empty() || start.is_empty() || count.is_empty() {
        return Err(Fault::Malformed);
    }
    let start = parse_number(start).ok_or(Fault::NotANumber)?;
    let count = parse_number(count).ok_or(Fault::NotANumber)?;
    range(start, count).map(|range| Entry { owner, range })
}

fn range(start: u64, count: u64) -> Result<IdRange, Fault> {
    if count == 0 {
        return Err(Fault::Empty);
    }
    if start == 0 {
        return Err(Fault::GrantsRoot);
    }
    let last = start.checked_add(count - 1).ok_or(Fault::BeyondLastId)?;
    if last > LAST_ID {
        return Err(Fault::BeyondLastId);
    }
    let narrow = |n: u64| u32::try_from(n).map_err(|_| Fault::BeyondLastId);
    Ok(IdRange { start: narrow(start)?, count: narrow(count)? })
}

/// Plain decimal only. shadow reads a leading zero as octal and 0x as hexadecimal: such a number means something
/// else to newuidmap than to a reader, so it is refused.
fn parse_number(field: &[u8]) -> Option<u64> {
    if field.is_empty() || !field.iter().all(u8::is_ascii_digit) || (field.len() > 1 && field.starts_with(b"0")) {
        return None;
    }
    std::str::from_utf8(field).ok()?.parse().ok()
}

/// What the file grants to `owner`, in the file's order; overlaps within the grant are counted once.
#[must_use]
pub fn granted(text: &[u8], owner: Owner<'_>) -> Vec<IdRange> {
    let own = lines(text).filter_map(|(_, line)| line.ok()).filter(|entry| owner.owns(entry.owner));
    disjoint(own.map(|entry| entry.range))
}

/// The same ids in the same order, each once. Neighbours are not joined: newuidmap(1) checks each map line against
/// one grant at a time when the grants come from another source than the file.
#[must_use]
pub fn disjoint(ranges: impl IntoIterator<Item = IdRange>) -> Vec<IdRange> {
    ranges.into_iter().fold(Vec::new(), |mut kept, range| {
        kept.extend(subtract(range, &kept));
        kept
    })
}

/// What of a grant can be mapped beside the caller's own id: not that id again, since a host id may stand in one
/// line only, and nothing that the namespace we are in does not know. A line within two of its extents is EPERM
/// (user_namespaces(7)), so pieces are cut at their borders.
#[must_use]
pub fn usable(granted: &[IdRange], own: u32, known: &[IdRange]) -> Vec<IdRange> {
    let own = IdRange { start: own, count: 1 };
    let pieces = granted.iter().flat_map(|range| subtract(*range, &[own]));
    pieces.flat_map(|piece| known.iter().filter_map(move |extent| intersect(piece, *extent))).collect()
}

/// The ids that exist in the caller's user namespace: the first and third column of /proc/self/uid_map or gid_map.
#[must_use]
pub fn known_ids(map: &str) -> Vec<IdRange> {
    let extent = |line: &str| {
        let mut columns = line.split_ascii_whitespace();
        let start = columns.next()?.parse().ok()?;
        Some(IdRange { start, count: columns.nth(1)?.parse().ok()? })
    };
    map.lines().filter_map(extent).collect()
}

/// `range` without every id of `holes`, in rising order.
#[must_use]
pub fn subtract(range: IdRange, holes: &[IdRange]) -> Vec<IdRange> {
    let mut pieces = vec![range];
    for hole in holes {
        pieces = pieces.into_iter().flat_map(|piece| cut(piece, *hole)).flatten().collect();
    }
    pieces
}

fn cut(piece: IdRange, hole: IdRange) -> [Option<IdRange>; 2] {
    let below = between(u64::from(piece.start), end(piece).min(u64::from(hole.start)));
    let above = between(u64::from(piece.start).max(end(hole)), end(piece));
    [below, above]
}

/// What two ranges share.
#[must_use]
pub fn intersect(a: IdRange, b: IdRange) -> Option<IdRange> {
    between(u64::from(a.start.max(b.start)), end(a).min(end(b)))
}

fn between(start: u64, end: u64) -> Option<IdRange> {
    let count = u32::try_from(end.checked_sub(start)?).ok().filter(|n| *n > 0)?;
    Some(IdRange { start: u32::try_from(start).ok()?, count })
}

/// One past the last id.
fn end(range: IdRange) -> u64 {
    u64::from(range.start) + u64::from(range.count)
}

/// The lowest start of `count` ids that no line of either file grants to anybody, from 100000 on as useradd(8) does
/// (`SUB_UID_MIN`). None when the id space is full.
#[must_use]
pub fn first_free(files: [&[u8]; 2], count: u32) -> Option<u32> {
    let mut taken: Vec<IdRange> =
        files.into_iter().flat_map(lines).filter_map(|(_, line)| Some(line.ok()?.range)).collect();
    taken.sort_unstable_by_key(|range| range.start);
    let mut start = 100_000_u64;
    for range in taken {
        if u64::from(range.start) >= start + u64::from(count) {
            break;
        }
        start = start.max(end(range));
    }
    let fits = start + u64::from(count) - 1 <= LAST_ID;
    u32::try_from(start).ok().filter(|_| fits)
}

/// Reads a file of this format. A missing file grants nothing.
///
/// # Errors
/// When it cannot be read or is absurdly large.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file = match File::open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    // One read for all but the largest files.
    let mut text = Vec::with_capacity(4096);
    file.take(MAX_FILE + 1).read_to_end(&mut text)?;
    if text.len() as u64 > MAX_FILE {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "larger than 64 MiB"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
