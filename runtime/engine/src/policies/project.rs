//! A policy's project: a directory with `policy.toml`, which says what it is called and how it is built.

use crate::place::{own_program, own_share};
use rlrun_admission::{Work, code, metadata};
use rlrun_spec::{Failure, Kind, Stage};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What a project is described by.
pub const FILE: &str = "policy.toml";
/// Beside it, for the policy's settings.
const SCHEMA: &str = "settings.schema.json";
/// Tells build scripts where the author's kit is.
const SDK: &str = "RLRUN_POLICY_SDK";

/// `policy.toml`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Description {
    name: String,
    #[serde(default)]
    version: String,
    #[serde(default)]
    description: String,
    build: Build,
    /// What each code means.
    #[serde(default)]
    codes: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Build {
    /// What builds it, and what that leaves.
    #[serde(default)]
    command: Vec<String>,
    output: Option<PathBuf>,
    #[serde(default)]
    needs: Vec<Need>,
    /// Or a text that needs no building, and the hooks that it has.
    text: Option<PathBuf>,
    hooks: Option<Vec<String>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Need {
    program: String,
    /// How to get it.
    get: String,
}

/// A project.
#[derive(Clone, Debug)]
pub struct Project {
    dir: PathBuf,
    description: Description,
}

/// What was built.
#[derive(Clone, Debug)]
pub struct Built {
    /// The component.
    pub path: PathBuf,
    /// Its size.
    pub bytes: usize,
}

fn failure(step: &str, operation: &str, object: impl AsRef<Path>) -> Failure {
    Failure::new(Stage::Cli, Kind::Usage, step, operation, object.as_ref().display().to_string())
}

impl Project {
    /// Reads `policy.toml` of a directory.
    ///
    /// # Errors
    /// When there is none, or it says something else than a project.
    pub fn open(dir: &Path) -> Result<Self, Failure> {
        let path = dir.join(FILE);
        let wrong = |why: String| {
            failure("read-project", "read the policy's project", &path)
                .why(why)
                .hint("`rlrun policy new NAME --lang rust` makes a project")
        };
        let text = std::fs::read_to_string(&path).map_err(|e| wrong(e.to_string()))?;
        let description: Description = toml::from_str(&text).map_err(|e| wrong(rlrun_admission::of_toml(&e, &text)))?;
        check_name(&description.name)?;
        let Build { command, output, text, hooks, .. } = &description.build;
        match (command.is_empty(), output, text) {
            (false, Some(_), None) if hooks.is_none() => {}
            (true, None, Some(_)) => {}
            _ => {
                let why = "[build] holds either `command` and `output`, or `text` and, where it has others than \
                           `create`, `hooks`";
                return Err(wrong(why.to_owned()));
            }
        }
        Ok(Project { dir: dir.to_owned(), description })
    }

    /// The component of this project.
    #[must_use]
    pub fn component(&self) -> PathBuf {
        self.dir.join(format!("{}.wasm", self.description.name))
    }

    /// Drives the language's tool and makes a component of what it leaves, with the project's own description in it.
    ///
    /// # Errors
    /// When a program is missing, the tool fails, or what it made is no policy.
    pub fn build(&self, output: Option<&Path>) -> Result<Built, Failure> {
        let Build { command, output: made, needs, text, hooks } = &self.description.build;
        let missing: Vec<&Need> = needs.iter().filter(|need| !is_there(&self.dir, &need.program)).collect();
        if let Some(first) = missing.first() {
            let names: Vec<&str> = missing.iter().map(|need| need.program.as_str()).collect();
            let get: Vec<&str> = missing.iter().map(|need| need.get.as_str()).collect();
            let failed = failure("build-policy", "build the policy", &self.description.name);
            return Err(match missing.len() {
                1 => failed.why(format!("{} is not installed", first.program)).hint(first.get.clone()),
                _ => failed.why(format!("{} are not installed", names.join(", "))).hint(get.join("; ")),
            });
        }
        let target = output.map_or_else(|| self.component(), Path::to_path_buf);
        if let Some(text) = text {
            let text = Text::read(&self.dir.join(text), &self.description.name, hooks.as_deref())?;
            let mut described = self.metadata()?;
            described["hooks"] = json!(text.hooks);
            return text.build(&self.description.name, &described, &target);
        }
        self.drive(command)?;
        let path = self.dir.join(made.as_deref().unwrap_or(Path::new("")));
        let wasm = std::fs::read(&path).map_err(|e| {
            failure("build-policy", "read what was built", &path)
                .why(e.to_string())
                .hint(format!("build.output of {FILE} names what build.command makes"))
        })?;
        finish(&self.description.name, &wasm, &json!({}), Work::Component, &self.metadata()?, &target)
    }

    fn drive(&self, command: &[String]) -> Result<(), Failure> {
        let failed = || failure("build-policy", "build the policy with", command.join(" "));
        let (program, arguments) = command.split_first().ok_or_else(failed)?;
        let mut child = Command::new(program);
        child.args(arguments).current_dir(&self.dir).stdin(Stdio::null());
        // What the tool says is no output of this command.
        child.stdout(std::io::stderr());
        if let Ok(sdk) = own_share(SDK_DIR) {
            child.env(SDK, sdk);
        }
        let status = child.status().map_err(|e| failed().why(e.to_string()))?;
        if status.success() { Ok(()) } else { Err(failed().why(format!("{status}")).hint("its messages stand above")) }
    }

    fn metadata(&self) -> Result<Value, Failure> {
        let Description { name, version, description, codes, .. } = &self.description;
        let mut metadata = json!({"name": name, "version": version, "description": description});
        if !codes.is_empty() {
            metadata["codes"] = json!(codes);
        }
        let path = self.dir.join(SCHEMA);
        if path.exists() {
            let wrong = |why: String| failure("build-policy", "read the schema of the settings", &path).why(why);
            let text = std::fs::read(&path).map_err(|e| wrong(e.to_string()))?;
            metadata["settings"] = serde_json::from_slice(&text).map_err(|e| wrong(e.to_string()))?;
        }
        Ok(metadata)
    }
}

/// The author's kit, below `share/rlrun`.
const SDK_DIR: &str = "policy-sdk";

/// Encodes, describes, and puts it where it is to be, all or nothing.
fn finish(
    name: &str,
    wasm: &[u8],
    settings: &Value,
    work: Work,
    described: &Value,
    target: &Path,
) -> Result<Built, Failure> {
    let policyc = own_program("rlrun-policyc")?;
    let component =
        code::component(&policyc, name, wasm, &settings.to_string(), work).map_err(|e| super::denied_as_usage(&e))?;
    let component = metadata::write(&component, described);
    replace(target, &component).map_err(|e| failure("build-policy", "write the policy", target).why(e.to_string()))?;
    Ok(Built { path: target.to_owned(), bytes: component.len() })
}

/// A policy that is a text, and what reads it: a policy that comes with rlrun.
struct Text {
    path: PathBuf,
    reader: &'static str,
    settings: Value,
    hooks: Vec<String>,
}

impl Text {
    fn read(path: &Path, name: &str, hooks: Option<&[String]>) -> Result<Text, Failure> {
        let failed = || failure("build-policy", "build a policy of", path);
        let source = std::fs::read_to_string(path).map_err(|e| failed().why(e.to_string()))?;
        let hooks = hooks.map_or_else(|| vec!["create".to_owned()], <[String]>::to_vec);
        if hooks.is_empty() {
            return Err(failed().why("`hooks` names none: it would never be asked").hint("hooks = [\"create\"]"));
        }
        let (reader, settings) = match path.extension().and_then(|e| e.to_str()) {
            Some("rego") => ("rego", json!({"policy": source, "hooks": hooks})),
            Some("js") => ("javascript", json!({"policy": source, "hooks": hooks})),
            Some("cel") => (
                "cel",
                json!({"rule": hooks.iter().map(|hook| json!({
                    "hook": hook,
                    "expression": source.trim(),
                    "code": name.to_uppercase(),
                    "message": format!("{name} does not hold"),
                })).collect::<Vec<_>>()}),
            ),
            _ => {
                let why = "is neither NAME.rego nor NAME.cel nor NAME.js, nor a directory with a policy.toml";
                return Err(failed().why(why));
            }
        };
        Ok(Text { path: path.to_owned(), reader, settings, hooks })
    }

    fn build(&self, name: &str, described: &Value, target: &Path) -> Result<Built, Failure> {
        let component = own_share("policies")?.join(format!("{}.wasm", self.reader));
        let wasm = std::fs::read(&component)
            .map_err(|e| failure("build-policy", "read the policy that reads it", &component).why(e.to_string()))?;
        super::accepts(&component, &self.settings).map_err(|failed| {
            let object = self.path.display().to_string();
            Failure { object, ..failed }.hint(format!("the policy {} that reads it says so", self.reader))
        })?;
        finish(name, &wasm, &self.settings, Work::SetUp, described, target)
    }
}

/// Makes a policy of a text: `foo.rego`, `foo.cel` or `foo.js` becomes a component that holds it.
///
/// # Errors
/// When the text is wrong, or the policy that reads it is not installed.
pub fn build_text(path: &Path, output: Option<&Path>) -> Result<Built, Failure> {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    check_name(&stem)?;
    let text = Text::read(path, &stem, None)?;
    let described = json!({
        "name": stem,
        "description": format!("{} as text", path.file_name().unwrap_or_default().to_string_lossy()),
        "settings": {"type": "object", "properties": {}, "additionalProperties": text.reader == "javascript"},
        "hooks": text.hooks,
    });
    let target = output.map_or_else(|| path.with_extension("wasm"), Path::to_path_buf);
    text.build(&stem, &described, &target)
}

/// Puts a file where it is to be, all or nothing; a link there is replaced, not followed.
///
/// # Errors
/// When it cannot be written.
pub fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::io::Write as _;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}", std::process::id()));
    let temporary = path.with_file_name(name);
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).open(&temporary)?;
    if let Ok(old) = std::fs::symlink_metadata(path)
        && old.is_file()
    {
        file.set_permissions(old.permissions())?;
    }
    file.write_all(bytes).and_then(|()| std::fs::rename(&temporary, path)).inspect_err(|_| {
        // The first error is the one to tell.
        std::fs::remove_file(&temporary).unwrap_or_default();
    })
}

