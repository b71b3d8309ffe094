//! The restrictions of one policy in normal form, an element of a lattice; the merge of several is their meet.
//!
//! A restriction is a property of the result ("no writable mount at /data"), so one about something that is not
//! there holds already. What is not a tightening has no representation here and is refused on the way in.

use super::egress::Egress;
use super::seccomp::SeccompOverlay;
use super::{Limits, PortName, Restriction};
use oci_spec::runtime::Capability;
use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

/// A flag that makes a mount stricter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum MountFlag {
    ReadOnly,
    NoSuid,
    NoDev,
    NoExec,
}

impl MountFlag {
    pub(crate) const ALL: [MountFlag; 4] =
        [MountFlag::ReadOnly, MountFlag::NoSuid, MountFlag::NoDev, MountFlag::NoExec];

    /// The word that sets it, the word that clears it (mount(8)).
    pub(crate) fn words(self) -> (&'static str, &'static str) {
        match self {
            MountFlag::ReadOnly => ("ro", "rw"),
            MountFlag::NoSuid => ("nosuid", "suid"),
            MountFlag::NoDev => ("nodev", "dev"),
            MountFlag::NoExec => ("noexec", "exec"),
        }
    }

    fn parse(word: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|f| f.words().0 == word);
        known.ok_or_else(|| format!("`{word}` does not tighten a mount: ro, nosuid, nodev or noexec"))
    }
}

/// Capabilities by name, so that sets are ordered and print alike everywhere.
pub(crate) type CapabilityNames = BTreeSet<String>;

/// `CAP_SYS_ADMIN`, as policies write it.
pub(crate) fn capability_name(capability: Capability) -> String {
    format!("CAP_{capability}")
}

