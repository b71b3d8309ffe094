//! The verbs: one row each. Only the one that was asked for is built, because a command line of a hundred options
//! costs more to describe than to read.

mod documents;
mod images;
mod policy;
mod run;

use crate::arguments::images::{ImagesArgs, ImportArgs, LoadArgs, PullArgs, RmiArgs};
use crate::arguments::run::RunArgs;
use crate::arguments::switches_take_values;
use crate::report;
use clap::{ArgMatches, Args, Command, FromArgMatches, Subcommand as _};
use rlrun_engine::place::Place;
use rlrun_engine::prepare::refuse_root;
use rlrun_engine::trace::Marks;
use rlrun_spec::{Failure, Kind, Stage};
use std::ffi::OsString;
use std::process::ExitCode;

type Outcome = Result<ExitCode, Failure>;

/// One verb.
struct Verb {
    name: &'static str,
    about: &'static str,
    define: fn(Command) -> Command,
    run: fn(&mut ArgMatches, Marks) -> Outcome,
}

const fn verb(
    name: &'static str,
    about: &'static str,
    define: fn(Command) -> Command,
    run: fn(&mut ArgMatches, Marks) -> Outcome,
) -> Verb {
    Verb { name, about, define, run }
}

const VERBS: [Verb; 11] = [
    verb("run", "Run a command in a new container", with::<RunArgs>, run::run),
    verb("plan", "Print what `run` would do, as JSON; run nothing", with::<RunArgs>, run::plan),
    verb("load", "Load images from an archive", with::<LoadArgs>, images::load),
    verb("import", "Make an image of a root file system archive", with::<ImportArgs>, images::import),
    verb("pull", "Fetch images from a registry", with::<PullArgs>, images::pull),
    verb("images", "List images", with::<ImagesArgs>, images::list),
    verb("rmi", "Remove images", with::<RmiArgs>, images::remove),
    verb("doctor", "Tell what this host offers, and how to mend what is missing", |c| c, documents::doctor),
    verb("policy", "List and check policies", policy::PolicyVerb::augment_subcommands, policy::policy),
    verb("completion", "Print a completion script", with::<documents::CompletionArgs>, documents::completion),
    verb("version", "Print the version", |c| c, documents::version),
];

/// Writes manual pages; for `make install`, so nobody else is shown it.
const MAN: Verb = verb("man", "Write manual pages", with::<documents::ManArgs>, documents::man);

fn with<A: Args>(command: Command) -> Command {
    switches_take_values(A::augment_args(command))
}

fn read<A: FromArgMatches>(matches: &mut ArgMatches) -> Result<A, Failure> {
    A::from_arg_matches_mut(matches).map_err(|e| {
        Failure::new(Stage::Cli, Kind::Internal, "parse-arguments", "read the command line", "").why(e.to_string())
    })
}

/// The whole command line; verbs are filled in when they are used.
fn command() -> Command {
    let define = |verb: &Verb| Command::new(verb.name).about(verb.about).args_override_self(true).defer(verb.define);
    Command::new("rlrun")
        .about("A rootless, daemonless container engine with programmable policies")
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands(VERBS.iter().map(define))
        .subcommand(define(&MAN).hide(true))
        .after_help("Exit codes: 125 rlrun or a policy, 126 not executable, 127 not found, else the container's.")
}

/// Reads the words and does what they say.
pub(crate) fn dispatch(words: impl Iterator<Item = OsString>, mut marks: Marks) -> Outcome {
    let words: Vec<OsString> = words.collect();
    let named = words.get(1).and_then(|w| w.to_str()).and_then(|w| VERBS.iter().find(|v| v.name == w));
    let mut matches = match command().try_get_matches_from(&words) {
        Ok(matches) => matches,
        Err(error) => return report::usage(&error, named.map(|v| v.name)),
    };
    marks.mark("cli: words read");
    let Some((name, mut matches)) = matches.remove_subcommand() else { return Ok(ExitCode::SUCCESS) };
    let verb = VERBS.iter().chain([&MAN]).find(|v| v.name == name);
    verb.map_or(Ok(ExitCode::SUCCESS), |verb| (verb.run)(&mut matches, marks))
}

/// Where this user's things are; for verbs that use the store.
fn place() -> Result<Place, Failure> {
    refuse_root()?;
    Place::of_caller()
}

#[cfg(test)]
mod tests;
