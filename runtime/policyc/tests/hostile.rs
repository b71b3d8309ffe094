//! Policies that misbehave in every way: each denies, is named, and leaves the next evaluation untouched.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod common;
mod guest;

use common::{Place, caller, spec, told};
use guest::{PRELUDE, REALLOC, create, create_with, module, verdict};
use rlrun_admission::{LoadError, PolicySet};
use rlrun_spec::policy::code;
use std::fs;

/// Beside a well-behaved policy, asked twice: the same verdict, and nobody else is blamed.
fn denies(policy: &[u8], expected: &str) {
    let place = Place::new();
    place.install("good.wasm", &guest::allowing());
    place.install("hostile.wasm", policy);
    let set = place.load();
    for _ in 0..2 {
        let denied = set.evaluate(spec(), &caller()).unwrap_err();
        assert_eq!(told(&denied), [("hostile", vec![expected])]);
    }
    fs::remove_file(place.path("config/policy.d/hostile.wasm")).unwrap();
    assert!(place.load().evaluate(spec(), &caller()).is_ok());
}

#[test]
fn an_endless_loop_runs_out_of_fuel() {
    denies(&create("(loop $l (br $l)) (unreachable)"), code::FUEL);
}

#[test]
fn endless_growth_runs_out_of_memory() {
    denies(&create("(loop $l (drop (memory.grow (i32.const 16))) (br $l)) (unreachable)"), code::MEMORY);
}

#[test]
fn a_memory_too_large_from_the_start_is_not_made() {
    let wat = format!(
        r#"(module (memory (export "memory") 2048) {REALLOC}
            (func $allocate (param i32) (result i32) (i32.const 0))
            (func (export "rlrun:policy/create@0.1.0#on-create") (param i32) (result i32) (i32.const 1024)))"#
    );
    denies(&module(&["create"], &wat), code::MEMORY);
}

#[test]
fn a_huge_table_is_not_made() {
    denies(&create_with(REALLOC, "(table 10000000 funcref)", "(i32.const 1024)"), code::MEMORY);
}

#[test]
fn deep_recursion_ends() {
    let recursion = "(func $down (param i32) (result i32) (i32.add (call $down (local.get 0)) (i32.const 1)))";
    denies(&create_with(REALLOC, recursion, "(call $down (i32.const 0))"), code::TRAP);
}

#[test]
fn a_trap_denies() {
    denies(&create("(unreachable)"), code::TRAP);
    denies(&create("(i32.div_u (i32.const 1) (i32.const 0))"), code::TRAP);
}

#[test]
fn a_trap_in_the_allocator_denies() {
    let realloc = r#"(func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (unreachable))"#;
    denies(&create_with(realloc, "", "(i32.const 1024)"), code::TRAP);
}

#[test]
fn an_allocator_that_points_outside_denies() {
    let realloc = r#"(func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const -65536))"#;
    denies(&create_with(realloc, "", "(i32.const 1024)"), code::OUTPUT);
}

#[test]
fn an_endless_loop_in_the_allocator_runs_out_of_fuel() {
    let realloc =
        r#"(func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (loop $l (br $l)) (unreachable))"#;
    denies(&create_with(realloc, "", "(i32.const 1024)"), code::FUEL);
}

#[test]
fn a_verdict_outside_the_memory_denies() {
    denies(&create("(i32.const -16)"), code::OUTPUT);
    denies(&create("(i32.const 1048572)"), code::OUTPUT);
}

#[test]
fn a_misaligned_verdict_denies() {
    denies(&create("(i32.const 1025)"), code::OUTPUT);
}

#[test]
fn a_decision_that_does_not_exist_denies() {
    denies(&create_with(REALLOC, &verdict(9, 4, 0, 0), "(i32.const 1024)"), code::OUTPUT);
}

#[test]
fn lists_that_lie_about_their_length_deny() {
    for (at, length) in [(2048, 0x0fff_ffff), (0xffff_fff0, 1), (2048, u32::MAX), (1 << 20, 1)] {
        denies(&create_with(REALLOC, &verdict(0, 4, at, length), "(i32.const 1024)"), code::OUTPUT);
    }
}

/// One diagnostic at 2048: its code is a string at 4096 with this length.
fn diagnostic(length: u32, text: &str) -> String {
    let word = |n: u32| n.to_le_bytes().iter().map(|b| format!("\\{b:02x}")).collect::<String>();
    format!(
        r#"{} (data (i32.const 2048) "{}{}") (data (i32.const 4096) "{text}")"#,
        verdict(1, 4, 2048, 1),
        word(4096),
        word(length)
    )
}

