//! Things that die or run out in the middle. Nothing stays behind, and the next command works.

use nix::sys::signal::{Signal, kill};
use rlrun_tests::{BASE, Case, Image, Registry, Rootfs, base_rootfs, case, descendants, payload_of, until};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A small file system of its own for some directory of the case, as a full disk.
struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    fn mount(case: &Case, path: &Path, size: &str) -> SmallDisk {
        std::fs::create_dir_all(path).unwrap();
        let user = case.user();
        let options = format!("size={size},mode=0700,uid={},gid={}", user.uid, user.gid);
        assert!(
            Command::new("mount").args(["-t", "tmpfs", "-o", &options, "none"]).arg(path).status().unwrap().success()
        );
        SmallDisk { path: path.to_owned() }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        Command::new("umount").arg(&self.path).status().unwrap();
    }
}

#[test]
fn a_full_disk_while_extracting_is_told_and_leaves_nothing() {
    let case = case!(Userns, Root, Registry);
    let data = case.home().join("small");
    let disk = SmallDisk::mount(&case, &data, "40m");
    let layer = base_rootfs().clone().file("big", 0o644, vec![7; 50 << 20]);
    let image = Image::new("localhost/big:1", layer.clone());
    let archive = case.make_file("big.tar", image.docker_archive().bytes());
    let rootfs = case.make_file("rootfs.tar", layer.tar());
    let registry = Registry::http(case.directory());
    registry.add("big", "1", &image);
    let pulled = format!("localhost:{}/big:1", registry.address.port());
    let run = |args: &[&str]| case.rlrun(args).env("RLRUN_DATA_HOME", &data).run();
    let small = case.make_file("small.tar", rlrun_tests::template_archive());
    let small = small.to_str().unwrap();
    let used = || {
        let used = Command::new("du").arg("-sk").arg(&data).output().unwrap();
        String::from_utf8(used.stdout).unwrap().split_whitespace().next().unwrap().parse::<u64>().unwrap()
    };
    let commands: [&[&str]; 4] = [
        &["load", "-i", archive.to_str().unwrap()],
        &["import", rootfs.to_str().unwrap(), "localhost/big:1"],
        &["pull", &pulled],
        &["run", "--rm", "--network", "none", &pulled, "true"],
    ];
    for command in commands {
        run(command).refused(125, "no space");
        assert!(used() < 1000, "{command:?}: {} KiB are still in use", used());
        for place in ["blobs", "layers", "images", "tmp", "containers", "names", "live"] {
            let left: Vec<_> = std::fs::read_dir(data.join(place)).map(Iterator::collect).unwrap_or_default();
            assert!(left.len() <= 1, "{command:?}: {place}: {left:?}");
        }
        // Reading works on a full disk.
        run(&["images", "-q"]).ok().prints("");
    }
    // And so does a smaller image.
    run(&["load", "-i", small]).ok();
    drop(disk);
}

#[test]
fn a_full_disk_at_start_is_told() {
    let case = case!(Userns, Root);
    let data = case.home().join("small");
    let disk = SmallDisk::mount(&case, &data, "64m");
    let archive = case.make_file("base.tar", rlrun_tests::template_archive());
    case.rlrun(["load", "-i", archive.to_str().unwrap()]).env("RLRUN_DATA_HOME", &data).run().ok();
    let filler = data.join("filler");
    assert!(
        Command::new("sh")
            .args(["-c", "head -c 100m /dev/zero > \"$0\" 2>/dev/null; true"])
            .arg(&filler)
            .status()
            .unwrap()
            .success()
    );
    case.base(&[], ["true"]).env("RLRUN_DATA_HOME", &data).run().refused(125, "there is room for");
    std::fs::remove_file(filler).unwrap();
    case.base(&[], ["true"]).env("RLRUN_DATA_HOME", &data).run().ok();
    drop(disk);
}

