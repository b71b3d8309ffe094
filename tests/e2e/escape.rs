//! Attempts to get out, or to leave something behind for the next command. Each is the attack itself, not a look at a
//! setting.

use nix::sys::signal::Signal;
use rlrun_tests::{BASE, Case, Image, base_rootfs, case, digest, payload_of, probe_program};
use serde_json::json;

/// Digests of every program of an installation.
fn programs(case: &Case) -> Vec<(String, String)> {
    let prefix = case.program().parent().unwrap().parent().unwrap().to_owned();
    let mut found = Vec::new();
    for directory in ["bin", "libexec/rlrun"] {
        for entry in std::fs::read_dir(prefix.join(directory)).unwrap() {
            let path = entry.unwrap().path();
            found.push((path.display().to_string(), digest(&std::fs::read(&path).unwrap())));
        }
    }
    found.sort();
    found
}

/// A case whose user owns the installed rlrun and whose payload runs as that same user.
fn exposed() -> Option<Case> {
    let case = Case::new(&[rlrun_tests::Need::Userns])?;
    Some(case.with_own_installation())
}

/// An image with a script whose interpreter is whatever executes it.
fn trapped() -> Image {
    let layer = base_rootfs().clone().file("bin/trap", 0o755, "#!/proc/self/exe\n");
    Image::new("localhost/trapped:1", layer)
}

#[test]
fn the_payload_cannot_overwrite_the_program_that_started_it() {
    let Some(case) = exposed() else { return };
    case.load(&trapped());
    let before = programs(&case);
    for userns in [&[][..], &["--userns=keep-id"]] {
        let hunter = case.rlrun(["run", "--network", "none", "--rm", "--name", "hunter"]).args(userns);
        let hunter = hunter.args(["localhost/trapped:1", "probe", "hunt"]).spawn();
        hunter.wait_for("ready");
        for _ in 0..20 {
            // CVE-2019-5736: the command that enters the container executes what it is itself.
            case.run(["exec", "hunter", "/bin/trap"]).refused(126, "rlrun-supervisor").complains("/proc/self/exe");
        }
        hunter.signal(Signal::SIGTERM);
        let out = hunter.finish().ok().out();
        // It had rlrun's program in its hands, and its mount was all that kept it from writing.
        let (seen, answers) = out.split_once("foreign ").unwrap().1.split_once('\n').unwrap();
        assert!(seen.parse::<u32>().unwrap() > 0, "the attack never saw what it is after: {out}");
        assert_eq!(answers, "overwrite EROFS\n", "{userns:?}");
    }
    assert_eq!(programs(&case), before);
    case.in_base(["echo", "still works"]).ok().prints("still works");
}

#[test]
fn the_stages_own_program_is_no_command_of_an_image() {
    let Some(case) = exposed() else { return };
    let before = programs(&case);
    case.load(&Image::new("localhost/self:1", base_rootfs().clone()).with("Entrypoint", json!(["/proc/self/exe"])));
    case.load(&trapped());
    let run = |options: &[&str], image: &[&str]| {
        let out = case.rlrun(["run", "--rm", "--network", "none"]).args(options).args(image).run();
        out.refused(126, "").complains("hint: a command or a #! line with /proc/self/exe");
    };
    for options in [&[][..], &["--init"], &["-d"], &["--userns=keep-id"]] {
        run(options, &["localhost/self:1"]);
        run(options, &["localhost/trapped:1", "/proc/self/exe"]);
    }
    run(&["-w", "/proc/self"], &["localhost/trapped:1", "./exe"]);
    // The kernel follows the line when nobody looks any more: the program itself says so, inside.
    run(&[], &["localhost/trapped:1", "/bin/trap"]);
    run(&["--init"], &["localhost/trapped:1", "/bin/trap"]);
    assert_eq!(programs(&case), before);
}

#[test]
fn the_exe_link_of_the_payload_is_the_images_own_file() {
    let Some(case) = exposed() else { return };
    let before = programs(&case);
    case.in_base(["readlink", "/proc/1/exe"]).ok().prints("/bin/busybox");
    // The built-in init is rlrun's own program, and nothing inside can open it.
    case.run_base(&["--init"], ["probe", "overwrite", "/proc/1/exe"]).ok().prints("overwrite EACCES");
    assert_eq!(programs(&case), before);
}

