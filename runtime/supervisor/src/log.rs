//! Where the container's output is kept: in a file, or with journald.
//!
//! The file is as CRI and podman's `k8s-file` have it: `TIME STREAM F|P TEXT`, `F` for a whole
//! line, `P` for the beginning of one whose end had not come yet. A file that is full becomes `PATH.1`, that one
//! `PATH.2`, and so on; the last one goes.

use crate::journald::Journald;
use rlrun_spec::life::Log as Wanted;
use rlrun_spec::plan::Launch;
use rlrun_spec::time::timestamp;
use rlrun_spec::{Failure, Kind, Stage};
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Which of the payload's streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    fn word(self) -> &'static str {
        match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        }
    }
}

/// The open log.
pub(crate) enum Log {
    File(LogFile),
    Journald(Journald),
}

impl Log {
    /// Opens the log that is wanted.
    pub(crate) fn open(launch: &Launch) -> Result<Option<Log>, Failure> {
        match &launch.facts.life.log {
            Wanted::None => Ok(None),
            Wanted::File { path, max_size, max_file } => {
                LogFile::open(path, *max_size, *max_file).map(|file| Some(Log::File(file)))
            }
            Wanted::Journald { tag } => Journald::open(launch, tag.as_deref()).map(|log| Some(Log::Journald(log))),
        }
    }

    /// Keeps what the payload wrote; a log that takes nothing must not stop it.
    pub(crate) fn write(&mut self, stream: Stream, bytes: &[u8]) {
        match self {
            Log::File(file) => file.write(stream, bytes),
            Log::Journald(log) => log.write(stream, bytes),
        }
    }
}

/// A log on disk.
pub(crate) struct LogFile {
    file: File,
    path: PathBuf,
    size: u64,
    max_size: u64,
    max_file: u32,
    lost: u64,
}

impl LogFile {
    /// Opens it; what a former start wrote stays.
    fn open(path: &Path, max_size: u64, max_file: u32) -> Result<LogFile, Failure> {
        let failure = |e: &std::io::Error| {
            let failure =
                Failure::new(Stage::Supervisor, Kind::Usage, "log", "open the log", path.display().to_string());
            match e.raw_os_error() {
                Some(errno) => failure.errno(errno).hint("--log-opt path=FILE names another place"),
                None => failure.why(e.to_string()),
            }
        };
        let file = append(path).map_err(|e| failure(&e))?;
        let size = file.metadata().map_err(|e| failure(&e))?.len();
        Ok(LogFile { file, path: path.to_owned(), size, max_size, max_file, lost: 0 })
    }

    /// Keeps what the payload wrote. A disk that is full must not stop the payload: what does not fit is counted, and
    /// the count is written when there is room again.
    fn write(&mut self, stream: Stream, bytes: &[u8]) {
        let now = timestamp(SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default());
        let mut text = Vec::with_capacity(bytes.len() + 64);
        if self.lost > 0 {
            let note = format!(
                "{now} stderr F rlrun: {} bytes of output were lost: the log could not be written\n",
                self.lost
            );
            text.extend_from_slice(note.as_bytes());
        }
        for line in bytes.split_inclusive(|b| *b == b'\n') {
            let (mark, line) = match line.strip_suffix(b"\n") {
                Some(line) => ("F", line),
                None => ("P", line),
            };
            for part in [now.as_bytes(), b" ", stream.word().as_bytes(), b" ", mark.as_bytes(), b" ", line, b"\n"] {
                text.extend_from_slice(part);
            }
        }
        if self.size > 0 && self.size + text.len() as u64 > self.max_size {
            self.rotate();
        }
        match self.file.write_all(&text) {
            Ok(()) => {
                self.size += text.len() as u64;
                self.lost = 0;
            }
            Err(_) => self.lost += bytes.len() as u64,
        }
    }

    /// Moves every file one further. What cannot be moved is written on to: too long a log is better than none.
    fn rotate(&mut self) {
        let numbered = |n: u32| match n {
            0 => self.path.clone(),
            n => PathBuf::from(format!("{}.{n}", self.path.display())),
        };
        let moved = match self.max_file {
            0 | 1 => fs::remove_file(&self.path),
            count => (0..count - 1).rev().try_for_each(|n| match fs::rename(numbered(n), numbered(n + 1)) {
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
                other => other,
            }),
        };
        if moved.is_ok()
            && let Ok(file) = append(&self.path)
        {
            self.file = file;
            self.size = 0;
        }
    }
}

fn append(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory of its own that goes with the value.
    struct Dir(PathBuf);

    impl Dir {
        fn new(name: &str) -> Dir {
            let path = std::env::temp_dir().join(format!("rlrun-log-{name}-{}", std::process::id()));
            fs::create_dir(&path).unwrap();
            Dir(path)
        }

        fn log(&self, max_size: u64, max_file: u32) -> LogFile {
            LogFile::open(&self.0.join("ctr.log"), max_size, max_file).unwrap()
        }

        fn text(&self, name: &str) -> Option<String> {
            fs::read_to_string(self.0.join(name)).ok()
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    fn without_times(text: &str) -> Vec<&str> {
        text.lines().map(|l| l.split_once(' ').unwrap().1).collect()
    }

    #[test]
    fn lines_and_beginnings_of_lines_are_told_apart() {
        let dir = Dir::new("lines");
        let mut log = dir.log(1 << 20, 1);
        log.write(Stream::Stdout, b"one\ntwo");
        log.write(Stream::Stderr, b"\n");
        log.write(Stream::Stdout, b" more\n\xff\n");
        let bytes = fs::read(dir.0.join("ctr.log")).unwrap();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let want = ["stdout F one", "stdout P two", "stderr F ", "stdout F  more", "stdout F \u{fffd}"];
        assert_eq!(without_times(&text), want);
        let time = text.split(' ').next().unwrap();
        assert!(time.len() == 35 && time.ends_with("+00:00") && time.as_bytes()[10] == b'T', "{time}");
    }

    #[test]
    fn a_full_file_moves_on_and_the_last_one_goes() {
        let dir = Dir::new("rotate");
        let mut log = dir.log(4096, 3);
        for n in 0..8 {
            log.write(Stream::Stdout, format!("{n}{}\n", "x".repeat(3000)).as_bytes());
        }
        let first = |name: &str| dir.text(name).map(|t| without_times(&t)[0]["stdout F ".len()..][..1].to_owned());
        assert_eq!(
            ["ctr.log", "ctr.log.1", "ctr.log.2", "ctr.log.3"].map(first).map(|f| f.unwrap_or_default()),
            ["7", "6", "5", ""]
        );
    }

    #[test]
    fn one_file_starts_anew_and_an_old_one_is_continued() {
        let dir = Dir::new("single");
        dir.log(4096, 1).write(Stream::Stdout, b"old\n");
        let mut log = dir.log(4096, 1);
        log.write(Stream::Stdout, b"new\n");
        assert_eq!(without_times(&dir.text("ctr.log").unwrap()), ["stdout F old", "stdout F new"]);
        log.write(Stream::Stdout, &[b'x'; 5000]);
        assert!(dir.text("ctr.log").unwrap().contains("stdout P xxx"));
        assert!(!dir.text("ctr.log").unwrap().contains("old") && dir.text("ctr.log.1").is_none());
    }
}
