//! A tightening put onto a configuration.

use super::PortName;
use super::egress::Egress;
use super::tightening::{MountFlag, Tightening, capability_name, normal_path};
use crate::container::{NetworkMode, PortMapping, SpecParts};
use crate::control::{Control, Enforced, Level};
use oci_spec::runtime::{
    Capabilities, Linux, LinuxCapabilities, LinuxCpu, LinuxMemory, LinuxNamespace, LinuxNamespaceType, LinuxPids,
    LinuxResources, Mount, PosixRlimit, PosixRlimitBuilder, PosixRlimitType, Process,
};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

/// The period of a CPU quota when the configuration names none, the kernel's default.
const DEFAULT_CPU_PERIOD: u64 = 100_000;

/// Why this tightening cannot be put onto this configuration; the policy that asked for it denies.
///
/// # Errors
/// In words for the policy's author.
pub(crate) fn applicable(t: &Tightening, parts: &SpecParts) -> Result<(), String> {
    if t.egress.is_some() && !t.no_network && parts.network == NetworkMode::Host {
        return Err("egress-only: the host's network cannot be filtered; deny it, or say no-network".to_owned());
    }
    let mounts = parts.oci.mounts().as_deref().unwrap_or_default();
    for removed in &t.removed_mounts {
        if removed == "/" && parts.oci.root().as_ref().is_some_and(|root| root.path().is_absolute()) {
            return Err("remove-mount: / is the root file system; deny it".to_owned());
        }
        if !mounts.iter().any(|m| destination(m) == *removed) {
            continue;
        }
        // A mount on top of a bind mount hides a part of the host; taking it away would show that part.
        let under = mounts
            .iter()
            .find(|m| is_bind(m) && !t.removed_mounts.contains(&destination(m)) && is_below(removed, &destination(m)));
        if let Some(under) = under {
            return Err(format!("remove-mount: {removed} covers a part of {}: remove that too", destination(under)));
        }
    }
    if let Some(egress) = &parts.egress {
        Egress::parse(egress)?;
    }
    Ok(())
}

/// Every change is a step towards stricter; `looser` checks that again from the outside.
///
/// # Errors
/// When the configuration cannot hold the result; nothing is admitted then.
pub(crate) fn apply(t: &Tightening, parts: &mut SpecParts) -> Result<(), String> {
    apply_network(t, parts);
    parts.seccomp_overlay = parts.seccomp_overlay.meet(&t.seccomp);
    if t.read_only_rootfs {
        let mut root = parts.oci.root().clone().unwrap_or_default();
        root.set_readonly(Some(true));
        parts.oci.set_root(Some(root));
    }
    if let Some(process) = parts.oci.process_mut() {
        apply_process(t, process)?;
    }
    if let Some(mounts) = parts.oci.mounts_mut() {
        apply_mounts(t, mounts);
    }
    if let Some(linux) = parts.oci.linux_mut() {
        apply_paths_and_devices(t, linux);
        apply_resources(t, linux);
    }
    let kept: BTreeSet<String> =
        parts.oci.mounts().iter().flatten().map(|m| m.destination().to_string_lossy().into_owned()).collect();
    parts.resolved_sources.retain(|(destination, _)| kept.contains(destination));
    apply_controls(t, parts);
    Ok(())
}

/// The address of the same family that only this host reaches.
pub(crate) fn loopback_of(address: IpAddr) -> IpAddr {
    match address {
        address if address.is_loopback() => address,
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    }
}

fn apply_ports(t: &Tightening, ports: &mut Vec<PortMapping>) {
    if t.withheld_ports.is_empty() && t.loopback_ports.is_empty() {
        return;
    }
    ports.retain(|port| !t.withheld_ports.contains(&PortName::from(port)));
    for port in ports.iter_mut().filter(|port| t.loopback_ports.contains(&PortName::from(&**port))) {
        port.host_ip = loopback_of(port.host_ip);
    }
    // Published on two addresses, it is now on one.
    let mut seen = BTreeSet::new();
    ports.retain(|port| seen.insert((PortName::from(port), port.host_ip)));
}

fn apply_network(t: &Tightening, parts: &mut SpecParts) {
    apply_ports(t, &mut parts.ports);
    if let Some(egress) = &t.egress {
        // `applicable` has parsed the configuration's own rules; nothing reachable is the safe reading of bad ones.
        let merged = parts
            .egress
            .as_deref()
            .map_or_else(|| egress.clone(), |own| Egress::parse(own).map(|own| own.meet(egress)).unwrap_or_default());
        parts.egress = Some(merged.rules());
    }
    if !t.no_network {
        return;
    }
    parts.network = NetworkMode::None;
    parts.ports.clear();
    if let Some(linux) = parts.oci.linux_mut() {
        let mut namespaces = linux.namespaces().clone().unwrap_or_default();
        // Joining another network namespace by path would be a network too.
        namespaces.retain(|n| n.typ() != LinuxNamespaceType::Network || n.path().is_none());
        if !namespaces.iter().any(|n| n.typ() == LinuxNamespaceType::Network) {
            let mut own = LinuxNamespace::default();
            own.set_typ(LinuxNamespaceType::Network);
            namespaces.push(own);
        }
        linux.set_namespaces(Some(namespaces));
    }
}

