//! `run` and `plan`.

use super::{Outcome, place, read};
use crate::arguments::run::RunArgs;
use crate::report;
use clap::ArgMatches;
use rlrun_engine::trace::Marks;
use rlrun_spec::{Failure, Kind, Stage};

/// Becomes the supervisor; comes back only when something stopped the start.
pub(super) fn run(matches: &mut ArgMatches, mut marks: Marks) -> Outcome {
    let request = read::<RunArgs>(matches)?.request()?;
    marks.mark("cli: request made");
    let never = rlrun_engine::run::run(&place()?, &request, marks)?;
    match never {}
}

pub(super) fn plan(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let request = read::<RunArgs>(matches)?.request()?;
    let plan = rlrun_engine::plan::plan(&place()?, &request)?;
    let text = serde_json::to_string_pretty(&plan)
        .map_err(|e| Failure::new(Stage::Cli, Kind::Internal, "plan", "print the plan", "").why(e.to_string()))?;
    report::print(&(text + "\n"))
}
