//! The mapper: owner of the user namespace, pid 1 of the outer pid namespace. It mounts the root file system, clones
//! the container's init, reaps it and cleans up. The container cannot see it; when it dies, the kernel kills
//! everything below it, whatever the payload did to its parent-death signal.

use crate::at::{At, failed};
use crate::channel::{self, Channel};
use crate::container::ChildStreams;
use crate::init::{self, InitEnds};
use crate::limiter::Limiter;
use crate::sys::{self, Fork};
use crate::trace::Trace;
use crate::{disk, launch, layered, nested, rootfs, tree, userns};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;
use rlrun_spec::life::Hold;
use rlrun_spec::plan::{Launch, Rootfs};
use rlrun_spec::protocol::{INIT_STEPS, MAPPER_STEPS, Message, NESTED_STEPS, Step};
use rlrun_spec::usage::Spent;
use rlrun_spec::{Failure, Kind, Stage};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::process::{
    DumpableBehavior, Pid, Signal, WaitOptions, WaitStatus, set_dumpable_behavior, set_parent_process_death_signal,
    wait,
};
use rustix::thread::{
    CapabilitySet, capabilities, clear_ambient_capability_set, configure_capability_in_ambient_set, set_capabilities,
};
use std::os::fd::{AsFd, OwnedFd};

/// What the network wants done inside the new network namespace, before the payload: loopback, routes.
pub type NetworkHook<'a> = &'a dyn Fn(&Launch) -> Result<(), Failure>;

/// In the supervisor's child: executes the mapper from a file that cannot be written. Never returns.
pub(crate) fn execute(
    plan: OwnedFd,
    (channel, init): (Channel, Channel),
    streams: ChildStreams,
    preserved: Vec<OwnedFd>,
    trace: &Trace,
) -> ! {
    let failure = match enter_mount_namespace() {
        Ok(()) => {
            // A copy stays here for the one message about a failed exec.
            let channel_fd = rustix::io::fcntl_dupfd_cloexec(&channel, 3).at("exec-mapper", "share", "a channel");
            channel_fd.and_then(|fd| {
                let ends = vec![
                    Some(fd),
                    Some(init.into_socket()),
                    trace.share(),
                    streams.stdin,
                    streams.stdout,
                    streams.stderr,
                ];
                launch::execute_mapper(plan, ends, preserved)
            })
        }
        Err(failure) => Err(failure),
    };
    match failure {
        Ok(never) => match never {},
        Err(failure) => {
            let told = channel.send(&Message::Failed(Box::new(Failure { stage: Stage::Mapper, ..failure })), None);
            sys::exit_now(u8::from(told.is_err()))
        }
    }
}

/// The mount namespace comes before the exec, because cloning a mount needs one of our own; the capabilities go
/// through the exec as ambient ones, because without a map this process is nobody and would lose them
/// (user_namespaces(7), "Capabilities").
fn enter_mount_namespace() -> Result<(), Failure> {
    set_parent_process_death_signal(Some(Signal::KILL)).at("mapper", "tie to", "the supervisor's life")?;
    sys::unshare(libc::CLONE_NEWNS).at("unshare", "create", "the container's mount namespace")?;
    let mut sets = capabilities(None).at("exec-mapper", "read", "the capability sets")?;
    sets.inheritable = sets.permitted;
    set_capabilities(None, sets).at("exec-mapper", "set", "the capability sets")?;
    for number in (0..64).map(|n| 1 << n).filter(|bit| sets.permitted.bits() & bit != 0) {
        configure_capability_in_ambient_set(CapabilitySet::from_bits_retain(number), true).at(
            "exec-mapper",
            "raise",
            "the ambient set",
        )?;
    }
    Ok(())
}

