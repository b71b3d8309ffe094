//! From the command line's process to the supervisor, the same process as another program, and from the supervisor's
//! child to the mapper. All that either is given is the sealed plan and descriptors at fixed numbers.

use crate::at::{At, failed};
use crate::control::Connection;
use crate::memfd::{read_sealed, sealed, sealed_program};
use crate::sys::{self, Fork};
use rlrun_spec::attach::Attach;
use rlrun_spec::hint::OWN_PROGRAM;
use rlrun_spec::plan::{Job, VERSION};
use rlrun_spec::supervision::Reply;
use rlrun_spec::{Failure, Kind, SealedExec, SealedPlan};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::mount::{OpenTreeFlags, open_tree};
use std::convert::Infallible;
use std::ffi::CString;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Where the supervisor and the mapper find the sealed plan.
pub const PLAN_FD: RawFd = 3;
/// Where the supervisor finds the container's lock, held as long as it lives.
pub const LOCK_FD: RawFd = 4;
/// Where a detached supervisor finds the pipe on which it tells how the start went, or its connection to whoever
/// started the container and is attached to it.
pub const READY_FD: RawFd = 5;
/// Where the supervisor of a container that waits for `start` finds the socket for the master of its terminal.
pub const CONSOLE_FD: RawFd = 6;
/// Where that one finds the other end.
pub const CONNECTION_FD: RawFd = 4;
/// Where the supervisor of a command that joins a container finds a pidfd of the container's pid 1.
pub const INIT_FD: RawFd = 4;
/// The first of the numbers where a supervisor finds the descriptors that the payload, or the command, gets from the caller.
pub const PRESERVED_FD: RawFd = 7;
// One supervisor may be given all of them.
const _: () = assert!(PLAN_FD < LOCK_FD && LOCK_FD < READY_FD && READY_FD < CONSOLE_FD && CONSOLE_FD < PRESERVED_FD);
/// The first of the numbers where the mapper finds its ends.
pub(crate) const ENDS_FD: RawFd = 4;
/// The first of the numbers where it finds the payload's descriptors of the caller, behind its own ends.
pub(crate) const MAPPER_PRESERVED_FD: RawFd = ENDS_FD + 6;
/// The mapper's name, which tells the supervisor binary what it was executed for.
pub(crate) const MAPPER_NAME: &str = "rlrun:mapper";

/// Replaces this process by the supervisor of `plan`. Returns only on failure.
///
/// `lock` is an open file that holds the container's flock(2); `preserved` go to the payload; `supervisor` is the path of
/// the supervisor binary.
#[must_use]
pub fn replace_self(plan: &SealedPlan, lock: OwnedFd, preserved: Vec<OwnedFd>, supervisor: &Path) -> Failure {
    match try_replace(plan, lock, preserved, supervisor) {
        Ok(never) => match never {},
        Err(failure) => failure,
    }
}

fn try_replace(
    plan: &SealedPlan,
    lock: OwnedFd,
    preserved: Vec<OwnedFd>,
    supervisor: &Path,
) -> Result<Infallible, Failure> {
    let plan = sealed("rlrun-plan", plan.bytes())?;
    let fds = [(PLAN_FD, plan), (LOCK_FD, lock)].into_iter().chain((PRESERVED_FD..).zip(preserved));
    become_supervisor(fds.collect(), Executable::Path(supervisor))
}

/// What the supervisor of a command that joins a container is given beside its plan.
pub struct Joining {
    /// A pidfd of the container's pid 1.
    pub init: OwnedFd,
    /// What the container's mapper runs from, as /proc shows it: mounted read-only.
    pub running: OwnedFd,
    /// Descriptors of the caller for the command.
    pub preserved: Vec<OwnedFd>,
}

impl Joining {
    /// The program, such that nothing inside can write it: the joiner is this very process's image (CVE-2019-5736).
    /// A container that another version started has another program, and this one's is copied then.
    fn program(&self, supervisor: &Path) -> Result<OwnedFd, Failure> {
        let (own, running) = (rustix::fs::stat(supervisor), rustix::fs::fstat(&self.running));
        match (own, running) {
            (Ok(own), Ok(running)) if (own.st_dev, own.st_ino) == (running.st_dev, running.st_ino) => {
                self.running.try_clone().at("exec-supervisor", "execute", supervisor.display().to_string())
            }
            _ => sealed_program(supervisor),
        }
    }

