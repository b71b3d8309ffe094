//! The last word before a configuration is admitted: is it anywhere looser than the request?
//!
//! Written without looking at how tightenings are applied, so that a defect there is caught here: what may change
//! is compared by its own order, and everything else has to be equal.

use super::apply::has_flag;
use super::egress::Egress;
use super::tightening::MountFlag;
use crate::container::{EgressRule, NetworkMode, PortMapping, SpecParts};
use oci_spec::runtime::{
    Capabilities, LinuxCapabilities, LinuxNamespace, LinuxNamespaceType, LinuxResources, Mount, PosixRlimit,
    PosixRlimitType, Spec,
};

/// The first field in which `after` allows more than `before`, or differs where no policy may change anything.
pub(crate) fn looser(before: &SpecParts, after: &SpecParts) -> Option<&'static str> {
    let checks: [(&'static str, bool); 15] = [
        ("/network", network_within(after, before)),
        ("/ports", ports_within(&after.ports, &before.ports)),
        ("/egress", egress_within(after.egress.as_deref(), before.egress.as_deref())),
        ("/seccomp-overlay", after.seccomp_overlay.within(&before.seccomp_overlay)),
        ("/oci/root/readonly", !readonly(&before.oci) || readonly(&after.oci)),
        ("/oci/process/noNewPrivileges", !no_new_privileges(&before.oci) || no_new_privileges(&after.oci)),
        ("/oci/process/capabilities", capabilities_within(capabilities(&after.oci), capabilities(&before.oci))),
        ("/oci/process/env", is_subsequence(env(&after.oci), env(&before.oci), |a, b| a == b)),
        ("/oci/process/rlimits", nofile(&after.oci) <= nofile(&before.oci)),
        ("/oci/mounts", is_subsequence(mounts(&after.oci), mounts(&before.oci), mount_within)),
        ("/oci/linux/maskedPaths", contains_all(masked(&after.oci), masked(&before.oci))),
        ("/oci/linux/readonlyPaths", contains_all(read_only(&after.oci), read_only(&before.oci))),
        ("/oci/linux/devices", devices_within(&after.oci, &before.oci)),
        ("/oci/linux/resources", resources_within(resources(&after.oci), resources(&before.oci))),
        ("/", remainder(after) == remainder(before)),
    ];
    checks.into_iter().find(|(_, holds)| !holds).map(|(field, _)| field)
}

/// The same ports or fewer, at the same addresses or at this host's own.
fn ports_within(after: &[PortMapping], before: &[PortMapping]) -> bool {
    let narrowed = |own: &PortMapping, asked: &PortMapping| {
        let alone = PortMapping { host_ip: asked.host_ip, ..own.clone() };
        alone == *asked && own.host_ip.is_loopback() && own.host_ip.is_ipv4() == asked.host_ip.is_ipv4()
    };
    after.iter().all(|own| before.iter().any(|asked| own == asked || narrowed(own, asked)))
}

fn network_within(after: &SpecParts, before: &SpecParts) -> bool {
    let same = after.network == before.network && namespaces(&after.oci) == namespaces(&before.oci);
    let own = |n: &LinuxNamespace| n.typ() == LinuxNamespaceType::Network && n.path().is_none();
    let others = |spec: &Spec| -> Vec<LinuxNamespace> {
        namespaces(spec).iter().filter(|n| n.typ() != LinuxNamespaceType::Network).cloned().collect()
    };
    let cut_off = after.network == NetworkMode::None
        && after.ports.is_empty()
        && namespaces(&after.oci).iter().filter(|n| n.typ() == LinuxNamespaceType::Network).all(own)
        && namespaces(&after.oci).iter().any(own)
        && others(&after.oci) == others(&before.oci);
    same || cut_off
}

fn egress_within(after: Option<&[EgressRule]>, before: Option<&[EgressRule]>) -> bool {
    match (after, before) {
        (after, before) if after == before => true,
        (_, None) => true,
        (None, Some(_)) => false,
        (Some(after), Some(before)) => match (Egress::parse(after), Egress::parse(before)) {
            (Ok(after), Ok(before)) => after.within(&before),
            (Err(_), _) | (_, Err(_)) => false,
        },
    }
}

fn capabilities_within(after: Option<&LinuxCapabilities>, before: Option<&LinuxCapabilities>) -> bool {
    let (Some(after), Some(before)) = (after, before) else { return after == before };
    let within = |after: &Option<Capabilities>, before: &Option<Capabilities>| match (after, before) {
        (Some(after), Some(before)) => after.is_subset(before),
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
    };
    within(after.bounding(), before.bounding())
        && within(after.effective(), before.effective())
        && within(after.permitted(), before.permitted())
        && within(after.inheritable(), before.inheritable())
        && within(after.ambient(), before.ambient())
}

