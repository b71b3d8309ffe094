//! `rlrun oci`: the command line of an OCI runtime, as engines call it.

use super::run::Switch;
use clap::Args;
use std::path::PathBuf;

/// What `oci create` and `oci run` have in common.
#[derive(Args, Debug)]
pub(crate) struct BundleArgs {
    /// The bundle: a directory with config.json
    #[arg(short, long, value_name = "DIRECTORY", default_value = ".")]
    pub(crate) bundle: PathBuf,
    /// Write the pid of the container's pid 1 there
    #[arg(long, value_name = "FILE")]
    pub(crate) pid_file: Option<PathBuf>,
    /// create: send the master of the container's terminal to whoever listens there
    #[arg(long, value_name = "SOCKET")]
    pub(crate) console_socket: Option<PathBuf>,
    /// Descriptors beside the standard ones; only 0 is supported
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub(crate) preserve_fds: u32,
    /// What becomes of a limit that this host cannot enforce: prefer or require
    #[arg(long, value_name = "LEVEL", default_value = "prefer")]
    pub(crate) limits: String,
    /// Ask this policy too
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: Vec<PathBuf>,
    /// Whether the built-in baseline policy is asked, which refuses the host's network
    #[arg(long, value_enum, default_value_t, value_name = "on|off", hide_possible_values = true)]
    pub(crate) policy_baseline: Switch,
    /// What it is to be called
    #[arg(value_name = "ID")]
    pub(crate) id: String,
}

/// `rlrun oci create`.
#[derive(Args, Debug)]
pub(crate) struct CreateArgs {
    #[command(flatten)]
    pub(crate) bundle: BundleArgs,
}

/// `rlrun oci run`.
#[derive(Args, Debug)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) bundle: BundleArgs,
    /// Run in the background
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Keep the container when it has ended
    #[arg(long)]
    pub(crate) keep: bool,
}

/// `rlrun oci start`, `state`, `pause` and `resume`.
#[derive(Args, Debug)]
pub(crate) struct IdArgs {
    /// What it is called
    #[arg(value_name = "ID")]
    pub(crate) id: String,
}

/// `rlrun oci kill`.
#[derive(Args, Debug)]
pub(crate) struct KillArgs {
    /// What it is called
    #[arg(value_name = "ID")]
    pub(crate) id: String,
    /// Which signal
    #[arg(value_name = "SIGNAL", default_value = "TERM")]
    pub(crate) signal: String,
}

/// `rlrun oci delete`.
#[derive(Args, Debug)]
pub(crate) struct DeleteArgs {
    /// What it is called
    #[arg(value_name = "ID")]
    pub(crate) id: String,
    /// End it first; one that is not there is no failure
    #[arg(short, long)]
    pub(crate) force: bool,
}

/// `rlrun oci update`.
#[derive(Args, Debug)]
pub(crate) struct UpdateArgs {
    /// What it is called
    #[arg(value_name = "ID")]
    pub(crate) id: String,
    /// Limits as in /linux/resources of config.json; - is standard input
    #[arg(short, long, value_name = "FILE")]
    pub(crate) resources: PathBuf,
}
