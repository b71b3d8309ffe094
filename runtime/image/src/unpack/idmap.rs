//! Which ids the user namespace has, to say which one is missing before the kernel says EINVAL.

use rustix::io::Errno;
use std::ops::Range;

/// Ids that are mapped in this process's user namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct IdMap {
    ranges: Vec<Range<u64>>,
}

impl IdMap {
    pub(super) fn read(file: &str) -> Result<Self, Errno> {
        let text = std::fs::read_to_string(file).map_err(|e| super::failure::errno(&e))?;
        Ok(Self::parse(&text))
    }

    /// Lines of `inside outside count` (user_namespaces(7)).
    fn parse(text: &str) -> Self {
        let line = |line: &str| {
            let mut fields = line.split_ascii_whitespace().map(str::parse::<u64>);
            let (first, _, count) = (fields.next()?.ok()?, fields.next()?.ok()?, fields.next()?.ok()?);
            Some(first..first + count)
        };
        IdMap { ranges: text.lines().filter_map(line).collect() }
    }

    /// The id as the kernel takes it, if it is mapped.
    pub(super) fn get(&self, id: u64) -> Option<u32> {
        self.ranges.iter().any(|r| r.contains(&id)).then(|| u32::try_from(id).ok()).flatten()
    }

    /// Only root is mapped: owners cannot be kept, and are not asked for.
    pub(super) fn is_single(&self) -> bool {
        self.ranges.iter().map(|r| r.end - r.start).sum::<u64>() <= 1
    }

    /// `0-65536`.
    pub(super) fn shown(&self) -> String {
        let range = |r: &Range<u64>| format!("{}-{}", r.start, r.end.saturating_sub(1));
        self.ranges.iter().map(range).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_tell_which_ids_they_have() {
        let map = IdMap::parse("         0       1500          1\n         1     100000      65536\n");
        assert_eq!((map.get(0), map.get(65536), map.get(65537), map.get(u64::MAX)), (Some(0), Some(65536), None, None));
        assert!(!map.is_single());
        assert_eq!(map.shown(), "0-0, 1-65536");
        assert!(IdMap::parse("0 1500 1").is_single());
    }
}
