//! What a policy can reach. Using one of these makes it an import of the component, shown by `rlrun policy check`.

/// Messages for whoever debugs the policy.
pub mod log {
    pub use crate::bindings::capabilities::rlrun::policy0_1_0::log::Level;

    /// Logs one line.
    pub fn log(level: Level, message: &str) {
        #[cfg(target_arch = "wasm32")]
        crate::bindings::capabilities::rlrun::policy0_1_0::log::log(level, message);
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
        return crate::bindings::capabilities::rlrun::policy0_1_0::data::get(key);
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
        return crate::bindings::capabilities::rlrun::policy0_1_0::data::keys();
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
        return crate::bindings::capabilities::rlrun::policy0_1_0::oci::config();
        #[cfg(not(target_arch = "wasm32"))]
        None
    }
}

/// Where the image is from that a request is about. On the host what [`set`](provenance::set) was told.
pub mod provenance {
    pub use crate::bindings::capabilities::rlrun::policy0_2_0::provenance::Origin;

    /// Who has signed it, whether it is named by its digest, what is said about it; in `on-image` and the hooks about a
    /// container. Absent for a foreign root file system.
    #[must_use]
    pub fn image() -> Option<Origin> {
        #[cfg(target_arch = "wasm32")]
        return crate::bindings::capabilities::rlrun::policy0_2_0::provenance::image();
        #[cfg(not(target_arch = "wasm32"))]
        ORIGIN.with_borrow(Clone::clone)
    }

    #[cfg(not(target_arch = "wasm32"))]
    thread_local! {
        static ORIGIN: std::cell::RefCell<Option<Origin>> = const { std::cell::RefCell::new(None) };
    }

    /// For tests: the answer from here on, in this thread.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn set(origin: Option<Origin>) {
        ORIGIN.set(origin);
    }
}

/// What is in the layers of the image that a request is about. On the host what [`set`](contents::set) was told.
pub mod contents {
    pub use crate::bindings::capabilities::rlrun::policy0_2_0::contents::{PrivilegedFile, PrivilegedFiles};

    /// Files with a set-user-ID or set-group-ID bit or with capabilities, in the hooks about a container. Absent for a
    /// foreign root file system.
    #[must_use]
    pub fn privileged() -> Option<PrivilegedFiles> {
        #[cfg(target_arch = "wasm32")]
        return crate::bindings::capabilities::rlrun::policy0_2_0::contents::privileged();
        #[cfg(not(target_arch = "wasm32"))]
        FILES.with_borrow(Clone::clone)
    }

    #[cfg(not(target_arch = "wasm32"))]
    thread_local! {
        static FILES: std::cell::RefCell<Option<PrivilegedFiles>> = const { std::cell::RefCell::new(None) };
    }

    /// For tests: the answer from here on, in this thread.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn set(files: Option<PrivilegedFiles>) {
        FILES.set(files);
    }
}

/// The time. Using it makes the policy one that somebody has to grant the clock to.
pub mod clock {
    /// Milliseconds since 1970, the same for a whole command. On the host what [`set`] was told.
    #[must_use]
    pub fn now_unix_ms() -> u64 {
        #[cfg(target_arch = "wasm32")]
        return crate::bindings::capabilities::rlrun::policy0_1_0::clock::now_unix_ms();
        #[cfg(not(target_arch = "wasm32"))]
        NOW.with(std::cell::Cell::get)
    }

    #[cfg(not(target_arch = "wasm32"))]
    thread_local! {
        static NOW: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
    }

    /// For tests: the time from here on, in this thread.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn set(unix_ms: u64) {
        NOW.with(|now| now.set(unix_ms));
    }
}
