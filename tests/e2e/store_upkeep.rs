//! `rlrun system`: the image store is looked after.

use rlrun_tests::{BASE, Case, Image, Rootfs, base_rootfs, case};
use std::io::Write as _;
use std::path::PathBuf;

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
    // What a container uses is not taken from it.
    std::fs::remove_file(blob(&case, "localhost/used:1")).unwrap();
    case.run(["system", "check", "--repair"]).code(125).complains("holder");
    case.run(["rm", "holder"]).ok();
    case.run(["system", "check", "--repair"]).ok();
    case.run(["system", "check", "-q"]).ok().prints("");
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
    case.run(["system", "df"]).ok().says("TYPE        TOTAL       ACTIVE      SIZE");
    case.run(["rm", "holder"]).ok();
}
