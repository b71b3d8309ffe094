//! `rmi`, `image prune`, `tag` and `untag`.

use super::list::fits_filters;
use super::{Outcome, hex, place, read};
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
    let (mut text, mut codes) = (String::new(), Vec::new());
    for name in &args.images {
        match workshop.remove(name, mode) {
            Ok(removed) => text.push_str(&told(&removed)),
            // As podman's, --force takes it that an image is gone, however it went.
            Err(failure) if (args.ignore || args.force) && failure.step == "image-unknown" => {}
            Err(failure) => {
                let code = report::failure(&failure);
                codes.push((failure.step, code));
            }
        }
    }
    let printed = report::print(&text)?;
    Ok(code_of(&codes).unwrap_or(printed))
}

/// As podman's: 1 when all that was wrong is that there was no such image, 2 when one is in use.
fn code_of(failed: &[(String, ExitCode)]) -> Option<ExitCode> {
    let (_, first) = failed.first()?;
    let all = |steps: &[&str]| failed.iter().all(|(step, _)| steps.contains(&step.as_str()));
    Some(match () {
        () if all(&["image-unknown"]) => ExitCode::from(1),
        () if all(&["image-unknown", "image-in-use"]) => ExitCode::from(2),
        () => *first,
    })
}

/// All that no container uses; that one is used is told, and is the failure.
fn all(workshop: &Workshop, force: bool) -> Outcome {
    let removed = workshop.prune(&|_| true)?;
    let printed = report::print(&told(&removed))?;
    let kept = images::list(&place()?)?;
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
    let fits = fits_filters(&args.filter, now(), &place()?)?;
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
