use super::*;
use crate::arguments::run::RunArgs;
use rlrun_engine::request::{ReadOnly, RunRequest};

/// The request of a command line after `rlrun run`, or what the user is told.
fn request(words: &[&str]) -> Result<RunRequest, String> {
    let all = ["rlrun", "run"].iter().chain(words);
    let mut matches = match command(Filled::Only("run"), Purpose::Reading).try_get_matches_from(all) {
        Ok(matches) => matches,
        Err(error) => return Err(report::usage(&error, Some("run")).unwrap_err().to_string()),
    };
    let (_, mut matches) = matches.remove_subcommand().unwrap();
    read::<RunArgs>(&mut matches).unwrap().request().map_err(|failure| failure.to_string())
}

#[test]
fn the_definition_holds_together() {
    for purpose in [Purpose::Reading, Purpose::Showing] {
        command(Filled::All, purpose).debug_assert();
    }
}

#[test]
fn what_follows_the_image_is_the_containers() {
    let request = request(&["-it", "--rm", "busybox", "sh", "-c", "x", "--rm", "--bogus", "-d", "--", "y"]).unwrap();
    assert_eq!(request.image, "busybox");
    assert_eq!(request.command, ["sh", "-c", "x", "--rm", "--bogus", "-d", "--", "y"]);
    assert!(request.interactive && request.tty && request.launching.remove);
}

#[test]
fn switches_take_values_as_in_podman() {
    let request = request(&["--rm=true", "--tty=false", "--read-only", "--read-only-tmpfs=false", "i"]).unwrap();
    assert!(request.launching.remove && !request.tty);
    assert_eq!(request.read_only, ReadOnly::Bare);
}

#[test]
fn a_switch_does_not_eat_the_image() {
    assert_eq!(super::tests::request(&["--rm", "true"]).unwrap().image, "true");
}

#[test]
fn the_last_of_two_values_counts() {
    let request = request(&["--name", "a", "--name", "b", "--rm", "--rm=false", "i"]).unwrap();
    assert_eq!(request.name.as_deref(), Some("b"));
    assert!(!request.launching.remove);
}

#[test]
fn short_options_are_podmans() {
    let words = [
        "-e", "A=1", "-v", "/tmp:/x", "-w", "/w", "-u", "5", "-p", "8080:80", "-l", "k=v", "-m", "1g", "-h", "host",
        "i",
    ];
    let request = request(&words).unwrap();
    assert_eq!(request.env.last().unwrap(), &("A".to_owned(), "1".to_owned()));
    assert_eq!(request.hostname.as_deref(), Some("host"));
    assert_eq!(request.limits.memory, Some(1 << 30));
    assert_eq!(request.network.ports[0].host_port, Some(8080));
}

#[test]
fn the_word_after_an_option_is_its_value() {
    let request = request(&["--entrypoint", "-x", "-e", "-A=--b", "i"]).unwrap();
    assert_eq!(request.entrypoint.unwrap(), ["-x"]);
    assert_eq!(request.env.last().unwrap(), &("-A".to_owned(), "--b".to_owned()));
}

#[test]
fn what_is_wrong_is_named() {
    for (words, told) in [
        (&["--no-such-option", "i"][..], "--no-such-option: unknown option"),
        (&["--gpus=all", "i"], "CDI are not supported yet"),
        (&["--pid", "host", "i"], "pid namespace of its own"),
        (&["--systemd=always", "i"], "needs a writable cgroup"),
        (&["--secret", "a/b", "i"], "not the name of a secret"),
        (&["--tz", "../etc/passwd", "i"], "is not a time zone"),
        (&["--device", "/etc/passwd", "i"], "is not a device"),
        (&["--pod=x", "i"], "--pod: rlrun does not have this: there are no pods"),
        (&[], "is missing"),
        (&["--pull", "sometimes", "i"], "--pull sometimes: no such choice"),
        (&["--name"], "--name: needs a value"),
        (&["--name=../up", "i"], "invalid --name: ../up"),
        (&["-u", "", "i"], "invalid --user"),
        (&["--network", "bridge", "i"], "networks between containers are not supported yet"),
        (&["--rm=perhaps", "i"], "--rm perhaps"),
        (&["--storage-driver", "zfs", "i"], "zfs: no such driver"),
        (&["-p", "-1:80", "i"], "-1:80"),
    ] {
        let error = request(words).unwrap_err();
        assert!(error.contains(told), "{words:?}: {error}");
    }
}

fn help_of(words: &[&str]) -> String {
    let error = shown().term_width(100).try_get_matches_from(words).unwrap_err();
    error.render().to_string()
}

#[test]
fn help_is_short_and_exact() {
    insta::assert_snapshot!("help", help_of(&["rlrun", "--help"]));
    insta::assert_snapshot!("help_run", help_of(&["rlrun", "run", "--help"]));
    insta::assert_snapshot!("help_images", help_of(&["rlrun", "images", "--help"]));
    insta::assert_snapshot!("help_policy", help_of(&["rlrun", "policy", "--help"]));
}

#[test]
fn completions_and_manual_pages_are_made() {
    let directory = tempfile::tempdir().unwrap();
    clap_mangen::generate_to(shown(), directory.path()).unwrap();
    let page = std::fs::read_to_string(directory.path().join("rlrun-run.1")).unwrap();
    assert!(page.contains("cap\\-add"), "{page}");
    for shell in [clap_complete::Shell::Bash, clap_complete::Shell::Zsh, clap_complete::Shell::Fish] {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut shown(), "rlrun", &mut script);
        assert!(String::from_utf8(script).unwrap().contains("cap-add"), "{shell}");
    }
}
