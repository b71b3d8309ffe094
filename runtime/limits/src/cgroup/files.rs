//! The files of cgroups (cgroups(7), and the kernel's admin-guide/cgroup-v2 and cgroup-v1).

use super::failed;
use super::settings::{Setting, is_kept};
use rlrun_spec::Failure;
use rlrun_spec::cgroup::Membership;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const NODEV: i32 = rustix::io::Errno::NODEV.raw_os_error();
/// How long the kernel may take to let go of the last process.
const PATIENCE: Duration = Duration::from_secs(2);

pub(super) fn make_directory(directory: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o755).create(directory)
}

/// The kernel's files take a value in one write and are never made.
pub(super) fn write_file(path: &Path, value: &str) -> io::Result<()> {
    OpenOptions::new().write(true).open(path)?.write_all(value.as_bytes())
}

pub(super) fn write_setting(directory: &Path, setting: &Setting) -> io::Result<()> {
    let path = directory.join(setting.file);
    match write_file(&path, &setting.value) {
        Err(e) if setting.optional && e.kind() == ErrorKind::NotFound => return Ok(()),
        other => other?,
    }
    let kept = fs::read_to_string(&path)?;
    if is_kept(setting, &kept) {
        return Ok(());
    }
    let text = format!("{} was written and the kernel says {}", setting.value, kept.trim());
    Err(io::Error::other(text))
}

/// Why the limits do nothing, when they do: a controller that works counts the process that has just joined. To be
/// asked while at least one is in.
#[must_use]
pub fn ineffective(membership: &Membership) -> Option<String> {
    let held = membership.held;
    let read = |names: &[&str]| {
        let files = membership.directories.iter().flat_map(|d| names.iter().map(|n| d.join(n)));
        files.into_iter().find_map(|file| fs::read_to_string(file).ok())
    };
    let counts = |text: Option<String>| text.is_some_and(|text| text.trim().parse::<u64>().is_ok_and(|n| n > 0));
    if held.pids && !counts(read(&["pids.current"])) {
        return Some("the pids controller counts no process".to_owned());
    }
    if held.memory && !counts(read(&["memory.current", "memory.usage_in_bytes"])) {
        return Some("the memory controller counts no memory".to_owned());
    }
    // A kernel without CFS bandwidth control has the file and not these lines.
    if held.cpu && !read(&["cpu.stat"]).is_some_and(|text| text.contains("nr_periods ")) {
        return Some("the cpu controller counts no periods".to_owned());
    }
    None
}

/// Removes cgroups whose processes have ended. What is gone already is no error: systemd takes its scopes away itself.
///
/// # Errors
/// When something still runs in one.
pub fn remove(directories: &[PathBuf]) -> Result<(), Failure> {
    directories.iter().try_for_each(|directory| remove_one(directory).map_err(|e| failed("remove", directory, &e)))
}

fn remove_one(directory: &Path) -> io::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match fs::remove_dir(directory) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
            Err(e) if e.kind() == ErrorKind::ResourceBusy && Instant::now() < deadline => {}
            other => return other,
        }
        if end_all(directory)? == 0 {
            // The last one has ended and the kernel is still busy with it; nothing tells when it is done.
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }
}

/// Ends what is still there and waits until it has ended. Returns how many there were. Not by `cgroup.kill`, which
/// version 1 does not have; nobody is left to fork faster than this, for nobody looks after the container any more.
fn end_all(directory: &Path) -> io::Result<usize> {
    let text = match fs::read_to_string(directory.join("cgroup.procs")) {
        // Somebody else has removed it meanwhile (ENODEV: between opening and reading).
        Err(e) if e.kind() == ErrorKind::NotFound || e.raw_os_error() == Some(NODEV) => return Ok(0),
        other => other?,
    };
    let pids = text.lines().filter_map(|line| line.parse().ok().and_then(Pid::from_raw));
    let handles: Vec<_> = pids.filter_map(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()).collect();
    for handle in &handles {
        match pidfd_send_signal(handle, Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    let patience = Timespec::try_from(PATIENCE).ok();
    for handle in &handles {
        poll(&mut [PollFd::new(handle, PollFlags::IN)], patience.as_ref())?;
    }
    Ok(handles.len())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use rlrun_spec::cgroup::Held;
    use std::fs::File;

    /// A directory that looks like a cgroup.
    pub(in crate::cgroup) fn group(files: &[(&str, &str)]) -> (tempfile::TempDir, Membership) {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::io::Write::write_all(&mut File::create(dir.path().join(name)).unwrap(), text.as_bytes()).unwrap();
        }
        let held = Held { cpu: true, memory: true, pids: true, ..Held::default() };
        let membership = Membership { directories: vec![dir.path().to_owned()], scope: None, held };
        (dir, membership)
    }

    #[test]
    fn controllers_that_count_nothing_are_found_out() {
        let working = [("pids.current", "1\n"), ("memory.current", "4096\n"), ("cpu.stat", "nr_periods 0\n")];
        assert_eq!(ineffective(&group(&working).1), None);
        let stub = [("pids.current", "0\n"), ("memory.current", "4096\n"), ("cpu.stat", "nr_periods 0\n")];
        assert!(ineffective(&group(&stub).1).unwrap().contains("pids"));
        let stub = [("pids.current", "1\n"), ("memory.usage_in_bytes", "1\n"), ("cpu.stat", "usage_usec 0\n")];
        assert!(ineffective(&group(&stub).1).unwrap().contains("cpu"));
    }

    #[test]
    fn a_value_that_is_not_kept_is_an_error() {
        let (dir, _) = group(&[("pids.max", "")]);
        let setting = Setting { controller: "pids", file: "pids.max", value: "5".to_owned(), optional: false };
        write_setting(dir.path(), &setting).unwrap();
        let missing = Setting { file: "memory.swap.max", optional: true, ..setting.clone() };
        write_setting(dir.path(), &missing).unwrap();
        write_setting(dir.path(), &Setting { optional: false, ..missing }).unwrap_err();
        remove(&[dir.path().join("gone")]).unwrap();
    }
}
