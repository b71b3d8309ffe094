//! The way out: images of the store as archives, directories and, in [`crate::registry`], pushes. Blobs go out as they came
//! in wherever the layout allows it, so that digests stay.

mod archive;
mod change;
mod directory;
mod outgoing;
mod push;

pub use change::{Changes, Compression, ManifestForm, Signatures};
pub(crate) use outgoing::Outgoing;

use crate::error::{ImageError, from_io};
use crate::store::Store;
use crate::transport::{Files, Layout};
use rlrun_spec::{Failure, Kind, Stage};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saved {
    /// Digest of the manifest as it is there; None where the layout has none.
    pub digest: Option<String>,
    /// Images that are one of several platforms of what they were pulled from; the others are not here, and did not go.
    pub one_platform_of: Vec<String>,
}

impl Store {
    /// Writes images to an archive or a directory, each given by words that name it, the first of which finds it. These
    /// are what it is called there, unless `target` says otherwise.
    ///
    /// # Errors
    /// When an image is not there, or cannot be written.
    pub fn save(&self, images: &[Vec<String>], target: &Files, changes: &Changes) -> Result<Saved, ImageError> {
        let _writers = self.lock_for_reading()?;
        refuse_unfit(target.layout, changes)?;
        let images = images.iter().map(|names| self.outgoing(names)).collect::<Result<Vec<_>, _>>()?;
        let one_platform_of = images.iter().filter_map(|image| image.one_platform_of.clone()).collect();
        let saved = |digest: Option<String>| Ok(Saved { digest, one_platform_of });
        let changed = images.into_iter().map(|image| changes.apply(self, image)).collect::<Result<Vec<_>, _>>()?;
        let images: Vec<Outgoing> = changed.iter().map(|changed| changed.image.clone()).collect();
        if target.layout != Layout::DockerDir && images.iter().any(|image| !image.signatures.is_empty()) {
            return Err(no_place_for_signatures("the image has signatures, and this layout has no place for them"));
        }
        match target.layout {
            Layout::DockerArchive => {
                refuse_existing(&target.path)?;
                into_file(&target.path, |out| archive::docker(&images, target.name.as_deref(), out))?;
                saved(None)
            }
            Layout::OciArchive => {
                let image = only(&images, "oci-archive")?.as_oci()?;
                into_file(&target.path, |out| archive::oci(&image, target.name.as_deref(), out))?;
                saved(Some(image.digest().to_string()))
            }
            Layout::OciDir => {
                let image = only(&images, "oci")?.as_oci()?;
                directory::oci(&image, target.name.as_deref(), &target.path)?;
                saved(Some(image.digest().to_string()))
            }
            Layout::DockerDir => {
                let image = only(&images, "dir")?;
                directory::dir(image, &target.path)?;
                saved(Some(image.digest().to_string()))
            }
        }
    }
}

/// What cannot be had in a layout.
fn refuse_unfit(layout: Layout, changes: &Changes) -> Result<(), ImageError> {
    match layout {
        Layout::DockerArchive if (changes.compression, changes.form) != (Compression::Kept, ManifestForm::Kept) => {
            let why = "its layers are never compressed, and its manifest is its own";
            Err(unfit("docker-archive", why, "leave --format and --compression-format out"))
        }
        Layout::OciArchive | Layout::OciDir if changes.form == ManifestForm::Docker => {
            let hint = "dir: and registries take docker's";
            Err(unfit("--format v2s2", "an OCI layout holds OCI manifests", hint))
        }
        _ => Ok(()),
    }
}

fn unfit(what: &str, why: &str, hint: &str) -> ImageError {
    let failure = Failure::new(Stage::Cli, Kind::Usage, "save-form", "write the image as it was asked for", what);
    ImageError::Inner(failure.why(why).hint(hint))
}

/// As podman does: whoever names an archive with images in it may want them added, which is not what would happen.
fn refuse_existing(path: &Path) -> Result<(), ImageError> {
    if path == Path::new("-") || !std::fs::metadata(path).is_ok_and(|about| about.is_file() && about.len() > 0) {
        return Ok(());
    }
    let failure = Failure::new(Stage::Cli, Kind::Usage, "save-exists", "write the archive", path.display().to_string());
    Err(ImageError::Inner(
        failure.why("it exists, and a docker-archive is not changed").hint("remove it, or name another"),
    ))
}

pub(super) fn no_place_for_signatures(why: &str) -> ImageError {
    let failure = Failure::new(Stage::Cli, Kind::Usage, "save-signatures", "write the image with", "its signatures");
    ImageError::Inner(failure.why(why).hint("--remove-signatures leaves them out; dir: and registries keep them"))
}

fn only<'a>(images: &'a [Outgoing], layout: &str) -> Result<&'a Outgoing, ImageError> {
    match images {
        [one] => Ok(one),
        _ => Err(ImageError::reference(layout, "it holds one image; docker-archive holds several")),
    }
}

/// A file appears when it is complete; pipes and devices are written to as they are.
fn into_file(path: &Path, write: impl FnOnce(&mut dyn Write) -> Result<(), ImageError>) -> Result<(), ImageError> {
    let fail = |e: std::io::Error| write_error(path, &e);
    if path == Path::new("-") {
        let mut out = BufWriter::with_capacity(BUFFER, std::io::stdout().lock());
        write(&mut out)?;
        return out.flush().map_err(fail);
    }
    let special = std::fs::metadata(path).is_ok_and(|m| {
        let kind = m.file_type();
        kind.is_fifo() || kind.is_char_device() || kind.is_block_device()
    });
    if special {
        let file = File::options().write(true).open(path).map_err(fail)?;
        let mut out = BufWriter::with_capacity(BUFFER, file);
        write(&mut out)?;
        return out.flush().map_err(fail);
    }
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    let temporary = tempfile::Builder::new().prefix(".rlrun-save-").permissions(mode).tempfile_in(parent);
    let temporary = temporary.map_err(fail)?;
    let mut out = BufWriter::with_capacity(BUFFER, temporary);
    write(&mut out)?;
    let temporary = out.into_inner().map_err(|e| fail(e.into_error()))?;
    temporary.persist(path).map_err(|e| fail(e.error)).map(drop)
}

const BUFFER: usize = 256 << 10;

pub(super) fn write_error(path: &Path, error: &std::io::Error) -> ImageError {
    from_io("save-write", "write the image to", path.display().to_string(), error)
}

/// A file of a directory, made anew.
pub(super) fn create(path: &Path) -> Result<File, ImageError> {
    File::options().write(true).create_new(true).open(path).map_err(|e| write_error(path, &e))
}