#[test]
fn text_that_is_no_text_denies() {
    denies(&create_with(REALLOC, &diagnostic(4, r"\ff\fe\80\00"), "(i32.const 1024)"), code::OUTPUT);
    denies(&create_with(REALLOC, &diagnostic(2, r"\c3\28"), "(i32.const 1024)"), code::OUTPUT);
    denies(&create_with(REALLOC, &diagnostic(0x7fff_ffff, "x"), "(i32.const 1024)"), code::OUTPUT);
}

/// Ten thousand findings that all are the same half a megabyte: 5 GB on this side, if it were copied.
#[test]
fn a_small_policy_cannot_make_a_huge_answer() {
    let body = r"
        (local $i i32) (local $at i32)
        (loop $fill
            (local.set $at (i32.add (i32.const 524288) (i32.mul (local.get $i) (i32.const 48))))
            (i32.store (local.get $at) (i32.const 0))
            (i32.store offset=4 (local.get $at) (i32.const 500000))
            (local.set $i (i32.add (local.get $i) (i32.const 1)))
            (br_if $fill (i32.lt_u (local.get $i) (i32.const 10000))))
        (i32.store8 (i32.const 1024) (i32.const 1))
        (i32.store (i32.const 1028) (i32.const 524288))
        (i32.store (i32.const 1032) (i32.const 10000))
        (i32.const 1024)";
    denies(&create(body), code::OUTPUT);
}

#[test]
fn more_findings_than_anyone_reads_deny() {
    denies(&create_with(REALLOC, &verdict(0, 4, 65536 * 12, 1000), "(i32.const 1024)"), code::OUTPUT);
}

/// `tighten-mount` with the option `rw`.
#[test]
fn a_loosening_denies() {
    let restriction = r#"
        (data (i32.const 2048) "\04\00\00\00\00\00\00\00\00\10\00\00\05\00\00\00\20\10\00\00\01\00\00\00")
        (data (i32.const 4096) "/data")
        (data (i32.const 4128) "\30\10\00\00\02\00\00\00")
        (data (i32.const 4144) "rw")"#;
    let definitions = format!("{} {restriction}", verdict(0, 12, 2048, 1));
    denies(&create_with(REALLOC, &definitions, "(i32.const 1024)"), code::MUTATION);
}

#[test]
fn a_denial_without_a_reason_is_still_one() {
    denies(&create_with(REALLOC, &verdict(1, 4, 0, 0), "(i32.const 1024)"), code::UNEXPLAINED);
}

#[test]
fn a_start_function_is_under_the_same_limits() {
    let start = "(func $begin (loop $l (br $l))) (start $begin)";
    denies(&create_with(REALLOC, start, "(i32.const 1024)"), code::FUEL);
}

#[test]
fn settings_are_read_under_the_same_limits() {
    let wat = format!(
        r#"(module {PRELUDE} {REALLOC}
            (func (export "rlrun:policy/lifecycle@0.1.0#init") (param i32 i32) (result i32) (unreachable))
            (func (export "rlrun:policy/create@0.1.0#on-create") (param i32) (result i32) (i32.const 1024)))"#
    );
    denies(&module(&["lifecycle", "create"], &wat), code::TRAP);
}

/// The second phase can say no and nothing else: here it asks for `no-network`.
#[test]
fn the_second_phase_cannot_tighten() {
    let wat = format!(
        r#"(module {PRELUDE} {REALLOC} {} (data (i32.const 2048) "\0c")
            (func (export "rlrun:policy/validate@0.1.0#on-final") (param i32) (result i32) (i32.const 1024)))"#,
        verdict(0, 12, 2048, 1)
    );
    denies(&module(&["validate"], &wat), code::MUTATION);
}

