//! Reading the journal: its lines, new ones as they come, and its chain.

use super::path;
use crate::place::Place;
use crate::record::failed;
use rlrun_journal::{Broken, Verified};
use rlrun_spec::{Failure, Kind, Stage};
use rustix::fs::inotify;
use serde_json::Value;
use std::fs::File;
use std::io::{BufRead as _, BufReader, ErrorKind};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

/// The lines of a journal, in order. What is not JSON (half a line of a killed writer) is passed over.
#[derive(Debug)]
pub struct Lines {
    path: PathBuf,
    file: Option<BufReader<File>>,
    /// The beginning of a line whose end has not come yet.
    pending: Vec<u8>,
    watch: Option<OwnedFd>,
}

impl Lines {
    /// From the beginning. That there is no journal yet is no error.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn open(place: &Place) -> Result<Lines, Failure> {
        let mut lines = Lines { path: path(place), file: None, pending: Vec::new(), watch: None };
        lines.reopen()?;
        Ok(lines)
    }

    fn reopen(&mut self) -> Result<(), Failure> {
        match File::open(&self.path) {
            Ok(file) => self.file = Some(BufReader::with_capacity(1 << 16, file)),
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => return Err(failed("journal", "read", &self.path, &e)),
        }
        Ok(())
    }

    /// The next line that is there; None at the end.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn next_line(&mut self) -> Result<Option<Value>, Failure> {
        if self.file.is_none() {
            self.reopen()?;
        }
        let Some(file) = &mut self.file else { return Ok(None) };
        loop {
            let count =
                file.read_until(b'\n', &mut self.pending).map_err(|e| failed("journal", "read", &self.path, &e))?;
            if count == 0 || !self.pending.ends_with(b"\n") {
                return Ok(None);
            }
            let value = serde_json::from_slice(&self.pending).ok();
            self.pending.clear();
            if value.is_some() {
                return Ok(value);
            }
        }
    }

    /// Waits until something may have been appended.
    ///
    /// # Errors
    /// When the directory cannot be watched.
    pub fn wait(&mut self) -> Result<(), Failure> {
        let directory = self.path.parent().unwrap_or(&self.path).to_owned();
        let errno = |e: rustix::io::Errno| failed("journal", "watch", &directory, &e.into());
        let watch = match &self.watch {
            Some(watch) => watch,
            None => {
                let watch = inotify::init(inotify::CreateFlags::CLOEXEC).map_err(errno)?;
                let what = inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE;
                inotify::add_watch(&watch, &directory, what).map_err(errno)?;
                // What came between the last look and the watch is read before anything is waited for.
                self.watch = Some(watch);
                return Ok(());
            }
        };
        rustix::io::read(watch, &mut [0; 4096][..]).map(drop).map_err(errno)
    }
}

/// Follows the chain of the whole journal.
///
/// # Errors
/// When it is broken, or does not go through `expected`.
pub fn verify(place: &Place, expected: Option<&str>) -> Result<Verified, Failure> {
    let path = path(place);
    let object = path.display().to_string();
    let broken = |why: String| {
        Failure::new(Stage::Cli, Kind::Runtime, "audit-verify", "verify the audit log", object.clone())
            .why(why)
            .hint("something else than rlrun wrote to it: compare it with the second sink or an export")
    };
    let verified = match File::open(&path) {
        Ok(file) => rlrun_journal::verify(BufReader::new(file), expected),
        Err(e) if e.kind() == ErrorKind::NotFound => rlrun_journal::verify(&[][..], expected),
        Err(e) => return Err(failed("journal", "read", &path, &e)),
    };
    match verified {
        Ok(found) if !found.seen => Err(broken(format!(
            "the digest {} is none of its {} lines': its end was cut off, or it is another log",
            expected.unwrap_or_default(),
            found.lines
        ))),
        Ok(found) => Ok(found),
        Err(Broken::Line(line)) => Err(broken(format!("line {line} does not continue the line before it"))),
        Err(Broken::Io(e)) => Err(failed("journal", "read", &path, &e)),
    }
}
