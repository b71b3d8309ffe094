//! `system df`, `system prune`, `system check` and `system reset`.

use super::documents::InfoArgs;
use super::images::{created, fits_filters, hex, progress, short};
use super::volume::{self, sure};
use super::{Outcome, Verb, containers, place, read, verb, with};
use crate::arguments::system::{CheckArgs, DfArgs, PruneArgs, ResetArgs};
use crate::format::{Filters, Format, Heading, Row};
use crate::report;
use crate::table::{ago, now, size};
use clap::ArgMatches;
use rlrun_engine::images::{self, Share, Shares, Workshop};
use rlrun_engine::trace::Marks;
use rlrun_engine::volumes;
use rlrun_spec::{Failure, Kind, Stage};
use serde_json::{Value, json};
use std::process::ExitCode;

/// The verbs of `rlrun system`.
pub(super) const VERBS: [Verb; 6] = [
    verb("check", "Compare everything in the image store with its digest", with::<CheckArgs>, check),
    verb("df", "Tell what images, containers and volumes take of the disk", with::<DfArgs>, df),
    verb("info", "Print what this host is, as `rlrun info`", with::<InfoArgs>, super::documents::info),
    verb("prune", "Remove containers that do not run, and images that nothing needs", with::<PruneArgs>, prune),
    verb("reset", "Remove all containers, images and volumes", with::<ResetArgs>, reset),
    verb("share", "Let other users of this machine use the images", |c| c, share),
];

const COLUMNS: &str = "{{.Type}}\t{{.Total}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}";

fn df(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let args: DfArgs = read(matches)?;
    let workshop = Workshop::open(place()?)?;
    let shares = images::shares(&workshop)?;
    if args.verbose {
        return report::print(&each_thing(&workshop, &shares)?);
    }
    let rows = [("Images", shares.images), ("Containers", shares.containers), ("Local Volumes", shares.volumes)];
    let format = Format::parse(args.format.as_deref(), COLUMNS)?;
    report::print(&format.list(&rows.map(|(kind, share)| row(kind, &share)), &[], Heading::Shown)?)
}

/// Field names as podman's.
fn row(kind: &str, share: &Share) -> Row {
    let percent = (share.reclaimable * 100).checked_div(share.bytes).unwrap_or_default();
    let fields = json!({
        "Type": kind,
        "Total": share.total,
        "Active": share.active,
        "Size": size(share.bytes),
        "Reclaimable": format!("{} ({percent}%)", size(share.reclaimable)),
    });
    let mut document = fields.clone();
    document["RawSize"] = share.bytes.into();
    document["RawReclaimable"] = share.reclaimable.into();
    document["TotalCount"] = share.total.into();
    Row { document, fields }
}

fn each_thing(workshop: &Workshop, shares: &Shares) -> Result<String, Failure> {
    let now = now();
    let mut images = Vec::new();
    for image in images::list(workshop.place())? {
        let names = if image.names.is_empty() { vec!["<none>:<none>".to_owned()] } else { image.names.clone() };
        let containers = shares.each_container.iter();
        let containers = containers.filter(|(c, _)| c.summary.image.as_ref().is_some_and(|i| i.id == image.id)).count();
        for name in names {
            let (repository, tag) = name.rsplit_once(':').unwrap_or((&name, "<none>"));
            images.push(line(json!({
                "Repository": repository,
                "Tag": tag,
                "ImageID": short(&image.id),
                "Created": ago(created(&image), now),
                "Size": size(image.size),
                "Containers": containers,
            })));
        }
    }
    let containers = shares.each_container.iter().map(|(container, bytes)| {
        let summary = &container.summary;
        line(json!({
            "ContainerID": short(&summary.id),
            "Image": summary.image.as_ref().map_or("", |i| i.reference.as_str()),
            "Command": summary.command.join(" "),
            "Size": size(*bytes),
            "Created": ago(summary.created / 1_000_000_000, now),
            "Status": container.status.word(),
            "Names": summary.name,
        }))
    });
    let volumes = shares.each_volume.iter();
    let volumes =
        volumes.map(|(name, links, bytes)| line(json!({"VolumeName": name, "Links": links, "Size": size(*bytes)})));
    Ok(format!(
        "Images space usage:\n\n{}\nContainers space usage:\n\n{}\nLocal Volumes space usage:\n\n{}",
        table("{{.Repository}}\t{{.Tag}}\t{{.ImageID}}\t{{.Created}}\t{{.Size}}\t{{.Containers}}", &images)?,
        table(
            "{{.ContainerID}}\t{{.Image}}\t{{.Command}}\t{{.Size}}\t{{.Created}}\t{{.Status}}\t{{.Names}}",
            &containers.collect::<Vec<_>>()
        )?,
        table("{{.VolumeName}}\t{{.Links}}\t{{.Size}}", &volumes.collect::<Vec<_>>())?,
    ))
}

fn line(fields: Value) -> Row {
    Row { document: fields.clone(), fields }
}

