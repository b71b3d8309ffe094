//! `rego`: a policy in Rego as text in the settings; no compiler is needed.
//!
//! Of the package `p` the rules `deny`, `violation` and `warn` are asked, as conftest, Gatekeeper and OPA's own examples
//! have them: sets of messages, or of objects with `msg` and optionally `code`, `severity`, `path`, `help`. Where there
//! is neither of the first two, `allow` has to be true. `input` holds `hook`, `caller` and, by hook, `container`, `pull`,
//! `image`, `exec`, `port`, `mount`, `secret`, `copy` or `event`, with the fields of the ABI written with underscores.
//! Text of before `import rego.v1` is read, too. What fails denies; what is undefined, as a misspelt field is, does not
//! match.

use regorus::{Engine, Value};
use rlrun_policy::log::{Level, log};
use rlrun_policy::{Diagnostic, Narrowed, Policy, Severity, Verdict, finding, policy};
use rlrun_policy_script::Hook;
use serde::Deserialize;
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

/// A finding as a rule says it; everything but the message may be missing.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Said {
    msg: String,
    code: Option<String>,
    severity: Option<Severity>,
    path: Option<String>,
    help: Option<String>,
    /// Gatekeeper's, for its own readers.
    #[serde(rename = "details")]
    _details: Option<serde_json::Value>,
}

const CODE: &str = "REGO";
const RULES: [&str; 4] = ["deny", "violation", "warn", "allow"];
/// Those that refuse.
const DENYING: [&str; 2] = ["deny", "violation"];
/// What the interpreter says of a rule that is not there.
const NO_RULE: &str = "not a valid rule path";

impl rlrun_policy::Settings for Settings {
    fn read(json: &str) -> Result<Self, String> {
        let raw: Raw = serde_json::from_str(json).map_err(|e| e.to_string())?;
        let (mut engine, package) = parse(&raw.policy)?;
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
        if !defined.iter().any(|rule| rule != "warn") {
            return Err(format!("{package} has no rule `deny`, `violation` or `allow`"));
        }
        Ok(Settings { engine: Mutex::new(engine), package, rules: defined, hooks: raw.hooks })
    }
}

/// As Rego is written today, else as it was before `import rego.v1`; gives back the package, too.
fn parse(text: &str) -> Result<(Engine, String), String> {
    let read = |v0: bool| {
        let mut engine = Engine::new();
        engine.set_rego_v0(v0);
        let package = engine.add_policy("policy.rego".to_owned(), text.to_owned()).map_err(|e| e.to_string())?;
        Ok((engine, package))
    };
    let modern = text.lines().any(|line| line.split_whitespace().eq(["import", "rego.v1"]));
    read(false).or_else(|why: String| {
        let hint = "what is written for OPA 1.0 begins with `import rego.v1`";
        read(true).map_err(|old: String| match modern {
            true => on_one_line(&why),
            false => format!("{} (as older Rego: {}); {hint}", on_one_line(&why), on_one_line(&old)),
        })
    })
}

/// The interpreter draws the place; here it is told: where, what, the line itself.
fn on_one_line(why: &str) -> String {
    let after = |mark: &str| why.lines().find_map(|line| line.trim_start().strip_prefix(mark)).map(str::trim);
    let (Some(place), Some(error)) = (after("-->"), after("error:")) else {
        return why.split_whitespace().collect::<Vec<_>>().join(" ");
    };
    let source = why.lines().find_map(|line| {
        let (number, text) = line.split_once('|')?;
        number.trim().parse::<u32>().is_ok().then(|| text.trim())
    });
    format!("{place}: {error}: `{}`", source.unwrap_or_default())
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
        let mut denied = Vec::new();
        for rule in DENYING {
            denied.extend(findings(self.rule(&mut engine, rule)?)?);
        }
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

impl Settings {
    fn asks(&self, hook: Hook) -> bool {
        self.hooks.contains(&hook)
    }

    fn ask<N>(&self, hook: Hook, about: &[(&str, Result<serde_json::Value, serde_json::Error>)]) -> Narrowed<N> {
        let undecided = |why: String| Verdict::deny(finding(CODE, Severity::High, format!("cannot be decided: {why}")));
        let mut input = serde_json::Map::new();
        input.insert("hook".to_owned(), serde_json::to_value(hook).unwrap_or_default());
        for (name, variable) in about {
            match variable {
                Ok(variable) => input.insert((*name).to_owned(), underscored(variable)),
                Err(why) => return undecided(why.to_string()).into(),
            };
        }
        let verdict = self.judge(&serde_json::Value::Object(input)).unwrap_or_else(undecided);
        if hook == Hook::Exit {
            // Nobody is refused any more, so what is found is told.
            verdict.diagnostics.iter().for_each(|found| log(Level::Warn, &found.message));
        }
        verdict.into()
    }
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

rlrun_policy_script::hooks!(Rego, Settings);
policy!(Rego: create, validate, image, exec, publish, mount, secret, copy_out, exit);

#[cfg(test)]
mod tests {
    #[test]
    fn what_the_interpreter_draws_is_told_on_one_line() {
        let drawn = super::parse("package x\ndeny contains m if {\n").map(|_| ()).unwrap_err();
        assert!(drawn.contains("policy.rego:") && drawn.contains("import rego.v1"), "{drawn}");
        assert!(!drawn.contains(|c: char| c.is_control()), "{drawn}");
        let modern = super::parse("package x\nimport rego.v1\ndeny[msg] { msg := 1 }\n").map(|_| ()).unwrap_err();
        assert!(modern.contains("`deny[msg] { msg := 1 }`") && !modern.contains("older Rego"), "{modern}");
    }

    #[test]
    fn fixtures() {
        rlrun_policy::fixtures::check::<super::Rego>(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures"));
    }
}
