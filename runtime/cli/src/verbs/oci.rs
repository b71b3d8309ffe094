//! `rlrun oci`: containers of bundles, by the words of an OCI runtime.

use super::{Outcome, Verb, place, read, verb, with};
use crate::arguments::oci::{BundleArgs, CreateArgs, DeleteArgs, IdArgs, KillArgs, RunArgs, UpdateArgs};
use crate::arguments::run::from_anywhere;
use crate::report;
use clap::ArgMatches;
use rlrun_engine::attach::Attaching;
use rlrun_engine::bundle::{Bundle, change};
use rlrun_engine::containers::{self, Container, Status};
use rlrun_engine::images::{OwnVolumes, Workshop};
use rlrun_engine::life::{self, Removal};
use rlrun_engine::place::Place;
use rlrun_engine::record::{Details, Reach};
use rlrun_engine::request::life::LogRequest;
use rlrun_engine::request::limits::signal_number;
use rlrun_engine::request::{self, LimitsLevel, RunRequest};
use rlrun_engine::run::{self, Started, sweep};
use rlrun_engine::start::{Attach, start as start_one};
use rlrun_engine::trace::Marks;
use rlrun_spec::life::Hold;
use rlrun_spec::protocol::Request as Pausing;
use rlrun_spec::{Failure, Kind, Stage};
use serde_json::{Value, json};
use std::fs::File;
use std::io::Read;
use std::process::ExitCode;

/// What bundles are read by (the version of the specification whose words are all known here).
const VERSION: &str = "1.2.0";

/// Longer ones are nobody's limits.
const MOST_RESOURCES: u64 = 1 << 20;

pub(super) const VERBS: &[Verb] = &[
    verb("create", "Set a container of a bundle up, up to its start", with::<CreateArgs>, create),
    verb("start", "Start it", with::<IdArgs>, start),
    verb("run", "Create and start one", with::<RunArgs>, run),
    verb("state", "Print its state, as JSON", with::<IdArgs>, state),
    verb("kill", "Send it a signal", with::<KillArgs>, kill),
    verb("pause", "Have all its processes stand still", with::<IdArgs>, pause),
    verb("resume", "Let them go on", with::<IdArgs>, resume),
    verb("update", "Change its limits", with::<UpdateArgs>, update),
    verb("delete", "Remove it", with::<DeleteArgs>, delete),
];

fn usage(operation: &str, object: &str) -> Failure {
    Failure::new(Stage::Cli, Kind::Usage, "oci", operation, object)
}

fn asked(args: BundleArgs) -> Result<RunRequest, Failure> {
    if args.preserve_fds != 0 {
        return Err(usage("pass on descriptors", "--preserve-fds").why("only the standard ones reach the container"));
    }
    let name =
        request::container_name(&args.id).map_err(|invalid| usage("name the container", &args.id).why(invalid.why))?;
    let level = match args.limits.as_str() {
        "prefer" => LimitsLevel::Prefer,
        "require" => LimitsLevel::Require,
        other => return Err(usage("understand --limits", other).why("it is prefer or require")),
    };
    let (bundle, told) = Bundle::read(&args.bundle)?;
    for warning in &told {
        rlrun_engine::warn(warning);
    }
    let mut request = bundle.request(&name, level)?;
    request.launching.pidfile = args.pid_file;
    request.launching.policies = args.policy.into_iter().map(from_anywhere).collect();
    request.launching.baseline = args.policy_baseline.into();
    Ok(request)
}

fn create(matches: &mut ArgMatches, marks: Marks) -> Outcome {
    let args: CreateArgs = read(matches)?;
    let (id, socket) = (args.bundle.id.clone(), args.bundle.console_socket.clone());
    let mut request = asked(args.bundle)?;
    request.launching.life.detach = true;
    request.launching.life.hold = match (request.tty, &socket) {
        (false, None) => Hold::UntilStart,
        (true, Some(_)) => Hold::WithConsole,
        (true, None) => {
            let failure = usage("create a container with a terminal", &id).why("nobody is there who takes it");
            return Err(failure.hint("--console-socket names a socket on which somebody listens for it"));
        }
        (false, Some(socket)) => {
            let failure = usage("send the terminal to", &socket.display().to_string());
            return Err(failure.why("config.json asks for none (/process/terminal)").hint("leave it out"));
        }
    };
    // Its output goes where the caller's does, past everybody.
    request.launching.life.log = Some(LogRequest::None);
    run::create_held(&place()?, &request, socket.as_deref(), marks)?;
    Ok(ExitCode::SUCCESS)
}

fn run(matches: &mut ArgMatches, marks: Marks) -> Outcome {
    let args: RunArgs = read(matches)?;
    if let Some(socket) = &args.bundle.console_socket {
        return Err(usage("send the terminal to", &socket.display().to_string())
            .why("the supervisor keeps the terminal of a container that `run` starts")
            .hint("`rlrun oci create` sends it; `rlrun attach` reaches it"));
    }
    let mut request = asked(args.bundle)?;
    request.launching.remove = !args.detach && !args.keep;
    request.launching.life.detach = args.detach;
    if !args.detach {
        request.interactive = true;
        // Whoever watches has its output.
        request.launching.life.log = Some(LogRequest::None);
    }
    let attaching = Attaching { input: true, sig_proxy: true, detach_keys: Vec::new() };
    let Started::Detached(_) = run::run(&place()?, &request, attaching, Vec::new(), &|_| {}, marks)?;
    Ok(ExitCode::SUCCESS)
}

