//! `rlrun volume`: create, ls, inspect, rm, prune, exists, export, import.

use super::images::{each, inspect_named};
use super::{Outcome, Verb, place, read, verb, with};
use crate::arguments::volume::{CreateArgs, ExportArgs, ImportArgs, InspectArgs, LsArgs, NameArgs, PruneArgs, RmArgs};
use crate::format::{Filters, Format, Heading, Row, is_template, label_fits};
use crate::report;
use crate::table::{now, timestamp};
use clap::ArgMatches;
use rlrun_engine::images::Workshop;
use rlrun_engine::place::Place;
use rlrun_engine::request::{labels, mount};
use rlrun_engine::trace::Marks;
use rlrun_engine::volumes::{self, Volume, backing};
use rlrun_engine::{files, names, record};
use rlrun_spec::{Failure, Kind, Stage};
use serde_json::{Value, json};
use std::fs::File;
use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::process::ExitCode;

pub(super) const VERBS: &[Verb] = &[
    verb("create", "Make a volume", with::<CreateArgs>, create),
    verb("exists", "Tell by the exit code whether a volume is there", with::<NameArgs>, exists),
    verb("export", "Write what is in a volume to a tar archive", with::<ExportArgs>, export),
    verb("import", "Unpack a tar archive into a volume", with::<ImportArgs>, import),
    verb("inspect", "Print all about volumes, as JSON", with::<InspectArgs>, inspect),
    verb("ls", "List volumes", with::<LsArgs>, list).known_as(&["list"]),
    verb("mount", "Print where a volume is, for a shell inside the id map", with::<NameArgs>, mountpoint),
    verb("prune", "Remove the volumes that no container uses", with::<PruneArgs>, prune),
    verb("reload", "Look for volumes of other drivers; there are none", |c| c, |_, _| Ok(ExitCode::SUCCESS)),
    verb("rm", "Remove volumes", with::<RmArgs>, remove).known_as(&["remove"]),
    verb("unmount", "Print the name of a volume, which needs no unmount", with::<NameArgs>, unmount),
];

/// A volume is a directory, and needs no mount.
fn mountpoint(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let args: NameArgs = read(matches)?;
    let place = Place::of_caller()?;
    report::print(&format!("{}\n", volumes::find(&place, &args.name)?.mountpoint(&place).display()))
}

/// The name of what was never mounted.
fn unmount(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let args: NameArgs = read(matches)?;
    report::print(&format!("{}\n", volumes::find(&Place::of_caller()?, &args.name)?.name))
}

const FILTERS: &[&str] = &["after", "anonymous", "dangling", "driver", "label", "label!", "name", "since", "until"];

fn create(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let args: CreateArgs = read(matches)?;
    if args.driver != "local" {
        let failure = Failure::new(Stage::Cli, Kind::Usage, "volume", "create a volume with the driver", args.driver);
        return Err(failure.why("no such driver").hint("leave out --driver: volumes are local directories"));
    }
    let options = backing::options(&args.opt)?;
    let place = place()?;
    let name = match args.name {
        Some(name) => mount::volume_name("VOLUME", &name)?,
        None => names::container_id()?,
    };
    let labels = args.label.iter().map(|l| labels::label("--label", l)).collect::<Result<_, _>>()?;
    match volumes::create(&place, &name, labels, options) {
        Err(_) if args.ignore && volumes::find(&place, &name).is_ok_and(|v| v.name == name) => {}
        other => drop(other?),
    }
    report::print(&format!("{name}\n"))
}

fn export(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let args: ExportArgs = read(matches)?;
    let place = place()?;
    let volume = volumes::find(&place, &args.name)?;
    let out = super::files::output(args.output.as_deref().filter(|path| *path != Path::new("-")))?;
    files::export_volume(&place, &volume, out)?;
    Ok(ExitCode::SUCCESS)
}

fn import(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let args: ImportArgs = read(matches)?;
    let place = place()?;
    let volume = volumes::find(&place, &args.name)?;
    let failed = |e: std::io::Error| {
        let object = args.source.display().to_string();
        Failure::new(Stage::Cli, Kind::Usage, "open-archive", "open the archive", object).why(e.to_string())
    };
    let input: OwnedFd = match args.source == Path::new("-") {
        true => std::io::stdin().as_fd().try_clone_to_owned().map_err(failed)?,
        false => File::open(&args.source).map_err(failed)?.into(),
    };
    files::import_volume(&place, &volume, input)?;
    report::print(&format!("{}\n", volume.name))
}

fn exists(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let args: NameArgs = read(matches)?;
    Ok(ExitCode::from(u8::from(!volumes::find(&place()?, &args.name).is_ok_and(|v| v.name == args.name))))
}

/// Field names as in `podman volume inspect`.
pub(super) fn document(place: &Place, volume: &Volume) -> Value {
    json!({
        "Name": volume.name,
        "Driver": "local",
        "Mountpoint": volume.mountpoint(place),
        "CreatedAt": timestamp(volume.created),
        "Labels": volume.labels,
        "Scope": "local",
        "Options": volume.options,
        "Anonymous": volume.anonymous,
        "NeedsCopyUp": volume.is_fresh(place),
        "MountCount": record::volumes_in_use(place).iter().filter(|(name, _)| *name == volume.name).count(),
    })
}

