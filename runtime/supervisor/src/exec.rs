//! A command that joins a running container, from its plan to its exit code. Signals go to the command, and so does the
//! size of the terminal. When this process dies the command loses its streams and nothing else: it goes on until it
//! ends or its container does. One that the caller can leave has this for a parent from its beginning, and the caller
//! waits for another process (`accompanied`): only a parent can tell how a command ended.

mod accompanied;

use crate::journal;
use crate::keys::Keys;
use crate::log::Stream;
use crate::output::{Departure, Output, tell_lost};
use crate::relay::{Relay, Sink};
use crate::run::failure;
use crate::signals::{Signals, convert};
use crate::terminal::RawTerminal;
use accompanied::Companion;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rlrun_sandbox::sys::take_inherited;
use rlrun_sandbox::{INIT_FD, Joined, PRESERVED_FD, READY_FD, Streams, tell};
use rlrun_spec::Failure;
use rlrun_spec::exec::Exec;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

/// Runs the command and returns its exit code.
pub(crate) fn run(exec: &Exec) -> Result<u8, Failure> {
    // Executed from a descriptor, the kernel knows no better name than its number.
    rustix::thread::set_name(c"rlrun:exec")
        .map_err(|e| failure("join", "name", "the supervisor").errno(e.raw_os_error()))?;
    let launch = &exec.launch;
    let inherited = |number| {
        take_inherited(number)
            .map_err(|e| failure("read-plan", "take over what goes to", &launch.name).errno(e.raw_os_error()))
    };
    let init = inherited(INIT_FD)?;
    let ready = if exec.detached { Some(inherited(READY_FD)?) } else { None };
    let numbers = (PRESERVED_FD..).zip(0..launch.process.preserved);
    let preserved = numbers.map(|(number, _)| inherited(number)).collect::<Result<Vec<_>, _>>()?;
    let signals = Signals::block()?;
    let can_be_left =
        !exec.detached && launch.process.terminal && launch.process.interactive && !exec.detach_keys.is_empty();
    let companion = if can_be_left { Some(accompanied::fork(&signals)?) } else { None };
    let outcome = start(exec, &init, preserved, ready.as_ref());
    drop(init);
    let outcome = match (outcome, ready) {
        // The caller still waits: what stopped the command is told there and not here.
        (Err(failure), Some(ready)) => {
            let code = failure.kind.exit_code();
            tell(&ready, &Err(failure)).map(|()| code)
        }
        (Err(failure), None) => Err(failure),
        (Ok((joined, streams)), ready) => {
            drop(ready);
            Relays::new(exec, joined, streams).and_then(|relays| relays.until_end(&signals, companion))
        }
    };
    let code = outcome.as_ref().map_or_else(|failure| failure.kind.exit_code(), |code| *code);
    journal::exec_died(launch, &exec.session, code);
    outcome
}

fn start(
    exec: &Exec,
    init: &OwnedFd,
    preserved: Vec<OwnedFd>,
    ready: Option<&OwnedFd>,
) -> Result<(Joined, Streams), Failure> {
    let (mut joined, streams) = Joined::start(&exec.launch, init.as_fd(), preserved)?;
    joined.proceed()?;
    let Some(ready) = ready else { return Ok((joined, streams)) };
    let null = std::fs::File::options().read(true).write(true).open("/dev/null");
    let null = null.map_err(|e| failure("detach", "open", "/dev/null").why(e.to_string()))?;
    rustix::stdio::dup2_stderr(&null)
        .map_err(|errno| failure("detach", "leave", "the caller's standard error").errno(errno.raw_os_error()))?;
    if tell(ready, &Ok(())).is_err() {
        // The caller was killed meanwhile; the command was asked for and runs.
    }
    Ok((joined, streams))
}

/// The command and its streams.
struct Relays {
    joined: Joined,
    raw: Option<RawTerminal>,
    outputs: Vec<Output>,
    input: Option<Relay>,
    /// Output for the caller could not be written.
    lost: Option<Failure>,
    /// Keeps the command's input open while nobody types.
    _open: Option<OwnedFd>,
}

/// Why the relaying is over.
enum Over {
    Ended,
    /// The keys that leave it alone were typed.
    Left,
}

fn duplicate(fd: impl AsFd) -> Result<OwnedFd, Failure> {
    fd.as_fd().try_clone_to_owned().map_err(|e| failure("relay", "duplicate", "a stream").why(e.to_string()))
}

