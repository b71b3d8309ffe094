//! Puts the built-in policies into the program: `$RLRUN_POLICY_OUT/*.wasm` of the names below, each with its digest.
//! Without them the crate still builds, for its own tests, and what it builds starts no container with them on.

use sha2::{Digest, Sha256};
use std::env;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// What a container is checked against when nobody chose anything.
const BUILTINS: [&str; 1] = ["baseline"];

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-env-changed=RLRUN_POLICY_OUT");
    let directory = env::var_os("RLRUN_POLICY_OUT").map(PathBuf::from);
    let mut table = String::from("&[");
    for name in BUILTINS {
        let Some(path) = directory.as_ref().map(|d| d.join(format!("{name}.wasm"))) else { continue };
        println!("cargo::rerun-if-changed={}", path.display());
        if path.exists() {
            table.push_str(&row(name, &path)?);
        } else {
            println!("cargo::warning={} is missing: built without the policy {name}", path.display());
        }
    }
    table.push(']');
    let out = env::var_os("OUT_DIR").map(PathBuf::from).unwrap_or_default().join("builtins.rs");
    fs::File::create(out)?.write_all(table.as_bytes())
}

fn row(name: &str, path: &Path) -> io::Result<String> {
    let digest = Sha256::digest(fs::read(path)?);
    let mut hex = String::new();
    for byte in digest {
        write!(hex, "{byte:02x}").map_err(io::Error::other)?;
    }
    let path = path.canonicalize()?;
    Ok(format!("Builtin {{ name: {name:?}, wasm: include_bytes!({path:?}), sha256: {hex:?} }},"))
}
