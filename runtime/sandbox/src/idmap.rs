//! Writing a process's id maps, from its parent user namespace (`user_namespaces(7)`, newuidmap(1)).

use crate::at::{At, failed};
use rlrun_spec::{Failure, IdMapping, IdMaps, Kind, MapWriter};
use rustix::process::Pid;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// The helpers at work; both run at the same time.
pub(crate) struct Writing {
    helpers: Vec<(&'static str, Child)>,
}

/// Starts writing both maps of `pid`.
pub(crate) fn start(maps: &IdMaps, pid: Pid) -> Result<Writing, Failure> {
    match &maps.writer {
        MapWriter::Helpers { newuidmap, newgidmap } => Ok(Writing {
            helpers: vec![
                ("write-uid-map", spawn("write-uid-map", newuidmap, pid, &maps.uids)?),
                ("write-gid-map", spawn("write-gid-map", newgidmap, pid, &maps.gids)?),
            ],
        }),
        MapWriter::Single => {
            write_single(maps, pid)?;
            Ok(Writing { helpers: Vec::new() })
        }
    }
}

fn spawn(step: &str, helper: &Path, pid: Pid, lines: &[IdMapping]) -> Result<Child, Failure> {
    let mut command = Command::new(helper);
    command.arg(pid.as_raw_nonzero().to_string()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    for line in lines {
        command.args([line.container.to_string(), line.host.to_string(), line.count.to_string()]);
    }
    command.env_clear().spawn().at(step, "start", helper.display().to_string())
}

impl Writing {
    /// Waits until both maps are written.
    pub(crate) fn finish(self) -> Result<(), Failure> {
        for (step, child) in self.helpers {
            let output = child.wait_with_output().at(step, "wait for", step)?;
            if !output.status.success() {
                let said = String::from_utf8_lossy(&output.stderr);
                let why = said.trim().lines().last().unwrap_or("it gave no reason").to_owned();
                let what = if step == "write-uid-map" { "newuidmap" } else { "newgidmap" };
                return Err(failed(Kind::Host, step, "write the id map of the container with", what, why));
            }
        }
        Ok(())
    }
}

/// One id only: the kernel lets its owner write that, once `setgroups` is denied (since 3.19).
fn write_single(maps: &IdMaps, pid: Pid) -> Result<(), Failure> {
    let pid = pid.as_raw_nonzero();
    write_file(&format!("/proc/{pid}/setgroups"), "deny", "write-gid-map")?;
    write_file(&format!("/proc/{pid}/uid_map"), &lines(&maps.uids), "write-uid-map")?;
    write_file(&format!("/proc/{pid}/gid_map"), &lines(&maps.gids), "write-gid-map")
}

/// Both maps of a process in a namespace below this one's, whose root this process is.
pub(crate) fn write(pid: Pid, uids: &[IdMapping], gids: &[IdMapping]) -> Result<(), Failure> {
    let pid = pid.as_raw_nonzero();
    write_file(&format!("/proc/{pid}/uid_map"), &lines(uids), "limit-pids")?;
    write_file(&format!("/proc/{pid}/gid_map"), &lines(gids), "limit-pids")
}

fn lines(mappings: &[IdMapping]) -> String {
    mappings.iter().map(|m| format!("{} {} {}\n", m.container, m.host, m.count)).collect()
}

/// One write call, as procfs demands for maps.
fn write_file(path: &str, text: &str, step: &str) -> Result<(), Failure> {
    let file =
        rustix::fs::open(path, rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::CLOEXEC, rustix::fs::Mode::empty())
            .at(step, "open", path)?;
    rustix::io::write(&file, text.as_bytes()).map(drop).at(step, "write", path)
}
