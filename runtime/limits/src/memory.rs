//! How much memory the container's processes use, roughly and cheaply or exactly.
//!
//! Roughly: what each process has in memory (/proc/PID/status), where pages that several share count several times, so
//! it is never too little. Exactly: each shared page once (smaps_rollup), files in memory once whether they are mapped,
//! open or only there. The page cache of files on disk can be dropped at any time and is not counted; memory that the
//! kernel holds for the container (page tables, sockets, pipes) cannot be seen from here.

use crate::agent::Surroundings;
use crate::census::Census;
use rustix::fs::{AtFlags, Mode, OFlags, RawDir, ResolveFlags, fstatfs, openat, openat2, readlinkat, statat};
use rustix::io::Result;
use std::collections::{BTreeMap, BTreeSet};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

/// More descriptors than these are not looked at in one count.
const MOST_DESCRIPTORS: usize = 65_536;

/// Memory of one process, or of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Memory {
    /// Anonymous pages.
    pub(crate) anon: u64,
    /// Mapped pages of files in memory, and of memory shared without a file.
    pub(crate) shared: u64,
    /// Swapped out.
    pub(crate) swap: u64,
}

impl Memory {
    pub(crate) fn total(self) -> u64 {
        self.anon.saturating_add(self.shared).saturating_add(self.swap)
    }

    pub(crate) fn add(&mut self, other: Memory) {
        self.anon = self.anon.saturating_add(other.anon);
        self.shared = self.shared.saturating_add(other.shared);
        self.swap = self.swap.saturating_add(other.swap);
    }
}

/// The number of a line `Name:   12 kB`, in bytes.
fn kib(line: &[u8]) -> u64 {
    let digits = line.iter().copied().filter(u8::is_ascii_digit);
    digits.fold(0_u64, |n, d| n.saturating_mul(10).saturating_add(u64::from(d - b'0'))).saturating_mul(1024)
}

/// From /proc/PID/status (proc_pid_status(5)).
fn parse_status(text: &[u8]) -> Memory {
    let mut memory = Memory::default();
    for line in text.split(|b| *b == b'\n') {
        match line.split(|b| *b == b':').next() {
            Some(b"RssAnon") => memory.anon = kib(line),
            Some(b"RssShmem") => memory.shared = kib(line),
            Some(b"VmSwap") => memory.swap = kib(line),
            _ => {}
        }
    }
    memory
}

/// From /proc/PID/smaps_rollup (proc_pid_smaps(5), since Linux 5.9 with the three kinds of Pss).
fn parse_rollup(text: &[u8]) -> Option<Memory> {
    let mut memory = Memory::default();
    let mut complete = false;
    for line in text.split(|b| *b == b'\n') {
        match line.split(|b| *b == b':').next() {
            Some(b"Pss_Anon") => (memory.anon, complete) = (kib(line), true),
            Some(b"Pss_Shmem") => memory.shared = kib(line),
            Some(b"SwapPss") => memory.swap = kib(line),
            _ => {}
        }
    }
    complete.then_some(memory)
}

/// A file in memory, by device (as in maps) and inode.
type File = (u64, u64);

/// Pss of mapped files in memory that are counted as files already: those on `devices`, and those in `open`.
fn parse_mapped(text: &[u8], devices: &BTreeSet<u64>, open: &BTreeSet<File>) -> u64 {
    let mut counted = false;
    let mut mapped = 0_u64;
    for line in text.split(|b| *b == b'\n') {
        if let Some(file) = mapping_of(line) {
            counted = file.1 != 0 && (devices.contains(&file.0) || open.contains(&file));
        } else if counted && line.starts_with(b"Pss:") {
            mapped = mapped.saturating_add(kib(line));
        }
    }
    mapped
}

