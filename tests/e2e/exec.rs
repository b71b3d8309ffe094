//! `exec`: a command in a running container has the container's confinement, counts among its processes, and is not a
//! way into rlrun.

use nix::sys::signal::{Signal, kill};
use nix::sys::termios::LocalFlags;
use rlrun_tests::{BASE, Case, Exit, Terminal, case, descendants, eventually, payload_of, stream_compare, until};
use serde_json::Value;
use std::process::Stdio;

/// A container called `box` that waits, removed when the case ends it.
fn container(case: &Case, options: &[&str]) -> String {
    case.detached(&[&["--rm", "--name", "box"], options].concat(), ["probe", "wait"])
}

fn exec(case: &Case, options: &[&str], command: &[&str]) -> rlrun_tests::Output {
    case.rlrun(["exec"]).args(options).args(["box"]).args(command).run()
}

#[test]
fn a_commands_output_and_exit_code_are_its_own() {
    let case = case!(Userns).keeping_containers();
    container(&case, &[]);
    let out = exec(&case, &[], &["sh", "-c", "echo out; echo err >&2; exit 7"]);
    out.code(7).prints("out");
    assert_eq!(out.err(), "err\n");
    exec(&case, &[], &["sh", "-c", "kill -TERM $$"]).code(143);
    exec(&case, &[], &["no-such-program"]).refused(127, "not found in $PATH");
    exec(&case, &[], &["/no/such/program"]).refused(127, "/no/such/program");
    exec(&case, &[], &["/etc/passwd"]).refused(126, "/etc/passwd");
    exec(&case, &["-w", "/no/such"], &["true"]).refused(126, "/no/such");
    case.run(["container", "exec", "-l", "echo", "newest"]).ok().prints("newest");
}

#[test]
fn streams_pass_every_byte() {
    let case = case!(Userns).keeping_containers();
    container(&case, &[]);
    let out = exec(&case, &[], &["probe", "emit", "5", "20000000"]);
    assert_eq!(stream_compare(&mut &out.ok().stdout[..], 5), Ok(20_000_000));
    let input: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    let count = case.rlrun(["exec", "-i", "box", "wc", "-c"]).stdin(input).run();
    count.ok().prints("3000000");
    // Without -i there is nothing to read, whatever the caller has.
    case.rlrun(["exec", "box", "cat"]).stdin("secret").run().ok().prints("");
    // A half closed input: the command still answers after its end of file.
    case.rlrun(["exec", "-i", "box", "sh", "-c", "cat; echo after"]).stdin("x\n").run().ok().prints("x\nafter");
}

#[test]
fn environment_user_and_directory() {
    let case = case!(Userns, Subid).keeping_containers();
    container(&case, &["-e", "KEPT=1", "-e", "SET=old", "-w", "/etc"]);
    let show = "echo $KEPT $SET $FILE $HOME; pwd; id -u; id -g";
    let file = case.make_file("env", "FILE=f\nSET=file\n");
    let options = ["-e", "SET=new", "--env-file", file.to_str().unwrap()];
    exec(&case, &options, &["sh", "-c", show]).ok().prints("1 new f /root\n/etc\n0\n0");
    exec(&case, &["-u", "4321:1234", "-w", "/"], &["sh", "-c", show]).ok().prints("1 old /\n/\n4321\n1234");
    exec(&case, &["-u", "nobody-here"], &["true"]).refused(126, "nobody-here");
    case.rlrun(["exec", "-e", "BARE", "box", "sh", "-c", "echo $BARE"]).env("BARE", "mine").run().ok().prints("mine");
    // The files of the container as they are now, not those of the image.
    exec(&case, &[], &["sh", "-c", "echo late:x:77:78::/late:/bin/sh >> /etc/passwd"]).ok();
    exec(&case, &["-u", "late"], &["sh", "-c", "id -u; id -g; echo $HOME"]).ok().prints("77\n78\n/late");
    // A link to the host's file leads nowhere.
    exec(&case, &[], &["sh", "-c", "ln -sf /proc/1/root/etc/shadow /etc/passwd"]).ok();
    exec(&case, &["-u", "late"], &["true"]).refused(126, "late");
}

