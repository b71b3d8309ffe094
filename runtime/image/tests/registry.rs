//! Pulling from registries that behave, that falter, and that lie. The first are Debian's own where it is installed.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod common;

use common::{Answer, Enter, Image, Layer, Never, Request, Scratch, Server, hex, namespaced, work, write};
use rlrun_image::{ImageError, PullOptions, Stored};
use rlrun_spec::Failure;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

fn image() -> Image {
    Image::new(vec![
        Layer::new().dir("etc").file("etc/passwd", b"root:x:0:0::/:/bin/sh\n").build(),
        Layer::new().file("big", &vec![7; 700_000]).build(),
    ])
}

fn pull(scratch: &Scratch, server: &Server, name: &str) -> Result<Stored, ImageError> {
    scratch.store.pull(&format!("{}/{name}", server.host), &PullOptions::default(), &work(&Enter))
}

/// Pulls what must fail before anything is unpacked, and leaves nothing.
fn refused(server: &Server, name: &str) -> Failure {
    refused_with(server, name, &PullOptions::default())
}

fn refused_with(server: &Server, name: &str, options: &PullOptions) -> Failure {
    let scratch = Scratch::new();
    let result = scratch.store.pull(&format!("{}/{name}", server.host), options, &work(&Never));
    let failure = Failure::from(result.expect_err("the pull must fail"));
    assert_eq!(scratch.contents(), Vec::<String>::new(), "{failure}");
    failure
}

fn is_blob(request: &Request, blob: &[u8]) -> bool {
    request.path.ends_with(&format!("/blobs/sha256:{}", hex(blob)))
}

namespaced! {
    fn an_image_comes_with_all_its_names(scratch) {
        let image = image();
        let server = Server::image(image.clone());
        let stored = pull(&scratch, &server, "team/app:1").unwrap();
        let name = format!("{}/team/app:1", server.host);
        let digest = format!("sha256:{}", hex(&image.manifest));
        assert_eq!((stored.identity.reference.as_str(), stored.identity.digest.as_str()), (name.as_str(), digest.as_str()));
        let resolved = scratch.store.resolve(&name).unwrap();
        assert_eq!(resolved.passwd.as_deref(), Some("root:x:0:0::/:/bin/sh\n"));
        assert_eq!(resolved.layers.len(), 2);
        let pinned = format!("{}/team/app@{digest}", server.host);
        assert_eq!(scratch.store.resolve(&pinned).unwrap().identity.reference, pinned);
        assert_eq!(scratch.store.images(&|_| {}).unwrap()[0].digests, [pinned]);
    }
}

namespaced! {
    fn what_is_there_is_not_fetched_again(scratch) {
        let server = Server::image(image());
        pull(&scratch, &server, "app").unwrap();
        let before = server.paths().len();
        pull(&scratch, &server, "app").unwrap();
        pull(&scratch, &server, "copy").unwrap();
        let again = server.paths().split_off(before);
        assert!(again.iter().all(|p| p.contains("/manifests/")), "{again:?}");
    }
}

namespaced! {
    fn a_pinned_index_keeps_its_own_digest(scratch) {
        let image = image();
        let manifest = image.manifest.clone();
        let entry = |arch: &str, digest: String, size| serde_json::json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": format!("sha256:{digest}"), "size": size,
            "platform": {"os": "linux", "architecture": arch}});
        let index = serde_json::json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [entry("s390x", "0".repeat(64), 1), entry("amd64", hex(&manifest), manifest.len())],
        }).to_string();
        let pinned = format!("app@sha256:{}", hex(index.as_bytes()));
        let server = Server::start(move |request| {
            if request.path.ends_with(&hex(index.as_bytes())) || request.path.ends_with("/manifests/1") {
                return Answer::ok(index.clone()).header("Content-Type", "application/vnd.oci.image.index.v1+json");
            }
            image.answer(request)
        });
        let options = PullOptions { platform: Some("linux/amd64".into()), ..PullOptions::default() };
        let name = format!("{}/{pinned}", server.host);
        let stored = scratch.store.pull(&name, &options, &work(&Enter)).unwrap();
        assert_eq!(stored.identity.digest, format!("sha256:{}", hex(&manifest)));
        assert_eq!(stored.identity.platform, "linux/amd64");
        assert!(scratch.store.resolve(&name).is_ok(), "found under the digest that was asked for");
        let other = PullOptions { platform: Some("linux/riscv64".into()), ..PullOptions::default() };
        let failure = refused_with(&server, "app:1", &other);
        assert!(failure.detail.contains("no image for linux/riscv64; it has linux/s390x, linux/amd64"), "{failure}");
    }
}

