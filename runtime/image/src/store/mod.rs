//! The store below `<data>`: content-addressed blobs, extracted layers, one record an image, one link a reference.
//!
//! ```text
//! blobs/sha256/<hex>            manifests, configurations and layers as they came
//! layers/<32 hex>/              one extracted layer, an overlay lower directory; named by its chain id
//! layers/<32 hex>.json          what that layer is, for the next pull
//! images/<config>.<manifest>    everything `run` needs of an image, in one file
//! refs/<reference>              -> ../images/<config>.<manifest>
//! images.index                  what lists show of all images; made anew whenever it is not up to date
//! empty/                        below an image that has no layer
//! tmp/<random>/                 what is being made; nothing in it outlives its command
//! ```
//!
//! Everything appears by rename after it is complete and on disk; the link is last. Commands that add hold
//! `writers.lock` shared, the sweep of what no image names holds it exclusively. `images.lock` makes "no container uses
//! this image" and its removal one step against a starting container, which holds a [`Pin`].

mod additional;
mod blob;
mod check;
mod commit;
mod contents;
mod details;
mod index;
mod ingest;
mod list;
mod lock;
mod lookup;
mod naming;
pub(crate) mod record;
mod remove;
mod sweep;
mod writeback;

pub use check::{Checked, Damage, Usage};
pub use details::{ImageDetails, LayerDetails};
pub use list::ImageSummary;
pub use lock::{Pin, ResetLock};
pub use lookup::ResolvedImage;
pub use remove::{ImageUser, InUse, RemoveMode, Removed};

pub(crate) use additional::Elsewhere;
pub(crate) use blob::BlobWriter;
pub(crate) use ingest::{Ingest, NewImage, NewLayer, read_config};

use crate::error::{ImageError, store_io};
use rlrun_spec::ImageIdentity;
use rustix::fs::{Mode, OFlags};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// The images of one user.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
}

/// An image that a command has put into the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Which image. The reference is the one that was asked for, or the first the archive gives it.
    pub identity: ImageIdentity,
    /// All names it got.
    pub names: Vec<String>,
    /// Device nodes in fresh layers that no user namespace can make; they are left out.
    pub skipped_devices: u64,
    /// Files in fresh layers whose owner became root because only one id is mapped.
    pub squashed_owners: u64,
}

impl Store {
    /// The store of a data directory. Touches nothing.
    #[must_use]
    pub fn new(data: impl Into<PathBuf>) -> Self {
        Store { root: data.into() }
    }

    /// The data directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn refs(&self) -> PathBuf {
        self.root.join("refs")
    }

    pub(crate) fn images_dir(&self) -> PathBuf {
        self.root.join("images")
    }

    pub(crate) fn layers(&self) -> PathBuf {
        self.root.join("layers")
    }

    pub(crate) fn blobs(&self) -> PathBuf {
        self.root.join("blobs/sha256")
    }

    /// Where a blob is, if the store has it.
    pub(crate) fn blob(&self, digest: &crate::Digest) -> PathBuf {
        self.blobs().join(digest.hex())
    }

    /// What an image without layers is mounted from: an overlay wants something below.
    pub(crate) fn empty(&self) -> PathBuf {
        self.root.join("empty")
    }

    pub(crate) fn tmp(&self) -> PathBuf {
        self.root.join("tmp")
    }

    /// Makes the directories. Only the owner may enter the data directory: layers hold set-user-ID programs of the
    /// owner's ids, which nobody else may run on the host.
    fn create(&self) -> Result<(), ImageError> {
        private_dirs(&self.root).map_err(store_io("create the image store", &self.root))?;
        for dir in [self.refs(), self.images_dir(), self.layers(), self.blobs(), self.tmp()] {
            private_dirs(&dir).map_err(store_io("create the image store", &dir))?;
        }
        let empty = self.empty();
        match std::fs::DirBuilder::new().mode(0o755).create(&empty) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
                return Err(store_io("create the image store", &empty)(e));
            }
            Ok(()) | Err(_) => {}
        }
        self.create_locks()
    }
}

/// Reads a whole file of at most so many bytes. In a store of somebody else's it may be a pipe, which would keep whoever
/// opens it waiting, or have no end.
fn read_plain(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let mut file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    let about = file.metadata()?;
    if !about.is_file() || about.len() > most {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("it is no file of at most {most} bytes")));
    }
    // Files here are replaced, never written to: what is there is what was there.
    let mut bytes = vec![0; usize::try_from(about.len()).unwrap_or_default()];
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn private_dirs(dir: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}
