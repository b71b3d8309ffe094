//! `rlrun events` and `rlrun audit ...`.

use clap::Args;
use std::path::PathBuf;

/// From when to when.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct SpanArgs {
    /// Only what came after: a time, or how long ago (10m)
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,
    /// Only what came before
    #[arg(long, value_name = "TIME")]
    pub(crate) until: Option<String>,
}

/// `rlrun events`.
#[derive(Args, Debug)]
pub(crate) struct EventsArgs {
    #[command(flatten)]
    pub(crate) span: SpanArgs,
    /// Only what fits: container, event, image, label, type, volume
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub(crate) filter: Vec<String>,
    /// json or a Go template
    #[arg(long, value_name = "FORMAT")]
    pub(crate) format: Option<String>,
    /// Go on with what comes (default true)
    #[arg(long, default_value = "true", action = clap::ArgAction::SetTrue)]
    pub(crate) stream: bool,
    /// Short ids
    #[arg(long, default_value = "true", action = clap::ArgAction::SetTrue)]
    pub(crate) no_trunc: bool,
}

/// `rlrun audit tail`.
#[derive(Args, Debug)]
pub(crate) struct TailArgs {
    /// How many lines
    #[arg(short = 'n', long, value_name = "NUMBER", default_value_t = 10)]
    pub(crate) lines: usize,
    /// Go on with what comes
    #[arg(short, long)]
    pub(crate) follow: bool,
}

/// `rlrun audit verify`.
#[derive(Args, Debug)]
pub(crate) struct VerifyArgs {
    /// A digest that an earlier verification gave: the log must have gone on from there
    #[arg(long, value_name = "DIGEST")]
    pub(crate) head: Option<String>,
}

/// `rlrun audit export`.
#[derive(Args, Debug)]
pub(crate) struct ExportArgs {
    #[command(flatten)]
    pub(crate) span: SpanArgs,
    /// A new file; standard output when left out
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}
