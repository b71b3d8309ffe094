//! Policies are asked before anything starts: the one inside the product, the user's, the administrator's.

use rlrun_tests::{BASE, Case, case, eventually};
use std::path::{Path, PathBuf};

/// A first-party policy of the installation.
pub(crate) fn shipped(case: &Case, name: &str) -> PathBuf {
    let share = case.program().parent().unwrap().parent().unwrap().join("share/rlrun/policies");
    let path = share.join(format!("{name}.wasm"));
    assert!(path.exists(), "{} is not installed", path.display());
    path
}

/// Installs policies for the user, each with its settings beside it.
pub(crate) fn install(case: &Case, policies: &[(&Path, Option<&str>)]) {
    case.user().private_directory(&case.home().join(".config"));
    case.user().private_directory(&case.home().join(".config/rlrun"));
    let directory = case.user().private_directory(&case.home().join(".config/rlrun/policy.d"));
    for (policy, settings) in policies {
        let target = directory.join(policy.file_name().unwrap());
        std::fs::copy(policy, &target).unwrap();
        case.user().own(&target);
        if let Some(settings) = settings {
            let path = target.with_extension("toml");
            std::io::Write::write_all(&mut std::fs::File::create(&path).unwrap(), settings.as_bytes()).unwrap();
            case.user().own(&path);
        }
    }
}

#[test]
fn baseline_refuses_what_gives_the_host_away() {
    let case = case!(Userns);
    case.run_base(&["--privileged"], ["true"]).refused(125, "baseline").complains("privileged");
    for capability in ["SYS_ADMIN", "SYS_PTRACE", "SYS_MODULE", "NET_ADMIN"] {
        case.run_base(&["--cap-add", capability], ["true"]).refused(125, "baseline").complains(capability);
    }
    for path in ["/etc", "/", "/proc", "/sys", "/root", "/boot"] {
        if std::fs::metadata(path).is_ok() {
            case.run_base(&["-v", &format!("{path}:/mnt:ro")], ["true"]).refused(125, "");
        }
    }
}

#[test]
fn baseline_refuses_engine_sockets_by_any_name() {
    let case = case!(Userns);
    let directory = case.make_dir("sockets");
    let socket = directory.join("docker.sock");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let renamed = case.make_dir("renamed").join("harmless");
    std::os::unix::fs::symlink(&socket, &renamed).unwrap();
    case.run_base(&["-v", &format!("{}:/run/x", socket.display())], ["true"]).refused(125, "baseline");
    // The link is resolved before policies are asked.
    case.run_base(&["-v", &format!("{}:/run/x", renamed.display())], ["true"]).refused(125, "baseline");
}

#[test]
fn ordinary_runs_are_let_through() {
    let case = case!(Userns);
    let work = case.make_dir("work");
    case.run_base(&["-v", &format!("{}:/work", work.display()), "-w", "/work", "-e", "A=1"], ["true"]).ok();
}

#[test]
fn a_refusal_starts_nothing() {
    let case = case!(Userns);
    let work = case.make_dir("work");
    let volume = format!("{}:/work", work.display());
    case.run_base(&["--privileged", "-v", &volume, "--name", "refused"], ["touch", "/work/ran"])
        .refused(125, "baseline");
    assert!(!work.join("ran").exists());
    case.run_base(&["--name", "refused"], ["true"]).ok();
}

#[test]
fn what_is_not_a_policy_is_refused_and_named() {
    let case = case!(Userns);
    for (name, bytes) in [
        ("text.wasm", &b"allow everything"[..]),
        ("empty.wasm", b""),
        ("module.wasm", b"\0asm\x01\0\0\0"),
        ("component.wasm", b"\0asm\x0d\0\x01\0"),
    ] {
        let path = case.make_file(name, bytes);
        let path = path.to_str().unwrap();
        case.run_base(&["--policy", path], ["true"]).refused(125, name);
        case.run(["policy", "check", path]).refused(125, name);
    }
    let directory = case.make_dir("directory.wasm");
    for (path, words) in [
        (directory.to_str().unwrap(), "is not a regular file"),
        ("/no/such/policy.wasm", "no such file"),
        ("/etc/passwd", "is not WebAssembly"),
    ] {
        let out = case.run_base(&["--policy", path], ["true"]);
        out.refused(125, path).complains(words);
        // What an author has to do, not what an owner has.
        assert!(!out.err().contains("their owner"), "{}", out.err());
    }
    case.run(["policy", "ls", "extra"]).refused(125, "extra: is one word too many").complains("rlrun policy ls --help");
    case.in_base(["true"]).ok();
}

