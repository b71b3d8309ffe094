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

/// What slirp4netns answered.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Done.
    Done,
    /// Refused; its `desc`, which never names an errno.
    Refused(String),
}

/// Sends `add_hostfwd` for `mapping`.
pub(super) fn add_hostfwd(socket: &Path, mapping: &PortMapping) -> Result<Answer, NetError> {
    let answer = exchange(socket, &request(mapping)).map_err(|error| {
        NetError::system("publish-port", "talk to slirp4netns", socket.display().to_string(), &error)
    })?;
    read_answer(&answer).ok_or(NetError::Protocol { peer: "slirp4netns", answer })
}

fn exchange(socket: &Path, request: &str) -> std::io::Result<String> {
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
fn request(mapping: &PortMapping) -> String {
    let proto = match mapping.protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    };
    format!(
        r#"{{"execute":"add_hostfwd","arguments":{{"proto":"{proto}","host_addr":"{}","host_port":{},"guest_port":{}}}}}"#,
        mapping.host_ip, mapping.host_port, mapping.container_port
    )
}

/// Reads `{"return":...}` and `{"error":{"desc":"..."}}`, with any white space; `None` for anything else.
fn read_answer(text: &str) -> Option<Answer> {
    let after = |text: &'_ str, token: &str| text.trim_start().strip_prefix(token).map(str::to_owned);
    let body = after(text, "{")?;
    if let Some(rest) = after(&body, "\"return\"") {
        return after(&rest, ":").map(|_| Answer::Done);
    }
    let mut rest = after(&body, "\"error\"")?;
    for token in [":", "{", "\"desc\"", ":", "\""] {
        rest = after(&rest, token)?;
    }
    let (desc, _) = rest.split_once('"')?;
    Some(Answer::Refused(desc.chars().filter(|c| !c.is_control()).collect()))
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
            request(&mapping),
            r#"{"execute":"add_hostfwd","arguments":{"proto":"udp","host_addr":"127.0.0.1","host_port":8080,"guest_port":80}}"#
        );
    }

    #[test]
    fn answers_are_read_strictly() {
        assert_eq!(read_answer(r#"{"return":{"id":1}}"#), Some(Answer::Done));
        assert_eq!(read_answer("{ \"return\" : {\"id\": 42} }\n"), Some(Answer::Done));
        assert_eq!(
            read_answer(r#"{"error":{"desc":"bad request: add_hostfwd: slirp_add_hostfwd failed"}}"#),
            Some(Answer::Refused("bad request: add_hostfwd: slirp_add_hostfwd failed".to_owned()))
        );
        for odd in ["", "{}", "return", r#"{"return"}"#, r#"{"error":{"desc":"unfinished"#, r#"{"error":[]}"#, "[]"] {
            assert_eq!(read_answer(odd), None, "{odd}");
        }
    }
}
