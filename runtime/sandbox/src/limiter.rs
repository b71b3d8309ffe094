//! The mapper's part in the limits that need somebody to watch: it runs the agent while it waits for the container's
//! end. Without such a limit there is none, and the mapper sleeps until the end.

use crate::at::At;
use crate::mapper::Init;
use crate::{mounts, scheduling};
use rlrun_limits::Agent;
use rlrun_spec::Failure;
use rlrun_spec::plan::Launch;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;
use rustix::process::{WaitId, WaitIdOptions, waitid};
use std::os::fd::OwnedFd;
use std::time::Duration;

/// A running agent.
pub(crate) struct Limiter(Agent);

impl Limiter {
    /// Starts the agent when the payload starts, if the container has a limit that needs one.
    pub(crate) fn of(launch: &Launch, init: &Init) -> Result<Option<Self>, Failure> {
        if !Agent::is_needed(&launch.limits) {
            return Ok(None);
        }
        // Init's end of this pipe closes when it becomes the payload; until then it works for us.
        wait(&init.unstarted, PollFlags::IN, None)?;
        let processes = mounts::processes().at("limits", "open", "the processes of the container")?;
        let cpus = scheduling::cpus(launch).len();
        Ok(Some(Limiter(Agent::new(&launch.limits, processes, cpus))))
    }

    /// Keeps the limits until the container's init or a helper has ended.
    pub(crate) fn keep_until_end(&mut self, init: &OwnedFd) -> Result<(), Failure> {
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        while !wait(init, PollFlags::IN, Some(self.0.rest()))? {
            self.0.wake().at("limits", "keep the limits of", "the container")?;
            if waitid(WaitId::All, look).at("limits", "wait for", "a helper")?.is_some() {
                break;
            }
        }
        Ok(())
    }
}

/// Whether `fd` became ready in time.
fn wait(fd: &OwnedFd, flags: PollFlags, timeout: Option<Duration>) -> Result<bool, Failure> {
    let timeout = timeout.and_then(|t| Timespec::try_from(t).ok());
    let mut fds = [PollFd::new(fd, flags)];
    retry_on_intr(|| poll(&mut fds, timeout.as_ref())).map(|ready| ready > 0).at("limits", "wait for", "the container")
}
