//! The verbs: one row each. Only the one that was asked for is built, because a command line of a hundred options
//! costs more to describe than to read.

mod audit;
mod containers;
mod documents;
mod events;
mod exec;
mod files;
mod generate;
mod healthcheck;
mod images;
mod logs;
mod mounts;
mod oci;
mod policy;
mod run;
mod secret;
mod system;
mod top;
mod volume;

use crate::arguments::exec::AttachArgs;
use crate::arguments::files::{CommitArgs, CpArgs, DiffArgs, ExportArgs, MountArgs, UnmountArgs, UnshareArgs};
use crate::arguments::images::{HistoryArgs, ImagesArgs, RmiArgs, TagArgs, UntagArgs};
use crate::arguments::journal::EventsArgs;
use crate::arguments::life::{KillArgs, PauseArgs, RenameArgs, RestartArgs, StartArgs, StopArgs, WaitArgs};
use crate::arguments::look::{InspectArgs, LogsArgs, PortArgs, PsArgs};
use crate::arguments::read_as_podman_does;
use crate::arguments::transfer::{
    ImportArgs, LoadArgs, LoginArgs, LogoutArgs, PullArgs, PushArgs, SaveArgs, SearchArgs,
};
use crate::arguments::usage::{StatsArgs, UpdateArgs};
use crate::report;
use clap::error::ErrorKind;
use clap::{ArgMatches, Args, Command, FromArgMatches};
use rlrun_engine::journal;
use rlrun_engine::place::Place;
use rlrun_engine::prepare::refuse_root;
use rlrun_engine::trace::Marks;
use rlrun_spec::{Failure, Kind, Stage};
use std::ffi::OsString;
use std::process::ExitCode;

type Outcome = Result<ExitCode, Failure>;

/// One verb.
#[derive(Clone, Copy)]
struct Verb {
    name: &'static str,
    /// Other names, which help does not show.
    aliases: &'static [&'static str],
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
    Verb { name, aliases: &[], about, define, run }
}

impl Verb {
    const fn known_as(self, aliases: &'static [&'static str]) -> Self {
        Verb { aliases, ..self }
    }

    fn is_called(&self, word: &str) -> bool {
        self.name == word || self.aliases.contains(&word)
    }

    fn bare(&self) -> Command {
        Command::new(self.name).aliases(self.aliases).args_override_self(true)
    }

    /// With its arguments.
    fn full(&self) -> Command {
        // The text last, because the doc comment of a struct of arguments is its own.
        (self.define)(self.bare()).about(self.about)
    }
}

/// A verb that only groups others: `rlrun image ls`.
fn group(command: Command, verbs: &[Verb]) -> Command {
    command
        .subcommands(verbs.iter().map(Verb::full))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .disable_help_subcommand(true)
}

fn run_in_group(verbs: &[Verb], matches: &mut ArgMatches, marks: Marks) -> Outcome {
    let Some((name, mut matches)) = matches.remove_subcommand() else { return Ok(ExitCode::SUCCESS) };
    match verbs.iter().find(|verb| verb.name == name) {
        Some(verb) => (verb.run)(&mut matches, marks),
        // Clap lets no other through.
        None => Ok(ExitCode::SUCCESS),
    }
}

