//! Which containers a verb is about: by name, by file, by filter, the newest, all.

use super::list;
use crate::arguments::life::ChoiceArgs;
use crate::report;
use crate::table::now;
use rlrun_engine::containers::{self, Container};
use rlrun_engine::place::Place;
use rlrun_engine::record::Reach;
use rlrun_engine::run;
use rlrun_spec::{Failure, Kind, Stage};
use std::fs;
use std::process::ExitCode;

/// What is done with a name that nobody has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    /// It is a failure, told at the end.
    Failure,
    /// It is left out.
    Ignored,
}

impl From<bool> for Missing {
    fn from(ignore: bool) -> Self {
        if ignore { Missing::Ignored } else { Missing::Failure }
    }
}

/// A container and the word that it was chosen by, which is what the verb prints.
pub(super) struct Chosen {
    pub(super) word: String,
    pub(super) container: Container,
}

/// What was chosen, in order, each once; and what could not be found.
pub(super) struct Choice {
    pub(super) found: Vec<Chosen>,
    pub(super) failures: Vec<Failure>,
}

impl ChoiceArgs {
    /// Chooses. `all` is what `--all` means to the verb, when it is given.
    pub(super) fn choose(
        &self,
        place: &Place,
        all: Option<&dyn Fn(&Container) -> bool>,
        missing: Missing,
    ) -> Result<Choice, Failure> {
        run::sweep(place, Reach::All);
        let mut choice = Choice { found: Vec::new(), failures: Vec::new() };
        let many = all.is_some() || !self.filter.is_empty() || self.latest;
        if many && !(self.names.is_empty() && self.cidfile.is_empty()) {
            return Err(unclear("names", "and --all, --latest or --filter cannot be given together"));
        }
        if many {
            let mut fitting = list::fitting(place, &self.filter, now())?;
            match all {
                Some(chosen) => fitting.retain(chosen),
                None if self.latest => drop(fitting.drain(..fitting.len().saturating_sub(1))),
                None => {}
            }
            let word = |container: Container| Chosen { word: container.summary.id.clone(), container };
            choice.found = fitting.into_iter().map(word).collect();
            return Ok(choice);
        }
        let mut words = self.names.clone();
        for path in &self.cidfile {
            match fs::read_to_string(path) {
                Ok(text) => words.push(text.lines().next().unwrap_or_default().trim().to_owned()),
                Err(e) if missing == Missing::Ignored && e.kind() == std::io::ErrorKind::NotFound => {}
                Err(e) => return Err(unreadable(&path.display().to_string(), &e)),
            }
        }
        if words.is_empty() && self.cidfile.is_empty() {
            return Err(unclear("", "it names no container"));
        }
        for word in words {
            match containers::find(place, &word) {
                Ok(container) if choice.found.iter().any(|c| c.container.summary.id == container.summary.id) => {}
                Ok(container) => choice.found.push(Chosen { word, container }),
                Err(failure) if missing == Missing::Ignored && containers::is_missing(&failure) => {}
                Err(failure) => choice.failures.push(failure),
            }
        }
        Ok(choice)
    }
}

impl Choice {
    /// Does something to each; the first failure is the verb's, and the others are done all the same.
    pub(super) fn each(self, mut act: impl FnMut(&Chosen) -> Result<String, Failure>) -> Result<ExitCode, Failure> {
        let mut code = None;
        for chosen in &self.found {
            match act(chosen) {
                // At once: a reader sees what is done as it is done.
                Ok(said) => drop(report::print(&said)?),
                Err(failure) => drop(code.get_or_insert(report::failure(&failure))),
            }
        }
        Ok(self.told().or(code).unwrap_or(ExitCode::SUCCESS))
    }

    /// Tells what could not be found.
    pub(super) fn told(&self) -> Option<ExitCode> {
        let codes: Vec<ExitCode> = self.failures.iter().map(report::failure).collect();
        codes.into_iter().next()
    }
}

fn unclear(object: &str, why: &str) -> Failure {
    Failure::new(Stage::Cli, Kind::Usage, "parse-arguments", "understand the command line", object).why(why)
}

fn unreadable(path: &str, error: &std::io::Error) -> Failure {
    let failure = Failure::new(Stage::Cli, Kind::Usage, "cidfile", "read the id in", path);
    match error.raw_os_error() {
        Some(errno) => failure.errno(errno).hint("--ignore leaves out what is not there"),
        None => failure.why(error.to_string()),
    }
}
