//! Every `unsafe` block of rlrun's own process handling. The functions here are safe to call: they take and return
//! owned types and keep the kernel's errno.
#![allow(unsafe_code, reason = "the one place for system calls that no safe library wraps")]

mod exec;
mod process;

pub use exec::{CStrings, Program, exec};
pub use process::{
    Clone, Fork, become_idle, clone_sibling, clone_stage, close_from, close_others, default_signal_actions, exit_now,
    forget_program_pages, ignore_stopped_children, install_seccomp, join_new_session_keyring, mark_cloexec_from,
    place_fd, send_signal, set_mount_attributes, set_personality, share_memory, take_inherited, unshare,
};

fn last() -> rustix::io::Errno {
    rustix::io::Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(rustix::io::Errno::IO)
}

fn check(result: libc::c_long) -> rustix::io::Result<libc::c_long> {
    if result == -1 { Err(last()) } else { Ok(result) }
}