namespaced! {
    fn a_lost_connection_is_taken_up_where_it_broke(scratch) {
        let image = image();
        let big = image.layers[1].clone();
        let tries = AtomicUsize::new(0);
        let server = Server::start(move |request| {
            if !is_blob(request, &big) {
                return image.answer(request);
            }
            let range = request.headers.get("range").cloned();
            match (tries.fetch_add(1, Ordering::Relaxed), range) {
                (0, None) => Answer::ok(big.clone()).cut(300_000),
                (1, Some(range)) => {
                    let from: usize = range.strip_prefix("bytes=").unwrap().strip_suffix('-').unwrap().parse().unwrap();
                    assert!(from > 0 && from <= 300_000, "{from}");
                    Answer { status: 206, ..Answer::ok(&big[from..]) }.cut(100_000)
                }
                // A server that has forgotten how to resume begins from the start.
                (2, Some(_)) => Answer::ok(big.clone()),
                (n, range) => panic!("try {n}: {range:?}"),
            }
        });
        pull(&scratch, &server, "app").unwrap();
    }
}

namespaced! {
    fn a_busy_registry_is_asked_again(scratch) {
        let image = image();
        let counts = [AtomicUsize::new(0), AtomicUsize::new(0)];
        let server = Server::start(move |request| {
            if request.path == "/v2/" {
                return Answer::ok("");
            }
            let which = usize::from(request.path.contains("/blobs/"));
            match counts[which].fetch_add(1, Ordering::Relaxed) {
                0 => Answer::status([503, 429][which]).header("Retry-After", "0"),
                1 => Answer::status(500).header("Retry-After", "0"),
                _ => image.answer(request),
            }
        });
        pull(&scratch, &server, "app").unwrap();
    }
}

#[test]
fn a_registry_that_stays_broken_is_reported() {
    let server = Server::start(|request| match request.path.as_str() {
        "/v2/" => Answer::ok(""),
        _ => Answer::status(502).header("Retry-After", "0"),
    });
    let failure = refused(&server, "app");
    assert!(failure.detail.contains("502"), "{failure}");
    assert!(failure.hint.unwrap().contains("try again later"));
    assert_eq!(server.paths().iter().filter(|p| p.contains("manifests")).count(), 4);
}

#[test]
fn nobody_there() {
    // Bound and closed again: nobody else listens on it now.
    let host = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let server = Server { host, seen: Default::default() };
    let failure = refused(&server, "app");
    assert_eq!(failure.step, "pull-connect");
    assert!(failure.to_string().contains("Connection refused"), "{failure}");
    let scratch = Scratch::new();
    let result = scratch.store.pull("no-such-host.invalid/app", &PullOptions::default(), &work(&Never));
    assert!(result.unwrap_err().to_string().contains("no such host"));
}

