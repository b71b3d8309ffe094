//! Every verb is killed at every step, and so is what it started; then one command looks, and afterwards nothing is left
//! but what is listed: no process, no directory, no name, no sign of life.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rlrun_tests::{BASE, Case, Invocation, case, descendants, eventually, until};
use std::collections::BTreeSet;

/// What a start brings about, one after the other, as somebody outside sees it.
const STEPS: [&str; 7] =
    ["nothing", "a record", "rlrun-supervisor", "rlrun:mapper", "slirp4netns", "rlrun:init", "probe"];

/// Whom to kill there.
#[derive(Clone, Copy, Debug)]
enum Victim {
    /// The process that the user started, supervisor or not.
    Command,
    /// The container's supervisor.
    Supervisor,
    /// What has just appeared.
    Newest,
}

const VICTIMS: [Victim; 3] = [Victim::Command, Victim::Supervisor, Victim::Newest];

fn end(pid: Pid) {
    if kill(pid, Signal::SIGKILL).is_err() {
        // It has ended by itself.
    }
}

fn name(pid: Pid) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned()
}

/// The processes of the case's containers, and of the command.
fn all_below(case: &Case, command: Pid) -> Vec<Pid> {
    let mut roots = case.supervisors();
    roots.push(command);
    let all: BTreeSet<Pid> = roots.into_iter().flat_map(|pid| [vec![pid], descendants(pid)].concat()).collect();
    all.into_iter().collect()
}

/// Whether the step is reached; the process that shows it.
fn reached(case: &Case, command: Pid, step: &str) -> Option<Option<Pid>> {
    match step {
        "nothing" => Some(None),
        "a record" => entries(case, "live").first().map(|_| None),
        _ => all_below(case, command).into_iter().find(|pid| name(*pid) == step).map(Some),
    }
}

