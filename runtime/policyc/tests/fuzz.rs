//! The boundary to policies, given nonsense for a while: whatever a module is and whatever it answers, nobody panics,
//! nothing is let pass that was not said, and the next evaluation is as it was. `make fuzz` runs it for longer
//! (RLRUN_FUZZ_SECONDS each); in the tests it is a short smoke. RLRUN_FUZZ_SEED repeats a run; a failure tells it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod common;
mod guest;

use common::{Place, Random, caller, spec};
use guest::{PRELUDE, REALLOC, module};
use rlrun_admission::{Lock, PolicySet, metadata};
use rlrun_spec::ContainerSpec;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

fn any_byte(random: &mut Random) -> u8 {
    const INTERESTING: &[u8] = b"\x00\x01\x02\x04\x7f\x80\xff\x10[]{}\"'=\n";
    match random.below(2) {
        0 => INTERESTING[random.below(INTERESTING.len())],
        _ => random.next().to_le_bytes()[0],
    }
}

fn changed(random: &mut Random, sample: &[u8]) -> Vec<u8> {
    let mut bytes = sample.to_vec();
    for _ in 0..=random.below(6) {
        let at = random.below(bytes.len());
        let length = random.below(48).min(bytes.len() - at);
        match random.below(5) {
            0..=2 if !bytes.is_empty() => bytes[at] = any_byte(random),
            3 => drop(bytes.drain(at..at + length)),
            _ => {
                let piece = bytes[at..at + length].to_vec();
                bytes.splice(at..at, piece);
            }
        }
    }
    bytes
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Runs until its time is over.
fn fuzz(target: impl Fn(&mut Random)) {
    let time = variable("RLRUN_FUZZ_SECONDS").map_or(Duration::from_millis(500), Duration::from_secs);
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().subsec_nanos();
    let seed = variable("RLRUN_FUZZ_SEED").unwrap_or_else(|| u64::from(now) | 1);
    // Shown when the test fails.
    println!("RLRUN_FUZZ_SEED={seed}");
    let (begun, mut random, mut rounds) = (Instant::now(), Random(seed), 0);
    while begun.elapsed() < time {
        target(&mut random);
        rounds += 1;
    }
    println!("{rounds} rounds");
}

/// Answers what the container's name spells: `a` to `p` are half bytes, written to its memory from 1024 on.
fn echoing() -> Vec<u8> {
    let body = r#"
        (local $from i32) (local $to i32) (local $end i32)
        (local.set $from (i32.load offset=8 (local.get 0)))
        (local.set $end (i32.add (local.get $from) (i32.load offset=12 (local.get 0))))
        (local.set $to (i32.const 1024))
        (block $done (loop $next
            (br_if $done (i32.ge_u (i32.add (local.get $from) (i32.const 1)) (local.get $end)))
            (i32.store8 (local.get $to) (i32.or
                (i32.shl (i32.sub (i32.load8_u (local.get $from)) (i32.const 97)) (i32.const 4))
                (i32.sub (i32.load8_u offset=1 (local.get $from)) (i32.const 97))))
            (local.set $to (i32.add (local.get $to) (i32.const 1)))
            (local.set $from (i32.add (local.get $from) (i32.const 2)))
            (br $next)))
        (i32.const 1024)"#;
    let wat = format!(
        r#"(module {PRELUDE} {REALLOC}
            (func (export "rlrun:policy/create@0.1.0#on-create") (param i32) (result i32) {body}))"#
    );
    module(&["create"], &wat)
}

fn named(bytes: &[u8]) -> ContainerSpec {
    let half = |nibble: u8| char::from(b'a' + nibble);
    let mut parts = spec().parts().clone();
    parts.name = bytes.iter().flat_map(|b| [half(b >> 4), half(b & 15)]).collect();
    ContainerSpec::new(parts).unwrap()
}

