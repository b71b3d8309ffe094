use super::*;
use crate::host::cause::Surroundings;
use crate::host::test_facts;
use proptest::prelude::*;
use rlrun_spec::hint::Distro;
use rlrun_spec::host::{Powerless, UsernsBlock};

fn r(start: u32, count: u32) -> IdRange {
    IdRange { start, count }
}

fn m(container: u32, host: u32, count: u32) -> IdMapping {
    IdMapping { container, host, count }
}

fn uids(host: &HostFacts, mode: &UserNamespace) -> Vec<IdMapping> {
    plan(host, mode).unwrap().maps.uids
}

const AROUND: Surroundings = Surroundings { distro: Distro::Debian, first_free: Some(231_072) };

#[test]
fn root_is_the_caller_and_the_ranges_follow_in_order() {
    let mut host = test_facts();
    host.subuids = vec![r(300_000, 10), r(100_000, 65536)];
    assert_eq!(uids(&host, &UserNamespace::Default), [m(0, 1500, 1), m(1, 300_000, 10), m(11, 100_000, 65536)]);
}

#[test]
fn keep_id_puts_the_caller_in_its_own_place() {
    let host = test_facts();
    let keep = |uid| uids(&host, &UserNamespace::KeepId { uid, gid: uid });
    assert_eq!(keep(1500), [m(0, 100_000, 1500), m(1500, 1500, 1), m(1501, 101_500, 64036)]);
    assert_eq!(keep(0), [m(0, 1500, 1), m(1, 100_000, 65536)]);
    // The range ends exactly below the caller's place, or long before it.
    assert_eq!(keep(65536), [m(0, 100_000, 65536), m(65536, 1500, 1)]);
    assert_eq!(keep(70_000), [m(0, 100_000, 65536), m(70_000, 1500, 1)]);
}

#[test]
fn keep_id_splits_at_the_border_of_two_ranges() {
    let mut host = test_facts();
    host.subuids = vec![r(100_000, 1000), r(200_000, 1000)];
    let keep = |uid| uids(&host, &UserNamespace::KeepId { uid, gid: 0 });
    assert_eq!(keep(1000), [m(0, 100_000, 1000), m(1000, 1500, 1), m(1001, 200_000, 1000)]);
    assert_eq!(keep(1200), [m(0, 100_000, 1000), m(1000, 200_000, 200), m(1200, 1500, 1), m(1201, 200_200, 800)]);
}

#[test]
fn without_range_or_helper_the_caller_is_alone_and_told_why_once() {
    let mut host = test_facts();
    host.newgidmap = Helper::Unprivileged { path: "/usr/bin/newgidmap".into(), why: Powerless::NotSetuid };
    let planned = plan(&host, &UserNamespace::Default).unwrap();
    assert_eq!(
        planned.maps,
        IdMaps { uids: vec![m(0, 1500, 1)], gids: vec![m(0, 1500, 1)], writer: MapWriter::Single }
    );
    assert!(plan(&host, &UserNamespace::KeepId { uid: 7, gid: 8 }).is_err());
    assert_eq!(
        planned.single.unwrap().warning(&host, &AROUND),
        "only your own id is mapped, so a container has one user, root: /usr/bin/newgidmap is neither set-user-ID \
         root nor given its file capability\nhint: sudo chown root:root /usr/bin/newgidmap && sudo chmod u+s /usr/bin/newgidmap"
    );
}

/// Each cause alone, in words and with its cure.
#[test]
fn each_failure_names_its_one_cause_and_the_command_that_mends_it() {
    let said = |change: fn(&mut HostFacts)| {
        let mut host = test_facts();
        change(&mut host);
        let cause = match plan(&host, &UserNamespace::Default) {
            Ok(planned) => planned.host_uid(70_000).unwrap_err(),
            Err(cause) => cause,
        };
        let failure = cause.failure(&host, &AROUND);
        format!("Error: {failure}\nhint: {}\n", failure.hint.clone().unwrap())
    };
    let all = [
        said(|_| {}),
        said(|host| host.subuids.clear()),
        said(|host| host.subgids.clear()),
        said(|host| {
            host.subuids.clear();
            host.subgids.clear();
            host.local_account = false;
        }),
        said(|host| {
            host.local_account = false;
            host.user = "1500".to_owned();
        }),
        said(|host| host.newuidmap = Helper::Missing),
        said(|host| {
            host.newuidmap = Helper::Unprivileged { path: "/usr/bin/newuidmap".into(), why: Powerless::NoNewPrivs };
        }),
        said(|host| host.userns_blocked = Some(UsernsBlock::MaxUserNamespaces)),
        said(|host| host.userns_blocked = Some(UsernsBlock::UnprivilegedClone)),
        said(|host| host.userns_blocked = Some(UsernsBlock::AppArmor)),
    ];
    insta::with_settings!({ prepend_module_to_snapshot => false }, {
        insta::assert_snapshot!("id_map_failures", all.join("\n"));
    });
}

