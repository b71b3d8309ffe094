//! Limits that a cgroup holds, where the caller has one: by the systemd user manager, or in a directory that is the
//! caller's to write. Most machines that build rlrun have neither; `make test-vm` has both.

use nix::sys::signal::{Signal, kill};
use rlrun_tests::{BASE, Case, case, eventually, until};
use serde_json::Value;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

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

/// The first of these files that the payload's cgroups have.
fn kept(id: &str, names: &[&str]) -> String {
    let groups = cgroups_of(id);
    // A scope of systemd has limits of its own; the payload's are one below.
    let inner = groups.iter().map(|g| g.join("container")).chain(groups.iter().cloned());
    let files = inner.flat_map(|g| names.iter().map(move |n| g.join(n)).collect::<Vec<_>>());
    let text = files.into_iter().find_map(|f| std::fs::read_to_string(f).ok());
    text.unwrap_or_default().trim().to_owned()
}

fn is_version_2() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
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
    assert!(!cgroups_of(&id).is_empty());
    let read = |names: &[&str]| kept(&id, names);
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

fn stats(case: &Case, id: &str) -> Value {
    let all: Value =
        serde_json::from_str(&case.run(["stats", "--no-stream", "--format", "json", id]).ok().out()).unwrap();
    all[0].clone()
}

fn number(text: &str) -> u64 {
    text.trim().parse().unwrap_or_else(|_| panic!("no number: {text}"))
}

#[test]
fn what_is_used_is_what_the_kernel_has_counted() {
    let case = case!(Userns, Cgroup).keeping_containers();
    let script = "probe burn 2 2 >&2; exec sleep 1000";
    let id = case.detached(&["--name", "a", "--cpus", "0.5", "-m", "200m", "--pids-limit", "50"], ["sh", "-c", script]);
    let counted = || {
        let text = kept(&id, &["cpu.stat"]);
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(number);
        let cpu = field("usage_usec ").map_or_else(|| number(&kept(&id, &["cpuacct.usage"])), |us| us * 1000);
        let throttled = field("throttled_usec ").map(|us| us * 1000).or(field("throttled_time "));
        (cpu, field("nr_throttled ").unwrap(), throttled.unwrap())
    };
    // At rest nothing is added between two looks.
    let rest = until(60, || {
        let before = counted();
        let seen = stats(&case, "a");
        (seen["pids"] == "1" && before == counted()).then_some((seen, before))
    });
    let (seen, (cpu, periods, throttled)) = rest.expect("the payload rests");
    assert!(periods > 0 && cpu > 100_000_000, "{periods} {cpu}");
    assert_eq!((&seen["cpu_nanoseconds"], &seen["throttled_periods"]), (&cpu.into(), &periods.into()), "{seen}");
    assert_eq!(seen["throttled_nanoseconds"], throttled);
    let memory = number(&kept(&id, &["memory.current", "memory.usage_in_bytes"]));
    let told = seen["mem_bytes"].as_u64().unwrap();
    assert!(told > 0 && told <= memory, "{told} of {memory}, which has what was read from files too");
    assert_eq!(number(&kept(&id, &["pids.current"])), 1);
    let peak = number(&kept(&id, &["memory.peak", "memory.max_usage_in_bytes"]));
    case.run(["stop", "-t", "0", "a"]).ok();
    let end = case.run(["inspect", "--format", "{{json .Statistics}}", "a"]).ok().out();
    let end: Value = serde_json::from_str(&end).unwrap();
    assert!(end["CPUNano"].as_u64() >= Some(cpu) && end["ThrottledNano"] == throttled, "{end}");
    assert!(end["MemoryPeak"].as_u64() >= Some(peak), "{end}, {peak} before");
}

