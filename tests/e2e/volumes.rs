//! `-v`, `--mount` and `--tmpfs`: what is asked for, where it is asked for, and nowhere else.

use rlrun_tests::{Case, Image, Rootfs, base_rootfs, case};

/// A directory of the user with one file, and its path.
fn source(case: &Case) -> String {
    let directory = case.make_dir("source");
    case.make_file("source/file", "from the host\n");
    directory.to_str().unwrap().to_owned()
}

#[test]
fn a_directory_is_shared_both_ways() {
    let case = case!(Userns);
    let source = source(&case);
    case.run_base(
        &["-v", &format!("{source}:/mnt")],
        ["sh", "-c", "cat /mnt/file; echo inside > /mnt/new; stat -c %u /mnt/file"],
    )
    .ok()
    .prints("from the host\n0");
    assert_eq!(std::fs::read_to_string(format!("{source}/new")).unwrap(), "inside\n");
}

#[test]
fn read_only_is_read_only() {
    let case = case!(Userns);
    let source = source(&case);
    for options in [
        ["-v".to_owned(), format!("{source}:/mnt:ro")],
        ["--mount".to_owned(), format!("type=bind,src={source},dst=/mnt,ro")],
    ] {
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        case.run_base(&options, ["sh", "-c", "cat /mnt/file; echo x > /mnt/file"])
            .code(1)
            .says("from the host")
            .complains("read-only");
    }
}

#[test]
fn a_read_only_volume_cannot_be_made_writable_again() {
    let case = case!(Userns);
    let source = source(&case);
    let volume = format!("{source}:/mnt:ro");
    case.run_base(&["-v", &volume], ["sh", "-c", "mount -o remount,rw,bind /mnt; echo x > /mnt/file"]).code(1);
    assert_eq!(std::fs::read_to_string(format!("{source}/file")).unwrap(), "from the host\n");
}

#[test]
fn a_single_file_can_be_a_volume() {
    let case = case!(Userns);
    let file = format!("{}/file", source(&case));
    case.run_base(&["-v", &format!("{file}:/etc/base-image:ro")], ["cat", "/etc/base-image"])
        .ok()
        .prints("from the host");
    case.run_base(&["-v", &format!("{file}:/new/place/file")], ["cat", "/new/place/file"]).ok().prints("from the host");
}

#[test]
fn a_missing_source_is_refused_and_not_created() {
    let case = case!(Userns);
    let missing = case.make_dir("here").join("missing");
    let missing = missing.to_str().unwrap();
    case.run_base(&["-v", &format!("{missing}:/mnt")], ["true"]).refused(125, missing);
    case.run_base(&["--mount", &format!("type=bind,source={missing},target=/mnt")], ["true"]).refused(125, missing);
    assert!(!std::path::Path::new(missing).exists());
}

#[test]
fn a_destination_that_is_a_link_is_followed_inside_the_container() {
    let case = case!(Userns);
    let source = source(&case);
    let victim = case.make_dir("victim");
    let target = victim.to_str().unwrap();
    // On the host the link's target exists; inside it does not, and only inside counts.
    let layer =
        base_rootfs().clone().symlink("absolute", target).symlink("climbing", &format!("../../../../../..{target}"));
    case.load(&Image::new("localhost/links:1", layer));
    for name in ["absolute", "climbing"] {
        let volume = format!("{source}:/{name}/sub");
        let out = case.run([
            "run",
            "--rm",
            "--network",
            "none",
            "-v",
            &volume,
            "localhost/links:1",
            "cat",
            &format!("{target}/sub/file"),
        ]);
        out.ok().prints("from the host");
    }
    assert_eq!(std::fs::read_dir(victim).unwrap().count(), 0, "something was made on the host");
}

#[test]
fn a_destination_cannot_climb_out() {
    let case = case!(Userns);
    let source = source(&case);
    let inside = format!("{source}:/../../../../mnt/../mnt");
    case.run_base(&["-v", &inside], ["cat", "/mnt/file"]).ok().prints("from the host");
    case.run_base(&["-v", &format!("{source}:relative")], ["true"]).refused(125, "relative");
    case.run_base(&["-v", &format!("{source}:/")], ["true"]).refused(125, "/");
}

#[test]
fn a_volume_cannot_cover_proc() {
    let case = case!(Userns);
    let source = source(&case);
    for destination in ["/proc", "/proc/self", "/proc/sys/kernel"] {
        case.run_base(&["-v", &format!("{source}:{destination}")], ["true"]).refused(125, "/proc");
    }
}

#[test]
fn a_link_in_the_image_cannot_bring_a_volume_into_proc() {
    let case = case!(Userns);
    let source = source(&case);
    let layer = base_rootfs().clone().symlink("data", "/proc/self/attr");
    case.load(&Image::new("localhost/to-proc:1", layer));
    case.run(["run", "--rm", "--network", "none", "-v", &format!("{source}:/data"), "localhost/to-proc:1", "true"])
        .refused(125, "/data");
}

