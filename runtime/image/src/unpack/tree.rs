//! The directory that a layer is extracted into. Every path is resolved by the kernel relative to the directory's
//! descriptor with RESOLVE_IN_ROOT (openat2(2)): whatever a layer's symlinks and names say, nothing outside is reached.

use super::remove;
use super::whiteout::{self, is_whiteout, set_opaque};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Real trees stay below a tenth of it; removal needs a descriptor a level.
const MAX_DEPTH: usize = 512;
/// PATH_MAX without its NUL byte.
const MAX_PATH: usize = 4095;

/// A path of an entry, cleaned: components joined by single slashes, none of them `.` or `..`; empty is the root.
pub(crate) fn clean(path: &[u8]) -> Result<Vec<u8>, &'static str> {
    if path.contains(&0) {
        return Err("its path holds a NUL byte");
    }
    let components: Vec<&[u8]> = path.split(|&b| b == b'/').filter(|c| !c.is_empty() && *c != b".").collect();
    // No image tool writes `..`; whoever does wants to leave the layer.
    if components.contains(&&b".."[..]) {
        return Err("its path leads out of the layer with `..`");
    }
    if components.len() > MAX_DEPTH {
        return Err("its path has more than 512 components");
    }
    let clean = components.join(&b'/');
    if clean.len() > MAX_PATH {
        return Err("its path is longer than 4095 bytes");
    }
    Ok(clean)
}

/// Parent and last component of a clean path; the root's name is empty.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&b| b == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

/// What stood where a new entry is to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Before {
    /// Nothing that matters, or it was removed.
    Nothing,
    /// A whiteout, which was removed.
    Whiteout,
    /// A directory, which stays.
    Directory,
}

/// A layer's directory, being filled.
pub(super) struct Tree {
    root: OwnedFd,
    /// The last parent directory: entries mostly come directory by directory.
    cached: Option<(Vec<u8>, OwnedFd)>,
    /// Directories that have no entry of their own (yet).
    implied: BTreeSet<Vec<u8>>,
}

impl Tree {
    pub(super) fn new(root: OwnedFd) -> Self {
        // The root is implied until the archive has an entry for it.
        Tree { root, cached: None, implied: BTreeSet::from([Vec::new()]) }
    }

    pub(super) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    pub(super) fn implied(&self) -> &BTreeSet<Vec<u8>> {
        &self.implied
    }

    /// The directory has an entry of its own now.
    pub(super) fn is_explicit(&mut self, path: &[u8]) {
        self.implied.remove(path);
    }

    /// The directory of a clean path; made with its parents where it is missing.
    pub(super) fn directory(&mut self, path: &[u8]) -> Result<BorrowedFd<'_>, Errno> {
        let hit = self.cached.as_ref().is_some_and(|(p, _)| p == path);
        if !hit {
            let fd = self.open_or_make(path)?;
            self.cached = Some((path.to_vec(), fd));
        }
        match &self.cached {
            Some((_, fd)) => Ok(fd.as_fd()),
            None => Err(Errno::BADF),
        }
    }

    fn open_or_make(&mut self, path: &[u8]) -> Result<OwnedFd, Errno> {
        match in_root(&self.root, path, OFlags::PATH | OFlags::DIRECTORY) {
            Err(Errno::NOENT | Errno::NOTDIR) if !path.is_empty() => self.make(path),
            other => other,
        }
    }

    fn make(&mut self, path: &[u8]) -> Result<OwnedFd, Errno> {
        let (parent, name) = split(path);
        let parent = self.open_or_make(parent)?;
        match rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755)) {
            Ok(()) => {}
            // The layer hides a directory and fills it again.
            Err(Errno::EXIST) if is_whiteout(&whiteout::stat(&parent, name)?) => {
                rustix::fs::unlinkat(&parent, name, AtFlags::empty())?;
                rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755))?;
                set_opaque(&whiteout::open_dir(&parent, name)?)?;
            }
            Err(Errno::EXIST) => return Err(Errno::NOTDIR),
            Err(e) => return Err(e),
        }
        self.implied.insert(path.to_vec());
        rustix::fs::openat(
            &parent,
            name,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
        )
    }

    /// Makes room for an entry: the last one of a name wins. A directory gives way to anything but a directory.
    pub(super) fn make_room(&mut self, path: &[u8], for_directory: bool) -> Result<Before, Errno> {
        let (parent, name) = split(path);
        let dir = self.directory(parent)?;
        let there = match whiteout::stat(dir, name) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(Before::Nothing),
            Err(e) => return Err(e),
        };
        let is_dir = FileType::from_raw_mode(there.st_mode) == FileType::Directory;
        if is_dir && for_directory {
            return Ok(Before::Directory);
        }
        if is_dir {
            remove::remove_tree(dir, name)?;
            self.forget(path);
        } else {
            rustix::fs::unlinkat(dir, name, AtFlags::empty())?;
        }
        // What was removed may be on the way to the cached directory.
        self.cached = None;
        Ok(if is_whiteout(&there) { Before::Whiteout } else { Before::Nothing })
    }

    fn forget(&mut self, removed: &[u8]) {
        let below = |p: &[u8]| p.strip_prefix(removed).is_some_and(|rest| rest.is_empty() || rest[0] == b'/');
        self.implied.retain(|p| !below(p));
    }
}

/// Opens a path as if `root` were the root of the file system, symlinks and all.
pub(super) fn in_root(root: impl AsFd, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    let path = if path.is_empty() { b"." } else { path };
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    loop {
        // EAGAIN: something was renamed elsewhere while `..` was resolved (openat2(2)).
        match rustix::fs::openat2(&root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn paths_are_cleaned_or_refused() {
        assert_eq!(clean(b"/etc//./passwd/").unwrap(), b"etc/passwd");
        assert_eq!(clean(b"./").unwrap(), b"");
        assert_eq!(clean(b"a/...").unwrap(), b"a/...");
        for bad in [&b".."[..], b"a/../b", b"/..", b"a\0b"] {
            assert!(clean(bad).is_err(), "{}", bad.escape_ascii());
        }
        assert!(clean(&b"a/".repeat(513)).is_err());
        assert!(clean(&[b'a'; 4096]).is_err());
    }

    proptest! {
        #[test]
        fn a_clean_path_has_no_way_up_and_stays_clean(path in proptest::collection::vec(
            proptest::sample::select(b"./a\\ \xff".to_vec()), 0..30)) {
            if let Ok(cleaned) = clean(&path) {
                prop_assert!(!cleaned.starts_with(b"/"));
                prop_assert!(cleaned.split(|&b| b == b'/').all(|c| c != b".." && c != b"."));
                prop_assert_eq!(clean(&cleaned).unwrap(), cleaned);
            }
        }
    }
}
