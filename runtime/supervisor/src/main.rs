//! The supervisor of one container: it starts the stages, relays the streams and signals, and ends with the payload's
//! exit code. One thread, no policy engine, no HTTP; it reads nothing but the sealed plan. When it dies, whatever the
//! way, the kernel ends the container.

mod relay;
mod run;
mod signals;
mod terminal;

use rlrun_spec::hint;
use rlrun_spec::plan::Job;
use rlrun_spec::Failure;
use std::process::ExitCode;

fn main() -> ExitCode {
    let code = rlrun_sandbox::read_job().and_then(|job| match job {
        Job::Launch(launch) => run::run(&launch),
        Job::Mapped(mapped) => rlrun_sandbox::become_mapped(&mapped),
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
    eprintln!("Error: {failure}");
    if let Some(hint) = hint::for_failure(failure) {
        eprintln!("hint: {hint}");
    }
}
