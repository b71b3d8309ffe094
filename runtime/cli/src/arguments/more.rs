//! Options of `run` about devices, secrets, the environment, and namespaces that are shared with the host.

use clap::{ArgAction, Args};
use rlrun_engine::request::life::LifeRequest;
use rlrun_engine::request::{self, Network, OwnFiles, UserNamespaceRequest, device, env, labels, secret, share};
use rlrun_spec::life::Restart;
use rlrun_spec::{Failure, Kind, Stage};
use std::path::{Path, PathBuf};

/// What `--env-host` takes nobody along: these belong to the container.
const OF_THE_CONTAINER: [&str; 4] = ["PATH", "HOME", "HOSTNAME", "TERM"];

/// Those options.
#[derive(Args, Debug)]
pub(crate) struct MoreArgs {
    /// Give a secret, as a file below /run/secrets or as a variable
    #[arg(long, value_name = "NAME[,type=env|mount,target=...]", help_heading = "Files")]
    secret: Vec<String>,
    /// Give a device of the host
    #[arg(long, value_name = "HOST[:CONTAINER]", help_heading = "Files")]
    device: Vec<String>,
    /// Not possible yet: name the device nodes with --device
    #[arg(long, value_name = "NAME", hide = true)]
    gpus: Option<String>,
    /// Time zone, as in Europe/Berlin; `local` is the host's
    #[arg(long, value_name = "ZONE", help_heading = "Files")]
    tz: Option<String>,
    /// Leave /etc/hosts as the image has it
    #[arg(long, help_heading = "Files")]
    no_hosts: bool,
    /// Take the lines of this file into /etc/hosts, too; none for no file
    #[arg(long, value_name = "FILE", conflicts_with = "no_hosts", help_heading = "Files")]
    hosts_file: Option<PathBuf>,
    /// The first word is no image but a directory with a root file system; DIRECTORY:O is not changed
    #[arg(long, help_heading = "Files")]
    pub(super) rootfs: bool,
    /// Remove the image too when the container ends, unless it is used elsewhere; implies --rm
    #[arg(long, help_heading = "Image")]
    pub(super) rmi: bool,
    /// Pass on this many descriptors, from 3 on
    #[arg(long, value_name = "NUMBER", default_value_t = 0, hide_default_value = true)]
    pub(super) preserve_fds: u32,
    /// Execution domain: LINUX or LINUX32
    #[arg(long, value_name = "NAME")]
    pub(super) personality: Option<String>,
    /// Map users; 0 of FROM is you, 1 and on are your subordinate ids
    #[arg(long, value_name = "CONTAINER:FROM:COUNT", help_heading = "Confinement")]
    uidmap: Vec<String>,
    /// Map groups; like --uidmap where only one of them is given
    #[arg(long, value_name = "CONTAINER:FROM:COUNT", help_heading = "Confinement")]
    gidmap: Vec<String>,
    /// Add a missing user to /etc/passwd (default true)
    #[arg(long, default_value = "true", action = ArgAction::SetTrue, help_heading = "Files")]
    passwd: bool,
    /// Take a variable away
    #[arg(long, value_name = "NAME")]
    unsetenv: Vec<String>,
    /// Take all variables away that are not given here
    #[arg(long)]
    unsetenv_all: bool,
    /// Pass all your variables on
    #[arg(long)]
    env_host: bool,
    /// Set a variable in which ${NAME} stands for one of the image's
    #[arg(long, value_name = "NAME=VALUE")]
    env_merge: Vec<String>,
    /// Read labels from a file
    #[arg(long, value_name = "FILE")]
    label_file: Vec<PathBuf>,
    /// Write the pid of the container's pid 1 to a file
    #[arg(long, value_name = "FILE")]
    pub(super) pidfile: Option<PathBuf>,
    /// Print nothing but errors and the id
    #[arg(short, long)]
    pub(super) quiet: bool,
    /// Name a port that the program listens on
    #[arg(long, value_name = "PORT[/udp]", help_heading = "Network")]
    expose: Vec<String>,
    /// Publish what is exposed, each on a free port
    #[arg(short = 'P', long, help_heading = "Network")]
    publish_all: bool,
    /// Further name of the container in its networks
    #[arg(long, value_name = "NAME", help_heading = "Network")]
    network_alias: Vec<String>,
    /// IPC namespace: private or host
    #[arg(long, value_name = "MODE", help_heading = "Confinement")]
    ipc: Option<String>,
    /// Pid namespace: private
    #[arg(long, value_name = "MODE", help_heading = "Confinement")]
    pid: Option<String>,
    /// Host name: private or host
    #[arg(long, value_name = "MODE", help_heading = "Confinement")]
    uts: Option<String>,
    /// Cgroup namespace: private or host
    #[arg(long, value_name = "MODE", help_heading = "Confinement")]
    cgroupns: Option<String>,
    /// Prepare the container for systemd: false
    #[arg(long, value_name = "true|false|always", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide = true)]
    systemd: Option<String>,
    /// Pass messages of sd_notify(3) on: ignore
    #[arg(long, value_name = "MODE", hide = true)]
    sdnotify: Option<String>,
}

