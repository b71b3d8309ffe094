//! The parent side of slirp4netns(1): start it beside the namespaces, wait until it is ready, publish ports through its
//! API socket, end it. It configures the tap device itself; that costs it no measurable time, and a second round trip
//! would cost the start more.

mod api;

use crate::error::NetError;
use crate::helper::{Ends, Helper};
use crate::{Driver, ports};
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use nix::unistd::Pid;
use rlrun_spec::container::PortMapping;
use rlrun_spec::plan::Slirp;
use std::ffi::OsString;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// The container's address, the network being slirp4netns' default, 10.0.2.0/24.
pub const ADDRESS: std::net::Ipv4Addr = std::net::Ipv4Addr::new(10, 0, 2, 100);
/// The resolver that slirp4netns offers inside and forwards to the host's.
pub const DNS: std::net::Ipv4Addr = std::net::Ipv4Addr::new(10, 0, 2, 3);
/// The device inside.
pub const DEVICE: &str = "tap0";

const SOCKET: &str = "slirp.sock";

/// A running slirp4netns.
#[derive(Debug)]
pub struct Running {
    helper: Helper,
    ports: Vec<PortMapping>,
    /// The numbers under which slirp4netns knows the ports it has published.
    published: Vec<u32>,
    socket: Option<ApiSocket>,
}

/// The API socket, reached through its directory's descriptor: a path of a container's directory may be longer than the
/// 107 bytes that fit in `sun_path` (unix(7)).
#[derive(Debug)]
struct ApiSocket {
    directory: OwnedFd,
}

impl ApiSocket {
    fn in_directory(directory: &Path) -> Result<Self, NetError> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let directory = nix::fcntl::open(directory, flags, Mode::empty()).map_err(|errno| {
            NetError::system(
                "slirp-start",
                "open the directory of the API socket",
                directory.display().to_string(),
                errno,
            )
        })?;
        Ok(ApiSocket { directory })
    }

    fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", self.directory.as_raw_fd()))
    }

    fn remove(&self) -> Result<(), NetError> {
        match nix::unistd::unlinkat(&self.directory, SOCKET, nix::unistd::UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(nix::errno::Errno::ENOENT) => Ok(()),
            Err(errno) => Err(NetError::system("slirp-stop", "remove the API socket", SOCKET, errno)),
        }
    }
}

impl Drop for ApiSocket {
    fn drop(&mut self) {
        // `stop` reports what goes wrong here; other ways out have an error to tell already.
        self.remove().ok();
    }
}

/// Starts slirp4netns for the namespaces of the process `stage` and returns without waiting for it. A socket appears in
/// `socket_dir` only when there are `ports`.
///
/// # Errors
/// When slirp4netns is not there or cannot be started.
pub fn start(plan: &Slirp, stage: Pid, ports: &[PortMapping], socket_dir: &Path) -> Result<Running, NetError> {
    let socket = if ports.is_empty() { None } else { Some(ApiSocket::in_directory(socket_dir)?) };
    if let Some(socket) = &socket {
        // One that a killed supervisor left would make bind fail with EADDRINUSE.
        socket.remove()?;
    }
    let directory = if socket.is_some() { socket_dir } else { Path::new("/") };
    let helper = Helper::spawn(&plan.binary, directory, |ends| arguments(plan, stage, socket.is_some(), &ends))?;
    Ok(Running { helper, ports: ports.to_vec(), published: Vec::new(), socket })
}

fn arguments(plan: &Slirp, stage: Pid, api: bool, ends: &Ends) -> Vec<OsString> {
    let mut args: Vec<OsString> = vec![
        "--configure".into(),
        format!("--mtu={}", plan.mtu).into(),
        "--disable-host-loopback".into(),
        "--enable-sandbox".into(),
        "--enable-seccomp".into(),
        format!("--ready-fd={}", ends.ready).into(),
        format!("--exit-fd={}", ends.exit).into(),
    ];
    if plan.ipv6 {
        args.push("--enable-ipv6".into());
    }
    if api {
        // Relative to its working directory, for the reason given at ApiSocket; bound before it enters its sandbox.
        args.push(format!("--api-socket={SOCKET}").into());
    }
    // By process, not by path: with --enable-sandbox and paths, 1.2.0 never enters the user namespace and gives up.
    args.extend([stage.to_string().into(), DEVICE.into()]);
    args
}

impl Running {
    fn autopsy(&mut self, ready: bool) -> NetError {
        let (status, log) = self.helper.autopsy();
        diagnose(self.helper.binary(), ready, status, log)
    }

    fn publish(&mut self) -> Result<(), NetError> {
        let Some(socket) = &self.socket else { return Ok(()) };
        let path = socket.path();
        for mapping in &self.ports {
            match api::add_hostfwd(&path, mapping)? {
                api::Answer::Added(id) => self.published.push(id),
                api::Answer::Refused(why) => {
                    // It tells no errno, so ask the kernel what binding that port says.
                    let unexplained = NetError::Protocol { peer: "slirp4netns", answer: why };
                    return Err(ports::try_bind(mapping).err().unwrap_or(unexplained));
                }
            }
        }
        Ok(())
    }

    fn withdraw(&self) -> Result<(), NetError> {
        let Some(socket) = &self.socket else { return Ok(()) };
        let path = socket.path();
        self.published.iter().try_for_each(|&id| api::remove_hostfwd(&path, id))
    }
}

impl Driver for Running {
    fn ready_fd(&self) -> BorrowedFd<'_> {
        self.helper.ready_fd()
    }

    fn finish_ready(&mut self) -> Result<(), NetError> {
        if self.helper.read_ready()? { self.publish() } else { Err(self.autopsy(false)) }
    }

    fn death_fd(&self) -> Option<BorrowedFd<'_>> {
        self.helper.death_fd()
    }

    fn post_mortem(&mut self) -> NetError {
        self.autopsy(true)
    }

    fn pid(&self) -> Pid {
        self.helper.pid()
    }

    fn release(self: Box<Self>) -> Result<(), NetError> {
        if self.withdraw().is_err() {
            // It is stuck or dead; only its end frees the ports.
            return self.stop();
        }
        let Running { helper, socket, .. } = *self;
        let removed = socket.as_ref().map_or(Ok(()), ApiSocket::remove);
        helper.release().and(removed)
    }

    fn stop(mut self: Box<Self>) -> Result<(), NetError> {
        let stopped = self.helper.stop();
        let removed = self.socket.as_ref().map_or(Ok(()), ApiSocket::remove);
        stopped.and(removed)
    }
}

/// The cause behind a dead slirp4netns. Asked after the fact: a start that works pays for no probing.
fn diagnose(binary: &Path, ready: bool, status: String, log: String) -> NetError {
    if let Some((_, option)) = log.split_once("unrecognized option '") {
        let option = option.split('\'').next().unwrap_or_default().to_owned();
        return NetError::HelperTooOld { binary: binary.to_owned(), option };
    }
    let flags = OFlag::O_RDWR | OFlag::O_CLOEXEC;
    match nix::fcntl::open("/dev/net/tun", flags, Mode::empty()) {
        Err(errno) => NetError::Tun { errno: errno as i32 },
        Ok(_) => NetError::HelperDied { binary: binary.to_owned(), ready, status, log },
    }
}
