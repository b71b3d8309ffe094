//! The job, in the id map: it is given a task and descriptors, and answers when the task is done.

use super::failure;
use rlrun_image::files::{self, Base, Destination, Manner, Owner, Source, Upper};
use rlrun_sandbox::Resting;
use rlrun_sandbox::sys::take_inherited;
use rlrun_spec::Failure;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::os::fd::OwnedFd;

/// Where the files are.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Target {
    /// The root of a running container, an inherited descriptor.
    Root(i32),
    /// To be mounted.
    Resting(Box<Resting>),
    /// What it wrote, to be mounted; the task names the directories.
    Changes(Box<Resting>),
    /// The task names directories itself.
    Nowhere,
}

/// What is to be done.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Task {
    /// Write files to a descriptor.
    Pack {
        path: Vec<u8>,
        /// What they are called in the archive.
        name: Vec<u8>,
        out: i32,
    },
    /// Read files from a descriptor.
    Receive {
        path: Vec<u8>,
        /// None: an archive of the caller's. Else as cp, into a directory under that name.
        copy: Option<Option<Vec<u8>>>,
        /// Whose they become; None: as the archive says.
        owner: Option<(u32, u32)>,
        overwrite: bool,
        input: i32,
    },
    /// List what differs.
    Changes(Upper),
    /// Write what differs to a descriptor, as a layer.
    Layer { upper: Upper, out: i32 },
}

/// The whole job.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Job {
    pub(super) target: Target,
    pub(super) task: Task,
}

/// Does a job.
pub(crate) fn inside(job: &[u8]) -> Result<Vec<u8>, Failure> {
    let job: Job = serde_json::from_slice(job).map_err(|e| failure("read", "the job").why(e.to_string()))?;
    rustix::process::umask(rustix::fs::Mode::empty());
    let limit = getrlimit(Resource::Nofile);
    if setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).is_err() {
        // Only very deep trees need more than there are, and say so.
    }
    let base = match &job.target {
        Target::Root(number) => Base::Root(taken(*number)?),
        Target::Resting(resting) => Base::Root(rlrun_sandbox::open_resting(resting)?),
        Target::Changes(resting) => rlrun_sandbox::open_resting_changes(resting).map(|_| Base::Host)?,
        Target::Nowhere => Base::Host,
    };
    let outcome = perform(job.task, &base);
    drop(base);
    let closed = match &job.target {
        Target::Resting(resting) | Target::Changes(resting) => rlrun_sandbox::close_resting(resting),
        Target::Root(_) | Target::Nowhere => Ok(()),
    };
    outcome.and_then(|answer| closed.map(|()| answer))
}

fn perform(task: Task, base: &Base) -> Result<Vec<u8>, Failure> {
    match task {
        Task::Pack { path, name, out } => {
            let source = Source { base, path: &path, name: &name, owner: &|uid, gid| (uid, gid) };
            files::pack(&source, File::from(taken(out)?)).map(|()| Vec::new())
        }
        Task::Receive { path, copy, owner, overwrite, input } => {
            let to = Destination {
                base,
                path: &path,
                how: copy.as_ref().map_or(Manner::Unpack, |name| Manner::Copy(name.as_deref())),
                owner: owner.map_or(Owner::Kept, |(uid, gid)| Owner::Given(uid, gid)),
                overwrite,
            };
            let received = files::receive(File::from(taken(input)?), &to)?;
            Ok(received.devices.to_string().into_bytes())
        }
        Task::Changes(upper) => serde_json::to_vec(&files::changes(&upper)?)
            .map_err(|e| failure("tell the changes of", &upper.directory.display().to_string()).why(e.to_string())),
        Task::Layer { upper, out } => files::layer(&upper, File::from(taken(out)?)).map(|()| Vec::new()),
    }
}

fn taken(number: i32) -> Result<OwnedFd, Failure> {
    take_inherited(number).map_err(|errno| failure("take over", "a descriptor").errno(errno.raw_os_error()))
}
