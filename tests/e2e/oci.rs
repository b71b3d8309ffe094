//! `rlrun oci`: bundles that another program wrote, by the words of an OCI runtime.

use nix::sys::signal::{Signal, kill};
use rlrun_tests::{BASE, Case, Exit, base_rootfs, case, until};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use rustix::termios::{Winsize, tcsetwinsize};
use serde_json::{Value, json};
use std::fs::{File, OpenOptions, Permissions, set_permissions};
use std::io::{IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// A bundle with the base image's files, and the configuration that runc writes for an ordinary user, changed.
fn bundle(case: &Case, change: impl FnOnce(&mut Value)) -> PathBuf {
    let directory = case.make_dir("bundle");
    let archive = case.make_file("rootfs.tar", base_rootfs().tar());
    let script = "mkdir rootfs && tar -C rootfs --no-same-owner -xf \"$1\" && runc spec --rootless";
    let made = case.invoke("/bin/sh".as_ref()).in_directory(&directory);
    made.args(["-c", script, "sh", archive.to_str().unwrap()]).run().ok();
    let file = directory.join("config.json");
    let mut config: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    config["process"]["terminal"] = json!(false);
    // `baseline` refuses the host's network and /sys, which runc's configuration for an ordinary user has.
    let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.extend([json!({"type": "network"}), json!({"type": "cgroup"})]);
    let sys = config["mounts"].as_array_mut().unwrap().iter_mut().find(|m| m["destination"] == "/sys").unwrap();
    *sys = json!({"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]});
    change(&mut config);
    configure(case, &config);
    directory
}

fn configure(case: &Case, config: &Value) {
    std::fs::remove_file(case.directory().join("bundle/config.json")).unwrap();
    case.make_file("bundle/config.json", config.to_string());
}

fn command(words: &[&str]) -> impl FnOnce(&mut Value) {
    move |config| config["process"]["args"] = json!(words)
}

fn oci<'a>(verb: &'a str, bundle: &'a Path, more: &[&'a str]) -> Vec<&'a str> {
    let mut words = vec!["oci", verb, "--bundle", bundle.to_str().unwrap()];
    words.extend(more);
    words
}

fn state(case: &Case, id: &str) -> Value {
    serde_json::from_str(&case.run(["oci", "state", id]).ok().out()).unwrap()
}

#[test]
fn a_bundle_that_runc_wrote_runs() {
    let case = case!(Userns, Runc);
    let script = "id -u; hostname; cat /etc/base-image; cat; exit 7";
    let bundle = bundle(&case, command(&["sh", "-c", script]));
    let out = case.rlrun(oci("run", &bundle, &["web"])).stdin("from outside\n").run();
    out.code(7).prints("0\nrunc\nbase\nfrom outside");
    assert!(bundle.join("rootfs/etc/base-image").exists(), "the root file system is the bundle's");
    case.run(["oci", "state", "web"]).refused(125, "no such container");
}

#[test]
fn the_network_of_the_host_is_a_matter_of_policy() {
    let case = case!(Userns, Runc);
    let bundle = bundle(&case, |config| {
        command(&["ls", "/sys/class/net"])(config);
        let own = ["pid", "ipc", "uts", "mount", "user"];
        config["linux"]["namespaces"] = own.iter().map(|kind| json!({"type": kind})).collect();
        let sys = config["mounts"].as_array_mut().unwrap().iter_mut().find(|m| m["destination"] == "/sys").unwrap();
        *sys = json!({"destination": "/sys", "type": "none", "source": "/sys", "options": ["rbind", "ro"]});
    });
    case.run(oci("run", &bundle, &["web"])).code(125).complains("the host's network namespace");
    let out = case.run(oci("run", &bundle, &["--policy-baseline", "off", "web"]));
    let host = std::fs::read_dir("/sys/class/net").unwrap().count();
    assert_eq!(out.ok().out().lines().count(), host);
}

#[test]
fn a_bundle_is_confined_as_it_says() {
    let case = case!(Userns, Runc);
    let script = "grep -E '^(CapBnd|NoNewPrivs|Seccomp):' /proc/self/status; touch /x; cat /proc/self/uid_map";
    let bundle = bundle(&case, |config| {
        command(&["sh", "-c", script])(config);
        config["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["sethostname"], "action": "SCMP_ACT_ERRNO"}]
        });
    });
    let out = case.run(oci("run", &bundle, &["web"]));
    // CAP_KILL, CAP_NET_BIND_SERVICE and CAP_AUDIT_WRITE, as runc writes it.
    out.ok().says("CapBnd:\t0000000020000420").says("NoNewPrivs:\t1").says("Seccomp:\t2").complains("Read-only");
    let lines: Vec<String> = out.out().lines().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    assert!(lines.contains(&format!("0 {} 1", case.user().uid)), "{lines:?}");
}

