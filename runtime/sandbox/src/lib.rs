//! From a sealed plan to a confined process.
//!
//! Three processes set a container up (`rlrun_spec::protocol` has the picture): the supervisor on the host, the
//! mapper (pid 1 of an outer pid namespace, out of the container's reach) and init (pid 1 of the container). The last
//! two run from a read-only clone of the mount of the supervisor binary, so that nothing inside can write the file on
//! disk (CVE-2019-5736). Nothing here decides anything: what is done stands in the plan.

mod apart;
mod at;
mod cgroup;
mod channel;
mod confine;
pub mod console;
mod container;
pub mod control;
mod copy_up;
mod disk;
mod idmap;
mod image_mount;
mod init;
mod join;
mod launch;
mod layered;
mod limiter;
mod mapper;
mod memfd;
mod mounts;
mod nested;
mod payload;
mod resting;
mod rootfs;
mod scheduling;
#[cfg(feature = "seccomp-compile")]
pub mod seccomp;
mod secrets;
pub mod sys;
mod terminal;
mod trace;
mod tree;
mod userns;
mod volume;

pub use apart::{Apart, apart};
pub use container::{Container, Heard, Streams};
pub use image_mount::mount_image;
pub use join::{Joined, exit_code};
pub use launch::{
    CONNECTION_FD, CONSOLE_FD, INIT_FD, Joining, LOCK_FD, PLAN_FD, PRESERVED_FD, READY_FD, Role, replace_self,
    replace_self_accompanying, replace_self_attaching, replace_self_joining, role, start_detached,
    start_detached_joining, start_held, tell,
};
pub use mapper::{NetworkHook, run as run_mapper};
pub use memfd::sealed;
pub use resting::{Resting, close as close_resting, open as open_resting, open_changes as open_resting_changes};
pub use rootfs::mount_point;
pub use trace::{Trace, now};
pub use tree::remove_contents;
pub use userns::{Lent, MappedChild, MappedProgram, become_mapped, run_mapped};