#[test]
fn a_command_is_confined_as_its_container_is() {
    let case = case!(Userns).keeping_containers();
    let show = "grep -E '^(Cap|NoNewPrivs|Seccomp|Uid|Gid|Groups|Cpus_allowed_list)' /proc/self/status; \
        cat /proc/self/oom_score_adj; ulimit -a; umask; cut -d' ' -f19 /proc/self/stat; \
        for n in user mnt pid net ipc uts cgroup; do readlink /proc/self/ns/$n; done";
    let options = [
        "--cap-drop",
        "setuid",
        "--ulimit",
        "nofile=100:200",
        "--oom-score-adj",
        "300",
        "--umask",
        "0077",
        "--cpu-shares",
        "512",
        "--cpuset-cpus",
        "0",
    ];
    let script = format!("{{ {show}; }} > /tmp/own; exec probe wait");
    case.detached(&[&["--rm", "--name", "box"], &options[..]].concat(), ["sh", "-c", &script]);
    let own = until(10, || Some(exec(&case, &[], &["cat", "/tmp/own"]).out()).filter(|text| text.contains("cgroup:")));
    assert_eq!(exec(&case, &[], &["sh", "-c", show]).ok().out(), own.unwrap());
    let denied = exec(&case, &[], &["probe", "denied-calls"]).out();
    let reference = case.in_base(["probe", "denied-calls"]).out();
    assert_eq!(denied, reference);
    exec(&case, &[], &["probe", "open", "/proc/kcore", "r"]).ok();
    assert!(!exec(&case, &[], &["sh", "-c", "head -c1 /proc/kcore | wc -c; ls /proc/self/fd"]).out().contains("3\n4"));
}

#[test]
fn a_command_finds_no_descriptor_of_the_host() {
    let case = case!(Userns).keeping_containers();
    container(&case, &[]);
    let secret = case.make_file("secret", "x");
    let out = case.rlrun(["exec", "box", "sh", "-c", "ls -l /proc/self/fd"]).leaking(&secret).run().ok().out();
    assert!(!out.contains("secret") && !out.contains("socket:"), "{out}");
    assert_eq!(out.matches("pipe:").count() + out.matches("/dev/null").count(), 3, "{out}");
}

#[test]
fn named_descriptors_are_passed_on() {
    let case = case!(Userns).keeping_containers();
    container(&case, &[]);
    let rlrun = case.program();
    let script = "exec 3<&0 0</dev/null; \"$0\" exec --preserve-fds 1 box sh -c 'cat <&3'";
    let sh = case.invoke("/bin/sh".as_ref()).args(["-c", script, rlrun.to_str().unwrap()]);
    sh.stdin("through three").run().ok().prints("through three");
    case.run(["exec", "--preserve-fds", "2", "box", "true"]).refused(125, "not open");
    let script = "exec 3</; \"$0\" exec --preserve-fds 1 box ls /proc/self/fd/3/";
    case.invoke("/bin/sh".as_ref()).args(["-c", script, rlrun.to_str().unwrap()]).run().refused(125, "directory");
}

#[test]
fn a_command_counts_among_the_containers_processes() {
    let case = case!(Userns).keeping_containers();
    container(&case, &["--pids-limit", "20"]);
    let more = case.rlrun(["exec", "box", "probe", "forks-wait", "100"]).spawn();
    more.wait_for("18 EAGAIN");
    exec(&case, &[], &["true"]).refused(125, "box").complains("--pids-limit");
    more.signal(Signal::SIGTERM);
    more.finish();
}

#[test]
fn a_command_shares_the_containers_processor_time() {
    let case = case!(Userns).keeping_containers();
    container(&case, &["--cpus", "0.2"]);
    // The probe burns for five seconds on the clock and then says how much it got.
    let out = exec(&case, &[], &["sh", "-c", "probe burn 1 5; cut -d' ' -f16,17 /proc/$$/stat"]).ok().out();
    let ticks: u32 = out.split_whitespace().filter_map(|n| n.parse::<u32>().ok()).sum();
    assert!((20..=140).contains(&ticks), "{ticks} hundredths of a second in five seconds at a fifth of a CPU");
}

#[test]
fn a_command_ends_with_its_container() {
    let case = case!(Userns).keeping_containers();
    container(&case, &[]);
    let command = case.rlrun(["exec", "box", "probe", "ignore-signals"]).spawn();
    command.wait_for("ready");
    let supervisor = case.supervisors().into_iter().find(|pid| *pid != command.running.pid).unwrap();
    kill(supervisor, Signal::SIGKILL).unwrap();
    command.finish().code(137);
}

