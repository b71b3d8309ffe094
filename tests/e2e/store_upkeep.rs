//! `rlrun system`: the image store is looked after.

use nix::sys::signal::Signal;
use rlrun_tests::{BASE, Case, Image, Rootfs, base_rootfs, case, eventually};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

fn write(path: &Path, data: impl AsRef<[u8]>) {
    std::fs::File::create(path).unwrap().write_all(data.as_ref()).unwrap();
}

fn load(case: &Case, name: &str, text: &str) {
    case.load(&Image::new(name, base_rootfs().clone()).layer(Rootfs::new().file("etc/which", 0o644, text)));
}

fn blob(case: &Case, name: &str) -> PathBuf {
    let digest = case.run(["image", "inspect", "-f", "{{.Digest}}", name]).ok().out();
    case.data().join("blobs/sha256").join(digest.trim().trim_start_matches("sha256:"))
}

#[test]
fn damage_is_found_and_mended() {
    let case = case!(Userns).keeping_containers();
    case.run(["system", "check"]).ok().says("1 images");
    load(&case, "localhost/hurt:1", "x");
    load(&case, "localhost/used:1", "y");
    case.run(["run", "--name", "holder", "--network", "none", "localhost/used:1", "true"]).ok();
    let id = case.run(["images", "-q", "--no-trunc", "localhost/hurt:1"]).ok().out();
    let manifest = blob(&case, "localhost/hurt:1");
    std::fs::File::options().append(true).open(&manifest).unwrap().write_all(b" ").unwrap();
    let found = case.run(["system", "check"]);
    found.code(125).says(id.trim()).complains("--repair");
    case.run(["system", "check", "--repair"]).ok();
    case.run(["image", "exists", "localhost/hurt:1"]).code(1);
    case.run(["system", "check", "-q"]).ok().prints("");
    case.in_base(["true"]).ok();
    load(&case, "localhost/hurt:1", "x");
    case.run(["system", "check", "-q"]).ok().prints("");
    // Extracted layers are looked into; files of other ids by way of the id map.
    let id = case.run(["image", "inspect", "-f", "{{.GraphDriver.Data.UpperDir}}", "localhost/hurt:1"]).ok().out();
    let altered = PathBuf::from(id.trim()).join("etc/which");
    std::fs::File::options().append(true).open(&altered).unwrap().write_all(b"y").unwrap();
    case.run(["system", "check"]).code(125).says("`etc/which` has another size").complains("--repair");
    case.run(["system", "check", "--repair"]).ok();
    case.run(["image", "exists", "localhost/hurt:1"]).code(1);
    // What a container uses is not taken from it.
    std::fs::remove_file(blob(&case, "localhost/used:1")).unwrap();
    case.run(["system", "check", "--repair"]).code(125).complains("holder");
    case.run(["rm", "holder"]).ok();
    case.run(["system", "check", "--repair"]).ok();
    case.run(["system", "check", "-q"]).ok().prints("");
}

#[test]
fn what_a_killed_import_left_is_told_and_goes_with_the_next_command() {
    let case = case!(Userns);
    let tmp = case.data().join("tmp");
    let is_empty = || std::fs::read_dir(&tmp).unwrap().next().is_none();
    let commands: [(&[&str], bool); 4] = [
        (&["system", "check", "-q"], false),
        (&["system", "check", "-q", "--repair"], true),
        (&["run", "--rm", "--network", "none", BASE, "true"], true),
        (&["create", "--network", "none", BASE, "true"], true),
    ];
    for (command, removes) in commands {
        // It waits for the rest of an archive that never comes.
        let (archive, writer) = std::io::pipe().unwrap();
        let import = case.rlrun(["import", "-", "never:1"]);
        let import = import.spawn_with(archive.into(), Stdio::null(), Stdio::null());
        eventually("the import has begun", || !is_empty());
        case.run(command).ok();
        assert!(!is_empty(), "{command:?}: a command that runs keeps its files");
        import.signal(Signal::SIGKILL);
        import.wait();
        drop(writer);
        let told = case.run(command);
        told.ok();
        assert_eq!(told.out().contains("Left by a command that was killed"), command[0] == "system", "{}", told.out());
        assert_eq!(is_empty(), removes, "{command:?}");
        case.run(["system", "check", "--repair"]).ok();
        assert!(is_empty());
    }
    case.run(["rm", "-a"]).ok();
}

