//! `rlrun run` and `rlrun plan`: names and meanings are podman's.

use super::health::HealthArgs;
use super::transfer::FetchArgs;
use clap::{ArgAction, Args, ValueEnum};
use rlrun_engine::attach::Attaching;
use rlrun_engine::request::exec::{self, DETACH_KEYS};
use rlrun_engine::request::{
    self, Baseline, Fetch, ImageVolumes, Launching, LimitsLevel, Network, Pull, ReadOnly, RootDirectory, RunRequest,
    capability, env, labels, life, limits, mount, network, security,
};
use rlrun_spec::container::NetworkMode;
use rlrun_spec::{Failure, Kind, Stage};
use std::path::PathBuf;

/// `--pull`.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum When {
    Always,
    #[default]
    Missing,
    Never,
    Newer,
}

/// `--policy-baseline`.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum Switch {
    #[default]
    On,
    Off,
}

/// `--limits`.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Level {
    Require,
    #[default]
    Prefer,
}

/// `--cgroups`.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum CgroupsWord {
    #[default]
    Enabled,
    Disabled,
}

/// The options before IMAGE and the words after it.
#[derive(Args, Debug)]
#[command(disable_help_flag = true)]
pub(crate) struct RunArgs {
    /// The image, then the command and its arguments
    #[arg(required = true, trailing_var_arg = true, num_args = 1.., value_name = "IMAGE", hide = true)]
    words: Vec<String>,

    /// Remove the container when it ends
    #[arg(long)]
    rm: bool,
    /// Keep standard input open
    #[arg(short, long)]
    interactive: bool,
    /// Give the container a terminal
    #[arg(short, long)]
    tty: bool,
    /// Name of the container
    #[arg(long)]
    name: Option<String>,
    /// Host name
    #[arg(short = 'h', long, value_name = "NAME")]
    hostname: Option<String>,
    /// Set a variable; a bare name takes your value
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Read variables from a file
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Working directory inside
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// User inside, from the image's passwd and group
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Further group of the user; keep-groups for your own
    #[arg(long, value_name = "GROUP")]
    group_add: Vec<String>,
    /// Program to run instead of the image's
    #[arg(long, value_name = "PROGRAM")]
    entrypoint: Option<String>,
    /// Run a small init as pid 1
    #[arg(long)]
    init: bool,
    /// Signal that stops the container
    #[arg(long, value_name = "SIGNAL")]
    stop_signal: Option<String>,
    /// Only these of the container's streams: stdin, stdout, stderr
    #[arg(short, long, value_name = "STREAM")]
    attach: Vec<String>,
    /// With -it: keys that leave the container alone; an empty list for none
    #[arg(long, value_name = "KEYS", default_value = DETACH_KEYS)]
    detach_keys: String,
    /// Forward signals to the container (default true)
    #[arg(long, default_value = "true", action = ArgAction::SetTrue)]
    sig_proxy: bool,
    /// File mode creation mask
    #[arg(long, value_name = "OCTAL", default_value = "0022")]
    umask: String,
    /// Label, kept with the container
    #[arg(short, long, value_name = "NAME=VALUE")]
    label: Vec<String>,
    /// Annotation of the configuration
    #[arg(long, value_name = "NAME=VALUE")]
    annotation: Vec<String>,
    /// Write the container's id to a new file
    #[arg(long, value_name = "FILE")]
    cidfile: Option<PathBuf>,
    /// Print where the time went, to standard error
    #[arg(long)]
    trace: bool,
    /// Print help
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,

