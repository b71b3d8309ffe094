//! A program of rlrun's own as mapped root in the caller's id map: layers are unpacked and removed by it, because
//! their files belong to subordinate ids.

use crate::at::{At, failed};
use crate::idmap;
use crate::mapper::exit_code;
use crate::memfd::sealed;
use crate::sys::{self, Fork};
use rlrun_spec::plan::{Home, Input, Job, Mapped, VERSION};
use rlrun_spec::{Failure, IdMaps, Kind, MapWriter};
use rustix::io::FdFlags;
use rustix::process::{Signal, WaitOptions, getppid, set_parent_process_death_signal, waitpid};
use rustix::thread::{
    Gid, LinkNameSpaceType, Uid, move_into_link_name_space, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Runs `argv` as mapped root with `input` on its standard input and returns its standard output. Its standard
/// error is this process's. It dies with this process.
///
/// # Errors
/// When the user namespace or its maps cannot be had, or the program exits with anything but 0 (its own message is
/// then on standard error already).
pub fn run_mapped(maps: &IdMaps, argv: &[&str], input: &[u8], supervisor: &Path) -> Result<Vec<u8>, Failure> {
    let program = MappedProgram { maps, home: Home::New, argv, input: Input::Bytes(input.to_vec()), lent: Vec::new() };
    program.start(supervisor, Stdio::piped())?.finish()
}

/// A descriptor that programs started meanwhile inherit under its number.
#[derive(Debug)]
pub struct Lent(OwnedFd);

impl Lent {
    /// A copy of `fd`, out of the way of the numbers that the launch contract uses.
    ///
    /// # Errors
    /// When there are no descriptors left.
    pub fn of(fd: impl AsFd) -> Result<Lent, Failure> {
        let copy = rustix::io::fcntl_dupfd_cloexec(fd, 16).at("run-mapped", "lend", "a descriptor")?;
        rustix::io::fcntl_setfd(&copy, FdFlags::empty()).at("run-mapped", "lend", "a descriptor")?;
        Ok(Lent(copy))
    }

    /// Its number, here and in the program.
    #[must_use]
    pub fn number(&self) -> i32 {
        self.0.as_raw_fd()
    }
}

/// A program to run as mapped root.
#[derive(Debug)]
pub struct MappedProgram<'a> {
    /// The id maps of a new user namespace.
    pub maps: &'a IdMaps,
    /// Where it runs.
    pub home: Home,
    /// Program (absolute path) and arguments.
    pub argv: &'a [&'a str],
    /// Its standard input.
    pub input: Input,
    /// Descriptors that it inherits.
    pub lent: Vec<Lent>,
}

impl MappedProgram<'_> {
    /// Starts it. Its standard error is this process's, its standard output goes to `output`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(self, supervisor: &Path, output: Stdio) -> Result<MappedChild, Failure> {
        let object = self.argv.first().copied().unwrap_or_default().to_owned();
        let env = std::env::vars_os().filter_map(|(k, v)| Some(format!("{}={}", k.to_str()?, v.to_str()?))).collect();
        let job = Job::Mapped(Mapped {
            version: VERSION,
            id_maps: self.maps.clone(),
            home: self.home,
            parent: rustix::process::getpid().as_raw_nonzero().get(),
            argv: self.argv.iter().map(|&a| a.to_owned()).collect(),
            env,
            input: self.input,
        });
        let bytes = postcard::to_stdvec(&job)
            .map_err(|e| failed(Kind::Internal, "run-mapped", "encode", "a job", e.to_string()))?;
        let child = Command::new(supervisor)
            .env_clear()
            .stdin(Stdio::from(sealed("rlrun-job", &bytes)?))
            .stdout(output)
            .stderr(Stdio::inherit())
            .spawn()
            .at("run-mapped", "start", supervisor.display().to_string())?;
        // Only now: until here the numbers were the program's to be.
        drop(self.lent);
        Ok(MappedChild { child, object })
    }
}

/// A mapped program at work.
#[derive(Debug)]
pub struct MappedChild {
    child: Child,
    object: String,
}

impl MappedChild {
    /// What it wrote to standard output.
    ///
    /// # Errors
    /// When it exits with anything but 0.
    pub fn finish(self) -> Result<Vec<u8>, Failure> {
        let output = self.child.wait_with_output().at("run-mapped", "wait for", &self.object)?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        let why = output.status.to_string();
        Err(failed(Kind::Runtime, "run-mapped", "run in the user namespace", self.object, why))
    }