fn capability_names(names: &[String]) -> Result<CapabilityNames, String> {
    for name in names {
        name.strip_prefix("CAP_")
            .and_then(|short| Capability::from_str(short).ok())
            .ok_or_else(|| format!("`{name}` is not a capability; write CAP_NET_RAW"))?;
    }
    Ok(names.iter().cloned().collect())
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Tightening {
    pub(crate) drop_capabilities: CapabilityNames,
    pub(crate) keep_capabilities: Option<CapabilityNames>,
    pub(crate) no_new_privileges: bool,
    pub(crate) read_only_rootfs: bool,
    pub(crate) mounts: BTreeMap<String, BTreeSet<MountFlag>>,
    pub(crate) removed_mounts: BTreeSet<String>,
    pub(crate) masked_paths: BTreeSet<String>,
    pub(crate) read_only_paths: BTreeSet<String>,
    pub(crate) removed_devices: BTreeSet<String>,
    pub(crate) seccomp: SeccompOverlay,
    pub(crate) egress: Option<Egress>,
    pub(crate) no_network: bool,
    pub(crate) limits: Limits,
    pub(crate) unset_env: BTreeSet<String>,
    pub(crate) digests: BTreeSet<String>,
    pub(crate) withheld_ports: BTreeSet<PortName>,
    pub(crate) loopback_ports: BTreeSet<PortName>,
}

impl Tightening {
    /// The meet of all restrictions of one answer.
    ///
    /// # Errors
    /// The restriction that is not a tightening, and why.
    pub(crate) fn parse(restrictions: &[Restriction]) -> Result<Self, String> {
        let single = |restriction| Self::single(restriction).map_err(|why| format!("{}: {why}", name(restriction)));
        let mut parts = restrictions.iter().map(single).collect::<Result<Vec<_>, String>>()?;
        if !Egress::can_meet(parts.iter().filter_map(|part| part.egress.as_ref())) {
            return Err("egress-only: more rules at once than can be worked out".to_owned());
        }
        // In pairs: each part is copied a few times, not once for each that follows it.
        while parts.len() > 1 {
            let pair = |pair: &[Self]| match pair {
                [a, b] => a.meet(b),
                rest => rest.first().cloned().unwrap_or_default(),
            };
            parts = parts.chunks(2).map(pair).collect();
        }
        Ok(parts.pop().unwrap_or_default())
    }

    fn single(restriction: &Restriction) -> Result<Self, String> {
        let mut t = Tightening::default();
        match restriction {
            Restriction::DropCapabilities(names) => t.drop_capabilities = capability_names(names)?,
            Restriction::KeepOnlyCapabilities(names) => t.keep_capabilities = Some(capability_names(names)?),
            Restriction::NoNewPrivileges => t.no_new_privileges = true,
            Restriction::ReadOnlyRootfs => t.read_only_rootfs = true,
            Restriction::TightenMount { destination, add_options } => {
                let flags = add_options.iter().map(|o| MountFlag::parse(o)).collect::<Result<_, _>>()?;
                t.mounts.insert(normal_path(destination)?, flags);
            }
            Restriction::RemoveMount(path) => t.removed_mounts = one(normal_path(path)?),
            Restriction::MaskPath(path) => t.masked_paths = one(normal_path(path)?),
            Restriction::ReadOnlyPath(path) => t.read_only_paths = one(normal_path(path)?),
            Restriction::RemoveDevice(path) => t.removed_devices = one(normal_path(path)?),
            Restriction::SeccompDeny { syscalls, action, errno } => {
                t.seccomp = SeccompOverlay::deny(syscalls, *action, *errno)?;
            }
            Restriction::SeccompKeepOnly(syscalls) => t.seccomp = SeccompOverlay::keep_only(syscalls)?,
            Restriction::EgressOnly(rules) => t.egress = Some(Egress::of_policy(rules)?),
            Restriction::NoNetwork => t.no_network = true,
            Restriction::Limit(limits) => t.limits = checked_limits(*limits)?,
            Restriction::UnsetEnv(name) => t.unset_env = one(env_name(name)?),
            Restriction::RequireDigest(digest) => t.digests = one(checked_digest(digest)?),
            Restriction::WithholdPort(port) => t.withheld_ports = one(*port),
            Restriction::LoopbackPort(port) => t.loopback_ports = one(*port),
        }
        Ok(t)
    }

    /// The weakest tightening that is at least as strict as both.
    pub(crate) fn meet(&self, other: &Self) -> Self {
        let mut mounts = self.mounts.clone();
        for (destination, flags) in &other.mounts {
            mounts.entry(destination.clone()).or_default().extend(flags);
        }
        Tightening {
            drop_capabilities: union(&self.drop_capabilities, &other.drop_capabilities),
            keep_capabilities: both(&self.keep_capabilities, &other.keep_capabilities, |a, b| {
                a.intersection(b).cloned().collect()
            }),
            no_new_privileges: self.no_new_privileges || other.no_new_privileges,
            read_only_rootfs: self.read_only_rootfs || other.read_only_rootfs,
            mounts,
            removed_mounts: union(&self.removed_mounts, &other.removed_mounts),
            masked_paths: union(&self.masked_paths, &other.masked_paths),
            read_only_paths: union(&self.read_only_paths, &other.read_only_paths),
            removed_devices: union(&self.removed_devices, &other.removed_devices),
            seccomp: self.seccomp.meet(&other.seccomp),
            egress: both(&self.egress, &other.egress, Egress::meet),
            no_network: self.no_network || other.no_network,
            limits: Limits {
                memory_bytes: both(&self.limits.memory_bytes, &other.limits.memory_bytes, |a, b| *a.min(b)),
                pids: both(&self.limits.pids, &other.limits.pids, |a, b| *a.min(b)),
                cpu_millis: both(&self.limits.cpu_millis, &other.limits.cpu_millis, |a, b| *a.min(b)),
                nofile: both(&self.limits.nofile, &other.limits.nofile, |a, b| *a.min(b)),
            },
            unset_env: union(&self.unset_env, &other.unset_env),
            digests: union(&self.digests, &other.digests),
            withheld_ports: union(&self.withheld_ports, &other.withheld_ports),
            loopback_ports: union(&self.loopback_ports, &other.loopback_ports),
        }
    }
}

fn one<T: Ord>(value: T) -> BTreeSet<T> {
    BTreeSet::from([value])
}

fn union<T: Ord + Clone>(a: &BTreeSet<T>, b: &BTreeSet<T>) -> BTreeSet<T> {
    a.union(b).cloned().collect()
}

/// Meet where None is no bound at all.
fn both<T: Clone>(a: &Option<T>, b: &Option<T>, meet: impl Fn(&T, &T) -> T) -> Option<T> {
    match (a, b) {
        (None, x) | (x, None) => x.clone(),
        (Some(a), Some(b)) => Some(meet(a, b)),
    }
}

/// One spelling for a path, so that two policies which mean the same place say the same.
///
/// # Errors
/// When it is relative, the root itself, or holds `..` or a NUL byte.
pub(crate) fn normal_path(path: &str) -> Result<String, String> {
    if !path.starts_with('/') || path.contains('\0') {
        return Err(format!("`{path}` is not an absolute path"));
    }
    let parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty() && *p != ".").collect();
    if parts.contains(&"..") {
        return Err(format!("`{path}` holds `..`"));
    }
    if parts.is_empty() {
        return Err("`/` is the root file system, not a place in it".to_owned());
    }
    Ok(format!("/{}", parts.join("/")))
}

