//! A further process in a running container.
//!
//! The supervisor of the command forks the joiner, which enters the container's namespaces, confines itself and forks
//! the command's process as its sibling, a child of the supervisor: only a child can be a member of another pid
//! namespace (setns(2)). Until then nobody inside can see it. From then until it executes the command nobody inside can
//! reach it: it is not dumpable, its memory belongs to the host's user namespace (ptrace(2), access mode checks), it
//! has the command's ids and capabilities and lacks only the filter. What it runs is mounted read-only or sealed, or
//! else out of reach with it (CVE-2016-9962, CVE-2019-5736).

use crate::at::{At, failed};
use crate::channel::{self, Channel, Received};
use crate::container::{ChildStreams, Streams, streams};
use crate::sys::{self, Fork};
use crate::{cgroup, confine, launch, payload, terminal, userns};
use nix::sched::{CloneFlags, setns};
use rlrun_spec::plan::Launch;
use rlrun_spec::protocol::{JOINED_STEPS, JOINER_STEPS, Message, Step};
use rlrun_spec::{Failure, Kind, Stage};
use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, openat};
use rustix::io::Errno;
use rustix::process::{
    DumpableBehavior, Pid, Signal, WaitId, WaitIdOptions, WaitOptions, kill_process_group, pidfd_send_signal,
    set_dumpable_behavior, set_parent_process_death_signal, waitid, waitpid,
};
use std::convert::Infallible;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// The exit code of a child, once it has ended: 128+n for signal n, and 125 where neither can be told.
///
/// # Errors
/// As `waitid(2)`.
pub fn exit_code(child: &OwnedFd) -> Result<u8, Errno> {
    let ended = waitid(WaitId::PidFd(child.as_fd()), WaitIdOptions::EXITED)?;
    let code = ended.and_then(|status| status.exit_status().or_else(|| Some(128 + status.terminating_signal()?)));
    Ok(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(125))
}

/// A command in a running container. It outlives this value; whoever waits for it is its parent.
pub struct Joined {
    pidfd: OwnedFd,
    channel: Option<Channel>,
}

impl Joined {
    /// Starts a process in the container of `init`, a pidfd of its pid 1, as `launch.process` says. It waits for
    /// [`Joined::proceed`]. `preserved` go to it, from descriptor 3 on.
    ///
    /// # Errors
    /// Whatever stopped it so far: no such command in the container (126 or 127 by kind) among others.
    pub fn start(launch: &Launch, init: BorrowedFd<'_>, preserved: Vec<OwnedFd>) -> Result<(Joined, Streams), Failure> {
        let (mut joiner_channel, joiner_end) = channel::pair(JOINER_STEPS, Stage::Supervisor, Stage::Joiner)?;
        let (channel, end) = channel::pair(JOINED_STEPS, Stage::Supervisor, Stage::Joiner)?;
        let (mut streams, child_streams) = streams(launch)?;
        let fork = sys::clone_stage(0).at("join", "start a process for", &launch.name)?;
        let (joiner, joiner_fd) = match fork {
            Fork::Child => {
                drop((joiner_channel, channel, streams));
                run(Ends { launch, init, channel: joiner_end, command: end, streams: child_streams, preserved })
            }
            Fork::Parent { pid, pidfd } => (pid, pidfd),
        };
        drop((joiner_end, end, child_streams, preserved));
        let forked = joiner_channel.expect(Step::JoinerReady).and_then(|terminal| {
            streams.terminal = terminal;
            joiner_channel.expect(Step::JoinerForked)
        });
        // Gone before the command runs: it would count as one more process of the container.
        reap(joiner, &joiner_fd, forked.is_err())?;
        let Some(pidfd) = forked? else { return Err(lost()) };
        Ok((Joined { pidfd, channel: Some(channel) }, streams))
    }

    /// Lets the command go, and returns when it runs.
    ///
    /// # Errors
    /// 126 or 127 by kind when it cannot be executed.
    pub fn proceed(&mut self) -> Result<(), Failure> {
        let Some(mut channel) = self.channel.take() else { return Err(lost()) };
        channel.reached(Step::ParentProceed, None)?;
        match channel.receive(channel::STEP_DEADLINE)? {
            // Close-on-exec: end of file means the program was executed, or that the process was killed before.
            Received::EndOfFile => Ok(()),
            Received::Message(Message::Failed(failure), _) => Err(*failure),
            Received::Message(other, _) => {
                Err(failed(Kind::Internal, "protocol", "talk to", "joiner stage", format!("unexpected {other:?}")))
            }
        }
    }

