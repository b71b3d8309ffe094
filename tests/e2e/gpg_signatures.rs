//! policy.json's `signedBy`: signatures that GnuPG made, as skopeo and podman keep them beside a registry.

use crate::signatures::accept_only;
use rlrun_tests::{Case, FileServer, Image, Registry, Reply, Rootfs, base_rootfs, case, digest, serve};
use serde_json::json;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A home of GnuPG's with keys, ended with the test.
struct Keys<'a> {
    case: &'a Case,
    home: PathBuf,
}

impl<'a> Keys<'a> {
    fn new(case: &'a Case) -> Self {
        let home = case.user().private_directory(&case.directory().join("gpg"));
        Keys { case, home }
    }

    fn command(&self, program: &str) -> Command {
        let mut command = self.case.user().command(program);
        command.env_clear().env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin").env("HOME", self.case.home());
        command.env("GNUPGHOME", &self.home).env("XDG_RUNTIME_DIR", self.case.make_dir("tools-run"));
        command
    }

    fn gpg(&self, words: &[&str], input: &[u8]) -> Vec<u8> {
        let mut command = self.command("gpg");
        command.args(["--batch", "--quiet", "--passphrase", "", "--pinentry-mode", "loopback"]).args(words);
        command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        checked(&format!("gpg {words:?}"), &child.wait_with_output().unwrap())
    }

    /// A key that signs; where its public half is.
    fn make(&self, name: &str, more: &[&str]) -> String {
        let address = format!("{name}@example.com");
        self.gpg(&[more, &["--quick-gen-key", &address, "ed25519", "sign", "1y"]].concat(), b"");
        let file = self.case.make_file(&format!("{name}.asc"), self.gpg(&["--armor", "--export", &address], b""));
        file.to_str().unwrap().to_owned()
    }

    /// A signed statement, as `skopeo standalone-sign` makes it.
    fn sign(&self, name: &str, (identity, manifest): (&str, &str), more: &[&str]) -> Vec<u8> {
        let statement = json!({
            "critical": {
                "type": "atomic container signature",
                "image": {"docker-manifest-digest": manifest},
                "identity": {"docker-reference": identity},
            },
            "optional": {"creator": "test"},
        });
        let user = format!("{name}@example.com");
        self.gpg(&[more, &["--sign", "-u", &user, "--output", "-"]].concat(), statement.to_string().as_bytes())
    }

    fn tool(&self, program: &str, words: &[&str]) -> Vec<u8> {
        let output = self.command(program).current_dir("/").args(words).output().unwrap();
        checked(&format!("{program} {words:?}"), &output)
    }
}

impl Drop for Keys<'_> {
    fn drop(&mut self) {
        drop(self.command("gpgconf").args(["--kill", "all"]).status());
    }
}

