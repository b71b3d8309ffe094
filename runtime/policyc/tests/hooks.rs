//! The hooks of 0.2, policies of 0.1 beside them, and what is said about policies: modes, grants, the lock, the project.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod common;
mod guest;

use common::{Place, caller, spec, told, write};
use guest::{PRELUDE, REALLOC, create_with, module, verdict};
use rlrun_admission::{Hook, LoadError, MANIFEST, PolicySet, Sources, check, pulled};
use rlrun_spec::container::{PortMapping, Protocol};
use rlrun_spec::policy::{CopyOut, ExitEvent, Outward, PolicyId, Subject, Tier, code};
use rlrun_spec::{ContainerSpec, SpecParts};
use sha2::{Digest as _, Sha256};
use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// A policy whose only hook answers with the verdict at 1024.
fn answering(hook: &str, function: &str, data: &str) -> Vec<u8> {
    let wat = format!(
        r#"(module {PRELUDE} {REALLOC} {data}
            (func (export "rlrun:policy/{hook}@0.2.0#{function}") (param i32) (result i32) (i32.const 1024)))"#
    );
    module(&[hook], &wat)
}

/// A verdict that allows and narrows in these ways.
fn narrowing(ways: &str, count: u32) -> String {
    format!(r#"{} (data (i32.const 2048) "{ways}")"#, verdict(0, 12, 2048, count))
}

fn denying() -> Vec<u8> {
    create_with(REALLOC, &verdict(1, 4, 0, 0), "(i32.const 1024)")
}

fn published() -> ContainerSpec {
    let port = |host_port| PortMapping {
        host_ip: "0.0.0.0".parse().unwrap(),
        host_port,
        container_port: 80,
        protocol: Protocol::Tcp,
    };
    ContainerSpec::new(SpecParts { ports: vec![port(8080), port(8081)], ..spec().into_parts() }).unwrap()
}

fn subject() -> Subject {
    Subject { id: "0".repeat(64), name: "box".into(), image: None }
}

#[test]
fn a_port_is_narrowed_to_this_host_or_withheld() {
    let place = Place::new();
    place.install("p.wasm", &answering("publish", "on-publish", &narrowing("\\01", 1)));
    let set = place.load();
    assert!(set.asks(Hook::Publish) && !set.asks(Hook::Create));
    let admitted = set.evaluate(published(), &caller()).unwrap();
    let addresses: Vec<String> = admitted.spec().parts().ports.iter().map(|p| p.host_ip.to_string()).collect();
    assert_eq!(addresses, ["127.0.0.1", "127.0.0.1"]);
    place.install("q.wasm", &answering("publish", "on-publish", &narrowing("\\00", 1)));
    assert!(place.load().evaluate(published(), &caller()).unwrap().spec().parts().ports.is_empty());
}

#[test]
fn a_mount_is_narrowed_and_others_stay() {
    let place = Place::new();
    place.install("m.wasm", &answering("mount", "on-mount", &narrowing("\\01\\04", 2)));
    let admitted = place.load().evaluate(spec(), &caller()).unwrap();
    let mounts = admitted.spec().parts().oci.mounts().clone().unwrap();
    let options = |at: &str| {
        let mount = mounts.iter().find(|m| m.destination() == Path::new(at)).unwrap();
        mount.options().clone().unwrap()
    };
    assert_eq!(options("/data"), ["rbind", "ro", "noexec"]);
    assert_eq!(options("/proc"), ["nosuid"], "nobody asked for it");
    place.install("m.wasm", &answering("mount", "on-mount", &narrowing("\\00", 1)));
    let admitted = place.load().evaluate(spec(), &caller()).unwrap();
    assert_eq!(admitted.spec().parts().oci.mounts().as_ref().unwrap().len(), 1);
}

#[test]
fn a_part_that_is_refused_refuses_the_start() {
    for (hook, function) in [("publish", "on-publish"), ("mount", "on-mount")] {
        let place = Place::new();
        place.install("no.wasm", &answering(hook, function, &verdict(1, 4, 0, 0)));
        let denied = place.load().evaluate(published(), &caller()).unwrap_err();
        assert_eq!(told(&denied), [("no", vec![code::UNEXPLAINED])], "{hook}");
    }
}

#[test]
fn an_answer_that_lies_about_its_length_denies() {
    for (hook, function) in [("publish", "on-publish"), ("mount", "on-mount")] {
        for data in [verdict(0, 12, 0x7fff_ff00, 4096), verdict(0, 12, 2048, 100_000), narrowing("\\09", 1)] {
            let place = Place::new();
            place.install("lies.wasm", &answering(hook, function, &data));
            let denied = place.load().evaluate(published(), &caller()).unwrap_err();
            assert_eq!(denied.refusals()[0].policy.name, "lies");
        }
    }
}

#[test]
fn copying_out_is_asked_about() {
    let place = Place::new();
    place.install("c.wasm", &answering("copy-out", "on-copy-out", &verdict(1, 4, 0, 0)));
    let request = CopyOut { operation: Outward::Cp, source: "/etc".into(), destination: "-".into() };
    let denied = place.load().on_copy_out(&request, &subject(), &caller()).unwrap_err();
    assert_eq!(told(&denied), [("c", vec![code::UNEXPLAINED])]);
    assert!(place.load().evaluate(spec(), &caller()).is_ok(), "a start is not its business");
}

static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn keep(policy: &PolicyId, level: &str, message: &str) {
    LINES.lock().unwrap().push(format!("{} {level} {message}", policy.name));
}

/// A policy that does this when it is told of an end.
fn told_of_ends(body: &str) -> Vec<u8> {
    let wat = format!(
        r#"(module {PRELUDE} {REALLOC}
            (func (export "rlrun:policy/exit@0.2.0#on-exit") (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i64 i32)
                {body}))"#
    );
    module(&["exit"], &wat)
}

