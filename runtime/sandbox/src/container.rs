//! The supervisor's side of starting a container: one value that owns the mapper and the channels, whose drop kills
//! everything.

use crate::at::{At, failed};
use crate::channel::{self, Channel, Received};
use crate::idmap::{self, Writing};
use crate::mapper;
use crate::sys::{self, Fork};
use crate::trace::Trace;
use rlrun_spec::life::Hold;
use rlrun_spec::plan::Launch;
use rlrun_spec::protocol::{Answer, INIT_STEPS, MAPPER_STEPS, Message, News, Request, Step};
use rlrun_spec::usage::Spent;
use rlrun_spec::{Failure, Kind, Stage};
use rustix::process::{Pid, Signal, WaitOptions, pidfd_send_signal, waitpid};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// The payload's ends of its three streams; None with a terminal, which init opens inside.
pub(crate) struct ChildStreams {
    pub(crate) stdin: Option<OwnedFd>,
    pub(crate) stdout: Option<OwnedFd>,
    pub(crate) stderr: Option<OwnedFd>,
}

/// The supervisor's ends.
#[derive(Default)]
pub struct Streams {
    /// Written to; None when the payload's standard input is empty.
    pub stdin: Option<OwnedFd>,
    /// Read from.
    pub stdout: Option<OwnedFd>,
    /// Read from.
    pub stderr: Option<OwnedFd>,
    /// With a terminal: its master, in place of all three.
    pub terminal: Option<OwnedFd>,
}

/// A container from its first process on.
pub struct Container {
    mapper: Pid,
    mapper_fd: OwnedFd,
    mapper_channel: Channel,
    init_channel: Option<Channel>,
    init_fd: Option<OwnedFd>,
    id_maps: Option<Writing>,
    end: Option<Result<(u8, Spent), Failure>>,
    reaped: bool,
}

/// What the mapper said.
#[derive(Debug)]
pub enum Heard {
    /// What became of the oldest request that was not answered yet.
    Answer(Answer),
    /// Something happened.
    News(News),
    /// The container has ended: [`Container::end`] tells how.
    End,
}

impl Container {
    /// Clones the mapper and starts writing its id maps. `plan` is the sealed plan that `launch` was read from.
    ///
    /// # Errors
    /// Whatever stopped the mapper so far.
    pub fn clone(
        launch: &Launch,
        plan: OwnedFd,
        preserved: Vec<OwnedFd>,
        trace: &Trace,
    ) -> Result<(Container, Streams), Failure> {
        let (mapper_channel, mapper_end) = channel::pair(MAPPER_STEPS, Stage::Supervisor, Stage::Mapper)?;
        let (init_channel, init_end) = channel::pair(INIT_STEPS, Stage::Supervisor, Stage::Init)?;
        let (streams, child_streams) = streams(launch)?;
        let fork = sys::clone_stage(libc::CLONE_NEWUSER | libc::CLONE_NEWPID).at(
            "clone-userns",
            "create",
            "a user namespace",
        )?;
        let (mapper, mapper_fd) = match fork {
            Fork::Child => {
                drop((mapper_channel, init_channel, streams));
                mapper::execute(plan, (mapper_end, init_end), child_streams, preserved, trace)
            }
            Fork::Parent { pid, pidfd } => (pid, pidfd),
        };
        drop((mapper_end, init_end, child_streams, plan, preserved));
        let mut container = Container {
            mapper,
            mapper_fd,
            mapper_channel,
            init_channel: Some(init_channel),
            init_fd: None,
            id_maps: None,
            end: None,
            reaped: false,
        };
        container.id_maps = Some(idmap::start(&launch.facts.id_maps, mapper)?);
        Ok((container, streams))
    }

    /// The process whose user and network namespaces are the container's.
    #[must_use]
    pub fn namespace_owner(&self) -> i32 {
        self.mapper.as_raw_nonzero().get()
    }

