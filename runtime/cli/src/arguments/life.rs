//! The verbs that change what a container does.

use clap::Args;
use std::path::PathBuf;

/// Which containers.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct ChoiceArgs {
    /// Names or ids
    #[arg(value_name = "CONTAINER")]
    pub(crate) names: Vec<String>,
    /// The newest one
    #[arg(short, long)]
    pub(crate) latest: bool,
    /// The ones whose ids are in these files
    #[arg(long, value_name = "FILE")]
    pub(crate) cidfile: Vec<PathBuf>,
    /// Those that fit; may be given several times
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub(crate) filter: Vec<String>,
}

/// `rlrun stop`.
#[derive(Args, Debug)]
pub(crate) struct StopArgs {
    #[command(flatten)]
    pub(crate) choice: ChoiceArgs,
    /// All that run
    #[arg(short, long)]
    pub(crate) all: bool,
    /// A container that is not there is no failure
    #[arg(short, long)]
    pub(crate) ignore: bool,
    /// Seconds from the stop signal to SIGKILL
    #[arg(short, long, value_name = "SECONDS", allow_negative_numbers = true)]
    pub(crate) time: Option<i64>,
}

/// `rlrun kill`.
#[derive(Args, Debug)]
pub(crate) struct KillArgs {
    #[command(flatten)]
    pub(crate) choice: ChoiceArgs,
    /// All that run
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Which signal
    #[arg(short, long, value_name = "SIGNAL", default_value = "KILL")]
    pub(crate) signal: String,
}
