//! `rlrun generate`.

use clap::Args;

/// `rlrun generate systemd`.
#[derive(Args, Debug)]
pub(crate) struct SystemdArgs {
    /// Name or id; without one the unit starts everything that is to run after a boot
    #[arg(value_name = "CONTAINER")]
    pub(crate) container: Option<String>,
    /// The unit has the container's name in it, not its id
    #[arg(short, long)]
    pub(crate) name: bool,
    /// The unit makes a new container at every start, and removes it at the end
    #[arg(long)]
    pub(crate) new: bool,
    /// As --new, in a template unit, whose instances are containers of their own (NAME-INSTANCE)
    #[arg(long)]
    pub(crate) template: bool,
    /// Leave out the comment at the top
    #[arg(long)]
    pub(crate) no_header: bool,
    /// json: the units by name
    #[arg(long, value_name = "FORMAT")]
    pub(crate) format: Option<String>,
    /// Variable of the unit
    #[arg(short, long, value_name = "NAME=VALUE")]
    pub(crate) env: Vec<String>,
    /// Unit that is to run before
    #[arg(long, value_name = "UNIT")]
    pub(crate) after: Vec<String>,
    /// Unit that is wanted
    #[arg(long, value_name = "UNIT")]
    pub(crate) wants: Vec<String>,
    /// Unit that is needed
    #[arg(long, value_name = "UNIT")]
    pub(crate) requires: Vec<String>,
    /// Seconds that a start may take
    #[arg(long, value_name = "SECONDS")]
    pub(crate) start_timeout: Option<u32>,
    /// Write the unit to a file in this directory and print its path
    #[arg(short, long)]
    pub(crate) files: bool,
    /// What the unit does when the container ends: no, on-success, on-failure, on-abnormal, on-watchdog, on-abort, always
    #[arg(long, value_name = "POLICY", default_value = "on-failure")]
    pub(crate) restart_policy: String,
    /// Seconds before such a restart
    #[arg(long, value_name = "SECONDS")]
    pub(crate) restart_sec: Option<u32>,
    /// Seconds from the stop signal to SIGKILL
    #[arg(long, visible_alias = "time", short = 't', value_name = "SECONDS")]
    pub(crate) stop_timeout: Option<u32>,
    /// What the unit's name begins with
    #[arg(long, value_name = "WORD", default_value = "container")]
    pub(crate) container_prefix: String,
    /// What is between that and the rest
    #[arg(long, value_name = "WORD", default_value = "-")]
    pub(crate) separator: String,
}
