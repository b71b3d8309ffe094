//! `-t` on a real terminal.

use nix::sys::signal::Signal;
use nix::sys::termios::LocalFlags;
use rlrun_tests::{Case, Exit, Terminal, case, eventually, payload_of};

#[test]
fn the_payload_has_a_terminal_of_the_right_size() {
    let case = case!(Userns);
    let terminal = Terminal::start(
        case.base(&["-i", "-t"], ["sh", "-c", "tty; stty size; test -t 0 && test -t 2 && echo all"]),
        33,
        101,
    );
    terminal.wait_for("all");
    let screen = terminal.screen();
    assert!(screen.contains("/dev/pts/0") || screen.contains("/dev/console"), "{screen}");
    assert!(screen.contains("33 101"), "{screen}");
    terminal.running.wait();
}

#[test]
fn the_payload_learns_of_a_new_size() {
    let case = case!(Userns);
    let terminal = Terminal::start(case.base(&["-i", "-t"], ["probe", "window"]), 24, 80);
    terminal.wait_for("window 24 80");
    terminal.resize(50, 132);
    terminal.wait_for("window 50 132");
    nix::sys::signal::kill(payload_of(terminal.running.pid, "probe"), Signal::SIGKILL).unwrap();
    assert_eq!(terminal.running.wait(), Exit::Code(137));
}

#[test]
fn keys_reach_the_payload_once_and_control_c_is_its_own() {
    let case = case!(Userns);
    let mut terminal = Terminal::start(
        case.base(
            &["-i", "-t"],
            ["sh", "-c", "trap 'echo caught; exit 5' INT; echo go; read a; echo \"<$a>\"; while :; do :; done"],
        ),
        24,
        80,
    );
    terminal.wait_for("go");
    terminal.type_text("hello\r");
    terminal.wait_for("<hello>");
    assert_eq!(terminal.screen().matches("hello").count(), 2, "the line is echoed once: {}", terminal.screen());
    terminal.type_text("\x03");
    terminal.wait_for("caught");
    assert_eq!(terminal.running.wait(), Exit::Code(5));
}

/// The caller's terminal, with a container that waits.
fn raw_terminal(case: &Case) -> Terminal {
    let terminal = Terminal::start(case.base(&["-i", "-t"], ["sh", "-c", "echo ready; exec probe wait"]), 24, 80);
    terminal.wait_for("ready");
    eventually("the terminal is raw", || !terminal.state().local_flags.contains(LocalFlags::ICANON));
    terminal
}

#[test]
fn the_terminal_is_raw_while_it_runs_and_as_before_afterwards() {
    let case = case!(Userns);
    let terminal = raw_terminal(&case);
    // SIGKILL, as from the kernel when memory is short: nobody inside can tidy up.
    let payload = payload_of(terminal.running.pid, "probe");
    nix::sys::signal::kill(payload, Signal::SIGKILL).unwrap();
    eventually("rlrun ends", || !terminal.running.alive());
    let after = terminal.state();
    assert_eq!(after.local_flags, terminal.before.local_flags);
    assert_eq!(after.input_flags, terminal.before.input_flags);
    assert_eq!(after.output_flags, terminal.before.output_flags);
    assert_eq!(terminal.running.wait(), Exit::Code(137));
}

#[test]
fn whoever_is_killed_the_terminal_is_as_before() {
    let case = case!(Userns);
    let terminal = raw_terminal(&case);
    nix::sys::signal::kill(terminal.running.pid, Signal::SIGKILL).unwrap();
    eventually("the terminal is put back", || {
        let after = terminal.state();
        after.local_flags == terminal.before.local_flags && after.output_flags == terminal.before.output_flags
    });
    eventually("the container goes with who started it", || case.supervisors().is_empty());
}

#[test]
fn without_a_terminal_t_still_works() {
    let case = case!(Userns);
    for options in [&["-t"][..], &["-t", "--init"]] {
        case.run_base(options, ["sh", "-c", "test -t 1 && echo yes"]).ok().says("yes");
    }
}

#[test]
fn with_an_init_the_payload_has_the_terminal_and_its_keys() {
    let case = case!(Userns);
    let script = "trap 'exit 7' INT; echo begun; while true; do sleep 1; done";
    let mut terminal = Terminal::start(case.base(&["-it", "--init"], ["sh", "-c", script]), 24, 80);
    terminal.wait_for("begun");
    terminal.type_text("\x03");
    assert_eq!(terminal.running.wait(), Exit::Code(7));
}

#[test]
fn an_escape_sequence_arrives_unchanged() {
    let case = case!(Userns);
    let terminal = Terminal::start(case.base(&["-t"], ["printf", "\\033[31mred\\033[0m"]), 24, 80);
    terminal.wait_for("\x1b[31mred\x1b[0m");
    terminal.running.wait();
}
