//! Ending containers: stop and kill, by name, several, all; and that nothing inside can ask for it.

use nix::sys::signal::{Signal, kill};
use rlrun_tests::{BASE, Case, case, eventually};

/// A field of `inspect`.
fn field(case: &Case, name: &str, template: &str) -> String {
    case.run(["inspect", "-f", template, name]).ok().out().trim_end().to_owned()
}

fn status(case: &Case, name: &str) -> String {
    field(case, name, "{{.State.Status}} {{.State.ExitCode}}")
}

/// A moment that is another one each time, without a clock: that many looks at /proc.
fn look(times: u32) {
    for _ in 0..times {
        assert!(std::fs::read_dir("/proc").unwrap().count() > 0);
    }
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

#[test]
fn a_created_container_waits_for_its_start_and_keeps_its_files() {
    let case = case!(Userns).keeping_containers();
    let script = "cat /kept 2>/dev/null; echo again >> /kept; exit 3";
    let out = case.run(["create", "--name", "web", "--network", "none", BASE, "sh", "-c", script]);
    let id = out.ok().out().trim_end().to_owned();
    assert_eq!(status(&case, "web"), "created 0");
    assert!(!case.data().join("live").join(&id).is_symlink(), "at rest it costs no other command anything");
    case.rlrun(["start", "web"]).leaving_processes().run().ok().prints("web");
    case.run(["wait", "web"]).ok().prints("3");
    assert_eq!(status(&case, "web"), "exited 3");
    // In the foreground the second time: output here, and the command's exit code.
    case.run(["start", "-a", "web"]).code(3).prints("again");
    case.run(["logs", "web"]).ok().prints("again");
    case.run(["restart", "nobody"]).refused(125, "no such container");
    case.run(["create", "-d", BASE]).refused(125, "nothing is started");
}

#[test]
fn a_created_container_that_is_to_leave_nothing_leaves_nothing_once_it_ran() {
    let case = case!(Userns);
    case.run(["create", "--rm", "--name", "once", "--network", "none", BASE, "true"]).ok();
    assert_eq!(status(&case, "once"), "created 0");
    case.run(["start", "-a", "once"]).ok();
    case.run(["container", "exists", "once"]).code(1);
}

#[test]
fn a_start_asks_the_policies_of_its_day() {
    let case = case!(Userns).keeping_containers();
    let options = ["create", "--name", "web", "--network", "none", "--policy-baseline=off", "-v", "/:/host"];
    case.rlrun(options).args([BASE, "true"]).run().ok();
    let directory = case.home().join(".config/rlrun/policy.d");
    case.user().private_directory(&directory);
    let broken = case.make_file("broken.wasm", "no policy");
    std::fs::rename(broken, directory.join("broken.wasm")).unwrap();
    case.run(["start", "web"]).refused(125, "broken");
    assert_eq!(status(&case, "web"), "created 0");
    std::fs::remove_file(directory.join("broken.wasm")).unwrap();
    case.rlrun(["start", "web"]).leaving_processes().run().ok();
}

#[test]
fn a_container_is_restarted_with_another_life() {
    let case = case!(Userns).keeping_containers();
    ready(&case, &["--name", "web"], "trap");
    let before = field(&case, "web", "{{.State.Pid}}");
    case.rlrun(["restart", "web"]).leaving_processes().run().ok().prints("web");
    assert_ne!(field(&case, "web", "{{.State.Pid}}"), before);
    assert_eq!(field(&case, "web", "{{.State.Status}} {{.RestartCount}}"), "running 0");
}

#[test]
fn what_is_to_leave_nothing_survives_its_restart_and_then_leaves_nothing() {
    for driver in ["overlay", "fuse-overlayfs", "copy"] {
        let case = case!(Userns, Overlay, Fuse).keeping_containers();
        let script = "echo x >> /here; mkdir -p /v/d; echo y >> /v/d/f; wc -l < /here; exec probe trap";
        let id =
            case.detached(&["--rm", "--name", "box", "-v", "/v", "--storage-driver", driver], ["sh", "-c", script]);
        let says = |text: &str| {
            let logs = || case.run(["logs", "box"]);
            eventually("it is up", || logs().out().ends_with(text));
        };
        says("1\nready\n");
        for turn in 2..4 {
            case.rlrun(["restart", "-t", "5", "box"]).leaving_processes().run().ok().prints("box");
            says(&format!("{turn}\nready\n"));
            assert_eq!(field(&case, "box", "{{.Id}} {{.State.Status}}"), format!("{id} running"));
            case.run(["exec", "box", "sh", "-c", "wc -l < /v/d/f"]).ok().prints(&turn.to_string());
        }
        case.run(["stop", "-t", "5", "box"]).ok();
        assert!(case.run(["ps", "-aq"]).ok().out().is_empty());
        assert!(!case.data().join("containers").join(&id).exists());
    }
    let case = case!(Userns, Overlay);
    case.detached(&["--rm", "--name", "box", "--storage-opt", "size=8m"], ["probe", "trap"]);
    case.run(["restart", "box"]).refused(125, "in memory");
    case.run(["rm", "-f", "box"]).ok();
}

#[test]
fn remove_needs_force_for_what_runs() {
    let case = case!(Userns);
    ready(&case, &["--name", "web"], "ignore-signals");
    case.run(["rm", "web"]).code(2).complains("rlrun rm -f web");
    case.run(["rm", "nobody"]).code(1).complains("no such container");
    case.run(["rm", "-f", "-t", "0", "web", "nobody"]).ok().prints("web");
    case.detached(&["--name", "done"], ["true"]);
    case.run(["wait", "done"]).ok().prints("0");
    let id = case.detached(&[], ["probe", "wait"]);
    let out = case.run(["rm", "-f", "-t", "0", "--all"]);
    assert!(out.ok().out().contains(&id) && out.out().lines().count() == 2, "{}", out.out());
    case.run(["ps", "-aq"]).ok().prints("");
    case.run(["rm"]).code(125).complains("names no container");
}

#[test]
fn a_supervisor_that_does_not_answer_is_ended_with_force() {
    let case = case!(Userns);
    ready(&case, &["--name", "web"], "wait");
    // It is asked for the stop and never reads it.
    kill(case.supervisors()[0], Signal::SIGSTOP).unwrap();
    case.run(["rm", "-f", "web"]).ok().prints("web");
    assert!(case.supervisors().is_empty());
}

#[test]
fn prune_removes_what_rests() {
    let case = case!(Userns);
    let running = ready(&case, &["--label", "keep"], "wait");
    let ended = case.detached(&["--label", "go"], ["true"]);
    case.run(["wait", &ended]).ok();
    let created = case.run(["create", "--network", "none", BASE, "true"]).ok().out().trim().to_owned();
    case.run(["container", "prune"]).code(125).complains("--force");
    case.run(["container", "prune", "-f", "--filter", "label=go"]).ok().prints(&ended);
    case.run(["container", "prune", "-f"]).ok().prints(&created);
    case.run(["ps", "-a", "-q", "--no-trunc"]).ok().prints(&running);
    case.run(["rm", "-f", "-t", "0", &running]).ok();
}

#[test]
fn prune_of_everything_leaves_what_is_used() {
    let case = case!(Userns);
    let running = ready(&case, &["--name", "stays", "-v", "used:/mnt"], "wait");
    let ended = case.detached(&["--label", "go", "-v", "unused:/mnt"], ["true"]);
    case.run(["wait", &ended]).ok();
    case.run(["system", "prune"]).code(125).complains("all containers that do not run").complains("--force");
    case.run(["system", "prune", "-f", "--filter", "name=x"]).refused(125, "no such filter");
    let out = case.run(["system", "prune", "-f"]).ok().out();
    assert!(out.starts_with(&format!("Deleted Containers\n{ended}\nTotal reclaimed space: ")), "{out}");
    let out = case.run(["system", "prune", "-a", "-f", "--volumes"]).ok().out();
    assert!(out.starts_with("Deleted Volumes\nunused\nTotal reclaimed space: "), "{out}");
    case.run(["ps", "-a", "-q", "--no-trunc"]).ok().prints(&running);
    case.run(["images", "-q"]).ok().says("\n");
    case.run(["rm", "-f", "-t", "0", "stays"]).ok();
}

#[test]
fn a_name_can_be_changed_taken_and_replaced() {
    let case = case!(Userns);
    let first = ready(&case, &["--name", "web"], "trap");
    case.run(["rename", "web", "old"]).ok();
    assert_eq!(field(&case, "old", "{{.Id}} {{.Name}}"), format!("{first} old"));
    case.run(["inspect", "web"]).code(125);
    let second = ready(&case, &["--name", "web"], "trap");
    case.run(["rename", "web", "old"]).refused(125, "in use by container");
    let third = ready(&case, &["--name", "web", "--replace"], "trap");
    assert_ne!(second, third);
    case.run(["container", "exists", &second]).code(1);
    assert_eq!(field(&case, "web", "{{.Id}}"), third);
    // The supervisor knows the new name: with the container goes this one, and not that of somebody else.
    case.run(["stop", "old"]).ok();
    let events = case.run(["events", "--stream=false", "--filter", "event=died", "--format", "{{.Name}}"]);
    assert!(events.ok().out().contains("old"), "{}", events.out());
    case.run(["rm", "-f", "old", "web"]).ok();
    case.base(&["--replace"], ["true"]).run().refused(125, "--name");
}

#[test]
fn what_fails_is_started_again_with_pauses_and_counted() {
    let case = case!(Userns).keeping_containers();
    let id = case.detached(&["--restart", "on-failure:2", "--name", "web"], ["sh", "-c", "echo turn; exit 4"]);
    eventually("it gives up", || {
        field(&case, "web", "{{.State.Status}} {{.RestartCount}} {{.State.ExitCode}}") == "exited 2 4"
            && case.supervisors().is_empty()
    });
    case.run(["logs", &id]).ok().prints("turn\nturn\nturn");
    let events = |name: &str| {
        let filter = format!("event={name}");
        let options = ["events", "--stream=false", "--filter", "container=web", "--filter", &filter];
        case.rlrun(options).args(["--format", "{{.Name}}"]).run().ok().out().lines().count()
    };
    assert_eq!((events("start"), events("died"), events("restart")), (3, 3, 2));
    assert_eq!(field(&case, "web", "{{.HostConfig.RestartPolicy.Name}}"), "on-failure");
    case.base(&["--restart=always"], ["true"]).run().refused(125, "leave out --rm or --restart");
}

#[test]
fn what_the_user_stops_stays_stopped_also_between_two_lives() {
    let case = case!(Userns).keeping_containers();
    ready(&case, &["--restart", "always", "--name", "web"], "trap");
    case.run(["kill", "web"]).ok();
    eventually("it runs again", || field(&case, "web", "{{.State.Status}} {{.RestartCount}}") == "running 1");
    case.run(["stop", "-t", "0", "web"]).ok();
    assert_eq!(field(&case, "web", "{{.State.Status}} {{.RestartCount}}"), "exited 1");
    // `true` ends at once: soon it is in a pause, which a stop ends too.
    case.detached(&["--restart", "unless-stopped", "--name", "short"], ["true"]);
    eventually("it waits", || field(&case, "short", "{{.State.Status}}") == "restarting");
    case.run(["stop", "short"]).ok();
    assert_eq!(field(&case, "short", "{{.State.Status}}"), "exited");
    assert!(case.supervisors().is_empty());
    let boot = |wanted: &str| {
        let filter = format!("should-start-on-boot={wanted}");
        case.run(["ps", "-a", "--filter", &filter, "--format", "{{.Names}}"]).ok().out().trim_end().to_owned()
    };
    assert_eq!((boot("true"), boot("false")), ("web".to_owned(), "short".to_owned()));
    // As the service does after a reboot.
    let out = case.rlrun(["start", "--all", "--filter", "restart-policy=always"]).leaving_processes().run();
    out.ok().prints(&field(&case, "web", "{{.Id}}"));
    case.run(["stop", "-t", "0", "web"]).ok();
}

#[test]
fn a_time_limit_and_a_stop_signal_of_its_own() {
    let case = case!(Userns);
    case.base(&["--timeout", "1"], ["probe", "wait"]).run().code(137);
    ready(&case, &["--name", "web", "--stop-signal", "USR1"], "trap");
    case.run(["stop", "web"]).ok();
    case.run(["logs", "web"]).ok().says("got 10");
    ready(&case, &["--name", "deaf", "--stop-timeout", "0"], "ignore-signals");
    case.run(["stop", "deaf"]).ok();
    case.run(["rm", "web", "deaf"]).ok();
}

#[test]
fn a_paused_container_stands_still_and_can_be_ended() {
    let case = case!(Userns).keeping_containers();
    ready(&case, &["--init", "--name", "web"], "wait");
    case.run(["pause", "web"]).ok().prints("web");
    assert_eq!(field(&case, "web", "{{.State.Status}} {{.State.Paused}}"), "paused true");
    case.run(["ps", "--filter", "status=paused", "--format", "{{.Names}}"]).ok().prints("web");
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", field(&case, "web", "{{.State.Pid}}"))).unwrap();
    assert!(stat.rsplit(") ").next().unwrap().starts_with('T'), "{stat}");
    case.run(["exec", "web", "true"]).refused(125, "paused");
    case.run(["pause", "web"]).refused(125, "it is paused");
    case.run(["start", "web"]).refused(125, "rlrun unpause web");
    case.run(["unpause", "--all"]).ok();
    assert_eq!(field(&case, "web", "{{.State.Status}}"), "running");
    case.run(["unpause", "web"]).refused(125, "it is running");
    case.run(["pause", "web"]).ok();
    case.run(["stop", "web"]).ok();
    // By the stop signal, not by force.
    assert_eq!(status(&case, "web"), "exited 143");
    ready(&case, &["--name", "second"], "wait");
    case.run(["pause", "second"]).ok();
    case.run(["kill", "second"]).ok();
    case.run(["wait", "second"]).ok().prints("137");
    let events = |name: &str| {
        let filter = format!("event={name}");
        case.run(["events", "--stream=false", "--filter", &filter, "--format", "{{.Name}}"]).ok().out()
    };
    assert_eq!((events("pause").lines().count(), events("unpause").lines().count()), (3, 1));
}

#[test]
fn wait_sees_every_end() {
    let case = case!(Userns);
    let id = ready(&case, &["--rm", "--name", "gone"], "trap");
    let waiting = case.rlrun(["wait", "gone"]).spawn();
    case.run(["wait", "--condition", "running", "gone"]).ok().prints("-1");
    case.run(["kill", "-s", "TERM", &id]).ok();
    waiting.finish().ok().prints("0");
    case.run(["wait", "gone"]).refused(125, "no such container");
    case.run(["wait", "--ignore", "gone"]).ok().prints("-1");
    case.run(["wait", "--condition", "happy", "gone"]).refused(125, "no such condition");
}

#[test]
fn sixty_four_at_a_time_all_work() {
    let case = case!(Userns);
    let running: Vec<_> = (0..64).map(|n| case.base(&[], ["sh", "-c", &format!("echo {n}")]).spawn()).collect();
    for (n, run) in running.into_iter().enumerate() {
        run.finish().ok().prints(&n.to_string());
    }
}

#[test]
fn a_command_killed_at_any_moment_leaves_a_container_that_works_or_nothing() {
    let case = case!(Userns).keeping_containers();
    for round in 0..12_u32 {
        let killed = |words: &[&str]| {
            let command = case.rlrun(words).leaving_processes().spawn();
            look(round * 2);
            if kill(command.running.pid, Signal::SIGKILL).is_err() {
                // It has ended.
            }
            command.finish();
        };
        killed(&["create", "--name", "web", "--network", "none", BASE, "probe", "trap"]);
        case.run(["create", "--replace", "--name", "web", "--network", "none", BASE, "probe", "trap"]).ok();
        killed(&["start", "web"]);
        case.rlrun(["start", "web"]).leaving_processes().run().ok();
        killed(&["rename", "web", "other"]);
        killed(&["rename", "other", "web"]);
        let id = case.run(["ps", "-q"]).ok().out().trim_end().to_owned();
        killed(&["restart", "-t", "0", &id]);
        killed(&["stop", "-t", "0", &id]);
        killed(&["rm", "-f", "-t", "0", &id]);
        case.run(["rm", "-f", "-t", "0", "--all"]).ok();
        case.run(["ps", "-aq"]).ok().prints("");
        assert!(case.supervisors().is_empty());
    }
    case.in_base(["true"]).ok();
}

#[test]
fn a_supervisor_killed_at_any_moment_leaves_a_container_that_can_be_started() {
    let case = case!(Userns).keeping_containers();
    let out = case.run(["create", "--name", "web", "--network", "none", BASE, "probe", "trap"]);
    let id = out.ok().out().trim_end().to_owned();
    for round in 0..12_u32 {
        let command = case.rlrun(["start", "web"]).leaving_processes().spawn();
        eventually("there is a supervisor", || !case.supervisors().is_empty() || !command.running.alive());
        // The first rounds fall into the start, the others into the stop.
        look(round % 6 * 2);
        let stop = (round >= 6).then(|| case.rlrun(["stop", "web"]).leaving_processes().spawn());
        for pid in case.supervisors() {
            if kill(pid, Signal::SIGKILL).is_err() {
                // It ended meanwhile.
            }
        }
        command.finish();
        drop(stop.map(rlrun_tests::Spawned::finish));
        eventually("it is gone", || case.supervisors().is_empty());
        let now = field(&case, "web", "{{.State.Status}}");
        assert!(["created", "exited"].contains(&now.as_str()), "{now}");
        case.run(["images"]).ok();
    }
    case.rlrun(["start", "web"]).leaving_processes().run().ok();
    case.run(["stop", "web"]).ok();
    assert_eq!(status(&case, "web"), "exited 0");
    assert!(!case.data().join("live").join(&id).is_symlink());
}

#[test]
fn units_start_a_container_and_whatever_is_to_run_after_a_boot() {
    let case = case!(Userns).keeping_containers();
    case.run(["create", "--name", "web", "--stop-timeout", "7", BASE, "true"]).ok();
    let unit = case.run(["generate", "systemd", "--name", "web"]);
    for line in
        ["# container-web.service", "Type=exec", "Restart=on-failure", "TimeoutStopSec=67", "loginctl enable-linger"]
    {
        unit.ok().says(line);
    }
    let start = format!("ExecStart={} start --attach web", case.program().display());
    unit.says(&start);
    case.run(["generate", "systemd"]).ok().says("start --all --filter should-start-on-boot=true");
    case.run(["generate", "cron"]).ok().says("@reboot ").says("start --all");
    case.run(["generate", "systemd", "--restart-policy", "sometimes", "web"]).refused(125, "on-failure");
    case.run(["generate", "systemd", "nobody"]).refused(125, "no such container");
}
