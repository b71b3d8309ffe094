//! Runs the compiler, a child process that confines itself before it reads its input.

use super::load::TrustedCode;
use super::state::State;
use super::{EXIT_PLAIN, EXIT_REFUSED, Work, input_frame};
use crate::error::LoadError;
use rustix::fs::{MemfdFlags, SealFlags};
use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Compiles a component, or a core module that holds its WIT, to machine code; set up with its settings if it can be.
///
/// # Errors
/// [`LoadError::NotAPolicy`] when the input is at fault, [`LoadError::Compiler`] when the compiler is.
pub(crate) fn compile(
    policyc: &Path,
    name: &str,
    wasm: &[u8],
    settings: &str,
    work: Work,
) -> Result<(TrustedCode, State), Uncompiled> {
    let broken = |why: String| LoadError::Compiler { path: policyc.to_owned(), why };
    let (output, state) = run(policyc, name, &input_frame(settings, wasm), work)?;
    // The child is gone; from here on nobody can write it, this process included.
    rustix::fs::fcntl_add_seals(&output, SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)
        .map_err(|e| broken(e.to_string()))?;
    Ok((TrustedCode::vouch_for(output), state))
}

/// Makes a component of a core module, or, for [`Work::SetUp`], one that holds its settings already.
///
/// # Errors
/// As a compilation.
pub fn component(policyc: &Path, name: &str, wasm: &[u8], settings: &str, work: Work) -> Result<Vec<u8>, LoadError> {
    let (mut output, _) = run(policyc, name, &input_frame(settings, wasm), work)?;
    let mut bytes = Vec::new();
    let read = output.rewind().and_then(|()| output.read_to_end(&mut bytes));
    read.map_err(|e| LoadError::Compiler { path: policyc.to_owned(), why: e.to_string() })?;
    Ok(bytes)
}

fn run(policyc: &Path, name: &str, frame: &[u8], work: Work) -> Result<(File, State), Uncompiled> {
    let broken = |why: String| LoadError::Compiler { path: policyc.to_owned(), why };
    let input = input(frame).map_err(|e| broken(e.to_string()))?;
    let output = memfd("rlrun-policy-code").map_err(|e| broken(e.to_string()))?;
    let to_child = output.try_clone().map_err(|e| broken(e.to_string()))?;
    let run = Command::new(policyc)
        .arg(work.word())
        .env_clear()
        .stdin(input)
        .stdout(Stdio::from(to_child))
        .stderr(Stdio::piped())
        .spawn()
        .and_then(std::process::Child::wait_with_output)
        .map_err(|e| broken(format!("cannot be started: {e}")))?;
    match run.status.code() {
        Some(0) => Ok((output, State::SetUp)),
        Some(code) if code == i32::from(EXIT_PLAIN) => Ok((output, State::Plain)),
        _ => Err(failed(policyc, name, &run)),
    }
}

/// Why there is no machine code.
pub(crate) struct Uncompiled {
    pub(crate) error: LoadError,
    /// The compiler would say the same again, on this machine and any other.
    pub(crate) is_final: bool,
}

impl From<LoadError> for Uncompiled {
    fn from(error: LoadError) -> Self {
        Uncompiled { error, is_final: false }
    }
}

impl From<Uncompiled> for LoadError {
    fn from(uncompiled: Uncompiled) -> Self {
        uncompiled.error
    }
}

fn failed(policyc: &Path, name: &str, run: &Output) -> Uncompiled {
    let said = String::from_utf8_lossy(&run.stderr);
    let said: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let said = said.join("; ");
    if run.status.code() == Some(i32::from(EXIT_REFUSED)) {
        return Uncompiled { error: LoadError::not_a_policy(name, said), is_final: true };
    }
    // RLIMIT_CPU: SIGXCPU, then SIGKILL (getrlimit(2)).
    if let Some(signal) = run.status.signal()
        && [libc_signal::XCPU, libc_signal::KILL].contains(&signal)
    {
        return LoadError::not_a_policy(name, "takes too long to compile").into();
    }
    LoadError::Compiler { path: policyc.to_owned(), why: format!("{}: {said}", run.status) }.into()
}

/// Signal numbers that are the same on every Linux architecture Rust supports but MIPS, where wasmtime has none.
mod libc_signal {
    pub(super) const KILL: i32 = 9;
    pub(super) const XCPU: i32 = 24;
}

fn input(frame: &[u8]) -> std::io::Result<Stdio> {
    let mut file = memfd("rlrun-policy")?;
    file.write_all(frame)?;
    file.rewind()?;
    Ok(Stdio::from(file))
}

fn memfd(name: &str) -> std::io::Result<File> {
    Ok(File::from(rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?))
}
