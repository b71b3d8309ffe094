//! Health checks: made by the supervisor in the container, told by `ps`, `inspect` and `events`.

use rlrun_tests::{Case, Image, base_rootfs, case, eventually};
use serde_json::{Value, json};

fn health(case: &Case) -> Value {
    let out = case.run(["inspect", "box", "-f", "{{json .State.Health}}"]).ok().out();
    serde_json::from_str(&out).unwrap()
}

fn status(case: &Case, wanted: &str) {
    eventually(&format!("it is {wanted}"), || health(case)["Status"] == wanted);
}

const QUICK: [&str; 6] = ["--rm", "--name", "box", "--health-interval", "50ms", "--health-retries=2"];

#[test]
fn a_container_becomes_healthy_and_unhealthy_and_healthy_again() {
    let case = case!(Userns).keeping_containers();
    let check = "test -f /tmp/well && echo fine || { echo 'not well' >&2; exit 3; }";
    case.detached(&[&QUICK[..], &["--health-cmd", check]].concat(), ["probe", "wait"]);
    status(&case, "unhealthy");
    let seen = health(&case);
    let last = &seen["Log"].as_array().unwrap().last().unwrap();
    assert_eq!((&last["ExitCode"], &last["Output"]), (&json!(3), &json!("not well\n")));
    assert!(seen["FailingStreak"].as_u64().unwrap() >= 2, "{seen}");
    assert!(case.run(["ps"]).ok().out().contains("(unhealthy)"));
    assert!(case.run(["ps", "-q", "--filter", "health=healthy"]).ok().out().is_empty());
    case.run(["exec", "box", "touch", "/tmp/well"]).ok();
    status(&case, "healthy");
    assert_eq!(health(&case)["FailingStreak"], 0);
    case.run(["ps", "--filter", "health=healthy", "--format", "{{.Status}}"]).ok().says("(healthy)");
    let events = ["events", "--since", "10m", "--stream=false", "--filter", "event=health_status", "--format", "json"];
    let told = case.run(events).ok().out();
    assert!(told.contains("unhealthy") && told.lines().last().unwrap().contains("\"healthy\""), "{told}");
}

#[test]
fn a_script_can_wait_for_it() {
    let case = case!(Userns).keeping_containers();
    case.detached(&[&QUICK[..], &["--health-cmd", "test -f /tmp/well"]].concat(), ["probe", "wait"]);
    let wait = |condition: &str| case.rlrun(["wait", "--condition", condition, "box"]);
    wait("unhealthy").run().ok().prints("-1");
    // An hour between two looks: the supervisor tells.
    let waiting = wait("healthy").args(["--interval", "60m"]).spawn();
    case.run(["exec", "box", "touch", "/tmp/well"]).ok();
    waiting.finish().ok().prints("-1");
    assert_eq!(health(&case)["Status"], "healthy");
}

#[test]
fn a_check_is_confined_as_the_container_is_and_leaves_nothing() {
    let case = case!(Userns).keeping_containers();
    let show = "grep -E '^(CapEff|NoNewPrivs|Seccomp:)' /proc/self/status; ls -l /proc/self/fd";
    case.detached(&[&QUICK[..], &["--health-cmd", show]].concat(), ["probe", "wait"]);
    status(&case, "healthy");
    let output = health(&case)["Log"][0]["Output"].as_str().unwrap().to_owned();
    assert!(output.contains("NoNewPrivs:\t1") && output.contains("Seccomp:\t2"), "{output}");
    assert!(!output.contains("socket:") && !output.contains(case.data().to_str().unwrap()), "{output}");
    eventually("only the container's own process is there between two checks", || {
        case.run(["top", "box", "pid"]).ok().out().lines().count() == 2
    });
}

#[test]
fn a_check_that_takes_too_long_has_failed_and_is_killed() {
    let case = case!(Userns).keeping_containers();
    let options = ["--health-timeout", "100ms", "--health-cmd", "echo begun; sleep 1000"];
    case.detached(&[&QUICK[..], &options].concat(), ["probe", "wait"]);
    status(&case, "unhealthy");
    let last = health(&case)["Log"][0].clone();
    assert_eq!(last["ExitCode"], json!(-1));
    assert!(last["Output"].as_str().unwrap().contains("exceeded timeout"), "{last}");
    eventually("no sleeper piles up", || {
        case.run(["top", "box", "args"]).ok().out().matches("sleep 1000").count() <= 2
    });
}

#[test]
fn an_unhealthy_container_is_killed_where_that_is_wanted() {
    let case = case!(Userns).keeping_containers();
    let options = ["--name", "box", "--health-interval", "50ms", "--health-retries", "1", "--health-cmd", "false"];
    let id = case.detached(&[&options[..], &["--health-on-failure", "kill"]].concat(), ["probe", "wait"]);
    let state = case.data().join("containers").join(id).join("state");
    eventually("it is killed", || std::fs::read_to_string(&state).unwrap().contains("exit-code 137"));
}