#[test]
fn what_images_take_is_told() {
    let case = case!(Userns).keeping_containers();
    let df = |field: &str| {
        let all = case.run(["system", "df", "--format", "json"]).ok().out();
        serde_json::from_str::<serde_json::Value>(&all).unwrap()[0][field].as_u64().unwrap()
    };
    assert_eq!((df("Total"), df("Active")), (1, 0));
    let before = df("RawSize");
    assert_eq!(df("RawReclaimable"), before);
    load(&case, "localhost/more:1", &"x".repeat(100_000));
    let more = df("RawSize") - before;
    assert!((200_000..1_000_000).contains(&more), "the shared layer is counted once: {more}");
    case.run(["run", "--name", "holder", "--network", "none", BASE, "true"]).ok();
    assert_eq!((df("Active"), df("RawReclaimable")), (1, more));
    case.run(["system", "df"]).ok().says("TYPE           TOTAL       ACTIVE      SIZE");
    case.run(["rm", "holder"]).ok();
}

#[test]
fn what_containers_and_volumes_take_is_told() {
    let case = case!(Userns).keeping_containers();
    let share = |index: usize| {
        let all = case.run(["system", "df", "--format", "json"]).ok().out();
        let all: serde_json::Value = serde_json::from_str(&all).unwrap();
        let number = |field: &str| all[index][field].as_u64().unwrap();
        (number("Total"), number("Active"), number("RawSize"), number("RawReclaimable"))
    };
    assert_eq!((share(1), share(2)), ((0, 0, 0, 0), (0, 0, 0, 0)));
    // Whoever owns a file, also under an id that is nobody's on the host, in a directory that is closed to the user.
    let script = "dd if=/dev/zero of=/v/a bs=1000 count=5 2>/dev/null; mkdir -m 700 /d; \
        dd if=/dev/zero of=/d/b bs=1000 count=300 2>/dev/null; chown -R 5:5 /d /v";
    case.run(["run", "--name", "holder", "--network", "none", "-v", "kept:/v", BASE, "sh", "-c", script]).ok();
    let (total, active, bytes, reclaimable) = share(1);
    assert!((total, active) == (1, 0) && bytes == reclaimable && (300_000..400_000).contains(&bytes), "{bytes}");
    assert_eq!(share(2), (1, 1, 5000, 0));
    let all = case.run(["system", "df", "-v"]);
    all.ok().says("VOLUME NAME").says("5.00 kB").says("holder").says("1\n\nContainers space usage");
    case.run(["rm", "holder"]).ok();
    assert_eq!((share(1), share(2)), ((0, 0, 0, 0), (1, 0, 5000, 5000)));
    case.run(["volume", "rm", "kept"]).ok();
}

