//! What rlrun writes, other tools read, and the other way round, with the same digests.

use rlrun_tests::{Case, Image, Output, Registry, Reply, Rootfs, base_rootfs, case};
use std::net::Ipv4Addr;
use std::path::Path;

fn load(case: &Case, name: &str, text: &str) {
    case.load(&Image::new(name, base_rootfs().clone()).layer(Rootfs::new().file("etc/which", 0o644, text)));
}

fn which(case: &Case, name: &str) -> Output {
    case.run(["run", "--rm", "--network", "none", "--pull", "never", name, "cat", "/etc/which"])
}

fn field(case: &Case, name: &str, field: &str) -> String {
    case.run(["image", "inspect", "-f", &format!("{{{{.{field}}}}}"), name]).ok().out().trim().to_owned()
}

/// Runs another tool as the test's user; gives back what it prints.
fn tool(case: &Case, program: &str, words: &[&str]) -> String {
    let mut command = case.user().command(program);
    command.args(words).env("HOME", case.home()).env("TMPDIR", case.make_dir("tmp")).current_dir("/");
    command.env("XDG_RUNTIME_DIR", case.make_dir("tools-run"));
    let output = command.output().unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {words:?}: {err}");
    String::from_utf8(output.stdout).unwrap()
}

fn skopeo(case: &Case, words: &[&str]) -> String {
    tool(case, "skopeo", &[&["--insecure-policy"], words].concat())
}

/// The digest of the manifest as skopeo sees it.
fn seen_by_skopeo(case: &Case, place: &str) -> String {
    skopeo(case, &["inspect", "--tls-verify=false", "--format", "{{.Digest}}", place]).trim().to_owned()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn what_is_saved_comes_back_as_it_was() {
    let case = case!(Userns);
    load(&case, "localhost/app:1", "saved");
    let out = case.make_dir("out");
    let (id, digest) = (field(&case, "localhost/app:1", "Id"), field(&case, "localhost/app:1", "Digest"));
    for format in ["docker-archive", "oci-archive", "oci-dir", "docker-dir"] {
        let file = out.join(format);
        case.run(["save", "--format", format, "-o", text(&file), "localhost/app:1"]).ok().prints("");
        case.run(["rmi", "localhost/app:1"]).ok();
        let loaded = case.run(["load", "-i", text(&file)]).ok().out();
        // A dir: knows no names.
        let name = if format == "docker-dir" { &id } else { "localhost/app:1" };
        assert!(loaded.contains(name), "{format}: {loaded}");
        assert_eq!(field(&case, name, "Id"), id, "{format}");
        if format != "docker-archive" {
            assert_eq!(field(&case, name, "Digest"), digest, "{format}");
        }
        which(&case, name).ok().prints("saved");
        case.run(["tag", name, "localhost/app:1"]).ok();
    }
}

#[test]
fn saving_refuses_what_it_cannot_do() {
    let case = case!(Userns);
    load(&case, "localhost/app:1", "x");
    let out = case.make_dir("out");
    case.make_file("out/there", "x");
    case.run(["save", "--format", "oci-dir", "-o", text(&out), "localhost/app:1"]).refused(125, "not empty");
    case.run(["save", "--format", "oci-dir", "localhost/app:1"]).refused(125, "--output");
    case.run(["save", "--compress", "localhost/app:1"]).refused(125, "--compress");
    case.run(["save", "-o", text(&out.join("x.tar")), "localhost/nothing:1"]).refused(125, "localhost/nothing:1");
    assert!(!out.join("x.tar").exists());
    case.run(["save", "-o", "/proc/x.tar", "localhost/app:1"]).refused(125, "/proc/x.tar");
    let names: Vec<_> = std::fs::read_dir(&out).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["there"]);
}

