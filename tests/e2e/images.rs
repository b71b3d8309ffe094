//! Archives in, images listed and removed.

use rlrun_tests::{Archive, BASE, Case, Image, Output, Rootfs, base_rootfs, case, gzip, zstd};

fn load(case: &Case, bytes: &[u8]) -> Output {
    let archive = case.make_file(&format!("archive{}", std::fs::read_dir(case.directory()).unwrap().count()), bytes);
    case.run(["load", "-i", archive.to_str().unwrap()])
}

fn small(name: &str, text: &str) -> Image {
    Image::new(name, base_rootfs().clone()).layer(Rootfs::new().file("etc/which", 0o644, text))
}

fn which(case: &Case, name: &str) -> Output {
    case.run(["run", "--rm", "--network", "none", name, "cat", "/etc/which"])
}

#[test]
fn every_form_of_archive_is_loaded() {
    let case = case!(Userns);
    let plain = |data: &[u8]| data.to_vec();
    let archives: [(&str, Vec<u8>); 9] = [
        ("docker", small("localhost/f0:1", "docker").docker_archive().bytes()),
        ("docker.gz", gzip(&small("localhost/f1:1", "docker.gz").docker_archive().bytes())),
        ("docker.zst", zstd(&small("localhost/f2:1", "docker.zst").docker_archive().bytes())),
        ("oci", small("localhost/f3:1", "oci").oci_archive("", plain).bytes()),
        ("oci.gz", gzip(&small("localhost/f4:1", "oci.gz").oci_archive("", plain).bytes())),
        ("oci.zst", zstd(&small("localhost/f5:1", "oci.zst").oci_archive("", plain).bytes())),
        ("oci+gzip", small("localhost/f6:1", "oci+gzip").oci_archive("+gzip", gzip).bytes()),
        ("oci+zstd", small("localhost/f7:1", "oci+zstd").oci_archive("+zstd", zstd).bytes()),
        (
            "docker+gzip",
            small("localhost/f8:1", "docker+gzip")
                .docker_archive()
                .change(|name| name.ends_with("layer.tar"), gzip)
                .bytes(),
        ),
    ];
    for (number, (text, bytes)) in archives.iter().enumerate() {
        let name = format!("localhost/f{number}:1");
        load(&case, bytes).ok().says(&name);
        which(&case, &name).ok().prints(text);
    }
}

#[test]
fn an_archive_can_come_from_standard_input() {
    let case = case!(Userns);
    case.rlrun(["load"]).stdin(small("localhost/stdin:1", "stdin").docker_archive().bytes()).run().ok();
    which(&case, "localhost/stdin:1").ok().prints("stdin");
}

#[test]
fn archives_of_other_tools_are_loaded() {
    let case = case!(Userns, Skopeo);
    let source = case.make_file("source.tar", small("localhost/other:1", "skopeo").docker_archive().bytes());
    let source = format!("docker-archive:{}", source.display());
    for (kind, name) in [("oci-archive", "localhost/by-skopeo:1"), ("docker-archive", "localhost/by-skopeo:2")] {
        let target = case.make_dir("out").join(kind);
        let destination = format!("{kind}:{}:{name}", target.display());
        let copy = case
            .user()
            .command("skopeo")
            .args(["copy", "-q", "--insecure-policy", &source, &destination])
            .env("HOME", case.home())
            .output()
            .unwrap();
        assert!(copy.status.success(), "{}", String::from_utf8_lossy(&copy.stderr));
        case.run(["load", "-i", target.to_str().unwrap()]).ok();
        which(&case, name).ok().prints("skopeo");
    }
}

