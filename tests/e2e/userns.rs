//! Who the container's users are on the host.

use nix::unistd::User;
use rlrun_tests::{BASE, Case, Image, Ordinary, Output, base_rootfs, case};
use std::process::Command;
use std::sync::Mutex;

fn uid_map(out: &rlrun_tests::Output) -> Vec<Vec<u64>> {
    out.ok().out().lines().map(|line| line.split_whitespace().map(|word| word.parse().unwrap()).collect()).collect()
}

#[test]
fn root_is_the_caller_and_the_rest_comes_from_the_ranges() {
    let case = case!(Userns, Subid);
    let map = uid_map(&case.in_base(["cat", "/proc/self/uid_map"]));
    let host: u64 = case.user().uid.as_raw().into();
    assert!(map[0][0] == 0 && map[0][2] == 1, "{map:?}");
    assert!(map.iter().map(|line| line[2]).sum::<u64>() > 60000, "{map:?}");
    // The map is relative to the parent namespace, so only files on the host tell who root is there.
    let shared = case.make_dir("shared");
    let volume = format!("{}:/mnt", shared.display());
    case.run_base(&["-v", &volume], ["sh", "-c", "touch /mnt/root; touch /mnt/app; chown 1000:50 /mnt/app"]).ok();
    let owner = |name: &str| {
        let found = std::fs::metadata(shared.join(name)).unwrap();
        u64::from(std::os::unix::fs::MetadataExt::uid(&found))
    };
    assert_eq!(owner("root"), host);
    assert!(owner("app") > host && owner("app") != 1000, "{}", owner("app"));
}

#[test]
fn keep_id_keeps_the_callers_id() {
    let case = case!(Userns, Subid);
    let host = case.user().uid.as_raw();
    let shared = case.make_dir("shared");
    let volume = format!("{}:/mnt", shared.display());
    let out = case.run_base(&["--userns=keep-id", "-v", &volume], ["sh", "-c", "id -u; touch /mnt/mine"]);
    out.ok().prints(&host.to_string());
    let found = std::fs::metadata(shared.join("mine")).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&found), host);
    // Files of the image still belong to the container's root.
    case.run_base(&["--userns=keep-id"], ["stat", "-c", "%u", "/etc/passwd"]).ok().prints("0");
}

#[test]
fn keep_id_needs_ranges_and_says_so() {
    let case = case!(Userns, Subid, Root);
    let out = with_grant(&case, "", &["--userns=keep-id", BASE, "true"]);
    out.refused(125, "grants").complains("subordinate ids").complains("usermod --add-subuids");
}

/// Layers that were unpacked under other ids have files of nobody's.
#[test]
fn a_store_of_other_ids_is_told_until_they_are_given_back() {
    let case = case!(Userns, Subid, Root);
    let owner = ["stat", "-c", "%u", "/etc/passwd"];
    let run = |lines: &str| with_grant(&case, lines, &[&[BASE], &owner[..]].concat());
    let told = |out: &Output| out.ok().err().contains("unpacked under other subordinate ids");
    assert!(!told(&case.in_base(owner)));
    let moved = run(&format!("{}:1000000:65536\n", case.user().name));
    assert!(told(&moved));
    moved.complains("now 1000000:65536").complains("system reset");
    assert!(!told(&case.in_base(owner)));
    let nothing = run("");
    nothing.ok().complains("only your own id is mapped");
    assert!(told(&nothing));
    nothing.complains("now none");
    // Also of an image whose own directories are others'.
    let layer = base_rootfs().clone().dir_of("etc", (33, 33), 0o755);
    let archive = case.make_file("owned.tar", Image::new("localhost/owned:1", layer).docker_archive().bytes());
    case.run(["load", "-i", archive.to_str().unwrap()]).ok();
    with_grant(&case, "\n", &["localhost/owned:1", "true"]).complains("now none");
}

/// `rlrun run` where this is all that /etc/subuid and /etc/subgid grant.
fn with_grant(case: &Case, lines: &str, words: &[&str]) -> Output {
    let file = case.make_file(&format!("grant{}", lines.len()), lines).display().to_string();
    let prepare = format!("mount --bind {file} /etc/subuid; mount --bind {file} /etc/subgid");
    case.on_changed_host(&prepare, &[&["run", "--rm", "--network", "none"], words].concat()).run()
}

#[test]
fn keep_id_can_name_other_ids() {
    let case = case!(Userns, Subid);
    case.run_base(&["--userns=keep-id:uid=200,gid=210"], ["sh", "-c", "id -u; id -g"]).ok().prints("200\n210");
}