#[test]
fn several_images_fit_into_one_archive_and_through_a_pipe() {
    let case = case!(Userns);
    load(&case, "localhost/a:1", "a");
    load(&case, "localhost/b:1", "b");
    let archive = case.run(["save", "-m", "localhost/a:1", "localhost/b:1"]).ok().stdout.clone();
    let named = case.run(["save", "localhost/a:1", "localhost/c:1"]).ok().stdout.clone();
    case.run(["rmi", "localhost/a:1", "localhost/b:1"]).ok();
    case.rlrun(["load"]).stdin(archive).run().ok();
    which(&case, "localhost/a:1").ok().prints("a");
    which(&case, "localhost/b:1").ok().prints("b");
    case.rlrun(["load"]).stdin(named).run().ok().says("localhost/c:1");
    which(&case, "localhost/c:1").ok().prints("a");
}

#[test]
fn skopeo_and_umoci_read_what_is_saved() {
    let case = case!(Userns, Skopeo);
    load(&case, "localhost/app:1", "saved");
    let out = case.make_dir("out");
    let (id, digest) = (field(&case, "localhost/app:1", "Id"), field(&case, "localhost/app:1", "Digest"));
    for (format, transport) in [
        ("docker-archive", "docker-archive"),
        ("oci-archive", "oci-archive"),
        ("oci-dir", "oci"),
        ("docker-dir", "dir"),
    ] {
        let file = out.join(format);
        case.run(["save", "--format", format, "-o", text(&file), "localhost/app:1"]).ok();
        let place = format!("{transport}:{}", file.display());
        let copy = out.join(format!("{format}.copy"));
        skopeo(&case, &["copy", "-q", &place, &format!("dir:{}", copy.display())]);
        let manifest = std::fs::read(copy.join("manifest.json")).unwrap();
        assert!(String::from_utf8_lossy(&manifest).contains(&id), "{format}: another configuration");
        if format != "docker-archive" {
            assert_eq!(rlrun_tests::digest(&manifest), digest, "{format}");
        }
    }
    let layout = out.join("layout");
    case.run(["push", "localhost/app:1", &format!("oci:{}:latest", layout.display())]).ok();
    let bundle = out.join("bundle");
    tool(&case, "umoci", &["unpack", "--rootless", "--image", &format!("{}:latest", layout.display()), text(&bundle)]);
    assert_eq!(std::fs::read_to_string(bundle.join("rootfs/etc/which")).unwrap(), "saved");
}

#[test]
fn podman_reads_what_is_saved_and_writes_what_is_loaded() {
    let case = case!(Userns, Subid, Podman);
    load(&case, "localhost/app:1", "x");
    let out = case.make_dir("out");
    let id = field(&case, "localhost/app:1", "Id");
    let (root, run) = (out.join("root"), out.join("run"));
    let podman = |words: &[&str]| {
        let store = ["--root", text(&root), "--runroot", text(&run), "--storage-driver", "vfs", "--cgroup-manager"];
        tool(&case, "podman", &[&store[..], &["cgroupfs", "--events-backend", "file"], words].concat())
    };
    for format in ["docker-archive", "oci-archive"] {
        let file = out.join(format);
        case.run(["save", "--format", format, "-o", text(&file), "localhost/app:1"]).ok();
        podman(&["load", "-q", "-i", text(&file)]);
        assert_eq!(podman(&["image", "inspect", "--format", "{{.Id}}", "localhost/app:1"]).trim(), id, "{format}");
        let theirs = out.join(format!("podman-{format}"));
        podman(&["save", "-q", "--format", format, "-o", text(&theirs), "localhost/app:1"]);
        case.run(["rmi", "localhost/app:1"]).ok();
        case.run(["load", "-i", text(&theirs)]).ok().says("localhost/app:1");
        assert_eq!(field(&case, "localhost/app:1", "Id"), id, "{format}");
        which(&case, "localhost/app:1").ok().prints("x");
    }
}

