//! What brings images in and takes them out.

use super::run::When;
use clap::{Args, ValueEnum};
use rlrun_engine::images::{Credentials, Layout, platform};
use rlrun_engine::request::PullOptions;
use std::path::PathBuf;

/// How a registry is spoken to.
#[derive(Args, Debug, Default)]
pub(crate) struct RegistryArgs {
    /// Verify certificates; false also allows plain http
    #[arg(long, value_name = "true|false", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        hide_possible_values = true)]
    tls_verify: Option<bool>,
    /// Directory with certificates, in the place of those of certs.d
    #[arg(long, value_name = "DIR")]
    cert_dir: Option<PathBuf>,
    /// File with credentials
    #[arg(long, value_name = "FILE")]
    pub(crate) authfile: Option<PathBuf>,
    /// Credentials for this command alone
    #[arg(long, value_name = "USER:PASSWORD", value_parser = credentials)]
    creds: Option<Credentials>,
}

/// How an image is chosen from a registry.
#[derive(Args, Debug)]
pub(crate) struct FetchArgs {
    /// Another platform than this machine's: linux/arm64
    #[arg(long, value_name = "OS/ARCH[/VARIANT]", conflicts_with_all = ["arch", "os", "variant"])]
    platform: Option<String>,
    /// Another architecture than this machine's
    #[arg(long, value_name = "ARCH")]
    arch: Option<String>,
    /// Another operating system
    #[arg(long, value_name = "OS")]
    os: Option<String>,
    /// A variant of the architecture
    #[arg(long, value_name = "VARIANT")]
    variant: Option<String>,
    #[command(flatten)]
    registry: RegistryArgs,
}

fn credentials(word: &str) -> Result<Credentials, String> {
    let (user, password) = word.split_once(':').ok_or("write it as USER:PASSWORD")?;
    Ok(Credentials::Basic(user.to_owned(), password.to_owned()))
}

impl From<RegistryArgs> for PullOptions {
    fn from(args: RegistryArgs) -> Self {
        let RegistryArgs { tls_verify, cert_dir, authfile, creds } = args;
        PullOptions { platform: None, tls_verify, cert_dir, authfile, credentials: creds }
    }
}

impl From<FetchArgs> for PullOptions {
    fn from(args: FetchArgs) -> Self {
        let platform = args.platform.or_else(|| combined(args.os, args.arch, args.variant));
        PullOptions { platform, ..args.registry.into() }
    }
}

/// A platform of its parts, the missing ones this machine's.
pub(crate) fn combined(os: Option<String>, arch: Option<String>, variant: Option<String>) -> Option<String> {
    let own = platform();
    let (own_os, own_arch) = own.split_once('/').unwrap_or(("linux", &own));
    match (os, arch, variant) {
        (None, None, None) => None,
        (os, arch, variant) => {
            let variant = variant.map(|v| format!("/{v}")).unwrap_or_default();
            let (os, arch) = (os.as_deref().unwrap_or(own_os), arch.as_deref().unwrap_or(own_arch));
            Some(format!("{os}/{arch}{variant}"))
        }
    }
}

