//! What commands ask of the supervisor of a running container, over the socket [`SOCKET`] in the container's directory:
//! one request a message, one reply to each. The connection ends when the supervisor does, after it has written how the
//! container ended and let its lock go, so whoever waits for the end waits for that.
//!
//! New requests are appended: a supervisor that does not know one refuses it and goes on.

use crate::failure::Failure;
use crate::health::Status;
use crate::protocol;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// The socket's name.
pub const SOCKET: &str = "control";
/// First in every message; raised when what is there changes its meaning.
pub const VERSION: u8 = 1;
/// Longest message in bytes.
pub const MAX_MESSAGE: usize = 8192;
/// Most descriptors that come with one message.
pub const MAX_DESCRIPTORS: usize = 4;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Send a signal to the container's pid 1.
    Signal(i32),
    /// End it: the signal, and SIGKILL when it has not ended that many seconds later; its own ones where they are
    /// missing. It is remembered that the user wanted it.
    Stop {
        /// Signal.
        signal: Option<i32>,
        /// Seconds.
        seconds: Option<u32>,
    },
    /// Tell on this connection what happens from now on.
    Watch,
    /// It has another name from now on.
    Rename(String),
    /// Ask this of the mapper; its answer is the reply.
    Mapper(protocol::Request),
    /// Make a health check now; its outcome is the reply.
    Check,
    /// Send what the container writes to the descriptors that come with this, standard output and standard error, and
    /// take its input from the third, if there is one; as long as the connection lasts.
    Attach,
    /// Whoever attached has a terminal of this size.
    Resize {
        /// Rows.
        rows: u16,
        /// Columns.
        columns: u16,
    },
    /// Whoever started the container and is attached to it goes on purpose, and the container goes on. Without this word
    /// the end of that connection is the end of the container: a foreground container ends with who started it.
    Leave,
    /// The input of whoever attached is over, and so is the container's.
    EndInput,
    /// Every process stands still as long as this connection lasts, so that whoever is killed leaves nothing paused.
    Hold,
    /// As [`Request::Stop`]; with `--rm` the container stays this time, because it is started again.
    StopAndStay {
        /// Signal.
        signal: Option<i32>,
        /// Seconds.
        seconds: Option<u32>,
    },
    /// What waits for this word executes its program.
    Proceed,
}

/// What comes back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// It is done, or begun.
    Done,
    /// It is not.
    Refused(Box<Failure>),
    /// To whoever watches: the state has changed.
    Changed,
    /// To whoever watches: the payload has ended with this exit code.
    Ended(u8),
    /// What the mapper answered.
    Mapper(protocol::Answer),
    /// The health check that was asked for.
    Checked {
        /// It succeeded.
        success: bool,
        /// What the container is now.
        status: Status,
    },
    /// It is attached.
    Attached {
        /// The container has a terminal.
        terminal: bool,
        /// It takes input.
        input: bool,
    },
    /// To whoever attached: it has not read for so long that the container goes on without it.
    Left,
    /// To whoever started it and is attached: that has failed, or the container has for a reason of rlrun's own.
    Failed(Box<Failure>),
}

/// Bytes of a message.
///
/// # Errors
/// When it does not serialise or is longer than [`MAX_MESSAGE`].
pub fn encode(message: &impl Serialize) -> Result<Vec<u8>, postcard::Error> {
    let bytes = postcard::to_stdvec(&(VERSION, message))?;
    if bytes.len() > MAX_MESSAGE { Err(postcard::Error::SerializeBufferFull) } else { Ok(bytes) }
}

/// The message in `bytes`.
///
/// # Errors
/// On anything that [`encode`] of this version did not make.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, postcard::Error> {
    let ((version, message), rest) = postcard::take_from_bytes::<(u8, T)>(bytes)?;
    if rest.is_empty() && version == VERSION { Ok(message) } else { Err(postcard::Error::DeserializeBadEncoding) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_decoder_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            if let Ok(request) = decode::<Request>(&bytes) {
                prop_assert_eq!(decode::<Request>(&encode(&request).unwrap()).unwrap(), request);
            }
            if let Ok(reply) = decode::<Reply>(&bytes) {
                prop_assert!(encode(&reply).is_ok());
            }
        }

        #[test]
        fn requests_survive(signal in proptest::option::of(any::<i32>()), seconds in proptest::option::of(any::<u32>())) {
            let request = Request::Stop { signal, seconds };
            prop_assert_eq!(decode::<Request>(&encode(&request).unwrap()).unwrap(), request);
        }
    }

    #[test]
    fn another_version_is_not_understood() {
        let mut bytes = encode(&Request::Watch).unwrap();
        bytes[0] += 1;
        assert!(decode::<Request>(&bytes).is_err());
    }
}
