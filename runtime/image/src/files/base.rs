//! Where paths begin: on the host, or at the root of a container.

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// Where paths begin.
#[derive(Debug)]
pub enum Base {
    /// The caller's own paths, resolved as any program of theirs resolves them.
    Host,
    /// The root of a container. No path leads out of it, whatever its links say, and none through /proc to a process.
    Root(OwnedFd),
}

impl Base {
    /// Opens a path; a link at its end is followed.
    ///
    /// # Errors
    /// As openat2(2).
    pub fn open(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        let flags = flags | OFlags::CLOEXEC;
        match self {
            Base::Host => rustix::fs::open(if path.is_empty() { b"." } else { path }, flags, Mode::empty()),
            Base::Root(root) => {
                let inside: Vec<u8> = path.iter().copied().skip_while(|b| *b == b'/').collect();
                let inside = if inside.is_empty() { b".".to_vec() } else { inside };
                below(root, &inside, flags, ResolveFlags::IN_ROOT)
            }
        }
    }
}

/// `path` below a directory, without links to processes.
pub(super) fn below(directory: impl AsFd, path: &[u8], flags: OFlags, resolve: ResolveFlags) -> Result<OwnedFd, Errno> {
    loop {
        let how = resolve | ResolveFlags::NO_MAGICLINKS;
        // EAGAIN: something was renamed elsewhere while `..` was resolved (openat2(2)).
        match rustix::fs::openat2(&directory, path, flags | OFlags::CLOEXEC, Mode::empty(), how) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
}

/// The same file or directory, which an O_PATH descriptor names, opened anew: not what has its name now.
pub(super) fn reopen(fd: &OwnedFd, flags: OFlags) -> Result<OwnedFd, Errno> {
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty())
}

/// A regular file to read, which an O_PATH descriptor names. It cannot be one that blocks: its kind is known.
pub(super) fn reader(fd: &OwnedFd) -> Result<File, Errno> {
    reopen(fd, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY).map(File::from)
}
