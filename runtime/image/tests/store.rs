//! The life of images in the store: names, removal, sharing, and what interrupted or parallel commands leave.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod common;

use common::{Enter, Here, Layer, Never, Scratch, archive, gzip, names, namespaced, work, write};
use rlrun_image::{ImageError, ImageUser, Import, InIdMap, RemoveMode, Removed, Store};
use rlrun_spec::Failure;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

fn remove(scratch: &Scratch, name: &str, mode: RemoveMode) -> Result<Removed, ImageError> {
    scratch.store.remove(name, mode, &|_| None, &Enter)
}

namespaced! {
    fn names_and_ids_find_images(scratch) {
        scratch.load(&Layer::new().file("a", b"1").archive("app:1")).unwrap();
        let rootfs = Layer::new().dir("etc").file("etc/passwd", b"root:x:0:0::/:/bin/sh\n").build();
        let imported = scratch.store.import(&mut &gzip(&rootfs)[..], "rootfs.tar.gz", &Import { name: Some("base"), ..Import::default() }, &work(&Enter)).unwrap();
        let resolve = |name: &str| scratch.store.resolve(name).map(|i| i.identity.reference);
        assert_eq!(resolve("app:1").unwrap(), "docker.io/library/app:1");
        assert_eq!(resolve("docker.io/app:1").unwrap(), "docker.io/library/app:1");
        assert_eq!(resolve("base").unwrap(), "localhost/base:latest");
        assert_eq!(resolve("localhost/base").unwrap(), "localhost/base:latest");
        let id = imported.identity.id.trim_start_matches("sha256:");
        for name in [id, &id[..12], &id[..3], imported.identity.id.as_str()] {
            assert_eq!(resolve(name).unwrap(), "localhost/base:latest", "{name}");
        }
        assert_eq!(scratch.store.resolve("base").unwrap().passwd.unwrap(), "root:x:0:0::/:/bin/sh\n");
        assert_eq!(scratch.store.resolve("app:1").unwrap().config.cmd, ["/bin/sh"]);
        for unknown in ["app:2", "localhost/app:1", "quay.io/app:1", "ab", &"0".repeat(64)] {
            assert!(matches!(resolve(unknown), Err(ImageError::Unknown { .. })), "{unknown}");
        }
        assert!(matches!(resolve("App"), Err(ImageError::Reference { .. })));
        let rows = scratch.store.images(&|_| {}).unwrap();
        assert_eq!(rows[0].names, ["localhost/base:latest"], "newest first");
        assert_eq!(rows[1].names, ["docker.io/library/app:1"]);
        assert_eq!(rows[1].platform, "linux/amd64");
    }
}

namespaced! {
    fn a_name_goes_before_its_image(scratch) {
        let bytes = Layer::new().file("a", b"1").archive("one");
        scratch.load(&bytes).unwrap();
        let second = String::from_utf8_lossy(&bytes).contains("\"one\"");
        assert!(second);
        scratch.load(&Layer::new().file("a", b"1").archive("two")).unwrap();
        let id = scratch.store.resolve("one").unwrap().identity.id;
        assert_eq!(scratch.store.images(&|_| {}).unwrap()[0].names.len(), 2, "one image, two names");
        let several = remove(&scratch, &id, RemoveMode::Normal).unwrap_err();
        assert!(Failure::from(several).to_string().contains("several names"));
        let removed = remove(&scratch, "one", RemoveMode::Normal).unwrap();
        assert_eq!(removed, Removed { untagged: vec!["docker.io/library/one:latest".into()], deleted: vec![] });
        assert!(scratch.store.resolve("two").is_ok());
        let removed = remove(&scratch, &id[7..19], RemoveMode::Normal).unwrap();
        assert_eq!(removed, Removed { untagged: vec!["docker.io/library/two:latest".into()], deleted: vec![id] });
        assert_eq!(scratch.contents(), Vec::<String>::new());
        assert!(matches!(remove(&scratch, "two", RemoveMode::Normal), Err(ImageError::Unknown { .. })));
    }
}

