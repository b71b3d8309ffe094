//! Layers that only their publisher distributes, and servers that answer what they should not.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod common;

use common::{Answer, Enter, Image, Layer, Never, Request, Scratch, Server, hex, namespaced, work, write};
use rlrun_image::{Asking, Changes, Commit, Files, ImageError, Layout, PullOptions, Work};
use rlrun_spec::{Failure, Kind, Stage};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};

const FOREIGN: &str = "application/vnd.oci.image.layer.nondistributable.v1.tar";

/// An image whose second layer is its publisher's, who has it at these URLs.
fn foreign(urls: &[String]) -> Image {
    on_top_of(vec![Layer::new().dir("etc").file("etc/passwd", b"root:x:0:0::/:/bin/sh\n").build()], urls)
}

fn on_top_of(mut layers: Vec<Vec<u8>>, urls: &[String]) -> Image {
    let top = layers.len();
    layers.push(Layer::new().file("big", &vec![7; 700_000]).build());
    let mut image = Image::new(layers);
    let mut manifest: serde_json::Value = serde_json::from_slice(&image.manifest).unwrap();
    manifest["layers"][top]["mediaType"] = FOREIGN.into();
    manifest["layers"][top]["urls"] = urls.into();
    manifest["layers"][top]["annotations"] = serde_json::json!({"a": "b"});
    image.manifest = manifest.to_string().into_bytes();
    image
}

/// A registry that lets nobody in without a password, and has no foreign layer.
fn registry(image: Image) -> Server {
    let big = hex(image.layers.last().unwrap());
    Server::start(move |request| match request.headers.get("authorization") {
        None => Answer::status(401).header("WWW-Authenticate", "Basic realm=\"x\""),
        Some(_) if request.path.ends_with(&big) => Answer::status(404),
        Some(_) => image.answer(request),
    })
}

