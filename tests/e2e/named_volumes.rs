//! Volumes of rlrun's own: named ones, those of one container, and what an image declares.

use rlrun_tests::{BASE, Case, Image, base_rootfs, case};
use serde_json::{Value, json};

fn volumes(case: &Case) -> Vec<String> {
    case.run(["volume", "ls", "-q"]).ok().out().lines().map(str::to_owned).collect()
}

fn mountpoint(case: &Case, name: &str) -> std::path::PathBuf {
    case.run(["volume", "inspect", "-f", "{{.Mountpoint}}", name]).ok().out().trim().into()
}

/// An image with a directory of somebody else's at /data, a link out of it and a set-user-ID file.
fn image(case: &Case) {
    let layer = base_rootfs()
        .clone()
        .dir_of("data", (1000, 1000), 0o750)
        .file_of("data/seed", (1000, 50), 0o640, "from the image\n")
        .file("data/suid", 0o4755, "x")
        .dir("data/deep", 0o711)
        .symlink("data/deep/out", "/etc/passwd")
        .symlink("data/climb", "../../../../../../../../../etc");
    case.load(&Image::new("localhost/seeded:1", layer).with("Volumes", json!({"/data": {}})));
}

#[test]
fn a_named_volume_is_made_kept_and_removed() {
    let case = case!(Userns);
    case.run_base(&["-v", "data:/mnt"], ["sh", "-c", "echo kept > /mnt/file"]).ok();
    case.run_base(&["--mount", "type=volume,src=data,dst=/mnt,ro"], ["cat", "/mnt/file"]).ok().prints("kept");
    assert_eq!(volumes(&case), ["data"]);
    let out = case.run(["volume", "inspect", "data"]).ok().out();
    let found: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (&found[0]["Name"], &found[0]["Driver"], &found[0]["Anonymous"]),
        (&json!("data"), &json!("local"), &json!(false))
    );
    case.run(["volume", "exists", "data"]).ok();
    case.run(["volume", "rm", "data"]).ok().prints("data");
    case.run(["volume", "exists", "data"]).code(1);
    case.run(["volume", "rm", "data"]).refused(1, "no such volume");
    case.run(["volume", "rm", "-f", "data"]).ok();
}

#[test]
fn what_a_podman_user_types_works() {
    let case = case!(Userns);
    case.run(["volume", "create", "--label", "app=web", "b"]).ok().prints("b");
    case.run(["volume", "create", "b"]).refused(125, "exists already");
    case.run(["volume", "create", "--ignore", "b"]).ok().prints("b");
    case.run(["volume", "create", "a"]).ok();
    case.run(["volume", "ls"]).ok().prints("DRIVER      VOLUME NAME\nlocal       a\nlocal       b");
    case.run(["volume", "ls", "--format", "{{.Name}}={{.Labels.app}}", "--filter", "label=app=web"])
        .ok()
        .prints("b=web");
    case.run(["volume", "ls", "-q", "--filter", "name=a"]).ok().prints("a");
    case.run(["volume", "create", "../x"]).refused(125, "not the name of a volume");
    case.run(["volume", "create", "--driver", "nfs", "x"]).refused(125, "no such driver");
    case.run(["volume", "prune"]).refused(125, "not a terminal");
    case.run(["volume", "prune", "-f", "--filter", "label=app=web"]).ok().prints("b");
    assert_eq!(volumes(&case), ["a"]);
}