#[test]
fn images_go_to_a_registry_and_come_back_with_their_digests() {
    let case = case!(Userns, Registry, Skopeo);
    let registry = Registry::http(case.directory());
    let host = format!("localhost:{}", registry.address.port());
    load(&case, "localhost/app:1", "pushed");
    let digest = field(&case, "localhost/app:1", "Digest");
    let (first, second) = (format!("{host}/app:1"), format!("{host}/team/other:2"));
    let digestfile = case.make_dir("out").join("digest");
    case.run(["push", "--digestfile", text(&digestfile), "localhost/app:1", &first]).ok().prints("");
    assert_eq!(std::fs::read_to_string(&digestfile).unwrap(), digest);
    assert_eq!(seen_by_skopeo(&case, &format!("docker://{first}")), digest);
    // The name alone says where to; its layers are in another repository of the registry by now.
    case.run(["tag", "localhost/app:1", &first, &second]).ok();
    case.run(["push", &second]).ok();
    case.run(["push", &second]).ok();
    assert_eq!(seen_by_skopeo(&case, &format!("docker://{second}")), digest);
    case.run(["rmi", "-f", &field(&case, &first, "Id")]).ok();
    case.run(["pull", "-q", &format!("docker://{second}")]).ok();
    assert_eq!(field(&case, &second, "Digest"), digest);
    which(&case, &second).ok().prints("pushed");
    // What skopeo puts there has the digest that skopeo says.
    let third = format!("{host}/skopeo:1");
    let copy = ["copy", "-q", "--dest-tls-verify=false", "--src-tls-verify=false", "--format", "v2s2"];
    skopeo(&case, &[&copy[..], &[&format!("docker://{first}"), &format!("docker://{third}")]].concat());
    case.run(["pull", &third]).ok();
    assert_eq!(field(&case, &third, "Digest"), seen_by_skopeo(&case, &format!("docker://{third}")));
    // A manifest of docker's types becomes one of OCI's where only those are read.
    let layout = case.directory().join("out/layout");
    case.run(["push", &third, &format!("oci:{}:x", layout.display())]).ok();
    skopeo(&case, &["copy", "-q", &format!("oci:{}:x", layout.display()), &format!("dir:{}.dir", layout.display())]);
}

/// What is asked for is made, read by the tools that know it, and is the same image for all that.
#[test]
fn an_image_is_pushed_in_another_form_and_compression() {
    let case = case!(Userns, Registry, Skopeo);
    let registry = Registry::http(case.directory());
    let host = format!("localhost:{}", registry.address.port());
    load(&case, "localhost/app:1", "changed");
    let (id, digest) = (field(&case, "localhost/app:1", "Id"), field(&case, "localhost/app:1", "Digest"));
    let out = case.make_dir("out");
    for (tag, words, manifest_type, layer_type) in [
        ("zstd", &["--compression-format", "zstd", "--compression-level", "1"][..], "oci.image", "v1.tar+zstd"),
        ("gzip", &["--compression-format=gzip"], "oci.image", "v1.tar+gzip"),
        ("docker", &["--format", "v2s2"], "docker.distribution", "diff.tar"),
        ("both", &["-f", "v2s2", "--compression-format", "gzip"], "docker.distribution", "diff.tar.gzip"),
    ] {
        let to = format!("{host}/app:{tag}");
        let digestfile = out.join(format!("{tag}.digest"));
        let push = [&["push", "--digestfile", text(&digestfile)], words, &["localhost/app:1", &to]].concat();
        case.run(push).ok().prints("");
        assert_ne!(std::fs::read_to_string(&digestfile).unwrap(), digest, "{tag}");
        let copy = out.join(tag);
        let place = format!("docker://{to}");
        skopeo(&case, &["copy", "-q", "--src-tls-verify=false", &place, &format!("dir:{}", copy.display())]);
        let bytes = std::fs::read(copy.join("manifest.json")).unwrap();
        assert_eq!(rlrun_tests::digest(&bytes), std::fs::read_to_string(&digestfile).unwrap());
        let manifest: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        assert!(manifest["mediaType"].as_str().unwrap().contains(manifest_type), "{tag}: {manifest}");
        for layer in manifest["layers"].as_array().unwrap() {
            assert!(layer["mediaType"].as_str().unwrap().ends_with(layer_type), "{tag}: {manifest}");
        }
        case.run(["pull", "-q", &to]).ok();
        assert_eq!(field(&case, &to, "Id"), id, "{tag}");
        which(&case, &to).ok().prints("changed");
    }
    // What is compressed already stays, and docker has no name for zstd.
    let zstd = format!("{host}/app:zstd");
    case.run(["rmi", "-f", &id]).ok();
    case.run(["pull", "-q", &zstd]).ok();
    case.run(["push", "--compression-format", "zstd", &zstd, &format!("{host}/again:1")]).ok();
    assert_eq!(seen_by_skopeo(&case, &format!("docker://{host}/again:1")), field(&case, &zstd, "Digest"));
    case.run(["push", "--format", "v2s2", &zstd, &format!("{host}/no:1")]).refused(125, "--compression-format gzip");
    case.run(["push", "--format=v2s2", "--compression-format=gzip", &zstd, &format!("{host}/yes:1")]).ok();
    case.run(["system", "check"]).ok();
    assert_eq!(std::fs::read_dir(case.home().join(".local/share/rlrun/tmp")).unwrap().count(), 0);
}