fn with_password(scratch: &Scratch, server: &Server) -> PullOptions {
    let path = scratch.path("outside/auth.json");
    write(&path, format!(r#"{{"auths":{{"{}":{{"auth":"Ym9iOnNlY3JldA=="}}}}}}"#, server.host).as_bytes());
    PullOptions { authfile: Some(path), ..PullOptions::default() }
}

namespaced! {
    fn a_foreign_layer_comes_from_its_publisher_and_stays_his(scratch) {
        let big = foreign(&[]).layers[1].clone();
        let publisher = Server::start(move |request| match request.path.as_str() {
            "/broken" => Answer::ok(vec![0; big.len()]),
            "/moved" => Answer::status(302).header("Location", "/layer"),
            "/layer" => Answer::ok(big.clone()),
            _ => Answer::status(410),
        });
        let at = |path: &str| format!("http://{}{path}", publisher.host);
        let image = foreign(&["file:///etc/passwd".to_owned(), at("/gone"), at("/broken"), at("/moved")]);
        let server = registry(image.clone());
        let name = format!("{}/app:1", server.host);
        let options = with_password(&scratch, &server);
        scratch.store.pull(&name, &options, &work(&Enter)).unwrap();
        assert_eq!(publisher.paths(), ["/gone", "/broken", "/moved", "/layer"]);
        let asked = publisher.seen.lock().unwrap();
        assert!(asked.iter().all(|request| !request.headers.contains_key("authorization")), "{asked:?}");
        assert!(scratch.layers(&name)[0].join("big").exists());
        // It goes out as it came in: without the layer to registries, with it to where nobody could fetch it.
        let target = Server::start(|request| match (request.method.as_str(), request.path.as_str()) {
            ("HEAD", _) => Answer::status(404),
            ("POST", _) => Answer::status(202).header("Location", "/place"),
            ("PUT", _) => Answer::status(201),
            _ => Answer::ok(""),
        });
        let to = format!("{}/app:1", target.host);
        scratch.store.push(&name, Some(&to), (&PullOptions::default(), &Changes::default()), &|_| {}).unwrap();
        let put = target.seen.lock().unwrap();
        let put: Vec<_> = put.iter().filter(|request| request.method == "PUT").collect();
        assert!(put.iter().all(|request| !request.path.contains(&hex(&image.layers[1]))), "the layer was not sent");
        assert_eq!(put.last().unwrap().body.as_bytes(), image.manifest);
        // What grows from it says where its publisher has it, in either form.
        for (docker, media_type) in [(false, FOREIGN), (true, "application/vnd.docker.image.rootfs.foreign.diff.tar")] {
            let (layer, created_by) = (Layer::new().file("new", b"1").build(), "test");
            let what = Commit {
                base: Some(&name),
                squash: false,
                name: Some("localhost/grown:1"),
                change: &|_| {},
                author: None,
                message: None,
                created_by,
                docker,
            };
            scratch.store.commit(&mut &layer[..], "layer", &what, &work(&Enter)).unwrap();
            let grown = scratch.store.details("localhost/grown:1").unwrap().manifest;
            assert_eq!(grown["layers"][1]["mediaType"], media_type);
            assert_eq!(grown["layers"][1]["urls"][1], at("/gone"));
            assert!(grown["layers"][2]["urls"].is_null(), "{grown}");
        }
        let layout = Files { layout: Layout::OciDir, path: scratch.path("outside/layout"), name: None };
        scratch.store.save(&[vec![name]], &layout, &Changes::default()).unwrap();
        assert!(layout.path.join("blobs/sha256").join(hex(&image.layers[1])).exists());
        assert!(layout.path.join("blobs/sha256").join(hex(&image.manifest)).exists());
    }
}

namespaced! {
    fn a_registry_that_has_a_foreign_layer_gives_it_when_its_publisher_does_not(scratch) {
        let publisher = Server::start(|_| Answer::status(404));
        let image = foreign(&[format!("http://{}/layer", publisher.host)]);
        let server = Server::image(image);
        scratch.store.pull(&format!("{}/app", server.host), &PullOptions::default(), &work(&Enter)).unwrap();
        assert_eq!(publisher.paths(), ["/layer"]);
    }
}

fn refused(url: &str) -> Failure {
    let image = on_top_of(Vec::new(), &[url.to_owned()]);
    let scratch = Scratch::new();
    let server = registry(image);
    let name = format!("{}/app:1", server.host);
    let options = with_password(&scratch, &server);
    let failure = Failure::from(scratch.store.pull(&name, &options, &work(&Never)).unwrap_err());
    assert_eq!(scratch.contents(), Vec::<String>::new(), "{failure}");
    failure
}

#[test]
fn a_manifest_makes_nobody_ask_what_is_nearer_than_its_registry() {
    for url in ["http://169.254.169.254/latest/meta-data/", "http://[fd00:ec2::254]/", "http://0.0.0.0/"] {
        let failure = refused(url);
        assert!(failure.to_string().contains("nearer to this machine"), "{failure}");
    }
    let publisher = Server::start(|_| Answer::status(302).header("Location", "http://169.254.169.254/latest"));
    let failure = refused(&format!("http://{}/layer", publisher.host));
    assert!(failure.to_string().contains("nearer to this machine"), "{failure}");
    let failure = refused("file:///etc/passwd");
    assert!(failure.to_string().contains("404"), "the registry is asked: {failure}");
    let publisher = Server::start(|_| Answer::status(302).header("Location", "file:///etc/passwd"));
    refused(&format!("http://{}/layer", publisher.host));
}

#[test]
fn policies_are_asked_about_publishers() {
    let publisher = Server::start(|_| Answer::ok("never asked"));
    let server = Server::image(foreign(&[format!("http://{}/a/layer", publisher.host)]));
    let scratch = Scratch::new();
    let place = format!("{}/a/layer", publisher.host);
    let before = |asking: &Asking<'_>| match &asking.mirror {
        Some(mirror) if *mirror == place && asking.insecure => {
            Err(Failure::new(Stage::Cli, Kind::Denied, "on-pull", "ask", "the policy"))
        }
        _ => Ok(()),
    };
    let work = Work { before: &before, ..work(&Never) };
    let result = scratch.store.pull(&format!("{}/app", server.host), &PullOptions::default(), &work);
    assert_eq!(Failure::from(result.unwrap_err()).kind, Kind::Denied);
    assert_eq!(publisher.paths(), Vec::<String>::new());
    assert_eq!(scratch.contents(), Vec::<String>::new());
}

namespaced! {
    /// What comes second is not the rest of what came first: it is fetched anew, and then right.
    fn a_rest_that_does_not_fit_is_thrown_away(scratch) {
        let image = Image::new(vec![Layer::new().file("big", &vec![7; 700_000]).build()]);
        let big = image.layers[0].clone();
        let tries = AtomicUsize::new(0);
        let server = Server::start(move |request| {
            if !request.path.ends_with(&hex(&big)) {
                return image.answer(request);
            }
            match (tries.fetch_add(1, Ordering::Relaxed), request.headers.get("range")) {
                (0, None) => Answer::ok(big.clone()).cut(300_000),
                // It says itself that this is another part.
                (1, Some(_)) => Answer { status: 206, ..Answer::ok(&big[5..]) }.header("Content-Range", "bytes 5-9/10"),
                (2, None) => Answer::ok(big.clone()).cut(300_000),
                // It does not say so.
                (3, Some(_)) => {
                    let rest = vec![0; big.len() - 300_000];
                    Answer { status: 206, ..Answer::ok(rest) }.header("Content-Range", "bytes 300000-/x")
                }
                (4, None) => Answer::ok(big.clone()),
                (n, range) => panic!("try {n}: {range:?}"),
            }
        });
        scratch.store.pull(&format!("{}/app", server.host), &PullOptions::default(), &work(&Enter)).unwrap();
    }
}

/// Answers each request for a manifest with what `answer` writes.
fn raw(answer: impl Fn(&mut TcpStream) -> std::io::Result<()> + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let answer = std::sync::Arc::new(answer);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let answer = answer.clone();
            std::thread::spawn(move || {
                let mut head = [0; 4096];
                let n = stream.read(&mut head).unwrap_or_default();
                let text = String::from_utf8_lossy(&head[..n]).into_owned();
                let sent = match text.split(' ').nth(1) {
                    Some("/v2/") => {
                        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                    }
                    Some(path) if path.starts_with("/v2/") => answer(&mut stream),
                    _ => stream.write_all(b"HTTP/1.0 400 Bad Request\r\n\r\n"),
                };
                // The client may have had enough, which this is about.
                drop(sent);
            });
        }
    });
    host
}

