//! Registries: Debian's docker-registry, on plain HTTP or TLS with a certificate authority made for the test, and a
//! false one that answers what a test wants.

use crate::archive::{Image, digest, gzip};
use crate::http::{FileServer, Reply, serve};
use crate::wait::until;
use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

/// A running docker-registry. It stores images in its own layout on disk, so nothing has to be pushed.
pub struct Registry {
    /// `127.0.0.1:PORT`.
    pub address: SocketAddr,
    /// The certificate authority, when it speaks TLS.
    pub authority: Option<PathBuf>,
    /// Its directory.
    pub storage: PathBuf,
    child: Child,
    log: Log,
}

/// Lines that the registry has written.
type Log = Arc<Mutex<Vec<String>>>;

impl Registry {
    /// Over plain HTTP.
    pub fn http(directory: &Path) -> Registry {
        Registry::start(directory, None, "")
    }

    /// Over plain HTTP; takes manifests of images with foreign layers.
    pub fn with_foreign_layers(directory: &Path) -> Registry {
        let allowed = "validation:\n  manifests:\n    urls:\n      allow:\n        - ^http://127\\.\n";
        Registry::start(directory, None, allowed)
    }

    /// Over plain HTTP, for the user `tester` with the password `secret` only.
    pub fn guarded(directory: &Path) -> Registry {
        let users = directory.join("htpasswd");
        crate::root::write(&users, b"tester:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n");
        let auth = format!("auth:\n  htpasswd:\n    realm: tests\n    path: {}\n", users.display());
        Registry::start(directory, None, &auth)
    }

    /// Over plain HTTP, for whoever shows a token of a server at `realm` that signs with the key of `certificate`.
    pub fn with_tokens(directory: &Path, realm: &str, certificate: &Path) -> Registry {
        let auth = format!(
            "auth:\n  token:\n    realm: {realm}\n    service: here\n    issuer: tests\n    rootcertbundle: {}\n",
            certificate.display()
        );
        Registry::start(directory, None, &auth)
    }

    /// Waits for a line of its log that has all these words.
    pub fn has_logged(&self, words: &[&str]) -> bool {
        let says = |line: &String| words.iter().all(|word| line.contains(word));
        until(10, || self.log.lock().unwrap().iter().any(says).then_some(())).is_some()
    }

    /// Over TLS, with a certificate for localhost and 127.0.0.1.
    pub fn tls(directory: &Path) -> Registry {
        let certificate = Certificate::make(directory);
        Registry::start(directory, Some(&certificate), "")
    }

    fn start(directory: &Path, certificate: Option<&Certificate>, auth: &str) -> Registry {
        let storage = directory.join("registry");
        std::fs::create_dir_all(&storage).unwrap();
        let tls = certificate.map_or_else(String::new, |certificate| {
            format!(
                "  tls:\n    certificate: {}\n    key: {}\n",
                certificate.chain.display(),
                certificate.key.display()
            )
        });
        let config = format!(
            "version: 0.1\nlog:\n  level: info\n  formatter: json\nstorage:\n  filesystem:\n    rootdirectory: {}\n\
             http:\n  addr: 127.0.0.1:0\n{tls}{auth}",
            storage.display()
        );
        let path = directory.join("registry.yml");
        crate::root::write(&path, config.as_bytes());
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&path).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let log = Log::default();
        let address = announced_address(&mut child, &log);
        let authority = certificate.map(|certificate| certificate.authority.clone());
        Registry { address, authority, storage, child, log }
    }

    /// Puts an image there under `repository:tag`; returns the digest of its manifest.
    pub fn add(&self, repository: &str, tag: &str, image: &Image) -> String {
        let (manifest, blobs) = image.oci_manifest("+gzip", gzip);
        self.add_manifest(repository, tag, &manifest, &blobs.iter().map(Vec::as_slice).collect::<Vec<_>>())
    }

    /// Puts a manifest there with the blobs it names; returns its digest.
    pub fn add_manifest(&self, repository: &str, tag: &str, manifest: &[u8], blobs: &[&[u8]]) -> String {
        for blob in blobs.iter().chain([&manifest]) {
            self.store_blob(&digest(blob), blob);
        }
        let repositories = self.storage.join("docker/registry/v2/repositories").join(repository);
        for blob in blobs {
            link(&repositories.join("_layers/sha256").join(hex(&digest(blob))), &digest(blob));
        }
        let name = digest(manifest);
        let manifests = repositories.join("_manifests");
        link(&manifests.join("revisions/sha256").join(hex(&name)), &name);
        link(&manifests.join("tags").join(tag).join("current"), &name);
        link(&manifests.join("tags").join(tag).join("index/sha256").join(hex(&name)), &name);
        name
    }

    /// Forgets a tag, so that it can be given to another image.
    pub fn remove_tag(&self, repository: &str, tag: &str) {
        let tags = self.storage.join("docker/registry/v2/repositories").join(repository).join("_manifests/tags");
        std::fs::remove_dir_all(tags.join(tag)).unwrap();
    }

    /// Gives what one tag names to another.
    pub fn move_tag(&self, repository: &str, from: &str, to: &str) {
        let tags = self.storage.join("docker/registry/v2/repositories").join(repository).join("_manifests/tags");
        std::fs::rename(tags.join(from), tags.join(to)).unwrap();
    }

    /// Stores bytes under a digest, whether it is theirs or not.
    pub fn store_blob(&self, name: &str, data: &[u8]) {
        let hex = hex(name);
        let directory = self.storage.join("docker/registry/v2/blobs/sha256").join(&hex[..2]).join(hex);
        std::fs::create_dir_all(&directory).unwrap();
        if !directory.join("data").exists() {
            crate::root::write(&directory.join("data"), data);
        }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn hex(digest: &str) -> &str {
    digest.strip_prefix("sha256:").unwrap()
}

fn link(directory: &Path, digest: &str) {
    std::fs::create_dir_all(directory).unwrap();
    if !directory.join("link").exists() {
        crate::root::write(&directory.join("link"), digest.as_bytes());
    }
}

/// The registry chooses its port and logs it.
fn announced_address(child: &mut Child, lines: &Log) -> SocketAddr {
    let (sender, receiver) = std::sync::mpsc::channel();
    let log = child.stderr.take().unwrap();
    let lines = lines.clone();
    // Reads on to the end, so that the registry never blocks on a full pipe.
    std::thread::spawn(move || {
        for line in BufReader::new(log).lines().map_while(Result::ok) {
            let port = line.split("listening on ").nth(1).map(|rest| {
                rest.trim_start_matches("127.0.0.1:").chars().take_while(char::is_ascii_digit).collect::<String>()
            });
            if let Some(port) = port {
                drop(sender.send(port));
            }
            lines.lock().unwrap().push(line);
        }
    });
    let port =
        receiver.recv_timeout(std::time::Duration::from_secs(20)).expect("docker-registry says where it listens");
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port.parse().unwrap()));
    let up = until(10, || std::net::TcpStream::connect(address).ok());
    assert!(up.is_some(), "docker-registry answers");
    address
}

