//! Images from registries: a real one, and one that lies.

use rlrun_tests::{Case, FakeRegistry, Image, Output, Registry, Reply, Rootfs, base_rootfs, case, digest, gzip};
use std::collections::HashMap;

fn image(text: &str) -> Image {
    Image::new("unused:1", base_rootfs().clone()).layer(Rootfs::new().file("etc/which", 0o644, text))
}

/// registries.conf(5) as users have it for a registry without TLS.
fn allow_plain_http(case: &Case, registry: &str) {
    let directory = case.user().private_directory(&case.home().join(".config/containers"));
    let path = directory.join("registries.conf");
    let text = format!("[[registry]]\nlocation = \"{registry}\"\ninsecure = true\n");
    std::io::Write::write_all(&mut std::fs::File::create(&path).unwrap(), text.as_bytes()).unwrap();
    case.user().own(&path);
}

fn which(case: &Case, name: &str) -> Output {
    case.run(["run", "--rm", "--network", "none", "--pull", "never", name, "cat", "/etc/which"])
}

#[test]
fn an_image_is_pulled_over_plain_http_from_loopback() {
    let case = case!(Userns, Registry);
    let registry = Registry::http(case.directory());
    let manifest = registry.add("app", "1", &image("pulled"));
    let name = format!("localhost:{}/app:1", registry.address.port());
    case.run(["pull", &name]).ok();
    which(&case, &name).ok().prints("pulled");
    let by_digest = format!("localhost:{}/app@{manifest}", registry.address.port());
    case.run(["pull", &by_digest]).ok();
    which(&case, &by_digest).ok().prints("pulled");
}

#[test]
fn an_insecure_registry_of_the_configuration_is_used() {
    let case = case!(Userns, Registry);
    let registry = Registry::http(case.directory());
    registry.add("deep/path/app", "tag", &image("configured"));
    allow_plain_http(&case, &registry.address.to_string());
    let name = format!("{}/deep/path/app:tag", registry.address);
    case.run(["pull", &name]).ok();
    which(&case, &name).ok().prints("configured");
}

#[test]
fn tls_is_verified_against_the_given_authority() {
    let case = case!(Userns, Registry, Openssl);
    let registry = Registry::tls(case.directory());
    registry.add("app", "1", &image("tls"));
    let host = format!("localhost:{}", registry.address.port());
    let name = format!("{host}/app:1");
    case.run(["pull", &name]).refused(125, "certificate");
    let given = case.make_dir("given");
    let cert_dir = format!("--cert-dir={}", given.display());
    case.run(["pull", &cert_dir, &name]).refused(125, "certificate");
    std::fs::copy(registry.authority.as_ref().unwrap(), given.join("ca.crt")).unwrap();
    case.run(["pull", &cert_dir, &name]).ok();
    case.run(["push", &cert_dir, &name]).ok();
    case.run(["rmi", &name]).ok();
    case.run(["pull", "--cert-dir", "/no/such/directory", &name]).refused(125, "/no/such/directory");
    // containers-certs.d(5).
    let certificates = case.home().join(".config/containers/certs.d").join(&host);
    std::fs::create_dir_all(&certificates).unwrap();
    std::fs::copy(registry.authority.as_ref().unwrap(), certificates.join("ca.crt")).unwrap();
    case.run(["pull", &name]).ok();
    which(&case, &name).ok().prints("tls");
}

#[test]
fn run_pulls_what_is_missing_and_never_means_never() {
    let case = case!(Userns, Registry);
    let registry = Registry::http(case.directory());
    registry.add("app", "1", &image("first"));
    let name = format!("localhost:{}/app:1", registry.address.port());
    let run = |pull: &str| case.run(["run", "--rm", "--network", "none", "--pull", pull, &name, "cat", "/etc/which"]);
    run("never").refused(125, &name);
    run("missing").ok().prints("first");
    registry_replace(&registry, &image("second"));
    run("missing").ok().prints("first");
    run("always").ok().prints("second");
    run("sometimes").code(125).complains("sometimes");
}