    /// Readable when the command has ended.
    #[must_use]
    pub fn ended(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// The exit code once it has ended, 128+n for signal n. For its parent alone.
    ///
    /// # Errors
    /// As `waitid(2)`.
    pub fn exit_code(&self) -> Result<u8, Failure> {
        exit_code(&self.pidfd).at("wait", "wait for", "the command")
    }

    /// Kills it and what it has started, but for what has left its process group.
    ///
    /// # Errors
    /// As `kill(2)`.
    pub fn kill_group(&self) -> Result<(), Failure> {
        // The line `Pid:` of a pidfd (proc_pid_fdinfo(5)). It is the leader of its session, and nobody else reaps it.
        let path = format!("/proc/self/fdinfo/{}", self.pidfd.as_raw_fd());
        let text = std::fs::read_to_string(&path).at("signal", "read", &path)?;
        let pid = text.lines().find_map(|l| l.strip_prefix("Pid:")?.trim().parse().ok()).and_then(Pid::from_raw);
        match pid.map_or(Ok(()), |pid| kill_process_group(pid, Signal::KILL)) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(errno) => Err(errno).at("signal", "kill", "the command"),
        }
    }

    /// Sends it a signal; one that is gone already is no error.
    ///
    /// # Errors
    /// As `pidfd_send_signal(2)`.
    pub fn signal(&self, signal: Signal) -> Result<(), Failure> {
        match pidfd_send_signal(&self.pidfd, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(errno) => Err(errno).at("signal", "send a signal to", "the command"),
        }
    }
}

fn lost() -> Failure {
    failed(Kind::Internal, "protocol", "talk to", "joiner stage", "the steps were called out of order")
}

fn reap(joiner: Pid, pidfd: &OwnedFd, kill: bool) -> Result<(), Failure> {
    if kill && pidfd_send_signal(pidfd, Signal::KILL).is_err() {
        // It ended by itself.
    }
    waitpid(Some(joiner), WaitOptions::empty()).map(drop).at("wait", "wait for", "the joiner")
}

/// Exactly what the joiner owns.
struct Ends<'a> {
    launch: &'a Launch,
    init: BorrowedFd<'a>,
    channel: Channel,
    /// Goes on to the command's process.
    command: Channel,
    streams: ChildStreams,
    preserved: Vec<OwnedFd>,
}

fn run(ends: Ends<'_>) -> ! {
    // A copy stays here for the one message about a failure.
    let told = rustix::io::fcntl_dupfd_cloexec(&ends.channel, 3);
    let failure = match told {
        Ok(socket) => {
            let channel = Channel::inherited(socket, JOINER_STEPS, Stage::Supervisor);
            let Err(failure) = join(ends, channel.as_fd().as_raw_fd());
            if channel
                .send(&Message::Failed(Box::new(Failure { stage: Stage::Joiner, ..failure.clone() })), None)
                .is_err()
            {
                // Nobody is left to be told.
            }
            failure
        }
        Err(_) => lost(),
    };
    sys::exit_now(failure.kind.exit_code())
}

fn join(ends: Ends<'_>, told: i32) -> Result<Infallible, Failure> {
    let Ends { launch, init, mut channel, command, streams, preserved } = ends;
    set_parent_process_death_signal(Some(Signal::KILL)).at("join", "tie to", "the supervisor's life")?;
    rustix::thread::set_name(c"rlrun:joiner").at("join", "name", "the joiner")?;
    let streams_kept = [&streams.stdin, &streams.stdout, &streams.stderr].into_iter().flatten().map(AsRawFd::as_raw_fd);
    let mut keep: Vec<i32> = preserved.iter().map(AsRawFd::as_raw_fd).chain(streams_kept).collect();
    keep.extend([init.as_raw_fd(), channel.as_fd().as_raw_fd(), command.as_fd().as_raw_fd(), told]);
    // Nothing else of the supervisor's goes near the container.
    sys::close_others(&keep).at("join", "close", "the supervisor's descriptors")?;
    // Through the host's /proc and while this process is dumpable: its files are root's afterwards (proc(5)).
    confine::oom_score(launch)?;
    hide()?;
    cgroup::join(launch)?;
    enter(launch, init)?;
    userns::become_root(&launch.facts.id_maps, userns::Groups::of(&launch.process))?;
    hide()?;
    rustix::process::umask(Mode::from_raw_mode(launch.process.umask & 0o777));
    let master = attach(launch, streams)?;
    let program = payload::find(&launch.process)?;
    channel.reached(Step::JoinerReady, master.as_ref().map(AsFd::as_fd))?;
    drop(master);
    let command = out_of_the_way(command, launch.process.preserved)?;
    launch::place_preserved(preserved)?;
    confine::apply_before_fork(launch)?;
    hide()?;
    match sys::clone_sibling().at("join", "start the command in", &launch.name).map_err(explain)? {
        Fork::Child => become_command(launch, &program, command),
        Fork::Parent { pidfd, .. } => {
            channel.reached(Step::JoinerForked, Some(pidfd.as_fd()))?;
            sys::exit_now(0)
        }
    }
}

