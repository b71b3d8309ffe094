//! `rlrun system`.

use clap::Args;

/// `rlrun system df`.
#[derive(Args, Debug)]
pub(crate) struct DfArgs {
    /// Each image, container and volume
    #[arg(short, long, conflicts_with = "format")]
    pub(crate) verbose: bool,
    /// json, a Go template, or `table TEMPLATE`
    #[arg(long, value_name = "FORMAT")]
    pub(crate) format: Option<String>,
}

/// `rlrun system check`.
#[derive(Args, Debug)]
pub(crate) struct CheckArgs {
    /// Remove damaged images that no container uses, so that they can be fetched again
    #[arg(short, long)]
    pub(crate) repair: bool,
    /// Print nothing but damage
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// `rlrun system prune`.
#[derive(Args, Debug)]
pub(crate) struct PruneArgs {
    /// All images that no container uses, not only those without a name
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Volumes that no container uses, too
    #[arg(long)]
    pub(crate) volumes: bool,
    /// Only what fits: label, label!, until; may be given several times
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) filter: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    pub(crate) force: bool,
}

/// `rlrun system reset`.
#[derive(Args, Debug)]
pub(crate) struct ResetArgs {
    /// Do not ask
    #[arg(short, long)]
    pub(crate) force: bool,
}