/// Registries have the manifest, its publisher has the layer, and archives have both.
#[test]
fn a_foreign_layer_comes_from_its_publisher_and_goes_to_no_registry() {
    let case = case!(Userns, Registry, Skopeo);
    let registry = Registry::with_foreign_layers(case.directory());
    let (host, out) = (format!("localhost:{}", registry.address.port()), case.make_dir("out"));
    let image = Image::new("unused:1", base_rootfs().clone()).layer(Rootfs::new().file("etc/which", 0o644, "his"));
    let (manifest, blobs) = image.oci_manifest("+gzip", rlrun_tests::gzip);
    let (layer, distributed) = blobs.split_last().unwrap();
    let (hex, layer) = (rlrun_tests::digest(layer).replace("sha256:", ""), layer.clone());
    let publisher = rlrun_tests::serve(Ipv4Addr::LOCALHOST.into(), move |_, path| match path {
        "/layer" => Reply::ok("application/gzip", layer.clone()),
        _ => Reply::not_found(),
    });
    let mut manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    let top = manifest["layers"].as_array_mut().unwrap().last_mut().unwrap();
    top["mediaType"] = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip".into();
    top["urls"] = serde_json::json!([format!("http://{}/layer", publisher.address)]);
    let distributed: Vec<&[u8]> = distributed.iter().map(Vec::as_slice).collect();
    let digest = registry.add_manifest("app", "1", manifest.to_string().as_bytes(), &distributed);
    let (first, second) = (format!("{host}/app:1"), format!("{host}/other:1"));
    case.run(["pull", "-q", &first]).ok();
    which(&case, &first).ok().prints("his");
    case.run(["push", &first, &second]).ok();
    assert_eq!(seen_by_skopeo(&case, &format!("docker://{second}")), digest);
    let there = case.directory().join("registry/docker/registry/v2/blobs/sha256").join(&hex[..2]).join(&hex);
    assert!(!there.exists(), "the layer is its publisher's");
    let copy = ["copy", "-q", "--src-tls-verify=false"];
    skopeo(
        &case,
        &[&copy[..], &[&format!("docker://{second}"), &format!("dir:{}", out.join("dir").display())]].concat(),
    );
    for format in ["docker-archive", "oci-archive", "oci-dir"] {
        let file = out.join(format);
        case.run(["save", "--format", format, "-o", text(&file), &first]).ok();
        case.run(["rmi", "-a", "-f"]).ok();
        let loaded = case.run(["load", "-i", text(&file)]).ok().out();
        let name = loaded.trim().trim_start_matches("Loaded image: ");
        which(&case, name).ok().prints("his");
        if format != "docker-archive" {
            assert_eq!(field(&case, name, "Digest"), digest, "{format}");
        }
        case.run(["rmi", "-a", "-f"]).ok();
        case.run(["pull", "-q", &first]).ok();
    }
    // What another tool leaves out of a layout is not made up.
    let layout = out.join("theirs");
    skopeo(&case, &[&copy[..], &[&format!("docker://{second}"), &format!("oci:{}:x", layout.display())]].concat());
    case.run(["rmi", "-a", "-f"]).ok();
    case.run(["pull", &format!("oci:{}:x", layout.display())]).refused(125, "only its publisher distributes it");
}