#[test]
fn the_limits_of_a_bundle_hold() {
    let case = case!(Userns, Runc);
    let limited = bundle(&case, |config| {
        command(&["probe", "forks", "100"])(config);
        config["linux"]["resources"] = json!({"pids": {"limit": 20}});
    });
    case.run(oci("run", &limited, &["--limits=require", "few"])).ok().prints("19 EAGAIN");
    let file = limited.join("config.json");
    let mut config: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    let memory = json!({"limit": 64 << 20, "swap": 64 << 20});
    config["linux"]["resources"] = json!({"memory": memory, "cpu": {"quota": 50_000, "period": 100_000}});
    config["process"]["args"] = json!(["sh", "-c", "x=$(yes | head -c 200000000)"]);
    configure(&case, &config);
    case.run(oci("run", &limited, &["much"])).code(137).complains("memory");
}

/// `oci create`, as engines call it: the container has its streams. Returns where they go.
fn create(case: &Case, bundle: &Path, more: &[&str]) -> PathBuf {
    let output = case.make_file(&format!("{}.output", more.last().unwrap()), "");
    let file = || Stdio::from(OpenOptions::new().append(true).open(&output).unwrap());
    let created = case.rlrun(oci("create", bundle, more)).leaving_processes().spawn_with(Stdio::null(), file(), file());
    assert_eq!(created.wait(), Exit::Code(0), "{}", std::fs::read_to_string(&output).unwrap());
    output
}

fn becomes(case: &Case, id: &str, status: &str) -> bool {
    until(20, || (state(case, id)["status"] == status).then_some(())).is_some()
}

#[test]
fn a_bundle_is_created_started_signalled_and_deleted() {
    let case = case!(Userns, Runc);
    let script = "trap 'exit 9' TERM; echo to the caller; echo up > /tmp/up; while :; do sleep 0.1; done";
    let bundle = bundle(&case, |config| {
        command(&["sh", "-c", script])(config);
        config["annotations"] = json!({"who": "me"});
        config["mounts"].as_array_mut().unwrap().push(json!({
            "destination": "/tmp", "type": "bind", "source": "shared", "options": ["rbind", "rw"]
        }));
    });
    let shared = case.make_dir("bundle/shared");
    let pid_file = case.make_file("pid", "").display().to_string();
    let output = create(&case, &bundle, &["--pid-file", &pid_file, "web"]);
    let created = state(&case, "web");
    assert_eq!((&created["status"], &created["id"]), (&json!("created"), &json!("web")));
    assert_eq!(created["annotations"]["who"], "me");
    assert_eq!(created["bundle"], json!(bundle));
    let pid = std::fs::read_to_string(&pid_file).unwrap();
    assert_eq!(pid, created["pid"].to_string());
    let network = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
    assert_ne!(network(&pid), network("self"), "its namespaces are there for whoever sets them up");
    assert!(!shared.join("up").exists(), "its program has not run");
    case.run(oci("create", &bundle, &["web"])).refused(125, "web");
    case.run(["ps", "-a", "--format", "{{.Image}} {{.State}}"]).ok().prints(&format!("{} created", bundle.display()));
    case.run(["exec", "web", "true"]).code(125).complains("created");
    // What is changed after the creation changes nothing (runtime.md, "create").
    configure(&case, &json!({}));
    case.run(["oci", "start", "web"]).ok();
    assert!(until(20, || shared.join("up").exists().then_some(())).is_some(), "it runs");
    let running = state(&case, "web");
    assert_eq!((&running["status"], &running["pid"]), (&json!("running"), &created["pid"]));
    assert!(std::fs::read_to_string(&output).unwrap().ends_with("to the caller\n"));
    case.run(["oci", "start", "web"]).code(125).complains("it is running");
    case.run(["oci", "delete", "web"]).refused(125, "it is running");
    case.run(["exec", "web", "cat", "/tmp/up"]).ok().prints("up");
    case.run(["oci", "kill", "web", "TERM"]).ok();
    assert!(becomes(&case, "web", "stopped"), "it ends");
    case.run(["wait", "web"]).ok().prints("9");
    case.run(["oci", "kill", "web"]).refused(125, "exited");
    case.run(["oci", "delete", "web"]).ok();
    case.run(["oci", "delete", "web"]).refused(125, "no such container");
    case.run(["oci", "delete", "--force", "web"]).ok();
    assert!(bundle.join("rootfs/bin").exists(), "the bundle stays");
}

