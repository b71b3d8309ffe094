//! A container from its plan to its exit code, and from there to its next start where it is to have one.

use crate::book::Book;
use crate::control::{Call, Control};
use crate::ending::end;
use crate::fate::{Fate, until};
use crate::log::Log;
use crate::output::tell_lost;
use crate::signals::Signals;
use crate::tend::Tended;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::Pid;
use rlrun_limits::cgroup::{self, Count};
use rlrun_net::{Driver, inside};
use rlrun_sandbox::control::Connection;
use rlrun_sandbox::sys::take_inherited;
use rlrun_sandbox::{CONSOLE_FD, Container, LOCK_FD, PRESERVED_FD, READY_FD, Streams, Trace, console, tell};
use rlrun_spec::life::Hold;
use rlrun_spec::limits::Limits;
use rlrun_spec::plan::Launch;
use rlrun_spec::protocol::{self, Answer, OutOfMemory};
use rlrun_spec::supervision::{Reply, Request};
use rlrun_spec::usage::Usage;
use rlrun_spec::{Failure, Kind, Stage};
use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// Runs the container and returns the payload's exit code.
pub(crate) fn run(launch: &Launch, plan: OwnedFd) -> Result<u8, Failure> {
    // Held to the very end: a free lock means that nobody looks after this container any more.
    let inherited = |number, what: &str| {
        take_inherited(number).map_err(|errno| failure("read-plan", what, &launch.name).errno(errno.raw_os_error()))
    };
    let lock = inherited(LOCK_FD, "take over the lock of")?;
    let life = &launch.facts.life;
    let ready = life.detached.then(|| inherited(READY_FD, "take over the caller of")).transpose()?;
    let caller = ready.map(|fd| if life.accompanied { Caller::Stays(Some(fd.into())) } else { Caller::Waits(fd) });
    let preserved = (PRESERVED_FD..).zip(0..launch.process.preserved);
    let preserved =
        preserved.map(|(n, _)| inherited(n, "take over a descriptor for")).collect::<Result<Vec<_>, _>>()?;
    let trace = Trace::new(launch.facts.trace)?;
    trace.mark("supervisor: started");
    let mut watch = Watch {
        launch,
        trace: &trace,
        book: Book::new(launch),
        caller,
        preserved,
        started: false,
        mourned: false,
        control: None,
        fate: Fate::new(&launch.facts.life),
        limits: None,
        spared: false,
        accompanied: false,
        lost: None,
        before: Count::default(),
        frozen: false,
    };
    let code = supervise(plan, &mut watch);
    let forgotten = end(&mut watch, &code);
    trace.mark("supervisor: done");
    eprint!("{}", trace.render(&launch.facts.trace_marks));
    drop(lock);
    let outcome = code.and_then(|code| forgotten.map(|()| code));
    match (outcome, watch.caller) {
        // The caller still waits: what stopped the start is told there and not here.
        (Err(failure), Some(caller)) => {
            let code = failure.kind.exit_code();
            match caller {
                Caller::Waits(ready) => tell(&ready, &Err(failure))?,
                Caller::Stays(Some(connection)) => connection.send(&Reply::Failed(Box::new(failure)), &[])?,
                // It has been told by [`end`].
                Caller::Stays(None) => {}
            }
            Ok(code)
        }
        (outcome, _) => outcome.map(|code| tell_lost(code, watch.lost.as_ref())),
    }
}

/// Whoever started a detached container, until its payload runs.
pub(crate) enum Caller {
    /// It waits for the outcome on this pipe.
    Waits(OwnedFd),
    /// It is to be attached before; its connection, until it is.
    Stays(Option<Connection>),
}

/// What is kept and told while a container runs.
pub(crate) struct Watch<'a> {
    pub(crate) launch: &'a Launch,
    trace: &'a Trace,
    pub(crate) book: Book,
    /// Until the payload runs; None in the foreground.
    pub(crate) caller: Option<Caller>,
    /// The payload's descriptors of the caller; for its first start.
    preserved: Vec<OwnedFd>,
    /// The payload ran.
    pub(crate) started: bool,
    /// Its last end has been told.
    pub(crate) mourned: bool,
    /// Who asks for something; None where the file system takes no sockets.
    pub(crate) control: Option<Control>,
    pub(crate) fate: Fate,
    /// Limits that it was given while it ran, and keeps when it is started again.
    pub(crate) limits: Option<Box<Limits>>,
    /// It stays although it was to be removed: a command starts it again.
    pub(crate) spared: bool,
    /// Whoever started it is attached and has not said that it is to go on without him.
    pub(crate) accompanied: bool,
    /// Output for the caller could not be written.
    pub(crate) lost: Option<Failure>,
    /// What its cgroups had counted before this life: they outlive a restart.
    before: Count,
    /// Its cgroup is frozen.
    pub(crate) frozen: bool,
}

