//! `policy check FILE`.

use super::super::{Outcome, place, read};
use super::{hooks, refused};
use crate::report;
use crate::table::columns;
use clap::{ArgMatches, Args};
use rlrun_engine::policies::{self, Inspection};
use rlrun_engine::trace::Marks;
use std::path::PathBuf;

#[derive(Args, Debug)]
pub(super) struct CheckArgs {
    /// The policy
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Settings instead of those beside FILE
    #[arg(long, value_name = "FILE")]
    settings: Option<PathBuf>,
}

pub(super) fn check(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let CheckArgs { file, settings } = read(matches)?;
    let inspection = policies::check(&place()?, &file, settings.as_deref())?;
    let printed = report::print(&describe(&inspection))?;
    match refused(&inspection) {
        None => Ok(printed),
        // Nobody has given it settings yet; whether it takes them cannot be told.
        Some(failure) if inspection.settings == "{}" => {
            rlrun_engine::warn(&format!("it needs settings: {failure}"));
            Ok(printed)
        }
        Some(failure) => Err(failure),
    }
}

fn describe(inspection: &Inspection) -> String {
    let or_none = |words: &[String]| if words.is_empty() { "none".to_owned() } else { words.join(", ") };
    let mut rows = vec![
        ("name:", inspection.id.name.clone()),
        ("digest:", inspection.id.digest.clone()),
        ("hooks:", hooks(inspection)),
        ("reaches:", or_none(&inspection.capabilities)),
        ("settings:", inspection.settings.clone()),
    ];
    if !inspection.grants.is_empty() {
        rows.push(("to be granted:", inspection.grants.join(", ")));
    }
    if !inspection.unasked.is_empty() {
        rows.push(("never asked:", inspection.unasked.join(", ")));
    }
    columns(&rows.into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect::<Vec<_>>())
}
