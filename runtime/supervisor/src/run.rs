//! A container from its plan to its exit code.

use crate::book::Book;
use crate::journal;
use crate::log::{Log, Stream};
use crate::output::{Departure, Output};
use crate::relay::{Relay, Sink};
use crate::signals::{Signals, convert};
use crate::terminal::RawTerminal;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::Pid;
use rlrun_net::{Driver, inside};
use rlrun_sandbox::sys::take_inherited;
use rlrun_sandbox::{Container, Heard, LOCK_FD, READY_FD, Streams, Trace, tell};
use rlrun_spec::plan::Launch;
use rlrun_spec::protocol::{News, OutOfMemory};
use rlrun_spec::{Failure, Kind, Stage};
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// Runs the container and returns the payload's exit code.
pub(crate) fn run(launch: &Launch, plan: OwnedFd) -> Result<u8, Failure> {
    // Held to the very end: a free lock means that nobody looks after this container any more.
    let inherited = |number, what: &str| {
        take_inherited(number).map_err(|errno| failure("read-plan", what, &launch.name).errno(errno.raw_os_error()))
    };
    let lock = inherited(LOCK_FD, "take over the lock of")?;
    let ready = match launch.facts.life.detached {
        true => Some(inherited(READY_FD, "take over the caller of")?),
        false => None,
    };
    let trace = Trace::new(launch.facts.trace)?;
    trace.mark("supervisor: started");
    let mut watch = Watch { trace: &trace, book: Book::new(launch), ready, started: false };
    let code = supervise(launch, plan, &mut watch);
    let Watch { book, ready, started, .. } = watch;
    let forgotten = end(launch, book, started, &code);
    trace.mark("supervisor: done");
    eprint!("{}", trace.render(&launch.facts.trace_marks));
    drop(lock);
    let outcome = code.and_then(|code| forgotten.map(|()| code));
    match (outcome, ready) {
        // The caller still waits: what stopped the start is told there and not here.
        (Err(failure), Some(ready)) => {
            let code = failure.kind.exit_code();
            tell(&ready, &Err(failure)).map(|()| code)
        }
        (outcome, _) => outcome,
    }
}

/// What is kept and told while a container runs.
struct Watch<'a> {
    trace: &'a Trace,
    book: Book,
    /// Whoever waits for the start of a detached container.
    ready: Option<OwnedFd>,
    /// The payload ran.
    started: bool,
}

impl Watch<'_> {
    /// The payload runs: nobody has to wait any more, and standard error is the caller's.
    fn payload_runs(&mut self) -> Result<(), Failure> {
        self.started = true;
        self.trace.mark("supervisor: payload runs");
        let Some(ready) = self.ready.take() else { return Ok(()) };
        let null = File::options()
            .read(true)
            .write(true)
            .open("/dev/null")
            .map_err(|e| failure("detach", "open", "/dev/null").why(e.to_string()))?;
        rustix::stdio::dup2_stderr(&null)
            .map_err(|errno| failure("detach", "leave", "the caller's standard error").errno(errno.raw_os_error()))?;
        if tell(&ready, &Ok(())).is_err() {
            // The caller was killed meanwhile; the container was asked for and runs.
        }
        Ok(())
    }
}

pub(crate) fn failure(step: &str, operation: &str, object: &str) -> Failure {
    Failure::new(Stage::Supervisor, Kind::Runtime, step, operation, object)
}

/// Starts the container, relays until it ends.
fn supervise(launch: &Launch, plan: OwnedFd, watch: &mut Watch<'_>) -> Result<u8, Failure> {
    let trace = watch.trace;
    let signals = Signals::block()?;
    let log = Log::open(&launch.facts.life.log)?;
    let (mut container, mut streams) = Container::clone(launch, plan, trace)?;
    container.map_ids(trace)?;
    let owner = Pid::from_raw(container.namespace_owner());
    let mut network =
        rlrun_net::start(launch, owner, &launch.facts.container_dir).map_err(|e| e.into_failure(Stage::Supervisor))?;
    let prepared = container.prepare(&mut streams).and_then(|()| {
        trace.mark("supervisor: root file system ready");
        wait_for_network(network.as_deref_mut(), &signals)
    });
    trace.mark("supervisor: network ready");
    let code = prepared.and_then(|()| start(launch, &mut container, watch)).and_then(|()| {
        relay_until_end(launch, container, streams, network.as_deref_mut(), &signals, (log, &mut watch.book))
    });
    let end = |n: Box<dyn Driver>| if code.is_ok() { n.release() } else { n.stop() };
    let stopped = network.map_or(Ok(()), end).map_err(|e| e.into_failure(Stage::Supervisor));
    trace.mark("supervisor: network stopped");
    code.and_then(|code| stopped.map(|()| code))
}