    fn descriptors(self, plan: &SealedExec) -> Result<Vec<(RawFd, OwnedFd)>, Failure> {
        let plan = sealed("rlrun-plan", plan.bytes())?;
        let preserved = (PRESERVED_FD..).zip(self.preserved);
        Ok([(PLAN_FD, plan), (INIT_FD, self.init)].into_iter().chain(preserved).collect())
    }
}

/// Replaces this process by the supervisor of a command that joins a container. Returns only on failure.
#[must_use]
pub fn replace_self_joining(plan: &SealedExec, joining: Joining, supervisor: &Path) -> Failure {
    let replaced = joining.program(supervisor).and_then(|program| {
        let descriptors = joining.descriptors(plan)?;
        become_supervisor(descriptors, Executable::File(program))
    });
    match replaced {
        Ok(never) => match never {},
        Err(failure) => failure,
    }
}

/// Replaces this process by one that is attached to a running container. Returns only on failure.
#[must_use]
pub fn replace_self_attaching(attach: Attach, supervisor: &Path) -> Failure {
    match become_attached(attach, Vec::new(), supervisor) {
        Ok(never) => match never {},
        Err(failure) => failure,
    }
}

fn become_attached(attach: Attach, mut fds: Vec<(RawFd, OwnedFd)>, supervisor: &Path) -> Result<Infallible, Failure> {
    let bytes = postcard::to_stdvec(&Job::Attach(attach))
        .map_err(|e| failed(Kind::Internal, "attach", "encode", "what is attached to", e.to_string()))?;
    fds.push((PLAN_FD, sealed("rlrun-attach", &bytes)?));
    become_supervisor(fds, Executable::Path(supervisor))
}

/// Starts the supervisor of `plan` in a session of its own, and replaces this process by one that is attached to the
/// container before it runs. Returns only on failure. `lock` is as in [`replace_self`].
#[must_use]
pub fn replace_self_accompanying(
    plan: &SealedPlan,
    lock: OwnedFd,
    preserved: Vec<OwnedFd>,
    attach: Attach,
    supervisor: &Path,
) -> Failure {
    match try_accompany(plan, lock, preserved, attach, supervisor) {
        Ok(never) => match never {},
        Err(failure) => failure,
    }
}

fn try_accompany(
    plan: &SealedPlan,
    lock: OwnedFd,
    preserved: Vec<OwnedFd>,
    attach: Attach,
    supervisor: &Path,
) -> Result<Infallible, Failure> {
    let plan = sealed("rlrun-plan", plan.bytes())?;
    let (theirs, ours) = Connection::pair().at("detach", "create", "a connection")?;
    match sys::clone_stage(0).at("detach", "start", "the supervisor")? {
        Fork::Child => {
            drop(ours);
            let said = rustix::io::fcntl_dupfd_cloexec(&theirs, 3).map(Connection::from);
            let own = [(PLAN_FD, plan), (LOCK_FD, lock), (READY_FD, OwnedFd::from(theirs))];
            let fds = own.into_iter().chain((PRESERVED_FD..).zip(preserved)).collect();
            let failure = match background(fds, Stdio::Null, Executable::Path(supervisor)) {
                Ok(never) => match never {},
                Err(failure) => failure,
            };
            let told = said.map(|connection| connection.send(&Reply::Failed(Box::new(failure)), &[]));
            sys::exit_now(u8::from(!matches!(told, Ok(Ok(())))))
        }
        Fork::Parent { .. } => {
            drop((plan, lock, theirs, preserved));
            become_attached(attach, vec![(CONNECTION_FD, ours.into())], supervisor)
        }
    }
}

