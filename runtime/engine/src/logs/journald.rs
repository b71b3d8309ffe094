//! What journald has of a container, read by its own journalctl(1): the format of its files is its own.

use super::{Entry, wait_for, watch};
use crate::containers::Container;
use rlrun_spec::time::timestamp;
use rlrun_spec::{Failure, Kind, Stage};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use serde_json::Value;
use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Reads it by the container's id.
#[derive(Debug)]
pub struct Journald {
    name: String,
    id: String,
    /// The last entry that was read.
    cursor: Option<String>,
    /// Tells when there are more.
    follower: Option<Child>,
    /// Tells when the container's state changes.
    watch: OwnedFd,
    directory: PathBuf,
}

impl Journald {
    pub(super) fn open(container: &Container) -> Result<Journald, Failure> {
        let (name, id) = (container.summary.name.clone(), container.summary.id.clone());
        Ok(Journald {
            name,
            id,
            cursor: None,
            follower: None,
            watch: watch(&[&container.directory])?,
            directory: container.directory.clone(),
        })
    }

    fn failed(&self, why: &str) -> Failure {
        Failure::new(Stage::Cli, Kind::Runtime, "logs", "read from journald the log of", self.name.as_str()).why(why)
    }

    /// Entries of this container that this user's processes wrote: anybody may write the container's id, nobody
    /// another user's.
    fn journalctl(&self, options: &[&str]) -> Command {
        let mut command = Command::new("journalctl");
        command.args(["--no-pager", "--all", "--output=json"]).args(options);
        command.args(self.cursor.iter().map(|cursor| format!("--after-cursor={cursor}")));
        command.arg(format!("CONTAINER_ID_FULL={}", self.id));
        command.arg(format!("_UID={}", rustix::process::geteuid().as_raw()));
        command.stdin(Stdio::null());
        command
    }

    fn not_run(&self, e: &std::io::Error) -> Failure {
        match e.kind() {
            ErrorKind::NotFound => {
                self.failed("journalctl is not installed").hint("it comes with systemd: apt-get install systemd")
            }
            _ => self.failed(&format!("journalctl: {e}")),
        }
    }

    pub(super) fn read(&mut self) -> Result<Vec<Entry>, Failure> {
        let output = self.journalctl(&[]).output().map_err(|e| self.not_run(&e))?;
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        if !output.status.success() {
            return Err(self.failed(&format!("journalctl: {said}")));
        }
        let documents = output.stdout.split(|b| *b == b'\n').filter_map(|line| serde_json::from_slice(line).ok());
        let documents: Vec<Value> = documents.collect();
        if documents.is_empty() && self.cursor.is_none() && !said.is_empty() {
            // That nothing may be read, for instance.
            crate::warn(&said);
        }
        if let Some(cursor) = documents.iter().rev().find_map(|document| document["__CURSOR"].as_str()) {
            self.cursor = Some(cursor.to_owned());
        }
        Ok(documents.iter().map(entry).collect())
    }

    pub(super) fn wait(&mut self) -> Result<(), Failure> {
        if self.follower.is_none() {
            let follower =
                self.journalctl(&["--follow", "--no-tail"]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
            let follower = self.follower.insert(follower.map_err(|e| self.not_run(&e))?);
            if let Some(stdout) = &follower.stdout {
                let flags = fcntl_getfl(stdout).unwrap_or(OFlags::empty());
                fcntl_setfl(stdout, flags | OFlags::NONBLOCK).map_err(|e| self.failed(&e.to_string()))?;
            }
        }
        let Some(stdout) = self.follower.as_ref().and_then(|follower| follower.stdout.as_ref()) else {
            return Err(self.failed("journalctl has no output"));
        };
        let [said, changed] =
            wait_for(&self.directory, [stdout.as_fd(), self.watch.as_fd()]).map_err(|e| self.failed(&e.to_string()))?;
        let mut buffer = [0; 4096];
        if changed {
            rustix::io::read(&self.watch, &mut buffer[..]).map_err(|e| self.failed(&e.to_string()))?;
        }
        // That there is more is all that it tells; it is read by the cursor.
        while let (true, Ok(count)) = (said, rustix::io::read(stdout, &mut buffer[..])) {
            if count == 0 {
                return Err(self.failed("journalctl has ended"));
            }
        }
        Ok(())
    }
}

impl Drop for Journald {
    fn drop(&mut self) {
        let Some(follower) = &mut self.follower else { return };
        if follower.kill().and_then(|()| follower.wait()).is_err() {
            // It has ended by itself.
        }
    }
}

fn entry(document: &Value) -> Entry {
    let text = |key: &str| document[key].as_str().unwrap_or_default();
    let micros = text("__REALTIME_TIMESTAMP").parse().unwrap_or_default();
    // Bytes that are no text are a list of numbers.
    let message = match &document["MESSAGE"] {
        Value::String(text) => text.clone().into_bytes(),
        Value::Array(bytes) => bytes.iter().filter_map(|b| u8::try_from(b.as_u64()?).ok()).collect(),
        _ => Vec::new(),
    };
    Entry {
        time: timestamp(Duration::from_micros(micros)),
        to_stderr: text("PRIORITY") == "3",
        text: message,
        whole: text("CONTAINER_PARTIAL_MESSAGE") != "true",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn entries_are_text_or_bytes() {
        let document = json!({"MESSAGE": "a", "PRIORITY": "3", "__REALTIME_TIMESTAMP": "1709209815000005"});
        let time = "2024-02-29T12:30:15.000005000+00:00".to_owned();
        assert_eq!(entry(&document), Entry { time, to_stderr: true, text: b"a".into(), whole: true });
        let bytes = entry(&json!({"MESSAGE": [97, 255], "PRIORITY": "6", "CONTAINER_PARTIAL_MESSAGE": "true"}));
        assert_eq!((&bytes.text[..], bytes.whole, bytes.to_stderr), (&b"a\xff"[..], false, false));
        assert!(entry(&json!({"MESSAGE": null})).text.is_empty());
    }
}
