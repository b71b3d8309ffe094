//! The verbs about images.

mod history;
mod inspect;
mod list;
mod login;
mod mount;
mod progress;
mod prune;
mod transfer;

pub(super) use inspect::document;
pub(super) use list::{created, fits_filters};
pub(super) use login::{login, logout};
pub(super) use progress::progress;
pub(super) use prune::{remove, tag, untag};
pub(super) use transfer::{import, load, pull, push, save, search};

use super::{Outcome, Verb, place, read, verb, with};
use crate::arguments::images::{
    HistoryArgs, ImagesArgs, MountArgs, NameArgs, PruneArgs, RmiArgs, TagArgs, TreeArgs, UnmountArgs, UntagArgs,
};
use crate::arguments::list::InspectArgs;
use crate::arguments::transfer::{ImportArgs, LoadArgs, PullArgs, PushArgs, SaveArgs, VerifyArgs};
use crate::format::{inspected, is_template};
use crate::report;
use crate::table::now;
use clap::ArgMatches;
use rlrun_engine::images;
use rlrun_engine::trace::Marks;
use rlrun_spec::{Failure, Kind, Stage};
use serde_json::Value;
use std::process::ExitCode;

/// The verbs of `rlrun image`; those with a name of their own beside it have it in podman too.
pub(super) const VERBS: [Verb; 17] = [
    verb("exists", "Tell by the exit code whether an image is there", with::<NameArgs>, exists),
    verb("history", "Print what an image is made of", with::<HistoryArgs>, history),
    verb("import", "Make an image of a root file system archive", with::<ImportArgs>, import),
    verb("inspect", "Print all about images, as JSON", with::<InspectArgs>, inspect),
    verb("load", "Load images from an archive", with::<LoadArgs>, load),
    verb("ls", "List images", with::<ImagesArgs>, list).known_as(&["list"]),
    verb("mount", "Mount images, in a shell inside the id map", with::<MountArgs>, mount::mount),
    verb("prune", "Remove images that nothing needs", with::<PruneArgs>, prune::prune),
    verb("pull", "Fetch images from a registry", with::<PullArgs>, pull),
    verb("push", "Send an image to a registry, an archive or a directory", with::<PushArgs>, push),
    verb("rm", "Remove images", with::<RmiArgs>, remove).known_as(&["remove"]),
    verb("save", "Write images to an archive or a directory", with::<SaveArgs>, save),
    verb("tag", "Give an image further names", with::<TagArgs>, tag),
    verb("tree", "Print the layers of an image", with::<TreeArgs>, tree),
    verb("verify", "Verify the signatures that a registry has of an image", with::<VerifyArgs>, transfer::verify),
    verb("unmount", "Unmount images", with::<UnmountArgs>, mount::unmount).known_as(&["umount"]),
    verb("untag", "Take names from an image", with::<UntagArgs>, untag),
];

/// For an option of podman's that cannot be honoured: why.
fn refused(option: &str, why: &str) -> Failure {
    Failure::new(Stage::Cli, Kind::Usage, "parse-arguments", "understand the command line", option).why(why)
}

/// The digest's first twelve digits.
pub(super) fn short(digest: &str) -> &str {
    let hex = hex(digest);
    hex.get(..12).unwrap_or(hex)
}

pub(super) fn hex(digest: &str) -> &str {
    digest.strip_prefix("sha256:").unwrap_or(digest)
}

/// Does something to each name; the first failure is the verb's, and the others are done all the same.
pub(super) fn each(names: &[String], mut act: impl FnMut(&String) -> Result<String, Failure>) -> Outcome {
    let (mut text, mut failed) = (String::new(), None);
    for name in names {
        match act(name) {
            Ok(said) => text.push_str(&said),
            Err(failure) => {
                let code = report::failure(&failure);
                failed.get_or_insert(code);
            }
        }
    }
    let printed = report::print(&text)?;
    Ok(failed.unwrap_or(printed))
}

pub(super) fn list(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let args: ImagesArgs = read(matches)?;
    if args.history {
        return Err(refused("--history", "rlrun keeps no names that an image had before"));
    }
    report::print(&list::list(&place()?, &args, now())?)
}

pub(super) fn inspect(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let args: InspectArgs = read(matches)?;
    let (place, format) = (place()?, args.format.as_deref());
    inspect_named(&args.names, format, |name| {
        let mut document = inspect::document(&images::details(&place, name)?);
        if is_template(format) {
            inspect::complete_history(&mut document);
        }
        Ok(document)
    })
}

/// Prints what is known of each name; as podman, `[]` too where there is none of them.
pub(super) fn inspect_named(
    names: &[String],
    format: Option<&str>,
    one: impl Fn(&str) -> Result<Value, Failure>,
) -> Outcome {
    let (mut documents, mut failed) = (Vec::new(), None);
    for name in names {
        match one(name) {
            Ok(document) => documents.push(document),
            Err(failure) => failed = Some(report::failure(&failure)),
        }
    }
    let printed = report::print(&inspected(format, &documents)?)?;
    Ok(failed.unwrap_or(printed))
}

/// Says by its exit code alone whether there is such an image.
pub(super) fn exists(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let args: NameArgs = read(matches)?;
    Ok(ExitCode::from(u8::from(!images::exists(&place()?, &args.name)?)))
}

pub(super) fn history(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let args: HistoryArgs = read(matches)?;
    report::print(&history::history(&images::details(&place()?, &args.image)?, &args, now())?)
}

pub(super) fn tree(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let args: TreeArgs = read(matches)?;
    let place = place()?;
    let image = images::details(&place, &args.name)?;
    let mut all = Vec::new();
    for other in images::list(&place)? {
        all.push((images::details(&place, &other.id)?.layers, other.names));
    }
    report::print(&history::tree(&image, &all, args.whatrequires))
}