#[test]
fn an_end_is_told_and_a_failure_there_harms_nobody() {
    let place = Place::new();
    place.install("e.wasm", &told_of_ends("(unreachable)"));
    let set = place.load();
    let event = ExitEvent { container: subject(), exit_code: 1, finished: 7, oom_killed: false };
    set.tell_exits(&[event.clone(), event], keep);
    let lines = std::mem::take(&mut *LINES.lock().unwrap());
    assert_eq!(lines.len(), 2);
    assert!(lines[0].starts_with("e error RLRUN-TRAP"), "{lines:?}");
    assert!(set.evaluate(spec(), &caller()).is_ok());
}

#[test]
fn an_end_that_takes_too_long_leaves_the_others_their_share() {
    let place = Place::new();
    let busy = "(loop $again (br_if $again (i64.eq (local.get 12) (i64.const 7)))) (unreachable)";
    place.install("s.wasm", &told_of_ends(busy));
    let event = |finished| ExitEvent { container: subject(), exit_code: 1, finished, oom_killed: false };
    static SAID: Mutex<Vec<String>> = Mutex::new(Vec::new());
    place.load().tell_exits(&[event(7), event(7), event(8)], |_, _, message| {
        SAID.lock().unwrap().push(message.to_owned());
    });
    let said = SAID.lock().unwrap();
    let of = |code: &str| said.iter().filter(|line| line.starts_with(code)).count();
    assert_eq!((of(code::FUEL), of(code::TRAP)), (2, 1), "{said:?}");
}

/// Built with the SDK of 0.1, before there was a 0.2.
#[test]
fn a_component_of_the_first_version_still_loads_and_is_asked() {
    let place = Place::new();
    place.install("image-source.wasm", include_bytes!("testdata/image-source-0.1.wasm"));
    place.install("image-source.toml", b"deny = [\"docker.io/library/busybox\"]\n");
    let set = place.load();
    assert!(set.asks(Hook::Create) && set.asks(Hook::Image) && !set.asks(Hook::Publish));
    let denied = set.evaluate(spec(), &caller()).unwrap_err();
    assert_eq!(told(&denied), [("image-source", vec!["IMG001"])]);
    place.install("image-source.toml", b"");
    assert!(place.load().evaluate(spec(), &caller()).is_ok());
}

/// Denies before the given time and allows after it.
fn clock() -> Vec<u8> {
    let wat = format!(
        r#"(module (import "rlrun:policy/clock@0.1.0" "now-unix-ms" (func $now (result i64)))
            {PRELUDE} {REALLOC}
            (data (i32.const 1024) "\00") (data (i32.const 1124) "\01")
            (func (export "rlrun:policy/create@0.1.0#on-create") (param i32) (result i32)
                (select (i32.const 1124) (i32.const 1024) (i64.lt_u (call $now) (i64.const 1000)))))"#
    );
    module(&["create"], &wat)
}

#[test]
fn the_clock_is_for_those_who_were_granted_it() {
    let place = Place::new();
    place.install("late.wasm", &clock());
    let Err(LoadError::NotAPolicy { name, why, .. }) = PolicySet::load(&place.sources()) else { panic!() };
    assert!(name == "late" && why.contains("clock"), "{why}");
    let inspection = check(&place.path("config/policy.d/late.wasm"), None, &place.sources()).unwrap();
    assert_eq!(inspection.grants, ["clock"]);
    place.install("policy.toml", b"[grants]\nlate = [\"clock\"]\n");
    let at = |moment| {
        let sources = Sources { moment: Some(moment), ..place.sources() };
        PolicySet::load(&sources).unwrap().evaluate(spec(), &caller())
    };
    assert!(at(999).is_err() && at(1000).is_ok());
    assert!(place.load().evaluate(spec(), &caller()).is_ok(), "now is later than 1970");
}

