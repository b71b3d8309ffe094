//! `rego`: a policy in Rego as text in the settings; no compiler is needed.
//!
//! Of the package `p` the rules `deny` and `warn` are asked, as conftest and OPA's own examples have them: sets of
//! messages, or of objects with `msg` and optionally `code`, `severity`, `path`, `help`. Where there is neither, `allow`
//! has to be true. `input` holds `hook`, `caller` and, by hook, `container`, `pull`, `image` or `exec`, with the
//! fields of the ABI written with underscores. What cannot be decided denies.

use regorus::{Engine, Value};
use rlrun_policy::{
    Caller, Container, Create, Diagnostic, Exec, ExecRequest, Image, ImageInfo, Policy, Pull, Severity, Validate,
    Verdict, finding, policy,
};
use serde::{Deserialize, Serialize};
use std::sync::Mutex;

/// The policy.
pub struct Rego;

/// `rego.toml`, its text parsed.
pub struct Settings {
    engine: Mutex<Engine>,
    package: String,
    rules: Vec<String>,
    hooks: Vec<Hook>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    /// The text.
    policy: String,
    /// When it is asked.
    #[serde(default = "ordinary")]
    hooks: Vec<Hook>,
    /// What the text finds under `data`.
    data: Option<serde_json::Value>,
}

fn ordinary() -> Vec<Hook> {
    vec![Hook::Create]
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Hook {
    Pull,
    Image,
    Create,
    Validate,
    Exec,
}

/// A finding as a rule says it; everything but the message may be missing.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Said {
    msg: String,
    code: Option<String>,
    severity: Option<Severity>,
    path: Option<String>,
    help: Option<String>,
}

const CODE: &str = "REGO";
const RULES: [&str; 3] = ["deny", "warn", "allow"];
/// What the interpreter says of a rule that is not there.
const NO_RULE: &str = "not a valid rule path";

impl rlrun_policy::Settings for Settings {
    fn read(json: &str) -> Result<Self, String> {
        let raw: Raw = serde_json::from_str(json).map_err(|e| e.to_string())?;
        let mut engine = Engine::new();
        let package = engine.add_policy("policy.rego".to_owned(), raw.policy).map_err(|e| e.to_string())?;
        if let Some(data) = raw.data {
            engine.add_data(value(&data)?).map_err(|e| e.to_string())?;
        }
        // Prepares the rules, so that the state that is kept is ready to be asked.
        engine.set_input(Value::new_object());
        let rule = |name: &&str| format!("{package}.{name}");
        let outcomes = RULES.map(|name| engine.eval_rule(rule(&name)).map_err(|e| e.to_string()));
        // A rule that fails without any input is there, too: it is asked, and denies when it fails again.
        let there =
            |(_, outcome): &(&str, Result<Value, String>)| !matches!(outcome, Err(why) if why.contains(NO_RULE));
        let defined: Vec<String> =
            RULES.into_iter().zip(outcomes).filter(there).map(|(name, _)| name.to_owned()).collect();
        if !defined.iter().any(|rule| rule == "deny" || rule == "allow") {
            return Err(format!("{package} has neither a rule `deny` nor a rule `allow`"));
        }
        Ok(Settings { engine: Mutex::new(engine), package, rules: defined, hooks: raw.hooks })
    }
}

fn value(json: &serde_json::Value) -> Result<Value, String> {
    Value::from_json_str(&json.to_string()).map_err(|e| e.to_string())
}

impl Settings {
    fn rule(&self, engine: &mut Engine, rule: &str) -> Result<Option<serde_json::Value>, String> {
        if !self.rules.iter().any(|known| known == rule) {
            return Ok(None);
        }
        let value = engine.eval_rule(format!("{}.{rule}", self.package)).map_err(|e| e.to_string())?;
        if value == Value::Undefined {
            return Ok(None);
        }
        serde_json::from_str(&value.to_json_str().map_err(|e| e.to_string())?).map(Some).map_err(|e| e.to_string())
    }

