//! Health checks: a command that a container's supervisor runs in it from time to time, under the container's own
//! confinement. Sealed with the plan: what is to be run is decided and asked about when the container is started.

use serde::{Deserialize, Serialize};
use std::fmt::Write as _;

/// The file in the container's directory that holds the results: podman's JSON of `.State.Health`.
pub const HEALTH: &str = "health";
/// How many results are kept, and how many bytes of each one's output (podman-run(1)).
pub const KEPT_RESULTS: usize = 5;
/// Bytes of a check's output that are kept.
pub const KEPT_OUTPUT: usize = 500;

/// podman's interval and timeout.
pub const DEFAULT_INTERVAL_MS: u64 = 30_000;
/// podman's number of failures in a row.
pub const DEFAULT_RETRIES: u32 = 3;

/// What is checked, when, and what follows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// What is executed.
    pub command: Vec<String>,
    /// From the end of one check to the beginning of the next; None: only when somebody asks (`disable`).
    pub interval_ms: Option<u64>,
    /// A check that takes longer has failed, and is killed.
    pub timeout_ms: u64,
    /// So many failures in a row make it unhealthy.
    pub retries: u32,
    /// Failures this soon after the start do not count.
    pub start_period_ms: u64,
    /// What unhealthy means for the container.
    pub on_failure: OnFailure,
    /// Another check until it has succeeded for the first time.
    pub startup: Option<Startup>,
}

/// `--health-startup-*`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Startup {
    /// What is executed.
    pub command: Vec<String>,
    /// From one check to the next.
    pub interval_ms: u64,
    /// A check that takes longer has failed.
    pub timeout_ms: u64,
    /// So many failures are the container's end or new start; 0: any number is borne.
    pub retries: u32,
    /// So many successes begin the regular checks.
    pub successes: u32,
}

/// `--health-on-failure`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// It is only told.
    #[default]
    None,
    /// The container is killed.
    Kill,
    /// The container is started anew.
    Restart,
    /// The container is stopped.
    Stop,
}

impl OnFailure {
    /// podman's word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            OnFailure::None => "none",
            OnFailure::Kill => "kill",
            OnFailure::Restart => "restart",
            OnFailure::Stop => "stop",
        }
    }
}

/// How a container is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It has no health check.
    #[default]
    None,
    /// Nothing is known yet.
    Starting,
    /// The last check succeeded.
    Healthy,
    /// Too many failed in a row.
    Unhealthy,
}

impl Status {
    /// podman's word; empty without a check.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Status::None => "",
            Status::Starting => "starting",
            Status::Healthy => "healthy",
            Status::Unhealthy => "unhealthy",
        }
    }

    /// From the word.
    #[must_use]
    pub fn of(word: &str) -> Status {
        [Status::Starting, Status::Healthy, Status::Unhealthy]
            .into_iter()
            .find(|s| s.word() == word)
            .unwrap_or_default()
    }
}

/// One check that was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Nanoseconds since the epoch.
    pub started: u64,
    /// The same of its end.
    pub ended: u64,
    /// 0 is healthy.
    pub exit_code: i32,
    /// The beginning of what it wrote.
    pub output: Vec<u8>,
}

/// What is known of a container's health: a machine that is told the outcome of each check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Now.
    pub status: Status,
    /// Failures in a row.
    pub streak: u32,
    /// Of the startup check, in a row.
    successes: u32,
    startup: bool,
    /// The last ones, oldest first.
    pub log: Vec<Outcome>,
}

/// What a check's outcome is followed by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Consequence {
    /// The status is another one now.
    pub changed: bool,
    /// What is to be done with the container.
    pub action: OnFailure,
}

impl Record {
    /// At the start of a container.
    #[must_use]
    pub fn new(health: &Health) -> Record {
        let startup = health.startup.is_some();
        Record { status: Status::Starting, streak: 0, successes: 0, startup, log: Vec::new() }
    }

    /// Whether the check that is due is the one for the start.
    #[must_use]
    pub fn is_starting_up(&self) -> bool {
        self.startup
    }

    /// Takes the outcome of a check that began `age_ms` after the container.
    pub fn take(&mut self, health: &Health, outcome: Outcome, age_ms: u64) -> Consequence {
        let before = self.status;
        let success = outcome.exit_code == 0;
        self.log.push(outcome);
        let old = self.log.len().saturating_sub(KEPT_RESULTS);
        self.log.drain(..old);
        let action = match (&health.startup, self.startup) {
            (Some(startup), true) => self.take_startup(startup, success),
            _ => self.take_regular(health, success, age_ms),
        };
        Consequence { changed: self.status != before, action: if action { health.on_failure } else { OnFailure::None } }
    }

    fn take_startup(&mut self, startup: &Startup, success: bool) -> bool {
        if success {
            self.streak = 0;
            self.successes += 1;
            self.startup = self.successes < startup.successes.max(1);
            return false;
        }
        self.successes = 0;
        self.streak += 1;
        let over = startup.retries > 0 && self.streak >= startup.retries;
        if over {
            self.status = Status::Unhealthy;
        }
        over
    }