/// The mapper, executed: takes over its ends, runs the container, ends. `network` is run in the new network namespace.
pub fn run(launch: &Launch, network: NetworkHook<'_>) -> ! {
    let inherited = |offset| sys::take_inherited(launch::ENDS_FD + offset).ok();
    let (Some(channel), Some(init)) = (inherited(0), inherited(1)) else { sys::exit_now(1) };
    let mut channel = Channel::inherited(channel, MAPPER_STEPS, Stage::Supervisor);
    let init_channel = Channel::inherited(init, INIT_STEPS, Stage::Supervisor);
    let trace = &Trace::inherited(inherited(2));
    let streams = ChildStreams { stdin: inherited(3), stdout: inherited(4), stderr: inherited(5) };
    let numbers = (launch::MAPPER_PRESERVED_FD..).zip(0..launch.process.preserved);
    let preserved = numbers.filter_map(|(number, _)| sys::take_inherited(number).ok()).collect();
    let payloads = Payloads { streams, preserved };
    let init = set_up(launch, &mut channel, trace, network)
        .and_then(|()| fork_init(launch, &mut channel, init_channel, payloads, trace))
        .and_then(|init| leave_caller(launch).map(|()| init));
    let (outcome, started) = match init {
        Ok(init) => {
            let outcome = wait_for(launch, &init, &channel, trace);
            let started = init.started();
            (outcome, started)
        }
        Err(failure) => (Err(failure), false),
    };
    let told = |failure| Message::Failed(Box::new(Failure { stage: Stage::Mapper, ..failure }));
    let cleaned = clean_up(launch, started, outcome.as_ref().ok());
    // A failure is what the user must hear; what cleaning leaves then, the next command finds by its record.
    let exited = |end: End| Message::Exited(end.code, end.spent);
    let message = outcome.and_then(|end| cleaned.map(|()| end)).map_or_else(told, exited);
    trace.mark("mapper: container gone");
    match channel.send(&message, None) {
        Ok(()) => sys::exit_now(0),
        Err(_) => sys::exit_now(1),
    }
}

fn set_up(launch: &Launch, channel: &mut Channel, trace: &Trace, network: NetworkHook<'_>) -> Result<(), Failure> {
    trace.mark("mapper: executed");
    rustix::thread::set_name(c"rlrun:mapper").at("mapper", "name", "the mapper")?;
    // The ambient set has done its work, and no helper is to inherit it.
    clear_ambient_capability_set().at("mapper", "clear", "the ambient set")?;
    let wanted = launch.namespaces;
    let flags = [
        (wanted.net, libc::CLONE_NEWNET),
        (wanted.ipc, libc::CLONE_NEWIPC),
        (wanted.uts, libc::CLONE_NEWUTS),
        // With cgroups of its own init makes it, once it has joined them: its root is where its maker is.
        (wanted.cgroup && launch.facts.cgroup.is_none(), libc::CLONE_NEWCGROUP),
    ];
    let flags = flags.into_iter().filter(|(on, _)| *on).fold(0, |all, (_, flag)| all | flag);
    sys::unshare(flags).at("unshare", "create", "the container's namespaces")?;
    trace.mark("mapper: namespaces");
    // Nothing mounted from here on reaches the host; what the host mounts later may still appear.
    mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC).at(
        "mount-private",
        "make mounts private",
        "/",
    )?;
    channel.expect(Step::ParentIdmapWritten)?;
    userns::become_root(&launch.facts.id_maps, userns::Groups::of(&launch.process))?;
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
    layered::mount(launch)?;
    trace.mark("mapper: root file system");
    Ok(())
}

/// What is the payload's of this process's descriptors.
struct Payloads {
    streams: ChildStreams,
    preserved: Vec<OwnedFd>,
}

fn fork_init(
    launch: &Launch,
    channel: &mut Channel,
    init_channel: Channel,
    Payloads { streams, preserved }: Payloads,
    trace: &Trace,
) -> Result<Init, Failure> {
    let (unstarted, say_unstarted) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).at("clone-init", "create", "a pipe")?;
    let nested = nested::limit(launch).map(|_| channel::pair(NESTED_STEPS, Stage::Mapper, Stage::Init)).transpose()?;
    let (init_nested, nested) = nested.map_or((None, None), |(init, own)| (Some(init), Some(own)));
    match sys::clone_stage(libc::CLONE_NEWPID | libc::CLONE_NEWNS).at("clone-init", "create", "the container's init")? {
        Fork::Child => {
            drop(nested);
            let ends = InitEnds {
                launch,
                channel: init_channel,
                streams,
                preserved,
                unstarted: say_unstarted,
                nested: init_nested,
                trace,
            };
            init::run(ends)
        }
        Fork::Parent { pid, pidfd } => {
            // These are init's alone; a copy here would keep end-of-file from ever being seen.
            drop((init_channel, streams, preserved, say_unstarted, init_nested));
            channel.reached(Step::MapperInitForked, Some(pidfd.as_fd()))?;
            if let Some(mut nested) = nested {
                nested::map(launch, &pidfd, &mut nested);
            }
            Ok(Init { pid, unstarted })
        }
    }
}