#[test]
fn a_volume_can_be_memory_or_a_directory_of_the_host() {
    let case = case!(Userns);
    let directory = case.make_dir("shared");
    case.user().own(&directory);
    let device = format!("device={}", directory.display());
    case.run(["volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=1m,mode=1777", "mem"]).ok();
    case.run(["volume", "create", "--opt", "type=none", "--opt", &device, "--opt", "o=bind", "dir"]).ok();
    let shown = "{{.Options.type}} {{.Options.o}} {{.NeedsCopyUp}} {{.UID}}";
    case.run(["volume", "inspect", "-f", shown, "mem"]).ok().prints("tmpfs size=1m,mode=1777 false 0");
    let script = "grep -c ' /m tmpfs rw,.*size=1024k' /proc/mounts; stat -c %a /m; echo here > /d/file";
    case.run_base(&["-v", "mem:/m", "-v", "dir:/d"], ["sh", "-c", script]).ok().prints("1\n1777");
    assert_eq!(std::fs::read_to_string(directory.join("file")).unwrap(), "here\n");
    case.run_base(&["-v", "dir:/d:ro"], ["sh", "-c", "echo x > /d/new"]).code(1).complains("Read-only");
    // The policies are asked about the directory, and the volume is in use as any other.
    let id = case.detached(&["--name", "box", "-v", "dir:/d", "-v", "mem:/m"], ["probe", "wait"]);
    case.run(["inspect", "-f", "{{range .Mounts}}{{.Type}}:{{.Name}} {{end}}", &id])
        .ok()
        .prints("volume:dir volume:mem ");
    for name in ["dir", "mem"] {
        case.run(["volume", "rm", name]).refused(2, "box uses it");
    }
    case.run(["rm", "-f", "-t", "0", "box"]).ok();
    let archive = case.run(["volume", "export", "dir"]).ok().out();
    assert!(archive.contains("here\n"));
    case.run(["volume", "export", "mem"]).refused(125, "in the memory of each container");
    case.run_base(&["--mount", "type=volume,src=dir,dst=/d,subpath=x"], ["true"]).refused(125, "a mount itself");
    case.run(["volume", "create", "--opt", "type=nfs", "--opt", "device=:/x", "n"]).refused(125, "only root can mount");
    case.run(["volume", "create", "--opt", "o=size=1m", "n"]).refused(125, "quotas of a directory");
    case.run(["volume", "rm", "dir", "mem"]).ok();
    assert!(directory.join("file").exists(), "the host's directory stays");
    assert!(volumes(&case).is_empty());
}

#[test]
fn a_new_volume_is_filled_from_the_image_and_an_old_one_is_not() {
    let case = case!(Userns, Subid);
    image(&case);
    let show =
        "stat -c '%n %u:%g %a' /data /data/seed /data/suid /data/deep; readlink /data/deep/out; readlink /data/climb";
    let run = |options: &[&str], command: &str| {
        let words = ["run", "--rm", "--network", "none"].iter().chain(options).copied();
        case.run(words.chain(["localhost/seeded:1", "sh", "-c", command]))
    };
    let want = "/data 1000:1000 750\n/data/seed 1000:50 640\n/data/suid 0:0 4755\n/data/deep 0:0 711\n\
                /etc/passwd\n../../../../../../../../../etc";
    run(&["-v", "fill:/data"], show).ok().prints(want);
    run(&["-v", "fill:/data"], "rm -r /data/*; echo mine > /data/new").ok();
    run(&["-v", "fill:/data"], "ls /data").ok().prints("new");
    run(&["-v", "empty:/data:nocopy"], "ls -A /data").ok().prints("");
    // Under another place than the image's, there is nothing to fill it with.
    run(&["-v", "other:/mnt/x"], "ls -A /mnt/x").ok().prints("");
    assert_eq!(volumes(&case), ["empty", "fill", "other"]);
}

#[test]
fn an_images_volume_goes_with_its_container() {
    let case = case!(Userns).keeping_containers();
    image(&case);
    case.run(["run", "--rm", "--network", "none", "localhost/seeded:1", "cat", "/data/seed"])
        .ok()
        .prints("from the image");
    assert!(volumes(&case).is_empty());

    for name in ["a", "b"] {
        let command =
            ["run", "--name", name, "--network", "none", "localhost/seeded:1", "sh", "-c", "echo x > /data/x"];
        case.run(command).ok();
    }
    let own = volumes(&case);
    assert_eq!(own.len(), 2);
    case.run(["volume", "rm", &own[0]]).refused(2, "uses it");
    case.run(["rm", "-v", "a"]).ok();
    assert_eq!(volumes(&case).len(), 1);
    case.run(["rm", "b"]).ok();
    assert_eq!(volumes(&case).len(), 1, "without -v the volume stays");
    let stays = &volumes(&case)[0];
    assert!(mountpoint(&case, stays).join("x").exists() || !case.user().dropped);
    case.run(["volume", "prune", "--force"]).ok().prints(stays);
    assert!(volumes(&case).is_empty());
}

#[test]
fn what_becomes_of_an_images_volume_can_be_chosen() {
    let case = case!(Userns);
    image(&case);
    let fs = |how: &str| {
        let command = ["run", "--rm", "--network", "none", "--image-volume", how, "localhost/seeded:1"];
        case.run(command.iter().copied().chain(["sh", "-c", "cat /data/seed; grep -c ' /data ' /proc/mounts"]))
    };
    fs("tmpfs").ok().prints("from the image\n1");
    fs("anonymous").ok().prints("from the image\n1");
    fs("ignore").code(1).says("from the image\n0");
    fs("nonsense").refused(125, "no such choice");
    assert!(volumes(&case).is_empty());
}

