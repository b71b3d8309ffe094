//! `top`: a container's processes as the host knows them.

use rlrun_tests::{case, eventually};

#[test]
fn the_processes_are_those_of_the_container_and_of_its_commands() {
    let case = case!(Userns, Subid).keeping_containers();
    case.detached(&["--rm", "--name", "box"], ["sh", "-c", "probe wait & exec probe wait"]);
    case.rlrun(["exec", "-d", "-t", "-u", "4321:1234", "box", "probe", "wait"]).leaving_processes().run().ok();
    let rows = |words: &[&str]| -> Vec<Vec<String>> {
        let out = case.rlrun(["top", "box"]).args(words).run().ok().out();
        out.lines().map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
    };
    eventually("all three run", || rows(&["args"]).iter().filter(|row| row.join(" ") == "probe wait").count() == 3);
    let all = rows(&["user,pid,ppid", "comm", "seccomp", "capeff", "state"]);
    assert_eq!(all[0].join(" "), "USER PID PPID COMMAND SECCOMP EFFECTIVE CAPS STATE");
    assert_eq!(all[1][..5], ["root", "1", "0", "probe", "filter"]);
    assert_eq!((&*all[2][0], &*all[2][2]), ("root", "1"), "a child of pid 1");
    assert_eq!(all[3][..1], ["4321"]);
    assert_eq!((&*all[3][2], &*all[3][5]), ("0", "none"), "a command's parent is outside");
    assert!(all[1][5].contains("CHOWN") && !all[1][5].contains("SYS_ADMIN"), "{:?}", all[1]);
    let usual = rows(&[]);
    assert_eq!(usual[0].join(" "), "USER PID PPID %CPU ELAPSED TTY TIME COMMAND");
    assert!(usual[3].contains(&"pts/0".to_owned()), "{:?}", usual[3]);
    assert_eq!(rows(&["huser"])[1], [case.user().uid.to_string()]);
    // Other words are for the ps of the container.
    let ps = case.run(["top", "box", "-o", "pid,args"]).ok().out();
    assert!(ps.starts_with("PID") && ps.contains("probe wait"), "{ps}");
}

#[test]
fn what_cannot_be_shown_is_told() {
    let case = case!(Userns).keeping_containers();
    case.run(["top", "nothing"]).refused(125, "no such container");
    case.run(["top"]).refused(125, "missing");
    case.detached(&["--rm", "--name", "box"], ["probe", "wait"]);
    let list = case.run(["top", "--list-descriptors"]).ok().out();
    assert!(list.lines().any(|line| line == "capeff"));
    case.rlrun(["container", "top", "-l", "pid"]).run().ok().prints("PID\n1");
}