/// A verdict with lists that point to records after it, most of them in the policy's memory.
fn answer(random: &mut Random) -> Vec<u8> {
    let mut bytes = vec![0; 29 + random.below(1200)];
    bytes[0] = [0, 1, 2, 3][random.below(4)];
    for list in 0..3 {
        let at = match random.below(5) {
            0 => u32::MAX - 8,
            1 => 1 << 20,
            _ => 1024 + 4 * u32::try_from(random.below(300)).unwrap(),
        };
        let length = [0, 1, 2, 7, 65, 1025, u32::MAX / 16][random.below(7)];
        bytes[4 + 8 * list..8 + 8 * list].copy_from_slice(&at.to_le_bytes());
        bytes[8 + 8 * list..12 + 8 * list].copy_from_slice(&length.to_le_bytes());
    }
    for byte in &mut bytes[28..] {
        *byte = match random.below(4) {
            0 => any_byte(random),
            1 => [b'C', b'A', b'P', b'_', b'/', b'r', b'o'][random.below(7)],
            _ => 0,
        };
    }
    // Pointers into itself, so that strings are found.
    for _ in 0..random.below(20) {
        let at = (28 + random.below(bytes.len() - 28)) & !3;
        if let Some(place) = bytes.get_mut(at..at + 8) {
            let to = 1024 + u32::try_from(random.below(1200)).unwrap();
            place[..4].copy_from_slice(&to.to_le_bytes());
            place[4..].copy_from_slice(&u32::try_from(random.below(12)).unwrap().to_le_bytes());
        }
    }
    bytes
}

#[test]
fn fuzz_answers() {
    let place = Place::new();
    place.install("echo.wasm", &echoing());
    let set = place.load();
    let allow = named(&[0; 28]);
    assert!(set.evaluate(allow.clone(), &caller()).is_ok());
    fuzz(|random| {
        let bytes = answer(random);
        let asked = named(&bytes);
        let first = set.evaluate(asked.clone(), &caller());
        // Only what says `allow` or `abstain` is let pass, and twice the same.
        if first.is_ok() {
            assert!(bytes[0] == 0 || bytes[0] == 2, "{bytes:?}");
        }
        let told = |verdict: &Result<_, Box<rlrun_spec::policy::Denied>>| match verdict {
            Ok(_) => None,
            Err(denied) => Some(serde_json::to_string(denied.refusals()).unwrap()),
        };
        assert_eq!(told(&first), told(&set.evaluate(asked, &caller())));
        assert!(set.evaluate(allow.clone(), &caller()).is_ok());
    });
}

/// Modules and components with something changed in them: compiled and asked, or refused, and always survived.
#[test]
fn fuzz_modules() {
    let place = Place::new();
    place.install("good.wasm", &guest::allowing());
    let component = wat::parse_str("(component (core module (func (export \"f\"))))").unwrap();
    let samples = [guest::allowing(), echoing(), component];
    fuzz(|random| {
        let sample = random.below(samples.len());
        let bytes = changed(random, &samples[sample]);
        place.install("changed.wasm", &bytes);
        if let Ok(set) = PolicySet::load(&place.sources()) {
            drop(set.evaluate(spec(), &caller()));
        }
        fs::remove_file(place.path("config/policy.d/changed.wasm")).unwrap();
        assert!(place.load().evaluate(spec(), &caller()).is_ok());
    });
}

/// Settings, the directory's own settings, lock files, descriptions.
#[test]
fn fuzz_files() {
    let place = Place::new();
    place.install("good.wasm", &guest::allowing());
    let lock = "[policy.good]\ndigest = \"sha256:00\"\nsource = \"good.wasm\"\nimports = []\nexports = [\"x\"]\n";
    let files = [
        ("good.toml", "a = 1\nb = [\"x\", 'y']\n[c]\nd = 1.5\n"),
        ("policy.toml", "required = [\"good\"]\n[modes]\ngood = \"warn\"\n[grants]\ngood = [\"clock\"]\n"),
        ("policy.lock", lock),
    ];
    let described = metadata::write(&guest::allowing(), &serde_json::json!({"name": "good", "codes": {"A1": "b"}}));
    fuzz(|random| {
        let (name, text) = files[random.below(files.len())];
        let path = place.install(name, &changed(random, text.as_bytes()));
        // What is wrong is told; nothing is let pass for it that somebody else refuses.
        drop(PolicySet::load(&place.sources()).map(|set| set.evaluate(spec(), &caller()).map(drop)));
        drop(Lock::read(&path));
        remove(&path);
        drop(metadata::read(&changed(random, &described)));
        assert!(place.load().evaluate(spec(), &caller()).is_ok());
    });
}

fn remove(path: &Path) {
    fs::remove_file(path).unwrap();
}
