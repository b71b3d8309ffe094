//! `rlrun stats`: how much running containers use, as their mappers count it when they are asked, or their cgroups.

use crate::containers::Container;
use crate::supervisor::Supervisor;
use rlrun_spec::protocol::{Answer, Request};
use rlrun_spec::usage::Usage;
use rlrun_spec::{Failure, Kind, Stage};
use std::time::SystemTime;

/// A container's use at a moment.
#[derive(Clone, Debug)]
pub struct Sample {
    /// The container.
    pub container: Container,
    /// What it uses; None when it does not run.
    pub usage: Option<Usage>,
    /// When, in nanoseconds since the epoch.
    pub time: u64,
}

/// Asks a container's mapper. One that ended meanwhile uses nothing.
///
/// # Errors
/// When it runs and cannot be asked.
pub fn sample(container: Container) -> Result<Sample, Failure> {
    let usage = if container.status.is_alive() { ask(&container)? } else { None };
    let time = u64::try_from(SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos()).unwrap_or(u64::MAX);
    Ok(Sample { container, usage, time })
}

fn ask(container: &Container) -> Result<Option<Usage>, Failure> {
    let Some(supervisor) = Supervisor::of(container)? else { return Ok(None) };
    match supervisor.ask_mapper(Request::Count) {
        Ok(Answer::Counted(usage)) => Ok(Some(*usage)),
        Ok(other) => {
            let failure = Failure::new(Stage::Cli, Kind::Internal, "stats", "count", &*container.summary.name);
            Err(failure.why(format!("unexpected answer {other:?}")))
        }
        Err(_) if supervisor.outlive(std::time::Duration::ZERO)? => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// Bytes of the machine's memory: the limit of a container without one.
#[must_use]
pub fn machine_memory() -> u64 {
    crate::config::limits::total_memory().unwrap_or(0)
}
