//! Everything between an image reference and extracted layers: references, registries, archives, the store, unpacking.
//!
//! # For the engine
//!
//! ```no_run
//! use rlrun_image::{Asking, InIdMap, Incoming, Limits, Look, PullOptions, Store, Work};
//! # fn demo(ids: &dyn InIdMap) -> Result<(), rlrun_image::ImageError> {
//! let store = Store::new("/home/me/.local/share/rlrun");
//! // The hot path: two or three small system calls and one file read. Hold the pin until the container's record,
//! // which `in_use` below consults, is on disk; then drop it.
//! let pin = store.pin()?;
//! let image = store.resolve("busybox")?;
//! drop(pin);
//! // Anything that changes the store needs a way into the user's id map.
//! let (approve, before) = (&|_image: &Incoming<'_>| Ok(()), &|_asking: &Asking<'_>| Ok(()));
//! let work =
//!     Work { ids, progress: &|_event| {}, approve, before, look: Look::Once, limits: Limits::default() };
//! let image = store.pull("localhost:5000/app:1", &PullOptions::default(), &work)?;
//! # Ok(()) }
//! ```
//!
//! * [`Store::resolve`] and [`Store::images`] only read. [`Store::pull`], [`Store::load`], [`Store::import`] and
//!   [`Store::remove`] write; each of them first clears what an interrupted command left behind.
//! * Layers hold files of the user's subordinate ids, so they are unpacked and removed by a process inside the user's
//!   id map. The caller provides it as [`InIdMap`]; that process calls [`inner_main`] with the job it is given.
//! * Every error is an [`ImageError`] and converts into a [`rlrun_spec::Failure`].
//!
//! # What it must never do
//! Believe an image: every byte of a manifest, configuration or layer is hostile until its digest and its bounds are
//! checked, and even then no path of it is resolved by string.

mod artifact;
mod config;
mod decompress;
mod digest;
mod error;
pub mod files;
#[cfg(test)]
mod fuzz;
mod limits;
mod manifest;
mod options;
mod parallel;
mod provenance;
mod reference;
mod registry;
mod source;
mod store;
mod tarball;
mod target;
mod transport;
mod trust;
mod unpack;
mod work;

pub use artifact::{Artifact, Member, pull_artifact, push_artifact};
pub use config::{Healthcheck, ImageConfig};
pub use digest::Digest;
pub use error::ImageError;
pub use limits::Limits;
pub use options::PullOptions;
pub use provenance::{Provenance, Statement};
pub use reference::Reference;
pub use registry::{Credentials, Kept, logged_in, login, logout};
pub use source::{ChangeConfig, Commit, Import};
pub use store::{
    Checked, Damage, ImageDetails, ImageSummary, ImageUser, InUse, LayerDetails, Pin, RemoveMode, Removed, ResetLock,
    ResolvedImage, Store, Stored, Usage,
};
pub use target::{Changes, Compression, ManifestForm, Saved, Signatures};
pub use transport::{Files, Layout, Transport};
pub use trust::VerifiedSignature;
pub use unpack::{copy_rootfs_job, inner_main, measure};
pub use work::{Approve, Asking, Before, Event, InIdMap, Incoming, Look, Work};