#[test]
fn the_end_of_what_was_created_is_the_end_of_its_streams() {
    let case = case!(Userns, Runc);
    let bundle = bundle(&case, command(&["echo", "done"]));
    let created = case.rlrun(oci("create", &bundle, &["web"])).leaving_processes().spawn();
    assert!(until(20, || case.run(["oci", "state", "web"]).out().contains("\"created\"").then_some(())).is_some());
    case.run(["oci", "start", "web"]).ok();
    created.finish().ok().prints("done");
    assert!(becomes(&case, "web", "stopped"));
    case.run(["oci", "delete", "web"]).ok();
}

#[test]
fn what_waits_for_its_start_can_be_killed_and_deleted() {
    let case = case!(Userns, Runc);
    let limited = bundle(&case, |config| {
        command(&["sleep", "1000"])(config);
        config["linux"]["resources"] = json!({"cpu": {"quota": 50_000, "period": 100_000}, "pids": {"limit": 20}});
    });
    create(&case, &limited, &["first"]);
    case.run(["oci", "kill", "first", "KILL"]).ok();
    assert!(becomes(&case, "first", "stopped"), "it ends");
    case.run(["oci", "start", "first"]).code(125).complains("it is exited");
    case.run(["oci", "delete", "first"]).ok();
    // Its supervisor: nothing of it is left, and that it was never started is no reason to take it for created.
    create(&case, &limited, &["second"]);
    for supervisor in case.supervisors() {
        kill(supervisor, Signal::SIGKILL).unwrap();
    }
    assert!(becomes(&case, "second", "stopped"), "it is seen");
    case.run(["oci", "delete", "second"]).ok();
    create(&case, &limited, &["third"]);
    case.run(["oci", "delete", "third"]).ok();
    assert!(case.supervisors().is_empty(), "nothing waits any more");
    create(&case, &limited, &["fourth"]);
    case.run(["rm", "fourth"]).refused(2, "it is running");
    case.run(["rm", "-f", "fourth"]).ok();
}

#[test]
fn a_program_that_cannot_be_executed_fails_at_the_start() {
    let case = case!(Userns, Runc);
    let bundle = bundle(&case, command(&["/bad"]));
    set_permissions(case.make_file("bundle/rootfs/bad", "\x7fELF"), Permissions::from_mode(0o755)).unwrap();
    create(&case, &bundle, &["web"]);
    case.run(["oci", "start", "web"]).code(126).complains("/bad");
    assert!(becomes(&case, "web", "stopped"));
    case.run(["inspect", "--format", "{{.State.Error}}", "web"]).ok().says("/bad");
    case.run(["oci", "delete", "web"]).ok();
}

#[test]
fn a_terminal_goes_to_whoever_listens() {
    let case = case!(Userns, Runc);
    let bundle = bundle(&case, |config| {
        command(&["sh", "-c", "tty; stty size; read line; echo got $line"])(config);
        config["process"]["terminal"] = json!(true);
    });
    case.run(oci("create", &bundle, &["web"])).refused(125, "terminal");
    case.run(oci("create", &bundle, &["--console-socket", "/not/there", "web"])).refused(125, "/not/there");
    let socket = case.make_dir("s").join("console");
    let listener = UnixListener::bind(&socket).unwrap();
    set_permissions(&socket, Permissions::from_mode(0o666)).unwrap();
    create(&case, &bundle, &["--console-socket", socket.to_str().unwrap(), "web"]);
    let (connection, _) = listener.accept().unwrap();
    let mut terminal = master(&connection);
    let size = Winsize { ws_row: 12, ws_col: 34, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&terminal, size).unwrap();
    case.run(["oci", "start", "web"]).ok();
    terminal.write_all(b"hello\n").unwrap();
    let mut seen = Vec::new();
    let mut chunk = [0; 256];
    // The end of a terminal is EIO for whoever has its master.
    while let Ok(read @ 1..) = terminal.read(&mut chunk) {
        seen.extend_from_slice(&chunk[..read]);
    }
    let seen = String::from_utf8_lossy(&seen);
    assert!(seen.contains("/dev/") && seen.contains("12 34") && seen.contains("got hello"), "{seen}");
    assert!(becomes(&case, "web", "stopped"));
    case.run(["oci", "delete", "web"]).ok();
}

/// The descriptor that comes over a connection.
fn master(connection: &UnixStream) -> File {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut rights = RecvAncillaryBuffer::new(&mut space);
    let mut name = [0; 64];
    let flags = RecvFlags::CMSG_CLOEXEC;
    rustix::net::recvmsg(connection, &mut [IoSliceMut::new(&mut name)], &mut rights, flags).unwrap();
    let fd = rights.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    fd.unwrap().into()
}

