//! What policies in an interpreted language share: the text is a setting, its functions are the hooks.
//!
//! A function is named like its hook (`create`, `copy_out`), gets one object with what the hook is asked about, `caller`
//! and `settings`, and says `{decision, diagnostics, restrictions, narrowings, audit}`, or nothing. `configure` gets
//! the settings before anything is asked, says what the others see of them, and fails when they are wrong. Fields are
//! those of the ABI, with underscores. What cannot be decided denies.

use rlrun_policy::{Decision, Diagnostic, Narrowed, Pair, Restriction, Severity, Verdict, finding};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::Mutex;

/// An interpreter. There is one text at a time; a component has one thread, which keeps it.
pub trait Language: 'static {
    /// The code of findings that have none.
    const CODE: &'static str;

    /// Reads the text and runs its top level.
    ///
    /// # Errors
    /// What is wrong with it.
    fn load(text: &str) -> Result<(), String>;

    /// Whether the text defines a function of this name.
    fn has(function: &str) -> bool;

    /// What the function says to this; null when it says nothing.
    ///
    /// # Errors
    /// What the function failed with.
    fn call(function: &str, argument: &Value) -> Result<Value, String>;
}

/// The text, and what it made of its settings.
pub struct Settings<L> {
    hooks: Vec<Hook>,
    configured: Mutex<Result<Value, String>>,
    language: PhantomData<fn() -> L>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    /// The text.
    policy: String,
    /// When it is asked.
    #[serde(default = "ordinary")]
    hooks: Vec<Hook>,
    /// Its own settings.
    settings: Option<Value>,
}

fn ordinary() -> Vec<Hook> {
    vec![Hook::Create]
}

/// The hooks of the ABI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "named as in the ABI, documented there")]
pub enum Hook {
    Pull,
    Image,
    Create,
    Validate,
    Exec,
    Publish,
    Mount,
    Secret,
    CopyOut,
    Exit,
}

impl Hook {
    const ALL: [Hook; 10] = [
        Hook::Pull,
        Hook::Image,
        Hook::Create,
        Hook::Validate,
        Hook::Exec,
        Hook::Publish,
        Hook::Mount,
        Hook::Secret,
        Hook::CopyOut,
        Hook::Exit,
    ];

    fn function(self) -> &'static str {
        match self {
            Hook::Pull => "pull",
            Hook::Image => "image",
            Hook::Create => "create",
            Hook::Validate => "validate",
            Hook::Exec => "exec",
            Hook::Publish => "publish",
            Hook::Mount => "mount",
            Hook::Secret => "secret",
            Hook::CopyOut => "copy_out",
            Hook::Exit => "exit",
        }
    }
}

const CONFIGURE: &str = "configure";

fn configure<L: Language>(settings: &Value) -> Result<Value, String> {
    match settings {
        _ if L::has(CONFIGURE) => L::call(CONFIGURE, settings),
        Value::Object(fields) if fields.is_empty() => Ok(Value::Object(Map::new())),
        _ => Err(format!("the policy has no function `{CONFIGURE}`, so it takes no settings")),
    }
}

impl<L: Language> rlrun_policy::Settings for Settings<L> {
    fn read(json: &str) -> Result<Self, String> {
        let raw: Raw = serde_json::from_str(json).map_err(|e| e.to_string())?;
        L::load(&raw.policy)?;
        for hook in Hook::ALL {
            let function = hook.function();
            match (raw.hooks.contains(&hook), L::has(function)) {
                (true, false) => return Err(format!("there is no function `{function}`, which `hooks` names")),
                (false, true) => return Err(format!("there is a function `{function}`, which `hooks` does not name")),
                (true, true) | (false, false) => {}
            }
        }
        let configured = match raw.settings {
            Some(settings) => Ok(configure::<L>(&settings)?),
            // Those that it is built without may come later; until then whatever is wrong with none at all denies.
            None => configure::<L>(&Value::Object(Map::new())),
        };
        Ok(Settings { hooks: raw.hooks, configured: Mutex::new(configured), language: PhantomData })
    }

    fn amend(&self, json: &str) -> Result<(), String> {
        let settings: Value = serde_json::from_str(json).map_err(|e| e.to_string())?;
        let configured = configure::<L>(&settings)?;
        *self.configured.lock().map_err(|e| e.to_string())? = Ok(configured);
        Ok(())
    }
}

/// A finding as a function says it; everything but the message may be missing.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Finding {
    message: String,
    code: Option<String>,
    severity: Option<Severity>,
    path: Option<String>,
    help: Option<String>,
}

