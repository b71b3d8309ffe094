//! The mapper's part while the payload runs: it waits for the container's end, for the supervisor's requests and, where
//! something is limited that needs somebody to watch, for the agent's next look. Without such a limit it sleeps.

use crate::at::At;
use crate::channel::{Channel, Received};
use crate::mapper::Init;
use crate::{mounts, rootfs, scheduling, sys};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rlrun_limits::{Agent, Surroundings};
use rlrun_spec::Failure;
use rlrun_spec::limits::Limits;
use rlrun_spec::plan::Launch;
use rlrun_spec::protocol::{Answer, Message, News, Request};
use rlrun_spec::usage::Spent;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Result as KernelResult, retry_on_intr};
use rustix::process::{WaitId, WaitIdOptions, waitid};
use std::time::Duration;

/// What watches over a running container.
pub(crate) struct Limiter<'a> {
    launch: &'a Launch,
    init: &'a Init,
    channel: &'a Channel,
    limits: Limits,
    agent: Option<Agent>,
    /// Tells that a child has ended.
    children: SignalFd,
    /// Whether the supervisor may still want something.
    listening: bool,
    /// What it has written stays although it was to be removed.
    pub(crate) spared: bool,
}

impl<'a> Limiter<'a> {
    /// Starts the agent when the payload starts, if the container has a limit that needs one.
    pub(crate) fn new(launch: &'a Launch, init: &'a Init, channel: &'a Channel) -> Result<Self, Failure> {
        let children =
            children().map_err(std::io::Error::from).at("limits", "watch", "the processes of the container")?;
        let limits = launch.limits.clone();
        let needs_agent = Agent::is_needed(&limits);
        let mut limiter =
            Limiter { launch, init, channel, limits, agent: None, children, listening: true, spared: false };
        if needs_agent {
            limiter.agent()?;
        }
        Ok(limiter)
    }

    /// The agent, started now if there was none.
    fn agent(&mut self) -> Result<&mut Agent, Failure> {
        if self.agent.is_none() {
            // Init's end of this pipe closes when it becomes the payload; until then it works for us.
            wait(&mut [PollFd::new(&self.init.unstarted, PollFlags::IN)], None)?;
            let processes = mounts::processes().at("limits", "open", "the processes of the container")?;
            let around = Surroundings {
                cpus: scheduling::cpus(self.launch, &self.limits).len(),
                init: self.init.pid.as_raw_nonzero().get(),
                own_network: self.launch.namespaces.net,
                hidden: rootfs::sized(self.launch),
                share_memory: sys::share_memory,
            };
            self.agent = Some(Agent::new(&self.limits, processes, around));
        }
        // Set just above.
        self.agent
            .as_mut()
            .ok_or_else(|| crate::at::failed(rlrun_spec::Kind::Internal, "limits", "start", "the agent", ""))
    }

    /// Keeps the limits and answers until a child has ended.
    pub(crate) fn keep_until_end(&mut self) -> Result<(), Failure> {
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        while waitid(WaitId::All, look).at("limits", "wait for", "a child")?.is_none() {
            let rest = self.agent.as_ref().and_then(Agent::rest);
            let listen = if self.listening { PollFlags::IN } else { PollFlags::empty() };
            let mut fds = [PollFd::new(&self.children, PollFlags::IN), PollFd::new(self.channel, listen)];
            wait(&mut fds, rest)?;
            let [ended, asked] = fds.map(|fd| fd.revents());
            if !ended.is_empty() {
                // Only that it came matters; waitid tells the rest.
                while self.children.read_signal().is_ok_and(|signal| signal.is_some()) {}
            }
            if let Some(agent) = &mut self.agent {
                let told = agent.wake().at("limits", "keep the limits of", "the container")?;
                for news in told {
                    self.tell(&Message::News(News::OutOfMemory(news)));
                }
            }
            if self.listening && !asked.is_empty() {
                self.listen()?;
            }
        }
        Ok(())
    }

    /// What the container has used at its end, of which this is the processor time.
    pub(crate) fn spent(&self, cpu_ns: u64) -> Spent {
        let watched = self.agent.as_ref().map(Agent::spent).unwrap_or_default();
        Spent { cpu_ns, ..watched }
    }

    /// Answers one request. A supervisor that is gone takes this process along (`PR_SET_PDEATHSIG`).
    fn listen(&mut self) -> Result<(), Failure> {
        match self.channel.receive(Duration::ZERO)? {
            Received::Message(Message::Request(request), _) => {
                let answer = self.obey(request).unwrap_or_else(|failure| Answer::Refused(Box::new(failure)));
                self.tell(&Message::Answer(answer));
            }
            Received::Message(..) | Received::EndOfFile => self.listening = false,
        }
        Ok(())
    }

    fn obey(&mut self, request: Request) -> Result<Answer, Failure> {
        match request {
            Request::Pause => self.agent()?.pause().at("pause", "stop", "the container").map(|()| Answer::Done),
            Request::Unpause => match &mut self.agent {
                Some(agent) => agent.unpause().at("unpause", "continue", "the container").map(|()| Answer::Done),
                None => Ok(Answer::Done),
            },
            Request::Limit(limits) => self.limit(*limits),
            Request::Count => {
                let usage = self.agent()?.count().at("count", "count what is used by", "the container")?;
                Ok(Answer::Counted(Box::new(usage)))
            }
            Request::Spare => {
                self.spared = true;
                Ok(Answer::Done)
            }
        }
    }

    /// Puts other limits in force, as far as a running container can be given them.
    fn limit(&mut self, limits: Limits) -> Result<Answer, Failure> {
        let moved =
            (&self.limits.cpus, self.limits.cpu, self.limits.weight) != (&limits.cpus, limits.cpu, limits.weight);
        self.limits = limits.clone();
        if self.agent.is_none() && !Agent::is_needed(&limits) && !moved {
            return Ok(Answer::Done);
        }
        let launch = self.launch;
        let cpus = scheduling::cpus(launch, &limits);
        let agent = self.agent()?;
        agent.set_cpus(cpus.len());
        agent.set_limits(&limits);
        if moved {
            let mut act = |thread| scheduling::reschedule(thread, &cpus, limits.weight);
            agent.on_every_thread(&mut act).at("update", "schedule anew the processes of", "the container")?;
        }
        Ok(Answer::Done)
    }

    fn tell(&self, message: &Message) {
        if self.channel.send_now(message).is_err() {
            // The supervisor is stopped, with a full queue, or gone: the limits matter more than what is told of them.
        }
    }
}

/// Readable when a child has ended; not when one was stopped or continued, which the agent does all the time.
pub(crate) fn children() -> nix::Result<SignalFd> {
    sys::ignore_stopped_children().map_err(|errno| nix::errno::Errno::from_raw(errno.raw_os_error()))?;
    let mut set = SigSet::empty();
    set.add(Signal::SIGCHLD);
    set.thread_block()?;
    SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
}

/// Waits until one is ready or the time is over.
fn wait(fds: &mut [PollFd<'_>], timeout: Option<Duration>) -> Result<(), Failure> {
    let timeout = timeout.and_then(|t| Timespec::try_from(t).ok());
    let waited: KernelResult<usize> = retry_on_intr(|| poll(fds, timeout.as_ref()));
    waited.map(drop).at("limits", "wait for", "the container")
}