/// A container of a bundle by its name; those of images are not an OCI runtime's to show.
fn find(place: &Place, id: &str) -> Result<(Container, Bundle), Failure> {
    sweep(place, Reach::All);
    let container = containers::find_by_name(place, id);
    let container = match container {
        Some(container) => container,
        // With the words for what is not there.
        None => containers::find(place, id)?,
    };
    let details =
        Details::read(&container.directory).map_err(|e| usage("read the record of", id).why(e.to_string()))?;
    match details.request.bundle {
        Some(bundle) => Ok((container, bundle)),
        None => Err(usage("find the container of a bundle", id)
            .why("it was made of an image")
            .hint("the verbs without `oci` are for it")),
    }
}

fn start(matches: &mut ArgMatches, marks: Marks) -> Outcome {
    let args: IdArgs = read(matches)?;
    let place = place()?;
    let (container, _) = find(&place, &args.id)?;
    if container.status != Status::Created {
        return Err(usage("start the container", &args.id).why(format!("it is {}", container.status.word())));
    }
    drop(start_one(&place, &container, Attach::No, marks)?);
    Ok(ExitCode::SUCCESS)
}

/// In the words of the specification; `paused` is runc's.
fn word(status: Status) -> &'static str {
    match status {
        Status::Created => "created",
        Status::Running | Status::Stopping => "running",
        Status::Paused => "paused",
        Status::Restarting | Status::Exited | Status::Dead => "stopped",
    }
}

fn state(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let args: IdArgs = read(matches)?;
    let (container, bundle) = find(&place()?, &args.id)?;
    let mut state = json!({
        "ociVersion": VERSION,
        "id": container.summary.name,
        "status": word(container.status),
        "bundle": bundle.directory,
        "rootfs": bundle.root,
        "annotations": bundle.config.annotations().clone().unwrap_or_default(),
    });
    if container.status.is_alive() || life::is_held(&container) {
        state["pid"] = json!(container.state.pid);
    }
    report::print(&format!("{state:#}\n"))
}

fn kill(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let args: KillArgs = read(matches)?;
    let signal = signal_number(&args.signal)
        .ok_or_else(|| usage("send the signal", &args.signal).why("no such signal").hint("signal(7) lists them"))?;
    let (container, _) = find(&place()?, &args.id)?;
    life::signal(&container, signal)?;
    Ok(ExitCode::SUCCESS)
}

fn pause(matches: &mut ArgMatches, _: Marks) -> Outcome {
    pause_or_not(matches, Pausing::Pause)
}

fn resume(matches: &mut ArgMatches, _: Marks) -> Outcome {
    pause_or_not(matches, Pausing::Unpause)
}

fn pause_or_not(matches: &mut ArgMatches, request: Pausing) -> Outcome {
    let args: IdArgs = read(matches)?;
    let (container, _) = find(&place()?, &args.id)?;
    life::pause(&container, request)?;
    Ok(ExitCode::SUCCESS)
}

fn update(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let args: UpdateArgs = read(matches)?;
    let place = place()?;
    let (container, _) = find(&place, &args.id)?;
    let unreadable = |why: String| usage("read the limits in", &args.resources.display().to_string()).why(why);
    let mut text = String::new();
    let source: Box<dyn Read> = if args.resources.as_os_str() == "-" {
        Box::new(std::io::stdin())
    } else {
        Box::new(File::open(&args.resources).map_err(|e| unreadable(e.to_string()))?)
    };
    source.take(MOST_RESOURCES).read_to_string(&mut text).map_err(|e| unreadable(e.to_string()))?;
    let asked: Value = serde_json::from_str(&text).map_err(|e| unreadable(e.to_string()))?;
    for told in rlrun_engine::update::update(&place, &container, &|limits| change(&asked, limits))? {
        rlrun_engine::warn(&told);
    }
    Ok(ExitCode::SUCCESS)
}

fn delete(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let args: DeleteArgs = read(matches)?;
    let workshop = Workshop::open(place()?)?;
    let (container, _) = match find(workshop.place(), &args.id) {
        Err(failure) if args.force && containers::is_missing(&failure) => return Ok(ExitCode::SUCCESS),
        other => other?,
    };
    // One that was never started has nothing to lose. The supervisor of one that has ended may still be putting things
    // away, which is waited for.
    let resting = matches!(container.status, Status::Created | Status::Exited);
    let force = (args.force || resting).then_some(Some(0));
    workshop.remove_container(&container, Removal { force, volumes: OwnVolumes::Keep })?;
    Ok(ExitCode::SUCCESS)
}
