//! `stats` against the kernel's own accounting, and `update` of what runs.

use nix::sys::signal::Signal;
use rlrun_tests::{BASE, Case, Image, Rootfs, base_rootfs, case, until};
use serde_json::Value;

fn stats(case: &Case, name: &str) -> Value {
    let out = case.run(["stats", "--no-stream", "--format", "json", name]);
    let mut all: Vec<Value> = serde_json::from_str(&out.ok().out()).unwrap();
    all.remove(0)
}

fn number(stats: &Value, field: &str) -> f64 {
    f64::from(u32::try_from(stats[field].as_u64().unwrap_or_else(|| panic!("{field} in {stats}")) / 1000).unwrap())
}

/// Processor time of the container's pid 1 and of what it has waited for, in seconds, from the kernel.
fn kernel_seconds(case: &Case, name: &str) -> f64 {
    let pid = case.run(["inspect", "--format", "{{.State.Pid}}", name]).ok().out();
    let line = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap();
    let fields: Vec<&str> = line.rsplit_once(')').unwrap().1.split_ascii_whitespace().collect();
    let ticks: u32 = fields[11..15].iter().map(|f| f.parse::<u32>().unwrap()).sum();
    f64::from(ticks) / 100.0
}

#[test]
fn processor_time_and_tasks_are_the_kernels() {
    let case = case!(Userns).keeping_containers();
    // Children that were waited for, then rest.
    case.detached(&["--name", "a"], ["sh", "-c", "probe burn 2 1 >&2; exec sleep 100"]);
    let settled = until(20, || {
        let before = kernel_seconds(&case, "a");
        let seen = stats(&case, "a");
        let after = kernel_seconds(&case, "a");
        (seen["pids"] == "1" && (after - before).abs() < 0.001 && after > 0.05).then_some((seen, after))
    });
    let (seen, kernel) = settled.expect("the payload rests");
    let ours = number(&seen, "cpu_nanoseconds") / 1e6;
    assert!((ours - kernel).abs() <= 0.05, "{ours} s and by the kernel {kernel} s");
    assert!(seen["mem_usage"].as_str().unwrap().contains(" / "), "{seen}");
}

/// `inspect` has it while it runs and afterwards, and the event of its end too.
#[test]
fn what_was_used_is_known_at_the_end() {
    let case = case!(Userns).keeping_containers();
    case.detached(&["--name", "lives"], ["sleep", "100"]);
    case.run(["inspect", "--format", "{{.Statistics.PIDs}}", "lives"]).ok().prints("1");
    // So little that it is too little on a busy machine too.
    let words = ["run", "--name", "a", "--network", "none", "--cpus", "0.1", BASE];
    // The shell's builtin tells what the kernel has counted for it and for whom it has waited.
    let out = case.rlrun(words).args(["sh", "-c", "probe burn 1 3 >&2; times"]).run().ok().out();
    let seconds = |word: &str| {
        let (minutes, seconds) = word.strip_suffix('s').and_then(|word| word.split_once('m')).unwrap();
        minutes.parse::<f64>().unwrap() * 60.0 + seconds.parse::<f64>().unwrap()
    };
    let kernel: f64 = out.split_ascii_whitespace().map(seconds).sum();
    let read = |out: String| serde_json::from_str::<Value>(&out).unwrap();
    let told = read(case.run(["inspect", "--format", "{{json .Statistics}}", "a"]).ok().out());
    let ours = number(&told, "CPUNano") / 1e6;
    assert!(kernel > 0.1 && (ours - kernel).abs() <= 0.05, "{ours} s and by the kernel {kernel} s");
    assert!(told["ThrottledPeriods"].as_u64() > Some(0) && number(&told, "ThrottledNano") > 0.0, "{told}");
    assert_eq!(told["OOMKills"], 0);
    let died = [
        "events",
        "--stream=false",
        "--since",
        "1h",
        "--filter",
        "event=died",
        "--filter",
        "container=a",
        "--format",
        "{{json .Attributes}}",
    ];
    let event = read(case.run(died).ok().out());
    for field in ["CPUNano", "ThrottledPeriods", "ThrottledNano", "OOMKills"] {
        assert_eq!(event[field], told[field], "{field}");
    }
    case.run(["rm", "-f", "-t", "0", "lives"]).ok();
}

