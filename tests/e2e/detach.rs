//! `run -d`: what the caller gets, what goes on without it, and what is kept.

use nix::sys::signal::{Signal, kill};
use rlrun_tests::{BASE, Case, case, eventually};
use std::path::PathBuf;

/// The directory of the container that `run -d` printed.
fn directory(case: &Case, id: &str) -> PathBuf {
    case.data().join("containers").join(id)
}

/// One line of what the supervisor says.
fn said(case: &Case, id: &str, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(directory(case, id).join("state")).ok()?;
    text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(' ')).map(str::to_owned)
}

fn ended(case: &Case, id: &str) -> bool {
    said(case, id, "finished").is_some_and(|time| time != "0") && case.supervisors().is_empty()
}

/// The log without its times.
fn log(case: &Case, id: &str) -> Vec<String> {
    let text = std::fs::read_to_string(directory(case, id).join("ctr.log")).unwrap_or_default();
    text.lines().map(|l| l.split_once(' ').unwrap().1.to_owned()).collect()
}

#[test]
fn the_id_is_printed_once_the_payload_runs_and_the_rest_is_kept() {
    let case = case!(Userns).keeping_containers();
    let id = case.detached(&["--name", "web"], ["sh", "-c", "echo out; echo err >&2; printf part; exit 3"]);
    assert!(said(&case, &id, "started").is_some_and(|time| time != "0"), "started when the id is told");
    eventually("the container ends", || ended(&case, &id));
    assert_eq!(said(&case, &id, "exit-code").as_deref(), Some("3"));
    let mut lines = log(&case, &id);
    lines.sort();
    assert_eq!(lines, ["stderr F err", "stdout F out", "stdout P part"]);
    assert!(std::fs::read_link(case.data().join("names/web")).unwrap().ends_with(&id));
    let record = std::fs::read_to_string(directory(&case, &id).join("record")).unwrap();
    let summary: serde_json::Value = serde_json::from_str(record.lines().next().unwrap()).unwrap();
    assert_eq!((summary["name"].as_str(), summary["command"][0].as_str()), (Some("web"), Some("sh")));
    assert_eq!(summary["image"]["reference"], BASE);
}

