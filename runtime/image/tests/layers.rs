//! What layers mean together: whiteouts, opaque directories and directories that a layer leaves out, seen through the
//! kernel's overlay, fuse-overlayfs and the copy, which must agree.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod common;

use common::{Enter, Layer, Scratch, archive, namespaced, tree};
use rlrun_image::{InIdMap, copy_rootfs_job};
use std::collections::BTreeSet;
use std::path::Path;

/// Every path with kind, mode, owner and time, and of all but directories, whose size is the file system's, the size.
const LIST: &str =
    "find . -mindepth 1 \\( -type d -printf '%P d %m %U %G %T@\\n' \\) -o -printf '%P %y %m %U %G %T@ %s %l\\n' | sort";

fn through_kernel(scratch: &Scratch, image: &str) -> String {
    mounted(scratch, image, "mount -t overlay overlay -o userxattr,lowerdir=$2,upperdir=$1/u,workdir=$1/w $1/m")
}

fn through_fuse(scratch: &Scratch, image: &str) -> String {
    mounted(scratch, image, "fuse-overlayfs -o lowerdir=$2,upperdir=$1/u,workdir=$1/w $1/m 2>/dev/null")
}

fn mounted(scratch: &Scratch, image: &str, mount: &str) -> String {
    let layers = scratch.layers(image);
    let names: Vec<&str> = layers.iter().map(|l| l.file_name().unwrap().to_str().unwrap()).collect();
    let script = format!(
        "exec unshare --mount sh -euc '{}' sh \"$@\"",
        format!("mkdir -p $1/u $1/w $1/m; {mount}; cd $1/m; {LIST}; cd /; umount $1/m; rm -rf $1/u $1/w $1/m")
            .replace('\'', "'\\''")
    );
    let script = format!("cd \"$3\"; {script}");
    let lowers = names.join(":");
    let place = scratch.path("data/mount");
    let listed = scratch.inside(&script, &[&place, Path::new(&lowers), &scratch.path("data/layers")]);
    std::fs::remove_dir_all(place).unwrap();
    listed
}

fn through_copy(scratch: &Scratch, image: &str) -> String {
    let target = scratch.path("data/copy");
    Enter.run(&copy_rootfs_job(&scratch.layers(image), &target).unwrap()).unwrap();
    let listed = scratch.inside(&format!("cd \"$1\"; {LIST}"), &[&target]);
    scratch.inside("rm -rf \"$1\"", &[&target]);
    listed
}

/// The paths that all three drivers show; that they agree on everything else too is checked here.
fn shown(scratch: &Scratch, image: &str) -> Vec<String> {
    let kernel = through_kernel(scratch, image);
    assert_eq!(through_copy(scratch, image), kernel, "the copy differs from the kernel's overlay");
    if Path::new("/usr/bin/fuse-overlayfs").exists() {
        assert_eq!(through_fuse(scratch, image), kernel, "fuse-overlayfs differs from the kernel's overlay");
    } else {
        assert!(!std::env::var("RLRUN_MUST_HAVE").unwrap_or_default().contains("fuse"), "no fuse-overlayfs");
    }
    kernel.lines().map(|l| l.split(' ').next().unwrap().to_owned()).collect()
}

namespaced! {
    fn whiteouts_and_opaque_directories_hide_what_is_below(scratch) {
        let bottom = Layer::new()
            .dir("etc").file("etc/kept", b"1").file("etc/gone", b"1")
            .dir("dir").file("dir/gone", b"1").dir("dir/sub").file("dir/sub/gone", b"1")
            .dir("away").file("away/gone", b"1")
            .dir("anew").file("anew/gone", b"1")
            .dir("becomes-file").file("becomes-file/gone", b"1")
            .file("becomes-dir", b"1")
            .symlink("link", "etc").build();
        let middle = Layer::new()
            .file("etc/.wh.gone", b"")
            .file("dir/.wh..wh..opq", b"").file("dir/new", b"2")
            .file(".wh.away", b"")
            // Hidden and made again in the same layer, in both orders.
            .file(".wh.anew", b"").dir("anew").file("anew/new", b"2")
            .file("becomes-file", b"2")
            .dir("becomes-dir").file("becomes-dir/new", b"2").build();
        let top = Layer::new()
            .dir("dir/sub").file("dir/sub/top", b"3")
            .file("away/back", b"3").build();
        scratch.load(&archive(&[bottom, middle, top], "stack")).unwrap();
        let expected = [
            "anew", "anew/new", "away", "away/back", "becomes-dir", "becomes-dir/new", "becomes-file", "dir", "dir/new",
            "dir/sub", "dir/sub/top", "etc", "etc/kept", "link",
        ];
        assert_eq!(shown(&scratch, "stack"), expected);
    }
}

