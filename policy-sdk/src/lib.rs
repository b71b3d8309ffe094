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
//! What a policy exports is what [`policy!`] lists; what it can reach is what it uses of [`log`], [`data`] and
//! [`oci`]. Everything is plain Rust on the host too, so `cargo test` needs no WebAssembly.

#[allow(missing_docs, clippy::all, reason = "generated from wit/, documented there")]
#[doc(hidden)]
pub mod bindings {
    #[rustfmt::skip]
    pub mod capabilities;
    #[rustfmt::skip]
    pub mod create;
    #[rustfmt::skip]
    pub mod exec;
    #[rustfmt::skip]
    pub mod image;
    #[rustfmt::skip]
    pub mod lifecycle;
    #[rustfmt::skip]
    pub mod validate;
}

/// What generated code needs at run time.
#[doc(hidden)]
pub mod rt {
    pub use wit_bindgen::rt::*;
}

pub mod capability;
#[cfg(feature = "fixtures")]
pub mod fixtures;
#[doc(hidden)]
pub mod glue;
pub mod pattern;
mod verdict;

pub use bindings::capabilities::rlrun::policy::types::{
    Caller, Container, Control, Decision, Diagnostic, EgressRule, Enforced, ImageRef, Limits, Mount, MountTighten,
    Pair, Port, Restriction, SeccompAction, SeccompRule, SeccompSummary, Severity, Signature, Verdict,
};
pub use bindings::exec::exports::rlrun::policy::exec::Request as ExecRequest;
pub use bindings::image::exports::rlrun::policy::image::{Info as ImageInfo, Pull};
pub use capability::{data, log, oci};
pub use verdict::{Finding, finding};

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
