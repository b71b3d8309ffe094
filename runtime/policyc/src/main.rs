//! `rlrun-policyc`: a policy on standard input, machine code on standard output.
//!
//! Its input is untrusted and a compiler is a large program, so the process gives everything up before it reads the
//! first byte: it can open no file and no socket, start no process, use a bounded amount of memory and time. It
//! never runs what it compiles. Exit status 2: the input is not a policy, standard error says why.

mod confine;
mod encode;

use std::borrow::Cow;
use std::io::{Read as _, Write as _};
use std::process::ExitCode;
use wasmtime::{Engine, OptLevel};

/// Bytes of a policy; admission refuses larger ones before.
const INPUT_BYTES: u64 = 64 << 20;

#[derive(Debug, thiserror::Error)]
enum Error {
    /// The input is at fault.
    #[error("{0}")]
    Refused(String),
    /// This process is.
    #[error("{0}")]
    Own(String),
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(Error::Refused(why)) => {
            eprintln!("{why}");
            ExitCode::from(rlrun_admission::code::EXIT_REFUSED)
        }
        Err(Error::Own(why)) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Error> {
    let own = |what: &str, why: &dyn std::fmt::Display| Error::Own(format!("{what}: {why}"));
    confine::confine().map_err(|e| own("confine the compiler", &e))?;
    let mut input = Vec::new();
    std::io::stdin().take(INPUT_BYTES + 1).read_to_end(&mut input).map_err(|e| own("read the policy", &e))?;
    if u64::try_from(input.len()).is_ok_and(|len| len > INPUT_BYTES) {
        return Err(Error::Refused(format!("is larger than {INPUT_BYTES} bytes")));
    }
    let code = compile(&input)?;
    std::io::stdout().write_all(&code).map_err(|e| own("write the code", &e))
}

fn compile(input: &[u8]) -> Result<Vec<u8>, Error> {
    let component: Cow<'_, [u8]> = encode::component(input).map_err(Error::Refused)?;
    let mut config = rlrun_admission::engine::config();
    config.cranelift_opt_level(OptLevel::Speed);
    // A NaN's bits would otherwise depend on the processor.
    config.cranelift_nan_canonicalization(true);
    let engine = Engine::new(&config).map_err(|e| Error::Own(format!("{e:#}")))?;
    engine.precompile_component(&component).map_err(|e| Error::Refused(format!("is not valid: {}", one_line(&e))))
}

fn one_line(error: &wasmtime::Error) -> String {
    format!("{error:#}").lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ")
}
