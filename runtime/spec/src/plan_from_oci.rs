//! From the admitted OCI configuration to the decided launch. Every field is taken over or refused; none is
//! ignored, because a setting that silently does nothing is a lie to whoever reads `inspect`.

use crate::container::{ContainerSpec, SpecParts};
use crate::limits::{self, Limits};
use crate::plan::{
    CapabilitySets, Launch, LaunchFacts, Mount, MountOptions, MountSource, Namespaces, Process, Rlimit, Rootfs,
    SealError, VERSION,
};
use oci_spec::runtime::{
    Capabilities, Capability, Linux, LinuxNamespaceType, LinuxPersonalityDomain, Mount as OciMount, PosixRlimitType,
    Process as OciProcess,
};
use std::path::Path;

/// The annotation by which other runtimes are told, and policies see, that the caller's groups are kept.
pub const KEEP_GROUPS: &str = "run.oci.keep_original_groups";

/// Below a container's directory: what its mounts are made of that have layers.
pub const OVERLAYS: &str = "overlays";

fn refuse<T>(field: &str, why: impl Into<String>) -> Result<T, SealError> {
    Err(SealError::Unsupported { field: field.to_owned(), why: why.into() })
}

/// Refuses a field that is set.
fn absent<T>(field: &str, value: Option<&T>) -> Result<(), SealError> {
    match value {
        None => Ok(()),
        Some(_) => refuse(field, "is not supported"),
    }
}

pub(crate) fn launch(spec: &ContainerSpec, facts: LaunchFacts) -> Result<Launch, SealError> {
    let parts = spec.parts();
    let (Some(oci_process), Some(linux)) = (parts.oci.process(), parts.oci.linux()) else {
        return refuse("", "has no process or no linux section");
    };
    refuse_unknown(parts, oci_process, linux)?;
    if facts.seccomp_filters.is_empty() != facts.seccomp_unconfined {
        return refuse("/linux/seccomp", "exactly one of a filter and `unconfined` must be decided");
    }
    if linux.seccomp().is_some() && facts.seccomp_unconfined {
        return refuse("/linux/seccomp", "asks for a filter and none was compiled");
    }
    let mounts = parts.oci.mounts().as_deref().unwrap_or_default();
    let process = process(parts, oci_process, facts.preserved)?;
    let mut limits = limits(linux, process.capabilities.bounding)?;
    let places = Places { volumes: &facts.volumes, container: &facts.container_dir, layered: &facts.layered };
    let mut mounts = self::mounts(mounts, places)?;
    if let Some(memory) = limits.memory {
        mounts.iter_mut().for_each(|mount| bound_size(mount, memory.limit));
    }
    if let Some(cgroup) = &facts.cgroup {
        cgroup.held.take_from(&mut limits);
    }
    let is_ramfs = |m: &Mount| matches!(&m.source, MountSource::New { kind, .. } if kind == "ramfs");
    if limits.memory.is_some() && mounts.iter().any(is_ramfs) {
        return refuse("/mounts", "a ramfs has no size, and nothing here holds the memory limit against it");
    }
    Ok(Launch {
        version: VERSION,
        id: parts.id.clone(),
        name: parts.name.clone(),
        read_only: parts.oci.root().as_ref().and_then(|r| r.readonly()).unwrap_or(false),
        namespaces: namespaces(linux)?,
        hostname: parts.oci.hostname().clone().unwrap_or_default(),
        mounts,
        masked_paths: linux.masked_paths().clone().unwrap_or_default(),
        read_only_paths: linux.readonly_paths().clone().unwrap_or_default(),
        sysctls: sysctls(linux),
        process,
        network: parts.network,
        ports: parts.ports.clone(),
        egress: parts.egress.clone(),
        init: parts.init,
        limits,
        facts,
    })
}

