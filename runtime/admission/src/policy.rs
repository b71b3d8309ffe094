//! One policy, ready to be asked.

use crate::answer;
use crate::bindings::exports::rlrun::{policy as exports, policy2 as exports2};
use crate::error::LoadError;
use crate::evaluate::State;
use crate::sources::LookInside;
use rlrun_spec::policy::{Mode, PolicyId, PrivilegedFiles};
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
    /// `publish.on-publish`, a part of admission.
    Publish,
    /// `mount.on-mount`, a part of admission.
    Mount,
    /// `secret.on-secret`, a part of admission.
    Secret,
    /// `copy-out.on-copy-out`.
    CopyOut,
    /// `exit.on-exit`: told, not asked.
    Exit,
}

impl Hook {
    pub(crate) const ALL: [Hook; 10] = [
        Hook::Lifecycle,
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

    /// The interface in the newest version of the ABI that has it.
    #[must_use]
    pub fn interface(self) -> &'static str {
        self.interfaces()[0]
    }

    /// The interfaces under which a policy may export it, newest first.
    #[must_use]
    pub fn interfaces(self) -> &'static [&'static str] {
        match self {
            Hook::Lifecycle => &["rlrun:policy/lifecycle@0.1.0"],
            Hook::Image => &["rlrun:policy/image@0.2.0", "rlrun:policy/image@0.1.0"],
            Hook::Create => &["rlrun:policy/create@0.2.0", "rlrun:policy/create@0.1.0"],
            Hook::Validate => &["rlrun:policy/validate@0.2.0", "rlrun:policy/validate@0.1.0"],
            Hook::Exec => &["rlrun:policy/exec@0.2.0", "rlrun:policy/exec@0.1.0"],
            Hook::Publish => &["rlrun:policy/publish@0.2.0"],
            Hook::Mount => &["rlrun:policy/mount@0.2.0"],
            Hook::Secret => &["rlrun:policy/secret@0.2.0"],
            Hook::CopyOut => &["rlrun:policy/copy-out@0.2.0"],
            Hook::Exit => &["rlrun:policy/exit@0.2.0"],
        }
    }

    /// The hooks that a start is decided by.
    pub(crate) const OF_ADMISSION: [Hook; 5] = [Hook::Create, Hook::Validate, Hook::Publish, Hook::Mount, Hook::Secret];
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Hook::Lifecycle => "lifecycle",
            Hook::Image => "image",
            Hook::Create => "create",
            Hook::Validate => "validate",
            Hook::Exec => "exec",
            Hook::Publish => "publish",
            Hook::Mount => "mount",
            Hook::Secret => "secret",
            Hook::CopyOut => "copy-out",
            Hook::Exit => "exit",
        })
    }
}

/// The hooks that a component exports; asking for the others is skipped.
#[derive(Default)]
pub(crate) struct Hooks {
    pub(crate) lifecycle: Option<exports::lifecycle::GuestIndices>,
    pub(crate) image: Option<exports::image::GuestIndices>,
    pub(crate) image2: Option<exports2::image::GuestIndices>,
    pub(crate) create: Option<exports::create::GuestIndices>,
    pub(crate) create2: Option<exports2::create::GuestIndices>,
    pub(crate) validate: Option<exports::validate::GuestIndices>,
    pub(crate) validate2: Option<exports2::validate::GuestIndices>,
    pub(crate) exec: Option<exports::exec::GuestIndices>,
    pub(crate) exec2: Option<exports2::exec::GuestIndices>,
    pub(crate) publish: Option<exports2::publish::GuestIndices>,
    pub(crate) mount: Option<exports2::mount::GuestIndices>,
    pub(crate) secret: Option<exports2::secret::GuestIndices>,
    pub(crate) copy_out: Option<exports2::copy_out::GuestIndices>,
    pub(crate) exit: Option<exports2::exit::GuestIndices>,
}

