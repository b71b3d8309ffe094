//! `cp`: podman's rules, both ways, of containers that run and that rest; and what a hostile one makes of it.

use rlrun_tests::{Case, Output, case};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

/// Two containers with the same files: one runs, one has ended.
fn both(case: &Case, options: &[&str], prepare: &str) -> [String; 2] {
    let running = case.detached(options, ["sh", "-c", &format!("{prepare}; : > /tmp/ready; sleep 1000")]);
    let resting = case.detached(options, ["sh", "-c", prepare]);
    eventually_there(case, &running, "/tmp/ready");
    wait_for_end(case, &resting);
    [running, resting]
}

fn eventually_there(case: &Case, id: &str, path: &str) {
    rlrun_tests::eventually("the container is ready", || {
        case.run(["cp", &format!("{id}:{path}"), "-"]).exit == rlrun_tests::Exit::Code(0)
    });
}

fn wait_for_end(case: &Case, id: &str) {
    rlrun_tests::eventually("the container ends", || {
        case.run(["inspect", "-f", "{{.State.Status}}", id]).out().trim() == "exited"
    });
}

fn cp(case: &Case, from: impl AsRef<str>, to: impl AsRef<str>) -> Output {
    case.run(["cp", from.as_ref(), to.as_ref()])
}

/// What is in a container, read through `cp` itself.
fn contents(case: &Case, id: &str, path: &str) -> String {
    let out = case.run(["cp", &format!("{id}:{path}"), "-"]);
    let mut archive = tar::Archive::new(&out.ok().stdout[..]);
    let mut text = String::new();
    let mut entry = archive.entries().unwrap().next().unwrap().unwrap();
    std::io::Read::read_to_string(&mut entry, &mut text).unwrap();
    text
}

/// Names in an archive of a container's directory.
fn listing(case: &Case, id: &str, path: &str) -> Vec<String> {
    let out = case.run(["cp", &format!("{id}:{path}"), "-"]);
    let mut archive = tar::Archive::new(&out.ok().stdout[..]);
    let entries = archive.entries().unwrap();
    let mut names: Vec<_> = entries.map(|e| e.unwrap().path().unwrap().display().to_string()).collect();
    names.sort();
    names
}

#[test]
fn files_and_directories_go_in_as_podman_puts_them() {
    let case = case!(Userns, Subid).keeping_containers();
    let source = case.make_dir("source");
    case.make_file("source/file", "data\n");
    let source = source.to_str().unwrap();
    for id in both(&case, &["-u", "1000"], "true") {
        // Into a directory, under a new name, over a file.
        cp(&case, format!("{source}/file"), format!("{id}:/mnt")).ok();
        cp(&case, format!("{source}/file"), format!("{id}:/mnt/other")).ok();
        cp(&case, format!("{source}/file"), format!("{id}:/etc/base-image")).ok();
        for path in ["/mnt/file", "/mnt/other", "/etc/base-image"] {
            assert_eq!(contents(&case, &id, path), "data\n", "{path}");
        }
        // A directory into one that is there, as a new one, and its contents.
        cp(&case, source, format!("{id}:/mnt")).ok();
        cp(&case, source, format!("{id}:/mnt/new")).ok();
        cp(&case, format!("{source}/."), format!("{id}:/home")).ok();
        assert_eq!(
            listing(&case, &id, "/mnt"),
            ["mnt/", "mnt/file", "mnt/new/", "mnt/new/file", "mnt/other", "mnt/source/", "mnt/source/file"]
        );
        assert_eq!(listing(&case, &id, "/home"), ["home/", "home/file"]);
        // What does not go together.
        cp(&case, format!("{source}/file"), format!("{id}:/no/such")).refused(125, "no such file");
        cp(&case, format!("{source}/file"), format!("{id}:/nosuch/")).refused(125, "no such directory");
        cp(&case, source, format!("{id}:/mnt/file")).refused(125, "not a directory");
        cp(&case, format!("{source}/nosuch"), format!("{id}:/mnt")).refused(125, "no such file");
        cp(&case, format!("{source}/file/"), format!("{id}:/mnt")).refused(125, "not a directory");
        case.run(["cp", "--overwrite", source, &format!("{id}:/mnt/file")]).ok();
        assert_eq!(listing(&case, &id, "/mnt/file"), ["file/", "file/file"]);
        let lost = cp(&case, format!("{id}:/mnt"), "nosuch:/");
        assert_eq!(lost.refused(125, "no such container").err().matches("Error: ").count(), 1, "{}", lost.err());
    }
    cp(&case, source, "/tmp").refused(125, "one of the two must be in a container");
    cp(&case, source, "nosuch:/").refused(125, "no such container");
}