const VERBS: &[Verb] = &[
    verb("run", "Run a command in a new container", |c| run::define(c, "run"), run::run),
    verb("plan", "Print what `run` would do, as JSON; run nothing", |c| run::define(c, "plan"), run::plan),
    verb("load", "Load images from an archive", with::<LoadArgs>, images::load),
    verb("import", "Make an image of a root file system archive", with::<ImportArgs>, images::import),
    verb("pull", "Fetch images from a registry", with::<PullArgs>, images::pull),
    verb("push", "Send an image to a registry, an archive or a directory", with::<PushArgs>, images::push),
    verb("save", "Write images to an archive or a directory", with::<SaveArgs>, images::save),
    verb("login", "Keep a user and a password for a registry", with::<LoginArgs>, images::login),
    verb("logout", "Forget them", with::<LogoutArgs>, images::logout),
    verb("search", "Look for images in a registry that tells what it has", with::<SearchArgs>, images::search),
    verb("images", "List images", with::<ImagesArgs>, images::list),
    verb("rmi", "Remove images", with::<RmiArgs>, images::remove),
    verb("tag", "Give an image further names", with::<TagArgs>, images::tag),
    verb("untag", "Take names from an image", with::<UntagArgs>, images::untag),
    verb("history", "Print what an image is made of", with::<HistoryArgs>, images::history),
    verb("image", "Work with images", |c| group(c, &images::VERBS), |m, marks| run_in_group(&images::VERBS, m, marks)),
    verb(
        "system",
        "Look after the store",
        |c| group(c, &system::VERBS),
        |m, marks| run_in_group(&system::VERBS, m, marks),
    ),
    verb("create", "Make a container and do not start it", run::define_create, run::create),
    verb("start", "Start containers that are there", with::<StartArgs>, containers::start),
    verb("restart", "Stop containers and start them again", with::<RestartArgs>, containers::restart),
    verb("stop", "End containers, gently first", with::<StopArgs>, containers::stop),
    verb("kill", "Send a signal to containers", with::<KillArgs>, containers::kill),
    verb("stats", "Show what containers use", with::<StatsArgs>, containers::stats),
    verb("update", "Change the limits of a container", with::<UpdateArgs>, containers::update),
    verb("pause", "Stop every process of containers", with::<PauseArgs>, containers::pause),
    verb("unpause", "Let them go on", with::<PauseArgs>, containers::unpause),
    verb("wait", "Wait for containers to end and print their exit codes", with::<WaitArgs>, containers::wait),
    verb("rename", "Give a container another name", with::<RenameArgs>, containers::rename),
    verb("rm", "Remove containers", containers::define_remove, containers::remove),
    verb(
        "container",
        "Work with containers",
        |c| group(c, containers::VERBS),
        |m, marks| run_in_group(containers::VERBS, m, marks),
    ),
    verb("ps", "List containers", with::<PsArgs>, containers::ps),
    verb(
        "inspect",
        "Print all about containers, images and volumes, as JSON",
        with::<InspectArgs>,
        containers::inspect,
    ),
    verb("logs", "Print what containers wrote", with::<LogsArgs>, logs::logs),
    verb("attach", "Attach to a running container", with::<AttachArgs>, exec::attach),
    verb("mount", "Mount the files of containers, in a shell inside the id map", with::<MountArgs>, mounts::mount),
    verb("unmount", "Unmount them", with::<UnmountArgs>, mounts::unmount).known_as(&["umount"]),
    verb("exec", "Run a command in a running container", exec::define, exec::exec),
    verb(
        "healthcheck",
        "Check the health of containers",
        |c| group(c, healthcheck::VERBS),
        |m, marks| run_in_group(healthcheck::VERBS, m, marks),
    ),
    verb("top", "Show the processes of a container", top::define, top::top),
    verb("port", "Print the published ports of a container", with::<PortArgs>, containers::ports),
    verb("cp", "Copy files into a container, or out of it", with::<CpArgs>, files::copy),
    verb("commit", "Make an image of what a container has become", with::<CommitArgs>, files::commit),
    verb("diff", "List the files that a container has changed", with::<DiffArgs>, files::diff),
    verb("export", "Write the files of a container to a tar archive", with::<ExportArgs>, files::export),
    verb("events", "Show what happened to containers, images and volumes", with::<EventsArgs>, events::events),
    verb(
        "audit",
        "Read and verify the audit log",
        |c| group(c, &audit::VERBS),
        |m, marks| run_in_group(&audit::VERBS, m, marks),
    ),
    verb(
        "doctor",
        "Tell what this host offers, and how to mend what is missing",
        with::<documents::DoctorArgs>,
        documents::doctor,
    ),
    verb("volume", "Work with volumes", |c| group(c, volume::VERBS), |m, marks| run_in_group(volume::VERBS, m, marks)),
    verb(
        "info",
        "Print what this host is, what is stored, and what holds limits, as JSON",
        with::<documents::InfoArgs>,
        documents::info,
    ),
    verb(
        "oci",
        "Run OCI bundles, by the words of an OCI runtime",
        |c| group(c, oci::VERBS),
        |m, marks| run_in_group(oci::VERBS, m, marks),
    ),
    verb(
        "policy",
        "List and check policies",
        |c| group(c, policy::VERBS),
        |m, marks| run_in_group(policy::VERBS, m, marks),
    ),
    verb(
        "generate",
        "Print what starts containers after a boot: a systemd unit, a line for cron",
        |c| group(c, generate::VERBS),
        |m, marks| run_in_group(generate::VERBS, m, marks),
    ),
    verb(
        "secret",
        "Keep secrets for containers",
        |c| group(c, secret::VERBS),
        |m, marks| run_in_group(secret::VERBS, m, marks),
    ),
    verb(
        "unshare",
        "Run a command as root of your id map",
        |c| run::define_words::<UnshareArgs>(c, "unshare"),
        files::unshare,
    ),
    verb("completion", "Print a completion script", with::<documents::CompletionArgs>, documents::completion),
    verb("version", "Print the version", with::<documents::VersionArgs>, documents::version),
    // For `make install`; nobody else is shown it.
    verb(MAN, "Write manual pages", with::<documents::ManArgs>, documents::man),
];