#[test]
fn maps_of_the_users_own_are_what_the_container_has() {
    let case = case!(Userns, Subid, Fuse);
    let host: u64 = case.user().uid.as_raw().into();
    let shared = case.make_dir("shared");
    let volume = format!("{}:/mnt", shared.display());
    let maps = ["--uidmap", "0:1:2000", "--uidmap", "2000:0:1", "-v", &volume];
    let out = case.run_base(&maps, ["cat", "/proc/self/uid_map"]);
    let map = uid_map(&out);
    assert_eq!(map.iter().map(|line| (line[0], line[2])).collect::<Vec<_>>(), [(0, 2000), (2000, 1)]);
    // The image's owners are its own, and the caller's files belong to the last id.
    let script = "stat -c %u /etc/passwd /mnt; id -u; cat /proc/self/gid_map | wc -l";
    case.run_base(&maps, ["sh", "-c", script]).ok().prints("0\n2000\n0\n2");
    case.run_base(&[&maps[..], &["-u", "2000"]].concat(), ["touch", "/mnt/mine"]).ok();
    assert_eq!(u64::from(std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(shared.join("mine")).unwrap())), host);
    case.run_base(&["--uidmap", "0:0:1"], ["sh", "-c", "wc -l < /proc/self/uid_map; id -u"]).ok().prints("1\n0");
    case.run_base(&["--uidmap", "0:1:2000"], ["true"]).refused(125, "your own id");
    case.run_base(&["--uidmap", "0:0:4294967290"], ["true"]).refused(125, "not yours");
    case.run_base(&["--uidmap", "0:@0:1"], ["true"]).refused(125, "not yours");
    case.run_base(&["--uidmap", "0:0:5", "--userns", "keep-id"], ["true"]).refused(125, "together");
}

#[test]
fn maps_are_kept_for_the_next_start_and_for_commands() {
    let case = case!(Userns, Subid, Fuse).keeping_containers();
    let maps = ["--uidmap", "0:1:2000", "--uidmap", "2000:0:1", "--name", "box"];
    case.detached(&maps, ["sleep", "1000"]);
    case.run(["exec", "box", "sh", "-c", "wc -l < /proc/self/uid_map; touch /mine"]).ok().prints("2");
    case.run(["stop", "-t", "0", "box"]).ok();
    case.run(["cp", "box:/mine", "-"]).ok();
    case.rlrun(["start", "box"]).leaving_processes().run().ok();
    case.run(["exec", "box", "stat", "-c", "%u", "/mine"]).ok().prints("0");
    case.run(["inspect", "-f", "{{.HostConfig.UsernsMode}}", "box"]).ok().prints("private");
    case.run(["rm", "-f", "-t", "0", "box"]).ok();
}

#[test]
fn the_callers_groups_can_be_kept() {
    let case = case!(Userns, Subid);
    let extra = rlrun_tests::Ordinary::get().uid.as_raw();
    let program = case.program();
    // As a process with a group that no map gives to the container.
    let script = format!("exec setpriv --reuid {extra} --regid {extra} --groups {extra},65000 \"$0\" \"$@\"",);
    let run = |options: &[&str]| {
        let words = [&["run", "--rm", "--network", "none"], options, &[rlrun_tests::BASE, "id", "-G"]].concat();
        let mut sh = case.invoke_as_root("/bin/sh".as_ref());
        sh = sh.args(["-c", &script, program.to_str().unwrap()]).args(words);
        sh.run()
    };
    run(&[]).ok().prints("0");
    run(&["--group-add", "keep-groups"]).ok().prints("0 65534");
    case.run_base(&["--group-add", "keep-groups", "--group-add", "50"], ["true"]).refused(125, "keep-groups");
}

/// The host's user database and subordinate ids are shared by all tests.
static HOST: Mutex<()> = Mutex::new(());

/// A user of its own, with exactly the given lines in /etc/subuid and /etc/subgid.
pub(crate) struct Guest {
    name: String,
    lines: String,
    _lock: std::sync::MutexGuard<'static, ()>,
    _across_processes: nix::fcntl::Flock<std::fs::File>,
}

impl Guest {
    /// `lines` may hold `USER`, `UID`.
    pub(crate) fn new(lines: &str) -> Guest {
        let lock = HOST.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let file = std::fs::File::create("/run/rlrun-tests-guest").unwrap();
        let across = nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusive).unwrap();
        let name = format!("rlrun-g{}", std::process::id());
        // -K: useradd(8) must not grant ranges by itself.
        run("useradd", &["-M", "-K", "SUB_UID_COUNT=0", "-K", "SUB_GID_COUNT=0", &name]);
        let uid = User::from_name(&name).unwrap().unwrap().uid.to_string();
        let lines = lines.replace("USER", &name).replace("UID", &uid);
        for file in ["/etc/subuid", "/etc/subgid"] {
            let before = std::fs::read_to_string(file).unwrap();
            replace(file, &format!("{lines}{before}"));
        }
        Guest { name, lines, _lock: lock, _across_processes: across }
    }

    /// Without an image.
    pub(crate) fn empty_case(&self) -> Case {
        Case::of_user(Ordinary::named(&self.name))
    }

    fn case(&self) -> Case {
        let case = self.empty_case();
        let archive = case.make_file("base.tar", rlrun_tests::template_archive());
        case.run(["load", "-i", archive.to_str().unwrap()]).ok();
        case
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        for file in ["/etc/subuid", "/etc/subgid"] {
            let now = std::fs::read_to_string(file).unwrap();
            let kept = now.replacen(&self.lines, "", 1);
            replace(file, &kept);
        }
        run("userdel", &[&self.name]);
    }
}

