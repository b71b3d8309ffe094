//! Processes, namespaces, descriptors and filters.

use super::{check, last};
use rustix::io::{Errno, Result};
use rustix::process::Pid;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};

/// Namespaces and the like for [`clone_stage`] and [`unshare`]: `CLONE_NEW*` bits.
pub type Clone = libc::c_int;

/// Which side of [`clone_stage`] this is.
pub enum Fork {
    /// The new process.
    Child,
    /// The old one.
    Parent {
        /// The new process, in this process's pid namespace.
        pid: Pid,
        /// A descriptor for it that no other process can take over (`pidfd_open(2)`).
        pidfd: OwnedFd,
    },
}

/// Forks into new namespaces.
///
/// # Errors
/// `EINVAL` when this process has a second thread, because a child forked then may not allocate; otherwise what
/// `clone3(2)` says (5.3 for `CLONE_PIDFD` with clone3).
pub fn clone_stage(namespaces: Clone) -> Result<Fork> {
    if threads()? != 1 {
        return Err(Errno::INVAL);
    }
    let mut pidfd: RawFd = -1;
    // SAFETY: all fields of clone_args are integers, for which zero is valid.
    let mut args: libc::clone_args = unsafe { mem::zeroed() };
    args.flags = u64::from((namespaces | libc::CLONE_PIDFD).cast_unsigned());
    args.pidfd = (&raw mut pidfd).expose_provenance() as u64;
    args.exit_signal = u64::from(libc::SIGCHLD.cast_unsigned());
    // SAFETY: `args` and `pidfd` live across the call and the size is that of `args`. A null stack without CLONE_VM
    // means fork semantics: the child has its own copy of this single-threaded process, in which no lock is held.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, mem::size_of::<libc::clone_args>()) };
    if check(pid)? == 0 {
        return Ok(Fork::Child);
    }
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(Errno::OVERFLOW)?;
    // SAFETY: on success with CLONE_PIDFD the kernel stored a new descriptor there that nothing else owns.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Fork::Parent { pid, pidfd })
}

/// Forks a sibling: a child of this process's parent, in the pid namespace that `setns(2)` has chosen for children.
///
/// # Errors
/// As `clone(2)`. Call it in a process that [`clone_stage`] made, which has one thread.
pub fn clone_sibling() -> Result<Fork> {
    let mut pidfd: libc::c_int = -1;
    // clone and not clone3: a filter that is on already may know only the former.
    let flags = libc::CLONE_PARENT | libc::CLONE_PIDFD | libc::SIGCHLD;
    // SAFETY: a null stack without CLONE_VM means fork semantics: the child has its own copy of this single-threaded
    // process. `pidfd` lives across the call; the kernel stores the descriptor there (clone(2), CLONE_PIDFD).
    let pid =
        unsafe { libc::syscall(libc::SYS_clone, libc::c_long::from(flags), 0_usize, &raw mut pidfd, 0_usize, 0_usize) };
    if check(pid)? == 0 {
        return Ok(Fork::Child);
    }
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(Errno::OVERFLOW)?;
    // SAFETY: on success with CLONE_PIDFD the kernel stored a new descriptor there that nothing else owns.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Fork::Parent { pid, pidfd })
}

/// Threads of this process, from the link count of /proc/self/task (`proc_pid_task(5)`).
fn threads() -> Result<u64> {
    let task = rustix::fs::stat("/proc/self/task")?;
    Ok(task.st_nlink.saturating_sub(2))
}

/// `unshare(2)` of this single-threaded process.
///
/// # Errors
/// As `unshare(2)`; `EINVAL` for a user namespace means a second thread exists, not a bad flag.
pub fn unshare(namespaces: Clone) -> Result<()> {
    // SAFETY: no CLONE_FILES or CLONE_FS semantics that another thread could observe: callers are single-threaded.
    check(libc::c_long::from(unsafe { libc::unshare(namespaces) })).map(drop)
}

/// Ends this process at once, without the exit handlers that a forked child inherited from its parent.
pub fn exit_now(code: u8) -> ! {
    // SAFETY: _exit(2) has no preconditions and does not return.
    unsafe { libc::_exit(i32::from(code)) }
}

