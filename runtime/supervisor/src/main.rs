//! The supervisor of one container: it starts the stages, relays the streams and signals, and ends with the payload's
//! exit code. One thread, no policy engine, no HTTP; it reads nothing but the sealed plan. When it dies, whatever the
//! way, the kernel ends the container.

mod book;
mod client;
mod control;
mod ending;
mod exec;
mod fate;
mod guests;
mod health;
mod journal;
mod journald;
mod keys;
mod log;
mod output;
mod relay;
mod run;
mod signals;
mod streams;
mod tend;
mod terminal;

use rlrun_sandbox::Role;
use rlrun_spec::Failure;
use rlrun_spec::hint;
use rlrun_spec::plan::Job;
use std::io::Write as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    let code = rlrun_sandbox::role().and_then(|role| match role {
        Role::Mapper(launch) => rlrun_sandbox::run_mapper(&launch, &run::configure_network),
        Role::Supervisor(Job::Launch(launch), Some(plan)) => run::run(&launch, plan),
        Role::Supervisor(Job::Launch(_), None) => Err(run::failure("read-plan", "find", "the plan")),
        Role::Supervisor(Job::Attach(attach), _) => client::run(&attach),
        Role::Supervisor(Job::Exec(exec), _) => exec::run(&exec),
        Role::Supervisor(Job::Mapped(mapped), _) => rlrun_sandbox::become_mapped(&mapped),
    });
    match code {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            report(&failure);
            ExitCode::from(failure.kind.exit_code())
        }
    }
}

/// Told once, here: what, on what, why, and what to do.
fn report(failure: &Failure) {
    let hint = hint::for_failure(failure).map(|hint| format!("hint: {hint}\n")).unwrap_or_default();
    if std::io::stderr().write_all(format!("Error: {failure}\n{hint}").as_bytes()).is_err() {
        // It may be standard error itself that cannot be written (eprintln! would panic): the exit code tells.
    }
}