#[test]
fn memory_is_what_is_really_there() {
    let case = case!(Userns).keeping_containers();
    for (name, words) in [
        ("anon", ["eat", "anon", "1", "40", ""]),
        ("memfd", ["eat", "memfd", "1", "40", ""]),
        ("sharing", ["eat", "sharing", "10", "40", ""]),
        ("file", ["eat", "file", "1", "40", "/dev/shm/x"]),
    ] {
        let id = case.detached(&["--name", name, "-m", "200m"], words);
        assert_eq!(id.len(), 64);
        let full = until(20, || case.run(["logs", name]).out().contains("full").then_some(()));
        assert!(full.is_some(), "{name}: {}", case.run(["logs", name]).out());
        let mib = number(&stats(&case, name), "mem_bytes") / 1048.576;
        assert!((40.0..46.0).contains(&mib), "{name}: {mib} MiB");
        case.run(["kill", name]).ok();
    }
}

#[test]
fn the_columns_are_podmans() {
    let case = case!(Userns).keeping_containers();
    let id = case.detached(&["--name", "a"], ["sleep", "100"]);
    let out = case.run(["stats", "--no-stream"]).ok().out();
    let heading = out.lines().next().unwrap();
    for word in
        ["ID", "NAME", "CPU %", "MEM USAGE / LIMIT", "MEM %", "NET IO", "BLOCK IO", "PIDS", "CPU TIME", "AVG CPU %"]
    {
        assert!(heading.contains(word), "{word} in {heading}");
    }
    assert!(out.contains(&id[..12]), "{out}");
    case.run(["stats", "--no-stream", "--format", "{{.Name}} {{.PIDS}}", "a"]).ok().prints("a 1");
    case.run(["kill", "a"]).ok();
    case.run(["wait", "a"]);
    case.run(["stats", "--no-stream", "--format", "{{.Name}}"]).ok().prints("");
    case.run(["stats", "--no-stream", "--all", "--format", "{{.Name}} {{.CPUPerc}}"]).ok().prints("a --");
    case.run(["stats", "--no-stream", "nobody"]).refused(125, "no such container");
}

#[test]
fn limits_of_a_running_container_can_be_changed() {
    let case = case!(Userns).keeping_containers();
    case.detached(&["--name", "a"], ["probe", "burn", "2", "60"]);
    case.run(["update", "--cpus", "0.2", "-m", "64m", "a"]).ok();
    let throttled = until(20, || (stats(&case, "a")["throttled_periods"].as_u64()? > 2).then_some(()));
    assert!(throttled.is_some(), "{}", stats(&case, "a"));
    assert_eq!(stats(&case, "a")["mem_limit"], 64 << 20);
    // Recorded, for the next start.
    case.run(["inspect", "--format", "{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}}", "a"])
        .ok()
        .prints("67108864 200000000");
    case.run(["update", "--cpus", "0", "a"]).ok();
    let free = until(20, || (stats(&case, "a")["throttled_periods"] == 0).then_some(()));
    assert!(free.is_some(), "{}", stats(&case, "a"));
    case.run(["update", "--pids-limit", "7", "a"]).ok().complains("next start");
    for (options, why) in [
        (&["--cpus", "900"][..], "CPUs"),
        (&["--memory", "1k"], "1m"),
        (&["--memory", "900t"], "machine"),
        (&["--cpuset-cpus", "4000"], "4000"),
        (&[], "no limit is given"),
    ] {
        case.rlrun(["update"]).args(options).args(["a"]).run().refused(125, why);
    }
}

#[test]
fn weight_and_affinity_of_a_running_container_change_at_once() {
    let case = case!(Userns).keeping_containers();
    case.detached(&["--cgroups=disabled", "--name", "a"], ["sleep", "100"]);
    let asked = |script: &str| case.run(["exec", "a", "sh", "-c", script]).ok().out().trim().to_owned();
    let nice = || asked("cut -d' ' -f19 /proc/1/stat").parse::<i32>().unwrap();
    let before = nice();
    case.run(["update", "--cpu-shares", "512", "--cpuset-cpus", "0", "a"]).ok();
    assert_eq!(nice(), before + 3);
    assert_eq!(asked("grep Cpus_allowed_list /proc/1/status | cut -f2"), "0");
    case.run(["update", "--cpu-shares", "1024", "a"]).ok().complains("privilege");
    case.run(["update", "-m", "64m", "a"]).ok();
    case.run(["update", "-m", "0", "a"]).ok();
    case.run(["inspect", "--format", "{{.HostConfig.Memory}} {{.HostConfig.CpusetCpus}}", "a"]).ok().prints("0 0");
}

