//! The laws of the merge, over generated restrictions, and what `merge` refuses.

use super::apply::apply;
use super::looser::looser;
use super::tightening::{MountFlag, Tightening};
use super::*;
use crate::container::{ContainerSpec, EgressRule, NetworkMode, Protocol};
use proptest::prelude::*;

fn words(choices: &'static [&'static str]) -> impl Strategy<Value = Vec<String>> {
    proptest::sample::subsequence(choices, 1..=choices.len()).prop_map(|v| v.into_iter().map(str::to_owned).collect())
}

fn word(choices: &'static [&'static str]) -> impl Strategy<Value = String> {
    proptest::sample::select(choices).prop_map(str::to_owned)
}

fn egress_rule() -> impl Strategy<Value = EgressRule> {
    let cidr = word(&["0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "10.1.2.3", "192.168.0.0/24", "::/0", "fd00::/8"]);
    let ports = proptest::sample::subsequence(&[53u16, 80, 443][..], 0..3);
    (cidr, ports, word(&["tcp", "udp", "any"])).prop_map(|(cidr, ports, protocol)| EgressRule { cidr, ports, protocol })
}

const CAPS: &[&str] = &["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW", "CAP_SYS_ADMIN"];
const PLACES: &[&str] = &["/data", "/work", "/work/cache/", "/proc", "/absent", "/dev/fuse", "/dev/kvm"];
const CALLS: &[&str] = &["read", "write", "ptrace", "bpf"];

fn restriction() -> impl Strategy<Value = Restriction> {
    let keep_calls = words(CALLS).prop_map(|mut v| {
        v.push("execve".into());
        Restriction::SeccompKeepOnly(v)
    });
    let action = prop_oneof![Just(SeccompAction::Log), Just(SeccompAction::Errno), Just(SeccompAction::KillProcess)];
    let deny_calls = (words(CALLS), action, proptest::option::of(1u32..40))
        .prop_map(|(syscalls, action, errno)| Restriction::SeccompDeny { syscalls, action, errno });
    let bound = |max: u32| proptest::option::of(1..max);
    let limits = (bound(2_000_000), bound(200), proptest::option::of(10u32..4000), bound(4096)).prop_map(
        |(memory, pids, cpu_millis, nofile)| {
            Restriction::Limit(Limits { memory_bytes: memory.map(u64::from), pids, cpu_millis, nofile })
        },
    );
    prop_oneof![
        words(CAPS).prop_map(Restriction::DropCapabilities),
        words(CAPS).prop_map(Restriction::KeepOnlyCapabilities),
        Just(Restriction::NoNewPrivileges),
        Just(Restriction::ReadOnlyRootfs),
        (word(PLACES), words(&["ro", "nosuid", "nodev", "noexec"]))
            .prop_map(|(destination, add_options)| Restriction::TightenMount { destination, add_options }),
        word(PLACES).prop_map(Restriction::RemoveMount),
        word(PLACES).prop_map(Restriction::MaskPath),
        word(PLACES).prop_map(Restriction::ReadOnlyPath),
        word(PLACES).prop_map(Restriction::RemoveDevice),
        deny_calls,
        keep_calls,
        proptest::collection::vec(egress_rule(), 0..4).prop_map(Restriction::EgressOnly),
        Just(Restriction::NoNetwork),
        limits,
        word(&["A", "B", "PATH", "NONE"]).prop_map(Restriction::UnsetEnv),
        port().prop_map(Restriction::WithholdPort),
        port().prop_map(Restriction::LoopbackPort),
        Just(Restriction::RequireDigest(fixture::DIGEST.into())),
    ]
}

/// Which of [`KINDS`] it is. A restriction that is new does not compile here, until the laws are tried on it.
fn kind(restriction: &Restriction) -> usize {
    match restriction {
        Restriction::DropCapabilities(_) => 0,
        Restriction::KeepOnlyCapabilities(_) => 1,
        Restriction::NoNewPrivileges => 2,
        Restriction::ReadOnlyRootfs => 3,
        Restriction::TightenMount { .. } => 4,
        Restriction::RemoveMount(_) => 5,
        Restriction::MaskPath(_) => 6,
        Restriction::ReadOnlyPath(_) => 7,
        Restriction::RemoveDevice(_) => 8,
        Restriction::SeccompDeny { .. } => 9,
        Restriction::SeccompKeepOnly(_) => 10,
        Restriction::EgressOnly(_) => 11,
        Restriction::NoNetwork => 12,
        Restriction::Limit(Limits { memory_bytes: _, pids: _, cpu_millis: _, nofile: _ }) => 13,
        Restriction::UnsetEnv(_) => 14,
        Restriction::RequireDigest(_) => 15,
        Restriction::WithholdPort(_) => 16,
        Restriction::LoopbackPort(_) => 17,
    }
}

const KINDS: usize = 18;

#[test]
fn the_laws_are_tried_on_every_restriction_and_each_changes_something() {
    use proptest::strategy::ValueTree as _;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let (mut seen, mut felt) = ([false; KINDS], [false; KINDS]);
    for _ in 0..4000 {
        let one = restriction().new_tree(&mut runner).unwrap().current();
        let before = fixture::parts();
        seen[kind(&one)] = true;
        let tightening = Tightening::parse(std::slice::from_ref(&one)).unwrap();
        // A bound on nothing is none.
        let empty = Restriction::Limit(Limits { memory_bytes: None, pids: None, cpu_millis: None, nofile: None });
        assert!(one == empty || tightening != Tightening::default(), "{one:?} is forgotten by the meet");
        // no_new_privs is on already, and the digest is the fixture's.
        felt[kind(&one)] |= matches!(one, Restriction::NoNewPrivileges | Restriction::RequireDigest(_))
            || applied(&tightening, before.clone()) != before;
    }
    assert_eq!((seen, felt), ([true; KINDS], [true; KINDS]));
}

/// Those of the fixture, and one that is not there.
fn port() -> impl Strategy<Value = PortName> {
    let port = proptest::sample::select(&[(8080, 80), (8443, 443), (1, 1)][..]);
    port.prop_map(|(host_port, container_port)| PortName { host_port, container_port, protocol: Protocol::Tcp })
}

fn tightening() -> impl Strategy<Value = Tightening> {
    proptest::collection::vec(restriction(), 0..6).prop_map(|r| Tightening::parse(&r).unwrap())
}

fn applied(t: &Tightening, mut parts: crate::SpecParts) -> crate::SpecParts {
    apply(t, &mut parts).unwrap();
    parts
}

proptest! {
    #[test]
    fn meet_is_commutative(a in tightening(), b in tightening()) {
        prop_assert_eq!(a.meet(&b), b.meet(&a));
    }

    #[test]
    fn meet_is_associative(a in tightening(), b in tightening(), c in tightening()) {
        prop_assert_eq!(a.meet(&b).meet(&c), a.meet(&b.meet(&c)));
    }

    #[test]
    fn meet_is_idempotent_and_has_a_unit(a in tightening()) {
        prop_assert_eq!(a.meet(&a), a.clone());
        prop_assert_eq!(a.meet(&Tightening::default()), a);
    }

    #[test]
    fn applying_never_loosens_and_twice_is_once(a in tightening()) {
        let before = fixture::parts();
        let once = applied(&a, before.clone());
        prop_assert_eq!(looser(&before, &once), None);
        prop_assert_eq!(applied(&a, once.clone()), once);
    }

    /// So the order in which policies are asked cannot matter, and the merge is as strict as each of them alone.
    #[test]
    fn applying_the_meet_is_applying_both(a in tightening(), b in tightening()) {
        let before = fixture::parts();
        let alone = applied(&a, before.clone());
        let merged = applied(&a.meet(&b), before);
        prop_assert_eq!(&applied(&b, alone.clone()), &merged);
        prop_assert_eq!(looser(&alone, &merged), None);
    }

    #[test]
    fn merge_does_not_depend_on_order(
        a in proptest::collection::vec(restriction(), 0..4),
        b in proptest::collection::vec(restriction(), 0..4),
    ) {
        let (a, b) = (allow("a", a), allow("b", b));
        let spec = ContainerSpec::new(fixture::parts()).unwrap();
        let roster = roster(&["a", "b"]);
        let one = merge(spec.clone(), &roster, vec![a.clone(), b.clone()]);
        let two = merge(spec.clone(), &roster, vec![b.clone(), a.clone()]);
        let thrice = merge(spec, &roster, vec![b, a.clone(), a]);
        prop_assert_eq!(&one, &two);
        prop_assert_eq!(one, thrice);
    }
}

proptest! {
    /// What was admitted and is asked about again stays as it is, with the same policies or with fewer.
    #[test]
    fn asking_again_about_what_was_admitted_changes_nothing(
        a in proptest::collection::vec(restriction(), 0..5),
        b in proptest::collection::vec(restriction(), 0..5),
    ) {
        let (a, b) = (allow("a", a), allow("b", b));
        let both = roster(&["a", "b"]);
        let Ok(merged) = merge(spec(), &both, vec![a.clone(), b.clone()]) else { return Ok(()) };
        let admitted = merged.confirm(vec![allow("a", vec![]), allow("b", vec![])]).unwrap();
        let again = merge(admitted.spec().clone(), &both, vec![a.clone(), b]).unwrap();
        prop_assert_eq!(again.spec(), admitted.spec());
        let fewer = merge(admitted.spec().clone(), &roster(&["a"]), vec![a]).unwrap();
        prop_assert_eq!(fewer.spec(), admitted.spec());
    }

    /// A policy more never loosens anything, whatever it says.
    #[test]
    fn another_policy_only_tightens(
        a in proptest::collection::vec(restriction(), 0..5),
        b in proptest::collection::vec(restriction(), 0..5),
    ) {
        let (a, b) = (allow("a", a), allow("b", b));
        let Ok(alone) = merge(spec(), &roster(&["a"]), vec![a.clone()]) else { return Ok(()) };
        let Ok(both) = merge(spec(), &roster(&["a", "b"]), vec![a, b]) else { return Ok(()) };
        prop_assert_eq!(looser(alone.spec().parts(), both.spec().parts()), None);
    }
}

fn id(name: &str) -> PolicyId {
    PolicyId { name: name.into(), digest: format!("sha256:{name}"), tier: Tier::User }
}

fn roster(names: &[&str]) -> Roster {
    Roster::new(names.iter().map(|n| id(n))).unwrap()
}

fn answer(name: &str, decision: Decision, restrictions: Vec<Restriction>) -> Answer {
    Answer { policy: id(name), decision, diagnostics: vec![], restrictions, audit: vec![] }
}

fn allow(name: &str, restrictions: Vec<Restriction>) -> Answer {
    answer(name, Decision::Allow, restrictions)
}

fn spec() -> ContainerSpec {
    ContainerSpec::new(fixture::parts()).unwrap()
}

fn refused(restriction: Restriction) -> String {
    let denied = merge(spec(), &roster(&["p"]), vec![allow("p", vec![restriction])]).unwrap_err();
    assert_eq!(denied.refusals()[0].policy, id("p"));
    denied.refusals()[0].diagnostics[0].code.clone()
}

#[test]
fn one_denial_denies_and_all_denials_are_told() {
    let answers = vec![
        answer("b", Decision::Deny, vec![]),
        allow("c", vec![Restriction::NoNetwork]),
        answer("a", Decision::Deny, vec![]),
    ];
    let denied = merge(spec(), &roster(&["a", "b", "c"]), answers).unwrap_err();
    let names: Vec<&str> = denied.refusals().iter().map(|r| r.policy.name.as_str()).collect();
    assert_eq!(names, ["a", "b"]);
}

#[test]
fn silence_denies_and_so_does_an_uninvited_answer() {
    let denied = merge(spec(), &roster(&["a"]), vec![]).unwrap_err();
    assert_eq!(denied.refusals()[0].diagnostics[0].code, code::MISSING);
    let denied = merge(spec(), &Roster::no_policy_installed(), vec![allow("x", vec![])]).unwrap_err();
    assert_eq!(denied.refusals()[0].policy, id("x"));
    let merged = merge(spec(), &roster(&["a"]), vec![allow("a", vec![])]).unwrap();
    assert_eq!(merged.confirm(vec![]).unwrap_err().refusals()[0].diagnostics[0].code, code::MISSING);
    assert!(permit(&roster(&["a"]), vec![]).is_err());
}

#[test]
fn no_policy_leaves_the_request_as_it_is() {
    let admitted = merge(spec(), &Roster::no_policy_installed(), vec![]).unwrap().confirm(vec![]).unwrap();
    assert_eq!(*admitted.spec(), spec());
}

#[test]
fn a_loosening_denies_and_names_its_policy() {
    let mount =
        |option: &str| Restriction::TightenMount { destination: "/data".into(), add_options: vec![option.into()] };
    let illegal = [
        mount("rw"),
        mount("exec"),
        mount("bind"),
        Restriction::DropCapabilities(vec!["CAP_SYS_GOD".into()]),
        Restriction::KeepOnlyCapabilities(vec!["NET_RAW".into()]),
        Restriction::MaskPath("relative".into()),
        Restriction::MaskPath("/".into()),
        Restriction::ReadOnlyPath("/a/../b".into()),
        Restriction::SeccompDeny { syscalls: vec!["bpf".into()], action: SeccompAction::Notify, errno: None },
        Restriction::SeccompKeepOnly(vec!["read".into()]),
        Restriction::EgressOnly(vec![EgressRule { cidr: "all".into(), ports: vec![], protocol: "any".into() }]),
        Restriction::Limit(Limits { pids: Some(0), ..Limits::default() }),
        Restriction::Limit(Limits { memory_bytes: Some(u64::MAX), ..Limits::default() }),
        Restriction::UnsetEnv("A=B".into()),
        Restriction::RequireDigest("sha256:short".into()),
    ];
    for restriction in illegal {
        assert_eq!(refused(restriction.clone()), code::MUTATION, "{restriction:?}");
    }
}

#[test]
fn a_mount_that_hides_a_part_of_the_host_stays() {
    let mut parts = fixture::parts();
    let mounts = parts.oci.mounts_mut().as_mut().unwrap();
    mounts[3].set_destination("/work/secret".into());
    let spec = ContainerSpec::new(parts).unwrap();
    let remove = |p: &str| Restriction::RemoveMount(p.into());
    assert!(merge(spec.clone(), &roster(&["p"]), vec![allow("p", vec![remove("/work/secret")])]).is_err());
    let both = vec![allow("p", vec![remove("/work/secret"), remove("/work")])];
    assert!(merge(spec, &roster(&["p"]), both).is_ok());
}

#[test]
fn another_digest_is_refused() {
    let other = format!("sha256:{}", "b".repeat(64));
    assert_eq!(refused(Restriction::RequireDigest(other)), code::DIGEST);
    let own = Restriction::RequireDigest(fixture::DIGEST.into());
    assert!(merge(spec(), &roster(&["p"]), vec![allow("p", vec![own])]).is_ok());
}

#[test]
fn the_second_phase_cannot_change_anything() {
    let merged = merge(spec(), &roster(&["p"]), vec![allow("p", vec![])]).unwrap();
    let denied = merged.confirm(vec![allow("p", vec![Restriction::NoNetwork])]).unwrap_err();
    assert_eq!(denied.refusals()[0].diagnostics[0].code, code::MUTATION);
}

#[test]
fn no_network_takes_ports_and_gives_a_namespace() {
    let mut parts = fixture::parts();
    parts.network = NetworkMode::Host;
    parts.oci.linux_mut().as_mut().unwrap().set_namespaces(None);
    let spec = ContainerSpec::new(parts).unwrap();
    let merged = merge(spec, &roster(&["p"]), vec![allow("p", vec![Restriction::NoNetwork])]).unwrap();
    assert_eq!(merged.spec().parts().network, NetworkMode::None);
    assert!(merged.spec().parts().ports.is_empty());
    assert_eq!(merged.spec().parts().oci.linux().as_ref().unwrap().namespaces().as_ref().unwrap().len(), 1);
}

#[test]
fn egress_cannot_be_promised_on_the_hosts_network() {
    let mut parts = fixture::parts();
    parts.network = NetworkMode::Host;
    let spec = ContainerSpec::new(parts).unwrap();
    assert!(merge(spec, &roster(&["p"]), vec![allow("p", vec![Restriction::EgressOnly(vec![])])]).is_err());
}

#[test]
fn limits_are_lowered_never_raised_and_say_when_nobody_enforces_them() {
    let limits = Limits { memory_bytes: Some(2_000_000), pids: Some(10), cpu_millis: Some(500), nofile: Some(64) };
    let merged = merge(spec(), &roster(&["p"]), vec![allow("p", vec![Restriction::Limit(limits)])]).unwrap();
    let parts = merged.spec().parts();
    let resources = parts.oci.linux().as_ref().unwrap().resources().clone().unwrap();
    assert_eq!(resources.memory().unwrap().limit(), Some(1_000_000));
    assert_eq!(resources.pids().unwrap().limit(), 10);
    assert_eq!(resources.cpu().as_ref().unwrap().quota(), Some(50_000));
    let rlimits = parts.oci.process().as_ref().unwrap().rlimits().clone().unwrap();
    assert_eq!(rlimits.last().map(|l| (l.hard(), l.soft())), Some((64, 64)));
    let pids = parts.controls.iter().find(|c| c.name == "pids-limit").unwrap();
    assert_eq!((pids.enforced, pids.requested.as_str()), (crate::Enforced::No, "10"));
}

#[test]
fn a_limit_that_is_imposed_says_by_what_it_holds() {
    let control = |mechanism: &str, requested: &str, enforced| crate::Control {
        name: "memory-limit".to_owned(),
        requested: requested.to_owned(),
        mechanism: mechanism.to_owned(),
        enforced,
        level: crate::Level::Prefer,
        why: String::new(),
    };
    let t =
        Tightening::parse(&[Restriction::Limit(Limits { memory_bytes: Some(500_000), ..Limits::default() })]).unwrap();
    let mut parts = fixture::parts();
    parts.controls = vec![control("none", "unlimited", crate::Enforced::Yes)];
    let imposed = applied(&t, parts.clone()).controls;
    assert_eq!((imposed[0].enforced, imposed[0].requested.as_str()), (crate::Enforced::No, "500000"));
    parts.imposable = vec![control("memory.max", "", crate::Enforced::Partly)];
    assert_eq!(applied(&t, parts).controls, [control("memory.max", "500000", crate::Enforced::Partly)]);
}

#[test]
fn the_last_of_contradicting_mount_options_counts() {
    let t = Tightening::parse(&[Restriction::TightenMount {
        destination: "/work/".into(),
        add_options: vec!["ro".into()],
    }])
    .unwrap();
    assert_eq!(t.mounts["/work"], [MountFlag::ReadOnly].into());
    let mounts = applied(&t, fixture::parts()).oci.mounts().clone().unwrap();
    assert_eq!(mounts[2].options().clone().unwrap(), ["rbind", "ro"]);
}

#[test]
fn a_failure_tells_the_gravest_finding_first_with_its_hint() {
    let finding = |code: &str, severity, help: Option<&str>| Diagnostic {
        code: code.into(),
        severity,
        message: format!("{code} is wrong"),
        path: Some("/mounts/0".into()),
        help: help.map(str::to_owned),
    };
    let mut no = answer("p", Decision::Deny, vec![]);
    no.diagnostics = vec![finding("A1", Severity::Low, None), finding("B2", Severity::Critical, Some("drop it"))];
    let failure = merge(spec(), &roster(&["p"]), vec![no]).unwrap_err().failure("busybox");
    assert_eq!(
        failure.to_string(),
        "denied by policy: busybox: user policy p [B2] B2 is wrong (/mounts/0)\n  user policy p [A1] A1 is wrong (/mounts/0)"
    );
    assert_eq!(failure.hint.as_deref(), Some("drop it"));
}
