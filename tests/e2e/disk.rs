//! `--storage-opt size=` for a container that stays: a file system in a file, served by fuse2fs.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rlrun_tests::{BASE, Case, case, eventually};
use std::os::unix::fs::MetadataExt;

const SIZED: [&str; 2] = ["--storage-opt", "size=16m"];
/// Fills it up and says what happened, then goes on.
const FILL: &str = "dd if=/dev/zero of=/x bs=64k 2>&1 | grep -o 'No space left'; stat -c %s /x; rm /x; echo kept > /etc/kept; cat /etc/kept";

fn detached(case: &Case, name: &str, command: &[&str]) {
    case.detached(&[&SIZED[..], &["--name", name]].concat(), command);
}

fn says(case: &Case, name: &str, want: &str) {
    eventually(want, || case.run(["logs", name]).out().contains(want));
}

/// Host pids of the programs that serve the files of the only container: children of its mapper.
fn helper(case: &Case, container: &str, program: &str) -> Option<Pid> {
    let pid = case.run(["inspect", "--format", "{{.State.Pid}}", container]).ok().out();
    let parent = |pid: &str| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        status.lines().find_map(|l| Some(l.strip_prefix("PPid:")?.trim().to_owned()))
    };
    let mapper = parent(pid.trim())?;
    let all = std::fs::read_dir("/proc").unwrap().flatten().map(|e| e.file_name().into_string().unwrap());
    let ours = |pid: &String| {
        let comm = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        comm.trim() == program && parent(pid).as_ref() == Some(&mapper)
    };
    all.filter(|name| name.parse::<i32>().is_ok()).find(ours).map(|pid| Pid::from_raw(pid.parse().unwrap()))
}

#[test]
fn what_is_full_says_so_and_what_fits_stays() {
    let case = case!(Userns, Subid, Fuse2fs).keeping_containers();
    let script = format!(
        "test -e /etc/kept && exec cat /etc/kept /etc/owner; echo o > /etc/owner; chown 5:6 /etc/owner; {FILL}"
    );
    let options = ["run", "--network", "none", "--limits=require", "--name", "box"];
    let out = case.rlrun(options).args(SIZED).args([BASE, "sh", "-c", &script]).run();
    let out = out.ok().out();
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!((lines[0], lines[2]), ("No space left", "kept"), "{out}");
    let written: u64 = lines[1].parse().unwrap();
    assert!((15 << 20..=17 << 20).contains(&written), "{written}");
    let id = case.run(["inspect", "--format", "{{.Id}}", "box"]).ok().out();
    let image = case.data().join("containers").join(id.trim()).join("disk.img");
    let clean = std::process::Command::new("dumpe2fs").arg("-h").arg(&image).output().unwrap();
    let clean = String::from_utf8_lossy(&clean.stdout).into_owned();
    assert!(clean.lines().any(|l| l.starts_with("Filesystem state:") && l.ends_with(" clean")), "{clean}");
    for _ in 0..2 {
        case.run(["start", "-a", "box"]).ok().prints("kept\no");
    }
    let control = "{{range .Controls}}{{if eq .name \"disk-limit\"}}{{.mechanism}} {{.enforced}}{{end}}{{end}}";
    let told = case.run(["inspect", "--format", control, "box"]).ok().out();
    assert!(told.contains("fuse2fs yes"), "{told}");
    case.run(["rm", "box"]).ok();
    assert!(!image.exists());
}

