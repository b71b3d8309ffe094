//! What a user of podman takes for granted: exit codes, arguments, environment, user, names.

use rlrun_tests::{BASE, Image, Rootfs, base_rootfs, case};
use serde_json::json;

#[test]
fn the_exit_code_is_the_payloads() {
    let case = case!(Userns);
    case.in_base(["true"]).code(0);
    case.in_base(["false"]).code(1);
    case.in_base(["sh", "-c", "exit 42"]).code(42);
    case.in_base(["sh", "-c", "exit 255"]).code(255);
}

#[test]
fn a_payload_killed_by_a_signal_gives_128_and_the_signal() {
    let case = case!(Userns);
    // SIGSEGV of pid 1 is forced by the kernel although it has no handler.
    case.in_base(["probe", "crash"]).code(139);
    case.run_base(&["--init"], ["sh", "-c", "kill -KILL $$"]).code(137);
}

#[test]
fn a_command_that_is_not_there_gives_127() {
    let case = case!(Userns);
    case.in_base(["no-such-command"]).refused(127, "no-such-command");
    case.in_base(["/no/such/command"]).refused(127, "/no/such/command");
}

#[test]
fn a_command_that_cannot_be_executed_gives_126() {
    let case = case!(Userns);
    case.in_base(["/etc/not-executable"]).refused(126, "/etc/not-executable");
    case.in_base(["/etc"]).refused(126, "/etc");
}

#[test]
fn a_program_for_another_machine_gives_126_and_says_so() {
    let case = case!(Userns);
    case.in_base(["/bin/foreign"]).refused(126, "/bin/foreign").complains("exec format error");
}

#[test]
fn a_script_whose_interpreter_is_missing_gives_127_and_says_so() {
    let case = case!(Userns);
    let layer = base_rootfs().clone().file("bin/broken", 0o755, "#!/no/interpreter\n");
    case.load(&Image::new("localhost/broken:1", layer));
    case.run(["run", "--rm", "--network", "none", "localhost/broken:1", "broken"]).refused(127, "interpreter");
}

#[test]
fn arguments_arrive_as_they_are() {
    let case = case!(Userns);
    let script = r#"for a in "$@"; do printf '<%s>' "$a"; done"#;
    case.in_base(["sh", "-c", script, "sh", "a b", "", "*", "$HOME", "--rm", "ü\n"])
        .ok()
        .prints("<a b><><*><$HOME><--rm><ü\n>");
}

#[test]
fn an_image_without_a_command_needs_one() {
    let case = case!(Userns);
    case.load(&Image::new("localhost/mute:1", base_rootfs().clone()).with("Cmd", json!(null)));
    case.run(["run", "--rm", "--network", "none", "localhost/mute:1"]).refused(125, "no command");
    case.run(["run", "--rm", "--network", "none", "localhost/mute:1", "echo", "said"]).ok().prints("said");
}

