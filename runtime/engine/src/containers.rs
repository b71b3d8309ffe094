//! Which containers there are, and what they really do. What a record says is only what was true when it was written;
//! whether a container runs is told by its lock, which dies with its supervisor.

use crate::place::Place;
use crate::record::{self, KEEP, Summary, lock};
use crate::request::StorageDriver;
use rlrun_spec::state::STATE;
use rlrun_spec::{Failure, Kind, Stage, State};
use std::fs;
use std::path::{Path, PathBuf};

/// What a container does now, in podman's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    /// It was never started, or is being started for the first time.
    Created,
    /// Its payload runs.
    Running,
    /// Its processes are stopped until `unpause`.
    Paused,
    /// It was told to end and has not yet.
    Stopping,
    /// It has ended, and its supervisor starts it again in a moment.
    Restarting,
    /// It has ended.
    Exited,
    /// What is left of a container that is to leave nothing; the next command clears it.
    Dead,
}

impl Status {
    /// The word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopping => "stopping",
            Status::Restarting => "restarting",
            Status::Exited => "exited",
            Status::Dead => "dead",
        }
    }

    /// Whether it has processes.
    #[must_use]
    pub fn is_alive(self) -> bool {
        matches!(self, Status::Running | Status::Paused | Status::Stopping)
    }
}

/// A container as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// What was decided when it was created.
    pub summary: Summary,
    /// What its supervisor said last, corrected where the supervisor could not: of a container whose supervisor was
    /// killed, `exit_code` is 137 and `pid` 0.
    pub state: State,
    /// What it does.
    pub status: Status,
    /// `<data>/containers/<id>`.
    pub directory: PathBuf,
}

/// The code of a container that was killed with its supervisor: 128 + SIGKILL.
const KILLED: u8 = 137;

impl Container {
    /// Where its mapper sees its root file system.
    #[must_use]
    pub fn mount_point(&self) -> PathBuf {
        rlrun_sandbox::mount_point(&self.directory)
    }

    /// Looks at one container's directory; None when it has no record (it is being made or removed).
    #[must_use]
    pub fn read(directory: PathBuf) -> Option<Container> {
        let summary = Summary::read(&directory).ok()?;
        let mut state = fs::read_to_string(directory.join(STATE)).map(|t| State::parse(&t)).unwrap_or_default();
        let status = match (state.started, state.finished) {
            // One that waits for its start has a process; one whose supervisor was killed meanwhile has ended.
            (0, _) if state.pid == 0 || lock::is_held(&directory) => Status::Created,
            (_, 1..) if state.restarting && lock::is_held(&directory) => Status::Restarting,
            (_, 1..) => at_rest(&directory),
            // The order matters: a supervisor writes its end first and lets the lock go then.
            (_, 0) if lock::is_held(&directory) => match (state.paused, state.stopped) {
                (true, _) => Status::Paused,
                (false, true) => Status::Stopping,
                (false, false) => Status::Running,
            },
            (_, 0) => {
                // It may have ended between the two looks; if not, it was killed.
                let again = fs::read_to_string(directory.join(STATE)).map(|t| State::parse(&t)).unwrap_or_default();
                state = if again.finished > 0 { again } else { killed(state) };
                at_rest(&directory)
            }
        };
        Some(Container { summary, state, status, directory })
    }
}

/// A container that is to leave nothing has no business to be there any more.
fn at_rest(directory: &Path) -> Status {
    if directory.join(KEEP).exists() { Status::Exited } else { Status::Dead }
}

fn killed(state: State) -> State {
    let error = "its supervisor was killed".to_owned();
    State { pid: 0, supervisor: 0, exit_code: KILLED, paused: false, error, ..state }
}