#[test]
fn the_files_of_one_that_rests_are_reached() {
    let case = case!(Userns, Subid, Fuse2fs).keeping_containers();
    let script = "echo x > /etc/new; chown 5:6 /etc/new; rm /etc/base-image; mkdir /srv; echo ready; exec probe trap";
    detached(&case, "box", &["sh", "-c", script]);
    says(&case, "box", "ready");
    let file = case.make_file("file", "from the host");
    let file = file.to_str().unwrap();
    for state in ["running", "resting"] {
        let diff = case.run(["diff", "box"]).ok().out();
        for line in ["A /etc/new", "D /etc/base-image", "A /srv"] {
            assert!(diff.lines().any(|l| l == line), "{state}: {line} in\n{diff}");
        }
        case.run(["cp", file, &format!("box:/srv/{state}")]).ok();
        let copy = case.make_dir(state).join("copy");
        case.run(["cp", &format!("box:/srv/{state}"), copy.to_str().unwrap()]).ok();
        assert_eq!(std::fs::read_to_string(copy).unwrap(), "from the host");
        let name = format!("localhost/{state}:1");
        case.run(["commit", "box", &name]).ok();
        let look = ["stat -c %u:%g /etc/new; cat /etc/new; test -e /etc/base-image || echo gone"];
        case.run(["run", "--rm", "--network", "none", &name, "sh", "-c", look[0]]).ok().prints("5:6\nx\ngone");
        let archive = case.make_dir(&format!("{state}-export")).join("all.tar");
        case.run(["export", "-o", archive.to_str().unwrap(), "box"]).ok();
        let mut tar = tar::Archive::new(std::fs::File::open(&archive).unwrap());
        let names: Vec<_> = tar.entries().unwrap().map(|e| e.unwrap().path().unwrap().display().to_string()).collect();
        assert!(names.contains(&"etc/new".to_owned()) && names.contains(&"bin/busybox".to_owned()), "{state}");
        if state == "running" {
            case.run(["stop", "-t", "5", "box"]).ok();
        }
    }
    case.rlrun(["unshare", case.program().to_str().unwrap(), "mount", "box"]).run().code(125).complains("rlrun export");
    case.run(["rm", "box"]).ok();
}

#[test]
fn whoever_is_killed_nothing_is_left_and_what_was_written_stays() {
    let case = case!(Userns, Subid, Fuse2fs).keeping_containers();
    let script = "n=$(cat /n || echo 0); echo $((n+1)) > /n; dd if=/dev/urandom of=/data bs=1M count=4; sha256sum /data > /sum; \
                  echo turn $n; exec probe wait";
    let again = "sha256sum -c /sum && cat /n";
    for victim in ["fuse2fs", "fuse-overlayfs", "supervisor", "mapper"] {
        let name = format!("box-{victim}");
        detached(&case, &name, &["sh", "-c", script]);
        says(&case, &name, "turn 0");
        let pid = match victim {
            "supervisor" => case.run(["inspect", "--format", "{{.State.ConmonPid}}", &name]).ok().out(),
            "mapper" => {
                let init = case.run(["inspect", "--format", "{{.State.Pid}}", &name]).ok().out();
                let status = std::fs::read_to_string(format!("/proc/{}/status", init.trim())).unwrap();
                status.lines().find_map(|l| Some(l.strip_prefix("PPid:")?.trim().to_owned())).unwrap()
            }
            helper_name => helper(&case, &name, helper_name).unwrap().to_string(),
        };
        let served = ["fuse2fs", "fuse-overlayfs"].map(|program| helper(&case, &name, program).unwrap());
        kill(Pid::from_raw(pid.trim().parse().unwrap()), Signal::SIGKILL).unwrap();
        eventually("everything ends", || {
            served.iter().all(|pid| !std::path::Path::new(&format!("/proc/{pid}")).exists())
        });
        case.run(["wait", &name]);
        case.rlrun(["start", &name]).leaving_processes().run().ok();
        says(&case, &name, "turn 1");
        case.run(["exec", &name, "sh", "-c", again]).ok().prints("/data: OK\n2");
        case.run(["rm", "-f", "-t", "0", &name]).ok();
    }
}

#[test]
fn what_cannot_be_had_is_refused_with_what_to_do() {
    let case = case!(Userns, Subid, Fuse2fs, Root).keeping_containers();
    let run = |options: &[&str]| case.rlrun(["run", "--network", "none"]).args(options).args([BASE, "true"]).run();
    run(&["--storage-opt", "size=100k"]).refused(125, "1m");
    run(&["--storage-opt", "size=900t"]).refused(125, "the file system of the store");
    run(&["--storage-opt", "size=8m", "--storage-driver", "copy"]).refused(125, "copy");
    run(&["--storage-opt", "size=8m", "--storage-driver", "overlay"])
        .refused(125, "fuse2fs")
        .complains("--storage-driver");
    let words = ["run", "--network", "none", "--storage-opt", "size=8m", BASE, "true"];
    let hide = "for f in /usr/bin/fuse2fs /bin/fuse2fs; do mount --bind /etc/passwd $f; done";
    case.on_changed_host(hide, &words).run().refused(125, "fuse2fs is not installed").complains("hint: ");
    assert!(case.run(["ps", "-aq"]).ok().out().is_empty());
}

