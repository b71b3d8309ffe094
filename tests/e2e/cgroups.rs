//! Limits that a cgroup holds, where the caller has one: by the systemd user manager, or in a directory that is the
//! caller's to write. Most machines that build rlrun have neither; `make test-vm` has both.

use nix::sys::signal::{Signal, kill};
use rlrun_tests::{BASE, Case, case, eventually};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Cgroups of a container on the host.
fn cgroups_of(id: &str) -> Vec<PathBuf> {
    fn look(directory: &Path, id: &str, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            if entry.file_name().to_string_lossy().contains(id) {
                found.push(entry.path());
            }
            look(&entry.path(), id, found);
        }
    }
    let mut found = Vec::new();
    look(Path::new("/sys/fs/cgroup"), id, &mut found);
    found
}

fn mechanism(case: &Case, options: &[&str], name: &str) -> (String, String) {
    let out = case.rlrun(["plan", "--network", "none"]).args(options).args([BASE, "true"]).run();
    let plan: Value = serde_json::from_str(&out.ok().out()).unwrap();
    let all = plan["controls"].as_array().unwrap();
    let control = all.iter().find(|c| c["name"] == name).unwrap_or_else(|| panic!("no control {name}: {all:?}"));
    let word = |field: &str| control[field].as_str().unwrap().to_owned();
    (word("mechanism"), word("enforced"))
}

#[test]
fn plan_names_the_cgroup_and_what_is_left_without() {
    let case = case!(Userns, Cgroup);
    let options = ["--cpus", "0.5", "-m", "64m", "--pids-limit", "20"];
    for name in ["cpu-limit", "memory-limit", "pids-limit"] {
        let (mechanism, enforced) = mechanism(&case, &options, name);
        assert!(mechanism.contains("cgroup v") && enforced == "yes", "{name}: {mechanism} {enforced}");
        let (without, _) = self::mechanism(&case, &[&options[..], &["--cgroups=disabled"]].concat(), name);
        assert!(!without.contains("cgroup"), "{name}: {without}");
    }
    // Nothing to do for a cgroup: none is made.
    assert!(!mechanism(&case, &[], "pids-limit").0.contains("cgroup"));
}

#[test]
fn the_kernel_holds_what_was_asked_for() {
    let case = case!(Userns, Cgroup).keeping_containers();
    let limits = ["--rm", "--limits=require", "--cpus", "0.5", "-m", "64m", "--pids-limit", "20"];
    let id = case.detached(&limits, ["probe", "wait"]);
    let groups = cgroups_of(&id);
    assert!(!groups.is_empty());
    let read = |names: &[&str]| -> String {
        // A scope of systemd has limits of its own; the payload's are one below.
        let inner = groups.iter().map(|g| g.join("container")).chain(groups.iter().cloned());
        let files = inner.flat_map(|g| names.iter().map(move |n| g.join(n)).collect::<Vec<_>>());
        let text = files.into_iter().find_map(|f| std::fs::read_to_string(f).ok());
        text.unwrap_or_default().trim().to_owned()
    };
    assert_eq!(read(&["memory.max", "memory.limit_in_bytes"]), "67108864");
    assert_eq!(read(&["pids.max"]), "20");
    assert!(["50000 100000", "50000"].contains(&read(&["cpu.max", "cpu.cfs_quota_us"]).as_str()));
    // The payload alone is in there, and a command that joins it.
    assert_eq!(read(&["pids.current"]), "1");
    let inside = case.run(["exec", &id, "cat", "/proc/self/cgroup"]);
    assert!(!inside.ok().out().contains("rlrun"), "the container sees its own cgroup as the root: {}", inside.out());
    case.run(["exec", &id, "probe", "forks", "100"]).ok().prints("18 EAGAIN");
    case.run(["update", "--cpus", "0.25", "--memory", "128m", "--memory-swap", "256m", &id]).ok();
    assert_eq!(read(&["memory.max", "memory.limit_in_bytes"]), "134217728");
    assert!(["25000 100000", "25000"].contains(&read(&["cpu.max", "cpu.cfs_quota_us"]).as_str()));
}

#[test]
fn processes_are_counted_whatever_the_capabilities() {
    let case = case!(Userns, Cgroup);
    let options = ["--limits=require", "--pids-limit", "20", "--cap-add", "NET_RAW"];
    case.run_base(&options, ["probe", "forks", "100"]).ok().prints("19 EAGAIN");
}

#[test]
fn too_much_memory_ends_the_payload_and_is_told() {
    let case = case!(Userns, Cgroup).keeping_containers();
    let eater = "x=0123456789abcdef; while :; do x=$x$x; done";
    let options = ["run", "--name", "eater", "--network", "none", "-m", "32m", "--memory-swap", "32m", BASE];
    case.rlrun(options).args(["sh", "-c", eater]).run().code(137);
    case.run(["inspect", "eater", "-f", "{{.State.OOMKilled}}"]).ok().prints("true");
    case.run(["inspect", "eater", "-f", "{{.State.Error}}"]).ok().says("the kernel killed");
    case.run(["run", "--name", "sated", "--network", "none", "-m", "64m", BASE, "true"]).ok();
    case.run(["inspect", "sated", "-f", "{{.State.OOMKilled}}"]).ok().prints("false");
}

#[test]
fn nothing_stays_of_a_container_that_ended_or_was_killed() {
    let case = case!(Userns, Cgroup).keeping_containers();
    let id = case.detached(&["--rm", "--cpus", "0.5"], ["probe", "trap"]);
    assert!(!cgroups_of(&id).is_empty());
    let supervisor = case.supervisors()[0];
    eventually("it is ready", || case.run(["logs", &id]).out().contains("ready"));
    kill(supervisor, Signal::SIGTERM).unwrap();
    eventually("its cgroups go with it", || cgroups_of(&id).is_empty());
    let id = case.detached(&["--cpus", "0.5", "-m", "64m"], ["probe", "wait"]);
    kill(case.supervisors()[0], Signal::SIGKILL).unwrap();
    // Its systemd scope goes by itself, a directory with the next command.
    case.in_base(["true"]).ok();
    eventually("its cgroups are cleaned away", || cgroups_of(&id).is_empty());
}
