//! `policy explain`: why something was refused, from the audit log.

use super::super::{Outcome, place, read};
use crate::report;
use crate::table::timestamp;
use clap::{ArgMatches, Args};
use rlrun_engine::journal::Lines;
use rlrun_engine::policies;
use rlrun_engine::trace::Marks;
use rlrun_spec::{Failure, Kind, Stage};
use serde_json::Value;

#[derive(Args, Debug)]
pub(super) struct ExplainArgs {
    /// A finding's code, or a container; without one, the last refusal
    #[arg(value_name = "CODE|CONTAINER")]
    what: Option<String>,
}

pub(super) fn explain(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let ExplainArgs { what } = read(matches)?;
    let place = place()?;
    let mut lines = Lines::open(&place)?;
    let mut last = None;
    while let Some(line) = lines.next_line()? {
        if fits(&line, what.as_deref()) {
            last = Some(line);
        }
    }
    match last {
        Some(line) => report::print(&told(&line, what.as_deref())),
        None => match what.as_deref().map(|code| policies::meanings(&place, code)).transpose()? {
            Some(meanings) if !meanings.is_empty() => report::print(&meaning(what.as_deref(), &meanings)),
            _ => Err(nothing(what.as_deref())),
        },
    }
}

/// Of a code that nobody has been told yet.
fn meaning(code: Option<&str>, meanings: &[(String, String)]) -> String {
    let line = |(policy, meaning): &(String, String)| format!("  {policy}: {meaning}\n");
    let lines: String = meanings.iter().map(line).collect();
    format!("[{}] was not said of anything yet; it means:\n{lines}", code.unwrap_or_default())
}

fn nothing(what: Option<&str>) -> Failure {
    let object = what.unwrap_or("a refusal");
    Failure::new(Stage::Cli, Kind::Usage, "explain", "find in the audit log", object)
        .why("no policy said anything about it")
        .hint("`rlrun policy explain` alone tells the last refusal, `rlrun policy ls` who is asked")
}

/// Whether a line is a refusal, or has that code, or is about that container.
fn fits(line: &Value, what: Option<&str>) -> bool {
    let all = || line["verdicts"].as_array().into_iter().flatten();
    let Some(what) = what else { return all().any(|verdict| verdict["decision"] == "deny") };
    let code = |verdict: &Value| verdict["findings"].as_array().into_iter().flatten().any(|found| found == what);
    let named = |event: &Value| {
        let id = event["id"].as_str().unwrap_or_default();
        event["type"] == "container" && (event["name"] == what || (what.len() >= 4 && id.starts_with(what)))
    };
    let about = line["events"].as_array().into_iter().flatten().any(named);
    all().any(code) || (about && all().next().is_some())
}

fn told(line: &Value, what: Option<&str>) -> String {
    let mut out = String::new();
    let words: Vec<&str> = line["argv"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    out.push_str(&format!("{}  {}\n", timestamp(line["time"].as_u64().unwrap_or_default()), words.join(" ")));
    if let Some(image) = line["image"]["reference"].as_str() {
        out.push_str(&format!("image: {image}\n"));
    }
    for verdict in line["verdicts"].as_array().into_iter().flatten() {
        let word = |key: &str| verdict[key].as_str().unwrap_or_default();
        out.push_str(&format!("{}: {} ({}, {})\n", word("decision"), word("policy"), word("tier"), word("digest")));
        let diagnostics = verdict["diagnostics"].as_array().map(Vec::as_slice).unwrap_or_default();
        for found in
            diagnostics.iter().filter(|found| what.is_none_or(|what| found["code"] == what || !has(verdict, what)))
        {
            out.push_str(&finding(found));
        }
        if diagnostics.is_empty() {
            let codes = verdict["findings"].as_array().into_iter().flatten().filter_map(Value::as_str);
            out.extend(codes.map(|code| format!("  [{code}]\n")));
        }
    }
    out
}

fn has(verdict: &Value, code: &str) -> bool {
    verdict["findings"].as_array().into_iter().flatten().any(|found| found == code)
}

/// The rule, the field, the fix.
fn finding(found: &Value) -> String {
    let word = |key: &str| found[key].as_str();
    let mut out = format!("  [{}] {}", word("code").unwrap_or_default(), word("message").unwrap_or_default());
    if let Some(severity) = word("severity") {
        out.push_str(&format!(" ({severity})"));
    }
    out.push('\n');
    out.extend(word("path").map(|path| format!("    field: {path}\n")));
    out.extend(word("help").map(|help| format!("    fix:   {help}\n")));
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn line() -> Value {
        json!({
            "time": 1, "argv": ["rlrun", "run", "x"], "outcome": "denied", "image": {"reference": "docker.io/x:1"},
            "events": [{"type": "container", "id": "abcdef", "name": "quiet"}],
            "verdicts": [{"policy": "p", "digest": "sha256:1", "tier": "user", "decision": "deny", "findings": ["A1"],
                "diagnostics": [{"code": "A1", "severity": "high", "message": "no", "path": "/uid", "help": "do"}]}],
        })
    }

    #[test]
    fn a_refusal_is_found_by_code_and_by_container() {
        for what in [None, Some("A1"), Some("quiet"), Some("abcde")] {
            assert!(fits(&line(), what), "{what:?}");
        }
        for what in [Some("A2"), Some("abc"), Some("loud")] {
            assert!(!fits(&line(), what), "{what:?}");
        }
    }

    #[test]
    fn it_tells_policy_rule_field_and_fix() {
        let told = told(&line(), None);
        assert!(
            told.contains("deny: p (user, sha256:1)\n  [A1] no (high)\n    field: /uid\n    fix:   do\n"),
            "{told}"
        );
    }
}
