//! `rlrun unshare`: a program of the caller's as root of the default id map, for files of subordinate ids.

use crate::host::cause::Surroundings;
use crate::host::{idmap, probe};
use crate::place::{Place, own_program};
use rlrun_sandbox::{Lent, MappedProgram};
use rlrun_spec::Failure;
use rlrun_spec::container::UserNamespace;
use rlrun_spec::plan::{Home, Input};
use std::process::Stdio;

/// Finds a program along PATH and runs it; it keeps the streams and the environment that it gets.
const ENV: &str = "/usr/bin/env";

/// Runs the words, or the caller's shell, on the caller's own streams; its exit code.
///
/// # Errors
/// When this host allows no user namespace.
pub fn unshare(place: &Place, words: &[String]) -> Result<u8, Failure> {
    let host = probe(&place.data);
    let ids =
        idmap::plan(&host, &UserNamespace::Default).map_err(|cause| cause.failure(&host, &Surroundings::read()))?;
    let shell = std::env::var("SHELL").unwrap_or_else(|_| "/bin/sh".to_owned());
    let mut argv = vec![ENV];
    match words {
        [] => argv.push(&shell),
        words => argv.extend(words.iter().map(String::as_str)),
    }
    let stdin = Lent::of(std::io::stdin())?;
    let input = Input::Inherited(stdin.number());
    let program = MappedProgram { maps: &ids.maps, home: Home::Shell, argv: &argv, input, lent: vec![stdin] };
    let supervisor = own_program("rlrun-supervisor")?;
    program.start(&supervisor, Stdio::inherit())?.exit_code()
}
