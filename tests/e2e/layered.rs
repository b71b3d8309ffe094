//! Mounts that are made of layers, a directory of the host as root, and file systems of the kernel's own.

use nix::sys::signal::{Signal, kill};
use rlrun_tests::{BASE, Case, Image, base_rootfs, case};
use std::fs;
use std::path::PathBuf;

fn source(case: &Case) -> PathBuf {
    let directory = case.make_dir("source");
    case.make_file("source/file", "from the host\n");
    case.make_file("source/other", "stays\n");
    directory
}

fn names(directory: &std::path::Path) -> Vec<String> {
    let mut all: Vec<String> =
        fs::read_dir(directory).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    all.sort();
    all
}

#[test]
fn an_overlay_takes_what_is_written_and_leaves_the_source_alone() {
    let case = case!(Userns);
    let source = source(&case);
    let volume = format!("{}:/mnt:O", source.display());
    let script = "echo changed > /mnt/file; rm /mnt/other; mkdir /mnt/new; ls /mnt; cat /mnt/file; stat -c %a:%u /mnt";
    case.run_base(&["-v", &volume], ["sh", "-c", script]).ok().prints("file\nnew\nchanged\n700:0");
    assert_eq!(names(&source), ["file", "other"]);
    assert_eq!(fs::read_to_string(source.join("file")).unwrap(), "from the host\n");
}

#[test]
fn an_overlay_can_be_served_by_fuse() {
    let case = case!(Userns, Fuse);
    let source = source(&case);
    let volume = format!("{}:/mnt:O", source.display());
    let options = ["--storage-driver", "fuse-overlayfs", "-v", &volume];
    case.run_base(&options, ["sh", "-c", "rm /mnt/other; ls /mnt"]).ok().prints("file");
    assert_eq!(names(&source), ["file", "other"]);
}

#[test]
fn what_was_written_to_an_overlay_goes_with_the_run_however_it_ends() {
    let case = case!(Userns).keeping_containers();
    let source = source(&case);
    let volume = format!("{}:/mnt:O", source.display());
    let script = "ls /mnt; touch /mnt/mine; [ -e /tmp/once ] || { touch /tmp/once; echo up; sleep 1000; }";
    case.detached(&["--name", "box", "-v", &volume], ["sh", "-c", script]);
    let logs = case.rlrun(["logs", "-f", "box"]).spawn();
    logs.wait_for("up");
    let supervisor = case.supervisors()[0];
    kill(supervisor, Signal::SIGKILL).unwrap();
    logs.finish();
    case.run(["start", "-a", "box"]).ok().prints("file\nother");
    let directory = fs::read_dir(case.data().join("containers")).unwrap().next().unwrap().unwrap().path();
    assert!(!directory.join("overlays").exists());
    assert_eq!(names(&source), ["file", "other"]);
    // Who mounts what it mounts gets an overlay too, and not the source to write to.
    let out = case.run_base(&["--volumes-from", "box"], ["sh", "-c", "touch /mnt/theirs && ls /mnt"]);
    out.ok().prints("file\nother\ntheirs");
    assert_eq!(names(&source), ["file", "other"]);
    case.run(["cp", "box:/mnt", "-"]).ok();
}

#[test]
fn an_overlay_is_judged_like_any_mount() {
    let case = case!(Userns);
    let home = case.home().display().to_string();
    case.run_base(&["-v", &format!("{home}:/mnt:O")], ["true"]).refused(125, "BASE00");
    case.run_base(&["-v", "/etc:/mnt:O"], ["true"]).refused(125, "BASE005");
    let file = case.make_file("file", "x");
    case.run_base(&["-v", &format!("{}:/mnt:O", file.display())], ["true"]).refused(125, "no directory");
    case.run_base(&["-v", "data:/mnt:O"], ["true"]).refused(125, "named by its path");
}

#[test]
fn a_hostile_link_leads_an_overlay_nowhere_but_into_the_image() {
    let case = case!(Userns);
    let source = source(&case);
    let victim = case.make_dir("victim");
    let layer = base_rootfs().clone().symlink("link", victim.to_str().unwrap());
    case.load(&Image::new("localhost/link:1", layer));
    let volume = format!("{}:/link/sub:O", source.display());
    let place = format!("{}/sub/file", victim.display());
    let out = case.run(["run", "--rm", "--network", "none", "-v", &volume, "localhost/link:1", "cat", &place]);
    out.ok().prints("from the host");
    assert!(names(&victim).is_empty());
}

#[test]
fn an_image_can_be_mounted() {
    let case = case!(Userns);
    let layer =
        base_rootfs().clone().file("only-there", 0o644, "of the other\n").file_of("of-app", (1000, 50), 0o640, "");
    case.load(&Image::new("localhost/other:1", layer));
    let mount = "type=image,source=other:1,destination=/other";
    let script = "cat /other/only-there; stat -c %u:%g /other/of-app; touch /other/x 2>/dev/null || echo read-only";
    case.run_base(&["--mount", mount], ["sh", "-c", script]).ok().prints("of the other\n1000:50\nread-only");
    let mount = format!("{mount},rw=true");
    case.run_base(&["--mount", &mount], ["sh", "-c", "touch /other/x && ls /other/x"]).ok().prints("/other/x");
    case.run_base(&["--mount", &mount], ["ls", "/other/x"]).code(1);
    case.run_base(&["--mount", "type=image,source=nothing,destination=/other"], ["true"]).refused(125, "no such image");
}