#[test]
fn a_payload_that_fills_the_disk_ends_with_its_own_code_on_record() {
    let case = case!(Userns, Root).keeping_containers();
    let data = case.home().join("small");
    let disk = SmallDisk::mount(&case, &data, "64m");
    let archive = case.make_file("base.tar", rlrun_tests::template_archive());
    let run = |args: &[&str]| case.rlrun(args).env("RLRUN_DATA_HOME", &data).run();
    run(&["load", "-i", archive.to_str().unwrap()]).ok();
    let fill = "head -c 100m /dev/zero > /full; exit 3";
    run(&["run", "--network", "none", "--name", "full", BASE, "sh", "-c", fill]).code(3);
    run(&["inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "full"]).ok().prints("exited 3");
    run(&["run", "-d", "--network", "none", "--name", "more", BASE, "true"]).refused(125, "there is room for");
    run(&["rm", "full"]).ok();
    run(&["run", "-d", "--network", "none", "--name", "later", BASE, "sh", "-c", fill]).ok();
    run(&["wait", "later"]).ok().prints("3");
    run(&["rm", "later"]).ok();
    drop(disk);
}

#[test]
fn a_killed_load_leaves_nothing_and_the_next_one_works() {
    let case = case!(Userns);
    // Big enough that SIGKILL falls into the extraction, at different places.
    let mut layer = Rootfs::new();
    for n in 0..300 {
        layer = layer.file(&format!("f{n}"), 0o644, vec![b'x'; 100_000]);
    }
    let image = Image::new("localhost/killed:1", base_rootfs().clone()).layer(layer);
    let archive = case.make_file("killed.tar", image.docker_archive().bytes());
    let files = || {
        let found =
            Command::new("find").arg(case.data()).args(["-regex", ".*/f[0-9]+", "-type", "f"]).output().unwrap();
        found.stdout.iter().filter(|byte| **byte == b'\n').count()
    };
    for seen in [0, 1, 100, 250] {
        let load = case.rlrun(["load", "-i", archive.to_str().unwrap()]).spawn();
        until(10, || (files() >= seen || !load.running.alive()).then_some(()));
        if load.running.alive() {
            load.signal(Signal::SIGKILL);
        }
        load.finish();
        assert!(!case.run(["images"]).ok().out().contains("killed") || files() == 300);
        case.run(["rmi", "localhost/killed:1"]);
        case.in_base(["true"]).ok();
    }
    // What was half done is gone once a command has looked.
    case.run(["load", "-i", archive.to_str().unwrap()]).ok();
    assert_eq!(files(), 300);
    case.run(["run", "--rm", "--network", "none", "localhost/killed:1", "sh", "-c", "ls /f* | wc -l"])
        .ok()
        .prints("300");
}

#[test]
fn whichever_process_of_a_container_is_killed_all_of_it_ends() {
    let case = case!(Userns, Slirp).keeping_containers();
    let start = || {
        let container = case.rlrun(["run", BASE, "probe", "wait"]).spawn();
        container.wait_for("ready");
        container
    };
    let container = start();
    let count = descendants(container.running.pid).len();
    container.signal(Signal::SIGKILL);
    container.finish();
    assert!(count >= 3, "mapper, payload and network helper at least");
    for victim in 0..count {
        let container = start();
        let pids = descendants(container.running.pid);
        let pid = pids[victim];
        let is_helper = payload_of(container.running.pid, "slirp4netns") == pid;
        kill(pid, Signal::SIGKILL).unwrap();
        let out = container.finish();
        if is_helper {
            out.code(125).complains("it ended before the container").complains("hint: ");
        } else {
            assert_ne!(out.exit, rlrun_tests::Exit::Code(0));
        }
    }
}

#[test]
fn killing_rlrun_at_any_moment_of_the_start_leaves_nothing() {
    let case = case!(Userns, Slirp).keeping_containers();
    // The start takes a few milliseconds: kill it after 0, 1, 2, ... processes have appeared, then at the payload.
    for processes in 0..6 {
        let container = case.rlrun(["run", "--rm", BASE, "probe", "wait"]).spawn();
        until(5, || {
            (descendants(container.running.pid).len() >= processes || !container.running.alive()).then_some(())
        });
        container.signal(Signal::SIGKILL);
        container.finish();
    }
    case.in_base(["true"]).ok();
}

#[test]
fn a_hundred_kills_in_a_row_do_not_break_the_store() {
    let case = case!(Userns).keeping_containers();
    for n in 0..100_u32 {
        let container = case.base(&[], ["probe", "wait"]).spawn();
        // A different moment each time, without a clock: that many looks at /proc.
        for _ in 0..n * 3 {
            let _pids = descendants(container.running.pid);
        }
        container.signal(Signal::SIGKILL);
        container.finish();
    }
    case.in_base(["cat", "/etc/base-image"]).ok().prints("base");
}

#[test]
fn a_file_system_helper_that_dies_ends_the_container_and_is_named() {
    let case = case!(Userns, Fuse).keeping_containers();
    let run = |options: &[&str]| {
        let run = case.rlrun(["run", "--network", "none", "--storage-driver", "fuse-overlayfs"]).args(options);
        run.args([BASE, "sh", "-c", "echo kept > /kept; sync; probe wait"])
    };
    let container = run(&["--name", "bereft"]).spawn();
    container.wait_for("ready");
    kill(payload_of(container.running.pid, "fuse-overlayfs"), Signal::SIGKILL).unwrap();
    let out = container.finish();
    out.code(125).complains("fuse-overlayfs: it was killed by signal 9").complains("hint: ");
    assert_eq!(out.err().lines().count(), 2, "{}", out.err());
    // What it had written is still there, and it can be started again.
    case.run(["inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "bereft"]).ok().prints("exited 125");
    case.run(["inspect", "-f", "{{.State.Error}}", "bereft"]).ok().says("fuse-overlayfs");
    case.run(["cp", "bereft:/kept", "-"]).ok().says("kept");
    case.run(["rm", "bereft"]).ok();
    let container = run(&["--rm", "--name", "bereft"]).spawn();
    container.wait_for("ready");
    kill(payload_of(container.running.pid, "fuse-overlayfs"), Signal::SIGKILL).unwrap();
    container.finish().code(125).complains("fuse-overlayfs");
    case.run(["ps", "-aq"]).ok().prints("");
}

#[test]
fn a_file_system_helper_that_cannot_start_is_one_error() {
    let case = case!(Userns, Fuse);
    let before = case.store();
    let tools = case.make_dir("tools");
    let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", tools.display());
    for (number, (program, words)) in [
        ("#!/bin/sh\necho 'no luck today' >&2\nexit 1\n", "no luck today"),
        ("#!/bin/sh\nexit 0\n", "mounted nothing"),
        ("#!/bin/sh\nexit 3\n", "exit status: 3"),
        ("#!/no/such/interpreter\n", "no such file"),
    ]
    .into_iter()
    .enumerate()
    {
        let fake = case.make_file(&format!("fake{number}"), program);
        std::fs::set_permissions(&fake, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        std::fs::rename(fake, tools.join("fuse-overlayfs")).unwrap();
        let forced = case.base(&[], ["true"]).env("RLRUN_STORAGE_DRIVER", "fuse-overlayfs").env("PATH", &path).run();
        forced
            .refused(125, &format!("{}/fuse-overlayfs", tools.display()))
            .complains(words)
            .complains("hint: --storage");
        assert_eq!(case.store(), before);
    }
}

#[test]
fn a_network_helper_that_cannot_start_is_one_error() {
    let case = case!(Userns, Slirp);
    let tools = case.make_dir("tools");
    let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", tools.display());
    for (number, script) in ["echo 'no luck today' >&2; exit 1", "exit 0"].iter().enumerate() {
        let fake = case.make_file(&format!("fake{number}"), format!("#!/bin/sh\n{script}\n"));
        std::fs::set_permissions(&fake, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        std::fs::rename(fake, tools.join("slirp4netns")).unwrap();
        let out = case.rlrun(["run", "--rm", BASE, "true"]).env("PATH", &path).run();
        out.refused(125, "slirp4netns");
    }
}

#[test]
fn a_network_helper_that_hangs_meets_a_deadline() {
    let case = case!(Userns, Slirp);
    let tools = case.make_dir("tools");
    let fake = case.make_file("tools/slirp4netns", "#!/bin/sh\nexec sleep 1000\n");
    std::fs::set_permissions(&fake, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", tools.display());
    case.rlrun(["run", "--rm", BASE, "true"]).env("PATH", path).run().refused(125, "slirp4netns");
}

#[test]
fn a_broken_record_does_not_stop_other_commands() {
    let case = case!(Userns);
    let containers = case.data().join("containers");
    std::fs::create_dir_all(&containers).unwrap();
    let planted = containers.join("0".repeat(64));
    std::fs::create_dir(&planted).unwrap();
    case.in_base(["true"]).ok();
    case.run(["images"]).ok();
    drop(std::fs::remove_dir(planted));
}