/// Where a policy's look into an image ends.
#[derive(Clone)]
pub(crate) enum Contents {
    /// There is nothing to be seen.
    Nothing,
    /// In the image of the container that it is asked about.
    Store(PathBuf, LookInside),
    /// These, whatever it is asked about.
    Given(PrivilegedFiles),
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
    /// What `clock` tells, where it was granted.
    pub(crate) moment: Option<u64>,
    /// What `contents` tells.
    pub(crate) contents: Contents,
    /// What its no does.
    pub(crate) mode: Mode,
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
        let policy =
            Policy { id, pre, hooks, settings, data, moment: None, contents: Contents::Nothing, mode: Mode::Enforce };
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
            Hook::Image => self.hooks.image.is_some() || self.hooks.image2.is_some(),
            Hook::Create => self.hooks.create.is_some() || self.hooks.create2.is_some(),
            Hook::Validate => self.hooks.validate.is_some() || self.hooks.validate2.is_some(),
            Hook::Exec => self.hooks.exec.is_some() || self.hooks.exec2.is_some(),
            Hook::Publish => self.hooks.publish.is_some(),
            Hook::Mount => self.hooks.mount.is_some(),
            Hook::Secret => self.hooks.secret.is_some(),
            Hook::CopyOut => self.hooks.copy_out.is_some(),
            Hook::Exit => self.hooks.exit.is_some(),
        }
    }
}

impl Hooks {
    fn find(pre: &InstancePre<State>) -> wasmtime::Result<Self> {
        let component = pre.component();
        // Absent is fine; present in another shape is an error.
        let exported = |interface: &str| component.get_export_index(None, interface).is_some();
        macro_rules! find {
            ($($field:ident: $exports:ident::$module:ident = $interface:literal),* $(,)?) => {
                Hooks { $($field: exported($interface).then(|| $exports::$module::GuestIndices::new(pre)).transpose()?,)* }
            };
        }
        Ok(find! {
            lifecycle: exports::lifecycle = "rlrun:policy/lifecycle@0.1.0",
            image: exports::image = "rlrun:policy/image@0.1.0",
            image2: exports2::image = "rlrun:policy/image@0.2.0",
            create: exports::create = "rlrun:policy/create@0.1.0",
            create2: exports2::create = "rlrun:policy/create@0.2.0",
            validate: exports::validate = "rlrun:policy/validate@0.1.0",
            validate2: exports2::validate = "rlrun:policy/validate@0.2.0",
            exec: exports::exec = "rlrun:policy/exec@0.1.0",
            exec2: exports2::exec = "rlrun:policy/exec@0.2.0",
            publish: exports2::publish = "rlrun:policy/publish@0.2.0",
            mount: exports2::mount = "rlrun:policy/mount@0.2.0",
            secret: exports2::secret = "rlrun:policy/secret@0.2.0",
            copy_out: exports2::copy_out = "rlrun:policy/copy-out@0.2.0",
            exit: exports2::exit = "rlrun:policy/exit@0.2.0",
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
            why: format!("imports {}, which this version does not offer", answer::printable(&import)),
            hint: Some(import_hint(&import).to_owned()),
        },
        None => LoadError::not_a_policy(name, format!("{error:#}")),
    }
}

/// Within a version the ABI only grows, so any patch version will do.
fn is_offered(import: &str) -> bool {
    let offered = |(name, version): (&str, &str)| {
        (version.starts_with("0.1.") && ["types", "log", "data", "oci", "clock"].contains(&name))
            || (version.starts_with("0.2.")
                && ["facts", "answers", "subject", "provenance", "contents"].contains(&name))
    };
    import.strip_prefix("rlrun:policy/").and_then(|i| i.split_once('@')).is_some_and(offered)
}

/// What of a component's imports reaches something; types reach nothing.
#[must_use]
pub fn is_capability(import: &str) -> bool {
    let name = import.strip_prefix("rlrun:policy/").and_then(|i| i.split('@').next());
    !name.is_some_and(|name| ["types", "facts", "answers", "subject"].contains(&name))
}

/// The import that looks into images.
pub(crate) fn is_contents(import: &str) -> bool {
    import.starts_with("rlrun:policy/contents@")
}

/// Capabilities that a policy has only where somebody has said so: with them the same request can have another answer.
pub(crate) fn needs_a_grant(import: &str) -> Option<&'static str> {
    import.starts_with("rlrun:policy/clock@").then_some("clock")
}

fn import_hint(import: &str) -> &'static str {
    if import.starts_with("wasi:") {
        "policies have no WASI: build for wasm32-unknown-unknown with the linker wasm-component-ld"
    } else if import.starts_with("rlrun:policy/") {
        "the interface is reserved: update rlrun, or build the policy against this version's policy-sdk"
    } else {
        "a policy can import rlrun:policy/log, data, oci, provenance, contents and clock, nothing else"
    }
}
