//! What is kept of a container: a directory, a claim on a name, and a sign of life.
//!
//! * `<data>/containers/<id>/`: `lock` (held as long as somebody looks after the container, [`lock`]), `record` (what was
//!   asked for and decided, [`mod@file`]), `state` (what its supervisor says, [`rlrun_spec::State`]), `keep` (without it the
//!   container leaves nothing behind), `ctr.log` (its output), and the directories of its root file system.
//! * `<data>/names/<name>`: a link to it. Making the link claims the name; the kernel lets one of two win.
//! * `<data>/live/<id>`: a link, to nothing of use, from before the directory exists until its clean end. What is there with a free lock
//!   was killed, and [`sweep()`] cleans it. Containers that rest cost nothing here.

pub mod file;
pub mod lock;
mod sweep;

pub use file::{Details, Mounted, RECORD, Summary};
pub use sweep::{Reach, sweep};

use crate::place::Place;
use rlrun_spec::{Failure, Kind, Stage};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder};
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};

/// The file without which a container leaves nothing behind.
pub(crate) use rlrun_spec::state::KEEP;

/// What remains of the container when it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remains {
    /// Nothing (`--rm`).
    Nothing,
    /// Its record and root file system.
    Record,
}

/// What becomes of the volumes that a container alone has, when it is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnVolumes {
    /// They stay, as volumes without a container.
    Keep,
    /// They go too (`rm -v`).
    Remove,
}

/// A new container's record, claimed and locked. Dropping it takes everything back, unless [`Record::hand_over`] gave
/// it to the supervisor.
#[derive(Debug)]
pub struct Record {
    /// `<data>/containers/<id>`.
    pub directory: PathBuf,
    /// `<data>/names/<name>`.
    pub name_link: PathBuf,
    /// `<data>/live/<id>`.
    pub live_link: PathBuf,
    lock: Option<OwnedFd>,
}

pub(crate) fn failed(step: &str, operation: &str, object: &Path, error: &std::io::Error) -> Failure {
    let failure = Failure::new(Stage::Cli, Kind::Runtime, step, operation, object.display().to_string());
    match error.raw_os_error() {
        Some(errno) => failure.errno(errno),
        None => failure.why(error.to_string()),
    }
}

/// What a sign of life leads to: its name says all, and a long text would take a block of the disk to itself.
const SIGN_OF_LIFE: &str = ".";

/// Creates the record of container `id` and claims `name` for it.
///
/// # Errors
/// When the name is taken, or the disk does not take a few small files.
pub fn create(place: &Place, id: &str, name: &str, remains: Remains) -> Result<Record, Failure> {
    let containers = place.own("containers")?;
    let (names, live) = (place.own("names")?, place.own("live")?);
    let mut record =
        Record { directory: containers.join(id), name_link: names.join(name), live_link: live.join(id), lock: None };
    let birth = lock::birth(&containers).map_err(|e| failed("data-dir", "lock", &containers, &e))?;
    symlink(SIGN_OF_LIFE, &record.live_link)
        .map_err(|e| failed("data-dir", "record the container in", &record.live_link, &e))?;
    let locked = DirBuilder::new().mode(0o700).create(&record.directory).and_then(|()| lock::create(&record.directory));
    record.lock =
        Some(locked.map_err(|e| failed("data-dir", "record the container in", &record.directory, &e))?.into());
    drop(birth);
    for sub in ["upper", "work"] {
        let path = record.directory.join(sub);
        DirBuilder::new().mode(0o755).create(&path).map_err(|e| failed("data-dir", "make", &path, &e))?;
    }
    if remains == Remains::Record {
        record.write(KEEP, b"")?;
    }
    claim(&Path::new("../containers").join(id), &record.name_link, name)?;
    Ok(record)
}

/// Whether this is [`create`]'s failure about a name that another container has.
#[must_use]
pub fn is_taken(failure: &Failure) -> bool {
    failure.step == CLAIM && failure.kind == Kind::Usage
}

const CLAIM: &str = "claim-name";

/// A name whose container is gone (its directory was removed, its link not yet) is free.
pub(crate) fn claim(target: &Path, link: &Path, name: &str) -> Result<(), Failure> {
    match symlink(target, link) {
        Err(e)
            if e.kind() == ErrorKind::AlreadyExists
                && (!link.exists() || is_former(link, name) || is_leftover(link)) =>
        {
            fs::remove_file(link).and_then(|()| symlink(target, link))
        }
        other => other,
    }
    .map_err(|e| {
        if e.kind() != ErrorKind::AlreadyExists {
            return failed(CLAIM, "claim the name", link, &e);
        }
        let holder = fs::read_link(link).ok().and_then(|t| Some(t.file_name()?.to_string_lossy().into_owned()));
        let why = format!("it is in use by container {:.12}", holder.unwrap_or_default());
        Failure::new(Stage::Cli, Kind::Usage, CLAIM, "claim the container name", name)
            .why(why)
            .hint(format!("choose another --name, or remove that container: rlrun rm {name}"))
    })
}