/// Device and inode of the first line of a mapping: `55d0-55d1 rw-s 00000000 00:01 1034 /memfd:x (deleted)`.
fn mapping_of(line: &[u8]) -> Option<File> {
    let mut words = line.split(|b| *b == b' ').filter(|w| !w.is_empty());
    let range = words.next()?;
    if !range.contains(&b'-') {
        return None;
    }
    let device = std::str::from_utf8(words.nth(2)?).ok()?;
    let (major, minor) = device.split_once(':')?;
    let (major, minor) = (u32::from_str_radix(major, 16).ok()?, u32::from_str_radix(minor, 16).ok()?);
    let inode = std::str::from_utf8(words.next()?).ok()?.parse().ok()?;
    Some((rustix::fs::makedev(major, minor), inode))
}

/// File systems in memory that are the container's own.
#[derive(Debug, Default)]
pub(crate) struct MemoryFiles {
    /// Device and path inside.
    mounts: BTreeMap<u64, Vec<u8>>,
}

impl MemoryFiles {
    /// Those that the container's first process sees and this process, whose mounts are the host's, does not.
    pub(crate) fn find(census: &Census, init: i32) -> Self {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        let read = census
            .read_all(&format!("{}/mountinfo", census.own()), &mut ours)
            .and_then(|()| census.read_all(&format!("{init}/mountinfo"), &mut theirs));
        if read.is_err() {
            return MemoryFiles::default();
        }
        let host: BTreeSet<u64> = parse_mounts(&ours).map(|(device, _)| device).collect();
        MemoryFiles { mounts: parse_mounts(&theirs).filter(|(device, _)| !host.contains(device)).collect() }
    }

    fn devices(&self) -> BTreeSet<u64> {
        self.mounts.keys().copied().collect()
    }

    /// Bytes in them, swapped out or not.
    pub(crate) fn used(&self, census: &Census, around: &Surroundings) -> u64 {
        let hidden = around.hidden.as_ref().and_then(size_of).unwrap_or(0);
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = openat(census.proc(), format!("{}/root", around.init), flags, Mode::empty());
        let Ok(root) = root else { return hidden };
        let used = |path: &Vec<u8>| -> Option<u64> {
            // Inside the container a link leads wherever it wants, but not out.
            let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
            let flags = OFlags::PATH | OFlags::CLOEXEC;
            size_of(&openat2(&root, path.as_slice(), flags, Mode::empty(), resolve).ok()?)
        };
        self.mounts.values().filter_map(used).fold(hidden, u64::saturating_add)
    }
}

/// Bytes in a file system, if it is one in memory.
fn size_of(at: &OwnedFd) -> Option<u64> {
    let stat = fstatfs(at).ok()?;
    if u64::try_from(stat.f_type).ok()? != TMPFS {
        return None;
    }
    Some(stat.f_blocks.saturating_sub(stat.f_bfree).saturating_mul(u64::try_from(stat.f_bsize).ok()?))
}

/// `TMPFS_MAGIC` of statfs(2).
const TMPFS: u64 = 0x0102_1994;

/// Device and path of each tmpfs of a mountinfo (proc_pid_mountinfo(5)).
fn parse_mounts(text: &[u8]) -> impl Iterator<Item = (u64, Vec<u8>)> {
    text.split(|b| *b == b'\n').filter_map(|line| {
        let mut words = line.split(|b| *b == b' ');
        let device = std::str::from_utf8(words.nth(2)?).ok()?;
        let path = words.nth(1)?;
        let kind = words.skip_while(|w| *w != b"-").nth(1)?;
        let (major, minor) = device.split_once(':')?;
        let device = rustix::fs::makedev(major.parse().ok()?, minor.parse().ok()?);
        (kind == b"tmpfs").then(|| (device, unescaped(path)))
    })
}

/// Blanks, tabs, line feeds and backslashes are written as three octal digits.
fn unescaped(path: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..3).filter(|d| *first == b'\\' && d.iter().all(|b| (b'0'..=b'7').contains(b)));
        let code = digits.map(|d| d.iter().fold(0_u32, |n, b| n * 8 + u32::from(b - b'0')));
        if let Some(code) = code.and_then(|n| u8::try_from(n).ok()) {
            plain.push(code);
            rest = &after[3..];
        } else {
            plain.push(*first);
            rest = after;
        }
    }
    plain
}