#[test]
fn no_descriptor_leaks_in() {
    let case = case!(Userns);
    let secret = case.make_file("secret", "host secret");
    let out = case.base(&[], ["ls", "-l", "/proc/self/fd"]).leaking(&secret).run();
    let list = out.ok().out();
    assert!(!list.contains("secret"), "{list}");
    // 0, 1, 2 and the directory that ls itself reads.
    assert_eq!(list.lines().filter(|line| line.starts_with('l') && line.contains("root")).count(), 4, "{list}");
}

#[test]
fn no_descriptor_leaks_into_a_terminal_container_or_an_init() {
    let case = case!(Userns);
    for options in [&["--init"][..], &["-t"], &["-i"]] {
        let list = case.run_base(options, ["ls", "-l", "/proc/self/fd"]).ok().out();
        assert_eq!(
            list.lines().filter(|line| line.starts_with('l') && line.contains("root")).count(),
            4,
            "{options:?}: {list}"
        );
    }
    let list = case.run_base(&["--init"], ["ls", "-l", "/proc/1/fd"]).out();
    assert!(!list.contains("/proc") && !list.contains("memfd") && !list.contains(" /home"), "{list}");
}

#[test]
fn a_working_directory_cannot_be_a_leaked_descriptor() {
    let case = case!(Userns);
    // CVE-2024-21626: a descriptor of a host directory that the runtime still holds while it changes directory.
    for fd in 0..28 {
        let words = format!("/proc/self/fd/{fd}");
        let out = case.run_base(&["-w", &words], ["ls", "-a", "../../../.."]);
        out.refused(126, &words);
    }
    let image = Image::new("localhost/cwd:1", base_rootfs().clone()).with("WorkingDir", json!("/proc/self/fd/7"));
    case.load(&image);
    let out = case.run(["run", "--rm", "--network", "none", "localhost/cwd:1", "ls", "-a", "../../../.."]).out();
    assert_eq!(out, "");
}

#[test]
fn masked_paths_cannot_be_uncovered() {
    let case = case!(Userns);
    for path in ["/proc/kcore", "/proc/sys", "/proc/sysrq-trigger", "/proc/acpi", "/sys/firmware"] {
        let answers = case.in_base(["probe", "mounts", path]).ok().out();
        assert!(answers.lines().count() >= 3, "{path}: what was tried? {answers}");
        assert!(
            answers.lines().all(|line| line.ends_with("EPERM") || line.ends_with("EACCES") || line.ends_with("ENOSYS")),
            "{path}: {answers}"
        );
    }
}

#[test]
fn the_hosts_settings_stay_out_of_reach_of_a_container_that_was_given_everything() {
    let case = case!(Userns);
    // Three flags by name, and baseline off: the container may then rearrange its own mounts, and only those. The
    // kernel's settings belong to the host's root, whom the user namespace does not map.
    let options = ["--policy-baseline=off", "--cap-add", "SYS_ADMIN", "--security-opt", "seccomp=unconfined"];
    let script = "umount -l /proc/sys && probe open /proc/sys/kernel/core_pattern w";
    let answer = case.run_base(&options, ["sh", "-c", script]).out();
    assert!(answer.ends_with("EACCES\n") || answer.ends_with("EPERM\n") || answer.ends_with("EROFS\n"), "{answer}");
}

#[test]
fn processes_of_the_host_cannot_be_touched() {
    let case = case!(Userns);
    // A process of the same host user, by its host pid and by every small pid.
    let mut victim = case.user().command("sleep").arg("1000").spawn().unwrap();
    let answers = case.in_base(["probe", "touch-process", &victim.id().to_string()]).ok().out();
    let reached = answers.lines().any(|line| line.ends_with(" ok"));
    let alive = victim.try_wait().unwrap().is_none();
    victim.kill().unwrap();
    victim.wait().unwrap();
    assert!(!reached, "{answers}");
    assert!(alive);
}

