//! Reading what a container wrote: its log and the ones before it, and what is appended, also when the log is rotated
//! meanwhile; or what journald has of it. The supervisor writes it (`supervisor::log`).

mod journald;

use crate::containers::Container;
use crate::record::failed;
use rlrun_spec::life::Log;
use rlrun_spec::{Failure, Kind, Stage};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;
use rustix::io::{Errno, retry_on_intr};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::fs::File;
use std::io::{BufRead as _, BufReader, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// One line of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// When, RFC 3339.
    pub time: String,
    /// It was written to standard error.
    pub to_stderr: bool,
    /// What, without its line break.
    pub text: Vec<u8>,
    /// It had a line break.
    pub whole: bool,
}

impl Entry {
    /// `TIME STREAM F|P TEXT`; None for what is none.
    fn parse(line: &[u8]) -> Option<Entry> {
        let mut parts = line.splitn(4, |b| *b == b' ');
        let (time, stream, mark) = (parts.next()?, parts.next()?, parts.next()?);
        let time = String::from_utf8(time.to_vec()).ok()?;
        let text = parts.next().unwrap_or_default().to_vec();
        Some(Entry { time, to_stderr: stream == b"stderr", text, whole: mark == b"F" })
    }
}

/// A container's log, from its beginning.
#[derive(Debug)]
pub enum Reader {
    /// In files.
    Files(Files),
    /// With journald.
    Journald(journald::Journald),
}

impl Reader {
    /// Begins to read.
    ///
    /// # Errors
    /// When the container keeps no log.
    pub fn open(container: &Container) -> Result<Reader, Failure> {
        match &container.summary.life.log {
            Log::File { path, .. } => Files::open(container, path).map(Reader::Files),
            Log::Journald { .. } => journald::Journald::open(container).map(Reader::Journald),
            Log::None => {
                let name = container.summary.name.clone();
                Err(Failure::new(Stage::Cli, Kind::Usage, "logs", "read the log of", name)
                    .why("it keeps none (--log-driver none)")
                    .hint("start it with --log-driver k8s-file"))
            }
        }
    }

    /// All entries that there are by now and were not read yet.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn read(&mut self) -> Result<Vec<Entry>, Failure> {
        match self {
            Reader::Files(files) => files.read(),
            Reader::Journald(journald) => journald.read(),
        }
    }

    /// Waits until something may have been written, or the container may have ended.
    ///
    /// # Errors
    /// When nothing can be waited for.
    pub fn wait(&mut self) -> Result<(), Failure> {
        match self {
            Reader::Files(files) => files.wait(),
            Reader::Journald(journald) => journald.wait(),
        }
    }
}

/// Sees what changes in directories.
fn watch(directories: &[&Path]) -> Result<OwnedFd, Failure> {
    let errno = |e: rustix::io::Errno| failed("logs", "watch", directories[0], &e.into());
    let watch = inotify::init(inotify::CreateFlags::CLOEXEC).map_err(errno)?;
    let what = inotify::WatchFlags::MODIFY
        | inotify::WatchFlags::CREATE
        | inotify::WatchFlags::MOVED_TO
        | inotify::WatchFlags::DELETE
        | inotify::WatchFlags::DELETE_SELF;
    for directory in directories {
        inotify::add_watch(&watch, *directory, what).map_err(errno)?;
    }
    Ok(watch)
}

/// The end of whoever looks after the container, to wait for: one that is killed writes nothing any more that would be
/// seen. None when it is there no longer.
fn supervisor(directory: &Path) -> Option<OwnedFd> {
    let pid = Pid::from_raw(Container::read(directory.to_owned())?.state.supervisor)?;
    pidfd_open(pid, PidfdFlags::empty()).ok()
}