#[test]
fn limits_that_are_changed_between_two_lives_hold_in_the_next() {
    let case = case!(Userns).keeping_containers();
    // Each pause is twice as long as the one before: the fifth leaves time enough.
    let script = "echo x >> /lives; [ $(wc -l < /lives) -lt 6 ] && exit 1; exec sleep 100";
    case.detached(&["--name", "a", "--restart", "always"], ["sh", "-c", script]);
    let resting = until(30, || {
        let state = case.run(["inspect", "--format", "{{.State.Status}} {{.RestartCount}}", "a"]).out();
        (state.trim() == "restarting 5").then_some(())
    });
    assert!(resting.is_some());
    case.run(["update", "-m", "64m", "a"]).ok();
    let running = until(30, || {
        let state = case.run(["inspect", "--format", "{{.State.Status}} {{.RestartCount}}", "a"]).out();
        (state.trim() == "running 5").then_some(())
    });
    assert!(running.is_some());
    let limited = until(20, || (stats(&case, "a")["mem_limit"] == 64 << 20).then_some(()));
    assert!(limited.is_some(), "{}", stats(&case, "a"));
    case.run(["rm", "-f", "a"]).ok();
}

#[test]
fn a_container_that_is_out_of_memory_by_an_update_is_ended() {
    let case = case!(Userns).keeping_containers();
    case.detached(&["--name", "a"], ["eat", "anon", "1", "100"]);
    let full = until(20, || case.run(["logs", "a"]).out().contains("full").then_some(()));
    assert!(full.is_some());
    case.run(["update", "-m", "32m", "a"]).ok();
    let ended = until(20, || {
        let state = case.run(["inspect", "--format", "{{.State.OOMKilled}} {{.State.ExitCode}}", "a"]).out();
        (state.trim() == "true 137").then_some(())
    });
    assert!(ended.is_some());
    let events = case.run(["events", "--stream=false", "--filter", "event=oom", "--format", "{{.Name}}"]);
    events.ok().prints("a");
}

#[test]
fn a_stopped_mapper_does_not_stop_its_supervisor() {
    let case = case!(Userns).keeping_containers();
    case.detached(&["--name", "a"], ["sh", "-c", "while :; do echo x; sleep 0.1; done"]);
    let pid: i32 = case.run(["inspect", "--format", "{{.State.Pid}}", "a"]).ok().out().trim().parse().unwrap();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let mapper = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim().parse().unwrap();
    let mapper = nix::unistd::Pid::from_raw(mapper);
    nix::sys::signal::kill(mapper, Signal::SIGSTOP).unwrap();
    let waiting = case.rlrun(["stats", "--no-stream", "a"]).spawn();
    let lines = || case.run(["logs", "a"]).ok().out().lines().count();
    let before = lines();
    assert!(until(20, || (lines() > before).then_some(())).is_some(), "output goes on");
    nix::sys::signal::kill(mapper, Signal::SIGCONT).unwrap();
    waiting.finish().ok().says("a");
}

#[test]
fn a_full_root_file_system_says_so() {
    let case = case!(Userns, Overlay, Fuse);
    let fill =
        "dd if=/dev/zero of=/x bs=1M count=20 2>&1 | grep -o 'No space left'; rm /x; echo y > /etc/y; cat /etc/y";
    for driver in ["overlay", "fuse-overlayfs"] {
        let options = ["--storage-opt", "size=8m", "--storage-driver", driver, "--limits=require"];
        let out = case.run_base(&options, ["sh", "-c", fill]);
        out.ok().prints("No space left\ny");
    }
    for (word, why) in
        [("size=1", "64k"), ("size=9000t", "machine"), ("colour=red", "--storage-opt"), ("size", "--storage-opt")]
    {
        case.run_base(&["--storage-opt", word], ["true"]).refused(125, why);
    }
}

#[test]
fn a_root_file_system_of_many_layers_is_bounded_too() {
    let case = case!(Userns, Overlay);
    let layer = |image: Image, n: u32| image.layer(Rootfs::new().file(&format!("many/{n}"), 0o644, "x"));
    case.load(&(0..100).fold(Image::new("localhost/many:1", base_rootfs().clone()), layer));
    let fill = "dd if=/dev/zero of=/x bs=1M count=20 2>&1 | grep -o 'No space left'; rm /x; ls /many | wc -l; \
                rm -r /many; mkdir /many; ls -A /many | wc -l; stat -c %a /";
    let words = ["run", "--rm", "--network", "none", "--storage-opt", "size=8m", "localhost/many:1", "sh", "-c", fill];
    case.run(words).ok().prints("No space left\n100\n0\n755");
}

