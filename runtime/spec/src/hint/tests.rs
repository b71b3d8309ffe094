use super::*;
use crate::failure::{Kind, Stage};

fn failed(step: &str, errno: i32) -> Failure {
    Failure::new(Stage::Cli, Kind::Host, step, "do it", "this").errno(errno)
}

#[test]
fn a_failure_keeps_its_own_hint() {
    let failure = failed("mount-proc", 1).hint("mine");
    assert_eq!(for_failure(&failure).as_deref(), Some("mine"));
}

#[test]
fn the_row_of_the_errno_wins_over_the_row_for_any() {
    let any = look_up("mount-fuse", None).unwrap();
    assert_ne!(look_up("mount-fuse", Some(13)).unwrap(), any);
    assert_eq!(look_up("mount-fuse", Some(5)).unwrap(), any);
}

#[test]
fn a_step_without_a_row_has_no_advice() {
    assert_eq!(look_up("no-such-step", Some(1)), None);
    assert_eq!(look_up("mount-proc", Some(22)), None);
}

#[test]
fn no_row_is_shadowed_by_an_earlier_one() {
    for (i, row) in ROWS.iter().enumerate() {
        for earlier in ROWS.iter().take(i).filter(|r| r.step == row.step) {
            assert!(!row.errnos.iter().any(|n| earlier.errnos.contains(n)), "{row:?} is shadowed by {earlier:?}");
            assert!(!(row.errnos.is_empty() && earlier.errnos.is_empty()), "{row:?} is shadowed by {earlier:?}");
        }
    }
}

#[test]
fn subordinate_ids_are_granted_as_the_account_allows() {
    let grant = |local_account| {
        Advice::AddSubordinateIds {
            grant: Grant::Both,
            user: "ann".to_owned(),
            first: 100_000,
            count: USUAL_SUBIDS,
            local_account,
        }
        .to_string()
    };
    assert_eq!(grant(true), "sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 ann");
    assert_eq!(grant(false), "echo ann:100000:65536 | sudo tee -a /etc/subuid /etc/subgid");
}

#[test]
fn distributions_are_told_apart_by_id_then_by_kinship() {
    assert_eq!(Distro::from_os_release("NAME=x\nID=ubuntu\nID_LIKE=debian\n"), Distro::Debian);
    assert_eq!(Distro::from_os_release("ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n"), Distro::Fedora);
    assert_eq!(Distro::from_os_release("ID=opensuse-leap\nID_LIKE='suse opensuse'"), Distro::Suse);
    assert_eq!(Distro::from_os_release("VERSION_ID=12\nID_LIKE\n=\n"), Distro::Unknown);
    assert_eq!(Package::Uidmap.install(Distro::Alpine), "sudo apk add shadow-uidmap");
    assert!(Package::Slirp4netns.install(Distro::Unknown).contains("dnf install slirp4netns"));
}