#[test]
fn a_policy_on_trial_warns_or_is_written_down() {
    let place = Place::new();
    place.install("no.wasm", &denying());
    place.install("policy.toml", b"[modes]\nno = \"warn\"\n");
    let admitted = place.load().evaluate(spec(), &caller()).unwrap();
    assert_eq!(admitted.answers()[0].audit, [("would-deny".to_owned(), code::UNEXPLAINED.to_owned())]);
    place.install("policy.toml", b"[modes]\nno = \"audit\"\n");
    place.install("broken.wasm", b"no policy");
    assert!(PolicySet::load(&place.sources()).is_err(), "that one is not on trial");
    place.install("policy.toml", b"[modes]\nno = \"audit\"\nbroken = \"warn\"\n");
    let set = place.load();
    assert!(set.evaluate(spec(), &caller()).is_ok() && set.notices()[0].contains("broken"));
    for wrong in
        ["[modes]\nnope = \"warn\"\n", "[grants]\nnope = []\n", "[modes]\nno = \"off\"\n", "[mode]\n", "required = 1\n"]
    {
        place.install("policy.toml", wrong.as_bytes());
        assert!(PolicySet::load(&place.sources()).is_err(), "{wrong}");
    }
}

#[test]
fn what_the_lock_does_not_know_is_not_asked_in_its_place() {
    let place = Place::new();
    place.install("p.wasm", &guest::allowing());
    let lock =
        |digest: &str| format!("[p]\ndigest = \"{digest}\"\nsource = \"x\"\nimports = []\nexports = []\ngrants = []\n");
    let inspection = check(&place.path("config/policy.d/p.wasm"), None, &place.sources()).unwrap();
    place.install("policy.lock", lock(&inspection.id.digest).as_bytes());
    assert!(place.load().evaluate(spec(), &caller()).is_ok());
    place.install("p.wasm", &denying());
    let Err(LoadError::NotAPolicy { why, .. }) = PolicySet::load(&place.sources()) else { panic!() };
    assert!(why.contains("not what was added"), "{why}");
    fs::remove_file(place.path("config/policy.d/p.wasm")).unwrap();
    assert!(matches!(PolicySet::load(&place.sources()), Err(LoadError::Required { name, .. }) if name == "p"));
    place.install("policy.lock", b"p = 1\n");
    assert!(PolicySet::load(&place.sources()).is_err());
}

/// A directory `work/deep` with `work/.rlrun` above it.
fn project(place: &Place, config: &str) -> (PathBuf, Sources) {
    let directory = place.path("work/.rlrun");
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory).unwrap();
    fs::DirBuilder::new().recursive(true).mode(0o700).create(place.path("work/deep")).unwrap();
    write(&directory.join("policy.toml"), config.as_bytes());
    (directory, Sources { project: Some(place.path("work/deep")), ..place.sources() })
}

#[test]
fn a_project_adds_its_policies_and_says_so() {
    let place = Place::new();
    let (directory, sources) = project(&place, "[[policy]]\nfile = \"ours.wasm\"\n");
    assert!(PolicySet::load(&sources).is_err(), "what a project asks for has to be there");
    write(&directory.join("ours.wasm"), &denying());
    let set = PolicySet::load(&sources).unwrap();
    assert!(set.told()[0].contains("ours"), "{:?}", set.told());
    let denied = set.evaluate(spec(), &caller()).unwrap_err();
    assert_eq!((denied.refusals()[0].policy.tier, told(&denied)[0].0), (Tier::Project, "ours"));
    let elsewhere = Sources { project: Some(place.path("")), ..place.sources() };
    assert!(PolicySet::load(&elsewhere).unwrap().evaluate(spec(), &caller()).is_ok());
    // Beside the user's own of the same name, not instead of it.
    place.install("ours.wasm", &guest::allowing());
    assert_eq!(PolicySet::load(&sources).unwrap().policies().count(), 2);
}

#[test]
fn a_project_reaches_nothing_beyond_its_directory() {
    let place = Place::new();
    for word in ["../x.wasm", "/etc/passwd", "a/b.wasm", ".hidden", ""] {
        let (_, sources) = project(&place, &format!("[[policy]]\nfile = \"{word}\"\n"));
        assert!(matches!(PolicySet::load(&sources), Err(LoadError::Settings { .. })), "{word}");
    }
    let (directory, sources) = project(&place, "[[policy]]\nfile = \"link.wasm\"\n");
    write(&place.path("outside.wasm"), &denying());
    symlink(place.path("outside.wasm"), directory.join("link.wasm")).unwrap();
    assert!(PolicySet::load(&sources).is_err(), "links lead out");
    write(&directory.join("late.wasm"), &clock());
    let (_, sources) = project(&place, "[[policy]]\nfile = \"late.wasm\"\n");
    assert!(PolicySet::load(&sources).is_err(), "nothing is granted");
    for config in [
        "[modes]\nbaseline = \"audit\"\n",
        "required = []\n",
        "[[policy]]\n",
        "[[policy]]\nfile = \"a.wasm\"\nuse = \"b\"\n",
        "[[policy]]\nfile = \"a.wasm\"\ngrants = [\"clock\"]\n",
        "[[policy]]\nref = \"localhost:5000/p:1\"\n",
    ] {
        let (_, sources) = project(&place, config);
        assert!(matches!(PolicySet::load(&sources), Err(LoadError::Settings { .. })), "{config}");
    }
}