#[test]
fn a_full_host_is_told_to_the_payload() {
    let case = case!(Userns, Subid, Fuse2fs, Root).keeping_containers();
    let fill = "echo kept > /kept; sync /kept; dd if=/dev/zero of=/x bs=64k 2>&1 | \
                grep -oE 'No space left|Input/output error'; rm -f /x; cat /kept";
    // More than the host has room for, but not more than its file system is large.
    let prepare = format!(
        "rm -rf /run/rlrun-small && mkdir -p /run/rlrun-small && mount -t tmpfs -o size=200m tmpfs /run/rlrun-small && \
         cp -a {0}/. /run/rlrun-small/ && chown {1}:{2} /run/rlrun-small && mount --bind /run/rlrun-small {0}",
        case.data().display(),
        case.user().uid,
        case.user().gid
    );
    let words = ["run", "--network", "none", "--storage-opt", "size=190m", BASE, "sh", "-c", fill];
    let out = case.on_changed_host(&prepare, &words).run();
    let told = out.out();
    let lines: Vec<&str> = told.lines().collect();
    assert!(["No space left", "Input/output error"].contains(&lines[0]), "{told}");
    assert_eq!(lines[1..], ["kept"], "what was written before is there");
}

#[test]
fn a_helper_that_is_killed_is_named() {
    let case = case!(Userns, Subid, Fuse2fs).keeping_containers();
    detached(&case, "box", &["sh", "-c", "echo ready; exec probe wait"]);
    says(&case, "box", "ready");
    kill(helper(&case, "box", "fuse2fs").unwrap(), Signal::SIGKILL).unwrap();
    case.run(["wait", "box"]);
    let error = case.run(["inspect", "--format", "{{.State.Error}}", "box"]).ok().out();
    for part in ["fuse2fs", "killed by signal 9", "and the container with it"] {
        assert!(error.contains(part), "{part} in {error}");
    }
    case.run(["rm", "box"]).ok();
}

#[test]
fn a_restart_by_policy_finds_what_was_written() {
    let case = case!(Userns, Subid, Fuse2fs).keeping_containers();
    let script = "n=$(cat /n || echo 0); n=$((n+1)); echo $n > /n; test $n -ge 3";
    case.detached(&[&SIZED[..], &["--restart", "on-failure:5", "--name", "box"]].concat(), ["sh", "-c", script]);
    let told =
        || case.run(["inspect", "--format", "{{.State.Status}} {{.State.ExitCode}} {{.RestartCount}}", "box"]).out();
    eventually("the third turn is the last", || told().trim() == "exited 0 2");
    let copy = case.make_dir("out").join("n");
    case.run(["cp", "box:/n", copy.to_str().unwrap()]).ok();
    assert_eq!(std::fs::read_to_string(copy).unwrap(), "3\n");
    case.run(["rm", "box"]).ok();
}

#[test]
fn the_file_is_sparse_and_out_of_reach() {
    let case = case!(Userns, Subid, Fuse2fs).keeping_containers();
    let options = ["run", "--network", "none", "--storage-opt", "size=1g", "--name", "box"];
    let look = "find / -xdev -name disk.img; grep -c fuse2fs /proc/mounts /proc/self/mountinfo; ps -o comm | grep -c use2f; true";
    let out = case.rlrun(options).args([BASE, "sh", "-c", look]).run().ok().out();
    assert!(out.lines().all(|line| line.ends_with('0')), "{out}");
    let id = case.run(["inspect", "--format", "{{.Id}}", "box"]).ok().out();
    let image = std::fs::metadata(case.data().join("containers").join(id.trim()).join("disk.img")).unwrap();
    assert!(image.len() > 1 << 30 && image.blocks() * 512 < 16 << 20, "{} {}", image.len(), image.blocks());
    case.run(["rm", "box"]).ok();
}
