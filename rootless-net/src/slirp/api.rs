//! The API socket of slirp4netns: one JSON request and one answer a connection (slirp4netns(1), API SOCKET). Both are
//! small and fixed, so they are written and read by hand.

use crate::error::NetError;
use rlrun_spec::container::{PortMapping, Protocol};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// slirp4netns answers from its packet loop, at once; this only keeps a stuck one from stopping the start for ever.
const PATIENCE: Duration = Duration::from_secs(2);
/// Longer answers than this are not in the protocol.
const ANSWER_BYTES: u64 = 4096;

/// What slirp4netns answered to [`add_hostfwd`].
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Done, under this number.
    Added(u32),
    /// Refused; its `desc`, which never names an errno.
    Refused(String),
}

/// Publishes a port.
pub(super) fn add_hostfwd(socket: &Path, mapping: &PortMapping) -> Result<Answer, NetError> {
    let answer = exchange(socket, &add_request(mapping))?;
    read_added(&answer).or_else(|| read_refused(&answer)).ok_or(NetError::Protocol { peer: "slirp4netns", answer })
}

/// Takes a port back; it is free when this returns.
pub(super) fn remove_hostfwd(socket: &Path, id: u32) -> Result<(), NetError> {
    let answer = exchange(socket, &format!(r#"{{"execute":"remove_hostfwd","arguments":{{"id":{id}}}}}"#))?;
    let done = skip(&answer, &["{", "\"return\"", ":"]).is_some();
    if done { Ok(()) } else { Err(NetError::Protocol { peer: "slirp4netns", answer }) }
}

fn exchange(socket: &Path, request: &str) -> Result<String, NetError> {
    try_exchange(socket, request)
        .map_err(|error| NetError::system("slirp-port", "talk to slirp4netns", socket.display().to_string(), &error))
}

fn try_exchange(socket: &Path, request: &str) -> std::io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(request.as_bytes())?;
    // It reads until end of file.
    stream.shutdown(Shutdown::Write)?;
    let mut answer = String::new();
    stream.take(ANSWER_BYTES).read_to_string(&mut answer)?;
    Ok(answer)
}

/// Only numbers and addresses are inserted, so nothing needs escaping.
fn add_request(mapping: &PortMapping) -> String {
    let proto = match mapping.protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    };
    format!(
        r#"{{"execute":"add_hostfwd","arguments":{{"proto":"{proto}","host_addr":"{}","host_port":{},"guest_port":{}}}}}"#,
        mapping.host_ip, mapping.host_port, mapping.container_port
    )
}

/// Reads `{"return":{"id":1}}`.
fn read_added(answer: &str) -> Option<Answer> {
    let number = skip(answer, &["{", "\"return\"", ":", "{", "\"id\"", ":"])?.trim_start();
    let end = number.find(|c: char| !c.is_ascii_digit())?;
    number.get(..end)?.parse().ok().map(Answer::Added)
}

/// Reads `{"error":{"desc":"..."}}`.
fn read_refused(answer: &str) -> Option<Answer> {
    let (desc, _) = skip(answer, &["{", "\"error\"", ":", "{", "\"desc\"", ":", "\""])?.split_once('"')?;
    Some(Answer::Refused(desc.chars().filter(|c| !c.is_control()).collect()))
}

/// What follows `tokens`, which may have white space before each.
fn skip<'a>(text: &'a str, tokens: &[&str]) -> Option<&'a str> {
    tokens.iter().try_fold(text, |rest, token| rest.trim_start().strip_prefix(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_name_every_field() {
        let mapping = PortMapping {
            host_ip: "127.0.0.1".parse().unwrap(),
            host_port: 8080,
            container_port: 80,
            protocol: Protocol::Udp,
        };
        assert_eq!(
            add_request(&mapping),
            r#"{"execute":"add_hostfwd","arguments":{"proto":"udp","host_addr":"127.0.0.1","host_port":8080,"guest_port":80}}"#
        );
    }

    #[test]
    fn answers_are_read_strictly() {
        assert_eq!(read_added(r#"{"return":{"id":1}}"#), Some(Answer::Added(1)));
        assert_eq!(read_added("{ \"return\" : {\"id\": 42} }\n"), Some(Answer::Added(42)));
        assert_eq!(
            read_refused(r#"{"error":{"desc":"bad request: add_hostfwd: slirp_add_hostfwd failed"}}"#),
            Some(Answer::Refused("bad request: add_hostfwd: slirp_add_hostfwd failed".to_owned()))
        );
        for odd in [
            "",
            "{}",
            r#"{"return"}"#,
            r#"{"return":{"id":}}"#,
            r#"{"return":{"id":99999999999}}"#,
            r#"{"return":{"id":1"#,
        ] {
            assert_eq!(read_added(odd), None, "{odd}");
        }
        for odd in [r#"{"error":{"desc":"unfinished"#, r#"{"error":[]}"#, "[]"] {
            assert_eq!(read_refused(odd), None, "{odd}");
        }
    }
}
