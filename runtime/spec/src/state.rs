//! What a container's supervisor says of it: the file `state` in the container's directory. Lines of `name value`,
//! so that a file of another version still reads: unknown names are skipped, missing ones have their default. The
//! file alone does not tell whether the container runs: a supervisor that was killed could not write its end. The
//! lock does (`rlrun_engine::containers`).

use crate::health::Status;
use crate::usage::Spent;
use std::fmt::Write as _;

/// The file's name.
pub const STATE: &str = "state";

/// A container with this file beside it is kept when it has ended.
pub const KEEP: &str = "keep";

/// The contents of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// The supervisor, on the host.
    pub supervisor: i32,
    /// The container's pid 1, on the host; 0 when it does not run.
    pub pid: i32,
    /// When it was started last, nanoseconds since the epoch; 0: never.
    pub started: u64,
    /// When it ended, the same way; 0: it has not ended since it was started.
    pub finished: u64,
    /// Its last exit code.
    pub exit_code: u8,
    /// How often the supervisor has started it again.
    pub restarts: u32,
    /// It is paused.
    pub paused: bool,
    /// It has ended and its supervisor is about to start it again.
    pub restarting: bool,
    /// The user stopped it: `--restart unless-stopped` lets it rest.
    pub stopped: bool,
    /// It was ended because of its memory limit.
    pub oom_killed: bool,
    /// How its health checks went.
    pub health: Status,
    /// What it used from its last start to its end.
    pub spent: Spent,
    /// Why it could not be started or was ended by rlrun; one line.
    pub error: String,
}

impl State {
    /// The file's text.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::with_capacity(160);
        let mut line = |name: &str, value: &dyn std::fmt::Display| {
            // Writing to a String cannot fail.
            if writeln!(text, "{name} {value}").is_err() {
                text.clear();
            }
        };
        line("supervisor", &self.supervisor);
        line("pid", &self.pid);
        line("started", &self.started);
        line("finished", &self.finished);
        line("exit-code", &self.exit_code);
        line("restarts", &self.restarts);
        line("paused", &self.paused);
        line("restarting", &self.restarting);
        line("stopped", &self.stopped);
        line("oom-killed", &self.oom_killed);
        if self.health != Status::None {
            line("health", &self.health.word());
        }
        if self.spent != Spent::default() {
            line("spent", &self.spent);
        }
        line("error", &self.error.replace('\n', " "));
        text
    }

    /// From the file's text.
    #[must_use]
    pub fn parse(text: &str) -> State {
        let mut state = State::default();
        for (name, value) in text.lines().filter_map(|l| l.split_once(' ')) {
            match name {
                "supervisor" => state.supervisor = value.parse().unwrap_or_default(),
                "pid" => state.pid = value.parse().unwrap_or_default(),
                "started" => state.started = value.parse().unwrap_or_default(),
                "finished" => state.finished = value.parse().unwrap_or_default(),
                "exit-code" => state.exit_code = value.parse().unwrap_or_default(),
                "restarts" => state.restarts = value.parse().unwrap_or_default(),
                "paused" => state.paused = value == "true",
                "restarting" => state.restarting = value == "true",
                "stopped" => state.stopped = value == "true",
                "oom-killed" => state.oom_killed = value == "true",
                "health" => state.health = Status::of(value),
                "spent" => state.spent = Spent::parse(value),
                "error" => value.clone_into(&mut state.error),
                _ => {}
            }
        }
        state
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn it_survives_the_file() {
        let state = State {
            supervisor: 5,
            pid: 7,
            started: 1_700_000_000_123_456_789,
            finished: 3,
            exit_code: 137,
            restarts: 2,
            paused: true,
            restarting: true,
            stopped: true,
            oom_killed: true,
            health: Status::Unhealthy,
            spent: Spent { cpu_ns: u64::MAX, throttled_periods: 2, throttled_ns: 3, oom_kills: 4, memory_peak: 5 },
            error: "cannot\nstart".to_owned(),
        };
        assert_eq!(State::parse(&state.render()), State { error: "cannot start".to_owned(), ..state });
    }

    #[test]
    fn a_later_version_still_reads() {
        assert_eq!(State::parse("pid 4\nmood fine\nexit-code x\n"), State { pid: 4, ..State::default() });
    }

    proptest! {
        #[test]
        fn whatever_the_file_holds_it_is_read(text in ".{0,400}") {
            let state = State::parse(&text);
            prop_assert_eq!(State::parse(&state.render()), state);
        }
    }
}