    fn take_regular(&mut self, health: &Health, success: bool, age_ms: u64) -> bool {
        if success {
            self.streak = 0;
            self.status = Status::Healthy;
            return false;
        }
        // A success during the start period ends it (Dockerfile reference, HEALTHCHECK).
        if self.status == Status::Starting && age_ms < health.start_period_ms {
            return false;
        }
        self.streak += 1;
        let over = self.streak >= health.retries.max(1);
        if over {
            self.status = Status::Unhealthy;
        }
        over
    }

    /// As podman's `.State.Health`; `time` writes nanoseconds since the epoch, `quote` a text as a JSON string.
    #[must_use]
    pub fn render(&self, time: &dyn Fn(u64) -> String, quote: &dyn Fn(&str) -> String) -> String {
        let mut text = format!("{{\"Status\":\"{}\",\"FailingStreak\":{},\"Log\":[", self.status.word(), self.streak);
        for (at, outcome) in self.log.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            let output = quote(&String::from_utf8_lossy(&outcome.output));
            let (start, end) = (quote(&time(outcome.started)), quote(&time(outcome.ended)));
            let code = outcome.exit_code;
            // Writing to a String cannot fail.
            if write!(text, "{comma}{{\"Start\":{start},\"End\":{end},\"ExitCode\":{code},\"Output\":{output}}}")
                .is_err()
            {
                break;
            }
        }
        text.push_str("]}\n");
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn health() -> Health {
        Health {
            command: vec!["true".to_owned()],
            interval_ms: Some(1000),
            timeout_ms: 1000,
            retries: 2,
            start_period_ms: 5000,
            on_failure: OnFailure::Kill,
            startup: None,
        }
    }

    fn outcome(exit_code: i32) -> Outcome {
        Outcome { started: 1, ended: 2, exit_code, output: b"x\"".to_vec() }
    }

    fn consequence(changed: bool, action: OnFailure) -> Consequence {
        Consequence { changed, action }
    }

    #[test]
    fn failures_in_the_start_period_do_not_count_until_a_success() {
        let (health, mut record) = (health(), Record::new(&health()));
        for _ in 0..5 {
            assert_eq!(record.take(&health, outcome(1), 100), consequence(false, OnFailure::None));
        }
        assert_eq!(record.take(&health, outcome(0), 200), consequence(true, OnFailure::None));
        assert_eq!(record.take(&health, outcome(1), 300), consequence(false, OnFailure::None));
        assert_eq!(record.take(&health, outcome(1), 400), consequence(true, OnFailure::Kill));
        assert_eq!((record.status, record.streak, record.log.len()), (Status::Unhealthy, 2, KEPT_RESULTS));
        assert_eq!(record.take(&health, outcome(0), 500), consequence(true, OnFailure::None));
    }

    #[test]
    fn the_startup_check_comes_first() {
        let startup =
            Startup { command: vec!["up".to_owned()], interval_ms: 1, timeout_ms: 1, retries: 3, successes: 2 };
        let health = Health { startup: Some(startup), ..health() };
        let mut record = Record::new(&health);
        record.take(&health, outcome(1), 0);
        record.take(&health, outcome(0), 0);
        assert!(record.is_starting_up() && record.status == Status::Starting);
        record.take(&health, outcome(0), 0);
        assert!(!record.is_starting_up() && record.status == Status::Starting);
        record.take(&health, outcome(0), 0);
        assert_eq!(record.status, Status::Healthy);
        let mut never = Record::new(&health);
        never.take(&health, outcome(1), 0);
        never.take(&health, outcome(1), 0);
        assert_eq!(never.take(&health, outcome(1), 0), consequence(true, OnFailure::Kill));
    }

    proptest! {
        #[test]
        fn only_failures_in_a_row_make_it_unhealthy(codes in proptest::collection::vec(0..2, 0..40)) {
            let health = Health { start_period_ms: 0, ..health() };
            let mut record = Record::new(&health);
            for code in &codes {
                record.take(&health, outcome(*code), 0);
            }
            let failed = codes.iter().rev().take_while(|c| **c == 1).count();
            prop_assert_eq!(record.status == Status::Unhealthy, failed >= 2);
            prop_assert_eq!(record.streak as usize, failed);
        }
    }

    #[test]
    fn the_file_is_podmans_json() {
        let mut record = Record::new(&health());
        record.take(&health(), outcome(0), 0);
        let text = record.render(&|t| t.to_string(), &|s| format!("{s:?}"));
        let want =
            r#"{"Status":"healthy","FailingStreak":0,"Log":[{"Start":"1","End":"2","ExitCode":0,"Output":"x\""}]}"#;
        assert_eq!(text.trim_end(), want);
    }
}
