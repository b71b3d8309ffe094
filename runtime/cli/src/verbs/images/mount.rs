//! `image mount` and `unmount`, for shells inside the id map, where the verbs for everybody refuse: who is root there is
//! the user.

use super::{Outcome, each, hex, read};
use crate::arguments::images::{MountArgs, UnmountArgs};
use crate::report;
use clap::ArgMatches;
use rlrun_engine::images::{self, Mounted};
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
    if !args.images.is_empty() && !json {
        return each(&args.images, |name| Ok(format!("{}\n", images::mount(&place, name)?.display())));
    }
    for name in &args.images {
        images::mount(&place, name)?;
    }
    if args.all {
        for image in images::list(&place)? {
            images::mount(&place, &image.id)?;
        }
    }
    let mut mounted = images::mounted(&place)?;
    let asked = args.images.iter().map(|name| Ok(images::details(&place, name)?.summary.id));
    let asked = asked.collect::<Result<Vec<_>, Failure>>()?;
    mounted.retain(|m| asked.is_empty() || asked.contains(&m.image));
    listed(&place, &mounted, json)
}

fn listed(place: &Place, mounted: &[Mounted], json: bool) -> Outcome {
    let (mut text, mut documents) = (String::new(), Vec::new());
    for Mounted { image, path } in mounted {
        let summary = images::details(place, image)?.summary;
        let name = summary.names.first().or(summary.digests.first()).cloned();
        text.push_str(&format!("{} {}\n", name.as_deref().unwrap_or(hex(image)), path.display()));
        documents.push(json!({"id": hex(image), "Repositories": summary.names, "mountpoint": path}));
    }
    report::print(&if json { format!("{:#}\n", Value::Array(documents)) } else { text })
}

pub(super) fn unmount(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let args: UnmountArgs = read(matches)?;
    let place = Place::of_caller()?;
    if args.all {
        let ids = images::unmount_all(&place, args.force)?;
        return report::print(&ids.iter().map(|id| format!("{}\n", hex(id))).collect::<String>());
    }
    each(&args.images, |name| Ok(format!("{}\n", hex(&images::unmount(&place, name, args.force)?))))
}