/// Whether the link leads to what a removal has left so far, or for good: a container that is being made is locked before
/// it has a name.
fn is_leftover(link: &Path) -> bool {
    !link.join(RECORD).exists() && !lock::is_held(link)
}

/// Whether the link is what a `rename` left that was killed before its end: the container is called something else.
fn is_former(link: &Path, name: &str) -> bool {
    let Ok(directory) = fs::canonicalize(link) else { return false };
    // A rename that is under way holds this; its new name is not in the record yet.
    let Ok(Some(_change)) = lock::change(&directory, lock::Patience::None) else { return false };
    Summary::read(&directory).is_ok_and(|summary| summary.name != name)
}

impl Record {
    /// The record of a container that is there and at rest, to start it.
    ///
    /// # Errors
    /// When somebody looks after it: it runs, is being started or removed.
    pub(crate) fn reopen(place: &Place, directory: &Path, name: &str) -> Result<Record, Failure> {
        let busy = || {
            Failure::new(Stage::Cli, Kind::Usage, "container-state", "start the container", name)
                .why("it runs, or another command starts or removes it")
        };
        let lock =
            lock::take_ended(directory).map_err(|e| failed("data-dir", "lock", directory, &e))?.ok_or_else(busy)?;
        let id = directory.file_name().unwrap_or_default();
        let (names, live) = (place.own("names")?, place.own("live")?);
        let live_link = live.join(id);
        match symlink(SIGN_OF_LIFE, &live_link) {
            Err(e) if e.kind() != ErrorKind::AlreadyExists => {
                return Err(failed("data-dir", "record the container in", &live_link, &e));
            }
            _ => {}
        }
        Ok(Record { directory: directory.to_owned(), name_link: names.join(name), live_link, lock: Some(lock.into()) })
    }

    /// Lets go of it as it is: it stays, and nobody looks after it.
    ///
    /// # Errors
    /// When the sign of life cannot be taken away.
    pub fn rest(mut self) -> Result<(), Failure> {
        let dropped = drop_link(&self.live_link);
        self.lock = None;
        dropped
    }

    /// Writes a small file of the record: whoever is killed meanwhile leaves none, and not half of one, which nothing
    /// would list. Not synced: a record that a power cut loses belongs to a container that the power cut ended.
    ///
    /// # Errors
    /// When the disk is full.
    pub fn write(&self, file: &str, contents: &[u8]) -> Result<(), Failure> {
        file::write_aside(&self.directory, file, contents)
            .map_err(|e| failed("data-dir", "write", &self.directory.join(file), &e))
    }

    /// Gives the record to the supervisor: its lock, which must stay open as long as the supervisor lives. Call
    /// [`Record::take_back`] when the supervisor could not be started after all.
    ///
    /// # Errors
    /// When it was handed over before.
    pub fn hand_over(&mut self) -> Result<OwnedFd, Failure> {
        self.lock.take().ok_or_else(|| {
            Failure::new(
                Stage::Cli,
                Kind::Internal,
                "data-dir",
                "hand over the container",
                self.directory.display().to_string(),
            )
            .why("it was handed over already")
        })
    }

    /// Removes what was made, best effort: what stays is found by [`sweep()`].
    pub fn take_back(&self) {
        if crate::cgroup::remove(&self.directory).is_err() {
            // Its processes are ending; the directory goes with the next command's sweep or the user's session.
        }
        let removed = rlrun_sandbox::remove_contents(&self.directory).map(|()| fs::remove_dir(&self.directory));
        let ours = fs::read_link(&self.name_link).is_ok_and(|t| t.file_name() == self.directory.file_name());
        if ours && fs::remove_file(&self.name_link).is_err() {
            // A dangling name is free for whoever wants it.
        }
        if matches!(removed, Ok(Ok(()))) && fs::remove_file(&self.live_link).is_err() {
            // Still there: the next sweep sees a sign of life without a container.
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if self.lock.is_some() {
            self.take_back();
        }
    }
}

/// Removes a container's directory, whoever owns what is in it.
///
/// # Errors
/// When `remove` fails.
pub fn clear(directory: &Path, remove: &mut dyn FnMut(&Path) -> Result<(), Failure>) -> Result<(), Failure> {
    crate::cgroup::remove(directory)?;
    if rlrun_sandbox::remove_contents(directory).is_err() && directory.exists() {
        remove(directory).or_else(|e| if directory.exists() { Err(e) } else { Ok(()) })?;
    }
    match fs::remove_dir(directory) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        Err(e) => Err(failed("data-dir", "remove", directory, &e)),
    }
}