impl Watch<'_> {
    /// What its cgroups have counted.
    fn counted(&self) -> Count {
        self.launch.facts.cgroup.as_ref().map(Count::of).unwrap_or_default()
    }

    /// What was counted without cgroups, completed by them.
    pub(crate) fn complete(&self, usage: &mut Usage) {
        self.counted().since(&self.before).complete(usage);
    }

    /// Stops everything where the container has a cgroup for that; false where it has none.
    pub(crate) fn freeze(&mut self) -> Result<bool, Failure> {
        let Some(membership) = self.launch.facts.cgroup.as_ref().filter(|m| cgroup::can_freeze(m)) else {
            return Ok(false);
        };
        cgroup::freeze(membership)?;
        self.frozen = true;
        Ok(true)
    }

    /// Continues what [`Watch::freeze`] stopped.
    pub(crate) fn thaw(&mut self) -> Result<(), Failure> {
        match &self.launch.facts.cgroup {
            Some(membership) if std::mem::take(&mut self.frozen) => cgroup::thaw(membership),
            _ => Ok(()),
        }
    }

    /// The payload runs: nobody has to wait any more, and standard error is the caller's.
    fn payload_runs(&mut self) -> Result<(), Failure> {
        self.started = true;
        self.fate.begins(Instant::now());
        self.trace.mark("supervisor: payload runs");
        self.announce(&Reply::Changed);
        self.leave_caller()
    }

    /// The payload waits for one more word: the caller has what it asked for.
    fn payload_waits(&mut self, pid: i32) -> Result<(), Failure> {
        self.book.held(pid)?;
        write_pid(self.launch, pid)?;
        self.trace.mark("supervisor: payload waits");
        self.leave_caller()
    }

    fn leave_caller(&mut self) -> Result<(), Failure> {
        let Some(caller) = self.caller.take() else { return Ok(()) };
        let null = File::options()
            .read(true)
            .write(true)
            .open("/dev/null")
            .map_err(|e| failure("detach", "open", "/dev/null").why(e.to_string()))?;
        rustix::stdio::dup2_stderr(&null)
            .and_then(|()| match self.launch.facts.life.hold {
                Hold::No => Ok(()),
                // The container has them, and its end must be their end.
                Hold::UntilStart | Hold::WithConsole => {
                    rustix::stdio::dup2_stdin(&null).and_then(|()| rustix::stdio::dup2_stdout(&null))
                }
            })
            .map_err(|errno| failure("detach", "leave", "the caller's streams").errno(errno.raw_os_error()))?;
        if let Caller::Waits(ready) = caller
            && tell(&ready, &Ok(())).is_err()
        {
            // The caller was killed meanwhile; the container was asked for and runs.
        }
        Ok(())
    }

    /// Tells whoever watches.
    pub(crate) fn announce(&self, news: &Reply) {
        if let Some(control) = &self.control {
            control.tell(news);
        }
    }

    /// Answers every call that came. `answer` does so where a running container is needed.
    pub(crate) fn serve(
        &mut self,
        ready: &[bool],
        answer: &mut dyn FnMut(&mut Self, &mut Call) -> Served,
    ) -> Result<(), Failure> {
        let Some(control) = &mut self.control else { return Ok(()) };
        for mut call in control.take(ready)? {
            let reply = match answer(self, &mut call) {
                Served::Now(reply) => reply,
                Served::Later => continue,
                Served::Not => self.answer(&call),
            };
            // What nobody took is closed before the command goes on.
            call.descriptors.clear();
            self.reply(call.client, &reply);
        }
        Ok(())
    }

    pub(crate) fn reply(&mut self, client: u64, reply: &Reply) {
        if let Some(control) = &mut self.control {
            control.reply(client, reply);
        }
    }

    fn answer(&mut self, call: &Call) -> Reply {
        match &call.request {
            Request::Watch => {
                if let Some(control) = &mut self.control {
                    control.watch(call.client);
                }
                Reply::Done
            }
            Request::Rename(name) => {
                self.book.rename(name);
                Reply::Done
            }
            Request::Stop { .. } => {
                self.fate.stop(Instant::now(), Duration::ZERO);
                done(self.book.stopped())
            }
            Request::Leave => {
                self.accompanied = false;
                Reply::Done
            }
            // The next mapper is told.
            Request::Mapper(protocol::Request::Limit(limits)) => {
                self.limits = Some(limits.clone());
                Reply::Mapper(Answer::Done)
            }
            Request::Signal(_)
            | Request::Mapper(_)
            | Request::Check
            | Request::Attach
            | Request::Resize { .. }
            | Request::EndInput
            | Request::Hold
            | Request::Proceed
            | Request::StopAndStay { .. } => {
                let failure = failure("control", "do this to", &self.launch.name);
                Reply::Refused(Box::new(failure.why("it has ended and waits for its restart")))
            }
        }
    }

    /// The memory limit was reached.
    pub(crate) fn out_of_memory(&mut self, what: &OutOfMemory) -> Result<(), Failure> {
        self.book.tell("oom");
        let OutOfMemory { used, limit, killed } = what;
        let done = match killed {
            // The name is the process's own choice, and is read on a terminal.
            Some((pid, name)) => format!("process {pid} ({}) was killed", name.replace(char::is_control, "?")),
            None => "the container stands still until it may use more (--oom-kill-disable)".to_owned(),
        };
        let told = format!("memory: {used} bytes are used and {limit} allowed: {done}");
        if !self.launch.facts.life.detached {
            eprintln!("warning: {told}");
        }
        self.book.state.oom_killed |= killed.is_some();
        self.book.state.error = told;
        self.book.write()
    }
}