/// What a process has in memory, pages that others share included.
pub(crate) fn rough(census: &Census, pid: i32, buffer: &mut Vec<u8>) -> Memory {
    // One that ended meanwhile has nothing.
    census.read(&format!("{pid}/status"), buffer).map(|()| parse_status(buffer)).unwrap_or_default()
}

/// Its share of what it has in memory.
pub(crate) fn exact(census: &Census, pid: i32, buffer: &mut Vec<u8>) -> Memory {
    let rollup = census.read(&format!("{pid}/smaps_rollup"), buffer).ok().and_then(|()| parse_rollup(buffer));
    rollup.unwrap_or_else(|| rough(census, pid, buffer))
}

/// What all of `pids` use together, each page once; and what each of them uses, its share of what it shares.
pub(crate) fn exact_sum(
    census: &Census,
    pids: &[i32],
    files: &MemoryFiles,
    around: &Surroundings,
) -> (Memory, Vec<(i32, Memory)>) {
    let mut buffer = Vec::new();
    let mut sum = Memory::default();
    let mut each: BTreeMap<i32, Memory> = BTreeMap::new();
    for pid in pids {
        let memory = exact(census, *pid, &mut buffer);
        // Between vfork(2) and execve(2) parent and child are one here.
        let parent = census.entries.get(pid).map_or(0, |entry| entry.stat.parent);
        let same = each.get(&parent).is_some_and(|m| *m == memory) && (around.share_memory)(parent, *pid);
        if memory.total() > 0 && !same {
            sum.add(memory);
            each.insert(*pid, memory);
        }
    }
    let open = open_files(census, pids);
    let (devices, open_inodes) = (files.devices(), open.keys().copied().collect());
    // What is counted as a file is not counted as a mapping once more.
    let mapped = |pid: i32| -> u64 {
        let mut text = Vec::new();
        census.read_all(&format!("{pid}/smaps"), &mut text).map_or(0, |()| parse_mapped(&text, &devices, &open_inodes))
    };
    let sharing = each.iter().filter(|(_, memory)| memory.shared > 0);
    let twice = sharing.map(|(pid, _)| mapped(*pid)).fold(0, u64::saturating_add);
    let in_files = sizes(&open).saturating_add(files.used(census, around)).saturating_add(unattached(census));
    sum.shared = sum.shared.saturating_sub(twice).saturating_add(in_files);
    (sum, each.into_iter().collect())
}

/// Bytes of files in memory that are not in a mounted file system.
pub(crate) fn files(census: &Census, pids: &[i32]) -> u64 {
    sizes(&open_files(census, pids)).saturating_add(unattached(census))
}

fn sizes(open: &BTreeMap<File, u64>) -> u64 {
    open.values().copied().fold(0, u64::saturating_add)
}

/// Files in memory that have no name (memfd_create(2)) and are open somewhere, with their sizes.
fn open_files(census: &Census, pids: &[i32]) -> BTreeMap<File, u64> {
    let mut files = BTreeMap::new();
    let mut left = MOST_DESCRIPTORS;
    for pid in pids {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let Ok(directory) = openat(census.proc(), format!("{pid}/fd"), flags, Mode::empty()) else { continue };
        if collect_open(&directory, &mut left, &mut files).is_err() {
            // It ended while it was looked at.
        }
    }
    files
}

fn collect_open(directory: &OwnedFd, left: &mut usize, files: &mut BTreeMap<File, u64>) -> Result<()> {
    let mut space = [MaybeUninit::uninit(); 4096];
    let mut entries = RawDir::new(directory.as_fd(), &mut space);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name();
        if *left == 0 {
            return Ok(());
        }
        *left -= 1;
        let Ok(target) = readlinkat(directory, name, Vec::new()) else { continue };
        if !target.as_bytes().starts_with(b"/memfd:") {
            continue;
        }
        if let Ok(stat) = statat(directory, name, AtFlags::empty()) {
            files.insert((stat.st_dev, stat.st_ino), u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512));
        }
    }
    Ok(())
}

