//! The words of each verb, as clap takes them. What they mean is decided in the engine; a struct here is only turned
//! into a request.

pub(crate) mod exec;
pub(crate) mod files;
pub(crate) mod generate;
pub(crate) mod health;
pub(crate) mod images;
pub(crate) mod journal;
pub(crate) mod life;
pub(crate) mod list;
pub(crate) mod look;
pub(crate) mod more;
pub(crate) mod not_yet;
pub(crate) mod oci;
pub(crate) mod run;
pub(crate) mod secret;
pub(crate) mod system;
pub(crate) mod transfer;
pub(crate) mod usage;
pub(crate) mod volume;

use clap::{Arg, ArgAction, Command};

/// Reads options as podman and docker do: `--flag` may be written `--flag=true` and `--flag=false`, and the word after
/// an option that takes a value is its value, whatever it looks like.
pub(crate) fn read_as_podman_does(command: Command) -> Command {
    command.mut_subcommands(read_as_podman_does).mut_args(|arg: Arg| match arg.get_action() {
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
        ArgAction::Set | ArgAction::Append if !arg.is_positional() => arg.allow_hyphen_values(true),
        _ => arg,
    })
}
