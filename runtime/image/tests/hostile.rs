//! Layers that were written to harm. Nothing outside a layer's directory may change, a refused layer leaves the store as it
//! was, and the reason names the entry.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod common;

use common::{Layer, archive, archive_with, gzip, hex, namespaced, tree};
use rlrun_image::Limits;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

namespaced! {
    fn paths_that_lead_upwards_are_refused(scratch) {
        for name in ["../outside/canary", "a/../../outside/canary", "..", "/../outside/x", "a/.."] {
            let failure = scratch.refuse(&Layer::new().file(name, b"dead").archive("evil"));
            assert!(failure.to_string().contains(name), "{failure}");
            assert!(failure.detail.contains("leads out of the layer"), "{failure}");
        }
    }
}

namespaced! {
    fn absolute_paths_are_paths_in_the_layer(scratch) {
        let canary = scratch.path("outside/canary");
        let name = canary.to_str().unwrap();
        scratch.load(&Layer::new().file(name, b"inside").archive("odd")).unwrap();
        let layer = &scratch.layers("odd")[0];
        assert_eq!(fs::read(layer.join(name.trim_start_matches('/'))).unwrap(), b"inside");
    }
}

namespaced! {
    fn symlinked_parents_stay_inside(scratch) {
        let outside = scratch.path("outside");
        let absolute = outside.to_str().unwrap();
        for target in [absolute, "../../../outside", "../../../../../../../../../../outside", "/proc/self/cwd", "/"] {
            // Whether it is refused or lands inside, the canary lives (checked by load).
            let layer = Layer::new().symlink("x", target).file("x/canary", b"dead").file("x/new", b"dead");
            drop(scratch.load(&layer.archive("evil")));
        }
        let swap = Layer::new().dir("d").file("d/a", b"1").symlink("d", absolute).file("d/canary", b"dead");
        drop(scratch.load(&swap.archive("evil")));
        let chain = Layer::new().symlink("a", "..").symlink("b", "a/../..").symlink("c", "b/outside").file("c/canary", b"x");
        drop(scratch.load(&chain.archive("evil")));
        let loops = Layer::new().symlink("a", "b").symlink("b", "a").file("a/x", b"1");
        scratch.refuse(&loops.archive("loop"));
    }
}

namespaced! {
    fn a_symlink_within_the_layer_may_be_a_parent(scratch) {
        let layer = Layer::new().dir("usr/lib").symlink("lib", "usr/lib").symlink("abs", "/usr/lib");
        scratch.load(&layer.file("lib/a", b"1").file("abs/b", b"2").archive("merged-usr")).unwrap();
        let made = tree(&scratch.layers("merged-usr")[0]);
        assert_eq!(made["usr/lib/a"], "file 1");
        assert_eq!(made["usr/lib/b"], "file 1");
        assert_eq!(made["lib"], "-> usr/lib");
    }
}

namespaced! {
    fn hard_links_reach_only_into_their_own_layer(scratch) {
        let canary = scratch.path("outside/canary");
        let absolute = canary.to_str().unwrap();
        for target in [absolute, "../../../outside/canary", "missing", "", "/", "dir", "s/canary"] {
            let layer = Layer::new().dir("dir").symlink("s", "../../../outside").hard_link("h", target);
            let failure = scratch.refuse(&layer.file("h", b"dead").archive("evil"));
            assert!(failure.detail.contains("hard link"), "{target}: {failure}");
        }
        // Through a symlink as the last component, the link itself is linked, not what it names.
        let layer = Layer::new().symlink("s", absolute).hard_link("h", "s").file("s", b"1");
        scratch.load(&layer.archive("linked")).unwrap();
        assert_eq!(tree(&scratch.layers("linked")[0])["h"], format!("-> {absolute}"));
        // What a lower layer has is not the layer's own.
        let lower = Layer::new().file("a", b"1").build();
        let upper = Layer::new().hard_link("b", "a").build();
        scratch.refuse(&archive(&[lower, upper], "across"));
    }
}

namespaced! {
    fn hard_links_to_files_of_the_layer_work(scratch) {
        let layer = Layer::new().file("a", b"one").hard_link("b", "a").hard_link("./c", "/b").hard_link("a", "a");
        scratch.load(&layer.archive("links")).unwrap();
        let layer = &scratch.layers("links")[0];
        let inodes: Vec<u64> = ["a", "b", "c"].iter().map(|n| fs::metadata(layer.join(n)).unwrap().ino()).collect();
        assert!(inodes.iter().all(|i| *i == inodes[0]));
    }
}