fn refuse_unknown(parts: &SpecParts, process: &OciProcess, linux: &Linux) -> Result<(), SealError> {
    absent("/hooks", parts.oci.hooks().as_ref())?;
    absent("/domainname", parts.oci.domainname().as_ref())?;
    absent("/process/apparmorProfile", process.apparmor_profile().as_ref())?;
    absent("/process/selinuxLabel", process.selinux_label().as_ref())?;
    absent("/process/ioPriority", process.io_priority().as_ref())?;
    absent("/process/scheduler", process.scheduler().as_ref())?;
    absent("/process/execCPUAffinity", process.exec_cpu_affinity().as_ref())?;
    absent("/linux/mountLabel", linux.mount_label().as_ref())?;
    absent("/linux/intelRdt", linux.intel_rdt().as_ref())?;
    absent("/linux/timeOffsets", linux.time_offsets().as_ref())?;
    absent("/linux/netDevices", linux.net_devices().as_ref())?;
    absent("/linux/memoryPolicy", linux.memory_policy().as_ref())?;
    let mounts = parts.oci.mounts().as_deref().unwrap_or_default();
    for device in linux.devices().as_deref().unwrap_or_default() {
        // A user namespace cannot make device nodes; one of the host is bound instead.
        let bound = |m: &OciMount| m.destination() == device.path() && m.typ().as_deref() == Some("bind");
        if !mounts.iter().any(bound) {
            return refuse("/linux/devices", format!("{} is not bound from the host", device.path().display()));
        }
    }
    match linux.rootfs_propagation().as_deref() {
        None | Some("private" | "rprivate" | "slave" | "rslave") => Ok(()),
        Some(other) => refuse("/linux/rootfsPropagation", format!("{other} would let mounts reach the host")),
    }
}

fn namespaces(linux: &Linux) -> Result<Namespaces, SealError> {
    let mut found = Namespaces { pid: false, net: false, ipc: false, uts: false, cgroup: false };
    let (mut user, mut mount) = (false, false);
    for namespace in linux.namespaces().as_deref().unwrap_or_default() {
        if namespace.path().is_some() {
            return refuse("/linux/namespaces", "joining an existing namespace is not supported");
        }
        match namespace.typ() {
            LinuxNamespaceType::Mount => mount = true,
            LinuxNamespaceType::User => user = true,
            LinuxNamespaceType::Pid => found.pid = true,
            LinuxNamespaceType::Network => found.net = true,
            LinuxNamespaceType::Ipc => found.ipc = true,
            LinuxNamespaceType::Uts => found.uts = true,
            LinuxNamespaceType::Cgroup => found.cgroup = true,
            LinuxNamespaceType::Time => return refuse("/linux/namespaces", "a time namespace is not supported"),
        }
    }
    if !(user && mount && found.pid) {
        return refuse("/linux/namespaces", "user, mount and pid namespaces of its own are what makes a container");
    }
    Ok(found)
}

/// Where mounts come from.
#[derive(Clone, Copy, Debug)]
pub struct Places<'a> {
    /// Where volumes are.
    pub volumes: &'a Path,
    /// The container's own directory.
    pub container: &'a Path,
    /// [`LaunchFacts::layered`].
    pub layered: &'a [(String, Rootfs)],
}

/// Whether a mount is made of layers, which only a container that runs has.
#[must_use]
pub fn is_layered(oci: &OciMount) -> bool {
    oci.typ().as_deref() == Some("image") || oci.options().iter().flatten().any(|word| word == "O")
}

/// The mounts of a configuration as the sandbox makes them.
///
/// # Errors
/// [`SealError::Unsupported`] for a mount that cannot be made.
pub fn mounts(oci: &[OciMount], places: Places<'_>) -> Result<Vec<Mount>, SealError> {
    oci.iter().enumerate().map(|(index, oci)| mount(index, oci, places)).collect()
}