#[test]
fn everything_goes_but_the_audit_log() {
    let case = case!(Userns).keeping_containers();
    let names = || {
        let entries = std::fs::read_dir(case.data()).unwrap();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    case.detached(&["--name", "busy", "-v", "kept:/v"], ["sh", "-c", "touch /v/x /x; chown 5:5 /v/x /x; sleep 1000"]);
    case.run(["run", "--name", "rests", "--network", "none", BASE, "true"]).ok();
    case.run(["system", "reset"]).code(125).complains("--force");
    assert!(names().contains(&"images".to_owned()));
    case.run(["system", "reset", "--force"]).ok();
    assert_eq!(names(), ["journal", "journal.requests"]);
    assert!(case.supervisors().is_empty());
    case.run(["audit", "verify"]).ok();
    case.run(["events", "--since", "1h", "--stream=false"]).ok().says("system reset");
    case.run(["images", "-q"]).ok().prints("");
    load(&case, "localhost/again:1", "x");
    case.run(["run", "--rm", "--network", "none", "localhost/again:1", "cat", "/etc/which"]).ok().prints("x");
    case.run(["system", "reset", "-f"]).ok();
    case.run(["system", "reset", "-f"]).ok();
}

#[test]
fn a_container_between_two_lives_goes_too() {
    let case = case!(Userns).keeping_containers();
    let id = case.detached(&["--restart", "always"], ["false"]);
    eventually("it waits for a while", || {
        let state = case.run(["inspect", "-f", "{{.State.Status}} {{.RestartCount}}", &id]).out();
        state.trim() == "restarting 4"
    });
    case.run(["system", "reset", "--force"]).ok();
    assert!(case.supervisors().is_empty());
    assert!(!case.data().join("containers").exists());
}

#[test]
fn an_image_of_an_additional_store_is_taken_over() {
    let case = case!(Userns).keeping_containers();
    let shared = case.make_dir("shared");
    case.user().own(&shared);
    let image =
        Image::new("localhost/common:1", base_rootfs().clone()).layer(Rootfs::new().file("etc/own", 0o644, "x"));
    let archive = case.make_file("common.tar", image.docker_archive().bytes());
    let there = |words: &[&str]| case.rlrun(words).env("RLRUN_DATA_HOME", &shared).run();
    there(&["load", "-i", archive.to_str().unwrap()]).ok();
    let line = there(&["system", "share"]).ok().out();
    let mode = |path: &str| std::fs::metadata(shared.join(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(""), mode("images"), mode("blobs/sha256"), mode("layers")), (0o711, 0o755, 0o755, 0o700));
    for file in std::fs::read_dir(shared.join("blobs/sha256")).unwrap() {
        assert_eq!(file.unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o644);
    }
    case.run(["image", "exists", "localhost/common:1"]).code(1);
    // As another user sees it: nothing but names, records and blobs.
    std::fs::set_permissions(shared.join("layers"), std::fs::Permissions::from_mode(0o000)).unwrap();
    let config = case.home().join(".config/rlrun/images.toml");
    std::fs::create_dir_all(config.parent().unwrap()).unwrap();
    write(&config, line.lines().last().unwrap());
    let listed = |word: &str| case.run(["images", "--format", "{{.Repository}} {{.ReadOnly}}", word]).ok().out();
    assert_eq!(listed("localhost/common:1"), "localhost/common true\n");
    case.run(["image", "exists", "localhost/common:1"]).ok();
    case.run(["image", "inspect", "-f", "{{.Os}}", "localhost/common:1"]).ok().prints("linux\n");
    case.run(["rmi", "localhost/common:1"]).code(2).complains("only read").complains("images.toml");
    let own = case.data().join("blobs/sha256");
    let lacking = std::fs::read_dir(shared.join("blobs/sha256")).unwrap().map(|f| f.unwrap());
    let lacking = lacking.filter(|blob| !own.join(blob.file_name()).exists()).map(|blob| blob.path());
    let damaged = lacking.max_by_key(|path| path.metadata().unwrap().len()).unwrap();
    let whole = std::fs::read(&damaged).unwrap();
    write(&damaged, [&whole[..], b"x"].concat());
    let run = ["run", "--rm", "--network", "none", "--pull", "never", "localhost/common:1", "echo", "runs"];
    case.run(run).code(125).complains("digest");
    assert_eq!(listed("localhost/common:1"), "localhost/common true\n", "nothing came in");
    write(&damaged, whole);
    case.run(run).ok().prints("runs\n");
    assert_eq!(listed("localhost/common:1"), "localhost/common false\n");
    case.run(["rmi", "localhost/common:1"]).ok();
    assert_eq!(listed("localhost/common:1"), "localhost/common true\n");
    write(&config, "additional-stores = ['here']");
    case.run(["images", "-q"]).code(125).complains("no absolute path");
}