/// Which of the descriptors has something to tell, or that the container's supervisor has ended.
fn wait_for<const N: usize>(directory: &Path, fds: [BorrowedFd<'_>; N]) -> Result<[bool; N], Errno> {
    let supervisor = supervisor(directory);
    let all = fds.into_iter().chain(supervisor.as_ref().map(AsFd::as_fd));
    let mut all: Vec<PollFd<'_>> = all.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
    // Nobody looks after it yet, or any more: soon it will be known which.
    let soon = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
    retry_on_intr(|| poll(&mut all, supervisor.is_none().then_some(&soon)))?;
    Ok(std::array::from_fn(|at| all.get(at).is_some_and(|fd| !fd.revents().is_empty())))
}

/// A log in files.
#[derive(Debug)]
pub struct Files {
    path: PathBuf,
    /// The file that is being read.
    file: Option<BufReader<File>>,
    /// The beginning of a line whose end has not come yet.
    pending: Vec<u8>,
    watch: OwnedFd,
    directory: PathBuf,
}

impl Files {
    fn open(container: &Container, path: &Path) -> Result<Files, Failure> {
        let directories: Vec<&Path> =
            [Some(container.directory.as_path()), path.parent()].into_iter().flatten().collect();
        Ok(Files {
            path: path.to_owned(),
            file: None,
            pending: Vec::new(),
            watch: watch(&directories)?,
            directory: container.directory.clone(),
        })
    }

    fn read(&mut self) -> Result<Vec<Entry>, Failure> {
        let mut entries = Vec::new();
        if self.file.is_none() {
            for old in self.older() {
                self.file = self.open_file(&old)?;
                self.drain(&mut entries)?;
            }
            self.file = self.open_file(&self.path.clone())?;
        }
        self.drain(&mut entries)?;
        // Rotated meanwhile: the file was drained to its end, what follows is in the new one.
        let same = |a: &File, b: &File| {
            let inode = |f: &File| f.metadata().map(|m| (m.dev(), m.ino())).ok();
            inode(a) == inode(b)
        };
        if let Some(current) = self.open_file(&self.path.clone())?
            && self.file.as_ref().is_some_and(|file| !same(file.get_ref(), current.get_ref()))
        {
            self.drain(&mut entries)?;
            self.file = Some(current);
            self.drain(&mut entries)?;
        }
        Ok(entries)
    }

    /// The logs before this one, oldest first.
    fn older(&self) -> Vec<PathBuf> {
        let numbered = |n: u32| PathBuf::from(format!("{}.{n}", self.path.display()));
        let mut all: Vec<PathBuf> = (1..).map(numbered).take_while(|p| p.exists()).collect();
        all.reverse();
        all
    }

    fn open_file(&self, path: &PathBuf) -> Result<Option<BufReader<File>>, Failure> {
        match File::open(path) {
            Ok(file) => Ok(Some(BufReader::new(file))),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(failed("logs", "read", path, &e)),
        }
    }

    fn drain(&mut self, entries: &mut Vec<Entry>) -> Result<(), Failure> {
        let Some(file) = &mut self.file else { return Ok(()) };
        loop {
            let count =
                file.read_until(b'\n', &mut self.pending).map_err(|e| failed("logs", "read", &self.path, &e))?;
            if count == 0 || !self.pending.ends_with(b"\n") {
                return Ok(());
            }
            self.pending.pop();
            entries.extend(Entry::parse(&self.pending));
            self.pending.clear();
        }
    }

    fn wait(&mut self) -> Result<(), Failure> {
        let errno = |e: Errno| failed("logs", "watch", &self.path, &e.into());
        let [changed] = wait_for(&self.directory, [self.watch.as_fd()]).map_err(errno)?;
        if changed {
            rustix::io::read(&self.watch, &mut [0; 4096][..]).map_err(errno)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_taken_apart_and_others_passed_over() {
        let entry = Entry::parse(b"2024-01-01T00:00:00Z stderr P a b ").unwrap();
        assert_eq!((entry.to_stderr, entry.whole, &entry.text[..]), (true, false, &b"a b "[..]));
        assert!(Entry::parse(b"2024-01-01T00:00:00Z stdout F").unwrap().text.is_empty());
        assert_eq!(Entry::parse(b"nonsense"), None);
    }
}
