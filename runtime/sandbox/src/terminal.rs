//! The payload's terminal: a pair from the container's own devpts, so that its name inside is right (`pts(4)`).

use crate::at::At;
use rlrun_spec::Failure;
use rlrun_spec::plan::Process;
use rustix::fs::{CWD, Gid, Mode, OFlags, Uid, fchown, openat};
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};
use std::os::fd::{AsFd, OwnedFd};

/// Opens the pair, makes its slave the controlling terminal and standard input, output and error, and returns the
/// master.
pub(crate) fn open(process: &Process) -> Result<OwnedFd, Failure> {
    let master = openat(CWD, "/dev/pts/ptmx", OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty()).at(
        "terminal",
        "open",
        "/dev/pts/ptmx",
    )?;
    unlockpt(&master).at("terminal", "unlock", "the terminal")?;
    // By the master, not by name: the name inside is the payload's to plant (TIOCGPTPEER, 4.13).
    let slave = ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).at(
        "terminal",
        "open",
        "the terminal",
    )?;
    give_to(&slave, process);
    rustix::process::ioctl_tiocsctty(&slave).at("terminal", "control", "the terminal")?;
    rustix::stdio::dup2_stdin(&slave).at("terminal", "attach", "standard input")?;
    rustix::stdio::dup2_stdout(&slave).at("terminal", "attach", "standard output")?;
    rustix::stdio::dup2_stderr(&slave).at("terminal", "attach", "standard error")?;
    bind_console(&slave)?;
    Ok(master)
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