/// A name is a file's, a crate's and a setting's.
fn check_name(name: &str) -> Result<(), Failure> {
    let fits = name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    if fits && name.len() <= 64 {
        return Ok(());
    }
    Err(failure("policy-name", "use as a policy's name", name)
        .why("a name begins with a letter and holds small letters, digits and hyphens, 64 at most"))
}

fn is_there(dir: &Path, program: &str) -> bool {
    if program.contains('/') {
        return dir.join(program).exists();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

/// Makes a new project of a template; None for the name of a language lists what there is.
///
/// # Errors
/// When there is no such template, or something is there already.
pub fn create(name: &str, language: &str, dir: &Path) -> Result<(), Failure> {
    check_name(name)?;
    let sdk = own_share(SDK_DIR)?;
    let templates = sdk.join("templates");
    let template = templates.join(language);
    if language.contains(['/', '.']) || !template.is_dir() {
        let mut known: Vec<String> = std::fs::read_dir(&templates)
            .map(|entries| entries.flatten().filter_map(|e| e.file_name().into_string().ok()).collect())
            .unwrap_or_default();
        known.sort();
        return Err(failure("new-policy", "find a template for", language)
            .why("there is none")
            .hint(format!("choose one of: {}", known.join(", "))));
    }
    let words =
        [("@NAME@", name.to_owned()), ("@CRATE@", name.replace('-', "_")), ("@SDK@", sdk.display().to_string())];
    std::fs::create_dir(dir).map_err(|e| failure("new-policy", "make the directory", dir).why(e.to_string()))?;
    copy(&template, dir, &words).map_err(|e| failure("new-policy", "write the project to", dir).why(e.to_string()))
}

fn copy(from: &Path, to: &Path, words: &[(&str, String)]) -> std::io::Result<()> {
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            std::fs::create_dir(&target)?;
            copy(&entry.path(), &target, words)?;
            continue;
        }
        // Bindings may hold an object file.
        match String::from_utf8(std::fs::read(entry.path())?) {
            Ok(text) => {
                let filled = words.iter().fold(text, |text, (word, value)| text.replace(word, value));
                replace(&target, filled.as_bytes())?;
            }
            Err(bytes) => replace(&target, bytes.as_bytes())?,
        }
    }
    Ok(())
}

