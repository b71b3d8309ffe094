//! `doctor`, `completion`, `man` and `version`.

use super::{Outcome, place, read, shown};
use crate::format::inspected;
use crate::report;
use clap::{ArgMatches, Args};
use clap_complete::Shell;
use rlrun_engine::host::doctor;
use rlrun_engine::policies::MANDATORY_DIR;
use rlrun_engine::trace::Marks;
use rlrun_spec::{Failure, Kind, Stage};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// `rlrun completion`.
#[derive(Args, Debug)]
pub(super) struct CompletionArgs {
    /// bash, elvish, fish, powershell or zsh
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

pub(super) fn completion(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let args: CompletionArgs = read(matches)?;
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut shown(), "rlrun", &mut script);
    report::print(&String::from_utf8_lossy(&script))
}

/// `rlrun man`.
#[derive(Args, Debug)]
pub(super) struct ManArgs {
    /// Directory that the pages are written into
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

pub(super) fn man(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let args: ManArgs = read(matches)?;
    let failure = || {
        Failure::new(
            Stage::Cli,
            Kind::Runtime,
            "man",
            "write the manual pages to",
            args.directory.display().to_string(),
        )
    };
    match clap_mangen::generate_to(shown(), &args.directory) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(e) => Err(match e.raw_os_error() {
            Some(errno) => failure().errno(errno),
            None => failure().why(e.to_string()),
        }),
    }
}

/// `rlrun info`.
#[derive(Args, Debug)]
pub(super) struct InfoArgs {
    /// `json`, or a Go template
    #[arg(long, short, value_name = "FORMAT")]
    format: Option<String>,
}

pub(super) fn info(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let args: InfoArgs = read(matches)?;
    let document = rlrun_engine::info::info(&place()?)?;
    match args.format.as_deref().filter(|words| *words != "json") {
        None => report::print(&format!("{document:#}\n")),
        Some(words) => report::print(&inspected(Some(words), &[document])?),
    }
}

/// `rlrun version`.
#[derive(Args, Debug)]
pub(super) struct VersionArgs {
    /// `json`, or a Go template
    #[arg(long, short, value_name = "FORMAT")]
    format: Option<String>,
}

pub(super) fn version(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let args: VersionArgs = read(matches)?;
    let Some(format) = args.format.as_deref() else {
        return report::print(concat!("rlrun ", env!("CARGO_PKG_VERSION"), "\n"));
    };
    let version = serde_json::json!({"Client": {
        "Version": env!("CARGO_PKG_VERSION"),
        "OsArch": rlrun_engine::images::platform(),
        "Os": "linux",
    }});
    match format.trim() {
        "json" => report::print(&format!("{version:#}\n")),
        template => report::print(&inspected(Some(template), &[version])?),
    }
}

/// `rlrun doctor`.
#[derive(Args, Debug)]
pub(super) struct DoctorArgs {
    /// `json`, or a Go template over one finding
    #[arg(long, short, value_name = "FORMAT")]
    format: Option<String>,
}

pub(super) fn doctor(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let args: DoctorArgs = read(matches)?;
    let checks = doctor::checks(&doctor::Survey::read(&place()?, Path::new(MANDATORY_DIR)));
    let text = match args.format.as_deref() {
        None => doctor::render(&checks),
        Some(words) => inspected(Some(words), &documents(&checks)?)?,
    };
    let printed = report::print(&text)?;
    Ok(match doctor::exit_code(&checks) {
        0 => printed,
        code => ExitCode::from(code),
    })
}

fn documents(checks: &[doctor::Check]) -> Result<Vec<serde_json::Value>, Failure> {
    let unwritable = |e: serde_json::Error| {
        Failure::new(Stage::Cli, Kind::Internal, "doctor", "write as JSON", "the findings").why(e.to_string())
    };
    checks.iter().map(|check| serde_json::to_value(check).map_err(unwritable)).collect()
}
