//! `ps`, `inspect`, `logs` and `port`: what there is, as it is.

use rlrun_tests::{BASE, case, eventually};
use serde_json::{Value, json};

#[test]
fn a_container_is_listed_as_what_it_is() {
    let case = case!(Userns).keeping_containers();
    let id = case.detached(&["--name", "up", "--label", "app=web", "-v", "data:/mnt"], ["sleep", "1000"]);
    case.run(["run", "--name", "over", "--network", "none", BASE, "sh", "-c", "exit 3"]).code(3);
    let fields = |args: &[&str]| {
        let words = ["ps", "--format", "{{.Names}} {{.State}} {{.ExitCode}}"];
        case.run(words.iter().chain(args).copied()).ok().out()
    };
    assert_eq!(fields(&[]), "up running 0\n");
    assert_eq!(fields(&["-a"]), "up running 0\nover exited 3\n");
    assert_eq!(fields(&["-l"]), "over exited 3\n");
    assert_eq!(fields(&["-a", "--sort", "names"]), "over exited 3\nup running 0\n");
    for filter in ["name=up", "label=app=web", "status=running", "volume=data", "ancestor=base"] {
        assert!(fields(&["--filter", filter]).starts_with("up "), "{filter}");
    }
    for filter in ["exited=3", "status=exited", "since=up"] {
        assert_eq!(fields(&["-a", "--filter", filter]), "over exited 3\n", "{filter}");
    }
    case.run(["ps", "-q"]).ok().prints(&id[..12]);
    case.run(["ps", "-q", "--no-trunc"]).ok().prints(&id);
    let table = case.run(["ps"]).ok().out();
    let heading = ["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"];
    assert_eq!(
        table.lines().next().unwrap().split("  ").filter(|w| !w.is_empty()).map(str::trim).collect::<Vec<_>>(),
        heading
    );
    assert!(table.lines().nth(1).unwrap().contains(" Up "), "{table}");
    case.run(["ps", "--filter", "colour=red"]).refused(125, "no such filter");
    // Killed with its supervisor: no list says that it still runs.
    for supervisor in case.supervisors() {
        nix::sys::signal::kill(supervisor, nix::sys::signal::Signal::SIGKILL).unwrap();
    }
    eventually("the container is gone", || fields(&[]).is_empty());
    assert!(fields(&["-a"]).contains("up exited 137"));
}