#[test]
fn a_command_whose_rlrun_is_killed_loses_its_streams_and_ends_with_the_container_at_last() {
    let case = case!(Userns).keeping_containers();
    container(&case, &[]);
    let command =
        case.rlrun(["exec", "-i", "box", "sh", "-c", "echo ready; cat; sleep 1000"]).leaving_processes().spawn();
    command.wait_for("ready");
    command.signal(Signal::SIGKILL);
    command.finish();
    let runs = || exec(&case, &[], &["sh", "-c", "grep -l ^sleep /proc/[0-9]*/comm | wc -l"]).out().trim() == "1";
    eventually("its input has ended and it goes on", runs);
    let below = |pid| descendants(pid).len();
    let supervisor = case.supervisors()[0];
    assert!(below(supervisor) >= 2);
    kill(supervisor, Signal::SIGKILL).unwrap();
    eventually("nothing of it is left", || {
        let mut all = std::fs::read_dir("/proc").unwrap().flatten();
        !all.any(|e| std::fs::read(e.path().join("cmdline")).is_ok_and(|c| c.starts_with(b"sleep\x001000\0")))
    });
}

#[test]
fn signals_reach_the_command() {
    let case = case!(Userns).keeping_containers();
    container(&case, &[]);
    for (signal, number) in [(Signal::SIGTERM, 15), (Signal::SIGINT, 2), (Signal::SIGUSR1, 10)] {
        let command = case.rlrun(["exec", "box", "probe", "trap"]).spawn();
        command.wait_for("ready");
        command.signal(signal);
        command.finish().ok().says(&format!("got {number}"));
    }
}

#[test]
fn a_container_that_cannot_take_a_command_says_why() {
    let case = case!(Userns).keeping_containers();
    case.run(["exec", "nothing", "true"]).refused(125, "no such container").complains("hint: rlrun ps -a");
    case.run(["exec", "-l", "true"]).refused(125, "no container");
    case.run(["exec"]).refused(125, "missing");
    let id = case.detached(&["--name", "over"], ["true"]);
    let container = case.data().join("containers").join(&id);
    eventually("it ends", || std::fs::read_to_string(container.join("state")).unwrap().contains("\npid 0"));
    case.run(["exec", "over", "true"]).refused(125, "not running").complains("rlrun start over");
    self::container(&case, &[]);
    case.run(["exec", "box"]).refused(125, "COMMAND");
    case.run(["exec", "--detach-keys", "ctrl-pp", "box", "true"]).refused(125, "--detach-keys");
}

#[test]
fn policies_are_asked_and_it_is_written_down() {
    let case = case!(Userns).keeping_containers();
    let built = std::env::var("RLRUN_HOSTILE_POLICY").expect("make test says where the hostile policy is");
    let directory = case.make_dir("policies");
    let policy = case.make_file("policies/hostile.wasm", std::fs::read(built).unwrap());
    case.make_file("policies/hostile.toml", "how = \"allow\"\n");
    let id = container(&case, &["--policy", policy.to_str().unwrap()]);
    exec(&case, &["-t", "-u", "5"], &["forbidden", "word"])
        .refused(125, "forbidden word as 5 in box, privileged false, terminal true");
    exec(&case, &["--privileged"], &["true"]).refused(125, "baseline").complains("privileged command");
    exec(&case, &["-e", "KEY=hunter2"], &["sh", "-c", "exit 4"]).code(4);
    // The container was started with this policy: without its word nothing starts in it.
    std::fs::rename(&policy, directory.join("gone")).unwrap();
    exec(&case, &[], &["true"]).refused(125, "hostile");
    let text = case.run(["audit", "export"]).ok().out();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let execs: Vec<&Value> = lines.iter().filter(|line| line["operation"] == "exec").collect();
    assert_eq!(execs.iter().filter(|line| line["outcome"] == "denied").count(), 3, "{text}");
    let done = execs.iter().find(|line| line["outcome"] == "done").unwrap();
    assert_eq!((&done["events"][0]["action"], &done["events"][0]["id"]), (&"exec".into(), &id.as_str().into()));
    assert!(done["verdicts"].as_array().unwrap().len() == 2 && !text.contains("hunter2"), "{done}");
    let events = ["events", "--since", "10m", "--stream=false", "--filter", "container=box", "--format", "{{.Status}}"];
    let seen = || case.run(events).ok().out();
    eventually("the end is told", || seen().contains("exec\nexec_died"));
}

#[test]
fn in_the_background_a_command_needs_nobody() {
    let case = case!(Userns).keeping_containers();
    container(&case, &[]);
    let exec_d = |options: &[&str], command: &[&str]| {
        case.rlrun(["exec", "-d"]).args(options).args(["box"]).args(command).leaving_processes().run()
    };
    let session = exec_d(&[], &["sh", "-c", "echo done > /tmp/done; exit 3"]).ok().out();
    assert_eq!(session.trim_end().len(), 64, "{session}");
    exec_d(&["-it"], &["sh", "-c", "test -t 0 && echo terminal > /tmp/terminal"]).ok();
    eventually("both have run", || {
        exec(&case, &[], &["cat", "/tmp/done", "/tmp/terminal"]).out() == "done\nterminal\n"
    });
    exec_d(&[], &["no-such-program"]).refused(127, "not found");
    let died = ["events", "--since", "10m", "--stream=false", "--filter", "event=exec_died", "--format", "json"];
    eventually("its end is told", || {
        let text = case.run(died).ok().out();
        text.lines().any(|line| line.contains(session.trim_end()) && line.contains("\"ContainerExitCode\":3"))
    });
}

