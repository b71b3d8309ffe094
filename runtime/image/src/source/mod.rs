//! The commands that add images: from archives, from a root file system, from registries.

mod adopt;
mod commit;
mod docker_archive;
mod import;
mod layout;
mod pull;
mod spool;

pub use commit::Commit;
pub use import::{ChangeConfig, Import};
pub(crate) use pull::reach;
pub(crate) use spool::read_blob;

use crate::error::{ImageError, from_io};
use crate::options::PullOptions;
use crate::provenance::Found;
use crate::reference::Reference;
use crate::store::{Ingest, NewImage, Store, Stored};
use crate::transport::{Files, Layout};
use crate::trust::{self, Policy};
use crate::work::Work;
use spool::Spool;
use std::fs::File;
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

    /// Takes an image over from an additional store of `images.toml`; None when none of them has it.
    ///
    /// # Errors
    /// [`ImageError`] with what is wrong; the store is as it was.
    pub fn adopt(&self, name: &str, work: &Work<'_>) -> Result<Option<Stored>, ImageError> {
        let Some(found) = self.elsewhere(name)? else { return Ok(None) };
        self.adding(work, |ingest| adopt::adopt(ingest, &found)).map(Some)
    }

    /// The references of all tags of a repository, for `pull --all-tags`.
    ///
    /// # Errors
    /// When no registry has the repository.
    pub fn remote_tags(name: &str, options: &PullOptions) -> Result<Vec<Reference>, ImageError> {
        pull::tags(name, options)
    }

    /// Repositories whose name has a word, for `search`; of registries that tell what they have.
    ///
    /// # Errors
    /// When a registry does not tell, or none is to be asked.
    pub fn search(term: &str, options: &PullOptions) -> Result<Vec<String>, ImageError> {
        pull::search(term, options)
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
            let spool = Spool::read(&ingest, archive, object)?;
            trust::check_stream(&Policy::from_system()?, layout_of(&spool)?, object)?;
            let images = images_in(&ingest, &spool, None)?;
            add(ingest, images)
        })
    }

    /// Adds images from files, as a transport names them.
    ///
    /// # Errors
    /// [`ImageError`] with what is wrong; the store is as it was.
    pub fn load_files(&self, files: &Files, work: &Work<'_>) -> Result<Vec<Stored>, ImageError> {
        let object = files.path.display().to_string();
        self.adding(work, |ingest| {
            let spool = if files.layout.is_archive() {
                let file = File::open(&files.path);
                let mut file = file.map_err(|e| from_io("open-archive", "open the archive", object.clone(), &e))?;
                Spool::read(&ingest, &mut file, &object)?
            } else {
                Spool::open(&files.path)?
            };
            let checked = Files { layout: layout_of(&spool)?, ..files.clone() };
            let raw = match checked.layout {
                Layout::DockerDir => layout::signatures(&ingest, &spool)?,
                Layout::DockerArchive | Layout::OciArchive | Layout::OciDir => Vec::new(),
            };
            let verified = trust::check_files(&Policy::from_system()?, &checked, &raw)?;
            let mut images = images_in(&ingest, &spool, files.name.as_deref())?;
            if checked.layout == Layout::DockerDir {
                let found = |image: &mut NewImage| image.found = Some(Found { verified, statements: None, raw });
                images.first_mut().map(found);
            }
            add(ingest, images)
        })
    }

    /// Makes an image of one layer from the tar archive of a root file system, plain or compressed.
    ///
    /// # Errors
    /// [`ImageError`] with what is wrong; the store is as it was.
    pub fn import(
        &self,
        rootfs: &mut (dyn Read + Send),
        object: &str,
        how: &Import<'_>,
        work: &Work<'_>,
    ) -> Result<Stored, ImageError> {
        self.adding(work, |ingest| import::import(ingest, rootfs, object, how))
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

/// What is there decides what it is, whatever it was called.
fn layout_of(spool: &Spool) -> Result<Layout, ImageError> {
    // Newer docker writes both layouts into one archive; OCI's keeps the original manifests.
    let archive = !spool.is_directory();
    match (spool.has("index.json"), spool.has("manifest.json"), spool.has("version")) {
        (true, _, _) => Ok(if archive { Layout::OciArchive } else { Layout::OciDir }),
        (false, true, true) => Ok(Layout::DockerDir),
        (false, true, false) => Ok(Layout::DockerArchive),
        (false, false, _) => {
            let why = "it has neither index.json (OCI) nor manifest.json (docker)";
            Err(ImageError::malformed(&spool.object, why))
        }
    }
}

fn images_in(ingest: &Ingest<'_>, spool: &Spool, wanted: Option<&str>) -> Result<Vec<NewImage>, ImageError> {
    match layout_of(spool)? {
        Layout::OciArchive | Layout::OciDir => layout::images(ingest, spool, wanted),
        Layout::DockerDir => layout::directory(ingest, spool).map(|image| vec![image]),
        Layout::DockerArchive => docker_archive::images(ingest, spool, wanted),
    }
}

fn add(ingest: Ingest<'_>, images: Vec<NewImage>) -> Result<Vec<Stored>, ImageError> {
    images.iter().try_for_each(|image| ingest.approve(image))?;
    ingest.commit(images)
}
