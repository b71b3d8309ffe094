//! `exec`.

use super::{Outcome, place, read};
use crate::arguments::exec::ExecArgs;
use crate::report;
use clap::{ArgMatches, Args as _, Command};
use rlrun_engine::exec::{Started, take_preserved};
use rlrun_engine::trace::Marks;

/// The usage is written out, because clap would show the words after the container as a list of containers.
pub(super) fn define(command: Command) -> Command {
    ExecArgs::augment_args(command).override_usage("rlrun exec [OPTIONS] CONTAINER COMMAND [ARG...]")
}

/// In the foreground becomes the command's supervisor, and comes back only when something stopped the start.
pub(super) fn exec(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let args: ExecArgs = read(matches)?;
    // Before anything else is opened, which might get one of their numbers.
    let preserved = take_preserved(args.preserve_fds())?;
    let words = args.request()?;
    let Started::Detached(session) = rlrun_engine::exec::exec(&place()?, &words, preserved)?;
    report::print(&format!("{session}\n"))
}
