//! What is worth asking again, and when.

use crate::error::ImageError;
use std::io;
use std::time::Duration;

/// Pauses before the second, third and fourth try.
const PAUSES: [Duration; 3] = [Duration::from_millis(200), Duration::from_secs(1), Duration::from_secs(3)];
/// A registry may ask for more patience, up to this.
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// How a try ended, if not well.
#[derive(Debug)]
pub(super) enum Failed {
    /// It may go better next time; perhaps after the pause the registry asked for.
    Passing(ImageError, Option<Duration>),
    /// It will not.
    For(ImageError),
}

impl Failed {
    /// When it is not tried again.
    pub(super) fn into_error(self) -> ImageError {
        let (Failed::Passing(error, _) | Failed::For(error)) = self;
        error
    }
}

impl From<ImageError> for Failed {
    fn from(error: ImageError) -> Self {
        Failed::For(error)
    }
}

/// Tries up to four times.
pub(super) fn with_retries<T>(mut attempt: impl FnMut() -> Result<T, Failed>) -> Result<T, ImageError> {
    for pause in PAUSES {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(Failed::For(error)) => return Err(error),
            Err(Failed::Passing(_, asked)) => std::thread::sleep(asked.unwrap_or(pause).min(MAX_PAUSE)),
        }
    }
    attempt().map_err(Failed::into_error)
}

/// Whether a status says that the server is busy or broken for now (RFC 9110, 15.5.9, 15.6; RFC 6585, 4).
pub(super) fn is_passing(status: u16) -> bool {
    matches!(status, 408 | 429 | 500 | 502 | 503 | 504)
}

/// Whether a connection that had been made was lost. One that could not be made is not tried again: a registry that is
/// not there should be said to be so at once.
pub(super) fn is_lost(error: &ureq::Error) -> bool {
    match error {
        ureq::Error::Io(e) => matches!(
            e.kind(),
            io::ErrorKind::ConnectionReset
                | io::ErrorKind::ConnectionAborted
                | io::ErrorKind::BrokenPipe
                | io::ErrorKind::UnexpectedEof
                | io::ErrorKind::TimedOut
        ),
        // A server that went away in the middle of an answer, or took too long.
        ureq::Error::Protocol(_) => true,
        ureq::Error::Timeout(t) => !matches!(t, ureq::Timeout::Connect | ureq::Timeout::Resolve),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost() -> Failed {
        Failed::Passing(ImageError::malformed("x", "lost"), Some(Duration::ZERO))
    }

    #[test]
    fn passing_failures_are_tried_four_times() {
        let mut tries = 0;
        let result = with_retries(|| {
            tries += 1;
            if tries < 4 { Err(lost()) } else { Ok(tries) }
        });
        assert_eq!(result.unwrap(), 4);
        let mut tries = 0;
        let result: Result<(), _> = with_retries(|| {
            tries += 1;
            Err(lost())
        });
        assert!(result.is_err());
        assert_eq!(tries, 4);
    }

    #[test]
    fn lasting_failures_end_it() {
        let mut tries = 0;
        let result: Result<(), _> = with_retries(|| {
            tries += 1;
            Err(ImageError::malformed("x", "broken").into())
        });
        assert!(result.is_err());
        assert_eq!(tries, 1);
    }
}