#[test]
fn entrypoint_and_command_combine_as_in_docker() {
    let case = case!(Userns);
    let image = Image::new("localhost/entry:1", base_rootfs().clone())
        .with("Entrypoint", json!(["echo", "entry"]))
        .with("Cmd", json!(["default"]));
    case.load(&image);
    let run = |options: &[&str], command: &[&str]| {
        let base = case.rlrun(["run", "--rm", "--network", "none"]).args(options);
        base.args(["localhost/entry:1"]).args(command).run()
    };
    run(&[], &[]).ok().prints("entry default");
    run(&[], &["given"]).ok().prints("entry given");
    // Another entry point drops the image's arguments.
    run(&["--entrypoint", "pwd"], &[]).ok().prints("/");
    run(&["--entrypoint", "echo"], &["given"]).ok().prints("given");
    run(&["--entrypoint", r#"["echo","from","json"]"#], &["given"]).ok().prints("from json given");
}

#[test]
fn the_environment_comes_from_the_image_and_the_options_only() {
    let case = case!(Userns);
    let file = case.make_file("env", "# a comment\n\nFROM_FILE=with spaces = and equals\nFROM_HOST\n");
    let out = case
        .base(
            &["-e", "A=1", "-e", "EMPTY=", "-e", "FROM_HOST", "--env-file", file.to_str().unwrap(), "-e", "MISSING"],
            ["env"],
        )
        .env("FROM_HOST", "host value")
        .env("SECRET_OF_THE_HOST", "leaked")
        .run();
    let env = out.ok().out();
    let has = |line: &str| env.lines().any(|known| known == line);
    for line in
        ["A=1", "EMPTY=", "FROM_HOST=host value", "FROM_FILE=with spaces = and equals", "FROM_IMAGE=yes", "HOME=/root"]
    {
        assert!(has(line), "{line} is missing in:\n{env}");
    }
    assert!(!env.contains("leaked") && !env.contains("MISSING"), "{env}");
}

#[test]
fn an_option_overrides_the_image_and_the_file() {
    let case = case!(Userns);
    let file = case.make_file("env", "FROM_IMAGE=file\nB=file\n");
    let out =
        case.run_base(&["-e", "B=option", "--env-file", file.to_str().unwrap()], ["sh", "-c", "echo $FROM_IMAGE $B"]);
    out.ok().prints("file option");
}

#[test]
fn the_working_directory_is_the_images_or_the_options() {
    let case = case!(Userns);
    case.load(&Image::new("localhost/there:1", base_rootfs().clone()).with("WorkingDir", json!("/var")));
    case.run(["run", "--rm", "--network", "none", "localhost/there:1", "pwd"]).ok().prints("/var");
    case.run(["run", "--rm", "--network", "none", "-w", "/tmp", "localhost/there:1", "pwd"]).ok().prints("/tmp");
    case.run_base(&["-w", "relative"], ["pwd"]).refused(126, "relative");
}

#[test]
fn the_user_is_found_in_the_image() {
    let case = case!(Userns, Subid);
    let identity = |user: &str| case.run_base(&["-u", user], ["probe", "identity"]).ok().out();
    assert_eq!(identity("0"), "uid 0 0\ngid 0 0\ngroups 0\n");
    assert_eq!(identity("app"), "uid 1000 1000\ngid 1000 1000\ngroups 50 1000\n");
    assert_eq!(identity("1000"), "uid 1000 1000\ngid 1000 1000\ngroups 50 1000\n");
    assert_eq!(identity("app:staff").lines().nth(1), Some("gid 50 50"));
    assert_eq!(identity("1000:77").lines().nth(1), Some("gid 77 77"));
    // A number needs no entry anywhere.
    assert!(identity("4321").starts_with("uid 4321 4321\ngid 0 0\n"));
}

#[test]
fn the_home_of_the_user_is_in_the_environment() {
    let case = case!(Userns, Subid);
    case.run_base(&["-u", "app"], ["sh", "-c", "echo $HOME"]).ok().prints("/home");
}

#[test]
fn a_user_that_is_not_in_the_image_is_refused() {
    let case = case!(Userns);
    case.run_base(&["-u", "nobody-here"], ["true"]).refused(126, "nobody-here");
    case.run_base(&["-u", "app:no-such-group"], ["true"]).refused(126, "no-such-group");
}

#[test]
fn a_user_database_in_the_image_cannot_lead_outside() {
    let case = case!(Userns);
    // A link to the host's own database: it must be resolved inside the image, where there is none.
    let layer = Rootfs::new().dir("bin", 0o755).file("bin/probe", 0o755, rlrun_tests::probe_program());
    let layer = layer.dir("etc", 0o755).symlink("etc/passwd", "../../../../../../etc/passwd");
    case.load(&Image::new("localhost/linked:1", layer));
    let name = &case.user().name;
    case.run(["run", "--rm", "--network", "none", "-u", name, "localhost/linked:1", "/bin/probe", "identity"])
        .refused(126, name);
}

#[test]
fn the_hostname_is_the_options_or_the_short_id() {
    let case = case!(Userns);
    case.run_base(&["--hostname", "given"], ["hostname"]).ok().prints("given");
    let cidfile = case.make_dir("out").join("cid");
    let out = case.run_base(&["--cidfile", cidfile.to_str().unwrap()], ["hostname"]);
    let id = std::fs::read_to_string(cidfile).unwrap();
    out.ok().prints(&id[..12]);
}

#[test]
fn the_cidfile_holds_the_id_and_is_never_overwritten() {
    let case = case!(Userns);
    let cidfile = case.make_dir("out").join("cid");
    let path = cidfile.to_str().unwrap();
    case.run_base(&["--cidfile", path], ["true"]).ok();
    let id = std::fs::read_to_string(&cidfile).unwrap();
    assert!(id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit()), "{id:?}");
    case.run_base(&["--cidfile", path], ["true"]).refused(125, path);
    assert_eq!(std::fs::read_to_string(&cidfile).unwrap(), id);
}

#[test]
fn a_read_only_root_cannot_be_written() {
    let case = case!(Userns);
    case.run_base(&["--read-only"], ["touch", "/file"]).code(1).complains("read-only");
    case.in_base(["touch", "/file"]).ok();
}

#[test]
fn writes_do_not_reach_the_image_or_the_next_container() {
    let case = case!(Userns);
    case.in_base(["sh", "-c", "echo changed > /etc/base-image; rm /bin/script; echo new > /new"]).ok();
    case.in_base(["sh", "-c", "cat /etc/base-image; ls /bin/script /new"]).says("base\n/bin/script").complains("/new");
}

#[test]
fn a_name_belongs_to_one_container() {
    let case = case!(Userns).keeping_containers();
    case.run(["run", "--network", "none", "--name", "taken", BASE, "true"]).ok();
    case.run(["run", "--network", "none", "--name", "taken", BASE, "true"]).refused(125, "taken");
    case.run(["run", "--network", "none", "--name", "other", BASE, "true"]).ok();
}

#[test]
fn a_name_is_free_again_after_rm() {
    let case = case!(Userns);
    for _ in 0..2 {
        case.run_base(&["--name", "again"], ["true"]).ok();
    }
}

#[test]
fn a_name_that_is_a_path_is_refused() {
    let case = case!(Userns);
    for name in ["../up", "a/b", ".", "", "-x", "ü"] {
        case.rlrun(["run", "--rm", "--network", "none"])
            .args([format!("--name={name}").as_str(), BASE, "true"])
            .run()
            .refused(125, "name");
    }
}

#[test]
fn the_umask_is_the_usual_one() {
    let case = case!(Userns);
    case.in_base(["sh", "-c", "umask"]).ok().prints("0022");
}

#[test]
fn an_unknown_option_gives_125() {
    let case = case!(Userns);
    case.run_base(&["--no-such-option"], ["true"]).code(125).complains("--no-such-option");
    case.run(["no-such-verb"]).code(125).complains("no-such-verb");
}

#[test]
fn a_container_runs_from_any_directory_even_a_removed_one() {
    let case = case!(Userns);
    let gone = case.make_dir("gone");
    case.base(&[], ["pwd"]).in_directory(&gone).run().ok().prints("/");
}

#[test]
fn many_containers_run_at_once() {
    let case = case!(Userns);
    let started: Vec<_> =
        (0..8).map(|n| case.base(&[], ["sh", "-c", &format!("echo {n}; exit {n}")]).spawn()).collect();
    for (n, container) in (0..).zip(started) {
        container.finish().code(n).prints(&n.to_string());
    }
}