#[test]
fn a_volume_in_use_is_not_removed() {
    // A killed container leaves its name, which is free.
    let case = case!(Userns).keeping_containers();
    let running = case.spawn_base(&["-v", "busy:/mnt", "--name", "user"], ["sh", "-c", "echo ready; exec sleep 1000"]);
    case.run(["volume", "rm", "busy"]).refused(2, "container user uses it");
    case.run(["volume", "prune", "-f"]).ok().prints("");
    assert_eq!(volumes(&case), ["busy"]);
    running.signal(nix::sys::signal::Signal::SIGKILL);
    running.finish();
    case.run(["volume", "prune", "-f"]).ok().prints("busy");
}

#[test]
fn options_of_a_volume_hold() {
    let case = case!(Userns, Subid);
    let flags = |options: &str| {
        let volume = format!("v:/mnt{options}");
        case.run_base(&["-v", &volume], ["sh", "-c", "grep ' /mnt ' /proc/mounts | cut -d' ' -f4"]).ok().out()
    };
    for word in ["rw", "nosuid", "nodev"] {
        assert!(flags("").split([',', '\n']).any(|w| w == word), "{word}");
    }
    for word in ["ro", "noexec"] {
        assert!(flags(":ro,noexec").split([',', '\n']).any(|w| w == word), "{word}");
    }
    case.run_base(&["-v", "v:/mnt:suid,bogus"], ["true"]).refused(125, "unknown option bogus");
    // U gives what is there to the container's user, and follows no link.
    case.run_base(&["-v", "v:/mnt"], ["sh", "-c", "mkdir /mnt/d; touch /mnt/d/f; ln -s /etc/passwd /mnt/d/l"]).ok();
    case.run_base(
        &["-u", "1000:50", "-v", "v:/mnt:U"],
        ["sh", "-c", "stat -c %u:%g /mnt /mnt/d/f /mnt/d/l /etc/passwd"],
    )
    .ok()
    .prints("1000:50\n1000:50\n1000:50\n0:0");
    let directory = case.make_dir("bound");
    let bind = format!("{}:/mnt:U", directory.display());
    case.run_base(&["-u", "1000", "-v", &bind], ["touch", "/mnt/new"]).ok();
    // Given back, so that the test can clean up.
    case.run_base(&["-v", &bind], ["rm", "/mnt/new"]).ok();
}

#[test]
fn a_part_of_a_volume_is_mounted_and_nothing_beside_it() {
    let case = case!(Userns);
    case.run_base(&["-v", "v:/mnt"], ["sh", "-c", "mkdir -p /mnt/a/b; echo in > /mnt/a/b/f; ln -s /etc /mnt/evil"])
        .ok();
    let part = |subpath: &str| {
        let mount = format!("type=volume,src=v,dst=/part,subpath={subpath}");
        case.run_base(&["--mount", &mount], ["sh", "-c", "cat /part/f; ls /part/passwd"])
    };
    part("a/b").says("in\n");
    part("../../a/b").says("in\n");
    // The link leads to /etc of the volume, which is not there.
    part("evil").refused(125, "evil");
    part("nowhere").refused(125, "nowhere");
}

#[test]
fn two_containers_that_start_at_once_fill_a_volume_once() {
    let case = case!(Userns);
    let mut layer = base_rootfs().clone().dir("data", 0o755);
    for number in 0..300 {
        layer = layer.file(&format!("data/{number}"), 0o644, "x");
    }
    case.load(&Image::new("localhost/many:1", layer));
    let command =
        ["run", "--rm", "--network", "none", "-v", "v:/data", "localhost/many:1", "sh", "-c", "ls /data | wc -l"];
    let all: Vec<_> = (0..4).map(|_| case.rlrun(command).spawn()).collect();
    for running in all {
        running.finish().ok().prints("300");
    }
}

#[test]
fn the_policy_sees_a_volume_and_the_store_stays_closed() {
    let case = case!(Userns);
    let plan = case.run(["plan", "-v", "data:/mnt:ro", "-v", "/own", BASE, "true"]).ok().out();
    let plan: Value = serde_json::from_str(&plan).unwrap();
    let mounts = plan["oci"]["mounts"].as_array().unwrap();
    let at = |place: &str| mounts.iter().find(|m| m["destination"] == place).unwrap();
    assert_eq!((&at("/mnt")["type"], &at("/mnt")["source"]), (&json!("volume"), &json!("data")));
    assert_eq!(at("/own")["source"].as_str().unwrap().len(), 64);
    // A plan leaves nothing behind.
    assert!(volumes(&case).is_empty());
    // Volumes are below what rlrun trusts, and only volumes are let through.
    let store = format!("{}:/mnt", case.data().display());
    case.run_base(&["-v", &store], ["true"]).refused(125, "BASE006");
}

