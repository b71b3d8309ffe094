//! Options of `run` about devices, the environment, shared namespaces and files that rlrun makes.

use rlrun_tests::{BASE, Image, base_rootfs, case};
use serde_json::json;

#[test]
fn variables_are_taken_away_merged_and_passed_on() {
    let case = case!(Userns);
    let with = |options: &[&str], command: &str| {
        let run = case.base(options, ["sh", "-c", command]).env("MINE", "of the host");
        run.run().ok().out().trim().to_owned()
    };
    assert_eq!(with(&["--unsetenv", "FROM_IMAGE"], "echo ${FROM_IMAGE-none}"), "none");
    assert_eq!(with(&["--unsetenv-all", "-e", "A=1"], "env | grep -v -e PWD -e SHLVL -e '^_=' -e '^PATH='"), "A=1");
    assert_eq!(with(&["--env-merge", "X=${FROM_IMAGE}-and-$FROM_IMAGE"], "echo $X"), "yes-and-yes");
    assert_eq!(with(&["--env-host"], "echo $MINE; echo $HOME"), "of the host\n/root");
    assert_eq!(with(&["--env-host", "-e", "MINE=mine"], "echo $MINE"), "mine");
}

#[test]
fn files_that_rlrun_makes_can_be_left_to_the_image() {
    let case = case!(Userns, Subid);
    case.load(&Image::new("localhost/hosts:1", base_rootfs().clone().file("etc/hosts", 0o644, "image\n")));
    let run = |options: &[&str]| {
        case.rlrun(["run", "--rm", "--network", "none"])
            .args(options)
            .args(["localhost/hosts:1", "cat", "/etc/hosts"])
            .run()
    };
    run(&["--no-hosts"]).ok().prints("image");
    assert!(run(&[]).ok().out().contains("localhost"));
    case.run_base(&["--userns", "keep-id", "--passwd=false"], ["cat", "/etc/passwd"])
        .ok()
        .prints("root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000:app:/home:/bin/sh");
    if std::path::Path::new("/usr/share/zoneinfo/Asia/Tokyo").exists() {
        case.run_base(&["--tz", "Asia/Tokyo"], ["date", "+%z"]).ok().prints("+0900");
    }
    case.run_base(&["--tz", "Nowhere/City"], ["true"]).refused(125, "nowhere/city");
    let pidfile = case.make_dir("pid").join("file");
    let spawned = case.spawn_base(&["-i", "--pidfile", pidfile.to_str().unwrap()], ["sh", "-c", "echo ready; cat"]);
    let pid: i32 = std::fs::read_to_string(&pidfile).unwrap().parse().unwrap();
    assert!(std::path::Path::new(&format!("/proc/{pid}/status")).exists());
    drop(spawned.finish());
    let labels = case.make_file("labels", "# comment\na=b\n\nc=d\n");
    let case = case.keeping_containers();
    let id = case.detached(&["--label-file", labels.to_str().unwrap(), "-l", "c=mine"], ["true"]);
    case.run(["inspect", "-f", "{{.Config.Labels.a}} {{.Config.Labels.c}}", &id]).ok().prints("b mine");
}

#[test]
fn a_device_of_the_host_is_given_and_a_policy_sees_it() {
    let case = case!(Userns);
    let options = ["--policy-baseline", "off", "--device", "/dev/zero:/dev/mine"];
    case.run_base(&options, ["sh", "-c", "head -c 3 /dev/mine | wc -c; test -c /dev/mine && echo device"])
        .ok()
        .prints("3\ndevice");
    case.run_base(&["--device", "/dev/nosuch"], ["true"]).refused(125, "/dev/nosuch");
    case.run_base(&["--device", "/dev/zero:r"], ["true"]).refused(125, "restricts a device");
    let plan = case.run(["plan", "--policy-baseline", "off", "--device", "/dev/zero", BASE]).ok().out();
    assert!(plan.contains("\"devices\""), "{plan}");
}