const MAN: &str = "man";

fn with<A: Args>(command: Command) -> Command {
    A::augment_args(command)
}

fn read<A: FromArgMatches>(matches: &mut ArgMatches) -> Result<A, Failure> {
    A::from_arg_matches_mut(matches).map_err(|e| {
        Failure::new(Stage::Cli, Kind::Internal, "parse-arguments", "read the command line", "").why(e.to_string())
    })
}

/// Which verbs are described in full.
#[derive(Clone, Copy)]
enum Filled<'a> {
    /// Only this one.
    Only(&'a str),
    All,
}

/// What the description is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// Reading a command line.
    Reading,
    /// Help, completions, manual pages: switches without the values that scripts give them.
    Showing,
}

fn command(filled: Filled<'_>, purpose: Purpose) -> Command {
    let define = |verb: &Verb| {
        let full = match filled {
            Filled::Only(name) if !verb.is_called(name) => verb.bare().about(verb.about),
            Filled::Only(_) | Filled::All => verb.full(),
        };
        let command = if purpose == Purpose::Reading { read_as_podman_does(full) } else { full };
        command.hide(verb.name == MAN)
    };
    Command::new("rlrun")
        .about("A rootless, daemonless container engine with programmable policies")
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands(VERBS.iter().map(define))
        .after_help("Exit codes: 125 rlrun or a policy, 126 not executable, 127 not found, else the container's.")
}

/// Everything, for those who print it.
fn shown() -> Command {
    command(Filled::All, Purpose::Showing)
}

/// Reads the words and does what they say.
pub(crate) fn dispatch(words: impl Iterator<Item = OsString>, mut marks: Marks) -> Outcome {
    let words: Vec<OsString> = words.collect();
    let first = words.get(1).and_then(|w| w.to_str()).unwrap_or_default();
    let verb = VERBS.iter().find(|v| v.is_called(first));
    let mut matches = match command(Filled::Only(first), Purpose::Reading).try_get_matches_from(&words) {
        Ok(matches) => matches,
        Err(error) if error.kind() == ErrorKind::DisplayHelp => {
            return report::usage(&shown().try_get_matches_from(&words).err().unwrap_or(error), None);
        }
        Err(error) => return report::usage(&error, verb.map(|v| v.name)),
    };
    marks.mark("cli: words read");
    match (verb, matches.remove_subcommand()) {
        (Some(verb), Some((_, mut matches))) => audited(verb.name, &words, &mut matches, |m| (verb.run)(m, marks)),
        // Without a verb clap has said so already.
        (None, _) | (_, None) => Ok(ExitCode::SUCCESS),
    }
}

/// Verbs that change nothing of rlrun's; whatever is not one of them is in the audit log.
const LOOKING: &[&str] = &[
    "audit",
    "completion",
    "df",
    "diff",
    "doctor",
    "events",
    "exists",
    "generate",
    "healthcheck",
    "history",
    "images",
    "info",
    "inspect",
    "list",
    "logs",
    "ls",
    "oci state",
    "plan",
    "policy bench",
    "policy build",
    "policy check",
    "policy eval",
    "policy explain",
    "policy fmt",
    "policy inspect",
    "policy new",
    "policy test",
    "policy trace",
    "port",
    "ps",
    "save",
    "search",
    "show",
    "stats",
    "top",
    "tree",
    "version",
    "volume mount",
    "volume reload",
    "volume unmount",
    "wait",
    MAN,
];

/// Does what a verb does, and has it written down if it is one that changes something.
fn audited(
    verb: &'static str,
    words: &[OsString],
    matches: &mut ArgMatches,
    run: impl FnOnce(&mut ArgMatches) -> Outcome,
) -> Outcome {
    let inner = matches.subcommand_name();
    let operation = inner.map_or_else(|| verb.to_owned(), |name| format!("{verb} {name}"));
    let looks = |name: &str| LOOKING.contains(&name);
    if looks(verb) || looks(&operation) || inner.is_some_and(looks) {
        return run(matches);
    }
    journal::begin(&operation, words);
    let outcome = run(matches);
    let how = match &outcome {
        Ok(code) if *code == ExitCode::SUCCESS => journal::Outcome::Done,
        Ok(_) => journal::Outcome::Nonzero,
        Err(failure) => journal::Outcome::Failed(failure),
    };
    // Without a place there is nothing that could have been changed.
    if let Ok(place) = place() {
        journal::finish(&place, how);
    }
    outcome
}

/// Where this user's things are; for verbs that use the store.
fn place() -> Result<Place, Failure> {
    refuse_root()?;
    Place::of_caller()
}

#[cfg(test)]
mod tests;
