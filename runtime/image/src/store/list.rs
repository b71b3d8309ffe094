//! `images`: all of them, each as a list shows it; reads only, but for the index.

use super::Store;
use super::index::Index;
use super::lookup::read_dir;
use super::record::{Head, LINK_PREFIX, Record, RecordName};
use crate::error::ImageError;
use crate::reference::Reference;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// One row of `rlrun images`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageSummary {
    /// Names with tags, sorted; empty for an image that lost its last one.
    pub names: Vec<String>,
    /// Names with digests, sorted.
    pub digests: Vec<String>,
    /// Configuration digest.
    pub id: String,
    /// Manifest digest.
    pub digest: String,
    /// RFC 3339, as the image says it.
    pub created: Option<String>,
    /// Seconds since the epoch when it came into the store.
    pub added: u64,
    /// Bytes of its layers, uncompressed.
    pub size: u64,
    /// `linux/amd64`.
    pub platform: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// It is in an additional store, which this user's commands only read.
    pub read_only: bool,
}

impl ImageSummary {
    pub(super) fn new(record: &Record, references: Vec<Reference>) -> Self {
        let (names, digests) = sorted(references);
        ImageSummary {
            names,
            digests,
            id: record.id.to_string(),
            digest: record.manifest.to_string(),
            created: record.config.created.clone(),
            added: record.added,
            size: record.unpacked.unwrap_or(record.size),
            platform: record.config.platform(),
            labels: record.config.labels.clone(),
            read_only: false,
        }
    }

    /// What its record is called.
    pub(super) fn file_name(&self) -> String {
        let hex = |digest: &str| digest.strip_prefix("sha256:").unwrap_or(digest).to_owned();
        format!("{}.{}", hex(&self.id), hex(&self.digest))
    }

    fn named(self, references: Vec<Reference>) -> Self {
        let (names, digests) = sorted(references);
        ImageSummary { names, digests, ..self }
    }

    fn of(head: Head, references: Vec<Reference>) -> Self {
        let (names, digests) = sorted(references);
        ImageSummary {
            names,
            digests,
            platform: head.platform(),
            id: head.id.to_string(),
            digest: head.manifest.to_string(),
            created: head.config.created,
            added: head.added,
            size: head.unpacked.unwrap_or(head.size),
            labels: head.config.labels,
            read_only: false,
        }
    }
}

/// Names with tags, names with digests.
fn sorted(mut references: Vec<Reference>) -> (Vec<String>, Vec<String>) {
    references.sort_by_cached_key(ToString::to_string);
    let (tags, digests) = references.into_iter().partition::<Vec<_>, _>(|r| r.tag().is_some());
    let texts = |list: Vec<Reference>| list.iter().map(ToString::to_string).collect();
    (texts(tags), texts(digests))
}

/// Whose store it is: what is found out about one's own may be kept.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whose {
    Own,
    AnotherUsers,
}

impl Store {
    /// All images, newest first; those of additional stores too, unless this one has them. `told` is given what cannot
    /// be read of those.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn images(&self, told: &dyn Fn(&ImageError)) -> Result<Vec<ImageSummary>, ImageError> {
        let mut rows = self.rows(Whose::Own, &Err)?;
        let own = rows.len();
        rows.extend(self.images_elsewhere(told)?);
        if rows.len() > own {
            let mut seen = BTreeSet::new();
            rows.retain(|row| seen.insert(row.id.clone()) || !row.read_only);
        }
        rows.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| a.id.cmp(&b.id)));
        Ok(rows)
    }

    /// As another user lists them: a record that is none is told.
    pub(super) fn images_of(&self, told: super::additional::Told<'_>) -> Result<Vec<ImageSummary>, ImageError> {
        self.rows(Whose::AnotherUsers, &|e| {
            told(&e);
            Ok(())
        })
    }

    /// By the names of files alone, which is what counts where there are thousands.
    fn rows(
        &self,
        whose: Whose,
        failed: &dyn Fn(ImageError) -> Result<(), ImageError>,
    ) -> Result<Vec<ImageSummary>, ImageError> {
        let mut index = Index::read(self);
        if let Some(rows) = index.current() {
            return Ok(rows);
        }
        let mut names = HashMap::<String, Vec<Reference>>::new();
        for (reference, target) in self.links()? {
            if let Some(file) = target.to_str().and_then(|t| t.strip_prefix(LINK_PREFIX)) {
                names.entry(file.to_owned()).or_default().push(reference);
            }
        }
        let (dir, mut known) = (self.images_dir(), index.known());
        let (mut rows, mut read) = (Vec::new(), 0);
        for (file, inode) in read_dir(&dir)? {
            let mut mine = || names.remove(&file).unwrap_or_default();
            // The same file is the same record: it was written before it got this name.
            if let Some(summary) = known.remove(&(file.clone(), inode)) {
                rows.push((inode, summary.named(mine())));
                continue;
            }
            read += 1;
            match Head::read(&dir.join(&file)) {
                Ok(Some(head)) if head.is_of(&file) => rows.push((inode, ImageSummary::of(head, mine()))),
                // Removed meanwhile, or no record.
                Ok(_) => {}
                Err(_) if RecordName::from_file_name(&file).is_none() => {}
                Err(e) => failed(e)?,
            }
        }
        if whose == Whose::Own {
            index.keep(&rows, read);
        }
        Ok(rows.into_iter().map(|(_, summary)| summary).collect())
    }
}
