//! What a container sees as its root file system, with each of the three ways to make one.

use rlrun_tests::{BASE, Case, Image, Rootfs, base_rootfs, case, probe_program};

/// Runs in every driver this host has; `overlay` must be among them where the kernel offers it.
fn with_driver(case: &Case, driver: &str, options: &[&str], command: &[&str]) -> rlrun_tests::Output {
    case.base(options, command).env("RLRUN_STORAGE_DRIVER", driver).run()
}

fn root_is_a_private_copy(case: &Case, driver: &str, file_system: &str) {
    let script = "grep ' / / ' /proc/self/mountinfo || cat /proc/self/mountinfo | head -1; echo changed > /etc/base-image; rm -r /var; mkdir /var; ln -s a /b; cat /etc/base-image";
    let out = with_driver(case, driver, &[], &["sh", "-c", script]);
    out.ok().says(file_system).says("changed");
    with_driver(case, driver, &[], &["cat", "/etc/base-image"]).ok().prints("base");
    with_driver(case, driver, &["--read-only"], &["touch", "/x"]).code(1).complains("read-only");
}

#[test]
fn native_overlay_is_a_private_copy() {
    let case = case!(Userns, Overlay);
    root_is_a_private_copy(&case, "overlay", "overlay");
}

#[test]
fn fuse_overlayfs_is_a_private_copy() {
    let case = case!(Userns, Fuse);
    root_is_a_private_copy(&case, "fuse-overlayfs", "fuse");
}

#[test]
fn a_plain_copy_is_a_private_copy() {
    let case = case!(Userns);
    root_is_a_private_copy(&case, "copy", "/");
}

#[test]
fn native_overlay_is_the_first_choice() {
    let case = case!(Userns, Overlay);
    case.in_base(["sh", "-c", "grep ' / ' /proc/mounts"]).ok().says("overlay / overlay");
}

#[test]
fn a_start_leaves_what_the_container_writes_empty() {
    let case = case!(Userns, Overlay).keeping_containers();
    let id = case.detached(&[], ["sh", "-c", "mount; sleep 1000"]);
    let upper = case.data().join("containers").join(&id).join("upper");
    assert_eq!(std::fs::read_dir(&upper).unwrap().count(), 0);
    case.run(["exec", &id, "sh", "-c", "grep ' /etc/resolv.conf ' /proc/mounts && echo own >/etc/own"]).ok();
    assert!(upper.join("etc/own").is_file());
    // The files of one that runs, of one that rests, and of one that is started again.
    case.run(["diff", &id]).ok().says("A /etc/own");
    let own = format!("{id}:/etc/own");
    case.run(["cp", &own, "-"]).ok().says("own");
    case.run(["stop", "-t", "0", &id]).ok();
    case.run(["cp", &own, "-"]).ok().says("own");
    case.rlrun(["start", &id]).leaving_processes().run().ok();
    case.run(["exec", &id, "cat", "/etc/own"]).ok().prints("own");
    case.run(["rm", "-f", "-t", "0", &id]).ok();
}

#[test]
fn the_option_chooses_the_driver_too() {
    let case = case!(Userns, Fuse);
    case.run_base(&["--storage-driver", "fuse-overlayfs"], ["sh", "-c", "grep ' / ' /proc/mounts"]).ok().says("fuse");
}

#[test]
fn an_unknown_driver_is_refused() {
    let case = case!(Userns);
    with_driver(&case, "floppy", &[], &["true"]).refused(125, "floppy");
}

/// Lower layers with files, directories and links that an upper layer hides in every way there is.
fn layered_image(name: &str) -> Image {
    let middle = Rootfs::new()
        .dir("stack", 0o755)
        .file("stack/kept", 0o644, "lower")
        .file("stack/hidden", 0o644, "lower")
        .file("stack/replaced", 0o644, "lower")
        .dir("stack/opaque", 0o755)
        .file("stack/opaque/lower", 0o644, "lower")
        .dir("stack/becomes-file", 0o755)
        .file("stack/becomes-file/inside", 0o644, "x")
        .file("stack/becomes-dir", 0o644, "x");
    let upper = Rootfs::new()
        .dir("stack", 0o755)
        .file("stack/.wh.hidden", 0o644, "")
        .file("stack/replaced", 0o600, "upper")
        .dir("stack/opaque", 0o755)
        .file("stack/opaque/.wh..wh..opq", 0o644, "")
        .file("stack/opaque/upper", 0o644, "upper")
        .file("stack/becomes-file", 0o644, "file")
        .dir("stack/becomes-dir", 0o755)
        .file("stack/becomes-dir/inside", 0o644, "x");
    Image::new(name, base_rootfs().clone()).layer(middle).layer(upper)
}

