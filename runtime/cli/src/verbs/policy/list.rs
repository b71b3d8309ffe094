//! `policy ls`.

use super::super::{Outcome, place};
use super::{hooks, mode, refused, short, tier};
use crate::report;
use crate::table::columns;
use clap::ArgMatches;
use rlrun_engine::policies::{self, Listed};
use rlrun_engine::trace::Marks;
use std::process::ExitCode;

/// All policies; those that cannot be asked are told as failures beside the list.
pub(super) fn list(_: &mut ArgMatches, _: Marks) -> Outcome {
    let all = policies::list(&place()?)?;
    let heading = ["NAME", "TIER", "MODE", "DIGEST", "HOOKS", "GRANTS", "PATH"].map(str::to_owned).to_vec();
    let rows: Vec<_> = std::iter::once(heading).chain(all.iter().map(row)).collect();
    let printed = report::print(&columns(&rows))?;
    let broken = all.iter().filter_map(|policy| match &policy.outcome {
        Ok(inspection) => refused(inspection),
        Err(error) => Some(error.failure()),
    });
    let codes: Vec<ExitCode> = broken.map(|failure| report::failure(&failure)).collect();
    Ok(codes.first().copied().unwrap_or(printed))
}

fn row(policy: &Listed) -> Vec<String> {
    let path = policy.path.as_ref().map_or_else(|| "-".to_owned(), |p| p.display().to_string());
    let of_text = policy.path.as_ref().and_then(|path| policies::hooks_of_text(&policies::described(path).ok()?));
    let (mode, digest, hooks, grants) = match &policy.outcome {
        Ok(inspection) => {
            let hooks = of_text.map_or_else(|| hooks(inspection), |hooks| hooks.join(","));
            let grants = if inspection.grants.is_empty() { "-".to_owned() } else { inspection.grants.join(",") };
            (mode(inspection.mode), short(&inspection.id.digest), hooks, grants)
        }
        Err(_) => ("-", "-".to_owned(), "cannot be asked".to_owned(), "-".to_owned()),
    };
    vec![policy.name.clone(), tier(policy.tier).to_owned(), mode.to_owned(), digest, hooks, grants, path]
}
