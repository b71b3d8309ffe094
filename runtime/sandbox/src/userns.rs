//! A program of rlrun's own as mapped root in the caller's id map: layers are unpacked and removed by it, because
//! their files belong to subordinate ids.

use crate::at::{At, failed};
use crate::idmap;
use crate::memfd::sealed;
use crate::sys::{self, Fork};
use rlrun_spec::plan::{Job, Mapped, VERSION};
use rlrun_spec::{Failure, IdMaps, Kind, MapWriter};
use rustix::process::{Signal, WaitOptions, set_parent_process_death_signal, waitpid};
use rustix::thread::{Gid, Uid, set_thread_groups, set_thread_res_gid, set_thread_res_uid};
use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};

/// Runs `argv` as mapped root with `input` on its standard input and returns its standard output. Its standard
/// error is this process's. It dies with this process.
///
/// # Errors
/// When the user namespace or its maps cannot be had, or the program exits with anything but 0 (its own message is
/// then on standard error already).
pub fn run_mapped(maps: &IdMaps, argv: &[&str], input: &[u8], supervisor: &Path) -> Result<Vec<u8>, Failure> {
    let object = argv.first().copied().unwrap_or_default();
    let env = std::env::vars_os().filter_map(|(k, v)| Some(format!("{}={}", k.to_str()?, v.to_str()?))).collect();
    let argv = argv.iter().map(|&a| a.to_owned()).collect();
    let job = Job::Mapped(Mapped { version: VERSION, id_maps: maps.clone(), argv, env, input: input.to_vec() });
    let bytes = postcard::to_stdvec(&job)
        .map_err(|e| failed(Kind::Internal, "run-mapped", "encode", "a job", e.to_string()))?;
    let output = Command::new(supervisor)
        .env_clear()
        .stdin(Stdio::from(sealed("rlrun-job", &bytes)?))
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .output()
        .at("run-mapped", "start", supervisor.display().to_string())?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(failed(Kind::Runtime, "run-mapped", "run in the user namespace", object, output.status.to_string()))
}

/// The supervisor binary's side of [`run_mapped`]: runs the program in a new user namespace and returns its exit code.
///
/// # Errors
/// When the namespace or its maps cannot be had.
pub fn become_mapped(job: &Mapped) -> Result<u8, Failure> {
    let (ready_read, ready_write) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).at("run-mapped", "create", "a pipe")?;
    match sys::clone_stage(libc::CLONE_NEWUSER).at("clone-userns", "create", "a user namespace")? {
        Fork::Child => {
            drop(ready_write);
            let failure = mapped_child(job, &ready_read);
            eprintln!("Error: {failure}");
            sys::exit_now(125)
        }
        Fork::Parent { pid, .. } => {
            drop(ready_read);
            idmap::start(&job.id_maps, pid)?.finish()?;
            rustix::io::write(&ready_write, b"m").at("run-mapped", "wake", "the program")?;
            drop(ready_write);
            let status = waitpid(Some(pid), WaitOptions::empty()).at("run-mapped", "wait for", "the program")?;
            let code = status.and_then(|(_, s)| s.exit_status()).and_then(|c| u8::try_from(c).ok());
            Ok(code.unwrap_or(125))
        }
    }
}

/// Waits for the maps, becomes mapped root, executes. Returns only on failure.
fn mapped_child(job: &Mapped, ready: &OwnedFd) -> Failure {
    let result = (|| {
        if rustix::io::read(ready, &mut [0; 1]).at("run-mapped", "wait for", "the id maps")? == 0 {
            return Err(failed(Kind::Runtime, "run-mapped", "wait for", "the id maps", "the parent died"));
        }
        become_root(&job.id_maps)?;
        rustix::stdio::dup2_stdin(sealed("rlrun-input", &job.input)?.as_fd()).at("run-mapped", "set", "stdin")?;
        let program = job.argv.first().map(String::as_str).unwrap_or_default();
        let path = CString::new(program).map_err(|_| rustix::io::Errno::INVAL).at("run-mapped", "execute", program)?;
        let argv = sys::CStrings::new(&job.argv).at("run-mapped", "execute", program)?;
        let env = sys::CStrings::new(&job.env).at("run-mapped", "execute", program)?;
        Err(sys::exec(&sys::Program::Path(&path), &argv, &env)).at("run-mapped", "execute", program)
    })();
    match result {
        Ok(never) => never,
        Err(failure) => failure,
    }
}

/// Becomes uid and gid 0 of the user namespace, without supplementary groups, and dies with its parent.
pub(crate) fn become_root(maps: &IdMaps) -> Result<(), Failure> {
    // With a single id setgroups is denied for good (user_namespaces(7)), and the caller's groups stay.
    if !matches!(maps.writer, MapWriter::Single) {
        set_thread_groups(&[]).at("set-ids", "drop", "supplementary groups")?;
    }
    set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT).at("set-ids", "become", "group 0 of the container")?;
    set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT).at("set-ids", "become", "user 0 of the container")?;
    // After the ids: a change of credentials clears it (PR_SET_PDEATHSIG(2const)).
    set_parent_process_death_signal(Some(Signal::KILL)).at("set-ids", "tie to", "the parent's life")
}
