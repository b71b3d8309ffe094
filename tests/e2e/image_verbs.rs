//! Looking at images and naming them: formats, filters, `rlrun image ...`.

use rlrun_tests::{BASE, Case, Image, Rootfs, base_rootfs, case, gzip};

fn load(case: &Case, name: &str, text: &str) {
    case.load(&Image::new(name, base_rootfs().clone()).layer(Rootfs::new().file("etc/which", 0o644, text)));
}

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

#[test]
fn lists_are_formatted_and_filtered_as_users_of_podman_expect() {
    let case = case!(Userns);
    load(&case, "localhost/listed:7", "x");
    let images = |words: &[&str]| case.run(["images"].iter().chain(words)).ok().out();
    assert_eq!(images(&["--format", "{{.Repository}}:{{.Tag}}", "-f", "reference=listed"]), "localhost/listed:7\n");
    let table = images(&["--format", "table {{.Repository}}\\t{{.ID}}", "--filter", "reference=listed:*"]);
    assert!(table.starts_with("REPOSITORY        IMAGE ID\nlocalhost/listed  "), "{table}");
    assert_eq!(images(&["-n", "--format", "table {{len .Names}}", "--filter", "reference=listed"]), "1\n");
    let all = json(&images(&["--format", "json"]));
    assert_eq!(all.as_array().unwrap().len(), 2);
    let listed = json(&images(&["--format", "json", "localhost/listed:7"]));
    assert_eq!(listed[0]["Names"][0], "localhost/listed:7");
    let id = images(&["-q", "listed:7"]);
    assert!(listed[0]["Id"].as_str().unwrap().starts_with(id.trim()));
    assert_eq!(
        images(&["-q", "--no-trunc", "listed:7"]).trim(),
        format!("sha256:{}", listed[0]["Id"].as_str().unwrap())
    );
    assert_eq!(images(&["-q", "--filter", "dangling=true"]), "");
    assert_eq!(case.run(["image", "ls", "-q", "listed:7"]).ok().out(), id);
    // A name means all images that have it, whatever their tags; a pattern may stand for it.
    load(&case, "localhost/team/listed:8", "y");
    let tags = |word: &str| images(&["--sort", "tag", "--format", "{{.Tag}}", word]);
    assert_eq!((tags("listed").as_str(), tags("team/listed").as_str()), ("7\n8\n", "8\n"));
    assert_eq!(
        (tags("list*:[78]").as_str(), tags("lis?ed:7").as_str(), tags("nothing").as_str()),
        ("7\n8\n", "7\n", "")
    );
    assert_eq!((tags("team/*").as_str(), tags("localhost*").as_str()), ("8\n", ""));
    assert_eq!(tags(id.trim()), "7\n");
    let fields = "{{.History}} {{.ParentId}}{{.SharedSize}} {{.Containers}} {{.ManifestType}}";
    let manifest = "application/vnd.oci.image.manifest.v1+json";
    assert_eq!(images(&["--format", fields, "listed:7"]), format!("localhost/listed:7 0 0 {manifest}\n"));
    let names = |filter: &str| images(&["--sort", "tag", "--format", "{{.Repository}}", "--filter", filter]);
    assert_eq!((names("containers=true").as_str(), names("manifest=true").as_str()), ("", ""));
    assert_eq!((names("intermediate=true").as_str(), names("containers=false").lines().count()), ("", 3));
    case.run(["images", "--filter", "containers=x"]).refused(125, "containers=x");
    case.run(["images", "--format", "{{.Nope}}"]).refused(125, "Nope");
    case.run(["images", "--format", "{{.Id"]).refused(125, "template");
    case.run(["images", "--filter", "colour=red"]).refused(125, "no such filter");
}