#[test]
fn killing_everything_kills_only_the_container() {
    let case = case!(Userns);
    let mut victim = case.user().command("sleep").arg("1000").spawn().unwrap();
    let other = case.spawn_base(&[], ["probe", "trap"]);
    case.run_base(&["--init"], ["sh", "-c", "kill -TERM -1; kill -KILL -1; echo"]);
    assert!(victim.try_wait().unwrap().is_none(), "a host process was killed");
    victim.kill().unwrap();
    victim.wait().unwrap();
    other.signal(Signal::SIGTERM);
    other.finish().ok();
}

#[test]
fn another_container_cannot_be_seen_or_touched() {
    let case = case!(Userns);
    let other = case.spawn_base(&[], ["probe", "trap"]);
    let pid = payload_of(other.running.pid, "probe").to_string();
    let answers = case.in_base(["probe", "touch-process", &pid]).ok().out();
    assert!(!answers.lines().any(|line| line.ends_with(" ok")), "{answers}");
    other.signal(Signal::SIGTERM);
    other.finish().ok();
}

#[test]
fn sysctls_cannot_be_written() {
    let case = case!(Userns);
    for name in
        ["kernel/core_pattern", "kernel/hostname", "vm/drop_caches", "net/ipv4/ip_forward", "user/max_user_namespaces"]
    {
        let answer = case.in_base(["probe", "open", &format!("/proc/sys/{name}"), "w"]).ok().out();
        assert!(answer.ends_with("EROFS\n") || answer.ends_with("EACCES\n"), "{answer}");
    }
}

#[test]
fn the_host_cannot_be_read_through_proc() {
    let case = case!(Userns);
    // Every process that is visible must have the container's root.
    let script =
        "for p in /proc/[0-9]*; do ls $p/root/ 2>/dev/null | grep -x -e boot -e lost+found; readlink $p/exe; done";
    let out = case.in_base(["sh", "-c", script]).out();
    assert!(!out.contains("boot") && !out.contains("lost+found"), "{out}");
}

#[test]
fn a_volume_of_one_container_cannot_be_swapped_for_a_link_of_another() {
    let case = case!(Userns);
    // The source is checked before the verdict and must be the same when it is mounted.
    let shared = case.make_dir("shared");
    let volume = format!("{}:/mnt", shared.display());
    case.run_base(&["-v", &volume], ["sh", "-c", "ln -s /etc /mnt/escape; ls /mnt/escape/shadow"]).code(1);
    let inner = format!("{}/escape:/inner", shared.display());
    // Resolved on the host this is the host's /etc: `baseline` sees where it leads.
    case.run_base(&["-v", &inner], ["ls", "/inner"]).refused(125, "/etc");
}

#[test]
fn an_image_cannot_choose_how_it_is_confined() {
    let case = case!(Userns);
    let image = Image::new("localhost/labels:1", base_rootfs().clone()).with(
        "Labels",
        json!({
            "io.podman.annotations.privileged": "TRUE",
            "io.podman.annotations.seccomp": "unconfined",
            "io.containers.capabilities": "SYS_ADMIN",
            "run.oci.keep_original_groups": "1",
            "org.criu.checkpoint.container.name": "x",
        }),
    );
    case.load(&image.with("Volumes", json!({ "/etc": {} })).with("Env", json!(["RLRUN_POLICY=none", "LD_PRELOAD=/x"])));
    let out = case.run([
        "run",
        "--rm",
        "--network",
        "none",
        "localhost/labels:1",
        "grep",
        "-E",
        "CapEff|NoNewPrivs|Seccomp:",
        "/proc/self/status",
    ]);
    out.ok().says("NoNewPrivs:\t1").says("Seccomp:\t2");
    let plain = case.run([
        "run",
        "--rm",
        "--network",
        "none",
        BASE,
        "grep",
        "-E",
        "CapEff|NoNewPrivs|Seccomp:",
        "/proc/self/status",
    ]);
    assert_eq!(out.out(), plain.out());
}

#[test]
fn a_static_payload_finds_nothing_of_the_stages_in_memory_files() {
    let case = case!(Userns);
    assert!(!probe_program().is_empty());
    let out = case.in_base(["sh", "-c", "cat /proc/self/maps; ls -l /proc/1/exe"]).ok().out();
    assert!(!out.contains("memfd") && !out.contains("rlrun"), "{out}");
}
