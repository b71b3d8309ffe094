//! Two calls of the systemd user manager (org.freedesktop.systemd1(5)), in as much of D-Bus as they need: no library, no
//! bus, because the manager's private socket speaks it from peer to peer, to its own user alone.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// For the whole answer; a manager that takes longer is stuck.
const PATIENCE: Duration = Duration::from_secs(10);
/// More than any message that concerns us; the D-Bus specification allows 128 MiB.
const LARGEST: usize = 1 << 20;
const CALL: u8 = 1;
const RETURN: u8 = 2;
const ERROR: u8 = 3;
const SIGNAL: u8 = 4;

/// Starts a scope with this process in it and its cgroups delegated; returns when it stands.
pub(super) fn start_scope(socket: &Path, scope: &str, description: &str) -> io::Result<()> {
    let mut manager = Manager::connect(socket)?;
    let mut body = Body::default();
    body.string(scope);
    body.string("fail");
    body.array(8, |properties| {
        let mut property = |name: &str, signature: &str, value: &dyn Fn(&mut Body)| {
            properties.align(8);
            properties.string(name);
            properties.signature(signature);
            value(properties);
        };
        property("Description", "s", &|b| b.string(description));
        property("PIDs", "au", &|b| b.array(4, |pids| pids.number(std::process::id())));
        property("Delegate", "b", &|b| b.number(1));
        property("CollectMode", "s", &|b| b.string("inactive-or-failed"));
    });
    body.array(8, |_| {});
    manager.call("StartTransientUnit", "ssa(sv)a(sa(sv))", &body)?;
    manager.job_of(scope)
}

/// Moves this process into a cgroup below a unit's.
pub(super) fn attach(socket: &Path, unit: &str, below: &str) -> io::Result<()> {
    let mut manager = Manager::connect(socket)?;
    let mut body = Body::default();
    body.string(unit);
    body.string(&format!("/{below}"));
    body.array(4, |pids| pids.number(std::process::id()));
    manager.call("AttachProcessesToUnit", "ssau", &body)
}

/// Bytes in the order and alignment of D-Bus, little endian.
#[derive(Default)]
struct Body(Vec<u8>);

impl Body {
    fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    fn number(&mut self, n: u32) {
        self.align(4);
        self.0.extend(n.to_le_bytes());
    }

    fn string(&mut self, text: &str) {
        self.number(u32::try_from(text.len()).unwrap_or(u32::MAX));
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }

    fn signature(&mut self, text: &str) {
        self.0.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }

    /// The length does not count the padding before the first element.
    fn array(&mut self, alignment: usize, fill: impl FnOnce(&mut Body)) {
        self.number(0);
        let length_at = self.0.len() - 4;
        self.align(alignment);
        let start = self.0.len();
        fill(self);
        let length = u32::try_from(self.0.len() - start).unwrap_or(u32::MAX);
        self.0[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
    }
}

/// The bytes of a call.
fn message(serial: u32, member: &str, signature: &str, body: &Body) -> Vec<u8> {
    let mut all = Body(vec![b'l', CALL, 0, 1]);
    all.number(u32::try_from(body.0.len()).unwrap_or(u32::MAX));
    all.number(serial);
    all.array(8, |fields| {
        let mut field = |code: u8, kind: &str, value: &str| {
            fields.align(8);
            fields.0.push(code);
            fields.signature(kind);
            if kind == "g" { fields.signature(value) } else { fields.string(value) }
        };
        field(1, "o", "/org/freedesktop/systemd1");
        field(2, "s", "org.freedesktop.systemd1.Manager");
        field(3, "s", member);
        field(6, "s", "org.freedesktop.systemd1");
        field(8, "g", signature);
    });
    all.align(8);
    all.0.extend(&body.0);
    all.0
}

/// What came, as far as it is of interest.
#[derive(Debug, Default, PartialEq, Eq)]
struct Received {
    kind: u8,
    reply_to: u32,
    member: String,
    error: String,
    /// The strings of the body, if it has any.
    strings: Vec<String>,
}

/// Reads what was marshalled; None at its end or when it is not what it should be.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(n)?)?;
        self.at += n;
        Some(taken)
    }

    fn number(&mut self) -> Option<u32> {
        self.align(4);
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    fn text(&mut self, length: usize) -> Option<String> {
        let text = self.take(length)?;
        self.take(1)?;
        Some(String::from_utf8_lossy(text).into_owned())
    }

    fn string(&mut self) -> Option<String> {
        let length = usize::try_from(self.number()?).ok()?;
        self.text(length)
    }

    fn signature(&mut self) -> Option<String> {
        let length = usize::from(*self.take(1)?.first()?);
        self.text(length)
    }
}

/// The header's array of fields, and the body by its signature as far as strings and numbers go.
fn parse(kind: u8, fields: &[u8], body: &[u8]) -> Option<Received> {
    let mut received = Received { kind, ..Received::default() };
    let mut signature = String::new();
    let mut cursor = Cursor { bytes: fields, at: 0 };
    while cursor.at < fields.len() {
        cursor.align(8);
        if cursor.at >= fields.len() {
            break;
        }
        let code = *cursor.take(1)?.first()?;
        match (code, cursor.signature()?.as_str()) {
            (3, "s") => received.member = cursor.string()?,
            (4, "s") => received.error = cursor.string()?,
            (5, "u") => received.reply_to = cursor.number()?,
            (8, "g") => signature = cursor.signature()?,
            (_, "s" | "o") => drop(cursor.string()?),
            (_, "g") => drop(cursor.signature()?),
            (_, "u") => drop(cursor.number()?),
            _ => return None,
        }
    }
    let mut cursor = Cursor { bytes: body, at: 0 };
    for kind in signature.bytes() {
        match kind {
            b's' | b'o' => received.strings.push(cursor.string()?),
            b'u' => drop(cursor.number()?),
            // What follows is of no interest in any message that is.
            _ => break,
        }
    }
    Some(received)
}

