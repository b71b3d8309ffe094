//! Secrets: given to the container that asks for them, and told to nobody else.

use rlrun_tests::{BASE, Case, case};
use std::os::unix::fs::PermissionsExt as _;

const VALUE: &str = "hunter2-of-the-test";

fn keep(case: &Case, name: &str) -> String {
    case.rlrun(["secret", "create", name, "-"]).stdin(VALUE).run().ok().out().trim().to_owned()
}

#[test]
fn a_secret_is_a_file_in_memory_or_a_variable() {
    let case = case!(Userns, Subid);
    keep(&case, "key");
    let look = "cat /run/secrets/key; echo; stat -c '%u:%g %a' /run/secrets/key; grep -c ' /run/secrets .*tmpfs' /proc/self/mountinfo; \
        touch /run/secrets/x 2>&1 | grep -o Read-only";
    case.run_base(&["--secret", "key"], ["sh", "-c", look]).ok().prints(&format!("{VALUE}\n0:0 444\n1\nRead-only"));
    let look = "cat /etc/deep/key; echo; stat -c '%u:%g %a' /etc/deep/key; ls -A /run/secrets 2>/dev/null";
    case.run_base(&["--secret", "key,target=/etc/deep/key,uid=1000,gid=50,mode=0400"], ["sh", "-c", look])
        .code(1)
        .says(&format!("{VALUE}\n1000:50 400"));
    case.run_base(&["--secret", "key,type=env,target=KEY"], ["sh", "-c", "echo $KEY"]).ok().prints(VALUE);
    case.run_base(&["--read-only", "--secret", "key,target=other"], ["cat", "/run/secrets/other"]).ok().prints(VALUE);
    case.run_base(&["--secret", "nosuch"], ["true"]).refused(125, "no such secret");
    case.run_base(&["--secret", "key,bogus=1"], ["true"]).refused(125, "bogus");
}

#[test]
fn a_secret_is_told_to_nobody() {
    let case = case!(Userns).keeping_containers();
    keep(&case, "key");
    let options = ["--secret", "key", "--secret", "key,type=env,target=KEY", "--secret", "key,target=/etc/key"];
    let id = case.detached(&options, ["sh", "-c", "cat /run/secrets/key /etc/key > /dev/null; exec sleep 1000"]);
    let resting = case.detached(&options, ["true"]);
    rlrun_tests::eventually("the container ends", || {
        case.run(["inspect", "-f", "{{.State.Status}}", &resting]).out().trim() == "exited"
    });
    for id in [&id, &resting] {
        let told = case.run(["inspect", id]).ok().out();
        assert!(told.contains("\"target\": \"/run/secrets/key\"") && !told.contains(VALUE), "{told}");
        case.run(["commit", id, "localhost/told:1"]).ok();
        let saved = case.run(["save", "localhost/told:1"]).ok().stdout.clone();
        let exported = case.run(["export", id]).ok().stdout.clone();
        let found = |bytes: &[u8]| bytes.windows(VALUE.len()).any(|w| w == VALUE.as_bytes());
        assert!(!found(&saved) && !found(&exported));
        case.run([
            "run",
            "--rm",
            "--network",
            "none",
            "localhost/told:1",
            "sh",
            "-c",
            "echo ${KEY-unset}; cat /etc/key",
        ])
        .ok()
        .prints("unset");
    }
    case.run(["secret", "inspect", "key"]).ok();
    // In no file of the store but its own.
    let mut holders = Vec::new();
    let grep = case.invoke("/bin/grep".as_ref()).args(["-rlsF", VALUE, case.home().to_str().unwrap()]).run();
    holders.extend(grep.out().lines().map(str::to_owned));
    let own = case.data().join("secrets/key/value");
    assert_eq!(holders, [own.display().to_string()]);
    assert_eq!(std::fs::metadata(own).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn secrets_are_kept_as_podman_keeps_them() {
    let case = case!(Userns);
    let file = case.make_file("file", "from a file");
    let file = file.to_str().unwrap();
    let id = case.run(["secret", "create", "--label", "a=b", "one", file]).ok().out().trim().to_owned();
    assert_eq!(id.len(), 25);
    case.run(["secret", "create", "one", file]).refused(125, "exists already");
    let again = case.rlrun(["secret", "create", "--replace", "one", "-"]).stdin("new").run().ok().out();
    assert_ne!(again.trim(), id);
    case.rlrun(["secret", "create", "--env", "two", "MINE"]).env("MINE", "of a variable").run().ok();
    case.run(["secret", "create", "--env", "three", "NOT_SET"]).refused(125, "not set");
    case.rlrun(["secret", "create", "empty", "-"]).stdin("").run().refused(125, "empty");
    case.rlrun(["secret", "create", "big", "-"]).stdin(vec![b'x'; 512_001]).run().refused(125, "larger");
    case.run(["secret", "create", "a/b", file]).refused(125, "not the name of a secret");
    case.run(["secret", "create", "-d", "pass", "x", file]).refused(125, "no such driver");
    case.run(["secret", "ls", "--format", "{{.Name}} {{.Driver}}"]).ok().prints("one file\ntwo file");
    case.run(["secret", "ls"]).ok().says("ID").says("CREATED").says("UPDATED");
    case.run(["secret", "ls", "-q", "--filter", "name=on"]).ok().prints(again.trim());
    case.run(["secret", "inspect", "-f", "{{.Spec.Name}}", &again.trim()[..8]]).ok().prints("one");
    case.run(["secret", "inspect", "--showsecret", "-f", "{{.SecretData}}", "two"]).ok().prints("of a variable");
    assert!(!case.run(["secret", "inspect", "two"]).ok().out().contains("of a variable"));
    case.run(["secret", "exists", "one"]).ok();
    case.run(["secret", "rm", "one"]).ok().prints(again.trim());
    case.run(["secret", "exists", "one"]).code(1);
    case.run(["secret", "rm", "one"]).refused(125, "no such secret");
    case.run(["secret", "rm", "-i", "one"]).ok();
    case.run(["secret", "rm", "-a"]).ok();
    case.run(["secret", "ls", "-q"]).ok().prints("");
    assert!(!case.run(["audit", "tail"]).ok().out().contains("of a variable"));
    assert!(!BASE.is_empty());
}