#[test]
fn unknown_names_are_told_with_the_registrys_words() {
    let server = Server::start(|_| Answer {
        status: 404,
        ..Answer::ok(r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#)
    });
    let failure = refused(&server, "nosuch");
    assert!(failure.detail.contains("404") && failure.detail.contains("MANIFEST_UNKNOWN"), "{failure}");
}

namespaced! {
    fn blobs_that_are_not_what_was_promised_are_refused(_scratch) {
        let image = image();
        for (what, change) in [
            ("changed", (|blob: &[u8]| { let mut b = blob.to_vec(); b[600] ^= 1; b }) as fn(&[u8]) -> Vec<u8>),
            ("longer", |blob| [blob, b"x"].concat()),
            ("endless", |blob| blob.repeat(50)),
        ] {
            let (served, big) = (image.clone(), image.layers[1].clone());
            let server = Server::start(move |request| {
                if is_blob(request, &big) { Answer::ok(change(&big)) } else { served.answer(request) }
            });
            let scratch = Scratch::new();
            let failure = Failure::from(pull(&scratch, &server, "app").unwrap_err());
            assert_eq!(failure.step, "image-digest", "{what}: {failure}");
            assert_eq!(scratch.contents(), Vec::<String>::new(), "{what}");
        }
    }
}

#[test]
fn a_manifest_that_is_not_the_pinned_one_is_refused() {
    let server = Server::image(image());
    let failure = refused(&server, &format!("app@sha256:{}", "1".repeat(64)));
    assert_eq!(failure.step, "image-digest", "{failure}");
    assert!(failure.detail.contains(&"1".repeat(64)), "{failure}");
}

#[test]
fn manifests_that_would_fill_memory_are_refused() {
    let server = Server::start(|_| Answer::ok(vec![b' '; 5 << 20]));
    let failure = refused(&server, "app");
    assert!(failure.detail.contains("longer than"), "{failure}");
    let config = format!("sha256:{}", hex(b""));
    let manifest = format!(
        r#"{{"schemaVersion":2,"config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{config}","size":99999999999}},"layers":[]}}"#
    );
    let server = Server::start(move |_| Answer::ok(manifest.clone()));
    let failure = refused(&server, "app");
    assert!(failure.detail.contains("99999999999"), "{failure}");
}

#[test]
fn what_is_no_image_is_said_to_be_none() {
    for (manifest, why) in [
        (r#"{"schemaVersion":1}"#, "schema version 1"),
        ("<html>", "manifest"),
        (r#"{"schemaVersion":2,"manifests":[]}"#, "no image for"),
        (
            r#"{"schemaVersion":2,"config":{"mediaType":"application/vnd.wasm.config.v0+json","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":0},"layers":[]}"#,
            "artifact",
        ),
    ] {
        let server = Server::start(move |_| Answer::ok(manifest));
        let failure = refused(&server, "app");
        assert!(failure.detail.contains(why), "{manifest}: {failure}");
    }
}

#[test]
fn indexes_in_indexes_end() {
    let entry = |digest: String| {
        serde_json::json!({"mediaType": "application/vnd.oci.image.index.v1+json", "digest": format!("sha256:{digest}"),
            "size": 1, "platform": {"os": "linux", "architecture": "amd64"}})
    };
    let mut indexes = vec![r#"{"schemaVersion":2,"manifests":[]}"#.to_owned()];
    for _ in 0..4 {
        let below = entry(hex(indexes[indexes.len() - 1].as_bytes()));
        indexes.push(serde_json::json!({"schemaVersion": 2, "manifests": [below]}).to_string());
    }
    let server = Server::start(move |request| {
        let named = indexes.iter().find(|i| request.path.ends_with(&hex(i.as_bytes())));
        Answer::ok(named.unwrap_or(&indexes[4]).clone())
    });
    let options = PullOptions { platform: Some("linux/amd64".into()), ..PullOptions::default() };
    let failure = refused_with(&server, "app", &options);
    assert!(failure.detail.contains("nested too deeply"), "{failure}");
}

fn auth_file(scratch: &Scratch, host: &str, content: &str) -> PullOptions {
    let path = scratch.path("outside/auth.json");
    write(&path, format!(r#"{{"auths":{{"{host}":{{{content}}}}}}}"#).as_bytes());
    PullOptions { authfile: Some(path), ..PullOptions::default() }
}

namespaced! {
    fn tokens_are_fetched_with_the_password_and_sent_to_nobody_else(scratch) {
        let image = image();
        let elsewhere = {
            let image = image.clone();
            Server::start(move |request| image.answer(request))
        };
        let far = elsewhere.host.clone();
        let server = Server::start(move |request| {
            let authorization = request.headers.get("authorization").map(String::as_str).unwrap_or_default();
            if request.path.starts_with("/token?") {
                assert!(request.path.contains("service=here"), "{}", request.path);
                assert!(request.path.contains("scope=repository%3Aapp%3Apull"), "{}", request.path);
                // bob:secret
                assert_eq!(authorization, "Basic Ym9iOnNlY3JldA==");
                return Answer::ok(r#"{"token":"t0ken"}"#);
            }
            if authorization != "Bearer t0ken" {
                let host = &request.headers["host"];
                let challenge = format!(r#"Bearer realm="http://{host}/token",service="here",scope="repository:app:pull""#);
                return Answer::status(401).header("WWW-Authenticate", challenge);
            }
            // Blobs are kept elsewhere, as large registries do.
            if request.path.contains("/blobs/") {
                return Answer::status(307).header("Location", format!("http://{far}{}", request.path));
            }
            image.answer(request)
        });
        let options = auth_file(&scratch, &server.host, r#""auth":"Ym9iOnNlY3JldA==""#);
        scratch.store.pull(&format!("{}/app", server.host), &options, &work(&Enter)).unwrap();
        let seen = elsewhere.seen.lock().unwrap();
        assert_eq!(seen.len(), 3);
        assert!(seen.iter().all(|r| !r.headers.contains_key("authorization")), "{seen:?}");
    }
}

namespaced! {
    fn refresh_tokens_are_exchanged(scratch) {
        let image = image();
        let server = Server::start(move |request| {
            if request.path == "/token" {
                assert_eq!(request.method, "POST");
                assert!(request.body.contains("grant_type=refresh_token"), "{}", request.body);
                assert!(request.body.contains("refresh_token=r3fresh"), "{}", request.body);
                return Answer::ok(r#"{"access_token":"t0ken"}"#);
            }
            if request.headers.get("authorization").map(String::as_str) != Some("Bearer t0ken") {
                let host = &request.headers["host"];
                return Answer::status(401).header("WWW-Authenticate", format!(r#"Bearer realm="http://{host}/token""#));
            }
            image.answer(request)
        });
        let options = auth_file(&scratch, &server.host, r#""identitytoken":"r3fresh""#);
        scratch.store.pull(&format!("{}/app", server.host), &options, &work(&Enter)).unwrap();
    }
}

#[test]
fn without_credentials_the_registry_says_no() {
    let server = Server::start(|_| Answer::status(401).header("WWW-Authenticate", "Basic realm=x"));
    let failure = refused(&server, "app");
    assert_eq!(failure.step, "image-auth");
    assert!(failure.hint.unwrap().contains("auth.json"));
    let server = Server::start(|_| Answer::status(401));
    assert_eq!(refused(&server, "app").step, "image-auth");
}

#[test]
fn tls_is_not_left_where_it_is_asked_for() {
    let server = Server::image(image());
    let options = PullOptions { tls_verify: Some(true), ..PullOptions::default() };
    let failure = refused_with(&server, "app", &options);
    assert!(failure.detail.contains("speaks no TLS"), "{failure}");
    assert!(failure.hint.unwrap().contains("--tls-verify=false"));
    assert!(server.paths().is_empty(), "nothing was asked in the clear");
}

/// Debian's registry, over TLS with a certificate of its own or in the clear; ends with the test.
struct Registry(std::process::Child);

impl Registry {
    fn start(place: &Path, port: u16, tls: &str) -> Self {
        let config = place.join(format!("registry-{port}.yml"));
        let storage = place.join("registry");
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: \"127.0.0.1:{port}\"{tls}}}\n",
            storage.display()
        );
        write(&config, text.as_bytes());
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let registry = Registry(child);
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        registry
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.0.kill().and_then(|()| self.0.wait()).unwrap();
    }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn run(program: &str, arguments: &[&str]) {
    // What stands below /run/containers is the machine's.
    let runtime = tempfile::tempdir().unwrap();
    let output = Command::new(program).args(arguments).env("XDG_RUNTIME_DIR", runtime.path()).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

const PORTS: &str = "RLRUN_TEST_REGISTRY_PORTS";

/// With certs.d in place, which only the environment of a process says.
fn pull_over_both(ports: &str) {
    let (plain, tls) = ports.split_once(' ').unwrap();
    let scratch = Scratch::new();
    let options = PullOptions::default();
    let over = |port: &str, tag: &str| {
        let name = format!("127.0.0.1:{port}/app:{tag}");
        scratch.store.pull(&name, &options, &work(&Enter)).unwrap().identity
    };
    let (http, https) = (over(plain, "oci"), over(tls, "oci"));
    assert_eq!(http.digest, https.digest);
    assert_ne!(over(tls, "schema2").digest, http.digest, "docker's manifest is another one");
    assert_eq!(
        std::fs::read(scratch.layers(&format!("127.0.0.1:{tls}/app:oci"))[0].join("big")).unwrap().len(),
        700_000
    );
}

#[test]
fn debians_registry_over_http_and_tls() {
    if let Ok(ports) = std::env::var(PORTS) {
        return pull_over_both(&ports);
    }
    common::as_ordinary_user("debians_registry_over_http_and_tls", || {
        let missing =
            ["docker-registry", "skopeo", "openssl"].into_iter().find(|p| !Path::new("/usr/bin").join(p).exists());
        if let Some(missing) = missing {
            let must = std::env::var("RLRUN_MUST_HAVE").unwrap_or_default();
            assert!(!must.contains("registry"), "{missing} is not installed");
            return common::say(&format!("SKIPPED debians_registry_over_http_and_tls: {missing} is not installed"));
        }
        let place = tempfile::tempdir().unwrap();
        let file = |name: &str| place.path().join(name).to_str().unwrap().to_owned();
        let (plain, tls) = (free_port(), free_port());
        let certs = place.path().join(format!("config/containers/certs.d/127.0.0.1:{tls}"));
        std::fs::create_dir_all(&certs).unwrap();
        let (certificate, key) = (certs.join("ca.crt").to_str().unwrap().to_owned(), file("key.pem"));
        run(
            "openssl",
            &[
                "req",
                "-x509",
                "-newkey",
                "rsa:2048",
                "-nodes",
                "-days",
                "2",
                "-subj",
                "/CN=127.0.0.1",
                "-addext",
                "subjectAltName=IP:127.0.0.1",
                "-keyout",
                &key,
                "-out",
                &certificate,
            ],
        );
        let _plain = Registry::start(place.path(), plain, "");
        let _tls =
            Registry::start(place.path(), tls, &format!(", tls: {{certificate: \"{certificate}\", key: \"{key}\"}}"));
        write(&place.path().join("app.tar"), &common::archive(&image().layers, "app"));
        for (tag, format) in [("oci", "oci"), ("schema2", "v2s2")] {
            let (from, to) =
                (format!("docker-archive:{}", file("app.tar")), format!("docker://127.0.0.1:{plain}/app:{tag}"));
            run("skopeo", &["copy", "--insecure-policy", "--dest-tls-verify=false", "--format", format, &from, &to]);
        }
        let again = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "debians_registry_over_http_and_tls", "--nocapture"])
            .env("XDG_CONFIG_HOME", place.path().join("config"))
            .env(PORTS, format!("{plain} {tls}"))
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&again.stdout) + String::from_utf8_lossy(&again.stderr);
        assert!(again.status.success() && text.contains("1 passed"), "{text}");
    });
}