fn checked(what: &str, output: &Output) -> Vec<u8> {
    assert!(output.status.success(), "{what}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout.clone()
}

fn image(text: &str) -> Image {
    Image::new("unused:1", base_rootfs().clone()).layer(Rootfs::new().file("etc/which", 0o644, text))
}

/// registries.d of the user: where signatures are.
fn keep_signatures_at(case: &Case, url: &str) {
    let directory = case.home().join(".config/containers/registries.d");
    case.user().private_directory(&case.home().join(".config"));
    case.user().private_directory(&case.home().join(".config/containers"));
    case.user().private_directory(&directory);
    let path = directory.join("test.yaml");
    let text = format!("default-docker:\n  lookaside: {url}\n");
    std::fs::File::create(&path).unwrap().write_all(text.as_bytes()).unwrap();
    case.user().own(&path);
}

fn demand(keys: &[&str], identity: &serde_json::Value) -> serde_json::Value {
    match keys {
        [one] => json!({"type": "signedBy", "keyType": "GPGKeys", "keyPath": one, "signedIdentity": identity}),
        all => json!({"type": "signedBy", "keyType": "GPGKeys", "keyPaths": all, "signedIdentity": identity}),
    }
}

fn exact() -> serde_json::Value {
    json!({"type": "matchRepoDigestOrExact"})
}

/// The signatures of an image below a directory, replaced by these.
fn put_signatures(case: &Case, directory: &Path, (repository, manifest): (&str, &str), signatures: &[Vec<u8>]) {
    let place = directory.join(format!("{repository}@{}", manifest.replace(':', "=")));
    drop(std::fs::remove_dir_all(&place));
    std::fs::create_dir_all(&place).unwrap();
    for (number, bytes) in (1..).zip(signatures) {
        let path = place.join(format!("signature-{number}"));
        std::fs::File::create(&path).unwrap().write_all(bytes).unwrap();
        case.user().own(&path);
    }
    case.user().own(&place);
}

#[test]
fn what_skopeo_signs_comes_in_and_goes_on_with_its_signature() {
    let case = case!(Userns, Registry, Skopeo, Gpg);
    let keys = Keys::new(&case);
    let (right, wrong) = (keys.make("right", &[]), keys.make("wrong", &[]));
    let registry = Registry::http(case.directory());
    let host = format!("localhost:{}", registry.address.port());
    let name = format!("{host}/team/app:1");
    let kept = case.user().private_directory(&case.directory().join("kept"));
    keep_signatures_at(&case, &format!("file://{}", kept.display()));
    let archive = case.make_file("app.tar", image("signed").docker_archive().bytes());
    let (source, target) = (format!("docker-archive:{}", archive.display()), format!("docker://{name}"));
    let copy = ["copy", "-q", "--insecure-policy", "--dest-tls-verify=false", "--sign-by", "right@example.com"];
    accept_only(&case, &demand(&[&right], &exact()));
    keys.tool("skopeo", &["copy", "-q", "--insecure-policy", "--dest-tls-verify=false", &source, &target]);
    case.run(["pull", &name]).refused(125, "no GPG signature");
    case.run(["image", "exists", &name]).code(1);
    keys.tool("skopeo", &[&copy[..], &[&source, &target]].concat());
    case.run(["pull", &name]).ok();
    let fingerprint = String::from_utf8(keys.gpg(&["--with-colons", "--list-keys", "right@example.com"], b"")).unwrap();
    let fingerprint = fingerprint.lines().find_map(|line| line.strip_prefix("fpr:::::::::")).unwrap();
    let fingerprint = fingerprint.trim_end_matches(':');
    case.run(["image", "verify", &name]).ok().says(fingerprint).says(&name).says("gpg-key");
    accept_only(&case, &demand(&[&wrong], &exact()));
    case.run(["pull", &name]).refused(125, "accepted key");
    accept_only(&case, &demand(&[&wrong, &right], &exact()));
    case.run(["pull", &name]).ok();

    // On to another repository, and into a directory, as skopeo keeps it there.
    let manifest = case.run(["image", "inspect", "-f", "{{.Digest}}", &name]).ok().out().trim().to_owned();
    let second = format!("{host}/other:2");
    case.run(["push", &name, &second]).ok();
    case.run(["pull", &second]).refused(125, &format!("signature is for `{name}`"));
    let moved = json!({"type": "remapIdentity", "prefix": format!("{host}/other:2"), "signedPrefix": name});
    accept_only(&case, &demand(&[&right], &moved));
    case.run(["pull", &second]).ok();
    let out = case.make_dir("out");
    let directory = out.join("dir");
    case.run(["push", &name, &format!("dir:{}", directory.display())]).ok();
    let (document, signature) = (directory.join("manifest.json"), directory.join("signature-1"));
    let (document, signature) = (document.to_str().unwrap(), signature.to_str().unwrap());
    keys.tool("skopeo", &["standalone-verify", document, &name, fingerprint, signature]);
    let layout = format!("oci:{}", out.join("layout").display());
    case.run(["push", &name, &layout]).refused(125, "signatures").complains("--remove-signatures");
    case.run(["push", "--remove-signatures", &name, &layout]).ok();
    case.run(["save", "-o", out.join("a.tar").to_str().unwrap(), &name]).ok();
    case.run(["system", "check", "-q"]).ok().prints("");

    // From the directory into a store that has nothing.
    case.run(["rmi", "-f", &name, &second]).ok();
    let policy = |requirement: &serde_json::Value| {
        let path = case.home().join(".config/containers/policy.json");
        let text = json!({"default": [{"type": "reject"}], "transports": {"dir": {"": [requirement]}}});
        std::fs::File::create(path).unwrap().write_all(text.to_string().as_bytes()).unwrap();
    };
    let directory = format!("dir:{}", directory.display());
    policy(&demand(&[&right], &exact()));
    case.run(["pull", &directory]).refused(125, "signature is for");
    policy(&demand(&[&right], &json!({"type": "exactReference", "dockerReference": name})));
    case.run(["pull", &directory]).ok();
    assert!(case.run(["images", "--digests", "--format", "{{.Digest}}"]).ok().out().contains(&manifest));
}

#[test]
fn what_podman_signs_comes_in() {
    let case = case!(Userns, Registry, Podman, Gpg);
    let keys = Keys::new(&case);
    let right = keys.make("right", &[]);
    let registry = Registry::http(case.directory());
    let name = format!("localhost:{}/app:1", registry.address.port());
    let kept = case.user().private_directory(&case.directory().join("kept"));
    keep_signatures_at(&case, &format!("file://{}", kept.display()));
    accept_only(&case, &json!({"type": "insecureAcceptAnything"}));
    let archive = case.make_file("app.tar", image("signed").docker_archive().bytes());
    let root = case.make_dir("podman");
    case.user().own(&root);
    let (at, run) = (format!("--root={}/root", root.display()), format!("--runroot={}/run", root.display()));
    let podman = |words: &[&str]| {
        let flags = [&at, &run, "--storage-driver=vfs", "--cgroup-manager=cgroupfs", "--events-backend=file"];
        keys.tool("podman", &[&flags[..], words].concat())
    };
    let loaded = String::from_utf8(podman(&["load", "-q", "-i", archive.to_str().unwrap()])).unwrap();
    let loaded = loaded.rsplit_once(": ").unwrap().1.trim().to_owned();
    podman(&["push", "-q", "--tls-verify=false", "--sign-by", "right@example.com", &loaded, &name]);
    accept_only(&case, &demand(&[&right], &exact()));
    case.run(["pull", &name]).ok();
    case.run(["run", "--rm", "--network", "none", &name, "cat", "/etc/which"]).ok().prints("signed");
}

#[test]
fn signatures_that_do_not_hold_are_refused() {
    let case = case!(Userns, Registry, Gpg);
    let keys = Keys::new(&case);
    let (right, wrong) = (keys.make("right", &[]), keys.make("wrong", &[]));
    let past = ["--faked-system-time", "20200101T000000"];
    let (old, second) = (keys.make("old", &past), keys.make("second", &[]));
    let registry = Registry::http(case.directory());
    let host = format!("localhost:{}", registry.address.port());
    let (name, other) = (format!("{host}/app:1"), digest(b"other"));
    let manifest = registry.add("app", "1", &image("x"));
    let kept = case.user().private_directory(&case.directory().join("kept"));
    keep_signatures_at(&case, &format!("file://{}", kept.display()));
    let about = (name.as_str(), manifest.as_str());
    let good = keys.sign("right", about, &[]);
    let damaged = {
        let mut bytes = good.clone();
        let at = bytes.len() - 20;
        bytes[at] ^= 1;
        bytes
    };
    let bomb = keys.gpg(&["--sign", "-u", "right@example.com", "--output", "-"], &vec![b' '; 50 << 20]);
    assert!(bomb.len() < 200_000, "{}", bomb.len());
    let detached = keys.gpg(&["--detach-sign", "-u", "right@example.com", "--output", "-"], b"{}");
    let clear = keys.gpg(&["--clear-sign", "-u", "right@example.com", "--output", "-"], b"{}");
    let twice = keys.gpg(&["--sign", "-u", "right@example.com", "-u", "second@example.com", "--output", "-"], b"{}");
    let bad: Vec<(Vec<u8>, &str)> = vec![
        (keys.sign("wrong", about, &[]), "accepted key"),
        (keys.sign("old", about, &past), "has expired"),
        (keys.sign("right", about, &["--digest-algo", "SHA1"]), ""),
        (keys.sign("right", (&name, &other), &[]), "another image"),
        (keys.sign("right", (&format!("{host}/app:2"), &manifest), &[]), "app:2"),
        (keys.sign("right", ("", &manifest), &[]), "signature is for"),
        (damaged, ""),
        (good[..good.len() / 2].to_vec(), ""),
        (b"no signature".to_vec(), ""),
        (Vec::new(), ""),
        (vec![0xff; 8 << 20], "no GPG signature"),
        (bomb, "too long"),
        (detached, ""),
        (clear, ""),
        (twice, ""),
    ];
    accept_only(&case, &demand(&[&right, &old, &second], &exact()));
    for (number, (signature, why)) in bad.iter().enumerate() {
        put_signatures(&case, &kept, ("app", &manifest), std::slice::from_ref(signature));
        let pulled = case.run(["pull", &name]);
        assert!(pulled.err().contains(why), "{number}: {}", pulled.err());
        pulled.refused(125, "");
        case.run(["image", "exists", &name]).code(1);
    }
    // One that holds is enough, wherever it stands.
    let all: Vec<Vec<u8>> = bad.into_iter().map(|(signature, _)| signature).chain([good]).collect();
    put_signatures(&case, &kept, ("app", &manifest), &all);
    case.run(["pull", &name]).ok();
    accept_only(&case, &demand(&[&wrong], &exact()));
    case.run(["pull", &name]).ok();
    accept_only(&case, &demand(&[&case.make_file("none.asc", "no key").display().to_string()], &exact()));
    case.run(["pull", &name]).refused(125, "no OpenPGP key");
}

/// A server with these files, which says what it was asked for.
fn web(files: Vec<(String, Vec<u8>)>) -> FileServer {
    serve(Ipv4Addr::LOCALHOST.into(), move |_, path| {
        let found = files.iter().find(|(name, _)| name == path);
        found.map_or_else(Reply::not_found, |(_, bytes)| Reply::ok("application/octet-stream", bytes.clone()))
    })
}

#[test]
fn signatures_are_read_from_a_web_server_and_from_where_other_tools_keep_them() {
    let case = case!(Userns, Registry, Gpg);
    let keys = Keys::new(&case);
    let right = keys.make("right", &[]);
    let registry = Registry::http(case.directory());
    let host = format!("localhost:{}", registry.address.port());
    let name = format!("{host}/team/app:1");
    let manifest = registry.add("team/app", "1", &image("x"));
    let good = keys.sign("right", (&name, &manifest), &[]);
    accept_only(&case, &demand(&[&right], &exact()));
    let path = format!("/sig/team/app@{}/signature-", manifest.replace(':', "="));
    let server = web(vec![(format!("{path}1"), b"nothing".to_vec()), (format!("{path}2"), good.clone())]);
    keep_signatures_at(&case, &format!("http://{}/sig/", server.address));
    case.run(["pull", &name]).ok();
    // Nobody writes there.
    case.run(["push", &name, &format!("{host}/else:1")]).refused(125, "lookaside-staging");
    case.run(["push", "--remove-signatures", &name, &format!("{host}/else:1")]).ok();
    case.run(["rmi", &name]).ok();
    let broken = serve(Ipv4Addr::LOCALHOST.into(), |_, _| Reply { status: 403, ..Reply::not_found() });
    keep_signatures_at(&case, &format!("http://{}/sig", broken.address));
    case.run(["pull", &name]).refused(125, "403");
    keep_signatures_at(&case, "sftp://x/y");
    case.run(["pull", &name]).refused(125, "sftp://x/y");
    std::fs::remove_dir_all(case.home().join(".config/containers/registries.d")).unwrap();
    case.run(["pull", &name]).refused(125, "no GPG signature");
    let usual = case.home().join(".local/share/containers/sigstore");
    put_signatures(&case, &usual, ("team/app", &manifest), &[good]);
    case.run(["pull", &name]).ok();
}
