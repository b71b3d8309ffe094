//! Writes `../src/bindings/*.rs` from `../wit`: one module for types and capabilities, one for each hook, so that a
//! policy exports the hooks it implements and no others. The result is checked in; `--check` compares.

use std::error::Error;
use std::path::{Path, PathBuf};
use wit_bindgen_core::wit_parser::Resolve;
use wit_bindgen_core::{Files, WorldGenerator as _};
use wit_bindgen_rust::{Opts, WithOption};

const WORLDS: [&str; 6] = ["capabilities", "lifecycle-hook", "image-hook", "create-hook", "validate-hook", "exec-hook"];

/// serde only where a policy wants it: a plain policy builds without any procedural macro.
const SERDE: &str =
    r#"#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "kebab-case"))]"#;

fn main() -> Result<(), Box<dyn Error>> {
    let sdk = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let check = std::env::args().any(|a| a == "--check");
    for world in WORLDS {
        let module = world.trim_end_matches("-hook");
        let path: PathBuf = sdk.join("src/bindings").join(format!("{module}.rs"));
        let text = generate(&sdk.join("wit"), world, module)?;
        if !check {
            std::fs::write(&path, text)?;
        } else if std::fs::read_to_string(&path)? != text {
            return Err(
                format!("{} is not what the WIT says: run cargo run -p rlrun-policy-bindgen", path.display()).into()
            );
        }
    }
    Ok(())
}

fn generate(wit: &Path, world: &str, module: &str) -> Result<String, Box<dyn Error>> {
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_dir(wit)?;
    let world_id = resolve.select_world(&[package], Some(world))?;
    let mut options = Opts {
        format: true,
        runtime_path: Some("crate::rt".to_owned()),
        pub_export_macro: true,
        export_macro_name: Some(format!("export_{module}")),
        default_bindings_module: Some(format!("$crate::bindings::{module}")),
        additional_derive_attributes: vec!["DERIVE_SERDE".to_owned()],
        generate_all: true,
        ..Opts::default()
    };
    if module != "capabilities" {
        let types = "crate::bindings::capabilities::rlrun::policy::types".to_owned();
        options.with = vec![("rlrun:policy/types@0.1.0".to_owned(), WithOption::Path(types))];
    }
    let mut files = Files::default();
    options.build().generate(&mut resolve, world_id, &mut files)?;
    let (_, text) = files.iter().next().ok_or("no file was generated")?;
    Ok(conditional_serde(std::str::from_utf8(text)?))
}

/// The generator knows derives only, not conditional ones.
fn conditional_serde(text: &str) -> String {
    let mut out = String::new();
    for line in text.lines() {
        let marked = line.trim_start().starts_with("#[derive(") && line.contains("DERIVE_SERDE");
        let plain = line.replace("DERIVE_SERDE, ", "").replace(", DERIVE_SERDE", "").replace("DERIVE_SERDE", "");
        if plain.trim() != "#[derive()]" {
            out.push_str(&plain);
            out.push('\n');
        }
        if marked {
            out.push_str(&" ".repeat(line.len() - line.trim_start().len()));
            out.push_str(SERDE);
            out.push('\n');
        }
    }
    out
}
