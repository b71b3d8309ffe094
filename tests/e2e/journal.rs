//! `events` and `audit`: what was done is written down, cannot be changed unseen, and holds no secret.

use rlrun_tests::{BASE, Case, Image, base_rootfs, case};
use serde_json::{Value, json};

fn lines(case: &Case) -> Vec<Value> {
    let text = case.run(["audit", "export"]).ok().out();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn last(case: &Case, operation: &str) -> Value {
    let all = lines(case);
    all.into_iter().rfind(|line| line["operation"] == operation).unwrap_or_else(|| panic!("{operation} is not there"))
}

#[test]
fn a_run_is_written_down_with_who_what_and_why() {
    let case = case!(Userns);
    case.run_base(&["--name", "one", "-e", "KEY=hunter2", "--cap-drop", "all"], ["true"]).ok();
    let line = last(&case, "run");
    assert_eq!(line["outcome"], "done");
    assert_eq!(line["who"]["uid"], json!(case.user().uid.as_raw()));
    assert!(line["image"]["digest"].as_str().unwrap().starts_with("sha256:"), "{line}");
    assert_eq!(line["security"]["capabilities"], json!([]));
    assert_eq!((&line["security"]["noNewPrivileges"], &line["security"]["seccomp"]), (&json!(true), &json!("default")));
    let verdict = &line["verdicts"][0];
    assert_eq!((&verdict["policy"], &verdict["tier"]), (&json!("baseline"), &json!("builtin")));
    assert!(verdict["digest"].as_str().unwrap().starts_with("sha256:"));
    let argv = line["argv"].to_string();
    assert!(argv.contains("KEY=***") && argv.contains("--cap-drop"), "{argv}");
    let journal = std::fs::read_to_string(case.data().join("journal")).unwrap();
    assert!(!journal.contains("hunter2"));
}

#[test]
fn what_a_policy_refused_is_written_down_and_what_was_misspelt_is_not() {
    let case = case!(Userns);
    case.run_base(&["--privileged"], ["true"]).refused(125, "baseline");
    let line = last(&case, "run");
    assert_eq!(line["outcome"], "denied");
    assert_eq!(
        (&line["verdicts"][0]["policy"], &line["verdicts"][0]["decision"]),
        (&json!("baseline"), &json!("deny"))
    );
    assert!(line["verdicts"][0]["findings"][0].as_str().unwrap().starts_with("BASE"), "{line}");
    let before = lines(&case).len();
    case.run(["volume", "rm", "nothing"]).code(1);
    case.run(["run", "--no-such-option", BASE]).code(125);
    case.run(["images"]).ok();
    assert_eq!(lines(&case).len(), before);
}

#[test]
fn the_chain_shows_every_change() {
    let case = case!(Userns);
    case.run(["volume", "create", "a"]).ok();
    case.run(["volume", "create", "b"]).ok();
    let out = case.run(["audit", "verify"]).ok().out();
    let head = out.lines().find_map(|line| line.strip_prefix("head ")).unwrap().to_owned();
    case.run(["volume", "rm", "a"]).ok();
    case.run(["audit", "verify", "--head", &head]).ok();
    let path = case.data().join("journal");
    let text = std::fs::read_to_string(&path).unwrap();
    let cut = text.lines().position(|line| line.contains("\"b\"")).unwrap();
    // Only who remembers the head sees that the end is missing; everything else is seen by itself.
    let kept: Vec<&str> = text.lines().take(cut).collect();
    case.make_file("journal.cut", kept.join("\n") + "\n");
    std::fs::rename(case.directory().join("journal.cut"), &path).unwrap();
    case.run(["audit", "verify"]).ok();
    case.run(["audit", "verify", "--head", &head]).refused(125, "cut off");
    case.make_file("journal.forged", text.replacen("\"b\"", "\"c\"", 1));
    std::fs::rename(case.directory().join("journal.forged"), &path).unwrap();
    case.run(["audit", "verify"]).refused(125, "does not continue");
}

/// Everything that a container has to say: its image's labels, its output, its processes' names, its health; with all
/// the rights that one can have.
#[test]
fn nothing_inside_can_forge_an_event() {
    let case = case!(Userns).keeping_containers();
    let line = r#"{"time":1,"events":[{"type":"container","action":"died","id":"forged","name":"forged"}]}"#;
    let human = "2026-01-01 00:00:00 +0000 UTC container died forged (image=x, name=forged)";
    let words = format!("a\n{human}\n{line}\n\u{1b}[2K");
    let labels = json!({"words": words});
    case.load(&Image::new("localhost/liar:1", base_rootfs().clone()).with("Labels", labels));
    let data = case.data();
    let script = format!(
        "echo '{line}'; echo '{human}' >&2; \
         for root in /proc/[0-9]*/root /proc/[0-9]*/cwd /proc/[0-9]*/fd/*; do \
             for file in $root{0} $root/journal $root/../journal; do echo '{line}' >> $file; done; \
         done 2>/dev/null; echo '{line}' >> {0} 2>/dev/null; echo tried; exec probe wait",
        data.join("journal").display()
    );
    let health = format!("echo '{line}'; echo '{human}' >&2; exit 1");
    let id = case
        .rlrun(["run", "-d", "--name", "liar", "--policy-baseline=off", "--privileged", "--network", "none"])
        .args(["--health-cmd", &health, "--health-interval", "disable", "localhost/liar:1", "sh", "-c", &script])
        .leaving_processes()
        .run()
        .ok()
        .out();
    rlrun_tests::eventually("it has tried", || case.run(["logs", "liar"]).ok().out().contains("tried"));
    case.run(["healthcheck", "run", "liar"]);
    case.run(["exec", "liar", "sh", "-c", &format!("echo '{line}'; exit 3")]).code(3);
    case.run(["rm", "-f", "-t", "0", "liar"]).ok();
    case.run(["audit", "verify"]).ok();
    let events =
        |format: &[&str]| case.rlrun(["events", "--since", "1h", "--stream=false"]).args(format).run().ok().out();
    let documents: Vec<Value> =
        events(&["--format", "json"]).lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert!(documents.iter().all(|event| event["ID"] != "forged" && event["Name"] != "forged"), "{documents:?}");
    let shown = events(&[]);
    assert_eq!(shown.lines().count(), documents.len(), "{shown}");
    assert!(!shown.contains('\u{1b}') && !shown.lines().any(|l| l.starts_with("2026-01-01") || l.starts_with('{')));
    // What it said of itself is told as that.
    let own: Vec<&Value> = documents.iter().filter(|event| event["ID"] == id.trim()).collect();
    assert!(own.len() >= 5 && own.iter().all(|event| event["Attributes"]["words"] == json!(words)), "{own:?}");
    let filter = format!("label=words={words}");
    assert_eq!(events(&["--filter", &filter]).lines().count(), own.len());
}

#[test]
fn events_tell_a_containers_life() {
    let case = case!(Userns);
    case.run_base(&["--name", "short"], ["sh", "-c", "exit 3"]).code(3);
    let out = case.run([
        "events",
        "--since",
        "10m",
        "--stream=false",
        "--filter",
        "container=short",
        "--format",
        "{{.Type}} {{.Status}} {{.Name}}",
    ]);
    out.ok().prints("container create short\ncontainer start short\ncontainer died short\ncontainer remove short");
    let died = case
        .run(["events", "--since", "10m", "--stream=false", "--filter", "event=died", "--format", "json"])
        .ok()
        .out();
    let died: Value = serde_json::from_str(died.lines().last().unwrap()).unwrap();
    assert_eq!((&died["ContainerExitCode"], &died["Image"]), (&json!(3), &json!(BASE)));
    assert_eq!(died["ID"].as_str().unwrap().len(), 64);
    case.run(["events", "--since", "10m", "--stream=false", "--filter", "type=volume"]).ok().prints("");
    case.run(["events", "--until", "10m", "--filter", "container=short"]).ok().prints("");
    case.run(["events", "--filter", "colour=red", "--stream=false"]).refused(125, "no such filter");
    case.run(["events", "--since", "yesterday"]).refused(125, "is no time");
    // The container wrote nothing of this, and the chain holds.
    case.run(["audit", "verify"]).ok();
}

#[test]
fn events_come_as_they_happen() {
    let case = case!(Userns);
    let events = case.rlrun(["events", "--since", "1m", "--format", "{{.Type}} {{.Status}} {{.Name}}"]).spawn();
    case.run(["volume", "create", "first"]).ok();
    events.wait_for("volume create first");
    case.run(["volume", "rm", "first"]).ok();
    events.wait_for("volume remove first");
    // Not SIGINT: whoever runs the tests in the background has it ignored, and a program keeps to that.
    events.signal(nix::sys::signal::Signal::SIGTERM);
    events.finish();
}

#[test]
fn only_the_administrator_names_a_second_sink() {
    let case = case!(Userns, Root);
    let sink = case.make_file("sink", "");
    let prepare = format!(
        "mkdir -p /etc/rlrun; mount -t tmpfs -o mode=755 tmpfs /etc/rlrun; echo 'sink = \"{}\"' > /etc/rlrun/audit.toml",
        sink.display()
    );
    case.on_changed_host(&prepare, &["volume", "create", "seen"]).run().ok();
    let text = std::fs::read_to_string(&sink).unwrap();
    let line: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!((&line["operation"], &line["events"][0]["name"]), (&json!("volume create"), &json!("seen")));
    let broken = prepare.replace("sink =", "sinq =");
    case.on_changed_host(&broken, &["volume", "create", "unseen"]).run().ok().complains("audit.toml");
}

#[test]
fn everything_that_changes_a_container_is_written_down_with_its_image() {
    let case = case!(Userns).keeping_containers();
    let file = case.make_file("file", "x");
    let archive = case.make_dir("out").join("archive");
    let (file, archive) = (file.to_str().unwrap(), archive.to_str().unwrap());
    case.run(["create", "--name", "box", "--network", "none", BASE, "probe", "wait"]).ok();
    case.rlrun(["start", "box"]).leaving_processes().run().ok();
    let verbs: [(&str, &[&str]); 12] = [
        ("exec", &["exec", "box", "true"]),
        ("pause", &["pause", "box"]),
        ("unpause", &["unpause", "box"]),
        ("update", &["update", "--pids-limit", "100", "box"]),
        ("cp", &["cp", file, "box:/x"]),
        ("commit", &["commit", "box", "localhost/box:1"]),
        ("export", &["export", "-o", archive, "box"]),
        ("kill", &["kill", "-s", "URG", "box"]),
        ("restart", &["restart", "-t", "0", "box"]),
        ("rename", &["rename", "box", "other"]),
        ("stop", &["stop", "-t", "0", "other"]),
        ("rm", &["rm", "other"]),
    ];
    for (operation, words) in verbs {
        case.rlrun(words).leaving_processes().run().ok();
        let line = last(&case, operation);
        assert_eq!((&line["outcome"], &line["argv"][1]), (&json!("done"), &json!(operation)), "{line}");
        assert_eq!(line["who"]["uid"], json!(case.user().uid.as_raw()), "{line}");
        let has_image =
            line["image"]["digest"].is_string() || line["events"][0]["attributes"]["imageDigest"].is_string();
        assert!(has_image || ["cp", "export", "rename", "rm", "update"].contains(&operation), "{line}");
        let decided = ["exec", "restart"].contains(&operation);
        assert!(!decided || (line["security"].is_object() && line["verdicts"].is_array()), "{line}");
    }
    case.run(["audit", "verify"]).ok();
}
