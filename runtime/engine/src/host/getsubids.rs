//! Subordinate ids that come from elsewhere than the two files: a plugin of libsubid (SSSD, LDAP), asked through
//! getsubids(1) because only that program loads it. A process, so only when the files grant nothing.

use super::cause::IdKind;
use super::programs::Search;
use rlrun_spec::IdRange;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A directory server that is down must not hang every `rlrun run`.
const PATIENCE: Duration = Duration::from_secs(5);

/// Far more ranges than a map can have lines.
const MAX_OUTPUT: usize = 64 << 10;

/// Whether nsswitch.conf(5) names a source of subordinate ids that is no file.
#[must_use]
pub fn configured() -> bool {
    names_plugin(&std::fs::read_to_string("/etc/nsswitch.conf").unwrap_or_default())
}

fn names_plugin(nsswitch: &str) -> bool {
    let sources = nsswitch.lines().find_map(|line| line.trim_start().strip_prefix("subid:"));
    let sources = sources.and_then(|rest| rest.split('#').next()).unwrap_or_default();
    sources.split_whitespace().any(|word| word != "files" && !word.starts_with('['))
}

/// The ranges of a user; none when the program is missing, fails, or takes too long.
#[must_use]
pub fn ask(kind: IdKind, user: &str) -> Vec<IdRange> {
    let Some(program) = Search::new().find("getsubids") else { return Vec::new() };
    let mut command = Command::new(program);
    if kind == IdKind::Group {
        command.arg("-g");
    }
    // A login name cannot start with a dash (useradd(8)), but a directory server may hold anything.
    if user.starts_with('-') {
        return Vec::new();
    }
    parse(&output_within(command.arg(user), PATIENCE).unwrap_or_default())
}

/// Lines are `INDEX: OWNER START COUNT`.
fn parse(output: &str) -> Vec<IdRange> {
    let range = |line: &str| {
        let mut last = line.split_ascii_whitespace().rev();
        let count: u32 = last.next()?.parse().ok().filter(|count| *count > 0)?;
        let start: u32 = last.next()?.parse().ok().filter(|start| *start > 0)?;
        start.checked_add(count).map(|_| IdRange { start, count })
    };
    super::subid::disjoint(output.lines().filter_map(range))
}

/// Standard output of a command that is killed when it takes too long or says too much.
fn output_within(command: &mut Command, patience: Duration) -> Option<String> {
    let deadline = Instant::now() + patience;
    let mut child = command.stdin(Stdio::null()).stderr(Stdio::null()).stdout(Stdio::piped()).spawn().ok()?;
    let text = child.stdout.take().and_then(|pipe| read_until(pipe, deadline));
    if text.is_none() {
        // An error means that it has ended by itself; wait() below says so too.
        child.kill().ok();
    }
    child.wait().ok().filter(std::process::ExitStatus::success).and(text)
}

fn read_until(mut pipe: std::process::ChildStdout, deadline: Instant) -> Option<String> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let left = deadline.checked_duration_since(Instant::now())?;
        let timeout = Timespec::try_from(left).ok()?;
        match poll(&mut [PollFd::new(&pipe, PollFlags::IN)], Some(&timeout)) {
            Ok(0) => return None,
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(_) => return None,
        }
        match pipe.read(&mut chunk).ok()? {
            0 => return String::from_utf8(bytes).ok(),
            n => bytes.extend_from_slice(chunk.get(..n)?),
        }
        if bytes.len() > MAX_OUTPUT {
            return None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_plugin_is_another_source() {
        assert!(names_plugin("passwd: files\nsubid: sss\n"));
        assert!(names_plugin("  subid:\tfiles [NOTFOUND=return] ldap # x"));
        assert!(!names_plugin("subid: files # sss\n"));
        assert!(!names_plugin("subid: [x]\n#subid: sss\npasswd: sss"));
    }

    #[test]
    fn ranges_are_read_from_the_end_of_the_line() {
        let output =
            "0: ann 100000 65536\n1: ann smith 300000 10\nno ranges\n2: ann 0 5\n3: ann 5 0\n4: ann 4294967295 9\n";
        let expected = [IdRange { start: 100_000, count: 65536 }, IdRange { start: 300_000, count: 10 }];
        assert_eq!(parse(output), expected);
    }

    #[test]
    fn a_program_that_hangs_fails_or_floods_is_given_up() {
        let sh = |script: &str| {
            let mut command = Command::new("/bin/sh");
            command.args(["-c", script]);
            output_within(&mut command, Duration::from_millis(300))
        };
        assert_eq!(sh("echo 0: ann 5 6").as_deref(), Some("0: ann 5 6\n"));
        assert_eq!(sh("exec sleep 100"), None);
        assert_eq!(sh("echo x; exit 1"), None);
        assert_eq!(sh("while :; do echo xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx; done"), None);
    }
}