namespaced! {
    fn force_removes_an_id_with_all_its_names(scratch) {
        scratch.load(&Layer::new().file("a", b"1").archive("one")).unwrap();
        scratch.load(&Layer::new().file("a", b"1").archive("two")).unwrap();
        let id = scratch.store.resolve("one").unwrap().identity.id;
        let removed = remove(&scratch, &id, RemoveMode::Force).unwrap();
        assert_eq!((removed.untagged.len(), removed.deleted.len()), (2, 1));
        assert_eq!(scratch.contents(), Vec::<String>::new());
    }
}

namespaced! {
    fn an_image_in_use_stays(scratch) {
        scratch.load(&Layer::new().file("a", b"1").archive("used")).unwrap();
        let id = scratch.store.resolve("used").unwrap().identity.id;
        let before = scratch.contents();
        let in_use = |asked: &str| (asked == id).then(|| ImageUser::Container("happy_turing".to_owned()));
        for mode in [RemoveMode::Normal, RemoveMode::Force] {
            let failure = Failure::from(scratch.store.remove("used", mode, &in_use, &Never).unwrap_err());
            assert_eq!(failure.to_string(), "remove the image: used: the container happy_turing uses it");
            assert!(failure.hint.unwrap().contains("rlrun rm happy_turing"));
        }
        assert_eq!(scratch.contents(), before);
    }
}

namespaced! {
    fn shared_layers_are_kept_once_and_as_long_as_needed(scratch) {
        let base = Layer::new().file("base", b"1").build();
        let top = Layer::new().file("top", b"1").build();
        scratch.load(&archive(std::slice::from_ref(&base), "small")).unwrap();
        let stored = scratch.load(&archive(&[base, top], "large")).unwrap();
        assert_eq!(stored.len(), 1);
        assert_eq!(scratch.contents().iter().filter(|n| n.starts_with("layers/") && !n.ends_with(".json")).count(), 2);
        remove(&scratch, "large", RemoveMode::Normal).unwrap();
        assert!(scratch.layers("small")[0].join("base").exists());
        remove(&scratch, "small", RemoveMode::Normal).unwrap();
        assert_eq!(scratch.contents(), Vec::<String>::new());
    }
}

namespaced! {
    fn a_name_moves_to_the_newer_image(scratch) {
        scratch.load(&Layer::new().file("a", b"1").archive("app")).unwrap();
        let old = scratch.store.resolve("app").unwrap().identity.id;
        scratch.load(&Layer::new().file("a", b"2").archive("app")).unwrap();
        assert_ne!(scratch.store.resolve("app").unwrap().identity.id, old);
        // The old image is still there, under its id only.
        let by_id = scratch.store.resolve(&old).unwrap();
        assert_eq!((by_id.identity.reference.as_str(), by_id.layers[0].exists()), (old.as_str(), true));
        assert!(scratch.store.images(&|_| {}).unwrap().iter().any(|row| row.names.is_empty()));
    }
}

namespaced! {
    fn what_an_interrupted_command_left_goes_with_the_next(scratch) {
        scratch.load(&Layer::new().file("a", b"1").archive("kept")).unwrap();
        let before = scratch.contents();
        // Half a download, half a layer with files of other ids, a finished layer and a blob that no record knows.
        let script = "cd \"$1\"; mkdir -p tmp/op-x/layers/l/closed; echo x > tmp/op-x/incoming-b; echo x > tmp/op-x/layers/l/closed/f; \
            chown -R 5:5 tmp/op-x/layers/l; chmod 0 tmp/op-x/layers/l/closed; \
            mkdir layers/0123; chown 7:7 layers/0123; chmod 500 layers/0123; echo '{}' > layers/0123.json; \
            echo x > blobs/sha256/0123; ln -s ../images/$2.$2 refs/docker.io+library+gone:1";
        let digest = "0".repeat(64);
        assert_eq!(scratch.store.leftovers().unwrap(), Vec::<PathBuf>::new());
        scratch.inside(script, &[&scratch.path("data"), Path::new(&digest)]);
        assert_eq!(scratch.store.leftovers().unwrap(), [scratch.path("data/tmp/op-x")]);
        {
            // Whoever adds may be the one whose directory it is.
            let writers = std::fs::File::open(scratch.path("data/writers.lock")).unwrap();
            writers.lock_shared().unwrap();
            assert_eq!(scratch.store.leftovers().unwrap(), Vec::<PathBuf>::new());
        }
        scratch.store.recover(&Enter).unwrap();
        assert_eq!(scratch.contents(), before);
        assert_eq!(scratch.store.leftovers().unwrap(), Vec::<PathBuf>::new());
        assert!(scratch.layers("kept")[0].join("a").exists());
    }
}

