//! What [`policy!`](crate::policy) expands to calls.

use crate::{
    Decision, Diagnostic, MountNarrowing, Narrowed, PortNarrowing, Restriction, Settings, Severity, Verdict, finding,
};
use std::sync::OnceLock;

pub use crate::bindings::capabilities::rlrun::policy0_1_0::types::Container as Configuration;
pub use crate::bindings::capabilities::rlrun::policy0_2_0::answers::Judgement;
pub use crate::bindings::copy_out::exports::rlrun::policy0_2_0::copy_out::Guest as CopyOutGuest;
pub use crate::bindings::create::exports::rlrun::policy0_2_0::create::Guest as CreateGuest;
pub use crate::bindings::exec::exports::rlrun::policy0_2_0::exec::Guest as ExecGuest;
pub use crate::bindings::exit::exports::rlrun::policy0_2_0::exit::Guest as ExitGuest;
pub use crate::bindings::image::exports::rlrun::policy0_2_0::image::{Guest as ImageGuest, Info};
pub use crate::bindings::lifecycle::exports::rlrun::policy0_1_0::lifecycle::Guest as LifecycleGuest;
pub use crate::bindings::mount::exports::rlrun::policy0_2_0::mount::{Guest as MountGuest, Verdict as MountVerdict};
pub use crate::bindings::publish::exports::rlrun::policy0_2_0::publish::{
    Guest as PublishGuest, Verdict as PortVerdict,
};
pub use crate::bindings::secret::exports::rlrun::policy0_2_0::secret::Guest as SecretGuest;
pub use crate::bindings::validate::exports::rlrun::policy0_2_0::validate::Guest as ValidateGuest;

/// Reads the settings into their place.
pub fn init<S: Settings>(place: &OnceLock<S>, json: &str) -> Result<(), Vec<Diagnostic>> {
    let wrong =
        |why: String| vec![finding("SETTINGS", Severity::High, format!("the settings are wrong: {why}")).into()];
    match place.get() {
        // Built with its settings, which it keeps; a start has none to add.
        Some(_) if json.trim() == "{}" => Ok(()),
        Some(built) => built.amend(json).map_err(wrong),
        None => {
            let settings = S::read(json).map_err(wrong)?;
            // The look above was at the same place.
            place.set(settings).map_err(|_| wrong("they were given twice".to_owned()))
        }
    }
}

/// The settings in their place; the host calls `init` before any hook, and a trap denies if it ever did not.
pub fn settings<S>(place: &OnceLock<S>) -> &S {
    place.get().expect("init comes first")
}

/// Settings from JSON.
#[cfg(feature = "settings")]
pub fn from_json<S: serde::de::DeserializeOwned>(json: &str) -> Result<S, String> {
    serde_json::from_str(json).map_err(|e| e.to_string())
}

/// The verdict of a hook that has nothing to tighten. A restriction here would be silence about something that the
/// author believes to be in force.
#[must_use]
pub fn judgement(verdict: Verdict) -> Judgement {
    let Verdict { decision, mut diagnostics, restrictions, audit } = verdict;
    if !restrictions.is_empty() && decision != Decision::Deny {
        diagnostics = vec![useless(&restrictions)];
        return Judgement { decision: Decision::Deny, diagnostics, audit };
    }
    Judgement { decision, diagnostics, audit }
}

fn useless(restrictions: &[Restriction]) -> Diagnostic {
    let text = format!("this hook only allows or denies, and the policy says {} restrictions", restrictions.len());
    finding("RESTRICTION", Severity::High, text).help("report it to the policy's author").into()
}

/// As the ABI has it.
#[must_use]
pub fn port_verdict(narrowed: Narrowed<PortNarrowing>) -> PortVerdict {
    let Narrowed { verdict, narrowings } = narrowed;
    let Judgement { decision, diagnostics, audit } = judgement(verdict);
    PortVerdict { decision, diagnostics, narrowings, audit }
}

/// As the ABI has it.
#[must_use]
pub fn mount_verdict(narrowed: Narrowed<MountNarrowing>) -> MountVerdict {
    let Narrowed { verdict, narrowings } = narrowed;
    let Judgement { decision, diagnostics, audit } = judgement(verdict);
    MountVerdict { decision, diagnostics, narrowings, audit }
}

/// Exports a policy's hooks: `policy!(MyPolicy: create, image);`. The policy implements the trait of each.
#[macro_export]
macro_rules! policy {
    ($policy:ty: $($hook:ident),+ $(,)?) => {
        const _: () = {
            static SETTINGS: std::sync::OnceLock<<$policy as $crate::Policy>::Settings> = std::sync::OnceLock::new();
            struct Component;
            impl $crate::glue::LifecycleGuest for Component {
                fn init(settings: String) -> Result<(), Vec<$crate::Diagnostic>> {
                    $crate::glue::init(&SETTINGS, &settings)
                }
            }
            #[cfg(target_arch = "wasm32")]
            $crate::bindings::lifecycle::export_lifecycle!(Component);
            $($crate::__hook!($hook, $policy);)+
        };
        $crate::__asked!($policy: $($hook),+);
    };
}

