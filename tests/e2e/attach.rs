//! `attach`: to the streams of a container that is running, on a terminal and without.

use nix::sys::signal::{Signal, kill};
use nix::sys::termios::LocalFlags;
use rlrun_tests::{Case, Exit, Terminal, case, eventually};

/// A container called `box` that says what it reads.
fn echoing(case: &Case, options: &[&str]) {
    let script = "trap 'echo caught; exit 5' INT; echo begun; while read a; do echo \"<$a>\"; done; echo over; exit 3";
    case.detached(&[&["--rm", "--name", "box"], options].concat(), ["sh", "-c", script]);
}

#[test]
fn what_is_written_comes_and_what_is_typed_goes_and_the_exit_code_is_the_containers() {
    let case = case!(Userns).keeping_containers();
    echoing(&case, &["-i"]);
    let out = case.rlrun(["attach", "box"]).stdin("one\ntwo\n").run();
    out.code(3).prints("<one>\n<two>\nover");
}

#[test]
fn to_start_one_that_runs_and_stay_with_it_is_to_attach() {
    let case = case!(Userns).keeping_containers();
    echoing(&case, &["-i"]);
    let watching = case.rlrun(["start", "-a", "box"]).leaving_processes().spawn();
    let mut typing = case.rlrun(["start", "-a", "-i", "box"]).spawn();
    eventually("both see it", || {
        std::io::Write::write_all(typing.stdin.as_mut().unwrap(), b"hello\n").unwrap();
        typing.stdout_so_far().contains("<hello>") && watching.stdout_so_far().contains("<hello>")
    });
    typing.signal(Signal::SIGINT);
    typing.wait_for("caught");
    typing.finish().code(5);
    watching.finish().code(5);
}

#[test]
fn two_are_attached_at_once_and_one_that_is_killed_takes_nothing_with_it() {
    let case = case!(Userns).keeping_containers();
    echoing(&case, &["-i"]);
    let mut first = case.rlrun(["attach", "box"]).leaving_processes().spawn();
    let second = case.rlrun(["attach", "--no-stdin", "box"]).leaving_processes().spawn();
    let type_line = |spawned: &mut rlrun_tests::Spawned, line: &str| {
        std::io::Write::write_all(spawned.stdin.as_mut().unwrap(), line.as_bytes()).unwrap();
    };
    // Until both are attached, what is written goes to whoever is.
    eventually("both see it", || {
        type_line(&mut first, "hello\n");
        first.stdout_so_far().contains("<hello>") && second.stdout_so_far().contains("<hello>")
    });
    first.signal(Signal::SIGKILL);
    first.finish();
    let mut third = case.rlrun(["attach", "box"]).spawn();
    eventually("the container still reads", || {
        type_line(&mut third, "again\n");
        third.stdout_so_far().contains("<again>")
    });
    second.wait_for("<again>");
    third.signal(Signal::SIGINT);
    third.wait_for("caught");
    third.finish().code(5);
    second.finish().code(5);
}

#[test]
fn a_terminal_is_attached_left_and_attached_again() {
    let case = case!(Userns).keeping_containers();
    echoing(&case, &["-it"]);
    let attach = |rows: u16| {
        let terminal = Terminal::start(case.rlrun(["attach", "box"]).leaving_processes(), rows, 90);
        eventually("it is raw", || !terminal.state().local_flags.contains(LocalFlags::ICANON));
        terminal
    };
    let mut terminal = attach(31);
    terminal.type_text("hello\r");
    terminal.wait_for("<hello>");
    terminal.type_text("\x10\x11");
    eventually("it is left", || !terminal.running.alive());
    assert_eq!(terminal.state().local_flags, terminal.before.local_flags);
    assert_eq!(terminal.running.wait(), Exit::Code(0));
    let size = || case.run(["exec", "box", "sh", "-c", "stty size < /dev/pts/0"]).out();
    assert_eq!(size().trim(), "31 90");
    let mut terminal = attach(44);
    eventually("the size is that of the last one", || size().trim() == "44 90");
    terminal.resize(45, 91);
    eventually("and follows it", || size().trim() == "45 91");
    terminal.type_text("\x03");
    terminal.wait_for("caught");
    assert_eq!(terminal.running.wait(), Exit::Code(5));
}

#[test]
fn a_reader_that_does_not_read_is_left_behind_and_the_container_goes_on() {
    let case = case!(Userns).keeping_containers();
    let script = "read go; i=0; while [ $i -lt 3000 ]; do echo line $i of many, long enough to fill a pipe in no time; \
        i=$((i+1)); done; echo written > /tmp/written; exec probe wait";
    case.detached(&["--rm", "-i", "--name", "box"], ["sh", "-c", script]);
    let (read, write) = nix::unistd::pipe().unwrap();
    let (input, go) = nix::unistd::pipe().unwrap();
    let err = case.make_file("err", "");
    let err = std::fs::File::options().write(true).open(err).unwrap();
    let slow = case.rlrun(["attach", "box"]).leaving_processes().spawn_with(input.into(), write.into(), err.into());
    nix::unistd::write(&go, b"go\n").unwrap();
    let written = || case.run(["exec", "box", "cat", "/tmp/written"]).out() == "written\n";
    assert!(rlrun_tests::until(30, || written().then_some(())).is_some(), "the container stands still");
    assert_eq!(slow.wait(), Exit::Code(125));
    let told = std::fs::read_to_string(case.directory().join("err")).unwrap();
    assert!(told.contains("was not read") && told.contains("hint:"), "{told}");
    drop((read, go));
}

#[test]
fn what_cannot_be_attached_to_says_why() {
    let case = case!(Userns).keeping_containers();
    case.run(["attach", "nothing"]).refused(125, "no such container");
    case.run(["attach"]).refused(125, "missing");
    let id = case.detached(&["--name", "over"], ["true"]);
    let state = case.data().join("containers").join(id).join("state");
    eventually("it ends", || std::fs::read_to_string(&state).unwrap().contains("\npid 0"));
    case.run(["attach", "over"]).refused(125, "not running").complains("rlrun start over");
    case.run(["attach", "--detach-keys", "xx", "over"]).refused(125, "--detach-keys");
    echoing(&case, &["-i"]);
    let attached = case.rlrun(["attach", "-l"]).leaving_processes().spawn();
    let supervisor = case.supervisors()[0];
    eventually("it is attached", || {
        std::fs::read_to_string(format!("/proc/{}/comm", attached.running.pid)).is_ok_and(|c| c == "rlrun:attach\n")
    });
    kill(supervisor, Signal::SIGKILL).unwrap();
    let out = attached.finish();
    assert_ne!(out.exit, Exit::Code(0));
}
