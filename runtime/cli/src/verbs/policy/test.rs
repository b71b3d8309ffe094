//! `policy test`: cases in files, asked of the component as a start would ask it.

use super::super::{Outcome, place, read};
use super::project::built;
use crate::format::{Format, Heading, Row};
use crate::report;
use clap::{ArgMatches, Args};
use rlrun_engine::policies::case::{Case, Told};
use rlrun_engine::policies::{self, Workbench};
use rlrun_engine::trace::Marks;
use rlrun_spec::{Failure, Kind, Stage};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const COLUMNS: &str = "{{.Case}}\t{{.Hook}}\t{{.Decision}}\t{{.Codes}}\t{{.Fuel}}\t{{.Result}}";

#[derive(Args, Debug)]
pub(super) struct TestArgs {
    /// A project, or a policy that is built
    #[arg(value_name = "DIR|FILE", default_value = ".")]
    policy: PathBuf,
    /// Where the cases are, instead of `cases` beside it
    #[arg(long, value_name = "DIR")]
    cases: Option<PathBuf>,
    /// Test what is built already
    #[arg(long)]
    no_build: bool,
    /// `json`, or a Go template over one case
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

/// What became of one case.
struct Tested {
    row: Row,
    hook: String,
    decision: Option<String>,
    difference: Option<String>,
}

pub(super) fn test(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let args: TestArgs = read(matches)?;
    let format = Format::parse(args.format.as_deref(), COLUMNS)?;
    let (component, cases) = subject(&args)?;
    let cases = Case::load_dir(&cases)?;
    let mut policy = policies::bench(&place()?, &component, Some(&json!({})), None)?;
    let tested: Vec<Tested> = cases.iter().map(|case| one(&mut policy, case)).collect();
    let rows: Vec<Row> = tested.iter().map(|tested| tested.row.clone()).collect();
    let printed = report::print(&format.list(&rows, &[], Heading::Shown)?)?;
    let failed = tested.iter().filter(|tested| tested.difference.is_some()).count();
    if matches!(format, Format::Table(_)) {
        report::print(&summary(&has(&policy, &component)?, &tested, failed))?;
    }
    Ok(if failed == 0 { printed } else { ExitCode::FAILURE })
}

/// The component and its cases; a project is built first.
fn subject(args: &TestArgs) -> Result<(PathBuf, PathBuf), Failure> {
    let component = match args.policy.is_dir() {
        true if args.no_build => super::project::component(&args.policy)?,
        true => built(&args.policy, None)?.path,
        false => args.policy.clone(),
    };
    if let Some(cases) = &args.cases {
        return Ok((component, cases.clone()));
    }
    let beside = component.parent().unwrap_or(Path::new("."));
    let known = ["cases", "fixtures"].map(|name| beside.join(name));
    let cases = known.iter().find(|dir| dir.is_dir()).cloned().ok_or_else(|| {
        Failure::new(Stage::Cli, Kind::Usage, "find-cases", "find the cases of", component.display().to_string())
            .why(format!("there is no {}", known[0].display()))
            .hint("make that directory, or name another: --cases DIR")
    })?;
    Ok((component, cases))
}

fn one(policy: &mut Workbench, case: &Case) -> Tested {
    policy.set(&case.settings.as_ref().unwrap_or(&json!({})).to_string());
    policy.set_moment(case.now.unwrap_or_default());
    let (told, fuel, difference) = match (case.ask(policy), &case.expect) {
        (Err(why), _) => (None, 0, Some(why)),
        (Ok(_), None) => (None, 0, Some("`expect` is missing".to_owned())),
        (Ok(reply), Some(expect)) => {
            let told = Told::of(&reply);
            let difference = expect.difference(&told);
            (Some(told), reply.fuel, difference)
        }
    };
    let decision = told.as_ref().map(|told| told.decision.clone());
    let codes = told.as_ref().map(|told| told.codes.clone()).unwrap_or_default();
    let document = json!({
        "Case": case.name(),
        "Hook": case.hook,
        "Decision": decision,
        "Codes": codes,
        "Diagnostics": told.as_ref().map(|told| &told.diagnostics),
        "Restrictions": told.as_ref().map(|told| &told.restrictions),
        "Fuel": fuel,
        "Passed": difference.is_none(),
        "Difference": difference,
    });
    let mut fields = document.clone();
    fields["Codes"] = codes.join(",").into();
    fields["Decision"] = decision.clone().unwrap_or_else(|| "-".to_owned()).into();
    fields["Result"] = difference.clone().map_or_else(|| "ok".to_owned(), |d| format!("FAILED: {d}")).into();
    Tested { row: Row { document, fields }, hook: case.hook.clone(), decision, difference }
}

/// The hooks that it has: of one that reads a text those that the text has.
fn has(policy: &Workbench, component: &Path) -> Result<Vec<String>, Failure> {
    let said = policies::described(component)?;
    let all = || policy.functions().map(|f| f.hook.clone()).collect();
    let mut hooks: Vec<String> = policies::hooks_of_text(&said).unwrap_or_else(all);
    hooks.sort_unstable();
    hooks.dedup();
    Ok(hooks)
}

/// How many passed, and what no case asks.
fn summary(hooks: &[String], tested: &[Tested], failed: usize) -> String {
    let line = |hook: &String| {
        let of = tested.iter().filter(|t| t.hook == *hook);
        let said = |word: &str| of.clone().filter(|t| t.decision.as_deref() == Some(word)).count();
        match of.clone().count() {
            0 => format!("{hook}: NOT TESTED"),
            all => format!("{hook}: {all} ({} denied)", said("deny")),
        }
    };
    let hooks: Vec<String> = hooks.iter().map(line).collect();
    format!("\nhooks: {}\n{} passed, {failed} failed\n", hooks.join(", "), tested.len() - failed)
}

/// For other verbs that ask one question: a case, or an object of `request` alone for the hook that is named.
pub(super) fn question(path: &Path, text: &[u8]) -> Option<Result<Case, Failure>> {
    let value: Value = serde_json::from_slice(text).ok()?;
    value.get("hook")?;
    Some(Case::parse(path, text))
}