namespaced! {
    fn device_nodes_are_left_out_and_counted(scratch) {
        let layer = Layer::new().entry(b'3', b"dev/sda", b"", b"").entry(b'4', b"dev/x", b"", b"").file("a", b"");
        // A character device 0/0 would be a whiteout.
        let stored = scratch.load(&layer.entry(b'3', b"etc/passwd", b"", b"").archive("devices")).unwrap();
        assert_eq!(stored[0].skipped_devices, 3);
        assert_eq!(tree(&scratch.layers("devices")[0]).keys().collect::<Vec<_>>(), ["a"]);
    }
}

namespaced! {
    fn whiteouts_name_something_in_their_directory(scratch) {
        for name in [".wh.", ".wh..", ".wh...", "a/.wh...", "a/.wh."] {
            let failure = scratch.refuse(&Layer::new().file(name, b"").archive("evil"));
            assert!(failure.detail.contains("whiteout"), "{name}: {failure}");
        }
        for name in [".wh.a/b", "x/.wh.a/b/c"] {
            let failure = scratch.refuse(&Layer::new().file(name, b"").archive("evil"));
            assert!(failure.detail.contains("through a whiteout"), "{name}: {failure}");
        }
        // The name decides, whatever the entry pretends to be.
        let layer = Layer::new().symlink(".wh.s", "/").dir(".wh.d").hard_link(".wh.h", "../x").file(".wh..wh.aufs", b"");
        scratch.load(&layer.file(".wh..wh.plnk/1.2", b"").archive("kinds")).unwrap();
        let made = tree(&scratch.layers("kinds")[0]);
        assert_eq!(made.into_iter().collect::<Vec<_>>(), ["d", "h", "s"].map(|n| (n.to_owned(), "whiteout".to_owned())));
    }
}

namespaced! {
    fn attributes_of_overlay_file_systems_are_not_the_images_to_set(scratch) {
        let layer = Layer::new()
            .xattr("user.overlay.opaque", "y").dir("opaque")
            .xattr("user.overlay.redirect", "/../../outside").dir("redirect")
            .xattr("user.overlay.metacopy", "").file("metacopy", b"1")
            .xattr("user.fuseoverlayfs.opaque", "y").dir("fuse")
            .xattr("user.containers.override_stat", "0:0:4755").file("stat", b"1")
            .xattr("trusted.overlay.opaque", "y").dir("trusted")
            .xattr("security.selinux", "x").file("selinux", b"1")
            .xattr("user.kept", "yes").file("kept", b"1");
        scratch.load(&layer.archive("xattrs")).unwrap();
        let layer = scratch.layers("xattrs").remove(0);
        let script = "cd \"$1\"; python3 -c 'import os\nfor r, d, f in os.walk(\".\"):\n for n in d + f: print(n, os.listxattr(os.path.join(r, n)))'";
        let listed = scratch.inside(script, &[&layer]);
        for line in listed.lines() {
            let expected = if line.starts_with("kept ") { "['user.kept']" } else { "[]" };
            assert!(line.ends_with(expected), "{line}");
        }
        assert_eq!(listed.lines().count(), 8);
    }
}

namespaced! {
    fn of_duplicate_entries_the_last_wins(scratch) {
        let layer = Layer::new()
            .file("f", b"1").file("f", b"22")
            .file("to-dir", b"1").dir("to-dir").file("to-dir/x", b"1")
            .dir("to-file").file("to-file/deep/x", b"1").file("to-file", b"333")
            .dir("to-link").symlink("to-link", "f")
            .symlink("link-to-file", "/etc/passwd").file("link-to-file", b"1")
            .dir("kept").file("kept/x", b"1").dir("kept");
        scratch.load(&layer.archive("twice")).unwrap();
        let made = tree(&scratch.layers("twice")[0]);
        assert_eq!(made["f"], "file 2");
        assert_eq!(made["to-dir/x"], "file 1");
        assert_eq!(made["to-file"], "file 3");
        assert_eq!(made["to-link"], "-> f");
        assert_eq!(made["link-to-file"], "file 1");
        assert_eq!(made["kept/x"], "file 1");
    }
}

