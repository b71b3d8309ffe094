//! From rlrun's types to the ABI's. Sets and maps come out sorted: the same request is the same bytes everywhere.

use crate::bindings::exports::rlrun::policy::{exec, image};
use crate::bindings::rlrun::policy::types as wit;
use crate::host::HostSide;
use oci_spec::runtime::{LinuxNamespaceType, LinuxSeccompAction, Mount, PosixRlimitType, Process, Spec};
use rlrun_spec::container::{EgressRule, NetworkMode, PortMapping, Protocol, UserNamespace};
use rlrun_spec::policy::{ExecRequest, ImageFacts, PullRequest, Signature};
use rlrun_spec::{Caller, Control, Enforced, Level, SpecParts};
use std::collections::{BTreeSet, HashMap};
use std::path::Path;

pub(crate) fn caller(caller: &Caller, host: &HostSide) -> wit::Caller {
    wit::Caller {
        uid: caller.uid,
        gid: caller.gid,
        user: caller.user.clone(),
        home: host.home.clone(),
        origin: caller.origin.clone(),
        tty: caller.tty,
        ci: caller.ci,
    }
}

pub(crate) fn pull(pull: &PullRequest) -> image::Pull {
    image::Pull {
        image: wit::ImageRef {
            reference: pull.reference.clone(),
            digest: pull.digest.clone().unwrap_or_default(),
            platform: pull.platform.clone(),
        },
        insecure: pull.insecure,
        mirror: pull.mirror.clone(),
    }
}

pub(crate) fn info(facts: &ImageFacts) -> image::Info {
    image::Info {
        image: wit::ImageRef {
            reference: facts.reference.clone(),
            digest: facts.digest.clone(),
            platform: facts.platform.clone(),
        },
        signatures: facts.signatures.iter().map(signature).collect(),
        created: facts.created.clone(),
        user: facts.user.clone(),
        env: env(&facts.env),
        labels: facts.labels.iter().map(|(name, value)| pair(name, value)).collect(),
        entrypoint: facts.entrypoint.clone(),
        exposed_ports: facts.exposed_ports.clone(),
        volumes: facts.volumes.clone(),
        layers: facts.layers,
        size_bytes: facts.size_bytes,
        history: facts.history.clone(),
    }
}

pub(crate) fn signature(signature: &Signature) -> wit::Signature {
    wit::Signature {
        scheme: signature.scheme.clone(),
        verified: true,
        identity: Some(signature.identity.clone()),
        issuer: None,
        key_id: Some(signature.key_id.clone()),
    }
}

pub(crate) fn exec(request: &ExecRequest) -> exec::Request {
    exec::Request {
        container_id: request.container_id.clone(),
        args: request.args.clone(),
        env: env(&request.env),
        uid: request.uid,
        tty: request.tty,
        privileged: request.privileged,
    }
}

/// The effective configuration as policies see it.
pub(crate) fn container(parts: &SpecParts, host: &HostSide) -> wit::Container {
    let spec = &parts.oci;
    let none = Process::default();
    let process = spec.process().as_ref().unwrap_or(&none);
    wit::Container {
        id: parts.id.clone(),
        name: parts.name.clone(),
        hostname: spec.hostname().clone().unwrap_or_default(),
        image: parts.image.as_ref().map(|i| wit::ImageRef {
            reference: i.reference.clone(),
            digest: i.digest.clone(),
            platform: i.platform.clone(),
        }),
        signatures: parts.beside.origin.signatures.iter().map(signature).collect(),
        privileged: parts.privileged,
        args: process.args().clone().unwrap_or_default(),
        env: env(process.env().as_deref().unwrap_or_default()),
        cwd: text(process.cwd()),
        uid: process.user().uid(),
        gid: process.user().gid(),
        user_namespace: match parts.userns {
            UserNamespace::Default => "default".to_owned(),
            UserNamespace::KeepId { .. } => "keep-id".to_owned(),
            UserNamespace::Mapped { .. } => "mapped".to_owned(),
        },
        capabilities: capabilities(process),
        no_new_privileges: process.no_new_privileges().unwrap_or(false),
        read_only_rootfs: spec.root().as_ref().and_then(|r| r.readonly()).unwrap_or(false),
        seccomp: seccomp(parts),
        mounts: root(spec).iter().chain(spec.mounts().iter().flatten()).map(|m| mount(m, parts)).collect(),
        devices: linux_list(spec, |l| l.devices().iter().flatten().map(|d| text(d.path())).collect()),
        host_namespaces: host_namespaces(spec),
        network: match parts.network {
            NetworkMode::Slirp4netns => "slirp4netns".to_owned(),
            NetworkMode::None => "none".to_owned(),
            NetworkMode::Host => "host".to_owned(),
        },
        ports: parts.ports.iter().map(port).collect(),
        dns: parts.dns.clone(),
        egress: parts.egress.as_ref().map(|rules| rules.iter().map(egress).collect()),
        sysctls: pairs(spec.linux().as_ref().and_then(|l| l.sysctl().as_ref())),
        limits: limits(spec, process),
        masked_paths: linux_list(spec, |l| l.masked_paths().clone().unwrap_or_default()),
        read_only_paths: linux_list(spec, |l| l.readonly_paths().clone().unwrap_or_default()),
        annotations: pairs(spec.annotations().as_ref()),
        controls: parts.controls.iter().map(control).collect(),
        own_paths: host.own_paths.clone(),
        init: parts.init,
        terminal: process.terminal().unwrap_or(false),
        interactive: parts.interactive,
    }
}

