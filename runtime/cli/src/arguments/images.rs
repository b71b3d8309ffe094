//! `load`, `import`, `pull`, `images`, `rmi` and `rm`.

use super::list::ListArgs;
use clap::{Args, ValueEnum};
use rlrun_engine::request::PullOptions;
use std::path::PathBuf;

/// How a registry is spoken to.
#[derive(Args, Debug)]
pub(crate) struct FetchArgs {
    /// Another platform than this machine's: linux/arm64
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<String>,
    /// Verify certificates; false also allows plain http
    #[arg(long, value_name = "true|false", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        hide_possible_values = true)]
    tls_verify: Option<bool>,
    /// File with credentials
    #[arg(long, value_name = "FILE")]
    authfile: Option<PathBuf>,
}

impl From<FetchArgs> for PullOptions {
    fn from(args: FetchArgs) -> Self {
        PullOptions { platform: args.platform, tls_verify: args.tls_verify, authfile: args.authfile }
    }
}

/// `rlrun load`.
#[derive(Args, Debug)]
pub(crate) struct LoadArgs {
    /// The archive; standard input when left out
    #[arg(short, long, value_name = "FILE")]
    pub(crate) input: Option<PathBuf>,
    /// Print nothing but errors
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// `rlrun import`.
#[derive(Args, Debug)]
pub(crate) struct ImportArgs {
    /// Tar archive of a root file system; `-` is standard input
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Name of the image
    #[arg(value_name = "NAME[:TAG]")]
    pub(crate) name: Option<String>,
    /// Print nothing but errors and the id
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// `rlrun pull`.
#[derive(Args, Debug)]
pub(crate) struct PullArgs {
    /// The image
    #[arg(required = true, value_name = "IMAGE")]
    pub(crate) images: Vec<String>,
    #[command(flatten)]
    pub(crate) fetch: FetchArgs,
    /// Print nothing but errors and the id
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// `rlrun images`.
#[derive(Args, Debug, Default)]
pub(crate) struct ImagesArgs {
    /// Only images of this name
    #[arg(value_name = "IMAGE")]
    pub(crate) name: Option<String>,
    #[command(flatten)]
    pub(crate) list: ListArgs,
    /// As podman has it; rlrun keeps no intermediate images that it could hide
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Digests too
    #[arg(long)]
    pub(crate) digests: bool,
    /// created, id, repository, size or tag
    #[arg(long, value_name = "BY", default_value = "created")]
    pub(crate) sort: Sort,
}

/// What a list of images is sorted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Sort {
    /// Newest first.
    #[default]
    Created,
    /// By id.
    Id,
    /// By name.
    Repository,
    /// Smallest first.
    Size,
    /// By tag.
    Tag,
}

/// A verb about one image.
#[derive(Args, Debug)]
pub(crate) struct NameArgs {
    /// Name or id
    #[arg(value_name = "IMAGE")]
    pub(crate) name: String,
}

/// `rlrun rmi`.
#[derive(Args, Debug)]
pub(crate) struct RmiArgs {
    /// Names or ids
    #[arg(value_name = "IMAGE")]
    pub(crate) images: Vec<String>,
    /// All images
    #[arg(short, long)]
    pub(crate) all: bool,
    /// An id with all its names; images that a container uses stay
    #[arg(short, long)]
    pub(crate) force: bool,
    /// An image that is not there is no failure
    #[arg(short, long)]
    pub(crate) ignore: bool,
}

/// `rlrun image prune`.
#[derive(Args, Debug)]
pub(crate) struct PruneArgs {
    /// All images that no container uses, not only those without a name
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Only what fits; may be given several times
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) filter: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    pub(crate) force: bool,
}

/// `rlrun tag`.
#[derive(Args, Debug)]
pub(crate) struct TagArgs {
    /// Name or id
    #[arg(value_name = "IMAGE")]
    pub(crate) image: String,
    /// Further names
    #[arg(required = true, value_name = "NAME[:TAG]")]
    pub(crate) names: Vec<String>,
}

/// `rlrun untag`.
#[derive(Args, Debug)]
pub(crate) struct UntagArgs {
    /// Name or id
    #[arg(value_name = "IMAGE")]
    pub(crate) image: String,
    /// Names to take away; all when left out
    #[arg(value_name = "NAME[:TAG]")]
    pub(crate) names: Vec<String>,
}

/// `rlrun history`.
#[derive(Args, Debug)]
pub(crate) struct HistoryArgs {
    /// Name or id
    #[arg(value_name = "IMAGE")]
    pub(crate) image: String,
    /// json, a Go template, or `table TEMPLATE`
    #[arg(long, value_name = "FORMAT")]
    pub(crate) format: Option<String>,
    /// Sizes and times in words
    #[arg(short = 'H', long, num_args = 0..=1, require_equals = true, default_value_t = true,
        default_missing_value = "true", action = clap::ArgAction::Set, value_name = "true|false")]
    pub(crate) human: bool,
    /// Whole ids and commands
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// No heading
    #[arg(short = 'n', long)]
    pub(crate) noheading: bool,
    /// Only ids
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// `rlrun rm`.
#[derive(Args, Debug)]
pub(crate) struct RmArgs {
    /// Names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    pub(crate) containers: Vec<String>,
}