namespaced! {
    /// docker-archives carry no manifest, so one configuration gets another with every tool that writes it.
    fn one_id_is_listed_once(scratch) {
        let layer = Layer::new().file("a", b"1").build();
        scratch.load(&archive(std::slice::from_ref(&layer), "app")).unwrap();
        let first = scratch.store.resolve("app").unwrap().identity;
        let compressed = common::archive_with(&[gzip(&layer)], &[common::hex(&layer)], "app");
        scratch.load(&compressed).unwrap();
        let second = scratch.store.resolve("app").unwrap().identity;
        assert_eq!(first.id, second.id);
        assert_ne!(first.digest, second.digest);
        assert_eq!(scratch.store.images(&|_| {}).unwrap().len(), 1);
        scratch.store.recover(&Enter).unwrap();
        assert_eq!(scratch.contents().iter().filter(|n| n.starts_with("blobs/")).count(), 3);
        assert!(scratch.layers("app")[0].join("a").exists());
    }
}

/// Yields bytes, then stops for good, as a pipe does whose writer hangs.
struct Stuck<'a> {
    bytes: &'a [u8],
    when_stuck: Box<dyn FnMut() + Send + 'a>,
}

impl Read for Stuck<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.bytes.is_empty() {
            (self.when_stuck)();
            return Err(io::Error::other("the writer is gone"));
        }
        self.bytes.read(buf)
    }
}

namespaced! {
    fn nothing_is_swept_while_another_command_adds(scratch) {
        let bytes = Layer::new().file("a", &[1; 5000]).archive("slow");
        scratch.load(&Layer::new().file("b", b"1").archive("other")).unwrap();
        let before = scratch.contents().len();
        let mut seen = 0;
        let mut stuck = Stuck {
            bytes: &bytes[..6000],
            when_stuck: Box::new(|| {
                // The half-read image is on disk; removing another one must not take it.
                remove(&scratch, "other", RemoveMode::Normal).unwrap();
                seen = names(&scratch.path("data/tmp")).iter().filter(|n| n.starts_with("op-")).count();
            }),
        };
        let failed = scratch.store.load(&mut stuck, "pipe", &work(&Enter));
        assert!(failed.is_err());
        drop(stuck);
        assert_eq!(seen, 1, "the running command's directory was there");
        assert!(before > 0);
        assert_eq!(scratch.contents(), Vec::<String>::new(), "the failed command swept for both");
    }
}

namespaced! {
    fn many_commands_at_once(scratch) {
        let base = Layer::new().file("base", &vec![7; 300_000]).build();
        let archives: Vec<Vec<u8>> = (0..8)
            // Pairs load the very same image.
            .map(|i| archive(&[base.clone(), Layer::new().file("n", &[i / 2]).build()], &format!("app:{i}")))
            .collect();
        std::thread::scope(|scope| {
            for archive in &archives {
                scope.spawn(|| scratch.store.load(&mut &archive[..], "a.tar", &work(&Enter)).unwrap());
            }
        });
        for i in 0..8u8 {
            let layers = scratch.layers(&format!("app:{i}"));
            assert_eq!(std::fs::read(layers[0].join("n")).unwrap(), [i / 2]);
            assert_eq!(std::fs::read(layers[1].join("base")).unwrap().len(), 300_000);
        }
        assert_eq!(scratch.contents().iter().filter(|n| n.starts_with("layers/") && !n.ends_with(".json")).count(), 5);
        std::thread::scope(|scope| {
            for i in 0..8 {
                let scratch = &scratch;
                scope.spawn(move || remove(scratch, &format!("app:{i}"), RemoveMode::Normal).unwrap());
            }
        });
        scratch.store.recover(&Enter).unwrap();
        assert_eq!(scratch.contents(), Vec::<String>::new());
    }
}

