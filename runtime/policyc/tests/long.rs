//! Policies that try to take long: each operation in an endless loop that costs the processor most for what it costs in
//! fuel. Each is stopped by fuel, by memory or by what it may ask for, denies, is named, and leaves the next evaluation
//! untouched. That none of them takes longer than its share is told by fuel, not by a clock.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod common;
mod guest;

use common::{Place, caller, spec, told};
use guest::{PRELUDE, REALLOC, create, create_with, module, verdict};
use rlrun_spec::ContainerSpec;
use rlrun_spec::container::{PortMapping, Protocol};
use rlrun_spec::policy::code;
use std::fs;

/// Beside a well-behaved policy: one verdict, nobody else is blamed, and the next evaluation is as if nothing had been.
fn ends(policy: &[u8], expected: &str) {
    let place = Place::new();
    place.install("good.wasm", &guest::allowing());
    place.install("hostile.wasm", policy);
    let begun = std::time::Instant::now();
    let denied = place.load().evaluate(spec(), &caller()).unwrap_err();
    println!("{expected} after {:?}", begun.elapsed());
    assert_eq!(told(&denied), [("hostile", vec![expected])]);
    fs::remove_file(place.path("config/policy.d/hostile.wasm")).unwrap();
    assert!(place.load().evaluate(spec(), &caller()).is_ok());
}

/// For ever, with 60 MiB of memory and 90 000 elements in a table.
fn endless(definitions: &str, step: &str) -> Vec<u8> {
    let data = "x".repeat(4096);
    let definitions =
        format!("(table $t 90000 90000 funcref) (elem declare func $allocate) (data $d \"{data}\") {definitions}");
    let body = format!("(local $p i32) (drop (memory.grow (i32.const 900))) (loop $l {step} (br $l)) (unreachable)");
    create_with(REALLOC, &definitions, &body)
}

#[test]
fn large_ranges_of_memory_cost_what_they_hold() {
    ends(&endless("", "(memory.fill (i32.const 131072) (i32.const 7) (i32.const 50000000))"), code::FUEL);
    ends(&endless("", "(memory.copy (i32.const 131072) (i32.const 25000000) (i32.const 24000000))"), code::FUEL);
    ends(&endless("", "(memory.init $d (i32.const 131072) (i32.const 0) (i32.const 4096))"), code::FUEL);
}

#[test]
fn growing_by_nothing_is_not_for_nothing() {
    ends(&endless("", "(drop (memory.grow (i32.const 0)))"), code::FUEL);
    ends(&endless("(table $grows 1 funcref)", "(drop (table.grow $grows (ref.null func) (i32.const 0)))"), code::FUEL);
}

#[test]
fn a_table_that_grows_step_by_step_ends() {
    let table = "(table $grows 1 funcref)";
    ends(&endless(table, "(drop (table.grow $grows (ref.null func) (i32.const 1)))"), code::MEMORY);
}

#[test]
fn tables_cost_what_they_hold() {
    ends(&endless("", "(table.fill $t (i32.const 0) (ref.func $allocate) (i32.const 90000))"), code::FUEL);
    ends(&endless("", "(table.copy $t $t (i32.const 0) (i32.const 45000) (i32.const 45000))"), code::FUEL);
    let elements = format!("(elem $e func {})", "$allocate ".repeat(1000));
    ends(&endless(&elements, "(table.init $t $e (i32.const 0) (i32.const 0) (i32.const 1000))"), code::FUEL);
}

#[test]
fn references_to_functions_have_the_price_of_a_call() {
    ends(&endless("", &"(drop (ref.func $allocate))".repeat(100)), code::FUEL);
    ends(&endless("(elem $none func $allocate)", &"(elem.drop $none)".repeat(100)), code::FUEL);
}

/// Each load waits for the one before it, and finds nothing in a cache: a chain through 32 MiB in no order.
#[test]
fn loads_that_miss_every_cache_cost_more() {
    let fill = r"
        (local $i i32) (local $p i32)
        (drop (memory.grow (i32.const 900)))
        (loop $fill
            (i32.store
                (i32.add (i32.const 131072) (i32.shl (local.get $i) (i32.const 6)))
                (i32.add (i32.const 131072) (i32.shl
                    (i32.and
                        (i32.add (i32.mul (local.get $i) (i32.const 1664525)) (i32.const 1013904223))
                        (i32.const 0x7ffff))
                    (i32.const 6))))
            (local.set $i (i32.add (local.get $i) (i32.const 1)))
            (br_if $fill (i32.lt_u (local.get $i) (i32.const 0x80000))))
        (local.set $p (i32.const 131072))
        (loop $chase (local.set $p CHAIN) (br $chase))
        (unreachable)";
    let chain = format!("{}(local.get $p){}", "(i32.load ".repeat(200), ")".repeat(200));
    ends(&create(&fill.replace("CHAIN", &chain)), code::FUEL);
}

