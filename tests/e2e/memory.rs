//! Memory without a cgroup: whatever way a payload takes, it does not get far beyond its limit, and what shares memory
//! or stays below is left alone.

use nix::sys::signal::Signal;
use rlrun_tests::{BASE, Case, case, until};
use serde_json::Value;

/// What is tested here is what holds without a cgroup, wherever it is tested.
const WITHOUT: &str = "--cgroups=disabled";

fn inspect(case: &Case, name: &str) -> Value {
    let out = case.run(["inspect", name]);
    let mut all: Vec<Value> = serde_json::from_str(&out.ok().out()).unwrap();
    all.remove(0)
}

/// Runs `eat` in a container that stays, and returns how it ended.
fn eat(case: &Case, name: &str, options: &[&str], words: &[&str]) -> (i64, Value) {
    let run = case.rlrun(["run", "--network", "none", WITHOUT, "--name", name]).args(options);
    run.args([BASE, "eat"]).args(words).within(60).run();
    let state = inspect(case, name)["State"].clone();
    (state["ExitCode"].as_i64().unwrap(), state)
}

#[test]
fn no_way_to_use_memory_leads_far_beyond_the_limit() {
    let case = case!(Userns).keeping_containers();
    let ways: &[(&str, &[&str], &[&str])] = &[
        ("anon", &[], &["anon", "1", "400"]),
        ("shared", &[], &["shared", "1", "400"]),
        ("memfd", &[], &["memfd", "1", "400"]),
        ("sysv", &[], &["sysv", "1", "400"]),
        ("tmpfs", &["--tmpfs", "/t:size=400m"], &["file", "1", "400", "/t/x"]),
        ("shm", &["--shm-size", "400m"], &["file", "1", "400", "/dev/shm/x"]),
    ];
    for (name, options, words) in ways {
        let options = [&["-m", "64m"], *options].concat();
        let (code, state) = eat(&case, name, &options, words);
        assert_eq!((code, &state["OOMKilled"]), (137, &true.into()), "{name}: {state}");
        assert!(state["Error"].as_str().unwrap().starts_with("memory: "), "{name}: {state}");
    }
}

#[test]
fn many_processes_count_together() {
    let case = case!(Userns).keeping_containers();
    let many = case.base(&[WITHOUT, "-m", "96m", "--init"], ["eat", "anon", "12", "24"]).spawn();
    let killed = until(20, || many.stderr_so_far().contains("was killed").then_some(()));
    assert!(killed.is_some(), "{}", many.stderr_so_far());
    many.signal(Signal::SIGKILL);
    let out = many.finish();
    assert!(!out.out().contains("full"), "{}", out.out());
}

#[test]
fn what_is_shared_counts_once() {
    let case = case!(Userns).keeping_containers();
    let shared = case.base(&[WITHOUT, "-m", "96m"], ["eat", "sharing", "20", "40"]).spawn();
    shared.wait_for("full");
    shared.signal(Signal::SIGKILL);
    let out = shared.finish();
    assert!(!out.err().contains("memory:"), "{}", out.err());
}

#[test]
fn a_file_system_in_memory_is_as_large_as_the_limit() {
    let case = case!(Userns);
    let out =
        case.run_base(&[WITHOUT, "-m", "64m", "--tmpfs", "/t"], ["sh", "-c", "df -k /t | tail -1 | awk '{print $2}'"]);
    out.ok().prints("65536");
}

#[test]
fn a_wall_stands_for_each_process() {
    let case = case!(Userns);
    let data = ["sh", "-c", "grep 'Max data size' /proc/self/limits | awk '{print $5}'"];
    case.run_base(&[WITHOUT, "-m", "64m"], data).ok().prints("671088640");
    case.run_base(&[WITHOUT, "-m", "64m", "--ulimit", "data=1000000000:1000000000"], data).ok().prints("671088640");
    case.run_base(&[WITHOUT, "-m", "64m", "--ulimit", "data=500000000:500000000"], data).ok().prints("500000000");
    case.run_base(&[WITHOUT, "-m", "64m", "--memory-swap", "-1"], data).ok().prints("unlimited");
}

#[test]
fn what_is_over_its_limit_can_wait_instead() {
    let case = case!(Userns).keeping_containers();
    let waiting = case.base(&[WITHOUT, "-m", "64m", "--oom-kill-disable"], ["eat", "anon", "1", "400"]).spawn();
    let told = until(20, || waiting.stderr_so_far().contains("stands still").then_some(()));
    assert!(told.is_some(), "{}", waiting.stderr_so_far());
    assert!(!waiting.stdout_so_far().contains("full"));
    waiting.signal(Signal::SIGKILL);
    waiting.finish();
}