/// One hook of [`policy!`].
#[doc(hidden)]
#[macro_export]
macro_rules! __hook {
    (create, $policy:ty) => {
        impl $crate::glue::CreateGuest for Component {
            fn on_create(
                request: $crate::glue::Configuration,
                facts: $crate::ContainerFacts,
                caller: $crate::Caller,
            ) -> $crate::Verdict {
                let container = $crate::Container::new(request, facts);
                <$policy as $crate::Create>::create($crate::glue::settings(&SETTINGS), &container, &caller)
            }
        }
        #[cfg(target_arch = "wasm32")]
        $crate::bindings::create::export_create!(Component);
    };
    (validate, $policy:ty) => {
        impl $crate::glue::ValidateGuest for Component {
            fn on_final(
                merged: $crate::glue::Configuration,
                facts: $crate::ContainerFacts,
                caller: $crate::Caller,
            ) -> $crate::glue::Judgement {
                let settings = $crate::glue::settings(&SETTINGS);
                let container = $crate::Container::new(merged, facts);
                $crate::glue::judgement(<$policy as $crate::Validate>::validate(settings, &container, &caller))
            }
        }
        #[cfg(target_arch = "wasm32")]
        $crate::bindings::validate::export_validate!(Component);
    };
    (image, $policy:ty) => {
        impl $crate::glue::ImageGuest for Component {
            fn on_pull(request: $crate::Pull, caller: $crate::Caller) -> $crate::glue::Judgement {
                let settings = $crate::glue::settings(&SETTINGS);
                $crate::glue::judgement(<$policy as $crate::Image>::pull(settings, &request, &caller))
            }
            fn on_image(
                info: $crate::glue::Info,
                facts: $crate::ImageFacts,
                caller: $crate::Caller,
            ) -> $crate::glue::Judgement {
                let settings = $crate::glue::settings(&SETTINGS);
                let info = $crate::ImageInfo::new(info, facts);
                $crate::glue::judgement(<$policy as $crate::Image>::image(settings, &info, &caller))
            }
        }
        #[cfg(target_arch = "wasm32")]
        $crate::bindings::image::export_image!(Component);
    };
    (exec, $policy:ty) => {
        impl $crate::glue::ExecGuest for Component {
            fn on_exec(
                request: $crate::ExecRequest,
                container: $crate::glue::Configuration,
                facts: $crate::ContainerFacts,
                caller: $crate::Caller,
            ) -> $crate::glue::Judgement {
                let settings = $crate::glue::settings(&SETTINGS);
                let container = $crate::Container::new(container, facts);
                $crate::glue::judgement(<$policy as $crate::Exec>::exec(settings, &request, &container, &caller))
            }
        }
        #[cfg(target_arch = "wasm32")]
        $crate::bindings::exec::export_exec!(Component);
    };
    (publish, $policy:ty) => {
        impl $crate::glue::PublishGuest for Component {
            fn on_publish(
                port: $crate::Port,
                container: $crate::Subject,
                caller: $crate::Caller,
            ) -> $crate::glue::PortVerdict {
                let settings = $crate::glue::settings(&SETTINGS);
                $crate::glue::port_verdict(<$policy as $crate::Publish>::publish(settings, &port, &container, &caller))
            }
        }
        #[cfg(target_arch = "wasm32")]
        $crate::bindings::publish::export_publish!(Component);
    };
    (mount, $policy:ty) => {
        impl $crate::glue::MountGuest for Component {
            fn on_mount(
                request: $crate::MountRequest,
                container: $crate::Subject,
                caller: $crate::Caller,
            ) -> $crate::glue::MountVerdict {
                let settings = $crate::glue::settings(&SETTINGS);
                let narrowed = <$policy as $crate::Mounting>::mount(settings, &request, &container, &caller);
                $crate::glue::mount_verdict(narrowed)
            }
        }
        #[cfg(target_arch = "wasm32")]
        $crate::bindings::mount::export_mount!(Component);
    };
    (secret, $policy:ty) => {
        impl $crate::glue::SecretGuest for Component {
            fn on_secret(
                request: $crate::SecretRequest,
                container: $crate::Subject,
                caller: $crate::Caller,
            ) -> $crate::glue::Judgement {
                let settings = $crate::glue::settings(&SETTINGS);
                $crate::glue::judgement(<$policy as $crate::Secret>::secret(settings, &request, &container, &caller))
            }
        }
        #[cfg(target_arch = "wasm32")]
        $crate::bindings::secret::export_secret!(Component);
    };
    (copy_out, $policy:ty) => {
        impl $crate::glue::CopyOutGuest for Component {
            fn on_copy_out(
                request: $crate::CopyOutRequest,
                container: $crate::Subject,
                caller: $crate::Caller,
            ) -> $crate::glue::Judgement {
                let settings = $crate::glue::settings(&SETTINGS);
                let verdict = <$policy as $crate::CopyOut>::copy_out(settings, &request, &container, &caller);
                $crate::glue::judgement(verdict)
            }
        }
        #[cfg(target_arch = "wasm32")]
        $crate::bindings::copy_out::export_copy_out!(Component);
    };
    (exit, $policy:ty) => {
        impl $crate::glue::ExitGuest for Component {
            fn on_exit(event: $crate::ExitEvent) {
                <$policy as $crate::Exit>::exit($crate::glue::settings(&SETTINGS), &event)
            }
        }
        #[cfg(target_arch = "wasm32")]
        $crate::bindings::exit::export_exit!(Component);
    };
}

