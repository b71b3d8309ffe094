//! Somebody who attaches to a running container: what its process is told. Nothing here confines anything; the
//! container's supervisor decides what there is to be had.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// What it is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attach {
    /// [`crate::plan::VERSION`].
    pub version: u32,
    /// The container's directory.
    pub directory: PathBuf,
    /// Its name.
    pub name: String,
    /// What is typed goes to it.
    pub input: bool,
    /// Signals go to it.
    pub sig_proxy: bool,
    /// Keys that leave it alone; none: nothing does.
    pub detach_keys: Vec<u8>,
    /// It started the container, and is connected to its supervisor already.
    pub accompanies: bool,
}