#[test]
fn an_image_that_is_mounted_is_in_use_and_stays_the_one_it_was() {
    let case = case!(Userns).keeping_containers();
    let other = |text: &str| {
        case.load(&Image::new("localhost/other:1", base_rootfs().clone().file("version", 0o644, text)));
    };
    other("one\n");
    let mount = "type=image,source=localhost/other:1,destination=/other";
    case.run(["create", "--name", "box", "--network", "none", "--mount", mount, BASE, "cat", "/other/version"]).ok();
    let id = case.run(["inspect", "-f", "{{.Id}}", "localhost/other:1"]).ok().out();
    case.run(["rmi", "localhost/other:1"]).refused(2, "box");
    other("two\n");
    case.run(["start", "-a", "box"]).ok().prints("one");
    case.run(["rmi", id.trim()]).refused(2, "box");
    case.run(["exec", "box", "true"]).code(125);
    case.run(["rm", "box"]).ok();
}

#[test]
fn a_glob_mounts_each_path_that_fits() {
    let case = case!(Userns);
    let source = source(&case);
    let mount = format!("type=glob,src={}/*,dst=/mnt,ro", source.display());
    let out = case.run_base(&["--mount", &mount], ["sh", "-c", "ls /mnt; cat /mnt/file; echo x > /mnt/file"]);
    out.code(1).says("file\nother\nfrom the host").complains("read-only");
    case.run_base(&["--mount", "type=glob,src=/etc/shado*,dst=/mnt"], ["true"]).refused(125, "BASE005");
}

#[test]
fn terminals_and_memory_can_be_mounted() {
    let case = case!(Userns);
    let options = ["--mount", "type=devpts,dst=/terminals,max=3", "--mount", "type=ramfs,dst=/memory,ramfs-mode=0750"];
    let script = "ls -A /terminals; stat -c %a /memory; grep -c -E ' /(terminals|memory) (devpts|ramfs) ' /proc/mounts";
    case.run_base(&options, ["sh", "-c", script]).ok().prints("ptmx\n750\n2");
    case.run_base(&["-m", "64m", "--cgroups", "disabled", "--mount", "type=ramfs,dst=/memory"], ["true"])
        .code(125)
        .complains("memory limit");
}

/// The base image's files in a directory of the user's.
fn root_directory(case: &Case) -> PathBuf {
    let root = case.make_dir("root");
    let archive = case.make_file("root.tar", base_rootfs().tar());
    let mut tar = case.invoke("/bin/tar".as_ref());
    tar = tar.args(["-x", "--no-same-owner", "-f", archive.to_str().unwrap(), "-C", root.to_str().unwrap()]);
    tar.run().ok();
    // Other users inside are to enter it.
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&root, mode).unwrap();
    root
}

#[test]
fn a_directory_can_be_the_root() {
    let case = case!(Userns).keeping_containers();
    let root = root_directory(&case);
    let path = root.to_str().unwrap();
    let run = |options: &[&str], path: &str, command: &[&str]| {
        case.run([&["run", "--network", "none"], options, &["--rootfs", path], command].concat())
    };
    run(&["--rm", "-u", "app"], path, &["sh", "-c", "id -u; cat /etc/base-image"]).ok().prints("1000\nbase");
    run(&["--rm"], path, &["touch", "/made"]).ok();
    assert!(root.join("made").exists(), "it is the directory itself");
    run(&["--rm", "--storage-opt", "size=1m"], path, &["true"]).refused(125, "DIRECTORY:O");
    run(&["--rm", "--read-only"], path, &["touch", "/more"]).code(1);
    let overlay = format!("{path}:O");
    run(&["--name", "box"], &overlay, &["sh", "-c", "echo x >> /mine; cat /mine"]).ok().prints("x");
    assert!(!root.join("mine").exists());
    case.run(["start", "-a", "box"]).ok().prints("x\nx");
    case.run(["diff", "box"]).ok().says("A /mine");
    case.run(["cp", "box:/mine", "-"]).ok();
    case.run(["ps", "-a", "--format", "{{.Image}}|{{.Names}}"]).ok().prints("|box");
    case.run(["inspect", "-f", "{{.Rootfs}}", "box"]).ok().prints(path);
    case.run(["rm", "box"]).ok();
}

#[test]
fn a_directory_as_the_root_is_judged_like_a_mount() {
    let case = case!(Userns);
    let root = root_directory(&case);
    let run = |path: &str| case.run(["run", "--rm", "--network", "none", "--rootfs", path, "true"]);
    run("/").refused(125, "BASE00");
    run(case.home().to_str().unwrap()).refused(125, "BASE00");
    run("/nonexistent").refused(125, "No such file");
    run(case.make_file("file", "x").to_str().unwrap()).refused(125, "no directory");
    // Neither its links nor its accounts lead out.
    fs::remove_file(root.join("etc/passwd")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", root.join("etc/passwd")).unwrap();
    case.run(["run", "--rm", "--network", "none", "-u", "daemon", "--rootfs", root.to_str().unwrap(), "true"])
        .refused(126, "daemon");
}