fn mount_within(after: &Mount, before: &Mount) -> bool {
    let flag_words = |o: &&String| MountFlag::ALL.iter().any(|f| *o == f.words().0 || *o == f.words().1);
    let options = |m: &Mount| m.options().clone().unwrap_or_default();
    let rest = |m: &Mount| -> Vec<String> { options(m).iter().filter(|o| !flag_words(o)).cloned().collect() };
    let mut after_plain = after.clone();
    after_plain.set_options(before.options().clone());
    after_plain == *before
        && rest(after) == rest(before)
        && MountFlag::ALL.iter().all(|f| !has_flag(&options(before), *f) || has_flag(&options(after), *f))
}

/// Whether `after` is `before` with elements left out, each remaining one related to its original.
fn is_subsequence<T>(after: &[T], before: &[T], related: impl Fn(&T, &T) -> bool) -> bool {
    let mut originals = before.iter();
    after.iter().all(|a| originals.any(|b| related(a, b)))
}

fn contains_all(after: &[String], before: &[String]) -> bool {
    before.iter().all(|p| after.contains(p))
}

fn devices_within(after: &Spec, before: &Spec) -> bool {
    let devices = |spec: &Spec| spec.linux().as_ref().and_then(|l| l.devices().clone()).unwrap_or_default();
    is_subsequence(&devices(after), &devices(before), |a, b| a == b)
}

fn resources_within(after: Option<&LinuxResources>, before: Option<&LinuxResources>) -> bool {
    let none = LinuxResources::default();
    let (after, before) = (after.unwrap_or(&none), before.unwrap_or(&none));
    let memory = |r: &LinuxResources| bound(r.memory().as_ref().and_then(|m| m.limit()));
    let pids = |r: &LinuxResources| bound(r.pids().as_ref().map(|p| p.limit()));
    let allowing =
        |r: &LinuxResources| -> Vec<_> { r.devices().iter().flatten().filter(|d| d.allow()).cloned().collect() };
    let denying =
        |r: &LinuxResources| -> Vec<_> { r.devices().iter().flatten().filter(|d| !d.allow()).cloned().collect() };
    memory(after) <= memory(before)
        && pids(after) <= pids(before)
        && cpu_share(after) <= cpu_share(before)
        && is_subsequence(&allowing(after), &allowing(before), |a, b| a == b)
        && denying(after) == denying(before)
}

/// To a cgroup zero and below mean no limit.
fn bound(limit: Option<i64>) -> i64 {
    limit.filter(|l| *l > 0).unwrap_or(i64::MAX)
}

/// Micro-CPUs; the period may be filled in, so quotas alone do not compare.
fn cpu_share(resources: &LinuxResources) -> u128 {
    let Some(cpu) = resources.cpu() else { return u128::MAX };
    let quota = cpu.quota().filter(|q| *q > 0).and_then(|q| u128::try_from(q).ok());
    let period = u128::from(cpu.period().filter(|p| *p > 0).unwrap_or(100_000));
    quota.map_or(u128::MAX, |q| q * 1_000_000 / period)
}

/// The configuration with everything blanked that a policy may change and that is compared above.
fn remainder(parts: &SpecParts) -> SpecParts {
    let mut parts = parts.clone();
    parts.network = NetworkMode::None;
    parts.ports.clear();
    parts.egress = None;
    parts.seccomp_overlay = super::SeccompOverlay::default();
    parts.controls.clear();
    parts.resolved_sources.clear();
    parts.oci.set_mounts(None);
    if let Some(mut root) = parts.oci.root().clone() {
        root.set_readonly(None);
        parts.oci.set_root((root.path() != oci_spec::runtime::Root::default().path()).then_some(root));
    }
    if let Some(process) = parts.oci.process_mut() {
        process.set_no_new_privileges(None).set_capabilities(None).set_env(None);
        let mut rlimits: Vec<PosixRlimit> = process.rlimits().clone().unwrap_or_default();
        rlimits.retain(|l| l.typ() != PosixRlimitType::RlimitNofile);
        process.set_rlimits(Some(rlimits));
    }
    if let Some(linux) = parts.oci.linux_mut() {
        linux.set_masked_paths(None).set_readonly_paths(None).set_devices(None).set_namespaces(None);
        let mut resources = linux.resources().clone().unwrap_or_default();
        let swap_and_such = resources.memory().as_ref().map(|m| {
            let mut m = *m;
            m.set_limit(None);
            m
        });
        let mut cpu = resources.cpu().clone().unwrap_or_default();
        cpu.set_quota(None).set_period(None);
        resources
            .set_memory(Some(swap_and_such.unwrap_or_default()))
            .set_pids(None)
            .set_cpu(Some(cpu))
            .set_devices(None);
        linux.set_resources(Some(resources));
    }
    parts
}

fn readonly(spec: &Spec) -> bool {
    spec.root().as_ref().and_then(|r| r.readonly()).unwrap_or(false)
}