/// What a function says.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Said<N> {
    decision: Decision,
    #[serde(default)]
    diagnostics: Vec<Finding>,
    #[serde(default)]
    restrictions: Vec<Restriction>,
    #[serde(default = "Vec::new")]
    narrowings: Vec<N>,
    #[serde(default)]
    audit: BTreeMap<String, String>,
}

/// No narrowing at all.
#[derive(Deserialize)]
pub enum Never {}

impl<L: Language> Settings<L> {
    /// Whether there is to be a function of this hook.
    pub fn asks(&self, hook: Hook) -> bool {
        self.hooks.contains(&hook)
    }

    /// Asks the function of a hook.
    pub fn ask<N: DeserializeOwned>(
        &self,
        hook: Hook,
        about: &[(&str, Result<Value, serde_json::Error>)],
    ) -> Narrowed<N> {
        self.said(hook, about).unwrap_or_else(|why| {
            Verdict::deny(finding(L::CODE, Severity::High, format!("cannot be decided: {why}"))).into()
        })
    }

    fn said<N: DeserializeOwned>(
        &self,
        hook: Hook,
        about: &[(&str, Result<Value, serde_json::Error>)],
    ) -> Result<Narrowed<N>, String> {
        let mut argument = Map::new();
        for (name, value) in about {
            let value = value.as_ref().map_err(ToString::to_string)?;
            argument.insert((*name).to_owned(), renamed(value, '-', '_'));
        }
        let settings = self.configured.lock().map_err(|e| e.to_string())?.clone()?;
        argument.insert("settings".to_owned(), settings);
        verdict::<L, N>(L::call(hook.function(), &Value::Object(argument))?)
    }
}

fn verdict<L: Language, N: DeserializeOwned>(mut said: Value) -> Result<Narrowed<N>, String> {
    if said.is_null() {
        return Ok(Verdict::abstain().into());
    }
    // Its names are the policy's own.
    let audit = said.as_object_mut().and_then(|fields| fields.remove("audit"));
    let mut said = renamed(&said, '_', '-');
    if let (Some(fields), Some(audit)) = (said.as_object_mut(), audit) {
        fields.insert("audit".to_owned(), audit);
    }
    let Said { decision, diagnostics, restrictions, narrowings, audit } =
        serde_json::from_value(said).map_err(|e| format!("a verdict that is none: {e}"))?;
    let diagnostics = diagnostics.into_iter().map(|found| {
        let code = found.code.unwrap_or_else(|| L::CODE.to_owned());
        Diagnostic {
            path: found.path,
            help: found.help,
            ..finding(&code, found.severity.unwrap_or(Severity::High), found.message).into()
        }
    });
    let audit = audit.into_iter().map(|(name, value)| Pair { name, value });
    let verdict = Verdict { decision, diagnostics: diagnostics.collect(), restrictions, audit: audit.collect() };
    Ok(Narrowed { verdict, narrowings })
}

/// Every key is a field of a record; a hyphen in one would be a minus.
fn renamed(json: &Value, from: char, to: char) -> Value {
    match json {
        Value::Array(list) => list.iter().map(|item| renamed(item, from, to)).collect(),
        Value::Object(fields) => {
            let field = |(name, value): (&String, &Value)| {
                (name.chars().map(|c| if c == from { to } else { c }).collect(), renamed(value, from, to))
            };
            Value::Object(fields.iter().map(field).collect())
        }
        other => other.clone(),
    }
}

/// As the function gets it.
///
/// # Errors
/// Never, for what the ABI has.
pub fn json<T: Serialize>(value: &T) -> Result<Value, serde_json::Error> {
    serde_json::to_value(value)
}

/// Makes a policy of a language: `script!(JavaScript);`.
#[macro_export]
macro_rules! script {
    ($language:ty) => {
        impl $crate::reexport::Policy for $language {
            type Settings = $crate::Settings<$language>;
        }
        $crate::hooks!($language, $crate::Settings<$language>);
    };
}

