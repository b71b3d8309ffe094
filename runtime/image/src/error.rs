//! What can go wrong with images, shaped by what the user can do about it.

use rlrun_spec::{Errno, Failure, Kind, Stage};
use std::fmt;

/// Why an image is not there, cannot be had or cannot be removed.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The words do not name an image.
    #[error("read the image reference: {text}: {why}")]
    Reference {
        /// What the user wrote.
        text: String,
        /// What is wrong with it.
        why: String,
    },
    /// No such image in the store.
    #[error("find the image: {name}: no such image in the local store")]
    Unknown {
        /// What the user wrote.
        name: String,
    },
    /// A short id that fits several images.
    #[error("find the image: {name}: the id begins more than one image")]
    Ambiguous {
        /// What the user wrote.
        name: String,
    },
    /// The image cannot be removed.
    #[error("remove the image: {name}: {why}")]
    InUse {
        /// What the user wrote.
        name: String,
        /// Who needs it, or which names it has.
        why: String,
        /// What to do.
        hint: String,
    },
    /// The registry is not there, or answers what it must not.
    #[error("pull the image: {object}: {why}")]
    Registry {
        /// Reference or URL.
        object: String,
        /// What it did.
        why: String,
        /// What to do, when that can be told.
        hint: Option<String>,
    },
    /// The registry wants other credentials.
    #[error("pull the image: {object}: {why}")]
    Unauthorized {
        /// Reference.
        object: String,
        /// What the registry said.
        why: String,
    },
    /// Content is not what its digest or size promises.
    #[error("verify the content: {object}: expected {expected}, got {actual}")]
    Mismatch {
        /// Blob, layer or manifest.
        object: String,
        /// Promised.
        expected: String,
        /// Found.
        actual: String,
    },
    /// An archive, manifest or configuration is not what it must be: truncated, malformed, hostile, unsupported.
    #[error("read the image: {object}: {why}")]
    Malformed {
        /// File or blob.
        object: String,
        /// What is wrong.
        why: String,
    },
    /// A file of the user's or the administrator's is not what it must be: registries.conf, auth.json, certificates.
    #[error("read the configuration: {path}: {why}")]
    Configuration {
        /// File.
        path: String,
        /// What is wrong.
        why: String,
    },
    /// A directory that is to be written has something in it.
    #[error("write the image to: {path}: the directory is not empty")]
    NotEmpty {
        /// Directory.
        path: String,
    },
    /// The system refused.
    #[error("{operation}: {object}: {errno}")]
    System {
        /// Stable name of the step.
        step: &'static str,
        /// Verb phrase.
        operation: &'static str,
        /// Path.
        object: String,
        /// The kernel's reason.
        errno: Errno,
    },
    /// A job inside the id map failed.
    #[error(transparent)]
    Inner(#[from] Failure),
}

impl ImageError {
    pub(crate) fn reference(text: &str, why: impl Into<String>) -> Self {
        ImageError::Reference { text: text.to_owned(), why: why.into() }
    }

    pub(crate) fn malformed(object: impl Into<String>, why: impl Into<String>) -> Self {
        ImageError::Malformed { object: object.into(), why: why.into() }
    }

    pub(crate) fn configuration(path: &std::path::Path, why: impl Into<String>) -> Self {
        ImageError::Configuration { path: path.display().to_string(), why: why.into() }
    }

    /// `expected` and `actual` are digests.
    pub(crate) fn mismatch(object: impl Into<String>, expected: impl fmt::Display, actual: impl fmt::Display) -> Self {
        ImageError::Mismatch {
            object: object.into(),
            expected: format!("digest {expected}"),
            actual: actual.to_string(),
        }
    }

    pub(crate) fn wrong_size(object: impl Into<String>, expected: u64, actual: impl fmt::Display) -> Self {
        ImageError::Mismatch {
            object: object.into(),
            expected: format!("{expected} bytes"),
            actual: actual.to_string(),
        }
    }
}

/// A system call on a path of the store failed; used as `map_err(store_io("write a blob", &path))`.
pub(crate) fn store_io<E: Into<std::io::Error>>(
    operation: &'static str,
    object: &std::path::Path,
) -> impl FnOnce(E) -> ImageError {
    let object = object.display().to_string();
    move |error| from_io("data-dir", operation, object, &error.into())
}

