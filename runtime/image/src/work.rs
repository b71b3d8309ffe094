//! What the caller lends to commands that change the store: the way into the id map, and ears for progress.

use crate::config::ImageConfig;
use crate::limits::Limits;
use crate::provenance::Statement;
use crate::reference::Reference;
use crate::trust::VerifiedSignature;
use rlrun_spec::{Failure, ImageIdentity};

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
    /// Asked about every image; a no leaves the store and its names as they were.
    pub approve: Approve<'a>,
    /// Asked before a registry is, each time; a no ends the command.
    pub before: Before<'a>,
    /// How hard to look for statements about an image of a registry.
    pub look: Look,
    /// Bounds on what an image may make of the disk.
    pub limits: Limits,
}

/// Says whether an image may come in.
pub type Approve<'a> = &'a dyn Fn(&Incoming<'_>) -> Result<(), Failure>;

/// Says whether a registry may be asked for an image.
pub type Before<'a> = &'a dyn Fn(&Asking<'_>) -> Result<(), Failure>;

/// Which registry is to be asked for what.
#[derive(Clone, Debug)]
pub struct Asking<'a> {
    /// The image.
    pub reference: &'a Reference,
    /// The repository that is asked in its place, as registries.conf says.
    pub mirror: Option<String>,
    /// Plain http, or TLS without verification.
    pub insecure: bool,
}

/// When a registry is asked what it has attached to an image: that takes up to four requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Look {
    /// When it comes in.
    #[default]
    Once,
    /// Whenever it is pulled.
    Always,
}

/// An image whose manifest and configuration have arrived, before a layer of it is unpacked or a name points to it.
#[derive(Clone, Copy, Debug)]
pub struct Incoming<'a> {
    /// Which image. The reference is the one that was asked for, or the first the archive gives it.
    pub identity: &'a ImageIdentity,
    /// What it says about containers made from it.
    pub config: &'a ImageConfig,
    /// `created_by` of each history entry.
    pub history: &'a [String],
    /// How many layers.
    pub layers: usize,
    /// Bytes of its layers as they come.
    pub size: u64,
    /// Signatures that were verified because policy.json demands them.
    pub signatures: &'a [VerifiedSignature],
    /// What is said about it elsewhere, unverified; None when nobody has looked.
    pub statements: Option<&'a [Statement]>,
    /// The manifest as it came.
    pub manifest: &'a [u8],
    /// The configuration as it came.
    pub config_json: &'a [u8],
    /// The indexes that the manifest was chosen from.
    pub indexes: &'a [Vec<u8>],
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
    /// What is in the store is being checked.
    Checking {
        /// Bytes that were read.
        done: u64,
        /// Bytes that there are to read.
        total: u64,
    },
    /// The image is in the store.
    Finished(String),
}
