//! A second place for what is audited, which only the administrator can name: `/etc/rlrun/audit.toml` with
//! `sink = "/path"`, a file that is there and can be appended to, or a datagram socket such as `/dev/log`.

use rlrun_spec::{Failure, Kind, Stage};
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

const SETTINGS: &str = "/etc/rlrun/audit.toml";
/// Facility authpriv, severity notice (RFC 5424, 6.2.1), for those who listen at a socket.
const PRIORITY: &str = "<85>rlrun: ";

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    sink: PathBuf,
}

/// Sends a line to the sink, if there is one.
pub(super) fn send(line: &str) -> Result<(), Failure> {
    let text = match fs::read_to_string(SETTINGS) {
        Ok(text) => text,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(failure("read", Path::new(SETTINGS), &e.to_string())),
    };
    let settings: Settings = toml::from_str(&text).map_err(|e| failure("read", Path::new(SETTINGS), e.message()))?;
    to(&settings.sink, line).map_err(|e| failure("write to", &settings.sink, &e.to_string()))
}

fn to(sink: &Path, line: &str) -> std::io::Result<()> {
    if fs::metadata(sink)?.file_type().is_socket() {
        return UnixDatagram::unbound()?.send_to(format!("{PRIORITY}{line}").as_bytes(), sink).map(drop);
    }
    let no_wait = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    OpenOptions::new().append(true).custom_flags(no_wait).open(sink)?.write_all(format!("{line}\n").as_bytes())
}

fn failure(operation: &str, object: &Path, why: &str) -> Failure {
    Failure::new(Stage::Cli, Kind::Host, "audit-sink", operation, object.display().to_string())
        .why(why)
        .hint(format!("the administrator of this machine set it in {SETTINGS}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_goes_to_a_file_or_a_socket_that_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        assert!(to(&file, "x").is_err(), "a sink is not made");
        drop(OpenOptions::new().create_new(true).write(true).open(&file).unwrap());
        to(&file, "one").unwrap();
        to(&file, "two").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "one\ntwo\n");
        let socket = dir.path().join("socket");
        let listener = UnixDatagram::bind(&socket).unwrap();
        to(&socket, "three").unwrap();
        let mut text = [0; 64];
        let length = listener.recv(&mut text).unwrap();
        assert_eq!(&text[..length], b"<85>rlrun: three");
    }
}