#[test]
fn namespaces_of_the_host_are_shared_by_name_only() {
    let case = case!(Userns);
    let host = |kind: &str| std::fs::read_link(format!("/proc/self/ns/{kind}")).unwrap().display().to_string();
    for (option, kind) in [("--ipc", "ipc"), ("--uts", "uts"), ("--cgroupns", "cgroup")] {
        let link = format!("/proc/self/ns/{kind}");
        let off = case.run_base(&["--policy-baseline", "off", option, "host"], ["readlink", &link]);
        off.ok().prints(&host(kind));
        let private = case.run_base(&[option, "private"], ["readlink", &link]);
        assert_ne!(private.ok().out().trim(), host(kind));
        case.run_base(&[option, "container:x"], ["true"]).refused(125, "cannot be joined");
        // The baseline allows none of them.
        case.run_base(&[option, "host"], ["true"]).refused(125, "baseline");
    }
    case.run_base(&["--pid", "host"], ["true"]).refused(125, "pid namespace");
}

#[test]
fn exposed_ports_are_published_on_free_ones() {
    let case = case!(Userns, Slirp).keeping_containers();
    case.load(&Image::new("localhost/web:1", base_rootfs().clone()).with("ExposedPorts", json!({"80/tcp": {}})));
    let run = case.rlrun(["run", "-d", "-P", "--expose", "53/udp", "localhost/web:1", "sleep", "1000"]);
    let id = run.leaving_processes().run().ok().out().trim().to_owned();
    let ports = case.run(["port", &id]).ok().out();
    assert!(ports.contains("80/tcp -> 0.0.0.0:") && ports.contains("53/udp -> 0.0.0.0:"), "{ports}");
    case.run_base(&["--expose", "8080:80"], ["true"]).refused(125, "names a port of the host");
}

#[test]
fn what_cannot_be_had_is_refused_and_what_does_nothing_is_said() {
    let case = case!(Userns);
    for (option, why) in [("--gpus=all", "CDI"), ("--systemd=always", "cgroup"), ("--sdnotify=container", "sd_notify")]
    {
        case.run_base(&[option], ["true"]).refused(125, why);
    }
    case.run_base(&["--systemd=false", "--sdnotify=ignore", "-q"], ["true"]).ok();
    case.run_base(&["--network-alias", "db"], ["true"]).ok().complains("no effect");
}

#[test]
fn the_personality_is_that_of_another_machine() {
    let case = case!(Userns).keeping_containers();
    case.detached(&["--name", "box", "--personality", "linux32"], ["sleep", "1000"]);
    let machine = case.run(["exec", "box", "uname", "-m"]).ok().out();
    assert!(!machine.contains("64"), "{machine}");
    case.run(["rm", "-f", "-t", "0", "box"]).ok();
    case.run_base(&["--personality", "bsd"], ["true"]).refused(125, "LINUX32");
}

#[test]
fn lines_of_a_hosts_file_are_taken_and_other_files_are_not() {
    let case = case!(Userns);
    let hosts = case.make_file("hosts", "# ours\n192.0.2.7 there also-there");
    let options = ["--hosts-file", hosts.to_str().unwrap(), "--add-host", "here:192.0.2.8"];
    let out = case.run_base(&options, ["cat", "/etc/hosts"]);
    out.ok().says("192.0.2.8\there\n").says("\n192.0.2.7 there also-there\n").says("localhost");
    case.run_base(&["--hosts-file", "/etc/passwd"], ["true"]).refused(125, "line 1");
    case.run_base(&["--hosts-file", "none"], ["cat", "/etc/hosts"]).ok().says("localhost");
}