#[test]
fn files_come_out_and_are_the_callers() {
    let case = case!(Userns, Subid).keeping_containers();
    let script = "mkdir -p /srv/d/deep; echo one > /srv/d/one; ln /srv/d/one /srv/d/two; ln -s /etc/passwd /srv/d/link; \
        chmod 4755 /srv/d/one; chown 1000:50 /srv/d/deep; chmod 500 /srv/d/deep; ln -s d /srv/to; mkfifo /srv/d/pipe";
    for id in both(&case, &[], script) {
        let target = case.make_dir(&format!("out-{}", &id[..12]));
        let target = target.to_str().unwrap();
        cp(&case, format!("{id}:/srv/d"), target).ok();
        cp(&case, format!("{id}:/srv/d/."), format!("{target}/new")).ok();
        cp(&case, format!("{id}:/srv/to"), target).ok();
        for directory in ["d", "new", "to"] {
            let at = |name: &str| Path::new(target).join(directory).join(name);
            assert_eq!(std::fs::read_to_string(at("one")).unwrap(), "one\n");
            let stat = std::fs::metadata(at("one")).unwrap();
            // What runs as its owner inside must not run as the caller outside.
            assert_eq!(stat.permissions().mode() & 0o7777, 0o755);
            assert_eq!(std::os::unix::fs::MetadataExt::uid(&stat), case.user().uid.as_raw());
            assert_eq!(std::os::unix::fs::MetadataExt::nlink(&stat), 2, "a hard link stays one");
            assert_eq!(std::fs::read_link(at("link")).unwrap(), Path::new("/etc/passwd"));
            assert_eq!(std::fs::metadata(at("deep")).unwrap().permissions().mode() & 0o777, 0o500);
        }
        cp(&case, format!("{id}:/srv/d/one"), format!("{target}/file")).ok();
        cp(&case, format!("{id}:/srv/d/one"), format!("{target}/file")).ok();
        cp(&case, format!("{id}:/srv/d"), format!("{target}/file")).refused(125, "not a directory");
        cp(&case, format!("{id}:/nosuch"), target).refused(125, "no such file");
        cp(&case, format!("{id}:/srv/d/one"), format!("{target}/no/such")).refused(125, "no such file");
        // Below the working directory, which is /.
        cp(&case, format!("{id}:etc/base-image"), target).ok();
        assert_eq!(std::fs::read_to_string(format!("{target}/base-image")).unwrap(), "base\n");
    }
}

#[test]
fn owners_inside_are_the_containers_user_or_as_they_were() {
    let case = case!(Userns, Subid).keeping_containers();
    let file = case.make_file("file", "data\n");
    let file = file.to_str().unwrap();
    let id = case.detached(&["-u", "1000:50"], ["sleep", "1000"]);
    cp(&case, file, format!("{id}:/tmp/mine")).ok();
    case.run(["cp", "--archive=false", file, &format!("{id}:/tmp/roots")]).ok();
    let owners = |path: &str| {
        let out = case.run(["cp", &format!("{id}:{path}"), "-"]);
        let mut archive = tar::Archive::new(&out.ok().stdout[..]);
        let entry = archive.entries().unwrap().next().unwrap().unwrap();
        (entry.header().uid().unwrap(), entry.header().gid().unwrap())
    };
    assert_eq!(owners("/tmp/mine"), (1000, 50));
    assert_eq!(owners("/tmp/roots"), (0, 0), "the caller is root inside");
}

#[test]
fn archives_go_in_and_out() {
    let case = case!(Userns, Subid).keeping_containers();
    for id in both(&case, &[], "echo x > /tmp/x; ln -s /usr /l") {
        let archive = case.run(["cp", &format!("{id}:/tmp"), "-"]).ok().stdout.clone();
        let put = |bytes: Vec<u8>, path: &str| case.rlrun(["cp", "-", &format!("{id}:{path}")]).stdin(bytes).run();
        put(archive.clone(), "/mnt").ok();
        assert_eq!(contents(&case, &id, "/mnt/tmp/x"), "x\n");
        put(rlrun_tests::gzip(&archive), "/l/bin").ok();
        assert_eq!(contents(&case, &id, "/usr/bin/tmp/x"), "x\n");
        put(archive.clone(), "/etc/passwd").refused(125, "not a directory");
        put(b"no archive at all, and long enough to be looked at".repeat(20), "/mnt").refused(125, "archive");
        put(archive[..700].to_vec(), "/mnt").code(125);
        // Names that lead out of the directory.
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_old();
        header.as_old_mut().name[..7].copy_from_slice(b"../evil");
        header.set_size(0);
        header.set_mode(0o644);
        header.set_cksum();
        builder.append(&header, std::io::empty()).unwrap();
        put(builder.into_inner().unwrap(), "/mnt").refused(125, "..");
    }
}

