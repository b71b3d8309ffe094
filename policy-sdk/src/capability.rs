//! What a policy can reach. Using one of these makes it an import of the component, shown by `rlrun policy check`.

/// Messages for whoever debugs the policy.
pub mod log {
    pub use crate::bindings::capabilities::rlrun::policy::log::Level;

    /// Logs one line.
    pub fn log(level: Level, message: &str) {
        #[cfg(target_arch = "wasm32")]
        crate::bindings::capabilities::rlrun::policy::log::log(level, message);
        #[cfg(not(target_arch = "wasm32"))]
        eprintln!("{level:?}: {message}");
    }
}

/// Text that the administrator put beside the policy, one file a key in the directory NAME.data. Empty on the host.
pub mod data {
    /// The text under a key.
    #[must_use]
    pub fn get(key: &str) -> Option<String> {
        #[cfg(target_arch = "wasm32")]
        return crate::bindings::capabilities::rlrun::policy::data::get(key);
        #[cfg(not(target_arch = "wasm32"))]
        {
            let _ = key;
            None
        }
    }

    /// All keys, in alphabetical order.
    #[must_use]
    pub fn keys() -> Vec<String> {
        #[cfg(target_arch = "wasm32")]
        return crate::bindings::capabilities::rlrun::policy::data::keys();
        #[cfg(not(target_arch = "wasm32"))]
        Vec::new()
    }
}

/// What the typed request leaves out. Absent on the host.
pub mod oci {
    /// The whole OCI runtime configuration as JSON, in hooks about a container.
    #[must_use]
    pub fn config() -> Option<String> {
        #[cfg(target_arch = "wasm32")]
        return crate::bindings::capabilities::rlrun::policy::oci::config();
        #[cfg(not(target_arch = "wasm32"))]
        None
    }
}
