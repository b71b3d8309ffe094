//! Failures of the unpacking process, as its caller will see them.

use crate::error::{DAMAGED, step_for};
use crate::tarball::TarError;
use rlrun_spec::{Failure, Kind, Stage};
use rustix::io::Errno;
use std::path::Path;

/// The step of the hint table for ids that the user's map lacks.
pub(super) const STEP_ID: &str = "unpack-id";
const STEP: &str = "unpack";

/// Names the layer, and the entry that was being worked on, in failures.
#[derive(Clone, Copy)]
pub(super) struct At<'a> {
    pub(super) layer: &'a str,
    pub(super) path: &'a [u8],
}

impl At<'_> {
    pub(super) fn object(&self) -> String {
        if self.path.is_empty() {
            self.layer.to_owned()
        } else {
            format!("{}: {}", self.layer, self.path.escape_ascii())
        }
    }

    /// The entry is not what a layer may hold.
    pub(super) fn hostile(&self, why: impl Into<String>) -> Failure {
        Failure::new(Stage::Cli, Kind::Runtime, STEP, "unpack the layer", self.object()).why(why).hint(DAMAGED)
    }

    pub(super) fn system(&self, errno: Errno) -> Failure {
        system("unpack the layer", self.object(), errno)
    }

    pub(super) fn tar(&self, error: TarError) -> Failure {
        match error {
            TarError::Malformed(why) => self.hostile(why),
            TarError::Io(error) => self.system(errno(&error)),
        }
    }

    /// No id map holds `id`.
    pub(super) fn unmapped(&self, what: &str, id: u64, mapped: &str) -> Failure {
        Failure::new(Stage::Cli, Kind::Host, STEP_ID, "unpack the layer", self.object())
            .why(format!("layer needs {what} id {id}; range too small: only {mapped} are mapped"))
            .hint("grant more ids in /etc/subuid and /etc/subgid; `rlrun doctor` prints the command")
    }
}

pub(super) fn system(operation: &str, object: impl Into<String>, errno: Errno) -> Failure {
    let number = errno.raw_os_error();
    Failure::new(Stage::Cli, Kind::Runtime, step_for(number, STEP), operation, object).errno(number)
}

/// As `map_err(on("open the layer", &path))`.
pub(super) fn on(operation: &'static str, path: &Path) -> impl FnOnce(Errno) -> Failure {
    let object = path.display().to_string();
    move |errno| system(operation, object, errno)
}

/// Errors of std's wrappers come from the kernel here; EIO stands for one that does not.
pub(super) fn errno(error: &std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error)
}
