//! Signals go to the payload; whatever dies, nothing is left.

use nix::sys::signal::Signal;
use rlrun_tests::{BASE, case, eventually};

#[test]
fn signals_are_forwarded() {
    let case = case!(Userns);
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGUSR2, Signal::SIGQUIT] {
        let container = case.spawn_base(&[], ["probe", "trap"]);
        container.signal(signal);
        container.finish().ok().says(&format!("got {}", signal as i32));
    }
}

#[test]
fn a_payload_with_init_dies_of_the_signal_and_says_so() {
    let case = case!(Userns);
    let container = case.spawn_base(&["--init"], ["probe", "wait"]);
    container.signal(Signal::SIGTERM);
    container.finish().code(143);
    let container = case.spawn_base(&["--init"], ["probe", "wait"]);
    container.signal(Signal::SIGINT);
    container.finish().code(130);
}

#[test]
fn killing_rlrun_ends_the_whole_container() {
    let case = case!(Userns).keeping_containers();
    for payload in ["wait", "ignore-signals"] {
        let container = case.spawn_base(&[], ["probe", payload]);
        container.signal(Signal::SIGKILL);
        // The warden fails the test when a process is left.
        assert_eq!(container.finish().exit, rlrun_tests::Exit::Signal(9));
    }
}

#[test]
fn killing_rlrun_ends_daemons_with_sessions_of_their_own() {
    let case = case!(Userns).keeping_containers();
    let container = case.spawn_base(&[], ["probe", "scatter-wait", "20"]);
    container.signal(Signal::SIGKILL);
    container.finish();
}

#[test]
fn the_end_of_the_payload_ends_everything_it_started() {
    let case = case!(Userns);
    case.in_base(["probe", "scatter", "20"]).ok();
    case.run_base(&["--init"], ["probe", "scatter", "20"]).ok();
}

#[test]
fn killing_rlrun_ends_the_network_helper() {
    let case = case!(Userns, Slirp).keeping_containers();
    let container = case.rlrun(["run", "--rm", BASE, "probe", "wait"]).spawn();
    container.wait_for("ready");
    container.signal(Signal::SIGKILL);
    container.finish();
}

#[test]
fn killing_rlrun_ends_the_file_system_helper() {
    let case = case!(Userns, Fuse).keeping_containers();
    let container = case.base(&[], ["probe", "wait"]).env("RLRUN_STORAGE_DRIVER", "fuse-overlayfs").spawn();
    container.wait_for("ready");
    container.signal(Signal::SIGKILL);
    container.finish();
}

#[test]
fn the_next_run_cleans_up_after_a_kill() {
    let case = case!(Userns);
    let container = case.spawn_base(&["--name", "victim"], ["probe", "wait"]);
    container.signal(Signal::SIGKILL);
    container.finish();
    // The name was claimed by a container that died with --rm: it must be free, and its record gone.
    case.run_base(&["--name", "victim"], ["true"]).ok();
}

#[test]
fn init_reaps_orphans() {
    let case = case!(Userns);
    case.run_base(&["--init"], ["probe", "zombies", "50"]).ok().prints("0");
}

#[test]
fn a_stopped_rlrun_continues() {
    let case = case!(Userns);
    let container = case.spawn_base(&[], ["probe", "trap"]);
    container.signal(Signal::SIGSTOP);
    let stat = format!("/proc/{}/stat", container.running.pid);
    eventually("rlrun stops", || std::fs::read_to_string(&stat).unwrap().contains(") T "));
    container.signal(Signal::SIGCONT);
    container.signal(Signal::SIGTERM);
    container.finish().ok();
}