fn table(columns: &str, rows: &[Row]) -> Result<String, Failure> {
    const HEADINGS: &[(&str, &str)] =
        &[("ImageID", "IMAGE ID"), ("ContainerID", "CONTAINER ID"), ("VolumeName", "VOLUME NAME")];
    Format::parse(None, columns)?.list(rows, HEADINGS, Heading::Shown)
}

/// What is to be written where is told, because the file is the other users' or the administrator's.
fn share(_: &mut ArgMatches, _: Marks) -> Outcome {
    let place = place()?;
    images::share(&place)?;
    report::print(&format!(
        "Others find the images with this line in /etc/rlrun/images.toml or ~/.config/rlrun/images.toml,\n\
         if they may enter the directories above:\n\nadditional-stores = [\"{}\"]\n",
        place.data.display()
    ))
}

fn prune(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let args: PruneArgs = read(matches)?;
    Filters::parse(&args.filter, &["label", "label!", "until"])?;
    let workshop = Workshop::open(place()?)?;
    if !args.force {
        let images = if args.all { "images that no container uses" } else { "images without a name" };
        let volumes = if args.volumes { "\n        - all volumes that no container uses" } else { "" };
        eprintln!(
            "WARNING! This command removes:\n        - all containers that do not run{volumes}\n        - all {images}\n"
        );
        if !sure("Are you sure you want to continue? [y/N] ")? {
            return Ok(ExitCode::SUCCESS);
        }
    }
    let before = taken(&workshop)?;
    let resting = containers::resting(workshop.place(), &args.filter)?;
    heading("Deleted Containers", resting.len())?;
    let code = containers::remove_resting(&workshop, &resting)?;
    if args.volumes {
        let fitting = volume::chosen(workshop.place(), volumes::list(workshop.place())?, &args.filter)?;
        let removed = workshop.prune_volumes(&|volume| fitting.iter().any(|v| v.name == volume.name))?;
        heading("Deleted Volumes", removed.len())?;
        report::print(&removed.iter().map(|name| format!("{name}\n")).collect::<String>())?;
    }
    let fits = fits_filters(&args.filter, now(), workshop.place())?;
    let removed = workshop.prune(&|image| (args.all || image.names.is_empty()) && fits(image))?;
    heading("Deleted Images", removed.deleted.len())?;
    report::print(&removed.deleted.iter().map(|id| format!("{}\n", hex(id))).collect::<String>())?;
    let freed = before.saturating_sub(taken(&workshop)?);
    report::print(&format!("Total reclaimed space: {}\n", size(freed).replace(' ', "")))?;
    Ok(code)
}

/// Above a list that has something in it.
fn heading(text: &str, count: usize) -> Outcome {
    if count == 0 { Ok(ExitCode::SUCCESS) } else { report::print(&format!("{text}\n")) }
}

/// Bytes of everything that can be pruned.
fn taken(workshop: &Workshop) -> Result<u64, Failure> {
    let shares = images::shares(workshop)?;
    Ok(shares.images.bytes + shares.containers.bytes + shares.volumes.bytes)
}

fn reset(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let args: ResetArgs = read(matches)?;
    let workshop = Workshop::open(place()?)?;
    if !args.force {
        eprintln!(
            "WARNING! This will remove:\n        - all containers, running or not\n        - all images\n        - all volumes\n        \
             - all secrets\n        - all policies that were pulled\n        - all compiled policies and filters\nThe audit log and the configuration stay."
        );
        if !sure("Are you sure you want to continue? [y/N] ")? {
            return Ok(ExitCode::SUCCESS);
        }
    }
    workshop.reset()?;
    Ok(ExitCode::SUCCESS)
}

fn check(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let args: CheckArgs = read(matches)?;
    let place = place()?;
    let checked = images::check(&place, &progress(args.quiet))?;
    let left = images::leftovers(&place)?;
    let mut text: String = checked.damage.iter().map(|d| format!("Damaged image {}: {}\n", d.image, d.why)).collect();
    let fate = if args.repair { ", and removed" } else { "; --repair, the next run or pull removes it" };
    text.extend(left.iter().map(|path| format!("Left by a command that was killed: {}{fate}\n", path.display())));
    if args.repair && !left.is_empty() {
        Workshop::open(place.clone())?.clear_leftovers()?;
    }
    if !args.quiet {
        let images::Checked { images, blobs, layers, .. } = &checked;
        text.push_str(&format!("{images} images, {blobs} blobs and {layers} extracted layers checked\n"));
    }
    let printed = report::print(&text)?;
    let left = match (checked.damage.is_empty(), args.repair) {
        (true, _) => return Ok(printed),
        (false, false) => checked.damage,
        (false, true) => Workshop::open(place)?.repair(&checked)?,
    };
    match left.first() {
        None => Ok(printed),
        Some(first) => {
            Err(Failure::new(Stage::Cli, Kind::Runtime, "store-damage", "check the image store", &first.image)
                .why(first.why.clone())
                .hint(match args.repair {
                    true => "remove the container with `rlrun rm`, then repair again",
                    false => "`rlrun system check --repair` removes damaged images; then pull or load them again",
                }))
        }
    }
}