fn manifest_refused(host: &str) -> String {
    let scratch = Scratch::new();
    let result: Result<_, ImageError> =
        scratch.store.pull(&format!("{host}/app"), &PullOptions::default(), &work(&Never));
    let failure = Failure::from(result.unwrap_err()).to_string();
    assert_eq!(scratch.contents(), Vec::<String>::new(), "{failure}");
    failure
}

#[test]
fn answers_without_end_end() {
    let endless = raw(|stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        let chunk = [b"10000\r\n", &[b' '; 0x10000][..], b"\r\n"].concat();
        loop {
            stream.write_all(&chunk)?;
        }
    });
    assert!(manifest_refused(&endless).contains("longer than"));
    let head = raw(|stream| {
        stream.write_all(b"HTTP/1.1 401 No\r\nWWW-Authenticate: Bearer realm=\"")?;
        loop {
            stream.write_all(&[b'a'; 65536])?;
        }
    });
    manifest_refused(&head);
    let many = raw(|stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\n")?;
        loop {
            stream.write_all(&b"X-Filler: x\r\n".repeat(4096))?;
        }
    });
    manifest_refused(&many);
}

namespaced! {
    /// A registry that keeps its blobs beside itself wants the same password there; a server of somebody else gets none.
    fn a_password_follows_a_redirect_to_the_same_place_alone(scratch) {
        let image = Image::new(vec![Layer::new().file("a", b"1").build()]);
        let blobs = image.clone();
        let elsewhere = Server::start(move |request| blobs.answer(request));
        let (host, config) = (elsewhere.host.clone(), hex(&image.config));
        let server = Server::start(move |request| match request.headers.get("authorization") {
            None => Answer::status(401).header("WWW-Authenticate", "Basic realm=\"x\""),
            Some(_) if request.path == "/v2/" => Answer::ok(""),
            Some(_) if request.path.starts_with("/kept/") => {
                image.answer(&Request { path: request.path.replacen("/kept", "", 1), ..request.clone() })
            }
            Some(_) if request.path.ends_with(&config) => {
                Answer::status(307).header("Location", format!("http://{host}{}", request.path))
            }
            Some(_) => Answer::status(302).header("Location", format!("/kept{}", request.path)),
        });
        let name = format!("{}/app:1", server.host);
        scratch.store.pull(&name, &with_password(&scratch, &server), &work(&Enter)).unwrap();
        let asked = elsewhere.seen.lock().unwrap();
        assert_eq!(asked.len(), 1, "{asked:?}");
        assert!(!asked[0].headers.contains_key("authorization"), "{asked:?}");
    }
}

#[test]
fn redirects_lead_nowhere_but_to_the_web() {
    let server = Server::start(|request| match request.path.as_str() {
        "/v2/" => Answer::ok(""),
        path => Answer::status(302).header("Location", path),
    });
    assert!(manifest_refused(&server.host).contains("redirect"), "a loop");
    assert!(server.paths().len() < 60, "{}", server.paths().len());
    for target in ["file:///etc/passwd", "gopher://127.0.0.1/", "//", "http://", "\u{1}"] {
        let server = Server::start(move |request| match request.path.as_str() {
            "/v2/" => Answer::ok(""),
            _ => Answer::status(302).header("Location", target),
        });
        manifest_refused(&server.host);
    }
}
