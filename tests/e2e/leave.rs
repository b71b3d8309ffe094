//! Leaving a container that was started in the foreground, and coming back to it.

use nix::sys::signal::{Signal, kill};
use nix::sys::termios::LocalFlags;
use rlrun_tests::{BASE, Case, Exit, Terminal, case, eventually, payload_of, until};

const ECHOING: &str = "trap 'exit 9' TERM; echo begun; while read a; do echo \"<$a>\"; done; exit 3";

/// `rlrun WORDS...` on a terminal.
fn terminal(case: &Case, words: &[&str]) -> Terminal {
    Terminal::start(case.rlrun(words).leaving_processes(), 31, 90)
}

/// Types the keys that leave, and sees that the terminal is as it was.
fn leave(mut terminal: Terminal, keys: &str) -> String {
    terminal.type_text(keys);
    eventually("it is left", || !terminal.running.alive());
    assert_eq!(terminal.state().local_flags, terminal.before.local_flags);
    let screen = terminal.screen();
    assert_eq!(terminal.running.wait(), Exit::Code(0));
    screen
}

fn is_raw(terminal: &Terminal) -> bool {
    !terminal.state().local_flags.contains(LocalFlags::ICANON)
}

fn running(case: &Case) -> String {
    case.run(["ps", "--format", "{{.Names}} {{.State}}"]).ok().out().trim().to_owned()
}

#[test]
fn run_is_left_by_keys_and_the_container_goes_on_until_its_own_end() {
    let case = case!(Userns).keeping_containers();
    let words = ["run", "--rm", "-it", "--name", "box", "--network", "none", BASE, "sh", "-c", ECHOING];
    let mut first = terminal(&case, &words);
    first.wait_for("begun");
    first.type_text("one\r");
    first.wait_for("<one>");
    let screen = leave(first, "\x10\x11");
    assert!(screen.trim_end().ends_with("<one>"), "nothing is said about leaving: {screen:?}");
    assert_eq!(running(&case), "box running");
    let log = case.run(["logs", "box"]).ok().out();
    assert!(log.contains("<one>"), "{log}");

    let mut second = terminal(&case, &["attach", "--detach-keys", "ctrl-x,q", "box"]);
    eventually("it is raw", || is_raw(&second));
    // A beginning that does not go on is the container's.
    second.type_text("\x18a\r");
    second.wait_for("<\x18a>");
    leave(second, "\x18q");

    let mut third = terminal(&case, &["attach", "box"]);
    eventually("it is raw", || is_raw(&third));
    third.type_text("\x04");
    assert_eq!(third.running.wait(), Exit::Code(3));
    // It leaves nothing, and its name is free the moment it has been told.
    case.run(["container", "exists", "box"]).code(1);
    assert!(case.supervisors().is_empty());
}

#[test]
fn what_is_started_again_is_left_by_keys_of_the_users_choice() {
    let case = case!(Userns).keeping_containers();
    case.run(["create", "-it", "--name", "box", "--network", "none", BASE, "sh", "-c", ECHOING]).ok();
    let mut first = terminal(&case, &["start", "-ai", "--detach-keys", "ctrl-a", "box"]);
    first.wait_for("begun");
    // The usual keys are the container's.
    first.type_text("\x10z\r");
    first.wait_for("<\x10z>");
    leave(first, "\x01");
    assert_eq!(running(&case), "box running");
    let mut second = terminal(&case, &["start", "-ai", "--detach-keys", "", "box"]);
    eventually("it is raw", || is_raw(&second));
    second.type_text("\x10\x01\r");
    second.wait_for("<\x10\x01>");
    case.run(["kill", "--signal", "TERM", "box"]).ok();
    assert_eq!(second.running.wait(), Exit::Code(9));
}

#[test]
fn a_signal_is_for_rlrun_alone_where_the_user_wants_it() {
    let case = case!(Userns).keeping_containers();
    let words = ["run", "-i", "--sig-proxy=false", "--name", "box", "--network", "none", BASE, "sh", "-c", ECHOING];
    let mut first = case.rlrun(words).leaving_processes().spawn();
    std::io::Write::write_all(first.stdin.as_mut().unwrap(), b"one\n").unwrap();
    first.wait_for("<one>");
    first.signal(Signal::SIGTERM);
    assert_eq!(first.finish().exit, Exit::Code(143));
    assert_eq!(running(&case), "box running");
    case.run(["attach", "--sig-proxy=false", "box"]).code(3);
    // The same where it is passed on.
    let again = case.rlrun(["start", "-a", "box"]).leaving_processes().spawn();
    again.wait_for("begun");
    again.signal(Signal::SIGTERM);
    again.finish().code(9);
}

