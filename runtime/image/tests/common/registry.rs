//! A registry that does as it is told, well or badly.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// What arrived.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    /// With its query.
    pub path: String,
    pub headers: HashMap<String, String>,
    pub body: String,
}

/// What is answered.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// The connection breaks after so many bytes of the body.
    pub cut: Option<usize>,
}

impl Answer {
    pub fn ok(body: impl Into<Vec<u8>>) -> Self {
        Answer { status: 200, headers: Vec::new(), body: body.into(), cut: None }
    }

    pub fn status(status: u16) -> Self {
        Answer { status, ..Answer::ok("") }
    }

    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    pub fn cut(mut self, after: usize) -> Self {
        self.cut = Some(after);
        self
    }
}

/// A server on loopback that lives as long as the test.
pub struct Server {
    pub host: String,
    pub seen: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    pub fn start(handler: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (handler, log) = (Arc::new(handler), seen.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (handler, log) = (handler.clone(), log.clone());
                std::thread::spawn(move || serve(&stream, &*handler, &log));
            }
        });
        Server { host, seen }
    }

    /// An image of one layer below `/v2/app`, with blobs by their digests.
    pub fn image(image: Image) -> Self {
        Server::start(move |request| image.answer(request))
    }

    pub fn paths(&self) -> Vec<String> {
        self.seen.lock().unwrap().iter().map(|r| r.path.clone()).collect()
    }
}

fn serve(stream: &TcpStream, handler: &dyn Fn(&Request) -> Answer, log: &Mutex<Vec<Request>>) {
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    // A TLS hello is no text.
    if reader.by_ref().take(4096).read_until(b'\n', &mut line).is_err() || line.first() == Some(&0x16) {
        drop((&mut &*stream).write_all(b"HTTP/1.0 400 Bad Request\r\n\r\n"));
        return;
    }
    let line = String::from_utf8_lossy(&line).into_owned();
    let mut words = line.split(' ');
    let (method, path) = (words.next().unwrap_or_default().to_owned(), words.next().unwrap_or_default().to_owned());
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).is_err() || line.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':') {
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
    }
    let length = headers.get("content-length").and_then(|l| l.parse().ok()).unwrap_or(0);
    let mut body = String::new();
    drop(reader.by_ref().take(length).read_to_string(&mut body));
    let request = Request { method, path, headers, body };
    log.lock().unwrap().push(request.clone());
    let answer = handler(&request);
    let mut head =
        format!("HTTP/1.1 {} X\r\nContent-Length: {}\r\nConnection: close\r\n", answer.status, answer.body.len());
    for (name, value) in &answer.headers {
        head += &format!("{name}: {value}\r\n");
    }
    let mut out = stream;
    let sent = answer.cut.unwrap_or(answer.body.len()).min(answer.body.len());
    // The client may have gone away, which some tests are about.
    drop(out.write_all(format!("{head}\r\n").as_bytes()).and_then(|()| out.write_all(&answer.body[..sent])));
}

/// One image as a registry has it.
#[derive(Clone)]
pub struct Image {
    pub manifest: Vec<u8>,
    pub config: Vec<u8>,
    pub layers: Vec<Vec<u8>>,
}

impl Image {
    /// `layers` are plain; they are what is served.
    pub fn new(layers: Vec<Vec<u8>>) -> Self {
        let diff_ids: Vec<String> = layers.iter().map(|l| format!("sha256:{}", super::hex(l))).collect();
        let config = serde_json::json!({
            "architecture": "amd64", "os": "linux", "config": {},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        })
        .to_string()
        .into_bytes();
        let descriptor = |kind: &str, bytes: &[u8]| serde_json::json!({"mediaType": kind, "digest": format!("sha256:{}", super::hex(bytes)), "size": bytes.len()});
        let layer = "application/vnd.oci.image.layer.v1.tar";
        let manifest = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
            "layers": layers.iter().map(|l| descriptor(layer, l)).collect::<Vec<_>>(),
        })
        .to_string()
        .into_bytes();
        Image { manifest, config, layers }
    }

    pub fn answer(&self, request: &Request) -> Answer {
        if request.path.contains("/manifests/") {
            return Answer::ok(self.manifest.clone())
                .header("Content-Type", "application/vnd.oci.image.manifest.v1+json");
        }
        let blobs = std::iter::once(&self.config).chain(&self.layers);
        let named = |b: &&Vec<u8>| request.path.ends_with(&super::hex(b));
        match blobs.into_iter().find(named) {
            Some(blob) => Answer::ok(blob.clone()),
            None => Answer::status(404),
        }
    }
}
