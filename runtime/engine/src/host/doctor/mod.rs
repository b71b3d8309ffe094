//! `rlrun doctor`: what this host lacks, what that means, and the command that mends it. First everything is read
//! ([`Survey`]), then judged by pure functions; the advice is that of the hint table, word for word what a failure
//! would have said.

mod network;
mod session;
mod storage;
mod survey;
mod users;

use serde::Serialize;
use std::fmt::Write as _;

pub use survey::{Device, Directory, Grants, Linger, MandatoryDir, Survey};

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// As it should be.
    Ok,
    /// rlrun works, with less.
    Warn,
    /// Containers do not start.
    Fail,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Stable name.
    pub name: &'static str,
    /// How bad.
    pub status: Status,
    /// What was found.
    pub finding: String,
    /// Why it matters; empty when all is well.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub why: &'static str,
    /// The command that mends it, or the file to change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

impl Check {
    fn ok(name: &'static str, finding: impl Into<String>) -> Self {
        Check { name, status: Status::Ok, finding: finding.into(), why: "", fix: None }
    }

    fn warn(name: &'static str, finding: impl Into<String>, why: &'static str) -> Self {
        Check { name, status: Status::Warn, finding: finding.into(), why, fix: None }
    }

    fn fail(name: &'static str, finding: impl Into<String>, why: &'static str) -> Self {
        Check { name, status: Status::Fail, finding: finding.into(), why, fix: None }
    }

    fn fix(mut self, fix: impl ToString) -> Self {
        self.fix = Some(fix.to_string());
        self
    }
}

/// Judges everything, in the order in which a container needs it.
#[must_use]
pub fn checks(survey: &Survey) -> Vec<Check> {
    [users::checks(survey), storage::checks(survey), network::checks(survey), session::checks(survey)].concat()
}

/// The worst status.
#[must_use]
pub fn worst(checks: &[Check]) -> Status {
    checks.iter().map(|check| check.status).max().unwrap_or(Status::Ok)
}

/// 0 unless something fails: a warning is not worth a broken script.
#[must_use]
pub fn exit_code(checks: &[Check]) -> u8 {
    match worst(checks) {
        Status::Ok | Status::Warn => 0,
        Status::Fail => 1,
    }
}

/// For a person.
#[must_use]
pub fn render(checks: &[Check]) -> String {
    let width = checks.iter().map(|check| check.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for check in checks {
        let status = match check.status {
            Status::Ok => "ok  ",
            Status::Warn => "warn",
            Status::Fail => "FAIL",
        };
        line(&mut text, format_args!("{status}  {:width$}  {}", check.name, check.finding));
        if !check.why.is_empty() {
            line(&mut text, format_args!("      {:width$}  {}", "", check.why));
        }
        if let Some(fix) = &check.fix {
            line(&mut text, format_args!("      {:width$}  hint: {fix}", ""));
        }
    }
    let count = |status| checks.iter().filter(|check| check.status == status).count();
    let summary = match (count(Status::Fail), count(Status::Warn)) {
        (0, 0) => "nothing is missing".to_owned(),
        (0, warnings) => format!("containers run; {} could be better", things(warnings)),
        (failures, _) => format!("containers do not run: mend {} first", things(failures)),
    };
    line(&mut text, format_args!("\n{summary}"));
    text
}

fn things(n: usize) -> String {
    if n == 1 { "one thing".to_owned() } else { format!("{n} things") }
}

fn line(text: &mut String, words: std::fmt::Arguments<'_>) {
    // Writing to a String does not fail.
    writeln!(text, "{words}").unwrap_or_default();
}

#[cfg(test)]
mod tests;