#[test]
fn a_start_that_fails_is_told_where_it_is_typed_and_leaves_nothing() {
    let case = case!(Userns);
    for (command, code) in [("/no/such/program", 127), ("/etc/passwd", 126)] {
        let terminal = terminal(&case, &["run", "--rm", "-it", "--network", "none", BASE, command]);
        terminal.wait_for("hint: ");
        eventually("it ends", || !terminal.running.alive());
        assert_eq!(terminal.state().local_flags, terminal.before.local_flags);
        let screen = terminal.screen();
        assert_eq!(screen.matches("Error: ").count(), 1, "{screen}");
        assert!(screen.contains(command) && screen.contains("hint: "), "{screen}");
        assert_eq!(terminal.running.wait(), Exit::Code(code));
    }
    assert!(case.supervisors().is_empty());
}

#[test]
fn whoever_started_it_is_killed_and_nothing_goes_on() {
    let case = case!(Userns);
    for option in ["-it", "-t", "-i", "--sig-proxy=false"] {
        let words = ["run", "--rm", option, "--network", "none", BASE, "sh", "-c", "echo begun; sleep 1000"];
        let first = terminal(&case, &words);
        first.wait_for("begun");
        first.running.signal(Signal::SIGKILL);
        first.running.wait();
        eventually("all of it ends", || case.supervisors().is_empty());
        assert_eq!(running(&case), "", "{option}");
    }
}

#[test]
fn whoever_looks_is_killed_and_the_container_goes_on() {
    let case = case!(Userns).keeping_containers();
    let words = ["run", "-dit", "--rm", "--name", "box", "--network", "none", BASE, "sh", "-c", ECHOING];
    case.rlrun(words).leaving_processes().run().ok();
    let first = terminal(&case, &["attach", "box"]);
    eventually("it is raw", || is_raw(&first));
    first.running.signal(Signal::SIGKILL);
    first.running.wait();
    assert_eq!(running(&case), "box running");
    let second = terminal(&case, &["attach", "box"]);
    eventually("it is raw", || is_raw(&second));
    kill(case.supervisors()[0], Signal::SIGKILL).unwrap();
    second.wait_for("its supervisor was killed");
    assert_eq!(second.state().local_flags, second.before.local_flags);
    assert_eq!(second.running.wait(), Exit::Code(125));
    assert_eq!(running(&case), "");
}

#[test]
fn whoever_starts_it_is_killed_before_it_runs_and_nothing_is_left() {
    let case = case!(Userns);
    for processes in 0..4 {
        let words = ["run", "--rm", "-it", "--network", "none", BASE, "probe", "wait"];
        let terminal = terminal(&case, &words);
        let pid = terminal.running.pid;
        until(5, || (rlrun_tests::descendants(pid).len() >= processes || !terminal.running.alive()).then_some(()));
        terminal.running.signal(Signal::SIGKILL);
        terminal.running.wait();
        // It may have been too late, and then the container runs.
        eventually("it is decided", || {
            let supervisors = case.supervisors();
            supervisors.iter().all(|pid| payload_runs(*pid))
        });
        case.run(["rm", "-f", "-t", "0", "--all"]).ok();
        assert!(case.supervisors().is_empty());
    }
    case.in_base(["true"]).ok();
}

fn payload_runs(supervisor: nix::unistd::Pid) -> bool {
    let all = rlrun_tests::descendants(supervisor);
    all.iter().any(|pid| std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "probe\n"))
}

#[test]
fn the_container_has_the_terminals_size_from_the_first_moment_and_follows_it() {
    let case = case!(Userns).keeping_containers();
    let words = ["run", "--rm", "-it", "--network", "none", BASE, "probe", "window"];
    let terminal = terminal(&case, &words);
    terminal.wait_for("window ");
    assert!(terminal.screen().starts_with("window 31 90"), "{}", terminal.screen());
    terminal.resize(40, 100);
    terminal.wait_for("window 40 100");
    kill(payload_of(terminal.running.pid, "probe"), Signal::SIGKILL).unwrap();
    assert_eq!(terminal.running.wait(), Exit::Code(137));
}
