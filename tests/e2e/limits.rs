//! Resource limits where no cgroup can be had: what the kernel and the mapper really do to a payload, and what `plan`
//! says about it.

use nix::sys::signal::Signal;
use rlrun_tests::{BASE, Terminal, case, until};
use serde_json::Value;

/// What is tested here is what holds without a cgroup, wherever it is tested.
const WITHOUT: &str = "--cgroups=disabled";

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
        let out = case.rlrun(["plan", "--network", "none", WITHOUT]).args(options).args([BASE, "true"]).run();
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
    let options = ["--limits=require", WITHOUT, "--pids-limit", "9", "--cap-add", "NET_RAW"];
    case.run_base(&options, ["true"]).refused(125, "--pids-limit").complains("hint:");
}

#[test]
fn weight_and_affinity_reach_the_payload() {
    let case = case!(Userns);
    // Field 19 is nice; the tests themselves may be.
    let nice = |options: &[&str]| -> i32 {
        case.run_base(options, ["sh", "-c", "cut -d' ' -f19 /proc/self/stat"]).ok().out().trim().parse().unwrap()
    };
    assert_eq!(nice(&[WITHOUT, "--cpu-shares", "512"]), (nice(&[]) + 3).min(19));
    // Field 41 is the policy: 5 is SCHED_IDLE (proc_pid_stat(5)).
    case.run_base(&[WITHOUT, "-c", "2"], ["sh", "-c", "cut -d' ' -f41 /proc/self/stat"]).ok().prints("5");
    let allowed = "grep Cpus_allowed_list /proc/self/status | cut -f2";
    case.run_base(&["--cpuset-cpus", "0"], ["sh", "-c", allowed]).ok().prints("0");
    case.run_base(&["--oom-score-adj", "500"], ["cat", "/proc/self/oom_score_adj"]).ok().prints("500");
}

#[test]
fn nought_is_no_limit() {
    let case = case!(Userns);
    let options =
        ["--memory", "0", "--memory-swap", "0", "--memory-reservation", "0", "--cpus", "0", "--cpu-shares", "0"];
    case.run_base(&[&options[..], &["--cpu-period", "0", "--limits=require"]].concat(), ["echo", "x"]).ok().prints("x");
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
        (&["--device-write-bps", "/dev/nothing:1mb"], "--device-write-bps"),
        (&["--device-write-bps", "/dev/null:1mb"], "block device"),
        (&["--device-read-iops", "/dev/null:1mb"], "1000"),
        (&["--device-write-iops", "/dev/null:0"], "--device-write-iops"),
        (&["--memory-reservation", "900t"], "machine"),
        (&["--shm-size", "900t"], "machine"),
        (&["--oom-score-adj", "-1000"], "your own score"),
        (&["--ulimit", "data=1000"], "1024 KiB"),
        (&["--ulimit", "stack=1"], "16 KiB"),
        (&["--ulimit", "nofile=10", "--ulimit", "nofile=20"], "twice"),
        (&["--cpu-period", "50000"], "--cpu-quota"),
        (&["--cpu-quota", "900000000"], "CPUs"),
        (&["--cpus", "1.5", "--cpuset-cpus", "0"], "leaves 1"),
        (&["--cpus", "-1"], "--cpus"),
        (&["--cpu-quota", "999"], "--cpu-quota"),
        (&["--pids-limit", "99999999"], "RLIMIT_NPROC"),
        (&["--memory-swappiness", "101"], "--memory-swappiness"),
    ] {
        case.run_base(options, ["true"]).refused(125, word);
    }
}

/// Seconds of processor time that a payload says it used.
fn used(text: &str) -> f64 {
    let seconds = text.trim().rsplit_once("used ").and_then(|(_, seconds)| seconds.parse().ok());
    seconds.unwrap_or_else(|| panic!("how much was used in {text}"))
}

#[test]
fn processor_time_is_limited_without_a_cgroup() {
    let case = case!(Userns);
    for (kind, count) in [("burn", "1"), ("burn", "8"), ("storm", "4")] {
        let out = case.run_base(&[WITHOUT, "--cpus", "0.2", "--limits=require"], ["probe", kind, count, "5"]);
        let used = used(&out.ok().out());
        // One second is allowed; a machine that others use may give less.
        assert!((0.1..=1.3).contains(&used), "{kind} {count}: {used} s in five seconds at a fifth of a CPU");
    }
}

#[test]
fn job_control_does_not_see_the_throttle() {
    let case = case!(Userns);
    // A parent that reports every stop and every end of a child in a process group of its own, as a shell waits.
    let out = case.run_base(&[WITHOUT, "--cpus", "0.2"], ["probe", "watch", "3"]);
    out.ok().prints("stopped 0");
}

#[test]
fn a_payload_that_stopped_itself_stays_stopped() {
    let case = case!(Userns);
    case.run_base(&[WITHOUT, "--cpus", "0.2"], ["probe", "stays-stopped", "2"]).ok().prints("state T");
}

#[test]
fn what_a_debugger_has_is_not_disturbed_and_is_no_way_out() {
    let case = case!(Userns);
    let run = |how| case.run_base(&[WITHOUT, "--cpus", "0.2"], ["probe", "traced", how, "4"]);
    // It may have been stopped with the rest once before it was known to be traced.
    let told = run("rest").ok().out();
    assert!((0..3).any(|n| told.starts_with(&format!("ended 7, signals {n},"))), "{told}");
    let told = run("burn").ok().out();
    assert!(told.starts_with("ended 7") && used(&told) <= 1.5, "in four seconds at a fifth of a CPU: {told}");
}