/// How a call was answered.
pub(crate) enum Served {
    /// With this.
    Now(Reply),
    /// Not yet.
    Later,
    /// It is not about the running container.
    Not,
}

/// As a reply.
pub(crate) fn done(outcome: Result<(), Failure>) -> Reply {
    outcome.map_or_else(|failure| Reply::Refused(Box::new(failure)), |()| Reply::Done)
}

pub(crate) fn failure(step: &str, operation: &str, object: &str) -> Failure {
    Failure::new(Stage::Supervisor, Kind::Runtime, step, operation, object)
}

/// Starts the container, again and again where it is to be.
fn supervise(plan: OwnedFd, watch: &mut Watch<'_>) -> Result<u8, Failure> {
    let signals = Signals::block()?;
    let mut log = Log::open(watch.launch)?;
    watch.control = match Control::open(&watch.launch.facts.container_dir) {
        Ok(control) => Some(control),
        Err(failure) if watch.launch.facts.life.accompanied => return Err(failure),
        Err(failure) => {
            eprintln!("warning: commands cannot reach this container: {failure}");
            None
        }
    };
    if !watch.fate.may_restart() {
        return once(plan, &signals, log.as_mut(), watch);
    }
    loop {
        let copy = plan.try_clone().map_err(|e| failure("restart", "duplicate", "the plan").why(e.to_string()))?;
        let began = Instant::now();
        let outcome = once(copy, &signals, log.as_mut(), watch);
        let code = outcome.as_ref().map_or_else(|f| f.kind.exit_code(), |code| *code);
        let pause = if watch.started { watch.fate.again(code, began.elapsed()) } else { None };
        let Some(pause) = pause else { return outcome };
        watch.book.tell_end(code);
        watch.book.restarts(code, outcome.as_ref().err().map(ToString::to_string).unwrap_or_default())?;
        watch.announce(&Reply::Ended(code));
        // Whoever waits for the very end knows by this that it was not.
        watch.announce(&Reply::Changed);
        if !rest(pause, &signals, watch)? {
            watch.mourned = true;
            return outcome;
        }
        watch.book.tell("restart");
    }
}