#[test]
fn rlruns_own_program_cannot_be_mounted_writable() {
    let case = case!(Userns).with_own_installation();
    let bin = case.program().parent().unwrap().to_owned();
    let prefix = bin.parent().unwrap();
    let mount = |path: &Path, how: &str| case.run_base(&["-v", &format!("{}:/new{how}", path.display())], ["true"]);
    for path in [
        prefix,
        &bin,
        &case.program(),
        &prefix.join("libexec"),
        &prefix.join("libexec/rlrun"),
        &prefix.join("share/rlrun"),
    ] {
        mount(path, "").refused(125, "BASE006");
        mount(path, ":ro").ok();
    }
    for place in [".config/rlrun", ".cache", ".local/share/rlrun"] {
        let place = case.home().join(place);
        case.user().private_directory(&place);
        mount(&place, "").refused(125, "BASE006");
    }
    // Beside it is the user's own business.
    let beside = case.user().private_directory(&bin.join("beside"));
    mount(&beside, "").ok();
}

#[test]
fn a_broken_file_in_the_policy_directory_denies() {
    let case = case!(Userns);
    let broken = case.make_file("broken.wasm", b"\0asm but not really");
    install(&case, &[(&broken, None)]);
    case.in_base(["true"]).refused(125, "broken");
    case.run(["policy", "ls"]).complains("broken");
}

#[test]
fn shipped_policies_pass_their_own_check() {
    let case = case!(Userns);
    for name in ["baseline", "image-source", "least-privilege", "cel"] {
        case.run(["policy", "check", shipped(&case, name).to_str().unwrap()]).ok();
    }
}

#[test]
fn compiled_policies_are_cached_and_a_damaged_cache_is_never_run() {
    let case = case!(Userns);
    let cache = case.home().join(".cache/rlrun");
    let files = || -> Vec<PathBuf> {
        let found = std::process::Command::new("find").arg(&cache).args(["-type", "f"]).output().unwrap();
        String::from_utf8(found.stdout).unwrap().lines().map(PathBuf::from).collect()
    };
    let compiled = |path: &Path| std::fs::read(path).is_ok_and(|bytes| bytes.starts_with(b"\x7fELF"));
    assert!(files().iter().any(|file| compiled(file)), "no compiled policy: {:?}", files());
    // In place, as a fault of the disk would: owner, mode and name stay what they were.
    for (damage, all) in [("a bit", false), ("everything", true)] {
        let damaged: Vec<(PathBuf, Vec<u8>)> = files()
            .into_iter()
            .map(|file| {
                let mut bytes = std::fs::read(&file).unwrap();
                let middle = bytes.len() / 2;
                let spoiled = if all { 0..bytes.len() } else { middle..middle + 1 };
                bytes[spoiled].iter_mut().for_each(|byte| *byte ^= 0xff);
                let mut out = std::fs::OpenOptions::new().write(true).truncate(true).open(&file).unwrap();
                std::io::Write::write_all(&mut out, &bytes).unwrap();
                (file, bytes)
            })
            .collect();
        case.in_base(["true"]).ok();
        case.run_base(&["--privileged"], ["true"]).refused(125, "baseline");
        for (file, bytes) in damaged {
            let kept = std::fs::read(&file).is_ok_and(|now| now == bytes);
            assert!(!kept, "{damage} of {} was damaged, and it is still there", file.display());
        }
    }
}

#[test]
fn policies_work_with_an_empty_cache() {
    let case = case!(Userns);
    std::fs::remove_dir_all(case.home().join(".cache/rlrun")).unwrap();
    case.run_base(&["--privileged"], ["true"]).refused(125, "baseline");
    eventually("the cache is filled", || case.home().join(".cache/rlrun").exists());
    assert_eq!(case.run(["run", "--rm", "--network", "none", BASE, "true"]).exit, rlrun_tests::Exit::Code(0));
}

/// `--policy` with the policy that misbehaves in this way.
fn hostile(case: &Case, how: &str) -> rlrun_tests::Output {
    let built = std::env::var("RLRUN_HOSTILE_POLICY").expect("make test says where the hostile policy is");
    let free = |name: &String| !case.directory().join(name).exists();
    let directory = (0..).map(|n| format!("hostile-{n}")).find(free).unwrap();
    case.make_dir(&directory);
    let policy = case.make_file(&format!("{directory}/hostile.wasm"), std::fs::read(built).unwrap());
    case.make_file(&format!("{directory}/hostile.toml"), format!("how = \"{how}\"\n"));
    case.run_base(&["--policy", policy.to_str().unwrap()], ["echo", "started"])
}