/// All hooks of a policy whose settings have `asks(hook)` and `ask(hook, about)`.
#[macro_export]
macro_rules! hooks {
    ($policy:ty, $settings:ty) => {
        impl $crate::reexport::Image for $policy {
            fn pull(
                settings: &$settings,
                request: &$crate::reexport::Pull,
                caller: &$crate::reexport::Caller,
            ) -> $crate::reexport::Verdict {
                let said: $crate::reexport::Narrowed<$crate::Never> =
                    $crate::asked!(settings, Pull, [("pull", request), ("caller", caller)]);
                said.verdict
            }

            fn image(
                settings: &$settings,
                info: &$crate::reexport::ImageInfo,
                caller: &$crate::reexport::Caller,
            ) -> $crate::reexport::Verdict {
                let said: $crate::reexport::Narrowed<$crate::Never> =
                    $crate::asked!(settings, Image, [("image", info), ("caller", caller)]);
                said.verdict
            }
        }

        impl $crate::reexport::Create for $policy {
            fn create(
                settings: &$settings,
                container: &$crate::reexport::Container,
                caller: &$crate::reexport::Caller,
            ) -> $crate::reexport::Verdict {
                let said: $crate::reexport::Narrowed<$crate::Never> =
                    $crate::asked!(settings, Create, [("container", container), ("caller", caller)]);
                said.verdict
            }
        }

        impl $crate::reexport::Validate for $policy {
            fn validate(
                settings: &$settings,
                container: &$crate::reexport::Container,
                caller: &$crate::reexport::Caller,
            ) -> $crate::reexport::Verdict {
                let said: $crate::reexport::Narrowed<$crate::Never> =
                    $crate::asked!(settings, Validate, [("container", container), ("caller", caller)]);
                said.verdict
            }
        }

        impl $crate::reexport::Exec for $policy {
            fn exec(
                settings: &$settings,
                request: &$crate::reexport::ExecRequest,
                container: &$crate::reexport::Container,
                caller: &$crate::reexport::Caller,
            ) -> $crate::reexport::Verdict {
                let said: $crate::reexport::Narrowed<$crate::Never> =
                    $crate::asked!(settings, Exec, [("exec", request), ("container", container), ("caller", caller)]);
                said.verdict
            }
        }

        impl $crate::reexport::Publish for $policy {
            fn publish(
                settings: &$settings,
                port: &$crate::reexport::Port,
                container: &$crate::reexport::Subject,
                caller: &$crate::reexport::Caller,
            ) -> $crate::reexport::Narrowed<$crate::reexport::PortNarrowing> {
                $crate::asked!(settings, Publish, [("port", port), ("container", container), ("caller", caller)])
            }
        }

        impl $crate::reexport::Mounting for $policy {
            fn mount(
                settings: &$settings,
                request: &$crate::reexport::MountRequest,
                container: &$crate::reexport::Subject,
                caller: &$crate::reexport::Caller,
            ) -> $crate::reexport::Narrowed<$crate::reexport::MountNarrowing> {
                $crate::asked!(settings, Mount, [("mount", request), ("container", container), ("caller", caller)])
            }
        }

        impl $crate::reexport::Secret for $policy {
            fn secret(
                settings: &$settings,
                request: &$crate::reexport::SecretRequest,
                container: &$crate::reexport::Subject,
                caller: &$crate::reexport::Caller,
            ) -> $crate::reexport::Verdict {
                let said: $crate::reexport::Narrowed<$crate::Never> = $crate::asked!(
                    settings,
                    Secret,
                    [("secret", request), ("container", container), ("caller", caller)]
                );
                said.verdict
            }
        }

        impl $crate::reexport::CopyOut for $policy {
            fn copy_out(
                settings: &$settings,
                request: &$crate::reexport::CopyOutRequest,
                container: &$crate::reexport::Subject,
                caller: &$crate::reexport::Caller,
            ) -> $crate::reexport::Verdict {
                let said: $crate::reexport::Narrowed<$crate::Never> = $crate::asked!(
                    settings,
                    CopyOut,
                    [("copy", request), ("container", container), ("caller", caller)]
                );
                said.verdict
            }
        }

        impl $crate::reexport::Exit for $policy {
            fn exit(settings: &$settings, event: &$crate::reexport::ExitEvent) {
                // Nobody waits for an answer.
                let _told: $crate::reexport::Narrowed<$crate::Never> =
                    $crate::asked!(settings, Exit, [("event", event)]);
            }
        }
    };
}

/// What nobody asks about is not even made.
#[doc(hidden)]
#[macro_export]
macro_rules! asked {
    ($settings:ident, $hook:ident, [$(($name:literal, $value:expr)),+]) => {
        if $settings.asks($crate::Hook::$hook) {
            $settings.ask($crate::Hook::$hook, &[$(($name, $crate::json($value))),+])
        } else {
            $crate::reexport::Verdict::abstain().into()
        }
    };
}

#[doc(hidden)]
pub mod reexport {
    pub use rlrun_policy::{
        Caller, Container, CopyOut, CopyOutRequest, Create, Exec, ExecRequest, Exit, ExitEvent, Image, ImageInfo,
        MountNarrowing, MountRequest, Mounting, Narrowed, Policy, Port, PortNarrowing, Publish, Pull, Secret,
        SecretRequest, Subject, Validate, Verdict,
    };
}