    /// Finishes the id maps; on return the network helper may enter the namespaces of [`Container::namespace_owner`].
    ///
    /// # Errors
    /// Whatever stopped the mapper so far.
    pub fn map_ids(&mut self, trace: &Trace) -> Result<(), Failure> {
        if let Some(writing) = self.id_maps.take() {
            writing.finish()?;
        }
        trace.mark("supervisor: id maps written");
        self.mapper_channel.reached(Step::ParentIdmapWritten, None)?;
        self.mapper_channel.expect(Step::MapperRootReady).map(drop)
    }

    /// Waits until the root file system stands. The terminal's master, if there is one, goes into `streams`.
    ///
    /// # Errors
    /// Whatever stopped a stage.
    pub fn prepare(&mut self, streams: &mut Streams) -> Result<(), Failure> {
        self.init_fd = self.mapper_channel.expect(Step::MapperInitForked)?;
        let Some(init) = self.init_channel.as_mut() else { return Err(no_init()) };
        match init.expect(Step::InitRootfsReady) {
            Ok(terminal) => streams.terminal = terminal,
            // Init's end of file may only mean that the mapper died first and has more to say.
            Err(failure) => return Err(self.mapper_failure().unwrap_or(failure)),
        }
        Ok(())
    }

    /// Lets the payload go.
    ///
    /// # Errors
    /// When init is gone.
    pub fn release(&mut self) -> Result<(), Failure> {
        let Some(init) = self.init_channel.as_mut() else { return Err(no_init()) };
        init.reached(Step::ParentProceed, None)
    }

    /// Returns when the payload, let go before, runs.
    ///
    /// # Errors
    /// 126 or 127 by kind when it cannot be executed.
    pub fn confirm(&mut self) -> Result<(), Failure> {
        let Some(init) = self.init_channel.take() else { return Err(no_init()) };
        match init.receive(channel::STEP_DEADLINE)? {
            // Close-on-exec: end of file means the program was executed.
            Received::EndOfFile => Ok(()),
            Received::Message(Message::Failed(failure), _) => Err(*failure),
            Received::Message(other, _) => {
                Err(failed(Kind::Internal, "protocol", "talk to", "init stage", format!("unexpected {other:?}")))
            }
        }
    }

