//! `cel`: rules as expressions of the Common Expression Language in the settings; no compiler is needed.
//!
//! An expression says what has to hold. It sees `caller` and, by hook, `container` (create, validate, exec), `pull`,
//! `image` or `exec`, with the fields of the ABI written with underscores: `container.read_only_rootfs`.

use cel::objects::{Key, Map};
use cel::{Context, Program, Value};
use rlrun_policy::{
    Caller, Container, Create, Diagnostic, Exec, ExecRequest, Image, ImageInfo, Policy, Pull, Severity, Validate,
    Verdict, finding, policy,
};
use serde::{Deserialize, Serialize};
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
    #[serde(default)]
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

/// When a rule is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Hook {
    Pull,
    Image,
    #[default]
    Create,
    Validate,
    Exec,
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

fn judge(settings: &Settings, hook: Hook, variables: &[(&str, &dyn ErasedSerialize)]) -> Verdict {
    let mut rules = settings.rules.iter().filter(|rule| rule.text.hook == hook).peekable();
    // Nothing to say costs nothing: the variables are not even made.
    if rules.peek().is_none() {
        return Verdict::abstain();
    }
    let mut context = Context::default();
    for (name, variable) in variables {
        context.add_variable_from_value(*name, cel_value(variable.json()));
    }
    Verdict::judged(rules.filter_map(|rule| rule.violation(&context)).collect())
}

/// `Serialize` cannot be a trait object.
trait ErasedSerialize {
    fn json(&self) -> serde_json::Value;
}

impl<T: Serialize> ErasedSerialize for T {
    fn json(&self) -> serde_json::Value {
        // The types of the ABI are strings, numbers, lists and records, which always serialise; a rule about a
        // variable that is null cannot be decided and so is not fulfilled.
        serde_json::to_value(self).unwrap_or_default()
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

impl Create for Cel {
    fn create(settings: &Settings, container: &Container, caller: &Caller) -> Verdict {
        judge(settings, Hook::Create, &[("container", container), ("caller", caller)])
    }
}

impl Validate for Cel {
    fn validate(settings: &Settings, container: &Container, caller: &Caller) -> Verdict {
        judge(settings, Hook::Validate, &[("container", container), ("caller", caller)])
    }
}

impl Image for Cel {
    fn pull(settings: &Settings, request: &Pull, caller: &Caller) -> Verdict {
        judge(settings, Hook::Pull, &[("pull", request), ("caller", caller)])
    }

    fn image(settings: &Settings, info: &ImageInfo, caller: &Caller) -> Verdict {
        judge(settings, Hook::Image, &[("image", info), ("caller", caller)])
    }
}

impl Exec for Cel {
    fn exec(settings: &Settings, request: &ExecRequest, container: &Container, caller: &Caller) -> Verdict {
        judge(settings, Hook::Exec, &[("exec", request), ("container", container), ("caller", caller)])
    }
}

policy!(Cel: create, validate, image, exec);

#[cfg(test)]
mod tests {
    #[test]
    fn fixtures() {
        rlrun_policy::fixtures::check::<super::Cel>(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures"));
    }
}
