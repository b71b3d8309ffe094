//! `plan`, `doctor`, `policy ls` and the rest of what rlrun says about itself and the host.

use rlrun_tests::{BASE, case};
use serde_json::Value;

#[test]
fn plan_prints_what_would_run_and_runs_nothing() {
    let case = case!(Userns);
    let out = case.run([
        "plan",
        "--network",
        "none",
        "--hostname",
        "planned",
        "--cap-drop",
        "CHOWN",
        BASE,
        "sh",
        "-c",
        "touch /ran",
    ]);
    let plan: Value = serde_json::from_str(&out.ok().out()).unwrap();
    let text = plan.to_string();
    for word in ["planned", "touch /ran", "seccomp", "enforced", "requested"] {
        assert!(text.contains(word), "{word} is missing in {text}");
    }
    assert!(!text.contains("CAP_CHOWN"), "{text}");
    case.assert_nothing_left();
}

#[test]
fn plan_shows_every_control_with_its_mechanism() {
    let case = case!(Userns);
    let plan: Value = serde_json::from_str(&case.run(["plan", "--network", "none", BASE, "true"]).ok().out()).unwrap();
    let controls = plan["controls"].as_array().expect("the plan lists controls");
    for name in ["no-new-privileges", "seccomp", "capabilities"] {
        let control = controls.iter().find(|control| control["name"] == name);
        let control = control.unwrap_or_else(|| panic!("no control {name}: {controls:?}"));
        assert_eq!(control["enforced"], "yes", "{control}");
    }
}

#[test]
fn plan_is_refused_where_run_is() {
    let case = case!(Userns);
    case.run(["plan", "--privileged", BASE, "true"]).refused(125, "baseline");
}

#[test]
fn doctor_finds_nothing_to_mend_on_a_provisioned_host() {
    let case = case!(Userns, Subid, Overlay, Fuse, Slirp);
    let out = case.run(["doctor"]);
    let text = out.ok().out();
    for word in ["newuidmap", "fuse-overlayfs", "slirp4netns", "/dev/net/tun", "overlay", "cgroup"] {
        assert!(text.to_lowercase().contains(word), "{word} is missing in {text}");
    }
}

#[test]
fn doctor_and_a_failure_give_the_same_advice() {
    let case = case!(Userns, Slirp, Root);
    let prepare = "touch /run/rlrun-not-a-program; mount --bind /run/rlrun-not-a-program /usr/bin/slirp4netns";
    let failure = case.on_changed_host(prepare, &["run", "--rm", BASE, "true"]).run();
    let failure = failure.refused(125, "slirp4netns").err();
    let hint = failure.lines().find_map(|line| line.strip_prefix("hint: ")).unwrap();
    let doctor = case.on_changed_host(prepare, &["doctor"]).run().out();
    // A run may also do without; the command that mends it is the same.
    let command = hint.split(';').next().unwrap();
    assert!(doctor.contains(command), "doctor does not say {command:?}: {doctor}");
}

#[test]
fn policies_are_listed_with_their_tier() {
    let case = case!(Userns);
    case.run(["policy", "ls"]).ok().says("baseline").says("builtin");
}

#[test]
fn version_and_help_are_there() {
    let case = case!();
    case.run(["--version"]).ok().says("rlrun ");
    case.run(["--help"]).ok().says("run").says("plan").says("doctor").says("policy");
    case.run(["run", "--help"]).ok().says("--network");
}

#[test]
fn trace_tells_where_the_time_went_and_only_on_standard_error() {
    let case = case!(Userns);
    let out = case.rlrun(["run", "--trace", "--rm", "--network", "none", BASE, "echo", "x"]).run();
    out.ok().prints("x").complains("policy").complains("ms");
}
