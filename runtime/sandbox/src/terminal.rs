//! The payload's terminal: a pair from the container's own devpts, so that its name inside is right (`pts(4)`).

use crate::at::{At, failed};
use rlrun_spec::plan::Process;
use rlrun_spec::{Failure, Kind};
use rustix::fs::{CWD, Gid, Mode, OFlags, Uid, fchown, fstatfs, openat};
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};
use std::os::fd::{AsFd, OwnedFd};

/// DEVPTS_SUPER_MAGIC (statfs(2)).
const DEVPTS: i64 = 0x1cd1;

/// Opens the pair, makes its slave the controlling terminal and standard input, output and error, and returns the
/// master.
pub(crate) fn open(process: &Process) -> Result<OwnedFd, Failure> {
    let (master, slave) = pair(process)?;
    rustix::process::ioctl_tiocsctty(&slave).at("terminal", "control", "the terminal")?;
    attach(&slave)?;
    bind_console(&slave)?;
    Ok(master)
}

/// Opens the pair: master and slave.
pub(crate) fn pair(process: &Process) -> Result<(OwnedFd, OwnedFd), Failure> {
    let path = "/dev/pts/ptmx";
    // In a container that runs, whatever is there is what its root has put there, and must not keep us waiting.
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let master = openat(CWD, path, flags, Mode::empty()).at("terminal", "open", path)?;
    let kind = fstatfs(&master).at("terminal", "look at", path)?.f_type;
    if kind != DEVPTS {
        return Err(failed(Kind::Runtime, "terminal", "open", path, "it is not of a devpts file system"));
    }
    unlockpt(&master).at("terminal", "unlock", "the terminal")?;
    // By the master, not by name: the name inside is the payload's to plant (TIOCGPTPEER, 4.13).
    let slave = ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).at(
        "terminal",
        "open",
        "the terminal",
    )?;
    give_to(&slave, process);
    Ok((master, slave))
}

/// Makes the slave standard input, output and error.
pub(crate) fn attach(slave: &OwnedFd) -> Result<(), Failure> {
    rustix::stdio::dup2_stdin(slave).at("terminal", "attach", "standard input")?;
    rustix::stdio::dup2_stdout(slave).at("terminal", "attach", "standard output")?;
    rustix::stdio::dup2_stderr(slave).at("terminal", "attach", "standard error")
}

/// /dev/console is the terminal, as programs that log there expect.
fn bind_console(slave: &OwnedFd) -> Result<(), Failure> {
    let flags = OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
    drop(openat(CWD, "/dev/console", flags, Mode::from_raw_mode(0o600)).at("terminal", "create", "/dev/console")?);
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(slave));
    let tree = open_tree(CWD, &path, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC).at(
        "terminal",
        "open",
        "the terminal",
    )?;
    move_mount(tree.as_fd(), "", CWD, "/dev/console", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).at(
        "terminal",
        "mount",
        "/dev/console",
    )
}

/// Makes the payload's user the owner, so that `/dev/stdout` can be opened again by a user that is not root. Where the
/// inode is not ours to give (a host file), it stays as it is.
pub(crate) fn give_to(fd: &OwnedFd, process: &Process) {
    let (uid, gid) = (Uid::from_raw(process.uid), Gid::from_raw(process.gid));
    if fchown(fd, Some(uid), Some(gid)).is_err() {
        // EPERM or EINVAL: the descriptor works all the same, only reopening it by name may not.
    }
}
