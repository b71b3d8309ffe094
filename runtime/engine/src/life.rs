//! What commands do to containers that are there: stop, signal, pause, rename, remove.

use crate::containers::{Container, Status};
use crate::journal;
use crate::place::Place;
use crate::record::file::replace_summary;
use crate::record::{self, Details, OwnVolumes, Summary, failed, lock};
use crate::supervisor::{self, Supervisor};
use rlrun_spec::supervision::Request;
use rlrun_spec::{Failure, Kind, Stage, protocol};
use serde_json::{Value, json};
use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long the end of a killed container may take: its file systems are unmounted, with `--rm` removed.
const TEAR_DOWN: Duration = Duration::from_secs(60);

/// How long `rm -f` waits for the answer of a supervisor.
const FORCE_AFTER: Duration = Duration::from_secs(10);

/// Between two tries to have a container that another command has.
const INTERVAL: Duration = Duration::from_millis(10);

/// A failure because of what a container does.
#[must_use]
pub fn about(operation: &str, name: &str) -> Failure {
    Failure::new(Stage::Cli, Kind::Usage, "container-state", &format!("{operation} the container"), name)
}

/// Something happened to a container by a command.
pub fn event(action: &str, container: &Container) {
    journal::event("container", action, &container.summary.id, &container.summary.name, of_image(container));
}

/// The image of a container, as events tell it.
fn of_image(container: &Container) -> Value {
    let image = container.summary.image.as_ref();
    image.map_or_else(|| json!({}), |image| json!({"image": image.reference, "imageDigest": image.digest}))
}

/// A stop that is on its way; several can be at once.
pub struct Stopping {
    supervisor: Supervisor,
    patience: Duration,
    container: Container,
}

/// Begins to stop a container: its stop signal, and SIGKILL after `seconds` or what was said when it was created.
/// None when it does not run.
///
/// # Errors
/// When its supervisor cannot be reached.
pub fn begin_stop(container: &Container, seconds: Option<u32>) -> Result<Option<Stopping>, Failure> {
    stop_by(Supervisor::of(container)?, container, Request::Stop { signal: None, seconds }, seconds)
}

/// The same for one that is started again: it stays, `--rm` or not.
///
/// # Errors
/// When its supervisor cannot be reached, or what it has written cannot stay.
pub fn begin_restart(container: &Container, seconds: Option<u32>) -> Result<Option<Stopping>, Failure> {
    if !container.summary.remove || !is_looked_after(container) {
        return begin_stop(container, seconds);
    }
    if Details::read(&container.directory).is_ok_and(|details| details.request.limits.disk.is_some()) {
        return Err(about("restart", &container.summary.name)
            .why("with --storage-opt size= what it has written is in memory and goes when it stops")
            .hint("run it anew"));
    }
    stop_by(Supervisor::of(container)?, container, Request::StopAndStay { signal: None, seconds }, seconds)
}

fn stop_by(
    supervisor: Option<Supervisor>,
    container: &Container,
    request: Request,
    seconds: Option<u32>,
) -> Result<Option<Stopping>, Failure> {
    let Some(supervisor) = supervisor else { return Ok(None) };
    match supervisor.ask(&request, &[]) {
        Ok(()) => {}
        // It ended by itself meanwhile, which is what was wanted.
        Err(_) if supervisor.outlive(Duration::ZERO)? => return Ok(None),
        Err(failure) => return Err(failure),
    }
    let seconds = seconds.unwrap_or(container.summary.life.stop_seconds);
    let patience = TEAR_DOWN + Duration::from_secs(seconds.into());
    Ok(Some(Stopping { supervisor, patience, container: container.clone() }))
}

impl Stopping {
    /// Waits until everything of the container is gone.
    ///
    /// # Errors
    /// When it does not end.
    pub fn finish(self) -> Result<(), Failure> {
        if !self.supervisor.outlive(self.patience)? {
            return Err(about("stop", &self.container.summary.name)
                .why(format!("it has not ended within {} s", self.patience.as_secs()))
                .hint("rlrun rm -f ends and removes it whatever it does"));
        }
        event("stop", &self.container);
        Ok(())
    }
}

/// Whether it is complete and waits for its start (`oci create`).
#[must_use]
pub fn is_held(container: &Container) -> bool {
    container.status == Status::Created && container.state.pid != 0
}

/// Starts one that waits for it.
///
/// # Errors
/// When its program cannot be executed, or it has ended meanwhile.
pub fn proceed(container: &Container) -> Result<(), Failure> {
    let gone = || about("start", &container.summary.name).why("it has just ended");
    Supervisor::of(container)?.ok_or_else(gone)?.ask(&Request::Proceed, &[])
}

/// How a container that does not run comes to.
fn wake(container: &Container) -> String {
    match container.status {
        Status::Restarting => "it runs again in a moment; rlrun wait --condition running waits for that".to_owned(),
        _ => format!("rlrun start {}", container.summary.name),
    }
}

/// Sends a signal to a container's pid 1.
///
/// # Errors
/// When the container does not run.
pub fn signal(container: &Container, signal: i32) -> Result<(), Failure> {
    let name = &container.summary.name;
    let resting = || about("signal", name).why(format!("it is {}", container.status.word())).hint(wake(container));
    let supervisor = Supervisor::of(container)?.ok_or_else(resting)?;
    supervisor.ask(&Request::Signal(signal), &[])?;
    let mut about = of_image(container);
    about["signal"] = json!(signal);
    journal::event("container", "kill", &container.summary.id, name, about);
    Ok(())
}

