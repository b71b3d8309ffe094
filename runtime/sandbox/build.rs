//! Turns `data/seccomp.toml` into a table of constants: a run neither parses nor ships the file, and a slip in it
//! stops the build.

#[cfg(feature = "seccomp-compile")]
mod table {
    use serde::Deserialize;
    use std::fmt::Write as _;

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Profile {
        default: Default,
        group: Vec<Group>,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Default {
        action: String,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Group {
        name: String,
        action: String,
        with: Option<String>,
        without: Option<String>,
        r#else: Option<String>,
        calls: Vec<String>,
        #[serde(default)]
        any_of: Vec<Vec<Condition>>,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Condition {
        arg: usize,
        mask: u64,
        value: u64,
    }

    /// Numbers that x86_64 and aarch64 share (errno(3)).
    fn errno(name: &str) -> Result<u32, String> {
        match name {
            "EPERM" => Ok(1),
            "EINVAL" => Ok(22),
            "ENOSYS" => Ok(38),
            "EAFNOSUPPORT" => Ok(97),
            _ => Err(format!("{name} is neither allow nor a known errno")),
        }
    }

    fn action(name: &str) -> Result<String, String> {
        if name == "allow" { Ok("Action::Allow".to_owned()) } else { Ok(format!("Action::Errno({})", errno(name)?)) }
    }

    fn condition(condition: &Condition) -> Result<String, String> {
        let Condition { arg, mask, value } = *condition;
        if arg > 5 || value & !mask != 0 {
            return Err(format!("argument {arg} never has {value:#x} under the mask {mask:#x}"));
        }
        Ok(format!("Condition {{ arg: {arg}, mask: {mask:#x}, value: {value:#x} }}"))
    }

    fn group(group: &Group) -> Result<String, String> {
        let when = match (&group.with, &group.without) {
            (None, None) => "When::Always".to_owned(),
            (Some(cap), None) => format!("When::With({cap:?})"),
            (None, Some(cap)) => format!("When::Without({cap:?})"),
            (Some(_), Some(_)) => return Err("has both with and without".to_owned()),
        };
        let otherwise = match &group.r#else {
            Some(_) if group.with.is_none() => return Err("has else but no with".to_owned()),
            Some(name) => format!("Some({})", errno(name)?),
            None => "None".to_owned(),
        };
        let any_of: Result<Vec<String>, String> = group
            .any_of
            .iter()
            .map(|all| Ok(format!("&[{}]", all.iter().map(condition).collect::<Result<Vec<_>, _>>()?.join(", "))))
            .collect();
        Ok(format!(
            "Group {{ name: {:?}, action: {}, when: {when}, otherwise: {otherwise}, calls: &{:?}, any_of: &[{}] }},\n",
            group.name,
            action(&group.action)?,
            group.calls,
            any_of?.join(", "),
        ))
    }

    /// The table as Rust.
    pub fn generate(text: &str) -> Result<String, String> {
        let profile: Profile = toml::from_str(text).map_err(|e| e.to_string())?;
        let mut code = format!("const DEFAULT_ERRNO: u32 = {};\n", errno(&profile.default.action)?);
        code.push_str("const GROUPS: &[Group] = &[\n");
        for entry in &profile.group {
            let line = group(entry).map_err(|e| format!("group {:?}: {e}", entry.name))?;
            write!(code, "    {line}").map_err(|e| e.to_string())?;
        }
        code.push_str("];\n");
        Ok(code)
    }
}

#[cfg(feature = "seccomp-compile")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let data = "data/seccomp.toml";
    println!("cargo::rerun-if-changed={data}");
    println!("cargo::rerun-if-changed=build.rs");
    let code = table::generate(&std::fs::read_to_string(data)?).map_err(|e| format!("{data}: {e}"))?;
    let out = std::path::Path::new(&std::env::var("OUT_DIR")?).join("seccomp_groups.rs");
    std::io::Write::write_all(&mut std::fs::File::create(out)?, code.as_bytes())?;
    Ok(())
}

#[cfg(not(feature = "seccomp-compile"))]
fn main() {
    println!("cargo::rerun-if-changed=build.rs");
}