/// Sets and clears mount attributes and propagation of the mount at `fd` (`mount_setattr(2)`, 5.12).
///
/// # Errors
/// As `mount_setattr(2)`.
pub fn set_mount_attributes(fd: BorrowedFd<'_>, set: u64, propagation: u64, recursive: bool) -> Result<()> {
    let attributes = libc::mount_attr { attr_set: set, attr_clr: 0, propagation, userns_fd: 0 };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is an empty nul-terminated string, `attributes` lives across the call and its size is given.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attributes,
            mem::size_of::<libc::mount_attr>(),
        )
    })
    .map(drop)
}

/// Installs a compiled filter, an array of `struct sock_filter` (`seccomp(2)`).
///
/// # Errors
/// `EINVAL` when the bytes are not a filter; `EACCES` without no_new_privs and CAP_SYS_ADMIN.
pub fn install_seccomp(filter: &[u8]) -> Result<()> {
    let instructions: Vec<libc::sock_filter> = filter
        .chunks_exact(mem::size_of::<libc::sock_filter>())
        .map(|c| libc::sock_filter {
            code: u16::from_ne_bytes([c[0], c[1]]),
            jt: c[2],
            jf: c[3],
            k: u32::from_ne_bytes([c[4], c[5], c[6], c[7]]),
        })
        .collect();
    let len = u16::try_from(instructions.len()).map_err(|_| Errno::INVAL)?;
    let program = libc::sock_fprog { len, filter: instructions.as_ptr().cast_mut() };
    // SAFETY: `program` points to `len` initialised instructions that live across the call; the kernel copies them.
    check(unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) }).map(drop)
}

/// Leaves the caller's session keyring for a new, empty one (`keyctl_join_session_keyring(3)`).
///
/// # Errors
/// `ENOSYS` on a kernel without keyrings.
pub fn join_new_session_keyring() -> Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_int = 1;
    // SAFETY: a null name asks for an anonymous keyring; no memory is passed.
    check(unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, std::ptr::null::<libc::c_char>()) })
        .map(drop)
}

/// Marks every descriptor from `first` on as close-on-exec (`close_range(2)`, flag since 5.11).
///
/// # Errors
/// As `close_range(2)`.
pub fn mark_cloexec_from(first: u32) -> Result<()> {
    // SAFETY: no descriptor is closed, only a flag is set; Rust's ownership of descriptors is not affected.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) }).map(drop)
}

/// Moves `fd` to the number `to`, where the next program expects it; not close-on-exec there.
///
/// # Errors
/// As `dup2(2)`.
pub fn place_fd(fd: OwnedFd, to: RawFd) -> Result<()> {
    if fd.as_raw_fd() == to {
        rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::empty())?;
        // The number is the contract now; whoever is executed next owns it.
        let _number = fd.into_raw_fd();
        return Ok(());
    }
    // SAFETY: `to` is one of the fixed numbers of the launch contract. Whatever was open there belongs to this
    // process image, which is about to be replaced.
    if unsafe { libc::dup2(fd.as_raw_fd(), to) } == -1 { Err(last()) } else { Ok(()) }
}

/// Takes over descriptor `number`, which the launch contract says was inherited. Call once a number.
///
/// # Errors
/// `EBADF` when nothing is open there.
pub fn take_inherited(number: RawFd) -> Result<OwnedFd> {
    // SAFETY: fcntl(2) on any number is harmless.
    if unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } == -1 {
        return Err(last());
    }
    // SAFETY: it is open (checked above) and, by the contract, inherited for this process alone; the caller takes
    // each number once, before anything else opens descriptors.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Closes every descriptor from `first` on, for a process that goes on without any (`close_range(2)`, 5.9).
///
/// # Errors
/// As `close_range(2)`.
pub fn close_from(first: u32) -> Result<()> {
    // SAFETY: the caller is a stage that ends with _exit(2) and owns nothing any more that would close these again
    // or use them: the built-in init, which only waits and signals.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) }).map(drop)
}

/// Closes every descriptor from 3 on but these, in a forked process that goes on with nothing else of its parent's.
///
/// # Errors
/// As `close_range(2)`.
pub fn close_others(keep: &[RawFd]) -> Result<()> {
    let mut keep: Vec<u32> = keep.iter().filter_map(|fd| u32::try_from(*fd).ok()).filter(|fd| *fd >= 3).collect();
    keep.sort_unstable();
    let mut first = 3;
    for end in keep.into_iter().map(Some).chain([None]) {
        let last = end.map_or(u32::MAX, |fd| fd.saturating_sub(1));
        if first <= last {
            // SAFETY: the caller is a forked stage that never returns to the owners of the descriptors it inherited,
            // so nothing closes these again or uses them.
            check(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) })?;
        }
        first = end.map_or(u32::MAX, |fd| fd.saturating_add(1));
    }
    Ok(())
}

