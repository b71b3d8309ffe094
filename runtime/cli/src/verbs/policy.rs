//! `rlrun policy`: one file a verb. What they share of showing a policy is here.

mod added;
mod check;
mod eval;
mod explain;
mod inspect;
mod list;
mod measure;
mod project;
mod registry;
mod replay;
mod test;

use super::{Verb, verb, with};
use rlrun_engine::policies::Inspection;
use rlrun_spec::policy::{Mode, Tier};
use rlrun_spec::{Failure, Kind, Stage};

pub(super) const VERBS: &[Verb] = &[
    verb("ls", "List the policies that are asked", |c| c, list::list),
    verb(
        "add",
        "Ask a policy from now on: a file, a reference, one that comes with rlrun",
        with::<added::AddArgs>,
        added::add,
    ),
    verb("rm", "Ask a policy no longer", with::<added::RemoveArgs>, added::remove).known_as(&["remove"]),
    verb("update", "Take what the references of added policies mean now", with::<added::UpdateArgs>, added::update),
    verb("pull", "Fetch a policy from a registry; it is not asked yet", with::<registry::PullArgs>, registry::pull),
    verb("push", "Send policies to a registry", with::<registry::PushArgs>, registry::push),
    verb(
        "check",
        "Look at one file: what it is, what it can reach, whether it takes its settings",
        with::<check::CheckArgs>,
        check::check,
    ),
    verb(
        "eval",
        "Ask the policies about what `rlrun plan` printed, or about a case; start nothing",
        with::<eval::EvalArgs>,
        eval::eval,
    ),
    verb("new", "Make a project for a policy of your own", with::<project::NewArgs>, project::new),
    verb("build", "Build a policy of a project, or of a text", with::<project::BuildArgs>, project::build),
    verb("test", "Build a policy and ask it its cases", with::<test::TestArgs>, test::test),
    verb("inspect", "Print what a policy says of itself", with::<inspect::InspectArgs>, inspect::inspect),
    verb("fmt", "Check settings against their policy, and tidy them", with::<inspect::FmtArgs>, inspect::fmt),
    verb("trace", "Print what a policy is asked and answers", with::<measure::TraceArgs>, measure::trace),
    verb("explain", "Tell why something was refused", with::<explain::ExplainArgs>, explain::explain),
    verb(
        "replay",
        "Ask policies about what was started, out of the audit log",
        with::<replay::ReplayArgs>,
        replay::replay,
    ),
    verb("bench", "Measure a policy", with::<measure::BenchArgs>, measure::bench),
];

fn tier(tier: Tier) -> &'static str {
    match tier {
        Tier::Builtin => "builtin",
        Tier::User => "user",
        Tier::Project => "project",
        Tier::Mandatory => "mandatory",
    }
}

fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Enforce => "enforce",
        Mode::Warn => "warn",
        Mode::Audit => "audit",
    }
}

fn short(digest: &str) -> String {
    digest.chars().take("sha256:".len() + 12).collect()
}

fn hooks(inspection: &Inspection) -> String {
    inspection.hooks.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
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