fn env_name(name: &str) -> Result<String, String> {
    if name.is_empty() || name.contains(['=', '\0']) {
        return Err(format!("`{name}` is not the name of a variable"));
    }
    Ok(name.to_owned())
}

fn checked_digest(digest: &str) -> Result<String, String> {
    let hex = digest.strip_prefix("sha256:").unwrap_or_default();
    if hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
        Ok(digest.to_owned())
    } else {
        Err(format!("`{digest}` is not a digest: sha256: and 64 hexadecimal digits"))
    }
}

/// Zero is refused everywhere: to a cgroup it is sometimes "nothing" and sometimes "no limit".
fn checked_limits(limits: Limits) -> Result<Limits, String> {
    if limits.memory_bytes.is_some_and(|m| m == 0 || i64::try_from(m).is_err()) {
        return Err("memory-bytes is out of range".to_owned());
    }
    // The kernel's smallest quota is 1 ms, of a period of 100 ms (kernel/sched/core.c, min_cfs_quota_period).
    if limits.cpu_millis.is_some_and(|c| c < 10) {
        return Err("cpu-millis below 10 cannot be enforced".to_owned());
    }
    if limits.pids == Some(0) || limits.nofile == Some(0) {
        return Err("a limit of 0 is no limit".to_owned());
    }
    Ok(limits)
}

/// The restriction's name in the ABI.
pub(crate) fn name(restriction: &Restriction) -> &'static str {
    match restriction {
        Restriction::DropCapabilities(_) => "drop-capabilities",
        Restriction::KeepOnlyCapabilities(_) => "keep-only-capabilities",
        Restriction::NoNewPrivileges => "no-new-privileges",
        Restriction::ReadOnlyRootfs => "read-only-rootfs",
        Restriction::TightenMount { .. } => "tighten-mount",
        Restriction::RemoveMount(_) => "remove-mount",
        Restriction::MaskPath(_) => "mask-path",
        Restriction::ReadOnlyPath(_) => "read-only-path",
        Restriction::RemoveDevice(_) => "remove-device",
        Restriction::SeccompDeny { .. } => "seccomp-deny",
        Restriction::SeccompKeepOnly(_) => "seccomp-keep-only",
        Restriction::EgressOnly(_) => "egress-only",
        Restriction::NoNetwork => "no-network",
        Restriction::Limit(_) => "limit",
        Restriction::UnsetEnv(_) => "unset-env",
        Restriction::RequireDigest(_) => "require-digest",
        Restriction::WithholdPort(_) => "withhold-port",
        Restriction::LoopbackPort(_) => "loopback-port",
    }
}