#[test]
fn a_terminal_has_the_callers_size_and_is_put_back() {
    let case = case!(Userns).keeping_containers();
    container(&case, &[]);
    let terminal = Terminal::start(case.rlrun(["exec", "-it", "box", "sh", "-c", "tty; exec probe window"]), 33, 101);
    terminal.wait_for("window 33 101");
    assert!(terminal.screen().contains("/dev/pts/"), "{}", terminal.screen());
    eventually("it is raw", || !terminal.state().local_flags.contains(LocalFlags::ICANON));
    terminal.resize(50, 132);
    terminal.wait_for("window 50 132");
    let command = payload_of(terminal.running.pid, "probe");
    kill(command, Signal::SIGKILL).unwrap();
    eventually("rlrun ends", || !terminal.running.alive());
    assert_eq!(terminal.state().local_flags, terminal.before.local_flags);
    assert_eq!(terminal.running.wait(), Exit::Code(137));
}

#[test]
fn keys_reach_the_command_and_two_of_them_leave_it_alone() {
    let case = case!(Userns).keeping_containers();
    container(&case, &[]);
    let script = "trap 'echo caught; exit 5' INT; echo go; while read a; do echo \"<$a>\"; done";
    let run = |keys: &[&str]| {
        let words = [&["exec", "-it"], keys, &["box", "sh", "-c", script]].concat();
        let terminal = Terminal::start(case.rlrun(words).leaving_processes(), 24, 80);
        terminal.wait_for("go");
        terminal
    };
    let mut terminal = run(&[]);
    terminal.type_text("hello\r");
    terminal.wait_for("<hello>");
    terminal.type_text("\x03");
    terminal.wait_for("caught");
    assert_eq!(terminal.running.wait(), Exit::Code(5));
    // A lone ctrl-p is the command's after a moment.
    let mut terminal = run(&[]);
    terminal.type_text("\x10");
    terminal.wait_for("^P");
    terminal.type_text("\x10\x11");
    assert_eq!(terminal.running.wait(), Exit::Code(0));
    let listed = case.run(["top", "box", "args"]).ok().out();
    assert_eq!(listed.matches("while read a").count(), 1, "it goes on: {listed}");
    // None: both keys are the command's.
    let mut terminal = run(&["--detach-keys="]);
    terminal.type_text("\x10\x11x\r");
    terminal.wait_for("x>");
    terminal.type_text("\x04");
    assert_eq!(terminal.running.wait(), Exit::Code(0));
    let mut terminal = run(&["--detach-keys", "a,ctrl-x"]);
    terminal.type_text("a\x18");
    assert_eq!(terminal.running.wait(), Exit::Code(0));
}

#[test]
fn whoever_leaves_a_command_is_told_of_its_end_all_the_same() {
    let case = case!(Userns).keeping_containers();
    container(&case, &[]);
    let start = |script: &str| {
        let words = ["exec", "-it", "box", "sh", "-c", script];
        let terminal = Terminal::start(case.rlrun(words).leaving_processes(), 24, 80);
        terminal.wait_for("go");
        terminal
    };
    let mut terminal = start("trap '' HUP; echo go; while [ ! -e /tmp/end ]; do sleep 0.01; done; exit 7");
    terminal.type_text("\x10\x11");
    eventually("it is left", || !terminal.running.alive());
    assert_eq!(terminal.state().local_flags, terminal.before.local_flags);
    assert_eq!(terminal.running.wait(), Exit::Code(0));
    exec(&case, &[], &["touch", "/tmp/end"]).ok();
    let codes = || {
        let died = ["--filter", "event=exec_died", "--format", "{{.ContainerExitCode}}"];
        case.run(["events", "--since", "10m", "--stream=false"].into_iter().chain(died)).ok().out()
    };
    eventually("the code is told", || codes().lines().any(|code| code == "7"));
    // What the caller waits for passes signals on, and ends as the command does.
    let terminal = start("trap 'exit 9' TERM; echo go; while :; do sleep 0.01; done");
    terminal.running.signal(Signal::SIGTERM);
    assert_eq!(terminal.running.wait(), Exit::Code(9));
    // Killed, it takes its other half along, and nothing that enters is left.
    let terminal = start("echo go; while [ ! -e /tmp/never ]; do sleep 0.01; done");
    let half = descendants(terminal.running.pid);
    terminal.running.signal(Signal::SIGKILL);
    eventually("the other half is gone", || half.iter().all(|pid| !is_ours(*pid)));
    exec(&case, &[], &["touch", "/tmp/never"]).ok();
}