#[test]
fn a_policy_that_misbehaves_denies_and_is_named() {
    let case = case!(Userns);
    hostile(&case, "allow").ok().prints("started");
    for how in ["loop", "allocate", "recurse", "trap", "flood", "nonsense", "loosen"] {
        let out = hostile(&case, how);
        out.refused(125, "hostile");
        assert!(out.err().len() < 10_000, "{how}: {} bytes of error", out.err().len());
    }
    // Settings it does not know are its own refusal too.
    hostile(&case, "dance").refused(125, "hostile");
    // The next evaluation is not harmed.
    hostile(&case, "allow").ok().prints("started");
    case.in_base(["true"]).ok();
}

#[test]
fn a_policy_cannot_forge_lines_or_control_the_terminal() {
    let case = case!(Userns);
    let out = hostile(&case, "colour");
    out.code(125).complains("COLOUR");
    let err = out.err();
    assert!(!err.contains('\x1b') && !err.contains('\x07'), "{err:?}");
    assert!(!err.lines().any(|line| line.starts_with("Error: forged") || line == "hint: run evil"), "{err}");
}

/// rlrun on a host where the administrator has installed this.
pub(crate) fn with_mandatory(case: &Case, install: &str, args: &[&str]) -> rlrun_tests::Output {
    let prepare = format!(
        "mount -t tmpfs none /mnt; mkdir /mnt/upper /mnt/work
         mount -t overlay -o lowerdir=/etc,upperdir=/mnt/upper,workdir=/mnt/work none /etc
         mkdir -p -m 0755 /etc/rlrun/policy.d; cd /etc/rlrun/policy.d; {install}"
    );
    case.on_changed_host(&prepare, args).run()
}

#[test]
fn mandatory_policies_cannot_be_turned_off() {
    let case = case!(Userns, Root);
    let require = "echo 'required = [\"baseline\"]' > policy.toml";
    for arguments in [
        &["run", "--rm", "--network", "none", "--privileged", BASE, "true"][..],
        &["run", "--rm", "--network", "none", "--privileged", "--policy-baseline=off", BASE, "true"],
    ] {
        with_mandatory(&case, require, arguments).refused(125, "baseline");
    }
    let built = std::env::var("RLRUN_HOSTILE_POLICY").expect("make test says where the hostile policy is");
    let install =
        format!("cp {built} house-rules.wasm; chmod 0644 house-rules.wasm; echo 'how = \"trap\"' > house-rules.toml");
    let run = &["run", "--rm", "--network", "none", BASE, "true"];
    with_mandatory(&case, &install, run).refused(125, "house-rules");
    with_mandatory(&case, &install.replace("trap", "allow"), run).ok();
}

#[test]
fn a_mandatory_directory_that_others_may_write_denies() {
    let case = case!(Userns, Root);
    let run = &["run", "--rm", "--network", "none", BASE, "true"];
    with_mandatory(&case, "chmod 0777 .", run).refused(125, "/etc/rlrun/policy.d");
    with_mandatory(&case, "chmod 0777 ..", run).refused(125, "/etc/rlrun: others may write it");
    with_mandatory(&case, "chmod 0777 ..; mv ../policy.d ../aside", run).refused(125, "/etc/rlrun");
    with_mandatory(&case, "echo x > broken.wasm", run).refused(125, "broken");
    with_mandatory(&case, "echo 'required = [\"no-such-policy\"]' > policy.toml", run).refused(125, "no-such-policy");
    with_mandatory(&case, "true", run).ok();
}

#[test]
fn an_image_that_is_refused_leaves_its_name_to_the_one_that_had_it() {
    let case = case!(Userns);
    let image = |text: &str| {
        let layer = rlrun_tests::Rootfs::new().file("etc/which", 0o644, text);
        rlrun_tests::Image::new("localhost/kept:1", rlrun_tests::base_rootfs().clone()).layer(layer)
    };
    case.load(&image("first"));
    let before = case.run(["images", "--no-trunc", "--format", "{{.Names}} {{.Id}} {{.Digest}}"]).ok().out();
    install(&case, &[(&shipped(&case, "image-source"), Some("deny = [\"localhost/kept\"]"))]);
    let archive = case.make_file("second.tar", image("second").docker_archive().bytes());
    case.run(["load", "-i", archive.to_str().unwrap()]).refused(125, "image-source");
    let after = case.run(["images", "--no-trunc", "--format", "{{.Names}} {{.Id}} {{.Digest}}"]).ok().out();
    assert_eq!(after, before);
    assert!(after.contains("localhost/kept:1"), "{after}");
}

