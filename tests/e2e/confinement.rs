//! What the kernel enforces on the payload, read from outside: from the host's /proc, not from what rlrun says.

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use rlrun_tests::{BASE, Case, Output, case, payload_of, probe_program};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// The lines of /proc/PID/status of the payload of a running container.
fn status(pid: Pid) -> impl Fn(&str) -> String {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    move |name| {
        let line = text.lines().find(|line| line.starts_with(&format!("{name}:")));
        line.unwrap_or_else(|| panic!("no {name}")).split_once('\t').unwrap().1.trim().to_owned()
    }
}

fn inspect<T>(case: &Case, options: &[&str], look: impl Fn(Pid) -> T) -> T {
    let container = case.spawn_base(options, ["probe", "wait"]);
    let found = look(payload_of(container.running.pid, "probe"));
    container.signal(Signal::SIGKILL);
    container.finish();
    found
}

const CHOWN: u64 = 1 << 0;
const NET_RAW: u64 = 1 << 13;
const SYS_ADMIN: u64 = 1 << 21;
/// The eleven that podman gives: chown, dac_override, fowner, fsetid, kill, setgid, setuid, setpcap, net_bind_service,
/// sys_chroot, setfcap.
const PODMANS: u64 = 0x8004_05fb;

fn capabilities(pid: Pid) -> [u64; 5] {
    let status = status(pid);
    ["CapBnd", "CapEff", "CapPrm", "CapInh", "CapAmb"].map(|name| u64::from_str_radix(&status(name), 16).unwrap())
}

#[test]
fn privileges_cannot_be_gained() {
    let case = case!(Userns).keeping_containers();
    let (nnp, seccomp, filters) = inspect(&case, &[], |pid| {
        let status = status(pid);
        (status("NoNewPrivs"), status("Seccomp"), status("Seccomp_filters"))
    });
    assert_eq!((nnp.as_str(), seccomp.as_str()), ("1", "2"));
    assert!(filters.parse::<u32>().unwrap() >= 1);
}

#[test]
fn root_has_podmans_capabilities_or_fewer_and_nothing_inheritable() {
    let case = case!(Userns).keeping_containers();
    let [bounding, effective, permitted, inheritable, ambient] = inspect(&case, &[], capabilities);
    assert_eq!(bounding & !PODMANS, 0, "{bounding:x}");
    assert_eq!((effective, permitted), (bounding, bounding));
    assert_eq!((inheritable, ambient), (0, 0));
}

#[test]
fn another_user_has_none() {
    let case = case!(Userns, Subid).keeping_containers();
    let [bounding, effective, permitted, inheritable, ambient] = inspect(&case, &["-u", "app"], capabilities);
    assert_eq!(bounding & !PODMANS, 0);
    assert_eq!([effective, permitted, inheritable, ambient], [0; 4]);
}

#[test]
fn capabilities_can_be_dropped_and_added() {
    let case = case!(Userns).keeping_containers();
    assert_eq!(inspect(&case, &["--cap-drop", "all"], capabilities), [0; 5]);
    let kept = inspect(&case, &["--cap-drop", "ALL", "--cap-add", "CAP_CHOWN"], capabilities);
    assert_eq!((kept[0], kept[1]), (CHOWN, CHOWN));
    let dropped = inspect(&case, &["--cap-drop", "chown"], capabilities);
    assert_eq!(dropped[0] & CHOWN, 0);
    let added = inspect(&case, &["--cap-add", "net_raw"], capabilities);
    assert_eq!(added[1] & NET_RAW, NET_RAW);
}

#[test]
fn an_unknown_capability_is_refused() {
    let case = case!(Userns);
    case.run_base(&["--cap-add", "CAP_FLY"], ["true"]).refused(125, "CAP_FLY");
    case.run_base(&["--cap-drop", "swim"], ["true"]).refused(125, "swim");
}

#[test]
fn no_new_privileges_can_only_be_lost_by_name() {
    let case = case!(Userns).keeping_containers();
    let options = ["--security-opt", "no-new-privileges=false"];
    assert_eq!(inspect(&case, &options, |pid| status(pid)("NoNewPrivs")), "0");
}

#[test]
fn seccomp_can_only_be_lost_by_name() {
    let case = case!(Userns).keeping_containers();
    let options = ["--security-opt", "seccomp=unconfined"];
    assert_eq!(inspect(&case, &options, |pid| status(pid)("Seccomp")), "0");
}

#[test]
fn a_seccomp_profile_of_the_user_is_used() {
    let case = case!(Userns);
    let profile = r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86_64"],
        "syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":5}]}"#;
    let profile = case.make_file("profile.json", profile);
    case.run_base(&["--security-opt", &format!("seccomp={}", profile.display())], ["mkdir", "/x"])
        .code(1)
        .complains("input/output error");
}

