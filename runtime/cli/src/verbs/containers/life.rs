//! `stop`, `kill`: ending what runs.

use super::choice::Choice;
use super::{Outcome, place, read};
use crate::arguments::life::{KillArgs, StopArgs};
use crate::report;
use clap::ArgMatches;
use rlrun_engine::containers::Container;
use rlrun_engine::life::{self, Stopping};
use rlrun_engine::request::limits::signal_number;
use rlrun_engine::trace::Marks;
use rlrun_spec::{Failure, Kind, Stage};
use std::process::ExitCode;

/// Negative: as long as it takes, as podman has it.
pub(super) fn seconds(time: Option<i64>) -> Option<u32> {
    time.map(|time| u32::try_from(time).unwrap_or(if time < 0 { u32::MAX / 2 } else { u32::MAX }))
}

pub(in super::super) fn stop(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let args: StopArgs = read(matches)?;
    let all: &dyn Fn(&Container) -> bool = &life::is_looked_after;
    let choice = args.choice.choose(&place()?, args.all.then_some(all), args.ignore.into())?;
    stop_all(&choice, seconds(args.time))
}

/// All at once: each may take its ten seconds.
fn stop_all(choice: &Choice, seconds: Option<u32>) -> Outcome {
    let begun: Vec<Result<Option<Stopping>, Failure>> =
        choice.found.iter().map(|chosen| life::begin_stop(&chosen.container, None, seconds)).collect();
    let mut code = None;
    for (chosen, stopping) in choice.found.iter().zip(begun) {
        match stopping.and_then(|stopping| stopping.map_or(Ok(()), Stopping::finish)) {
            Ok(()) => drop(report::print(&format!("{}\n", chosen.word))?),
            Err(failure) => drop(code.get_or_insert(report::failure(&failure))),
        }
    }
    Ok(choice.told().or(code).unwrap_or(ExitCode::SUCCESS))
}

pub(in super::super) fn kill(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let args: KillArgs = read(matches)?;
    let signal = signal_number(&args.signal).ok_or_else(|| {
        Failure::new(Stage::Cli, Kind::Usage, "parse-arguments", "send the signal", &*args.signal)
            .why("no such signal")
            .hint("signal(7) lists them")
    })?;
    let all: &dyn Fn(&Container) -> bool = &|c| c.status.is_alive();
    let choice = args.choice.choose(&place()?, args.all.then_some(all), false.into())?;
    choice.each(|chosen| life::signal(&chosen.container, signal).map(|()| format!("{}\n", chosen.word)))
}