fn apply_process(t: &Tightening, process: &mut Process) -> Result<(), String> {
    if t.no_new_privileges {
        process.set_no_new_privileges(Some(true));
    }
    if let Some(mut capabilities) = process.capabilities().clone() {
        apply_capabilities(t, &mut capabilities);
        process.set_capabilities(Some(capabilities));
    }
    if let Some(env) = process.env_mut() {
        env.retain(|entry| !t.unset_env.contains(entry.split('=').next().unwrap_or_default()));
    }
    if let Some(nofile) = t.limits.nofile {
        let rlimits = lower_nofile(process.rlimits().as_deref().unwrap_or_default(), u64::from(nofile))?;
        process.set_rlimits(Some(rlimits));
    }
    Ok(())
}

fn apply_capabilities(t: &Tightening, sets: &mut LinuxCapabilities) {
    let stays = |name: &String| {
        !t.drop_capabilities.contains(name) && t.keep_capabilities.as_ref().is_none_or(|kept| kept.contains(name))
    };
    let filtered = |set: &Option<Capabilities>| {
        set.as_ref().map(|set| set.iter().copied().filter(|c| stays(&capability_name(*c))).collect::<Capabilities>())
    };
    sets.set_bounding(filtered(sets.bounding()));
    sets.set_effective(filtered(sets.effective()));
    sets.set_permitted(filtered(sets.permitted()));
    sets.set_inheritable(filtered(sets.inheritable()));
    sets.set_ambient(filtered(sets.ambient()));
}

fn lower_nofile(rlimits: &[PosixRlimit], bound: u64) -> Result<Vec<PosixRlimit>, String> {
    let limit = |hard: u64, soft: u64| {
        let builder = PosixRlimitBuilder::default().typ(PosixRlimitType::RlimitNofile).hard(hard).soft(soft);
        builder.build().map_err(|e| e.to_string())
    };
    let own = |l: &PosixRlimit| l.typ() == PosixRlimitType::RlimitNofile;
    if !rlimits.iter().any(own) {
        return rlimits.iter().copied().map(Ok).chain([limit(bound, bound)]).collect();
    }
    let lowered = |l: &PosixRlimit| {
        if own(l) { limit(l.hard().min(bound), l.soft().min(l.hard()).min(bound)) } else { Ok(*l) }
    };
    rlimits.iter().map(lowered).collect()
}

fn apply_mounts(t: &Tightening, mounts: &mut Vec<Mount>) {
    mounts.retain(|m| {
        let destination = destination(m);
        // A rootless engine gives a device as a bind mount.
        let is_device = is_bind(m) && t.removed_devices.contains(&destination);
        !is_device && !t.removed_mounts.contains(&destination)
    });
    for mount in mounts {
        if let Some(flags) = t.mounts.get(&destination(mount)) {
            let options = with_flags(mount.options().as_deref().unwrap_or_default(), flags);
            mount.set_options(Some(options));
        }
    }
}

/// The flags come last and in one order, however many policies asked for them in whichever order.
fn with_flags(options: &[String], flags: &BTreeSet<MountFlag>) -> Vec<String> {
    let set: Vec<MountFlag> =
        MountFlag::ALL.into_iter().filter(|f| flags.contains(f) || has_flag(options, *f)).collect();
    let settled = |option: &String| set.iter().any(|f| option == f.words().0 || option == f.words().1);
    let mut result: Vec<String> = options.iter().filter(|o| !settled(o)).cloned().collect();
    result.extend(set.iter().map(|f| f.words().0.to_owned()));
    result
}

/// The last of two contradicting options wins (mount(8)).
pub(crate) fn has_flag(options: &[String], flag: MountFlag) -> bool {
    let (set, clear) = flag.words();
    options.iter().rfind(|o| *o == set || *o == clear).is_some_and(|o| o == set)
}

fn apply_paths_and_devices(t: &Tightening, linux: &mut Linux) {
    linux.set_masked_paths(extended(linux.masked_paths(), &t.masked_paths));
    linux.set_readonly_paths(extended(linux.readonly_paths(), &t.read_only_paths));
    let Some(devices) = linux.devices().clone() else { return };
    let (gone, stay): (Vec<_>, Vec<_>) =
        devices.into_iter().partition(|d| t.removed_devices.contains(&normal_or_raw(d.path())));
    linux.set_devices(Some(stay));
    let rules = linux.resources_mut().as_mut().and_then(|r| r.devices_mut().as_mut());
    if let Some(rules) = rules {
        // Without a node the cgroup rule opens nothing, but a privileged process could make the node itself.
        rules.retain(|rule| {
            !rule.allow() || !gone.iter().any(|d| rule.major() == Some(d.major()) && rule.minor() == Some(d.minor()))
        });
    }
}

