//! `rlrun system`: how much there is, whether it is sound, and getting rid of all of it.

use super::{Progress, Store, Workshop, user_of};
use crate::containers::{self, Container};
use crate::journal;
use crate::place::Place;
use crate::record;
use crate::supervisor;
use crate::volumes;
use rlrun_image::{Checked, Damage};
use rlrun_spec::{Failure, Kind, Stage};
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};

/// `rlrun system check`: reads only, and tells how far it is.
///
/// # Errors
/// When the store cannot be read, or the id map not be entered.
pub fn check(place: &Place, progress: &(dyn Fn(&Progress) + Sync)) -> Result<Checked, Failure> {
    Ok(Store::new(&place.data).check(&crate::run::default_jobs(place)?, progress)?)
}

/// Where commands that were killed left something of images that never came to be.
///
/// # Errors
/// When the store cannot be read.
pub fn leftovers(place: &Place) -> Result<Vec<PathBuf>, Failure> {
    Ok(Store::new(&place.data).leftovers()?)
}

/// Removes what they left, before a container starts. It runs as well beside it, so a failure is only told.
pub(crate) fn clear_leftovers(place: &Place) {
    let store = Store::new(&place.data);
    let cleared = match store.leftovers() {
        Ok(left) if left.is_empty() => return,
        Ok(_) => crate::run::default_jobs(place).and_then(|jobs| Ok(store.recover(&jobs)?)),
        // A store that cannot be read is what the start itself fails for, and says.
        Err(_) => return,
    };
    if let Err(failure) = cleared {
        crate::warn(&failure.to_string());
    }
}

/// What one kind of thing takes of the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// How many.
    pub total: usize,
    /// How many are in use.
    pub active: usize,
    /// Bytes, each counted once.
    pub bytes: u64,
    /// Bytes of those that are not in use.
    pub reclaimable: u64,
}

impl Share {
    fn add(&mut self, bytes: u64, active: bool) {
        self.total += 1;
        self.bytes += bytes;
        if active {
            self.active += 1;
        } else {
            self.reclaimable += bytes;
        }
    }
}

/// `rlrun system df`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shares {
    /// Images.
    pub images: Share,
    /// Containers, without their volumes.
    pub containers: Share,
    /// Volumes.
    pub volumes: Share,
    /// Each container with its bytes.
    pub each_container: Vec<(Container, u64)>,
    /// Each volume with the number of containers that mount it and its bytes.
    pub each_volume: Vec<(String, usize, u64)>,
}

/// What images, containers and volumes take.
///
/// # Errors
/// When something cannot be read.
pub fn shares(workshop: &Workshop) -> Result<Shares, Failure> {
    let place = &workshop.place;
    let usage = workshop.store.usage(&|id| user_of(place, id))?;
    let mut shares = Shares {
        images: Share { total: usage.images, active: usage.active, bytes: usage.bytes, reclaimable: usage.reclaimable },
        ..Shares::default()
    };
    let containers = containers::list(place)?;
    let volumes = volumes::list(place)?;
    let own_volumes = |c: &Container| c.directory.join(volumes::DIRECTORY);
    let mut paths: Vec<_> = containers.iter().flat_map(|c| [c.directory.clone(), own_volumes(c)]).collect();
    paths.extend(volumes.iter().map(|v| v.mountpoint(place)));
    // Entering the id map is a process, which an empty store does without.
    let sizes = if paths.is_empty() { Vec::new() } else { rlrun_image::measure(&workshop.jobs, paths)? };
    let mut sizes = sizes.into_iter();
    let mut next = || sizes.next().unwrap_or_default();
    for container in containers {
        let bytes = next();
        let bytes = bytes.saturating_sub(next());
        shares.containers.add(bytes, container.status.is_alive());
        shares.each_container.push((container, bytes));
    }
    let used = record::volumes_in_use(place);
    for volume in volumes {
        let links = used.iter().filter(|(name, _)| *name == volume.name).count();
        let bytes = next();
        shares.volumes.add(bytes, links > 0);
        shares.each_volume.push((volume.name, links, bytes));
    }
    Ok(shares)
}

impl Workshop {
    /// `rlrun system check --repair`: removes damaged images; gives back what a container keeps.
    ///
    /// # Errors
    /// When the store cannot be changed.
    pub fn repair(&self, checked: &Checked) -> Result<Vec<Damage>, Failure> {
        Ok(self.store.repair(checked, &|id| user_of(&self.place, id), &self.jobs)?)
    }

    /// `rlrun system check --repair`: removes what commands that were killed left.
    ///
    /// # Errors
    /// When the store cannot be changed.
    pub fn clear_leftovers(&self) -> Result<(), Failure> {
        Ok(self.store.recover(&self.jobs)?)
    }

    /// `rlrun system reset`: ends all containers and removes everything that rlrun keeps for this user, but for the
    /// audit log and the configuration.
    ///
    /// # Errors
    /// When a container does not end, an image is being added, or something cannot be removed.
    pub fn reset(&self) -> Result<(), Failure> {
        let data = &self.place.data;
        if !data.exists() {
            return Ok(());
        }
        // Whatever it does: one that waits for its restart has no processes, and a supervisor.
        for container in containers::list(&self.place)?.iter().filter(|c| record::lock::is_held(&c.directory)) {
            match supervisor::kill(container) {
                Err(failure) if record::lock::is_held(&container.directory) => return Err(failure),
                // It has ended by itself meanwhile.
                Ok(()) | Err(_) => {}
            }
        }
        // Also of what has no record, or was killed before.
        for container in fs::read_dir(data.join("containers")).into_iter().flatten().flatten() {
            crate::cgroup::remove(&container.path())?;
        }
        let _store = self.store.lock_for_reset()?;
        let read = |e: &std::io::Error| failed("read", data, e);
        for entry in fs::read_dir(data).map_err(|e| read(&e))? {
            let entry = entry.map_err(|e| read(&e))?;
            if !is_kept(&entry.file_name().to_string_lossy()) {
                self.clear(&entry.path())?;
            }
        }
        match fs::remove_dir_all(&self.place.cache) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(failed("remove", &self.place.cache, &e))?,
            Ok(()) | Err(_) => {}
        }
        journal::event("system", "reset", "", "", json!({}));
        Ok(())
    }

    fn clear(&self, path: &Path) -> Result<(), Failure> {
        let is_dir = fs::symlink_metadata(path).is_ok_and(|m| m.is_dir());
        if is_dir {
            return record::clear(path, &mut |directory| self.jobs.remove(directory));
        }
        match fs::remove_file(path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(failed("remove", path, &e)),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

/// The audit log outlives what it speaks of.
fn is_kept(name: &str) -> bool {
    name.starts_with("journal")
}

fn failed(operation: &str, path: &Path, error: &std::io::Error) -> Failure {
    let failure = Failure::new(Stage::Cli, Kind::Runtime, "reset", operation, path.display().to_string());
    match error.raw_os_error() {
        Some(errno) => failure.errno(errno),
        None => failure.why(error.to_string()),
    }
}
