//! The verbs that change what containers do.

use super::choice::{Choice, Chosen};
use super::{Outcome, place, read};
use crate::arguments::life::{
    KillArgs, PauseArgs, PruneArgs, RenameArgs, RestartArgs, RmArgs, StartArgs, StopArgs, WaitArgs,
};
use crate::report;
use crate::table::now;
use crate::verbs::volume::sure;
use clap::{ArgMatches, Args as _, Command};
use rlrun_engine::attach::Attaching;
use rlrun_engine::containers::{self, Container, Status};
use rlrun_engine::images::{OwnVolumes, Workshop};
use rlrun_engine::journal;
use rlrun_engine::life::{self, Removal, Stopping};
use rlrun_engine::place::Place;
use rlrun_engine::record::{self, Reach};
use rlrun_engine::request::{self, exec, life::stop_seconds, limits::signal_number};
use rlrun_engine::run;
use rlrun_engine::start::{Attach, may_restart, start as start_one};
use rlrun_engine::trace::Marks;
use rlrun_engine::wait::{Condition, wait as wait_for};
use rlrun_spec::{Failure, Kind, Stage, protocol};
use std::process::ExitCode;
use std::time::Duration;

fn wrong(object: &str, why: &str) -> Failure {
    Failure::new(Stage::Cli, Kind::Usage, "parse-arguments", "understand the command line", object).why(why)
}

pub(in super::super) fn stop(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let args: StopArgs = read(matches)?;
    let all: &dyn Fn(&Container) -> bool = &life::is_looked_after;
    let choice = args.choice.choose(&place()?, args.all.then_some(all), args.ignore.into())?;
    stop_all(&choice, args.time.map(stop_seconds))
}