    /// A pidfd of the container's pid 1.
    #[must_use]
    pub fn init(&self) -> Option<BorrowedFd<'_>> {
        self.init_fd.as_ref().map(AsFd::as_fd)
    }

    /// The container's pid 1, in this process's pid namespace.
    ///
    /// # Errors
    /// When it is not there yet, or not any more.
    pub fn init_pid(&self) -> Result<i32, Failure> {
        let Some(init) = &self.init_fd else { return Err(no_init()) };
        // The line `Pid:` of a pidfd (proc_pid_fdinfo(5)); -1 when the process was reaped.
        let path = format!("/proc/self/fdinfo/{}", init.as_raw_fd());
        let text = std::fs::read_to_string(&path).at("wait", "read", &path)?;
        let pid = text.lines().find_map(|l| l.strip_prefix("Pid:")?.trim().parse().ok());
        pid.filter(|pid| *pid > 0).ok_or_else(no_init)
    }

    /// Readable when the mapper has something to say: call [`Container::hear`].
    #[must_use]
    pub fn mapper(&self) -> BorrowedFd<'_> {
        self.mapper_channel.as_fd()
    }

    /// Asks something of the mapper; it answers in its time, one request after the other ([`Heard::Answer`]).
    ///
    /// # Errors
    /// When it is gone, or so many requests wait that it has no room for another.
    pub fn ask(&self, request: Request) -> Result<(), Failure> {
        self.mapper_channel.send_now(&Message::Request(request))
    }

    /// Takes what the mapper said, once [`Container::mapper`] is readable.
    ///
    /// # Errors
    /// When it said what makes no sense.
    pub fn hear(&mut self) -> Result<Heard, Failure> {
        let end = match self.mapper_channel.receive(channel::STEP_DEADLINE)? {
            Received::Message(Message::Answer(answer), _) => return Ok(Heard::Answer(answer)),
            Received::Message(Message::News(news), _) => return Ok(Heard::News(news)),
            Received::Message(Message::Exited(code, spent), _) => Ok((code, spent)),
            Received::Message(Message::Failed(failure), _) => Err(*failure),
            Received::Message(other, _) => {
                return Err(failed(
                    Kind::Internal,
                    "protocol",
                    "talk to",
                    "mapper stage",
                    format!("unexpected {other:?}"),
                ));
            }
            Received::EndOfFile => {
                Err(failed(Kind::Runtime, "wait", "wait for", "the container", "its mapper stage was killed"))
            }
        };
        self.end = Some(end);
        Ok(Heard::End)
    }

    /// The exit code and what was used, once the container has ended; everything of it is gone then.
    ///
    /// # Errors
    /// When the container ended by a failure of ours or its mapper was killed.
    pub fn end(mut self) -> Result<(u8, Spent), Failure> {
        while self.end.is_none() {
            self.hear()?;
        }
        self.reap()?;
        self.end.take().unwrap_or_else(|| Err(no_init()))
    }

    /// Sends a signal to the container's pid 1.
    ///
    /// # Errors
    /// As `pidfd_send_signal(2)`; a payload that is gone already is not an error.
    pub fn signal(&self, signal: i32) -> Result<(), Failure> {
        let Some(init) = &self.init_fd else { return Ok(()) };
        match sys::send_signal(init.as_fd(), signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(errno) => Err(errno).at("signal", "send a signal to", "the container"),
        }
    }

    /// What the mapper said last, if that was a failure.
    fn mapper_failure(&self) -> Option<Failure> {
        match self.mapper_channel.receive(Duration::from_secs(5)) {
            Ok(Received::Message(Message::Failed(failure), _)) => Some(*failure),
            Ok(_) | Err(_) => None,
        }
    }

    fn reap(&mut self) -> Result<(), Failure> {
        self.reaped = true;
        waitpid(Some(self.mapper), WaitOptions::empty()).map(drop).at("wait", "wait for", "the mapper")
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if self.reaped {
            return;
        }
        // The mapper is pid 1 of the outer pid namespace: with it the kernel kills all that is below.
        let killed = pidfd_send_signal(&self.mapper_fd, Signal::KILL);
        if killed.is_ok() && self.reap().is_err() {
            // Somebody else reaped it: it is gone, which is all that matters here.
        }
    }
}

fn no_init() -> Failure {
    failed(Kind::Internal, "protocol", "talk to", "init stage", "the steps were called out of order")
}

/// The caller's own streams: nobody stands between.
fn callers() -> Result<ChildStreams, Failure> {
    let own = |fd: BorrowedFd<'_>| {
        rustix::io::fcntl_dupfd_cloexec(fd, 3).map(Some).at("streams", "duplicate", "a stream of the caller")
    };
    let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    Ok(ChildStreams { stdin: own(stdin.as_fd())?, stdout: own(stdout.as_fd())?, stderr: own(stderr.as_fd())? })
}

/// Three pipes, or none with a terminal.
pub(crate) fn streams(launch: &Launch) -> Result<(Streams, ChildStreams), Failure> {
    let mut ours = Streams::default();
    let mut theirs = ChildStreams { stdin: None, stdout: None, stderr: None };
    if launch.process.terminal {
        return Ok((ours, theirs));
    }
    if launch.facts.life.hold != Hold::No {
        return callers().map(|theirs| (ours, theirs));
    }
    let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).at("streams", "create", "a pipe");
    if launch.process.interactive {
        let (read, write) = pipe()?;
        (theirs.stdin, ours.stdin) = (Some(read), Some(write));
    }
    let (read, write) = pipe()?;
    (ours.stdout, theirs.stdout) = (Some(read), Some(write));
    let (read, write) = pipe()?;
    (ours.stderr, theirs.stderr) = (Some(read), Some(write));
    Ok((ours, theirs))
}
