//! `system df` and `system check`.

use super::{Outcome, Verb, place, read, verb, with};
use crate::arguments::system::{CheckArgs, DfArgs};
use crate::format::{Format, Heading, Row};
use crate::report;
use crate::table::size;
use clap::ArgMatches;
use rlrun_engine::images::{self, Workshop};
use rlrun_engine::trace::Marks;
use rlrun_spec::{Failure, Kind, Stage};
use serde_json::json;

/// The verbs of `rlrun system`.
pub(super) const VERBS: [Verb; 2] = [
    verb("check", "Compare everything in the image store with its digest", with::<CheckArgs>, check),
    verb("df", "Tell what images take of the disk", with::<DfArgs>, df),
];

const COLUMNS: &str = "{{.Type}}\t{{.Total}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}";

fn df(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let args: DfArgs = read(matches)?;
    let usage = images::usage(&place()?)?;
    let share = (usage.reclaimable * 100).checked_div(usage.bytes).unwrap_or_default();
    let row = Row {
        document: json!({
            "Type": "Images",
            "Total": usage.images,
            "Active": usage.active,
            "RawSize": usage.bytes,
            "RawReclaimable": usage.reclaimable,
            "Size": size(usage.bytes),
            "Reclaimable": format!("{} ({share}%)", size(usage.reclaimable)),
            "TotalCount": usage.images,
        }),
        fields: json!({
            "Type": "Images",
            "Total": usage.images,
            "Active": usage.active,
            "Size": size(usage.bytes),
            "Reclaimable": format!("{} ({share}%)", size(usage.reclaimable)),
        }),
    };
    let format = Format::parse(args.format.as_deref(), COLUMNS)?;
    report::print(&format.list(&[row], &[], Heading::Shown)?)
}

fn check(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let args: CheckArgs = read(matches)?;
    let place = place()?;
    let checked = images::check(&place)?;
    let mut text: String = checked.damage.iter().map(|d| format!("Damaged image {}: {}\n", d.image, d.why)).collect();
    if !args.quiet {
        text.push_str(&format!("{} images and {} blobs checked\n", checked.images, checked.blobs));
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
