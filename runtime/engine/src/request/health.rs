//! `--health-*` and the image's `HEALTHCHECK`: the command line over the image over podman's defaults.

use super::Invalid;
use rlrun_spec::health::{DEFAULT_INTERVAL_MS, DEFAULT_RETRIES, Health, OnFailure, Startup};
use serde::{Deserialize, Serialize};

/// What the user said; None where nothing was.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthRequest {
    /// `--health-cmd`; an empty list for `none`.
    pub command: Option<Vec<String>>,
    /// `--health-interval`; inside: None for `disable`.
    pub interval_ms: Option<Option<u64>>,
    /// `--health-timeout`.
    pub timeout_ms: Option<u64>,
    /// `--health-retries`.
    pub retries: Option<u32>,
    /// `--health-start-period`.
    pub start_period_ms: Option<u64>,
    /// `--health-on-failure`.
    pub on_failure: OnFailure,
    /// `--health-startup-cmd` and what goes with it.
    pub startup: Option<Startup>,
}

/// What an image says: `Healthcheck` of its configuration.
#[derive(Clone, Copy, Debug)]
pub struct OfImage<'a> {
    /// `["CMD", ...]`, `["CMD-SHELL", ...]`, `["NONE"]`.
    pub test: &'a [String],
    /// Milliseconds; 0 for nothing said.
    pub interval_ms: u64,
    /// The same.
    pub timeout_ms: u64,
    /// The same.
    pub start_period_ms: u64,
    /// 0 for nothing said.
    pub retries: u32,
}

/// What is to be executed for a test of an image; None for none.
#[must_use]
pub fn of_test(test: &[String]) -> Option<Vec<String>> {
    match test {
        [kind, words @ ..] if kind == "CMD" && !words.is_empty() => Some(words.to_vec()),
        [kind, words @ ..] if kind == "CMD-SHELL" && !words.is_empty() => Some(shell(&words.join(" "))),
        _ => None,
    }
}

fn shell(line: &str) -> Vec<String> {
    ["/bin/sh", "-c", line].map(str::to_owned).to_vec()
}

