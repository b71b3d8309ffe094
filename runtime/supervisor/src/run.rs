//! A container from its plan to its exit code.

use crate::relay::{Relay, Sink};
use crate::signals::{Signals, convert};
use crate::terminal::RawTerminal;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::Pid;
use rlrun_net::{Driver, inside};
use rlrun_sandbox::sys::take_inherited;
use rlrun_sandbox::{Container, LOCK_FD, Streams, Trace};
use rlrun_spec::plan::Launch;
use rlrun_spec::{Failure, Kind, Stage};
use std::fs;
use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// Runs the container and returns the payload's exit code.
pub(crate) fn run(launch: &Launch, plan: OwnedFd) -> Result<u8, Failure> {
    // Held to the very end: a free lock means that nobody looks after this container any more.
    let lock = take_inherited(LOCK_FD)
        .map_err(|errno| failure("read-plan", "take over the lock of", &launch.name).errno(errno.raw_os_error()))?;
    let trace = Trace::new(launch.facts.trace)?;
    trace.mark("supervisor: started");
    let mut started = false;
    let code = supervise(launch, plan, &trace, &mut started);
    let forgotten = forget(launch, started);
    trace.mark("supervisor: done");
    eprint!("{}", trace.render(&launch.facts.trace_marks));
    drop(lock);
    code.and_then(|code| forgotten.map(|()| code))
}

pub(crate) fn failure(step: &str, operation: &str, object: &str) -> Failure {
    Failure::new(Stage::Supervisor, Kind::Runtime, step, operation, object)
}

/// Starts the container, relays until it ends.
fn supervise(launch: &Launch, plan: OwnedFd, trace: &Trace, started: &mut bool) -> Result<u8, Failure> {
    let signals = Signals::block()?;
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
    let code = prepared.and_then(|()| container.proceed()).and_then(|()| {
        *started = true;
        trace.mark("supervisor: payload runs");
        relay_until_end(launch, container, streams, network.as_deref_mut(), &signals)
    });
    let end = |n: Box<dyn Driver>| if code.is_ok() { n.release() } else { n.stop() };
    let stopped = network.map_or(Ok(()), end).map_err(|e| e.into_failure(Stage::Supervisor));
    trace.mark("supervisor: network stopped");
    code.and_then(|code| stopped.map(|()| code))
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
    container: Container,
    streams: Streams,
    mut network: Option<&mut (dyn Driver + '_)>,
    signals: &Signals,
) -> Result<u8, Failure> {
    let raw = RawTerminal::enter(&launch.process, streams.terminal.as_ref())?;
    let mut relays = relays(launch, &streams)?;
    // The relays own their ends now; the ones here would keep the payload from ever seeing end of file.
    drop(streams);
    if rlrun_sandbox::sys::forget_program_pages().is_err() {
        // Only memory: the container runs as well with the pages of the start still here.
    }
    let mut ended = false;
    loop {
        let idle = PollFlags::empty();
        let mut fds = vec![
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(container.ended(), if ended { idle } else { PollFlags::POLLIN }),
        ];
        let helper = network.as_deref().and_then(|n| n.death_fd());
        fds.extend(helper.map(|fd| PollFd::new(fd, idle)));
        let first_relay = fds.len();
        fds.extend(relays.iter().map(Relay::poll_fd));
        wait(&mut fds, PollTimeout::NONE)?;
        let ready: Vec<bool> = fds.iter().map(|fd| fd.any().unwrap_or(true)).collect();
        drop(fds);
        if ready[0] {
            signals.take(|signal| match &raw {
                Some(raw) if signal == nix::sys::signal::Signal::SIGWINCH => raw.resize(),
                _ => convert(signal).map_or(Ok(()), |signal| container.signal(signal)),
            })?;
        }
        ended |= ready[1];
        if first_relay == 3 && ready[2] && !ended {
            return Err(helper_died(network.as_deref_mut()));
        }
        let mut turn = ready[first_relay..].iter();
        relays.retain_mut(|relay| if turn.next() == Some(&true) { relay.pump() } else { true });
        // What the payload wrote before it ended is still in the pipes; the input has nobody left to read it.
        if ended && relays.iter().all(|r| r.is_input() || !r.readable()) {
            drop(raw);
            return container.exit_code();
        }
    }
}

fn helper_died(network: Option<&mut (dyn Driver + '_)>) -> Failure {
    match network {
        Some(network) => network.post_mortem().into_failure(Stage::Supervisor),
        None => failure("slirp-run", "keep alive", "the network helper"),
    }
}

fn relays(launch: &Launch, streams: &Streams) -> Result<Vec<Relay>, Failure> {
    let duplicate = |fd: BorrowedFd<'_>| {
        fd.try_clone_to_owned().map_err(|e| failure("relay", "duplicate", "a stream").why(e.to_string()))
    };
    let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    let mut relays = Vec::new();
    if let Some(master) = &streams.terminal {
        relays.push(Relay::output(duplicate(master.as_fd())?, duplicate(stdout.as_fd())?));
        if launch.process.interactive {
            relays.push(Relay::input(duplicate(stdin.as_fd())?, duplicate(master.as_fd())?, Sink::Terminal)?);
        }
    }
    if let Some(pipe) = &streams.stdin {
        relays.push(Relay::input(duplicate(stdin.as_fd())?, duplicate(pipe.as_fd())?, Sink::Pipe)?);
    }
    if let Some(pipe) = &streams.stdout {
        relays.push(Relay::output(duplicate(pipe.as_fd())?, duplicate(stdout.as_fd())?));
    }
    if let Some(pipe) = &streams.stderr {
        relays.push(Relay::output(duplicate(pipe.as_fd())?, duplicate(stderr.as_fd())?));
    }
    Ok(relays)
}

/// Removes the record of a container that is to leave none, and says that this one needs nobody any more.
fn forget(launch: &Launch, started: bool) -> Result<(), Failure> {
    let facts = &launch.facts;
    if facts.remove || !started {
        // The mapper has emptied it; what is left if it was killed belongs to us or is found by the next command.
        let emptied = rlrun_sandbox::remove_contents(&facts.container_dir);
        emptied.and_then(|()| gone(fs::remove_dir(&facts.container_dir), &facts.container_dir))?;
        gone(fs::remove_file(&facts.name_link), &facts.name_link)?;
    }
    gone(fs::remove_file(&facts.live_link), &facts.live_link)
}

fn gone(result: std::io::Result<()>, path: &Path) -> Result<(), Failure> {
    match result {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        Err(e) => Err(failure("forget", "remove", &path.display().to_string()).why(e.to_string())),
    }
}
