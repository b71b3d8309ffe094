//! `rlrun-policyc`: a policy and its settings on standard input, machine code on standard output, or a component
//! where the only argument asks for one (`Work`).
//!
//! Its input is untrusted and a compiler is a large program, so the process gives everything up before it reads the
//! first byte: it can open no file and no socket, start no process, use a bounded amount of memory and time. Of the
//! policy it runs `lifecycle.init` and nothing else, in the sandbox and under the limits of an evaluation, to keep
//! the state after it with the code. Exit status 2: the input is not a policy, standard error says why; 3: the code
//! is good and `init` still has to be called.

mod confine;
mod encode;
mod shape;
mod snapshot;

use rlrun_admission::code::{EXIT_PLAIN, EXIT_REFUSED, Work, split_frame};
use std::borrow::Cow;
use std::io::{Read as _, Write as _};
use std::process::ExitCode;
use wasmtime::{Engine, OptLevel};

/// Bytes of a policy and its settings; admission refuses larger ones before.
const INPUT_BYTES: u64 = 66 << 20;

#[derive(Debug, thiserror::Error)]
enum Error {
    /// The input is at fault.
    #[error("{0}")]
    Refused(String),
    /// This process is.
    #[error("{0}")]
    Own(String),
}

/// Whether the code holds the state after `init`.
enum Compiled {
    SetUp,
    Plain,
}

fn main() -> ExitCode {
    match run() {
        Ok(Compiled::SetUp) => ExitCode::SUCCESS,
        Ok(Compiled::Plain) => ExitCode::from(EXIT_PLAIN),
        Err(Error::Refused(why)) => {
            eprintln!("{why}");
            ExitCode::from(EXIT_REFUSED)
        }
        Err(Error::Own(why)) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<Compiled, Error> {
    let own = |what: &str, why: &dyn std::fmt::Display| Error::Own(format!("{what}: {why}"));
    let word = std::env::args().nth(1).unwrap_or_default();
    let work = Work::named(&word).ok_or_else(|| Error::Own(format!("`{word}` is nothing that can be asked for")))?;
    confine::confine().map_err(|e| own("confine the compiler", &e))?;
    let mut input = Vec::new();
    std::io::stdin().take(INPUT_BYTES + 1).read_to_end(&mut input).map_err(|e| own("read the policy", &e))?;
    if u64::try_from(input.len()).is_ok_and(|len| len > INPUT_BYTES) {
        return Err(Error::Refused(format!("is larger than {INPUT_BYTES} bytes")));
    }
    let (settings, wasm) = split_frame(&input).ok_or_else(|| Error::Own("the input is cut off".to_owned()))?;
    let component = encode::component(wasm).map_err(Error::Refused)?;
    shape::check(&component).map_err(Error::Refused)?;
    let set_up = || snapshot::after_init(&component, settings).map(Cow::Owned);
    let (component, compiled) = match work {
        Work::Component => return put(&component, Compiled::Plain),
        Work::SetUp => {
            let refused = || Error::Refused("its state with these settings cannot be kept".to_owned());
            return put(&set_up().ok_or_else(refused)?, Compiled::SetUp);
        }
        Work::Plain => (component, Compiled::Plain),
        Work::Code => match set_up() {
            Some(after) => (after, Compiled::SetUp),
            None => (component, Compiled::Plain),
        },
    };
    let code = engine(Purpose::Keep)?
        .precompile_component(&component)
        .map_err(|e| Error::Refused(format!("is not valid: {}", one_line(&e))))?;
    put(&code, compiled)
}

fn put(bytes: &[u8], compiled: Compiled) -> Result<Compiled, Error> {
    std::io::stdout().write_all(bytes).map_err(|e| Error::Own(format!("write the output: {e}")))?;
    Ok(compiled)
}

/// What the code is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// To be kept, and run by admission.
    Keep,
    /// To be run once, here.
    Run,
}

fn engine(purpose: Purpose) -> Result<Engine, Error> {
    let mut config = rlrun_admission::engine::config();
    // A NaN's bits would otherwise depend on the processor.
    config.cranelift_nan_canonicalization(true);
    match purpose {
        Purpose::Keep => config.cranelift_opt_level(OptLevel::Speed),
        // Compiling it well would take longer than running it badly. And no descriptor can be opened here, so memory
        // images cannot come from a memfd.
        Purpose::Run => config.cranelift_opt_level(OptLevel::None).memory_init_cow(false),
    };
    Engine::new(&config).map_err(|e| Error::Own(format!("{e:#}")))
}

fn one_line(error: &wasmtime::Error) -> String {
    format!("{error:#}").lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ")
}
