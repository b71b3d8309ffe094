//! `run` and `plan`.

use super::images::progress;
use super::{Outcome, place, read};
use crate::arguments::run::RunArgs;
use crate::report;
use clap::{ArgMatches, Args as _, Command};
use rlrun_engine::attach::{Attaching, is_leavable};
use rlrun_engine::exec::take_preserved;
use rlrun_engine::images::{RemoveMode, Workshop};
use rlrun_engine::place::Place;
use rlrun_engine::request::RunRequest;
use rlrun_engine::run::Started;
use rlrun_engine::trace::Marks;
use rlrun_engine::volumes;
use rlrun_spec::{Failure, Kind, Stage};
use std::io::IsTerminal as _;
use std::process::ExitCode;

/// The usage is written out, because clap would show the words after the image as a list of images.
pub(super) fn define(command: Command, verb: &str) -> Command {
    RunArgs::augment_args(command).override_usage(format!("rlrun {verb} [OPTIONS] IMAGE [COMMAND [ARG...]]"))
}

pub(super) fn define_create(command: Command) -> Command {
    define(command, "create").mut_arg("detach", |arg| arg.hide(true))
}

/// The same for a verb whose words are a command.
pub(super) fn define_words<A: clap::Args>(command: Command, verb: &str) -> Command {
    A::augment_args(command).override_usage(format!("rlrun {verb} [COMMAND [ARG...]]"))
}

/// `--attach`: the other streams lead nowhere.
fn leave_out(streams: Option<Vec<String>>) -> Result<(), Failure> {
    let Some(streams) = streams else { return Ok(()) };
    let failed =
        |why: String| Failure::new(Stage::Cli, Kind::Runtime, "attach", "leave out", "a standard stream").why(why);
    let null = std::fs::File::options().read(true).write(true).open("/dev/null").map_err(|e| failed(e.to_string()))?;
    let all = [
        ("stdin", rustix::stdio::dup2_stdin as fn(_) -> _),
        ("stdout", rustix::stdio::dup2_stdout),
        ("stderr", rustix::stdio::dup2_stderr),
    ];
    for (name, replace) in all {
        if !streams.iter().any(|stream| stream == name) {
            replace(&null).map_err(|e: rustix::io::Errno| failed(e.to_string()))?;
        }
    }
    Ok(())
}

/// What the command line asks for.
struct Asked {
    request: RunRequest,
    /// How its caller is attached.
    attaching: Attaching,
    quiet: bool,
    removes_image: bool,
}

fn asked(matches: &mut ArgMatches) -> Result<Asked, Failure> {
    let args = read::<RunArgs>(matches)?;
    let attaching = args.attaching()?;
    leave_out(args.streams()?)?;
    let quiet = args.is_quiet();
    let removes_image = args.removes_image()?;
    let from = args.volumes_from();
    let mut request = args.request()?;
    if !from.is_empty() {
        volumes::inherit(&place()?, &from, &mut request)?;
    }
    request.launching.life.leavable = !request.launching.life.detach && is_leavable(request.tty, &attaching);
    Ok(Asked { request, attaching, quiet, removes_image })
}

/// In the foreground becomes the supervisor, and comes back only when something stopped the start.
pub(super) fn run(matches: &mut ArgMatches, mut marks: Marks) -> Outcome {
    // Before anything else is opened, which might get one of their numbers.
    let preserved = take_preserved(matches.get_one::<u32>("preserve_fds").copied().unwrap_or(0))?;
    let Asked { request, attaching, quiet, removes_image } = asked(matches)?;
    marks.mark("cli: request made");
    if request.tty && request.interactive && !request.launching.life.detach && !std::io::stdin().is_terminal() {
        rlrun_engine::warn("standard input is no terminal: with -it programs may wait for keys that nobody can type");
    }
    let place = place()?;
    if removes_image && let Some(code) = rlrun_engine::run::apart()? {
        drop(preserved);
        return remove_image(&place, &request.image, code);
    }
    let Started::Detached(id) =
        rlrun_engine::run::run(&place, &request, attaching, preserved, &progress(quiet), marks)?;
    report::print(&format!("{id}\n"))
}

/// `--rmi`: the container has ended, or was never started.
fn remove_image(place: &Place, image: &str, code: u8) -> Outcome {
    if code != Kind::Usage.exit_code() {
        let removed = Workshop::open(place.clone()).and_then(|workshop| workshop.remove(image, RemoveMode::Normal));
        if let Err(failure) = removed {
            rlrun_engine::warn(&format!("the image stays: {failure}"));
        }
    }
    Ok(ExitCode::from(code))
}

/// Prints the id of what was made.
pub(super) fn create(matches: &mut ArgMatches, mut marks: Marks) -> Outcome {
    let Asked { request, quiet, removes_image, .. } = asked(matches)?;
    let refused =
        |option: &str| Failure::new(Stage::Cli, Kind::Usage, "parse-arguments", "understand the command line", option);
    if request.launching.life.detach {
        return Err(refused("--detach").why("nothing is started").hint("rlrun run -d starts it too"));
    }
    if request.launching.preserve_fds > 0 {
        let failure = refused("--preserve-fds").why("nothing is started that could get them");
        return Err(failure.hint("rlrun run --preserve-fds N"));
    }
    if removes_image {
        return Err(refused("--rmi").why("nobody waits for its end").hint("rlrun run --rmi"));
    }
    marks.mark("cli: request made");
    let id = rlrun_engine::run::create(&place()?, &request, &progress(quiet), marks)?;
    report::print(&format!("{id}\n"))
}

pub(super) fn plan(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let Asked { request, .. } = asked(matches)?;
    let plan = rlrun_engine::plan::plan(&place()?, &request)?;
    let text = serde_json::to_string_pretty(&plan)
        .map_err(|e| Failure::new(Stage::Cli, Kind::Internal, "plan", "print the plan", "").why(e.to_string()))?;
    report::print(&(text + "\n"))
}
