//! `--console-socket`: whoever calls an OCI runtime listens on a socket, and is sent the master of the container's
//! terminal there (the convention of runc's `docs/terminals.md`).

use crate::at::At;
use rlrun_spec::Failure;
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::{Errno, IoSlice, ioctl_fionbio, retry_on_intr};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
    connect as connect_to, sendmsg, socket_with,
};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::Path;

const STEP: &str = "console-socket";
/// The message that carries the descriptor: whoever reads it takes it for the terminal's name.
const NAME: &[u8] = b"/dev/ptmx";

/// Connects to the caller's socket.
///
/// # Errors
/// When nobody listens there.
pub fn connect(path: &Path) -> Result<OwnedFd, Failure> {
    let make = || -> Result<OwnedFd, Errno> {
        // The path itself may be longer than the 107 bytes that an address holds (unix(7)).
        let file = openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        let address = SocketAddrUnix::new(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
        retry_on_intr(|| connect_to(&socket, &address))?;
        Ok(socket)
    };
    make().at(STEP, "connect to the console socket", path.display().to_string()).map_err(|failure: Failure| {
        failure.hint("--console-socket names a socket on which somebody listens for the terminal")
    })
}

/// Sends the master of a terminal.
///
/// # Errors
/// When whoever listened is gone.
pub fn send(socket: &OwnedFd, master: &OwnedFd) -> Result<(), Failure> {
    // Nobody here waits for it any more.
    ioctl_fionbio(master, false).at(STEP, "hand over", "the terminal")?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let fds = [master.as_fd()];
    // There is room for one.
    ancillary.push(SendAncillaryMessage::ScmRights(&fds));
    // NOSIGNAL: a peer that is gone is an error to report, not a signal to die of.
    retry_on_intr(|| sendmsg(socket, &[IoSlice::new(NAME)], &mut ancillary, SendFlags::NOSIGNAL)).map(drop).at(
        STEP,
        "send the terminal to",
        "whoever listens",
    )
}
