//! `policy inspect` and `policy fmt`: what a policy says of itself, and settings against that.

use super::super::{Outcome, place, read};
use super::project::component;
use super::short;
use crate::report;
use crate::table::columns;
use clap::{ArgMatches, Args};
use rlrun_engine::policies::project::replace;
use rlrun_engine::policies::{self, schema};
use rlrun_engine::trace::Marks;
use rlrun_spec::{Failure, Kind, Stage};
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(Args, Debug)]
pub(super) struct InspectArgs {
    /// A policy, or its project
    #[arg(value_name = "FILE|DIR")]
    policy: PathBuf,
    /// `json`
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

#[derive(Args, Debug)]
pub(super) struct FmtArgs {
    /// A policy, or its project
    #[arg(value_name = "FILE|DIR")]
    policy: PathBuf,
    /// Settings instead of those beside it
    #[arg(long, value_name = "FILE")]
    settings: Option<PathBuf>,
    /// Change nothing, and fail where something would be changed
    #[arg(long)]
    check: bool,
}

pub(super) fn inspect(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let args: InspectArgs = read(matches)?;
    let file = component(&args.policy)?;
    let said = policies::described(&file)?;
    let policy = policies::check(&place()?, &file, None)?;
    // Of one that reads a text, the hooks that the text has.
    let hooks =
        policies::hooks_of_text(&said).unwrap_or_else(|| policy.hooks.iter().map(ToString::to_string).collect());
    let word = |name: &str| said.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    if args.format.as_deref() == Some("json") {
        let document = json!({
            "Name": policy.id.name,
            "Digest": policy.id.digest,
            "Hooks": hooks,
            "Capabilities": policy.capabilities,
            "Grants": policy.grants,
            "Unasked": policy.unasked,
            "Metadata": said,
        });
        return report::print(&format!("{document:#}\n"));
    }
    if let Some(other) = &args.format {
        return Err(
            Failure::new(Stage::Cli, Kind::Usage, "format", "print as", other.as_str()).why("only json is known here")
        );
    }
    let reaches = match policy.capabilities.is_empty() {
        true => "nothing".to_owned(),
        false => policy.capabilities.join(", "),
    };
    let mut rows = vec![
        ("name:", policy.id.name.clone()),
        ("version:", word("version")),
        ("description:", word("description")),
        ("digest:", policy.id.digest.clone()),
        ("hooks:", hooks.join(",")),
        ("reaches:", reaches),
    ];
    if !policy.grants.is_empty() {
        rows.push(("to be granted:", policy.grants.join(", ")));
    }
    if !policy.unasked.is_empty() {
        rows.push(("never asked:", policy.unasked.join(", ")));
    }
    rows.retain(|(_, value)| !value.is_empty());
    let mut text = columns(&rows.into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect::<Vec<_>>());
    text.push_str(&settings_table(said.get("settings")));
    text.push_str(&code_table(said.get("codes").and_then(Value::as_object)));
    report::print(&text)
}

fn settings_table(schema: Option<&Value>) -> String {
    let Some(schema) = schema else { return "settings: it carries no schema\n".to_owned() };
    let none = Map::new();
    let properties = schema.get("properties").and_then(Value::as_object).unwrap_or(&none);
    if properties.is_empty() {
        return "settings: none\n".to_owned();
    }
    let row = |(name, property): (&String, &Value)| {
        let word = |key: &str| property.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        vec![format!("  {name}"), word("type"), word("description")]
    };
    format!("settings:\n{}", columns(&properties.iter().map(row).collect::<Vec<_>>()))
}

fn code_table(codes: Option<&Map<String, Value>>) -> String {
    let Some(codes) = codes.filter(|codes| !codes.is_empty()) else { return String::new() };
    let row =
        |(code, meaning): (&String, &Value)| vec![format!("  {code}"), meaning.as_str().unwrap_or_default().to_owned()];
    format!("codes:\n{}", columns(&codes.iter().map(row).collect::<Vec<_>>()))
}

pub(super) fn fmt(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let args: FmtArgs = read(matches)?;
    let file = component(&args.policy)?;
    let path = args.settings.unwrap_or_else(|| file.with_extension("toml"));
    let failed = |why: String| {
        Failure::new(Stage::Cli, Kind::Usage, "format-settings", "format the settings", path.display().to_string())
            .why(why)
    };
    let settings = policies::settings_of(&path)?.ok_or_else(|| failed("there are none".to_owned()))?;
    match policies::described(&file)?.get("settings") {
        Some(known) => {
            let found = schema::check(&settings, known);
            if !found.is_empty() {
                let hint = format!("`rlrun policy inspect {}` lists the settings", file.display());
                return Err(failed(found.join("\n  ")).hint(hint));
            }
        }
        None => rlrun_engine::warn("the policy carries no schema of its settings: only the policy itself checks them"),
    }
    // The schema says what may be written, the policy what it takes.
    let policy = policies::bench(&place()?, &file, Some(&settings), None)?;
    if let Err(refusal) = policy.accepts() {
        let words: Vec<&str> = refusal.diagnostics.iter().map(|d| d.message.as_str()).collect();
        return Err(failed(words.join("; ")));
    }
    tidy(&path, args.check, &failed, &short(&policy.id().digest))
}

fn tidy(path: &Path, check: bool, failed: &dyn Fn(String) -> Failure, digest: &str) -> Outcome {
    let text = std::fs::read_to_string(path).map_err(|e| failed(e.to_string()))?;
    let tidied = tidied(&text);
    if text == tidied {
        return report::print(&format!("{}: fits {digest}\n", path.display()));
    }
    if check {
        report::print(&format!("{}: would be changed\n", path.display()))?;
        return Ok(ExitCode::FAILURE);
    }
    replace(path, tidied.as_bytes()).map_err(|e| failed(e.to_string()))?;
    report::print(&format!("{}: formatted, fits {digest}\n", path.display()))
}

/// One space around `=`, no blanks at ends of lines, no two empty lines. Text over several lines is its writer's.
fn tidied(text: &str) -> String {
    if text.contains("\"\"\"") || text.contains("'''") {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len());
    for line in text.trim().lines() {
        let line = line.trim_end();
        if line.is_empty() && out.ends_with("\n\n") {
            continue;
        }
        let bare = |key: &str| key.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_' || c == '.');
        match line.split_once('=').map(|(key, value)| (key.trim(), value.trim())) {
            Some((key, value)) if !key.is_empty() && bare(key) => out.push_str(&format!("{key} = {value}")),
            _ => out.push_str(line),
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_tidied_and_stay_what_they_were() {
        let text = "\n# why\nallow=[ 'a=b' ]   \n\n\n\n[x.y]\n  key   =   \"v = w\"\n";
        let tidy = tidied(text);
        assert_eq!(tidy, "# why\nallow = [ 'a=b' ]\n\n[x.y]\nkey = \"v = w\"\n");
        assert_eq!(tidied(&tidy), tidy);
    }
}
