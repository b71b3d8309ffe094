//! `rlrun secret ...`.

use super::list::ListArgs;
use clap::Args;
use std::path::PathBuf;

/// `create`.
#[derive(Args, Debug)]
pub(crate) struct CreateArgs {
    /// Its name
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// File with its value, or - for standard input; with --env a variable of yours
    #[arg(value_name = "FILE")]
    pub(crate) source: PathBuf,
    /// Take the value from this variable of yours instead of a file
    #[arg(long)]
    pub(crate) env: bool,
    /// Label
    #[arg(short, long, value_name = "NAME=VALUE")]
    pub(crate) label: Vec<String>,
    /// Only file
    #[arg(short, long, value_name = "DRIVER", default_value = "file")]
    pub(crate) driver: String,
    /// Give a secret of this name a new value
    #[arg(long)]
    pub(crate) replace: bool,
    /// A secret of this name may be there already
    #[arg(long)]
    pub(crate) ignore: bool,
}

/// `ls`.
#[derive(Args, Debug, Default)]
pub(crate) struct LsArgs {
    #[command(flatten)]
    pub(crate) list: ListArgs,
}

/// `inspect`.
#[derive(Args, Debug)]
pub(crate) struct InspectArgs {
    /// Names or ids
    #[arg(required = true, value_name = "SECRET")]
    pub(crate) names: Vec<String>,
    /// json or a Go template
    #[arg(short, long, value_name = "FORMAT")]
    pub(crate) format: Option<String>,
    /// For people
    #[arg(long, conflicts_with = "format")]
    pub(crate) pretty: bool,
    /// Print the value too
    #[arg(long)]
    pub(crate) showsecret: bool,
}

/// `rm`.
#[derive(Args, Debug)]
pub(crate) struct RmArgs {
    /// Names or ids
    #[arg(value_name = "SECRET", required_unless_present = "all")]
    pub(crate) names: Vec<String>,
    /// All secrets
    #[arg(short, long)]
    pub(crate) all: bool,
    /// A secret that is not there is no error
    #[arg(short, long)]
    pub(crate) ignore: bool,
}

/// A verb about one secret.
#[derive(Args, Debug)]
pub(crate) struct NameArgs {
    /// Name or id
    #[arg(value_name = "SECRET")]
    pub(crate) name: String,
}
