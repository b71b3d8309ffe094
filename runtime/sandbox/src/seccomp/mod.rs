//! Seccomp filters: the default profile as data, profiles from files, and their compiled form (seccomp(2)).
//!
//! A profile is always the OCI section `linux.seccomp`: what policies see is what is compiled. A refusal in a section
//! wins over a permission for the same call, also where conditions on arguments overlap; libseccomp alone would let
//! an unconditional permission swallow it, so such refusals go into a filter of their own (the kernel runs all and
//! takes the strictest answer).

mod cache;
mod compile;
mod default;
mod file;
mod syscalls;

pub use cache::filters;
pub use compile::compile;
pub use default::default_profile;
pub use file::load_profile;

use std::path::PathBuf;

/// Why there is no filter. A container does not start then.
#[derive(Debug, thiserror::Error)]
pub enum SeccompError {
    /// The profile's file cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is no profile.
    #[error("{}: {why}", path.display())]
    NotAProfile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The section asks for something that this version cannot do; nothing is ignored silently.
    #[error("the seccomp profile asks for {0}, which rlrun does not support")]
    Unsupported(String),
    /// A call that is to be refused has a name that nobody here knows, so it would not be refused.
    #[error("the seccomp profile refuses {name}, which is not the name of a known system call")]
    UnknownCall {
        /// The name.
        name: String,
    },
    /// libseccomp refused a rule or the export.
    #[error("libseccomp could not {operation}: {why}")]
    Library {
        /// What it was doing.
        operation: String,
        /// Its reason.
        why: String,
    },
}

#[cfg(test)]
mod tests;
