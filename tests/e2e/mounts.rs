//! The files of containers, mounted in a shell inside the id map; and `unshare`, which is that shell.

use rlrun_tests::{BASE, case};

#[test]
fn a_containers_files_are_mounted_for_a_shell_and_gone_with_it() {
    let case = case!(Userns).keeping_containers();
    case.run([
        "create",
        "--name",
        "box",
        "--network",
        "none",
        BASE,
        "sh",
        "-c",
        "echo mine > /own; rm /etc/base-image",
    ])
    .ok();
    case.run(["start", "-a", "box"]).ok();
    let shell = |script: &str| {
        let program = case.program();
        case.rlrun(["unshare", "sh", "-c", &script.replace("rlrun", program.to_str().unwrap())]).run()
    };
    let out =
        shell("path=$(rlrun mount box) && cat $path/own && ls $path/etc/base-image; rlrun mount; echo x > $path/own");
    assert!(out.out().starts_with("mine\n"), "{}", out.out());
    assert!(out.err().contains("base-image") && out.err().contains("ead-only"), "{}", out.err());
    let id = case.run(["inspect", "-f", "{{.Id}}", "box"]).ok().out();
    assert!(out.out().contains(&format!("{}  ", &id[..12])), "it is listed: {}", out.out());
    shell("rlrun mount box; rlrun unmount box; rlrun mount | wc -l").ok().says(&format!("{}\n0", id.trim_end()));
    // In another shell nothing is mounted.
    shell("rlrun mount").ok().prints("");
    shell("rlrun unmount box").refused(125, "not mounted");
    shell("rlrun image mount").ok().prints("");
    case.run(["mount", "box"]).refused(125, "rlrun unshare");
    shell(&format!("path=$(rlrun image mount {BASE}) && ls $path/etc/base-image")).ok().says("base-image");
}

#[test]
fn an_image_differs_from_the_layers_below_it() {
    let case = case!(Userns).keeping_containers();
    case.run([
        "create",
        "--name",
        "box",
        "--network",
        "none",
        BASE,
        "sh",
        "-c",
        "echo mine > /own; rm /etc/base-image",
    ])
    .ok();
    case.run(["start", "-a", "box"]).ok();
    case.run(["commit", "--pause", "box", "localhost/own:1"]).ok();
    let out = case.run(["diff", "localhost/own:1"]).ok().out();
    assert!(out.contains("A /own\n") && out.contains("D /etc/base-image\n"), "{out}");
    case.run(["diff", "-l"]).ok().says("A /own");
    case.run(["diff", "nothing"]).refused(125, "no such container");
}
