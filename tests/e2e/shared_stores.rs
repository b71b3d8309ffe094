//! A store that one user shares and another one reads.

use crate::userns::Guest;
use rlrun_tests::{BASE, Case, Image, Rootfs, base_rootfs, case};
use std::io::Write as _;
use std::path::{Path, PathBuf};

fn image(name: &str, text: &str) -> Image {
    Image::new(name, base_rootfs().clone()).layer(Rootfs::new().file("etc/own", 0o644, text))
}

fn write(case: &Case, path: &Path, text: &str) {
    std::fs::File::create(path).unwrap().write_all(text.as_bytes()).unwrap();
    case.user().own(path);
}

fn use_store(case: &Case, store: &Path) {
    let config = case.home().join(".config/rlrun");
    case.user().private_directory(&case.home().join(".config"));
    case.user().private_directory(&config);
    write(case, &config.join("images.toml"), &format!("additional-stores = [\"{}\"]\n", store.display()));
}

/// The file of the store's record of an image.
fn record(store: &Path, name: &str) -> PathBuf {
    let link = store.join("refs").join(name.replace('/', "+"));
    std::fs::canonicalize(link).unwrap()
}

/// Replaces a file with something else that the owner of the store may put there.
fn replaced(path: &Path, with: &dyn Fn(&Path), check: &dyn Fn()) {
    let aside = path.with_extension("aside");
    std::fs::rename(path, &aside).unwrap();
    with(path);
    check();
    std::fs::remove_file(path).unwrap();
    std::fs::rename(aside, path).unwrap();
}

fn pipe(path: &Path) {
    nix::unistd::mkfifo(path, nix::sys::stat::Mode::from_bits_truncate(0o644)).unwrap();
}

fn zeroes(path: &Path) {
    std::os::unix::fs::symlink("/dev/zero", path).unwrap();
}

fn nonsense(path: &Path) {
    std::fs::File::create(path).unwrap().write_all(b"{\"version\":1,\"manifest\":[[[").unwrap();
}

fn long(path: &Path) {
    std::fs::File::create(path).unwrap().set_len(1 << 40).unwrap();
}

#[test]
fn another_user_reads_it_and_can_neither_change_it_nor_be_hurt_by_it() {
    let owner = case!(Userns, Subid, Root);
    let guest = Guest::new("USER:70000000:65536\n");
    let reader = guest.empty_case();
    let store = owner.make_dir("shared");
    let there = |words: &[&str]| owner.rlrun(words).env("RLRUN_DATA_HOME", &store).run();
    let load = |name: &str, text: &str| {
        let archive = owner.make_file(&format!("{text}.tar"), image(name, text).docker_archive().bytes());
        there(&["load", "-q", "-i", archive.to_str().unwrap()]).ok();
    };
    load("localhost/first:1", "one");
    there(&["system", "share"]).ok();
    // What comes later is shared too.
    load("localhost/second:1", "two");
    use_store(&reader, &store);
    let listed = || reader.run(["images", "--format", "{{.Repository}} {{.ReadOnly}}"]).ok().out();
    assert_eq!(listed(), "localhost/first true\nlocalhost/second true\n");
    let run = |name: &str| reader.run(["run", "--rm", "--network", "none", "--pull", "never", name, "cat", "/etc/own"]);
    run("localhost/first:1").ok().prints("one");

    // Everything that reads an image finds it there.
    let out = reader.make_dir("out");
    reader.run(["save", "-o", out.join("a.tar").to_str().unwrap(), "localhost/second:1"]).ok();
    reader.run(["load", "-q", "-i", out.join("a.tar").to_str().unwrap()]).ok();
    reader.run(["rmi", "localhost/second:1"]).ok();
    reader.run(["push", "localhost/second:1", &format!("dir:{}", out.join("dir").display())]).ok();
    reader.run(["rmi", "localhost/second:1"]).ok();
    reader.run(["tag", "localhost/second:1", "localhost/mine:1"]).ok();
    run("localhost/mine:1").ok().prints("two");
    reader.run(["rmi", "-f", "localhost/mine:1", "localhost/second:1"]).ok();
    reader.run(["create", "--name", "base", "--network", "none", "localhost/second:1", "true"]).ok();
    reader.run(["commit", "-q", "base", "localhost/committed:1"]).ok();
    run("localhost/committed:1").ok().prints("two");
    reader.run(["rm", "base"]).ok();

    // Whoever reads cannot write.
    let attempt = |script: &str| {
        let mut command = reader.user().command("sh");
        let ended = command.args(["-c", script, "sh"]).arg(&store).stderr(std::process::Stdio::null()).status();
        assert!(!ended.unwrap().success(), "{script}");
    };
    for script in [
        "touch $1/x",
        "touch $1/refs/x",
        "ln -s ../images/x $1/refs/x",
        "echo > $1/images/x",
        "for f in $1/images/*; do echo >> $f && exit; done; exit 1",
        "for f in $1/blobs/sha256/*; do echo >> $f && exit; done; exit 1",
        "rm -f $1/refs/* 2>/dev/null; rm -r $1/blobs && exit; exit 1",
        "ls $1/layers",
        "ls $1",
    ] {
        attempt(script);
    }
    reader.rlrun(["rmi", "localhost/first:1"]).env("RLRUN_DATA_HOME", &store).run().code(125);
    there(&["system", "check", "-q"]).ok().prints("");
    assert_eq!(there(&["images", "-q"]).ok().out().lines().count(), 2);

    // What its owner may put there keeps nobody from his own images, and nobody waiting.
    let archive = reader.make_file("own.tar", image(BASE, "mine").docker_archive().bytes());
    reader.run(["load", "-q", "-i", archive.to_str().unwrap()]).ok();
    reader.run(["rmi", "-f", "localhost/committed:1", "localhost/first:1", "localhost/second:1"]).ok();
    let second = record(&store, "localhost/second:1");
    for with in [&pipe as &dyn Fn(&Path), &zeroes, &nonsense, &long] {
        replaced(&second, with, &|| {
            let seen = listed();
            assert!(seen.contains("localhost/first true") && !seen.contains("second"), "{seen}");
            run(BASE).ok().prints("mine");
            run("localhost/second:1").refused(125, "");
        });
    }
    let manifest = {
        let name = second.file_name().unwrap().to_str().unwrap().to_owned();
        store.join("blobs/sha256").join(name.split_once('.').unwrap().1)
    };
    for with in [&pipe as &dyn Fn(&Path), &zeroes, &nonsense, &long] {
        replaced(&manifest, with, &|| {
            run("localhost/second:1").refused(125, "");
            reader.run(["image", "inspect", "localhost/second:1"]).code(125);
            reader.run(["save", "-o", out.join("b.tar").to_str().unwrap(), "localhost/second:1"]).code(125);
        });
    }
    run("localhost/second:1").ok().prints("two");
    reader.run(["system", "check", "-q"]).ok().prints("");
}
