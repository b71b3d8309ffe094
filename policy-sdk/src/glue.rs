//! What [`policy!`](crate::policy) expands to calls.

use crate::{Diagnostic, Settings, Severity, finding};
use std::sync::OnceLock;

pub use crate::bindings::create::exports::rlrun::policy::create::Guest as CreateGuest;
pub use crate::bindings::exec::exports::rlrun::policy::exec::Guest as ExecGuest;
pub use crate::bindings::image::exports::rlrun::policy::image::Guest as ImageGuest;
pub use crate::bindings::lifecycle::exports::rlrun::policy::lifecycle::Guest as LifecycleGuest;
pub use crate::bindings::validate::exports::rlrun::policy::validate::Guest as ValidateGuest;

/// Reads the settings into their place.
pub fn init<S: Settings>(place: &OnceLock<S>, json: &str) -> Result<(), Vec<Diagnostic>> {
    // Built with its settings, which it keeps; a start has none to add.
    if place.get().is_some() && json.trim() == "{}" {
        return Ok(());
    }
    let wrong =
        |why: String| vec![finding("SETTINGS", Severity::High, format!("the settings are wrong: {why}")).into()];
    let settings = S::read(json).map_err(wrong)?;
    place.set(settings).map_err(|_| wrong("it was built with others, which cannot be changed".to_owned()))
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
            fn on_create(request: $crate::Container, caller: $crate::Caller) -> $crate::Verdict {
                <$policy as $crate::Create>::create($crate::glue::settings(&SETTINGS), &request, &caller)
            }
        }
        #[cfg(target_arch = "wasm32")]
        $crate::bindings::create::export_create!(Component);
    };
    (validate, $policy:ty) => {
        impl $crate::glue::ValidateGuest for Component {
            fn on_final(merged: $crate::Container, caller: $crate::Caller) -> $crate::Verdict {
                <$policy as $crate::Validate>::validate($crate::glue::settings(&SETTINGS), &merged, &caller)
            }
        }
        #[cfg(target_arch = "wasm32")]
        $crate::bindings::validate::export_validate!(Component);
    };
    (image, $policy:ty) => {
        impl $crate::glue::ImageGuest for Component {
            fn on_pull(request: $crate::Pull, caller: $crate::Caller) -> $crate::Verdict {
                <$policy as $crate::Image>::pull($crate::glue::settings(&SETTINGS), &request, &caller)
            }
            fn on_image(info: $crate::ImageInfo, caller: $crate::Caller) -> $crate::Verdict {
                <$policy as $crate::Image>::image($crate::glue::settings(&SETTINGS), &info, &caller)
            }
        }
        #[cfg(target_arch = "wasm32")]
        $crate::bindings::image::export_image!(Component);
    };
    (exec, $policy:ty) => {
        impl $crate::glue::ExecGuest for Component {
            fn on_exec(
                request: $crate::ExecRequest,
                container: $crate::Container,
                caller: $crate::Caller,
            ) -> $crate::Verdict {
                let settings = $crate::glue::settings(&SETTINGS);
                <$policy as $crate::Exec>::exec(settings, &request, &container, &caller)
            }
        }
        #[cfg(target_arch = "wasm32")]
        $crate::bindings::exec::export_exec!(Component);
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
            fn ask(settings: &str, ask: &$crate::fixtures::Ask) -> Result<$crate::Verdict, $crate::fixtures::Unasked> {
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
            return Ok(<$policy as $crate::Create>::create(&$settings, container, caller));
        }
    };
    (validate, $policy:ty, $settings:ident, $ask:ident) => {
        if let $crate::fixtures::Ask::Validate(container, caller) = $ask {
            return Ok(<$policy as $crate::Validate>::validate(&$settings, container, caller));
        }
    };
    (image, $policy:ty, $settings:ident, $ask:ident) => {
        if let $crate::fixtures::Ask::Pull(request, caller) = $ask {
            return Ok(<$policy as $crate::Image>::pull(&$settings, request, caller));
        }
        if let $crate::fixtures::Ask::Image(info, caller) = $ask {
            return Ok(<$policy as $crate::Image>::image(&$settings, info, caller));
        }
    };
    (exec, $policy:ty, $settings:ident, $ask:ident) => {
        if let $crate::fixtures::Ask::Exec(request, container, caller) = $ask {
            return Ok(<$policy as $crate::Exec>::exec(&$settings, request, container, caller));
        }
    };
}