/// Ends a container in the time that it is given, and its supervisor with force when that does not answer.
///
/// # Errors
/// When it cannot be ended at all.
pub fn force_end(container: &Container, seconds: Option<u32>) -> Result<(), Failure> {
    let request = Request::Stop { signal: None, seconds };
    let begun = Supervisor::within(container, FORCE_AFTER).and_then(|s| stop_by(s, container, request, seconds));
    match begun.and_then(|stopping| stopping.map_or(Ok(()), Stopping::finish)) {
        Ok(()) => Ok(()),
        Err(_) => supervisor::kill(container).map(|()| event("kill", container)),
    }
}

/// Whether it has processes, or will have them again without a command.
#[must_use]
pub fn is_looked_after(container: &Container) -> bool {
    container.status.is_alive() || container.status == Status::Restarting
}

/// Stops every process of a container, or lets them go on.
///
/// # Errors
/// When it does not run, or does so already.
pub fn pause(container: &Container, request: protocol::Request) -> Result<(), Failure> {
    let (wanted, action) = match request {
        protocol::Request::Unpause => (Status::Paused, "unpause"),
        _ => (Status::Running, "pause"),
    };
    let name = &container.summary.name;
    let hint = || match container.status {
        Status::Running => format!("rlrun pause {name}"),
        Status::Paused => format!("rlrun unpause {name}"),
        _ => wake(container),
    };
    let refused = || about(action, name).why(format!("it is {}", container.status.word())).hint(hint());
    if container.status != wanted {
        return Err(refused());
    }
    let supervisor = Supervisor::of(container)?.ok_or_else(refused)?;
    supervisor.ask_mapper(request)?;
    event(action, container);
    Ok(())
}

/// Every process of a container stands still until this is let go, by whatever ends this process too.
pub struct Held(Supervisor);

/// Has a running container stand still; None when it does not run.
///
/// # Errors
/// When it cannot be stopped.
pub fn hold(container: &Container) -> Result<Option<Held>, Failure> {
    let supervisor = if container.status == Status::Running { Supervisor::of(container)? } else { None };
    supervisor.map(|supervisor| supervisor.hold().map(|()| Held(supervisor))).transpose()
}

impl Held {
    /// Lets it go on, and returns when it does.
    ///
    /// # Errors
    /// When it has ended meanwhile.
    pub fn let_go(self) -> Result<(), Failure> {
        self.0.ask_mapper(protocol::Request::Unpause).map(drop)
    }
}

/// `rlrun rename`. The new name is claimed before the old one is let go.
///
/// # Errors
/// When the name is taken, or the disk is full.
pub fn rename(place: &Place, container: &Container, name: &str) -> Result<(), Failure> {
    let directory = &container.directory;
    let failed = |operation: &str, e: &std::io::Error| failed("rename", operation, directory, e);
    let _change = lock::change(directory, lock::Patience::Endless).map_err(|e| failed("lock", &e))?;
    let summary = Summary::read(directory).map_err(|e| failed("read the record in", &e))?;
    if summary.name == name {
        return Err(about("rename", name).why("it has this name already"));
    }
    let names = place.own("names")?;
    let target = Path::new("../containers").join(&summary.id);
    record::claim(&target, &names.join(name), name)?;
    let renamed = Summary { name: name.to_owned(), ..summary.clone() };
    replace_summary(directory, &renamed).map_err(|e| failed("write the record in", &e))?;
    // A supervisor takes the name away with the container, and tells it in events.
    if let Some(supervisor) = Supervisor::of(container)? {
        match supervisor.ask(&Request::Rename(name.to_owned()), &[]) {
            Err(_) if supervisor.outlive(Duration::ZERO)? => {}
            other => other?,
        }
    }
    let old = names.join(&summary.name);
    match fs::remove_file(&old) {
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(failed("remove the old name of", &e)),
        _ => {}
    }
    journal::event("container", "rename", &summary.id, name, json!({"oldName": summary.name}));
    Ok(())
}

/// How a container is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Removal {
    /// It is ended first, in that many seconds or what was said when it was created; None: it must have ended.
    pub force: Option<Option<u32>>,
    /// What becomes of its own volumes.
    pub volumes: OwnVolumes,
}

impl Removal {
    /// Whatever it does; its volumes stay, as after podman's `--replace`.
    #[must_use]
    pub fn forced() -> Removal {
        Removal { force: Some(None), volumes: OwnVolumes::Keep }
    }
}

/// `rlrun rm`.
///
/// # Errors
/// When it runs and is not to be ended, or its files cannot be removed.
pub fn remove(
    place: &Place,
    container: &Container,
    removal: Removal,
    clear: &mut dyn FnMut(&Path) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let end = Instant::now() + FORCE_AFTER;
    loop {
        if let Some(seconds) = removal.force {
            force_end(container, seconds)?;
        }
        match record::remove(place, (&container.directory, &container.summary.name), removal.volumes, clear) {
            // Another command has it, to start, to remove or to copy.
            Err(failure) if removal.force.is_some() && failure.step == record::STEP_RUNNING && Instant::now() < end => {
                std::thread::sleep(INTERVAL);
            }
            other => return other,
        }
    }
}