/// Waits before a restart; false when it is not to come.
fn rest(pause: Duration, signals: &Signals, watch: &mut Watch<'_>) -> Result<bool, Failure> {
    let end = Instant::now() + pause;
    while !watch.book.state.stopped {
        let now = Instant::now();
        if now >= end {
            return Ok(true);
        }
        let mut fds = vec![PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        fds.extend(watch.control.iter().flat_map(Control::poll_fds));
        wait(&mut fds, until(end, now))?;
        let ready: Vec<bool> = fds.iter().map(|fd| fd.any().unwrap_or(true)).collect();
        drop(fds);
        if ready[0] && signals.pending()? {
            return Ok(false);
        }
        watch.serve(&ready[1..], &mut |_, _| Served::Not)?;
    }
    Ok(false)
}

/// From the first process to the end of the last.
fn once(plan: OwnedFd, signals: &Signals, log: Option<&mut Log>, watch: &mut Watch<'_>) -> Result<u8, Failure> {
    let (launch, trace) = (watch.launch, watch.trace);
    watch.before = watch.counted();
    let (mut container, mut streams) = Container::clone(launch, plan, std::mem::take(&mut watch.preserved), trace)?;
    container.map_ids(trace)?;
    let owner = Pid::from_raw(container.namespace_owner());
    let mut network =
        rlrun_net::start(launch, owner, &launch.facts.container_dir).map_err(|e| e.into_failure(Stage::Supervisor))?;
    let prepared = container.prepare(&mut streams).and_then(|()| {
        send_console(launch, &mut streams)?;
        trace.mark("supervisor: root file system ready");
        wait_for_network(network.as_deref_mut(), signals)
    });
    trace.mark("supervisor: network ready");
    let code = prepared.and_then(|()| Tended::take_over(container, streams, watch)).and_then(|mut tended| {
        match launch.facts.life.hold {
            Hold::No => start(&mut tended.container, watch)?,
            Hold::UntilStart | Hold::WithConsole => watch.payload_waits(tended.container.init_pid()?)?,
        }
        tended.tend(network.as_deref_mut(), signals, log, watch)
    });
    let after = watch.counted().since(&watch.before);
    let killed = after.oom_kills();
    after.complete_spent(&mut watch.book.state.spent);
    let thawed = watch.thaw();
    if killed > 0 {
        watch.book.state.oom_killed = true;
        watch.book.state.error =
            format!("memory: the cgroup reached its limit, and the kernel killed {killed} of its processes");
        watch.book.tell("oom");
    }
    let end = |n: Box<dyn Driver>| if code.is_ok() { n.release() } else { n.stop() };
    let stopped = network.map_or(Ok(()), end).map_err(|e| e.into_failure(Stage::Supervisor));
    trace.mark("supervisor: network stopped");
    code.and_then(|code| stopped.and(thawed).map(|()| code))
}

/// Lets the payload go. What has to be written is written while it is being executed.
pub(crate) fn start(container: &mut Container, watch: &mut Watch<'_>) -> Result<(), Failure> {
    // Before: a short payload is gone, and its number with it, while this process looks.
    let pid = container.init_pid()?;
    let launch = watch.launch;
    if let Some(why) = launch.facts.cgroup.as_ref().and_then(cgroup::ineffective) {
        let stub = Failure::new(Stage::Supervisor, Kind::Host, "cgroup", "limit by cgroup", &launch.name).why(why);
        return Err(stub.hint("--cgroups=disabled keeps the limits without a cgroup"));
    }
    container.release()?;
    let written = watch.book.started(pid).and_then(|()| match watch.launch.facts.life.hold {
        Hold::No => write_pid(watch.launch, pid),
        // It was written when it began to wait.
        Hold::UntilStart | Hold::WithConsole => Ok(()),
    });
    watch.trace.mark("supervisor: state written");
    container.confirm()?;
    watch.book.tell("start");
    written?;
    watch.payload_runs()
}

/// `--console-socket`: the terminal is the caller's from here on.
fn send_console(launch: &Launch, streams: &mut Streams) -> Result<(), Failure> {
    if launch.facts.life.hold != Hold::WithConsole {
        return Ok(());
    }
    let socket = take_inherited(CONSOLE_FD)
        .map_err(|errno| failure("console-socket", "take over", &launch.name).errno(errno.raw_os_error()))?;
    streams.terminal.take().map_or(Ok(()), |master| console::send(&socket, &master))
}

/// `--pidfile`.
fn write_pid(launch: &Launch, pid: i32) -> Result<(), Failure> {
    let Some(path) = &launch.facts.pidfile else { return Ok(()) };
    let written = File::create(path).and_then(|mut file| file.write_all(pid.to_string().as_bytes()));
    written.map_err(|e| {
        failure("pidfile", "write the pid to", &path.display().to_string())
            .why(e.to_string())
            .hint("--pidfile names a file in a directory of yours")
    })
}

/// Runs in the mapper, inside the new network namespace.
pub(crate) fn configure_network(launch: &Launch) -> Result<(), Failure> {
    let warnings = inside::configure(&inside::Config::of(launch)).map_err(|e| e.into_failure(Stage::Mapper))?;
    for warning in warnings {
        eprintln!("warning: {}", warning.into_failure(Stage::Mapper));
    }
    Ok(())
}

/// The helper says ready, dies, or the user loses patience.
fn wait_for_network(network: Option<&mut (dyn Driver + '_)>, signals: &Signals) -> Result<(), Failure> {
    let Some(network) = network else { return Ok(()) };
    let ready = {
        let mut fds =
            [PollFd::new(network.ready_fd(), PollFlags::POLLIN), PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        wait(&mut fds, PollTimeout::from(30_000_u16))?;
        fds[0].any().unwrap_or(false)
    };
    if ready {
        return network.finish_ready().map_err(|e| e.into_failure(Stage::Supervisor));
    }
    let why = if signals.pending()? { "interrupted" } else { "no answer within 30 s" };
    Err(failure("slirp-start", "wait for", "the network helper").why(why))
}

pub(crate) fn wait(fds: &mut [PollFd<'_>], timeout: PollTimeout) -> Result<(), Failure> {
    loop {
        match poll(fds, timeout) {
            Ok(_) => return Ok(()),
            Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(failure("poll", "wait for", "the container").errno(errno as i32)),
        }
    }
}
