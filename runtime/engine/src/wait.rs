//! `rlrun wait`: until a container is in one of some states.

use crate::containers::{Container, Status};
use crate::supervisor::{News, Supervisor};
use rlrun_spec::health::Status as Health;
use rlrun_spec::supervision::Request;
use rlrun_spec::{Failure, Kind, Stage};
use std::str::FromStr;
use std::time::Duration;

/// What is waited for, in podman's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// A state.
    Is(Status),
    /// What the health checks of a container that runs say.
    Health(Health),
    /// It is not there any more, or on its way out.
    Removing,
}

impl FromStr for Condition {
    type Err = Failure;

    fn from_str(word: &str) -> Result<Self, Failure> {
        Ok(Condition::Is(match word {
            "configured" | "created" | "initialized" => Status::Created,
            "running" => Status::Running,
            "paused" => Status::Paused,
            "stopping" => Status::Stopping,
            "restarting" => Status::Restarting,
            "exited" | "stopped" => Status::Exited,
            "healthy" => return Ok(Condition::Health(Health::Healthy)),
            "unhealthy" => return Ok(Condition::Health(Health::Unhealthy)),
            "removing" | "removed" => return Ok(Condition::Removing),
            _ => {
                return Err(Failure::new(Stage::Cli, Kind::Usage, "wait", "wait for the condition", word)
                    .why("no such condition")
                    .hint("choose created, running, paused, stopping, restarting, exited, stopped, removing, healthy or unhealthy"));
            }
        }))
    }
}

/// Waits, and returns the exit code: -1 when the container has none.
///
/// # Errors
/// When its supervisor cannot be reached.
pub fn wait(container: &Container, conditions: &[Condition], interval: Duration) -> Result<i32, Failure> {
    let directory = &container.directory;
    let ends = conditions.contains(&Condition::Is(Status::Exited));
    let mut last = None;
    loop {
        // Watching before looking: nothing can happen unseen in between.
        let supervisor = Supervisor::of(container)?;
        if let Some(supervisor) = &supervisor {
            match supervisor.ask(&Request::Watch, &[]) {
                Err(_) if supervisor.outlive(Duration::ZERO)? => {}
                other => other?,
            }
        }
        loop {
            let Some(now) = Container::read(directory.clone()) else {
                // It was removed when it ended; nobody can see it in another state any more.
                return Ok(last.unwrap_or(-1));
            };
            if fits(&now, conditions) {
                // As podman: what goes on has no exit code, whatever an earlier run ended with.
                let ended = matches!(now.status, Status::Exited | Status::Dead | Status::Restarting);
                return Ok(if ended { now.state.exit_code.into() } else { -1 });
            }
            let Some(supervisor) = &supervisor else {
                std::thread::sleep(interval);
                break;
            };
            match supervisor.news(interval)? {
                Some(News::Ended(code)) if ends => return Ok(code.into()),
                Some(News::Ended(code)) => last = Some(code.into()),
                Some(News::Gone) => break,
                Some(News::Changed) | None => {}
            }
        }
    }
}

fn fits(container: &Container, conditions: &[Condition]) -> bool {
    conditions.iter().any(|condition| match condition {
        Condition::Is(Status::Exited) => matches!(container.status, Status::Exited | Status::Dead),
        Condition::Is(status) => container.status == *status,
        // What a container that has ended was like says nothing of now.
        Condition::Health(health) => container.status.is_alive() && container.state.health == *health,
        Condition::Removing => container.status == Status::Dead,
    })
}
