//! The harness of the end-to-end tests. A test states what it needs of the host, gets a [`Case`] (a home of its own
//! with rlrun installed and one image loaded), runs the real `rlrun` as an ordinary user, and looks at what came out.
//! When the case is dropped it checks that nothing was left behind.
//!
//! ```ignore
//! #[test]
//! fn the_exit_code_is_the_payloads() {
//!     let case = case!(Userns);
//!     case.run(["run", "--rm", "--network", "none", BASE, "sh", "-c", "exit 3"]).code(3);
//! }
//! ```
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::missing_panics_doc,
    clippy::must_use_candidate,
    reason = "a harness reports by panicking: every failure here is the failure of a test"
)]

mod archive;
mod case;
mod http;
mod needs;
mod process;
mod pty;
mod registry;
mod root;
mod rootfs;
mod stream;
mod user;
mod wait;

pub use archive::{Archive, Image, digest, gzip, zstd};
pub use case::Case;
pub use http::{FileServer, Reply, Request, host_address, serve, serve_requests};
pub use needs::Need;
pub use process::{Exit, Invocation, Output, Running, Spawned, descendants, payload_of};
pub use pty::Terminal;
pub use registry::{FakeRegistry, Registry};
pub use root::{BASE, template_archive};
pub use rootfs::{Rootfs, base_rootfs, probe_program};
pub use stream::{compare as stream_compare, digest as stream_digest, emit as stream_emit};
pub use user::Ordinary;
pub use wait::{eventually, until};

/// A [`Case`], or a return from the test when the host lacks what it needs (which `RLRUN_MUST_HAVE` forbids).
#[macro_export]
macro_rules! case {
    ($($need:ident),* $(,)?) => {
        match $crate::Case::new(&[$($crate::Need::$need),*]) {
            Some(case) => case,
            None => return,
        }
    };
}