pub(crate) fn from_io(
    step: &'static str,
    operation: &'static str,
    object: String,
    error: &std::io::Error,
) -> ImageError {
    match error.raw_os_error() {
        Some(errno) => ImageError::System { step, operation, object, errno: Errno(errno) },
        None => ImageError::Malformed { object, why: error.to_string() },
    }
}

/// What to do about an image that is not one.
pub(crate) const DAMAGED: &str = "it is damaged, no image, or made to harm: fetch or write it again, from a source you trust; rlrun takes what \
     `podman save`, `docker save`, `skopeo copy` and registries give";

/// Whether an error number says that a disk or a quota is full.
pub(crate) fn is_full(errno: i32) -> bool {
    [rustix::io::Errno::NOSPC, rustix::io::Errno::DQUOT].iter().any(|e| e.raw_os_error() == errno)
}

/// The step of the hint table for a system error: a full disk has its own, wherever it shows.
pub(crate) fn step_for(errno: i32, step: &'static str) -> &'static str {
    if is_full(errno) { "store-space" } else { step }
}

impl From<ImageError> for Failure {
    fn from(error: ImageError) -> Failure {
        let new =
            |kind, step: &str, operation: &str, object: String| Failure::new(Stage::Cli, kind, step, operation, object);
        match error {
            ImageError::Reference { text, why } => {
                new(Kind::Usage, "image-reference", "read the image reference", text)
                    .why(why)
                    .hint("write it as [registry/]name[:tag][@sha256:digest], in lower case")
            }
            ImageError::Unknown { name } => {
                let hint = format!("`rlrun pull {name}` fetches it, `rlrun images` lists what is there");
                new(Kind::Runtime, "image-unknown", "find the image", name)
                    .why("no such image in the local store")
                    .hint(hint)
            }
            ImageError::Ambiguous { name } => new(Kind::Usage, "image-ambiguous", "find the image", name)
                .why("the id begins more than one image")
                .hint("give more digits of the id; `rlrun images` lists them"),
            ImageError::InUse { name, why, hint } => {
                new(Kind::Runtime, "image-in-use", "remove the image", name).why(why).hint(hint)
            }
            ImageError::Registry { object, why, hint } => {
                let mut failure = new(Kind::Runtime, "image-registry", "pull the image", object).why(why);
                failure.hint = hint;
                failure
            }
            ImageError::Unauthorized { object, why } => {
                new(Kind::Runtime, "image-auth", "pull the image", object).why(why).hint(
                    "check the name, and the credentials: `rlrun login REGISTRY` keeps them in auth.json, REGISTRY_AUTH_FILE or \
                     --authfile names another",
                )
            }
            ImageError::Mismatch { object, expected, actual } => new(
                Kind::Runtime,
                "image-digest",
                "verify the content",
                object,
            )
            .why(format!("expected {expected}, got {actual}"))
            .hint("the content was changed or damaged on its way: fetch or write it again, and distrust its source"),
            ImageError::Malformed { object, why } => {
                new(Kind::Runtime, "image-malformed", "read the image", object).why(why).hint(DAMAGED)
            }
            ImageError::Configuration { path, why } => {
                let hint = format!("correct {path}");
                new(Kind::Usage, "image-configuration", "read the configuration", path).why(why).hint(hint)
            }
            ImageError::NotEmpty { path } => new(Kind::Usage, "save-target", "write the image to", path)
                .why("the directory is not empty")
                .hint("name a directory that is not there yet"),
            ImageError::System { step, operation, object, errno } => {
                new(Kind::Runtime, step_for(errno.0, step), operation, object).errno(errno.0)
            }
            ImageError::Inner(failure) => failure,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_image_says_how_to_get_it() {
        let failure = Failure::from(ImageError::Unknown { name: "nosuch".into() });
        assert_eq!(failure.to_string(), "find the image: nosuch: no such image in the local store");
        assert!(failure.hint.unwrap().contains("rlrun pull nosuch"));
    }

    #[test]
    fn a_full_disk_says_how_to_make_room() {
        let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
        assert!(full.raw_os_error().is_none());
        let error = store_io("write a blob", std::path::Path::new("/data/blobs"))(rustix::io::Errno::NOSPC);
        let failure = Failure::from(error);
        assert_eq!(failure.to_string(), "write a blob: /data/blobs: No space left on device (os error 28)");
        assert!(rlrun_spec::hint::for_failure(&failure).unwrap().contains("RLRUN_DATA_HOME"));
    }
}