#[test]
fn volumes_are_part_of_a_container() {
    let case = case!(Userns).keeping_containers();
    let shared = case.make_dir("shared");
    let bind = format!("{}:/mnt", shared.display());
    let file = case.make_file("file", "data\n");
    let file = file.to_str().unwrap();
    for id in both(&case, &["-v", &bind, "-v", "data:/srv"], "echo v > /srv/v") {
        cp(&case, file, format!("{id}:/mnt/from-{}", &id[..4])).ok();
        assert_eq!(std::fs::read_to_string(shared.join(format!("from-{}", &id[..4]))).unwrap(), "data\n");
        assert_eq!(contents(&case, &id, "/srv/v"), "v\n");
    }
    // From one container to another.
    let [one, two] = both(&case, &[], "echo from-one > /tmp/f");
    cp(&case, format!("{one}:/tmp/f"), format!("{two}:/mnt/g")).ok();
    cp(&case, format!("{two}:/mnt/g"), format!("{one}:/mnt/")).ok();
    assert_eq!(contents(&case, &one, "/mnt/g"), "from-one\n");
}

#[test]
fn other_storage_drivers_and_id_maps_do_the_same() {
    for options in [
        &["--storage-driver", "copy"][..],
        &["--storage-driver", "fuse-overlayfs"],
        &["--userns", "keep-id", "--storage-driver", "fuse-overlayfs"],
        &["--pids-limit", "-1"],
    ] {
        let case = case!(Userns, Subid, Fuse).keeping_containers();
        let file = case.make_file("file", "data\n");
        for id in both(&case, options, "echo inside > /tmp/f") {
            cp(&case, file.to_str().unwrap(), format!("{id}:/tmp/file")).ok();
            assert_eq!(contents(&case, &id, "/tmp/file"), "data\n", "{options:?}");
            assert_eq!(contents(&case, &id, "/tmp/f"), "inside\n", "{options:?}");
            assert_eq!(contents(&case, &id, "/etc/base-image"), "base\n", "{options:?}");
        }
    }
}

#[test]
fn links_of_a_container_lead_nowhere_but_into_it() {
    let case = case!(Userns).keeping_containers();
    let secret = case.make_file("secret", "of the host\n");
    let secret = secret.to_str().unwrap();
    let outside = case.directory().to_str().unwrap().to_owned();
    let script = format!(
        "ln -s {secret} /tmp/s; ln -s {outside} /tmp/dir; ln -s ../../../../../..{outside} /tmp/up; ln -s /proc/1/root /tmp/proc; \
         ln -s /proc/self/cwd /tmp/cwd; mkdir /tmp/tree; ln -s {outside} /tmp/tree/dir"
    );
    let file = case.make_file("file", "data\n");
    let file = file.to_str().unwrap();
    for id in both(&case, &[], &script) {
        cp(&case, format!("{id}:/tmp/s"), "-").refused(125, "no such file");
        cp(&case, file, format!("{id}:/tmp/dir/stolen")).refused(125, "");
        cp(&case, file, format!("{id}:/tmp/up/stolen")).refused(125, "");
        for magic in ["/tmp/proc", "/tmp/cwd", "/proc/1/root", "/proc/self/root"] {
            cp(&case, file, format!("{id}:{magic}/etc/stolen")).refused(125, "");
            cp(&case, format!("{id}:{magic}/etc/passwd"), "-").refused(125, "");
        }
        // A tree with such links comes out, and going in again they are in nobody's way.
        let out = case.make_dir(&format!("tree-{}", &id[..12]));
        cp(&case, format!("{id}:/tmp/tree"), out.to_str().unwrap()).ok();
        std::fs::create_dir(out.join("tree/more")).unwrap();
        case.user().own(&out.join("tree/more"));
        cp(&case, format!("{}/tree/.", out.display()), format!("{id}:/tmp/tree")).ok();
        assert!(!Path::new(&outside).join("stolen").exists());
    }
    // A container's directory over a link of the caller's: the link is not followed.
    let id = case.detached(&[], ["sh", "-c", "mkdir -p /d/x; echo evil > /d/x/f; sleep 1000"]);
    eventually_there(&case, &id, "/d/x/f");
    let target = case.make_dir("target");
    let elsewhere = case.make_dir("elsewhere");
    symlink(&elsewhere, target.join("x")).unwrap();
    cp(&case, format!("{id}:/d/."), target.to_str().unwrap()).refused(125, "something else has this name");
    assert_eq!(std::fs::read_dir(&elsewhere).unwrap().count(), 0);
}

