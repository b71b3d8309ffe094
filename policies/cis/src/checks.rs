//! The checks. 5.1 (swarm mode) and 5.30 (the bridge docker0) are about things that rlrun does not have.

use crate::Settings;
use rlrun_policy::pattern::{Relation, relation};
use rlrun_policy::{Container, Enforced, ExecRequest, Mount};

/// Where in the request, and what is wrong.
type Found = Vec<(String, String)>;

/// What a check looks at.
#[derive(Clone, Copy)]
pub(crate) enum Asks {
    Container(fn(&Settings, &Container) -> Found),
    Exec(fn(&ExecRequest) -> Found),
}

/// One check.
pub(crate) struct Check {
    pub(crate) number: &'static str,
    /// An ordinary container fulfils it.
    pub(crate) ordinary: bool,
    pub(crate) asks: Asks,
    pub(crate) help: &'static str,
}

const fn check(number: &'static str, ordinary: bool, asks: Asks, help: &'static str) -> Check {
    Check { number, ordinary, asks, help }
}

pub(crate) const CHECKS: [Check; 30] = [
    check("5.2", false, Asks::Container(apparmor), "load a profile on the host; rlrun cannot choose one"),
    check("5.3", false, Asks::Container(selinux), "label the host's files; rlrun cannot choose a label"),
    check("5.4", true, Asks::Container(capabilities), "leave out --cap-add"),
    check("5.5", true, Asks::Container(privileged), "name what is missing: --cap-add, --device"),
    check("5.6", true, Asks::Container(sensitive_directories), "mount only the directory that is needed"),
    check("5.7", true, Asks::Container(ssh), "use `rlrun exec` instead of a login inside"),
    check("5.8", true, Asks::Container(privileged_ports), "publish a port from 1024 on"),
    check("5.9", false, Asks::Container(needed_ports), "publish what the image exposes"),
    check("5.10", true, Asks::Container(host_network), "leave out --network host"),
    check("5.11", false, Asks::Container(memory), "--memory 512m"),
    check("5.12", false, Asks::Container(cpu), "--cpus 1 or --cpu-shares"),
    check("5.13", false, Asks::Container(read_only), "--read-only, and --tmpfs or -v for what is written"),
    check("5.14", false, Asks::Container(interface), "-p 127.0.0.1:8080:80"),
    check("5.15", true, Asks::Container(restart), "--restart on-failure:5"),
    check("5.16", true, Asks::Container(|_, c| host(c, "pid")), "leave out --pid host"),
    check("5.17", true, Asks::Container(|_, c| host(c, "ipc")), "leave out --ipc host"),
    check("5.18", true, Asks::Container(devices), "leave out --device"),
    check("5.19", false, Asks::Container(ulimit), "--ulimit nofile=1024"),
    check("5.20", true, Asks::Container(propagation), "leave out shared and rshared"),
    check("5.21", true, Asks::Container(|_, c| host(c, "uts")), "leave out --uts host"),
    check("5.22", true, Asks::Container(seccomp), "leave out --security-opt seccomp=unconfined"),
    check("5.23", true, Asks::Exec(exec_privileged), "leave out --privileged"),
    check("5.24", false, Asks::Exec(exec_root), "rlrun exec --user"),
    check("5.25", true, Asks::Container(cgroup), "leave out --cgroup-parent"),
    check("5.26", true, Asks::Container(no_new_privileges), "leave out --security-opt no-new-privileges=false"),
    check("5.27", false, Asks::Container(health), "--health-cmd"),
    check("5.28", false, Asks::Container(latest), "name a version or a digest, and pull it: --pull newer"),
    check("5.29", true, Asks::Container(pids), "--pids-limit 100"),
    check("5.31", true, Asks::Container(user_namespace), "leave out --userns host"),
    check("5.32", true, Asks::Container(engine_socket), "do not mount the socket of an engine"),
];

/// What Docker gives by default, which the benchmark takes as the measure.
const DEFAULT_CAPABILITIES: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// The benchmark's list.
/// Those of the benchmark, and where its `/lib` is a link to; `/bin` and `/sbin` are no less the system's.
const SENSITIVE: [&str; 18] = [
    "/boot",
    "/dev",
    "/etc",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/bin",
    "/sbin",
    "/proc",
    "/sys",
    "/usr",
    "/usr/lib",
    "/usr/lib32",
    "/usr/lib64",
    "/usr/bin",
    "/usr/sbin",
    "/root",
];

const SOCKETS: [&str; 7] =
    ["docker.sock", "podman.sock", "containerd.sock", "crio.sock", "cri-dockerd.sock", "buildkitd.sock", "rlrun.sock"];

