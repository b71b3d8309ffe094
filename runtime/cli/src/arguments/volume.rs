//! `rlrun volume ...`.

use super::list::ListArgs;
use clap::Args;
use std::path::PathBuf;

/// `create`.
#[derive(Args, Debug)]
pub(crate) struct CreateArgs {
    /// Its name; a new one when left out
    #[arg(value_name = "VOLUME")]
    pub(crate) name: Option<String>,
    /// Label
    #[arg(short, long, value_name = "NAME=VALUE")]
    pub(crate) label: Vec<String>,
    /// Only local
    #[arg(short, long, value_name = "DRIVER", default_value = "local")]
    pub(crate) driver: String,
    /// type=tmpfs with o=size=64m: each container's own, in memory; device=/DIRECTORY with o=bind: one of the host
    #[arg(short, long, value_name = "NAME=VALUE")]
    pub(crate) opt: Vec<String>,
    /// A volume of this name may be there already
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
    /// Names
    #[arg(value_name = "VOLUME", required_unless_present = "all")]
    pub(crate) names: Vec<String>,
    /// All volumes
    #[arg(short, long)]
    pub(crate) all: bool,
    /// json or a Go template
    #[arg(short, long, value_name = "FORMAT")]
    pub(crate) format: Option<String>,
}

/// `rm`.
#[derive(Args, Debug)]
pub(crate) struct RmArgs {
    /// Names
    #[arg(value_name = "VOLUME", required_unless_present = "all")]
    pub(crate) names: Vec<String>,
    /// All volumes that no container uses
    #[arg(short, long)]
    pub(crate) all: bool,
    /// A volume that is not there is no error
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Seconds to wait for containers; none is ended for its volume
    #[arg(short, long, value_name = "SECONDS", allow_negative_numbers = true, hide = true)]
    pub(crate) time: Option<i64>,
}

/// `prune`.
#[derive(Args, Debug)]
pub(crate) struct PruneArgs {
    /// Do not ask
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Only what fits: label, label!, until
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) filter: Vec<String>,
}

/// A verb about one volume.
#[derive(Args, Debug)]
pub(crate) struct NameArgs {
    /// Name
    #[arg(value_name = "VOLUME")]
    pub(crate) name: String,
}

/// `export`.
#[derive(Args, Debug)]
pub(crate) struct ExportArgs {
    /// Name
    #[arg(value_name = "VOLUME")]
    pub(crate) name: String,
    /// The archive; standard output when left out
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

/// `import`.
#[derive(Args, Debug)]
pub(crate) struct ImportArgs {
    /// Name
    #[arg(value_name = "VOLUME")]
    pub(crate) name: String,
    /// The archive; - is standard input
    #[arg(value_name = "FILE", default_value = "-")]
    pub(crate) source: PathBuf,
}