/// Every container, oldest first.
///
/// # Errors
/// When the directory of containers cannot be read; that there is none is no error.
pub fn list(place: &Place) -> Result<Vec<Container>, Failure> {
    let base = place.data.join("containers");
    let entries = match fs::read_dir(&base) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(record::failed("list", "read", &base, &e)),
    };
    let mut all: Vec<Container> = entries.flatten().filter_map(|e| Container::read(e.path())).collect();
    all.sort_by(|a, b| (a.summary.created, &a.summary.id).cmp(&(b.summary.created, &b.summary.id)));
    Ok(all)
}

/// What each of some containers has written over its image, and how much that is with the image, in bytes.
///
/// # Errors
/// When the store cannot be read.
pub fn sizes(place: &Place, all: &[Container]) -> Result<Vec<(u64, u64)>, Failure> {
    if all.is_empty() {
        return Ok(Vec::new());
    }
    let whole = |c: &Container| matches!(c.summary.storage_driver, StorageDriver::Copy | StorageDriver::Directory);
    let paths = all.iter().map(|c| c.directory.join(if whole(c) { "merged" } else { "upper" })).collect();
    let written = rlrun_image::measure(&crate::run::default_jobs(place)?, paths)?;
    let images = crate::images::list(place)?;
    let sizes = all.iter().zip(written).map(|(c, written)| {
        let written = written.max(on_disk_of_its_own(c));
        let image = c.summary.image.as_ref().and_then(|image| images.iter().find(|i| i.id == image.id));
        let image = image.map_or(0, |image| image.size);
        if whole(c) { (written.saturating_sub(image), written) } else { (written, image + written) }
    });
    Ok(sizes.collect())
}

/// What the file takes in which a container's writes are limited.
fn on_disk_of_its_own(container: &Container) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    fs::metadata(container.directory.join(DISK)).map_or(0, |file| file.blocks() * 512)
}

/// The file in a container's directory that has what it wrote, where that is limited and lasts.
pub const DISK: &str = "disk.img";

/// The container with this name, id, or beginning of exactly one id.
///
/// # Errors
/// When there is none, or more than one.
pub fn find(place: &Place, word: &str) -> Result<Container, Failure> {
    directory_of(place, word).and_then(|directory| Container::read(directory).ok_or_else(|| none(word)))
}

/// The container with exactly this name.
#[must_use]
pub fn find_by_name(place: &Place, name: &str) -> Option<Container> {
    let target = fs::read_link(place.data.join("names").join(name)).ok()?;
    Container::read(place.data.join("containers").join(target.file_name()?))
}

/// The directory that a name or the beginning of exactly one id stands for, whether or not it has a record.
pub(crate) fn directory_of(place: &Place, word: &str) -> Result<PathBuf, Failure> {
    if word.is_empty() || word.contains('/') || word.starts_with('.') {
        return Err(none(word));
    }
    let base = place.data.join("containers");
    // The target of the link is never followed as such: only its last part, an id, counts.
    let target = fs::read_link(place.data.join("names").join(word)).ok();
    if let Some(id) = target.as_deref().and_then(Path::file_name) {
        let directory = base.join(id);
        return if directory.exists() { Ok(directory) } else { Err(none(word)) };
    }
    let ids = fs::read_dir(&base).into_iter().flatten().flatten();
    let mut fitting = ids.filter_map(|e| e.file_name().into_string().ok()).filter(|id| id.starts_with(word));
    match (fitting.next(), fitting.next()) {
        (Some(id), None) => Ok(base.join(id)),
        (Some(_), Some(_)) => {
            let failure = about(word).why("more than one container's id begins so").hint("write more of the id");
            Err(Failure { step: "choose-container".to_owned(), ..failure })
        }
        (None, _) => Err(none(word)),
    }
}

const FIND: &str = "find-container";

/// Whether this is [`find`]'s failure.
#[must_use]
pub fn is_missing(failure: &Failure) -> bool {
    failure.step == FIND
}

fn about(word: &str) -> Failure {
    Failure::new(Stage::Cli, Kind::Usage, FIND, "find the container", word)
}

fn none(word: &str) -> Failure {
    about(word).why("no such container").hint("rlrun ps -a shows the containers that are there")
}

#[cfg(test)]
mod tests;