/// Changes the execution domain of this process and of what it executes (`personality(2)`).
///
/// # Errors
/// As `personality(2)`.
pub fn set_personality(domain: u32) -> Result<()> {
    // SAFETY: personality(2) takes a number only.
    check(libc::c_long::from(unsafe { libc::personality(libc::c_ulong::from(domain)) })).map(drop)
}

/// Runs this process only when nothing else wants its CPU (`SCHED_IDLE`, `sched(7)`).
///
/// # Errors
/// As `sched_setscheduler(2)`.
pub fn become_idle() -> Result<()> {
    // The kernel's `sched_param`. musl has a larger one, and refuses the call because POSIX means whole processes.
    let priority: libc::c_int = 0;
    // SAFETY: `priority` lives across the call, and pid 0 is the caller itself.
    check(unsafe { libc::syscall(libc::SYS_sched_setscheduler, 0, libc::SCHED_IDLE, &raw const priority) }).map(drop)
}

/// Gives every signal its default action, as a new program expects, whatever this process ignores (`signal(7)`).
pub fn default_signal_actions() {
    for signal in 1..=libc::SIGRTMAX() {
        // SAFETY: SIG_DFL installs no handler; numbers that cannot be changed (KILL, STOP, libc's own) are refused
        // with EINVAL, which is what is wanted for them.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

/// SIGCHLD comes for children that ended and not for those that were stopped or continued (`sigaction(2)`).
///
/// # Errors
/// As `sigaction(2)`.
pub fn ignore_stopped_children() -> Result<()> {
    // SAFETY: all fields of sigaction are integers, pointers or sets, for which zero is valid; it means SIG_DFL.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    action.sa_flags = libc::SA_NOCLDSTOP;
    // SAFETY: `action` lives across the call and installs no handler; the old action is not asked for.
    check(libc::c_long::from(unsafe { libc::sigaction(libc::SIGCHLD, &raw const action, std::ptr::null_mut()) }))
        .map(drop)
}

/// Whether two processes are one as far as memory goes, as after `vfork(2)`; false where the kernel does not tell
/// (`kcmp(2)`, `CONFIG_KCMP`).
#[must_use]
pub fn share_memory(one: i32, other: i32) -> bool {
    const KCMP_VM: libc::c_int = 1;
    // SAFETY: kcmp(2) with KCMP_VM takes numbers only.
    unsafe { libc::syscall(libc::SYS_kcmp, one, other, KCMP_VM, 0, 0) == 0 }
}

/// Lets go of the pages of this program's own code and constants; what is used again comes back from the page cache.
/// For a process that has done its work and waits: start-up code is most of what it has touched.
///
/// # Errors
/// As `madvise(2)`.
pub fn forget_program_pages() -> Result<()> {
    unsafe extern "C" {
        // The linker's names for the ends of the program's read-only segments (ld(1), "Symbols").
        static __executable_start: u8;
        static etext: u8;
    }
    let page = rustix::param::page_size();
    let start = (&raw const __executable_start).addr() & !(page - 1);
    let end = (&raw const etext).addr() & !(page - 1);
    let length = end.saturating_sub(start);
    // SAFETY: the range covers whole pages of this program's own file mapping, which is private and was never
    // written (read-only since execve; a static program without relocations), so dropped pages read back the same.
    check(libc::c_long::from(unsafe {
        libc::madvise(std::ptr::with_exposed_provenance_mut(start), length, libc::MADV_DONTNEED)
    }))
    .map(drop)
}

/// Sends any signal, real-time ones among them (`pidfd_send_signal(2)`, 5.1).
///
/// # Errors
/// `ESRCH` when the process has ended, `EINVAL` for a number that is no signal.
pub fn send_signal(process: BorrowedFd<'_>, signal: i32) -> Result<()> {
    let info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: a null siginfo asks for what kill(2) sends; no memory is passed.
    check(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, process.as_raw_fd(), signal, info, 0) }).map(drop)
}
