//! `policy ls` and `policy check`.

use super::{Outcome, place, read};
use crate::report;
use crate::table::columns;
use clap::{ArgMatches, Command, Subcommand};
use rlrun_engine::policies::{self, Inspection, Listed};
use rlrun_engine::trace::Marks;
use rlrun_spec::policy::Tier;
use rlrun_spec::{Failure, Kind, Stage};
use std::path::PathBuf;
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
