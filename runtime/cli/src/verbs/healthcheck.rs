//! `healthcheck run`.

use super::{Outcome, Verb, place, read, verb, with};
use crate::arguments::look::ContainerArgs;
use crate::report;
use clap::ArgMatches;
use rlrun_engine::containers;
use rlrun_engine::supervisor::Supervisor;
use rlrun_engine::trace::Marks;
use rlrun_spec::{Failure, Kind, Stage};
use std::process::ExitCode;
use std::time::Duration;

/// The verbs of `rlrun healthcheck`.
pub(super) const VERBS: &[Verb] =
    &[verb("run", "Check the health of a container now; the exit code tells it", with::<ContainerArgs>, run)];

/// As podman: nothing and 0 when it is well, `unhealthy` and 1 when not.
fn run(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let args: ContainerArgs = read(matches)?;
    let container = containers::find(&place()?, &args.name)?;
    let about = |why: &str| {
        let name = container.summary.name.clone();
        Failure::new(Stage::Cli, Kind::Usage, "healthcheck", "check the health of", name).why(why)
    };
    let Some(health) = &container.summary.life.health else {
        return Err(about("it has no health check").hint("--health-cmd of run, or the image, says what is checked"));
    };
    let Some(supervisor) = Supervisor::of(&container)? else {
        return Err(about("it does not run").hint(format!("rlrun start {}", container.summary.name)));
    };
    if supervisor.check(Duration::from_millis(health.timeout_ms))? {
        return Ok(ExitCode::SUCCESS);
    }
    report::print("unhealthy\n")?;
    Ok(ExitCode::from(1))
}