fn one(wrong: bool, path: &str, message: impl Into<String>) -> Found {
    if wrong { vec![(path.to_owned(), message.into())] } else { Vec::new() }
}

fn apparmor(_: &Settings, c: &Container) -> Found {
    one(c.facts.apparmor_profile.is_none(), "/facts/apparmor-profile", "no AppArmor profile confines the container")
}

fn selinux(_: &Settings, c: &Container) -> Found {
    one(c.facts.selinux_label.is_none(), "/facts/selinux-label", "the container has no SELinux label")
}

fn capabilities(settings: &Settings, c: &Container) -> Found {
    let usual = |n: &&String| !DEFAULT_CAPABILITIES.contains(&n.as_str()) && !settings.allow_capabilities.contains(n);
    let more: Vec<&str> = c.capabilities.iter().filter(usual).map(String::as_str).collect();
    one(!more.is_empty(), "/capabilities", format!("more than the default capabilities: {}", more.join(", ")))
}

fn privileged(_: &Settings, c: &Container) -> Found {
    one(c.privileged, "/privileged", "the container is privileged")
}

/// Both what was written and where it leads.
fn sources(mount: &Mount) -> impl Iterator<Item = &str> {
    std::iter::once(mount.source.as_str()).chain(mount.resolved_source.as_deref())
}

fn binds(c: &Container) -> impl Iterator<Item = (usize, &Mount)> {
    c.mounts.iter().enumerate().filter(|(_, m)| m.kind == "bind")
}

fn sensitive_directories(_: &Settings, c: &Container) -> Found {
    let own_sysfs = |m: &Mount| m.source == "/sys" && m.destination == "/sys" && m.read_only;
    let wrong = |m: &Mount| {
        sources(m).any(|s| SENSITIVE.iter().any(|place| matches!(relation(s, place), Relation::Above | Relation::Same)))
    };
    let found = binds(c).filter(|(_, m)| wrong(m) && !own_sysfs(m));
    found
        .map(|(i, m)| (format!("/mounts/{i}/source"), format!("{} is a directory of the host's system", m.source)))
        .collect()
}

/// As the benchmark does it, by the name of the program, in the text of a shell too; from inside nobody could tell.
fn ssh(_: &Settings, c: &Container) -> Found {
    let between = |c: char| c.is_whitespace() || matches!(c, ';' | '&' | '|' | '(' | ')' | '"' | '\'');
    let server = |word: &str| word.rsplit('/').next().is_some_and(|name| ["sshd", "dropbear"].contains(&name));
    let runs = c.args.iter().any(|text| text.split(between).any(server));
    one(runs, "/args", "the container runs an SSH server")
}

fn privileged_ports(settings: &Settings, c: &Container) -> Found {
    let wrong = c
        .ports
        .iter()
        .enumerate()
        .filter(|(_, p)| p.host_port < 1024 && !settings.allow_privileged_ports.contains(&p.host_port));
    wrong
        .map(|(i, p)| (format!("/ports/{i}/host-port"), format!("port {} of the host is privileged", p.host_port)))
        .collect()
}

fn needed_ports(settings: &Settings, c: &Container) -> Found {
    let exposed = c.facts.image_config.as_ref().map(|image| image.exposed_ports.as_slice()).unwrap_or_default();
    let known = |port: u16, protocol: &str| {
        exposed.iter().any(|e| *e == format!("{port}/{protocol}") || (protocol == "tcp" && *e == port.to_string()))
    };
    let wrong =
        c.ports.iter().enumerate().filter(|(_, p)| {
            !known(p.container_port, &p.protocol) && !settings.allow_ports.contains(&p.container_port)
        });
    let told = |(i, p): (usize, &rlrun_policy::Port)| {
        (format!("/ports/{i}/container-port"), format!("the image does not expose {}/{}", p.container_port, p.protocol))
    };
    wrong.map(told).collect()
}

fn host(c: &Container, namespace: &str) -> Found {
    let shared = c.host_namespaces.iter().any(|n| n == namespace);
    one(shared, "/host-namespaces", format!("the container shares the host's {namespace} namespace"))
}

fn host_network(_: &Settings, c: &Container) -> Found {
    host(c, "network")
}

/// Asked for, and not only written down.
fn limited(c: &Container, asked: bool, control: &str) -> bool {
    asked && !c.controls.iter().any(|x| x.name == control && x.enforced == Enforced::No)
}

fn memory(_: &Settings, c: &Container) -> Found {
    let limited = limited(c, c.limits.memory_bytes.is_some(), "memory-limit");
    one(!limited, "/limits/memory-bytes", "memory is not limited")
}

