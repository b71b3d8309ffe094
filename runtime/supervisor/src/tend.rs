//! The container while it runs: its streams, its signals, and what commands ask of it.

use crate::control::{ACCOMPANYING, Call, Control};
use crate::fate::until;
use crate::guests::Guests;
use crate::health::Checks;
use crate::log::Log;
use crate::output::Output;
use crate::relay::Relay;
use crate::run::{Caller, Served, Watch, done, failure, start, wait};
use crate::signals::Signals;
use crate::streams::{inputs, outputs};
use crate::terminal::RawTerminal;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::signal::Signal;
use rlrun_net::Driver;
use rlrun_sandbox::control::Received;
use rlrun_sandbox::{Container, Heard, Streams};
use rlrun_spec::health::{Consequence, OnFailure, Status as Health};
use rlrun_spec::protocol::{self, Answer, News};
use rlrun_spec::state::KEEP;
use rlrun_spec::supervision::{Reply, Request};
use rlrun_spec::{Failure, Stage};
use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// SIGKILL, which nothing inside can ignore.
const KILL: i32 = 9;
/// How long whoever started the container may take to become the process that is attached.
const PATIENCE: Duration = Duration::from_secs(30);

/// What there is to look after.
pub(crate) struct Tended<'a> {
    pub(crate) container: Container,
    raw: Option<RawTerminal>,
    outputs: Vec<Output>,
    inputs: Vec<Relay>,
    ended: bool,
    /// What the mapper was asked and has not answered yet, oldest first.
    asked: VecDeque<Asked>,
    checks: Option<Checks<'a>>,
    guests: Guests,
    /// Who has it stand still; it goes on when he is gone.
    holder: Option<u64>,
}

/// A request on its way to the mapper and back.
struct Asked {
    /// Who wants the answer.
    client: Option<u64>,
    /// Whether the container is paused once it is done; None: as before.
    paused: Option<bool>,
    /// It is stopped then, with this signal and in that many seconds, and stays.
    stop: Option<(Option<i32>, Option<u32>)>,
}

/// What a turn of the loop was woken for, in the order in which it waits.
struct Ready {
    signals: bool,
    mapper: bool,
    helper: bool,
    control: Vec<bool>,
    streams: Vec<bool>,
    guests: Vec<bool>,
    check: bool,
}