/// Whether a process is rlrun's, and there.
fn is_ours(pid: nix::unistd::Pid) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.starts_with("rlrun:exec"))
}

#[test]
fn root_inside_cannot_lay_hands_on_what_enters() {
    let case = case!(Userns).keeping_containers();
    // With and without the second user namespace; as much power over other processes as a container can have.
    let traced: &[&str] = &["--policy-baseline=off", "--cap-add", "SYS_PTRACE", "--security-opt", "seccomp=unconfined"];
    for options in [traced, &["--policy-baseline=off", "--privileged"]] {
        let options = [&["--rm", "--name", "box"], options].concat();
        let stalker =
            case.rlrun(["run", "--network", "none"]).args(options).args([BASE, "probe", "stalk"]).within(300).spawn();
        stalker.wait_for("ready");
        // On a busy machine most come and go while it does not run; it must have had its chance with some.
        let seen = || stalker.stdout_so_far().matches("seen ").count();
        let commands = (1..=5000).find(|n| {
            exec(&case, &[], &["true"]).ok();
            *n >= 100 && seen() >= 10
        });
        stalker.signal(Signal::SIGTERM);
        let out = stalker.finish().ok().out();
        let said = out.lines().last().unwrap().to_owned();
        assert!(said.ends_with("reached 0"), "{said}");
        assert!(commands.is_some(), "of 5000 it saw {said}");
    }
}

#[test]
fn a_hostile_terminal_directory_does_not_catch_the_stage() {
    let case = case!(Userns).keeping_containers();
    container(&case, &["--policy-baseline=off", "--cap-add", "SYS_ADMIN", "--security-opt", "seccomp=unconfined"]);
    exec(&case, &[], &["sh", "-c", "umount -l /dev/pts /dev/null; rm -f /dev/null; mkfifo /dev/pts/ptmx /dev/null"])
        .ok();
    case.rlrun(["exec", "-t", "box", "true"]).within(10).run().code(125).complains("devpts");
    case.rlrun(["exec", "box", "echo", "still"]).within(10).run().ok().prints("still");
}

#[test]
fn killing_rlrun_at_any_moment_of_the_start_leaves_nothing_but_the_container() {
    let case = case!(Userns).keeping_containers();
    container(&case, &[]);
    let inside = || exec(&case, &[], &["sh", "-c", "ls -d /proc/[0-9]* | wc -l"]).ok().out();
    let before = inside();
    for n in 0..40_u32 {
        let command = case.rlrun(["exec", "-i", "box", "cat"]).spawn();
        // A different moment each time, without a clock: that many looks at /proc.
        for _ in 0..n * 3 {
            let _pids = descendants(command.running.pid);
        }
        command.signal(Signal::SIGKILL);
        command.finish();
    }
    eventually("only the container's own process is left", || inside() == before);
}

#[test]
fn fifty_at_once() {
    let case = case!(Userns).keeping_containers();
    container(&case, &[]);
    let all: Vec<_> = (0..50)
        .map(|n| (n, case.rlrun(["exec", "box", "sh", "-c", &format!("echo {n}; exit {}", n % 7)]).spawn()))
        .collect();
    for (n, command) in all {
        command.finish().code(n % 7).prints(&n.to_string());
    }
    exec(&case, &[], &["sh", "-c", "ls -d /proc/[0-9]* | wc -l"]).ok();
}

#[test]
fn a_container_that_changed_its_root_is_entered_at_its_real_one() {
    let case = case!(Userns).keeping_containers();
    let script = "mkdir -p /jail/bin; cp $(command -v probe) /jail/bin/; exec chroot /jail /bin/probe wait";
    case.detached(&["--rm", "--name", "box"], ["sh", "-c", script]);
    let jailed = || exec(&case, &[], &["sh", "-c", "readlink /proc/1/root"]).out().trim() == "/jail";
    eventually("it has changed its root", jailed);
    exec(&case, &[], &["cat", "/etc/base-image"]).ok().prints("base");
    let quiet = case.rlrun(["exec", "box", "true"]).spawn_with(Stdio::null(), Stdio::null(), Stdio::null());
    assert_eq!(quiet.wait(), Exit::Code(0));
}
