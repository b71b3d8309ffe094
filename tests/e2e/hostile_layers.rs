//! Layers that try to write outside their directory, or to break the store. Whatever an archive says, the host is as it
//! was and other images still run.

use rlrun_tests::{Case, Exit, Image, Output, Rootfs, base_rootfs, case};

/// Loads an image with this layer on top of the usual one.
fn load(case: &Case, name: &str, layer: Rootfs) -> Output {
    let image = Image::new(name, base_rootfs().clone()).layer(layer);
    let archive = case.make_file(&format!("{}.tar", name.replace(['/', ':'], "-")), image.docker_archive().bytes());
    case.run(["load", "-i", archive.to_str().unwrap()])
}

/// A file on the host that a successful attack would change.
struct Bait {
    path: String,
}

impl Bait {
    fn put(case: &Case) -> Bait {
        case.make_dir("bait");
        let path = case.make_file("bait/file", "as it was").to_str().unwrap().to_owned();
        Bait { path }
    }

    fn directory(&self) -> &str {
        self.path.strip_suffix("/file").unwrap()
    }

    #[track_caller]
    fn untouched(&self) {
        assert_eq!(std::fs::read_to_string(&self.path).unwrap(), "as it was");
        assert_eq!(std::fs::read_dir(self.directory()).unwrap().count(), 1, "something was added on the host");
    }
}

/// The layer is refused, or it is loaded and its files stay inside; in both cases the host and the store are fine.
fn contained(layer: impl Fn(&Bait) -> Rootfs) {
    let case = case!(Userns);
    let bait = Bait::put(&case);
    let out = load(&case, "localhost/hostile:1", layer(&bait));
    bait.untouched();
    if out.exit == Exit::Code(0) {
        case.run(["run", "--rm", "--network", "none", "localhost/hostile:1", "true"]).ok();
        bait.untouched();
        case.run(["rmi", "localhost/hostile:1"]).ok();
    } else {
        out.refused(125, "");
        let images = case.run(["images"]).ok().out();
        assert!(!images.contains("hostile"), "{images}");
    }
    bait.untouched();
    case.in_base(["cat", "/etc/base-image"]).ok().prints("base");
}

#[test]
fn a_path_that_climbs() {
    contained(|bait| Rootfs::new().file(&format!("../../../../../../../../../..{}", bait.path), 0o644, "owned"));
}

#[test]
fn a_path_that_climbs_in_the_middle() {
    contained(|bait| Rootfs::new().file(&format!("etc/../../../../../../../..{}", bait.path), 0o644, "owned"));
}

#[test]
fn an_absolute_path() {
    contained(|bait| Rootfs::new().file(&bait.path, 0o644, "owned"));
}

#[test]
fn a_file_through_a_symbolic_link() {
    contained(|bait| {
        Rootfs::new().symlink("out", bait.directory()).file("out/file", 0o644, "owned").file("out/new", 0o644, "x")
    });
}

#[test]
fn a_directory_through_a_symbolic_link() {
    contained(|bait| Rootfs::new().symlink("out", bait.directory()).dir("out/new", 0o777));
}

#[test]
fn a_file_through_a_link_that_an_earlier_layer_made() {
    let case = case!(Userns);
    let bait = Bait::put(&case);
    let image = Image::new("localhost/hostile:1", base_rootfs().clone())
        .layer(Rootfs::new().symlink("out", bait.directory()).symlink("up", "../../../.."))
        .layer(Rootfs::new().file("out/file", 0o644, "owned").file(&format!("up{}", bait.path), 0o644, "owned"));
    let archive = case.make_file("two.tar", image.docker_archive().bytes());
    case.run(["load", "-i", archive.to_str().unwrap()]);
    case.run(["run", "--rm", "--network", "none", "localhost/hostile:1", "true"]);
    bait.untouched();
    case.in_base(["true"]).ok();
}

