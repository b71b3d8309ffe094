//! `cp`, `diff`, `export` and `commit`: the files of containers.

use super::containers::named_or_newest;
use super::images::progress;
use super::{Outcome, place, read};
use crate::arguments::files::{CommitArgs, CpArgs, DiffArgs, ExportArgs, UnshareArgs};
use crate::report;
use clap::ArgMatches;
use rlrun_engine::images::{CommitRequest, Workshop};
use rlrun_engine::request::change;
use rlrun_engine::trace::Marks;
use rlrun_engine::{containers, files, journal, life};
use rlrun_spec::{Failure, Kind, Stage};
use serde_json::{Map, Value, json};
use std::fs::File;
use std::io::{IsTerminal as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::process::ExitCode;

pub(super) fn copy(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let args: CpArgs = read(matches)?;
    let (from, to) = (files::end(&args.from), files::end(&args.to));
    if to == files::End::Stream {
        not_a_terminal()?;
    }
    let options = files::CopyOptions { archive: args.archive, overwrite: args.overwrite };
    files::copy(&place()?, &from, &to, options)?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn diff(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let args: DiffArgs = read(matches)?;
    let json = match args.format.as_deref() {
        None => false,
        Some("json") => true,
        Some(other) => {
            let failure = Failure::new(Stage::Cli, Kind::Usage, "parse-arguments", "print the changes as", other);
            return Err(failure.why("no such format").hint("write --format json, or leave it out"));
        }
    };
    let place = place()?;
    let of_image = |name: &str| files::diff_image(&place, name);
    let all = match args.name.as_deref().filter(|_| !args.latest) {
        // A container first, as podman does it.
        Some(name) => match containers::find(&place, name) {
            Err(failure) if containers::is_missing(&failure) => of_image(name).map_err(|_| failure)?,
            container => files::diff(&place, &container?)?,
        },
        None => files::diff(&place, &named_or_newest(&place, args.name.as_deref(), args.latest, "diff")?)?,
    };
    let path = |change: &files::Change| String::from_utf8_lossy(&change.path).into_owned();
    if json {
        let mut document = Map::new();
        for change in &all {
            let list = document.entry(words(change.kind).1).or_insert_with(|| json!([]));
            if let Some(list) = list.as_array_mut() {
                list.push(Value::String(path(change)));
            }
        }
        return report::print(&format!("{}\n", Value::Object(document)));
    }
    report::print(&all.iter().map(|change| format!("{} {}\n", words(change.kind).0, path(change))).collect::<String>())
}

/// Podman's letter, and its word in JSON.
fn words(kind: files::ChangeKind) -> (&'static str, &'static str) {
    match kind {
        files::ChangeKind::Added => ("A", "added"),
        files::ChangeKind::Changed => ("C", "changed"),
        files::ChangeKind::Deleted => ("D", "deleted"),
    }
}

pub(super) fn export(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let args: ExportArgs = read(matches)?;
    let place = place()?;
    let container = containers::find(&place, &args.name)?;
    let file = args.output.as_deref().filter(|path| *path != Path::new("-"));
    let destination = file.map_or("-".to_owned(), |path| path.display().to_string());
    files::export(&place, &container, &destination, || output(file))?;
    let about = json!({});
    journal::event("container", "export", &container.summary.id, &container.summary.name, about);
    Ok(ExitCode::SUCCESS)
}

/// Where an archive goes.
pub(super) fn output(path: Option<&Path>) -> Result<OwnedFd, Failure> {
    let failed = |object: &str, e: &std::io::Error| {
        let failure = Failure::new(Stage::Cli, Kind::Usage, "write-archive", "write the archive to", object);
        match e.raw_os_error() {
            Some(errno) => failure.errno(errno),
            None => failure.why(e.to_string()),
        }
    };
    if let Some(path) = path {
        return File::create(path).map(OwnedFd::from).map_err(|e| failed(&path.display().to_string(), &e));
    }
    not_a_terminal()?;
    std::io::stdout().as_fd().try_clone_to_owned().map_err(|e| failed("standard output", &e))
}

/// An archive is nothing for a terminal.
fn not_a_terminal() -> Result<(), Failure> {
    if !std::io::stdout().is_terminal() {
        return Ok(());
    }
    Err(Failure::new(Stage::Cli, Kind::Usage, "write-archive", "write the archive to", "standard output")
        .why("it is a terminal")
        .hint("send it to a file or a program: `> FILE`, `| tar t`"))
}

pub(super) fn commit(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let args: CommitArgs = read(matches)?;
    let usage = |what: &str, object: &str| Failure::new(Stage::Cli, Kind::Usage, "parse-arguments", what, object);
    let docker = match args.format.as_str() {
        "oci" => false,
        "docker" => true,
        other => return Err(usage("invalid --format", other).why("no such format").hint("choose oci or docker")),
    };
    let place = place()?;
    let mut changes = Vec::new();
    for word in &args.change {
        changes.extend(change::change(word)?);
    }
    let request = CommitRequest {
        container: args.container,
        name: args.name,
        changes,
        author: args.author,
        message: args.message,
        squash: args.squash,
        include_volumes: args.include_volumes,
        docker,
    };
    // It was to stand still for that and nothing else: also a command that is killed lets it go on.
    let held = args.pause.then(|| life::hold(&containers::find(&place, &request.container)?)).transpose()?.flatten();
    let made = Workshop::open(place).and_then(|workshop| workshop.commit(&request, &progress(args.quiet)));
    let going_on = held.map_or(Ok(()), life::Held::let_go);
    let image = made?;
    going_on?;
    let id = image.identity.id.trim_start_matches("sha256:");
    if let Some(path) = &args.iidfile {
        let shown = path.display().to_string();
        File::create(path)
            .and_then(|mut file| file.write_all(image.identity.id.as_bytes()))
            .map_err(|e| usage("write the id to", &shown).why(e.to_string()))?;
    }
    report::print(&format!("{id}\n"))
}

pub(super) fn unshare(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let args: UnshareArgs = read(matches)?;
    rlrun_engine::unshare::unshare(&place()?, &args.words).map(ExitCode::from)
}
