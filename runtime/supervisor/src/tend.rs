//! The container while it runs: its streams, its signals, and what commands ask of it.

use crate::control::{Call, Control};
use crate::log::{Log, Stream};
use crate::output::{Departure, Output};
use crate::relay::{Relay, Sink};
use crate::run::{Served, Watch, done, failure, wait};
use crate::signals::Signals;
use crate::terminal::RawTerminal;
use nix::poll::{PollFd, PollFlags};
use nix::sys::signal::Signal;
use rlrun_net::Driver;
use rlrun_sandbox::{Container, Heard, Streams};
use rlrun_spec::plan::Launch;
use rlrun_spec::protocol::{self, Answer, News};
use rlrun_spec::supervision::{Reply, Request};
use rlrun_spec::{Failure, Stage};
use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// SIGKILL, which nothing inside can ignore.
const KILL: i32 = 9;

/// What there is to look after.
struct Tended {
    container: Container,
    raw: Option<RawTerminal>,
    outputs: Vec<Output>,
    inputs: Vec<Relay>,
    ended: bool,
    /// What the mapper was asked and has not answered yet, oldest first.
    asked: VecDeque<Asked>,
}

/// A request on its way to the mapper and back.
struct Asked {
    /// Who wants the answer.
    client: Option<u64>,
    /// Whether the container is paused once it is done; None: as before.
    paused: Option<bool>,
}

/// What a turn of the loop was woken for, in the order in which it waits.
struct Ready {
    signals: bool,
    mapper: bool,
    helper: bool,
    control: Vec<bool>,
    streams: Vec<bool>,
}