/// Moves the tag; links are written once, so the old ones go first.
fn registry_replace(registry: &Registry, image: &Image) {
    registry.remove_tag("app", "1");
    registry.add("app", "1", image);
}

#[test]
fn an_unknown_image_and_an_unknown_tag_are_told_apart_from_a_dead_registry() {
    let case = case!(Userns, Registry);
    let registry = Registry::http(case.directory());
    registry.add("app", "1", &image("x"));
    let host = format!("localhost:{}", registry.address.port());
    case.run(["pull", &format!("{host}/nothing:1")]).refused(125, "nothing");
    case.run(["pull", &format!("{host}/app:2")]).refused(125, "app:2");
    drop(registry);
    let out = case.run(["pull", &format!("{host}/app:1")]);
    out.refused(125, "connection refused");
}

#[test]
fn a_malformed_name_is_refused() {
    let case = case!(Userns);
    for name in ["UPPER/case:1", "a//b", "app:", "app@sha256:123", "app:tag with space", "-", &"x".repeat(5000)] {
        case.run(["pull", "--", name]).refused(125, "");
    }
}

/// Pulls from a registry that serves these replies; the store must be as before.
fn refused_pull(case: &Case, replies: HashMap<String, Reply>, why: &str) {
    let fake = FakeRegistry::serving(replies);
    let images = case.run(["images"]).ok().out();
    allow_plain_http(case, fake.reference().split('/').next().unwrap());
    case.run(["pull", &fake.reference()]).refused(125, why);
    assert_eq!(case.run(["images"]).ok().out(), images);
    case.in_base(["true"]).ok();
}

/// The path under which the largest blob, the first layer, is served.
fn largest(replies: &HashMap<String, Reply>) -> String {
    replies.iter().max_by_key(|(_, reply)| reply.body.len()).unwrap().0.clone()
}

#[test]
fn a_layer_with_other_bytes_is_refused() {
    let case = case!(Userns);
    let mut replies = FakeRegistry::replies(&image("x"));
    let path = largest(&replies);
    let body = &mut replies.get_mut(&path).unwrap().body;
    let last = body.len() - 1;
    body[last] ^= 1;
    refused_pull(&case, replies, "/app:1: blob: expected digest sha256:");
}

#[test]
fn a_layer_of_another_size_is_refused() {
    let case = case!(Userns);
    let mut replies = FakeRegistry::replies(&image("x"));
    let path = largest(&replies);
    replies.get_mut(&path).unwrap().body.extend_from_slice(&[0; 100_000]);
    refused_pull(&case, replies, "");
    let mut replies = FakeRegistry::replies(&image("x"));
    let path = largest(&replies);
    replies.get_mut(&path).unwrap().body.truncate(1000);
    refused_pull(&case, replies, "");
}

#[test]
fn a_connection_that_breaks_off_is_refused() {
    let case = case!(Userns);
    let mut replies = FakeRegistry::replies(&image("x"));
    let path = largest(&replies);
    let reply = replies.get_mut(&path).unwrap();
    reply.body.truncate(5000);
    reply.truncated = true;
    refused_pull(&case, replies, "");
}

#[test]
fn a_registry_that_keeps_less_than_it_promises_is_told() {
    let case = case!(Userns, Registry);
    let registry = Registry::http(case.directory());
    let image = image("cut short");
    let (_, blobs) = image.oci_manifest("+gzip", gzip);
    let largest = blobs.iter().max_by_key(|blob| blob.len()).unwrap();
    registry.store_blob(&digest(largest), &largest[..largest.len() / 2]);
    registry.add("short", "1", &image);
    let reference = format!("localhost:{}/short:1", registry.address.port());
    case.run(["pull", &reference]).refused(125, "less of a blob than the manifest says");
    case.run(["image", "exists", &reference]).code(1);
}

