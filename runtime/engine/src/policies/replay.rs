//! The past, asked again: every container that policies were asked about, out of the audit log.

use super::{Choice, single, sources, with_path};
use crate::journal::{Asked, Lines, asked_of};
use crate::place::Place;
use rlrun_admission::{Hook, PolicySet};
use rlrun_image::Store;
use rlrun_spec::policy::{Admitted, Denied};
use rlrun_spec::{ContainerSpec, Failure, ImageIdentity, Kind, Stage};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Who is asked.
#[derive(Clone, Debug)]
pub enum Jury {
    /// All that are asked today.
    Today(Choice),
    /// One alone, with these settings instead of those beside it.
    One(PathBuf, Option<PathBuf>),
}

/// What was said then, and what is said now.
#[derive(Debug)]
pub struct Replayed {
    /// The line of the audit log.
    pub line: Value,
    /// What of the request is not what it was.
    pub missing: Vec<&'static str>,
    /// The verdict, or why there is none.
    pub now: Result<Result<Admitted, Box<Denied>>, String>,
}

impl Replayed {
    /// Whether it was refused then.
    #[must_use]
    pub fn was_refused(&self) -> bool {
        self.line["verdicts"].as_array().into_iter().flatten().any(|verdict| verdict["decision"] == "deny")
    }
}

/// The past, with who is asked about it.
pub struct Replay<'p> {
    place: &'p Place,
    lines: Lines,
    policies: PolicySet,
}

impl std::fmt::Debug for Replay<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replay").field("policies", &self.policies).finish_non_exhaustive()
    }
}

impl<'p> Replay<'p> {
    /// From the beginning of the audit log.
    ///
    /// # Errors
    /// When the audit log or a policy cannot be used.
    pub fn open(place: &'p Place, jury: Jury) -> Result<Self, Failure> {
        let policies = match jury {
            Jury::Today(choice) => {
                let files = choice.files.clone();
                // Not by way of `load`: those who want to know of ends are told of them by commands that start something.
                PolicySet::load(&sources(place, choice)?).map_err(|e| with_path(&e, &files))?
            }
            Jury::One(word, settings) => one(place, &word, settings.as_deref())?,
        };
        policies.notices().iter().for_each(|notice| crate::warn(notice));
        Ok(Replay { place, lines: Lines::open(place)?, policies })
    }

    /// Hooks that those who are asked have, and that no replay asks.
    #[must_use]
    pub fn unasked(&self) -> Vec<Hook> {
        let never = |hook: &Hook| matches!(hook, Hook::Image | Hook::Exec | Hook::CopyOut | Hook::Exit);
        self.policies.hooks().into_iter().filter(never).collect()
    }

    /// The next one whose time, in nanoseconds since 1970, is wanted; None at the end.
    ///
    /// # Errors
    /// When the audit log cannot be read.
    pub fn next_one(&mut self, wanted: impl Fn(u64) -> bool) -> Result<Option<Replayed>, Failure> {
        while let Some(line) = self.lines.next_line()? {
            let time = line["time"].as_u64().unwrap_or_default();
            if wanted(time)
                && let Some(asked) = asked_of(self.place, &line)
            {
                self.policies.turn_back(time / 1_000_000);
                return Ok(Some(self.again(line, asked)));
            }
        }
        Ok(None)
    }

    fn again(&self, line: Value, asked: Result<Asked, String>) -> Replayed {
        let (missing, now) = match asked {
            Err(why) => (Vec::new(), Err(why)),
            Ok(Asked { caller, container, mut missing }) => {
                // Layers are named by what is in them, so what is there now is what was there then.
                let gone = |image: &ImageIdentity| !Store::new(&self.place.data).holds(image);
                if self.policies.looks_inside() && container.image.as_ref().is_some_and(gone) {
                    missing.push("what is in images that are gone");
                }
                let now = ContainerSpec::new(container).map_err(|e| e.to_string());
                (missing, now.map(|spec| self.policies.evaluate(spec, &caller)))
            }
        };
        Replayed { line, missing, now }
    }
}

fn one(place: &Place, word: &Path, settings: Option<&Path>) -> Result<PolicySet, Failure> {
    let failure = Failure::new(Stage::Cli, Kind::Usage, "replay", "ask again with", word.display().to_string());
    let file = single(place, word, failure.hint("name one of the files that `rlrun policy pull` names"))?;
    let choice = Choice { baseline: crate::request::Baseline::Off, ..Choice::default() };
    PolicySet::only(&file, settings, &sources(place, choice)?).map_err(|e| with_path(&e, &[file]))
}