#[test]
fn a_paused_container_is_frozen_where_there_is_a_freezer() {
    let case = case!(Userns, Cgroup).keeping_containers();
    let id = case.detached(&["--name", "a", "-m", "64m"], ["sh", "-c", "while :; do :; done"]);
    let pid = case.run(["inspect", "--format", "{{.State.Pid}}", "a"]).ok().out();
    let state = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap();
        stat.rsplit_once(") ").unwrap().1.chars().next().unwrap()
    };
    let frozen = || kept(&id, &["cgroup.events"]).lines().any(|line| line == "frozen 1");
    case.run(["pause", "a"]).ok();
    case.run(["inspect", "--format", "{{.State.Status}}", "a"]).ok().prints("paused");
    assert_eq!((frozen(), state() == 'T'), (is_version_2(), !is_version_2()), "{}", state());
    case.run(["stats", "--no-stream", "--format", "{{.PIDS}}", "a"]).ok().prints("1");
    case.run(["pause", "a"]).refused(125, "it is paused");
    case.run(["unpause", "a"]).ok();
    assert!(!frozen() && state() == 'R', "{}", state());
    // A next life does not begin frozen.
    case.run(["pause", "a"]).ok();
    case.rlrun(["restart", "-t", "0", "a"]).leaving_processes().run().ok();
    case.run(["exec", "a", "true"]).ok();
    case.run(["pause", "a"]).ok();
    case.run(["stop", "-t", "1", "a"]).ok();
    case.rlrun(["start", "a"]).leaving_processes().run().ok();
    case.run(["pause", "a"]).ok();
    kill(case.supervisors()[0], Signal::SIGKILL).unwrap();
    case.in_base(["true"]).ok();
    eventually("its cgroups are cleaned away", || cgroups_of(&id).is_empty());
}

#[test]
fn what_a_cgroup_takes_and_does_not_do_is_told() {
    let case = case!(Userns, Cgroup);
    // The cgroups above have nothing kept back, so nothing can be for the container.
    let options = ["-m", "64m", "--memory-reservation", "32m"];
    let (_, enforced) = mechanism(&case, &options, "memory-reservation");
    assert_eq!(enforced, if is_version_2() { "no" } else { "yes" });
    if is_version_2() {
        let words = [&options[..], &["--limits=require"]].concat();
        case.run_base(&words, ["true"]).refused(125, "--memory-reservation").complains("kept back");
    }
}

/// The disk that the store is on.
fn disk(case: &Case) -> (String, String) {
    let device = std::fs::metadata(case.data()).unwrap().dev();
    let number = format!("{}:{}", nix::sys::stat::major(device), nix::sys::stat::minor(device));
    let name = std::fs::canonicalize(format!("/sys/dev/block/{number}")).unwrap();
    (format!("/dev/{}", name.file_name().unwrap().to_string_lossy()), number)
}

#[test]
fn a_disk_is_as_slow_as_was_asked_for() {
    let case = case!(Userns, CgroupIo, Overlay).keeping_containers();
    let (path, device) = disk(&case);
    let rate = format!("{path}:1mb");
    let id = case.detached(
        &["--name", "a", "--device-write-bps", &rate, "--device-read-iops", &format!("{path}:90")],
        ["sleep", "1000"],
    );
    let limits = || kept(&id, &["io.max", "blkio.throttle.write_bps_device"]);
    assert!(limits().contains(&device) && limits().contains("1048576"), "{}", limits());
    let write = || {
        let began = Instant::now();
        case.run(["exec", "a", "dd", "if=/dev/zero", "of=/x", "bs=256k", "count=16", "conv=fsync"]).ok();
        began.elapsed()
    };
    let slow = write();
    assert!(slow > Duration::from_millis(2500), "4 MiB at 1 MiB a second in {slow:?}");
    let seen = stats(&case, "a");
    assert_ne!(seen["block_io"], "0B / 0B", "{seen}");
    let shown = case.run(["inspect", "--format", "{{json .HostConfig.BlkioDeviceWriteBps}}", "a"]).ok().out();
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown, serde_json::json!([{"Path": path, "Rate": 1 << 20}]));
    case.run(["update", "--device-write-bps", &format!("{path}:0"), "--device-read-iops", &format!("{path}:0"), "a"])
        .ok();
    assert!(!limits().contains("1048576"), "{}", limits());
    assert!(write() < slow, "as fast as the disk");
    let (mechanism, enforced) = mechanism(&case, &["--device-read-bps", &rate], "device-read-bps");
    assert!(mechanism.contains("cgroup v") && enforced == "yes", "{mechanism} {enforced}");
    // No disk of these machines has a scheduler that weighs.
    let weight = self::mechanism(&case, &["--blkio-weight", "500"], "blkio-weight");
    assert_eq!(weight.1, "no", "{}", weight.0);
}