#[test]
fn a_manifest_that_is_not_the_digest_asked_for_is_refused() {
    let case = case!(Userns);
    let (wanted, _) = image("wanted").oci_manifest("+gzip", gzip);
    let mut replies = FakeRegistry::replies(&image("other"));
    let other = replies["/v2/app/manifests/1"].clone();
    let wanted = digest(&wanted);
    replies.insert(format!("/v2/app/manifests/{wanted}"), other);
    let fake = FakeRegistry::serving(replies);
    let host = fake.reference().split('/').next().unwrap().to_owned();
    allow_plain_http(&case, &host);
    case.run(["pull", &format!("{host}/app@{wanted}")]).refused(125, "sha256:");
}

#[test]
fn errors_and_nonsense_of_a_registry_are_told() {
    let case = case!(Userns);
    let with = |reply: Reply| {
        let mut replies = FakeRegistry::replies(&image("x"));
        replies.insert("/v2/app/manifests/1".to_owned(), reply);
        replies
    };
    let kind = "application/vnd.oci.image.manifest.v1+json";
    refused_pull(&case, with(Reply::ok(kind, "not json")), "");
    refused_pull(&case, with(Reply::ok(kind, "{}")), "");
    refused_pull(&case, with(Reply::ok(kind, vec![b' '; 64 << 20])), "");
    refused_pull(&case, with(Reply { status: 500, ..Reply::not_found() }), "500");
    refused_pull(&case, with(Reply { status: 401, ..Reply::not_found() }), "login");
    let itself = Reply {
        status: 302,
        headers: vec![("Location".to_owned(), "/v2/app/manifests/1".to_owned())],
        ..Reply::not_found()
    };
    refused_pull(&case, with(itself), "");
}

#[test]
fn memory_does_not_grow_with_a_layer() {
    let case = case!(Userns, Registry);
    let registry = Registry::http(case.directory());
    let (layer, limit) = (200 << 20, 96 << 20);
    let image = Image::new("localhost/long:1", Rootfs::new().file("zeroes", 0o644, vec![0; layer]));
    registry.add("long", "1", &image);
    let name = format!("localhost:{}/long:1", registry.address.port());
    // All that rlrun and the process that unpacks may allocate, each (setrlimit(2), RLIMIT_DATA): less than half of it.
    let limited = |words: &[&str]| {
        let data = format!("--data={limit}");
        let program = case.program().to_owned();
        let words = [&[data.as_str(), program.to_str().unwrap()], words].concat();
        case.invoke("/usr/bin/prlimit".as_ref()).args(words).run()
    };
    limited(&["pull", "-q", &name]).ok();
    let archive = case.make_dir("out").join("long.tar");
    limited(&["save", "-o", archive.to_str().unwrap(), &name]).ok();
    case.run(["rmi", &name]).ok();
    limited(&["load", "-q", "-i", archive.to_str().unwrap()]).ok();
    case.run(["system", "check", "-q"]).ok().prints("");
}

#[test]
fn memory_does_not_grow_with_the_number_of_layers_either() {
    let case = case!(Userns, Registry);
    let registry = Registry::http(case.directory());
    let mut image = Image::new("localhost/many:1", Rootfs::new().file("0", 0o644, "0"));
    for number in 1..=30 {
        image = image.layer(Rootfs::new().file(&number.to_string(), 0o644, vec![b'a' + number; 10 << 20]));
    }
    registry.add("many", "1", &image);
    let name = format!("localhost:{}/many:1", registry.address.port());
    // A third of what the layers are together (setrlimit(2), RLIMIT_DATA).
    let data = format!("--data={}", 96 << 20);
    let program = case.program().to_owned();
    let words = [data.as_str(), program.to_str().unwrap(), "pull", "-q", &name];
    case.invoke("/usr/bin/prlimit".as_ref()).args(words).run().ok();
    case.run(["system", "check"]).ok().says("extracted layers checked");
}

#[test]
fn a_redirect_to_the_hosts_files_is_not_followed() {
    let case = case!(Userns);
    let mut replies = FakeRegistry::replies(&image("x"));
    let path = largest(&replies);
    let headers = vec![("Location".to_owned(), "file:///etc/passwd".to_owned())];
    replies.insert(path, Reply { status: 302, headers, ..Reply::not_found() });
    refused_pull(&case, replies, "");
}
