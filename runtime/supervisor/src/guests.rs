//! Those who have attached to the running container: each gets what it writes, and may type.

use crate::log::Stream;
use crate::output::Output;
use crate::relay::{Relay, Sink};
use crate::terminal::Screen;
use nix::poll::PollFd;
use rlrun_spec::Failure;
use rustix::termios::{Winsize, tcsetwinsize};
use std::os::fd::{AsFd, OwnedFd};

/// One of them.
struct Guest {
    client: u64,
    input: Option<Relay>,
    /// His terminal, which he makes raw and puts back, unless he is killed.
    screen: Option<Screen>,
    /// The end of his input is the end of the container's.
    ends: bool,
}

/// All of them, and where what they type goes.
pub(crate) struct Guests {
    /// The payload's standard input, where nobody else has it; closing it is its end.
    stdin: Option<OwnedFd>,
    /// The master of the payload's terminal.
    terminal: Option<OwnedFd>,
    guests: Vec<Guest>,
}

impl Guests {
    pub(crate) fn new(stdin: Option<OwnedFd>, terminal: Option<OwnedFd>) -> Guests {
        Guests { stdin, terminal, guests: Vec::new() }
    }

    /// Whether the container has a terminal, and whether it takes input.
    pub(crate) fn offer(&self) -> (bool, bool) {
        (self.terminal.is_some(), self.terminal.is_some() || self.stdin.is_some())
    }

    /// Takes one in, with standard output, standard error and perhaps an input of his.
    pub(crate) fn admit(
        &mut self,
        client: u64,
        descriptors: Vec<OwnedFd>,
        outputs: &mut [Output],
    ) -> Result<(), Failure> {
        let mut descriptors = descriptors.into_iter();
        let (mut stdout, mut stderr) = (descriptors.next(), descriptors.next());
        let screen = self.terminal.as_ref().and(stdout.as_ref()).and_then(Screen::of_guest);
        for output in outputs {
            let sink = match output.stream() {
                Stream::Stdout => stdout.take(),
                Stream::Stderr => stderr.take(),
            };
            if let Some(sink) = sink {
                output.invite(client, sink);
            }
        }
        let (sink, kind) = match (&self.terminal, &self.stdin) {
            (Some(terminal), _) => (Some(terminal), Sink::Terminal),
            (None, stdin) => (stdin.as_ref(), Sink::Pipe),
        };
        let input = match (descriptors.next(), sink) {
            (Some(source), Some(sink)) => {
                let sink = sink
                    .as_fd()
                    .try_clone_to_owned()
                    .map_err(|e| crate::run::failure("relay", "duplicate", "standard input").why(e.to_string()))?;
                let mut relay = Relay::input(source, sink, kind)?;
                relay.borrow(true);
                Some(relay)
            }
            _ => None,
        };
        self.guests.push(Guest { client, input, screen, ends: false });
        Ok(())
    }

    /// The one who has the last word on the size has it now.
    pub(crate) fn resize(&self, rows: u16, columns: u16) -> rustix::io::Result<()> {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        self.terminal.as_ref().map_or(Ok(()), |terminal| tcsetwinsize(terminal, size))
    }

    /// When his pipe is empty, the container's input is over.
    pub(crate) fn end_input(&mut self, client: u64) {
        for guest in self.guests.iter_mut().filter(|g| g.client == client) {
            guest.ends = true;
            if let Some(input) = &mut guest.input {
                input.borrow(false);
            }
        }
    }

    /// What to wait for.
    pub(crate) fn poll_fds(&self) -> impl Iterator<Item = PollFd<'_>> {
        self.guests.iter().filter_map(|g| g.input.as_ref()).map(Relay::poll_fd)
    }

    /// Moves what was typed, where `ready` says so; in the order of [`Guests::poll_fds`].
    pub(crate) fn pump(&mut self, ready: &[bool]) {
        let mut turn = ready.iter();
        for guest in &mut self.guests {
            let Some(input) = &mut guest.input else { continue };
            if turn.next() == Some(&true) && !input.pump() {
                guest.input = None;
                if guest.ends {
                    self.stdin = None;
                }
            }
        }
    }

    /// He is gone.
    pub(crate) fn dismiss(&mut self, client: u64, outputs: &mut [Output]) {
        let gone = self.guests.extract_if(.., |g| g.client == client);
        gone.filter_map(|guest| guest.screen).for_each(Screen::put_back);
        outputs.iter_mut().for_each(|output| output.dismiss(client));
    }
}
