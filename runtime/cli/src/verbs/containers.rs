//! `ps`, `inspect` and `port`: what there is, as it is now.

mod choice;
mod document;
mod life;
mod list;
mod usage;

use super::{Outcome, Verb, place, read, verb, with};
use crate::arguments::exec::AttachArgs;
use crate::arguments::files::{CommitArgs, CpArgs, DiffArgs, ExportArgs, MountArgs, UnmountArgs};
use crate::arguments::life::{KillArgs, PauseArgs, PruneArgs, RenameArgs, RestartArgs, StartArgs, StopArgs, WaitArgs};
use crate::arguments::look::{ContainerArgs, InspectArgs, Kind, LogsArgs, PortArgs, PsArgs};
use crate::arguments::usage::{StatsArgs, UpdateArgs};
use crate::format::is_template;
use crate::report;
use crate::table::now;
use clap::ArgMatches;
use document::port;
pub(super) use life::{
    define_remove, kill, pause, remove, remove_resting, rename, restart, resting, start, stop, unpause, wait,
};
use rlrun_engine::containers::Container;
use rlrun_engine::place::Place;
use rlrun_engine::record::Reach;
use rlrun_engine::request::exec::Which;
use rlrun_engine::trace::Marks;
use rlrun_engine::{containers, images, run, volumes};
use rlrun_spec::{Failure, Stage};
use serde_json::{Value, json};
use std::process::ExitCode;
use std::time::Duration;
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
    verb("inspect", "Print all about containers, as JSON", with::<InspectArgs>, inspect_containers),
    verb("kill", "Send a signal to containers", with::<KillArgs>, kill),
    verb("logs", "Print what containers wrote", with::<LogsArgs>, super::logs::logs),
    verb("ls", "List containers", with::<PsArgs>, ps).known_as(&["list", "ps"]),
    verb(
        "mount",
        "Mount the files of containers, in a shell inside the id map",
        with::<MountArgs>,
        super::mounts::mount,
    ),
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
    verb("unmount", "Unmount the files of containers", with::<UnmountArgs>, super::mounts::unmount)
        .known_as(&["umount"]),
    verb("update", "Change the limits of a container", with::<UpdateArgs>, update),
];

fn exists(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let args: ContainerArgs = read(matches)?;
    let place = place()?;
    run::sweep(&place, Reach::All);
    Ok(ExitCode::from(u8::from(containers::find(&place, &args.name).is_err())))
}

pub(super) fn ps(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let args: PsArgs = read(matches)?;
    let place = place()?;
    let Some(seconds) = args.watch.filter(|seconds| *seconds > 0) else {
        return report::print(&list::list(&place, &args, now())?);
    };
    // As `clear` does it, where somebody looks.
    let clear = if std::io::IsTerminal::is_terminal(&std::io::stdout()) { "\x1b[H\x1b[2J" } else { "" };
    loop {
        let printed = report::print(&format!("{clear}{}", list::list(&place, &args, now())?))?;
        if printed != ExitCode::SUCCESS {
            return Ok(printed);
        }
        std::thread::sleep(Duration::from_secs(seconds.into()));
    }
}

pub(super) fn inspect(matches: &mut ArgMatches, _: Marks) -> Outcome {
    inspect_each(read(matches)?)
}

/// `container inspect`, which finds nothing else.
fn inspect_containers(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let mut args: InspectArgs = read(matches)?;
    if args.kind == Kind::All {
        args.kind = Kind::Container;
    }
    inspect_each(args)
}

fn inspect_each(mut args: InspectArgs) -> Outcome {
    let place = place()?;
    run::sweep(&place, Reach::All);
    if args.latest {
        args.names.push(newest(&place, &args.names)?.summary.id);
    }
    if args.names.is_empty() {
        return Err(unnamed("inspect"));
    }
    super::images::inspect_named(&args.names, args.format.as_deref(), |name| one(&place, &args, name))
}

/// `--latest`.
fn newest(place: &Place, named: &[String]) -> Result<Container, Failure> {
    if let Some(name) = named.first() {
        let failure = Failure::new(Stage::Cli, rlrun_spec::Kind::Usage, "parse-arguments", "choose a container", name);
        return Err(failure.why("--latest names one already"));
    }
    rlrun_engine::exec::find(place, &Which::Latest)
}

fn unnamed(verb: &str) -> Failure {
    Failure::new(Stage::Cli, rlrun_spec::Kind::Usage, "parse-arguments", "choose a container", verb)
        .why("it names none")
        .hint("write its name or id, or --latest")
}

/// The container with this name, or the newest.
pub(super) fn named_or_newest(
    place: &Place,
    name: Option<&str>,
    latest: bool,
    verb: &str,
) -> Result<Container, Failure> {
    match (name, latest) {
        (name, true) => newest(place, &name.map(str::to_owned).into_iter().collect::<Vec<_>>()),
        (Some(name), false) => containers::find(place, name),
        (None, false) => Err(unnamed(verb)),
    }
}

fn one(place: &Place, args: &InspectArgs, name: &str) -> Result<Value, Failure> {
    let container = || {
        let container = containers::find(place, name)?;
        let mut document = document::document(place, &container)?;
        if args.size
            && let [(written, whole)] = containers::sizes(place, &[container])?[..]
        {
            document["SizeRw"] = json!(written);
            document["SizeRootFs"] = json!(whole);
        }
        if is_template(args.format.as_deref()) {
            document::complete(&mut document);
        }
        Ok(document)
    };
    let image = || images::details(place, name).map(|details| super::images::document(&details));
    let volume = || {
        let volume = volumes::find(place, name)?;
        let document = super::volume::document(place, &volume);
        Ok(if is_template(args.format.as_deref()) { super::volume::completed(document) } else { document })
    };
    match args.kind {
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
    let place = place()?;
    if args.all {
        let mut text = String::new();
        for container in containers::list(&place)?.iter().filter(|c| c.status.is_alive()) {
            for (inside, outside) in container.summary.ports.iter().map(port) {
                text.push_str(&format!("{:.12}\t{inside} -> {outside}\n", container.summary.id));
            }
        }
        return report::print(&text);
    }
    // With --latest the only word is the port.
    let (name, word) = if args.latest { (None, args.name.or(args.port)) } else { (args.name, args.port) };
    let container = named_or_newest(&place, name.as_deref(), args.latest, "port")?;
    let wanted = word.as_deref().map(|p| if p.contains('/') { p.to_owned() } else { format!("{p}/tcp") });
    let mut text = String::new();
    for (inside, outside) in container.summary.ports.iter().map(port) {
        match &wanted {
            None => text.push_str(&format!("{inside} -> {outside}\n")),
            Some(wanted) if *wanted == inside => text.push_str(&format!("{outside}\n")),
            Some(_) => {}
        }
    }
    if let (Some(word), true) = (&word, text.is_empty()) {
        let failure = Failure::new(Stage::Cli, rlrun_spec::Kind::Usage, "port", "find the published port", word);
        return Err(failure.why(format!("{} does not publish it", container.summary.name)));
    }
    report::print(&text)
}
