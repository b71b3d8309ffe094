//! `rlrun audit`: the journal as it is, one JSON object a line, and its chain.

use super::events::Span;
use super::{Outcome, Verb, place, read, verb, with};
use crate::arguments::journal::{ExportArgs, TailArgs, VerifyArgs};
use crate::report;
use clap::ArgMatches;
use rlrun_engine::journal::{self, Lines};
use rlrun_engine::trace::Marks;
use rlrun_spec::{Failure, Kind, Stage};
use std::collections::VecDeque;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::ExitCode;

pub(super) const VERBS: [Verb; 3] = [
    verb("export", "Write the audit log, or a part of it", with::<ExportArgs>, export),
    verb("tail", "Print the end of the audit log", with::<TailArgs>, tail),
    verb("verify", "Check that nothing in the audit log was changed", with::<VerifyArgs>, verify),
];

fn tail(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let args: TailArgs = read(matches)?;
    let mut lines = Lines::open(&place()?)?;
    let mut last = VecDeque::new();
    while let Some(line) = lines.next_line()? {
        last.push_back(line);
        if last.len() > args.lines {
            last.pop_front();
        }
    }
    let mut code = report::print(&last.iter().map(|line| format!("{line}\n")).collect::<String>())?;
    while args.follow && code == ExitCode::SUCCESS {
        lines.wait()?;
        while let Some(line) = lines.next_line()? {
            code = report::print(&format!("{line}\n"))?;
        }
    }
    Ok(code)
}

fn verify(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let args: VerifyArgs = read(matches)?;
    let found = journal::verify(&place()?, args.head.as_deref())?;
    report::print(&format!("{} lines, unbroken\nhead {}\n", found.lines, found.head))
}

fn export(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let args: ExportArgs = read(matches)?;
    let span = Span::read(&args.span)?;
    let mut lines = Lines::open(&place()?)?;
    let mut text = String::new();
    while let Some(line) = lines.next_line()? {
        if span.has(line["time"].as_u64().unwrap_or_default()) {
            text.push_str(&format!("{line}\n"));
        }
    }
    let Some(path) = args.output else { return report::print(&text) };
    let written = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
    written.and_then(|mut file| file.write_all(text.as_bytes())).map_err(|e| {
        Failure::new(Stage::Cli, Kind::Usage, "audit-export", "write the audit log to", path.display().to_string())
            .why(e.to_string())
            .hint("-o names a file that does not exist yet")
    })?;
    Ok(ExitCode::SUCCESS)
}
