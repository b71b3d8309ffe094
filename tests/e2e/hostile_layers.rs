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

#[test]
fn a_device() {
    let case = case!(Userns);
    let out = load(&case, "localhost/device:1", Rootfs::new().device("etc/sda"));
    if out.exit == Exit::Code(0) {
        let looked = case.run([
            "run",
            "--rm",
            "--network",
            "none",
            "localhost/device:1",
            "sh",
            "-c",
            "[ ! -b /etc/sda ] || head -c 1 /etc/sda >/dev/null",
        ]);
        let found = std::process::Command::new("find").arg(case.data()).args(["-type", "b"]).output().unwrap();
        assert!(found.stdout.is_empty(), "a device stands in the store");
        drop(looked);
    } else {
        out.refused(125, "");
    }
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
