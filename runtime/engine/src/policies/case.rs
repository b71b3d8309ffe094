//! Cases in files: what is asked of a policy, and what it has to say to it. The same files that `policy-sdk` reads.
//!
//! `request`, `caller` and the other parameters hold what differs from an ordinary request; objects are merged, lists
//! replaced.

use rlrun_admission::{Function, Reply, Unaskable, Workbench};
use rlrun_spec::policy::PrivilegedFiles;
use rlrun_spec::{Failure, Kind, Stage};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// An ordinary interactive busybox; a case says only what is different.
static DEFAULTS: LazyLock<Value> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../../../../policy-sdk/fixtures/defaults.json")).unwrap_or_default()
});

/// One case.
#[derive(Clone, Debug)]
pub struct Case {
    /// The file.
    pub path: PathBuf,
    /// `create`, `pull`, ...
    pub hook: String,
    /// Settings as JSON; None where the case gives none.
    pub settings: Option<Value>,
    /// The time of the question, for a policy that has the clock: milliseconds since the epoch.
    pub now: Option<u64>,
    /// What is in the image, for a policy that looks there.
    pub contents: Option<PrivilegedFiles>,
    /// By the names of the hook's parameters, `request` the first one.
    pub changes: Map<String, Value>,
    /// None for a mere question.
    pub expect: Option<Expect>,
}

/// What the policy has to say.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    /// `allow`, `deny` or `abstain`.
    pub decision: String,
    /// The codes of its findings, in order.
    #[serde(default)]
    pub codes: Vec<String>,
    /// What it tightens, if that matters.
    pub restrictions: Option<Value>,
}

#[derive(Deserialize)]
struct Raw {
    hook: String,
    settings: Option<Value>,
    expect: Option<Expect>,
    now: Option<u64>,
    contents: Option<PrivilegedFiles>,
    /// For whoever reads the file.
    #[serde(default, rename = "description")]
    _description: Option<String>,
    #[serde(flatten)]
    changes: Map<String, Value>,
}

/// What a policy said, in the words of a case.
#[derive(Clone, Debug)]
pub struct Told {
    /// `allow`, `deny` or `abstain`.
    pub decision: String,
    /// The codes of its findings, in order.
    pub codes: Vec<String>,
    /// Its findings: code, severity, message, path, help.
    pub diagnostics: Value,
    /// What it tightens.
    pub restrictions: Value,
}

impl Told {
    /// From an answer, or from what a policy that failed is said to have answered.
    #[must_use]
    pub fn of(reply: &Reply) -> Told {
        let answer = match &reply.answer {
            Ok(answer) => answer.clone(),
            Err(refusal) => serde_json::json!({"decision": "deny", "diagnostics": refusal.diagnostics}),
        };
        let list = |name: &str| answer.get(name).cloned().unwrap_or_else(|| Value::Array(Vec::new()));
        let diagnostics = list("diagnostics");
        let codes = diagnostics.as_array().into_iter().flatten().filter_map(|d| d["code"].as_str().map(str::to_owned));
        let tightening = if answer.get("narrowings").is_some() { "narrowings" } else { "restrictions" };
        Told {
            decision: answer["decision"].as_str().unwrap_or("none").to_owned(),
            codes: codes.collect(),
            restrictions: list(tightening),
            diagnostics,
        }
    }
}