namespaced! {
    fn a_starting_container_keeps_its_image(scratch) {
        scratch.load(&Layer::new().file("a", b"1").archive("app")).unwrap();
        let pin = scratch.store.pin().unwrap();
        std::thread::scope(|scope| {
            let remover = scope.spawn(|| remove(&scratch, "app", RemoveMode::Normal).unwrap());
            // Whenever the remover gets to run, it waits: the image can be used as long as the pin is held.
            for _ in 0..100 {
                assert!(scratch.store.resolve("app").is_ok());
                std::thread::yield_now();
            }
            drop(pin);
            assert_eq!(remover.join().unwrap().deleted.len(), 1);
        });
    }
}

/// Fails as the engine does when there is no user namespace.
struct Forbidden;

impl InIdMap for Forbidden {
    fn run(&self, _: &[u8]) -> Result<Vec<u8>, Failure> {
        Err(Failure::new(rlrun_spec::Stage::Cli, rlrun_spec::Kind::Host, "clone-userns", "create a user namespace", ""))
    }
}

#[test]
fn without_user_namespaces_nothing_is_kept() {
    let scratch = Scratch::new();
    let bytes = Layer::new().file("a", b"1").archive("app");
    let failure = Failure::from(scratch.store.load(&mut &bytes[..], "a.tar", &work(&Forbidden)).unwrap_err());
    assert_eq!(failure.step, "clone-userns");
    assert_eq!(scratch.contents(), Vec::<String>::new());
}

#[test]
fn reading_needs_no_store() {
    let scratch = Scratch::new();
    drop(scratch.store.pin().unwrap());
    assert!(matches!(scratch.store.resolve("app"), Err(ImageError::Unknown { .. })));
    assert_eq!(scratch.store.images(&|_| {}).unwrap(), []);
    assert!(matches!(remove(&scratch, "app", RemoveMode::Normal), Err(ImageError::Unknown { .. })));
    assert!(!scratch.path("data").exists(), "looking made nothing");
}

#[test]
fn a_store_that_cannot_be_made_is_named() {
    let scratch = Scratch::new();
    write(&scratch.path("data"), b"a file");
    let store = Store::new(scratch.path("data"));
    let failure = Failure::from(store.load(&mut &b""[..], "a.tar", &work(&Never)).unwrap_err());
    assert!(failure.object.ends_with("/data"), "{failure}");
    assert_eq!(failure.step, "data-dir");
}

const INSIDE: &str = "RLRUN_TEST_SMALL_DISK";

/// Loads onto a small disk, as mapped root, who may mount one.
fn on_small_disk(place: &Path) {
    let store = Store::new(place.join("data"));
    let small = Layer::new().file("a", b"1").archive("small");
    store.load(&mut &small[..], "small.tar", &work(&Here)).unwrap();
    let list = || ["blobs/sha256", "layers", "images", "refs", "tmp"].map(|d| names(&place.join("data").join(d)));
    let before = list();
    // Once while the archive is taken apart, once while its layer, which compresses well, is extracted.
    let large = Layer::new().file("a", &vec![7; 8 << 20]);
    let archives = [
        large.archive("large"),
        common::archive_with(&[gzip(&large.build())], &[common::hex(&large.build())], "large"),
    ];
    for archive in archives {
        let failure = Failure::from(store.load(&mut &archive[..], "large.tar", &work(&Here)).unwrap_err());
        assert_eq!(failure.step, "store-space", "{failure}");
        assert!(failure.to_string().ends_with("No space left on device (os error 28)"), "{failure}");
        assert_eq!(list(), before, "{failure}");
    }
    let full = vec![0; 16 << 20];
    drop(io::Write::write_all(&mut std::fs::File::create(place.join("filler")).unwrap(), &full));
    store.remove("small", RemoveMode::Normal, &|_| None, &Here).unwrap();
    assert_eq!(names(&place.join("data/layers")), Vec::<String>::new(), "room can be made on a full disk");
}

#[test]
fn a_full_disk_is_one_clear_error() {
    if let Some(place) = std::env::var_os(INSIDE) {
        return on_small_disk(Path::new(&place));
    }
    common::as_ordinary_user("a_full_disk_is_one_clear_error", || {
        let scratch = Scratch::new();
        let program = std::env::current_exe().unwrap();
        let script = "mkdir \"$1\"; exec unshare --mount sh -euc 'mount -t tmpfs -o size=4m tmpfs \"$1\"; \
            exec env RLRUN_TEST_SMALL_DISK=\"$1\" \"$2\" --exact a_full_disk_is_one_clear_error --nocapture' sh \"$1\" \"$2\"";
        let output = scratch.inside(script, &[&scratch.path("disk"), &program]);
        assert!(output.contains("1 passed"), "{output}");
    });
}