fn refused(option: &str, value: &str, why: &str, hint: &str) -> Failure {
    Failure::new(Stage::Cli, Kind::Usage, "parse-arguments", format!("invalid {option}").as_str(), value)
        .why(why)
        .hint(hint)
}

impl MoreArgs {
    pub(super) fn secrets(&self) -> Result<Vec<secret::SecretRequest>, Failure> {
        Ok(self.secret.iter().map(|w| secret::secret(w)).collect::<Result<_, _>>()?)
    }

    pub(super) fn devices(&self) -> Result<Vec<device::DeviceRequest>, Failure> {
        if let Some(word) = &self.gpus {
            let why = "device names of CDI are not supported yet";
            return Err(refused("--gpus", word, why, "name the nodes: --device /dev/dri, --device /dev/nvidia0"));
        }
        let mut all = Vec::new();
        for word in &self.device {
            all.extend(device::device(word)?);
        }
        Ok(all)
    }

    pub(super) fn shared(&self) -> Result<share::Shared, Failure> {
        let is_host = |option, word: &Option<String>| share::is_host(option, word.as_deref().unwrap_or_default());
        is_host("--pid", &self.pid)?;
        self.services()?;
        Ok(share::Shared {
            ipc: is_host("--ipc", &self.ipc)?,
            uts: is_host("--uts", &self.uts)?,
            cgroup: is_host("--cgroupns", &self.cgroupns)?,
        })
    }

    /// What systemd would be told.
    fn services(&self) -> Result<(), Failure> {
        match self.systemd.as_deref() {
            // `true` means: where the command is systemd, which then says itself what it lacks.
            None | Some("false" | "true") => {}
            Some(word) => {
                let why = "systemd as pid 1 needs a writable cgroup, which is not given yet";
                return Err(refused("--systemd", word, why, "leave it out; --init runs a small init"));
            }
        }
        match self.sdnotify.as_deref() {
            None | Some("ignore") => Ok(()),
            Some(word) => {
                let why = "messages of sd_notify(3) are not passed on yet";
                Err(refused("--sdnotify", word, why, "use ignore, and Type=exec in the unit"))
            }
        }
    }

    pub(super) fn own_files(&self) -> Result<OwnFiles, Failure> {
        let timezone = self.tz.as_deref().map(timezone).transpose()?;
        let hosts = self.hosts_file.as_deref().map(hosts).transpose()?;
        Ok(OwnFiles { no_hosts: self.no_hosts, no_passwd: !self.passwd, timezone, hosts })
    }

    /// `--userns`, `--uidmap` and `--gidmap`.
    pub(super) fn user_namespace(&self, userns: &str) -> Result<UserNamespaceRequest, Failure> {
        Ok(request::userns::with_maps(userns, &self.uidmap, &self.gidmap)?)
    }

    /// `--preserve-fds`: whoever goes on without the caller has nothing of his.
    pub(super) fn preserved(&self, life: &LifeRequest) -> Result<u32, Failure> {
        let number = self.preserve_fds.to_string();
        let refused = |why| Err(refused("--preserve-fds", &number, why, "run it in the foreground, without --restart"));
        match self.preserve_fds {
            0 => Ok(0),
            _ if life.detach => refused("a container in the background gets nothing of the caller's"),
            _ if life.restart != Restart::No => refused("they are given once, and not again at a restart"),
            number => Ok(number),
        }
    }

