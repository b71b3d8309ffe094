//! Ending containers: stop and kill, by name, several, all; and that nothing inside can ask for it.

use nix::sys::signal::{Signal, kill};
use rlrun_tests::{Case, case, eventually};

/// A field of `inspect`.
fn field(case: &Case, name: &str, template: &str) -> String {
    case.run(["inspect", "-f", template, name]).ok().out().trim_end().to_owned()
}

fn status(case: &Case, name: &str) -> String {
    field(case, name, "{{.State.Status}} {{.State.ExitCode}}")
}

/// A detached container that has said `ready`.
fn ready(case: &Case, options: &[&str], payload: &str) -> String {
    let id = case.detached(options, ["probe", payload]);
    eventually("it is ready", || case.run(["logs", &id]).ok().out().contains("ready"));
    id
}

#[test]
fn stop_is_gentle_first_and_then_not() {
    let case = case!(Userns).keeping_containers();
    ready(&case, &["--name", "kind"], "trap");
    ready(&case, &["--name", "deaf"], "ignore-signals");
    case.run(["stop", "kind"]).ok().prints("kind");
    assert_eq!(status(&case, "kind"), "exited 0");
    case.run(["logs", "kind"]).ok().says("got 15");
    // Both words mean the same container, which is stopped once; it needs SIGKILL.
    case.run(["stop", "-t", "0", "deaf", "deaf"]).ok().prints("deaf");
    assert_eq!(status(&case, "deaf"), "exited 137");
    assert!(case.supervisors().is_empty());
    case.run(["stop", "deaf"]).ok().prints("deaf");
    case.run(["stop", "nobody"]).refused(125, "no such container");
    case.run(["stop", "--ignore", "nobody"]).ok().prints("");
    case.run(["stop"]).refused(125, "names no container");
    let events = case.run(["events", "--stream=false", "--filter", "event=stop", "--format", "{{.Name}}"]);
    events.ok().prints("kind\ndeaf");
}

#[test]
fn all_are_stopped_at_once_and_removed_if_they_are_to_be() {
    let case = case!(Userns);
    let ids: Vec<String> = (0..4).map(|_| ready(&case, &["--rm"], "trap")).collect();
    let out = case.run(["stop", "--all"]);
    assert_eq!(out.ok().out().lines().collect::<Vec<_>>(), ids);
    case.run(["ps", "-a", "-q"]).ok().prints("");
}

#[test]
fn kill_sends_any_signal() {
    let case = case!(Userns).keeping_containers();
    ready(&case, &["--name", "web", "--label", "tier=a"], "trap");
    case.run(["kill", "-s", "USR1", "web"]).ok().prints("web");
    eventually("the signal comes", || case.run(["logs", "web"]).ok().out().contains("got 10"));
    eventually("it ends", || status(&case, "web") == "exited 0");
    case.run(["kill", "web"]).refused(125, "it is exited");
    case.run(["kill", "-s", "NONSENSE", "web"]).refused(125, "no such signal");
    let id = ready(&case, &["--label", "tier=b"], "wait");
    case.run(["kill", "--filter", "label=tier=b"]).ok().prints(&id);
    eventually("it is killed", || status(&case, &id) == "exited 137");
}

#[test]
fn a_file_names_the_container() {
    let case = case!(Userns).keeping_containers();
    let file = case.runtime().join("cid");
    let file = file.to_str().unwrap();
    ready(&case, &["--name", "web", "--cidfile", file], "trap");
    let id = field(&case, "web", "{{.Id}}");
    case.run(["stop", "--cidfile", file]).ok().prints(&id);
    std::fs::remove_file(file).unwrap();
    case.run(["stop", "--cidfile", file]).refused(125, "cid");
    case.run(["stop", "--ignore", "--cidfile", file]).ok().prints("");
}

#[test]
fn a_foreground_container_can_be_stopped_too() {
    let case = case!(Userns);
    let container = case.spawn_base(&["--name", "here"], ["probe", "trap"]);
    case.run(["stop", "here"]).ok();
    container.finish().ok().says("got 15");
}

#[test]
fn a_killed_supervisor_needs_no_stop() {
    let case = case!(Userns).keeping_containers();
    ready(&case, &["--name", "web"], "wait");
    kill(case.supervisors()[0], Signal::SIGKILL).unwrap();
    eventually("it is gone", || case.supervisors().is_empty());
    case.run(["stop", "web"]).ok().prints("web");
    assert_eq!(status(&case, "web"), "exited 137");
    assert!(case.data().join("containers").read_dir().unwrap().next().is_some());
}

#[test]
fn nothing_inside_can_ask_the_supervisor() {
    let case = case!(Userns).keeping_containers();
    // The worst case: the user mounts all of rlrun's data into a container, whose root is the user on the host.
    let data = case.data();
    let volume = format!("{}:/data", data.display());
    let options = ["-v", &volume, "--policy-baseline=off"];
    let id = case.detached(&options, ["probe", "wait"]);
    let socket = format!("/data/containers/{id}/control");
    case.run_base(&options, ["probe", "ask-control", &socket]).ok().prints("refused");
    assert_eq!(status(&case, &id), "running 0");
}