fn cpu(_: &Settings, c: &Container) -> Found {
    let limited = c.limits.cpu_millis.is_some() || c.facts.cpu_shares.is_some() || c.facts.cpuset.is_some();
    one(!limited, "/limits/cpu-millis", "processor time is neither limited nor weighted")
}

fn read_only(_: &Settings, c: &Container) -> Found {
    one(!c.read_only_rootfs, "/read-only-rootfs", "the root file system can be written")
}

fn interface(_: &Settings, c: &Container) -> Found {
    let wrong = c.ports.iter().enumerate().filter(|(_, p)| matches!(p.host_ip.as_str(), "" | "0.0.0.0" | "::"));
    let told = |(i, p): (usize, &rlrun_policy::Port)| {
        (format!("/ports/{i}/host-ip"), format!("port {} is published on every address of the host", p.host_port))
    };
    wrong.map(told).collect()
}

fn restart(_: &Settings, c: &Container) -> Found {
    let bounded = match c.facts.restart.as_str() {
        "no" => true,
        "on-failure" => (1..=5).contains(&c.facts.max_restarts),
        _ => false,
    };
    one(!bounded, "/facts/restart", "the container is started again without end")
}

fn devices(_: &Settings, c: &Container) -> Found {
    let nodes = c.devices.iter().map(|d| ("/devices".to_owned(), d.clone()));
    let bound = binds(c).filter(|(_, m)| sources(m).any(|s| relation(s, "/dev") == Relation::Below));
    let bound = bound.map(|(i, m)| (format!("/mounts/{i}/source"), m.source.clone()));
    nodes.chain(bound).map(|(path, device)| (path, format!("the container gets the host's {device}"))).collect()
}

fn ulimit(_: &Settings, c: &Container) -> Found {
    let has = c.facts.rlimits.iter().any(|l| l.kind == "RLIMIT_NOFILE") || c.limits.nofile.is_some();
    one(!has, "/facts/rlimits", "the number of open files is the caller's")
}

fn propagation(_: &Settings, c: &Container) -> Found {
    let shared = |m: &Mount| m.options.iter().any(|o| o == "shared" || o == "rshared");
    let found = c.mounts.iter().enumerate().filter(|(_, m)| shared(m));
    found
        .map(|(i, m)| (format!("/mounts/{i}/options"), format!("mounts under {} reach the host", m.destination)))
        .collect()
}

fn seccomp(_: &Settings, c: &Container) -> Found {
    let off = c.seccomp.profile == "unconfined" || c.seccomp.default_action == "allow";
    one(off, "/seccomp/profile", "system calls are not filtered")
}

fn exec_privileged(request: &ExecRequest) -> Found {
    one(request.privileged, "/privileged", "the command would be privileged")
}

fn exec_root(request: &ExecRequest) -> Found {
    one(request.uid == 0, "/uid", "the command would run as the container's root")
}

fn cgroup(_: &Settings, c: &Container) -> Found {
    let parent = c.facts.cgroup_parent.as_deref().unwrap_or_default();
    one(!parent.is_empty(), "/facts/cgroup-parent", format!("the container goes into the cgroup {parent}"))
}

fn no_new_privileges(_: &Settings, c: &Container) -> Found {
    one(!c.no_new_privileges, "/no-new-privileges", "set-user-ID programs can raise privileges")
}

fn health(_: &Settings, c: &Container) -> Found {
    one(!c.facts.healthcheck, "/facts/healthcheck", "nothing tells whether the container is well")
}

fn latest(_: &Settings, c: &Container) -> Found {
    let reference = c.image.as_ref().map(|image| image.reference.as_str()).unwrap_or_default();
    let tagged_latest = reference.ends_with(":latest") && !reference.contains('@');
    one(
        tagged_latest,
        "/image/reference",
        format!("{reference} means another image tomorrow, and the one here may be old"),
    )
}

fn pids(_: &Settings, c: &Container) -> Found {
    let limited = limited(c, c.limits.pids.is_some(), "pids-limit");
    one(!limited, "/limits/pids", "the number of processes is not limited")
}

/// Of a rootless engine the container never has the host's.
fn user_namespace(_: &Settings, c: &Container) -> Found {
    one(c.user_namespace == "host", "/user-namespace", "the container has the host's user namespace")
}

fn engine_socket(_: &Settings, c: &Container) -> Found {
    let is_socket = |s: &str| SOCKETS.contains(&s.rsplit('/').next().unwrap_or_default());
    let found = binds(c).filter(|(_, m)| sources(m).any(is_socket));
    found.map(|(i, m)| (format!("/mounts/{i}/source"), format!("{} gives orders to an engine", m.source))).collect()
}