    /// Its exit code.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub fn exit_code(mut self) -> Result<u8, Failure> {
        let status = self.child.wait().at("run-mapped", "wait for", &self.object)?;
        Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(125))
    }
}

/// The supervisor binary's side of a [`MappedProgram`]: runs the program and returns its exit code.
///
/// # Errors
/// When the namespace or its maps cannot be had.
pub fn become_mapped(job: &Mapped) -> Result<u8, Failure> {
    set_parent_process_death_signal(Some(Signal::KILL)).at("run-mapped", "tie to", "the caller's life")?;
    if getppid().map(|pid| pid.as_raw_nonzero().get()) != Some(job.parent) {
        return Err(failed(Kind::Runtime, "run-mapped", "start", "a job", "whoever wanted it is gone"));
    }
    let (ready_read, ready_write) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).at("run-mapped", "create", "a pipe")?;
    let namespaces = match job.home {
        Home::New => libc::CLONE_NEWUSER,
        Home::Shell => libc::CLONE_NEWUSER | libc::CLONE_NEWNS,
        Home::Apart => libc::CLONE_NEWUSER | libc::CLONE_NEWPID,
        Home::Of(_) => 0,
    };
    match sys::clone_stage(namespaces).at("clone-userns", "create", "a user namespace")? {
        Fork::Child => {
            drop(ready_write);
            let failure = mapped_child(job, &ready_read);
            eprintln!("Error: {failure}");
            sys::exit_now(125)
        }
        Fork::Parent { pid, pidfd } => {
            drop((ready_read, pidfd));
            if !matches!(job.home, Home::Of(_)) {
                idmap::start(&job.id_maps, pid)?.finish()?;
            }
            rustix::io::write(&ready_write, b"m").at("run-mapped", "wake", "the program")?;
            drop(ready_write);
            // What was lent is the program's: whoever reads from it must see its end.
            sys::close_from(3).at("run-mapped", "close", "what was lent")?;
            let status = waitpid(Some(pid), WaitOptions::empty()).at("run-mapped", "wait for", "the program")?;
            Ok(status.map_or(125, |(_, status)| exit_code(status)))
        }
    }
}

/// Enters the user namespace of a container, from which nothing of it can see or reach this process: it stays in the
/// caller's pid namespace, one above.
fn join(home: Home) -> Result<(), Failure> {
    let Home::Of(number) = home else { return Ok(()) };
    let namespace = sys::take_inherited(number).at("run-mapped", "take over", "a user namespace")?;
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::User)).at(
        "run-mapped",
        "enter",
        "the container's user namespace",
    )
}

/// Waits for the maps, becomes mapped root, executes. Returns only on failure.
fn mapped_child(job: &Mapped, ready: &OwnedFd) -> Failure {
    let result = (|| {
        if rustix::io::read(ready, &mut [0; 1]).at("run-mapped", "wait for", "the id maps")? == 0 {
            return Err(failed(Kind::Runtime, "run-mapped", "wait for", "the id maps", "the parent died"));
        }
        join(job.home)?;
        become_root(&job.id_maps, Groups::Dropped)?;
        let input = match &job.input {
            Input::Bytes(bytes) => sealed("rlrun-input", bytes)?,
            Input::Inherited(number) => sys::take_inherited(*number).at("run-mapped", "take over", "stdin")?,
        };
        rustix::stdio::dup2_stdin(&input).at("run-mapped", "set", "stdin")?;
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

/// What becomes of the caller's supplementary groups.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Groups {
    /// They are left behind.
    Dropped,
    /// They stay (`--group-add keep-groups`).
    Kept,
}

impl Groups {
    pub(crate) fn of(process: &rlrun_spec::plan::Process) -> Self {
        if process.keep_groups { Groups::Kept } else { Groups::Dropped }
    }
}

/// Becomes uid and gid 0 of the user namespace and dies with its parent.
pub(crate) fn become_root(maps: &IdMaps, groups: Groups) -> Result<(), Failure> {
    // With a single id setgroups is denied for good (user_namespaces(7)), and the caller's groups stay.
    if groups == Groups::Dropped && !matches!(maps.writer, MapWriter::Single) {
        set_thread_groups(&[]).at("set-ids", "drop", "supplementary groups")?;
    }
    set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT).at("set-ids", "become", "group 0 of the container")?;
    set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT).at("set-ids", "become", "user 0 of the container")?;
    // After the ids: a change of credentials clears it (PR_SET_PDEATHSIG(2const)).
    set_parent_process_death_signal(Some(Signal::KILL)).at("set-ids", "tie to", "the parent's life")
}