/// What a component says of itself; empty when it says nothing.
#[must_use]
pub fn described(wasm: &[u8]) -> Map<String, Value> {
    match metadata::read(wasm) {
        Some(Value::Object(fields)) => fields,
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_narrow() {
        assert!(check_name("no-root2").is_ok());
        for name in ["", "2x", "No", "a/b", "../x", "a b", "a.b"] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }

    #[test]
    fn a_project_without_a_command_is_none() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Project::open(dir.path()).unwrap_err().to_string().contains("policy.toml"));
        let write = |text: &str| {
            use std::io::Write as _;
            std::fs::File::create(dir.path().join(FILE)).unwrap().write_all(text.as_bytes()).unwrap();
        };
        for build in ["command = []\noutput = 'y'", "text = 'a.js'\noutput = 'y'", "command = ['true']", "hooks = []"] {
            write(&format!("name = 'x'\n[build]\n{build}\n"));
            assert!(Project::open(dir.path()).unwrap_err().to_string().contains("either"), "{build}");
        }
        write(
            "name = 'x'\n[build]\ncommand = ['true']\noutput = 'y'\n[[build.needs]]\nprogram = 'no-such-program'\nget = 'apt-get install it'\n",
        );
        let failed = Project::open(dir.path()).unwrap().build(None).unwrap_err();
        assert!(failed.to_string().contains("no-such-program is not installed"), "{failed}");
        assert_eq!(failed.hint.as_deref(), Some("apt-get install it"));
    }
}