    #[command(flatten)]
    more: super::more::MoreArgs,
    #[command(flatten)]
    life: LifeArgs,
    #[command(flatten)]
    files: FileArgs,
    #[command(flatten)]
    confinement: ConfinementArgs,
    #[command(flatten)]
    network: NetworkArgs,
    #[command(flatten)]
    limits: LimitArgs,
    #[command(flatten)]
    image: ImageArgs,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Life")]
struct LifeArgs {
    /// Run in the background and print the id
    #[arg(short, long)]
    detach: bool,
    /// Start it again when it ends: no, on-failure, on-failure:TIMES, always or unless-stopped
    #[arg(long, value_name = "POLICY")]
    restart: Option<String>,
    /// Seconds from the stop signal to SIGKILL (default 10)
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    stop_timeout: Option<i64>,
    /// Kill it when it has run that many seconds
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u32>,
    /// Remove the container that has the name now, whatever it does
    #[arg(long)]
    replace: bool,
    /// Where output is kept: k8s-file (also json-file), journald or none
    #[arg(long, value_name = "DRIVER")]
    log_driver: Option<String>,
    /// path=FILE, max-size=SIZE, max-file=NUMBER; of journald: tag=WORD
    #[arg(long, value_name = "NAME=VALUE")]
    log_opt: Vec<String>,
    #[command(flatten)]
    health: HealthArgs,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Files")]
struct FileArgs {
    /// Mount a host path or a volume; options: ro, O, nosuid, nodev, noexec, rslave, bind, z, U, nocopy
    #[arg(short, long, value_name = "[SOURCE:]CONTAINER[:OPTIONS]")]
    volume: Vec<String>,
    /// Mount what another container mounts
    #[arg(long, value_name = "CONTAINER[:ro]")]
    volumes_from: Vec<String>,
    /// Mount, spelled out: type=volume|bind|tmpfs|image|glob|devpts|ramfs,source=...,destination=...
    #[arg(long, value_name = "FIELDS")]
    mount: Vec<String>,
    /// What becomes of the image's volumes: anonymous, tmpfs or ignore
    #[arg(long, value_name = "HOW")]
    image_volume: Option<String>,
    /// Mount an empty file system in memory
    #[arg(long, value_name = "CONTAINER[:OPTIONS]")]
    tmpfs: Vec<String>,
    /// Root file system read-only; /run, /tmp and /var/tmp in memory
    #[arg(long)]
    read_only: bool,
    /// With --read-only: /run, /tmp and /var/tmp in memory (default true)
    #[arg(long, default_value = "true", action = ArgAction::SetTrue)]
    read_only_tmpfs: bool,
    /// overlay, fuse-overlayfs or copy; RLRUN_STORAGE_DRIVER does the same
    #[arg(long, value_name = "DRIVER")]
    storage_driver: Option<String>,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Confinement")]
struct ConfinementArgs {
    /// Add a capability, or ALL
    #[arg(long, value_name = "CAPABILITY")]
    cap_add: Vec<String>,
    /// Drop a capability, or ALL
    #[arg(long, value_name = "CAPABILITY")]
    cap_drop: Vec<String>,
    /// seccomp=FILE|unconfined, no-new-privileges=false, mask=PATHS, unmask=PATHS|ALL
    #[arg(long, value_name = "OPTION")]
    security_opt: Vec<String>,
    /// User namespace: keep-id[:uid=N,gid=N]
    #[arg(long, value_name = "MODE", default_value = "", hide_default_value = true)]
    userns: String,
    /// All capabilities, no filter, nothing masked; the baseline policy refuses it
    #[arg(long)]
    privileged: bool,
    /// Ask this policy too
    #[arg(long, value_name = "FILE")]
    policy: Vec<PathBuf>,
    /// Whether the built-in baseline policy is asked
    #[arg(long, value_enum, default_value_t, value_name = "on|off", hide_possible_values = true)]
    policy_baseline: Switch,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Network")]
struct NetworkArgs {
    /// slirp4netns, none or host
    #[arg(long, alias = "net", value_name = "MODE", default_value = "slirp4netns")]
    network: String,
    /// Publish a port
    #[arg(short, long, value_name = "[[IP:]HOST:]CONTAINER[/udp]")]
    publish: Vec<String>,
    /// Name server
    #[arg(long, value_name = "ADDRESS")]
    dns: Vec<String>,
    /// Search domain
    #[arg(long, value_name = "DOMAIN")]
    dns_search: Vec<String>,
    /// Option of resolv.conf(5)
    #[arg(long, value_name = "OPTION")]
    dns_option: Vec<String>,
    /// Line of /etc/hosts
    #[arg(long, value_name = "NAME:ADDRESS")]
    add_host: Vec<String>,
    /// Pass the variables of a proxy on (default true)
    #[arg(long, default_value = "true", action = ArgAction::SetTrue)]
    http_proxy: bool,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Limits")]
struct LimitArgs {
    /// Limit of setrlimit(2)
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    ulimit: Vec<String>,
    /// Kernel parameter of the container's namespaces
    #[arg(long, value_name = "NAME=VALUE")]
    sysctl: Vec<String>,
    /// Size of /dev/shm
    #[arg(long, value_name = "SIZE")]
    shm_size: Option<String>,
    /// size=SIZE: what the container may write to its root file system
    #[arg(long, value_name = "NAME=VALUE")]
    storage_opt: Vec<String>,
    /// Memory
    #[arg(short, long, value_name = "SIZE")]
    memory: Option<String>,
    /// Memory and swap together; -1 for all there is
    #[arg(long, value_name = "SIZE", allow_negative_numbers = true)]
    memory_swap: Option<String>,
    /// Memory that is left to the container when others want it
    #[arg(long, value_name = "SIZE")]
    memory_reservation: Option<String>,
    /// How readily its memory is swapped out, 0 to 100
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    memory_swappiness: Option<String>,
    /// Stop and wait instead of killing what is over the memory limit
    #[arg(long)]
    oom_kill_disable: bool,
    /// How readily the kernel kills it when the machine is out of memory, -1000 to 1000
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    oom_score_adj: Option<String>,
    /// CPUs, 0.5 is half of one
    #[arg(long, value_name = "NUMBER")]
    cpus: Option<String>,
    /// Period of --cpu-quota in microseconds
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_period: Option<String>,
    /// Processor time in each period
    #[arg(long, value_name = "MICROSECONDS", allow_negative_numbers = true)]
    cpu_quota: Option<String>,
    /// Weight beside others, 1024 is the usual
    #[arg(short = 'c', long, value_name = "NUMBER")]
    cpu_shares: Option<String>,
    /// CPUs to run on
    #[arg(long, value_name = "LIST")]
    cpuset_cpus: Option<String>,
    /// Weight of block IO, 10 to 1000
    #[arg(long, value_name = "NUMBER")]
    blkio_weight: Option<String>,
    /// Reading rate of a device
    #[arg(long, value_name = "DEVICE:RATE")]
    device_read_bps: Vec<String>,
    /// Writing rate of a device
    #[arg(long, value_name = "DEVICE:RATE")]
    device_write_bps: Vec<String>,
    /// Reading operations of a device in a second
    #[arg(long, value_name = "DEVICE:NUMBER")]
    device_read_iops: Vec<String>,
    /// Writing operations of a device in a second
    #[arg(long, value_name = "DEVICE:NUMBER")]
    device_write_iops: Vec<String>,
    /// Processes and threads (default 2048); -1 for no limit
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    pids_limit: Option<String>,
    /// What a limit that cannot be enforced does: warn or refuse
    #[arg(long, value_enum, default_value_t, value_name = "prefer|require", hide_possible_values = true)]
    limits: Level,
    /// Whether limits may be kept by cgroups
    #[arg(long, value_enum, default_value_t, value_name = "enabled|disabled", hide_possible_values = true)]
    cgroups: CgroupsWord,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Image")]
struct ImageArgs {
    /// When to ask the registry
    #[arg(long, value_enum, default_value_t, value_name = "WHEN")]
    pull: When,
    #[command(flatten)]
    fetch: FetchArgs,
}

impl RunArgs {
    /// Reads every word.
    pub(crate) fn request(self) -> Result<RunRequest, Failure> {
        let mut words = self.words.iter().cloned();
        let image = words.next().unwrap_or_default();
        let rootfs = self.more.rootfs.then(|| rootfs(&image)).transpose()?;
        let mut network = self.network.request()?;
        self.more.network(&mut network)?;
        let label = |word: &String| labels::label("--label", word);
        Ok(RunRequest {
            image,
            command: words.collect(),
            name: self.name.as_deref().map(request::container_name).transpose()?,
            interactive: self.interactive,
            tty: self.tty,
            env: self.variables(network.mode)?,
            mounts: self.files.mounts()?,
            image_volumes: self.files.image_volume.as_deref().map_or(Ok(ImageVolumes::default()), str::parse)?,
            workdir: self.workdir.as_deref().map(request::workdir).transpose()?,
            user: self.user.as_deref().map(request::user).transpose()?,
            groups: request::groups(&self.group_add)?,
            entrypoint: self.entrypoint.as_deref().map(request::entrypoint).transpose()?,
            hostname: self.hostname.as_deref().map(request::hostname).transpose()?,
            read_only: self.files.read_only(),
            privileged: self.confinement.privileged,
            capabilities: capability::request(&self.confinement.cap_add, &self.confinement.cap_drop)?,
            security: security::request(&self.confinement.security_opt)?,
            network,
            userns: self.more.user_namespace(&self.confinement.userns)?,
            personality: self.more.personality.as_deref().map(str::parse).transpose()?,
            rootfs,
            init: self.init,
            stop_signal: self.stop_signal.as_deref().map(limits::signal).transpose()?,
            umask: request::umask(&self.umask)?,
            sysctls: self.limits.sysctl.iter().map(|w| labels::sysctl(w)).collect::<Result<_, _>>()?,
            labels: self
                .more
                .labels()?
                .into_iter()
                .map(Ok)
                .chain(self.label.iter().map(label))
                .collect::<Result<_, _>>()?,
            annotations: self.annotation.iter().map(|w| labels::annotation(w)).collect::<Result<_, _>>()?,
            limits: self.limits.request()?,
            secrets: self.more.secrets()?,
            devices: self.more.devices()?,
            shared: self.more.shared()?,
            own_files: self.more.own_files()?,
            env_changes: self.more.env_changes()?,
            launching: self.launching()?,
            bundle: None,
        })
    }