#[test]
fn filters_and_fields_of_ps_are_podmans() {
    let case = case!(Userns).keeping_containers();
    let create = |options: &[&str]| case.rlrun(["create"]).args(options).args([BASE, "sleep", "7"]).run().ok().out();
    let file = case.make_dir("ids").join("id");
    let id = create(&["--name", "web", "-l", "a=b", "--annotation", "x=y", "--cidfile", file.to_str().unwrap()]);
    create(&["--name", "web2", "--expose", "90", "-p", "127.0.0.1::80", "--restart", "always"]);
    create(&["--name", "other", "--health-cmd", "true"]);
    let names = |filter: &str| case.run(["ps", "-a", "--filter", filter, "--format", "{{.Names}}"]).ok().out();
    for (filter, fits) in [
        ("name=^web$", "web"),
        ("name=eb", "web web2"),
        ("id=^$ID", "web"),
        ("pod=any", ""),
        ("annotation=x", "web"),
        ("annotation=x=z", ""),
        ("label!=a", "web2 other"),
        ("command=sleep", "web web2 other"),
        ("restart-policy=always", "web2"),
        ("health=none", "web web2 other"),
        ("status=created", "web web2 other"),
        ("should-start-on-boot=true", "web2"),
        ("network=slirp4netns", "web web2 other"),
        ("before=web2", "web"),
        ("since=web2", "other"),
        ("until=1h", ""),
    ] {
        let found = names(&filter.replace("$ID", &id[..10]));
        assert_eq!(found.split_whitespace().collect::<Vec<_>>().join(" "), fits, "{filter}");
    }
    for bad in ["status=broken", "health=well", "exited=x", "name=(", "should-start-on-boot=x", "until=x"] {
        case.run(["ps", "--filter", bad]).refused(125, "--filter");
    }
    let field = |name: &str, template: &str| {
        let filter = format!("name=^{name}$");
        case.run(["ps", "-a", "--filter", &filter, "--format", template]).ok().out().trim_end().to_owned()
    };
    assert_eq!(field("web", "{{.Label \"a\"}}|{{.Label \"none\"}}|"), "b||");
    assert_eq!(
        field("web", "table {{.Names}}\t{{.Label \"a\"}}").split_whitespace().collect::<Vec<_>>(),
        ["NAMES", "A", "web", "b"]
    );
    assert_eq!(field("web", "{{.CIDFile}}"), file.to_str().unwrap());
    assert_eq!(field("web2", "{{json .ExposedPorts}}"), r#"{"80":["tcp"],"90":["tcp"]}"#);
    assert_eq!(field("web", "{{.Created}}"), field("web", "{{.CreatedAt}}"));
    let all = "{{.AutoRemove}} {{.Exited}} {{.ExitedAt}} {{.IsInfra}} {{.Pid}} {{.Pod}} {{.PodName}} {{.Restarts}} \
               {{.RunningFor}} {{.Size}} {{.StartedAt}} {{.ImageID}} {{.Mounts}} {{.Networks}} {{.Ports}} {{.State}}";
    assert!(field("web2", all).starts_with("false false 0 false 0 "), "{}", field("web2", all));
    let list: Value = serde_json::from_str(&case.run(["ps", "-a", "--format", "json"]).ok().out()).unwrap();
    let port = list.as_array().unwrap().iter().find_map(|c| c["Ports"].get(0)).unwrap();
    assert_eq!((&port["range"], &port["container_port"], &port["protocol"]), (&json!(1), &json!(80), &json!("tcp")));
}

#[test]
fn inspect_has_podmans_shape() {
    let case = case!(Userns).keeping_containers();
    case.run([
        "run",
        "--name",
        "one",
        "--network",
        "none",
        "-e",
        "A=b",
        "-v",
        "data:/mnt:ro",
        BASE,
        "sh",
        "-c",
        "exit 4",
    ])
    .code(4);
    case.run(["inspect", "-f", "{{.State.Status}} {{.State.ExitCode}} {{.Name}}", "one"]).ok().prints("exited 4 one");
    let all: Value = serde_json::from_str(&case.run(["inspect", "one", "data", BASE]).ok().out()).unwrap();
    let mount = &all[0]["Mounts"][0];
    assert_eq!((&mount["Type"], &mount["Name"], &mount["RW"]), (&json!("volume"), &json!("data"), &json!(false)));
    assert!(all[0]["Config"]["Env"].as_array().unwrap().contains(&json!("A=b")));
    assert_eq!((&all[1]["Name"], &all[2]["RepoTags"][0]), (&json!("data"), &json!(BASE)));
    case.run(["inspect", "--type", "image", "one"]).code(125);
    case.run(["inspect", "nothing"]).code(125).complains("no such container, image or volume").prints("[]");
    case.run(["container", "inspect", BASE]).code(125).complains("no such container").prints("[]");
    case.run(["volume", "inspect", "nothing"]).code(125).complains("no such volume").prints("[]");
    case.run(["secret", "inspect", "nothing"]).code(125).complains("no such secret").prints("[]");
    case.run(["volume", "inspect", "-f", "{{.Name}} {{.UID}}", "nothing", "data"]).code(125).prints("data 0");
    // What podman's JSON leaves out, its templates know.
    case.run([
        "inspect",
        "-f",
        "{{.State.Healthcheck.Status}}{{.State.Restored}} {{len .NetworkSettings.Networks}}",
        "one",
    ])
    .ok()
    .prints("false 0");
    case.run(["inspect", "-f", "{{range .HostConfig.IDMappings.UIDMap}}{{.}};{{end}}", "one"]).ok().says("0:");
    case.run(["ps", "-a", "--format", "{{.IPC}}|{{.Namespaces.MNT}}|{{.User}}"]).ok().prints("||");
    case.run(["stats", "--no-stream", "-a", "--format", "{{.ContainerStats.Name}} {{.ContainerStats.MemUsage}}"])
        .ok()
        .prints("one 0");
    case.run(["port", "one"]).ok().prints("");
    case.run(["container", "exists", "one"]).ok();
    case.run(["container", "exists", "nothing"]).code(1);
    case.run(["container", "ls", "-a", "--format", "{{.Names}}"]).ok().prints("one");
}

#[test]
fn logs_tell_what_was_written_and_go_on() {
    let case = case!(Userns).keeping_containers();
    let script = "echo one; echo two >&2; printf three; read line; echo; echo $line; echo four";
    let id = case.detached(&["-i", "--name", "talk"], ["sh", "-c", &format!("{script}; sleep 1000")]);
    eventually("it has said three", || case.run(["logs", "talk"]).ok().out().contains("three"));
    let out = case.run(["logs", "talk"]);
    out.ok();
    assert_eq!((out.out().as_str(), out.err().as_str()), ("one\nthree", "two\n"));
    case.run(["logs", "--tail", "0", &id]).ok().prints("");
    let timed = case.run(["logs", "-t", "talk"]).ok().out();
    assert!(timed.lines().next().unwrap().ends_with(" one") && timed.starts_with("20"), "{timed}");
    case.run(["logs", "--since", "10m", "talk"]).ok().says("one");
    case.run(["logs", "--until", "10m", "talk"]).ok().prints("");
    case.run(["logs", "-n", "talk"]).ok().says("talk one");
    case.run(["logs", "nobody"]).refused(125, "no such container");
    // It follows to the container's end, and then ends by itself.
    let over = case.detached(&["--name", "short"], ["sh", "-c", "for n in 1 2 3; do echo line $n; done"]);
    case.run(["logs", "-f", &over]).ok().prints("line 1\nline 2\nline 3");
    case.run(["logs", "--tail", "2", &over]).ok().prints("line 2\nline 3");
    for supervisor in case.supervisors() {
        nix::sys::signal::kill(supervisor, nix::sys::signal::Signal::SIGKILL).unwrap();
    }
}
