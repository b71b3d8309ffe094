//! Resource limits where no cgroup can be had: what the kernel and the mapper really do to a payload, and what `plan`
//! says about it.

use nix::sys::signal::Signal;
use rlrun_tests::{BASE, case};
use serde_json::Value;

fn control(plan: &Value, name: &str) -> Value {
    let all = plan["controls"].as_array().expect("the plan lists controls");
    all.iter().find(|control| control["name"] == name).unwrap_or_else(|| panic!("no control {name}: {all:?}")).clone()
}

#[test]
fn the_number_of_processes_is_limited_for_the_whole_container() {
    let case = case!(Userns);
    // The probe itself is one of them.
    case.run_base(&["--pids-limit", "20"], ["probe", "forks", "100"]).ok().prints("19 EAGAIN");
    case.run_base(&["--pids-limit", "20"], ["probe", "threads", "100"]).ok().prints("19 EAGAIN");
    case.run_base(&["--pids-limit", "20", "--init"], ["probe", "forks", "100"]).ok().prints("18 EAGAIN");
}

#[test]
fn another_user_id_does_not_get_a_limit_of_its_own() {
    let case = case!(Userns, Subid);
    case.run_base(&["--pids-limit", "20"], ["probe", "forks-as", "100", "1000"]).ok().prints("19 EAGAIN");
    case.run_base(&["--pids-limit", "20", "-u", "1000"], ["probe", "forks", "100"]).ok().prints("19 EAGAIN");
}

#[test]
fn containers_count_for_themselves() {
    let case = case!(Userns).keeping_containers();
    let first = case.base(&["--pids-limit", "20"], ["probe", "forks-wait", "100"]).spawn();
    first.wait_for("ready");
    case.run_base(&["--pids-limit", "20"], ["probe", "forks", "100"]).ok().prints("19 EAGAIN");
    first.signal(Signal::SIGKILL);
    first.finish();
}

#[test]
fn there_is_a_limit_on_processes_by_default_and_it_can_be_lifted() {
    let case = case!(Userns);
    case.run_base(&[], ["probe", "forks", "2100"]).ok().prints("2047 EAGAIN");
    case.run_base(&["--pids-limit", "-1"], ["probe", "forks", "2100"]).ok().prints("2100 ok");
}

#[test]
fn a_container_with_a_limit_on_processes_still_serves_low_ports() {
    let case = case!(Userns).keeping_containers();
    let server = case.spawn_base(&[], ["probe", "serve-udp", "80"]);
    server.signal(Signal::SIGKILL);
    server.finish();
}

#[test]
fn plan_tells_the_mechanism_of_each_limit() {
    let case = case!(Userns);
    let plan = |options: &[&str]| -> Value {
        let out = case.rlrun(["plan", "--network", "none"]).args(options).args([BASE, "true"]).run();
        serde_json::from_str(&out.ok().out()).unwrap()
    };
    let pids = control(&plan(&[]), "pids-limit");
    assert_eq!((&pids["requested"], &pids["enforced"]), (&"2048".into(), &"yes".into()), "{pids}");
    let pids = control(&plan(&["--cap-add", "NET_RAW", "--pids-limit", "7"]), "pids-limit");
    assert_eq!((&pids["requested"], &pids["enforced"]), (&"7".into(), &"partly".into()), "{pids}");
    assert!(pids["why"].as_str().unwrap().contains("capability"), "{pids}");
}

#[test]
fn what_holds_only_in_part_is_no_start_where_limits_are_required() {
    let case = case!(Userns);
    case.run_base(&["--limits=require", "--pids-limit", "9"], ["true"]).ok();
    let options = ["--limits=require", "--pids-limit", "9", "--cap-add", "NET_RAW"];
    case.run_base(&options, ["true"]).refused(125, "--pids-limit").complains("hint:");
}