#[test]
fn an_unhealthy_container_starts_anew_or_is_stopped_where_that_is_wanted() {
    let case = case!(Userns).keeping_containers();
    let options = |name, action| {
        [
            "--name",
            name,
            "--health-interval",
            "50ms",
            "--health-retries",
            "1",
            "--health-cmd",
            "test -f /tmp/x",
            "--health-on-failure",
            action,
        ]
    };
    case.detached(&options("again", "restart"), ["sh", "-c", "trap exit TERM; while :; do sleep 0.1; done"]);
    let count = || case.run(["inspect", "again", "-f", "{{.RestartCount}}"]).ok().out().trim().parse::<u32>().unwrap();
    eventually("it is started again and again", || count() >= 2);
    let id = case.detached(&options("ended", "stop"), ["probe", "trap"]);
    let state = case.data().join("containers").join(id).join("state");
    eventually("it is stopped", || std::fs::read_to_string(&state).unwrap().contains("exit-code 0"));
}

#[test]
fn a_check_can_be_asked_for() {
    let case = case!(Userns).keeping_containers();
    let options = ["--rm", "--name", "box", "--health-interval", "disable", "--health-cmd", "test -f /tmp/well"];
    case.detached(&options, ["probe", "wait"]);
    case.run(["healthcheck", "run", "box"]).code(1).prints("unhealthy");
    case.run(["exec", "box", "touch", "/tmp/well"]).ok();
    case.run(["healthcheck", "run", "box"]).ok().prints("");
    assert_eq!(health(&case)["Log"].as_array().unwrap().len(), 2);
    case.detached(&["--rm", "--name", "plain"], ["probe", "wait"]);
    case.run(["healthcheck", "run", "plain"]).refused(125, "no health check");
    case.run(["healthcheck", "run", "nothing"]).refused(125, "no such container");
}

#[test]
fn an_image_says_how_and_the_user_overrules_it() {
    let case = case!(Userns).keeping_containers();
    let check = json!({"Test": ["CMD-SHELL", "echo of the image"], "Interval": 50_000_000, "Retries": 7});
    case.load(&Image::new("localhost/checked:1", base_rootfs().clone()).with("Healthcheck", check));
    let run = |options: &[&str]| {
        let words =
            [&["run", "-d", "--network", "none", "--name", "box"], options, &["localhost/checked:1", "probe", "wait"]];
        case.rlrun(words.concat()).leaving_processes().run().ok().out().trim_end().to_owned()
    };
    run(&[]);
    status(&case, "healthy");
    assert_eq!(health(&case)["Log"][0]["Output"], "of the image\n");
    case.run(["inspect", "box", "-f", "{{.Config.Healthcheck.Retries}}"]).ok().prints("7");
    let without = case.rlrun(["run", "-d", "--rm", "--network", "none", "--name", "plain", "--no-healthcheck"]);
    without.args(["localhost/checked:1", "probe", "wait"]).leaving_processes().run().ok();
    let none = case.run(["inspect", "plain", "-f", "{{.State.Health.Status}}|{{.State.Health.FailingStreak}}"]);
    none.ok().prints("|0");
    case.run(["ps", "-a", "--filter", "health=none", "--format", "{{.Names}}"]).ok().prints("plain");
}

#[test]
fn policies_are_asked_about_the_check_before_the_start() {
    let case = case!(Userns);
    let built = std::env::var("RLRUN_HOSTILE_POLICY").expect("make test says where the hostile policy is");
    case.make_dir("policies");
    let policy = case.make_file("policies/hostile.wasm", std::fs::read(built).unwrap());
    case.make_file("policies/hostile.toml", "how = \"allow\"\n");
    let options = ["--policy", policy.to_str().unwrap(), "--health-cmd", "[\"forbidden\", \"check\"]"];
    case.run_base(&options, ["true"]).refused(125, "forbidden check as 0");
}

#[test]
fn bad_words_are_refused() {
    let case = case!(Userns);
    for (options, told) in [
        (&["--health-cmd", "["][..], "--health-cmd"),
        (&["--health-cmd", "x", "--health-interval", "soon"], "--health-interval"),
        (&["--health-cmd", "x", "--health-timeout", "0s"], "--health-timeout"),
        (&["--health-cmd", "x", "--health-on-failure", "cry"], "--health-on-failure"),
        (&["--health-on-failure", "kill"], "no health check"),
    ] {
        case.run_base(options, ["true"]).refused(125, told);
    }
}
