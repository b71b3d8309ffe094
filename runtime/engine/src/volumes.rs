//! Volumes: directories of data that live apart from containers.
//!
//! * `<data>/volumes/<name>/`: `volume.json`, `_data`, and `fresh` until the first use, when the sandbox fills it with
//!   what the image has in its place.
//! * A volume of a container's own (anonymous) lies in `<container>/volumes/<name>/`, and `<data>/volumes/<name>` is a
//!   link to it: whatever removes the container removes its volumes, a supervisor that knows nothing of them among
//!   others. `rm` without `-v` takes the directory out first, in the link's place.
//! * `<data>/volumes/.lock`: shared while a starting container makes what it needs, after its record names it; held
//!   alone while a volume is removed, so that none goes that a container counts on.
//!
//! Volumes appear and go by rename. Names beginning with a dot are unfinished and belong to whoever holds the lock.

pub mod backing;
mod inherit;
mod remove;

pub use inherit::inherit;
pub use remove::{keep_own, prune, remove};

use crate::journal;
use crate::place::Place;
use crate::record;
use rlrun_spec::{ContainerSpec, Failure, Kind, Stage};
use rustix::fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Below the data directory, and below a container's.
pub const DIRECTORY: &str = "volumes";
/// Below a volume.
pub const DATA: &str = "_data";
/// The mount option that tells a volume of the container's own.
pub const ANONYMOUS: &str = "anonymous";
const ABOUT: &str = "volume.json";
const FRESH: &str = "fresh";

/// What is known of a volume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Its name.
    pub name: String,
    /// Labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Nanoseconds since the epoch.
    pub created: u64,
    /// Nobody named it.
    #[serde(default)]
    pub anonymous: bool,
    /// What it is instead of a directory of rlrun's ([`backing`]).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
}

impl Volume {
    /// Where its data is on the host.
    #[must_use]
    pub fn mountpoint(&self, place: &Place) -> PathBuf {
        place.data.join(DIRECTORY).join(&self.name).join(DATA)
    }

    /// Whether its first user will find there what the image has in its place.
    #[must_use]
    pub fn is_fresh(&self, place: &Place) -> bool {
        self.options.is_empty() && place.data.join(DIRECTORY).join(&self.name).join(FRESH).exists()
    }
}

