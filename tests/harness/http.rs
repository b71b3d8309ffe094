//! A small HTTP server of the test, on loopback or on an address that a container can reach.

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

/// What the server answers.
#[derive(Clone)]
pub struct Reply {
    /// Status code.
    pub status: u16,
    /// Header lines, without Content-Length.
    pub headers: Vec<(String, String)>,
    /// Body.
    pub body: Vec<u8>,
    /// Claims a longer body than it sends.
    pub truncated: bool,
}

impl Reply {
    /// 200 with a body.
    pub fn ok(content_type: &str, body: impl Into<Vec<u8>>) -> Reply {
        let headers = vec![("Content-Type".to_owned(), content_type.to_owned())];
        Reply { status: 200, headers, body: body.into(), truncated: false }
    }

    /// 404.
    pub fn not_found() -> Reply {
        Reply { status: 404, headers: Vec::new(), body: Vec::new(), truncated: false }
    }
}

/// A running server; it ends with the test's process.
pub struct FileServer {
    /// Where it listens.
    pub address: SocketAddr,
}

/// What the server is asked.
#[derive(Clone, Debug)]
pub struct Request {
    /// `GET`
    pub method: String,
    /// With the query.
    pub path: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
}

impl Request {
    /// The value of a header, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }
}

/// Serves requests by path until the process ends.
pub fn serve(ip: IpAddr, answer: impl Fn(&str, &str) -> Reply + Send + Sync + 'static) -> FileServer {
    serve_requests(ip, move |request| answer(&request.method, &request.path))
}

/// As [`serve`], for those who look at headers.
pub fn serve_requests(ip: IpAddr, answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> FileServer {
    let listener = TcpListener::bind((ip, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let answer = Arc::new(answer);
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let answer = answer.clone();
            std::thread::spawn(move || converse(client, &*answer));
        }
    });
    FileServer { address }
}

fn converse(client: TcpStream, answer: &(dyn Fn(&Request) -> Reply + Send + Sync)) {
    let mut reader = BufReader::new(client.try_clone().unwrap());
    // The first byte of a TLS handshake: say what every server says that expects HTTP.
    if reader.fill_buf().is_ok_and(|bytes| bytes.first() == Some(&0x16)) {
        drop((&client).write_all(b"HTTP/1.0 400 Bad Request\r\nConnection: close\r\n\r\n"));
        return;
    }
    while let Some(request) = request(&mut reader) {
        let reply = answer(&request);
        let claimed = reply.body.len() + if reply.truncated { 1000 } else { 0 };
        let mut head = format!("HTTP/1.1 {} Status\r\nContent-Length: {claimed}\r\n", reply.status);
        for (name, value) in &reply.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        let mut client = &client;
        let body: &[u8] = if request.method == "HEAD" { b"" } else { &reply.body };
        if client.write_all(head.as_bytes()).and_then(|()| client.write_all(body)).is_err() || reply.truncated {
            return;
        }
    }
}

/// The next request, None at the end of the connection.
fn request(reader: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|n| *n > 0)?;
    let mut words = line.split_whitespace();
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = Vec::new();
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok().filter(|n| *n > 0)?;
        match header.split_once(':') {
            Some((name, value)) => headers.push((name.to_ascii_lowercase(), value.trim().to_owned())),
            None if header.trim_end().is_empty() => return Some(Request { method, path, headers }),
            None => {}
        }
    }
}

/// An address of this host that is not loopback, if it has one.
pub fn host_address() -> Option<IpAddr> {
    let list = std::process::Command::new("ip").args(["-4", "-o", "addr", "show", "scope", "global"]).output().ok()?;
    let list = String::from_utf8(list.stdout).ok()?;
    let word = list.lines().next()?.split_whitespace().nth(3)?;
    word.split('/').next()?.parse().ok()
}