fn drop_link(link: &Path) -> Result<(), Failure> {
    match fs::remove_file(link) {
        Ok(()) => Ok(()),
        // Another command swept it at the same time.
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        Err(e) => Err(failed("data-dir", "remove", link, &e)),
    }
}

/// The step of failures about containers that run and are to be removed.
pub const STEP_RUNNING: &str = "remove-running";

/// `rlrun rm`: removes a container that has ended. That there is none any more is no failure.
///
/// # Errors
/// When it runs, or its files cannot be removed.
pub fn remove(
    place: &Place,
    (directory, name): (&Path, &str),
    volumes: OwnVolumes,
    remove: &mut dyn FnMut(&Path) -> Result<(), Failure>,
) -> Result<(), Failure> {
    // Held while its files go, so that no other command takes it for living or for dead.
    let lock = match lock::take_ended(directory) {
        Ok(Some(lock)) => lock,
        Ok(None) => {
            let failure = Failure::new(Stage::Cli, Kind::Usage, STEP_RUNNING, "remove the container", name);
            return Err(failure
                .why("it is running")
                .hint(format!("end it first: rlrun stop {name}, or rlrun rm -f {name}")));
        }
        Err(_) if !directory.exists() => return Ok(()),
        // The lock goes last: somebody's removal is at its end, or was killed there.
        Err(e) if e.kind() == ErrorKind::NotFound => return sweep::finish(place, directory, remove),
        Err(e) => return Err(failed("remove-container", "lock", directory, &e)),
    };
    let summary = Summary::read(directory);
    if volumes == OwnVolumes::Keep {
        crate::volumes::keep_own(place, directory, &|_| true)?;
    }
    let id = directory.file_name().unwrap_or_default();
    let live_link = place.own("live")?.join(id);
    condemn(directory, &live_link)?;
    clear(directory, remove)?;
    drop(lock);
    if let Ok(Summary { id, name, .. }) = &summary {
        crate::journal::event("container", "remove", id, name, serde_json::json!({}));
    }
    let unnamed = match summary {
        Ok(summary) => {
            let link = place.data.join("names").join(summary.name);
            // Without its files its name was free, and may be another's by now.
            let ours = fs::read_link(&link).is_ok_and(|target| target.file_name() == Some(id));
            if ours { drop_link(&link) } else { Ok(()) }
        }
        // Whoever was removing it before had the record already.
        Err(_) => sweep::drop_names(place, id),
    };
    unnamed.and_then(|()| drop_link(&live_link))
}

/// Makes garbage of it, which the next command clears should this one be killed.
fn condemn(directory: &Path, live_link: &Path) -> Result<(), Failure> {
    match symlink(SIGN_OF_LIFE, live_link) {
        Err(e) if e.kind() != ErrorKind::AlreadyExists => return Err(failed("data-dir", "mark", live_link, &e)),
        _ => {}
    }
    drop_link(&directory.join(KEEP))
}

/// The name of a container that was made from the image with this id, or mounts it, for `rmi`.
#[must_use]
pub fn user_of_image(place: &Place, image_id: &str) -> Option<String> {
    let containers = fs::read_dir(place.data.join("containers")).ok()?;
    containers.flatten().find_map(|entry| {
        // A container without a record is one that is going away.
        let summary = Summary::read(&entry.path()).ok()?;
        let mounts = summary.mounts.iter().any(|m| m.image.as_deref() == Some(image_id));
        (mounts || summary.image?.id == image_id).then_some(summary.name)
    })
}

/// How many containers each image has, by its id.
#[must_use]
pub fn images_in_use(place: &Place) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    let containers = fs::read_dir(place.data.join("containers")).into_iter().flatten().flatten();
    for summary in containers.filter_map(|entry| Summary::read(&entry.path()).ok()) {
        let mounted = summary.mounts.into_iter().filter_map(|mount| mount.image);
        let ids: BTreeSet<String> = summary.image.into_iter().map(|image| image.id).chain(mounted).collect();
        ids.into_iter().for_each(|id| *counts.entry(id).or_default() += 1);
    }
    counts
}

/// Which volumes containers mount: the volume's name and the container's.
#[must_use]
pub fn volumes_in_use(place: &Place) -> Vec<(String, String)> {
    let Ok(containers) = fs::read_dir(place.data.join("containers")) else { return Vec::new() };
    let summaries = containers.flatten().filter_map(|entry| Summary::read(&entry.path()).ok());
    summaries
        .flat_map(|summary| {
            let volumes = summary.mounts.into_iter().filter(|m| m.kind == "volume");
            volumes.map(|m| (m.source, summary.name.clone())).collect::<Vec<_>>()
        })
        .collect()
}

#[cfg(test)]
mod tests;