/// Bytes of what a user or an image can make arbitrarily large.
pub(crate) fn weight(container: &wit::Container) -> usize {
    let strings = |list: &[String]| list.iter().map(String::len).sum::<usize>();
    let pairs = |list: &[wit::Pair]| list.iter().map(|p| p.name.len() + p.value.len()).sum::<usize>();
    let mounts = |list: &[wit::Mount]| {
        list.iter().map(|m| m.source.len() + m.destination.len() + strings(&m.options)).sum::<usize>()
    };
    strings(&container.args)
        + pairs(&container.env)
        + mounts(&container.mounts)
        + strings(&container.devices)
        + pairs(&container.sysctls)
        + pairs(&container.annotations)
        + strings(&container.masked_paths)
        + strings(&container.read_only_paths)
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn pair(name: &str, value: &str) -> wit::Pair {
    wit::Pair { name: name.to_owned(), value: value.to_owned() }
}

pub(crate) fn env(entries: &[String]) -> Vec<wit::Pair> {
    let split = |entry: &String| match entry.split_once('=') {
        Some((name, value)) => pair(name, value),
        None => pair(entry, ""),
    };
    entries.iter().map(split).collect()
}

fn pairs(map: Option<&HashMap<String, String>>) -> Vec<wit::Pair> {
    let mut pairs: Vec<wit::Pair> = map.into_iter().flatten().map(|(name, value)| pair(name, value)).collect();
    pairs.sort_by(|a, b| a.name.cmp(&b.name));
    pairs
}

fn linux_list(spec: &Spec, list: impl FnOnce(&oci_spec::runtime::Linux) -> Vec<String>) -> Vec<String> {
    spec.linux().as_ref().map(list).unwrap_or_default()
}

fn capabilities(process: &Process) -> Vec<String> {
    let Some(sets) = process.capabilities() else { return Vec::new() };
    let all = [sets.bounding(), sets.effective(), sets.permitted(), sets.inheritable(), sets.ambient()];
    let names: BTreeSet<String> = all.into_iter().flatten().flatten().map(|c| format!("CAP_{c}")).collect();
    names.into_iter().collect()
}

fn seccomp(parts: &SpecParts) -> wit::SeccompSummary {
    let section = parts.oci.linux().as_ref().and_then(|l| l.seccomp().as_ref());
    let default_action = match section.map(|s| s.default_action()) {
        None | Some(LinuxSeccompAction::ScmpActAllow) => "allow",
        Some(LinuxSeccompAction::ScmpActErrno) => "errno",
        Some(LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread) => "kill-thread",
        Some(LinuxSeccompAction::ScmpActKillProcess) => "kill-process",
        Some(LinuxSeccompAction::ScmpActTrap) => "trap",
        Some(LinuxSeccompAction::ScmpActNotify) => "notify",
        Some(LinuxSeccompAction::ScmpActTrace) => "trace",
        Some(LinuxSeccompAction::ScmpActLog) => "log",
    };
    wit::SeccompSummary { profile: parts.seccomp_profile.clone(), default_action: default_action.to_owned() }
}

/// A root file system that is a directory of the host's is a bind mount to policies: what may not be mounted may not be
/// the root either.
fn root(spec: &Spec) -> Option<Mount> {
    let root = spec.root().as_ref().filter(|root| root.path().is_absolute())?;
    let access = if root.readonly().unwrap_or(false) { "ro" } else { "rw" };
    let mut mount = Mount::default();
    mount
        .set_destination("/".into())
        .set_typ(Some("bind".to_owned()))
        .set_source(Some(root.path().clone()))
        .set_options(Some(["bind", access].map(str::to_owned).to_vec()));
    Some(mount)
}

fn mount(mount: &Mount, parts: &SpecParts) -> wit::Mount {
    let destination = text(mount.destination());
    let options = mount.options().clone().unwrap_or_default();
    let resolved = parts.resolved_sources.iter().find(|(d, _)| *d == destination).map(|(_, source)| source.clone());
    // The last of two contradicting options wins (mount(8)).
    let read_only = options.iter().rfind(|o| *o == "ro" || *o == "rw").is_some_and(|o| o == "ro");
    wit::Mount {
        kind: kind(mount, &options),
        source: mount.source().as_deref().map(text).unwrap_or_default(),
        destination,
        options,
        resolved_source: resolved,
        read_only,
    }
}

/// A bind mount is one by its options, whatever its type says (OCI runtime specification, mounts).
fn kind(mount: &Mount, options: &[String]) -> String {
    if options.iter().any(|o| o == "bind" || o == "rbind") {
        return "bind".to_owned();
    }
    mount.typ().clone().unwrap_or_default()
}

/// The user and the mount namespace are always the container's own.
fn host_namespaces(spec: &Spec) -> Vec<String> {
    let listed = spec.linux().as_ref().and_then(|l| l.namespaces().as_deref()).unwrap_or_default();
    let kinds = [
        (LinuxNamespaceType::Cgroup, "cgroup"),
        (LinuxNamespaceType::Ipc, "ipc"),
        (LinuxNamespaceType::Network, "network"),
        (LinuxNamespaceType::Pid, "pid"),
        (LinuxNamespaceType::Uts, "uts"),
    ];
    // One that is joined by path is somebody else's too.
    let own = |kind| listed.iter().any(|n| n.typ() == kind && n.path().is_none());
    kinds.into_iter().filter(|(kind, _)| !own(*kind)).map(|(_, name)| name.to_owned()).collect()
}

fn port(port: &PortMapping) -> wit::Port {
    wit::Port {
        host_ip: port.host_ip.to_string(),
        host_port: port.host_port,
        container_port: port.container_port,
        protocol: match port.protocol {
            Protocol::Tcp => "tcp".to_owned(),
            Protocol::Udp => "udp".to_owned(),
        },
    }
}

fn egress(rule: &EgressRule) -> wit::EgressRule {
    wit::EgressRule { cidr: rule.cidr.clone(), ports: rule.ports.clone(), protocol: rule.protocol.clone() }
}

fn limits(spec: &Spec, process: &Process) -> wit::Limits {
    let resources = spec.linux().as_ref().and_then(|l| l.resources().as_ref());
    let memory = resources.and_then(|r| r.memory().as_ref()).and_then(|m| m.limit());
    let pids = resources.and_then(|r| r.pids().as_ref()).map(|p| p.limit());
    let cpu = resources.and_then(|r| r.cpu().as_ref());
    let quota = cpu.and_then(|c| c.quota()).filter(|q| *q > 0).and_then(|q| u64::try_from(q).ok());
    let period = cpu.and_then(|c| c.period()).filter(|p| *p > 0).unwrap_or(100_000);
    let nofile = process.rlimits().iter().flatten().find(|l| l.typ() == PosixRlimitType::RlimitNofile);
    // To a cgroup zero and below mean no limit.
    wit::Limits {
        memory_bytes: memory.filter(|m| *m > 0).and_then(|m| u64::try_from(m).ok()),
        pids: pids.filter(|p| *p > 0).map(|p| u32::try_from(p).unwrap_or(u32::MAX)),
        cpu_millis: quota.map(|q| u32::try_from(q.saturating_mul(1000) / period).unwrap_or(u32::MAX)),
        nofile: nofile.map(|l| u32::try_from(l.hard()).unwrap_or(u32::MAX)),
    }
}

fn control(control: &Control) -> wit::Control {
    wit::Control {
        name: control.name.clone(),
        requested: control.requested.clone(),
        mechanism: control.mechanism.clone(),
        enforced: match control.enforced {
            Enforced::No => wit::Enforced::No,
            Enforced::Partly => wit::Enforced::Partly,
            Enforced::Yes => wit::Enforced::Yes,
        },
        required: control.level == Level::Require,
        why: control.why.clone(),
    }
}
