//! The launch protocol: who has finished what, in which order. The tables below are the only place where the order
//! exists; both ends of a channel walk the same one.
//!
//! ```text
//! supervisor            mapper (pid 1 of the outer pid namespace)     init (pid 1 of the container)
//!     |--- clone -------->|
//!     |-- IdmapWritten -->|   newuidmap and newgidmap have returned
//!     |<-- RootReady -----|   mapped root in its namespaces: slirp4netns may start
//!     |                   |--- clone -------------------------------->|
//!     |<-- InitForked ----|   with a pidfd of init
//!     |                   |<-- InitNested ---------------------------|   in a second user namespace that bounds processes
//!     |                   |--- NestedMapped ------------------------->|   while the supervisor does its part
//!     |<---------------------------------------------- RootfsReady ---|   with the terminal's master, if any
//!     |-------------------------------------------------- Proceed --->|   network ready, ports bound
//!     |<---------------------------------------------- end of file ---|   close-on-exec: the payload runs
//!     |----- Request ------>|   while it runs, any number of times
//!     |<---- Answer ------|   one for each, in the same order
//!     |<---- News --------|   at any time
//!     |<---- Exited ------|   and everything of the container is gone
//! ```

use crate::failure::Failure;
use crate::limits::Limits;
use crate::usage::{Spent, Usage};
use serde::{Deserialize, Serialize};

/// A completed step, named by who completed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// Both id maps are written.
    ParentIdmapWritten,
    /// The mapper is mapped root, has all its namespaces, and the network helper may enter them.
    MapperRootReady,
    /// The container's pid 1 exists; its pidfd comes with the message.
    MapperInitForked,
    /// Init has moved into the second user namespace, which bounds the number of processes.
    InitNested,
    /// The maps of that namespace are written.
    MapperNestedMapped,
    /// The root file system is complete; the terminal's master comes with the message if there is one.
    InitRootfsReady,
    /// Everything outside is ready: the payload may start.
    ParentProceed,
    /// The joiner is in the namespaces of a running container; the terminal's master comes with the message if there is
    /// one.
    JoinerReady,
    /// The command's process exists, confined but for the filter; its pidfd comes with the message.
    JoinerForked,
}

/// What happens on the channel between supervisor and mapper, in this order.
pub const MAPPER_STEPS: &[Step] = &[Step::ParentIdmapWritten, Step::MapperRootReady, Step::MapperInitForked];

/// What happens on the channel between supervisor and init, in this order.
pub const INIT_STEPS: &[Step] = &[Step::InitRootfsReady, Step::ParentProceed];

/// What happens on the channel between mapper and init, where processes are limited, in this order.
pub const NESTED_STEPS: &[Step] = &[Step::InitNested, Step::MapperNestedMapped];

/// What happens on the channel between the supervisor of a command and its joiner, in this order.
pub const JOINER_STEPS: &[Step] = &[Step::JoinerReady, Step::JoinerForked];

/// What happens on the channel between the supervisor of a command and the command's process, once its joiner is gone.
pub const JOINED_STEPS: &[Step] = &[Step::ParentProceed];

/// One message; its size is bounded by [`MAX_MESSAGE`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// A step is complete.
    Reached(Step),
    /// Set-up failed; nothing follows.
    Failed(Box<Failure>),
    /// The payload ended with this exit code, 128+n for a signal, and had used this; everything of the container is gone.
    Exited(u8, Spent),
    /// The supervisor wants something of a running container.
    Request(Request),
    /// What became of a request.
    Answer(Answer),
    /// Something happened that nobody asked for.
    News(News),
}

/// What the supervisor asks of the mapper while the payload runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Every process stands still until [`Request::Unpause`].
    Pause,
    /// Every process that did not stop by itself goes on.
    Unpause,
    /// Other limits from now on.
    Limit(Box<Limits>),
    /// How much is used.
    Count,
    /// With `--rm`: what it has written stays when it ends.
    Spare,
}

