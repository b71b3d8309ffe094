//! From the command line's process to the supervisor: the same process, another program. What it executes is a
//! sealed copy of the supervisor binary, and all it is given is the sealed plan and the container's lock.

use crate::at::{At, failed};
use crate::memfd::{read_sealed, sealed, sealed_program};
use crate::sys;
use rlrun_spec::plan::{Job, VERSION};
use rlrun_spec::{Failure, Kind, SealedPlan};
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::path::Path;

/// Where the supervisor finds the sealed plan.
pub const PLAN_FD: RawFd = 3;
/// Where the supervisor finds the container's lock, held as long as it lives.
pub const LOCK_FD: RawFd = 4;

/// Replaces this process by the supervisor of `plan`. Returns only on failure.
///
/// `lock` is an open file that holds the container's flock(2); `supervisor` is the path of the supervisor binary.
#[must_use]
pub fn replace_self(plan: &SealedPlan, lock: OwnedFd, supervisor: &Path) -> Failure {
    match try_replace(plan, lock, supervisor) {
        Ok(never) => match never {},
        Err(failure) => failure,
    }
}

fn try_replace(plan: &SealedPlan, lock: OwnedFd, supervisor: &Path) -> Result<std::convert::Infallible, Failure> {
    let program = sealed_program(supervisor)?;
    let plan = sealed("rlrun-plan", plan.bytes())?;
    // Out of the way of the fixed numbers first, so that placing one cannot close another.
    let [program, plan, lock] = [program, plan, lock].map(|fd| above_fixed(&fd));
    let (program, plan, lock) = (program?, plan?, lock?);
    sys::place_fd(plan, PLAN_FD).at("exec-supervisor", "hand over", "the plan")?;
    sys::place_fd(lock, LOCK_FD).at("exec-supervisor", "hand over", "the lock")?;
    Err(exec_program(&program))
}

/// Executes the sealed supervisor with an empty environment.
pub(crate) fn exec_program(program: &OwnedFd) -> Failure {
    let strings = sys::CStrings::new(&["rlrun-supervisor"]).and_then(|a| Ok((a, sys::CStrings::new::<&str>(&[])?)));
    let errno = match strings {
        Ok((argv, envp)) => sys::exec(&sys::Program::File(program.as_fd()), &argv, &envp),
        Err(errno) => errno,
    };
    let result: Result<(), _> = Err(errno);
    match result.at("exec-supervisor", "execute", "rlrun-supervisor") {
        Ok(()) => failed(Kind::Internal, "exec-supervisor", "execute", "rlrun-supervisor", "returned"),
        Err(failure) => failure,
    }
}

pub(crate) fn above_fixed(fd: &OwnedFd) -> Result<OwnedFd, Failure> {
    rustix::io::fcntl_dupfd_cloexec(fd, 10).at("exec-supervisor", "move a descriptor", "")
}

/// The job this process was started for. Call once, first thing.
///
/// # Errors
/// When it was started by hand, by another version, or with a plan that is not sealed.
pub fn read_job() -> Result<Job, Failure> {
    let by_hand = |why: &str| failed(Kind::Usage, "read-plan", "start", "rlrun-supervisor", why);
    // A job in the id map comes as standard input, because std::process can place a descriptor only there.
    let bytes = match sys::take_inherited(PLAN_FD).map_err(|_| ()).and_then(|fd| read_sealed(&fd).map_err(|_| ())) {
        Ok(bytes) => bytes,
        Err(()) => read_sealed(std::io::stdin()).map_err(|_| by_hand("it is started by rlrun, not by hand"))?,
    };
    let job: Job = postcard::from_bytes(&bytes).map_err(|e| by_hand(&format!("the plan does not decode: {e}")))?;
    let version = match &job {
        Job::Launch(launch) => launch.version,
        Job::Mapped(mapped) => mapped.version,
    };
    if version == VERSION { Ok(job) } else { Err(by_hand("rlrun and rlrun-supervisor are of different versions")) }
}