#[test]
fn a_project_that_others_can_write_is_passed_over() {
    use std::os::unix::fs::PermissionsExt as _;
    let place = Place::new();
    let (directory, sources) = project(&place, "[[policy]]\nfile = \"ours.wasm\"\n");
    write(&directory.join("ours.wasm"), &denying());
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o777)).unwrap();
    let set = PolicySet::load(&sources).unwrap();
    assert!(set.told()[0].contains("not asked"), "{:?}", set.told());
    assert!(set.evaluate(spec(), &caller()).is_ok());
}

#[test]
fn a_project_uses_what_was_pulled_by_its_digest() {
    let place = Place::new();
    let denying = denying();
    let hex = |bytes: &[u8]| Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect::<String>();
    let layer = format!(r#"{{"mediaType":"application/wasm","digest":"sha256:{}"}}"#, hex(&denying));
    let manifest = format!(r#"{{"schemaVersion":2,"layers":[{layer}]}}"#);
    let digest = format!("sha256:{}", hex(manifest.as_bytes()));
    let (_, sources) = project(&place, &format!("[[policy]]\nref = \"r.io/team/no@{digest}\"\n"));
    let Err(LoadError::NotAPolicy { hint, .. }) = PolicySet::load(&sources) else { panic!() };
    assert!(hint.unwrap().contains(&format!("rlrun policy pull r.io/team/no@{digest}")));
    let directory = pulled(&place.path("data"), &digest);
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory).unwrap();
    let refused = |why: &str| {
        let Err(LoadError::NotAPolicy { why: told, .. }) = PolicySet::load(&sources) else { panic!("{why}") };
        assert!(told.contains(why), "{told}");
    };
    write(&directory.join("no.wasm"), &denying);
    refused("its manifest is missing");
    write(&directory.join(MANIFEST), manifest.as_bytes());
    let denied = PolicySet::load(&sources).unwrap().evaluate(spec(), &caller()).unwrap_err();
    assert_eq!(told(&denied)[0].0, "no");
    write(&directory.join("no.wasm"), &guest::allowing());
    refused("its digest is");
    write(&directory.join("no.wasm"), &denying);
    write(&directory.join("no.toml"), b"a = 1\n");
    refused("its settings are others");
    fs::remove_file(directory.join("no.toml")).unwrap();
    write(&directory.join(MANIFEST), format!("{manifest} ").as_bytes());
    refused("its manifest was changed");
}

/// What later versions will ask has its place in the interface. A module that is early with it is loaded, is asked what
/// there is, and `inspect` says what is never asked; one with nothing else is no policy yet.
#[test]
fn hooks_that_are_reserved_are_known_and_not_asked() {
    let pointer = r#"(param i32) (result i32) (i32.const 1024)"#;
    let reserved = [
        ("build", "0.1.0", "on-step", pointer),
        ("runtime", "0.1.0", "on-syscall", &*format!("(param {}) (result i32) (i32.const 1024)", "i32 ".repeat(15))),
        ("connect", "0.2.0", "on-connect", pointer),
        ("syscall", "0.2.0", "on-syscall", pointer),
        ("events", "0.2.0", "on-event", "(param i32 i32 i64 i32 i32 i32 i32)"),
    ];
    for (hook, version, function, body) in reserved {
        let interface = format!("rlrun:policy/{hook}@{version}");
        let early = format!(r#"(func (export "{interface}#{function}") {body})"#);
        let alone = module(&[hook], &format!("(module {PRELUDE} {REALLOC} {early})"));
        let place = Place::new();
        let file = place.install("early.wasm", &alone);
        let Err(LoadError::NotAPolicy { why, .. }) = PolicySet::load(&place.sources()) else { panic!("{hook}") };
        assert!(why.contains("no hook that this version asks"), "{why}");
        let create = format!(r#"(func (export "rlrun:policy/create@0.1.0#on-create") {pointer})"#);
        write(&file, &module(&[hook, "create"], &format!("(module {PRELUDE} {REALLOC} {early} {create})")));
        assert!(place.load().evaluate(spec(), &caller()).is_ok());
        assert_eq!(check(&file, None, &place.sources()).unwrap().unasked, [interface]);
    }
}
