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

/// `rlrun system reset`.
#[derive(Args, Debug)]
pub(crate) struct ResetArgs {
    /// Do not ask
    #[arg(short, long)]
    pub(crate) force: bool,
}
