//! What the supervisor says of its container: the file `state`, whole at every moment.

use crate::journal::append_event;
use crate::run::failure;
use rlrun_spec::health::Status;
use rlrun_spec::plan::Launch;
use rlrun_spec::state::STATE;
use rlrun_spec::{Failure, State};
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The file and what it says.
pub(crate) struct Book {
    path: PathBuf,
    journal: PathBuf,
    id: String,
    name: String,
    /// The link that claims the name.
    pub(crate) name_link: PathBuf,
    /// What it says, once written.
    pub(crate) state: State,
    /// `--rm`: a payload that is short is removed, book and all, while its start is being written.
    leaves_nothing: bool,
}

impl Book {
    /// The book of a container that has not been started by this supervisor.
    pub(crate) fn new(launch: &Launch) -> Book {
        let facts = &launch.facts;
        Book {
            path: facts.container_dir.join(STATE),
            journal: facts.journal.clone(),
            id: launch.id.clone(),
            name: launch.name.clone(),
            name_link: facts.name_link.clone(),
            state: State::default(),
            leaves_nothing: facts.remove,
        }
    }

    /// The container has another name.
    pub(crate) fn rename(&mut self, name: &str) {
        self.name_link = self.name_link.parent().unwrap_or(Path::new("/")).join(name);
        name.clone_into(&mut self.name);
    }

    /// It waits as `pid` for the word to start.
    pub(crate) fn held(&mut self, pid: i32) -> Result<(), Failure> {
        let supervisor = i32::try_from(std::process::id()).unwrap_or_default();
        self.state = State { supervisor, pid, ..State::default() };
        self.write()
    }

    /// The payload runs as `pid` from now on.
    pub(crate) fn started(&mut self, pid: i32) -> Result<(), Failure> {
        let supervisor = i32::try_from(std::process::id()).unwrap_or_default();
        let restarts = self.state.restarts;
        self.state = State { supervisor, pid, started: now(), restarts, ..State::default() };
        self.write()
    }

    /// It has ended. A container that is removed now needs no last word.
    pub(crate) fn ended(&mut self, code: u8, error: String) -> Result<(), Failure> {
        if self.state.started == 0 {
            self.state.started = now();
        }
        // What rlrun had to do while it ran is why it ended, if nothing else is.
        let error = if error.is_empty() { std::mem::take(&mut self.state.error) } else { error };
        let state = self.state.clone();
        self.state =
            State { pid: 0, finished: now(), exit_code: code, paused: false, restarting: false, error, ..state };
        self.write()
    }

    /// It has ended, and is started again in a moment.
    pub(crate) fn restarts(&mut self, code: u8, error: String) -> Result<(), Failure> {
        self.ended(code, error)?;
        self.state.restarts = self.state.restarts.saturating_add(1);
        self.state.restarting = true;
        self.write()
    }

    /// The user wants it to end.
    pub(crate) fn stopped(&mut self) -> Result<(), Failure> {
        self.state.stopped = true;
        self.write()
    }

    /// Writes it aside and renames it, so that a reader sees the old text or the new one. A payload that has filled the
    /// disk must not take its own end with it: the old text has room, and is written over.
    pub(crate) fn write(&self) -> Result<(), Failure> {
        let full = |e: &std::io::Error| matches!(e.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded);
        let gone = |e: &std::io::Error| self.leaves_nothing && e.kind() == ErrorKind::NotFound;
        let text = self.state.render();
        let written = self.write_aside(&text).or_else(|e| if full(&e) { self.write_over(&text) } else { Err(e) });
        written.or_else(|e| if gone(&e) { Ok(()) } else { Err(e) }).map_err(|e| {
            let failure = failure("state", "write", &self.path.display().to_string());
            match e.raw_os_error() {
                Some(errno) => failure.errno(errno),
                None => failure.why(e.to_string()),
            }
        })
    }

    fn write_aside(&self, text: &str) -> std::io::Result<()> {
        let temporary = self.path.with_extension("new");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(text.as_bytes()).inspect_err(|_| {
            if fs::remove_file(&temporary).is_err() {
                // The next text is written over it.
            }
        })?;
        fs::rename(&temporary, &self.path)
    }

    /// In one write(2), with empty lines up to the length of the old text: never shorter in between.
    fn write_over(&self, text: &str) -> std::io::Result<()> {
        let file = OpenOptions::new().write(true).open(&self.path)?;
        let length = usize::try_from(file.metadata()?.len()).unwrap_or_default();
        let mut text = text.as_bytes().to_vec();
        text.resize(length.max(text.len()), b'\n');
        file.write_all_at(&text, 0)
    }

    /// What its health checks say.
    pub(crate) fn health(&mut self, status: Status) -> Result<(), Failure> {
        self.state.health = status;
        self.write()
    }

    /// Tells that it has changed.
    pub(crate) fn tell_health(&self, status: Status) {
        let attributes = format!("\"health_status\":\"{}\"", status.word());
        append_event(&self.journal, (&self.id, &self.name), "health_status", &attributes);
    }

    /// An event of the container.
    pub(crate) fn tell(&self, action: &str) {
        append_event(&self.journal, (&self.id, &self.name), action, "");
    }

    /// It has ended, and has used what the book says.
    pub(crate) fn tell_end(&self, code: u8) {
        let mut attributes = format!("\"exitCode\":{code}");
        for (name, number) in self.state.spent.named() {
            attributes.push_str(&format!(",\"{name}\":{number}"));
        }
        append_event(&self.journal, (&self.id, &self.name), "died", &attributes);
    }
}

/// Nanoseconds since the epoch.
pub(crate) fn now() -> u64 {
    u64::try_from(SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Book {
        fn in_test() -> Book {
            Book {
                path: PathBuf::new(),
                journal: PathBuf::new(),
                id: String::new(),
                name: String::new(),
                name_link: PathBuf::new(),
                state: State::default(),
                leaves_nothing: false,
            }
        }
    }

    #[test]
    fn a_text_that_is_written_over_a_longer_one_reads_as_itself() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let state = State { error: "a long story".repeat(9), started: 4, ..State::default() };
        Book { path: path.clone(), state, ..Book::in_test() }.write().unwrap();
        let state = State { exit_code: 3, ..State::default() };
        let book = Book { path: path.clone(), state: state.clone(), ..Book::in_test() };
        book.write_over(&state.render()).unwrap();
        assert_eq!(State::parse(&fs::read_to_string(path).unwrap()), state);
    }

    #[test]
    fn only_a_container_that_leaves_nothing_may_be_gone_before_its_start_is_noted() {
        let dir = tempfile::tempdir().unwrap();
        let book = |leaves_nothing| Book { path: dir.path().join("gone/state"), leaves_nothing, ..Book::in_test() };
        book(true).write().unwrap();
        book(false).write().unwrap_err();
    }
}
