//! The verbs that change what a container does.

use clap::Args;
use rlrun_engine::request::exec::DETACH_KEYS;
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

/// `rlrun start`.
#[derive(Args, Debug)]
pub(crate) struct StartArgs {
    #[command(flatten)]
    pub(crate) choice: ChoiceArgs,
    /// All that do not run; with --filter those that fit
    #[arg(long)]
    pub(crate) all: bool,
    /// Stay with it: its output here, its exit code the command's
    #[arg(short, long)]
    pub(crate) attach: bool,
    /// With --attach: standard input too
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// With --attach and --interactive: keys that leave it alone; an empty list for none
    #[arg(long, value_name = "KEYS", default_value = DETACH_KEYS)]
    pub(crate) detach_keys: String,
    /// Forward signals to the container (default true)
    #[arg(long, default_value = "true", action = clap::ArgAction::SetTrue)]
    pub(crate) sig_proxy: bool,
}

/// `rlrun restart`.
#[derive(Args, Debug)]
pub(crate) struct RestartArgs {
    #[command(flatten)]
    pub(crate) choice: ChoiceArgs,
    /// All, whatever they do
    #[arg(short, long)]
    pub(crate) all: bool,
    /// All that run
    #[arg(long)]
    pub(crate) running: bool,
    /// Seconds from the stop signal to SIGKILL
    #[arg(short, long, value_name = "SECONDS", allow_negative_numbers = true)]
    pub(crate) time: Option<i64>,
}

/// `rlrun pause` and `rlrun unpause`.
#[derive(Args, Debug)]
pub(crate) struct PauseArgs {
    #[command(flatten)]
    pub(crate) choice: ChoiceArgs,
    /// All that can be
    #[arg(short, long)]
    pub(crate) all: bool,
}

/// `rlrun rm`.
#[derive(Args, Debug)]
pub(crate) struct RmArgs {
    #[command(flatten)]
    pub(crate) choice: ChoiceArgs,
    /// All
    #[arg(short, long)]
    pub(crate) all: bool,
    /// End those that run; one that is not there is no failure
    #[arg(short, long)]
    pub(crate) force: bool,
    /// A container that is not there is no failure
    #[arg(short, long)]
    pub(crate) ignore: bool,
    /// Those that depend on it too; none ever does
    #[arg(long)]
    pub(crate) depend: bool,
    /// With --force: seconds from the stop signal to SIGKILL
    #[arg(short, long, value_name = "SECONDS", allow_negative_numbers = true)]
    pub(crate) time: Option<i64>,
    /// Their own volumes too
    #[arg(short, long)]
    pub(crate) volumes: bool,
}

/// `rlrun rename`.
#[derive(Args, Debug)]
pub(crate) struct RenameArgs {
    /// Name or id
    #[arg(value_name = "CONTAINER")]
    pub(crate) name: String,
    /// The new name
    #[arg(value_name = "NAME")]
    pub(crate) new: String,
}

/// `rlrun wait`.
#[derive(Args, Debug)]
pub(crate) struct WaitArgs {
    #[command(flatten)]
    pub(crate) choice: ChoiceArgs,
    /// What to wait for: stopped, running, paused, healthy, ...; any of several
    #[arg(long, value_name = "STATE")]
    pub(crate) condition: Vec<String>,
    /// How often to look where nobody tells, in milliseconds or with a unit (1s)
    #[arg(short, long, value_name = "TIME", default_value = "250ms")]
    pub(crate) interval: String,
    /// Print -1 for a container that is not there
    #[arg(long)]
    pub(crate) ignore: bool,
}

/// `rlrun container prune`.
#[derive(Args, Debug)]
pub(crate) struct PruneArgs {
    /// Only what fits: label, label!, until; may be given several times
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) filter: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    pub(crate) force: bool,
}