#[test]
fn an_image_is_inspected() {
    let case = case!(Userns);
    let inspect = |words: &[&str]| case.run(["image", "inspect"].iter().chain(words));
    let image = json(&inspect(&[BASE]).ok().out());
    let id = image[0]["Id"].as_str().unwrap();
    assert_eq!(image[0]["RepoTags"][0], BASE);
    assert_eq!(image[0]["Os"], "linux");
    assert!(image[0]["RootFS"]["Layers"][0].as_str().unwrap().starts_with("sha256:"));
    inspect(&["-f", "{{.Id}} {{.Os}} {{index .RepoTags 0}}", BASE]).ok().prints(&format!("{id} linux {BASE}"));
    inspect(&["--format", "{{.Config.Labels.nothing}}", &id[..12]]).ok().prints("<no value>");
    // What is there is shown, what is missing is told.
    let one = inspect(&["-f", "{{.Os}}", BASE, "localhost/nothing:1"]);
    one.code(125).complains("localhost/nothing:1").prints("linux");
    case.run(["image", "exists", BASE]).ok();
    case.run(["image", "exists", "localhost/nothing:1"]).code(1);
    case.run(["image", "nonsense"]).code(125).complains("nonsense");
}

#[test]
fn names_are_given_and_taken() {
    let case = case!(Userns);
    load(&case, "localhost/app:1", "x");
    load(&case, "localhost/other:1", "y");
    case.run(["tag", "localhost/app:1", "app:2", "localhost:5000/team/app", "localhost/other:1"]).ok();
    let id = |name: &str| case.run(["images", "-q", name]).ok().out();
    for name in ["localhost/app:2", "localhost:5000/team/app:latest", "localhost/other:1"] {
        assert_eq!(id(name), id("localhost/app:1"), "{name}");
    }
    // The image whose only name was taken is there, without one.
    assert_eq!(case.run(["images", "-q", "--filter", "dangling=true"]).ok().out().lines().count(), 1);
    case.run(["untag", "localhost/app:1", "localhost/app:2"]).ok();
    case.run(["image", "exists", "localhost/app:2"]).code(1);
    case.run(["untag", "localhost/app:1", "localhost/nothing:1"]).refused(125, "localhost/nothing:1");
    case.run(["untag", "localhost/app:1"]).ok();
    case.run(["image", "exists", "localhost:5000/team/app"]).code(1);
    assert_eq!(case.run(["images", "-q", "--filter", "dangling=true"]).ok().out().lines().count(), 2);
    case.run(["tag", "localhost/nothing:1", "x"]).refused(125, "localhost/nothing:1");
    case.run(["tag", BASE, "UPPER"]).refused(125, "UPPER");
}

#[test]
fn pruning_removes_what_has_no_name_and_no_container() {
    let case = case!(Userns).keeping_containers();
    load(&case, "localhost/app:1", "x");
    load(&case, "localhost/app:1", "y");
    load(&case, "localhost/used:1", "z");
    case.run(["run", "--name", "holder", "--network", "none", "localhost/used:1", "true"]).ok();
    let dangling = case.run(["images", "-q", "--no-trunc", "--filter", "dangling=true"]).ok().out();
    // No answer is no.
    case.run(["image", "prune"]).ok().prints("");
    case.run(["image", "prune", "-f", "--filter", "label=nobody"]).ok().prints("");
    case.run(["image", "prune", "-f"]).ok().prints(dangling.trim().trim_start_matches("sha256:"));
    case.run(["image", "exists", "localhost/app:1"]).ok();
    case.run(["image", "prune", "-af"]).ok();
    let left = case.run(["images", "--format", "{{.Repository}}"]).ok().out();
    assert_eq!(left, "localhost/used\n");
    case.run(["rmi", "-f", "localhost/used:1"]).refused(2, "holder");
    case.run(["rm", "holder"]).ok();
    case.run(["rmi", "--all"]).ok().says("localhost/used:1");
    case.run(["images", "-q"]).ok().prints("");
    case.run(["rmi", "localhost/used:1"]).refused(1, "localhost/used:1");
    case.run(["rmi", "--ignore", "localhost/used:1"]).ok();
    case.run(["image", "rm", "-f", "localhost/used:1"]).ok().prints("");
}

