//! Cleaning up after what was killed: supervisors, and commands that made or removed a container.

use super::{KEEP, RECORD, Summary, clear, drop_link, lock};
use crate::place::Place;
use rlrun_spec::Failure;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::Path;
use std::time::SystemTime;

/// How many signs of life are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// A bounded number, other ones each time, so that no start is slow because many containers run.
    Some,
    /// All, for commands that look at every container anyway.
    All,
}

/// As many as cost a start nothing that could be measured.
const SOME: usize = 32;

/// Cleans up after containers whose supervisor was killed, and after commands that were killed while they made or removed
/// one. `remove` removes what the caller's own id may not: the contents of a directory, inside the id map. Containers
/// that rest cost nothing.
///
/// # Errors
/// The first thing that could not be removed; the others are.
pub fn sweep(place: &Place, reach: Reach, remove: &mut dyn FnMut(&Path) -> Result<(), Failure>) -> Result<(), Failure> {
    let Ok(entries) = fs::read_dir(place.data.join("live")) else { return Ok(()) };
    let mut entries: Vec<_> = entries.flatten().collect();
    if reach == Reach::Some && entries.len() > SOME {
        // The order of a directory is always the same; without a turn some would never be looked at.
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().subsec_micros();
        let turn = usize::try_from(now).unwrap_or_default() % entries.len();
        entries.rotate_left(turn);
        entries.truncate(SOME);
    }
    let mut result = Ok(());
    for entry in entries {
        let directory = place.data.join("containers").join(entry.file_name());
        result = result.and(sweep_one(place, &directory, &entry.path(), remove));
    }
    result
}

fn sweep_one(
    place: &Place,
    directory: &Path,
    live_link: &Path,
    remove: &mut dyn FnMut(&Path) -> Result<(), Failure>,
) -> Result<(), Failure> {
    match orphaned(directory) {
        None => Ok(()),
        Some(Orphan::Resting(lock)) => {
            crate::cgroup::remove(directory)?;
            drop_link(live_link)?;
            drop(lock);
            Ok(())
        }
        Some(Orphan::Garbage(lock)) => {
            let finished = finish(place, directory, remove);
            drop(lock);
            finished
        }
    }
}

/// Removes what is left of a container that is to leave nothing: its files, its names, its sign of life.
pub(super) fn finish(
    place: &Place,
    directory: &Path,
    remove: &mut dyn FnMut(&Path) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let id = directory.file_name().unwrap_or_default();
    let name = Summary::read(directory).ok().map(|summary| summary.name);
    if directory.exists() {
        clear(directory, remove)?;
    }
    if let Some(name) = name {
        crate::journal::event("container", "remove", &id.to_string_lossy(), &name, serde_json::json!({}));
    }
    drop_names(place, id)?;
    drop_link(&place.data.join("live").join(id))
}

/// Takes away every name that leads to `id`: a record that is gone does not tell it, and a killed `rename` leaves two.
pub(super) fn drop_names(place: &Place, id: &OsStr) -> Result<(), Failure> {
    let Ok(names) = fs::read_dir(place.data.join("names")) else { return Ok(()) };
    for link in names.flatten().map(|entry| entry.path()) {
        if fs::read_link(&link).is_ok_and(|target| target.file_name() == Some(id)) {
            drop_link(&link)?;
        }
    }
    Ok(())
}

pub(super) enum Orphan {
    /// Killed, and to be kept. The lock, held by us now, keeps other commands away meanwhile: a start would make the
    /// cgroups and the link anew.
    Resting(File),
    /// Killed, and to leave nothing.
    Garbage(Option<File>),
}

/// None while somebody looks after it, or may be about to.
pub(super) fn orphaned(directory: &Path) -> Option<Orphan> {
    let lock = match lock::take(directory) {
        Ok(lock) => lock?,
        Err(e) if e.kind() == ErrorKind::NotFound => {
            let _nobody = lock::nobody_is_born(directory.parent()?)?;
            return (!directory.join(lock::LOCK).exists()).then_some(Orphan::Garbage(None));
        }
        Err(_) => return None,
    };
    // Without a record it was killed while it was being made.
    let stays = directory.join(KEEP).exists() && directory.join(RECORD).exists();
    if stays { Some(Orphan::Resting(lock)) } else { Some(Orphan::Garbage(Some(lock))) }
}
