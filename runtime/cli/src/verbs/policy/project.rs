//! `policy new` and `policy build`.

use super::super::{Outcome, read};
use crate::report;
use clap::{ArgMatches, Args};
use rlrun_engine::policies::project::{self, Built, FILE, Project};
use rlrun_engine::trace::Marks;
use rlrun_spec::Failure;
use std::path::{Path, PathBuf};

#[derive(Args, Debug)]
pub(super) struct NewArgs {
    /// What the policy is to be called: small letters, digits, hyphens
    #[arg(value_name = "NAME")]
    name: String,
    /// Which language it is to be written in: rust, c, js, python
    #[arg(long, value_name = "LANGUAGE", default_value = "rust")]
    lang: String,
    /// The directory to make, instead of ./NAME
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(super) struct BuildArgs {
    /// A project, or one text: NAME.rego, NAME.cel, NAME.js
    #[arg(value_name = "DIR|FILE", default_value = ".")]
    source: PathBuf,
    /// Where the policy is put
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(super) fn new(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let NewArgs { name, lang, dir } = read(matches)?;
    let dir = dir.unwrap_or_else(|| PathBuf::from(&name));
    project::create(&name, &lang, &dir)?;
    let shown = dir.display();
    report::print(&format!("made {shown}\nnext: rlrun policy test {shown}\n"))
}

pub(super) fn build(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let BuildArgs { source, output } = read(matches)?;
    let Built { path, bytes } = built(&source, output.as_deref())?;
    report::print(&format!("{} ({bytes} bytes)\n", path.display()))
}

/// Builds a project or a text.
pub(super) fn built(source: &Path, output: Option<&Path>) -> Result<Built, Failure> {
    if source.is_file() && source.file_name().is_none_or(|name| name != FILE) {
        return project::build_text(source, output);
    }
    Project::open(source)?.build(output)
}

/// The component that a word on the command line means: a file, or the one of a project.
pub(super) fn component(word: &Path) -> Result<PathBuf, Failure> {
    if word.is_dir() { Ok(Project::open(word)?.component()) } else { Ok(word.to_owned()) }
}
