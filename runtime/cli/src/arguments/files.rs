//! `cp`, `diff` and `export`.

use clap::Args;
use std::path::PathBuf;

/// `rlrun cp`.
#[derive(Args, Debug)]
pub(crate) struct CpArgs {
    /// What is copied: CONTAINER:PATH, PATH, or - for a tar archive on standard input
    #[arg(value_name = "SOURCE")]
    pub(crate) from: String,
    /// Where to: CONTAINER:PATH, PATH, or - for a tar archive on standard output
    #[arg(value_name = "DESTINATION")]
    pub(crate) to: String,
    /// What is copied into a container becomes its user's (default true)
    #[arg(short, long, default_value = "true", action = clap::ArgAction::SetTrue)]
    pub(crate) archive: bool,
    /// A file may take the place of a directory, and a directory that of a file
    #[arg(long)]
    pub(crate) overwrite: bool,
}

/// `rlrun diff`.
#[derive(Args, Debug)]
pub(crate) struct DiffArgs {
    /// Name or id
    #[arg(value_name = "CONTAINER")]
    pub(crate) name: String,
    /// json
    #[arg(long, value_name = "FORMAT")]
    pub(crate) format: Option<String>,
}

/// `rlrun export`.
#[derive(Args, Debug)]
pub(crate) struct ExportArgs {
    /// Name or id
    #[arg(value_name = "CONTAINER")]
    pub(crate) name: String,
    /// The archive; standard output when left out
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}