/// The policy as a native test asks it; nothing in a component.
#[cfg(not(feature = "fixtures"))]
#[doc(hidden)]
#[macro_export]
macro_rules! __asked {
    ($($ignored:tt)*) => {};
}

/// The policy as a native test asks it; nothing in a component.
#[cfg(feature = "fixtures")]
#[doc(hidden)]
#[macro_export]
macro_rules! __asked {
    ($policy:ty: $($hook:ident),+) => {
        #[cfg(not(target_arch = "wasm32"))]
        impl $crate::fixtures::Asked for $policy {
            fn ask(settings: &str, ask: &$crate::fixtures::Ask) -> Result<$crate::fixtures::Reply, $crate::fixtures::Unasked> {
                let settings = <<$policy as $crate::Policy>::Settings as $crate::Settings>::read(settings)
                    .map_err($crate::fixtures::Unasked::Settings)?;
                $($crate::__ask!($hook, $policy, settings, ask);)+
                Err($crate::fixtures::Unasked::NoSuchHook)
            }
        }
    };
}

/// One hook of [`__asked!`].
#[cfg(feature = "fixtures")]
#[doc(hidden)]
#[macro_export]
macro_rules! __ask {
    (create, $policy:ty, $settings:ident, $ask:ident) => {
        if let $crate::fixtures::Ask::Create(container, caller) = $ask {
            return Ok(<$policy as $crate::Create>::create(&$settings, container, caller).into());
        }
    };
    (validate, $policy:ty, $settings:ident, $ask:ident) => {
        if let $crate::fixtures::Ask::Validate(container, caller) = $ask {
            return Ok(<$policy as $crate::Validate>::validate(&$settings, container, caller).into());
        }
    };
    (image, $policy:ty, $settings:ident, $ask:ident) => {
        if let $crate::fixtures::Ask::Pull(request, caller) = $ask {
            return Ok(<$policy as $crate::Image>::pull(&$settings, request, caller).into());
        }
        if let $crate::fixtures::Ask::Image(info, caller) = $ask {
            return Ok(<$policy as $crate::Image>::image(&$settings, info, caller).into());
        }
    };
    (exec, $policy:ty, $settings:ident, $ask:ident) => {
        if let $crate::fixtures::Ask::Exec(request, container, caller) = $ask {
            return Ok(<$policy as $crate::Exec>::exec(&$settings, request, container, caller).into());
        }
    };
    (publish, $policy:ty, $settings:ident, $ask:ident) => {
        if let $crate::fixtures::Ask::Publish(port, subject, caller) = $ask {
            return Ok($crate::fixtures::Reply::narrowed(<$policy as $crate::Publish>::publish(
                &$settings, port, subject, caller,
            )));
        }
    };
    (mount, $policy:ty, $settings:ident, $ask:ident) => {
        if let $crate::fixtures::Ask::Mount(request, subject, caller) = $ask {
            return Ok($crate::fixtures::Reply::narrowed(<$policy as $crate::Mounting>::mount(
                &$settings, request, subject, caller,
            )));
        }
    };
    (secret, $policy:ty, $settings:ident, $ask:ident) => {
        if let $crate::fixtures::Ask::Secret(request, subject, caller) = $ask {
            return Ok(<$policy as $crate::Secret>::secret(&$settings, request, subject, caller).into());
        }
    };
    (copy_out, $policy:ty, $settings:ident, $ask:ident) => {
        if let $crate::fixtures::Ask::CopyOut(request, subject, caller) = $ask {
            return Ok(<$policy as $crate::CopyOut>::copy_out(&$settings, request, subject, caller).into());
        }
    };
    (exit, $policy:ty, $settings:ident, $ask:ident) => {
        if let $crate::fixtures::Ask::Exit(event) = $ask {
            <$policy as $crate::Exit>::exit(&$settings, event);
            return Ok($crate::Verdict::abstain().into());
        }
    };
}