/// `rlrun load`.
#[derive(Args, Debug)]
pub(crate) struct LoadArgs {
    #[arg(long, hide = true)]
    pub(crate) signature_policy: Option<PathBuf>,
    /// The archive, or a directory; standard input when left out
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
    /// An instruction that changes the image: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER, VOLUME or WORKDIR
    #[arg(short, long, value_name = "INSTRUCTION")]
    pub(crate) change: Vec<String>,
    /// What is said about it in its history
    #[arg(short, long, value_name = "TEXT")]
    pub(crate) message: Option<String>,
    /// Another architecture than this machine's
    #[arg(long, value_name = "ARCH")]
    pub(crate) arch: Option<String>,
    /// Another operating system
    #[arg(long, value_name = "OS")]
    pub(crate) os: Option<String>,
    /// A variant of the architecture
    #[arg(long, value_name = "VARIANT")]
    pub(crate) variant: Option<String>,
    /// Print nothing but errors and the id
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// `rlrun pull`.
#[derive(Args, Debug)]
pub(crate) struct PullArgs {
    #[arg(long, hide = true)]
    pub(crate) signature_policy: Option<PathBuf>,
    /// The image: a name, docker://NAME, docker-archive:FILE, oci-archive:FILE, oci:DIR or dir:DIR
    #[arg(required = true, value_name = "IMAGE")]
    pub(crate) images: Vec<String>,
    /// When the registry is asked
    #[arg(long, value_enum, default_value = "always", value_name = "WHEN")]
    pub(crate) policy: When,
    /// All tags of a repository
    #[arg(short, long)]
    pub(crate) all_tags: bool,
    /// Docker's; there is none to disable
    #[arg(long, hide = true)]
    disable_content_trust: bool,
    #[command(flatten)]
    pub(crate) fetch: FetchArgs,
    /// Print nothing but errors and the id
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// `rlrun push`.
#[derive(Args, Debug)]
pub(crate) struct PushArgs {
    #[arg(long, hide = true)]
    pub(crate) signature_policy: Option<PathBuf>,
    /// Name or id
    #[arg(value_name = "IMAGE")]
    pub(crate) image: String,
    /// Where to, when not where its name says: a name, docker://NAME, docker-archive:FILE, oci-archive:FILE,
    /// oci:DIR or dir:DIR
    #[arg(value_name = "DESTINATION")]
    pub(crate) destination: Option<String>,
    /// Write the digest of the manifest to a file
    #[arg(long, value_name = "FILE")]
    pub(crate) digestfile: Option<PathBuf>,
    /// Compress layers that are not, in dir:
    #[arg(long)]
    pub(crate) compress: bool,
    /// Compress all layers with it; the image gets another digest
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub(crate) compression_format: Option<CompressionFormat>,
    /// How much: 1 to 9 for gzip, 1 to 20 for zstd
    #[arg(long, value_name = "LEVEL")]
    pub(crate) compression_level: Option<u8>,
    /// As podman has it; layers are compressed as asked whatever the registry has
    #[arg(long)]
    force_compression: bool,
    /// Whose manifest it gets; what it has when left out
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    pub(crate) format: Option<PushFormat>,
    #[arg(long, hide = true)]
    pub(crate) sign_by: Option<String>,
    #[arg(long, hide = true)]
    pub(crate) sign_by_sigstore_private_key: Option<String>,
    #[arg(long, hide = true)]
    pub(crate) sign_passphrase_file: Option<String>,
    /// Docker's; there is none to disable
    #[arg(long, hide = true)]
    disable_content_trust: bool,
    /// Leave the image's signatures behind
    #[arg(long)]
    pub(crate) remove_signatures: bool,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
    /// Print nothing but errors
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// `--compression-format` of `rlrun push`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum CompressionFormat {
    /// What everybody reads.
    Gzip,
    /// Faster and smaller.
    Zstd,
}

/// `--format` of `rlrun push`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PushFormat {
    /// OCI's.
    Oci,
    /// Docker's, schema 2.
    #[value(name = "v2s2", alias = "docker")]
    V2s2,
}

/// `rlrun save`.
#[derive(Args, Debug)]
pub(crate) struct SaveArgs {
    /// Name or id; without -m what follows are further names for it
    #[arg(required = true, value_name = "IMAGE")]
    pub(crate) images: Vec<String>,
    /// File or directory; standard output when left out
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// How it is laid out
    #[arg(long, value_enum, default_value = "docker-archive", value_name = "FORMAT")]
    pub(crate) format: SaveFormat,
    /// Several images in one archive
    #[arg(short, long)]
    pub(crate) multi_image_archive: bool,
    /// Compress layers that are not, in docker-dir
    #[arg(long)]
    pub(crate) compress: bool,
    /// Leave layers uncompressed that are; they stay as they are in any case
    #[arg(long)]
    uncompressed: bool,
    /// Print nothing but errors
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// `--format` of `rlrun save`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SaveFormat {
    /// One archive, what docker writes.
    DockerArchive,
    /// One archive with an OCI layout.
    OciArchive,
    /// A directory with an OCI layout.
    OciDir,
    /// A directory with manifest and layers side by side.
    DockerDir,
}

impl From<SaveFormat> for Layout {
    fn from(format: SaveFormat) -> Self {
        match format {
            SaveFormat::DockerArchive => Layout::DockerArchive,
            SaveFormat::OciArchive => Layout::OciArchive,
            SaveFormat::OciDir => Layout::OciDir,
            SaveFormat::DockerDir => Layout::DockerDir,
        }
    }
}

/// `rlrun search`.
#[derive(Args, Debug)]
pub(crate) struct SearchArgs {
    /// REGISTRY/WORD, or a word for the search registries
    #[arg(value_name = "TERM")]
    pub(crate) term: String,
    /// Print the tags of a repository
    #[arg(long)]
    pub(crate) list_tags: bool,
    /// As podman has it; nothing is shortened
    #[arg(long)]
    no_trunc: bool,
    #[arg(long, hide = true)]
    pub(crate) compatible: bool,
    #[arg(long, short, hide = true)]
    pub(crate) filter: Vec<String>,
    /// Print at most so many
    #[arg(long, default_value_t = 25, value_name = "N")]
    pub(crate) limit: usize,
    /// json, a Go template, or `table TEMPLATE`
    #[arg(long, value_name = "FORMAT")]
    pub(crate) format: Option<String>,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
}

/// `rlrun image verify`.
#[derive(Args, Debug)]
pub(crate) struct VerifyArgs {
    /// Name of an image with a registry
    #[arg(value_name = "IMAGE")]
    pub(crate) image: String,
    /// Public key in PEM; what policy.json demands when left out
    #[arg(long, value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
}

/// `rlrun login`.
#[derive(Args, Debug)]
pub(crate) struct LoginArgs {
    /// The registry, or a namespace of it; the first of the search registries when left out
    #[arg(value_name = "REGISTRY")]
    pub(crate) name: Option<String>,
    /// User; asked for when left out
    #[arg(short, long, value_name = "USER")]
    pub(crate) username: Option<String>,
    /// Password; asked for when left out
    #[arg(short, long, value_name = "PASSWORD", conflicts_with = "password_stdin")]
    pub(crate) password: Option<String>,
    /// Read the password from standard input
    #[arg(long)]
    pub(crate) password_stdin: bool,
    /// Print who is logged in
    #[arg(long)]
    pub(crate) get_login: bool,
    /// Tell where the credentials are kept
    #[arg(short, long)]
    pub(crate) verbose: bool,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
}

/// `rlrun logout`.
#[derive(Args, Debug)]
pub(crate) struct LogoutArgs {
    /// The registry, or a namespace of it
    #[arg(value_name = "REGISTRY")]
    pub(crate) registry: Option<String>,
    /// From all registries
    #[arg(short, long)]
    pub(crate) all: bool,
    /// File with credentials
    #[arg(long, value_name = "FILE")]
    pub(crate) authfile: Option<PathBuf>,
}