fn layers_stack(driver: &str, case: &Case) {
    case.load(&layered_image("localhost/stack:1"));
    let script = "cd /stack; find . | sort; cat kept replaced becomes-file; stat -c %a replaced";
    case.rlrun(["run", "--rm", "--network", "none", "localhost/stack:1", "sh", "-c", script])
        .env("RLRUN_STORAGE_DRIVER", driver)
        .run()
        .ok()
        .prints(".\n./becomes-dir\n./becomes-dir/inside\n./becomes-file\n./kept\n./opaque\n./opaque/upper\n./replaced\nlowerupperfile600");
}

#[test]
fn whiteouts_hide_lower_layers_in_overlay() {
    let case = case!(Userns, Overlay);
    layers_stack("overlay", &case);
}

#[test]
fn whiteouts_hide_lower_layers_in_fuse_overlayfs() {
    let case = case!(Userns, Fuse);
    layers_stack("fuse-overlayfs", &case);
}

#[test]
fn whiteouts_hide_lower_layers_in_a_copy() {
    let case = case!(Userns);
    layers_stack("copy", &case);
}

#[test]
fn owners_modes_and_links_of_layers_are_kept() {
    let case = case!(Userns, Subid);
    let layer = base_rootfs()
        .clone()
        .dir_of("own", (1000, 50), 0o2750)
        .file_of("own/file", (1000, 1000), 0o4755, "x")
        .hard_link("own/hard", "own/file")
        .symlink("own/soft", "/etc/passwd");
    case.load(&Image::new("localhost/owned:1", layer));
    for driver in ["overlay", "copy"] {
        let script = "stat -c '%n %a %u %g %h' /own /own/file /own/hard; readlink /own/soft";
        case.rlrun(["run", "--rm", "--network", "none", "localhost/owned:1", "sh", "-c", script])
            .env("RLRUN_STORAGE_DRIVER", driver)
            .run()
            .ok()
            .prints("/own 2750 1000 50 2\n/own/file 4755 1000 1000 2\n/own/hard 4755 1000 1000 2\n/etc/passwd");
    }
}

#[test]
fn an_image_without_any_directory_gets_what_it_needs() {
    let case = case!(Userns);
    let layer = Rootfs::new().file("probe", 0o755, probe_program());
    case.load(&Image::new("localhost/scratch:1", layer));
    case.run(["run", "--rm", "--network", "none", "localhost/scratch:1", "/probe", "identity"]).ok().says("uid 0 0");
    case.run(["run", "--rm", "--network", "none", "localhost/scratch:1", "/probe", "open", "/proc/self/status"])
        .ok()
        .says("ok");
    case.run(["run", "--rm", "--network", "none", "localhost/scratch:1", "/probe", "open", "/dev/null", "rw"])
        .ok()
        .says("ok");
}

#[test]
fn dev_has_the_standard_nodes_and_no_other() {
    let case = case!(Userns);
    let list = case.in_base(["ls", "/dev"]).ok().out();
    let mut names: Vec<&str> = list.split_whitespace().collect();
    names.retain(|name| *name != "console");
    assert_eq!(
        names,
        [
            "core", "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty",
            "urandom", "zero"
        ]
    );
    case.in_base([
        "sh",
        "-c",
        "echo x > /dev/null; head -c 4 /dev/zero | wc -c; head -c 5 /dev/urandom | wc -c; echo x > /dev/full",
    ])
    .code(1)
    .says("4\n5")
    .complains("no space");
}

#[test]
fn devices_cannot_be_made() {
    let case = case!(Userns);
    case.in_base(["probe", "mknod", "/tmp/sda"]).ok().says("EPERM");
}