    fn judge(&self, input: &serde_json::Value) -> Result<Verdict, String> {
        let mut engine = self.engine.lock().map_err(|e| e.to_string())?;
        engine.set_input(value(input)?);
        let findings = |said: Option<serde_json::Value>| said.map_or(Ok(Vec::new()), |said| found(&said));
        let mut denied = findings(self.rule(&mut engine, "deny")?)?;
        let warned = findings(self.rule(&mut engine, "warn")?)?;
        if self.rules.iter().any(|rule| rule == "allow")
            && self.rule(&mut engine, "allow")? != Some(serde_json::Value::Bool(true))
        {
            denied.push(finding(CODE, Severity::High, format!("{}.allow is not true", self.package)).into());
        }
        if denied.is_empty() {
            return Ok(warned.into_iter().fold(Verdict::allow(), Verdict::warn));
        }
        Ok(Verdict::judged(denied))
    }
}

/// A set or a list of messages, or one.
fn found(said: &serde_json::Value) -> Result<Vec<Diagnostic>, String> {
    match said {
        serde_json::Value::Array(all) => all.iter().map(one).collect(),
        serde_json::Value::Bool(false) => Ok(Vec::new()),
        serde_json::Value::Bool(true) => Ok(vec![finding(CODE, Severity::High, "deny is true").into()]),
        other => one(other).map(|one| vec![one]),
    }
}

fn one(said: &serde_json::Value) -> Result<Diagnostic, String> {
    if let Some(message) = said.as_str() {
        return Ok(finding(CODE, Severity::High, message).into());
    }
    let said: Said = serde_json::from_value(said.clone()).map_err(|e| format!("a finding that is none: {e}"))?;
    let mut found: Diagnostic =
        finding(&said.code.unwrap_or_else(|| CODE.to_owned()), said.severity.unwrap_or(Severity::High), said.msg)
            .into();
    found.path = said.path;
    found.help = said.help;
    Ok(found)
}

impl Policy for Rego {
    type Settings = Settings;
}

fn judge(
    settings: &Settings,
    hook: Hook,
    variables: &[(&str, Result<serde_json::Value, serde_json::Error>)],
) -> Verdict {
    if !settings.hooks.contains(&hook) {
        return Verdict::abstain();
    }
    let undecided = |why: String| Verdict::deny(finding(CODE, Severity::High, format!("cannot be decided: {why}")));
    let mut input = serde_json::Map::new();
    input.insert("hook".to_owned(), serde_json::to_value(hook).unwrap_or_default());
    for (name, variable) in variables {
        match variable {
            Ok(variable) => input.insert((*name).to_owned(), underscored(variable)),
            Err(why) => return undecided(why.to_string()),
        };
    }
    settings.judge(&serde_json::Value::Object(input)).unwrap_or_else(undecided)
}

/// Every key is a field of a record, and every hyphen in one would be a minus.
fn underscored(json: &serde_json::Value) -> serde_json::Value {
    match json {
        serde_json::Value::Array(list) => list.iter().map(underscored).collect(),
        serde_json::Value::Object(fields) => {
            fields.iter().map(|(name, value)| (name.replace('-', "_"), underscored(value))).collect()
        }
        other => other.clone(),
    }
}

fn json<T: Serialize>(value: &T) -> Result<serde_json::Value, serde_json::Error> {
    serde_json::to_value(value)
}

impl Create for Rego {
    fn create(settings: &Settings, container: &Container, caller: &Caller) -> Verdict {
        judge(settings, Hook::Create, &[("container", json(container)), ("caller", json(caller))])
    }
}

impl Validate for Rego {
    fn validate(settings: &Settings, container: &Container, caller: &Caller) -> Verdict {
        judge(settings, Hook::Validate, &[("container", json(container)), ("caller", json(caller))])
    }
}

impl Image for Rego {
    fn pull(settings: &Settings, request: &Pull, caller: &Caller) -> Verdict {
        judge(settings, Hook::Pull, &[("pull", json(request)), ("caller", json(caller))])
    }

    fn image(settings: &Settings, info: &ImageInfo, caller: &Caller) -> Verdict {
        judge(settings, Hook::Image, &[("image", json(info)), ("caller", json(caller))])
    }
}

impl Exec for Rego {
    fn exec(settings: &Settings, request: &ExecRequest, container: &Container, caller: &Caller) -> Verdict {
        let variables = [("exec", json(request)), ("container", json(container)), ("caller", json(caller))];
        judge(settings, Hook::Exec, &variables)
    }
}

policy!(Rego: create, validate, image, exec);

#[cfg(test)]
mod tests {
    #[test]
    fn fixtures() {
        rlrun_policy::fixtures::check::<super::Rego>(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures"));
    }
}