/// Starts the supervisor of a command that joins a container in a session of its own, and returns when the command runs.
///
/// # Errors
/// What stopped it, as the supervisor tells it.
pub fn start_detached_joining(plan: &SealedExec, joining: Joining, supervisor: &Path) -> Result<(), Failure> {
    let program = joining.program(supervisor)?;
    let descriptors = joining.descriptors(plan)?;
    detach(descriptors, Stdio::Null, Executable::File(program))
}

/// Starts the supervisor of `plan` in a session of its own and returns when the payload runs. `lock` is as in
/// [`replace_self`].
///
/// # Errors
/// What stopped the start, as the supervisor tells it.
pub fn start_detached(plan: &SealedPlan, lock: OwnedFd, supervisor: &Path) -> Result<(), Failure> {
    let plan = sealed("rlrun-plan", plan.bytes())?;
    detach(vec![(PLAN_FD, plan), (LOCK_FD, lock)], Stdio::Null, Executable::Path(supervisor))
}

/// The same for a container that waits for `start`: returns when it does. `console` takes the master of its terminal.
///
/// # Errors
/// As [`start_detached`].
pub fn start_held(
    plan: &SealedPlan,
    lock: OwnedFd,
    console: Option<OwnedFd>,
    supervisor: &Path,
) -> Result<(), Failure> {
    let plan = sealed("rlrun-plan", plan.bytes())?;
    let console = console.map(|socket| (CONSOLE_FD, socket));
    let fds = [(PLAN_FD, plan), (LOCK_FD, lock)].into_iter().chain(console).collect();
    detach(fds, Stdio::Caller, Executable::Path(supervisor))
}

/// What standard input and output of a supervisor in the background are.
#[derive(Clone, Copy)]
enum Stdio {
    Null,
    /// The caller's, until its container has them.
    Caller,
}

/// What the supervisor is executed from.
enum Executable<'a> {
    Path(&'a Path),
    File(OwnedFd),
}

fn detach(mut fds: Vec<(RawFd, OwnedFd)>, stdio: Stdio, supervisor: Executable<'_>) -> Result<(), Failure> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).at("detach", "create", "a pipe")?;
    match sys::clone_stage(0).at("detach", "start", "the supervisor")? {
        Fork::Child => {
            drop(read);
            let said = rustix::io::fcntl_dupfd_cloexec(&write, 3);
            fds.push((READY_FD, write));
            let failure = match background(fds, stdio, supervisor) {
                Ok(never) => match never {},
                Err(failure) => failure,
            };
            let told = said.map(|pipe| tell(&pipe, &Err(failure)));
            sys::exit_now(u8::from(told.is_err()))
        }
        Fork::Parent { .. } => {
            drop((fds, write));
            listen(read)
        }
    }
}

/// In the child: away from the caller's terminal and directory. Standard error stays the caller's until the payload
/// runs, for warnings.
fn background(fds: Vec<(RawFd, OwnedFd)>, stdio: Stdio, supervisor: Executable<'_>) -> Result<Infallible, Failure> {
    rustix::process::setsid().map(drop).at("detach", "start", "a session")?;
    rustix::process::chdir("/").at("detach", "enter", "/")?;
    if let Stdio::Null = stdio {
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        let null = openat(CWD, "/dev/null", flags, Mode::empty()).at("detach", "open", "/dev/null")?;
        rustix::stdio::dup2_stdin(&null).at("detach", "attach", "standard input")?;
        rustix::stdio::dup2_stdout(&null).at("detach", "attach", "standard output")?;
    }
    become_supervisor(fds, supervisor)
}

/// Tells whoever waits in [`start_detached`] how the start went.
///
/// # Errors
/// When it waits no longer.
pub fn tell(ready: &OwnedFd, outcome: &Result<(), Failure>) -> Result<(), Failure> {
    let bytes = postcard::to_stdvec(outcome)
        .map_err(|e| failed(Kind::Internal, "detach", "tell", "the command line", e.to_string()))?;
    rustix::io::write(ready, &bytes).map(drop).at("detach", "tell", "the command line")
}

