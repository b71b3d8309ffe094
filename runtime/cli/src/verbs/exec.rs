//! `exec` and `attach`.

use super::{Outcome, place, read};
use crate::arguments::exec::{AttachArgs, ExecArgs};
use crate::report;
use clap::{ArgMatches, Args as _, Command};
use rlrun_engine::exec::{Started, find, take_preserved};
use rlrun_engine::trace::Marks;
use rlrun_engine::{journal, life};

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

/// Becomes a process that is attached, and comes back only when that cannot be done.
pub(super) fn attach(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let (which, attaching) = read::<AttachArgs>(matches)?.request()?;
    let place = place()?;
    let container = find(&place, &which)?;
    if container.status.is_alive() {
        // Before: there is nobody left to tell it afterwards.
        life::event("attach", &container);
        journal::finish(&place, journal::Outcome::Done);
    }
    Err(rlrun_engine::attach::attach(&container, attaching))
}