/// In the background nothing of the caller is kept open: whoever reads its standard error must see the end of it.
fn leave_caller(launch: &Launch) -> Result<(), Failure> {
    if !launch.facts.life.detached {
        return Ok(());
    }
    let null =
        openat(CWD, "/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).at("mapper", "open", "/dev/null")?;
    if launch.facts.life.hold != Hold::No {
        rustix::stdio::dup2_stdin(&null).at("mapper", "leave", "the caller's standard input")?;
        rustix::stdio::dup2_stdout(&null).at("mapper", "leave", "the caller's standard output")?;
    }
    rustix::stdio::dup2_stderr(&null).at("mapper", "leave", "the caller's standard error")
}

/// How the container's init ended.
struct End {
    code: u8,
    spent: Spent,
    /// It is started again, `--rm` or not.
    spared: bool,
}

/// The running init, and the pipe on which it says that it never became the payload.
pub(crate) struct Init {
    pub(crate) pid: Pid,
    pub(crate) unstarted: OwnedFd,
}

impl Init {
    /// Whether it has become the payload, which closes the pipe and leaves nothing in it.
    fn started(&self) -> bool {
        let mut closed = [PollFd::new(&self.unstarted, PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut closed, Some(&now)) == Ok(1) && rustix::io::read(&self.unstarted, &mut [0; 1]) == Ok(0)
    }
}

/// Reaps until the container's init ends. What serves the root file system is a child too:
/// when it ends, the container cannot go on.
fn wait_for(launch: &Launch, init: &Init, channel: &Channel, trace: &Trace) -> Result<End, Failure> {
    if sys::forget_program_pages().is_err() {
        // Only memory: the container runs as well with the pages of the start still here.
    }
    let mut limiter = Limiter::new(launch, init, channel)?;
    // What set the container up is no part of it.
    let before = cpu_of_children();
    loop {
        limiter.keep_until_end()?;
        let Some((pid, status)) = wait(WaitOptions::NOHANG).at("wait", "wait for", "the container")? else { continue };
        if pid == init.pid {
            trace.mark("mapper: init ended");
            // Its own and that of all that it outlived; the kernel adds what dies with it.
            let cpu_ns = cpu_of_children().saturating_sub(before);
            return Ok(End { code: exit_code(status), spent: limiter.spent(cpu_ns), spared: limiter.spared });
        }
        let serves_root = match &launch.facts.rootfs {
            Rootfs::FuseOverlay { binary, .. } => Some(binary.as_path()),
            Rootfs::Overlay { .. } | Rootfs::Directory { .. } => None,
        };
        if let Some(binary) = serves_root.or_else(|| layered::helper(launch)) {
            let how = match status.terminating_signal() {
                Some(number) => format!("was killed by signal {number}"),
                None => format!("ended with code {}", exit_code(status)),
            };
            let why = format!("it {how}, and the container with it");
            // fuse-overlayfs goes on when what is below it has gone.
            let file = launch.facts.disk.as_ref().and_then(|disk| disk.file.as_ref());
            let (step, what, helper) = match file.filter(|_| disk::is_dead(&launch.facts.container_dir)) {
                Some(programs) => ("disk-helper", "serve what the container writes", programs.fuse2fs.as_path()),
                None if serves_root.is_none() => ("rootfs-helper", "serve an overlay", binary),
                None => ("rootfs-helper", "serve the root file system", binary),
            };
            return Err(failed(Kind::Runtime, step, what, helper.display().to_string(), why));
        }
    }
}

/// Nanoseconds of processor time of the children that have ended, and of theirs (getrusage(2)).
fn cpu_of_children() -> u64 {
    let Ok(usage) = getrusage(UsageWho::RUSAGE_CHILDREN) else { return 0 };
    let microseconds = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    u64::try_from(microseconds).unwrap_or_default().saturating_mul(1000)
}

/// The shell's convention: the code itself, 128+n for signal n.
pub(crate) fn exit_code(status: WaitStatus) -> u8 {
    let code = status.exit_status().or_else(|| status.terminating_signal().map(|n| 128 + n)).unwrap_or(125);
    u8::try_from(code).unwrap_or(125)
}

/// Unmounts the root file system and, with `--rm` or when nothing ever ran, removes what belongs to subordinate ids.
/// The lock stays: the supervisor holds it, and a container without one would be taken for garbage.
fn clean_up(launch: &Launch, started: bool, end: Option<&End>) -> Result<(), Failure> {
    // Where init did not end by itself it ends with this process, and who serves the file systems too.
    if end.is_some() && launch.facts.disk.as_ref().is_some_and(|disk| disk.file.is_some()) {
        disk::take_down(&launch.facts.container_dir)?;
    }
    if !matches!(launch.facts.rootfs, Rootfs::Directory { .. }) {
        rootfs::take_down(launch)?;
    }
    layered::take_down(launch)?;
    let facts = &launch.facts;
    if facts.remove && end.is_some_and(|end| end.spared) {
        return rootfs::mark_written(launch);
    }
    if facts.remove || (!started && facts.remove_unstarted) {
        tree::remove_contents_but_lock(&launch.facts.container_dir)?;
    }
    Ok(())
}
