//! From a policy file to machine code that may be executed.
//!
//! Machine code is trusted blindly by the engine: a changed byte in it is executed like any other. So it is only
//! ever taken from two places: straight from the compiler, a child of this process, through a sealed memfd; or from
//! the user's cache, after these checks, all on open descriptors:
//!
//! * the directory is the caller's own, mode 0700; the file is a regular file of the caller's, mode 0600, not a link;
//! * its SHA-256 is the one that the index recorded when this user's rlrun wrote it; a file that has not been
//!   touched since (device, inode, size, mtime, ctime) need not be hashed again;
//! * its name tells engine version, engine configuration and processor features, and the engine checks them again.
//!
//! A policy is set up with its settings by the compiler, where it can be: the state after `lifecycle.init` is kept
//! with the code, and later runs begin there. The settings are then part of the file's name.
//!
//! Whatever fails a check is compiled anew and replaced. This does not protect a user from themselves: who can write
//! their cache as them is them. A container that mounts the cache writable would be in that place, which is why the
//! baseline policy refuses such mounts.

mod cache;
mod compile;
mod digest;
mod load;
mod state;

pub(crate) use cache::Cache;
pub use compile::component;
pub(crate) use compile::{Uncompiled, compile};
pub(crate) use digest::Digest;
pub(crate) use load::{TrustedCode, load};
pub(crate) use state::State;

/// How `rlrun-policyc` says that its input is not a policy; stderr tells why. Any other failure is its own.
pub const EXIT_REFUSED: u8 = 2;

/// How `rlrun-policyc` says that the code is good and `init` still has to be called.
pub const EXIT_PLAIN: u8 = 3;

/// What `rlrun-policyc` is asked for; its only argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Machine code, with the state after `init` where that can be kept.
    Code,
    /// Machine code of the policy as its author's compiler left it.
    Plain,
    /// The policy as a component.
    Component,
    /// A component that holds the state after `init` with these settings.
    SetUp,
}

impl Work {
    const ALL: [Work; 4] = [Work::Code, Work::Plain, Work::Component, Work::SetUp];

    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Work::Code => "code",
            Work::Plain => "plain",
            Work::Component => "component",
            Work::SetUp => "set-up",
        }
    }

    /// The reverse.
    #[must_use]
    pub fn named(word: &str) -> Option<Self> {
        Work::ALL.into_iter().find(|work| work.word() == word)
    }
}

/// What stands on the compiler's standard input: the length of the settings in eight bytes, little end first, the
/// settings as JSON, the policy.
#[must_use]
pub fn input_frame(settings: &str, wasm: &[u8]) -> Vec<u8> {
    let length = u64::try_from(settings.len()).unwrap_or(u64::MAX);
    [&length.to_le_bytes(), settings.as_bytes(), wasm].concat()
}

/// The reverse of [`input_frame`]: settings and policy.
#[must_use]
pub fn split_frame(frame: &[u8]) -> Option<(&str, &[u8])> {
    let (length, rest) = frame.split_first_chunk::<8>()?;
    let (settings, wasm) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
    Some((std::str::from_utf8(settings).ok()?, wasm))
}