namespaced! {
    fn a_check_looks_into_extracted_layers(scratch) {
        let below = Layer::new().dir("etc").file("etc/passwd", b"root").hard_link("etc/again", "etc/passwd")
            .symlink("lib", "usr/lib").dir("usr").dir("usr/lib").file("lib/x", b"x").owner(5, 6).mode(0o640).file("own", b"own");
        // The last entry of a name counts, and a directory may go without an entry of its own.
        let above = Layer::new().file("twice", b"1").file("twice", b"22").file("deep/er/f", b"f")
            .file(".wh.own", b"").file("dir/a", b"a").file("dir", b"now a file");
        scratch.load(&archive(&[below.build(), above.build()], "app")).unwrap();
        let check = || scratch.store.check(&Enter, &|_| {}).unwrap();
        let whole = check();
        assert_eq!((whole.layers, &whole.damage[..]), (2, &[][..]));
        let layers = scratch.layers("app");
        for (layer, script, why) in [
            (1, "printf toor > etc/passwd", "`etc/passwd` has other content"),
            (1, "printf rooot > etc/passwd", "`etc/passwd` has another size"),
            (1, "chmod u+s own", "`own` has another mode"),
            (1, "chown 0 own; chmod 640 own", "`own` has another owner"),
            (1, "rm -r usr/lib", "`lib/x` is missing"),
            (1, "rm lib; ln -s / lib", "`lib` leads elsewhere"),
            (1, "rm etc/again; echo > etc/again", "`etc/again` is no link"),
            (1, "touch etc/more", "`etc/more` is no part of it"),
            (0, "rm own", "`own` is not hidden"),
            (0, "rm dir; mkdir dir", "`dir` is of another kind"),
            (0, "rm twice; printf 1 > twice", "`twice` has another size"),
        ] {
            let saved = scratch.path("outside/saved");
            scratch.inside("cp -a \"$1\" \"$2\"", &[&layers[layer], &saved]);
            scratch.inside(&format!("cd \"$1\"; {script}"), &[&layers[layer]]);
            let found = check().damage;
            scratch.inside("rm -r \"$1\"; mv \"$2\" \"$1\"", &[&layers[layer], &saved]);
            assert_eq!(found.len(), 1, "{script}: {found:?}");
            assert!(found[0].why.contains(why), "{script}: {}", found[0].why);
        }
        assert_eq!(check().damage, []);
        scratch.inside("rm -r \"$1\"", &[&layers[0]]);
        let missing = check();
        assert!(missing.damage[0].why.contains("is missing"), "{:?}", missing.damage);
        assert_eq!(scratch.store.repair(&missing, &|_| None, &Enter).unwrap(), []);
        assert_eq!(scratch.contents(), Vec::<String>::new());
    }
}

namespaced! {
    fn a_repair_leaves_the_same_image_in_another_form(scratch) {
        let layer = Layer::new().file("a", b"1").build();
        scratch.load(&archive(std::slice::from_ref(&layer), "plain")).unwrap();
        scratch.load(&common::archive_with(&[gzip(&layer)], &[common::hex(&layer)], "packed")).unwrap();
        let (plain, packed) = (scratch.store.resolve("plain").unwrap(), scratch.store.resolve("packed").unwrap());
        assert_eq!(plain.identity.id, packed.identity.id);
        let blob = scratch.path("data/blobs/sha256").join(common::hex(&gzip(&layer)));
        write(&blob, b"altered");
        let checked = scratch.store.check(&Enter, &|_| {}).unwrap();
        assert_eq!(checked.damage.len(), 1, "{:?}", checked.damage);
        assert_eq!(scratch.store.repair(&checked, &|_| None, &Enter).unwrap(), []);
        assert!(matches!(scratch.store.resolve("packed"), Err(ImageError::Unknown { .. })));
        assert!(scratch.layers("plain")[0].join("a").exists());
        assert_eq!(scratch.store.check(&Enter, &|_| {}).unwrap().damage, []);
    }
}