#[test]
fn an_interactive_shell_never_speaks_of_stopped_jobs_for_a_minute() {
    let case = case!(Userns);
    let libraries = "/usr/lib/x86_64-linux-gnu";
    let loader = "/lib64/ld-linux-x86-64.so.2";
    let mut options: Vec<String> = ["-i", "-t", WITHOUT, "--cpus", "0.3"].map(str::to_owned).into();
    let bash = std::path::Path::new(loader).exists() && std::path::Path::new("/bin/bash").exists();
    if bash {
        for bind in [
            "/bin/bash:/bin/bash:ro".to_owned(),
            format!("{libraries}:{libraries}:ro"),
            format!("{loader}:{loader}:ro"),
        ] {
            options.extend(["-v".to_owned(), bind]);
        }
        options.extend(["-e".to_owned(), format!("LD_LIBRARY_PATH={libraries}")]);
    }
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let shell: &[&str] = if bash { &["/bin/bash", "--norc", "-i"] } else { &["sh", "-i"] };
    let mut terminal = Terminal::start(case.base(&options, shell).within(180), 24, 80);
    // Told at once what becomes of a job; two that never rest, and one that waits.
    terminal.type_text("set -b; PS1='$ '; echo go-$((40 + 2))\r");
    terminal.wait_for("go-42");
    terminal.type_text("while :; do :; done &\r(while :; do :; done) & sleep 1000 &\r");
    let began = std::time::Instant::now();
    let mut round = 0;
    while began.elapsed().as_secs() < 60 {
        round += 1;
        // Jobs in the foreground, too: each takes the terminal and gives it back.
        terminal.type_text(&format!("sleep 1; true | cat; echo round-$((1000 + {round}))\r"));
        terminal.wait_for(&format!("round-{}", 1000 + round));
    }
    terminal.type_text("jobs; echo end-$((6 * 7))\r");
    terminal.wait_for("end-42");
    let screen = terminal.screen();
    assert!(!screen.contains("topped") && !screen.contains("Continued"), "{screen}");
    assert!(screen.matches("Running").count() >= 3, "{screen}");
    terminal.type_text("exit\r");
    terminal.running.wait();
    drop(case.keeping_containers());
}

#[test]
fn a_controller_that_was_stopped_itself_goes_on_where_it_was() {
    let case = case!(Userns).keeping_containers();
    case.detached(
        &["--name", "a", WITHOUT, "--cpus", "0.2"],
        ["sh", "-c", "n=0; while :; do n=$((n+1)); [ $((n % 20000)) = 0 ] && echo x; done"],
    );
    let pid: i32 = case.run(["inspect", "--format", "{{.State.Pid}}", "a"]).ok().out().trim().parse().unwrap();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let mapper: i32 = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim().parse().unwrap();
    let mapper = nix::unistd::Pid::from_raw(mapper);
    let lines = || case.run(["logs", "a"]).ok().out().lines().count();
    // In a debugger, or with the machine asleep: longer than anything is believed to take.
    for _ in 0..3 {
        let before = lines();
        nix::sys::signal::kill(mapper, Signal::SIGSTOP).unwrap();
        std::thread::sleep(std::time::Duration::from_secs(4));
        nix::sys::signal::kill(mapper, Signal::SIGCONT).unwrap();
        assert!(until(20, || (lines() > before + 1).then_some(())).is_some(), "the payload goes on");
    }
    case.run(["rm", "-f", "-t", "0", "a"]).ok();
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
}

/// How much the payload says that it has filled, in MiB.
fn told(file: &std::path::Path) -> u64 {
    let bytes = std::fs::read(file).unwrap();
    let slots = bytes.chunks(4096).map(|page| u64::from_ne_bytes(page[..8].try_into().unwrap()));
    slots.sum::<u64>() >> 20
}

#[test]
fn a_flood_of_memory_stands_still_a_bounded_amount_beyond_the_limit() {
    let case = case!(Userns).keeping_containers();
    for (how, count) in [("anon", "1"), ("anon", "4"), ("shared", "4"), ("memfd", "2"), ("file", "4")] {
        let directory = case.make_dir(&format!("{how}{count}"));
        let file = directory.join("told");
        case.make_file(&format!("{how}{count}/told"), vec![0; 64 * 4096]);
        let bind = format!("{}:/told", directory.display());
        let options =
            [WITHOUT, "-m", "128m", "--memory-swap", "-1", "--oom-kill-disable", "--tmpfs", "/t:size=2g", "-v", &bind];
        let path = "/told/told";
        let flood = case.base(&options, ["eat", &format!("flood-{how}"), count, "400", path]).spawn();
        let still = until(30, || flood.stderr_so_far().contains("stands still").then_some(()));
        assert!(still.is_some(), "{how} {count}: {}", flood.stderr_so_far());
        let filled = told(&file);
        // The bench says how little it is on a quiet machine; on a busy one whoever looks may wait for a processor.
        assert!((100..128 + 512).contains(&filled), "{how} {count}: {filled} MiB at 128");
        flood.signal(Signal::SIGKILL);
        flood.finish();
    }
}