#[test]
fn a_broken_seccomp_profile_is_refused() {
    let case = case!(Userns);
    let profile = case.make_file("profile.json", r#"{"defaultAction":"SCMP_ACT_SURPRISE"}"#);
    case.run_base(&["--security-opt", &format!("seccomp={}", profile.display())], ["true"])
        .refused(125, "profile.json");
    case.run_base(&["--security-opt", "seccomp=/no/such/profile"], ["true"]).refused(125, "/no/such/profile");
}

#[test]
fn dangerous_calls_are_denied() {
    let case = case!(Userns);
    let answers = |options: &[&str]| case.run_base(options, ["probe", "denied-calls"]).ok().out();
    let denied = |line: &str| line.ends_with("EPERM") || line.ends_with("ENOSYS");
    let filtered = answers(&[]);
    let allowed: Vec<&str> = filtered.lines().filter(|line| !denied(line)).collect();
    assert!(allowed.is_empty(), "{allowed:?}");
    // It is the filter that denies these: without it the kernel takes them, or complains of what it was given.
    let unfiltered = answers(&["--security-opt", "seccomp=unconfined"]);
    for name in ["perf_event_open", "open_by_handle_at", "unshare-user", "unshare-mount", "setns", "mount", "tiocsti"] {
        let line = unfiltered.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap();
        assert!(!denied(line), "{line}: the host denies it anyway");
    }
}

#[test]
fn calls_that_libc_probes_fail_with_enosys() {
    let case = case!(Userns);
    // glibc falls back to clone(2) on ENOSYS only.
    case.in_base(["probe", "denied-calls"]).ok().says("clone3-user ENOSYS");
}

#[test]
fn keyrings_are_out_of_reach() {
    let case = case!(Userns);
    let answers = case.in_base(["probe", "keyrings"]).ok().out();
    assert_eq!(answers.lines().count(), 4, "{answers}");
    assert!(answers.lines().all(|line| line.ends_with("EPERM") || line.ends_with("ENOSYS")), "{answers}");
}

/// Whatever a filter of the user's own lets pass: the session keyring is not the caller's (`keyrings(7)`).
#[test]
fn the_callers_keys_stay_outside() {
    let case = case!(Userns);
    let probe = case.make_file("probe", probe_program());
    std::fs::set_permissions(&probe, std::fs::Permissions::from_mode(0o755)).unwrap();
    let found = |out: Output| out.ok().out().lines().find(|line| line.starts_with("search ")).unwrap().to_owned();
    let with_key = |program: &Path| case.invoke(&probe).args(["with-key".as_ref(), program.as_os_str()]);
    assert_eq!(found(with_key(&probe).args(["keyrings"]).run()), "search ok");
    let run = ["run", "--rm", "--network", "none", "--security-opt", "seccomp=unconfined", BASE, "probe", "keyrings"];
    assert_eq!(found(with_key(&case.program()).args(run).run()), "search ENOKEY");
}

#[test]
fn the_payload_leads_a_session_of_its_own_and_holds_no_host_directory() {
    let case = case!(Userns).keeping_containers();
    inspect(&case, &[], |pid| {
        let link = |name: &str| std::fs::read_link(format!("/proc/{pid}/{name}")).unwrap();
        assert_eq!(link("cwd").to_str(), Some("/"));
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
        assert_eq!(fields[3], pid.to_string(), "session");
    });
}

#[test]
fn supervision_stays_outside_the_containers_pid_namespace() {
    let case = case!(Userns).keeping_containers();
    let container = case.spawn_base(&[], ["probe", "wait"]);
    let payload = payload_of(container.running.pid, "probe");
    let inside = std::fs::read_link(format!("/proc/{payload}/ns/pid")).unwrap();
    for pid in rlrun_tests::descendants(container.running.pid) {
        let theirs = std::fs::read_link(format!("/proc/{pid}/ns/pid")).unwrap();
        assert!(pid == payload || theirs != inside, "{pid} is inside");
    }
    container.signal(Signal::SIGKILL);
    container.finish();
}

#[test]
fn the_supervisor_is_small() {
    let case = case!(Userns).keeping_containers();
    let container = case.spawn_base(&[], ["probe", "wait"]);
    let rollup = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", container.running.pid)).unwrap();
    let kib = |name: &str| -> u64 {
        let line = rollup.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    let (rss, pss) = (kib("Rss:"), kib("Pss:"));
    container.signal(Signal::SIGKILL);
    container.finish();
    assert!(rss <= 1536, "{rss} KiB resident");
    assert!(pss <= 680, "{pss} KiB proportional");
}

#[test]
fn sys_admin_needs_a_policys_consent() {
    let case = case!(Userns).keeping_containers();
    // `baseline` is on by itself and refuses it; without it the option works.
    case.run_base(&["--cap-add", "SYS_ADMIN"], ["true"]).refused(125, "baseline");
    assert_eq!(case.run(["run", "--rm", BASE, "true"]).exit, rlrun_tests::Exit::Code(0));
    assert_eq!(inspect(&case, &["--cap-drop", "ALL"], capabilities)[0] & SYS_ADMIN, 0);
}
