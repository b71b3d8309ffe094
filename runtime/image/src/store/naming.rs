//! `tag` and `untag`: names come and go, images stay.

use super::Store;
use super::record::{Record, RecordName};
use super::sweep::unlink;
use crate::error::{ImageError, store_io};
use crate::reference::Reference;
use rustix::fs::CWD;
use std::path::Path;

impl Store {
    /// Gives an image further names; a name that another image had is taken from it. Names without a registry are
    /// `localhost/`'s.
    ///
    /// # Errors
    /// When there is no such image, or a name is none.
    pub fn tag(&self, name: &str, new: &[String]) -> Result<(), ImageError> {
        let references = new.iter().map(|n| plain_name(n)).collect::<Result<Vec<_>, _>>()?;
        if !self.refs().is_dir() {
            return Err(ImageError::Unknown { name: name.to_owned() });
        }
        let _writers = self.lock_shared()?;
        let _images = self.lock_images()?;
        let (_, record) = self.find(name)?;
        let scratch = tempfile::tempdir_in(self.tmp()).map_err(store_io("create a directory", &self.tmp()))?;
        references.iter().try_for_each(|reference| self.link(scratch.path(), reference, &record.name()))
    }

    /// Takes names from an image: those that are given, else all. It stays, if need be without a name.
    ///
    /// # Errors
    /// When there is no such image, or a name is not one of its.
    pub fn untag(&self, name: &str, old: &[String]) -> Result<(), ImageError> {
        if !self.refs().is_dir() {
            return Err(ImageError::Unknown { name: name.to_owned() });
        }
        let _images = self.lock_images()?;
        let (_, record) = self.find(name)?;
        let mut names = self.names_by_record()?.remove(&record.name()).unwrap_or_default();
        if !old.is_empty() {
            names = old.iter().map(|n| self.own_name(n, &record)).collect::<Result<_, _>>()?;
        }
        names.iter().try_for_each(|reference| unlink(&self.refs().join(reference.file_name())))
    }

    fn own_name(&self, name: &str, record: &Record) -> Result<Reference, ImageError> {
        match self.find_by_name(name)? {
            Some((reference, found)) if found.name() == record.name() => Ok(reference),
            _ => Err(ImageError::Unknown { name: name.to_owned() }),
        }
    }

    /// One rename, so that nobody finds the name missing meanwhile. `scratch` is on the store's file system.
    pub(super) fn link(&self, scratch: &Path, name: &Reference, record: &RecordName) -> Result<(), ImageError> {
        let new = scratch.join("link");
        let path = self.refs().join(name.file_name());
        let fail = || store_io::<rustix::io::Errno>("name the image", &path);
        rustix::fs::symlinkat(record.link_target(), CWD, &new).map_err(fail())?;
        rustix::fs::rename(&new, &path).map_err(fail())
    }
}

fn plain_name(name: &str) -> Result<Reference, ImageError> {
    let reference = Reference::parse_local(name)?;
    match reference.digest() {
        None => Ok(reference),
        Some(_) => Err(ImageError::reference(name, "an image cannot be given a digest, it has one")),
    }
}