namespaced! {
    fn a_whiteout_after_what_it_does_not_hide(scratch) {
        let bottom = Layer::new().dir("d").file("d/gone", b"1").file("f", b"1").build();
        let top = Layer::new()
            .dir("d").file("d/new", b"22").file(".wh.d", b"")
            .file("f", b"22").file(".wh.f", b"")
            // Only an entry below tells that the directory is made again.
            .file(".wh.e", b"").file("e/new", b"22").build();
        scratch.load(&archive(&[bottom, top], "order")).unwrap();
        assert_eq!(shown(&scratch, "order"), ["d", "d/new", "e", "e/new", "f"]);
        assert_eq!(tree(&scratch.layers("order")[0])["f"], "file 2");
    }
}

namespaced! {
    fn an_opaque_root_hides_every_layer_below(scratch) {
        let bottom = Layer::new().file("gone", b"1").dir("etc").file("etc/passwd", b"below").build();
        let top = Layer::new().file(".wh..wh..opq", b"").file("new", b"2").build();
        let above = Layer::new().file("top", b"3").build();
        scratch.load(&archive(&[bottom, top, above], "root")).unwrap();
        assert_eq!(shown(&scratch, "root"), ["new", "top"]);
        assert_eq!(scratch.store.resolve("root").unwrap().passwd, None);
    }
}

namespaced! {
    /// Many build tools write only what a step changed, without its parents.
    fn directories_that_are_left_out_keep_their_attributes(scratch) {
        let bottom = Layer::new().mode(0o711).dir("./").mode(0o1777).dir("tmp").mode(0o750).owner(3, 4).dir("home").build();
        let top = Layer::new().file("tmp/x", b"1").owner(9, 9).file("home/y", b"1").file("new/z", b"1").build();
        let again = Layer::new().file("home/w", b"1").build();
        scratch.load(&archive(&[bottom, top, again], "implied")).unwrap();
        shown(&scratch, "implied");
        for layer in &scratch.layers("implied")[..2] {
            let listed = scratch.inside("cd \"$1\"; for i in . tmp home new; do test -e $i && stat -c '%n %a %u %g' $i; done; :", &[layer]);
            let expected = [". 711 0 0", "tmp 1777 0 0", "home 750 3 4", "new 755 0 0"];
            assert!(listed.lines().all(|line| expected.contains(&line)), "{listed}");
        }
    }
}

namespaced! {
    /// The kernel refuses a lower directory that it is given twice.
    fn a_layer_may_come_twice(scratch) {
        let empty = Layer::new().build();
        let file = Layer::new().file("a", b"1").build();
        let gone = Layer::new().file(".wh.a", b"").build();
        scratch.load(&archive(&[empty.clone(), file.clone(), empty.clone(), gone, file, empty], "twice")).unwrap();
        assert_eq!(scratch.layers("twice").len(), 6);
        assert_eq!(shown(&scratch, "twice"), ["a"]);
    }
}

namespaced! {
    fn a_hundred_layers_fit(scratch) {
        let layers: Vec<Vec<u8>> = (0..110).map(|i| Layer::new().file(&format!("f{i:03}"), b"1").build()).collect();
        scratch.load(&archive(&layers, "many")).unwrap();
        assert_eq!(shown(&scratch, "many").len(), 110);
    }
}

namespaced! {
    fn the_copy_keeps_hard_links_setuid_and_fifos(scratch) {
        let bottom = Layer::new().file("a", b"1").hard_link("b", "a").mode(0o4755).file("setuid", b"1").build();
        let top = Layer::new().mode(0o640).entry(b'6', b"pipe", b"", b"").file(".wh.b", b"").hard_link("c", "pipe").build();
        scratch.load(&archive(&[bottom, top], "kinds")).unwrap();
        assert_eq!(shown(&scratch, "kinds"), ["a", "c", "pipe", "setuid"]);
        let target = scratch.path("data/copy");
        Enter.run(&copy_rootfs_job(&scratch.layers("kinds"), &target).unwrap()).unwrap();
        let listed = scratch.inside("cd \"$1\"; stat -c '%n %a %h' setuid pipe", &[&target]);
        assert_eq!(listed, "setuid 4755 1\npipe 640 2\n");
        let again = Enter.run(&copy_rootfs_job(&scratch.layers("kinds"), &target).unwrap()).unwrap_err();
        assert!(again.to_string().contains("not empty"), "{again}");
    }
}