#[test]
fn a_hard_link_to_a_host_file() {
    contained(|bait| Rootfs::new().hard_link("stolen", &bait.path).file("stolen", 0o644, "owned"));
}

#[test]
fn a_hard_link_that_climbs() {
    contained(|bait| {
        let target = format!("../../../../../../../..{}", bait.path);
        Rootfs::new().hard_link("stolen", &target).file("stolen", 0o644, "owned")
    });
}

#[test]
fn a_hard_link_through_a_symbolic_link() {
    contained(|bait| {
        Rootfs::new().symlink("out", bait.directory()).hard_link("stolen", "out/file").file("stolen", 0o644, "owned")
    });
}

#[test]
fn a_file_over_a_symbolic_link() {
    contained(|bait| Rootfs::new().symlink("target", &bait.path).file("target", 0o644, "owned"));
}

#[test]
fn modes_and_owners_through_a_symbolic_link() {
    contained(|bait| {
        Rootfs::new().symlink("target", &bait.path).dir("target", 0o777).file_of("target", (1, 1), 0o6777, "")
    });
}

#[test]
fn a_whiteout_that_climbs() {
    contained(|bait| {
        let directory = bait.directory();
        Rootfs::new()
            .file(&format!("../../../../../../../..{directory}/.wh.file"), 0o644, "")
            .file(".wh...", 0o644, "")
            .file(".wh..", 0o644, "")
            .file(".wh.", 0o644, "")
    });
}

#[test]
fn an_opaque_mark_through_a_symbolic_link() {
    contained(|bait| {
        Rootfs::new().symlink("out", bait.directory()).file("out/.wh..wh..opq", 0o644, "").file(
            "out/.wh.file",
            0o644,
            "",
        )
    });
}

/// Runs a command in the image with each driver that the host has.
fn with_every_driver(case: &Case, image: &str, command: &[&str], look: impl Fn(&Output)) {
    for driver in ["overlay", "fuse-overlayfs", "copy"] {
        let run = case.rlrun(["run", "--rm", "--network", "none", "--storage-driver", driver, image]);
        let out = run.args(command).run();
        // A host that lacks a driver says so, with a code that no command of this file has.
        if out.exit != Exit::Code(125) {
            look(&out);
        }
    }
}

#[test]
fn devices_are_left_out_and_hide_nothing() {
    let case = case!(Userns);
    let layer = Rootfs::new()
        .device("etc/sda")
        .character_device("etc/mem", (1, 1))
        .character_device("etc/zero", (1, 5))
        // The overlay's own mark of a name that is gone, which a layer must write as `.wh.NAME`.
        .character_device("etc/base-image", (0, 0))
        .character_device("bin", (0, 0));
    load(&case, "localhost/device:1", layer).ok();
    for kind in ["b", "c"] {
        let found = std::process::Command::new("find").arg(case.data()).args(["-type", kind]).output().unwrap();
        assert!(found.stdout.is_empty(), "in the store: {}", String::from_utf8_lossy(&found.stdout));
    }
    let script =
        "cat /etc/base-image; ls /etc/sda /etc/mem /etc/zero 2>/dev/null; find / -xdev -type b -o -xdev -type c";
    with_every_driver(&case, "localhost/device:1", &["sh", "-c", script], |out| {
        assert_eq!(out.out(), "base\n");
    });
    // Nor can the container make one.
    case.in_base(["probe", "mknod", "/tmp/sda"]).ok().prints("mknod EPERM");
    case.run(["rmi", "localhost/device:1"]).ok();
}

/// The names of all extended attributes below a directory.
fn attributes_below(directory: &std::path::Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let mut names = [0; 4096];
        let length = rustix::fs::llistxattr(&path, &mut names[..]).unwrap();
        let names = names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty());
        found.extend(names.map(|name| String::from_utf8_lossy(name).into_owned()));
        if path.symlink_metadata().unwrap().is_dir() {
            attributes_below(&path, found);
        }
    }
}