fn no_new_privileges(spec: &Spec) -> bool {
    spec.process().as_ref().and_then(|p| p.no_new_privileges()).unwrap_or(false)
}

fn capabilities(spec: &Spec) -> Option<&LinuxCapabilities> {
    spec.process().as_ref().and_then(|p| p.capabilities().as_ref())
}

fn env(spec: &Spec) -> &[String] {
    spec.process().as_ref().and_then(|p| p.env().as_deref()).unwrap_or_default()
}

/// The loosest soft and hard limit on open files.
fn nofile(spec: &Spec) -> (u64, u64) {
    let limits = spec.process().as_ref().and_then(|p| p.rlimits().as_deref()).unwrap_or_default();
    let own = limits.iter().filter(|l| l.typ() == PosixRlimitType::RlimitNofile);
    own.map(|l| (l.hard(), l.soft())).max().unwrap_or((u64::MAX, u64::MAX))
}

fn mounts(spec: &Spec) -> &[Mount] {
    spec.mounts().as_deref().unwrap_or_default()
}

fn namespaces(spec: &Spec) -> &[LinuxNamespace] {
    spec.linux().as_ref().and_then(|l| l.namespaces().as_deref()).unwrap_or_default()
}

fn masked(spec: &Spec) -> &[String] {
    spec.linux().as_ref().and_then(|l| l.masked_paths().as_deref()).unwrap_or_default()
}

fn read_only(spec: &Spec) -> &[String] {
    spec.linux().as_ref().and_then(|l| l.readonly_paths().as_deref()).unwrap_or_default()
}

fn resources(spec: &Spec) -> Option<&LinuxResources> {
    spec.linux().as_ref().and_then(|l| l.resources().as_ref())
}

#[cfg(test)]
mod tests {
    use super::super::{apply::destination, fixture};
    use super::*;

    fn changed(change: impl FnOnce(&mut SpecParts)) -> Option<&'static str> {
        let before = fixture::parts();
        let mut after = before.clone();
        change(&mut after);
        looser(&before, &after)
    }

    #[test]
    fn the_same_is_not_looser() {
        assert_eq!(changed(|_| ()), None);
    }

    #[test]
    fn every_loosening_is_seen() {
        type Change = Box<dyn FnOnce(&mut SpecParts)>;
        let cases: Vec<(&str, Change)> = vec![
            ("/network", Box::new(|p| p.network = NetworkMode::Host)),
            ("/ports", Box::new(|p| p.ports[0].host_port = 81)),
            (
                "/oci/process/noNewPrivileges",
                Box::new(|p| {
                    p.oci.process_mut().as_mut().unwrap().set_no_new_privileges(Some(false));
                }),
            ),
            (
                "/oci/process/capabilities",
                Box::new(|p| {
                    let process = p.oci.process_mut().as_mut().unwrap();
                    let more = [oci_spec::runtime::Capability::SysAdmin].into_iter().collect::<Capabilities>();
                    let mut sets = process.capabilities().clone().unwrap();
                    sets.set_ambient(Some(more));
                    process.set_capabilities(Some(sets));
                }),
            ),
            (
                "/oci/process/env",
                Box::new(|p| {
                    p.oci.process_mut().as_mut().unwrap().env_mut().as_mut().unwrap().push("X=1".into());
                }),
            ),
            (
                "/oci/mounts",
                Box::new(|p| {
                    p.oci.mounts_mut().as_mut().unwrap()[1].set_options(Some(vec!["rbind".into(), "rw".into()]));
                }),
            ),
            (
                "/oci/mounts",
                Box::new(|p| {
                    p.oci.mounts_mut().as_mut().unwrap()[1].set_source(Some("/".into()));
                }),
            ),
            (
                "/oci/mounts",
                Box::new(|p| {
                    let mounts = p.oci.mounts_mut().as_mut().unwrap();
                    let copy = mounts[1].clone();
                    mounts.push(copy);
                }),
            ),
            (
                "/oci/linux/maskedPaths",
                Box::new(|p| {
                    p.oci.linux_mut().as_mut().unwrap().set_masked_paths(None);
                }),
            ),
            (
                "/oci/linux/resources",
                Box::new(|p| {
                    p.oci.linux_mut().as_mut().unwrap().set_resources(None);
                }),
            ),
            (
                "/",
                Box::new(|p| {
                    p.oci.set_hostname(Some("other".into()));
                }),
            ),
            (
                "/",
                Box::new(|p| {
                    p.oci.linux_mut().as_mut().unwrap().set_seccomp(None);
                }),
            ),
            ("/", Box::new(|p| p.privileged = true)),
        ];
        for (field, change) in cases {
            assert_eq!(changed(change), Some(field));
        }
    }

    #[test]
    fn destinations_compare_in_one_spelling() {
        let mut mount = fixture::parts().oci.mounts().as_ref().unwrap()[1].clone();
        mount.set_destination("/data//./".into());
        assert_eq!(destination(&mount), "/data");
    }
}