/// Lets the payload go. What has to be written is written while it is being executed.
fn start(launch: &Launch, container: &mut Container, watch: &mut Watch<'_>) -> Result<(), Failure> {
    // Before: a short payload is gone, and its number with it, while this process looks.
    let pid = container.init_pid()?;
    container.release()?;
    let written = watch.book.started(pid);
    watch.trace.mark("supervisor: state written");
    container.confirm()?;
    journal::tell(launch, "start", None);
    written?;
    watch.payload_runs()
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

fn wait(fds: &mut [PollFd<'_>], timeout: PollTimeout) -> Result<(), Failure> {
    loop {
        match poll(fds, timeout) {
            Ok(_) => return Ok(()),
            Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(failure("poll", "wait for", "the container").errno(errno as i32)),
        }
    }
}

/// Everything between the payload's start and its end.
fn relay_until_end(
    launch: &Launch,
    mut container: Container,
    streams: Streams,
    mut network: Option<&mut (dyn Driver + '_)>,
    signals: &Signals,
    (mut log, book): (Option<Log>, &mut Book),
) -> Result<u8, Failure> {
    let raw = RawTerminal::enter(&launch.process, streams.terminal.as_ref())?;
    let (mut outputs, mut inputs) = (outputs(launch, &streams)?, inputs(launch, &streams)?);
    // The relays own their ends now; the ones here would keep the payload from ever seeing end of file. In the
    // background standard input stays open for whoever attaches.
    let Streams { stdin, stdout, stderr, terminal } = streams;
    drop((stdout, stderr, terminal));
    let _open_input = stdin.filter(|_| launch.facts.life.detached);
    if rlrun_sandbox::sys::forget_program_pages().is_err() {
        // Only memory: the container runs as well with the pages of the start still here.
    }
    let mut ended = false;
    loop {
        let idle = PollFlags::empty();
        let mut fds = vec![
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(container.mapper(), if ended { idle } else { PollFlags::POLLIN }),
        ];
        let helper = network.as_deref().and_then(|n| n.death_fd());
        fds.extend(helper.map(|fd| PollFd::new(fd, idle)));
        let first_output = fds.len();
        fds.extend(outputs.iter().map(Output::poll_fd));
        fds.extend(inputs.iter().map(Relay::poll_fd));
        wait(&mut fds, PollTimeout::NONE)?;
        let ready: Vec<bool> = fds.iter().map(|fd| fd.any().unwrap_or(true)).collect();
        drop(fds);
        if ready[0] {
            signals.take(|signal| match &raw {
                Some(raw) if signal == nix::sys::signal::Signal::SIGWINCH => raw.resize(),
                _ => convert(signal).map_or(Ok(()), |signal| container.signal(signal)),
            })?;
        }
        if ready[1] && !ended {
            ended = heard(launch, container.hear()?, book)?;
        }
        if first_output == 3 && ready[2] && !ended {
            return Err(helper_died(network.as_deref_mut()));
        }
        let mut turn = ready[first_output..].iter();
        let mut is_due = || turn.next() == Some(&true);
        outputs.retain_mut(|output| if is_due() { output.pump(log.as_mut()) } else { true });
        inputs.retain_mut(|input| if is_due() { input.pump() } else { true });
        // What the payload wrote before it ended is still in the pipes; the input has nobody left to read it.
        if ended && outputs.iter().all(|o| !o.readable()) {
            drop(raw);
            return container.exit_code();
        }
    }
}

/// Takes what the mapper said; true when the container has ended.
fn heard(launch: &Launch, heard: Heard, book: &mut Book) -> Result<bool, Failure> {
    match heard {
        Heard::End => return Ok(true),
        Heard::Answer(_) => {}
        Heard::News(News::OutOfMemory(what)) => {
            journal::tell(launch, "oom", None);
            let OutOfMemory { used, limit, killed } = what;
            let done = match &killed {
                Some((pid, name)) => format!("process {pid} ({name}) was killed"),
                None => "the container stands still until it may use more (--oom-kill-disable)".to_owned(),
            };
            let told = format!("memory: {used} bytes are used and {limit} allowed: {done}");
            if !launch.facts.life.detached {
                eprintln!("warning: {told}");
            }
            book.state.oom_killed |= killed.is_some();
            book.state.error = told;
            book.write()?;
        }
    }
    Ok(false)
}

fn helper_died(network: Option<&mut (dyn Driver + '_)>) -> Failure {
    match network {
        Some(network) => network.post_mortem().into_failure(Stage::Supervisor),
        None => failure("slirp-run", "keep alive", "the network helper"),
    }
}

fn duplicate(fd: BorrowedFd<'_>) -> Result<OwnedFd, Failure> {
    fd.try_clone_to_owned().map_err(|e| failure("relay", "duplicate", "a stream").why(e.to_string()))
}

/// The payload's output, watched by the caller in the foreground. With a log the payload outlives its reader, as it
/// does in the background.
fn outputs(launch: &Launch, streams: &Streams) -> Result<Vec<Output>, Failure> {
    let life = &launch.facts.life;
    let departure = if life.log == rlrun_spec::life::Log::None { Departure::Ends } else { Departure::Ignored };
    let (stdout, stderr) = (std::io::stdout(), std::io::stderr());
    let all = [
        (&streams.terminal, Stream::Stdout, stdout.as_fd()),
        (&streams.stdout, Stream::Stdout, stdout.as_fd()),
        (&streams.stderr, Stream::Stderr, stderr.as_fd()),
    ];
    let mut outputs = Vec::new();
    for (source, stream, sink) in all {
        let Some(source) = source else { continue };
        let mut output = Output::new(duplicate(source.as_fd())?, stream);
        if !life.detached {
            output.watch(duplicate(sink)?, departure);
        }
        outputs.push(output);
    }
    Ok(outputs)
}

/// The caller's standard input, in the foreground.
fn inputs(launch: &Launch, streams: &Streams) -> Result<Vec<Relay>, Failure> {
    if launch.facts.life.detached {
        return Ok(Vec::new());
    }
    let stdin = std::io::stdin();
    let terminal = streams.terminal.as_ref().filter(|_| launch.process.interactive);
    let ends = [(terminal, Sink::Terminal), (streams.stdin.as_ref(), Sink::Pipe)];
    let ends = ends.into_iter().filter_map(|(fd, kind)| Some((fd?, kind)));
    ends.map(|(fd, kind)| Relay::input(duplicate(stdin.as_fd())?, duplicate(fd.as_fd())?, kind)).collect()
}

/// Removes the record of a container that is to leave none, or writes how it ended; and says that this one needs
/// nobody any more.
fn end(launch: &Launch, mut book: Book, started: bool, code: &Result<u8, Failure>) -> Result<(), Failure> {
    let facts = &launch.facts;
    if started {
        journal::tell(launch, "died", Some(code.as_ref().map_or_else(|f| f.kind.exit_code(), |code| *code)));
    }
    let removed = facts.remove || (!started && facts.remove_unstarted);
    if removed {
        return forget(launch);
    }
    let written = match code {
        Ok(code) => book.ended(*code, String::new()),
        Err(failure) => book.ended(failure.kind.exit_code(), failure.to_string()),
    };
    written.and_then(|()| gone(fs::remove_file(&facts.live_link), &facts.live_link))
}

fn forget(launch: &Launch) -> Result<(), Failure> {
    let facts = &launch.facts;
    // The mapper has emptied it; what is left if it was killed belongs to us or is found by the next command.
    let emptied = rlrun_sandbox::remove_contents(&facts.container_dir);
    emptied.and_then(|()| gone(fs::remove_dir(&facts.container_dir), &facts.container_dir))?;
    journal::tell(launch, "remove", None);
    gone(fs::remove_file(&facts.name_link), &facts.name_link)?;
    gone(fs::remove_file(&facts.live_link), &facts.live_link)
}

fn gone(result: std::io::Result<()>, path: &Path) -> Result<(), Failure> {
    match result {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        Err(e) => Err(failure("forget", "remove", &path.display().to_string()).why(e.to_string())),
    }
}