#[test]
fn an_image_is_as_large_as_its_layers_are_unpacked() {
    let case = case!(Userns);
    let long = Image::new("localhost/long:1", Rootfs::new().file("zeroes", 0o644, vec![0; 3_000_000]));
    let archive = case.make_file("long.tar", long.oci_archive("+gzip", gzip).bytes());
    case.run(["load", "-q", "-i", archive.to_str().unwrap()]).ok();
    let bytes = json(&case.run(["images", "--format", "json", "long"]).ok().out())[0]["Size"].as_u64().unwrap();
    // With headers and padding, as tar archives have them.
    assert!((3_000_000..3_100_000).contains(&bytes), "{bytes}");
    assert!(case.run(["images", "--format", "{{.Size}}", "long"]).ok().out().starts_with("3.0"));
    assert_eq!(json(&case.run(["image", "inspect", "long:1"]).ok().out())[0]["Size"], bytes);
}

#[test]
fn what_an_image_is_made_of_is_told() {
    let case = case!(Userns);
    load(&case, "localhost/app:1", "x");
    let id = case.run(["images", "-q", "localhost/app:1"]).ok().out();
    let history = case.run(["history", "localhost/app:1"]).ok().out();
    let lines: Vec<&str> = history.lines().collect();
    assert!(lines[0].starts_with("ID            CREATED"), "{history}");
    assert!(lines[1].starts_with(id.trim()) && lines[2].starts_with("<missing>"), "{history}");
    let layers = json(&case.run(["image", "history", "--format", "json", "localhost/app:1"]).ok().out());
    assert_eq!(layers.as_array().unwrap().len(), 2);
    assert!(layers[1]["size"].as_u64().unwrap() > 100_000, "{layers}");
    case.run(["history", "-q", "localhost/app:1"]).ok().prints(&format!("{}\n<missing>", id.trim()));
    let tree = case.run(["image", "tree", "localhost/app:1"]).ok().out();
    assert!(tree.contains(&format!("Top Layer of: [{BASE}]")) && tree.contains("└── "), "{tree}");
    // From the base upwards; the layers of the one that nothing is built on are left out.
    let above = case.run(["image", "tree", "--whatrequires", BASE]).ok().out();
    let lines: Vec<&str> = above.lines().skip_while(|line| *line != "Image Layers").skip(1).collect();
    assert!(lines[0].starts_with("└── ID: ") && lines[0].contains(BASE), "{above}");
    assert!(lines[1].starts_with("    └── ID: ") && lines[1].contains("localhost/app:1"), "{above}");
    let alone = case.run(["image", "tree", "--whatrequires", "localhost/app:1"]).ok().out();
    assert_eq!(alone.matches("── ID: ").count(), 1, "{alone}");
}

#[test]
fn an_import_says_what_its_containers_are_like() {
    let case = case!(Userns);
    let tar = case.make_file("rootfs.tar", base_rootfs().tar());
    let tar = tar.to_str().unwrap();
    let words = ["-c", "CMD [\"cat\", \"/etc/passwd\"]", "--change", "ENV=A=b", "-m", "by hand", "--change=USER 5"];
    case.run([&["import"], &words[..], &[tar, "localhost/in:1"]].concat()).ok();
    let field = |format: &str| case.run(["image", "inspect", "-f", format, "localhost/in:1"]).ok().out();
    assert_eq!(field("{{.Config.Env}} {{.User}} {{.Comment}}"), "[A=b] 5 by hand\n");
    case.run(["run", "--rm", "--network", "none", "localhost/in:1"]).ok().says("root:");
    case.run(["import", "--arch", "arm64", "--variant", "v8", tar, "localhost/in:1"]).ok();
    assert_eq!(field("{{.Os}}/{{.Architecture}}/{{.Variant}}"), "linux/arm64/v8\n");
    case.run(["import", "-c", "FROM x", tar]).refused(125, "FROM");
    case.run(["import", "--os", "plan9", tar]).refused(125, "plan9");
}

