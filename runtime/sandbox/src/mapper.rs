//! The mapper: owner of the user namespace, pid 1 of the outer pid namespace. It mounts the root file system, clones
//! the container's init, reaps it and cleans up. The container cannot see it; when it dies, the kernel kills
//! everything below it, whatever the payload did to its parent-death signal.

use crate::at::{At, failed};
use crate::channel::Channel;
use crate::container::ChildStreams;
use crate::init::{self, InitEnds};
use crate::sys::{self, Fork};
use crate::trace::Trace;
use crate::{rootfs, tree, userns};
use rlrun_spec::plan::{Launch, Rootfs};
use rlrun_spec::protocol::{Message, Step};
use rlrun_spec::{Failure, Kind, Stage};
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::process::{
    DumpableBehavior, Pid, Signal, WaitOptions, WaitStatus, set_dumpable_behavior, set_parent_process_death_signal,
    wait,
};
use std::os::fd::{AsFd, OwnedFd};

/// What the network wants done inside the new network namespace, before the payload: loopback, routes.
pub type NetworkHook<'a> = &'a dyn Fn(&Launch) -> Result<(), Failure>;

/// Exactly what the mapper owns.
pub(crate) struct MapperEnds<'a> {
    pub(crate) launch: &'a Launch,
    pub(crate) channel: Channel,
    pub(crate) init_channel: Channel,
    pub(crate) streams: ChildStreams,
    pub(crate) trace: &'a Trace,
    pub(crate) network: NetworkHook<'a>,
}

/// Runs the stage in a forked child; never returns to the supervisor's code.
pub(crate) fn run(ends: MapperEnds<'_>) -> ! {
    let MapperEnds { launch, mut channel, init_channel, streams, trace, network } = ends;
    let outcome = set_up(launch, &mut channel, trace, network)
        .and_then(|()| fork_init(launch, &mut channel, init_channel, streams, trace))
        .and_then(|init| wait_for(init, trace));
    let told = |failure| Message::Failed(Box::new(Failure { stage: Stage::Mapper, ..failure }));
    let message = match outcome {
        Ok(End { code, started }) => match clean_up(launch, started) {
            Ok(()) => Message::Exited(code),
            Err(failure) => told(failure),
        },
        Err(failure) => {
            // The failure is what the user must hear; what cleaning leaves, the next command finds by its record.
            drop(clean_up(launch, false));
            told(failure)
        }
    };
    trace.mark("mapper: container gone");
    match channel.send(&message, None) {
        Ok(()) => sys::exit_now(0),
        Err(_) => sys::exit_now(1),
    }
}

fn set_up(launch: &Launch, channel: &mut Channel, trace: &Trace, network: NetworkHook<'_>) -> Result<(), Failure> {
    rustix::thread::set_name(c"rlrun:mapper").at("mapper", "name", "the mapper")?;
    set_parent_process_death_signal(Some(Signal::KILL)).at("mapper", "tie to", "the supervisor's life")?;
    let wanted = launch.namespaces;
    let flags = [
        (true, libc::CLONE_NEWNS),
        (wanted.net, libc::CLONE_NEWNET),
        (wanted.ipc, libc::CLONE_NEWIPC),
        (wanted.uts, libc::CLONE_NEWUTS),
        (wanted.cgroup, libc::CLONE_NEWCGROUP),
    ];
    let flags = flags.into_iter().filter(|(on, _)| *on).fold(0, |all, (_, flag)| all | flag);
    sys::unshare(flags).at("unshare", "create", "the container's namespaces")?;
    trace.mark("mapper: namespaces");
    // Nothing mounted from here on reaches the host; what the host mounts later may still appear.
    mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)
        .at("mount-private", "make mounts private", "/")?;
    channel.expect(Step::ParentIdmapWritten)?;
    userns::become_root(&launch.facts.id_maps)?;
    // The change of ids made this process undumpable; slirp4netns enters its namespaces through /proc, which needs
    // a dumpable owner (ptrace(2), access mode checks). The container cannot see it: it lives one pid namespace up.
    set_dumpable_behavior(DumpableBehavior::Dumpable).at("mapper", "make dumpable", "the mapper")?;
    channel.reached(Step::MapperRootReady, None)?;
    trace.mark("mapper: mapped root");
    if wanted.net {
        network(launch)?;
        trace.mark("mapper: network inside");
    }
    rootfs::mount(launch)?;
    trace.mark("mapper: root file system");
    Ok(())
}

fn fork_init(
    launch: &Launch,
    channel: &mut Channel,
    init_channel: Channel,
    streams: ChildStreams,
    trace: &Trace,
) -> Result<Init, Failure> {
    let (unstarted, say_unstarted) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).at("clone-init", "create", "a pipe")?;
    match sys::clone_stage(libc::CLONE_NEWPID | libc::CLONE_NEWNS).at("clone-init", "create", "the container's init")? {
        Fork::Child => init::run(InitEnds { launch, channel: init_channel, streams, unstarted: say_unstarted, trace }),
        Fork::Parent { pid, pidfd } => {
            // Both are init's alone; a copy here would keep end-of-file from ever being seen.
            drop((init_channel, streams, say_unstarted));
            channel.reached(Step::MapperInitForked, Some(pidfd.as_fd()))?;
            Ok(Init { pid, unstarted })
        }
    }
}

/// How the container's init ended.
struct End {
    code: u8,
    /// Whether it had become the payload.
    started: bool,
}

/// The running init, and the pipe on which it says that it never became the payload.
struct Init {
    pid: Pid,
    unstarted: OwnedFd,
}

/// Reaps until the container's init ends. Anything else that ends here is a helper the container cannot live without.
fn wait_for(init: Init, trace: &Trace) -> Result<End, Failure> {
    loop {
        let Some((pid, status)) = wait(WaitOptions::empty()).at("wait", "wait for", "the container")? else { continue };
        if pid == init.pid {
            trace.mark("mapper: init ended");
            // Close-on-exec: nothing can be written there once the payload runs.
            let unstarted = rustix::io::read(&init.unstarted, &mut [0; 1]).at("wait", "read", "init's last word")? == 1;
            return Ok(End { code: exit_code(status), started: !unstarted });
        }
        let object = format!("process {}", pid.as_raw_nonzero());
        if !status.exited() || status.exit_status() != Some(0) {
            let why = format!("it ended with code {}", exit_code(status));
            return Err(failed(Kind::Runtime, "rootfs-helper", "keep the root file system served by", object, why));
        }
    }
}

/// The shell's convention: the code itself, 128+n for signal n.
pub(crate) fn exit_code(status: WaitStatus) -> u8 {
    let code = status.exit_status().or_else(|| status.terminating_signal().map(|n| 128 + n)).unwrap_or(125);
    u8::try_from(code).unwrap_or(125)
}

/// Unmounts the root file system and, with `--rm` or when nothing ever ran, removes what belongs to subordinate ids.
fn clean_up(launch: &Launch, started: bool) -> Result<(), Failure> {
    if !matches!(launch.facts.rootfs, Rootfs::Directory { .. }) {
        rootfs::take_down(launch)?;
    }
    if launch.facts.remove || !started {
        tree::remove_contents(&launch.facts.container_dir)?;
    }
    Ok(())
}
