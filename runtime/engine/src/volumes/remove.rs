//! Removing volumes. Data goes in two steps: a rename under the lock, which nothing can interrupt half-way, and then as
//! slowly as it likes; what a killed command leaves is removed by the next one.

use super::{DIRECTORY, IN_USE, Volume, failed, find, list, lock};
use crate::place::Place;
use crate::record;
use rlrun_spec::{Failure, Kind, Stage};
use rustix::fs::{CWD, FlockOperation, RenameFlags, renameat_with};
use rustix::io::Errno;
use std::fs;
use std::path::Path;

/// Removes the contents of a directory inside the id map.
type Empty<'a> = &'a mut dyn FnMut(&Path) -> Result<(), Failure>;

/// `rlrun volume rm`.
///
/// # Errors
/// When there is no such volume, or a container uses it.
pub fn remove(place: &Place, word: &str, empty: Empty<'_>) -> Result<Volume, Failure> {
    let _lock = lock(place, FlockOperation::LockExclusive)?;
    let volume = find(place, word)?;
    if let Some((_, user)) = record::volumes_in_use(place).into_iter().find(|(name, _)| *name == volume.name) {
        return Err(Failure::new(Stage::Cli, Kind::Usage, IN_USE, "remove the volume", word)
            .why(format!("container {user} uses it"))
            .hint(format!("remove that container first: rlrun rm {user}")));
    }
    take(place, &volume.name, empty)?;
    sweep(place, empty)?;
    Ok(volume)
}

/// Removes the volumes that no container uses and `chosen` says yes to; tells their names.
///
/// # Errors
/// The first removal that failed.
pub fn prune(place: &Place, chosen: &dyn Fn(&Volume) -> bool, empty: Empty<'_>) -> Result<Vec<String>, Failure> {
    let _lock = lock(place, FlockOperation::LockExclusive)?;
    let used = record::volumes_in_use(place);
    let mut removed = Vec::new();
    for volume in list(place)? {
        if !used.iter().any(|(name, _)| *name == volume.name) && chosen(&volume) {
            take(place, &volume.name, empty)?;
            removed.push(volume.name);
        }
    }
    sweep(place, empty)?;
    Ok(removed)
}

fn take(place: &Place, name: &str, empty: Empty<'_>) -> Result<(), Failure> {
    let all = place.data.join(DIRECTORY);
    let path = all.join(name);
    let gone = all.join(format!(".gone-{name}"));
    // An earlier half of a removal of the same name.
    clear(&gone, empty)?;
    fs::rename(&path, &gone).map_err(|e| failed("remove the volume", &path, &e))?;
    crate::journal::event("volume", "remove", "", name, serde_json::json!({}));
    clear(&gone, empty)
}

/// Under the lock, everything that begins with a dot is what a killed command left.
fn sweep(place: &Place, empty: Empty<'_>) -> Result<(), Failure> {
    let all = place.data.join(DIRECTORY);
    for entry in fs::read_dir(&all).map_err(|e| failed("read", &all, &e))?.flatten() {
        if entry.file_name().to_string_lossy().starts_with('.') && entry.file_name() != ".lock" {
            clear(&entry.path(), empty)?;
        } else if entry.path().is_symlink() && !entry.path().exists() {
            fs::remove_file(entry.path()).map_err(|e| failed("remove", &entry.path(), &e))?;
        }
    }
    Ok(())
}

fn clear(path: &Path, empty: Empty<'_>) -> Result<(), Failure> {
    match fs::symlink_metadata(path) {
        Err(_) => Ok(()),
        Ok(there) if there.is_dir() => record::clear(path, empty),
        Ok(_) => fs::remove_file(path).map_err(|e| failed("remove", path, &e)),
    }
}

/// Takes a container's own volumes out of its directory, each in the place of its link, so that they stay when the
/// container goes. `which` says yes to their names.
///
/// # Errors
/// When a rename fails.
pub fn keep_own(place: &Place, container: &Path, which: &dyn Fn(&str) -> bool) -> Result<(), Failure> {
    let own = container.join(DIRECTORY);
    let Ok(entries) = fs::read_dir(&own) else { return Ok(()) };
    let _lock = lock(place, FlockOperation::LockShared)?;
    for entry in entries.flatten().filter(|e| which(&e.file_name().to_string_lossy())) {
        let (from, to) = (entry.path(), place.data.join(DIRECTORY).join(entry.file_name()));
        if from.is_symlink() {
            continue;
        }
        // Both at once: a volume that is neither here nor there is lost, and one that is a link to itself too.
        match renameat_with(CWD, &from, CWD, &to, RenameFlags::EXCHANGE) {
            Err(Errno::NOENT) => fs::rename(&from, &to).map_err(|e| failed("keep the volume", &to, &e))?,
            other => other.map_err(|e| failed("keep the volume", &to, &e.into()))?,
        }
    }
    Ok(())
}
