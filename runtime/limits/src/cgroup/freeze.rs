//! The freezer of version 2: everything in a cgroup stands still, where no process and no debugger can see why, and
//! still ends when it is killed (the kernel's admin-guide/cgroup-v2, "cgroup.freeze").

use super::failed;
use super::files::write_file;
use rlrun_spec::Failure;
use rlrun_spec::cgroup::Membership;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::fs::File;
use std::io::{self, ErrorKind, Read as _, Seek as _};
use std::path::Path;
use std::time::{Duration, Instant};

/// What waits for a disk stops only after it; whoever asks does other work too, and does not wait for that.
const PATIENCE: Duration = Duration::from_millis(500);

/// Whether the container has a cgroup that can be frozen.
#[must_use]
pub fn can_freeze(membership: &Membership) -> bool {
    matches!(membership.directories.as_slice(), [only] if only.join("cgroup.freeze").exists())
}

/// Everything in the container's cgroup stands still when this returns.
///
/// # Errors
/// When something in it does not; then it goes on.
pub fn freeze(membership: &Membership) -> Result<(), Failure> {
    membership.directories.iter().try_for_each(|directory| {
        let file = directory.join("cgroup.freeze");
        write_file(&file, "1").and_then(|()| wait_until_frozen(directory)).or_else(|error| {
            write_file(&file, "0").map_err(|e| failed("let go on", &file, &e))?;
            Err(failed("freeze", directory, &error))
        })
    })
}

/// Everything goes on.
///
/// # Errors
/// When the kernel does not take the word.
pub fn thaw(membership: &Membership) -> Result<(), Failure> {
    membership.directories.iter().try_for_each(|directory| {
        let file = directory.join("cgroup.freeze");
        match write_file(&file, "0") {
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
            other => other.map_err(|e| failed("let go on", &file, &e)),
        }
    })
}

fn wait_until_frozen(directory: &Path) -> io::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let mut events = File::open(directory.join("cgroup.events"))?;
    loop {
        let mut text = String::new();
        events.rewind()?;
        events.read_to_string(&mut text)?;
        if text.lines().any(|line| line == "frozen 1") {
            return Ok(());
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::Error::other("something in it waits for a device and cannot stand still"));
        }
        let left = Timespec::try_from(left).map_err(io::Error::other)?;
        // The kernel tells of a change since the last read.
        match poll(&mut [PollFd::new(&events, PollFlags::PRI)], Some(&left)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::files::tests::group;

    #[test]
    fn what_does_not_stand_still_goes_on() {
        let (dir, membership) = group(&[("cgroup.freeze", "0"), ("cgroup.events", "populated 1\nfrozen 0\n")]);
        assert!(can_freeze(&membership));
        let failure = freeze(&membership).unwrap_err();
        assert!(failure.to_string().contains("stand still"), "{failure}");
        assert_eq!(std::fs::read_to_string(dir.path().join("cgroup.freeze")).unwrap(), "0");
    }

    #[test]
    fn what_stands_still_is_let_go() {
        let (dir, membership) = group(&[("cgroup.freeze", "0"), ("cgroup.events", "populated 1\nfrozen 1\n")]);
        let read = || std::fs::read_to_string(dir.path().join("cgroup.freeze")).unwrap();
        freeze(&membership).unwrap();
        assert_eq!(read(), "1");
        thaw(&membership).unwrap();
        assert_eq!(read(), "0");
        assert!(!can_freeze(&group(&[]).1));
        thaw(&group(&[]).1).unwrap();
    }
}
