//! `cel`: rules as expressions of the Common Expression Language in the settings; no compiler is needed.
//!
//! An expression says what has to hold. It sees `caller` and, by hook, `container` (all but pull, image and exit), `pull`,
//! `image`, `exec`, `port`, `mount`, `secret`, `copy` or `event`, with the fields of the ABI written with underscores:
//! `container.read_only_rootfs`. Of an exit nobody is refused any more: what does not hold is logged.

use cel::objects::{Key, Map};
use cel::{Context, Program, Value};
use rlrun_policy::log::{Level, log};
use rlrun_policy::{Diagnostic, Narrowed, Policy, Severity, Verdict, finding, policy};
use rlrun_policy_script::Hook;
use serde::Deserialize;
use std::collections::HashMap;
use std::sync::Arc;

/// The policy.
pub struct Cel;

/// `cel.toml`, its expressions parsed.
pub struct Settings {
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    #[serde(default)]
    rule: Vec<RawRule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRule {
    #[serde(default = "create")]
    hook: Hook,
    /// What has to hold.
    expression: String,
    code: String,
    message: String,
    #[serde(default = "high")]
    severity: Severity,
    help: Option<String>,
}

fn high() -> Severity {
    Severity::High
}

fn create() -> Hook {
    Hook::Create
}

struct Rule {
    program: Program,
    text: RawRule,
}

impl rlrun_policy::Settings for Settings {
    fn read(json: &str) -> Result<Self, String> {
        let raw: Raw = serde_json::from_str(json).map_err(|e| e.to_string())?;
        if raw.rule.is_empty() {
            return Err("there is no [[rule]]".to_owned());
        }
        let rules = raw.rule.into_iter().map(Rule::parse).collect::<Result<_, _>>()?;
        Ok(Settings { rules })
    }
}

impl Rule {
    fn parse(text: RawRule) -> Result<Self, String> {
        let program =
            Program::compile(&text.expression).map_err(|e| format!("{}: {}: {e}", text.code, text.expression))?;
        Ok(Rule { program, text })
    }

    /// None when what has to hold holds. A rule that cannot be decided is not fulfilled.
    fn violation(&self, context: &Context<'_, '_>) -> Option<Diagnostic> {
        let RawRule { code, message, severity, help, expression, .. } = &self.text;
        let message = match self.program.execute(context) {
            Ok(Value::Bool(true)) => return None,
            Ok(Value::Bool(false)) => message.clone(),
            Ok(other) => format!("{message} (`{expression}` is {:?}, neither true nor false)", other.type_of()),
            Err(error) => format!("{message} (`{expression}` cannot be decided: {error})"),
        };
        let found = finding(code, *severity, message);
        Some(match help {
            Some(help) => found.help(help.clone()).into(),
            None => found.into(),
        })
    }
}

impl Policy for Cel {
    type Settings = Settings;
}

impl Settings {
    fn asks(&self, hook: Hook) -> bool {
        self.rules.iter().any(|rule| rule.text.hook == hook)
    }

    fn ask<N>(&self, hook: Hook, about: &[(&str, Result<serde_json::Value, serde_json::Error>)]) -> Narrowed<N> {
        let mut context = Context::default();
        for (name, variable) in about {
            // The types of the ABI are strings, numbers, lists and records, which always serialise; a rule about a
            // variable that is null cannot be decided and so is not fulfilled.
            let json = variable.as_ref().ok().cloned().unwrap_or_default();
            context.add_variable_from_value(*name, cel_value(json));
        }
        let rules = self.rules.iter().filter(|rule| rule.text.hook == hook);
        let found: Vec<Diagnostic> = rules.filter_map(|rule| rule.violation(&context)).collect();
        if hook == Hook::Exit {
            // Nobody is refused any more, so what is found is told.
            found.iter().for_each(|found| log(Level::Warn, &found.message));
        }
        Verdict::judged(found).into()
    }
}

/// Every key is a field of a record, so every hyphen is one that CEL would read as a minus.
fn cel_value(json: serde_json::Value) -> Value {
    match json {
        serde_json::Value::Null => Value::Null,
        serde_json::Value::Bool(b) => Value::Bool(b),
        // One kind of number, so that `container.uid == 0` holds: CEL does not compare int with uint.
        serde_json::Value::Number(n) => match (n.as_i64(), n.as_f64()) {
            (Some(i), _) => Value::Int(i),
            (None, Some(f)) => Value::Float(f),
            (None, None) => Value::Null,
        },
        serde_json::Value::String(s) => Value::String(Arc::new(s)),
        serde_json::Value::Array(list) => Value::List(Arc::new(list.into_iter().map(cel_value).collect())),
        serde_json::Value::Object(fields) => {
            let field = |(name, value): (String, serde_json::Value)| {
                (Key::String(Arc::new(name.replace('-', "_"))), cel_value(value))
            };
            let map: HashMap<Key, Value> = fields.into_iter().map(field).collect();
            Value::Map(Map { map: Arc::new(map) })
        }
    }
}

rlrun_policy_script::hooks!(Cel, Settings);
policy!(Cel: create, validate, image, exec, publish, mount, secret, copy_out, exit);

#[cfg(test)]
mod tests {
    #[test]
    fn fixtures() {
        rlrun_policy::fixtures::check::<super::Cel>(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures"));
    }
}