#[test]
fn a_root_file_system_can_be_imported() {
    let case = case!(Userns);
    let tar = case.make_file("rootfs.tar", base_rootfs().clone().file("etc/which", 0o644, "imported").tar());
    case.run(["import", tar.to_str().unwrap(), "localhost/imported:1"]).ok();
    which(&case, "localhost/imported:1").ok().prints("imported");
    let compressed = case.make_file("rootfs.tar.gz", gzip(&base_rootfs().clone().file("etc/which", 0o644, "gz").tar()));
    case.run(["import", compressed.to_str().unwrap(), "localhost/imported:2"]).ok();
    which(&case, "localhost/imported:2").ok().prints("gz");
}

#[test]
fn images_are_listed_and_removed() {
    let case = case!(Userns);
    load(&case, &small("localhost/listed:7", "x").docker_archive().bytes()).ok();
    let list = case.run(["images"]).ok().out();
    assert!(list.lines().any(|line| line.contains("localhost/listed") && line.contains('7')), "{list}");
    case.run(["rmi", "localhost/listed:7"]).ok();
    let list = case.run(["images"]).ok().out();
    assert!(!list.contains("localhost/listed") && list.contains("localhost/base"), "{list}");
    case.run(["rmi", "localhost/listed:7"]).refused(1, "localhost/listed:7");
    which(&case, "localhost/listed:7").refused(125, "localhost/listed:7");
}

#[test]
fn removing_an_image_frees_its_layers_and_keeps_shared_ones() {
    let case = case!(Userns);
    let before = case.store();
    load(&case, &small("localhost/one:1", "one").docker_archive().bytes()).ok();
    assert!(case.store().len() > before.len());
    case.run(["rmi", "localhost/one:1"]).ok();
    assert_eq!(case.store(), before);
    case.in_base(["true"]).ok();
}

#[test]
fn a_layer_that_is_there_is_not_stored_twice() {
    let case = case!(Userns);
    let before = case.store().iter().filter(|line| line.contains("busybox")).count();
    load(&case, &small("localhost/shared:1", "x").docker_archive().bytes()).ok();
    assert_eq!(case.store().iter().filter(|line| line.contains("busybox")).count(), before);
}

#[test]
fn an_image_may_have_more_layers_than_mount_takes_options() {
    let case = case!(Userns, Overlay);
    let layer = |image: Image, n: u32| image.layer(Rootfs::new().file(&format!("many/{n}"), 0o644, "x"));
    case.load(&(0..200).fold(Image::new("localhost/many:1", base_rootfs().clone()), layer));
    let run =
        ["run", "--rm", "--network", "none", "localhost/many:1", "sh", "-c", "ls /many | wc -l; echo > /many/own"];
    case.run(run).ok().prints("200\n");
}

#[test]
fn a_tag_moves_to_the_newest_image() {
    let case = case!(Userns);
    load(&case, &small("localhost/moving:1", "old").docker_archive().bytes()).ok();
    load(&case, &small("localhost/moving:1", "new").docker_archive().bytes()).ok();
    which(&case, "localhost/moving:1").ok().prints("new");
}

#[test]
fn an_image_is_found_by_its_short_forms() {
    let case = case!(Userns);
    load(&case, &small("tool:latest", "x").docker_archive().bytes()).ok();
    for name in ["tool", "tool:latest", "docker.io/library/tool", "library/tool:latest"] {
        which(&case, name).ok().prints("x");
    }
    case.run(["images", "-q"]).ok();
    let id = case.run(["images", "-q", "tool"]).ok().out();
    which(&case, id.trim()).ok().prints("x");
}

#[test]
fn an_image_for_another_machine_is_refused_or_warned_about() {
    let case = case!(Userns);
    let mut image = small("localhost/foreign:1", "x");
    "s390x".clone_into(&mut image.architecture);
    let loaded = load(&case, &image.docker_archive().bytes());
    let run = which(&case, "localhost/foreign:1");
    assert!((loaded.err() + &run.err()).contains("s390x"), "{}{}", loaded.err(), run.err());
}