/// Out of reach for everybody but the host's root and this user outside: `ptrace(2)`, `/proc/PID/{mem,exe,fd,root}`. A
/// change of ids may undo it where fs.suid_dumpable says so, therefore after each.
fn hide() -> Result<(), Failure> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable).at("join", "hide", "the joiner")
}

fn explain(failure: Failure) -> Failure {
    match failure.errno {
        Some(errno) if errno.0 == libc::EAGAIN => {
            failure.hint("the container has as many processes as --pids-limit allows")
        }
        _ => failure,
    }
}

/// All namespaces of the container's pid 1 at once; its pid namespace is that of children only.
fn enter(launch: &Launch, init: BorrowedFd<'_>) -> Result<(), Failure> {
    let own = launch.namespaces;
    let mut flags = CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID;
    let others = [
        (own.net, CloneFlags::CLONE_NEWNET),
        (own.ipc, CloneFlags::CLONE_NEWIPC),
        (own.uts, CloneFlags::CLONE_NEWUTS),
        (own.cgroup, CloneFlags::CLONE_NEWCGROUP),
    ];
    flags.extend(others.into_iter().filter(|(own, _)| *own).map(|(_, flag)| flag));
    // A pidfd for all of them needs 5.8 (setns(2)).
    setns(init, flags).map_err(std::io::Error::from).at("join", "enter the namespaces of", &launch.name)
}

/// Puts the streams where the command expects them; returns the terminal's master, if it has one.
fn attach(launch: &Launch, streams: ChildStreams) -> Result<Option<OwnedFd>, Failure> {
    let process = &launch.process;
    if process.terminal {
        let (master, slave) = terminal::pair(process)?;
        terminal::attach(&slave)?;
        return Ok(Some(master));
    }
    let stdin = match streams.stdin {
        Some(fd) => fd,
        None => nothing()?,
    };
    terminal::give_to(&stdin, process);
    rustix::stdio::dup2_stdin(&stdin).at("streams", "attach", "standard input")?;
    if let (Some(stdout), Some(stderr)) = (&streams.stdout, &streams.stderr) {
        terminal::give_to(stdout, process);
        terminal::give_to(stderr, process);
        rustix::stdio::dup2_stdout(stdout).at("streams", "attach", "standard output")?;
        rustix::stdio::dup2_stderr(stderr).at("streams", "attach", "standard error")?;
    }
    Ok(None)
}

/// The container's /dev/null if that is what it has there, else a pipe that nobody writes to.
fn nothing() -> Result<OwnedFd, Failure> {
    // Null is 1:3 on every Linux (null(4)). What root inside has put in its place must not keep us waiting.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    if let Ok(null) = openat(CWD, "/dev/null", flags, Mode::empty())
        && fstat(&null).is_ok_and(|stat| {
            FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == libc::makedev(1, 3)
        })
    {
        return Ok(null);
    }
    let (read, _) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).at("streams", "create", "a pipe")?;
    Ok(read)
}

/// The command's channel above the descriptors that are placed.
fn out_of_the_way(command: Channel, preserved: u32) -> Result<Channel, Failure> {
    if preserved == 0 {
        return Ok(command);
    }
    let moved = launch::above_preserved(command.as_fd(), preserved)?;
    // The old number may be overwritten, so its owner must not close it.
    std::mem::forget(command);
    Ok(Channel::inherited(moved, JOINED_STEPS, Stage::Supervisor))
}

/// In the container's pid namespace: waits for the word, installs the filter, executes.
fn become_command(launch: &Launch, program: &std::ffi::CString, mut channel: Channel) -> ! {
    let result = (|| {
        rustix::process::setsid().map(drop).at("session", "start", "a session")?;
        if launch.process.terminal {
            rustix::process::ioctl_tiocsctty(rustix::stdio::stdin()).at("terminal", "control", "the terminal")?;
        }
        channel.expect(Step::ParentProceed)?;
        payload::join(launch, program)
    })();
    let Err(failure) = result;
    let failure = Failure { stage: Stage::Joiner, ..failure };
    let code = failure.kind.exit_code();
    if channel.send(&Message::Failed(Box::new(failure)), None).is_err() {
        // A custom filter may forbid even this; the exit code still says it.
    }
    sys::exit_now(code)
}
