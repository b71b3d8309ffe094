//! The commands that add images: from archives, from a root file system, from registries.

mod docker_archive;
mod import;
mod oci_archive;
mod pull;
mod spool;

use crate::error::ImageError;
use crate::options::PullOptions;
use crate::store::{Ingest, Store, Stored};
use crate::work::Work;
use std::io::Read;

impl Store {
    /// Fetches an image from a registry. A short name is looked for where registries.conf(5) says, else on docker.io.
    /// Nothing is transferred that the store has; an unchanged tag costs two small requests.
    ///
    /// # Errors
    /// [`ImageError`] with what is wrong; the store is as it was.
    pub fn pull(&self, name: &str, options: &PullOptions, work: &Work<'_>) -> Result<Stored, ImageError> {
        self.adding(work, |ingest| pull::pull(ingest, name, options))
    }

    /// Adds the images of a docker-archive or oci-archive, plain or compressed with gzip or zstd, whichever it is.
    /// `object` names the source in errors: a path, `standard input`.
    ///
    /// # Errors
    /// [`ImageError`] with what is wrong; the store is as it was.
    pub fn load(
        &self,
        archive: &mut (dyn Read + Send),
        object: &str,
        work: &Work<'_>,
    ) -> Result<Vec<Stored>, ImageError> {
        self.adding(work, |ingest| {
            let spool = spool::Spool::read(&ingest, archive, object)?;
            // Newer docker writes both layouts into one archive; OCI's keeps the original manifests.
            let images = if spool.has("index.json") {
                oci_archive::images(&ingest, &spool)?
            } else if spool.has("manifest.json") {
                docker_archive::images(&ingest, &spool)?
            } else {
                return Err(ImageError::malformed(
                    object,
                    "it has neither index.json (OCI) nor manifest.json (docker)",
                ));
            };
            images.iter().try_for_each(|image| ingest.approve(image))?;
            ingest.commit(images)
        })
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
        self.adding(work, |ingest| import::import(ingest, rootfs, object, name))
    }

    /// Runs a command that adds; when it fails, nothing of it stays.
    fn adding<T>(
        &self,
        work: &Work<'_>,
        command: impl FnOnce(Ingest<'_>) -> Result<T, ImageError>,
    ) -> Result<T, ImageError> {
        let result = Ingest::begin(self, work).and_then(command);
        if result.is_err() {
            // Layers that were finished before the failure belong to no image. If they cannot be removed now, that is not
            // the failure to report: the next command removes them.
            drop(self.sweep(work.ids));
        }
        result
    }
}
