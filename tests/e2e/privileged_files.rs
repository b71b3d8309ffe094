//! Files in an image's layers that raise privileges, as policies are told of them.

use crate::policy::{install, shipped};
use rlrun_tests::{Case, Image, Output, Rootfs, base_rootfs, case};
use std::fs;

const NAME: &str = "localhost/held:1";
const DENY: &str = "deny = [\"HYG013\"]\nskip = [\"HYG001\", \"HYG002\"]";

/// Loads an image with these layers on top of the usual one; its history says nothing.
fn load(case: &Case, layers: impl IntoIterator<Item = Rootfs>) {
    let image = layers.into_iter().fold(Image::new(NAME, base_rootfs().clone()), Image::layer);
    let archive = case.make_file("image.tar", image.docker_archive().bytes());
    case.run(["load", "-i", archive.to_str().unwrap()]).ok();
    fs::remove_file(archive).unwrap();
}

fn run(case: &Case, options: &[&str]) -> Output {
    case.run([&["run", "--rm", "--network", "none"], options, &[NAME, "true"]].concat())
}

fn set_user_id() -> Rootfs {
    Rootfs::new().dir("opt", 0o755).file("opt/raise", 0o4755, "x")
}

fn ask(case: &Case, settings: &str) {
    install(case, &[(&shipped(case, "image-hygiene"), Some(settings))]);
}

#[test]
fn a_set_user_id_file_of_a_layer_is_refused_and_told() {
    let case = case!(Userns);
    ask(&case, DENY);
    load(&case, [Rootfs::new().file("opt/plain", 0o755, "x")]);
    run(&case, &[]).ok();
    load(&case, [set_user_id()]);
    run(&case, &[]).refused(125, "/opt/raise (set-user-ID 0)");
    case.run(["create", "--network", "none", NAME, "true"]).refused(125, "HYG013");
    install(
        &case,
        &[(&shipped(&case, "image-hygiene"), Some("deny = [\"HYG013\"]\nallow-privileged-files = [\"/opt/raise\"]"))],
    );
    run(&case, &[]).ok();
    // By itself it warns, and only where the file has an effect.
    install(&case, &[(&shipped(&case, "image-hygiene"), Some(""))]);
    assert!(!run(&case, &[]).ok().err().contains("HYG013"));
    let warned = run(&case, &["--security-opt", "no-new-privileges=false"]).ok().err();
    assert!(warned.contains("HYG013"), "{warned}");
}

#[test]
fn set_group_id_and_capabilities_count_and_hard_links_too() {
    let case = case!(Userns);
    ask(&case, DENY);
    // Capabilities as the kernel writes them, revision 2: CAP_NET_RAW, effective.
    let capability: &[u8] = &[1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let layer = Rootfs::new()
        .dir("opt", 0o2755)
        .file_of("opt/group", (0, 5), 0o2755, "x")
        .xattrs(&[("security.capability", capability)])
        .file("opt/raw", 0o755, "x")
        .hard_link("opt/other", "opt/group");
    load(&case, [layer]);
    let told = run(&case, &[]).refused(125, "HYG013").err();
    for name in ["/opt/group (set-group-ID 5)", "/opt/other (set-group-ID 5)", "/opt/raw (capabilities)"] {
        assert!(told.contains(name), "{name}: {told}");
    }
    assert!(!told.contains("/opt ("), "{told}");
}

#[test]
fn what_a_layer_above_hides_is_not_told() {
    let case = case!(Userns);
    ask(&case, DENY);
    for above in [
        Rootfs::new().file("opt/.wh.raise", 0o644, ""),
        Rootfs::new().file("opt/.wh..wh..opq", 0o644, ""),
        Rootfs::new().file(".wh.opt", 0o644, ""),
        Rootfs::new().dir("opt", 0o755).file("opt/raise", 0o755, "harmless"),
    ] {
        load(&case, [set_user_id(), above]);
        run(&case, &[]).ok();
    }
    load(&case, [set_user_id(), Rootfs::new().file("opt/.wh.other", 0o644, "")]);
    run(&case, &[]).refused(125, "/opt/raise");
    // A symlink to where it is hides nothing by going.
    let by_link = Rootfs::new().dir("real", 0o755).symlink("link", "real").file("link/raise", 0o4755, "x");
    load(&case, [by_link, Rootfs::new().file(".wh.link", 0o644, "")]);
    run(&case, &[]).refused(125, "/real/raise");
    // The last entry of a name counts.
    load(&case, [set_user_id().file("opt/raise", 0o755, "x")]);
    run(&case, &[]).ok();
}

#[test]
fn of_a_layer_that_came_before_it_is_not_known() {
    let case = case!(Userns);
    ask(&case, DENY);
    load(&case, [set_user_id()]);
    for entry in fs::read_dir(case.data().join("layers")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "json") {
            let mut facts: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
            facts.as_object_mut().unwrap().remove("privileged").unwrap();
            std::io::Write::write_all(&mut fs::File::create(&path).unwrap(), facts.to_string().as_bytes()).unwrap();
        }
    }
    run(&case, &[]).refused(125, "it is not known");
    case.run(["rmi", NAME]).ok();
    load(&case, [set_user_id()]);
    run(&case, &[]).refused(125, "/opt/raise");
}

#[test]
fn the_past_is_asked_again_as_long_as_the_image_is_there() {
    let case = case!(Userns);
    load(&case, [set_user_id()]);
    install(&case, &[(&shipped(&case, "image-hygiene"), Some("skip = [\"HYG001\", \"HYG002\"]"))]);
    run(&case, &[]).ok();
    let settings = case.make_file("strict.toml", "deny = [\"HYG013\"]");
    let replay = || case.run(["policy", "replay", "image-hygiene", "--settings", settings.to_str().unwrap()]);
    let told = replay().out();
    assert!(told.contains("HYG013") && !told.contains("images that are gone"), "{told}");
    case.run(["rmi", NAME]).ok();
    let told = replay().out();
    assert!(told.contains("what is in images that are gone"), "{told}");
}
