//! `run` and `plan`.

use super::images::progress;
use super::{Outcome, place, read};
use crate::arguments::run::RunArgs;
use crate::report;
use clap::{ArgMatches, Args as _, Command};
use rlrun_engine::request::RunRequest;
use rlrun_engine::run::Started;
use rlrun_engine::trace::Marks;
use rlrun_engine::volumes;
use rlrun_spec::{Failure, Kind, Stage};

/// The usage is written out, because clap would show the words after the image as a list of images.
pub(super) fn define(command: Command, verb: &str) -> Command {
    RunArgs::augment_args(command).override_usage(format!("rlrun {verb} [OPTIONS] IMAGE [COMMAND [ARG...]]"))
}

pub(super) fn define_create(command: Command) -> Command {
    define(command, "create").mut_arg("detach", |arg| arg.hide(true))
}

fn asked(matches: &mut ArgMatches) -> Result<RunRequest, Failure> {
    let args = read::<RunArgs>(matches)?;
    let from = args.volumes_from();
    let mut request = args.request()?;
    if !from.is_empty() {
        volumes::inherit(&place()?, &from, &mut request)?;
    }
    Ok(request)
}

/// In the foreground becomes the supervisor, and comes back only when something stopped the start.
pub(super) fn run(matches: &mut ArgMatches, mut marks: Marks) -> Outcome {
    let request = asked(matches)?;
    marks.mark("cli: request made");
    let Started::Detached(id) = rlrun_engine::run::run(&place()?, &request, &progress(false), marks)?;
    report::print(&format!("{id}\n"))
}

/// Prints the id of what was made.
pub(super) fn create(matches: &mut ArgMatches, mut marks: Marks) -> Outcome {
    let request = asked(matches)?;
    if request.launching.life.detach {
        let failure =
            Failure::new(Stage::Cli, Kind::Usage, "parse-arguments", "understand the command line", "--detach");
        return Err(failure.why("nothing is started").hint("rlrun run -d starts it too"));
    }
    marks.mark("cli: request made");
    let id = rlrun_engine::run::create(&place()?, &request, &progress(false), marks)?;
    report::print(&format!("{id}\n"))
}

pub(super) fn plan(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let request = asked(matches)?;
    let plan = rlrun_engine::plan::plan(&place()?, &request)?;
    let text = serde_json::to_string_pretty(&plan)
        .map_err(|e| Failure::new(Stage::Cli, Kind::Internal, "plan", "print the plan", "").why(e.to_string()))?;
    report::print(&(text + "\n"))
}
