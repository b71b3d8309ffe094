//! The cache of machine code: fast when it is as this user's rlrun left it, never loaded when it is not.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod common;
mod guest;

use common::{Place, caller, spec, told, write};
use guest::{REALLOC, allowing, create, create_with, verdict};
use rlrun_admission::{LoadError, PolicySet, Sources};
use rlrun_spec::policy::code;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The only file of machine code in the cache.
fn machine_code(place: &Place) -> PathBuf {
    let files = fs::read_dir(place.path("cache/policy")).unwrap().map(|e| e.unwrap().path());
    let mut code = files.filter(|p| p.extension().is_some_and(|e| e == "cwasm"));
    let only = code.next().unwrap();
    assert!(code.next().is_none());
    only
}

/// As `sources`, without a compiler: what loads now, loads from the cache.
fn without_compiler(place: &Place) -> Sources {
    Sources { policyc: place.path("no-compiler"), ..place.sources() }
}

fn loads_from_cache(place: &Place) -> bool {
    match PolicySet::load(&without_compiler(place)) {
        Ok(set) => {
            assert!(set.evaluate(spec(), &caller()).is_ok());
            true
        }
        Err(LoadError::Compiler { .. }) => false,
        Err(other) => panic!("{other}"),
    }
}

/// A place with one policy, compiled.
fn warm() -> Place {
    let place = Place::new();
    place.install("good.wasm", &allowing());
    place.load();
    assert!(loads_from_cache(&place));
    place
}

/// Spoils the machine code in place and expects it to be compiled again, to what it was.
fn is_made_anew_after(spoil: impl FnOnce(&Path)) {
    let place = warm();
    let path = machine_code(&place);
    let original = fs::read(&path).unwrap();
    spoil(&path);
    assert!(!loads_from_cache(&place), "spoilt machine code was loaded");
    assert!(place.load().evaluate(spec(), &caller()).is_ok());
    assert_eq!(fs::read(&path).unwrap(), original);
    assert!(loads_from_cache(&place));
}

#[test]
fn it_is_private_and_named_after_everything_it_depends_on() {
    let place = warm();
    let path = machine_code(&place);
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
    assert_eq!(fs::metadata(place.path("cache/policy")).unwrap().mode() & 0o7777, 0o700);
    let name = path.file_name().unwrap().to_str().unwrap();
    assert!(name.contains(rlrun_admission::engine::WASMTIME_VERSION), "{name}");
    assert!(name.contains(std::env::consts::ARCH), "{name}");
}

#[test]
fn what_the_compiler_refuses_is_refused_without_it_the_next_time() {
    let place = Place::new();
    place.install("good.wasm", &allowing());
    place.install("bad.wasm", b"no policy");
    let refused = |sources: &Sources| match PolicySet::load(sources) {
        Err(LoadError::NotAPolicy { name, why, .. }) => (name, why),
        other => panic!("{other:?}"),
    };
    let first = refused(&place.sources());
    assert_eq!(first.0, "bad");
    assert_eq!(refused(&without_compiler(&place)), first);
    // The one beside it is there too, and another file under that name is looked at anew.
    fs::remove_file(place.path("config/policy.d/bad.wasm")).unwrap();
    assert!(loads_from_cache(&place));
    place.install("bad.wasm", &allowing());
    assert!(place.load().evaluate(spec(), &caller()).is_ok());
}

/// The version in the cache's key is the version that is linked.
#[test]
fn the_key_names_the_engine_that_is_linked() {
    let lock = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../Cargo.lock")).unwrap();
    let wanted = format!("name = \"wasmtime\"\nversion = \"{}\"", rlrun_admission::engine::WASMTIME_VERSION);
    assert!(lock.contains(&wanted));
}

#[test]
fn one_changed_byte_is_noticed() {
    is_made_anew_after(|path| {
        let mut bytes = fs::read(path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        write(path, &bytes);
    });
}

/// With the old times put back, which any program can do; ctime it cannot.
#[test]
fn a_changed_byte_under_the_old_mtime_is_noticed() {
    is_made_anew_after(|path| {
        let before = fs::metadata(path).unwrap().modified().unwrap();
        let mut bytes = fs::read(path).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 0xff;
        write(path, &bytes);
        fs::File::options().write(true).open(path).unwrap().set_modified(before).unwrap();
    });
}

#[test]
fn a_file_cut_off_is_noticed() {
    is_made_anew_after(|path| {
        let bytes = fs::read(path).unwrap();
        write(path, &bytes[..bytes.len() / 3]);
    });
    is_made_anew_after(|path| write(path, b""));
}

#[test]
fn a_file_that_others_could_write_is_noticed() {
    is_made_anew_after(|path| fs::set_permissions(path, fs::Permissions::from_mode(0o620)).unwrap());
    is_made_anew_after(|path| fs::set_permissions(path, fs::Permissions::from_mode(0o666)).unwrap());
}

#[test]
fn a_link_is_not_followed() {
    is_made_anew_after(|path| {
        let moved = path.with_extension("elsewhere");
        fs::rename(path, &moved).unwrap();
        std::os::unix::fs::symlink(&moved, path).unwrap();
    });
}

/// Needs root to give the file away; as an ordinary user nobody could.
#[test]
fn a_file_of_somebody_else_is_noticed() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can give a file away");
        return;
    }
    is_made_anew_after(|path| std::os::unix::fs::chown(path, Some(12345), Some(12345)).unwrap());
}