#[test]
fn divisions_and_roots_cost_more() {
    let divide = "(local.set $p (i32.div_u (i32.const -1) (i32.or (local.get $p) (i32.const 1))))";
    ends(&endless("", &divide.repeat(50)), code::FUEL);
    let root = "(local.set $p (i32.trunc_sat_f64_u (f64.sqrt (f64.div (f64.const 1e-310) (f64.convert_i32_u (local.get $p))))))";
    ends(&endless("", &root.repeat(50)), code::FUEL);
}

/// A policy that imports something and asks for it without end.
fn asking(import: &str, step: &str) -> Vec<u8> {
    let wat = format!(
        r#"(module {import} {PRELUDE} {REALLOC}
            (func (export "rlrun:policy/create@0.1.0#on-create") (param i32) (result i32)
                (loop $l {step} (global.set $next (i32.const 65536)) (br $l)) (unreachable)))"#
    );
    module(&["create"], &wat)
}

#[test]
fn what_is_imported_is_not_endless() {
    let log = r#"(import "rlrun:policy/log@0.1.0" "log" (func $log (param i32 i32 i32)))"#;
    ends(&asking(log, "(call $log (i32.const 0) (i32.const 0) (i32.const 0))"), code::FUEL);
    ends(&asking(log, "(call $log (i32.const 0) (i32.const 600000) (i32.const 400000))"), code::FUEL);
    let config = r#"(import "rlrun:policy/oci@0.1.0" "config" (func $config (param i32)))"#;
    ends(&asking(config, "(call $config (i32.const 1024))"), code::FUEL);
    let data = r#"(import "rlrun:policy/data@0.1.0" "get" (func $get (param i32 i32 i32)))"#;
    ends(&asking(data, "(call $get (i32.const 2048) (i32.const 4) (i32.const 1024))"), code::FUEL);
    let keys = r#"(import "rlrun:policy/data@0.1.0" "keys" (func $keys (param i32)))"#;
    ends(&asking(keys, "(call $keys (i32.const 1024))"), code::FUEL);
}

#[test]
fn settings_have_a_budget_too() {
    let wat = format!(
        r#"(module {PRELUDE} {REALLOC}
            (func (export "rlrun:policy/lifecycle@0.1.0#init") (param i32 i32) (result i32)
                (loop $l (drop (memory.grow (i32.const 0))) (br $l)) (unreachable))
            (func (export "rlrun:policy/create@0.1.0#on-create") (param i32) (result i32) (i32.const 1024)))"#
    );
    ends(&module(&["lifecycle", "create"], &wat), code::FUEL);
}

/// A question a port: together they have what one evaluation has, not each its own.
#[test]
fn many_questions_share_one_budget() {
    let spin = "(local $i i32) (loop $l (local.set $i (i32.add (local.get $i) (i32.const 1))) (br_if $l (i32.lt_u (local.get $i) (i32.const 12000000))))";
    let wat = format!(
        r#"(module {PRELUDE} {REALLOC}
            (func (export "rlrun:policy/publish@0.2.0#on-publish") (param i32) (result i32) {spin} (i32.const 1024)))"#
    );
    let place = Place::new();
    place.install("hostile.wasm", &module(&["publish"], &wat));
    let set = place.load();
    let with_ports = |count: u16| {
        let port = |n: u16| PortMapping {
            host_ip: "127.0.0.1".parse().unwrap(),
            host_port: 10_000 + n,
            container_port: n + 1,
            protocol: Protocol::Tcp,
        };
        let mut parts = spec().parts().clone();
        parts.ports = (0..count).map(port).collect();
        ContainerSpec::new(parts).unwrap()
    };
    assert!(set.evaluate(with_ports(2), &caller()).is_ok());
    let denied = set.evaluate(with_ports(12), &caller()).unwrap_err();
    // What follows finds an instance that was stopped.
    let (policy, codes) = &told(&denied)[0];
    assert_eq!((*policy, codes[0]), ("hostile", code::FUEL));
}

/// A megabyte of rules of egress: blocks and ports that make half a million pairs.
#[test]
fn rules_that_multiply_are_refused() {
    // `egress-only` with one rule at 4096: the block at 8192, all ports at 65536 * 4.
    let body = r#"
        (local $i i32)
        (drop (memory.grow (i32.const 8)))
        (loop $ports
            (i32.store16 (i32.add (i32.const 262144) (i32.shl (local.get $i) (i32.const 1))) (i32.add (local.get $i) (i32.const 1)))
            (local.set $i (i32.add (local.get $i) (i32.const 1)))
            (br_if $ports (i32.lt_u (local.get $i) (i32.const 60000))))
        (i32.const 1024)"#;
    let word = |n: u32| n.to_le_bytes().iter().map(|b| format!("\\{b:02x}")).collect::<String>();
    let rule = format!("{}{}{}{}{}{}", word(8192), word(9), word(262_144), word(60_000), word(8256), word(3));
    let definitions = format!(
        r#"{} (data (i32.const 2048) "\0b\00\00\00\00\00\00\00{}{}") (data (i32.const 4096) "{rule}")
            (data (i32.const 8192) "0.0.0.0/0") (data (i32.const 8256) "tcp")"#,
        verdict(0, 12, 2048, 1),
        word(4096),
        word(1),
    );
    ends(&create_with(REALLOC, &definitions, body), code::MUTATION);
}