struct Manager(UnixStream);

impl Manager {
    fn connect(socket: &Path) -> io::Result<Manager> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        // The uid in decimal, in hexadecimal; the kernel tells the manager the true one (SO_PEERCRED).
        let uid = rustix::process::geteuid().as_raw().to_string();
        let hex: String = uid.bytes().map(|b| format!("{b:02x}")).collect();
        stream.write_all(format!("\0AUTH EXTERNAL {hex}\r\n").as_bytes())?;
        let mut line = Vec::new();
        // Nothing more comes before BEGIN.
        while !line.ends_with(b"\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            line.push(byte[0]);
            if line.len() > 512 {
                break;
            }
        }
        if !line.starts_with(b"OK") {
            let text = String::from_utf8_lossy(&line).trim().to_owned();
            return Err(io::Error::other(format!("it does not accept this user: {text}")));
        }
        stream.write_all(b"BEGIN\r\n")?;
        Ok(Manager(stream))
    }

    fn call(&mut self, member: &str, signature: &str, body: &Body) -> io::Result<()> {
        const SERIAL: u32 = 1;
        self.0.write_all(&message(SERIAL, member, signature, body))?;
        loop {
            let received = self.receive()?;
            match received.kind {
                RETURN if received.reply_to == SERIAL => return Ok(()),
                ERROR if received.reply_to == SERIAL => {
                    let why = received.strings.into_iter().next().unwrap_or(received.error);
                    return Err(io::Error::other(format!("{member}: {why}")));
                }
                _ => {}
            }
        }
    }

    /// Waits for the end of the job that starts `unit`. Peers of the private socket are told of every job.
    fn job_of(&mut self, unit: &str) -> io::Result<()> {
        loop {
            let received = self.receive()?;
            if received.kind != SIGNAL || received.member != "JobRemoved" {
                continue;
            }
            // The job's path, the unit, the result.
            match received.strings.as_slice() {
                [_, name, result] if name == unit && result == "done" => return Ok(()),
                [_, name, result] if name == unit => return Err(io::Error::other(format!("{unit}: {result}"))),
                _ => {}
            }
        }
    }

    fn receive(&mut self) -> io::Result<Received> {
        let invalid = || io::Error::new(io::ErrorKind::InvalidData, "the answer is not D-Bus");
        let mut head = [0; 16];
        self.0.read_exact(&mut head)?;
        let number = |at: usize| head.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes);
        let (Some(body), Some(fields)) = (number(4), number(12)) else { return Err(invalid()) };
        let (Ok(body), Ok(fields)) = (usize::try_from(body), usize::try_from(fields)) else { return Err(invalid()) };
        if head[0] != b'l' || body > LARGEST || fields > LARGEST {
            return Err(invalid());
        }
        let mut rest = vec![0; fields.next_multiple_of(8) + body];
        self.0.read_exact(&mut rest)?;
        let (fields_padded, body) = rest.split_at(fields.next_multiple_of(8));
        parse(head[1], &fields_padded[..fields], body).ok_or_else(invalid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn arrays_count_their_elements_and_not_the_padding_before() {
        let mut body = Body::default();
        body.array(8, |properties| {
            properties.align(8);
            properties.string("a");
        });
        // Length 6, padding to 8, then the string's length, its byte and its end.
        assert_eq!(body.0, [6, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, b'a', 0]);
    }

    #[test]
    fn our_own_call_is_read_back() {
        let mut body = Body::default();
        body.string("x.scope");
        let bytes = message(7, "StartTransientUnit", "s", &body);
        let fields = usize::try_from(u32::from_le_bytes(bytes[12..16].try_into().unwrap())).unwrap();
        let start = 16 + fields.next_multiple_of(8);
        let read = parse(bytes[1], &bytes[16..16 + fields], &bytes[start..]).unwrap();
        assert_eq!((read.kind, read.member.as_str()), (CALL, "StartTransientUnit"));
        assert_eq!(read.strings, ["x.scope"]);
        assert_eq!(bytes.len(), start + body.0.len());
    }

    #[test]
    fn a_manager_that_refuses_is_quoted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("private");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let manager = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut word = [0; 5];
            stream.read_exact(&mut word).unwrap();
            stream.write_all(b"REJECTED EXTERNAL\r\n").unwrap();
        });
        let error = start_scope(&path, "x.scope", "x").unwrap_err();
        assert!(error.to_string().contains("REJECTED"), "{error}");
        manager.join().unwrap();
    }

    proptest! {
        #[test]
        fn no_answer_breaks_the_reader(
            kind in any::<u8>(),
            fields in proptest::collection::vec(any::<u8>(), 0..200),
            body in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            if let Some(read) = parse(kind, &fields, &body) {
                prop_assert_eq!(read.kind, kind);
            }
        }
    }
}