#[test]
fn no_state_survives_an_evaluation() {
    let counter = "(global $calls (mut i32) (i32.const 0))";
    let body = r"
        (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
        (if (i32.gt_u (global.get $calls) (i32.const 1)) (then (unreachable)))
        (i32.const 1024)";
    let place = Place::new();
    place.install("counting.wasm", &create_with(REALLOC, counter, body));
    let set = place.load();
    for _ in 0..3 {
        assert!(set.evaluate(spec(), &caller()).is_ok());
    }
}

/// Why the set cannot be loaded, and that the policy is named.
fn unloadable(name: &str, bytes: &[u8]) -> String {
    let place = Place::new();
    place.install("good.wasm", &guest::allowing());
    place.install(&format!("{name}.wasm"), bytes);
    let error = PolicySet::load(&place.sources()).unwrap_err();
    assert!(matches!(error, LoadError::NotAPolicy { .. }), "{error:?}");
    let failure = error.failure();
    assert_eq!(failure.kind, rlrun_spec::Kind::Denied);
    assert!(failure.object.contains(name), "{failure}");
    format!("{failure} | {}", failure.hint.clone().unwrap_or_default())
}

#[test]
fn what_is_no_policy_is_named() {
    assert!(unloadable("empty", b"").contains("is empty"));
    assert!(unloadable("script", b"#!/bin/sh\necho hello\n").contains("is not WebAssembly"));
    assert!(unloadable("cut", &guest::allowing()[..200]).contains("cannot be made a component"));
    assert!(unloadable("garbage", b"\0asm\x0d\0\x01\0\xff\xff\xff\xff").contains("is not valid"));
    let no_hook = wat::parse_str("(component)").unwrap();
    assert!(unloadable("hookless", &no_hook).contains("exports no hook"));
    let unknown = wat::parse_str("(component (core module) (export \"run\" (core module 0)))");
    assert!(unknown.is_err() || unloadable("other", &unknown.unwrap()).contains("exports no hook"));
}

#[test]
fn an_import_that_nobody_offers_is_named_with_advice() {
    let importing = |import: &str| {
        let wat = format!(r#"(component (import "{import}" (instance (export "f" (func)))))"#);
        unloadable("importing", &wat::parse_str(wat).unwrap())
    };
    let wasi = importing("wasi:clocks/wall-clock@0.2.0");
    assert!(wasi.contains("wasi:clocks/wall-clock") && wasi.contains("wasm32-unknown-unknown"), "{wasi}");
    let reserved = importing("rlrun:policy/store@0.1.0");
    assert!(reserved.contains("reserved"), "{reserved}");
    assert!(importing("evil:net/socket").contains("nothing else"));
}

#[test]
fn a_hook_of_another_shape_denies() {
    let wat = r#"(component
        (core module $m (func (export "f")))
        (core instance $i (instantiate $m))
        (func $f (canon lift (core func $i "f")))
        (instance $create (export "on-create" (func $f)))
        (export "rlrun:policy/create@0.1.0" (instance $create)))"#;
    denies(&wat::parse_str(wat).unwrap(), code::OUTPUT);
}

#[test]
fn settings_that_nobody_reads_are_refused() {
    let place = Place::new();
    place.install("good.wasm", &guest::allowing());
    place.install("good.toml", b"limit = 3\n");
    let error = PolicySet::load(&place.sources()).unwrap_err();
    assert!(error.to_string().contains("lifecycle"), "{error}");
}

#[test]
fn code_that_is_hard_to_compile_harms_nobody() {
    // Deeper than any recursive compiler could follow.
    let body: String = "(i32.add (i32.const 1) ".repeat(40_000) + "(i32.const 1)" + &")".repeat(40_000);
    let text = format!("(module (func (export \"f\") (result i32) {body}))");
    // Either it compiles to something without hooks, or it is refused; the process survives both.
    if let Ok(bytes) = wat::parse_str(text) {
        let place = Place::new();
        place.install("large.wasm", &bytes);
        assert!(PolicySet::load(&place.sources()).is_err());
    }
}

/// A component that never stops making resources: each is kept on this side, not in the policy's memory, and takes time
/// that no fuel counts.
fn leaking() -> Vec<u8> {
    wat::parse_str(
        r#"(component
            (type $thing (resource (rep i32)))
            (core func $new (canon resource.new $thing))
            (core module $leaks
                (import "" "new" (func $new (param i32) (result i32)))
                (func $begin (loop $l (drop (call $new (i32.const 7))) (br $l)))
                (start $begin)
                (func (export "f")))
            (core instance $i (instantiate $leaks (with "" (instance (export "new" (func $new))))))
            (func $f (canon lift (core func $i "f")))
            (instance $create (export "on-create" (func $f)))
            (export "rlrun:policy/create@0.1.0" (instance $create)))"#,
    )
    .unwrap()
}

#[test]
fn resources_are_not_even_loaded() {
    assert!(unloadable("leaking", &leaking()).contains("resources"));
}

#[test]
fn a_resource_that_does_not_exist_is_not_looked_for() {
    let wat = wat::parse_str(
        r#"(component
            (type $thing (resource (rep i32)))
            (core func $drop (canon resource.drop $thing))
            (core module $drops
                (import "" "drop" (func $drop (param i32)))
                (func $begin (call $drop (i32.const 12345)))
                (start $begin)
                (func (export "f")))
            (core instance $i (instantiate $drops (with "" (instance (export "drop" (func $drop))))))
            (func $f (canon lift (core func $i "f")))
            (instance $create (export "on-create" (func $f)))
            (export "rlrun:policy/create@0.1.0" (instance $create)))"#,
    );
    assert!(unloadable("dropping", &wat.unwrap()).contains("resources"));
}
