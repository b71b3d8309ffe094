//! `rmi`: a name goes, and with the last name the image, unless a container uses it.

use super::Store;
use super::list::ImageSummary;
use super::record::{Record, RecordName};
use super::sweep::unlink;
use crate::error::ImageError;
use crate::reference::Reference;
use crate::work::InIdMap;
use std::fmt;

/// How much to remove.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemoveMode {
    /// An id with several names is refused.
    Normal,
    /// An id goes with all its names.
    Force,
}

/// Who needs an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageUser {
    /// The container of this name.
    Container(String),
    /// Somebody who has mounted it to look at it.
    Mount,
}

impl fmt::Display for ImageUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ImageUser::Container(name) => write!(f, "the container {name} uses it"),
            ImageUser::Mount => f.write_str("it is mounted"),
        }
    }
}

impl ImageUser {
    fn hint(&self) -> String {
        match self {
            ImageUser::Container(name) => format!("`rlrun rm {name}` removes the container"),
            ImageUser::Mount => "`rlrun image unmount` it where it is mounted, or end that shell".to_owned(),
        }
    }
}

/// Answers for an image id (`sha256:...`) who needs it.
pub type InUse<'a> = &'a dyn Fn(&str) -> Option<ImageUser>;

/// What was removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Names.
    pub untagged: Vec<String>,
    /// Image ids.
    pub deleted: Vec<String>,
}

impl Removed {
    fn extend(&mut self, more: Removed) {
        self.untagged.extend(more.untagged);
        self.deleted.extend(more.deleted);
    }
}

impl Store {
    /// Removes a name, or an image by id. `in_use` is asked with the image id (`sha256:...`) before an image goes, while
    /// no container can start; it answers with who needs the image.
    ///
    /// # Errors
    /// [`ImageError::Unknown`], [`ImageError::Ambiguous`], [`ImageError::InUse`], or the store cannot be changed.
    pub fn remove(
        &self,
        name: &str,
        mode: RemoveMode,
        in_use: InUse<'_>,
        ids: &dyn InIdMap,
    ) -> Result<Removed, ImageError> {
        if !self.refs().is_dir() {
            return Err(self.unknown_here(name)?);
        }
        self.recover(ids)?;
        let removed = {
            let _lock = self.lock_images()?;
            match self.remove_locked(name, mode, in_use) {
                Err(ImageError::Unknown { .. }) => return Err(self.unknown_here(name)?),
                other => other?,
            }
        };
        if !removed.deleted.is_empty() {
            self.sweep(ids)?;
        }
        Ok(removed)
    }

    /// Removes every image that `doomed` says and no container uses, with all its names.
    ///
    /// # Errors
    /// When the store cannot be read or changed.
    pub fn prune(
        &self,
        doomed: &dyn Fn(&ImageSummary) -> bool,
        in_use: InUse<'_>,
        ids: &dyn InIdMap,
    ) -> Result<Removed, ImageError> {
        let mut removed = Removed::default();
        if !self.refs().is_dir() {
            return Ok(removed);
        }
        self.recover(ids)?;
        {
            let _lock = self.lock_images()?;
            let mut names = self.names_by_record()?;
            for name in self.record_names()? {
                let Some(record) = Record::read(&self.record_path(&name))? else { continue };
                let mine = names.remove(&name).unwrap_or_default();
                if doomed(&ImageSummary::new(&record, mine.clone())) && in_use(record.id.as_str()).is_none() {
                    removed.extend(self.delete(record.id.as_str(), &[(name, mine)], &|_| None)?);
                }
            }
        }
        if !removed.deleted.is_empty() {
            self.sweep(ids)?;
        }
        Ok(removed)
    }

    fn unknown_here(&self, name: &str) -> Result<ImageError, ImageError> {
        Ok(match self.elsewhere(name)? {
            None => ImageError::Unknown { name: name.to_owned() },
            Some(elsewhere) => ImageError::InUse {
                name: name.to_owned(),
                why: format!("it is in the additional store {}, which is only read", elsewhere.store.root().display()),
                hint: "whoever keeps that store removes it there; images.toml names the store".to_owned(),
            },
        })
    }

    fn remove_locked(&self, name: &str, mode: RemoveMode, in_use: InUse<'_>) -> Result<Removed, ImageError> {
        let mut names = self.names_by_record()?;
        let by_name = match self.find_by_name(name) {
            Err(ImageError::Reference { .. }) => None,
            other => other?,
        };
        if let Some((reference, record)) = by_name {
            let mine = names.remove(&record.name()).unwrap_or_default();
            let stored = reference.digest().map_or_else(|| reference.clone(), |d| reference.at(d));
            if mine.iter().any(|r| r.tag().is_some() && *r != stored) {
                unlink(&self.refs().join(stored.file_name()))?;
                return Ok(Removed { untagged: vec![stored.to_string()], deleted: Vec::new() });
            }
            return self.delete(name, &[(record.name(), mine)], in_use);
        }
        let (_, record) = self.find(name)?;
        let records = self.records_by_id(record.id.hex())?;
        let doomed: Vec<_> = records
            .into_iter()
            .map(|r| {
                let n = names.remove(&r).unwrap_or_default();
                (r, n)
            })
            .collect();
        let tags: Vec<String> =
            doomed.iter().flat_map(|(_, n)| n).filter(|r| r.tag().is_some()).map(ToString::to_string).collect();
        if tags.len() > 1 && mode == RemoveMode::Normal {
            return Err(ImageError::InUse {
                name: name.to_owned(),
                why: format!("it has several names: {}", tags.join(", ")),
                hint: "remove the names one by one, or all with `rlrun rmi --force`".to_owned(),
            });
        }
        self.delete(name, &doomed, in_use)
    }

    fn delete(
        &self,
        name: &str,
        doomed: &[(RecordName, Vec<Reference>)],
        in_use: InUse<'_>,
    ) -> Result<Removed, ImageError> {
        for (record, _) in doomed {
            if let Some(user) = in_use(record.id.as_str()) {
                return Err(ImageError::InUse { name: name.to_owned(), why: user.to_string(), hint: user.hint() });
            }
        }
        let mut removed = Removed::default();
        for (record, references) in doomed {
            for reference in references {
                unlink(&self.refs().join(reference.file_name()))?;
                if reference.tag().is_some() {
                    removed.untagged.push(reference.to_string());
                }
            }
            unlink(&self.record_path(record))?;
            removed.deleted.push(record.id.to_string());
        }
        removed.deleted.dedup();
        Ok(removed)
    }
}