/// The code of a policy that allows, put in the place of one that denies.
#[test]
fn the_code_of_another_policy_is_not_taken() {
    let denying = create_with(REALLOC, &verdict(1, 4, 0, 0), "(i32.const 1024)");
    let place = Place::new();
    place.install("strict.wasm", &denying);
    place.load();
    let other = warm();
    fs::copy(machine_code(&other), machine_code(&place)).unwrap();
    assert!(matches!(PolicySet::load(&without_compiler(&place)), Err(LoadError::Compiler { .. })));
    let denied = place.load().evaluate(spec(), &caller()).unwrap_err();
    assert_eq!(told(&denied), [("strict", vec![code::UNEXPLAINED])]);
}

/// Machine code that is what the index says, but was made by another engine: the engine itself refuses it.
#[test]
fn code_of_another_engine_is_made_anew() {
    let place = warm();
    let path = machine_code(&place);
    let original = fs::read(&path).unwrap();
    // A version byte, a length, the engine's major version (wasmtime, engine/serialization.rs).
    let at = original.windows(4).position(|w| w == b"\x00\x0248").unwrap();
    let mut older = original.clone();
    older[at + 3] = b'7';
    write(&path, &older);
    forge_index(&place, &original, &older);
    assert!(!loads_from_cache(&place));
    assert!(place.load().evaluate(spec(), &caller()).is_ok());
    assert_eq!(fs::read(&path).unwrap(), original);
}

/// The index with one digest replaced by another; what only the user themselves can do.
fn forge_index(place: &Place, old: &[u8], new: &[u8]) {
    use sha2::{Digest, Sha256};
    let hex = |bytes: &[u8]| Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect::<String>();
    let index = place.path("cache/policy/index");
    let text = fs::read_to_string(&index).unwrap();
    assert!(text.contains(&hex(old)));
    write(&index, text.replace(&hex(old), &hex(new)).as_bytes());
}

#[test]
fn an_index_that_is_none_only_costs_time() {
    for spoilt in [&b""[..], b"nonsense\n", b"rlrun-policy-index 1\nsource x y z\n", b"\xff\xfe"] {
        let place = warm();
        write(&place.path("cache/policy/index"), spoilt);
        assert!(!loads_from_cache(&place));
        assert!(place.load().evaluate(spec(), &caller()).is_ok());
        assert!(loads_from_cache(&place));
    }
}

#[test]
fn a_directory_that_others_can_enter_is_not_used() {
    let place = warm();
    fs::set_permissions(place.path("cache/policy"), fs::Permissions::from_mode(0o755)).unwrap();
    assert!(!loads_from_cache(&place));
    let set = place.load();
    assert!(set.notices()[0].contains("cannot be used"), "{:?}", set.notices());
    assert!(set.evaluate(spec(), &caller()).is_ok());
}

#[test]
fn without_any_cache_policies_still_speak() {
    let place = Place::new();
    place.install("good.wasm", &allowing());
    // Nothing can be made below a file.
    write(&place.path("cache"), b"");
    let set = place.load();
    assert_eq!(set.notices().len(), 1);
    assert!(set.evaluate(spec(), &caller()).is_ok());
}

#[test]
fn a_changed_policy_is_asked_in_its_new_form() {
    let place = warm();
    place.install("good.wasm", &create("(unreachable)"));
    let denied = place.load().evaluate(spec(), &caller()).unwrap_err();
    assert_eq!(told(&denied), [("good", vec![code::TRAP])]);
    place.install("good.wasm", &allowing());
    assert!(place.load().evaluate(spec(), &caller()).is_ok());
}

#[test]
fn many_at_once_agree() {
    let place = Place::new();
    place.install("good.wasm", &allowing());
    std::thread::scope(|scope| {
        let load = || assert!(place.load().evaluate(spec(), &caller()).is_ok());
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(load)).collect();
        threads.into_iter().for_each(|t| t.join().unwrap());
    });
    place.load();
    assert!(loads_from_cache(&place));
}

#[test]
fn a_missing_compiler_is_named() {
    let place = Place::new();
    place.install("good.wasm", &allowing());
    let failure = PolicySet::load(&without_compiler(&place)).unwrap_err().failure();
    assert!(failure.to_string().contains("no-compiler"), "{failure}");
    assert!(failure.hint.unwrap().contains("rlrun-policyc"));
}