fn extended(list: &Option<Vec<String>>, more: &BTreeSet<String>) -> Option<Vec<String>> {
    if more.is_empty() {
        return list.clone();
    }
    let mut result = list.clone().unwrap_or_default();
    let missing: Vec<String> = more.iter().filter(|p| !result.contains(p)).cloned().collect();
    result.extend(missing);
    // One order, however many policies asked: the lists are sets.
    result.sort();
    Some(result)
}

fn apply_resources(t: &Tightening, linux: &mut Linux) {
    let limits = t.limits;
    if limits.memory_bytes.is_none() && limits.pids.is_none() && limits.cpu_millis.is_none() {
        return;
    }
    let mut resources: LinuxResources = linux.resources().clone().unwrap_or_default();
    if let Some(bound) = limits.memory_bytes.and_then(|b| i64::try_from(b).ok()) {
        let mut memory: LinuxMemory = (*resources.memory()).unwrap_or_default();
        memory.set_limit(Some(lower(memory.limit(), bound)));
        resources.set_memory(Some(memory));
    }
    if let Some(bound) = limits.pids {
        let mut pids = LinuxPids::default();
        pids.set_limit(lower(resources.pids().as_ref().map(LinuxPids::limit), i64::from(bound)));
        resources.set_pids(Some(pids));
    }
    if let Some(millis) = limits.cpu_millis {
        let mut cpu: LinuxCpu = resources.cpu().clone().unwrap_or_default();
        let period = cpu.period().filter(|p| *p > 0).unwrap_or(DEFAULT_CPU_PERIOD);
        let bound = i64::try_from(u128::from(millis) * u128::from(period) / 1000).unwrap_or(i64::MAX);
        cpu.set_period(Some(period));
        cpu.set_quota(Some(lower(cpu.quota(), bound)));
        resources.set_cpu(Some(cpu));
    }
    linux.set_resources(Some(resources));
}

/// To a cgroup zero and below mean no limit.
fn lower(current: Option<i64>, bound: i64) -> i64 {
    current.filter(|c| *c > 0).map_or(bound, |c| c.min(bound))
}

/// A limit that a policy imposes is held by what the engine has said it would be; one of which it said nothing is not
/// enforced, and says so instead of pretending.
fn apply_controls(t: &Tightening, parts: &mut SpecParts) {
    let resources = parts.oci.linux().as_ref().and_then(|l| l.resources().clone()).unwrap_or_default();
    let mut wanted: Vec<(&str, String)> = Vec::new();
    if t.limits.memory_bytes.is_some() {
        let limit = resources.memory().as_ref().and_then(LinuxMemory::limit).unwrap_or_default();
        wanted.push(("memory-limit", limit.to_string()));
    }
    if t.limits.pids.is_some() {
        wanted.push(("pids-limit", resources.pids().as_ref().map(LinuxPids::limit).unwrap_or_default().to_string()));
    }
    if t.limits.cpu_millis.is_some() {
        let (quota, period) = resources.cpu().as_ref().map_or((None, None), |cpu| (cpu.quota(), cpu.period()));
        wanted.push(("cpu-limit", format!("{}/{} us", quota.unwrap_or_default(), period.unwrap_or_default())));
    }
    let planned = parts.controls.len();
    for (name, requested) in wanted {
        let by = parts.imposable.iter().find(|control| control.name == name).cloned();
        let known = by.is_some();
        let imposed = Control { requested, ..by.unwrap_or_else(|| unplanned(name)) };
        match parts.controls.iter_mut().find(|c| c.name == name) {
            Some(control) if known || control.requested == UNLIMITED => *control = imposed,
            Some(control) => control.requested = imposed.requested,
            None => parts.controls.push(imposed),
        }
    }
    if parts.controls.len() > planned {
        // One order, whichever policy asked first.
        parts.controls.sort_by(|a, b| a.name.cmp(&b.name));
    }
}

/// What a control of a limit says where there is none.
const UNLIMITED: &str = "unlimited";

fn unplanned(name: &str) -> Control {
    Control {
        name: name.to_owned(),
        requested: String::new(),
        mechanism: "none".to_owned(),
        enforced: Enforced::No,
        level: Level::Prefer,
        why: "a policy asked for it after the mechanisms were chosen".to_owned(),
    }
}

/// The destination in the spelling that policies use.
pub(crate) fn destination(mount: &Mount) -> String {
    normal_or_raw(mount.destination())
}

fn normal_or_raw(path: &Path) -> String {
    let text = path.to_string_lossy();
    normal_path(&text).unwrap_or_else(|_| text.into_owned())
}

pub(crate) fn is_bind(mount: &Mount) -> bool {
    mount.typ().as_deref() == Some("bind") || mount.options().iter().flatten().any(|o| o == "bind" || o == "rbind")
}

fn is_below(path: &str, ancestor: &str) -> bool {
    ancestor == "/" || path.strip_prefix(ancestor).is_some_and(|rest| rest.starts_with('/'))
}