impl<'a> Tended<'a> {
    /// Takes its streams over, before the payload runs: its terminal has its size from the beginning.
    pub(crate) fn take_over(
        container: Container,
        streams: Streams,
        watch: &mut Watch<'a>,
    ) -> Result<Tended<'a>, Failure> {
        let launch = watch.launch;
        let raw = RawTerminal::enter(&launch.process, streams.terminal.as_ref())?;
        let (outputs, inputs) = (outputs(launch, &streams)?, inputs(launch, &streams)?);
        // The relays own their ends now; the ones here would keep the payload from ever seeing end of file. In the
        // background standard input stays open for whoever attaches.
        let Streams { stdin, stdout, stderr, terminal } = streams;
        drop((stdout, stderr));
        let guests = Guests::new(stdin.filter(|_| launch.facts.life.detached), terminal);
        let (asked, checks) = (VecDeque::new(), None);
        let ended = false;
        let mut tended = Tended { container, raw, outputs, inputs, ended, asked, checks, guests, holder: None };
        tended.welcome(watch)?;
        Ok(tended)
    }

    /// Whoever started the container and is attached to it is there before anything is written.
    fn welcome(&mut self, watch: &mut Watch<'_>) -> Result<(), Failure> {
        let Some(Caller::Stays(waiting)) = &mut watch.caller else { return Ok(()) };
        let (Some(connection), Some(control)) = (waiting.take(), &mut watch.control) else { return Ok(()) };
        let missing = |why: &str| Err(failure("attach", "wait for", "whoever started the container").why(why));
        loop {
            match connection.receive::<Request>(Some(PATIENCE))? {
                Received::Message(Request::Resize { rows, columns }, _) => {
                    if self.guests.resize(rows, columns).is_err() {
                        // The payload has a terminal without a size.
                    }
                }
                Received::Message(Request::Attach, descriptors) => {
                    let (terminal, input) = self.guests.offer();
                    self.guests.admit(ACCOMPANYING, descriptors, &mut self.outputs)?;
                    connection.send(&Reply::Attached { terminal, input }, &[])?;
                    control.accompany(connection);
                    watch.accompanied = true;
                    return Ok(());
                }
                Received::Message(..) => return missing("it asks for something else"),
                Received::End => return missing("it is gone"),
                Received::Nothing => return missing("it says nothing"),
            }
        }
    }

    /// Everything between the payload's start and its end.
    pub(crate) fn tend(
        mut self,
        mut network: Option<&mut (dyn Driver + '_)>,
        signals: &Signals,
        mut log: Option<&mut Log>,
        watch: &mut Watch<'a>,
    ) -> Result<u8, Failure> {
        let launch = watch.launch;
        if rlrun_sandbox::sys::forget_program_pages().is_err() {
            // Only memory: the container runs as well with the pages of the start still here.
        }
        self.checks = Checks::of(launch, Instant::now());
        if self.checks.is_some() {
            watch.book.health(Health::Starting)?;
        }
        if let Some(limits) = watch.limits.clone() {
            self.ask(watch, None, &protocol::Request::Limit(limits))?;
        }
        loop {
            let ready = self.wait(network.as_deref(), signals, watch)?;
            if ready.signals {
                signals.take(|signal| self.signal(signal))?;
            }
            if ready.mapper && !self.ended {
                self.hear(watch)?;
            }
            if ready.helper && !self.ended {
                return Err(helper_died(network.as_deref_mut()));
            }
            watch.serve(&ready.control, &mut |watch, call| self.answer(watch, call))?;
            self.see_guests(&ready.guests, watch)?;
            if watch.fate.must_die(Instant::now()) {
                self.container.signal(KILL)?;
            }
            self.check(ready.check, watch)?;
            self.move_streams(&ready.streams, log.as_deref_mut(), watch);
            // What the payload wrote before it ended is still in the pipes; the input has nobody left to read it.
            if self.ended && self.outputs.iter().all(|o| !o.readable()) {
                drop(self.raw.take());
                for client in self.asked.drain(..).filter_map(|asked| asked.client) {
                    let failure = failure("control", "do this to", &launch.name).why("it has just ended");
                    watch.reply(client, &Reply::Refused(Box::new(failure)));
                }
                let (code, spent) = self.container.end()?;
                watch.book.state.spent = spent;
                return Ok(code);
            }
        }
    }

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
        let checks = self.checks.as_ref().filter(|_| !self.ended);
        let check = checks.and_then(Checks::poll_fd);
        let guests = fds.len();
        fds.extend(self.guests.poll_fds());
        let relays = fds.len();
        fds.extend(check);
        let now = Instant::now();
        let due = [watch.fate.due(), checks.and_then(Checks::due)].into_iter().flatten();
        let due = due.chain(self.outputs.iter().filter_map(Output::due)).min();
        wait(&mut fds, due.map_or(PollTimeout::NONE, |at| until(at, now)))?;
        let ready: Vec<bool> = fds.iter().map(|fd| fd.any().unwrap_or(true)).collect();
        Ok(Ready {
            signals: ready[0],
            mapper: ready[1],
            helper: control == 3 && ready[2],
            control: ready[control..streams].to_vec(),
            streams: ready[streams..guests].to_vec(),
            guests: ready[guests..relays].to_vec(),
            check: ready.get(relays) == Some(&true),
        })
    }

    /// A signal that this process got.
    fn signal(&self, signal: Signal) -> Result<(), Failure> {
        match &self.raw {
            Some(raw) if signal == Signal::SIGWINCH => raw.resize(),
            _ => self.container.signal(signal as i32),
        }
    }

    fn move_streams(&mut self, ready: &[bool], mut log: Option<&mut Log>, watch: &mut Watch<'_>) {
        let mut turn = ready.iter();
        let mut is_due = || turn.next() == Some(&true);
        self.outputs.retain_mut(|output| {
            let open = !is_due() || output.pump(log.as_deref_mut());
            watch.lost = watch.lost.take().or_else(|| output.lost());
            open
        });
        self.inputs.retain_mut(|input| if is_due() { input.pump() } else { true });
    }

    /// Moves what those who attached have typed, and sees who has gone or is not waited for.
    fn see_guests(&mut self, ready: &[bool], watch: &mut Watch<'_>) -> Result<(), Failure> {
        self.guests.pump(ready);
        for client in watch.control.as_mut().map(Control::gone).unwrap_or_default() {
            self.guests.dismiss(client, &mut self.outputs);
            if client == ACCOMPANYING && std::mem::take(&mut watch.accompanied) {
                // Killed: a container in the foreground does not outlive who started it.
                watch.fate.stop(Instant::now(), Duration::ZERO);
            }
            if self.holder == Some(client) {
                self.holder = None;
                self.ask(watch, None, &protocol::Request::Unpause)?;
            }
        }
        let now = Instant::now();
        let left: Vec<u64> = self.outputs.iter_mut().filter_map(|output| output.wake(now)).collect();
        for client in left {
            self.guests.dismiss(client, &mut self.outputs);
            watch.accompanied &= client != ACCOMPANYING;
            watch.reply(client, &Reply::Left);
        }
        Ok(())
    }

    fn attach(&mut self, watch: &mut Watch<'_>, call: &mut Call) -> Served {
        let (terminal, input) = self.guests.offer();
        match self.guests.admit(call.client, std::mem::take(&mut call.descriptors), &mut self.outputs) {
            Ok(()) => {
                if let Some(control) = &mut watch.control {
                    control.watch(call.client);
                }
                Served::Now(Reply::Attached { terminal, input })
            }
            Err(failure) => Served::Now(Reply::Refused(Box::new(failure))),
        }
    }

    /// Begins the health check that is due, or takes what the one that was made said.
    fn check(&mut self, ready: bool, watch: &mut Watch<'_>) -> Result<(), Failure> {
        let (Some(checks), Some(init), false) = (&mut self.checks, self.container.init(), self.ended) else {
            return Ok(());
        };
        let (now, paused) = (Instant::now(), watch.book.state.paused);
        if let Err(failure) = checks.begin(init, paused, now) {
            // For want of a process, for instance: the container is none the worse for it.
            eprintln!("warning: {failure}");
        }
        if !ready {
            return Ok(());
        }
        let Some(Consequence { changed, action }) = checks.take(paused, now) else { return Ok(()) };
        let status = checks.record.status;
        let success = checks.record.log.last().is_some_and(|outcome| outcome.exit_code == 0);
        for client in checks.asking.drain(..) {
            watch.reply(client, &Reply::Checked { success, status });
        }
        if changed {
            watch.book.health(status)?;
            watch.book.tell_health(status);
            watch.announce(&Reply::Changed);
        }
        let life = &watch.launch.facts.life;
        match action {
            OnFailure::None => Ok(()),
            OnFailure::Kill => self.container.signal(KILL),
            OnFailure::Stop => self.stop(watch, None, None),
            OnFailure::Restart => {
                watch.fate.renew(now, Duration::from_secs(life.stop_seconds.into()));
                self.container.signal(life.stop_signal)
            }
        }
    }

    /// Takes what the mapper said.
    fn hear(&mut self, watch: &mut Watch<'_>) -> Result<(), Failure> {
        match self.container.hear()? {
            Heard::End => self.ended = true,
            Heard::News(News::OutOfMemory(what)) => watch.out_of_memory(&what)?,
            Heard::Answer(mut answer) => {
                if let Answer::Counted(usage) = &mut answer {
                    watch.complete(usage);
                }
                let Some(Asked { client, paused, stop }) = self.asked.pop_front() else { return Ok(()) };
                if let (Some(paused), Answer::Done) = (paused, &answer) {
                    self.set_paused(watch, paused)?;
                }
                match (client, stop) {
                    (Some(client), Some((signal, seconds))) => {
                        let stopped = self.stop_and_stay(watch, signal, seconds);
                        watch.reply(client, &done(stopped));
                    }
                    (Some(client), None) => watch.reply(client, &Reply::Mapper(answer)),
                    (None, _) => {}
                }
            }
        }
        Ok(())
    }

    fn ask(&mut self, watch: &mut Watch<'_>, client: Option<u64>, request: &protocol::Request) -> Result<(), Failure> {
        if self.ask_cgroup(watch, request)? {
            if let Some(client) = client {
                watch.reply(client, &Reply::Mapper(Answer::Done));
            }
            return Ok(());
        }
        self.container.ask(request.clone())?;
        let paused = match request {
            protocol::Request::Pause => Some(true),
            protocol::Request::Unpause => Some(false),
            protocol::Request::Limit(_) | protocol::Request::Count | protocol::Request::Spare => None,
        };
        self.asked.push_back(Asked { client, paused, stop: None });
        Ok(())
    }

    /// Has the cgroup do it, where there is one that can; the mapper needs not know.
    fn ask_cgroup(&mut self, watch: &mut Watch<'_>, request: &protocol::Request) -> Result<bool, Failure> {
        let paused = match request {
            protocol::Request::Pause if !watch.book.state.paused && watch.freeze()? => true,
            protocol::Request::Pause if watch.frozen => true,
            protocol::Request::Unpause if watch.frozen => {
                watch.thaw()?;
                false
            }
            _ => return Ok(false),
        };
        self.set_paused(watch, paused)?;
        Ok(true)
    }

    fn set_paused(&self, watch: &mut Watch<'_>, paused: bool) -> Result<(), Failure> {
        watch.book.state.paused = paused;
        watch.book.write()?;
        watch.announce(&Reply::Changed);
        Ok(())
    }

    /// What only a running container can do; the rest is the watch's.
    fn answer(&mut self, watch: &mut Watch<'_>, call: &mut Call) -> Served {
        match &call.request {
            Request::Signal(signal) => Served::Now(done(self.container.signal(*signal))),
            Request::Stop { signal, seconds } => Served::Now(done(self.stop(watch, *signal, *seconds))),
            Request::StopAndStay { signal, seconds } => {
                match self.ask(watch, Some(call.client), &protocol::Request::Spare) {
                    Ok(()) => {
                        // Not before the mapper knows: what ends now is removed by it.
                        self.asked.back_mut().into_iter().for_each(|asked| asked.stop = Some((*signal, *seconds)));
                        Served::Later
                    }
                    Err(failure) => Served::Now(Reply::Refused(Box::new(failure))),
                }
            }
            Request::Hold if watch.book.state.paused => Served::Now(refused(watch, "hold", "it is paused")),
            Request::Hold => match self.ask(watch, Some(call.client), &protocol::Request::Pause) {
                Ok(()) => {
                    self.holder = Some(call.client);
                    Served::Later
                }
                Err(failure) => Served::Now(Reply::Refused(Box::new(failure))),
            },
            Request::Mapper(request) => match self.ask(watch, Some(call.client), request) {
                Ok(()) => {
                    if matches!(request, protocol::Request::Pause | protocol::Request::Unpause) {
                        // Whoever says so has the last word.
                        self.holder = None;
                    }
                    if let protocol::Request::Limit(limits) = request {
                        watch.limits = Some(limits.clone());
                    }
                    Served::Later
                }
                Err(failure) => Served::Now(Reply::Refused(Box::new(failure))),
            },
            Request::Check => match &mut self.checks {
                Some(checks) if !watch.book.state.paused => {
                    checks.ask(call.client);
                    Served::Later
                }
                Some(_) => Served::Now(refused(watch, CHECK, "it is paused: nothing in it can run")),
                None => Served::Now(refused(watch, CHECK, "it has no health check")),
            },
            Request::Attach => self.attach(watch, call),
            Request::Resize { rows, columns } => {
                let resized = self.guests.resize(*rows, *columns);
                Served::Now(done(
                    resized.map_err(|e| failure("attach", "resize", "the terminal").errno(e.raw_os_error())),
                ))
            }
            Request::EndInput => {
                self.guests.end_input(call.client);
                Served::Now(Reply::Done)
            }
            Request::Proceed => Served::Now(self.proceed(watch)),
            Request::Watch | Request::Rename(_) | Request::Leave => Served::Not,
        }
    }

    /// Executes the program of a container that waits for this.
    fn proceed(&mut self, watch: &mut Watch<'_>) -> Reply {
        if watch.started || self.ended {
            return refused(watch, "start", "it does not wait for its start");
        }
        let started = start(&mut self.container, watch);
        if let Err(failure) = &started {
            // What there is of it ends now, and that is told as the reason.
            watch.book.state.error = failure.to_string();
        }
        done(started)
    }

    /// With the mapper's word that it removes nothing.
    fn stop_and_stay(
        &mut self,
        watch: &mut Watch<'_>,
        signal: Option<i32>,
        seconds: Option<u32>,
    ) -> Result<(), Failure> {
        let path = watch.launch.facts.container_dir.join(KEEP);
        let failed = |e: std::io::Error| failure("control", "write", &path.display().to_string()).why(e.to_string());
        std::fs::OpenOptions::new().write(true).create(true).truncate(false).open(&path).map_err(failed)?;
        watch.spared = true;
        self.stop(watch, signal, seconds)
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
            self.ask(watch, None, &protocol::Request::Unpause)?;
        }
        told
    }
}

const CHECK: &str = "check the health of";

fn refused(watch: &Watch<'_>, operation: &str, why: &str) -> Reply {
    Reply::Refused(Box::new(failure("control", operation, &watch.launch.name).why(why)))
}

fn helper_died(network: Option<&mut (dyn Driver + '_)>) -> Failure {
    match network {
        Some(network) => network.post_mortem().into_failure(Stage::Supervisor),
        None => failure("slirp-run", "keep alive", "the network helper"),
    }
}
