//! Compiles the C programs of the tests: `warden`, which runs on the host, `probe` and `eat`, which run in containers.

#![allow(clippy::expect_used, reason = "a build script reports by panicking")]

use std::path::PathBuf;
use std::process::Command;

fn main() {
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    // Static: images hold no libc, and the warden must not depend on what a test does to the host's paths.
    for name in ["warden", "probe", "eat"] {
        let source = format!("payloads/{name}.c");
        println!("cargo::rerun-if-changed={source}");
        let status = Command::new(&compiler)
            .args(["-static", "-O1", "-Wall", "-Wextra", "-o"])
            .arg(out.join(name))
            .arg(&source)
            .status()
            .expect("a C compiler is installed");
        assert!(status.success(), "{source} does not compile");
    }
}
