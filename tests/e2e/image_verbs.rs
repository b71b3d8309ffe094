//! Looking at images and naming them: formats, filters, `rlrun image ...`.

use rlrun_tests::{BASE, Case, Image, Rootfs, base_rootfs, case};

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
