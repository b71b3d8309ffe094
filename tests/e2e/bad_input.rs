//! What users and hosts get wrong. Each gives one error with its hint and the right code, and leaves the store as it was.
//! Archives and registries are also in `images` and `pull`, full disks in `faults`, policies in `policy`, volumes and ports
//! with their features.

use rlrun_tests::{BASE, Case, Output, case};

const RUN: [&str; 5] = ["run", "--rm", "--network", "none", BASE];

fn with_run<'a>(options: &[&'a str], command: &[&'a str]) -> Vec<&'a str> {
    let mut args = RUN[..4].to_vec();
    args.extend(options);
    args.push(BASE);
    args.extend(command);
    args
}

fn store_is_as_it_was(case: &Case) {
    case.in_base(["cat", "/etc/base-image"]).ok().prints("base");
}

/// What is wrong is named in one error with its hint, gives this code, and changes nothing in the store.
#[test]
fn whatever_is_refused_leaves_the_store_as_it_was() {
    let case = case!(Userns, Slirp);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let _listening = std::net::TcpListener::bind(taken).unwrap();
    let published = format!("{taken}:80");
    let junk = case.make_file("junk", [0x5a; 5000]);
    let archive = rlrun_tests::template_archive();
    let cut = case.make_file("cut.tar", &archive[..archive.len() / 2]);
    let policy = case.make_file("no-policy.wasm", b"no policy");
    let [junk, cut, policy] = [&junk, &cut, &policy].map(|path| path.to_str().unwrap());
    let no_digest = format!("localhost:1/app@sha256:{}", "0".repeat(64));
    let before = case.store();
    let refused: [(&[&str], &[&str], i32, &str); 14] = [
        (&["--pull=never"], &["localhost/no-such-image:1", "true"], 125, "localhost/no-such-image:1"),
        (&[], &["localhost:1/app:1", "true"], 125, "localhost:1"),
        (&[], &[&no_digest, "true"], 125, "localhost:1"),
        (&["-u", "no-such-user"], &[BASE, "true"], 126, "no-such-user"),
        (&["-v", "/no/such/path:/x"], &[BASE, "true"], 125, "/no/such/path"),
        (&["--mount", "type=bind,src=/no/such/path,dst=/x"], &[BASE, "true"], 125, "/no/such/path"),
        (&[], &[BASE, "no-such-command"], 127, "no-such-command"),
        (&[], &[BASE, "/etc/not-executable"], 126, "/etc/not-executable"),
        (&[], &[BASE, "/bin/foreign"], 126, "architecture"),
        (&["-w", "/etc/passwd"], &[BASE, "true"], 126, "/etc/passwd"),
        (&["--network=slirp4netns", "-p", &published], &[BASE, "true"], 125, &published),
        (&["--network=pasta"], &[BASE, "true"], 125, "outlive"),
        (&["--policy", policy], &[BASE, "true"], 125, policy),
        (&["--security-opt", "seccomp=/no/such/profile"], &[BASE, "true"], 125, "/no/such/profile"),
    ];
    for (options, image, code, words) in refused {
        let network: &[&str] =
            if options.iter().any(|o| o.starts_with("--network")) { &[] } else { &["--network", "none"] };
        case.rlrun(["run", "--rm"]).args(network).args(options).args(image).run().refused(code, words);
        assert_eq!(case.store(), before, "after run {options:?} {image:?}");
    }
    let commands: [(&[&str], &str); 5] = [
        (&["load", "-i", junk], junk),
        (&["load", "-i", cut], "truncated"),
        (&["load", "-i", "/no/such/archive"], "/no/such/archive"),
        (&["import", cut, "localhost/cut:1"], "truncated"),
        (&["pull", "localhost:1/app:1"], "localhost:1"),
    ];
    for (command, words) in commands {
        case.run(command).refused(125, words);
        assert_eq!(case.store(), before, "after {command:?}");
    }
}

#[test]
fn an_unknown_image_is_named() {
    let case = case!(Userns);
    case.run(["run", "--rm", "--pull", "never", "localhost/no-such-image:1", "true"])
        .refused(125, "localhost/no-such-image:1");
}

#[test]
fn an_unreachable_registry_is_named() {
    let case = case!(Userns);
    // A port of loopback where nobody listens: the kernel says so at once.
    case.run(["run", "--rm", "localhost:1/app:1", "true"]).refused(125, "localhost:1");
}

#[test]
fn without_dev_net_tun_the_network_is_refused_with_the_command_to_run() {
    let case = case!(Userns, Slirp, Root);
    for (prepare, words) in [
        ("mkdir -p /run/empty-net; mount -t tmpfs none /dev/net", "modprobe tun"),
        (
            "touch /run/closed-tun; chmod 600 /run/closed-tun; mount -t tmpfs none /dev/net; mknod -m 600 /dev/net/tun c 10 200",
            "chmod 0666 /dev/net/tun",
        ),
    ] {
        let out = case.on_changed_host(prepare, &["run", "--rm", BASE, "true"]).run();
        out.refused(125, "/dev/net/tun").complains(words);
        // Without a network it is not needed.
        case.on_changed_host(prepare, &with_run(&[], &["true"])).run().ok();
    }
}

#[test]
fn without_dev_fuse_the_driver_that_needs_it_is_refused_and_others_work() {
    let case = case!(Userns, Fuse, Root);
    let prepare = "mount --bind /dev/null /dev/fuse; umount /dev/fuse; touch /run/rlrun-no-fuse; mount --bind /run/rlrun-no-fuse /dev/fuse";
    let out = case.on_changed_host(prepare, &with_run(&["--storage-driver", "fuse-overlayfs"], &["true"])).run();
    out.refused(125, "/dev/fuse");
    case.on_changed_host(prepare, &with_run(&[], &["true"])).run().ok();
}

#[test]
fn without_slirp4netns_the_package_is_named() {
    let case = case!(Userns, Slirp, Root);
    let path = "touch /run/no-such-program; mount --bind /run/no-such-program /usr/bin/slirp4netns";
    case.on_changed_host(path, &["run", "--rm", BASE, "true"]).run().refused(125, "slirp4netns").complains("install");
}

#[test]
fn without_a_runtime_directory_there_is_a_safe_fallback() {
    let case = case!(Userns, Slirp);
    // As under su, sudo, cron and CI: unset, missing, somebody else's.
    let base = || case.base(&[], ["echo", "works"]);
    base().without_env("XDG_RUNTIME_DIR").run().ok().prints("works");
    base().env("XDG_RUNTIME_DIR", "/no/such/directory").run().ok().prints("works");
    base().env("XDG_RUNTIME_DIR", "/root").run().ok().prints("works");
    case.rlrun(["run", "--rm", BASE, "echo", "works"]).without_env("XDG_RUNTIME_DIR").run().ok().prints("works");
}

#[test]
fn nothing_is_kept_in_tmp_whatever_is_planted_there() {
    let case = case!(Userns, Slirp, Root);
    let uid = case.user().uid;
    // In a private /tmp, so that nothing real is touched: directories of somebody else, links, a file in the way.
    for plant in ["mkdir -m 0777", "ln -s /etc", "touch", "mkfifo"] {
        let names = [format!("/tmp/rlrun-{uid}"), "/tmp/rlrun".to_owned(), format!("/tmp/run-{uid}")];
        let planted: Vec<String> = names.iter().map(|name| format!("{plant} {name}")).collect();
        let prepare = format!("mount -t tmpfs -o mode=1777 none /tmp; {}", planted.join("; "));
        let run = case.on_changed_host(&prepare, &["run", "--rm", BASE, "echo", "works"]);
        run.without_env("XDG_RUNTIME_DIR").run().ok().prints("works");
    }
    // Not a single name is made in /tmp, with a network and ports as without.
    let empty = "mount -t tmpfs -o mode=0555,ro none /tmp";
    for options in [&["-p", "127.0.0.1::80"][..], &["--network", "none"]] {
        let args = [&["run", "--rm"][..], options, &[BASE, "echo", "works"]].concat();
        case.on_changed_host(empty, &args).without_env("XDG_RUNTIME_DIR").run().ok().prints("works");
    }
    store_is_as_it_was(&case);
}

#[test]
fn a_home_that_cannot_be_written_is_one_error() {
    let case = case!(Userns, Root);
    let closed = case.directory().join("closed");
    std::fs::create_dir(&closed).unwrap();
    let archive = case.make_file("base.tar", rlrun_tests::template_archive());
    let archive = archive.to_str().unwrap();
    let run = with_run(&[], &["true"]);
    let commands: [&[&str]; 4] = [&["load", "-i", archive], &["import", archive, "x:1"], &["pull", BASE], &run];
    for home in [closed.as_path(), "/no/such/home".as_ref()] {
        for command in commands {
            let out = case.rlrun(command).env("HOME", home).run();
            out.refused(125, home.to_str().unwrap()).complains("RLRUN_DATA_HOME");
            assert_eq!(out.err().lines().count(), 2, "{command:?}: {}", out.err());
        }
    }
    assert_eq!(std::fs::read_dir(&closed).unwrap().count(), 0);
    // A store that was there, on a file system that has become read-only.
    let prepare = format!("mount --bind {0} {0}; mount -o remount,bind,ro {0}", case.home().display());
    let out = case.on_changed_host(&prepare, &run).run();
    out.refused(125, "read-only").complains("RLRUN_DATA_HOME");
    store_is_as_it_was(&case);
}

#[test]
fn without_a_home_there_is_an_error_or_the_databases_home() {
    let case = case!(Userns);
    let out = case.rlrun(["images"]).without_env("HOME").run();
    if out.exit != rlrun_tests::Exit::Code(0) {
        out.refused(125, "HOME");
    }
}

#[test]
fn an_env_file_that_is_missing_or_broken_is_named() {
    let case = case!(Userns);
    case.run_base(&["--env-file", "/no/such/file"], ["true"]).refused(125, "/no/such/file");
    let file = case.make_file("env", b"GOOD=1\n=novalue\n");
    case.run_base(&["--env-file", file.to_str().unwrap()], ["true"]).refused(125, "env");
    case.run_base(&["-e", "=x"], ["true"]).refused(125, "");
}

#[test]
fn malformed_options_name_what_is_wrong() {
    let case = case!(Userns);
    let bad: [(&[&str], &str); 10] = [
        (&["--userns=sideways"], "sideways"),
        (&["--userns=keep-id:uid=x"], "uid"),
        (&["--security-opt", "colour=red"], "colour"),
        (&["--security-opt", "no-new-privileges=perhaps"], "perhaps"),
        (&["--tmpfs", "relative"], "relative"),
        (&["--hostname", "not a name"], "not a name"),
        (&["-u", ""], "user"),
        (&["--policy", "/no/such/policy.wasm"], "/no/such/policy.wasm"),
        (&["--cidfile", "/no/such/directory/cid"], "the directory /no/such/directory does not exist"),
        (&["-v", ":/z"], "the name of the volume is empty"),
    ];
    for (options, word) in bad {
        let out = case.run_base(options, ["true"]);
        out.code(125).complains(word);
    }
    store_is_as_it_was(&case);
}

#[test]
fn an_error_is_one_line_with_one_hint() {
    let case = case!(Userns);
    let out: Output = case.in_base(["no-such-command"]);
    let err = out.err();
    let lines: Vec<&str> = err.lines().collect();
    assert!(lines[0].starts_with("Error: "), "{err}");
    assert!(lines.iter().filter(|line| line.starts_with("hint: ")).count() == 1, "{err}");
    assert!(!err.contains("panicked") && !err.contains("Os {") && !err.contains("src/"), "{err}");
}

#[test]
fn only_names_that_are_near_are_suggested() {
    let case = case!(Userns);
    case.run(["run", "--bogus", "x"]).refused(125, "--bogus").complains("rlrun run --help");
    case.run(["run", "--interactiv", "x"]).refused(125, "did you mean --interactive?");
    case.run(["run", "--memroy", "1m", "x"]).refused(125, "did you mean --memory?");
}

#[test]
fn a_hint_says_what_to_write_instead() {
    let case = case!(Userns);
    case.run_base(&["--env-file", "/nosuch"], ["true"]).refused(125, "NAME=value");
    case.run_base(&["-v", "/tmp:/proc/x"], ["true"]).refused(125, "outside of /proc");
    case.run_base(&["--mount", "type=foo,dst=/x"], ["true"]).refused(125, "type=volume");
    case.run_base(&["-w", "relative"], ["true"]).refused(126, "/srv");
}

#[test]
fn wrong_policies_and_settings_are_told_by_their_file() {
    let case = case!(Userns);
    let write = |name: &str, text: &str| {
        case.make_dir("home/.config");
        case.make_dir("home/.config/rlrun");
        let directory = case.make_dir("home/.config/rlrun/policy.d");
        case.make_file(&format!("home/.config/rlrun/policy.d/{name}"), text);
        directory.join(name)
    };
    let settings = write("baseline.toml", "foo = 3\n");
    case.in_base(["true"]).refused(125, settings.to_str().unwrap());
    std::fs::remove_file(settings).unwrap();
    let junk = write("junk.wasm", "junk");
    case.in_base(["true"]).refused(125, junk.to_str().unwrap());
}

#[test]
fn keys_that_nobody_can_type_are_warned_of() {
    let case = case!(Userns);
    case.run_base(&["-it"], ["true"]).ok().complains("no terminal");
    let out = case.run_base(&["-t"], ["true"]);
    assert!(!out.ok().err().contains("no terminal"), "{}", out.err());
}
