//! `policy eval`.

use super::super::{Outcome, place, read};
use super::test::question;
use super::tier;
use crate::arguments::run::Switch;
use crate::format::{Format, Heading, Row};
use crate::report;
use clap::{ArgMatches, Args};
use rlrun_engine::policies::case::{Case, Told};
use rlrun_engine::policies::{self, Choice};
use rlrun_engine::trace::Marks;
use rlrun_spec::policy::{Admitted, Diagnostic, PolicyId, Refusal};
use rlrun_spec::{Failure, Kind, Stage};
use serde_json::{Value, json};
use std::io::Read as _;
use std::path::{Path, PathBuf};

#[derive(Args, Debug)]
pub(super) struct EvalArgs {
    /// The configuration, or a case with its hook; `-` reads standard input
    #[arg(long, value_name = "FILE", default_value = "-")]
    request: PathBuf,
    /// Ask this policy too
    #[arg(long, value_name = "FILE")]
    policy: Vec<PathBuf>,
    /// Whether the built-in baseline is asked
    #[arg(long, value_enum, default_value_t = Switch::On)]
    policy_baseline: Switch,
    /// `json`, or a Go template over one answer
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

/// The verdict is the exit code, as it would be that of `run`: 0, or 125 when a policy refuses.
pub(super) fn eval(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let args: EvalArgs = read(matches)?;
    let format = Format::parse(args.format.as_deref(), EVAL_COLUMNS)?;
    let path = args.request.display().to_string();
    let text = request(&args.request).map_err(|e| {
        Failure::new(Stage::Cli, Kind::Usage, "read-request", "read the request", &*path).why(e.to_string())
    })?;
    let choice = Choice { files: args.policy.clone(), baseline: args.policy_baseline.into() };
    if let Some(case) = question(&args.request, &text) {
        return ask(&case?, choice, &format);
    }
    let evaluation = policies::evaluate(&place()?, choice, &path, &text)?;
    let (rows, refused) = match &evaluation.verdict {
        Ok(admitted) => (answers(admitted), None),
        Err(denied) => (denied.refusals().iter().map(refusal).collect(), Some(denied.failure(&evaluation.object))),
    };
    let printed = report::print(&format.list(&rows, &[], Heading::Shown)?)?;
    refused.map_or(Ok(printed), Err)
}

/// One question of one hook, to all that have it. Their answers are told, not merged.
fn ask(case: &Case, choice: Choice, format: &Format) -> Outcome {
    let object = || case.path.display().to_string();
    if case.settings.is_some() {
        return Err(Failure::new(Stage::Cli, Kind::Usage, "read-request", "ask the policies", object())
            .why("it has `settings`, and the installed policies have their own")
            .hint(format!("leave them out, or ask one policy: rlrun policy trace POLICY --request {}", object())));
    }
    if case.expect.is_some() {
        rlrun_engine::warn("`expect` is not compared here: `rlrun policy test` does that");
    }
    let mut rows = Vec::new();
    let mut denied = Vec::new();
    for mut policy in policies::benches(&place()?, choice)? {
        if !policy.functions().any(|f| f.hook == case.hook) {
            continue;
        }
        let reply = case.ask(&mut policy).map_err(|why| {
            let object = case.path.display().to_string();
            Failure::new(Stage::Cli, Kind::Usage, "read-request", "ask the policies", object).why(why)
        })?;
        let told = Told::of(&reply);
        if told.decision == "deny" {
            denied.push(policy.id().name.clone());
        }
        rows.push(line(policy.id(), &told.decision, &told.codes, &told.diagnostics, &told.restrictions));
    }
    let printed = report::print(&format.list(&rows, &[], Heading::Shown)?)?;
    if denied.is_empty() {
        return Ok(printed);
    }
    Err(Failure::new(
        Stage::Cli,
        Kind::Denied,
        "policy",
        "be admitted by the policies",
        case.path.display().to_string(),
    )
    .why(format!("refused by {}", denied.join(", "))))
}

const EVAL_COLUMNS: &str = "{{.Policy}}\t{{.Tier}}\t{{.Decision}}\t{{.Codes}}\t{{.Tightens}}";

fn request(path: &Path) -> std::io::Result<Vec<u8>> {
    if path.as_os_str() == "-" {
        let mut text = Vec::new();
        std::io::stdin().read_to_end(&mut text)?;
        return Ok(text);
    }
    std::fs::read(path)
}

/// What each policy said to the request and to the merged result, as one answer.
fn answers(admitted: &Admitted) -> Vec<Row> {
    let both = admitted.answers().iter().map(|first| {
        let last = admitted.finals().iter().filter(|last| last.policy == first.policy);
        let diagnostics: Vec<_> = last.flat_map(|last| &last.diagnostics).chain(&first.diagnostics).collect();
        answer(&first.policy, "allow", &diagnostics, &json!(first.restrictions))
    });
    both.collect()
}

fn refusal(refusal: &Refusal) -> Row {
    answer(&refusal.policy, "deny", &refusal.diagnostics.iter().collect::<Vec<_>>(), &json!([]))
}

fn answer(policy: &PolicyId, decision: &str, diagnostics: &[&Diagnostic], restrictions: &Value) -> Row {
    let codes: Vec<String> = diagnostics.iter().map(|d| d.code.clone()).collect();
    line(policy, decision, &codes, &json!(diagnostics), restrictions)
}

fn line(policy: &PolicyId, decision: &str, codes: &[String], diagnostics: &Value, restrictions: &Value) -> Row {
    // A restriction is its name alone, or an object with its name as the only key.
    let names = restrictions.as_array().into_iter().flatten().filter_map(|restriction| match restriction {
        Value::String(name) => Some(name.as_str()),
        other => other.as_object().and_then(|fields| fields.keys().next()).map(String::as_str),
    });
    let document = json!({
        "Policy": policy.name,
        "Digest": policy.digest,
        "Tier": tier(policy.tier),
        "Decision": decision,
        "Codes": codes,
        "Diagnostics": diagnostics,
        "Restrictions": restrictions,
    });
    let mut fields = document.clone();
    fields["Codes"] = codes.join(",").into();
    fields["Tightens"] = names.collect::<Vec<_>>().join(",").into();
    Row { document, fields }
}