/// Both together; None where nothing is checked.
///
/// # Errors
/// When the user says how to check and nobody says what.
pub fn decide(request: &HealthRequest, image: Option<OfImage<'_>>) -> Result<Option<Health>, Invalid> {
    let of_image = image.and_then(|image| of_test(image.test));
    let said = |ms: fn(OfImage<'_>) -> u64| image.map(ms).filter(|ms| *ms > 0);
    let command = match (&request.command, of_image) {
        (Some(words), _) if words.is_empty() => return Ok(None),
        (Some(words), _) => words.clone(),
        (None, Some(words)) => words,
        (None, None) if request.on_failure != OnFailure::None || request.startup.is_some() => {
            return Err(Invalid::new("--health-on-failure", request.on_failure.word(), "there is no health check")
                .hint("--health-cmd says what is checked"));
        }
        (None, None) => return Ok(None),
    };
    let interval = said(|image| image.interval_ms).unwrap_or(DEFAULT_INTERVAL_MS);
    Ok(Some(Health {
        command,
        interval_ms: request.interval_ms.unwrap_or(Some(interval)),
        timeout_ms: request.timeout_ms.or_else(|| said(|i| i.timeout_ms)).unwrap_or(DEFAULT_INTERVAL_MS),
        retries: request.retries.or_else(|| image.map(|i| i.retries).filter(|n| *n > 0)).unwrap_or(DEFAULT_RETRIES),
        start_period_ms: request.start_period_ms.or_else(|| said(|i| i.start_period_ms)).unwrap_or(0),
        on_failure: request.on_failure,
        startup: request.startup.clone(),
    }))
}

/// `--health-cmd`: words for a shell, a JSON array that begins with CMD or CMD-SHELL or is the command itself, or
/// `none`, which is an empty list.
///
/// # Errors
/// When it looks like a JSON array and is none, or names nothing.
pub fn command(option: &'static str, word: &str) -> Result<Vec<String>, Invalid> {
    let bad = |why: &str| {
        Invalid::new(option, word, why).hint("write words for a shell, [\"CMD\", \"program\", ...] or none")
    };
    if word.eq_ignore_ascii_case("none") {
        return Ok(Vec::new());
    }
    if word.starts_with('[') {
        let words: Vec<String> =
            serde_json::from_str(word).map_err(|_| bad("starts like a JSON array of strings and is none"))?;
        return match words.first().map(String::as_str) {
            Some("NONE") => Ok(Vec::new()),
            Some("CMD" | "CMD-SHELL") => of_test(&words).ok_or_else(|| bad("names no command")),
            Some(_) => Ok(words),
            None => Err(bad("names no command")),
        };
    }
    let line = word.strip_prefix("CMD-SHELL ").or_else(|| word.strip_prefix("CMD ")).unwrap_or(word).trim();
    if line.is_empty() { Err(bad("names no command")) } else { Ok(shell(line)) }
}

/// `--health-interval`: a duration, or `disable`.
///
/// # Errors
/// As [`duration`].
pub fn interval(option: &'static str, word: &str) -> Result<Option<u64>, Invalid> {
    if word == "disable" { Ok(None) } else { duration(option, word, 1).map(Some) }
}

/// Milliseconds of a duration in Go's form, for example `1m30s`; at least `least`.
///
/// # Errors
/// When it is none, or too short.
pub fn duration(option: &'static str, word: &str, least: u64) -> Result<u64, Invalid> {
    const UNITS: [(&str, u64); 4] = [("ms", 1), ("h", 3_600_000), ("m", 60_000), ("s", 1000)];
    let bad = |why: String| Invalid::new(option, word, why).hint("for example 30s, 500ms or 1m30s");
    let mut rest = word;
    let mut total = Some(0_u64);
    // A bare number is seconds, as docker's older versions took it.
    if !word.is_empty() && word.bytes().all(|b| b.is_ascii_digit()) {
        total = word.parse::<u64>().ok().and_then(|s| s.checked_mul(1000));
        rest = "";
    } else if word.is_empty() {
        total = None;
    }
    while let (Some(sum), false) = (total, rest.is_empty()) {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(0);
        let unit = UNITS.iter().find(|(unit, _)| rest[digits..].starts_with(unit));
        let count = rest[..digits].parse::<u64>().ok();
        total = match (count, unit) {
            (Some(count), Some((name, ms))) => {
                rest = &rest[digits + name.len()..];
                count.checked_mul(*ms).and_then(|ms| sum.checked_add(ms))
            }
            _ => None,
        };
    }
    // A year: what is longer is a slip of the hand.
    let total = total.filter(|ms| *ms <= 31_536_000_000).ok_or_else(|| bad("is no duration".to_owned()))?;
    if total < least { Err(bad(format!("is shorter than {least} ms"))) } else { Ok(total) }
}

/// `--health-on-failure`.
///
/// # Errors
/// For an action that nobody knows.
pub fn on_failure(word: &str) -> Result<OnFailure, Invalid> {
    let all = [OnFailure::None, OnFailure::Kill, OnFailure::Restart, OnFailure::Stop];
    all.into_iter().find(|action| action.word() == word).ok_or_else(|| {
        Invalid::new("--health-on-failure", word, "no such action").hint("choose none, kill, restart or stop")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_in_every_spelling() {
        let of = |word: &str| command("--health-cmd", word).unwrap().join(" ");
        assert_eq!(of("curl -f x || exit 1"), "/bin/sh -c curl -f x || exit 1");
        assert_eq!(of("CMD-SHELL test -f /x"), "/bin/sh -c test -f /x");
        assert_eq!(of(r#"["CMD","a","b c"]"#), "a b c");
        assert_eq!(of(r#"["CMD-SHELL","a b"]"#), "/bin/sh -c a b");
        assert_eq!(of(r#"["a"]"#), "a");
        assert!(command("--health-cmd", "none").unwrap().is_empty());
        for bad in ["", "[", "[]", r#"["CMD"]"#, " "] {
            assert!(command("--health-cmd", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations_are_gos() {
        let of = |word: &str| duration("--health-timeout", word, 1).ok();
        assert_eq!(
            (of("1m30s"), of("1500ms"), of("2h"), of("5")),
            (Some(90_000), Some(1500), Some(7_200_000), Some(5000))
        );
        for bad in ["", "x", "10", "1", "s", "-1s", "1s-", "0s", "99999999999999999999s", "9999999h"] {
            assert_eq!(of(bad).filter(|_| bad != "10" && bad != "1"), None, "{bad}");
        }
        assert_eq!(interval("--health-interval", "disable").unwrap(), None);
    }

    #[test]
    fn the_user_wins_over_the_image() {
        let test = ["CMD".to_owned(), "check".to_owned()];
        let image = OfImage { test: &test, interval_ms: 5000, timeout_ms: 0, start_period_ms: 0, retries: 7 };
        let of_image = decide(&HealthRequest::default(), Some(image)).unwrap().unwrap();
        assert_eq!((of_image.command.join(" ").as_str(), of_image.retries), ("check", 7));
        assert_eq!((of_image.interval_ms, of_image.timeout_ms), (Some(5000), DEFAULT_INTERVAL_MS));
        let none = HealthRequest { command: Some(Vec::new()), ..HealthRequest::default() };
        assert_eq!(decide(&none, Some(image)).unwrap(), None);
        let request = HealthRequest { interval_ms: Some(None), retries: Some(1), ..HealthRequest::default() };
        let mixed = decide(&request, Some(image)).unwrap().unwrap();
        assert_eq!((mixed.interval_ms, mixed.retries), (None, 1));
        assert_eq!(decide(&HealthRequest::default(), None).unwrap(), None);
        let action = HealthRequest { on_failure: OnFailure::Kill, ..HealthRequest::default() };
        assert!(decide(&action, None).is_err());
    }
}
