//! Write policies for rlrun.
//!
//! ```ignore
//! use rlrun_policy::*;
//!
//! struct NoRoot;
//!
//! impl Policy for NoRoot {
//!     type Settings = NoSettings;
//! }
//!
//! impl Create for NoRoot {
//!     fn create(_: &NoSettings, container: &Container, _: &Caller) -> Verdict {
//!         if container.uid == 0 {
//!             return Verdict::deny(finding("ROOT001", Severity::High, "runs as root").help("use --user"));
//!         }
//!         Verdict::allow().restrict(Restriction::NoNewPrivileges)
//!     }
//! }
//!
//! policy!(NoRoot: create);
//! ```
//!
//! with `crate-type = ["cdylib", "rlib"]`, built for `wasm32-unknown-unknown` with the linker `wasm-component-ld`.
//! What a policy exports is what [`policy!`] lists; what it can reach is what it uses of [`log`], [`data`],
//! [`oci`], [`provenance`], [`contents`] and [`clock`]. Everything is plain Rust on the host too, so `cargo test` needs no WebAssembly.

#[allow(missing_docs, clippy::all, reason = "generated from wit/, documented there")]
#[doc(hidden)]
pub mod bindings {
    #[rustfmt::skip]
    pub mod capabilities;
    #[rustfmt::skip]
    pub mod copy_out;
    #[rustfmt::skip]
    pub mod create;
    #[rustfmt::skip]
    pub mod exec;
    #[rustfmt::skip]
    pub mod exit;
    #[rustfmt::skip]
    pub mod image;
    #[rustfmt::skip]
    pub mod lifecycle;
    #[rustfmt::skip]
    pub mod mount;
    #[rustfmt::skip]
    pub mod publish;
    #[rustfmt::skip]
    pub mod secret;
    #[rustfmt::skip]
    pub mod validate;
}

/// What generated code needs at run time.
#[doc(hidden)]
pub mod rt {
    pub use wit_bindgen::rt::*;
}

pub mod capability;
mod facts;
#[cfg(feature = "fixtures")]
pub mod fixtures;
#[doc(hidden)]
pub mod glue;
pub mod pattern;
pub mod secret_scan;
mod verdict;

pub use bindings::capabilities::rlrun::policy0_1_0::types::{
    Caller, Control, Decision, Diagnostic, EgressRule, Enforced, ImageRef, Limits, Mount, MountTighten, Pair, Port,
    Restriction, SeccompAction, SeccompRule, SeccompSummary, Severity, Signature, Verdict,
};
pub use bindings::capabilities::rlrun::policy0_2_0::facts::{
    Attestation, ContainerFacts, HistoryEntry, ImageConfig, ImageFacts, Layer, Rlimit,
};
pub use bindings::capabilities::rlrun::policy0_2_0::subject::Subject;
pub use bindings::copy_out::exports::rlrun::policy0_2_0::copy_out::{Operation, Request as CopyOutRequest};
pub use bindings::exec::exports::rlrun::policy0_2_0::exec::Request as ExecRequest;
pub use bindings::exit::exports::rlrun::policy0_2_0::exit::Event as ExitEvent;
pub use bindings::image::exports::rlrun::policy0_2_0::image::Pull;
pub use bindings::mount::exports::rlrun::policy0_2_0::mount::{Narrowing as MountNarrowing, Request as MountRequest};
pub use bindings::publish::exports::rlrun::policy0_2_0::publish::Narrowing as PortNarrowing;
pub use bindings::secret::exports::rlrun::policy0_2_0::secret::{Form as SecretForm, Request as SecretRequest};
pub use capability::{clock, contents, data, log, oci, provenance};
pub use facts::{Container, ImageInfo};
pub use verdict::{Finding, Narrowed, finding};

/// A policy; which hooks it has is said by the traits it implements and by [`policy!`].
pub trait Policy {
    /// What it is set up with: [`NoSettings`] or a type of its own that implements `serde::Deserialize` (use
    /// `#[serde(deny_unknown_fields)]`, so that a misspelt setting is an error and not silence).
    type Settings: Settings;
}