/// All at once: each may take its ten seconds.
fn stop_all(choice: &Choice, seconds: Option<u32>) -> Outcome {
    let begun: Vec<Result<Option<Stopping>, Failure>> =
        choice.found.iter().map(|chosen| life::begin_stop(&chosen.container, seconds)).collect();
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

pub(in super::super) fn start(matches: &mut ArgMatches, marks: Marks) -> Outcome {
    let args: StartArgs = read(matches)?;
    let place = place()?;
    let detach_keys = exec::detach_keys(&args.detach_keys)?;
    let attaching = Attaching { input: args.interactive, sig_proxy: args.sig_proxy, detach_keys };
    let rests: &dyn Fn(&Container) -> bool = &|c| !life::is_looked_after(c) && c.status != Status::Dead;
    let choice = args.choice.choose(&place, args.all.then_some(rests), false.into())?;
    if !args.attach {
        if args.interactive {
            return Err(wrong("--interactive", "needs --attach"));
        }
        return choice.each(|chosen| start_detached(&place, chosen));
    }
    match (choice.told(), &choice.found[..]) {
        (Some(code), _) => Ok(code),
        (None, [one]) => attached(&place, &one.container, attaching, marks),
        (None, _) => Err(wrong("--attach", "you can stay with one container at a time")),
    }
}

/// One that runs is started already.
fn start_detached(place: &Place, chosen: &Chosen) -> Result<String, Failure> {
    let container = &chosen.container;
    match container.status {
        Status::Running | Status::Restarting => {}
        Status::Paused => {
            let failure = life::about("start", &chosen.word).why("it is paused");
            return Err(failure.hint(format!("rlrun unpause {}", chosen.word)));
        }
        Status::Created | Status::Stopping | Status::Exited | Status::Dead => {
            drop(start_one(place, container, Attach::No, Marks::default())?);
        }
    }
    Ok(format!("{}\n", chosen.word))
}

/// This process becomes the supervisor; of a container that runs, one that is attached.
fn attached(place: &Place, container: &Container, attaching: Attaching, marks: Marks) -> Outcome {
    let name = &container.summary.name;
    match container.status {
        Status::Running => {
            life::event("attach", container);
            journal::finish(place, journal::Outcome::Done);
            return Err(rlrun_engine::attach::attach(container, attaching));
        }
        Status::Paused | Status::Stopping => {
            let failure = life::about("start", name).why(format!("it is {} already", container.status.word()));
            return Err(failure.hint(format!("rlrun attach {name}")));
        }
        Status::Created | Status::Restarting | Status::Exited | Status::Dead => {}
    }
    if !attaching.input {
        let null = std::fs::File::open("/dev/null").map_err(|e| wrong("/dev/null", &e.to_string()))?;
        rustix::stdio::dup2_stdin(&null).map_err(|e| wrong("standard input", &e.to_string()))?;
    }
    start_one(place, container, Attach::Foreground(attaching), marks).map(|_| ExitCode::SUCCESS)
}

pub(in super::super) fn restart(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let args: RestartArgs = read(matches)?;
    let place = place()?;
    let chosen: &dyn Fn(&Container) -> bool = if args.running { &life::is_looked_after } else { &|_| true };
    let choice = args.choice.choose(&place, (args.all || args.running).then_some(chosen), false.into())?;
    choice.each(|chosen| {
        let container = &chosen.container;
        if life::is_looked_after(container) {
            may_restart(&place, container)?;
        }
        if let Some(stopping) = life::begin_restart(container, args.time.map(stop_seconds))? {
            stopping.finish()?;
        }
        drop(start_one(&place, &containers::find(&place, &container.summary.id)?, Attach::No, Marks::default())?);
        life::event("restart", container);
        Ok(format!("{}\n", chosen.word))
    })
}

pub(in super::super) fn pause(matches: &mut ArgMatches, _: Marks) -> Outcome {
    pause_or_not(matches, Status::Running, &protocol::Request::Pause)
}

pub(in super::super) fn unpause(matches: &mut ArgMatches, _: Marks) -> Outcome {
    pause_or_not(matches, Status::Paused, &protocol::Request::Unpause)
}

fn pause_or_not(matches: &mut ArgMatches, status: Status, request: &protocol::Request) -> Outcome {
    let args: PauseArgs = read(matches)?;
    let all: &dyn Fn(&Container) -> bool = &|c| c.status == status;
    let choice = args.choice.choose(&place()?, args.all.then_some(all), false.into())?;
    choice.each(|chosen| life::pause(&chosen.container, request.clone()).map(|()| format!("{}\n", chosen.word)))
}

/// `-f` is `--force` here, as in podman.
pub(in super::super) fn define_remove(command: Command) -> Command {
    RmArgs::augment_args(command).mut_arg("filter", |arg| arg.short(None))
}

/// Podman's exit codes: 1 when one was not there, 2 when one runs, 125 for everything else.
pub(in super::super) fn remove(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let args: RmArgs = read(matches)?;
    let workshop = Workshop::open(place()?)?;
    let all: &dyn Fn(&Container) -> bool = &|_| true;
    let missing = (args.ignore || args.force).into();
    let choice = args.choice.choose(workshop.place(), args.all.then_some(all), missing)?;
    let removal = Removal {
        force: args.force.then(|| args.time.map(stop_seconds)),
        volumes: if args.volumes { OwnVolumes::Remove } else { OwnVolumes::Keep },
    };
    let mut worst = None;
    let mut note = |failure: &Failure| {
        report::failure(failure);
        let code = if containers::is_missing(failure) {
            1_u8
        } else if failure.step == record::STEP_RUNNING {
            2
        } else {
            125
        };
        worst = worst.max(Some(code));
    };
    for chosen in &choice.found {
        match workshop.remove_container(&chosen.container, removal) {
            Ok(()) => drop(report::print(&format!("{}\n", chosen.word))?),
            Err(failure) => note(&failure),
        }
    }
    choice.failures.iter().for_each(note);
    Ok(worst.map_or(ExitCode::SUCCESS, ExitCode::from))
}

pub(super) fn prune(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let args: PruneArgs = read(matches)?;
    let workshop = Workshop::open(place()?)?;
    let all = resting(workshop.place(), &args.filter)?;
    if !args.force && !sure("This removes all containers that do not run. Are you sure you want to continue? [y/N] ")? {
        return Ok(ExitCode::SUCCESS);
    }
    remove_resting(&workshop, &all)
}

/// The containers that do not run and fit.
pub(in super::super) fn resting(place: &Place, filter: &[String]) -> Result<Vec<Container>, Failure> {
    let mut all = super::list::fitting(place, filter, now())?;
    all.retain(|c| !life::is_looked_after(c));
    Ok(all)
}

/// Removes them and prints their ids.
pub(in super::super) fn remove_resting(workshop: &Workshop, all: &[Container]) -> Outcome {
    if !all.is_empty() {
        journal::event("container", "prune", "", "", serde_json::json!({"containers": all.len()}));
    }
    let mut code = ExitCode::SUCCESS;
    for container in all {
        match workshop.remove_container(container, Removal { force: None, volumes: OwnVolumes::Keep }) {
            Ok(()) => drop(report::print(&format!("{}\n", container.summary.id))?),
            // Started or removed by another command meanwhile.
            Err(failure) if failure.step == record::STEP_RUNNING => {}
            Err(failure) => code = report::failure(&failure),
        }
    }
    Ok(code)
}

pub(in super::super) fn rename(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let args: RenameArgs = read(matches)?;
    let place = place()?;
    run::sweep(&place, Reach::All);
    let name = request::container_name(&args.new)?;
    life::rename(&place, &containers::find(&place, &args.name)?, &name)?;
    Ok(ExitCode::SUCCESS)
}

pub(in super::super) fn wait(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let args: WaitArgs = read(matches)?;
    let place = place()?;
    let interval = interval(&args.interval)?;
    let mut conditions = args.condition.iter().map(|word| word.parse()).collect::<Result<Vec<Condition>, _>>()?;
    if conditions.is_empty() {
        conditions.push(Condition::Is(Status::Exited));
    }
    let choice = args.choice.choose(&place, None, false.into())?;
    let Choice { found, failures } = choice;
    let (gone, failures): (Vec<_>, Vec<_>) =
        failures.into_iter().partition(|failure| args.ignore && containers::is_missing(failure));
    let choice = Choice { found, failures };
    let code =
        choice.each(|chosen| wait_for(&chosen.container, &conditions, interval).map(|code| format!("{code}\n")))?;
    report::print(&"-1\n".repeat(gone.len()))?;
    Ok(code)
}

/// Milliseconds, or a number with a unit.
fn interval(word: &str) -> Result<Duration, Failure> {
    let (number, unit) = word.split_at(word.find(|c: char| !c.is_ascii_digit()).unwrap_or(word.len()));
    let factor = match unit {
        "" | "ms" => Some(1),
        "s" => Some(1000),
        "m" => Some(60_000),
        _ => None,
    };
    let millis = number.parse::<u64>().ok().zip(factor).and_then(|(number, factor)| number.checked_mul(factor));
    millis
        .map(Duration::from_millis)
        .filter(|i| !i.is_zero())
        .ok_or_else(|| wrong(word, "is no time").hint("for example 250ms or 1s"))
}