#[test]
fn attributes_do_not_write_the_books_of_an_overlay() {
    let case = case!(Userns);
    let bait = Bait::put(&case);
    let opaque: [(&str, &[u8]); 5] = [
        ("user.overlay.opaque", b"y"),
        ("trusted.overlay.opaque", b"y"),
        ("user.fuseoverlayfs.opaque", b"y"),
        ("user.overlay.redirect", b"/root"),
        ("user.overlay.origin", b"\0\xfb\x1d\0"),
    ];
    let layer = Rootfs::new()
        .xattrs(&opaque)
        .dir("etc", 0o755)
        .xattrs(&[("user.overlay.opaque", b"x")])
        .dir("home", 0o755)
        .xattrs(&[("user.overlay.whiteout", b"y")])
        .file("home/kept", 0o644, "kept")
        .xattrs(&[("user.overlay.metacopy", b""), ("user.overlay.redirect", bait.path.as_bytes())])
        .file("etc/redirected", 0o644, "its own\n")
        .xattrs(&[("user.containers.override_stat", b"0:0:0104755"), ("user.harmless", b"kept")])
        .file("etc/stat", 0o644, "")
        .xattrs(&[("security.capability", b"not a capability"), ("security.selinux", b"x"), ("user.", b"x")])
        .file("etc/security", 0o755, "")
        .xattrs(&[("user.long", &[b'x'; 70_000])])
        .file("etc/long", 0o644, "");
    load(&case, "localhost/books:1", layer).ok();
    let script = "cat /etc/base-image /etc/redirected /home/kept; stat -c ' %a' /etc/stat";
    with_every_driver(&case, "localhost/books:1", &["sh", "-c", script], |out| {
        out.ok().prints("base\nits own\nkept 644");
    });
    let mut kept = Vec::new();
    attributes_below(&case.data().join("layers"), &mut kept);
    assert!(kept.iter().any(|name| name == "user.harmless"), "{kept:?}");
    for hostile in ["overlay", "containers", "selinux"] {
        assert!(!kept.iter().any(|name| name.contains(hostile)), "{hostile}: {kept:?}");
    }
    bait.untouched();
    case.run(["rmi", "localhost/books:1"]).ok();
    case.in_base(["cat", "/etc/base-image"]).ok().prints("base");
}

#[test]
fn a_file_that_is_its_own_parent() {
    contained(|_| {
        Rootfs::new().file("x", 0o644, "").file("x/y", 0o644, "").symlink("loop", "loop").file("loop/x", 0o644, "")
    });
}

#[test]
fn the_root_itself_replaced() {
    contained(|_| Rootfs::new().symlink("./", "/").file(".", 0o644, "").file("/", 0o644, "").symlink("", "/etc"));
}

#[test]
fn a_directory_nobody_may_enter_is_still_removed() {
    contained(|_| Rootfs::new().dir("closed", 0).file("closed/file", 0, "x").dir("closed/inner", 0o000));
}

#[test]
fn very_many_entries_and_very_deep_paths() {
    contained(|_| {
        let mut layer = Rootfs::new();
        for n in 0..5000 {
            layer = layer.file(&format!("many/{n}"), 0o644, "");
        }
        layer.dir(&"d/".repeat(45), 0o755)
    });
}

#[test]
fn a_decompression_bomb_stops_at_a_limit_or_at_its_declared_size() {
    let case = case!(Userns);
    // A gigabyte of zeroes in a megabyte, followed by nothing that is a tar.
    let bomb = rlrun_tests::gzip(&vec![0; 1 << 30]);
    let archive = case.make_file("bomb.tar.gz", bomb);
    let before = std::process::Command::new("du").arg("-sk").arg(case.data()).output().unwrap().stdout;
    case.run(["load", "-i", archive.to_str().unwrap()]).refused(125, "");
    let after = std::process::Command::new("du").arg("-sk").arg(case.data()).output().unwrap().stdout;
    assert_eq!(before, after);
}