fn listen(pipe: OwnedFd) -> Result<(), Failure> {
    let mut bytes = Vec::new();
    File::from(pipe).read_to_end(&mut bytes).at("detach", "wait for", "the supervisor")?;
    postcard::from_bytes::<Result<(), Failure>>(&bytes).unwrap_or_else(|_| {
        Err(failed(Kind::Runtime, "detach", "wait for", "the supervisor", "it was killed before the payload ran"))
    })
}

fn become_supervisor(fds: Vec<(RawFd, OwnedFd)>, supervisor: Executable<'_>) -> Result<Infallible, Failure> {
    match supervisor {
        Executable::Path(supervisor) => {
            place(fds)?;
            let object = supervisor.display().to_string();
            let path = CString::new(supervisor.as_os_str().as_bytes()).map_err(|_| rustix::io::Errno::INVAL);
            let path = path.at("exec-supervisor", "execute", &object)?;
            execute(&sys::Program::Path(&path), "rlrun-supervisor")
        }
        Executable::File(file) => {
            let file = above(&file, end(&fds))?;
            place(fds)?;
            execute(&sys::Program::File(file.as_fd()), "rlrun-supervisor")
        }
    }
}

/// Executes this very program again as the mapper, from a file that nothing inside the container can write: container
/// root is the user who owns the binary on disk (CVE-2019-5736). The child is in its user and mount namespace already;
/// `ends` go to the numbers from [`ENDS_FD`] on, a missing one leaves its number closed.
pub(crate) fn execute_mapper(
    plan: OwnedFd,
    ends: Vec<Option<OwnedFd>>,
    preserved: Vec<OwnedFd>,
) -> Result<Infallible, Failure> {
    let program = read_only_program().or_else(|_| sealed_program(Path::new("/proc/self/exe")))?;
    let numbers = ENDS_FD..;
    let ends = numbers.zip(ends).filter_map(|(number, fd)| Some((number, fd?)));
    let preserved = (MAPPER_PRESERVED_FD..).zip(preserved);
    let fds: Vec<_> = [(PLAN_FD, plan)].into_iter().chain(ends).chain(preserved).collect();
    let program = above(&program, end(&fds))?;
    place(fds)?;
    execute(&sys::Program::File(program.as_fd()), MAPPER_NAME)
}

/// A read-only mount of nothing but this program's file, attached nowhere: the file stays the one in the page cache
/// that all containers share, and opening it for writing by way of this mount is EROFS.
fn read_only_program() -> Result<OwnedFd, Failure> {
    let link = "/proc/self/exe";
    // By name, because the link leads to a mount of the namespace that was left, and only an own one can be cloned.
    let path = rustix::fs::readlink(link, Vec::new()).at("exec-mapper", "read", link)?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let clone = open_tree(CWD, path.as_c_str(), flags).at("exec-mapper", "clone the mount of", link)?;
    let (named, running) = (rustix::fs::fstat(&clone), rustix::fs::stat(link));
    let same = matches!((named, running), (Ok(a), Ok(b)) if (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino));
    if !same {
        return Err(failed(Kind::Runtime, "exec-mapper", "clone the mount of", link, "another file has its name now"));
    }
    sys::set_mount_attributes(clone.as_fd(), libc::MOUNT_ATTR_RDONLY, 0, false).at(
        "exec-mapper",
        "make read-only the mount of",
        link,
    )?;
    Ok(clone)
}

/// Puts descriptors at their numbers, all first out of the way so that placing one cannot close another.
fn place(fds: Vec<(RawFd, OwnedFd)>) -> Result<(), Failure> {
    let end = end(&fds);
    let moved: Vec<_> =
        fds.iter().map(|(number, fd)| Ok((*number, above(fd, end)?))).collect::<Result<_, Failure>>()?;
    // The originals may sit on the very numbers that are placed next; their owner is this process image, which ends.
    std::mem::forget(fds);
    // Whatever the caller's shell left open is nobody's here, and must not be taken for one of the numbers.
    sys::mark_cloexec_from(3).at("exec", "mark close-on-exec", "inherited descriptors")?;
    moved
        .into_iter()
        .try_for_each(|(number, fd)| sys::place_fd(fd, number).at("exec", "hand over", format!("descriptor {number}")))
}

