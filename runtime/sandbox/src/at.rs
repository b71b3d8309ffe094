//! From an errno to a [`Failure`], where the object is known.

use rlrun_spec::{Failure, Kind, Stage};
use rustix::io::Errno;
use std::process::Output;

/// Attaches step, operation and object to a kernel error.
pub(crate) trait At<T> {
    /// `step` is a key of the hint table; `operation` reads after `cannot`-less: `mount the root file system`.
    fn at(self, step: &str, operation: &str, object: impl AsRef<str>) -> Result<T, Failure>;
}

impl<T> At<T> for Result<T, Errno> {
    fn at(self, step: &str, operation: &str, object: impl AsRef<str>) -> Result<T, Failure> {
        self.map_err(|errno| {
            // The stage that reports the failure puts its own name in (`Reporter`).
            Failure::new(Stage::Supervisor, Kind::Runtime, step, operation, object.as_ref()).errno(errno.raw_os_error())
        })
    }
}

impl<T> At<T> for std::io::Result<T> {
    fn at(self, step: &str, operation: &str, object: impl AsRef<str>) -> Result<T, Failure> {
        self.map_err(|e| {
            let failure = Failure::new(Stage::Supervisor, Kind::Runtime, step, operation, object.as_ref());
            match e.raw_os_error() {
                Some(errno) => failure.errno(errno),
                None => failure.why(e.to_string()),
            }
        })
    }
}

/// The last that a program said on standard error.
pub(crate) fn last_words(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.lines().map(str::trim).rfind(|line| !line.is_empty());
    last.map_or_else(|| format!("it gave no reason ({})", output.status), str::to_owned)
}

/// A failure with words instead of an errno.
pub(crate) fn failed(
    kind: Kind,
    step: &str,
    operation: &str,
    object: impl Into<String>,
    why: impl Into<String>,
) -> Failure {
    Failure::new(Stage::Supervisor, kind, step, operation, object).why(why)
}