/// One OCI mount, its option words sorted into flags and the file system's own data.
fn mount(index: usize, oci: &OciMount, places: Places<'_>) -> Result<Mount, SealError> {
    let field = format!("/mounts/{index}");
    let destination = oci.destination().to_string_lossy().into_owned();
    if !destination.starts_with('/') {
        return refuse(&field, format!("destination {destination} is not an absolute path"));
    }
    let mut options = MountOptions::default();
    let (mut bind, mut recursive) = (oci.typ().as_deref() == Some("bind"), false);
    let mut data = Vec::new();
    for word in oci.options().as_deref().unwrap_or_default() {
        match word.as_str() {
            "ro" => options.read_only = true,
            "rw" => options.read_only = false,
            "nosuid" => options.nosuid = true,
            "nodev" => options.nodev = true,
            "noexec" => options.noexec = true,
            "strictatime" => options.strictatime = true,
            "noatime" => options.noatime = true,
            "suid" | "dev" | "exec" | "relatime" | "private" | "rprivate" | "notmpcopyup" | "defaults" => {}
            "slave" | "rslave" => options.slave = true,
            "shared" | "rshared" => return refuse(&field, "shared propagation would let mounts reach the host"),
            "bind" => bind = true,
            "rbind" => (bind, recursive) = (true, true),
            "tmpcopyup" | "copy" => options.copy_up = true,
            "U" => options.chown = true,
            "O" => {}
            other => data.push(other),
        }
    }
    let source = if is_layered(oci) {
        layered(&field, oci, (bind, &data), places)?
    } else if bind {
        if let Some(unknown) = data.first() {
            return refuse(&field, format!("unknown option {unknown} of a bind mount"));
        }
        if options.strictatime || options.noatime {
            return refuse(&field, "a bind mount keeps the times of access as the host does");
        }
        let Some(path) = oci.source().clone() else { return refuse(&field, "a bind mount without a source") };
        MountSource::Bind { path, recursive }
    } else if oci.typ().as_deref() == Some("volume") {
        volume(&field, oci, &data, places.volumes)?
    } else {
        let kind = oci.typ().clone().unwrap_or_default();
        if !matches!(kind.as_str(), "proc" | "sysfs" | "tmpfs" | "ramfs" | "devpts" | "mqueue" | "cgroup2") {
            return refuse(&field, format!("file system type {kind:?} cannot be mounted in a user namespace"));
        }
        MountSource::New { kind, data: data.join(",") }
    };
    Ok(Mount { source, destination, options })
}

/// A tmpfs without a size of its own holds half of the machine's memory; the container may not use more than its limit.
fn bound_size(mount: &mut Mount, limit: u64) {
    let MountSource::New { kind, data } = &mut mount.source else { return };
    let sized = data.split(',').any(|word| word.starts_with("size=") || word.starts_with("nr_blocks="));
    if kind == "tmpfs" && !sized {
        let comma = if data.is_empty() { "" } else { "," };
        data.push_str(&format!("{comma}size={limit}"));
    }
}

/// What the engine has found the layers of. Those of a directory are that directory, as it was admitted.
fn layered(
    field: &str,
    oci: &OciMount,
    (bind, data): (bool, &[&str]),
    places: Places<'_>,
) -> Result<MountSource, SealError> {
    let is_image = oci.typ().as_deref() == Some("image");
    // Policies were shown one or the other.
    if bind == is_image {
        return refuse(field, "an overlay is a bind mount, and an image is none");
    }
    if let Some(unknown) = data.iter().find(|word| !(is_image && word.starts_with("id="))) {
        return refuse(field, format!("unknown option {unknown} of a mount that is made of layers"));
    }
    let found = places.layered.iter().position(|(destination, _)| Path::new(destination) == oci.destination());
    let Some((index, (_, layers))) = found.and_then(|at| Some((at, places.layered.get(at)?))) else {
        return refuse(field, "its layers are not known");
    };
    let (Rootfs::Overlay { lowers } | Rootfs::FuseOverlay { lowers, .. }) = layers else {
        return refuse(field, "a directory has no layers");
    };
    if !is_image && (lowers.first() != oci.source().as_ref() || lowers.len() != 1) {
        return refuse(field, "its layers are not what was admitted");
    }
    Ok(MountSource::Layered { at: places.container.join(OVERLAYS).join(index.to_string()).join("merged") })
}

