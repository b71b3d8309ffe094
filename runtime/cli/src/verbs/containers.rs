//! `ps`, `inspect` and `port`: what there is, as it is now.

mod choice;
mod document;
mod life;
mod list;
mod usage;

use super::{Outcome, Verb, place, read, verb, with};
use crate::arguments::exec::AttachArgs;
use crate::arguments::files::{CommitArgs, CpArgs, DiffArgs, ExportArgs};
use crate::arguments::life::{KillArgs, PauseArgs, PruneArgs, RenameArgs, RestartArgs, StartArgs, StopArgs, WaitArgs};
use crate::arguments::look::{ContainerArgs, InspectArgs, Kind, LogsArgs, PortArgs, PsArgs};
use crate::arguments::usage::{StatsArgs, UpdateArgs};
use crate::format::inspected;
use crate::report;
use crate::table::now;
use clap::ArgMatches;
use document::port;
pub(super) use life::{define_remove, kill, pause, remove, rename, restart, start, stop, unpause, wait};
use rlrun_engine::place::Place;
use rlrun_engine::trace::Marks;
use rlrun_engine::{containers, images, volumes};
use rlrun_spec::{Failure, Stage};
use serde_json::Value;
use std::process::ExitCode;
pub(super) use usage::{stats, update};

/// The verbs of `rlrun container`; all but `exists` have a name of their own beside it.
pub(super) const VERBS: &[Verb] = &[
    verb("attach", "Attach to a running container", with::<AttachArgs>, super::exec::attach),
    verb("exec", "Run a command in a running container", super::exec::define, super::exec::exec),
    verb("commit", "Make an image of what a container has become", with::<CommitArgs>, super::files::commit),
    verb("cp", "Copy files into a container, or out of it", with::<CpArgs>, super::files::copy),
    verb("diff", "List the files that a container has changed", with::<DiffArgs>, super::files::diff),
    verb("export", "Write the files of a container to a tar archive", with::<ExportArgs>, super::files::export),
    verb("exists", "Tell by the exit code whether a container is there", with::<ContainerArgs>, exists),
    verb("inspect", "Print all about containers, as JSON", with::<InspectArgs>, inspect),
    verb("kill", "Send a signal to containers", with::<KillArgs>, kill),
    verb("logs", "Print what containers wrote", with::<LogsArgs>, super::logs::logs),
    verb("ls", "List containers", with::<PsArgs>, ps).known_as(&["list", "ps"]),
    verb("port", "Print the published ports of a container", with::<PortArgs>, ports),
    verb("create", "Make a container and do not start it", super::run::define_create, super::run::create),
    verb("pause", "Stop every process of containers", with::<PauseArgs>, pause),
    verb("prune", "Remove all containers that do not run", with::<PruneArgs>, life::prune),
    verb("rename", "Give a container another name", with::<RenameArgs>, rename),
    verb("restart", "Stop containers and start them again", with::<RestartArgs>, restart),
    verb("rm", "Remove containers", life::define_remove, remove),
    verb("run", "Run a command in a new container", |c| super::run::define(c, "run"), super::run::run),
    verb("start", "Start containers that are there", with::<StartArgs>, start),
    verb("unpause", "Let them go on", with::<PauseArgs>, unpause),
    verb("wait", "Wait for containers to end and print their exit codes", with::<WaitArgs>, wait),
    verb("stats", "Show what containers use", with::<StatsArgs>, stats),
    verb("stop", "End containers, gently first", with::<StopArgs>, stop),
    verb("top", "Show the processes of a container", super::top::define, super::top::top),
    verb("update", "Change the limits of a container", with::<UpdateArgs>, update),
];

fn exists(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let args: ContainerArgs = read(matches)?;
    Ok(ExitCode::from(u8::from(containers::find(&place()?, &args.name).is_err())))
}

pub(super) fn ps(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let args: PsArgs = read(matches)?;
    report::print(&list::list(&place()?, &args, now())?)
}

pub(super) fn inspect(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let args: InspectArgs = read(matches)?;
    let place = place()?;
    let (mut documents, mut failed) = (Vec::new(), None);
    for name in &args.names {
        match one(&place, args.kind, name) {
            Ok(document) => documents.push(document),
            Err(failure) => failed = Some(report::failure(&failure)),
        }
    }
    let printed = report::print(&inspected(args.format.as_deref(), &documents)?)?;
    Ok(failed.unwrap_or(printed))
}

fn one(place: &Place, kind: Kind, name: &str) -> Result<Value, Failure> {
    let container = || containers::find(place, name).and_then(|c| document::document(place, &c));
    let image = || images::details(place, name).map(|details| super::images::document(&details));
    let volume = || volumes::find(place, name).map(|v| super::volume::document(place, &v));
    match kind {
        Kind::Container => container(),
        Kind::Image => image(),
        Kind::Volume => volume(),
        Kind::All => container().or_else(|_| image()).or_else(|_| volume()).map_err(|_| {
            Failure::new(Stage::Cli, rlrun_spec::Kind::Usage, "inspect", "inspect", name)
                .why("no such container, image or volume")
                .hint("rlrun ps -a, rlrun images and rlrun volume ls list what there is")
        }),
    }
}

pub(super) fn ports(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let args: PortArgs = read(matches)?;
    let container = containers::find(&place()?, &args.name)?;
    let mut text = String::new();
    for mapping in &container.summary.ports {
        let (inside, outside) = port(mapping);
        let wanted = args.port.as_deref().map(|p| if p.contains('/') { p.to_owned() } else { format!("{p}/tcp") });
        match wanted {
            None => text.push_str(&format!("{inside} -> {outside}\n")),
            Some(wanted) if wanted == inside => text.push_str(&format!("{outside}\n")),
            Some(_) => {}
        }
    }
    if let (Some(word), true) = (&args.port, text.is_empty()) {
        let failure = Failure::new(Stage::Cli, rlrun_spec::Kind::Usage, "port", "find the published port", word);
        return Err(failure.why(format!("{} does not publish it", args.name)));
    }
    report::print(&text)
}