    /// `--rmi`.
    pub(super) fn removes_image(&self, detach: bool) -> Result<bool, Failure> {
        match (self.rmi, detach, self.rootfs) {
            (true, true, _) => Err(refused(
                "--rmi",
                "--detach",
                "nobody waits for the end of the container",
                "rlrun wait CONTAINER; rlrun rmi IMAGE",
            )),
            (true, _, true) => Err(refused("--rmi", "--rootfs", "there is no image", "leave out --rmi")),
            (rmi, _, _) => Ok(rmi),
        }
    }

    pub(super) fn env_changes(&self) -> Result<env::Changes, Failure> {
        let mut merge = Vec::new();
        for word in &self.env_merge {
            merge.extend(env::variable("--env-merge", word, &|_| None)?);
        }
        Ok(env::Changes { unset: self.unsetenv.clone(), unset_all: self.unsetenv_all, merge })
    }

    /// `--env-host`.
    pub(super) fn host_variables(&self) -> Vec<(String, String)> {
        if !self.env_host {
            return Vec::new();
        }
        let all = std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
        all.filter(|(name, _)| !OF_THE_CONTAINER.contains(&name.as_str())).collect()
    }

    pub(super) fn labels(&self) -> Result<Vec<(String, String)>, Failure> {
        let mut all = Vec::new();
        for path in &self.label_file {
            let shown = path.display().to_string();
            let text = std::fs::read_to_string(path).map_err(|e| {
                refused("--label-file", &shown, &e.to_string(), "it is a text file of NAME=VALUE lines")
            })?;
            for line in text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')) {
                all.push(labels::label("--label-file", line)?);
            }
        }
        Ok(all)
    }

    pub(super) fn network(&self, network: &mut Network) -> Result<(), Failure> {
        network.publish_all = self.publish_all;
        for word in &self.expose {
            network.exposed.extend(request::network::exposed(word)?);
        }
        if !self.network_alias.is_empty() {
            rlrun_engine::warn("--network-alias has no effect: no other container shares a network with this one");
        }
        Ok(())
    }
}

/// The lines of a hosts file, each of which is one: other files are for -v, which policies judge.
fn hosts(path: &Path) -> Result<String, Failure> {
    if path == Path::new("none") {
        return Ok(String::new());
    }
    let shown = path.display().to_string();
    let refused = |why: &str| {
        refused("--hosts-file", &shown, why, "it is a text file as hosts(5) says; --no-hosts leaves the image's")
    };
    let text = std::fs::read_to_string(path).map_err(|e| refused(&e.to_string()))?;
    let is_line = |line: &&str| {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        let address = words.next().map(|word| word.split('%').next().unwrap_or_default());
        address.is_none_or(|address| address.parse::<std::net::IpAddr>().is_ok() && words.next().is_some())
    };
    match text.lines().position(|line| !is_line(&line)) {
        Some(line) => Err(refused(&format!("line {} is no address with names", line + 1))),
        None if text.is_empty() || text.ends_with('\n') => Ok(text),
        None => Ok(text + "\n"),
    }
}

/// The contents of a zone's file.
fn timezone(word: &str) -> Result<Vec<u8>, Failure> {
    let refused =
        |why: &str| refused("--tz", word, why, "name a file below /usr/share/zoneinfo: Europe/Berlin, UTC, local");
    let path = match word {
        "local" => PathBuf::from("/etc/localtime"),
        _ => {
            let plain = word
                .split('/')
                .all(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_alphanumeric() || b"_+-".contains(&b)));
            if !plain {
                return Err(refused("is not a time zone"));
            }
            Path::new("/usr/share/zoneinfo").join(word)
        }
    };
    let bytes = std::fs::read(&path).map_err(|e| refused(&format!("{}: {e}", path.display())))?;
    // tzfile(5).
    if bytes.starts_with(b"TZif") { Ok(bytes) } else { Err(refused("is not a time zone")) }
}