/// Settings, read once before any hook.
pub trait Settings: Sized + 'static {
    /// # Errors
    /// What is wrong, in words; the policy is then not asked and denies.
    fn read(json: &str) -> Result<Self, String>;

    /// More settings for a policy that was built with some, such as its text.
    ///
    /// # Errors
    /// As [`Settings::read`]; a policy that says nothing else takes none.
    fn amend(&self, json: &str) -> Result<(), String> {
        let _ = json;
        Err("it was built with others, which cannot be changed".to_owned())
    }
}

/// For policies without settings: any setting is an error.
#[derive(Debug)]
pub struct NoSettings;

impl Settings for NoSettings {
    fn read(json: &str) -> Result<Self, String> {
        match json.trim() {
            "" | "{}" => Ok(NoSettings),
            _ => Err("this policy has no settings".to_owned()),
        }
    }
}

/// Makes a `serde::Deserialize` type settings: `settings!(MySettings);`.
#[cfg(feature = "settings")]
#[macro_export]
macro_rules! settings {
    ($settings:ty) => {
        impl $crate::Settings for $settings {
            fn read(json: &str) -> Result<Self, String> {
                $crate::glue::from_json(json)
            }
        }
    };
}

/// Before any byte of an image is fetched, and before a pulled, loaded or imported image gets its name.
pub trait Image: Policy {
    /// Before the pull. Restrictions are refused here.
    fn pull(settings: &Self::Settings, request: &Pull, caller: &Caller) -> Verdict {
        let _ = (settings, request, caller);
        Verdict::abstain()
    }

    /// After it. Restrictions are refused here.
    fn image(settings: &Self::Settings, info: &ImageInfo, caller: &Caller) -> Verdict {
        let _ = (settings, info, caller);
        Verdict::abstain()
    }
}

/// Before a container is started.
pub trait Create: Policy {
    /// The request as it was made; restrictions of all policies are merged.
    fn create(settings: &Self::Settings, container: &Container, caller: &Caller) -> Verdict;
}

/// After all policies have tightened the configuration.
pub trait Validate: Policy {
    /// The result. Restrictions are refused here.
    fn validate(settings: &Self::Settings, container: &Container, caller: &Caller) -> Verdict;
}

/// Before a process joins a running container.
pub trait Exec: Policy {
    /// The container as it was admitted. Restrictions are refused here.
    fn exec(settings: &Self::Settings, request: &ExecRequest, container: &Container, caller: &Caller) -> Verdict;
}

/// Once for each port that is to be published.
pub trait Publish: Policy {
    /// Say `Verdict::allow().narrow(PortNarrowing::LoopbackOnly)` to let it be published to this host alone.
    fn publish(settings: &Self::Settings, port: &Port, container: &Subject, caller: &Caller)
    -> Narrowed<PortNarrowing>;
}

/// Once for each bind mount, volume and tmpfs that somebody asked for.
pub trait Mounting: Policy {
    /// Say `Verdict::allow().narrow(MountNarrowing::ReadOnly)` to let it be read only.
    fn mount(
        settings: &Self::Settings,
        request: &MountRequest,
        container: &Subject,
        caller: &Caller,
    ) -> Narrowed<MountNarrowing>;
}

/// Once for each secret that a container is to be given.
pub trait Secret: Policy {
    /// Restrictions are refused here.
    fn secret(settings: &Self::Settings, request: &SecretRequest, container: &Subject, caller: &Caller) -> Verdict;
}

/// Before something leaves a container by `cp`, `export` or `commit`.
pub trait CopyOut: Policy {
    /// Restrictions are refused here.
    fn copy_out(settings: &Self::Settings, request: &CopyOutRequest, container: &Subject, caller: &Caller) -> Verdict;
}

/// After a container has ended: the next command that asks policies tells of it.
pub trait Exit: Policy {
    /// What is logged here goes into the audit log.
    fn exit(settings: &Self::Settings, event: &ExitEvent);
}