/// Everything between the payload's start and its end.
pub(crate) fn tend(
    container: Container,
    streams: Streams,
    mut network: Option<&mut (dyn Driver + '_)>,
    signals: &Signals,
    mut log: Option<&mut Log>,
    watch: &mut Watch<'_>,
) -> Result<u8, Failure> {
    let launch = watch.launch;
    let raw = RawTerminal::enter(&launch.process, streams.terminal.as_ref())?;
    let (outputs, inputs) = (outputs(launch, &streams)?, inputs(launch, &streams)?);
    // The relays own their ends now; the ones here would keep the payload from ever seeing end of file. In the
    // background standard input stays open for whoever attaches.
    let Streams { stdin, stdout, stderr, terminal } = streams;
    drop((stdout, stderr, terminal));
    let _open_input = stdin.filter(|_| launch.facts.life.detached);
    if rlrun_sandbox::sys::forget_program_pages().is_err() {
        // Only memory: the container runs as well with the pages of the start still here.
    }
    let mut tended = Tended { container, raw, outputs, inputs, ended: false, asked: VecDeque::new() };
    if let Some(limits) = watch.limits.clone() {
        tended.ask(None, &protocol::Request::Limit(limits))?;
    }
    loop {
        let ready = tended.wait(network.as_deref(), signals, watch)?;
        if ready.signals {
            signals.take(|signal| tended.signal(signal))?;
        }
        if ready.mapper && !tended.ended {
            tended.hear(watch)?;
        }
        if ready.helper && !tended.ended {
            return Err(helper_died(network.as_deref_mut()));
        }
        watch.serve(&ready.control, &mut |watch, call| tended.answer(watch, call))?;
        if watch.fate.must_die(Instant::now()) {
            tended.container.signal(KILL)?;
        }
        tended.move_streams(&ready.streams, log.as_deref_mut());
        // What the payload wrote before it ended is still in the pipes; the input has nobody left to read it.
        if tended.ended && tended.outputs.iter().all(|o| !o.readable()) {
            drop(tended.raw);
            for client in tended.asked.into_iter().filter_map(|asked| asked.client) {
                let failure = failure("control", "do this to", &launch.name).why("it has just ended");
                watch.reply(client, &Reply::Refused(Box::new(failure)));
            }
            return tended.container.exit_code();
        }
    }
}

impl Tended {
    fn wait(
        &self,
        network: Option<&(dyn Driver + '_)>,
        signals: &Signals,
        watch: &Watch<'_>,
    ) -> Result<Ready, Failure> {
        let idle = PollFlags::empty();
        let mut fds = vec![
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.container.mapper(), if self.ended { idle } else { PollFlags::POLLIN }),
        ];
        fds.extend(network.and_then(|n| n.death_fd()).map(|fd| PollFd::new(fd, idle)));
        let control = fds.len();
        fds.extend(watch.control.iter().flat_map(Control::poll_fds));
        let streams = fds.len();
        fds.extend(self.outputs.iter().map(Output::poll_fd));
        fds.extend(self.inputs.iter().map(Relay::poll_fd));
        wait(&mut fds, watch.fate.patience(Instant::now()))?;
        let ready: Vec<bool> = fds.iter().map(|fd| fd.any().unwrap_or(true)).collect();
        Ok(Ready {
            signals: ready[0],
            mapper: ready[1],
            helper: control == 3 && ready[2],
            control: ready[control..streams].to_vec(),
            streams: ready[streams..].to_vec(),
        })
    }

    /// A signal that this process got.
    fn signal(&self, signal: Signal) -> Result<(), Failure> {
        match &self.raw {
            Some(raw) if signal == Signal::SIGWINCH => raw.resize(),
            _ => self.container.signal(signal as i32),
        }
    }

    fn move_streams(&mut self, ready: &[bool], mut log: Option<&mut Log>) {
        let mut turn = ready.iter();
        let mut is_due = || turn.next() == Some(&true);
        self.outputs.retain_mut(|output| if is_due() { output.pump(log.as_deref_mut()) } else { true });
        self.inputs.retain_mut(|input| if is_due() { input.pump() } else { true });
    }

    /// Takes what the mapper said.
    fn hear(&mut self, watch: &mut Watch<'_>) -> Result<(), Failure> {
        match self.container.hear()? {
            Heard::End => self.ended = true,
            Heard::News(News::OutOfMemory(what)) => watch.out_of_memory(&what)?,
            Heard::Answer(answer) => {
                let Some(Asked { client, paused }) = self.asked.pop_front() else { return Ok(()) };
                if let (Some(paused), Answer::Done) = (paused, &answer) {
                    watch.book.state.paused = paused;
                    watch.book.write()?;
                    watch.announce(&Reply::Changed);
                }
                if let Some(client) = client {
                    watch.reply(client, &Reply::Mapper(answer));
                }
            }
        }
        Ok(())
    }

    fn ask(&mut self, client: Option<u64>, request: &protocol::Request) -> Result<(), Failure> {
        self.container.ask(request.clone())?;
        let paused = match request {
            protocol::Request::Pause => Some(true),
            protocol::Request::Unpause => Some(false),
            protocol::Request::Limit(_) | protocol::Request::Count => None,
        };
        self.asked.push_back(Asked { client, paused });
        Ok(())
    }

    /// What only a running container can do; the rest is the watch's.
    fn answer(&mut self, watch: &mut Watch<'_>, call: &mut Call) -> Served {
        match &call.request {
            Request::Signal(signal) => Served::Now(done(self.container.signal(*signal))),
            Request::Stop { signal, seconds } => Served::Now(done(self.stop(watch, *signal, *seconds))),
            Request::Mapper(request) => match self.ask(Some(call.client), request) {
                Ok(()) => {
                    if let protocol::Request::Limit(limits) = request {
                        watch.limits = Some(limits.clone());
                    }
                    Served::Later
                }
                Err(failure) => Served::Now(Reply::Refused(Box::new(failure))),
            },
            Request::Watch | Request::Rename(_) => Served::Not,
        }
    }

    fn stop(&mut self, watch: &mut Watch<'_>, signal: Option<i32>, seconds: Option<u32>) -> Result<(), Failure> {
        let life = &watch.launch.facts.life;
        let patience = Duration::from_secs(seconds.unwrap_or(life.stop_seconds).into());
        watch.fate.stop(Instant::now(), patience);
        let told = watch.book.stopped();
        watch.announce(&Reply::Changed);
        self.container.signal(signal.unwrap_or(life.stop_signal))?;
        if watch.book.state.paused {
            // What stands still cannot end by itself.
            self.ask(None, &protocol::Request::Unpause)?;
        }
        told
    }
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