#[test]
fn a_start_that_fails_is_told_as_in_the_foreground_and_leaves_nothing() {
    let case = case!(Userns);
    for (command, code) in [("/no/such/program", 127), ("/etc/passwd", 126)] {
        let words = |first: &[&'static str]| [first, &["--network", "none", BASE, command]].concat();
        let background = case.rlrun(words(&["run", "-d"])).leaving_processes().run();
        let foreground = case.run(words(&["run", "--rm"]));
        background.code(code).prints("");
        assert_eq!(background.err(), foreground.err(), "{command}");
        assert!(background.err().starts_with("Error: "));
    }
    assert!(case.supervisors().is_empty());
}

#[test]
fn nothing_of_the_caller_is_kept_open() {
    let case = case!(Userns).keeping_containers();
    // If anything kept them open, the harness would wait for their end of file until its deadline.
    let out = case.rlrun(["run", "-d", "--network", "none", BASE, "probe", "trap"]).leaving_processes().run();
    let id = out.ok().out().trim_end().to_owned();
    let supervisor = case.supervisors();
    assert_eq!(supervisor.len(), 1);
    let cwd = std::fs::read_link(format!("/proc/{}/cwd", supervisor[0])).unwrap();
    assert_eq!(cwd, PathBuf::from("/"));
    eventually("it is ready", || log(&case, &id).iter().any(|l| l.contains("ready")));
    kill(supervisor[0], Signal::SIGTERM).unwrap();
    eventually("the signal reaches the payload", || ended(&case, &id));
}

#[test]
fn a_container_that_is_to_leave_nothing_leaves_nothing() {
    let case = case!(Userns);
    let id = case.detached(&["--rm", "--name", "gone"], ["true"]);
    eventually("it is gone", || !directory(&case, &id).exists() && case.supervisors().is_empty());
    assert!(!case.data().join("names/gone").is_symlink());
}

#[test]
fn a_terminal_and_an_open_input_need_nobody() {
    let case = case!(Userns).keeping_containers();
    let id = case.detached(&["-it"], ["sh", "-c", "tty; test -t 0 && echo terminal; exec probe wait"]);
    eventually("it has a terminal", || log(&case, &id).iter().any(|l| l.contains("terminal")));
    let piped = case.detached(&["-i"], ["sh", "-c", "read x; echo never"]);
    assert_eq!(said(&case, &piped, "finished").as_deref(), Some("0"), "its input is open and silent");
}

/// A socket in journald's place takes what it would, and a program in journalctl's place gives it back.
#[test]
fn a_log_can_be_journalds() {
    let case = case!(Userns, Root).keeping_containers();
    let run = ["run", "-d", "--name", "box", "--log-driver", "journald"];
    let none = case.on_changed_host("mount -t tmpfs none /run", &[&run[..], &[BASE, "true"]].concat()).run();
    none.refused(125, "/run/systemd/journal/socket").complains("k8s-file");
    let directory = case.make_dir("journal");
    let socket = std::os::unix::net::UnixDatagram::bind(directory.join("socket")).unwrap();
    socket.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
    let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(directory.join("socket"), everybody).unwrap();
    let host = format!(
        "mount -t tmpfs none /run; mkdir -p /run/systemd/journal; mount --bind {} /run/systemd/journal",
        directory.display()
    );
    let script = "echo out; echo err >&2; printf half";
    let all = [&run[..], &["--network", "none", "--log-opt", "tag=mine", BASE, "sh", "-c", script]].concat();
    let id = case.on_changed_host(&host, &all).leaving_processes().run().ok().out().trim().to_owned();
    let mut entries = Vec::new();
    while entries.len() < 3 {
        let mut bytes = vec![0; 65536];
        let count = socket.recv(&mut bytes).unwrap();
        entries.push(String::from_utf8_lossy(&bytes[..count]).into_owned());
    }
    entries.sort();
    let with = |text: &str| entries.iter().find(|e| e.contains(text)).unwrap_or_else(|| panic!("{text}: {entries:?}"));
    for (entry, priority) in [(with("out\n"), 6), (with("err\n"), 3), (with("half\n"), 6)] {
        for field in [format!("CONTAINER_ID_FULL={id}\n"), format!("PRIORITY={priority}\n")] {
            assert!(entry.contains(&field), "{entry}");
        }
        assert!(entry.contains("CONTAINER_NAME=box\n") && entry.contains("SYSLOG_IDENTIFIER=mine\n"), "{entry}");
        assert_eq!(entry.contains("CONTAINER_PARTIAL_MESSAGE=true\n"), entry.contains("half"), "{entry}");
    }
    case.run(["wait", "box"]).ok();
    // What comes back is asked for by the container and by who wrote it.
    let tools = case.make_dir("tools");
    let answer = format!(
        "#!/bin/sh\ncase \"$*\" in *--after-cursor*) exit;; *CONTAINER_ID_FULL={id}*_UID={}*) ;; *) exit 1;; esac\n\
         echo '{{\"__CURSOR\":\"a\",\"__REALTIME_TIMESTAMP\":\"1709209815000005\",\"PRIORITY\":\"6\",\"MESSAGE\":\"out\"}}'\n\
         echo '{{\"__CURSOR\":\"b\",\"__REALTIME_TIMESTAMP\":\"1709209816000005\",\"PRIORITY\":\"3\",\"MESSAGE\":[101,255]}}'\n",
        case.user().uid
    );
    let fake = case.make_file("tools/journalctl", answer);
    std::fs::set_permissions(&fake, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", tools.display());
    for options in [&["logs", "box"][..], &["logs", "-f", "box"]] {
        let out = case.rlrun(options).env("PATH", &path).run();
        assert_eq!(out.ok().out(), "out\n");
    }
    case.rlrun(["logs", "-t", "--tail", "2", "box"]).env("PATH", &path).run().ok().says("2024-02-29T12:30:15");
    case.rlrun(["logs", "box"]).env("PATH", "/nowhere").run().refused(125, "journalctl is not installed");
    case.run(["inspect", "-f", "{{.HostConfig.LogConfig.Type}} {{.HostConfig.LogConfig.Tag}}", "box"])
        .ok()
        .prints("journald mine");
}

#[test]
fn the_log_goes_where_it_is_wanted_and_stays_within_its_size() {
    let case = case!(Userns).keeping_containers();
    let place = case.make_dir("logs").join("x.log");
    let path = format!("path={}", place.display());
    let options = ["--log-opt", &path, "--log-opt", "max-size=64k", "--log-opt", "max-file=2"];
    let id = case.detached(&options, ["sh", "-c", "seq 1 20000"]);
    eventually("it ends", || ended(&case, &id));
    let files = ["x.log.1", "x.log"].map(|name| std::fs::read_to_string(place.with_file_name(name)).unwrap());
    assert!(files.iter().all(|text| text.len() <= 65536), "{:?}", files.map(|text| text.len()));
    let mut output = String::new();
    for line in files.iter().flat_map(|text| text.lines()) {
        output += line.get("2026-01-01T00:00:00.000000000+00:00 stdout F ".len()..).unwrap();
        output += if line.contains(" F ") { "\n" } else { "" };
    }
    // The first line may be the rest of one whose beginning is in a file that is gone.
    let numbers: Vec<u32> = output.lines().skip(1).map(|l| l.parse().unwrap()).collect();
    assert_eq!(numbers.last(), Some(&20000));
    assert!(numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]), "no byte is lost between two files");
    assert!(!place.with_file_name("x.log.2").exists());
    let silent = case.detached(&["--log-driver", "none"], ["echo", "x"]);
    eventually("it ends", || ended(&case, &silent));
    assert!(!directory(&case, &silent).join("ctr.log").exists());
}

#[test]
fn a_kept_container_logs_in_the_foreground_too() {
    let case = case!(Userns).keeping_containers();
    let cidfile = case.directory().join("run/cid");
    let options = ["run", "--network", "none", "--cidfile", cidfile.to_str().unwrap(), BASE];
    case.rlrun(options).args(["sh", "-c", "echo both"]).run().ok().prints("both");
    let id = std::fs::read_to_string(&cidfile).unwrap();
    assert_eq!(log(&case, &id), ["stdout F both"]);
    std::fs::remove_file(cidfile).unwrap();
}
