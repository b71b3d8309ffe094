//! Networks for a container without root: slirp4netns(1), loopback only, or the host's.
//!
//! A network has two sides. The *parent side* ([`start`], [`Driver`]) runs in the supervisor, as an ordinary user in
//! the host's namespaces, and owns the helper process. The *child side* ([`inside::configure`]) runs in the new network
//! namespace while its process still has every capability there. Neither side waits for the other, so a slow helper
//! overlaps with the mounts. No threads, no runtime, no external `ip` or `nft`.
//!
//! How the engine prepares it, before the verdict:
//! 1. [`ports::parse`] each `-p`, then [`ports::resolve`] all of them: free host ports are chosen, busy ones refused.
//! 2. [`files::resolv_conf`] and [`files::hosts`] make the two files of the plan.
//! 3. [`inside::check`] refuses egress rules that no kernel could enforce.
//!
//! How the supervisor runs it:
//! 1. Clone the stage that owns the namespaces and write its id maps. The maps come first: slirp4netns makes
//!    directories in a tmpfs of that user namespace, which fails with EOVERFLOW without them. The stage comes before
//!    the helper because the stage must not inherit the pipe whose closing ends the helper.
//! 2. [`start`] with the pid of the stage, which must be dumpable (its `/proc/PID/ns` is opened) and alive until step 4.
//!    `None` means there is nothing to wait for.
//! 3. Meanwhile the stage calls [`inside::configure`] and mounts its root file system. Host `/proc` must still be
//!    visible, because sysctls are written there.
//! 4. Poll [`Driver::ready_fd`] with everything else. Readable or hung up: call [`Driver::finish_ready`], which publishes
//!    the ports, or says why the helper died. Then let the payload start.
//! 5. While the container runs, poll [`Driver::death_fd`] *with no events requested*; POLLERR means the helper is gone.
//!    [`Driver::post_mortem`] says why. Do not reap the helper with `waitpid(-1)`; wait for known pids.
//! 6. When the payload has ended, [`Driver::release`]: the ports are free at once and the helper is killed. It takes the
//!    kernel some 25 ms to take the tap device apart, in which the helper cannot be reaped; nobody has to wait for that.
//!    [`Driver::stop`] does wait: for errors during the start, and for a supervisor that lives on.
//!    A supervisor that is killed closes the pipe that the helper watches, so the helper never outlives it.

pub mod files;
pub mod inside;
pub mod ports;
pub mod slirp;

mod cidr;
mod error;
mod helper;

pub use error::NetError;

use nix::unistd::Pid;
use rlrun_spec::container::NetworkMode;
use rlrun_spec::plan::Launch;
use std::os::fd::BorrowedFd;
use std::path::Path;

/// A helper process beside the container, from its start to its end. Dropping one kills the helper.
pub trait Driver {
    /// Readable or hung up when [`Driver::finish_ready`] would not block.
    fn ready_fd(&self) -> BorrowedFd<'_>;

    /// Takes the helper's word that the network is up, then publishes the ports.
    ///
    /// # Errors
    /// When the helper died or a port cannot be published; the helper is to be stopped then.
    fn finish_ready(&mut self) -> Result<(), NetError>;

    /// Polled with no events requested, it reports POLLERR once the helper is gone.
    fn death_fd(&self) -> Option<BorrowedFd<'_>>;

    /// Why the helper died; for a helper that [`Driver::death_fd`] reported.
    fn post_mortem(&mut self) -> NetError;

    /// Process id of the helper.
    fn pid(&self) -> Pid;

    /// Ends the helper without waiting for its last breath: its ports are free and its socket is removed on return, its
    /// end is certain, and init reaps it. Where init has shown that it does not, the end is waited for.
    ///
    /// # Errors
    /// When something is left behind.
    fn release(self: Box<Self>) -> Result<(), NetError>;

    /// Ends the helper: asked first, killed when it does not listen; always reaped, its socket removed.
    ///
    /// # Errors
    /// When something is left behind.
    fn stop(self: Box<Self>) -> Result<(), NetError>;
}

/// Starts the helper that the network of `launch` needs, for the user and network namespaces of the process `stage`, and
/// returns without waiting for it; `None` when it needs none.
/// `socket_dir` is a directory of the host user that nobody else can enter; only published ports put a socket there.
///
/// # Errors
/// When the helper is missing or cannot be started.
pub fn start(launch: &Launch, stage: Pid, socket_dir: &Path) -> Result<Option<Box<dyn Driver>>, NetError> {
    match launch.network {
        NetworkMode::None | NetworkMode::Host => Ok(None),
        NetworkMode::Slirp4netns => {
            let Some(plan) = &launch.facts.slirp else {
                return Err(NetError::Unsupported {
                    what: "slirp4netns".to_owned(),
                    why: "the plan asks for it and does not say how to start it".to_owned(),
                    hint: None,
                });
            };
            let running = slirp::start(plan, stage, &launch.ports, socket_dir)?;
            Ok(Some(Box::new(running)))
        }
    }
}
