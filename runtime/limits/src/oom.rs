//! Kills what has to go when the memory limit is reached. Everything stands still meanwhile: nothing grows, nothing is
//! waited for, so no number can become another process's.

use crate::agent::clock;
use crate::census::Census;
use crate::guard::{Candidate, victims};
use crate::memory::Memory;
use crate::signals::signal;
use nix::sys::signal::Signal;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Result;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// How often to measure and kill before the container goes on as it is, until the next look.
pub(crate) const ROUNDS: usize = 8;
/// How long the killed may take to give their memory back.
const PATIENCE: u64 = 2_000_000_000;

/// Kills as many of the processes as give `excess` bytes back. Returns their numbers inside and their names.
pub(crate) fn kill(census: &Census, each: &[(i32, Memory)], excess: u64, limit: u64) -> Result<Vec<(i32, String)>> {
    let candidate =
        |(pid, memory): &(i32, Memory)| Candidate { pid: *pid, bytes: memory.total(), score: score(census, *pid) };
    let chosen = victims(each.iter().map(candidate).collect(), excess, limit);
    let mut killed = Vec::new();
    let mut dying = Vec::new();
    for pid in chosen {
        // What ended already has given its memory back.
        let Some(fd) = Pid::from_raw(pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()) else { continue };
        killed.push(identity(census, pid));
        signal(pid, Signal::SIGKILL)?;
        dying.push(fd);
    }
    let until = clock() + PATIENCE;
    for fd in &dying {
        let rest = std::time::Duration::from_nanos(until.saturating_sub(clock()));
        let mut fds = [PollFd::new(fd, PollFlags::IN)];
        if poll(&mut fds, Timespec::try_from(rest).ok().as_ref()).is_err() {
            // Interrupted: what is still there is measured again.
        }
    }
    Ok(killed)
}

fn score(census: &Census, pid: i32) -> i64 {
    let mut text = Vec::new();
    let read = census.read(&format!("{pid}/oom_score_adj"), &mut text).ok();
    read.and_then(|()| std::str::from_utf8(&text).ok()?.trim().parse().ok()).unwrap_or(0)
}

/// The number that the container knows it by, and its name.
fn identity(census: &Census, pid: i32) -> (i32, String) {
    let mut text = Vec::new();
    if census.read(&format!("{pid}/status"), &mut text).is_err() {
        return (pid, String::new());
    }
    let text = String::from_utf8_lossy(&text);
    let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim();
    let inside = value("NSpid:").split_ascii_whitespace().last().and_then(|n| n.parse().ok());
    (inside.unwrap_or(pid), value("Name:").to_owned())
}