#[test]
fn images_go_to_a_registry_over_tls() {
    let case = case!(Userns, Registry, Openssl);
    let registry = Registry::tls(case.directory());
    let name = format!("localhost:{}/app:1", registry.address.port());
    load(&case, &name, "tls");
    case.run(["push", &name]).refused(125, "certificate").complains("push the image");
    case.run(["push", "--tls-verify=false", &name]).ok();
    case.run(["rmi", &name]).ok();
    case.run(["pull", "--tls-verify=false", &name]).ok();
    which(&case, &name).ok().prints("tls");
}

#[test]
fn pulling_knows_policies_tags_and_files() {
    let case = case!(Userns, Registry);
    let registry = Registry::http(case.directory());
    let host = format!("localhost:{}", registry.address.port());
    load(&case, "localhost/app:1", "x");
    for tag in ["one", "two"] {
        case.run(["push", "localhost/app:1", &format!("{host}/app:{tag}")]).ok();
    }
    let id = field(&case, "localhost/app:1", "Id");
    case.run(["pull", "--policy", "never", &format!("{host}/app:one")]).refused(125, "app:one");
    case.run(["pull", "-a", &format!("{host}/app")]).ok().prints(&format!("{id}\n{id}"));
    case.run(["image", "exists", &format!("{host}/app:two")]).ok();
    // One that is not there keeps the others from nothing.
    let several = case.run(["pull", "-q", &format!("{host}/nothing:1"), &format!("{host}/app:two")]);
    several.code(125).complains("nothing:1").prints(&id);
    case.run(["pull", "-a", &format!("{host}/app:one")]).refused(125, "app:one");
    case.run(["search", &format!("{host}/ap")]).ok().prints(&format!("NAME\n{host}/app"));
    case.run(["search", "--format", "{{.Name}}", &format!("{host}/zz")]).ok().prints("");
    case.run(["search", "--list-tags", "--format", "{{.Tag}}", &format!("{host}/app")]).ok().prints("one\ntwo");
    drop(registry);
    case.run(["pull", "--policy", "missing", &format!("{host}/app:one")]).ok().prints(&id);
    case.run(["pull", "--policy", "newer", &format!("{host}/app:one")]).ok().complains("used as it is");
    case.run(["pull", &format!("{host}/app:one")]).refused(125, "connection refused");

    let out = case.make_dir("out");
    let (archive, layout) = (out.join("a.tar"), out.join("layout"));
    case.run(["save", "-o", text(&archive), "localhost/app:1"]).ok();
    case.run(["push", "localhost/app:1", &format!("oci:{}:v1", layout.display())]).ok();
    case.run(["rmi", "-f", &id]).ok();
    let run = |image: &str| case.run(["run", "--rm", "--network", "none", image, "cat", "/etc/which"]);
    run(&format!("docker-archive:{}", archive.display())).ok().prints("x");
    case.run(["rmi", "-f", &id]).ok();
    run(&format!("oci:{}:v1", layout.display())).ok().prints("x");
    run(&format!("oci:{}:v2", layout.display())).refused(125, "v2");
    // A tag is no name: the image is called as its directory is.
    case.run(["rmi", "-f", &id]).ok();
    case.rlrun(["pull", "oci:layout:v1"]).in_directory(&out).run().ok();
    case.run(["image", "exists", "localhost/layout:latest"]).ok();
    case.run(["image", "exists", "localhost/v1:latest"]).code(1);
    case.run(["rmi", "-f", &id]).ok();
    case.rlrun(["load", "-i", "layout"]).in_directory(&out).run().ok().says("localhost/layout:latest");
    // An archive that is there stays as it is, as with podman; an empty file is written to.
    case.run(["save", "-o", text(&archive), &id]).refused(125, "a docker-archive is not changed");
    std::fs::File::create(&archive).unwrap();
    case.user().own(&archive);
    case.run(["save", "-o", text(&archive), &id]).ok();
    run("oci:/no/such/layout").refused(125, "/no/such/layout");
    run("containers-storage:app").refused(125, "containers-storage");
}

