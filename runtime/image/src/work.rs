//! What the caller lends to commands that change the store: the way into the id map, and ears for progress.

use crate::limits::Limits;
use rlrun_spec::Failure;

/// Runs a job as mapped root inside the user's id map. The engine implements it by executing itself in a new user
/// namespace, with the job on standard input; that process answers with [`crate::inner_main`]'s result.
pub trait InIdMap {
    /// Runs one job to its end.
    ///
    /// # Errors
    /// The failure of [`crate::inner_main`], or why the user namespace could not be entered.
    fn run(&self, job: &[u8]) -> Result<Vec<u8>, Failure>;
}

/// What a command that changes the store works with.
#[derive(Clone, Copy)]
pub struct Work<'a> {
    /// The way into the id map.
    pub ids: &'a dyn InIdMap,
    /// Told of every step; called from several threads.
    pub progress: &'a (dyn Fn(&Event) + Sync),
    /// Bounds on what an image may make of the disk.
    pub limits: Limits,
}

/// Progress of a command that changes the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A reference is being looked up: `docker.io/library/busybox:latest`.
    Trying(String),
    /// A blob starts to arrive; the size is what its descriptor promises, 0 when unknown.
    BlobStarted {
        /// `sha256:...`, or the name inside an archive.
        name: String,
        /// Bytes that are to come.
        size: u64,
    },
    /// So many bytes of a blob have arrived.
    BlobProgress {
        /// As in [`Event::BlobStarted`].
        name: String,
        /// Bytes so far.
        done: u64,
    },
    /// A blob is complete and has the right digest.
    BlobDone(String),
    /// A blob or layer was in the store already.
    Present(String),
    /// Layers are being extracted.
    Unpacking {
        /// How many.
        layers: usize,
    },
    /// The image is in the store.
    Finished(String),
}
