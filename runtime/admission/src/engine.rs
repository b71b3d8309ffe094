//! The one engine configuration. Compiler and host must agree on it, so both call [`config`].

use wasmtime::{Config, Engine, OperatorCost};

/// Raised with every change of [`config`] and of what the compiler adds to it; part of the cache's key.
pub const CONFIG_ID: &str = "2";

/// The version that the workspace pins, part of the cache's key.
pub const WASMTIME_VERSION: &str = "48.0.8";

/// The configuration, the same for compiling and running.
#[must_use]
pub fn config() -> Config {
    let mut config = Config::new();
    config.consume_fuel(true);
    config.operator_cost(costs());
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

/// Fuel by operation: one unit, but for those that can take long. A load that misses every cache takes as long as a
/// hundred additions; what the engine does outside of compiled code has the price of a call there. Without this a
/// policy of nothing but such operations would run for minutes on fuel that lasts an ordinary one for a blink.
fn costs() -> OperatorCost {
    let mut costs = OperatorCost::new();
    macro_rules! cost {
        ($($fuel:literal: $($operator:ident)+;)+) => { $($(costs.$operator = $fuel;)+)+ };
    }
    cost! {
        8: I32Load I64Load F32Load F64Load I32Load8S I32Load8U I32Load16S I32Load16U
           I64Load8S I64Load8U I64Load16S I64Load16U I64Load32S I64Load32U
           V128Load V128Load8x8S V128Load8x8U V128Load16x4S V128Load16x4U V128Load32x2S V128Load32x2U
           V128Load8Splat V128Load16Splat V128Load32Splat V128Load64Splat V128Load32Zero V128Load64Zero
           V128Load8Lane V128Load16Lane V128Load32Lane V128Load64Lane;
        4: I32Store I64Store F32Store F64Store I32Store8 I32Store16 I64Store8 I64Store16 I64Store32
           V128Store V128Store8Lane V128Store16Lane V128Store32Lane V128Store64Lane Call;
        8: I32DivS I32DivU I32RemS I32RemU I64DivS I64DivU I64RemS I64RemU CallIndirect TableGet TableSet;
        // Numbers near zero take a slow way in some processors.
        8: F32Add F32Sub F32Mul F32Div F32Sqrt F64Add F64Sub F64Mul F64Div F64Sqrt
           F32x4Add F32x4Sub F32x4Mul F32x4Div F32x4Sqrt F64x2Add F64x2Sub F64x2Mul F64x2Div F64x2Sqrt;
        8: F32Ceil F32Floor F32Trunc F32Nearest F64Ceil F64Floor F64Trunc F64Nearest;
        16: RefFunc MemoryCopy MemoryFill MemoryInit TableCopy TableFill TableInit DataDrop ElemDrop;
        255: MemoryGrow TableGrow;
    }
    costs.variable.memory_grow_per_page = 255;
    costs.variable.table_grow_per_element = 4;
    // Each function in a table is looked up when it is first copied.
    costs.variable.table_copy_per_element = 16;
    costs.variable.table_init_per_element = 16;
    costs
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
