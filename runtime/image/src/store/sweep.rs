//! What no image names, and what interrupted commands left behind, goes. The only place that deletes content.

use super::Store;
use super::lookup::read_dir_names;
use super::record::{Record, RecordName};
use crate::error::{ImageError, store_io};
use crate::unpack::{self, Job, RemoveJob};
use crate::work::InIdMap;
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// An empty file in `tmp/`: there may be something to sweep, and whoever found out could not.
const MARKER: &str = "sweep";

/// What the records speak of.
#[derive(Default)]
struct Kept {
    layers: BTreeSet<String>,
    blobs: BTreeSet<String>,
}

impl Store {
    /// Clears what an interrupted command left. Cheap when there is nothing: one directory listing.
    ///
    /// # Errors
    /// When the store cannot be read or changed.
    pub fn recover(&self, ids: &dyn InIdMap) -> Result<(), ImageError> {
        if read_dir_names(&self.tmp())?.is_empty() {
            return Ok(());
        }
        self.sweep(ids)
    }

    /// What commands that were killed left, by its place. One look at the directory itself when there is nothing; empty
    /// also while another command is adding, because what is there may be that one's.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn leftovers(&self) -> Result<Vec<PathBuf>, ImageError> {
        let tmp = self.tmp();
        match rustix::fs::stat(&tmp) {
            // Itself and its own name: it has no subdirectory. Some file systems do not count, and say 1 (stat(2)).
            Ok(stat) if stat.st_nlink == 2 => return Ok(Vec::new()),
            Ok(_) => {}
            Err(Errno::NOENT) => return Ok(Vec::new()),
            Err(e) => return Err(store_io("read the image store", &tmp)(e)),
        }
        let mut names = read_dir_names(&tmp)?;
        names.retain(|name| name != MARKER);
        if names.is_empty() || self.try_lock_exclusive()?.is_none() {
            return Ok(Vec::new());
        }
        Ok(names.into_iter().map(|name| tmp.join(name)).collect())
    }

    /// Removes what no image names. When another command is adding, the next command does it.
    pub(crate) fn sweep(&self, ids: &dyn InIdMap) -> Result<(), ImageError> {
        let Some(_lock) = self.try_lock_exclusive()? else { return self.mark() };
        let marker = self.tmp().join(MARKER);
        loop {
            // First of all: whoever removes an image from here on cannot know whether this sweep has seen it.
            unlink(&marker)?;
            self.sweep_once(ids)?;
            if !marker.exists() {
                return Ok(());
            }
        }
    }

    fn sweep_once(&self, ids: &dyn InIdMap) -> Result<(), ImageError> {
        let Some(kept) = self.kept()? else { return Ok(()) };
        let mut stubborn = self.clear_tmp()?;
        self.sweep_links()?;
        sweep_files(&self.blobs(), |name| kept.blobs.contains(name))?;
        for name in read_dir_names(&self.layers())? {
            if kept.layers.contains(name.strip_suffix(".json").unwrap_or(&name)) {
                continue;
            }
            let path = self.layers().join(&name);
            // Facts go first: a layer without them is never reused.
            if name.ends_with(".json") {
                unlink(&path)?;
            } else {
                stubborn.push(path);
            }
        }
        if !stubborn.is_empty() {
            let job = Job::Remove(RemoveJob { paths: stubborn, trash: self.tmp() });
            ids.run(&unpack::encode(&job)?)?;
        }
        Ok(())
    }

    pub(super) fn mark(&self) -> Result<(), ImageError> {
        let path = self.tmp().join(MARKER);
        fs::File::create(&path).map(drop).map_err(store_io("write to the image store", &path))
    }

    /// None when a record cannot be understood: then nothing may be called garbage.
    fn kept(&self) -> Result<Option<Kept>, ImageError> {
        let mut kept = Kept::default();
        for name in self.record_names()? {
            let record = match Record::read(&self.record_path(&name)) {
                Ok(Some(record)) => record,
                Ok(None) => continue,
                Err(ImageError::Malformed { .. }) => return Ok(None),
                Err(e) => return Err(e),
            };
            kept.blobs.extend(record.all_blobs().map(|d| d.hex().to_owned()));
            kept.layers.extend(record.layers.into_iter().chain(record.hidden_layers));
        }
        Ok(Some(kept))
    }

    /// Removes the directories of interrupted commands; gives back those that only mapped root can remove.
    fn clear_tmp(&self) -> Result<Vec<PathBuf>, ImageError> {
        let mut stubborn = Vec::new();
        for name in read_dir_names(&self.tmp())? {
            let path = self.tmp().join(&name);
            if name != MARKER && fs::remove_dir_all(&path).is_err() && fs::symlink_metadata(&path).is_ok() {
                stubborn.push(path);
            }
        }
        Ok(stubborn)
    }

    /// References whose image is gone.
    fn sweep_links(&self) -> Result<(), ImageError> {
        for name in read_dir_names(&self.refs())? {
            let path = self.refs().join(&name);
            let record = fs::read_link(&path).ok().and_then(|target| RecordName::from_link_target(&target));
            if record.is_some_and(|r| !self.record_path(&r).exists()) {
                unlink(&path)?;
            }
        }
        Ok(())
    }
}

fn sweep_files(dir: &Path, keep: impl Fn(&str) -> bool) -> Result<(), ImageError> {
    for name in read_dir_names(dir)? {
        if !keep(&name) {
            unlink(&dir.join(name))?;
        }
    }
    Ok(())
}

/// Removes a file that may be gone already.
pub(super) fn unlink(path: &Path) -> Result<(), ImageError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(store_io("remove a file of the image store", path)(e)),
        Ok(()) | Err(_) => Ok(()),
    }
}
