//! The keys that leave a terminal alone while what runs there goes on: ctrl-p,ctrl-q unless the user chose others.
//! They are taken out of what is typed; a beginning of them that is not gone on with in time is passed on.

use std::time::{Duration, Instant};

/// How long the beginning of the sequence is held back: a shell's ctrl-p should not need a second key.
const PATIENCE: Duration = Duration::from_millis(200);

/// The sequence, and how much of it was typed.
#[derive(Debug)]
pub(crate) struct Keys {
    sequence: Vec<u8>,
    typed: usize,
    since: Instant,
}

/// What became of some typed bytes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Typed {
    /// These go on.
    Goes(Vec<u8>),
    /// These go on, and then the sequence was complete.
    Leaves(Vec<u8>),
}

impl Keys {
    /// None when nothing is to leave the terminal.
    pub(crate) fn new(sequence: &[u8]) -> Option<Keys> {
        (!sequence.is_empty()).then(|| Keys { sequence: sequence.to_vec(), typed: 0, since: Instant::now() })
    }

    /// Takes what was typed.
    pub(crate) fn take(&mut self, bytes: &[u8], now: Instant) -> Typed {
        let mut goes = Vec::with_capacity(bytes.len() + self.typed);
        for byte in bytes {
            if self.sequence.get(self.typed) != Some(byte) {
                goes.extend_from_slice(&self.sequence[..self.typed]);
                self.typed = 0;
            }
            if self.sequence.get(self.typed) == Some(byte) {
                self.typed += 1;
                self.since = now;
            } else {
                goes.push(*byte);
            }
            if self.typed == self.sequence.len() {
                return Typed::Leaves(goes);
            }
        }
        Typed::Goes(goes)
    }

    /// When the beginning that is held back is to be passed on.
    pub(crate) fn due(&self) -> Option<Instant> {
        (self.typed > 0).then(|| self.since + PATIENCE)
    }

    /// Gives the beginning that was held back.
    pub(crate) fn give_up(&mut self) -> Vec<u8> {
        let held = self.sequence[..self.typed].to_vec();
        self.typed = 0;
        held
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> Keys {
        Keys::new(&[16, 17]).unwrap()
    }

    #[test]
    fn the_sequence_is_found_wherever_it_is_split() {
        let now = Instant::now();
        assert_eq!(keys().take(b"ab\x10\x11cd", now), Typed::Leaves(b"ab".to_vec()));
        let mut split = keys();
        assert_eq!(split.take(b"ab\x10", now), Typed::Goes(b"ab".to_vec()));
        assert_eq!(split.take(b"\x11", now), Typed::Leaves(Vec::new()));
    }

    #[test]
    fn a_beginning_that_does_not_go_on_is_passed_in_its_place() {
        let now = Instant::now();
        let mut keys = keys();
        assert_eq!(keys.take(b"\x10x", now), Typed::Goes(b"\x10x".to_vec()));
        assert_eq!(keys.take(b"\x10\x10", now), Typed::Goes(b"\x10".to_vec()));
        assert_eq!(keys.due(), Some(now + PATIENCE));
        assert_eq!(keys.give_up(), b"\x10");
        assert_eq!(keys.due(), None);
        assert_eq!(keys.take(b"\x11", now), Typed::Goes(b"\x11".to_vec()));
    }

    #[test]
    fn no_sequence_no_keys() {
        assert!(Keys::new(&[]).is_none());
    }
}
