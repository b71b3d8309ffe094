use super::*;
use crate::host::cause::Surroundings;
use crate::host::filesystem::{FileSystem, Place};
use crate::host::overlay::Trial;
use crate::host::subid::{Fault, Owner};
use crate::host::test_facts;
use rlrun_spec::IdRange;
use rlrun_spec::hint::Distro;
use rlrun_spec::host::{Cgroup, CgroupAccess, Helper, Powerless, UsernsBlock};

/// A host that lacks nothing.
fn healthy() -> Survey {
    let mut host = test_facts();
    if let Cgroup::V2 { access, .. } = &mut host.cgroup {
        *access = CgroupAccess::UserManager("/run/user/1500/systemd/private".into());
    }
    Survey {
        host,
        release: "6.18.0".to_owned(),
        around: Surroundings { distro: Distro::Debian, first_free: Some(165_536) },
        subuid: Grants::default(),
        subgid: Grants::default(),
        dev_fuse: Device::Opens,
        dev_net_tun: Device::Opens,
        store: "/home/ann/.local/share/rlrun".into(),
        store_fs: FileSystem { name: "ext4", place: Place::Local },
        store_dir: Directory::Writable("/home/ann/.local/share/rlrun".into()),
        overlay: Trial::Works,
        runtime_dir: Directory::Writable("/run/user/1500".into()),
        home: Directory::Writable("/home/ann".into()),
        ping_group_range: Some((0, 2_147_483_647)),
        linger: Linger::On,
        lost_programs: Vec::new(),
        mandatory: MandatoryDir::Absent,
    }
}

/// One where everything that can be found is found.
fn ailing() -> Survey {
    let mut survey = healthy();
    survey.release = "5.10.0-23-amd64".to_owned();
    survey.host.kernel = (5, 10);
    survey.host.userns_blocked = Some(UsernsBlock::UnprivilegedClone);
    survey.host.subuids.clear();
    survey.host.subgids = vec![IdRange { start: 100_000, count: 100 }, IdRange { start: 300_000, count: 10 }];
    survey.host.newuidmap = Helper::Missing;
    survey.host.newgidmap = Helper::Unprivileged { path: "/usr/bin/newgidmap".into(), why: Powerless::NotSetuid };
    survey.host.fuse_overlayfs = None;
    survey.host.slirp4netns = None;
    survey.host.native_overlay = false;
    survey.host.cgroup = Cgroup::V2 { delegated: Vec::new(), access: CgroupAccess::None };
    survey.subuid.faults = vec![(3, Fault::GrantsRoot), (9, Fault::Malformed)];
    survey.dev_fuse = Device::Refuses("Permission denied (os error 13)".to_owned());
    survey.dev_net_tun = Device::Refuses("Permission denied (os error 13)".to_owned());
    survey.store_fs = FileSystem { name: "nfs", place: Place::Remote };
    survey.overlay = Trial::Refused("Operation not permitted (os error 1)".to_owned());
    survey.runtime_dir = Directory::NotOurs("/run/user/0".into());
    survey.home = Directory::ReadOnly("/home/ann".into());
    survey.ping_group_range = Some((1, 0));
    survey.linger = Linger::Off;
    survey.lost_programs = vec!["rlrun-supervisor", "rlrun-policyc"];
    survey.mandatory = MandatoryDir::Untrusted("/etc/rlrun".into());
    survey
}

fn find<'a>(all: &'a [Check], name: &str) -> &'a Check {
    all.iter().find(|check| check.name == name).unwrap()
}

#[test]
fn a_host_that_lacks_nothing() {
    let all = checks(&healthy());
    assert_eq!((worst(&all), exit_code(&all)), (Status::Ok, 0));
    insta::with_settings!({ prepend_module_to_snapshot => false }, {
        insta::assert_snapshot!("doctor_healthy", render(&all));
    });
}

#[test]
fn a_host_that_lacks_everything() {
    let all = checks(&ailing());
    assert_eq!((worst(&all), exit_code(&all)), (Status::Fail, 1));
    let nothing_to_do = |check: &&Check| check.status != Status::Ok && check.fix.is_none();
    assert_eq!(all.iter().find(nothing_to_do), None);
    insta::with_settings!({ prepend_module_to_snapshot => false }, {
        insta::assert_snapshot!("doctor_ailing", render(&all));
    });
}

#[test]
fn a_warning_does_not_fail() {
    let mut survey = healthy();
    survey.linger = Linger::Off;
    let all = checks(&survey);
    assert_eq!((worst(&all), exit_code(&all)), (Status::Warn, 0));
    assert!(render(&all).ends_with("\ncontainers run; one thing could be better\n"));
}

#[test]
fn a_failure_and_doctor_say_the_same() {
    let survey = ailing();
    let cause = crate::host::idmap::plan(&survey.host, &rlrun_spec::container::UserNamespace::Default).unwrap_err();
    let failure = cause.failure(&survey.host, &survey.around);
    assert_eq!(find(&checks(&survey), "user namespaces").fix, failure.hint);
    // And what the kernel's own refusal is answered with, when it comes.
    let refused = rlrun_spec::Failure::new(
        rlrun_spec::Stage::Supervisor,
        rlrun_spec::Kind::Host,
        "clone-userns",
        "create a user namespace",
        "",
    );
    assert_eq!(rlrun_spec::hint::for_failure_on(&refused.errno(1), &survey.host), failure.hint);
}

#[test]
fn what_stands_in_for_the_overlay_is_missed_only_without_it() {
    let mut survey = healthy();
    survey.host.fuse_overlayfs = None;
    assert_eq!(find(&checks(&survey), "fuse-overlayfs").status, Status::Ok);
    survey.overlay = Trial::Refused("no".to_owned());
    assert_eq!(find(&checks(&survey), "fuse-overlayfs").status, Status::Warn);
}

#[test]
fn a_range_that_is_shared_or_small_is_told() {
    let owner = Owner { name: "ann", uid: 1500 };
    let grants = Grants::of(b"ann:100000:65536\nbob:165535:10\neve:165536:10\n1500:1:1\n", owner);
    assert_eq!(grants.shared_with, ["bob"]);
    let mut survey = Survey { subuid: grants, ..healthy() };
    let told = find(&checks(&survey), "subuid").clone();
    assert!(told.status == Status::Warn && told.finding.ends_with("bob has some of them too"), "{told:?}");
    survey.subuid = Grants::default();
    survey.host.subuids = vec![IdRange { start: 100_000, count: 1000 }];
    let told = find(&checks(&survey), "subuid").clone();
    assert_eq!(told.fix.unwrap(), "sudo usermod --add-subuids 165536-231071 ann");
}

#[test]
fn json_has_what_a_script_asks_for() {
    let all = checks(&ailing());
    let json: serde_json::Value = serde_json::to_value(&all).unwrap();
    let tun = json.as_array().unwrap().iter().find(|check| check["name"] == "/dev/net/tun").unwrap();
    assert_eq!(tun["status"], "warn");
    assert!(tun["fix"].as_str().unwrap().starts_with("sudo chmod 0666 /dev/net/tun"));
    let healthy = serde_json::to_value(checks(&healthy())).unwrap();
    assert_eq!(healthy[0], serde_json::json!({"name": "kernel", "status": "ok", "finding": "Linux 6.18.0"}));
}
