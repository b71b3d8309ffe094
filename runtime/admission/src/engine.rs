//! The one engine configuration. Compiler and host must agree on it, so both call [`config`].

use wasmtime::{Config, Engine};

/// Raised with every change of [`config`] and of what the compiler adds to it; part of the cache's key.
pub const CONFIG_ID: &str = "1";

/// The version that the workspace pins, part of the cache's key.
pub const WASMTIME_VERSION: &str = "48.0.8";

/// The configuration, the same for compiling and running.
#[must_use]
pub fn config() -> Config {
    let mut config = Config::new();
    config.consume_fuel(true);
    config.max_wasm_stack(512 << 10);
    // Not gigabytes of address space: policies run under `ulimit -v` and strict overcommit too.
    config.memory_reservation(64 << 20);
    config.memory_reservation_for_growth(1 << 20);
    // Nobody reads a policy's backtrace: without its tables the code is a fifth smaller and loads faster.
    config.wasm_backtrace_max_frames(None);
    config.generate_address_map(false);
    config.native_unwind_info(false);
    // Whatever may differ between machines stays out: the same request gives the same verdict everywhere.
    config.wasm_relaxed_simd(false);
    config.wasm_memory64(false);
    config
}

pub(crate) fn engine() -> wasmtime::Result<Engine> {
    Engine::new(&config())
}

/// What the machine code depends on beside the policy itself, as a file name part.
#[must_use]
pub fn target_key() -> String {
    format!("{WASMTIME_VERSION}-{CONFIG_ID}-{}-{}", std::env::consts::ARCH, cpu_features())
}

/// The features that Cranelift detects on the host, as hexadecimal bits. A home directory on NFS serves machines
/// that differ in them.
#[cfg(target_arch = "x86_64")]
fn cpu_features() -> String {
    use std::arch::is_x86_feature_detected as has;
    let features = [
        has!("sse3"),
        has!("ssse3"),
        has!("sse4.1"),
        has!("sse4.2"),
        has!("popcnt"),
        has!("avx"),
        has!("avx2"),
        has!("fma"),
        has!("bmi1"),
        has!("bmi2"),
        has!("lzcnt"),
        has!("avx512bitalg"),
        has!("avx512dq"),
        has!("avx512f"),
        has!("avx512vl"),
        has!("avx512vbmi"),
        has!("cmpxchg16b"),
    ];
    bits(&features)
}

#[cfg(target_arch = "aarch64")]
fn cpu_features() -> String {
    use std::arch::is_aarch64_feature_detected as has;
    bits(&[has!("lse"), has!("paca"), has!("fp16")])
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn cpu_features() -> String {
    bits(&[])
}

fn bits(features: &[bool]) -> String {
    let bits = features.iter().rev().fold(0u32, |bits, f| bits << 1 | u32::from(*f));
    format!("{bits:x}")
}