#[test]
fn weight_and_affinity_reach_the_payload() {
    let case = case!(Userns);
    // Field 19 is nice; the tests themselves may be.
    let nice = |options: &[&str]| -> i32 {
        case.run_base(options, ["sh", "-c", "cut -d' ' -f19 /proc/self/stat"]).ok().out().trim().parse().unwrap()
    };
    assert_eq!(nice(&["--cpu-shares", "512"]), nice(&[]) + 3);
    // Field 41 is the policy: 5 is SCHED_IDLE (proc_pid_stat(5)).
    case.run_base(&["-c", "2"], ["sh", "-c", "cut -d' ' -f41 /proc/self/stat"]).ok().prints("5");
    let allowed = "grep Cpus_allowed_list /proc/self/status | cut -f2";
    case.run_base(&["--cpuset-cpus", "0"], ["sh", "-c", allowed]).ok().prints("0");
    case.run_base(&["--oom-score-adj", "500"], ["cat", "/proc/self/oom_score_adj"]).ok().prints("500");
}

#[test]
fn bad_limits_are_refused_before_the_start() {
    let case = case!(Userns);
    for (options, word) in [
        (&["--cpus", "nan"][..], "--cpus"),
        (&["--cpus", "4096"], "CPUs"),
        (&["--cpus", "0.001"], "0.01"),
        (&["--cpus", "1", "--cpu-quota", "5000"], "--cpu-quota"),
        (&["--cpu-period", "1"], "--cpu-period"),
        (&["--cpuset-cpus", "4000"], "4000"),
        (&["--cpuset-cpus", "1-0"], "--cpuset-cpus"),
        (&["--cpu-shares", "1"], "--cpu-shares"),
        (&["--memory", "9e"], "--memory"),
        (&["--memory", "900t"], "machine"),
        (&["--memory", "1k"], "1m"),
        (&["--memory-swap", "64m"], "--memory-swap"),
        (&["--memory", "64m", "--memory-swap", "32m"], "--memory-swap"),
        (&["--memory", "64m", "--memory-reservation", "65m"], "--memory-reservation"),
        (&["--oom-kill-disable"], "--memory"),
        (&["--oom-score-adj", "1001"], "--oom-score-adj"),
        (&["--pids-limit", "1", "--init"], "--init"),
        (&["--blkio-weight", "5"], "--blkio-weight"),
        (&["--device-read-bps", "sda:1"], "--device-read-bps"),
    ] {
        case.run_base(options, ["true"]).refused(125, word);
    }
}

/// Seconds of processor time that the finished children of this test used, the container's whole tree among them.
fn children_seconds() -> f64 {
    use nix::sys::resource::{UsageWho, getrusage};
    use nix::sys::time::TimeValLike;
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap();
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    f64::from(u32::try_from(micros / 1000).unwrap()) / 1000.0
}

#[test]
fn processor_time_is_limited_without_a_cgroup() {
    let case = case!(Userns);
    for (kind, count) in [("one", "1"), ("eight", "8"), ("storm", "4")] {
        let before = children_seconds();
        case.run_base(
            &["--cpus", "0.2", "--limits=require"],
            ["probe", if kind == "storm" { "storm" } else { "burn" }, count, "5"],
        )
        .ok();
        let used = children_seconds() - before;
        // One second is allowed; a machine that others use may give less, and the start of rlrun itself counts too.
        assert!((0.2..=1.35).contains(&used), "{kind}: {used} s in five seconds at a fifth of a CPU");
    }
}

#[test]
fn job_control_does_not_see_the_throttle() {
    let case = case!(Userns);
    // A parent that reports every stop and every end of a child in a process group of its own, as a shell waits.
    let out = case.run_base(&["--cpus", "0.2"], ["probe", "watch", "3"]);
    out.ok().prints("stopped 0");
}

#[test]
fn a_payload_that_stopped_itself_stays_stopped() {
    let case = case!(Userns);
    case.run_base(&["--cpus", "0.2"], ["probe", "stays-stopped", "2"]).ok().prints("state T");
}