/// A volume by its name, which must not lead anywhere else.
fn volume(field: &str, oci: &OciMount, data: &[&str], volumes: &Path) -> Result<MountSource, SealError> {
    let name = oci.source().as_deref().and_then(Path::to_str).unwrap_or_default();
    if name.is_empty() || name.starts_with('.') || name.contains(['/', '\0']) {
        return refuse(field, format!("{name:?} is not the name of a volume"));
    }
    let mut subpath = String::new();
    for word in data {
        match word.strip_prefix("subpath=") {
            Some(path) => path.clone_into(&mut subpath),
            None if *word == "anonymous" => {}
            None => return refuse(field, format!("unknown option {word} of a volume")),
        }
    }
    Ok(MountSource::Volume { path: volumes.join(name), subpath })
}

/// Sorted, so that the same configuration always seals to the same bytes.
fn sysctls(linux: &Linux) -> Vec<(String, String)> {
    let mut all: Vec<_> = linux.sysctl().iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect();
    all.sort();
    all
}

fn limits(linux: &Linux, bounding: u64) -> Result<Limits, SealError> {
    let Some(resources) = linux.resources() else { return Ok(Limits::default()) };
    absent("/linux/resources/unified", resources.unified().as_ref())?;
    absent("/linux/resources/rdma", resources.rdma().as_ref())?;
    absent("/linux/resources/hugepageLimits", resources.hugepage_limits().as_ref())?;
    absent("/linux/resources/network", resources.network().as_ref())?;
    limits::from_resources(resources, bounding).or_else(|(field, why)| refuse(field, why))
}

fn process(parts: &SpecParts, oci: &OciProcess, preserved: u32) -> Result<Process, SealError> {
    let user = oci.user();
    let sets = oci.capabilities().as_ref();
    Ok(Process {
        args: oci.args().clone().unwrap_or_default(),
        env: oci.env().clone().unwrap_or_default(),
        cwd: oci.cwd().to_string_lossy().into_owned(),
        uid: user.uid(),
        gid: user.gid(),
        groups: user.additional_gids().clone().unwrap_or_default(),
        keep_groups: keeps_groups(&parts.oci),
        personality: personality(parts)?,
        umask: user.umask().unwrap_or(0o022),
        terminal: oci.terminal().unwrap_or(false),
        interactive: parts.interactive,
        no_new_privs: oci.no_new_privileges().unwrap_or(false),
        capabilities: CapabilitySets {
            bounding: mask(sets.and_then(|s| s.bounding().as_ref())),
            effective: mask(sets.and_then(|s| s.effective().as_ref())),
            permitted: mask(sets.and_then(|s| s.permitted().as_ref())),
            inheritable: mask(sets.and_then(|s| s.inheritable().as_ref())),
            ambient: mask(sets.and_then(|s| s.ambient().as_ref())),
        },
        rlimits: oci.rlimits().as_deref().unwrap_or_default().iter().map(rlimit).collect(),
        oom_score_adj: oci.oom_score_adj(),
        preserved,
    })
}

/// Whether the configuration says that the caller's groups are kept.
#[must_use]
pub fn keeps_groups(oci: &oci_spec::runtime::Spec) -> bool {
    oci.annotations().as_ref().and_then(|all| all.get(KEEP_GROUPS)).is_some_and(|value| value == "1")
}