#[test]
fn a_volume_can_cover_nothing_that_confines() {
    let case = case!(Userns);
    for place in ["/proc", "/proc/self", "/", "/sys", "/dev"] {
        case.run_base(&["-v", &format!("v:{place}")], ["true"]).code(125);
    }
    assert!(volumes(&case).is_empty());
}

#[test]
fn volumes_of_another_container_are_shared_and_outlive_it() {
    let case = case!(Userns).keeping_containers();
    let shared = case.make_dir("shared");
    let bind = format!("{}:/bind", shared.display());
    let mounts = ["--name", "first", "-v", "/own", "-v", "named:/named", "-v", &bind];
    let command = ["sh", "-c", "for d in own named bind; do echo $d > /$d/f; done"];
    case.run(["run", "--network", "none"].into_iter().chain(mounts).chain([BASE]).chain(command)).ok();
    case.run_base(&["--volumes-from", "first"], ["cat", "/own/f", "/named/f", "/bind/f"])
        .ok()
        .prints("own\nnamed\nbind");
    case.run_base(&["--volumes-from", "first:ro"], ["sh", "-c", "echo x > /own/f"]).code(1).complains("read-only");
    case.run_base(&["--volumes-from", "nobody"], ["true"]).refused(125, "no such container");
    case.run_base(&["--volumes-from", "first:bogus"], ["true"]).refused(125, "unknown option");
    let command = ["run", "--name", "second", "--network", "none", "--volumes-from", "first", BASE, "true"];
    case.run(command).ok();
    case.run(["rm", "-v", "first"]).ok();
    case.run_base(&["--volumes-from", "second"], ["cat", "/own/f"]).ok().prints("own");
}

#[test]
fn a_volume_goes_into_an_archive_and_out_of_one() {
    let case = case!(Userns, Subid);
    case.run_base(&["-v", "data:/d"], ["sh", "-c", "echo x > /d/f; chown 1000:50 /d/f; ln -s /etc/passwd /d/link"])
        .ok();
    let archive = case.make_dir("archives").join("data.tar");
    case.run(["volume", "export", "-o", archive.to_str().unwrap(), "data"]).ok();
    case.run(["volume", "create", "other"]).ok();
    case.run(["volume", "import", "other", archive.to_str().unwrap()]).ok();
    let look = "cat /d/f; stat -c %u:%g /d/f; readlink /d/link";
    case.run_base(&["-v", "other:/d"], ["sh", "-c", look]).ok().prints("x\n1000:50\n/etc/passwd");
    let bytes = case.run(["volume", "export", "other"]).ok().stdout.clone();
    case.rlrun(["volume", "import", "data", "-"]).stdin(bytes).run().ok();
    case.rlrun(["volume", "import", "data", "-"]).stdin(b"none".repeat(300)).run().refused(125, "archive");
    case.run(["volume", "import", "nosuch", "-"]).refused(125, "no such volume");
    // A link in a volume is not a way for an archive to leave it.
    case.run_base(&["-v", "data:/d"], ["sh", "-c", "rm /d/f; ln -s / /d/f"]).ok();
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(0);
    header.set_mode(0o644);
    builder.append_data(&mut header, "f/tmp/evil-of-a-volume", std::io::empty()).unwrap();
    let bytes = builder.into_inner().unwrap();
    case.rlrun(["volume", "import", "data", "-"]).stdin(bytes).run().code(125);
    assert!(!std::path::Path::new("/tmp/evil-of-a-volume").exists());
}

#[test]
fn unshare_reaches_files_of_subordinate_ids() {
    let case = case!(Userns, Subid);
    case.run_base(&["-v", "data:/d"], ["sh", "-c", "echo x > /d/f; chmod 600 /d/f; chown 1000:50 /d/f"]).ok();
    let file = mountpoint(&case, "data").join("f");
    let file = file.to_str().unwrap();
    case.invoke("/bin/cat".as_ref()).args([file]).run().code(1);
    case.run(["unshare", "cat", file]).ok().prints("x");
    case.run(["unshare", "stat", "-c", "%u:%g", file]).ok().prints("1000:50");
    case.rlrun(["unshare", "sh", "-c", "read line; echo $line; exit 7"]).stdin("typed\n").run().code(7).prints("typed");
    case.run(["unshare", "nosuch"]).code(127);
}