/// The name of a container's own volume: the same at every start.
#[must_use]
pub fn own_name(container: &str, destination: &str) -> String {
    let digest = Sha256::new().chain_update(container).chain_update([0]).chain_update(destination).finalize();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn failed(operation: &str, object: &Path, error: &std::io::Error) -> Failure {
    record::failed("volume", operation, object, error)
}

/// The steps of failures that `volume rm` has exit codes of its own for.
pub const UNKNOWN: &str = "volume-unknown";
/// A container needs it.
pub const IN_USE: &str = "volume-in-use";

fn about(operation: &str, name: &str) -> Failure {
    Failure::new(Stage::Cli, Kind::Usage, "volume", operation, name)
}

/// Makes a volume that nobody has yet.
///
/// # Errors
/// When the name is taken or the disk is full.
pub fn create(
    place: &Place,
    name: &str,
    labels: BTreeMap<String, String>,
    options: BTreeMap<String, String>,
) -> Result<Volume, Failure> {
    let _lock = lock(place, FlockOperation::LockShared)?;
    let volume = Volume { name: name.to_owned(), labels, created: now(), anonymous: false, options };
    match make(&place.own(DIRECTORY)?, &volume) {
        Ok(()) => {
            journal::event("volume", "create", "", name, json!({}));
            Ok(volume)
        }
        Err(e) if e.kind() == ErrorKind::AlreadyExists => Err(about("create the volume", name)
            .why("a volume of this name exists already")
            .hint(format!("use it as it is, or remove it first: rlrun volume rm {name}"))),
        Err(e) => Err(failed("create the volume", Path::new(name), &e)),
    }
}

/// Makes the volumes that a container mounts and that do not exist. Its record names them already. Containers without
/// volumes pay nothing.
///
/// # Errors
/// When the disk is full.
pub fn make_all(place: &Place, spec: &ContainerSpec, container: &Path) -> Result<(), Failure> {
    let mounts = spec.parts().oci.mounts().as_deref().unwrap_or_default();
    let mut lock_held = None;
    for mount in mounts.iter().filter(|m| m.typ().as_deref() == Some("volume")) {
        let name = mount.source().as_deref().and_then(Path::to_str).unwrap_or_default();
        let anonymous = mount.options().iter().flatten().any(|o| o == ANONYMOUS);
        if lock_held.is_none() {
            lock_held = Some(lock(place, FlockOperation::LockShared)?);
        }
        let volume = Volume { name: name.to_owned(), created: now(), anonymous, ..Volume::default() };
        let all = place.own(DIRECTORY)?;
        let made = match anonymous {
            true => make_own(&all, &volume, container),
            false => make(&all, &volume),
        };
        match made {
            Ok(()) => journal::event("volume", "create", "", name, json!({"anonymous": anonymous})),
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
            Err(e) => return Err(failed("create the volume", Path::new(name), &e)),
        }
    }
    Ok(())
}

fn now() -> u64 {
    u64::try_from(SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos()).unwrap_or(u64::MAX)
}

/// Puts a complete volume under its name; `AlreadyExists` when there is one.
fn make(all: &Path, volume: &Volume) -> std::io::Result<()> {
    let target = all.join(&volume.name);
    match fs::symlink_metadata(&target) {
        // A link whose container is gone, and the volume with it.
        Ok(there) if there.is_symlink() && !target.exists() => fs::remove_file(&target)?,
        Ok(_) => return Err(ErrorKind::AlreadyExists.into()),
        Err(_) => {}
    }
    let unfinished = all.join(format!(".new-{}-{}", volume.name, std::process::id()));
    fill(&unfinished, volume)?;
    let placed = renameat_with(CWD, &unfinished, CWD, &target, RenameFlags::NOREPLACE);
    if placed.is_err() {
        // Another command was faster.
        fs::remove_dir_all(&unfinished)?;
    }
    Ok(placed?)
}

/// In the container's directory, where it is removed with the container, and found by its link.
fn make_own(all: &Path, volume: &Volume, container: &Path) -> std::io::Result<()> {
    let link = all.join(&volume.name);
    if link.exists() {
        return Err(ErrorKind::AlreadyExists.into());
    }
    let own = container.join(DIRECTORY);
    match DirBuilder::new().mode(0o700).create(&own) {
        Err(e) if e.kind() != ErrorKind::AlreadyExists => return Err(e),
        _ => {}
    }
    let directory = own.join(&volume.name);
    if !directory.exists() {
        fill(&directory, volume)?;
    }
    let id = container.file_name().unwrap_or_default();
    let target = Path::new("../containers").join(id).join(DIRECTORY).join(&volume.name);
    match symlink(&target, &link) {
        // It dangles, as after a kill; it can only be this one, whose name nobody else has.
        Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

fn fill(directory: &Path, volume: &Volume) -> std::io::Result<()> {
    DirBuilder::new().mode(0o700).create(directory)?;
    DirBuilder::new().mode(0o755).create(directory.join(DATA))?;
    let new = |name: &str| OpenOptions::new().write(true).create_new(true).mode(0o600).open(directory.join(name));
    new(ABOUT)?.write_all(&serde_json::to_vec(volume)?)?;
    new(FRESH).map(drop)
}

fn lock(place: &Place, how: FlockOperation) -> Result<File, Failure> {
    let path = place.own(DIRECTORY)?.join(".lock");
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
    file.and_then(|file| Ok(flock(&file, how).map(|()| file)?)).map_err(|e| failed("lock", &path, &e))
}

/// All volumes, by name.
///
/// # Errors
/// When the directory of volumes cannot be read; that there is none is no error.
pub fn list(place: &Place) -> Result<Vec<Volume>, Failure> {
    let base = place.data.join(DIRECTORY);
    let entries = match fs::read_dir(&base) {
        Ok(entries) => entries,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(failed("read", &base, &e)),
    };
    let names = entries.flatten().filter_map(|e| e.file_name().into_string().ok()).filter(|n| !n.starts_with('.'));
    let mut all: Vec<Volume> = names.filter_map(|name| read(&base, &name)).collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(all)
}

/// None for a link whose container is gone.
fn read(base: &Path, name: &str) -> Option<Volume> {
    let text = fs::read(base.join(name).join(ABOUT)).ok()?;
    let volume: Volume = serde_json::from_slice(&text).ok()?;
    Some(Volume { name: name.to_owned(), ..volume })
}

/// The volume with this name, or the only one whose name begins so.
///
/// # Errors
/// When there is none, or more than one.
pub fn find(place: &Place, word: &str) -> Result<Volume, Failure> {
    let base = place.data.join(DIRECTORY);
    let plain = !word.is_empty() && !word.contains('/') && !word.starts_with('.');
    if let Some(volume) = plain.then(|| read(&base, word)).flatten() {
        return Ok(volume);
    }
    let mut fitting = list(place)?.into_iter().filter(|v| plain && v.name.starts_with(word));
    match (fitting.next(), fitting.next()) {
        (Some(volume), None) => Ok(volume),
        (Some(_), Some(_)) => Err(about("find the volume", word)
            .why("more than one volume's name begins so")
            .hint("write more of the name")),
        (None, _) => {
            let failure = Failure::new(Stage::Cli, Kind::Usage, UNKNOWN, "find the volume", word);
            Err(failure.why("no such volume").hint("rlrun volume ls lists them"))
        }
    }
}

#[cfg(test)]
mod tests;