#[test]
fn no_link_of_the_image_brings_a_mount_onto_the_root() {
    let case = case!(Userns);
    let source = source(&case);
    let refused = |link: &str, options: &[&str]| {
        case.load(&Image::new("localhost/to-root:1", base_rootfs().clone()).layer(Rootfs::new().symlink(link, "/")));
        let args = [&["run", "--rm", "--network", "none"], options, &["localhost/to-root:1", "true"]].concat();
        case.run(&args).refused(125, "leads to the root itself");
    };
    refused("data", &["-v", &format!("{source}:/data")]);
    refused("data", &["--pids-limit", "-1", "--tmpfs", "/data"]);
    // A file system of rlrun's own would be below what the container sees, and what it masks there not masked.
    for own in ["sys", "dev", "proc"] {
        refused(own, &[]);
    }
}

#[test]
fn a_tmpfs_is_empty_writable_and_private() {
    let case = case!(Userns);
    case.run_base(
        &["--tmpfs", "/scratch:size=1m,mode=1777"],
        [
            "sh",
            "-c",
            "ls -A /scratch; stat -c %a /scratch; df -k /scratch | tail -1; dd if=/dev/zero of=/scratch/x bs=64k count=40",
        ],
    )
    .code(1)
    .says("1777\n")
    .says("1024")
    .complains("no space");
    case.run_base(
        &["--mount", "type=tmpfs,dst=/scratch"],
        ["sh", "-c", "echo x > /scratch/x && grep ' /scratch ' /proc/mounts"],
    )
    .ok()
    .says("tmpfs");
}

#[test]
fn volumes_never_carry_setuid_or_devices() {
    let case = case!(Userns);
    let source = source(&case);
    let mounts = case.run_base(&["-v", &format!("{source}:/mnt")], ["grep", " /mnt ", "/proc/self/mounts"]).ok().out();
    assert!(mounts.contains("nosuid") && mounts.contains("nodev"), "{mounts}");
}

#[test]
fn two_volumes_at_one_place_are_refused() {
    let case = case!(Userns);
    let source = source(&case);
    let volume = format!("{source}:/mnt");
    case.run_base(&["-v", &volume, "-v", &volume], ["true"]).refused(125, "/mnt");
}

#[test]
fn a_file_and_a_directory_do_not_go_on_each_other() {
    let case = case!(Userns);
    let source = source(&case);
    let file = case.make_file("one", "file");
    let secret = case.make_file("secret", "s");
    case.run(["secret", "create", "s", secret.to_str().unwrap()]).ok();
    let on_directory = format!("{}:/mnt", file.display());
    let on_file = format!("{source}:/etc/passwd");
    let attempts: [(&[&str], &str); 6] = [
        (&["-v", &on_directory], "/mnt: Is a directory"),
        (&["-v", &on_file], "/etc/passwd: Not a directory"),
        (&["-v", "data:/etc/passwd"], "/etc/passwd: Not a directory"),
        (&["--tmpfs", "/etc/passwd"], "/etc/passwd: Not a directory"),
        (&["--device", "/dev/null:/mnt"], "/mnt: Is a directory"),
        (&["--secret", "s,target=/mnt"], "/mnt: Is a directory"),
    ];
    for (options, words) in attempts {
        case.run_base(options, ["true"]).refused(125, words).complains("hint: mount a file on a file");
    }
}

#[test]
fn a_malformed_volume_is_refused() {
    let case = case!(Userns);
    let source = source(&case);
    for volume in [format!("{source}:/mnt:sideways"), ":/mnt".to_owned(), format!("{source}:/a:ro:ro")] {
        case.run_base(&["-v", &volume], ["true"]).refused(125, "");
    }
    for mount in ["type=teapot,dst=/mnt", "src=a", "type=bind,src=/tmp", "type=tmpfs,dst=/mnt,colour=red"] {
        case.run_base(&["--mount", mount], ["true"]).refused(125, "");
    }
}

#[test]
fn mounts_inside_never_come_back_to_the_host() {
    let case = case!(Userns, Root);
    // A shared mount on the host, as systemd makes them all: the worst case for propagation.
    let source = case.make_dir("shared");
    let path = source.to_str().unwrap();
    let mount =
        |args: &[&str]| assert!(std::process::Command::new(args[0]).args(&args[1..]).status().unwrap().success());
    mount(&["mount", "--bind", path, path]);
    mount(&["mount", "--make-shared", path]);
    std::fs::create_dir(source.join("sub")).unwrap();
    let volume = format!("{path}:/mnt");
    let out = case.run_base(&["-v", &volume, "--tmpfs", "/mnt/sub"], ["grep", " /mnt/sub ", "/proc/mounts"]);
    let seen = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    mount(&["umount", path]);
    out.ok().says("tmpfs");
    assert!(!seen.contains(&format!("{path}/sub")), "a mount came back to the host");
}

#[test]
fn secrets_of_the_home_that_the_environment_names_stay_outside() {
    let case = case!(Userns);
    // The account's home is another: HOME is set as in CI or below `sudo -E`.
    case.make_dir("home/.ssh");
    for source in [case.home().join(".ssh"), case.home().to_path_buf()] {
        let volume = format!("{}:/x:ro", source.display());
        case.run_base(&["-v", &volume], ["true"]).refused(125, "BASE005");
    }
    let work = format!("{}:/x", case.make_dir("home/work").display());
    case.run_base(&["-v", &work], ["true"]).ok();
}