/// Bytes of System V shared memory that is attached nowhere (proc_sysvipc(5)): this process is in the container's own
/// IPC namespace.
fn unattached(census: &Census) -> u64 {
    let mut text = Vec::new();
    if census.read_all("sysvipc/shm", &mut text).is_err() {
        return 0;
    }
    let sizes = text.split(|b| *b == b'\n').skip(1).filter_map(|line| {
        let text = std::str::from_utf8(line).ok()?;
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        let number = |n: usize| words.get(n).and_then(|w| w.parse::<u64>().ok());
        (number(6)? == 0).then(|| number(14).unwrap_or(0).saturating_add(number(15).unwrap_or(0)))
    });
    sizes.fold(0, u64::saturating_add)
}

/// Bytes of files in memory on the whole machine: when they have not grown, no file of the container's has.
pub(crate) fn shared_of_machine() -> u64 {
    let info = rustix::system::sysinfo();
    let (pages, unit) = (info.sharedram, u64::from(info.mem_unit));
    #[allow(clippy::useless_conversion, reason = "32 bits on some targets")]
    u64::from(pages).saturating_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_of_status_and_rollup_are_read() {
        let status = b"Name:\tx\nVmSwap:\t      3 kB\nRssAnon:\t     12 kB\nRssFile:\t 9 kB\nRssShmem:\t 4 kB\n";
        let (anon, shared, swap) = (12 << 10, 4 << 10, 3 << 10);
        assert_eq!(parse_status(status), Memory { anon, shared, swap });
        let rollup = b"a-b ---p 00000000 00:00 0 [rollup]\nRss: 99 kB\nPss: 20 kB\nPss_Anon: 12 kB\nPss_File: 4 kB\n\
                       Pss_Shmem: 4 kB\nSwap: 5 kB\nSwapPss: 3 kB\n";
        assert_eq!(parse_rollup(rollup), Some(Memory { anon, shared, swap }));
        assert_eq!(parse_rollup(b"Rss: 1 kB\n"), None, "an old kernel");
    }

    #[test]
    fn files_that_are_counted_elsewhere_are_found_among_the_mappings() {
        let text = b"7f00-7f01 rw-s 00000000 00:01 1034     /memfd:x (deleted)\nSize: 4 kB\nPss:  4 kB\n\
                     7f01-7f02 rw-s 00000000 00:2a 7     /dev/shm/y\nPss:  8 kB\n\
                     7f02-7f03 rw-p 00000000 00:00 0 \nPss:  16 kB\n";
        let devices = [rustix::fs::makedev(0, 0x2a)].into();
        let open = [(rustix::fs::makedev(0, 1), 1034)].into();
        assert_eq!(parse_mapped(text, &devices, &open), 12 << 10);
        assert_eq!(parse_mapped(text, &BTreeSet::new(), &BTreeSet::new()), 0);
    }

    #[test]
    fn only_file_systems_in_memory_count() {
        let text =
            b"22 1 0:20 / /proc rw - proc proc rw\n23 1 0:21 / /a\\040b rw,nosuid shared:1 - tmpfs tmpfs rw\nx\n";
        let mounts: Vec<_> = parse_mounts(text).collect();
        assert_eq!(mounts, [(rustix::fs::makedev(0, 21), b"/a b".to_vec())]);
    }

    #[test]
    fn nonsense_is_nothing() {
        for bad in [&b""[..], b"RssAnon", b"RssAnon:", b"a-b", b"\xff-\xff a b c d e", b"1 2 3 4 5 - tmpfs"] {
            assert_eq!(parse_status(bad), Memory::default());
            assert_eq!(mapping_of(bad), None);
            assert_eq!(parse_mounts(bad).count(), 0);
        }
        assert_eq!(unescaped(b"\\0"), b"\\0");
    }
}
