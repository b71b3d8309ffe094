//! `rmi`, `image prune`, `tag` and `untag`.

use super::list::{created, fits_filters};
use super::{Outcome, each, hex, place, read};
use crate::arguments::images::{PruneArgs, RmiArgs, TagArgs, UntagArgs};
use crate::report;
use crate::table::now;
use clap::ArgMatches;
use rlrun_engine::images::{self, RemoveMode, Removed, Workshop};
use rlrun_engine::trace::Marks;
use rlrun_spec::{Failure, Kind, Stage};
use std::io::Write as _;
use std::process::ExitCode;

pub(crate) fn remove(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let args: RmiArgs = read(matches)?;
    let workshop = Workshop::open(place()?)?;
    let mode = if args.force { RemoveMode::Force } else { RemoveMode::Normal };
    if args.all {
        return all(&workshop, args.force);
    }
    if args.images.is_empty() {
        return Err(Failure::new(Stage::Cli, Kind::Usage, "parse-arguments", "understand the command line", "IMAGE")
            .why("is missing")
            .hint("rlrun rmi --help"));
    }
    each(&args.images, |name| match workshop.remove(name, mode) {
        Err(failure) if args.ignore && failure.step == "image-unknown" => Ok(String::new()),
        other => other.map(|removed| told(&removed)),
    })
}

/// All that no container uses; that one is used is told, and is the failure.
fn all(workshop: &Workshop, force: bool) -> Outcome {
    let removed = workshop.prune(&|_| true)?;
    let printed = report::print(&told(&removed))?;
    let kept = images::list(&place()?, None)?;
    match kept.first() {
        Some(image) if !force => {
            let name = image.names.first().unwrap_or(&image.id);
            Err(Failure::new(Stage::Cli, Kind::Runtime, "image-in-use", "remove the image", name)
                .why("a container uses it")
                .hint("`rlrun rm` removes containers"))
        }
        _ => Ok(printed),
    }
}

fn told(removed: &Removed) -> String {
    let untagged = removed.untagged.iter().map(|name| format!("Untagged: {name}\n"));
    let deleted = removed.deleted.iter().map(|id| format!("Deleted: {}\n", hex(id)));
    untagged.chain(deleted).collect()
}

pub(super) fn prune(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let args: PruneArgs = read(matches)?;
    let what = if args.all { "all images that no container uses" } else { "all images without a name" };
    let fits = fits_filters(&args.filter, now(), &|name| Ok(created(&images::details(&place()?, name)?.summary)))?;
    if !args.force && !confirmed(&format!("WARNING! This command removes {what}."))? {
        return Ok(ExitCode::SUCCESS);
    }
    let removed = Workshop::open(place()?)?.prune(&|image| (args.all || image.names.is_empty()) && fits(image))?;
    report::print(&removed.deleted.iter().map(|id| format!("{}\n", hex(id))).collect::<String>())
}

/// Asks on standard error, reads standard input; no answer is no.
pub(crate) fn confirmed(warning: &str) -> Result<bool, Failure> {
    let mut answer = String::new();
    let asked = write!(std::io::stderr(), "{warning}\nAre you sure you want to continue? [y/N] ");
    asked.and_then(|()| std::io::stdin().read_line(&mut answer)).map_err(|e| {
        Failure::new(Stage::Cli, Kind::Runtime, "confirm", "read the answer from", "standard input")
            .why(e.to_string())
            .hint("--force does not ask")
    })?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

pub(crate) fn tag(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let args: TagArgs = read(matches)?;
    images::tag(&place()?, &args.image, &args.names)?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn untag(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let args: UntagArgs = read(matches)?;
    images::untag(&place()?, &args.image, &args.names)?;
    Ok(ExitCode::SUCCESS)
}
