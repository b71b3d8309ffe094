//! `cp`, `diff`, `export` and `commit`.

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
    /// Name or id, of a container or an image
    #[arg(value_name = "CONTAINER")]
    pub(crate) name: Option<String>,
    /// The newest container
    #[arg(short, long)]
    pub(crate) latest: bool,
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

/// `rlrun commit`.
#[derive(Args, Debug)]
pub(crate) struct CommitArgs {
    /// Name or id
    #[arg(value_name = "CONTAINER")]
    pub(crate) container: String,
    /// Name of the image
    #[arg(value_name = "NAME[:TAG]")]
    pub(crate) name: Option<String>,
    /// Instruction of a Containerfile: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME or WORKDIR
    #[arg(short, long, value_name = "INSTRUCTION")]
    pub(crate) change: Vec<String>,
    /// Who made it
    #[arg(short, long, value_name = "TEXT")]
    pub(crate) author: Option<String>,
    /// What its history says of it
    #[arg(short, long, value_name = "TEXT")]
    pub(crate) message: Option<String>,
    /// oci or docker
    #[arg(short, long, value_name = "FORMAT", default_value = "oci")]
    pub(crate) format: String,
    /// One layer instead of one more
    #[arg(short, long)]
    pub(crate) squash: bool,
    /// The container's volumes become the image's
    #[arg(long)]
    pub(crate) include_volumes: bool,
    /// Stop the container's processes meanwhile
    #[arg(short, long)]
    pub(crate) pause: bool,
    /// Write the image's id to a file
    #[arg(long, value_name = "FILE")]
    pub(crate) iidfile: Option<PathBuf>,
    /// Print nothing but errors and the id
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// `rlrun mount`.
#[derive(Args, Debug)]
pub(crate) struct MountArgs {
    /// Names or ids; without any, what is mounted is listed
    #[arg(value_name = "CONTAINER", conflicts_with_all = ["all", "latest"])]
    pub(crate) names: Vec<String>,
    /// All containers
    #[arg(short, long)]
    pub(crate) all: bool,
    /// The newest one
    #[arg(short, long)]
    pub(crate) latest: bool,
    /// json
    #[arg(long, value_name = "FORMAT")]
    pub(crate) format: Option<String>,
    /// Whole ids
    #[arg(long)]
    pub(crate) no_trunc: bool,
}

/// `rlrun unmount`.
#[derive(Args, Debug)]
pub(crate) struct UnmountArgs {
    /// Names or ids
    #[arg(required_unless_present_any = ["all", "latest"], value_name = "CONTAINER", conflicts_with_all = ["all", "latest"])]
    pub(crate) names: Vec<String>,
    /// All that are mounted
    #[arg(short, long)]
    pub(crate) all: bool,
    /// The newest one
    #[arg(short, long)]
    pub(crate) latest: bool,
    /// Also where something uses it
    #[arg(short, long)]
    pub(crate) force: bool,
}

/// `rlrun unshare`.
#[derive(Args, Debug)]
pub(crate) struct UnshareArgs {
    /// The command and its arguments; your shell when left out
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, num_args = 0.., value_name = "COMMAND", hide = true)]
    pub(crate) words: Vec<String>,
}