#[test]
fn a_container_that_swaps_directories_for_links_gains_nothing() {
    let case = case!(Userns).keeping_containers();
    let outside = case.make_dir("outside");
    case.make_file("outside/secret", "of the host\n");
    let swap = format!(
        "mkdir -p /w/real/sub; echo inside > /w/real/sub/secret; ln -s {} /w/link; cd /w; : > /ready; \
         while :; do mv real sub 2>/dev/null; mv link real; mv real link; mv sub real; done",
        outside.display()
    );
    let id = case.detached(&[], ["sh", "-c", &swap]);
    eventually_there(&case, &id, "/ready");
    let file = case.make_file("file", "data\n");
    let tree = case.make_dir("in");
    case.make_file("in/planted", "data\n");
    for round in 0..25 {
        // Whether it works is the container's business; where it reads and writes is not.
        cp(&case, file.to_str().unwrap(), format!("{id}:/w/real/planted"));
        cp(&case, format!("{}/.", tree.display()), format!("{id}:/w/real"));
        let out = case.make_dir(&format!("out{round}"));
        cp(&case, format!("{id}:/w/real"), out.to_str().unwrap());
        let told = cp(&case, format!("{id}:/w"), "-");
        assert!(!String::from_utf8_lossy(&told.stdout).contains("of the host"));
        for found in walk(&out) {
            let text = std::fs::read_to_string(&found).unwrap_or_default();
            assert!(found.is_symlink() || !text.contains("of the host"), "{}", found.display());
        }
    }
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 1, "nothing was written outside");
}

fn walk(directory: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap().flatten() {
        if entry.file_type().unwrap().is_dir() {
            found.extend(walk(&entry.path()));
        } else {
            found.push(entry.path());
        }
    }
    found
}

#[test]
fn a_killed_copy_leaves_nothing_that_holds_the_container() {
    let case = case!(Userns).keeping_containers();
    let id = case.detached(&[], ["true"]);
    wait_for_end(&case, &id);
    // It waits for an archive that does not come.
    let wait = || {
        case.rlrun(["cp", "-", &format!("{id}:/tmp")]).spawn_with(
            std::process::Stdio::piped(),
            std::process::Stdio::piped(),
            std::process::Stdio::piped(),
        )
    };
    let mut waiting = wait();
    rlrun_tests::eventually("the copy has the container", || {
        // Whoever looks takes the container too, and may have been first.
        if !waiting.alive() {
            std::mem::replace(&mut waiting, wait()).wait();
        }
        case.run(["cp", &format!("{id}:/etc/passwd"), "-"]).err().contains("another command has it")
    });
    waiting.signal(nix::sys::signal::Signal::SIGKILL);
    waiting.wait();
    rlrun_tests::eventually("the container is free", || {
        case.run(["cp", &format!("{id}:/etc/passwd"), "-"]).exit == rlrun_tests::Exit::Code(0)
    });
    case.run(["rm", &id]).ok();
}

#[test]
fn what_changed_is_listed_and_exported() {
    let script = "echo x > /etc/new; rm /etc/base-image; chmod 600 /etc/group; mkdir -p /srv/deep; rm -r /home; mkdir /home; \
        echo y > /home/y; ln -s /x /etc/link";
    for driver in ["overlay", "fuse-overlayfs", "copy"] {
        let case = case!(Userns, Overlay, Fuse).keeping_containers();
        for id in both(
            &case,
            &["--storage-driver", driver, "-v", "data:/opt/volume"],
            &format!("{script}; : > /opt/volume/seen"),
        ) {
            let out = case.run(["diff", &id]).ok().out();
            let mut want = vec![
                "A /etc/link",
                "A /etc/new",
                "A /srv",
                "A /srv/deep",
                "A /home/y",
                "C /etc",
                "C /etc/group",
                "D /etc/base-image",
            ];
            for line in want.drain(..) {
                assert!(out.lines().any(|l| l == line), "{driver}: {line} in\n{out}");
            }
            assert!(!out.contains("/opt/volume") && !out.contains("/proc"), "{driver}: {out}");
            let json = case.run(["diff", "--format", "json", &id]).ok().out();
            let json: serde_json::Value = serde_json::from_str(&json).unwrap();
            assert!(json["deleted"].as_array().unwrap().contains(&"/etc/base-image".into()), "{json}");
            let archive = case.make_dir(&format!("x{}", &id[..9])).join("all.tar");
            case.run(["export", "-o", archive.to_str().unwrap(), &id]).ok();
            let mut tar = tar::Archive::new(std::fs::File::open(&archive).unwrap());
            let names: Vec<_> =
                tar.entries().unwrap().map(|e| e.unwrap().path().unwrap().display().to_string()).collect();
            assert!(names.contains(&"etc/new".to_owned()) && names.contains(&"bin/busybox".to_owned()), "{driver}");
            assert!(!names.iter().any(|n| n == "etc/base-image" || n.starts_with("proc/s")), "{driver}");
            assert!(!names.iter().any(|n| n.starts_with("opt/volume/s")), "{driver}");
        }
    }
    let case = case!(Userns);
    for verb in ["diff", "export"] {
        case.run([verb, "nosuch"]).refused(125, "no such container");
    }
}
