//! The lock of a container, held by whoever looks after it: its supervisor, or a command that removes it. It belongs to
//! the open file (F_OFD_SETLK, `fcntl_locking(2)`), so it goes with the last process that has the file open, however
//! that process ends, and it can be asked for without being taken: two commands that look never get in each other's
//! way.

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use rlrun_spec::State;
use rlrun_spec::state::STATE;
use rustix::fs::{FlockOperation, flock};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long the end of a process may take that has nothing left to do.
const LETTING_GO: Duration = Duration::from_secs(2);
/// Between two looks.
const INTERVAL: Duration = Duration::from_millis(2);

/// The file's name.
pub const LOCK: &str = "lock";
/// Its name before it is held.
pub(super) const NEW: &str = "lock.new";

fn whole_file(kind: libc::c_int) -> libc::flock {
    let narrow = |n: libc::c_int| libc::c_short::try_from(n).unwrap_or_default();
    libc::flock { l_type: narrow(kind), l_whence: narrow(libc::SEEK_SET), l_start: 0, l_len: 0, l_pid: 0 }
}

/// A new lock that is held: it appears under its final name locked, so that nobody can find it and think its owner
/// dead.
pub(super) fn create(directory: &Path) -> io::Result<File> {
    let temporary = directory.join(NEW);
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    fcntl(&file, FcntlArg::F_OFD_SETLK(&whole_file(libc::F_WRLCK)))?;
    std::fs::rename(&temporary, directory.join(LOCK))?;
    Ok(file)
}

/// Takes the lock of a container that nobody looks after; None when somebody does.
pub(crate) fn take(directory: &Path) -> io::Result<Option<File>> {
    let file = OpenOptions::new().write(true).open(directory.join(LOCK))?;
    match fcntl(&file, FcntlArg::F_OFD_SETLK(&whole_file(libc::F_WRLCK))) {
        Ok(_) => Ok(Some(file)),
        Err(nix::Error::EAGAIN | nix::Error::EACCES) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// The same for a container that has ended, whose last supervisor may be letting go of it just now, or a command that
/// cleans up.
pub(super) fn take_ended(directory: &Path) -> io::Result<Option<File>> {
    let end = Instant::now() + LETTING_GO;
    loop {
        let lock = take(directory)?;
        let text = std::fs::read_to_string(directory.join(STATE)).unwrap_or_default();
        let state = State::parse(&text);
        let has_ended = state.finished > 0 && !state.restarting;
        if lock.is_some() || !has_ended || Instant::now() >= end {
            return Ok(lock);
        }
        std::thread::sleep(INTERVAL);
    }
}

/// Whether to wait for another command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// As long as it takes: changes are short.
    Endless,
    /// Not at all.
    None,
}

/// Keeps other commands from changing the record, whether or not the container runs. Held as long as the file is open;
/// None when another command has it.
pub(crate) fn change(directory: &Path, patience: Patience) -> io::Result<Option<File>> {
    let file = File::open(directory)?;
    let how = match patience {
        Patience::Endless => FlockOperation::LockExclusive,
        Patience::None => FlockOperation::NonBlockingLockExclusive,
    };
    match flock(&file, how) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// Held by a command from a container's first trace until the container is locked; `containers` is the directory of all.
/// Births do not exclude each other, [`nobody_is_born`] excludes them all.
pub(super) fn birth(containers: &Path) -> io::Result<File> {
    let file = File::open(containers)?;
    flock(&file, FlockOperation::LockShared)?;
    Ok(file)
}

/// While this is held, a container without a lock is one whose removal, or making, was killed. None when a container is
/// being made.
pub(super) fn nobody_is_born(containers: &Path) -> Option<File> {
    let file = File::open(containers).ok()?;
    flock(&file, FlockOperation::NonBlockingLockExclusive).ok()?;
    Some(file)
}

/// Whether somebody looks after the container; a container without a lock has nobody.
#[must_use]
pub fn is_held(directory: &Path) -> bool {
    let Ok(file) = File::open(directory.join(LOCK)) else { return false };
    let mut lock = whole_file(libc::F_WRLCK);
    let asked = fcntl(&file, FcntlArg::F_OFD_GETLK(&mut lock));
    asked.is_ok() && i32::from(lock.l_type) != libc::F_UNLCK
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_seen_without_being_taken_and_goes_with_its_holder() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!is_held(dir.path()));
        let held = create(dir.path()).unwrap();
        assert!(is_held(dir.path()) && is_held(dir.path()));
        assert!(take(dir.path()).unwrap().is_none());
        drop(held);
        assert!(!is_held(dir.path()));
        let again = take(dir.path()).unwrap();
        assert!(again.is_some() && is_held(dir.path()));
    }
}
