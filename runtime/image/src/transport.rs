//! Where an image comes from or goes to, as containers-transports(5) writes it.

use crate::error::ImageError;
use std::path::PathBuf;

/// A place for images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transport {
    /// `docker://NAME`, or a name alone.
    Registry(String),
    /// A directory or an archive.
    Files(Files),
}

/// Images in files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// How they are laid out.
    pub layout: Layout,
    /// The directory or archive; an archive that is written to `-` goes to standard output.
    pub path: PathBuf,
    /// Which image of it, or what the image is to be called there.
    pub name: Option<String>,
}

/// How images are laid out in files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// `docker-archive:`, what `docker save` writes.
    DockerArchive,
    /// `oci-archive:`, an OCI layout in a tar archive.
    OciArchive,
    /// `oci:`, an OCI layout.
    OciDir,
    /// `dir:`, one image with its files side by side.
    DockerDir,
}

const FILES: [(&str, Layout); 4] = [
    ("docker-archive", Layout::DockerArchive),
    ("oci-archive", Layout::OciArchive),
    ("oci", Layout::OciDir),
    ("dir", Layout::DockerDir),
];
/// Transports of other tools that have no meaning here.
const UNKNOWN: [&str; 6] = ["containers-storage", "docker-daemon", "ostree", "sif", "tarball", "atomic"];

impl Layout {
    /// Whether it is one file.
    #[must_use]
    pub fn is_archive(self) -> bool {
        matches!(self, Layout::DockerArchive | Layout::OciArchive)
    }
}

impl Transport {
    /// Reads what a user wrote.
    ///
    /// # Errors
    /// [`ImageError::Reference`] for a transport that is not known, and for one without a path.
    pub fn parse(text: &str) -> Result<Self, ImageError> {
        let Some((prefix, rest)) = text.split_once(':') else { return Ok(Transport::Registry(text.to_owned())) };
        if prefix == "docker" {
            let name = rest.strip_prefix("//").filter(|name| !name.is_empty());
            let name = name.ok_or_else(|| ImageError::reference(text, "write it as docker://NAME"))?;
            return Ok(Transport::Registry(name.to_owned()));
        }
        if UNKNOWN.contains(&prefix) {
            let why = "rlrun knows the transports docker://, docker-archive:, oci-archive:, oci: and dir:";
            return Err(ImageError::reference(text, why));
        }
        match FILES.iter().find(|(known, _)| *known == prefix) {
            Some((_, layout)) => Files::parse(*layout, text, rest).map(Transport::Files),
            None => Ok(Transport::Registry(text.to_owned())),
        }
    }
}

impl Files {
    fn parse(layout: Layout, text: &str, rest: &str) -> Result<Self, ImageError> {
        let (path, name) = match rest.split_once(':') {
            Some((path, name)) if layout != Layout::DockerDir => (path, Some(name.to_owned())),
            _ => (rest, None),
        };
        if path.is_empty() {
            return Err(ImageError::reference(text, "the path is missing"));
        }
        Ok(Files { layout, path: path.into(), name: name.filter(|n| !n.is_empty()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(text: &str) -> (Layout, String, Option<String>) {
        match Transport::parse(text).unwrap() {
            Transport::Files(f) => (f.layout, f.path.display().to_string(), f.name),
            Transport::Registry(name) => panic!("{name}"),
        }
    }

    #[test]
    fn transports_are_told_from_names() {
        for name in ["busybox", "localhost:5000/a:1", "oci/x:1", "docker.io/a@sha256:00", "directory:1"] {
            assert_eq!(Transport::parse(name).unwrap(), Transport::Registry(name.to_owned()));
        }
        assert_eq!(Transport::parse("docker://a:1").unwrap(), Transport::Registry("a:1".to_owned()));
        assert_eq!(files("oci:/x/y:tag"), (Layout::OciDir, "/x/y".into(), Some("tag".into())));
        assert_eq!(files("oci:y"), (Layout::OciDir, "y".into(), None));
        assert_eq!(files("dir:/x:y"), (Layout::DockerDir, "/x:y".into(), None));
        assert_eq!(files("oci-archive:a.tar:b/c:1"), (Layout::OciArchive, "a.tar".into(), Some("b/c:1".into())));
        assert_eq!(files("docker-archive:a.tar"), (Layout::DockerArchive, "a.tar".into(), None));
        for bad in ["docker:x", "docker://", "oci:", "docker-daemon:x", "containers-storage:x"] {
            assert!(Transport::parse(bad).is_err(), "{bad}");
        }
    }
}