#[test]
fn a_registry_that_asks_who_is_there_is_told() {
    let case = case!(Userns, Registry);
    let registry = Registry::guarded(case.directory());
    let host = format!("localhost:{}", registry.address.port());
    let name = format!("{host}/app:1");
    load(&case, &name, "guarded");
    let authfile = case.make_dir("auth").join("auth.json");
    let file = ["--authfile", text(&authfile)];
    let login = |password: &str| {
        let words = ["login", "-u", "tester", "--password-stdin", "--authfile", text(&authfile), &host];
        case.rlrun(words).stdin(format!("{password}\n")).run()
    };
    case.run([&["push"], &file[..], &[&name]].concat()).code(125);
    login("wrong").refused(125, &host);
    assert!(!authfile.exists());
    login("secret").ok().prints("Login Succeeded!");
    // containers-auth.json(5): base64 of tester:secret.
    let written = std::fs::read_to_string(&authfile).unwrap();
    let written: serde_json::Value = serde_json::from_str(&written).unwrap();
    assert_eq!(written["auths"][&host]["auth"], "dGVzdGVyOnNlY3JldA==");
    case.run([&["login", "--get-login"], &file[..], &[&host]].concat()).ok().prints("tester");
    case.run([&["push"], &file[..], &[&name]].concat()).ok();
    case.run(["rmi", &name]).ok();
    case.run(["pull", "--creds", "tester:wrong", &name]).refused(125, &name);
    case.run(["pull", "--creds", "tester:secret", &name]).ok();
    case.run([&["logout"], &file[..], &[&host]].concat()).ok().says(&host);
    case.run([&["logout"], &file[..], &[&host]].concat()).refused(125, &host);
    case.run([&["pull"], &file[..], &[&name]].concat()).refused(125, "login");
}

#[test]
fn a_credential_helper_is_asked() {
    let case = case!(Userns, Registry);
    let registry = Registry::guarded(case.directory());
    let host = format!("localhost:{}", registry.address.port());
    let name = format!("{host}/app:1");
    load(&case, &name, "helped");
    let bin = case.make_dir("bin");
    let helper = case.make_file(
        "bin/docker-credential-test",
        "#!/bin/sh\nread -r server\necho '{\"ServerURL\":\"'$server'\",\"Username\":\"tester\",\"Secret\":\"secret\"}'\n",
    );
    std::fs::set_permissions(&helper, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let authfile = case.make_file("auth.json", format!(r#"{{"credHelpers":{{"{host}":"test"}}}}"#));
    let path = format!("{}:/usr/bin:/bin:/usr/sbin:/sbin", bin.display());
    let push = |file: &Path| case.rlrun(["push", "--authfile", text(file), &name]).env("PATH", &path).run();
    push(&authfile).ok();
    let missing = case.make_file("missing.json", format!(r#"{{"credHelpers":{{"{host}":"nothing"}}}}"#));
    push(&missing).refused(125, "docker-credential-nothing");
    let hostile = case.make_file("hostile.json", format!(r#"{{"credHelpers":{{"{host}":"x/../../bin/sh"}}}}"#));
    push(&hostile).refused(125, "no name of a credential helper");
}