fn entries(case: &Case, directory: &str) -> BTreeSet<String> {
    let Ok(entries) = std::fs::read_dir(case.data().join(directory)) else { return BTreeSet::new() };
    entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Starts it, waits for the step, and kills.
fn kill_at(case: &Case, invocation: Invocation, step: &str, victim: Victim) {
    let running = invocation.leaving_processes().spawn();
    let command = running.running.pid;
    let mut shown = None;
    until(10, || {
        shown = reached(case, command, step);
        (shown.is_some() || !running.running.alive()).then_some(())
    });
    let pids = match victim {
        Victim::Command => vec![command],
        Victim::Supervisor => case.supervisors(),
        Victim::Newest => shown.flatten().into_iter().collect(),
    };
    pids.into_iter().for_each(end);
    if let Victim::Command = victim {
        running.finish();
        return;
    }
    // Whoever lost its container says so, in time; one that went on, or began only now, is ended.
    eventually("it ends", || {
        case.run(["rm", "-f", "-t", "0", "--all"]).ok();
        !running.running.alive()
    });
    running.finish();
}

/// One command looks, and then there is what it lists and nothing else.
#[track_caller]
fn only_what_is_listed(case: &Case, what: &str) {
    // What was killed is still ending.
    let quiet = |case: &Case| {
        let listed = case.run(["ps", "-a", "--no-trunc", "--format", "{{.ID}} {{.Names}} {{.State}}"]).ok().out();
        let rows: Vec<Vec<String>> = listed.lines().map(|line| line.split(' ').map(str::to_owned).collect()).collect();
        let column = |n: usize| rows.iter().map(|row| row[n].clone()).collect::<BTreeSet<_>>();
        let running = rows.iter().filter(|row| row[2] == "running").map(|row| row[0].clone()).collect();
        let known = ["created", "running", "exited"];
        rows.iter().all(|row| known.contains(&row[2].as_str()))
            && entries(case, "containers") == column(0)
            && entries(case, "names") == column(1)
            && entries(case, "live") == running
            && case.supervisors().len() == rows.iter().filter(|row| row[2] == "running").count()
    };
    let clean = until(10, || quiet(case).then_some(()));
    let seen = ["containers", "names", "live"].map(|directory| entries(case, directory));
    assert!(
        clean.is_some(),
        "{what}: {seen:?}, supervisors {:?}\n{}",
        case.supervisors(),
        case.run(["ps", "-a"]).out()
    );
}

fn remove_all(case: &Case) {
    case.run(["rm", "-f", "-t", "0", "--all"]).ok();
    only_what_is_listed(case, "after rm --all");
    assert!(entries(case, "containers").is_empty());
}

#[test]
fn a_start_that_is_killed_at_any_step_leaves_what_is_listed() {
    let case = case!(Userns, Slirp).keeping_containers();
    let verbs: [&[&str]; 4] = [
        &["run", "--rm", "--name", "box", BASE, "probe", "wait"],
        &["run", "--name", "box", BASE, "probe", "wait"],
        &["run", "-d", "--name", "box", BASE, "probe", "wait"],
        &["run", "-d", "--rm", "--name", "box", BASE, "probe", "wait"],
    ];
    for verb in verbs {
        for step in STEPS {
            for victim in VICTIMS {
                kill_at(&case, case.rlrun(verb), step, victim);
                only_what_is_listed(&case, &format!("{verb:?}, {victim:?} killed at {step}"));
                remove_all(&case);
            }
        }
    }
    case.in_base(["true"]).ok();
}

#[test]
fn a_container_that_is_there_survives_every_kill_of_its_start_and_restart() {
    let case = case!(Userns, Slirp).keeping_containers();
    for verb in ["start", "restart"] {
        for step in STEPS {
            for victim in VICTIMS {
                case.run(["create", "--name", "box", BASE, "probe", "trap"]).ok();
                if verb == "restart" {
                    case.rlrun(["start", "box"]).leaving_processes().run().ok();
                    eventually("it is ready", || case.run(["logs", "box"]).ok().out().contains("ready"));
                }
                let what = format!("{verb}, {victim:?} killed at {step}");
                let running = case.rlrun([verb, "box"]).leaving_processes().spawn();
                let command = running.running.pid;
                let mut shown = None;
                until(10, || {
                    shown = reached(&case, command, step);
                    (shown.is_some() || !running.running.alive()).then_some(())
                });
                let pids = match victim {
                    Victim::Command => vec![command],
                    Victim::Supervisor => case.supervisors(),
                    Victim::Newest => shown.flatten().into_iter().collect(),
                };
                pids.into_iter().for_each(end);
                running.finish();
                eventually("a stop that was asked for is made", || {
                    case.run(["inspect", "-f", "{{.State.Status}}", "box"]).ok().out() != "stopping\n"
                });
                only_what_is_listed(&case, &what);
                // It is there, and starts.
                let state = case.run(["inspect", "-f", "{{.State.Status}}", "box"]).ok().out();
                if state.trim() != "running" {
                    case.rlrun(["start", "box"]).leaving_processes().run().ok();
                }
                case.run(["stop", "-t", "0", "box"]).ok();
                remove_all(&case);
            }
        }
    }
}

#[test]
fn a_restart_of_what_is_to_leave_nothing_and_a_forced_removal_survive_every_kill() {
    let case = case!(Userns, Slirp).keeping_containers();
    let verbs: [(&[&str], &[&str]); 3] = [
        (&["--rm"], &["restart", "-t", "5", "box"]),
        (&["--rm"], &["rm", "-f", "-t", "5", "box"]),
        (&["-v", "/own"], &["rm", "-f", "-v", "-t", "5", "box"]),
    ];
    for (options, verb) in verbs {
        let steps: &[&str] = if verb[0] == "restart" { &STEPS } else { &STEPS[..1] };
        for (step, looks) in steps.iter().flat_map(|step| [(*step, 0), (*step, 3), (*step, 20)]) {
            for victim in VICTIMS {
                let options = [&["run", "-d", "--name", "box"], options, &[BASE, "probe", "trap"]].concat();
                case.rlrun(options).leaving_processes().run().ok();
                eventually("it is ready", || case.run(["logs", "box"]).ok().out().contains("ready"));
                let running = case.rlrun(verb).leaving_processes().spawn();
                let command = running.running.pid;
                let mut shown = None;
                until(10, || {
                    shown = reached(&case, command, step);
                    (shown.is_some() || !running.running.alive()).then_some(())
                });
                // Later moments of the same step, without a clock.
                (0..looks).for_each(|_| drop(descendants(command)));
                let pids = match victim {
                    Victim::Command => vec![command],
                    Victim::Supervisor => case.supervisors(),
                    Victim::Newest => shown.flatten().into_iter().collect(),
                };
                pids.into_iter().for_each(end);
                running.finish();
                eventually("a stop that was asked for is made", || {
                    !case.run(["ps", "-a", "--format", "{{.State}}"]).ok().out().contains("stopping")
                });
                only_what_is_listed(&case, &format!("{verb:?}, {victim:?} killed at {step} and {looks} looks"));
                remove_all(&case);
                case.run(["volume", "prune", "-f"]).ok();
                case.run(["volume", "ls", "-q"]).ok().prints("");
            }
        }
    }
}

#[test]
fn a_removal_that_is_killed_is_finished_by_the_next_command() {
    let case = case!(Userns).keeping_containers();
    let script = "i=0; while [ $i -lt 400 ]; do mkdir /d$i; echo x > /d$i/f; i=$((i+1)); done";
    for left in [400, 399, 300, 100, 10, 1, 0] {
        let id = case.detached(&["--name", "box"], ["sh", "-c", script]);
        case.run(["wait", "box"]).ok();
        let directory = case.data().join("containers").join(&id);
        let files = || std::fs::read_dir(directory.join("upper")).map_or(0, |all| all.count());
        let running = case.rlrun(["rm", "box"]).leaving_processes().spawn();
        until(10, || (files() <= left || !running.running.alive()).then_some(()));
        running.signal(Signal::SIGKILL);
        running.finish();
        only_what_is_listed(&case, &format!("rm killed with {left} left"));
        // Either it was not begun, or it is done.
        case.run(["rm", "--ignore", "box"]).ok();
        // The name is free at once.
        case.run(["create", "--name", "box", BASE, "true"]).ok();
        remove_all(&case);
    }
}

#[test]
fn a_stop_that_is_killed_is_the_supervisors_to_finish() {
    let case = case!(Userns).keeping_containers();
    for looks in [0, 1, 5, 20] {
        let id = case.detached(&["--name", "box"], ["probe", "ignore-signals"]);
        eventually("it is ready", || case.run(["logs", &id]).ok().out().contains("ready"));
        let running = case.rlrun(["stop", "-t", "1", "box"]).leaving_processes().spawn();
        (0..looks).for_each(|_| drop(descendants(running.running.pid)));
        running.signal(Signal::SIGKILL);
        running.finish();
        let state = || case.run(["inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "box"]).ok().out();
        // Killed before it asked, it changed nothing.
        let asked = state().starts_with("stopping");
        if asked {
            eventually("it is ended all the same", || state() == "exited 137\n");
        }
        only_what_is_listed(&case, &format!("stop killed after {looks} looks"));
        remove_all(&case);
    }
    // The supervisor itself, in the middle of a stop.
    case.detached(&["--name", "box"], ["probe", "ignore-signals"]);
    let running = case.rlrun(["stop", "-t", "20", "box"]).leaving_processes().spawn();
    eventually("it is stopping", || case.run(["ps", "--format", "{{.State}}"]).ok().out() == "stopping\n");
    case.supervisors().into_iter().for_each(end);
    running.finish();
    case.run(["inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "box"]).ok().prints("exited 137");
    only_what_is_listed(&case, "supervisor killed in a stop");
}

#[test]
fn a_command_that_is_killed_on_its_way_into_a_container_leaves_the_container_as_it_was() {
    let case = case!(Userns).keeping_containers();
    let id = case.detached(&["--name", "box"], ["probe", "trap"]);
    eventually("it is ready", || case.run(["logs", &id]).ok().out().contains("ready"));
    for options in [&["exec", "box"][..], &["exec", "-d", "box"], &["exec", "-i", "box"]] {
        for processes in 0..4 {
            let words = [options, &["probe", "wait"]].concat();
            let running = case.rlrun(words).leaving_processes().spawn();
            let command = running.running.pid;
            until(5, || (descendants(command).len() >= processes || !running.running.alive()).then_some(()));
            let pids = [vec![command], descendants(command)].concat();
            end(*pids.get(processes % pids.len().max(1)).unwrap_or(&command));
            end(command);
            running.finish();
            case.run(["exec", "box", "true"]).ok();
            only_what_is_listed(&case, &format!("{options:?} killed with {processes} processes"));
        }
    }
    case.run(["stop", "box"]).ok();
    // Whatever was left running inside went with it.
    let inside = || {
        let all = std::fs::read_dir("/proc").unwrap().flatten();
        let roots = all.filter_map(|entry| std::fs::read_link(entry.path().join("root")).ok());
        roots.filter(|root| root.starts_with(case.data())).count()
    };
    eventually("nothing runs inside", || inside() == 0);
}

#[test]
fn a_commit_or_a_copy_that_is_killed_leaves_the_store_and_the_container_whole() {
    let case = case!(Userns).keeping_containers();
    let script = "i=0; while [ $i -lt 200 ]; do head -c 20000 /dev/zero > /f$i; i=$((i+1)); done; exec probe wait";
    let id = case.detached(&["--name", "box"], ["sh", "-c", script]);
    eventually("it is ready", || case.run(["logs", &id]).ok().out().contains("ready"));
    let target = case.make_dir("out");
    let target = target.to_str().unwrap();
    let verbs: [&[&str]; 3] = [
        &["commit", "box", "localhost/killed:1"],
        &["commit", "--pause", "box", "localhost/killed:1"],
        &["cp", "box:/", target],
    ];
    for verb in verbs {
        for looks in [0, 2, 8, 30] {
            let running = case.rlrun(verb).leaving_processes().spawn();
            (0..looks).for_each(|_| drop(descendants(running.running.pid)));
            running.signal(Signal::SIGKILL);
            running.finish();
            // It stood still for the command, and for nobody else.
            let state = || case.run(["inspect", "-f", "{{.State.Status}}", "box"]).ok().out();
            eventually("it goes on", || state() == "running\n");
            only_what_is_listed(&case, &format!("{verb:?} killed after {looks} looks"));
            case.run(["system", "check"]).ok();
            case.run(["exec", "box", "true"]).ok();
        }
    }
    case.run(["commit", "--pause", "box", "localhost/whole:1"]).ok();
    case.run(["run", "--rm", "--network", "none", "localhost/whole:1", "sh", "-c", "ls /f* | wc -l"])
        .ok()
        .prints("200");
}