/// A copy of a descriptor out of the way of the `count` that are placed from 3 on.
pub(crate) fn above_preserved(fd: BorrowedFd<'_>, count: u32) -> Result<OwnedFd, Failure> {
    let first = RawFd::try_from(count).unwrap_or(RawFd::MAX).saturating_add(3);
    rustix::io::fcntl_dupfd_cloexec(fd, first).at("preserve-fds", "move", "a descriptor")
}

/// The caller's descriptors to the numbers from 3 on. What else is open there is overwritten: its owner has a copy above
/// and must not close it.
pub(crate) fn place_preserved(preserved: Vec<OwnedFd>) -> Result<(), Failure> {
    let count = u32::try_from(preserved.len()).unwrap_or(u32::MAX);
    let moved = preserved.iter().map(|fd| above_preserved(fd.as_fd(), count)).collect::<Result<Vec<_>, _>>()?;
    // The originals may sit on the very numbers.
    std::mem::forget(preserved);
    (3..).zip(moved).try_for_each(|(number, fd)| {
        sys::place_fd(fd, number).at("preserve-fds", "hand over", format!("descriptor {number}"))
    })
}

/// Executes with an empty environment; the name is all that the program is told by argument.
fn execute(program: &sys::Program<'_>, name: &str) -> Result<Infallible, Failure> {
    let argv = sys::CStrings::new(&[name]).at("exec", "execute", name)?;
    let envp = sys::CStrings::new::<&str>(&[]).at("exec", "execute", name)?;
    Err(sys::exec(program, &argv, &envp)).at("exec", "execute", name)
}

/// The first number that none of these goes to.
fn end(fds: &[(RawFd, OwnedFd)]) -> RawFd {
    fds.iter().map(|(number, _)| number.saturating_add(1)).max().unwrap_or(PLAN_FD)
}

fn above(fd: &OwnedFd, first: RawFd) -> Result<OwnedFd, Failure> {
    rustix::io::fcntl_dupfd_cloexec(fd, first).at("exec", "move a descriptor", "")
}

/// What the supervisor binary was executed for.
pub enum Role {
    /// The supervisor of a container, or of a job in the id map. The descriptor is the plan, to hand on.
    Supervisor(Job, Option<OwnedFd>),
    /// The mapper of a container.
    Mapper(Box<rlrun_spec::Launch>),
}

/// What this process was executed for. Call once, first thing.
///
/// # Errors
/// When it was started by hand, by another version, or with a plan that is not sealed.
pub fn role() -> Result<Role, Failure> {
    // Inside a container too: a payload can be led to what its init ran from, and nothing but this comes of it.
    let by_hand = |why: &str| failed(Kind::CannotInvoke, "read-plan", "execute", "rlrun-supervisor", why);
    // A job in the id map comes as standard input, because std::process can place a descriptor only there.
    let plan = sys::take_inherited(PLAN_FD).ok().and_then(|fd| Some((read_sealed(&fd).ok()?, fd)));
    let (bytes, plan) = match plan {
        Some((bytes, fd)) => (bytes, Some(fd)),
        None => {
            let job = read_sealed(std::io::stdin())
                .map_err(|_| by_hand("it does nothing unless rlrun starts it").hint(OWN_PROGRAM))?;
            (job, None)
        }
    };
    let job: Job = postcard::from_bytes(&bytes).map_err(|e| by_hand(&format!("the plan does not decode: {e}")))?;
    let version = match &job {
        Job::Launch(launch) => launch.version,
        Job::Exec(exec) => exec.version,
        Job::Attach(attach) => attach.version,
        Job::Mapped(mapped) => mapped.version,
    };
    if version != VERSION {
        return Err(by_hand("rlrun and rlrun-supervisor are of different versions"));
    }
    let is_mapper = std::env::args_os().next().is_some_and(|name| name == MAPPER_NAME);
    match job {
        Job::Launch(launch) if is_mapper => Ok(Role::Mapper(launch)),
        job => Ok(Role::Supervisor(job, plan)),
    }
}
