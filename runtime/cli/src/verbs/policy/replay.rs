//! `policy replay`: what policies would have said of what was started.

use super::super::events::Span;
use super::super::{Outcome, place, read};
use super::project::component;
use crate::arguments::journal::SpanArgs;
use crate::format::{Format, Heading, Row};
use crate::report;
use crate::table::timestamp;
use clap::{ArgMatches, Args};
use rlrun_engine::policies::Choice;
use rlrun_engine::policies::replay::{Jury, Replay, Replayed};
use rlrun_engine::trace::Marks;
use rlrun_spec::policy::{Diagnostic, PolicyId};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;

const COLUMNS: &str =
    "{{.Time}}\t{{.Operation}}\t{{.Name}}\t{{.Image}}\t{{.Then}}\t{{.Now}}\t{{.RefusedBy}}\t{{.Codes}}";

#[derive(Args, Debug)]
pub(super) struct ReplayArgs {
    /// One policy, alone: a file, a project, a reference, one that comes with rlrun; without it all that are asked
    #[arg(value_name = "POLICY")]
    policy: Option<PathBuf>,
    /// Settings for it, instead of those beside it
    #[arg(long, value_name = "FILE", requires = "policy")]
    settings: Option<PathBuf>,
    #[command(flatten)]
    span: SpanArgs,
    /// Only what is decided differently now
    #[arg(long)]
    changed: bool,
    /// `json`, or a Go template over one start
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

/// Counted for the last line.
#[derive(Default)]
struct Counted {
    asked: usize,
    allowed: usize,
    newly_refused: usize,
    newly_allowed: usize,
    unknown: usize,
    missing: BTreeSet<&'static str>,
}

/// 1 when something that was let pass would be refused.
pub(super) fn replay(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let args: ReplayArgs = read(matches)?;
    let format = Format::parse(args.format.as_deref(), COLUMNS)?;
    let span = Span::read(&args.span)?;
    let place = place()?;
    let jury = match &args.policy {
        Some(word) => Jury::One(component(word)?, args.settings.clone()),
        None => Jury::Today(Choice::default()),
    };
    let mut past = Replay::open(&place, jury)?;
    let (mut rows, mut counted) = (Vec::new(), Counted::default());
    while let Some(replayed) = past.next_one(|time| span.has(time))? {
        let changed = counted.count(&replayed);
        if changed || !args.changed {
            rows.push(row(&replayed));
        }
    }
    let printed = report::print(&format.list(&rows, &[("RefusedBy", "REFUSED BY")], Heading::Shown)?)?;
    if matches!(format, Format::Table(_)) {
        report::print(&counted.summary(&past))?;
    }
    Ok(if counted.newly_refused > 0 { ExitCode::FAILURE } else { printed })
}

impl Counted {
    /// Whether it is decided differently now.
    fn count(&mut self, replayed: &Replayed) -> bool {
        self.missing.extend(&replayed.missing);
        self.asked += 1;
        match (&replayed.now, replayed.was_refused()) {
            (Err(_), _) => self.unknown += 1,
            (Ok(Ok(_)), was_refused) => {
                self.allowed += 1;
                self.newly_allowed += usize::from(was_refused);
                return was_refused;
            }
            (Ok(Err(_)), false) => {
                self.newly_refused += 1;
                return true;
            }
            (Ok(Err(_)), true) => {}
        }
        false
    }

    fn summary(&self, past: &Replay<'_>) -> String {
        let Counted { asked, allowed, newly_refused, newly_allowed, unknown, missing } = self;
        let refused = asked - allowed - unknown;
        let mut text = format!(
            "\n{asked} asked again: {allowed} allowed, {refused} refused, {unknown} cannot be told\n\
             {newly_refused} would be refused that were let pass, {newly_allowed} let pass that were refused\n"
        );
        let list = |words: Vec<String>| words.join(", ");
        if !missing.is_empty() {
            let missing = missing.iter().map(ToString::to_string).collect();
            text.push_str(&format!("the audit log does not keep, so nobody was shown: {}\n", list(missing)));
        }
        let unasked = past.unasked();
        if !unasked.is_empty() {
            let unasked = unasked.iter().map(ToString::to_string).collect();
            text.push_str(&format!("hooks that are not asked again: {}\n", list(unasked)));
        }
        text
    }
}

fn row(replayed: &Replayed) -> Row {
    let line = &replayed.line;
    let time = line["time"].as_u64().unwrap_or_default();
    let mut findings: Vec<(&PolicyId, &Diagnostic)> = Vec::new();
    let (mut refused_by, mut restrictions, mut why) = (Vec::new(), Vec::new(), None);
    let now = match &replayed.now {
        Err(reason) => {
            why = Some(reason.clone());
            "unknown"
        }
        Ok(Ok(admitted)) => {
            findings.extend(admitted.warnings());
            restrictions.extend(admitted.answers().iter().flat_map(|answer| &answer.restrictions));
            "allow"
        }
        Ok(Err(denied)) => {
            let refusals = denied.refusals();
            refused_by.extend(refusals.iter().map(|refusal| refusal.policy.name.clone()));
            findings.extend(refusals.iter().flat_map(|r| r.diagnostics.iter().map(|d| (&r.policy, d))));
            "deny"
        }
    };
    let codes: Vec<&str> = findings.iter().map(|(_, d)| d.code.as_str()).collect();
    let found = |(policy, diagnostic): &(&PolicyId, &Diagnostic)| {
        let mut found = json!(diagnostic);
        found["policy"] = json!(policy.name);
        found
    };
    let document = json!({
        "Time": timestamp(time),
        "TimeNano": time,
        "Operation": line["operation"],
        "Command": line["argv"],
        "ID": line["request"]["id"],
        "Name": line["request"]["name"],
        "Image": line["image"]["reference"].as_str().unwrap_or_default(),
        "Then": if replayed.was_refused() { "deny" } else { "allow" },
        "Now": now,
        "RefusedBy": refused_by,
        "Codes": codes,
        "Diagnostics": findings.iter().map(found).collect::<Vec<Value>>(),
        "Restrictions": restrictions,
        "NotReplayed": replayed.missing,
        "Why": why,
    });
    let mut fields = document.clone();
    fields["Codes"] = codes.join(",").into();
    fields["RefusedBy"] = document["RefusedBy"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect::<Vec<_>>()
        .join(",")
        .into();
    if let Some(why) = why {
        fields["Now"] = format!("unknown: {why}").into();
    }
    Row { document, fields }
}
