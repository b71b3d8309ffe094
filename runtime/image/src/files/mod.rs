//! The files of a container, in and out as tar streams, and what it has changed of its image. Everything is reached by
//! descriptor: the container may run, and may be somebody's who swaps directories for links while we look.

mod base;
mod changes;
mod lowers;
mod pack;
mod receive;
mod write;

pub use base::Base;
pub use changes::{Change, ChangeKind, Style, Upper, changes, layer};
pub use pack::{Source, pack};
pub use receive::{Destination, Manner, Owner, Received, receive};

use crate::tarball::TarError;
use rlrun_spec::{Failure, Kind, Stage};
use rustix::io::Errno;

/// Deeper trees are somebody's trap; a descriptor is held for every level.
const MAX_DEPTH: usize = 900;

pub(crate) fn failure(operation: &str, path: &[u8]) -> Failure {
    Failure::new(Stage::Cli, Kind::Runtime, "copy-files", operation, path.escape_ascii().to_string())
}

/// As `map_err(on("open", path))`.
pub(crate) fn on<'a>(operation: &'a str, path: &'a [u8]) -> impl FnOnce(Errno) -> Failure + 'a {
    move |errno| failure(operation, path).errno(errno.raw_os_error())
}

pub(crate) fn io<'a>(operation: &'a str, path: &'a [u8]) -> impl FnOnce(std::io::Error) -> Failure + 'a {
    move |error| match error.raw_os_error() {
        Some(errno) => failure(operation, path).errno(errno),
        None => failure(operation, path).why(error.to_string()),
    }
}

pub(crate) fn archive<'a>(path: &'a [u8]) -> impl FnOnce(TarError) -> Failure + 'a {
    move |error| match error {
        TarError::Malformed(why) => failure("read the archive", path).why(why),
        TarError::Io(error) => io("read the archive", path)(error),
    }
}

/// `dir/name`, without the slash at the top.
pub(crate) fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    if dir.is_empty() { name.to_vec() } else { [dir, b"/", name].concat() }
}
