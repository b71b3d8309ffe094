//! The verbs about images.

use super::list::ListArgs;
use clap::{Args, ValueEnum};

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
    #[arg(long, hide = true)]
    pub(crate) history: bool,
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

/// `rlrun image tree`.
#[derive(Args, Debug)]
pub(crate) struct TreeArgs {
    /// Name or id
    #[arg(value_name = "IMAGE")]
    pub(crate) name: String,
    /// The layers that are built on it, in the place of its own
    #[arg(long)]
    pub(crate) whatrequires: bool,
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
    /// As podman has it; rlrun keeps no parents that it could remove
    #[arg(long)]
    no_prune: bool,
}

/// `rlrun image prune`.
#[derive(Args, Debug)]
pub(crate) struct PruneArgs {
    /// All images that no container uses, not only those without a name
    #[arg(short, long)]
    pub(crate) all: bool,
    /// As podman has it; nobody else's containers use this store
    #[arg(long)]
    external: bool,
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

/// `rlrun image mount`.
#[derive(Args, Debug)]
pub(crate) struct MountArgs {
    /// Names or ids; without any, what is mounted is listed
    #[arg(value_name = "IMAGE", conflicts_with = "all")]
    pub(crate) images: Vec<String>,
    /// All images
    #[arg(short, long)]
    pub(crate) all: bool,
    /// json
    #[arg(long, value_name = "FORMAT")]
    pub(crate) format: Option<String>,
}

/// `rlrun image unmount`.
#[derive(Args, Debug)]
pub(crate) struct UnmountArgs {
    /// Names or ids
    #[arg(required_unless_present = "all", value_name = "IMAGE", conflicts_with = "all")]
    pub(crate) images: Vec<String>,
    /// All that are mounted
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Also where something uses it
    #[arg(short, long)]
    pub(crate) force: bool,
}