namespaced! {
    fn names_beyond_what_the_kernel_takes_are_refused(scratch) {
        let deep = "d/".repeat(600) + "f";
        let failure = scratch.refuse(&Layer::new().file(&deep, b"").archive("deep"));
        assert!(failure.detail.contains("512 components"), "{failure}");
        let long = vec!["n".repeat(250); 17].join("/");
        let failure = scratch.refuse(&Layer::new().file(&long, b"").archive("long"));
        assert!(failure.detail.contains("longer than 4095"), "{failure}");
        let component = "n".repeat(256);
        let failure = scratch.refuse(&Layer::new().file(&component, b"").archive("component"));
        assert_eq!(failure.errno.unwrap().0, rustix::io::Errno::NAMETOOLONG.raw_os_error());
        // As long and as deep as it may be.
        let good = vec!["n".repeat(255); 15].join("/");
        let nested = "d/".repeat(500) + "f";
        scratch.load(&Layer::new().file(&good, b"1").file(&nested, b"1").archive("good")).unwrap();
        assert_eq!(tree(&scratch.layers("good")[0])[&good], "file 1");
        scratch.store.remove("good", rlrun_image::RemoveMode::Normal, &|_| None, &common::Enter).unwrap();
        assert_eq!(scratch.contents(), Vec::<String>::new(), "deep trees can be removed");
    }
}

namespaced! {
    fn truncated_layers_and_archives_are_refused(scratch) {
        let layer = Layer::new().file("a", &[7; 100_000]).build();
        let cut = gzip(&layer);
        let failure = scratch.refuse(&archive_with(&[cut[..cut.len() - 20].to_vec()], &[hex(&layer)], "cut"));
        assert_eq!(failure.operation, "unpack the layer");
        let half = layer[..50_000].to_vec();
        let failure = scratch.refuse(&archive(&[half], "half"));
        assert!(failure.detail.contains("truncated"), "{failure}");
        let whole = archive(&[layer], "whole");
        for cut in [10, 600, 2000, 60_000, whole.len() - 1024] {
            let failure = scratch.refuse(&whole[..cut]);
            assert!(failure.object.contains("test.tar"), "cut at {cut}: {failure}");
        }
        scratch.refuse(b"");
        scratch.refuse(&[7; 5000]);
    }
}

namespaced! {
    fn a_layer_that_is_not_what_was_promised_is_refused(scratch) {
        let layer = Layer::new().file("a", b"1").build();
        let failure = scratch.refuse(&archive_with(std::slice::from_ref(&layer), &[hex(b"something else")], "lie"));
        assert!(failure.detail.contains(&hex(&layer)), "{failure}");
        assert!(failure.detail.contains(&hex(b"something else")), "{failure}");
        // Bytes after the end mark are part of the digest.
        let longer = [layer.clone(), vec![0; 4096]].concat();
        scratch.refuse(&archive_with(&[longer], &[hex(&layer)], "longer"));
    }
}

namespaced! {
    fn bombs_are_cut_short(scratch) {
        let limits = Limits { layer_bytes: 1 << 20, layer_entries: 100, layers: 3 };
        let big = Layer::new().file("zeros", &vec![0; 2 << 20]).build();
        let failure = scratch.refuse_with(&archive_with(&[gzip(&big)], &[hex(&big)], "bomb"), limits);
        assert!(failure.detail.contains("more than 1048576 bytes"), "{failure}");
        let many = (0..200).fold(Layer::new(), |l, i| l.file(&format!("{i}"), b""));
        let failure = scratch.refuse_with(&many.archive("many"), limits);
        assert!(failure.detail.contains("more than 100 entries"), "{failure}");
        let implied = (0..60).fold(Layer::new(), |l, i| l.file(&format!("d{i}/f"), b""));
        let failure = scratch.refuse_with(&implied.archive("implied"), limits);
        assert!(failure.detail.contains("more than 100 entries"), "{failure}");
        let small = Layer::new().file("a", b"").build();
        let failure = scratch.refuse_with(&archive(&vec![small; 4], "layers"), limits);
        assert!(failure.detail.contains("more than the 3"), "{failure}");
        // A file of holes takes no room on disk, and would when it is copied.
        let sparse = Layer::new().pax(&[("GNU.sparse.name", "holes"), ("GNU.sparse.realsize", "9000000000000"),
            ("GNU.sparse.map", "0,1")]).file("x", b"1");
        let failure = scratch.refuse_with(&sparse.archive("sparse"), limits);
        assert!(failure.detail.contains("add up to more"), "{failure}");
    }
}

