//! The container's output with journald, in its own protocol: a datagram an entry, with the fields that podman's
//! driver gives (systemd.io/JOURNAL_NATIVE_PROTOCOL).

use crate::log::Stream;
use crate::run::failure;
use rlrun_spec::Failure;
use rlrun_spec::life::JOURNALD;
use rlrun_spec::plan::Launch;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

/// How long an entry may wait for journald to read the ones before it.
const PATIENCE: Duration = Duration::from_millis(200);

/// A way to journald.
pub(crate) struct Journald {
    socket: UnixDatagram,
    to: &'static Path,
    /// The fields that each entry has.
    fields: Vec<u8>,
    /// Entries that it did not take.
    lost: u64,
}

impl Journald {
    pub(crate) fn open(launch: &Launch, tag: Option<&str>) -> Result<Journald, Failure> {
        let failed = |e: std::io::Error| failure("log", "make a socket for", "journald").why(e.to_string());
        let socket = UnixDatagram::unbound().map_err(failed)?;
        socket.set_write_timeout(Some(PATIENCE)).map_err(failed)?;
        Ok(Journald { socket, to: Path::new(JOURNALD), fields: fields(&launch.id, &launch.name, tag), lost: 0 })
    }

    pub(crate) fn write(&mut self, stream: Stream, bytes: &[u8]) {
        if self.lost > 0 {
            let note = format!("rlrun: {} entries were lost: journald did not take them", self.lost);
            if self.send(Stream::Stderr, note.as_bytes(), true) {
                self.lost = 0;
                if self.socket.set_nonblocking(false).is_err() {
                    // It does not wait: more may be lost, and that is told.
                }
            }
        }
        for line in bytes.split_inclusive(|b| *b == b'\n') {
            let (line, whole) = line.strip_suffix(b"\n").map_or((line, false), |line| (line, true));
            if !self.send(stream, line, whole) {
                self.lost += 1;
                // One that stands still is waited for once: the container is looked after from the same loop.
                if self.socket.set_nonblocking(true).is_err() {
                    // It is waited for again.
                }
            }
        }
    }

    fn send(&self, stream: Stream, line: &[u8], whole: bool) -> bool {
        self.socket.send_to(&entry(&self.fields, stream, line, whole), self.to).is_ok()
    }
}

/// None of the words has a line break: names have none, and `tag=` is refused with one.
fn fields(id: &str, name: &str, tag: Option<&str>) -> Vec<u8> {
    let short: String = id.chars().take(12).collect();
    let mut text = format!("CONTAINER_ID={short}\nCONTAINER_ID_FULL={id}\nCONTAINER_NAME={name}\n");
    if let Some(tag) = tag {
        text += &format!("CONTAINER_TAG={tag}\n");
    }
    text += &format!("SYSLOG_IDENTIFIER={}\n", tag.unwrap_or(name));
    text.into_bytes()
}

fn entry(fields: &[u8], stream: Stream, line: &[u8], whole: bool) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(fields.len() + line.len() + 64);
    bytes.extend_from_slice(fields);
    // info and err, as podman has them (syslog(3)).
    let priority: &[u8] = if stream == Stream::Stderr { b"PRIORITY=3\n" } else { b"PRIORITY=6\n" };
    bytes.extend_from_slice(priority);
    if !whole {
        bytes.extend_from_slice(b"CONTAINER_PARTIAL_MESSAGE=true\n");
    }
    // With its length: whatever the payload writes is one value and no field of its own.
    bytes.extend_from_slice(b"MESSAGE\n");
    bytes.extend_from_slice(&(line.len() as u64).to_le_bytes());
    bytes.extend_from_slice(line);
    bytes.push(b'\n');
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_fields_and_a_message_of_any_bytes() {
        let fields = fields("0123456789abcdef", "web", Some("t"));
        let text = "CONTAINER_ID=0123456789ab\nCONTAINER_ID_FULL=0123456789abcdef\nCONTAINER_NAME=web\n\
                    CONTAINER_TAG=t\nSYSLOG_IDENTIFIER=t\n";
        assert_eq!(fields, text.as_bytes());
        let made = entry(&fields, Stream::Stderr, b"a\xffCONTAINER_NAME=b", false);
        let mut want = text.as_bytes().to_vec();
        want.extend_from_slice(b"PRIORITY=3\nCONTAINER_PARTIAL_MESSAGE=true\nMESSAGE\n\x12\0\0\0\0\0\0\0");
        want.extend_from_slice(b"a\xffCONTAINER_NAME=b\n");
        assert_eq!(made, want);
        assert!(!entry(&fields, Stream::Stdout, b"", true).windows(7).any(|w| w == b"PARTIAL"));
    }
}
