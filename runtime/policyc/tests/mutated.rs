//! Real policies with some of their bytes changed: each is refused and named, or answers within its limits, and the next
//! evaluation is as it was. Machine code with a changed byte is never loaded at all. The changes are the same on every
//! machine.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod common;
mod guest;

use common::{Place, Random, caller, spec, write};
use rlrun_admission::{LoadError, PolicySet, Sources};
use std::fs;
use std::path::{Path, PathBuf};

/// A policy of Rust that was built once and is kept, and one that was written by hand.
fn samples() -> [Vec<u8>; 2] {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/testdata/image-source-0.1.wasm");
    [fs::read(built).unwrap(), guest::allowing()]
}

/// One byte, a few, a piece that is missing, twice there, or from elsewhere.
fn changed(sample: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = sample.to_vec();
    let (at, from) = (random.below(bytes.len()), random.below(bytes.len()));
    let length = 1 + random.below(64.min(bytes.len() - at.max(from)));
    let piece = bytes[from..from + length].to_vec();
    match random.below(6) {
        0 | 1 => bytes[at] ^= 1 << random.below(8),
        2 => (0..8).for_each(|_| {
            let at = random.below(sample.len());
            bytes[at] = u8::try_from(random.below(256)).unwrap();
        }),
        3 => drop(bytes.drain(at..at + length)),
        4 => drop(bytes.splice(at..at, piece)),
        _ => bytes[at..at + length].copy_from_slice(&piece),
    }
    bytes
}

#[test]
fn changed_policies_are_refused_or_keep_to_their_limits() {
    const ROUNDS: usize = 40;
    let place = Place::new();
    place.install("good.wasm", &guest::allowing());
    let mut random = Random(0x726c_7275_6e06);
    let (mut refused, mut answered) = (0, 0);
    for sample in samples() {
        for round in 0..ROUNDS {
            let bytes = changed(&sample, &mut random);
            place.install("changed.wasm", &bytes);
            match PolicySet::load(&place.sources()) {
                Ok(set) => {
                    answered += 1;
                    if let Err(denied) = set.evaluate(spec(), &caller()) {
                        assert!(
                            denied.refusals().iter().all(|r| r.policy.name == "changed"),
                            "round {round}: {denied:?}"
                        );
                        assert!(denied.refusals().iter().all(|r| !r.diagnostics.is_empty()), "round {round}");
                    }
                }
                Err(LoadError::NotAPolicy { name, why, .. }) => {
                    refused += 1;
                    assert_eq!(name, "changed", "round {round}");
                    assert!(!why.is_empty() && why.chars().all(|c| !c.is_control()), "round {round}: {why:?}");
                }
                Err(other) => panic!("round {round}: {other:?}"),
            }
            fs::remove_file(place.path("config/policy.d/changed.wasm")).unwrap();
            assert!(place.load().evaluate(spec(), &caller()).is_ok());
        }
    }
    assert!(refused > 0 && answered > 0, "{refused} refused, {answered} answered");
}

fn machine_code(place: &Place) -> PathBuf {
    let mut files = fs::read_dir(place.path("cache/policy")).unwrap().map(|e| e.unwrap().path());
    files.find(|p| p.extension().is_some_and(|e| e == "cwasm")).unwrap()
}

/// Whether it is loaded without a compiler, which is to say from the cache.
fn loads_from_cache(place: &Place) -> bool {
    match PolicySet::load(&Sources { policyc: place.path("no-compiler"), ..place.sources() }) {
        Ok(_) => true,
        Err(LoadError::Compiler { .. }) => false,
        Err(other) => panic!("{other:?}"),
    }
}

#[test]
fn changed_machine_code_is_never_loaded() {
    const ROUNDS: usize = 200;
    let place = Place::new();
    let [built, _] = samples();
    place.install("built.wasm", &built);
    place.load();
    let path = machine_code(&place);
    let original = fs::read(&path).unwrap();
    assert!(loads_from_cache(&place));
    let mut random = Random(0x726c_7275_6e07);
    for round in 0..ROUNDS {
        let bytes = changed(&original, &mut random);
        if bytes == original {
            continue;
        }
        write(&path, &bytes);
        assert!(!loads_from_cache(&place), "round {round}: changed machine code was loaded");
    }
    write(&path, &original);
    assert!(loads_from_cache(&place), "what was never changed is good");
}

/// The index of the cache says what the machine code has to be: changed, it can only make it be compiled again.
#[test]
fn a_changed_index_never_vouches_for_changed_code() {
    const ROUNDS: usize = 200;
    let place = Place::new();
    place.install("good.wasm", &guest::allowing());
    place.load();
    let (path, index) = (machine_code(&place), place.path("cache/policy/index"));
    let (mut code, said) = (fs::read(&path).unwrap(), fs::read(&index).unwrap());
    let middle = code.len() / 2;
    code[middle] ^= 1;
    write(&path, &code);
    let mut random = Random(0x726c_7275_6e08);
    for round in 0..ROUNDS {
        write(&index, &changed(&said, &mut random));
        assert!(!loads_from_cache(&place), "round {round}");
    }
}
