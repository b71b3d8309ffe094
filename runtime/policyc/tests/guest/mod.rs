//! Policies written in WAT: core modules that follow the canonical ABI, or break it, with the WIT embedded as a
//! compiler would have done; `rlrun-policyc` makes components of them.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::path::Path;
use wit_component::{StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// Hooks that only 0.2 has; all others are those of 0.1.
const NEW: [&str; 8] = ["publish", "mount", "secret", "copy-out", "exit", "connect", "syscall", "events"];

/// A module that exports these hooks (`create`, `validate`, ...).
pub fn module(hooks: &[&str], wat: &str) -> Vec<u8> {
    let mut resolve = Resolve::default();
    let sdk = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../policy-sdk");
    resolve.push_dir(sdk.join("wit")).unwrap();
    resolve.push_dir(sdk.join("wit-0.2")).unwrap();
    let version = |hook: &str| if NEW.contains(&hook) { "0.2.0" } else { "0.1.0" };
    let mut includes: String = hooks.iter().map(|h| format!("include rlrun:policy/{h}-hook@{};", version(h))).collect();
    for capability in ["clock", "data", "log", "oci"] {
        if wat.contains(&format!("\"rlrun:policy/{capability}@0.1.0\"")) {
            includes.push_str(&format!("import rlrun:policy/{capability}@0.1.0;"));
        }
    }
    let package =
        resolve.push_str("world.wit", &format!("package test:policy; world policy {{ {includes} }}")).unwrap();
    let world = resolve.select_world(&[package], Some("policy")).unwrap();
    let mut module = wat::parse_str(wat).unwrap();
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
    module
}

/// What most of them have in common. A verdict of zeros at 1024 says: allow, nothing else. Requests are written from
/// 65536 upwards.
pub const PRELUDE: &str = r#"
    (memory (export "memory") 16)
    (global $next (mut i32) (i32.const 65536))
    (func $allocate (param $size i32) (result i32)
        (local $at i32)
        (local.set $at (i32.and (i32.add (global.get $next) (i32.const 15)) (i32.const -16)))
        (global.set $next (i32.add (local.get $at) (local.get $size)))
        (local.get $at))
"#;

pub const REALLOC: &str = r#"
    (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (call $allocate (local.get 3)))
"#;

/// A policy whose `on-create` is this body.
pub fn create(body: &str) -> Vec<u8> {
    create_with(REALLOC, "", body)
}

/// The same with more definitions and another allocator.
pub fn create_with(realloc: &str, definitions: &str, body: &str) -> Vec<u8> {
    module(
        &["create"],
        &format!(
            r#"(module {PRELUDE} {realloc} {definitions}
                (func (export "rlrun:policy/create@0.1.0#on-create") (param i32) (result i32) {body}))"#
        ),
    )
}

/// A well-behaved policy that allows everything.
pub fn allowing() -> Vec<u8> {
    create("(i32.const 1024)")
}

/// Data that make the verdict at 1024: a decision, and one list at its offset in the record (diagnostics 4,
/// restrictions 12).
pub fn verdict(decision: u8, list_offset: u32, at: u32, length: u32) -> String {
    let word = |n: u32| n.to_le_bytes().iter().map(|b| format!("\\{b:02x}")).collect::<String>();
    format!(
        r#"(data (i32.const 1024) "\{decision:02x}") (data (i32.const {}) "{}{}")"#,
        1024 + list_offset,
        word(at),
        word(length)
    )
}