impl Relays {
    fn new(exec: &Exec, joined: Joined, streams: Streams) -> Result<Relays, Failure> {
        let process = &exec.launch.process;
        let watched = !exec.detached;
        let raw = if watched { RawTerminal::enter(process, streams.terminal.as_ref())? } else { None };
        let (stdout, stderr) = (std::io::stdout(), std::io::stderr());
        let all = [
            (&streams.terminal, Stream::Stdout, stdout.as_fd()),
            (&streams.stdout, Stream::Stdout, stdout.as_fd()),
            (&streams.stderr, Stream::Stderr, stderr.as_fd()),
        ];
        let mut outputs = Vec::new();
        for (source, stream, sink) in all {
            let Some(source) = source else { continue };
            let mut output = Output::new(duplicate(source)?, stream);
            if watched {
                output.watch(duplicate(sink)?, Departure::Ends);
            }
            outputs.push(output);
        }
        let Streams { stdin, terminal, .. } = streams;
        let (sink, kind) = match (&terminal, stdin) {
            (Some(terminal), _) => (Some(duplicate(terminal)?).filter(|_| process.interactive), Sink::Terminal),
            (None, stdin) => (stdin, Sink::Pipe),
        };
        let (mut input, mut open) = (None, None);
        match sink {
            Some(sink) if watched => {
                let mut relay = Relay::input(duplicate(std::io::stdin())?, sink, kind)?;
                if kind == Sink::Terminal {
                    relay.leave_by(Keys::new(&exec.detach_keys));
                }
                input = Some(relay);
            }
            // In the background its input stays open and silent.
            sink => open = sink,
        }
        if let (None, Some(terminal)) = (&open, terminal.filter(|_| exec.detached)) {
            open = Some(terminal);
        }
        Ok(Relays { joined, raw, outputs, input, lost: None, _open: open })
    }

    fn until_end(mut self, signals: &Signals, companion: Option<Companion>) -> Result<u8, Failure> {
        if let (Over::Left, Some(companion)) = (self.relay(signals)?, companion) {
            self.leave(companion)?;
            self.relay(signals)?;
        }
        drop(self.raw);
        self.joined.exit_code().map(|code| tell_lost(code, self.lost.as_ref()))
    }

    fn relay(&mut self, signals: &Signals) -> Result<Over, Failure> {
        let mut ended = false;
        loop {
            let events = if ended { PollFlags::empty() } else { PollFlags::POLLIN };
            let mut fds =
                vec![PollFd::new(signals.as_fd(), PollFlags::POLLIN), PollFd::new(self.joined.ended(), events)];
            fds.extend(self.outputs.iter().map(Output::poll_fd));
            fds.extend(self.input.iter().map(Relay::poll_fd));
            wait(&mut fds, self.input.as_ref().and_then(Relay::due))?;
            let ready: Vec<bool> = fds.iter().map(|fd| fd.any().unwrap_or(true)).collect();
            drop(fds);
            if ready[0] {
                let (raw, joined) = (&self.raw, &self.joined);
                signals.take(|signal| match raw {
                    Some(raw) if signal == nix::sys::signal::Signal::SIGWINCH => raw.resize(),
                    _ => convert(signal).map_or(Ok(()), |signal| joined.signal(signal)),
                })?;
            }
            ended |= ready[1];
            let mut turn = ready[2..].iter();
            let mut is_due = || turn.next() == Some(&true);
            self.outputs.retain_mut(|output| {
                let open = !is_due() || output.pump(None);
                self.lost = self.lost.take().or_else(|| output.lost());
                open
            });
            if let Some(input) = &mut self.input {
                input.wake(Instant::now());
                let open = if is_due() { input.pump() } else { true };
                if input.left() {
                    return Ok(Over::Left);
                }
                if !open {
                    self.input = None;
                }
            }
            // What the command wrote before it ended is still in the pipes; the input has nobody left to read it.
            if ended && self.outputs.iter().all(|o| !o.readable()) {
                return Ok(Over::Ended);
            }
        }
    }

    /// Lets the caller go. The command's terminal stays open, and its output goes nowhere.
    fn leave(&mut self, companion: Companion) -> Result<(), Failure> {
        // Puts the caller's terminal back.
        drop(self.raw.take());
        self.input = None;
        for output in &mut self.outputs {
            output.unwatch();
        }
        background()?;
        companion.leave()
    }
}

fn background() -> Result<(), Failure> {
    let failed = |errno: rustix::io::Errno| failure("detach", "leave", "the caller").errno(errno.raw_os_error());
    rustix::process::setsid().map_err(failed)?;
    rustix::process::chdir("/").map_err(failed)?;
    let null = std::fs::File::options().read(true).write(true).open("/dev/null");
    let null = null.map_err(|e| failure("detach", "open", "/dev/null").why(e.to_string()))?;
    rustix::stdio::dup2_stdin(&null).map_err(failed)?;
    rustix::stdio::dup2_stdout(&null).map_err(failed)?;
    rustix::stdio::dup2_stderr(&null).map_err(failed)
}

fn wait(fds: &mut [PollFd<'_>], due: Option<Instant>) -> Result<(), Failure> {
    let timeout = due.map_or(PollTimeout::NONE, |due| {
        let left = due.saturating_duration_since(Instant::now()).as_millis().saturating_add(1);
        u16::try_from(left).map_or(PollTimeout::MAX, PollTimeout::from)
    });
    match poll(fds, timeout) {
        Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
        Err(errno) => Err(failure("poll", "wait for", "the command").errno(errno as i32)),
    }
}
