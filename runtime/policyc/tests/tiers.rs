//! Who is asked: the three tiers, settings, what is required, who may have written it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod common;
mod guest;

use common::{Place, caller, spec, told, write};
use guest::{PRELUDE, REALLOC, allowing, create_with, module, verdict};
use rlrun_admission::{Builtin, Hook, LoadError, MANDATORY_DIR, PolicySet, Sources, Switch, check, list};
use rlrun_spec::policy::{Tier, code};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;

fn denying() -> Vec<u8> {
    create_with(REALLOC, &verdict(1, 4, 0, 0), "(i32.const 1024)")
}

/// Accepts `{}` and traps on anything longer: whether settings arrive can be told from outside.
fn with_settings() -> Vec<u8> {
    let wat = format!(
        r#"(module {PRELUDE} {REALLOC}
            (func (export "rlrun:policy/lifecycle@0.1.0#init") (param i32 i32) (result i32)
                (if (i32.gt_u (local.get 1) (i32.const 2)) (then (unreachable)))
                (i32.const 1024))
            (func (export "rlrun:policy/create@0.1.0#on-create") (param i32) (result i32) (i32.const 1024)))"#
    );
    module(&["lifecycle", "create"], &wat)
}

/// A builtin policy for the rest of the test's life.
fn builtin(name: &'static str, wasm: Vec<u8>) -> &'static [Builtin] {
    use sha2::{Digest, Sha256};
    let hex: String = Sha256::digest(&wasm).iter().map(|b| format!("{b:02x}")).collect();
    Box::leak(Box::new([Builtin { name, wasm: wasm.leak(), sha256: hex.leak() }]))
}

#[test]
fn no_policy_at_all_admits_the_request_as_it_is() {
    let place = Place::new();
    let admitted = place.load().evaluate(spec(), &caller()).unwrap();
    assert_eq!(*admitted.spec(), spec());
    assert_eq!(admitted.answers(), []);
}

#[test]
fn the_builtin_tier_can_be_switched_off_and_given_settings() {
    let place = Place::new();
    let on = Sources { builtins: builtin("baseline", denying()), ..place.sources() };
    let denied = PolicySet::load(&on).unwrap().evaluate(spec(), &caller()).unwrap_err();
    assert_eq!(told(&denied), [("baseline", vec![code::UNEXPLAINED])]);
    assert_eq!(denied.refusals()[0].policy.tier, Tier::Builtin);
    let off = Sources { builtin_tier: Switch::Off, ..on };
    assert!(PolicySet::load(&off).unwrap().evaluate(spec(), &caller()).is_ok());

    let sources = Sources { builtins: builtin("baseline", with_settings()), ..place.sources() };
    assert!(PolicySet::load(&sources).unwrap().evaluate(spec(), &caller()).is_ok());
    place.install("baseline.toml", b"allow-privileged = true\n");
    let denied = PolicySet::load(&sources).unwrap().evaluate(spec(), &caller()).unwrap_err();
    assert_eq!(told(&denied), [("baseline", vec![code::TRAP])]);
}

#[test]
fn every_file_is_asked_and_nothing_else() {
    let place = Place::new();
    place.install("a.wasm", &allowing());
    place.install("README", b"no policy");
    place.install(".hidden.wasm", b"no policy");
    place.install("a.wasm~", b"no policy");
    let named = place.path("named.wasm");
    write(&named, &denying());
    let sources = Sources { files: vec![named], ..place.sources() };
    let set = PolicySet::load(&sources).unwrap();
    let names: Vec<&str> = set.policies().map(|p| p.name.as_str()).collect();
    assert_eq!(names, ["a", "named"]);
    assert!(set.asks(Hook::Create) && !set.asks(Hook::Image));
    let denied = set.evaluate(spec(), &caller()).unwrap_err();
    assert_eq!(told(&denied), [("named", vec![code::UNEXPLAINED])]);
}

#[test]
fn settings_for_no_policy_are_an_error() {
    let place = Place::new();
    place.install("basline.toml", b"");
    let error = PolicySet::load(&place.sources()).unwrap_err();
    assert!(matches!(error, LoadError::Settings { .. }), "{error}");
    assert!(error.to_string().contains("basline.wasm"), "{error}");
}

#[test]
fn settings_that_are_no_toml_are_an_error() {
    let place = Place::new();
    place.install("p.wasm", &with_settings());
    place.install("p.toml", b"a = [1,\n");
    assert!(matches!(PolicySet::load(&place.sources()).unwrap_err(), LoadError::Settings { .. }));
}

#[test]
fn what_others_could_have_written_is_an_error() {
    let place = Place::new();
    let path = place.install("p.wasm", &allowing());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    let error = PolicySet::load(&place.sources()).unwrap_err();
    assert!(matches!(error, LoadError::Untrusted { .. }), "{error}");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    fs::set_permissions(place.path("config/policy.d"), fs::Permissions::from_mode(0o777)).unwrap();
    let error = PolicySet::load(&place.sources()).unwrap_err();
    assert!(error.to_string().contains("policy.d"), "{error}");
}

#[test]
fn a_dangling_link_is_an_error_and_not_one_policy_less() {
    let place = Place::new();
    place.install("p.wasm", &allowing());
    symlink("nowhere.wasm", place.path("config/policy.d/q.wasm")).unwrap();
    let error = PolicySet::load(&place.sources()).unwrap_err();
    assert!(matches!(error, LoadError::Unreadable { .. }), "{error}");
}

#[test]
fn a_named_file_that_is_not_there_is_an_error() {
    let place = Place::new();
    let sources = Sources { files: vec![place.path("missing.wasm")], ..place.sources() };
    let failure = PolicySet::load(&sources).unwrap_err().failure();
    assert!(failure.to_string().contains("missing.wasm: No such file"), "{failure}");
}

#[test]
fn ls_tells_of_those_that_cannot_be_loaded_too() {
    let place = Place::new();
    place.install("good.wasm", &with_settings());
    place.install("bad.wasm", b"hello");
    let listed = list(&place.sources()).unwrap();
    assert_eq!(listed.iter().map(|l| l.name.as_str()).collect::<Vec<_>>(), ["bad", "good"]);
    assert!(listed[0].outcome.is_err());
    let good = listed[1].outcome.as_ref().unwrap();
    assert_eq!(good.hooks, [Hook::Lifecycle, Hook::Create]);
    assert_eq!(good.capabilities, Vec::<String>::new());
    assert!(good.problems.is_empty());
}

#[test]
fn check_tells_what_a_file_is_and_tries_its_settings() {
    let place = Place::new();
    let (file, settings) = (place.path("p.wasm"), place.path("other.toml"));
    write(&file, &with_settings());
    write(&settings, b"a = 1\n");
    assert!(check(&file, None, &place.sources()).unwrap().problems.is_empty());
    let problems = check(&file, Some(&settings), &place.sources()).unwrap().problems;
    assert_eq!(problems[0].code, code::TRAP);
    assert!(check(&file, Some(&place.path("none.toml")), &place.sources()).is_err());
}

/// The mandatory directory cannot be moved, so the test makes a /etc of its own: this program once more, in a user
/// and mount namespace in which its user is root.
#[test]
fn the_mandatory_tier_is_asked_last_and_cannot_be_left_out() {
    let exe = std::env::current_exe().unwrap();
    let script = format!(
        "mount -t tmpfs -o mode=755 none /etc && mkdir -p {MANDATORY_DIR} && exec {} --ignored --exact --nocapture inside_the_namespace",
        exe.display()
    );
    let run = Command::new("unshare").args(["-rm", "sh", "-c", &script]).output().unwrap();
    let text = String::from_utf8_lossy(&run.stderr);
    if text.contains("unshare:") || text.contains("permission denied") {
        eprintln!("skipped: no user namespace here: {text}");
        assert!(!std::env::var("RLRUN_MUST_HAVE").is_ok_and(|needs| needs.contains("userns")), "{text}");
        return;
    }
    assert!(run.status.success(), "{}{text}", String::from_utf8_lossy(&run.stdout));
}

#[test]
#[ignore = "started by the_mandatory_tier_is_asked_last_and_cannot_be_left_out"]
fn inside_the_namespace() {
    let place = Place::new();
    let system = std::path::Path::new(MANDATORY_DIR);
    let off = Sources { builtins: builtin("baseline", denying()), builtin_tier: Switch::Off, ..place.sources() };
    let names = || -> Vec<(String, Tier)> {
        PolicySet::load(&off).unwrap().policies().map(|p| (p.name.clone(), p.tier)).collect()
    };
    let refused = || PolicySet::load(&off).unwrap_err();

    write(&system.join("rule.wasm"), &denying());
    assert_eq!(names(), [("rule".to_owned(), Tier::Mandatory)]);
    let denied = PolicySet::load(&off).unwrap().evaluate(spec(), &caller()).unwrap_err();
    assert_eq!(denied.refusals()[0].policy.tier, Tier::Mandatory);

    // Switched off by the user, required by the administrator.
    write(&system.join("policy.toml"), b"required = [\"baseline\"]\n");
    assert_eq!(names(), [("rule".to_owned(), Tier::Mandatory), ("baseline".to_owned(), Tier::Mandatory)]);
    write(&system.join("policy.toml"), b"required = [\"no-such-policy\"]\n");
    assert!(matches!(refused(), LoadError::Required { .. }));
    write(&system.join("policy.toml"), b"requierd = []\n");
    assert!(matches!(refused(), LoadError::Settings { .. }));
    fs::remove_file(system.join("policy.toml")).unwrap();

    // What anyone but root could have written.
    fs::set_permissions(system.join("rule.wasm"), fs::Permissions::from_mode(0o664)).unwrap();
    assert!(matches!(refused(), LoadError::Untrusted { .. }));
    fs::remove_file(system.join("rule.wasm")).unwrap();
    let mine = place.path("rule.wasm");
    write(&mine, &allowing());
    symlink(&mine, system.join("rule.wasm")).unwrap();
    assert!(matches!(refused(), LoadError::Untrusted { why, .. } if why.contains("symbolic link")));
    fs::remove_file(system.join("rule.wasm")).unwrap();
    fs::set_permissions(system, fs::Permissions::from_mode(0o777)).unwrap();
    assert!(matches!(refused(), LoadError::Untrusted { .. }));
    fs::set_permissions(system, fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(names(), []);

    // Who may write above it could put it aside, and has done so maybe.
    let mode = |path: &std::path::Path, bits| fs::set_permissions(path, fs::Permissions::from_mode(bits)).unwrap();
    for above in system.ancestors().skip(1).filter(|path| path.parent().is_some()) {
        mode(above, 0o1777);
        assert!(matches!(refused(), LoadError::Untrusted { path, .. } if path == above));
        mode(above, 0o755);
    }
    let parent = system.parent().unwrap();
    fs::rename(system, parent.join("aside")).unwrap();
    mode(parent, 0o777);
    assert!(matches!(refused(), LoadError::Untrusted { .. }));
    mode(parent, 0o755);
    assert_eq!(names(), []);
}