#[test]
fn the_kernels_limits_on_lines_and_bytes_hold_and_the_callers_line_stays() {
    let mut host = test_facts();
    host.subuids = (0..500).map(|n| r(1_000_000 + n * 10, 5)).collect();
    let planned = uids(&host, &UserNamespace::KeepId { uid: 4_000_000_000, gid: 0 });
    let text: String = planned.iter().map(|l| format!("{} {} {}\n", l.container, l.host, l.count)).collect();
    assert!(
        planned.len() > 200 && planned.len() <= MAX_LINES && text.len() <= MAX_BYTES,
        "{} {}",
        planned.len(),
        text.len()
    );
    assert!(planned.contains(&m(4_000_000_000, 1500, 1)));
    host.kernel = (4, 14);
    assert_eq!(uids(&host, &UserNamespace::Default).len(), 5);
}

#[test]
fn an_id_too_far_for_any_host_is_not_answered_with_a_grant() {
    let host = test_facts();
    let planned = plan(&host, &UserNamespace::Default).unwrap();
    let advice = planned.host_gid(u32::MAX - 1).unwrap_err().advice(&host, &AROUND).to_string();
    assert!(advice.starts_with("use a smaller id"), "{advice}");
}

fn disjoint_ranges() -> impl Strategy<Value = Vec<IdRange>> {
    prop::collection::vec((2_000_u32..100_000, 1_u32..3_000), 0..8)
        .prop_map(|raw| super::super::subid::disjoint(raw.into_iter().map(|(start, count)| r(start, count))))
}

proptest! {
    #[test]
    fn maps_never_overlap_never_leave_the_grant_and_use_all_of_it(ranges in disjoint_ranges(), inside in 0_u32..200_000) {
        let lines = lay_out(1500, inside, &ranges);
        let mut insides: Vec<u32> = lines.iter().flat_map(|l| l.container..l.container + l.count).collect();
        let mut hosts: Vec<u32> = lines.iter().flat_map(|l| l.host..l.host + l.count).collect();
        let mut granted: Vec<u32> = ranges.iter().flat_map(|g| g.start..g.start + g.count).chain([1500]).collect();
        let in_one_grant = |l: &IdMapping| {
            l.host == 1500 && l.count == 1 || ranges.iter().any(|g| g.start <= l.host && l.host + l.count <= g.start + g.count)
        };
        prop_assert!(lines.iter().all(in_one_grant), "{:?}", lines);
        for list in [&mut insides, &mut hosts, &mut granted] {
            list.sort_unstable();
        }
        prop_assert!(insides.is_sorted_by(|a, b| a < b));
        prop_assert_eq!(&hosts, &granted);
        prop_assert!(lines.contains(&m(inside, 1500, 1)));
    }

    #[test]
    fn each_mapped_id_goes_out_and_comes_back(ranges in disjoint_ranges(), inside in 0_u32..70_000, id in 0_u32..70_000) {
        let mut host = test_facts();
        host.subuids = ranges;
        let alone = host.subuids.is_empty() && inside != 0;
        let planned = plan(&host, &UserNamespace::KeepId { uid: inside, gid: 0 });
        prop_assert_eq!(planned.is_err(), alone);
        let Ok(planned) = planned else { return Ok(()) };
        if let Ok(outside) = planned.host_uid(id) {
            let back: Vec<u32> = planned.maps.uids.iter()
                .filter(|l| l.host <= outside && outside - l.host < l.count)
                .map(|l| l.container + (outside - l.host)).collect();
            prop_assert_eq!(back, [id]);
        }
    }

    #[test]
    fn extreme_ranges_do_not_overflow(starts in prop::collection::vec((1_u32.., 1_u32..), 0..6), inside in 0..u32::MAX) {
        let raw = starts.into_iter().map(|(start, count)| r(start, count.min(u32::MAX - start).max(1)));
        let ranges = super::super::subid::disjoint(raw.filter(|g| g.start < u32::MAX));
        let lines = lay_out(0, inside, &ranges);
        prop_assert!(lines.iter().all(|l| l.container.checked_add(l.count).is_some() && l.host.checked_add(l.count).is_some()));
    }
}
