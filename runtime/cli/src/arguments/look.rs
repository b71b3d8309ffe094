//! `ps`, `inspect`, `logs` and `port`.

use super::exec::WhichArgs;
use clap::{Args, ValueEnum};

/// `rlrun ps`.
#[derive(Args, Debug, Default)]
pub(crate) struct PsArgs {
    /// All containers, not only those that run
    #[arg(short, long)]
    pub(crate) all: bool,
    /// The newest one, whatever it does
    #[arg(short, long)]
    pub(crate) latest: bool,
    /// That many of the newest, whatever they do
    #[arg(short = 'n', long, value_name = "NUMBER")]
    pub(crate) last: Option<usize>,
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
    #[arg(long)]
    pub(crate) noheading: bool,
    /// Only ids
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// What each has written over its image, and with the image
    #[arg(short, long)]
    pub(crate) size: bool,
    /// Namespaces instead of ports and the like
    #[arg(long)]
    pub(crate) ns: bool,
    /// With columns for pods, which are empty
    #[arg(short, long)]
    pub(crate) pod: bool,
    /// Print the list anew every so many seconds
    #[arg(short, long, value_name = "SECONDS")]
    pub(crate) watch: Option<u32>,
    /// Containers of other tools too; none are known
    #[arg(long)]
    pub(crate) external: bool,
    /// Look at what runs, which is always done
    #[arg(long)]
    pub(crate) sync: bool,
    /// command, created, id, image, names, runningfor, size or status
    #[arg(long, value_name = "BY", default_value = "created", hide_possible_values = true)]
    pub(crate) sort: Sort,
}

/// What a list of containers is sorted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Sort {
    /// By what runs in it.
    Command,
    /// Oldest first.
    #[default]
    Created,
    /// By id.
    Id,
    /// By image.
    Image,
    /// By name.
    Names,
    /// Longest first.
    Runningfor,
    /// By what is written; with --size.
    Size,
    /// By what it does.
    Status,
}

/// `rlrun inspect`.
#[derive(Args, Debug)]
pub(crate) struct InspectArgs {
    /// Names or ids
    #[arg(value_name = "NAME")]
    pub(crate) names: Vec<String>,
    /// The newest container
    #[arg(short, long)]
    pub(crate) latest: bool,
    /// What a container has written over its image, and with the image
    #[arg(short, long)]
    pub(crate) size: bool,
    /// json or a Go template
    #[arg(short, long, value_name = "FORMAT")]
    pub(crate) format: Option<String>,
    /// all, container, image or volume
    #[arg(short, long = "type", value_name = "TYPE", default_value = "all", hide_possible_values = true)]
    pub(crate) kind: Kind,
}

/// What is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// A container, else an image, else a volume.
    All,
    /// Containers.
    Container,
    /// Images.
    Image,
    /// Volumes.
    Volume,
}

/// `rlrun logs`.
#[derive(Args, Debug)]
pub(crate) struct LogsArgs {
    /// Names or ids
    #[arg(value_name = "CONTAINER")]
    pub(crate) names: Vec<String>,
    /// The newest one
    #[arg(short, long)]
    pub(crate) latest: bool,
    /// A colour for each
    #[arg(long)]
    pub(crate) color: bool,
    /// Go on with what comes, until the container ends
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Only what came after: a time, or how long ago (10m)
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,
    /// Only what came before
    #[arg(long, value_name = "TIME")]
    pub(crate) until: Option<String>,
    /// Only the last lines
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    pub(crate) tail: Option<i64>,
    /// With times
    #[arg(short, long)]
    pub(crate) timestamps: bool,
    /// With names
    #[arg(short = 'n', long = "names")]
    pub(crate) with_names: bool,
}

/// `rlrun port`.
#[derive(Args, Debug)]
pub(crate) struct PortArgs {
    /// Name or id
    #[arg(value_name = "CONTAINER")]
    pub(crate) name: Option<String>,
    /// Every container that runs
    #[arg(short, long)]
    pub(crate) all: bool,
    /// The newest one
    #[arg(short, long)]
    pub(crate) latest: bool,
    /// Only this port inside
    #[arg(value_name = "PORT[/PROTOCOL]")]
    pub(crate) port: Option<String>,
}

/// `rlrun container exists`.
#[derive(Args, Debug)]
pub(crate) struct ContainerArgs {
    /// Containers of other tools too; none are known
    #[arg(short, long)]
    external: bool,
    /// Name or id
    #[arg(value_name = "CONTAINER")]
    pub(crate) name: String,
}

/// `rlrun top`.
#[derive(Args, Debug)]
pub(crate) struct TopArgs {
    /// The container, then descriptors (user, pid, args, ...) or options of a ps in the container
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "CONTAINER", hide = true)]
    pub(crate) words: Vec<String>,
    /// List the descriptors
    #[arg(long)]
    pub(crate) list_descriptors: bool,
    #[command(flatten)]
    pub(crate) which: WhichArgs,
}
