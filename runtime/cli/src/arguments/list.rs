//! The options that all lists share, as podman has them.

use clap::Args;

/// How a list is chosen and printed.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct ListArgs {
    /// Only what fits; may be given several times
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub(crate) filter: Vec<String>,
    /// json, a Go template, or `table TEMPLATE`
    #[arg(long, value_name = "FORMAT")]
    pub(crate) format: Option<String>,
    /// Whole ids and texts
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// No heading
    #[arg(short = 'n', long)]
    pub(crate) noheading: bool,
    /// Only ids
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// How an inspection is printed.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct InspectArgs {
    /// Names or ids
    #[arg(required = true, value_name = "NAME")]
    pub(crate) names: Vec<String>,
    /// json or a Go template
    #[arg(short, long, value_name = "FORMAT")]
    pub(crate) format: Option<String>,
}