#[test]
fn a_running_bundle_is_deleted_by_force() {
    let case = case!(Userns, Runc);
    let bundle = bundle(&case, command(&["sleep", "1000"]));
    case.rlrun(oci("run", &bundle, &["-d", "web"])).leaving_processes().run().ok();
    case.run(["update", "--pids-limit", "30", "web"]).ok();
    let limits = json!({"cpu": {"quota": 20_000, "period": 100_000}, "memory": {"limit": 64 << 20}});
    let update = case.rlrun(["oci", "update", "--resources", "-", "web"]).stdin(limits.to_string());
    update.run().ok();
    let told = case.run(["inspect", "--format", "{{.HostConfig.Memory}} {{.HostConfig.CpuQuota}}", "web"]);
    told.ok().prints("67108864 20000");
    case.run(["stats", "--no-stream", "--format", "{{.MemLimit}}", "web"]).ok().prints("67108864");
    case.rlrun(["oci", "update", "-r", "-", "web"]).stdin("{\"memory\":{\"limit\":5}}").run().refused(125, "1m");
    case.rlrun(["oci", "update", "-r", "-", "web"]).stdin("no").run().refused(125, "read the limits");
    case.run(["oci", "pause", "web"]).ok();
    assert_eq!(state(&case, "web")["status"], "paused");
    case.run(["oci", "resume", "web"]).ok();
    assert_eq!(state(&case, "web")["status"], "running");
    case.run(["oci", "delete", "-f", "web"]).ok();
    case.run(["oci", "state", "web"]).refused(125, "no such container");
}

#[test]
fn killing_the_runtime_leaves_nothing_of_a_bundle() {
    let case = case!(Userns, Runc);
    let bundle = bundle(&case, command(&["sh", "-c", "echo ready; exec sleep 1000"]));
    let running = case.rlrun(oci("run", &bundle, &["web"])).spawn();
    running.wait_for("ready");
    running.signal(Signal::SIGKILL);
    running.finish();
    case.run(["ps", "-a"]).ok();
    assert!(bundle.join("rootfs/etc/base-image").exists(), "the root file system is the bundle's");
}

#[test]
fn what_a_bundle_cannot_have_is_refused_before_the_start() {
    let case = case!(Userns, Runc);
    let bundle = bundle(&case, command(&["true"]));
    let file = bundle.join("config.json");
    let good: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    let cases = [
        ("/hooks", json!({"prestart": [{"path": "/bin/true"}]}), "hooks"),
        ("/linux/resources", json!({"memory": {"limit": 1_i64 << 50}}), "machine"),
        ("/linux/resources", json!({"cpu": {"cpus": "999"}}), "CPU 999"),
        ("/linux/rootfsPropagation", json!("shared"), "rootfsPropagation"),
        ("/process/apparmorProfile", json!("x"), "apparmorProfile"),
        ("/linux/gidMappings", json!([{"containerID": 0, "hostID": 0, "size": 1}]), "not yours"),
        ("/root", json!({"path": "nowhere"}), "nowhere"),
    ];
    for (pointer, value, why) in cases {
        let mut config = good.clone();
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        config.pointer_mut(parent).unwrap()[name] = value;
        configure(&case, &config);
        case.run(oci("run", &bundle, &["web"])).refused(125, why);
    }
    configure(&case, &good);
    case.run(oci("create", &bundle, &["--console-socket", "/tmp/x", "web"])).refused(125, "terminal");
    case.run(oci("run", &bundle, &["a/b"])).code(125).complains("a/b");
    case.run(["oci", "run", "--bundle", "/not/there", "web"]).code(125).complains("/not/there");
}

#[test]
fn policies_are_asked_about_bundles() {
    let case = case!(Userns, Runc);
    let bundle = bundle(&case, |config| {
        command(&["true"])(config);
        config["mounts"].as_array_mut().unwrap().push(json!({
            "destination": "/host", "type": "bind", "source": "/", "options": ["rbind"]
        }));
    });
    case.run(oci("run", &bundle, &["web"])).code(125).complains("denied");
    // What may not be mounted may not be the root either.
    let file = bundle.join("config.json");
    let mut config: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    config["mounts"].as_array_mut().unwrap().pop();
    config["root"]["path"] = json!("/");
    configure(&case, &config);
    case.run(oci("run", &bundle, &["web"])).code(125).complains("denied");
}

#[test]
fn containers_of_images_are_none_of_an_oci_runtime() {
    let case = case!(Userns).keeping_containers();
    case.run(["create", "--network", "none", "--name", "other", BASE, "true"]).ok();
    case.run(["oci", "state", "other"]).refused(125, "made of an image");
    case.run(["rm", "other"]).ok();
}
