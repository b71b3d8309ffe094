//! The container's output on disk, as CRI and podman's `k8s-file` have it: `TIME STREAM F|P TEXT`, `F` for a whole
//! line, `P` for the beginning of one whose end had not come yet. A file that is full becomes `PATH.1`, that one
//! `PATH.2`, and so on; the last one goes.

use rlrun_spec::life::Log as Wanted;
use rlrun_spec::{Failure, Kind, Stage};
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

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
pub(crate) struct Log {
    file: File,
    path: PathBuf,
    size: u64,
    max_size: u64,
    max_file: u32,
    lost: u64,
}

impl Log {
    /// Opens the log that is wanted; what a former start wrote stays.
    pub(crate) fn open(wanted: &Wanted) -> Result<Option<Log>, Failure> {
        let Wanted::File { path, max_size, max_file } = wanted else { return Ok(None) };
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
        Ok(Some(Log { file, path: path.clone(), size, max_size: *max_size, max_file: *max_file, lost: 0 }))
    }

    /// Keeps what the payload wrote. A disk that is full must not stop the payload: what does not fit is counted, and
    /// the count is written when there is room again.
    pub(crate) fn write(&mut self, stream: Stream, bytes: &[u8]) {
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

/// RFC 3339 in UTC with nanoseconds, as podman writes it.
pub(crate) fn timestamp(since_epoch: Duration) -> String {
    let (seconds, nanos) = (since_epoch.as_secs(), since_epoch.subsec_nanos());
    let (year, month, day) = date(seconds / 86_400);
    let clock = seconds % 86_400;
    let mut text = String::with_capacity(40);
    let (hour, minute, second) = (clock / 3600, clock / 60 % 60, clock % 60);
    // Writing to a String cannot fail.
    if write!(text, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanos:09}+00:00").is_err() {
        text.clear();
    }
    text
}

/// Year, month and day of a day since the epoch, in the Gregorian calendar. Years begin in March, so that the leap day
/// is a year's last.
fn date(days: u64) -> (u64, u64, u64) {
    // 1970-01-01 is day 719468 since 0000-03-01; 146097 days are 400 years.
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day)
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

        fn log(&self, max_size: u64, max_file: u32) -> Log {
            Log::open(&Wanted::File { path: self.0.join("ctr.log"), max_size, max_file }).unwrap().unwrap()
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

    #[test]
    fn days_have_their_dates() {
        for (days, want) in [
            (0, (1970, 1, 1)),
            (59, (1970, 3, 1)),
            (11_016, (2000, 2, 29)),
            (19_782, (2024, 2, 29)),
            (20_088, (2024, 12, 31)),
            (47_540, (2100, 2, 28)),
            (47_541, (2100, 3, 1)),
        ] {
            assert_eq!(date(days), want, "{days}");
        }
        assert_eq!(timestamp(Duration::new(1_709_209_815, 5)), "2024-02-29T12:30:15.000000005+00:00");
    }
}