    /// How the caller of a container in the foreground is attached to it.
    pub(crate) fn attaching(&self) -> Result<Attaching, Failure> {
        let detach_keys = exec::detach_keys(&self.detach_keys)?;
        Ok(Attaching { input: self.interactive, sig_proxy: self.sig_proxy, detach_keys })
    }

    /// The streams of `--attach`; None for all.
    pub(crate) fn streams(&self) -> Result<Option<Vec<String>>, Failure> {
        let words: Vec<String> = self.attach.iter().map(|word| word.to_ascii_lowercase()).collect();
        let unknown = words.iter().find(|word| !["stdin", "stdout", "stderr"].contains(&word.as_str()));
        let wrong = |word: &str, why: &str| {
            Failure::new(Stage::Cli, Kind::Usage, "parse-arguments", "invalid --attach", word).why(why)
        };
        match unknown {
            Some(word) => Err(wrong(word, "is no stream").hint("choose stdin, stdout or stderr")),
            None if words.is_empty() => Ok(None),
            None if self.life.detach => Err(wrong("--detach", "and --attach cannot be given together")),
            None => Ok(Some(words)),
        }
    }

    /// The image goes when the container has ended.
    pub(crate) fn removes_image(&self) -> Result<bool, Failure> {
        self.more.removes_image(self.life.detach)
    }

