//! `mount` and `unmount`: the files of containers, to be looked at in a shell inside the id map.

use super::images::each;
use super::{Outcome, read};
use crate::arguments::files::{MountArgs, UnmountArgs};
use crate::report;
use clap::ArgMatches;
use rlrun_engine::containers::{self, Container};
use rlrun_engine::images;
use rlrun_engine::place::Place;
use rlrun_engine::trace::Marks;
use rlrun_spec::{Failure, Kind, Stage};
use serde_json::{Value, json};

pub(super) fn mount(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let args: MountArgs = read(matches)?;
    let place = Place::of_caller()?;
    let json = match args.format.as_deref() {
        None => false,
        Some("json") => true,
        Some(other) => {
            let failure = Failure::new(Stage::Cli, Kind::Usage, "parse-arguments", "understand --format", other);
            return Err(failure.why("it is not json").hint("leave it out, or write --format json"));
        }
    };
    let mut names = args.names;
    if args.latest {
        names.extend(containers::list(&place)?.pop().map(|newest| newest.summary.id));
    }
    if args.all {
        names.extend(containers::list(&place)?.into_iter().map(|container| container.summary.id));
    }
    if !names.is_empty() && !args.all {
        return each(&names, |name| {
            let path = images::mount_container(&place, &containers::find(&place, name)?)?;
            Ok(format!("{}\n", path.display()))
        });
    }
    for name in &names {
        images::mount_container(&place, &containers::find(&place, name)?)?;
    }
    let (mut text, mut documents) = (String::new(), Vec::new());
    for Container { summary, .. } in &containers::list(&place)? {
        let Some(path) = images::mounted_container(&place, &summary.id)? else { continue };
        let id = if args.no_trunc { summary.id.as_str() } else { summary.id.get(..12).unwrap_or_default() };
        text.push_str(&format!("{id}  {}\n", path.display()));
        documents.push(json!({"id": summary.id, "Names": [summary.name], "mountpoint": path}));
    }
    report::print(&if json { format!("{:#}\n", Value::Array(documents)) } else { text })
}

pub(super) fn unmount(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let args: UnmountArgs = read(matches)?;
    let place = Place::of_caller()?;
    let mut names = args.names;
    let all = if args.all || args.latest { containers::list(&place)? } else { Vec::new() };
    let chosen = if args.latest { all.len().saturating_sub(1) } else { 0 };
    for container in &all[chosen..] {
        if args.latest || images::mounted_container(&place, &container.summary.id)?.is_some() {
            names.push(container.summary.id.clone());
        }
    }
    each(&names, |name| {
        let id = containers::find(&place, name)?.summary.id;
        images::unmount_container(&place, &id, args.force)?;
        Ok(format!("{id}\n"))
    })
}
