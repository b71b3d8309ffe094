//! Writes `../src/bindings/*.rs` from `../wit` and `../wit-0.2`: one module for types and capabilities, one for each
//! hook, so that a policy exports the hooks it implements and no others. The result is checked in; `--check` compares.

use std::error::Error;
use std::path::{Path, PathBuf};
use wit_bindgen_core::wit_parser::Resolve;
use wit_bindgen_core::{Files, WorldGenerator as _};
use wit_bindgen_rust::{Opts, WithOption};

/// Of the newest version that has them.
const WORLDS: [&str; 11] = [
    "rlrun:policy/capabilities@0.2.0",
    "rlrun:policy/lifecycle-hook@0.1.0",
    "rlrun:policy/image-hook@0.2.0",
    "rlrun:policy/create-hook@0.2.0",
    "rlrun:policy/validate-hook@0.2.0",
    "rlrun:policy/exec-hook@0.2.0",
    "rlrun:policy/publish-hook@0.2.0",
    "rlrun:policy/mount-hook@0.2.0",
    "rlrun:policy/copy-out-hook@0.2.0",
    "rlrun:policy/secret-hook@0.2.0",
    "rlrun:policy/exit-hook@0.2.0",
];

/// Made once, in the module of capabilities: a hook's types are the same whichever hook they come from.
const SHARED: [(&str, &str); 4] = [
    ("rlrun:policy/types@0.1.0", "policy0_1_0::types"),
    ("rlrun:policy/facts@0.2.0", "policy0_2_0::facts"),
    ("rlrun:policy/answers@0.2.0", "policy0_2_0::answers"),
    ("rlrun:policy/subject@0.2.0", "policy0_2_0::subject"),
];

/// serde only where a policy wants it: a plain policy builds without any procedural macro.
const SERDE: &str =
    r#"#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "kebab-case"))]"#;

fn main() -> Result<(), Box<dyn Error>> {
    let sdk = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let check = std::env::args().any(|a| a == "--check");
    for world in WORLDS {
        let (_, name) = world.split_once('/').ok_or("a world has a package")?;
        let module = name.split('@').next().unwrap_or(name).trim_end_matches("-hook").replace('-', "_");
        let path: PathBuf = sdk.join("src/bindings").join(format!("{module}.rs"));
        let text = generate(&sdk, world, &module)?;
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

fn generate(sdk: &Path, world: &str, module: &str) -> Result<String, Box<dyn Error>> {
    let mut resolve = Resolve::default();
    let (first, _) = resolve.push_dir(sdk.join("wit"))?;
    let (second, _) = resolve.push_dir(sdk.join("wit-0.2"))?;
    let world_id = resolve.select_world(&[first, second], Some(world))?;
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
        let at = |path: &str| WithOption::Path(format!("crate::bindings::capabilities::rlrun::{path}"));
        // Naming one that a world does not use is an error to the generator.
        let used: Vec<String> = resolve.worlds[world_id].imports.keys().map(|key| resolve.name_world_key(key)).collect();
        let shared = SHARED.iter().filter(|(interface, _)| used.iter().any(|name| name == interface));
        options.with = shared.map(|(interface, path)| ((*interface).to_owned(), at(path))).collect();
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
