//! Stores of others on a shared machine: named by `images.toml`, only ever read, without locks. An image that is found
//! there is taken over at its first use, without a network; each digest is checked, so that it need not be trusted more
//! than a registry.

use super::{Store, private_dirs};
use crate::error::{ImageError, store_io};
use crate::registry::config_home;
use crate::store::ImageSummary;
use crate::store::record::Record;
use serde::Deserialize;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

const SYSTEM: &str = "/etc/rlrun/images.toml";

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct FileFormat {
    #[serde(default)]
    additional_stores: Vec<PathBuf>,
}

/// An image in a store of somebody else's.
pub(crate) struct Elsewhere {
    pub(crate) store: Store,
    /// What it was found by.
    pub(crate) reference: String,
    pub(crate) record: Record,
}

/// Takes what went wrong with a part that others can do without.
pub(super) type Told<'a> = &'a dyn Fn(&ImageError);

impl Store {
    /// The administrator's first, then the user's.
    fn additional(&self) -> Result<Vec<Store>, ImageError> {
        let own = config_home().map(|home| home.join("rlrun/images.toml"));
        let mut stores = Vec::new();
        for path in [Some(PathBuf::from(SYSTEM)), own].into_iter().flatten() {
            stores.extend(read(&path)?.into_iter().filter(|dir| *dir != self.root).map(Store::new));
        }
        Ok(stores)
    }

    /// The first additional store that has the image.
    pub(crate) fn elsewhere(&self, name: &str) -> Result<Option<Elsewhere>, ImageError> {
        for store in self.additional()? {
            match store.find(name) {
                Ok((reference, record)) => return Ok(Some(Elsewhere { store, reference, record })),
                // A store that cannot be read has nothing; lists tell why.
                Err(ImageError::Unknown { .. } | ImageError::System { .. } | ImageError::Malformed { .. }) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(None)
    }

    /// Whether an additional store has an image that this one lacks; it can then be taken over.
    ///
    /// # Errors
    /// When `images.toml` or a store that it names cannot be read.
    pub fn is_elsewhere(&self, name: &str) -> Result<bool, ImageError> {
        Ok(self.elsewhere(name)?.is_some())
    }

    /// Images of the additional stores, for lists; marked as only to be read. What cannot be read there is told, and
    /// keeps nobody from the rest.
    pub(super) fn images_elsewhere(&self, told: Told<'_>) -> Result<Vec<ImageSummary>, ImageError> {
        let mut all = Vec::new();
        for store in self.additional()? {
            match store.images_of(told) {
                Ok(images) => all.extend(images.into_iter().map(|image| ImageSummary { read_only: true, ..image })),
                Err(e) => told(&e),
            }
        }
        Ok(all)
    }

    /// Lets other users read the images, and nothing else of this store. Extracted layers stay closed: they hold
    /// set-user-ID programs that would run as this user.
    ///
    /// # Errors
    /// When the store cannot be changed.
    pub fn share(&self) -> Result<(), ImageError> {
        self.create()?;
        // Whoever may pass cannot list: containers, volumes and the rest have locks of their own.
        open(&self.root, 0o711)?;
        open(&self.root.join("blobs"), 0o755)?;
        for dir in [self.refs(), self.images_dir(), self.blobs()] {
            open(&dir, 0o755)?;
            for name in super::lookup::read_dir_names(&dir)? {
                let path = dir.join(name);
                if !path.is_symlink() {
                    open(&path, 0o644)?;
                }
            }
        }
        private_dirs(&self.layers()).map_err(store_io("create the image store", &self.layers()))?;
        [self.layers(), self.tmp()].iter().try_for_each(|dir| open(dir, 0o700))
    }
}

fn open(path: &Path, mode: u32) -> Result<(), ImageError> {
    match std::fs::set_permissions(path, Permissions::from_mode(mode)) {
        // Removed meanwhile.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(store_io("share the image store", path)),
    }
}

fn read(path: &Path) -> Result<Vec<PathBuf>, ImageError> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(e) => return Err(store_io("read the configuration of images", path)(e)),
    };
    let file: FileFormat =
        toml::from_str(&text).map_err(|e| ImageError::configuration(path, e.message().to_owned()))?;
    match file.additional_stores.iter().find(|dir| !dir.is_absolute()) {
        Some(dir) => {
            Err(ImageError::configuration(path, format!("additional-stores: {} is no absolute path", dir.display())))
        }
        None => Ok(file.additional_stores),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stores_are_absolute_and_mistakes_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("images.toml");
        let put = |text: &str| {
            std::io::Write::write_all(&mut std::fs::File::create(&path).unwrap(), text.as_bytes()).unwrap();
        };
        assert!(read(&path).unwrap().is_empty());
        put("additional-stores = ['/srv/a', '/srv/b']");
        assert_eq!(read(&path).unwrap(), [PathBuf::from("/srv/a"), PathBuf::from("/srv/b")]);
        for bad in ["additional-stores = ['a']", "additional-stores = 'a'", "additional-store = []", "["] {
            put(bad);
            assert!(matches!(read(&path), Err(ImageError::Configuration { .. })), "{bad}");
        }
    }
}
