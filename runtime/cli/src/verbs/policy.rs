//! `policy ls`, `policy check` and `policy eval`.

use super::{Outcome, place, read};
use crate::arguments::run::Switch;
use crate::format::{Format, Heading, Row};
use crate::report;
use crate::table::columns;
use clap::{ArgMatches, Args, Command, Subcommand};
use rlrun_engine::policies::{self, Choice, Inspection, Listed};
use rlrun_engine::trace::Marks;
use rlrun_spec::policy::{Admitted, Diagnostic, PolicyId, Refusal, Tier};
use rlrun_spec::{Failure, Kind, Stage};
use serde_json::{Value, json};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// `rlrun policy`.
#[derive(Debug, Subcommand)]
enum PolicyVerb {
    /// List the policies that are asked
    Ls,
    /// Look at one file: what it is, what it can reach, whether it takes its settings
    Check {
        /// The policy
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Settings instead of those beside FILE
        #[arg(long, value_name = "FILE")]
        settings: Option<PathBuf>,
    },
    /// Ask the policies about a configuration that `rlrun plan` printed; start nothing
    Eval(EvalArgs),
}

#[derive(Args, Debug)]
struct EvalArgs {
    /// The configuration; `-` reads standard input
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

pub(super) fn define(command: Command) -> Command {
    PolicyVerb::augment_subcommands(command)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .disable_help_subcommand(true)
}

pub(super) fn policy(matches: &mut ArgMatches, _: Marks) -> Outcome {
    match read(matches)? {
        PolicyVerb::Ls => list(),
        PolicyVerb::Eval(args) => eval(&args),
        PolicyVerb::Check { file, settings } => {
            let inspection = policies::check(&place()?, &file, settings.as_deref())?;
            let printed = report::print(&describe(&inspection))?;
            match refused(&inspection) {
                None => Ok(printed),
                // Nobody has given it settings yet; whether it takes them cannot be told.
                Some(failure) if inspection.settings == "{}" => {
                    rlrun_engine::warn(&format!("it needs settings: {failure}"));
                    Ok(printed)
                }
                Some(failure) => Err(failure),
            }
        }
    }
}

/// All policies; those that cannot be asked are told as failures beside the list.
fn list() -> Outcome {
    let all = policies::list(&place()?)?;
    let heading = ["NAME", "TIER", "DIGEST", "HOOKS", "PATH"].map(str::to_owned).to_vec();
    let rows: Vec<_> = std::iter::once(heading).chain(all.iter().map(row)).collect();
    let printed = report::print(&columns(&rows))?;
    let broken = all.iter().filter_map(|policy| match &policy.outcome {
        Ok(inspection) => refused(inspection),
        Err(error) => Some(error.failure()),
    });
    let codes: Vec<ExitCode> = broken.map(|failure| report::failure(&failure)).collect();
    Ok(codes.first().copied().unwrap_or(printed))
}

/// The verdict is the exit code, as it would be that of `run`: 0, or 125 when a policy refuses.
fn eval(args: &EvalArgs) -> Outcome {
    let format = Format::parse(args.format.as_deref(), EVAL_COLUMNS)?;
    let path = args.request.display().to_string();
    let text = request(&args.request).map_err(|e| {
        Failure::new(Stage::Cli, Kind::Usage, "read-request", "read the request", &*path).why(e.to_string())
    })?;
    let choice = Choice { files: args.policy.clone(), baseline: args.policy_baseline.into() };
    let evaluation = policies::evaluate(&place()?, choice, &path, &text)?;
    let (rows, refused) = match &evaluation.verdict {
        Ok(admitted) => (answers(admitted), None),
        Err(denied) => (denied.refusals().iter().map(refusal).collect(), Some(denied.failure(&evaluation.object))),
    };
    let printed = report::print(&format.list(&rows, &[], Heading::Shown)?)?;
    refused.map_or(Ok(printed), Err)
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
    let codes: Vec<&str> = diagnostics.iter().map(|d| d.code.as_str()).collect();
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

fn row(policy: &Listed) -> Vec<String> {
    let path = policy.path.as_ref().map_or_else(|| "-".to_owned(), |p| p.display().to_string());
    let (digest, hooks) = match &policy.outcome {
        Ok(inspection) => (short(&inspection.id.digest), hooks(inspection)),
        Err(_) => ("-".to_owned(), "cannot be asked".to_owned()),
    };
    vec![policy.name.clone(), tier(policy.tier).to_owned(), digest, hooks, path]
}

fn tier(tier: Tier) -> &'static str {
    match tier {
        Tier::Builtin => "builtin",
        Tier::User => "user",
        Tier::Mandatory => "mandatory",
    }
}

fn short(digest: &str) -> String {
    digest.chars().take("sha256:".len() + 12).collect()
}

fn hooks(inspection: &Inspection) -> String {
    inspection.hooks.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

fn describe(inspection: &Inspection) -> String {
    let or_none = |words: &[String]| if words.is_empty() { "none".to_owned() } else { words.join(", ") };
    let mut rows = vec![
        ("name:", inspection.id.name.clone()),
        ("digest:", inspection.id.digest.clone()),
        ("hooks:", hooks(inspection)),
        ("reaches:", or_none(&inspection.capabilities)),
        ("settings:", inspection.settings.clone()),
    ];
    if !inspection.unasked.is_empty() {
        rows.push(("never asked:", inspection.unasked.join(", ")));
    }
    columns(&rows.into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect::<Vec<_>>())
}

/// A policy that does not take its settings denies everything.
fn refused(inspection: &Inspection) -> Option<Failure> {
    let first = inspection.problems.first()?;
    let lines: Vec<String> = inspection.problems.iter().map(|d| format!("[{}] {}", d.code, d.message)).collect();
    let failure =
        Failure::new(Stage::Cli, Kind::Denied, "load-policy", "set up the policy", inspection.id.name.as_str())
            .why(lines.join("\n  "));
    Some(match &first.help {
        Some(help) => failure.hint(help.clone()),
        None => failure,
    })
}