    /// Nothing but errors and the id is printed.
    pub(crate) fn is_quiet(&self) -> bool {
        self.more.quiet
    }

    /// The words of `--volumes-from`.
    pub(crate) fn volumes_from(&self) -> Vec<String> {
        self.files.volumes_from.clone()
    }

    /// Proxies, then files, then `-e`: later ones win.
    fn variables(&self, network: NetworkMode) -> Result<Vec<(String, String)>, Failure> {
        let lookup: env::Lookup<'_> = &|name| std::env::var_os(name);
        let mut all = self.more.host_variables();
        if self.network.http_proxy && network != NetworkMode::None {
            all.extend(env::proxies(lookup));
        }
        for file in &self.env_file {
            all.extend(env::file(file, lookup)?);
        }
        for word in &self.env {
            all.extend(env::variable("--env", word, lookup)?);
        }
        Ok(all)
    }

    fn launching(self) -> Result<Launching, Failure> {
        let driver = self.files.storage_driver.or_else(|| std::env::var("RLRUN_STORAGE_DRIVER").ok());
        let life = self.life.request()?;
        Ok(Launching {
            remove: life::remove(self.rm || self.more.rmi, life.restart)?,
            fetch: Fetch { when: self.image.pull.into(), options: self.image.fetch.into() },
            cidfile: self.cidfile,
            replace: life::replace(self.life.replace, self.name.as_deref())?,
            preserve_fds: self.more.preserved(&life)?,
            pidfile: self.more.pidfile,
            argv: argv(),
            storage_driver: driver.filter(|d| !d.is_empty()).map(|d| d.parse()).transpose()?,
            policies: self.confinement.policy.into_iter().map(from_anywhere).collect(),
            baseline: self.confinement.policy_baseline.into(),
            trace: self.trace,
            life,
        })
    }
}

impl LifeArgs {
    fn request(&self) -> Result<life::LifeRequest, Failure> {
        Ok(life::LifeRequest {
            hold: rlrun_spec::life::Hold::No,
            detach: self.detach,
            leavable: false,
            log: life::log(self.log_driver.as_deref(), &self.log_opt)?,
            restart: self.restart.as_deref().map(life::restart).transpose()?.unwrap_or_default(),
            stop_seconds: self.stop_timeout.map(life::stop_seconds),
            timeout_seconds: self.timeout.filter(|seconds| *seconds > 0),
            health: self.health.request()?,
        })
    }
}

impl FileArgs {
    fn mounts(&self) -> Result<Vec<mount::MountRequest>, Failure> {
        let volumes = self.volume.iter().map(|w| mount::volume(w));
        let mut all = volumes.collect::<Result<Vec<_>, _>>()?;
        for word in &self.mount {
            all.extend(mount::mounts(word)?);
        }
        all.extend(self.tmpfs.iter().map(|w| mount::tmpfs(w)).collect::<Result<Vec<_>, _>>()?);
        Ok(all)
    }