struct Certificate {
    authority: PathBuf,
    chain: PathBuf,
    key: PathBuf,
}

impl Certificate {
    fn make(directory: &Path) -> Certificate {
        let at = |name: &str| directory.join(name);
        let (authority, authority_key) = (at("ca.crt"), at("ca.key"));
        let (chain, key, request, extensions) = (at("tls.crt"), at("tls.key"), at("tls.csr"), at("tls.ext"));
        crate::root::write(&extensions, b"subjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=CA:FALSE\n");
        let curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
        let mut make_authority = openssl(&["req", "-x509", "-days", "2", "-subj", "/CN=test authority"]);
        run(make_authority.args(curve).arg("-keyout").arg(&authority_key).arg("-out").arg(&authority));
        let mut make_request = openssl(&["req", "-subj", "/CN=localhost"]);
        run(make_request.args(curve).arg("-keyout").arg(&key).arg("-out").arg(&request));
        let mut sign = openssl(&["x509", "-req", "-days", "2", "-CAcreateserial"]);
        sign.arg("-in").arg(&request).arg("-CA").arg(&authority).arg("-CAkey").arg(&authority_key);
        run(sign.arg("-extfile").arg(&extensions).arg("-out").arg(&chain));
        Certificate { authority, chain, key }
    }
}

fn openssl(args: &[&str]) -> Command {
    let mut command = Command::new("openssl");
    command.args(args);
    command
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "openssl: {}", String::from_utf8_lossy(&output.stderr));
}

/// A registry that serves what it is told, true or not.
pub struct FakeRegistry {
    server: FileServer,
}

impl FakeRegistry {
    /// Serves these replies by path; anything else is not found.
    pub fn serving(mut replies: HashMap<String, Reply>) -> FakeRegistry {
        replies.entry("/v2/".to_owned()).or_insert_with(|| Reply::ok("application/json", "{}"));
        let server = serve(Ipv4Addr::LOCALHOST.into(), move |_, path| {
            replies.get(path).cloned().unwrap_or_else(Reply::not_found)
        });
        FakeRegistry { server }
    }

    /// An image under `app:1` with its blobs, to be changed by the test before it is served.
    pub fn replies(image: &Image) -> HashMap<String, Reply> {
        let (manifest, blobs) = image.oci_manifest("+gzip", gzip);
        let described = Reply::ok("application/vnd.oci.image.manifest.v1+json", manifest.clone());
        let mut replies = HashMap::new();
        for name in ["1".to_owned(), digest(&manifest)] {
            replies.insert(format!("/v2/app/manifests/{name}"), described.clone());
        }
        for blob in blobs {
            let path = format!("/v2/app/blobs/{}", digest(&blob));
            replies.insert(path, Reply::ok("application/octet-stream", blob));
        }
        replies
    }

    /// `127.0.0.1:PORT/app:1`.
    pub fn reference(&self) -> String {
        format!("{}/app:1", self.server.address)
    }
}