#[test]
fn kernel_interfaces_are_masked_or_read_only() {
    let case = case!(Userns);
    let empty = "for f in /proc/kcore /proc/keys /proc/timer_list /proc/sched_debug; do [ -e $f ] && head -c 1 $f; done; ls /proc/acpi /proc/scsi /sys/firmware 2>/dev/null | grep -v : | grep .; true";
    case.in_base(["sh", "-c", empty]).ok().prints("");
    for path in ["/proc/sysrq-trigger", "/proc/sys/kernel/hostname", "/proc/irq", "/proc/bus", "/proc/fs"] {
        let out = case.in_base([
            "sh",
            "-c",
            &format!("[ -e {path} ] || exit 9; if [ -d {path} ]; then touch {path}/x; else echo x > {path}; fi"),
        ]);
        assert!(out.exit != rlrun_tests::Exit::Code(0), "{path} can be written");
    }
}

#[test]
fn proc_shows_only_the_container() {
    let case = case!(Userns);
    case.in_base(["sh", "-c", "echo $$; ls -d /proc/[0-9]* | wc -l"]).ok().says("1\n");
    let count: u32 = case.in_base(["sh", "-c", "ls -d /proc/[0-9]* | wc -l"]).ok().out().trim().parse().unwrap();
    assert!(count <= 4, "{count} processes are visible");
}

#[test]
fn shared_memory_has_the_usual_size_and_ipc_is_private() {
    let case = case!(Userns);
    case.in_base(["sh", "-c", "df -k /dev/shm | tail -1"]).ok().says("65536");
    case.in_base(["sh", "-c", "grep ' /dev/mqueue ' /proc/mounts"]).ok().says("mqueue");
    let host = std::fs::read_link("/proc/self/ns/ipc").unwrap();
    let inside = case.in_base(["readlink", "/proc/self/ns/ipc"]).ok().out();
    assert_ne!(inside.trim(), host.to_str().unwrap());
}

#[test]
fn every_namespace_is_private() {
    let case = case!(Userns);
    for kind in ["user", "pid", "mnt", "net", "ipc", "uts", "cgroup"] {
        let host = std::fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
        let inside = case.in_base(["readlink", &format!("/proc/self/ns/{kind}")]).ok().out();
        assert_ne!(inside.trim(), host.to_str().unwrap(), "{kind}");
    }
}

#[test]
fn the_container_has_its_own_hosts_hostname_and_resolver() {
    let case = case!(Userns, Slirp);
    let out = case.run([
        "run",
        "--rm",
        "--hostname",
        "given",
        BASE,
        "cat",
        "/etc/hostname",
        "/etc/hosts",
        "/etc/resolv.conf",
    ]);
    out.ok().says("given\n").says("127.0.0.1").says("localhost").says("nameserver 10.0.2.3");
}

#[test]
fn an_images_own_resolver_is_not_written_to_the_store() {
    let case = case!(Userns);
    let layer = base_rootfs()
        .clone()
        .file("etc/resolv.conf", 0o644, "nameserver 192.0.2.53\n")
        .symlink("etc/hosts", "/etc/base-image");
    case.load(&Image::new("localhost/resolver:1", layer));
    case.run(["run", "--rm", "--network", "none", "localhost/resolver:1", "cat", "/etc/hosts", "/etc/resolv.conf"])
        .ok();
    // The link led to a file of the layer, which this image shares.
    case.in_base(["cat", "/etc/base-image"]).ok().prints("base");
}

#[test]
fn shared_memory_can_be_sized() {
    let case = case!(Userns);
    case.run_base(&["--shm-size", "1m"], ["sh", "-c", "df -k /dev/shm | tail -1"]).ok().says("1024");
}

#[test]
fn the_root_directory_is_the_images_with_every_driver_until_the_container_changes_it() {
    let case = case!(Userns, Fuse).keeping_containers();
    let layer = Rootfs::new().dir_of("./", (7, 8), 0o1751);
    case.load(&Image::new("localhost/root-of-its-own:1", base_rootfs().clone()).layer(layer));
    for driver in ["overlay", "fuse-overlayfs", "copy"] {
        let script = "stat -c '%a %u %g' /; chmod 700 /";
        let start = ["run", "--network", "none", "--name", driver, "--storage-driver", driver];
        case.run([&start[..], &["localhost/root-of-its-own:1", "sh", "-c", script]].concat()).ok().prints("1751 7 8");
        case.run(["start", "-a", driver]).ok().prints("700 7 8");
    }
}
