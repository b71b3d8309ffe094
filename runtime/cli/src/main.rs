//! `rlrun`: parse, dispatch, render. Nothing is decided here.

mod arguments;
mod format;
mod report;
mod table;
mod verbs;

use rlrun_engine::trace::Marks;
use rlrun_engine::{host, id_map_job};
use std::ffi::OsStr;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut marks = Marks::default();
    marks.mark("cli: started");
    // Started by rlrun itself: nothing of a command line is looked at.
    if let Some(code) = host::overlay::child_main() {
        return code;
    }
    let mut words = std::env::args_os().skip(1);
    if words.next().as_deref() == Some(OsStr::new(id_map_job::VERB)) {
        return id_map_job::main(words.next().as_deref());
    }
    match verbs::dispatch(std::env::args_os(), marks) {
        Ok(code) => code,
        Err(failure) => report::failure(&failure),
    }
}