#[test]
fn what_is_written_to_a_sized_root_counts_as_memory() {
    let case = case!(Userns);
    let out = case.run_base(&["-m", "48m", "--storage-opt", "size=200m"], ["eat", "file", "1", "150", "/x"]);
    out.code(137).complains("was killed");
}

#[test]
fn no_image_is_made_of_a_container_where_there_is_no_room() {
    let case = case!(Userns, Root).keeping_containers();
    case.run(["create", "--network", "none", "--name", "box", rlrun_tests::BASE, "true"]).ok();
    let (store, user) = (case.data(), case.user());
    // The same store, on a file system that is full but for a little.
    let prepare = format!(
        "mkdir -p /run/rlrun-full && mount -t tmpfs -o size=100m tmpfs /run/rlrun-full && cp -a {0}/. /run/rlrun-full/ && \
         dd if=/dev/zero of=/run/rlrun-full/rest bs=1M count=75 2>/dev/null && chown {1}:{2} /run/rlrun-full && \
         mount --bind /run/rlrun-full {0}",
        store.display(),
        user.uid,
        user.gid
    );
    let out = case.on_changed_host(&prepare, &["commit", "box", "localhost/box:1"]).run();
    out.refused(125, "are kept free").complains("rlrun rmi");
    case.run(["image", "exists", "localhost/box:1"]).code(1);
    case.run(["commit", "box", "localhost/box:1"]).ok();
    case.run(["rm", "box"]).ok();
}

#[test]
fn a_full_store_is_told_before_anything_is_started() {
    let case = case!(Userns);
    let data = case.data();
    let store = data.display();
    let prepare =
        format!("mount -t tmpfs -o size=20m tmpfs {store} && chown {0}:{1} {store}", case.user().uid, case.user().gid);
    let out = case.on_changed_host(&prepare, &["run", "--rm", rlrun_tests::BASE, "true"]).run();
    out.refused(125, "there is room for").complains("rlrun rm");
    let made = ["create", "--network", "none", rlrun_tests::BASE, "true"];
    let archive =
        case.make_file("app.tar", Image::new("localhost/app:1", base_rootfs().clone()).docker_archive().bytes());
    let archive = archive.to_str().unwrap();
    case.on_changed_host(&prepare, &["load", "-i", archive]).run().refused(125, "there is room for");
    case.on_changed_host(&prepare, &["import", archive, "localhost/other:1"]).run().refused(125, "there is room for");
    case.on_changed_host(&prepare, &made).run().refused(125, "there is room for");
    case.on_changed_host(&prepare, &["pull", "localhost/other"]).run().refused(125, "there is room for");
    case.on_changed_host(&prepare, &["ps"]).run().ok();
}

#[test]
fn fork_bombs_of_any_style_leave_others_responsive_and_go_at_once() {
    let case = case!(Userns).keeping_containers();
    // A machine that is busy already takes its time without any bomb.
    let began = std::time::Instant::now();
    case.in_base(["true"]).ok();
    let usual = began.elapsed();
    for style in
        ["bomb() { bomb | bomb & }; bomb; wait; sleep 100", "while :; do setsid sh -c 'sh -c \"sleep 100 &\" &' & done"]
    {
        case.detached(&["--name", "bomb", "--pids-limit", "200", "-m", "256m", "--cpus", "0.5"], ["sh", "-c", style]);
        let full = until(90, || (stats(&case, "bomb")["pids"].as_str()?.parse::<u32>().ok()? > 100).then_some(()));
        assert!(full.is_some(), "{}", stats(&case, "bomb"));
        let began = std::time::Instant::now();
        case.in_base(["true"]).ok();
        let patience = usual * 10 + std::time::Duration::from_secs(5);
        assert!(began.elapsed() < patience, "another container starts: {:?}, usually {usual:?}", began.elapsed());
        case.run(["kill", "bomb"]).ok();
        let gone = until(30, || {
            (case.run(["inspect", "--format", "{{.State.Status}}", "bomb"]).out().trim() == "exited").then_some(())
        });
        assert!(gone.is_some());
        case.run(["rm", "bomb"]).ok();
    }
}
