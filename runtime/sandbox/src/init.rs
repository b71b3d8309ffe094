//! Init: pid 1 of the container before it becomes the payload. It fills the root file system, moves into it, waits
//! for the word of the supervisor, confines itself and executes.

use crate::at::At;
use crate::channel::Channel;
use crate::container::ChildStreams;
use crate::trace::Trace;
use crate::{cgroup, launch, mounts, nested, payload, rootfs, sys, terminal};
use rlrun_spec::life::Hold;
use rlrun_spec::plan::Launch;
use rlrun_spec::protocol::{INIT_STEPS, Message, Step};
use rlrun_spec::{Failure, Stage};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::mount::{UnmountFlags, unmount};
use std::os::fd::{AsFd, OwnedFd};

/// Exactly what init owns.
pub(crate) struct InitEnds<'a> {
    pub(crate) launch: &'a Launch,
    pub(crate) channel: Channel,
    pub(crate) streams: ChildStreams,
    /// Descriptors of the caller that the payload gets.
    pub(crate) preserved: Vec<OwnedFd>,
    /// Written to when init ends without having become the payload.
    pub(crate) unstarted: OwnedFd,
    /// To the mapper, where the number of processes is limited.
    pub(crate) nested: Option<Channel>,
    pub(crate) trace: &'a Trace,
}

/// Runs the stage; ends as the payload or with one failure told.
pub(crate) fn run(ends: InitEnds<'_>) -> ! {
    let InitEnds { launch, channel, streams, preserved, unstarted, nested, trace } = ends;
    let mut told = Told { channel, unstarted };
    let set_up = set_up(launch, &mut told, nested, (streams, preserved), trace);
    let Told { channel, unstarted } = told;
    let failure = match set_up {
        Ok(never) => match never {},
        Err(failure) => Failure { stage: Stage::Init, ..failure },
    };
    let code = failure.kind.exit_code();
    if rustix::io::write(&unstarted, b"u").is_err() {
        // The mapper is gone, and with it the reason to tell it anything.
    }
    match channel.send(&Message::Failed(Box::new(failure)), None) {
        Ok(()) => sys::exit_now(code),
        // A custom filter may forbid even this; the exit code still says it.
        Err(_) => sys::exit_now(code),
    }
}

/// Through which others hear of init.
struct Told {
    channel: Channel,
    unstarted: OwnedFd,
}

impl Told {
    /// Above the descriptors that are placed. Nothing is due on the channel any more but a failure.
    fn move_above(&mut self, preserved: u32) -> Result<(), Failure> {
        let socket = launch::above_preserved(self.channel.as_fd(), preserved)?;
        let channel = Channel::inherited(socket, INIT_STEPS, Stage::Supervisor);
        let unstarted = launch::above_preserved(self.unstarted.as_fd(), preserved)?;
        // The old numbers may be overwritten, so their owners must not close them.
        std::mem::forget(std::mem::replace(&mut self.channel, channel));
        std::mem::forget(std::mem::replace(&mut self.unstarted, unstarted));
        Ok(())
    }
}

fn set_up(
    launch: &Launch,
    told: &mut Told,
    mut mapper: Option<Channel>,
    (streams, preserved): (ChildStreams, Vec<OwnedFd>),
    trace: &Trace,
) -> Result<std::convert::Infallible, Failure> {
    rustix::thread::set_name(c"rlrun:init").at("init", "name", "init")?;
    cgroup::enter(launch)?;
    let root = rootfs::root(launch);
    let root = openat(CWD, &root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).at(
        "open-rootfs",
        "open the root file system",
        root.display().to_string(),
    )?;
    let root = mounts::populate(launch, root)?;
    trace.mark("init: mounts");
    enter(&root)?;
    drop(root);
    mounts::finish(launch)?;
    if launch.namespaces.uts && !launch.hostname.is_empty() {
        rustix::system::sethostname(launch.hostname.as_bytes()).at("hostname", "set", &launch.hostname)?;
    }
    let master = attach_streams(launch, streams)?;
    rustix::process::umask(Mode::from_raw_mode(launch.process.umask & 0o777));
    let program = payload::find(&launch.process)?;
    if let (Some(mapper), Some(pids)) = (&mut mapper, nested::limit(launch)) {
        nested::enter(launch, pids, mapper)?;
        trace.mark("init: second user namespace");
    }
    told.channel.reached(Step::InitRootfsReady, master.as_ref().map(AsFd::as_fd))?;
    drop(master);
    trace.mark("init: root file system ready");
    if let Some(mapper) = &mut mapper {
        nested::finish(mapper)?;
    }
    drop(mapper);
    if launch.facts.life.hold != Hold::No {
        told.channel.rest()?;
    }
    told.channel.expect(Step::ParentProceed)?;
    trace.mark("init: executing");
    if !preserved.is_empty() {
        told.move_above(launch.process.preserved)?;
        launch::place_preserved(preserved)?;
    }
    payload::run(launch, &program)
}

/// `pivot_root(2)` into the new root with both arguments ".", which stacks the old root under the new one, and takes
/// it away: no directory inside is needed for the old root.
fn enter(root: &OwnedFd) -> Result<(), Failure> {
    rustix::process::fchdir(root).at("pivot-root", "enter", "the root file system")?;
    rustix::process::pivot_root(".", ".").at("pivot-root", "move into", "the root file system")?;
    unmount(".", UnmountFlags::DETACH).at("pivot-root", "detach", "the host's root")?;
    rustix::process::chdir("/").at("pivot-root", "enter", "/")
}

/// Puts the streams where the payload expects them; returns the terminal's master, if it has one.
fn attach_streams(launch: &Launch, streams: ChildStreams) -> Result<Option<OwnedFd>, Failure> {
    // Before the terminal: only a session leader can have one, and without one the payload must not have ours.
    rustix::process::setsid().map(drop).at("session", "start", "a session")?;
    let process = &launch.process;
    if process.terminal {
        return terminal::open(process).map(Some);
    }
    let stdin = match streams.stdin {
        Some(fd) => fd,
        None => openat(CWD, "/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).at(
            "streams",
            "open",
            "/dev/null",
        )?,
    };
    terminal::give_to(&stdin, process);
    rustix::stdio::dup2_stdin(&stdin).at("streams", "attach", "standard input")?;
    if let Some(stdout) = &streams.stdout {
        terminal::give_to(stdout, process);
        rustix::stdio::dup2_stdout(stdout).at("streams", "attach", "standard output")?;
    }
    if let Some(stderr) = &streams.stderr {
        terminal::give_to(stderr, process);
        rustix::stdio::dup2_stderr(stderr).at("streams", "attach", "standard error")?;
    }
    Ok(None)
}