namespaced! {
    fn accounts_are_read_through_the_layers(scratch) {
        let passwd = |text: &str| Layer::new().dir("etc").file("etc/passwd", text.as_bytes()).build();
        let resolved = |name: &str| scratch.store.resolve(name).unwrap();
        scratch.load(&archive(&[passwd("below"), passwd("above")], "plain")).unwrap();
        assert_eq!(resolved("plain").passwd.as_deref(), Some("above"));
        assert_eq!(resolved("plain").group, None);
        let gone = Layer::new().file("etc/.wh.passwd", b"").build();
        scratch.load(&archive(&[passwd("below"), gone], "gone")).unwrap();
        assert_eq!(resolved("gone").passwd, None);
        let linked = Layer::new().symlink("etc", "usr/etc").file("usr/etc/passwd", b"linked").symlink("usr/etc/group", "../../g");
        scratch.load(&archive(&[linked.build(), Layer::new().file("g", b"group").build()], "linked")).unwrap();
        assert_eq!(resolved("linked").passwd.as_deref(), Some("linked"));
        assert_eq!(resolved("linked").group.as_deref(), Some("group"));
        // Out of the image there is nothing, and a loop ends.
        let canary = scratch.path("outside/canary");
        let evil = Layer::new().symlink("etc/passwd", canary.to_str().unwrap()).symlink("etc/group", "group");
        scratch.load(&evil.archive("evil")).unwrap();
        assert_eq!((resolved("evil").passwd, resolved("evil").group), (None, None));
        let large = Layer::new().file("etc/passwd", &vec![b'x'; (1 << 20) + 1]).entry(b'6', b"etc/group", b"", b"");
        scratch.load(&large.archive("large")).unwrap();
        assert_eq!((resolved("large").passwd, resolved("large").group), (None, None));
    }
}

/// xorshift64: the same stacks on every machine, one for each seed.
struct Random(u64);

impl Random {
    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        from[usize::try_from(self.0 % from.len() as u64).unwrap()]
    }
}

fn joined(dir: &str, name: &str) -> String {
    if dir.is_empty() { name.to_owned() } else { format!("{dir}/{name}") }
}

/// A layer of a few entries in any order, and what it makes of what is below (OCI image specification, "Layer").
fn layer_over(random: &mut Random, state: &mut BTreeSet<String>) -> Vec<u8> {
    const DIRS: &[&str] = &["", "a", "a/b", "c"];
    let (mut layer, mut hidden, mut made) = (Layer::new(), Vec::new(), Vec::new());
    for _ in 0..6 {
        let dir = random.pick(DIRS);
        made.extend(Path::new(dir).ancestors().map(|d| d.to_str().unwrap().to_owned()).filter(|d| !d.is_empty()));
        match random.pick(&["file", "file", "directory", "whiteout", "whiteout", "opaque"]) {
            "file" => {
                let path = joined(dir, random.pick(&["x", "y"]));
                layer = layer.file(&path, b"1");
                made.push(path);
            }
            "whiteout" => {
                let name = random.pick(if dir.is_empty() { &["x", "y", "a", "c"] } else { &["x", "y", "b"] });
                layer = layer.file(&joined(dir, &format!(".wh.{name}")), b"");
                hidden.push(joined(dir, name));
            }
            "opaque" if !dir.is_empty() => {
                layer = layer.dir(dir).file(&joined(dir, ".wh..wh..opq"), b"");
                hidden.push(format!("{dir}/"));
            }
            _ if !dir.is_empty() => layer = layer.dir(dir),
            _ => {}
        }
    }
    // Hiding is about what is below alone, wherever in the layer it stands.
    for path in &hidden {
        let inside = format!("{}/", path.trim_end_matches('/'));
        state.retain(|there| there != path && !there.starts_with(&inside));
    }
    state.extend(made);
    layer.build()
}

namespaced! {
    fn any_stack_of_layers_looks_as_the_specification_says(scratch) {
        for seed in 1..=24 {
            let mut random = Random(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed));
            let mut state = BTreeSet::new();
            let layers: Vec<Vec<u8>> = (0..4).map(|_| layer_over(&mut random, &mut state)).collect();
            let name = format!("stack{seed}");
            scratch.load(&archive(&layers, &name)).unwrap();
            assert_eq!(shown(&scratch, &name), state.into_iter().collect::<Vec<_>>(), "seed {seed}");
        }
    }
}