    fn read_only(&self) -> ReadOnly {
        match (self.read_only, self.read_only_tmpfs) {
            (false, _) => ReadOnly::No,
            (true, true) => ReadOnly::WithTmpfs,
            (true, false) => ReadOnly::Bare,
        }
    }
}

impl NetworkArgs {
    fn request(&self) -> Result<Network, Failure> {
        network::parse(network::Words {
            network: &self.network,
            publish: &self.publish,
            dns: &self.dns,
            search: &self.dns_search,
            options: &self.dns_option,
            hosts: &self.add_host,
        })
    }
}

impl LimitArgs {
    fn request(&self) -> Result<limits::LimitRequest, Failure> {
        // 0 is no limit, as in podman.
        let given = |word: &Option<String>| word.clone().filter(|w| w != "0");
        let size = |option, word: &Option<String>| given(word).map(|w| limits::size(option, &w)).transpose();
        let number =
            |option, word: &Option<String>, range| given(word).map(|w| limits::number(option, &w, range)).transpose();
        let level = match self.limits {
            Level::Require => LimitsLevel::Require,
            Level::Prefer => LimitsLevel::Prefer,
        };
        let cgroups = match self.cgroups {
            CgroupsWord::Enabled => limits::Cgroups::Enabled,
            CgroupsWord::Disabled => limits::Cgroups::Disabled,
        };
        let request = limits::LimitRequest {
            level,
            cgroups,
            memory: size("--memory", &self.memory)?,
            memory_swap: given(&self.memory_swap).as_deref().map(limits::swap).transpose()?,
            memory_reservation: size("--memory-reservation", &self.memory_reservation)?,
            memory_swappiness: self.memory_swappiness.as_deref().map(limits::swappiness).transpose()?.flatten(),
            oom_kill_disable: self.oom_kill_disable,
            oom_score_adj: self.oom_score_adj.as_deref().map(limits::oom_score_adj).transpose()?,
            cpu_millis: given(&self.cpus).as_deref().map(limits::cpus).transpose()?,
            cpu_period: number("--cpu-period", &self.cpu_period, limits::PERIODS)?,
            cpu_quota: self.cpu_quota.as_deref().map(limits::quota).transpose()?.flatten(),
            cpu_shares: number("--cpu-shares", &self.cpu_shares, limits::SHARES)?,
            cpuset: self.cpuset_cpus.as_deref().map(limits::cpuset).transpose()?,
            block_io: self.block_io()?,
            pids: self.pids_limit.as_deref().map(limits::pids).transpose()?,
            shm: self.shm_size.as_deref().map(|w| limits::size("--shm-size", w)).transpose()?,
            disk: self.storage_opt.iter().map(|w| limits::storage(w)).collect::<Result<Vec<_>, _>>()?.pop(),
            ulimits: self.ulimit.iter().map(|w| limits::ulimit(w)).collect::<Result<_, _>>()?,
        };
        Ok(request)
    }