#[test]
fn what_is_not_an_archive_is_refused_and_changes_nothing() {
    let case = case!(Userns);
    let before = case.store();
    for bytes in [&b"not an archive"[..], b"", &[0; 10240], &gzip(b"not a tar")] {
        load(&case, bytes).refused(125, "");
    }
    load(&case, &Archive::new().file("hello", b"x").bytes()).refused(125, "");
    case.run(["load", "-i", "/no/such/archive.tar"]).refused(125, "/no/such/archive.tar");
    assert_eq!(case.store(), before);
}

#[test]
fn a_truncated_archive_is_refused_and_changes_nothing() {
    let case = case!(Userns);
    let before = case.store();
    let whole = small("localhost/cut:1", "x").docker_archive().bytes();
    let oci = small("localhost/cut:1", "x").oci_archive("+gzip", gzip).bytes();
    for bytes in [&whole[..whole.len() / 2], &whole[..700], &oci[..oci.len() / 2], &gzip(&whole)[..100_000]] {
        load(&case, bytes).refused(125, "");
    }
    assert_eq!(case.store(), before);
}

#[test]
fn a_wrong_digest_is_refused_and_changes_nothing() {
    let case = case!(Userns);
    let before = case.store();
    let flip = |data: &[u8]| {
        let mut data = data.to_vec();
        data[600] ^= 1;
        data
    };
    // A layer whose bytes are not what its name, or the configuration's diff-id, says.
    let docker = small("localhost/wrong:1", "x").docker_archive().change(|name| name.ends_with("layer.tar"), flip);
    load(&case, &docker.bytes()).refused(125, "sha256:");
    let oci = small("localhost/wrong:1", "x").oci_archive("", |data| data.to_vec());
    let oci = oci.change(
        |name| name.starts_with("blobs/"),
        |data| if data.len() > 100_000 { flip(data) } else { data.to_vec() },
    );
    load(&case, &oci.bytes()).refused(125, "sha256:");
    let mut lying = small("localhost/wrong:1", "x");
    lying.diff_ids = Some(vec![rlrun_tests::digest(b"a"), rlrun_tests::digest(b"b")]);
    load(&case, &lying.docker_archive().bytes()).refused(125, "sha256:");
    load(&case, &lying.oci_archive("+gzip", gzip).bytes()).refused(125, "sha256:");
    assert_eq!(case.store(), before);
}

#[test]
fn an_archive_with_a_missing_part_is_refused() {
    let case = case!(Userns);
    let before = case.store();
    let docker = small("localhost/hole:1", "x").docker_archive();
    load(&case, &docker.clone().without(|name| name.ends_with("layer.tar")).bytes()).refused(125, "");
    load(&case, &docker.clone().without(|name| name == "manifest.json").bytes()).refused(125, "");
    load(&case, &docker.change(|name| name == "manifest.json", |_| b"{\"x\":".to_vec()).bytes()).refused(125, "");
    let oci = small("localhost/hole:1", "x").oci_archive("+gzip", gzip);
    load(&case, &oci.clone().change(|name| name == "index.json", |_| b"[]".to_vec()).bytes()).refused(125, "");
    load(&case, &oci.without(|name| name.starts_with("blobs/")).bytes()).refused(125, "");
    assert_eq!(case.store(), before);
}

#[test]
fn two_loads_of_the_same_image_at_once_are_one_image() {
    let case = case!(Userns);
    let archive = case.make_file("same.tar", small("localhost/same:1", "x").docker_archive().bytes());
    let loads: Vec<_> = (0..4).map(|_| case.rlrun(["load", "-i", archive.to_str().unwrap()]).spawn()).collect();
    for load in loads {
        load.finish().ok();
    }
    which(&case, "localhost/same:1").ok().prints("x");
    case.in_base(["true"]).ok();
    assert_eq!(case.run(["images"]).out().matches("localhost/same").count(), 1);
    assert!(case.run(["images"]).out().contains(BASE.split(':').next().unwrap()));
}
