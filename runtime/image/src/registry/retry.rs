//! What is worth asking again, and when.

use crate::error::ImageError;
use rlrun_spec::time::days_of;
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

/// How long to wait after so many tries and one; None when that were enough.
pub(super) fn pause(tries: usize, asked: Option<Duration>) -> Option<Duration> {
    PAUSES.get(tries).map(|pause| asked.unwrap_or(*pause).min(MAX_PAUSE))
}

/// Tries up to four times.
pub(super) fn with_retries<T>(mut attempt: impl FnMut() -> Result<T, Failed>) -> Result<T, ImageError> {
    let mut tries = 0;
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(Failed::For(error)) => return Err(error),
            Err(Failed::Passing(error, asked)) => std::thread::sleep(pause(tries, asked).ok_or(error)?),
        }
        tries += 1;
    }
}

/// How long `Retry-After` asks to wait: so many seconds, or until a time (RFC 9110, 10.2.3); a time that is past is now.
pub(super) fn pause_of(header: &str, now: u64) -> Option<Duration> {
    let seconds = header.trim().parse().ok().or_else(|| Some(seconds_of(header)?.saturating_sub(now)))?;
    Some(Duration::from_secs(seconds))
}

/// Seconds since the epoch of `Sun, 06 Nov 1994 08:49:37 GMT`, the one form of times that HTTP lets servers write
/// (RFC 9110, 5.6.7).
fn seconds_of(time: &str) -> Option<u64> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (_, rest) = time.trim().split_once(", ")?;
    let words: Vec<&str> = rest.split(' ').collect();
    let [day, month, year, clock, "GMT"] = words[..] else { return None };
    let clock: Vec<u64> = clock.split(':').map(str::parse).collect::<Result<_, _>>().ok()?;
    let [hour, minute, second] = clock[..] else { return None };
    let (day, year) = (day.parse::<i64>().ok()?, year.parse::<i64>().ok()?);
    let month = MONTHS.iter().position(|name| *name == month)?;
    let fits = (1..=31).contains(&day) && (1970..=9999).contains(&year) && hour < 24 && minute < 60 && second <= 60;
    if !fits {
        return None;
    }
    let days = u64::try_from(days_of(year, i64::try_from(month).ok()? + 1, day)).ok()?;
    Some(((days * 24 + hour) * 60 + minute) * 60 + second)
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
    fn a_pause_is_a_number_or_a_time() {
        let pause = |header: &str| pause_of(header, 784_111_770).map(|pause| pause.as_secs());
        assert_eq!(pause("120"), Some(120));
        assert_eq!(pause("Sun, 06 Nov 1994 08:49:37 GMT"), Some(7));
        assert_eq!(pause("Thu, 01 Jan 1970 00:00:00 GMT"), Some(0));
        assert_eq!(seconds_of("Thu, 01 Jan 1970 00:00:00 GMT"), Some(0));
        assert_eq!(seconds_of("Thu, 29 Feb 2024 12:30:15 GMT"), Some(1_709_209_815));
        assert_eq!(seconds_of("Fri, 31 Dec 1999 23:59:59 GMT"), Some(946_684_799));
        let mut bad = vec!["", "-1", "soon", "Sun, 06 Nov 1994 08:49:37", "Sun, 06 Nix 1994 08:49:37 GMT"];
        bad.extend(["Sun, 06 Nov 1994 08:61:37 GMT", "Sun, 06 Nov 94 08:49:37 GMT", "Sun, 06 Nov 1994 8 GMT"]);
        for bad in bad {
            assert_eq!(pause(bad), None, "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_header_makes_it_panic(header in "[ -~]{0,40}", time in "[A-Z][a-z]{2}, [0-9]{1,20} (Jan|Dec) [0-9]{1,20} [0-9:]{0,20} GMT") {
            pause_of(&header, 5);
            pause_of(&time, 5);
        }
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