#[test]
fn descriptors_reach_the_payload_and_nobody_keeps_them() {
    let case = case!(Userns);
    let rlrun = case.program();
    for init in ["", "--init"] {
        // The reader of the pipe sees its end only when nobody has the other end any more.
        let script = format!(
            "exec 9<&0; \"$0\" run --rm {init} --network none --preserve-fds 2 {} sh -c 'cat <&3 >&4; ls /proc/self/fd' 3<&9 4>&2 </dev/null",
            rlrun_tests::BASE,
        );
        let sh = case.invoke("/bin/sh".as_ref()).args(["-c", &script, rlrun.to_str().unwrap()]);
        let out = sh.stdin("through three").run();
        out.ok().complains("through three").prints("0\n1\n2\n3\n4\n5");
    }
    // With a terminal beside them.
    let script = format!(
        "exec 9<&0; \"$0\" run --rm -t --network none --preserve-fds 2 {} sh -c 'test -t 1 && cat <&3 >&4' 3<&9 4>&2 </dev/null",
        rlrun_tests::BASE,
    );
    let sh = case.invoke("/bin/sh".as_ref()).args(["-c", &script, rlrun.to_str().unwrap()]);
    sh.stdin("through three").run().ok().complains("through three");
    case.run_base(&["--preserve-fds", "1"], ["true"]).refused(125, "not open");
    let script = format!("exec 3</; \"$0\" run --rm --preserve-fds 1 {BASE} ls /proc/self/fd/3/");
    case.invoke("/bin/sh".as_ref()).args(["-c", &script, rlrun.to_str().unwrap()]).run().refused(125, "directory");
}

#[test]
fn an_image_goes_with_its_container_unless_somebody_needs_it() {
    let case = case!(Userns).keeping_containers();
    let load = || case.load(&Image::new("localhost/once:1", base_rootfs().clone().file("once", 0o644, "")));
    let run = |script: &str| case.run(["run", "--rmi", "--network", "none", "localhost/once:1", "sh", "-c", script]);
    load();
    run("exit 3").code(3);
    case.run(["image", "exists", "localhost/once:1"]).code(1);
    load();
    case.run(["create", "--name", "box", "--network", "none", "localhost/once:1", "true"]).ok();
    run("true").ok().complains("the image stays");
    case.run(["image", "exists", "localhost/once:1"]).ok();
    case.run(["rm", "box"]).ok();
    case.run(["run", "-d", "--rmi", "localhost/once:1", "true"]).refused(125, "--rmi");
}

#[test]
fn what_takes_the_image_away_passes_signals_on_and_ends_with_it() {
    let case = case!(Userns).keeping_containers();
    case.load(&Image::new("localhost/once:1", base_rootfs().clone().file("once", 0o644, "")));
    let script = "trap 'exit 7' TERM; echo up; while :; do sleep 0.1; done";
    let words = ["run", "--rmi", "--network", "none", "localhost/once:1", "sh", "-c", script];
    let run = case.rlrun(words).spawn();
    run.wait_for("up");
    run.signal(nix::sys::signal::Signal::SIGTERM);
    run.finish().code(7);
    case.run(["image", "exists", "localhost/once:1"]).code(1);
}

#[test]
fn a_template_unit_makes_a_container_of_its_own_for_each_instance() {
    let case = case!(Userns).keeping_containers();
    case.run(["create", "--name", "web", "--network", "none", BASE, "sleep", "50%"]).ok();
    let unit = case.run(["generate", "systemd", "--new", "--template", "--name", "web"]).ok().out();
    assert!(unit.contains("container-web@.service") && unit.contains("--name web-%i "), "{unit}");
    assert!(unit.contains("\nExecStop=") && unit.contains("stop --ignore web-%i\n") && unit.contains("50%%"), "{unit}");
    // A template is of containers that do not exist yet.
    case.run(["generate", "systemd", "--template", "--name", "web"]).ok().prints(unit.trim_end());
    case.run(["events", "--stream=false", "--filter", "container=web", "--format", "{{.Details.Attributes.image}}"])
        .ok()
        .says(BASE);
}