    fn block_io(&self) -> Result<Vec<(String, String)>, Failure> {
        let mut all = Vec::new();
        if let Some(weight) = self.blkio_weight.as_ref().filter(|weight| *weight != "0") {
            limits::block_weight(weight)?;
            all.push(("--blkio-weight".to_owned(), weight.clone()));
        }
        let words = [&self.device_read_bps, &self.device_write_bps, &self.device_read_iops, &self.device_write_iops];
        for ((option, _), words) in limits::DEVICE_RATES.into_iter().zip(words) {
            for word in words {
                limits::rate(option, word)?;
                all.push((option.to_owned(), word.clone()));
            }
        }
        Ok(all)
    }
}

impl From<When> for Pull {
    fn from(when: When) -> Self {
        match when {
            When::Always => Pull::Always,
            When::Missing => Pull::Missing,
            When::Never => Pull::Never,
            When::Newer => Pull::Newer,
        }
    }
}

impl From<Switch> for Baseline {
    fn from(switch: Switch) -> Self {
        match switch {
            Switch::On => Baseline::On,
            Switch::Off => Baseline::Off,
        }
    }
}

/// The command line as `inspect` shows it and `generate systemd --new` repeats it: without the secrets of registries.
fn argv() -> Vec<String> {
    let mut before = String::new();
    let words = std::env::args_os().map(|word| word.to_string_lossy().into_owned());
    let shown = words.map(|word| {
        let shown = match word.split_once('=') {
            _ if before == "--creds" => "***".to_owned(),
            Some(("--creds", _)) => "--creds=***".to_owned(),
            _ => word.clone(),
        };
        before = word;
        shown
    });
    shown.collect()
}

/// The first word with `--rootfs`: `DIRECTORY[:O]`.
fn rootfs(word: &str) -> Result<RootDirectory, Failure> {
    let failure = || Failure::new(Stage::Cli, Kind::Usage, "parse-arguments", "invalid --rootfs", word);
    let (path, overlay) = match word.rsplit_once(':') {
        Some((path, "O")) => (path, true),
        Some((_, "idmap")) => {
            return Err(failure()
                .why("mounts with ids of their own are root's to make (mount_setattr(2))")
                .hint("leave out :idmap; --uidmap says which ids the container has"));
        }
        _ => (word, false),
    };
    let hint = "the first word is a directory with a root file system: rlrun run --rootfs DIRECTORY COMMAND";
    let path = std::fs::canonicalize(path).map_err(|e| failure().why(e.to_string()).hint(hint))?;
    Ok(RootDirectory { path, overlay })
}

/// A file of this directory by a name that a later start in another one finds; a reference or a name stays as it is.
pub(crate) fn from_anywhere(policy: PathBuf) -> PathBuf {
    if policy.exists() { std::path::absolute(&policy).unwrap_or(policy) } else { policy }
}