fn replace(file: &str, text: &str) {
    let new = format!("{file}.rlrun-tests");
    std::fs::copy(file, &new).unwrap();
    let mut out = std::fs::OpenOptions::new().write(true).truncate(true).open(&new).unwrap();
    std::io::Write::write_all(&mut out, text.as_bytes()).unwrap();
    std::fs::rename(new, file).unwrap();
}

fn run(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).output().unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn without_a_range_root_is_the_only_user_and_one_warning_says_so() {
    let _case = case!(Userns, Root);
    let guest = Guest::new("");
    let case = guest.case();
    let out = case.in_base(["cat", "/proc/self/uid_map"]);
    let map = uid_map(&out);
    assert_eq!(map.iter().map(|line| line[2]).sum::<u64>(), 1, "{map:?}");
    let err = out.err();
    assert_eq!(err.to_lowercase().matches("warning").count(), 1, "{err}");
    assert!(err.contains("usermod --add-subuids"), "{err}");
    case.run_base(&["-u", "app"], ["true"]).refused(125, "1000");
}

#[test]
fn ranges_by_uid_and_several_ranges_count() {
    let _case = case!(Userns, Root);
    let guest = Guest::new("UID:700000000:10\nUSER:700100000:2000\n");
    let case = guest.case();
    let map = uid_map(&case.in_base(["cat", "/proc/self/uid_map"]));
    assert_eq!(map.iter().map(|line| line[2]).sum::<u64>(), 2011, "{map:?}");
    case.run_base(&["-u", "app"], ["id", "-u"]).ok().prints("1000");
}

#[test]
fn a_range_that_is_too_small_names_the_id_and_the_remedy() {
    let _case = case!(Userns, Root);
    let guest = Guest::new("USER:700000000:100\n");
    let case = guest.case();
    case.run_base(&["-u", "app"], ["true"]).refused(125, "1000").complains("usermod --add-subuids");
    let layer = base_rootfs().clone().file_of("owned", (4000, 4000), 0o644, "x");
    let archive = case.make_file("owned.tar", Image::new("localhost/owned:1", layer).docker_archive().bytes());
    case.run(["load", "-i", archive.to_str().unwrap()]).refused(125, "4000").complains("usermod --add-subuids");
}

#[test]
fn hostile_lines_are_skipped_and_good_ones_used() {
    let _case = case!(Userns, Root);
    let hostile = "USER:0:4294967295\nUSER:4294967295:10\nUSER:-1:5\nUSER:1:\nUSER\n::\n#GUEST USER:1:1\nUSER:700000000:99999999999999999999\nUSERx:700000000:5\n";
    let guest = Guest::new(&format!("{hostile}USER:700200000:3000\n"));
    let case = guest.case();
    let out = case.run_base(&["-u", "app"], ["id", "-u"]);
    out.ok().prints("1000");
}

#[test]
fn a_helper_without_its_privilege_is_named() {
    let case = case!(Userns, Root);
    // In a mount namespace of root's own, where the helpers have lost their set-user-ID bit.
    let tools = case.make_dir("tools");
    let mut prepare = String::from("true");
    for helper in ["newuidmap", "newgidmap"] {
        std::fs::copy(format!("/usr/bin/{helper}"), tools.join(helper)).unwrap();
        std::fs::set_permissions(tools.join(helper), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        prepare += &format!("; mount --bind {}/{helper} /usr/bin/{helper}", tools.display());
    }
    let run = |options: &[&str]| {
        let mut args = vec!["run", "--rm", "--network", "none"];
        args.extend(options);
        args.extend([rlrun_tests::BASE, "true"]);
        case.on_changed_host(&prepare, &args).run()
    };
    run(&["-u", "app"]).refused(125, "1000").complains("chmod u+s");
    run(&[]).ok().complains("newuidmap");
}

#[test]
fn a_sysctl_that_forbids_user_namespaces_is_named() {
    let case = case!(Userns, Root);
    let zero = case.make_file("zero", b"0\n");
    let setting = "/proc/sys/user/max_user_namespaces";
    let prepare = format!("mount --bind {} {setting}", zero.display());
    let args = ["run", "--rm", "--network", "none", rlrun_tests::BASE, "true"];
    let out = case.on_changed_host(&prepare, &args).run();
    out.refused(125, "user.max_user_namespaces is 0").complains("/etc/sysctl.d/");
    // Not installed at all is another cause than not privileged.
    let out = case.on_changed_host("mount --bind /dev/null /usr/bin/newuidmap", &args).run();
    out.ok().complains("newuidmap is not installed").complains("uidmap");
    let no_new_privileges = |options: &[&str]| {
        let mut command = case.invoke_as_root("/usr/bin/setpriv".as_ref());
        let user = case.user();
        command = command.args(["--no-new-privs", "--clear-groups"]);
        command = command.args([format!("--reuid={}", user.uid), format!("--regid={}", user.gid)]);
        command.args([case.program()]).args(&args[..4]).args(options).args(&args[4..]).run()
    };
    no_new_privileges(&[]).ok().complains("no_new_privs");
    no_new_privileges(&["-u", "app"]).refused(125, "no_new_privs").complains("NoNewPrivileges=no");
}
