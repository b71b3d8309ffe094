//! `policy add`, `policy update` and `policy rm`.

use super::super::{Outcome, place, read};
use super::short;
use crate::arguments::transfer::RegistryArgs;
use crate::report;
use crate::table::columns;
use clap::{ArgMatches, Args};
use rlrun_engine::place::Place;
use rlrun_engine::policies::{self, Added, Addition, Change};
use rlrun_engine::trace::Marks;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Args, Debug)]
pub(super) struct AddArgs {
    /// File, reference, or name of a policy that comes with rlrun
    #[arg(value_name = "POLICY")]
    source: PathBuf,
    /// Call it that
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Its settings, TOML
    #[arg(long, value_name = "FILE")]
    settings: Option<PathBuf>,
    /// Let it have a capability that has to be granted: clock
    #[arg(long, value_name = "CAPABILITY")]
    grant: Vec<String>,
    /// Public key, PEM, that has to have signed it, now and at every update
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Take it although it reaches or is asked something else than the one before
    #[arg(long)]
    approve: bool,
    #[command(flatten)]
    registry: RegistryArgs,
}

pub(super) fn add(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let AddArgs { source, name, settings, grant, key, approve, registry } = read(matches)?;
    let options = registry.into();
    let addition = Addition { source, name, settings, grants: grant, key, approve, options };
    let place = place()?;
    told(&place, &policies::add(&place, &addition)?)
}

#[derive(Args, Debug)]
pub(super) struct UpdateArgs {
    /// Which; all that were added if none is named
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Take them although they reach or are asked something else than before
    #[arg(long)]
    approve: bool,
    #[command(flatten)]
    registry: RegistryArgs,
}

pub(super) fn update(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let UpdateArgs { names, approve, registry } = read(matches)?;
    let place = place()?;
    told(&place, &policies::update(&place, &names, approve, &registry.into())?)
}

#[derive(Args, Debug)]
pub(super) struct RemoveArgs {
    /// Which; of a reference, what was pulled
    #[arg(value_name = "NAME|REFERENCE", required = true)]
    names: Vec<String>,
}

pub(super) fn remove(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let RemoveArgs { names } = read(matches)?;
    let place = place()?;
    for name in &names {
        policies::remove(&place, name)?;
        report::print(&format!("{name}\n"))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What was done, and all that is approved by it.
fn told(place: &Place, outcomes: &[Added]) -> Outcome {
    let mut text = String::new();
    for Added { name, locked, change } in outcomes {
        let change = match change {
            Change::Added => "added",
            Change::Updated => "updated",
            Change::None => "unchanged",
        };
        let list = |words: Vec<&str>| if words.is_empty() { "none".to_owned() } else { words.join(", ") };
        let reach = locked.imports.iter().map(String::as_str).filter(|i| policies::is_capability(i)).collect();
        let said = policies::described(&policies::of_user(place, name)).unwrap_or_default();
        let asked = policies::hooks_of_text(&said).unwrap_or_else(|| locked.exports.iter().cloned().collect());
        let mut rows = vec![
            (format!("{name}:"), format!("{change} {}", short(&locked.digest))),
            ("  source:".to_owned(), locked.source.clone()),
            ("  asked:".to_owned(), list(asked.iter().map(String::as_str).collect())),
            ("  reaches:".to_owned(), list(reach)),
            ("  granted:".to_owned(), list(locked.grants.iter().map(String::as_str).collect())),
        ];
        let signed = match &locked.signer {
            Some(key) => format!("verified, by the key {}", short(key)),
            None => "no signature was verified".to_owned(),
        };
        rows.push(("  signed:".to_owned(), signed));
        text.push_str(&columns(&rows.into_iter().map(|(name, value)| vec![name, value]).collect::<Vec<_>>()));
    }
    report::print(&text)
}
