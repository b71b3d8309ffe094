//! A running container as the host sees it: a handle on its pid 1 that no other process can take over, its mapper, and
//! its files.

use crate::containers::{Container, Status};
use rlrun_spec::{Failure, Kind, Stage};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, open, openat2};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;

/// More than any account file of a sane image.
const MAX_FILE: u64 = 4 << 20;

/// A running container.
#[derive(Debug)]
pub struct Running {
    /// A pidfd of its pid 1.
    pub init: OwnedFd,
    /// Its number on the host.
    pub pid: i32,
    /// Its mapper's number on the host.
    mapper: i32,
    name: String,
}

fn ended(name: &str) -> Failure {
    Failure::new(Stage::Cli, Kind::Runtime, "find-container", "enter the container", name)
        .why("it has just ended")
        .hint(format!("rlrun start {name}"))
}

fn failure(kind: Kind, container: &Container) -> Failure {
    Failure::new(Stage::Cli, kind, "find-container", "enter the container", container.summary.name.clone())
}

impl Running {
    /// The handles of a container that runs.
    ///
    /// # Errors
    /// When it does not run, or is paused; the hint tells how to change that.
    pub fn of(container: &Container) -> Result<Running, Failure> {
        let name = &container.summary.name;
        match container.status {
            Status::Running => {}
            Status::Paused => {
                let paused = failure(Kind::Usage, container).why("it is paused: nothing in it can run");
                return Err(paused.hint(format!("rlrun unpause {name}")));
            }
            status => {
                let why = format!("it is not running but {}", status.word());
                return Err(failure(Kind::Usage, container).why(why).hint(format!("rlrun start {name}")));
            }
        }
        let gone = || ended(name);
        let pid = container.state.pid;
        let init = Pid::from_raw(pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()).ok_or_else(gone)?;
        // Numbers are used again: it is the container's pid 1 only if its grandparent is the container's supervisor.
        let mapper =
            parent(pid).filter(|mapper| parent(*mapper) == Some(container.state.supervisor)).ok_or_else(gone)?;
        let first = status(pid, "NSpid:").is_some_and(|pids| pids.split_whitespace().last() == Some("1"));
        if !first || has_ended(&init) {
            return Err(gone());
        }
        Ok(Running { init, pid, mapper, name: name.clone() })
    }

    /// What the mapper was executed from: a mount of rlrun's own program that cannot be written.
    ///
    /// # Errors
    /// When it cannot be opened: the container has ended.
    pub fn program(&self) -> Result<OwnedFd, Failure> {
        let path = format!("/proc/{}/exe", self.mapper);
        open(path.as_str(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(|_| ended(&self.name))
    }

    /// A text file of the container as it is now, for instance `etc/passwd`. Links lead nowhere but inside.
    ///
    /// # Errors
    /// When it is not there, cannot be read, or is no file.
    pub fn text(&self, path: &str) -> std::io::Result<String> {
        let root = open(
            format!("/proc/{}/root", self.pid),
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        // NONBLOCK: root inside may have put a pipe there.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let file = openat2(&root, path, flags, Mode::empty(), resolve)?;
        if FileType::from_raw_mode(fstat(&file)?.st_mode) != FileType::RegularFile {
            return Err(std::io::ErrorKind::InvalidData.into());
        }
        let mut bytes = Vec::new();
        File::from(file).take(MAX_FILE).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// A line of `/proc/PID/status` (proc_pid_status(5)).
fn status(pid: i32, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    text.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned())
}

fn parent(pid: i32) -> Option<i32> {
    status(pid, "PPid:")?.parse().ok()
}

fn has_ended(pidfd: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready > 0)
}