namespaced! {
    fn sparse_files_get_their_holes(scratch) {
        let layer = Layer::new().pax(&[("GNU.sparse.name", "holes"), ("GNU.sparse.size", "100000"),
            ("GNU.sparse.map", "5,2,99999,1")]).file("x", b"abc");
        let mut map = b"1\n10\n3\n".to_vec();
        map.resize(512, 0);
        let layer = layer.pax(&[("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0"), ("GNU.sparse.name", "new"),
            ("GNU.sparse.realsize", "20")]).file("y", &[&map[..], b"xyz"].concat());
        scratch.load(&layer.archive("sparse")).unwrap();
        let layer = &scratch.layers("sparse")[0];
        let bytes = fs::read(layer.join("holes")).unwrap();
        assert_eq!((bytes.len(), &bytes[4..8], bytes[99_999]), (100_000, &b"\0ab\0"[..], b'c'));
        assert_eq!(fs::read(layer.join("new")).unwrap(), b"\0\0\0\0\0\0\0\0\0\0xyz\0\0\0\0\0\0\0");
    }
}

namespaced! {
    fn an_id_that_is_not_mapped_is_named(scratch) {
        let failure = scratch.refuse(&Layer::new().owner(0, 3_000_000).file("a", b"").archive("far"));
        assert_eq!(failure.step, "unpack-id");
        assert!(failure.detail.contains("layer needs group id 3000000; range too small"), "{failure}");
        let failure = scratch.refuse(&Layer::new().owner(u32::MAX, 0).file("a", b"").archive("far"));
        assert!(failure.detail.contains("user id 4294967295"), "{failure}");
        assert!(failure.object.ends_with(": a"), "{failure}");
    }
}

namespaced! {
    fn with_a_single_id_every_file_is_roots_and_that_is_said(scratch) {
        let layer = Layer::new().file("a", b"1").owner(42, 0).file("b", b"1").owner(0, 3_000_000).mode(0o4755).file("c", b"1");
        let bytes = layer.file(".wh.d", b"").archive("single");
        let stored = scratch.store.load(&mut &bytes[..], "test.tar", &common::work(&common::EnterSingle)).unwrap();
        assert_eq!(stored[0].squashed_owners, 2);
        let made = tree(&scratch.layers("single")[0]);
        assert_eq!((made["c"].as_str(), made["d"].as_str()), ("file 1", "whiteout"));
        let listed = scratch.inside("cd \"$1\"; stat -c '%n %u %g %a' b c", &[&scratch.layers("single")[0]]);
        assert_eq!(listed, "b 0 0 644\nc 0 0 4755\n");
    }
}

namespaced! {
    fn owners_modes_and_times_are_kept(scratch) {
        let layer = Layer::new().mode(0o1777).dir("tmp").mode(0o4711).owner(7, 8).file("tmp/setuid", b"1").mode(0).dir("closed");
        scratch.load(&layer.file("closed/x", b"1").archive("owned")).unwrap();
        let layer = scratch.layers("owned").remove(0);
        assert_eq!(fs::metadata(layer.join("tmp")).unwrap().permissions().mode() & 0o7777, 0o1777);
        assert_eq!(fs::metadata(layer.join("tmp")).unwrap().mtime(), 0o10_000_000_000);
        let listed = scratch.inside("cd \"$1\"; stat -c '%n %u %g %a %Y' tmp/setuid closed", &[&layer]);
        assert_eq!(listed, "tmp/setuid 7 8 4711 1073741824\nclosed 7 8 0 1073741824\n");
    }
}

namespaced! {
    fn image_archives_that_lie_are_refused(scratch) {
        let layer = Layer::new().file("a", b"1").build();
        let good = archive(std::slice::from_ref(&layer), "good");
        let start = good.iter().position(|&b| b == b'{').unwrap();
        let mut changed = good.clone();
        // The configuration is named by its digest.
        let at = start + good[start..].windows(7).position(|w| w == b"/bin/sh").unwrap();
        changed[at] = b'X';
        let failure = scratch.refuse(&changed);
        assert_eq!(failure.step, "image-digest", "{failure}");
        let failure = scratch.refuse(&archive_with(&[layer], &[], "count"));
        assert!(failure.detail.contains("1 layers and 0 diff-ids"), "{failure}");
        let nameless = Layer::new().file("manifest.json", b"[]").build();
        scratch.refuse(&nameless);
        let outside = br#"[{"Config":"../../outside/canary","Layers":[]}]"#;
        scratch.refuse(&Layer::new().file("manifest.json", outside).build());
        let linked = Layer::new().symlink("manifest.json", "/etc/passwd").build();
        scratch.refuse(&linked);
        let looped = Layer::new().symlink("a", "manifest.json").symlink("manifest.json", "a").build();
        scratch.refuse(&looped);
        scratch.load(&good).unwrap();
    }
}