/// An author's loop: what `plan` printed is asked again, under other policies, and nothing starts.
#[test]
fn a_printed_configuration_can_be_asked_about() {
    let case = case!(Userns);
    let plan = case.run(["plan", "--network", "none", BASE, "true"]).ok().out();
    let eval = |args: &[&str], request: &str| {
        case.rlrun(["policy", "eval"]).args(args).stdin(request.as_bytes().to_vec()).run()
    };
    let admitted = eval(&["--format", "json"], &plan);
    let answers: serde_json::Value = serde_json::from_str(&admitted.ok().out()).unwrap();
    assert_eq!(answers[0]["Policy"], "baseline");
    assert_eq!(answers[0]["Decision"], "allow");
    // Asked again it says the same: what was admitted stays admitted.
    assert_eq!(eval(&["--format", "json"], &plan).out(), admitted.out());

    let tightening = shipped(&case, "least-privilege");
    let file = tightening.to_str().unwrap();
    let tightened = eval(&["--policy", file, "--format", "{{.Policy}} {{.Decision}} {{.Tightens}}"], &plan);
    tightened.ok().says("baseline allow").says("least-privilege allow");

    let privileged = case.run(["plan", "--policy-baseline", "off", "--privileged", BASE, "true"]).ok().out();
    eval(&[], &privileged).code(125).complains("baseline").complains("privileged").says("deny").says("BASE001");
    eval(&["--policy-baseline", "off"], &privileged).ok();
    eval(&[], "{}").refused(125, "hint: give it what `rlrun plan IMAGE CMD` prints");
    eval(&["--request", "/no/such/plan"], "").refused(125, "/no/such/plan");
    case.assert_nothing_left();
}

/// What policies say of images is told, written down, and found again.
#[test]
fn a_verdict_on_an_image_is_told_and_kept() {
    let case = case!(Userns);
    let tar = case.make_file("r.tar", rlrun_tests::base_rootfs().clone().tar());
    let tar = tar.to_str().unwrap();
    install(&case, &[(&shipped(&case, "image-hygiene"), None)]);
    let last = || -> serde_json::Value {
        let text = std::fs::read_to_string(case.data().join("journal")).unwrap();
        serde_json::from_str(text.lines().last().unwrap()).unwrap()
    };
    let import = |change: &str| case.run(["import", "-c", change, tar, "h:latest"]);
    import("USER 0").ok().complains("policy image-hygiene: localhost/h:latest: [HYG001]").complains("[HYG002]");
    let verdict = last()["verdicts"].as_array().unwrap().iter().find(|v| v["policy"] == "image-hygiene").cloned();
    let verdict = verdict.unwrap();
    assert_eq!((&verdict["decision"], &verdict["of"]), (&"allow".into(), &"localhost/h:latest".into()), "{verdict}");
    assert!(verdict["findings"].to_string().contains("HYG001"), "{verdict}");
    import("ENV PASSWORD=hunter2hunter2").refused(125, "HYG003");
    let explain = |words: &[&str]| case.run([&["policy", "explain"], words].concat());
    explain(&["HYG003"]).ok().says("deny: image-hygiene").says("[HYG003]").says("image: localhost/h:latest");
    explain(&[]).ok().says("[HYG003]");

    let mode = |mode: &str| {
        let path = case.home().join(".config/rlrun/policy.d/policy.toml");
        std::fs::remove_file(&path).unwrap_or_default();
        let text = format!("[modes]\nimage-hygiene = \"{mode}\"\n");
        std::io::Write::write_all(&mut std::fs::File::create(&path).unwrap(), text.as_bytes()).unwrap();
        case.user().own(&path);
    };
    mode("warn");
    import("ENV PASSWORD=hunter2hunter2").ok().complains("[HYG003] would refuse");
    mode("audit");
    let quiet = import("ENV PASSWORD=hunter2hunter2");
    assert!(!quiet.ok().err().contains("HYG003"), "{}", quiet.err());
    assert!(last()["verdicts"].to_string().contains("would-deny"), "{}", last());
}

#[test]
fn a_restart_that_is_refused_stops_nothing() {
    let case = case!(Userns).keeping_containers();
    let id = case.detached(&["--name", "stays"], ["sleep", "1000"]);
    let restart = || case.rlrun(["restart", "-t", "0", "stays"]).leaving_processes().run();
    restart().ok();
    let state = || case.run(["inspect", "--format", "{{.State.Status}} {{.State.Pid}}", &id]).ok().out();
    let before = state();
    install(&case, &[(&shipped(&case, "image-source"), Some("deny = [\"localhost/base\"]"))]);
    restart().refused(125, "image-source");
    assert_eq!(state(), before);
    case.run(["rm", "-f", "-t", "0", "stays"]).ok();
}