#[test]
fn what_podman_has_and_rlrun_does_not_do_is_refused_with_the_reason() {
    let case = case!(Userns);
    for (words, why) in [
        (&["push", "--format", "v2s1", BASE, "x"][..], "v2s1"),
        (&["push", "--format", "v2s2", BASE, "oci:x"], "OCI manifests"),
        (&["push", "--compression-format", "zstd", BASE, "docker-archive:x"], "never compressed"),
        (&["push", "--compression-format", "gzip", "--compression-level", "12", BASE, "x"], "other levels"),
        (&["push", "--compression-level", "2", BASE, "x"], "--compression-format"),
        (&["push", "--sign-by", "me", BASE, "x"], "verifies signatures and makes none"),
        (&["push", "--compress", BASE, "x"], "dir:"),
        (&["pull", "--signature-policy", "/p", "x"], "not for the command line"),
        (&["search", "--filter", "stars=3", "x"], "neither stars"),
        (&["images", "--history"], "names that an image had before"),
    ] {
        case.run(words).refused(125, why);
    }
    // What makes no difference here is taken.
    case.run(["image", "prune", "-f", "--external"]).ok();
    let out = case.make_dir("out");
    let file = out.join("a.tar");
    case.run(["save", "--uncompressed", "-o", file.to_str().unwrap(), BASE]).ok();
    let dir = format!("dir:{}", out.join("compressed").display());
    case.run(["push", "--compress", "--disable-content-trust", BASE, &dir]).ok();
    case.run(["rmi", "--no-prune", BASE]).ok();
}

/// A shell that is root of a user namespace with the user's ids, as `podman unshare` starts one.
fn inside(case: &Case, script: &str) -> rlrun_tests::Invocation {
    let script = format!("rlrun={}; {script}", case.program().display());
    let words = ["--user", "--map-root-user", "--map-auto", "--mount", "sh", "-c", &script];
    case.invoke("/usr/bin/unshare".as_ref()).args(words)
}

#[test]
fn an_image_is_mounted_to_be_looked_at() {
    let case = case!(Userns, Overlay);
    load(&case, "localhost/one:1", "one");
    case.load(&Image::new("localhost/flat:1", Rootfs::new().file("etc/which", 0o644, "flat")));
    case.run(["image", "mount", "localhost/one:1"]).code(125).complains("rlrun unshare");
    let script = "p=$($rlrun image mount localhost/one:1) && cat $p/etc/which && $p/bin/sh -c 'echo runs' || exit 9
        touch $p/x 2>/dev/null && echo written
        cat $($rlrun image mount localhost/flat:1)/etc/which
        [ $($rlrun image mount localhost/one:1) = $p ] && $rlrun image mount | grep -c /mounts/
        $rlrun image unmount localhost/one:1 >/dev/null && ls $p | wc -l
        (cd $($rlrun image mount localhost/one:1) && ! $rlrun image unmount localhost/one:1 && $rlrun image umount -f localhost/one:1)
        $rlrun image unmount --all | wc -l; $rlrun image mount | wc -l";
    let seen = inside(&case, script).run();
    let id = case.run(["images", "-q", "--no-trunc", "localhost/one:1"]).ok().out();
    let id = id.trim().trim_start_matches("sha256:");
    seen.ok().prints(&format!("oneruns\nflat2\n0\n{id}\n1\n0\n")).complains("leave the directory");
    // What somebody looks at stays.
    let mut shell = inside(&case, "$rlrun image mount localhost/one:1 && read word").spawn();
    shell.wait_for(id);
    case.run(["rmi", "localhost/one:1"]).code(2).complains("it is mounted");
    drop(shell.stdin.take());
    shell.finish();
    case.run(["rmi", "localhost/one:1"]).ok();
}