/// The kernel's number of the execution domain (linux/personality.h).
fn personality(parts: &SpecParts) -> Result<Option<u32>, SealError> {
    let Some(wanted) = parts.oci.linux().as_ref().and_then(|l| l.personality().as_ref()) else { return Ok(None) };
    if wanted.flags().as_ref().is_some_and(|flags| !flags.is_empty()) {
        return refuse("/linux/personality/flags", "are not supported");
    }
    Ok(Some(match wanted.domain() {
        LinuxPersonalityDomain::PerLinux => 0,
        LinuxPersonalityDomain::PerLinux32 => 8,
    }))
}

fn mask(set: Option<&Capabilities>) -> u64 {
    set.into_iter().flatten().fold(0, |mask, capability| mask | 1 << number(*capability))
}

/// The bounding set of a configuration: what its processes can have at most.
#[must_use]
pub fn bounding(spec: &ContainerSpec) -> u64 {
    let sets = spec.parts().oci.process().as_ref().and_then(|process| process.capabilities().as_ref());
    mask(sets.and_then(|sets| sets.bounding().as_ref()))
}

fn rlimit(oci: &oci_spec::runtime::PosixRlimit) -> Rlimit {
    // Numbers of asm-generic/resource.h, which every architecture rlrun builds for uses.
    let resource = match oci.typ() {
        PosixRlimitType::RlimitCpu => 0,
        PosixRlimitType::RlimitFsize => 1,
        PosixRlimitType::RlimitData => 2,
        PosixRlimitType::RlimitStack => 3,
        PosixRlimitType::RlimitCore => 4,
        PosixRlimitType::RlimitRss => 5,
        PosixRlimitType::RlimitNproc => 6,
        PosixRlimitType::RlimitNofile => 7,
        PosixRlimitType::RlimitMemlock => 8,
        PosixRlimitType::RlimitAs => 9,
        PosixRlimitType::RlimitLocks => 10,
        PosixRlimitType::RlimitSigpending => 11,
        PosixRlimitType::RlimitMsgqueue => 12,
        PosixRlimitType::RlimitNice => 13,
        PosixRlimitType::RlimitRtprio => 14,
        PosixRlimitType::RlimitRttime => 15,
    };
    Rlimit { resource, soft: oci.soft(), hard: oci.hard() }
}

/// The kernel's number of a capability (linux/capability.h).
#[must_use]
pub fn number(capability: Capability) -> u32 {
    match capability {
        Capability::Chown => 0,
        Capability::DacOverride => 1,
        Capability::DacReadSearch => 2,
        Capability::Fowner => 3,
        Capability::Fsetid => 4,
        Capability::Kill => 5,
        Capability::Setgid => 6,
        Capability::Setuid => 7,
        Capability::Setpcap => 8,
        Capability::LinuxImmutable => 9,
        Capability::NetBindService => 10,
        Capability::NetBroadcast => 11,
        Capability::NetAdmin => 12,
        Capability::NetRaw => 13,
        Capability::IpcLock => 14,
        Capability::IpcOwner => 15,
        Capability::SysModule => 16,
        Capability::SysRawio => 17,
        Capability::SysChroot => 18,
        Capability::SysPtrace => 19,
        Capability::SysPacct => 20,
        Capability::SysAdmin => 21,
        Capability::SysBoot => 22,
        Capability::SysNice => 23,
        Capability::SysResource => 24,
        Capability::SysTime => 25,
        Capability::SysTtyConfig => 26,
        Capability::Mknod => 27,
        Capability::Lease => 28,
        Capability::AuditWrite => 29,
        Capability::AuditControl => 30,
        Capability::Setfcap => 31,
        Capability::MacOverride => 32,
        Capability::MacAdmin => 33,
        Capability::Syslog => 34,
        Capability::WakeAlarm => 35,
        Capability::BlockSuspend => 36,
        Capability::AuditRead => 37,
        Capability::Perfmon => 38,
        Capability::Bpf => 39,
        Capability::CheckpointRestore => 40,
    }
}
