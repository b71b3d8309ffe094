//! One policy, ready to be asked.

use crate::bindings::exports::rlrun::policy as exports;
use crate::error::LoadError;
use crate::evaluate::State;
use rlrun_spec::policy::PolicyId;
use std::fmt;
use std::path::PathBuf;
use wasmtime::component::{Component, InstancePre, Linker};

/// What policies are asked about in this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hook {
    /// `lifecycle.init`: settings.
    Lifecycle,
    /// `image.on-pull` and `image.on-image`.
    Image,
    /// `create.on-create`.
    Create,
    /// `validate.on-final`.
    Validate,
    /// `exec.on-exec`.
    Exec,
}

impl Hook {
    pub(crate) const ALL: [Hook; 5] = [Hook::Lifecycle, Hook::Image, Hook::Create, Hook::Validate, Hook::Exec];

    /// The interface in the ABI.
    #[must_use]
    pub fn interface(self) -> &'static str {
        match self {
            Hook::Lifecycle => "rlrun:policy/lifecycle@0.1.0",
            Hook::Image => "rlrun:policy/image@0.1.0",
            Hook::Create => "rlrun:policy/create@0.1.0",
            Hook::Validate => "rlrun:policy/validate@0.1.0",
            Hook::Exec => "rlrun:policy/exec@0.1.0",
        }
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Hook::Lifecycle => "lifecycle",
            Hook::Image => "image",
            Hook::Create => "create",
            Hook::Validate => "validate",
            Hook::Exec => "exec",
        })
    }
}

/// The hooks that a component exports; asking for the others is skipped.
#[derive(Default)]
pub(crate) struct Hooks {
    pub(crate) lifecycle: Option<exports::lifecycle::GuestIndices>,
    pub(crate) image: Option<exports::image::GuestIndices>,
    pub(crate) create: Option<exports::create::GuestIndices>,
    pub(crate) validate: Option<exports::validate::GuestIndices>,
    pub(crate) exec: Option<exports::exec::GuestIndices>,
}

/// A loaded policy.
pub(crate) struct Policy {
    pub(crate) id: PolicyId,
    pub(crate) pre: InstancePre<State>,
    pub(crate) hooks: Hooks,
    /// JSON, `{}` when there are none; absent when the code already holds the state after `init`.
    pub(crate) settings: Option<String>,
    /// Where `data.get` looks.
    pub(crate) data: Option<PathBuf>,
}

impl Policy {
    /// Resolves imports and finds the hooks.
    ///
    /// # Errors
    /// When it imports what this version does not offer, or exports nothing that it asks.
    pub(crate) fn link(
        linker: &Linker<State>,
        component: &Component,
        id: PolicyId,
        settings: Option<String>,
        data: Option<PathBuf>,
    ) -> Result<Self, LoadError> {
        let pre = linker.instantiate_pre(component).map_err(|error| unlinkable(component, linker, &id.name, &error))?;
        let hooks = Hooks::find(&pre).map_err(|error| LoadError::not_a_policy(&id.name, format!("{error:#}")))?;
        let policy = Policy { id, pre, hooks, settings, data };
        let asked = Hook::ALL.into_iter().filter(|h| *h != Hook::Lifecycle);
        if !asked.clone().any(|hook| policy.has(hook)) {
            let known: Vec<&str> = asked.map(Hook::interface).collect();
            return Err(LoadError::NotAPolicy {
                name: policy.id.name,
                why: "exports no hook that this version asks".to_owned(),
                hint: Some(format!("export one of: {}", known.join(", "))),
            });
        }
        if policy.settings.as_deref().is_some_and(|s| s != "{}") && !policy.has(Hook::Lifecycle) {
            let why = "has settings but exports no rlrun:policy/lifecycle to take them";
            return Err(LoadError::not_a_policy(&policy.id.name, why));
        }
        Ok(policy)
    }

    pub(crate) fn has(&self, hook: Hook) -> bool {
        match hook {
            Hook::Lifecycle => self.hooks.lifecycle.is_some(),
            Hook::Image => self.hooks.image.is_some(),
            Hook::Create => self.hooks.create.is_some(),
            Hook::Validate => self.hooks.validate.is_some(),
            Hook::Exec => self.hooks.exec.is_some(),
        }
    }
}

impl Hooks {
    fn find(pre: &InstancePre<State>) -> wasmtime::Result<Self> {
        let component = pre.component();
        // Absent is fine; present in another shape is an error.
        let exported = |hook: Hook| component.get_export_index(None, hook.interface()).is_some();
        Ok(Hooks {
            lifecycle: exported(Hook::Lifecycle).then(|| exports::lifecycle::GuestIndices::new(pre)).transpose()?,
            image: exported(Hook::Image).then(|| exports::image::GuestIndices::new(pre)).transpose()?,
            create: exported(Hook::Create).then(|| exports::create::GuestIndices::new(pre)).transpose()?,
            validate: exported(Hook::Validate).then(|| exports::validate::GuestIndices::new(pre)).transpose()?,
            exec: exported(Hook::Exec).then(|| exports::exec::GuestIndices::new(pre)).transpose()?,
        })
    }
}

/// The import that nobody offers, and what to do about it.
fn unlinkable(component: &Component, linker: &Linker<State>, name: &str, error: &wasmtime::Error) -> LoadError {
    let engine = linker.engine();
    let ty = component.component_type();
    let unknown = ty.imports(engine).map(|(import, _)| import.to_owned()).find(|import| !is_offered(import));
    match unknown {
        Some(import) => LoadError::NotAPolicy {
            name: name.to_owned(),
            why: format!("imports {import}, which this version does not offer"),
            hint: Some(import_hint(&import).to_owned()),
        },
        None => LoadError::not_a_policy(name, format!("{error:#}")),
    }
}

/// Within 0.1 the ABI only grows, so any patch version will do.
fn is_offered(import: &str) -> bool {
    ["types", "log", "data", "oci"].iter().any(|interface| {
        import
            .strip_prefix("rlrun:policy/")
            .and_then(|i| i.split_once('@'))
            .is_some_and(|(name, version)| name == *interface && version.starts_with("0.1."))
    })
}

fn import_hint(import: &str) -> &'static str {
    if import.starts_with("wasi:") {
        "policies have no WASI: build for wasm32-unknown-unknown with the linker wasm-component-ld"
    } else if import.starts_with("rlrun:policy/") {
        "the interface is reserved: update rlrun, or build the policy against policy-sdk 0.1"
    } else {
        "a policy can import rlrun:policy/types, log, data and oci, nothing else"
    }
}
