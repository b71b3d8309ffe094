//! The words of each verb, as clap takes them. What they mean is decided in the engine; a struct here is only turned
//! into a request.

pub(crate) mod images;
pub(crate) mod not_yet;
pub(crate) mod run;

use clap::{Arg, ArgAction, Command};

/// Lets `--flag` be written `--flag=true` and `--flag=false`, as scripts for podman and docker do.
pub(crate) fn switches_take_values(command: Command) -> Command {
    command.mut_args(|arg: Arg| match arg.get_action() {
        ArgAction::SetTrue => {
            let off_by_default = arg.get_default_values().is_empty();
            let arg = if off_by_default { arg.default_value("false") } else { arg };
            arg.action(ArgAction::Set)
                .num_args(0..=1)
                .require_equals(true)
                .default_missing_value("true")
                .hide_default_value(true)
                .hide_possible_values(true)
                .value_name("true|false")
        }
        _ => arg,
    })
}