/// With what podman's templates know and its JSON leaves out.
pub(super) fn completed(mut document: Value) -> Value {
    let asked = |name: &str| {
        let options = document["Options"]["o"].as_str().unwrap_or_default();
        let number = options.split(',').find_map(|word| word.strip_prefix(name)?.strip_prefix('=')?.parse().ok());
        number.unwrap_or(0_u32)
    };
    let (uid, gid) = (asked("uid"), asked("gid"));
    for (name, value) in [
        ("UID", json!(uid)),
        ("GID", json!(gid)),
        ("NeedsChown", json!(false)),
        ("Status", json!({})),
        ("StorageID", json!("")),
        ("Timeout", json!(0)),
    ] {
        document[name] = value;
    }
    document
}

fn inspect(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let args: InspectArgs = read(matches)?;
    let place = place()?;
    let names = match args.all {
        true => volumes::list(&place)?.into_iter().map(|volume| volume.name).collect(),
        false => args.names,
    };
    let format = args.format.as_deref();
    inspect_named(&names, format, |name| {
        let document = document(&place, &volumes::find(&place, name)?);
        Ok(if is_template(format) { completed(document) } else { document })
    })
}

fn list(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let args: LsArgs = read(matches)?;
    let place = place()?;
    let all = chosen(&place, volumes::list(&place)?, &args.list.filter)?;
    if args.list.quiet {
        return report::print(&all.iter().map(|v| format!("{}\n", v.name)).collect::<String>());
    }
    let format = Format::parse(args.list.format.as_deref(), "{{.Driver}}\t{{.Name}}")?;
    let row = |v: &Volume| {
        let document = document(&place, v);
        Row { fields: completed(document.clone()), document }
    };
    let rows: Vec<Row> = all.iter().map(row).collect();
    report::print(&format.list(&rows, &[("Name", "VOLUME NAME")], Heading::from(args.list.noheading))?)
}

/// The volumes that fit all filters.
pub(super) fn chosen(place: &Place, mut all: Vec<Volume>, words: &[String]) -> Result<Vec<Volume>, Failure> {
    let filters = Filters::parse(words, FILTERS)?;
    let (dangling, anonymous) = (filters.truth("dangling")?, filters.truth("anonymous")?);
    let until = filters.moments("until", now())?;
    let mut since = Vec::new();
    for name in filters.values("since").chain(filters.values("after")) {
        since.push(volumes::find(place, name)?.created);
    }
    let used = if dangling.is_some() { record::volumes_in_use(place) } else { Vec::new() };
    all.retain(|volume| {
        let labels = || volume.labels.iter().map(|(k, v)| (k.as_str(), v.as_str()));
        let in_use = used.iter().any(|(name, _)| *name == volume.name);
        dangling.is_none_or(|wanted| wanted != in_use)
            && anonymous.is_none_or(|wanted| wanted == volume.anonymous)
            && until.iter().all(|moment| volume.created / 1_000_000_000 < *moment)
            && since.iter().all(|moment| volume.created > *moment)
            && filters.any("name", |word| volume.name.contains(word))
            && filters.any("driver", |word| word == "local")
            && filters.all("label", |word| label_fits(word, labels()))
            && filters.all("label!", |word| !label_fits(word, labels()))
    });
    Ok(all)
}

fn remove(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let args: RmArgs = read(matches)?;
    let workshop = Workshop::open(place()?)?;
    if args.all {
        let removed = workshop.prune_volumes(&|_| true)?;
        return report::print(&removed.iter().map(|name| format!("{name}\n")).collect::<String>());
    }
    let mut worst = None;
    let code = each(&args.names, |name| {
        if args.force && volumes::find(workshop.place(), name).is_err() {
            return Ok(String::new());
        }
        let removed = workshop.remove_volume(name).map(|volume| format!("{}\n", volume.name));
        // As podman's: 1 where it is not there, 2 where a container needs it, which counts more.
        let own = removed.as_ref().err().map(|failure| match failure.step.as_str() {
            volumes::UNKNOWN => 1,
            volumes::IN_USE => 2,
            _ => failure.kind.exit_code(),
        });
        worst = worst.max(own);
        removed
    })?;
    Ok(worst.map_or(code, ExitCode::from))
}

fn prune(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let args: PruneArgs = read(matches)?;
    let workshop = Workshop::open(place()?)?;
    let fitting = chosen(workshop.place(), volumes::list(workshop.place())?, &args.filter)?;
    if !args.force
        && !sure("This removes all volumes that no container uses. Are you sure you want to continue? [y/N] ")?
    {
        return Ok(ExitCode::SUCCESS);
    }
    let removed = workshop.prune_volumes(&|volume| fitting.iter().any(|v| v.name == volume.name))?;
    report::print(&removed.iter().map(|name| format!("{name}\n")).collect::<String>())
}

/// Asks whoever sits at the terminal. Without one there is nobody to ask, and nothing is done without `--force`.
pub(super) fn sure(question: &str) -> Result<bool, Failure> {
    let failure = || Failure::new(Stage::Cli, Kind::Usage, "ask", "ask", question.trim());
    if !std::io::stdin().is_terminal() {
        return Err(failure().why("standard input is not a terminal").hint("--force does not ask"));
    }
    let mut answer = String::new();
    eprint!("{question}");
    std::io::stderr()
        .flush()
        .and_then(|()| std::io::stdin().lock().read_line(&mut answer))
        .map_err(|e| failure().why(e.to_string()))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