fn unreadable(path: &Path, why: impl Into<String>) -> Failure {
    Failure::new(Stage::Cli, Kind::Usage, "read-case", "read the case", path.display().to_string())
        .why(why)
        .hint(r#"a case is JSON: {"hook": "create", "request": {...}, "expect": {"decision": "deny", "codes": [...]}}"#)
}

impl Case {
    /// # Errors
    /// When the file cannot be read or is no case.
    pub fn load(path: &Path) -> Result<Self, Failure> {
        let text = std::fs::read(path).map_err(|e| unreadable(path, e.to_string()))?;
        Self::parse(path, &text)
    }

    /// # Errors
    /// When the text is no case.
    pub fn parse(path: &Path, text: &[u8]) -> Result<Self, Failure> {
        let raw: Raw = serde_json::from_slice(text).map_err(|e| unreadable(path, e.to_string()))?;
        let Raw { hook, settings, expect, now, contents, changes, .. } = raw;
        Ok(Case { path: path.to_owned(), hook, settings, now, contents, changes, expect })
    }

    /// All cases of a directory, by name.
    ///
    /// # Errors
    /// When there are none, or one is wrong.
    pub fn load_dir(dir: &Path) -> Result<Vec<Self>, Failure> {
        let entries = std::fs::read_dir(dir).map_err(|e| unreadable(dir, e.to_string()))?;
        let mut paths: Vec<PathBuf> = entries.flatten().map(|e| e.path()).collect();
        paths.retain(|p| p.extension().is_some_and(|e| e == "json"));
        paths.sort();
        if paths.is_empty() {
            return Err(unreadable(dir, "holds no cases"));
        }
        paths.iter().map(|p| Self::load(p)).collect()
    }

    /// As the case is called in a table.
    #[must_use]
    pub fn name(&self) -> String {
        self.path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// The arguments of the hook's function: the ordinary request with the changes on top.
    ///
    /// # Errors
    /// When a change is of something that is not there.
    pub fn arguments(&self, function: &Function) -> Result<Map<String, Value>, String> {
        let mut arguments = Map::new();
        let known = |name: &String| name == "request" || function.params.contains(name);
        if let Some(name) = self.changes.keys().find(|name| !known(name)) {
            return Err(format!("`{name}`: {} has {}", self.hook, function.params.join(", ")));
        }
        for (index, param) in function.params.iter().enumerate() {
            // In a case they are a member of what they are facts about.
            if param == "facts" {
                let holder =
                    ["container", function.params[0].as_str()].into_iter().find_map(|name| arguments.get(name));
                let facts = holder.and_then(|holder| holder.get("facts")).cloned().unwrap_or_default();
                arguments.insert(param.clone(), facts);
                continue;
            }
            let mut value = default(&self.hook, param, index).cloned().unwrap_or_default();
            let key = if index == 0 && !self.changes.contains_key(param) { "request" } else { param.as_str() };
            if let Some(change) = self.changes.get(key) {
                overlay(&mut value, change, key)?;
            }
            arguments.insert(param.clone(), value);
        }
        Ok(arguments)
    }

    /// Asks.
    ///
    /// # Errors
    /// When the policy cannot be asked this.
    pub fn ask(&self, policy: &mut Workbench) -> Result<Reply, String> {
        let no_such = || format!("the policy does not have the hook {}", self.hook);
        let function = policy.functions().find(|f| f.hook == self.hook).ok_or_else(no_such)?;
        let arguments = self.arguments(function)?;
        policy.set_contents(self.contents.clone());
        policy.ask(&self.hook, &arguments).map_err(|why| match why {
            Unaskable::NoSuchHook => no_such(),
            Unaskable::Request(why) => why,
        })
    }
}

impl Expect {
    /// How the answer differs; None when it does not.
    #[must_use]
    pub fn difference(&self, told: &Told) -> Option<String> {
        if self.decision != told.decision || self.codes != told.codes {
            let words = |decision: &str, codes: &[String]| format!("{decision} [{}]", codes.join(", "));
            let (expected, found) = (words(&self.decision, &self.codes), words(&told.decision, &told.codes));
            return Some(format!("expected {expected}, not {found}"));
        }
        let expected = without_nulls(self.restrictions.as_ref()?);
        let found = without_nulls(&told.restrictions);
        (expected != found).then(|| format!("expected restrictions {expected}, not {found}"))
    }
}

/// An absent member and a null one say the same.
fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Array(items) => Value::Array(items.iter().map(without_nulls).collect()),
        Value::Object(fields) => {
            let kept = fields.iter().filter(|(_, v)| !v.is_null());
            Value::Object(kept.map(|(k, v)| (k.clone(), without_nulls(v))).collect())
        }
        other => other.clone(),
    }
}

fn default(hook: &str, param: &str, index: usize) -> Option<&'static Value> {
    let name = match (hook, index) {
        ("create" | "validate", 0) => "container",
        ("publish", 0) => "port",
        (hook, 0) => hook,
        ("publish" | "mount" | "secret" | "copy-out", _) if param == "container" => "subject",
        _ => param,
    };
    DEFAULTS.get(name)
}

/// A member that the ordinary request does not have is misspelt, where there is an ordinary one.
fn overlay(base: &mut Value, change: &Value, place: &str) -> Result<(), String> {
    let (Value::Object(fields), Value::Object(changes)) = (&mut *base, change) else {
        if !change.is_null() || place.contains('/') {
            base.clone_from(change);
        }
        return Ok(());
    };
    for (key, value) in changes {
        let place = format!("{place}/{key}");
        let Some(old) = fields.get_mut(key) else {
            let similar = super::nearest(key, fields.keys().map(String::as_str));
            let hint = similar.map(|name| format!(", did you mean `{name}`?")).unwrap_or_default();
            return Err(format!("{place}: there is no such field{hint}"));
        };
        overlay(old, value, &place)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn create() -> Function {
        Function {
            interface: "rlrun:policy/create@0.1.0".into(),
            name: "on-create".into(),
            hook: "create".into(),
            params: vec!["request".into(), "caller".into()],
        }
    }

    fn case(text: &Value) -> Case {
        Case::parse(Path::new("x.json"), text.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn a_case_changes_the_ordinary_request() {
        let case = case(&json!({"hook": "create", "request": {"privileged": true, "args": ["id"]}}));
        let arguments = case.arguments(&create()).unwrap();
        assert_eq!(arguments["request"]["privileged"], json!(true));
        assert_eq!(arguments["request"]["args"], json!(["id"]));
        assert_eq!(arguments["request"]["cwd"], json!("/"));
        assert_eq!(arguments["caller"]["uid"], json!(1000));
    }

    #[test]
    fn a_misspelt_field_is_named_with_the_right_one() {
        let wrong = case(&json!({"hook": "create", "request": {"privilegd": true}})).arguments(&create());
        assert_eq!(wrong.unwrap_err(), "request/privilegd: there is no such field, did you mean `privileged`?");
        let wrong = case(&json!({"hook": "create", "question": {}})).arguments(&create());
        assert!(wrong.unwrap_err().contains("create has request, caller"));
    }

    #[test]
    fn what_is_told_is_compared() {
        let told = Told {
            decision: "deny".into(),
            codes: vec!["A".into()],
            diagnostics: json!([]),
            restrictions: json!([{"limit": {"pids": 3, "nofile": null}}]),
        };
        let expect = |value: Value| serde_json::from_value::<Expect>(value).unwrap().difference(&told);
        assert_eq!(expect(json!({"decision": "deny", "codes": ["A"]})), None);
        assert_eq!(expect(json!({"decision": "allow"})).unwrap(), "expected allow [], not deny [A]");
        let limit = json!({"decision": "deny", "codes": ["A"], "restrictions": [{"limit": {"pids": 3}}]});
        assert_eq!(expect(limit), None);
        let other = json!({"decision": "deny", "codes": ["A"], "restrictions": []});
        assert!(expect(other).is_some());
    }
}
