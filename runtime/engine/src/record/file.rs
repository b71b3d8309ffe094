//! `record` in a container's directory, written when it is created: two lines of JSON. The first, [`Summary`], is what
//! lists and look-ups need and stays small; the second, [`Details`], is everything that was asked for and decided.
//! Whoever lists a thousand containers reads only the first. What changes while a container lives is not here but in
//! `state` ([`rlrun_spec::State`]).
//!
//! A field that is added later must have a default, because records outlive versions.

use crate::request::{RunRequest, StorageDriver};
use rlrun_spec::container::{NetworkMode, PortMapping};
use rlrun_spec::policy::Answer;
use rlrun_spec::{ImageIdentity, Life, SpecParts};
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// The file's name.
pub const RECORD: &str = "record";

/// The first line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// 64 hex digits.
    pub id: String,
    /// Name; `rename` changes it.
    pub name: String,
    /// Nanoseconds since the epoch.
    pub created: u64,
    /// The image.
    pub image: Option<ImageIdentity>,
    /// The bundle that it was made of instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle: Option<PathBuf>,
    /// What pid 1 executes.
    pub command: Vec<String>,
    /// The image's labels and the user's.
    pub labels: Vec<(String, String)>,
    /// Published ports, host ports chosen.
    pub ports: Vec<PortMapping>,
    /// Network.
    pub network: NetworkMode,
    /// What the user mounted.
    pub mounts: Vec<Mounted>,
    /// Has a terminal.
    pub tty: bool,
    /// Standard input stays open.
    pub interactive: bool,
    /// `--rm`.
    pub remove: bool,
    /// How the root file system is made.
    pub storage_driver: StorageDriver,
    /// Log, restart policy, stop signal.
    pub life: Life,
}

/// One of the user's mounts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mounted {
    /// `bind`, `overlay`, `volume`, `image`, `tmpfs` and other file systems of the kernel's.
    pub kind: String,
    /// Host path, name of a volume or reference of an image; empty for a new file system.
    pub source: String,
    /// Path inside.
    pub destination: String,
    /// Read-only.
    pub read_only: bool,
    /// The id of an image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
}

/// The second line.
#[derive(Debug, Serialize, Deserialize)]
pub struct Details {
    /// What the user asked for. Every start decides anew from here, so that it meets the policies of its day.
    pub request: RunRequest,
    /// The configuration as it was admitted.
    pub spec: SpecParts,
    /// What the policies said.
    pub verdicts: Vec<Answer>,
}

impl Summary {
    /// Reads the first line of a container's record.
    ///
    /// # Errors
    /// `NotFound` when it has none (it is being made or removed), `InvalidData` when it is not one.
    pub fn read(directory: &Path) -> io::Result<Summary> {
        let file = File::open(directory.join(RECORD))?;
        let mut line = Vec::with_capacity(2048);
        BufReader::with_capacity(4096, file).read_until(b'\n', &mut line)?;
        Ok(serde_json::from_slice(&line)?)
    }
}

impl Details {
    /// Reads the second line of a container's record.
    ///
    /// # Errors
    /// As [`Summary::read`].
    pub fn read(directory: &Path) -> io::Result<Details> {
        let text = fs::read(directory.join(RECORD))?;
        let line = text.split(|b| *b == b'\n').nth(1).ok_or(ErrorKind::InvalidData)?;
        Ok(serde_json::from_slice(line)?)
    }
}

/// The text of a record. `details` is anything that reads back as [`Details`].
///
/// # Errors
/// When it cannot be serialised.
pub fn render(summary: &Summary, details: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut text = serde_json::to_vec(summary)?;
    text.push(b'\n');
    serde_json::to_writer(&mut text, details)?;
    text.push(b'\n');
    Ok(text)
}

/// Puts another first line over the details as they are, whole or not at all.
///
/// # Errors
/// When the disk is full.
pub fn replace_summary(directory: &Path, summary: &Summary) -> io::Result<()> {
    let old = fs::read(directory.join(RECORD))?;
    let end = old.iter().position(|b| *b == b'\n').ok_or(ErrorKind::InvalidData)?;
    let mut text = serde_json::to_vec(summary)?;
    text.extend_from_slice(&old[end..]);
    write_aside(directory, RECORD, &text)
}

/// Writes a file under another name and renames it, so that a reader sees the old one or the new one.
pub(crate) fn write_aside(directory: &Path, name: &str, contents: &[u8]) -> io::Result<()> {
    let temporary = directory.join(format!("{name}.new"));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(contents)?;
    fs::rename(&temporary, directory.join(name))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use rlrun_spec::life::{Log, Restart};

    /// A container of that id and name.
    pub(crate) fn summary(id: &str, name: &str, image: Option<&str>) -> Summary {
        let identity = |id: &str| ImageIdentity {
            reference: "docker.io/library/x:latest".to_owned(),
            digest: "sha256:d".to_owned(),
            id: id.to_owned(),
            platform: "linux/amd64".to_owned(),
        };
        Summary {
            id: id.to_owned(),
            name: name.to_owned(),
            created: 1,
            image: image.map(identity),
            bundle: None,
            command: vec!["sh".to_owned()],
            labels: vec![("a".to_owned(), "b".to_owned())],
            ports: Vec::new(),
            network: NetworkMode::None,
            mounts: Vec::new(),
            tty: false,
            interactive: false,
            remove: false,
            storage_driver: StorageDriver::Overlay,
            life: Life {
                detached: true,
                accompanied: false,
                hold: rlrun_spec::life::Hold::No,
                log: Log::None,
                restart: Restart::No,
                stop_signal: 15,
                stop_seconds: 10,
                timeout_seconds: None,
                health: None,
            },
        }
    }

    #[test]
    fn the_first_line_can_be_replaced_and_the_second_stays() {
        let dir = tempfile::tempdir().unwrap();
        let first = summary("aa", "web", None);
        write_aside(dir.path(), RECORD, &render(&first, &"details").unwrap()).unwrap();
        assert_eq!(Summary::read(dir.path()).unwrap(), first);
        let second = Summary { name: "other".to_owned(), ..first };
        replace_summary(dir.path(), &second).unwrap();
        assert_eq!(Summary::read(dir.path()).unwrap(), second);
        let text = fs::read_to_string(dir.path().join(RECORD)).unwrap();
        assert_eq!(text.lines().nth(1), Some("\"details\""));
        assert!(!dir.path().join("record.new").exists());
    }
}