/// What became of a [`Request`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// It is done.
    Done,
    /// So much is used.
    Counted(Box<Usage>),
    /// It is not done, for this reason; the container goes on as it was.
    Refused(Box<Failure>),
}

/// What the mapper tells of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum News {
    /// The memory limit was reached.
    OutOfMemory(OutOfMemory),
}

/// How the memory limit was reached, and what was done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutOfMemory {
    /// Bytes that were used.
    pub used: u64,
    /// Bytes that may be used.
    pub limit: u64,
    /// The process that was killed, by its number inside and its name; None: the container stands still instead
    /// (`--oom-kill-disable`).
    pub killed: Option<(i32, String)>,
}

/// Longest message in bytes.
pub const MAX_MESSAGE: usize = 8192;

/// A position in a table of steps.
#[derive(Clone, Debug)]
pub struct Sequence {
    steps: &'static [Step],
    next: usize,
}

impl Sequence {
    /// At the beginning of `steps`.
    #[must_use]
    pub const fn new(steps: &'static [Step]) -> Self {
        Sequence { steps, next: 0 }
    }

    /// Takes `step`: true if it is the one that is due, so that early, late and repeated messages are all refused.
    pub fn advance(&mut self, step: Step) -> bool {
        let due = self.steps.get(self.next) == Some(&step);
        self.next += usize::from(due);
        due
    }

    /// The last completed step, for the message about a stage that died.
    #[must_use]
    pub fn last(&self) -> Option<Step> {
        self.steps.get(self.next.checked_sub(1)?).copied()
    }
}

/// Bytes of a message.
///
/// # Errors
/// When it does not serialise or is longer than [`MAX_MESSAGE`].
pub fn encode(message: &Message) -> Result<Vec<u8>, postcard::Error> {
    let bytes = postcard::to_stdvec(message)?;
    if bytes.len() > MAX_MESSAGE { Err(postcard::Error::SerializeBufferFull) } else { Ok(bytes) }
}

/// The message in `bytes`.
///
/// # Errors
/// On anything that [`encode`] did not make.
pub fn decode(bytes: &[u8]) -> Result<Message, postcard::Error> {
    let (message, rest) = postcard::take_from_bytes(bytes)?;
    if rest.is_empty() { Ok(message) } else { Err(postcard::Error::DeserializeBadEncoding) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_sequence_takes_each_step_once_and_in_order() {
        let mut sequence = Sequence::new(MAPPER_STEPS);
        assert!(!sequence.advance(Step::MapperRootReady), "early");
        assert!(sequence.advance(Step::ParentIdmapWritten));
        assert!(!sequence.advance(Step::ParentIdmapWritten), "repeated");
        assert!(!sequence.advance(Step::ParentProceed), "of the other channel");
        assert!(sequence.advance(Step::MapperRootReady));
        assert_eq!(sequence.last(), Some(Step::MapperRootReady));
        assert!(sequence.advance(Step::MapperInitForked));
        assert!(!sequence.advance(Step::MapperInitForked), "after the end");
    }

    proptest! {
        #[test]
        fn the_decoder_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            if let Ok(message) = decode(&bytes) {
                prop_assert!(encode(&message).is_ok());
            }
        }

        #[test]
        fn messages_survive_the_channel(code in any::<u8>()) {
            let message = Message::Exited(code, Spent { cpu_ns: u64::from(code), ..Spent::default() });
            prop_assert_eq!(decode(&encode(&message).unwrap()).unwrap(), message);
        }

        #[test]
        fn requests_and_answers_survive_the_channel(bytes in any::<u64>(), name in ".{0,16}") {
            let usage = Usage { memory: bytes, cpu_ns: bytes, ..Usage::default() };
            let killed = OutOfMemory { used: bytes, limit: bytes, killed: Some((7, name)) };
            let messages = [
                Message::Request(Request::Limit(Box::default())),
                Message::Answer(Answer::Counted(Box::new(usage))),
                Message::News(News::OutOfMemory(killed)),
            ];
            for message in messages {
                prop_assert_eq!(decode(&encode(&message).unwrap()).unwrap(), message);
            }
        }
    }
}
