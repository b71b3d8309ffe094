//! What commands do to containers that are there: stop, signal.

use crate::containers::{Container, Status};
use crate::journal;
use crate::supervisor::{self, Supervisor};
use rlrun_spec::supervision::Request;
use rlrun_spec::{Failure, Kind, Stage};
use serde_json::json;
use std::time::Duration;

/// How long the end of a killed container may take: its file systems are unmounted, with `--rm` removed.
const TEAR_DOWN: Duration = Duration::from_secs(60);

pub(crate) fn about(operation: &str, name: &str) -> Failure {
    Failure::new(Stage::Cli, Kind::Usage, "container-state", &format!("{operation} the container"), name)
}

/// Something happened to a container by a command.
pub(crate) fn event(action: &str, container: &Container) {
    journal::event("container", action, &container.summary.id, &container.summary.name, json!({}));
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
pub fn begin_stop(
    container: &Container,
    signal: Option<i32>,
    seconds: Option<u32>,
) -> Result<Option<Stopping>, Failure> {
    let Some(supervisor) = Supervisor::of(container)? else { return Ok(None) };
    match supervisor.ask(&Request::Stop { signal, seconds }, &[]) {
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

/// Sends a signal to a container's pid 1.
///
/// # Errors
/// When the container does not run.
pub fn signal(container: &Container, signal: i32) -> Result<(), Failure> {
    let name = &container.summary.name;
    let resting = || about("signal", name).why(format!("it is {}", container.status.word()));
    let supervisor = Supervisor::of(container)?.ok_or_else(resting)?;
    supervisor.ask(&Request::Signal(signal), &[])?;
    journal::event("container", "kill", &container.summary.id, name, json!({"signal": signal}));
    Ok(())
}

/// Ends a container in the time that it is given, and its supervisor with force when that does not answer.
///
/// # Errors
/// When it cannot be ended at all.
pub fn force_end(container: &Container, seconds: Option<u32>) -> Result<(), Failure> {
    let begun = begin_stop(container, None, seconds);
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
