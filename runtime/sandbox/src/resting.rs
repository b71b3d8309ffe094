//! The root file system of a container that rests, mounted for a job of rlrun's own: in a mount namespace that goes with
//! the job, with the binds and volumes that the container itself would see.

use crate::at::At;
use crate::{disk, mounts, rootfs, sys};
use rlrun_spec::Failure;
use rlrun_spec::plan::{Disk, Mount, MountSource, Rootfs};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::mount::{MountPropagationFlags, mount_change};
use serde::{Deserialize, Serialize};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resting {
    /// The root file system.
    pub rootfs: Rootfs,
    /// The container's own directory on the host.
    pub container_dir: PathBuf,
    /// The file system of limited size that has what it wrote.
    pub disk: Option<Disk>,
    /// What the container mounts; file systems in memory and overlays are left out, because they are gone.
    pub mounts: Vec<Mount>,
    /// The container's user, who gets what is mounted with `U`.
    pub user: (u32, u32),
}

/// Mounts it and returns its root. The caller is mapped root, and holds the container's lock: two mounts of one upper
/// layer would each write what the other does not know.
///
/// # Errors
/// When something cannot be mounted.
pub fn open(resting: &Resting) -> Result<OwnedFd, Failure> {
    apart()?;
    mount(resting)
}

/// Mounts what it wrote and nothing else, and says where. For a container with a `disk`; as [`open`] otherwise.
///
/// # Errors
/// When it cannot be mounted.
pub fn open_changes(resting: &Resting) -> Result<PathBuf, Failure> {
    apart()?;
    match &resting.disk {
        Some(Disk { size, file: Some(programs) }) => {
            disk::mount(&resting.container_dir, *size, programs).map(|at| at.join("upper"))
        }
        Some(Disk { file: None, .. }) | None => Ok(resting.container_dir.join("upper")),
    }
}

/// What was mounted by [`open`] or [`open_changes`] is done with, and nothing of it is open any more.
///
/// # Errors
/// When what was written does not reach the disk.
pub fn close(resting: &Resting) -> Result<(), Failure> {
    match &resting.disk {
        Some(Disk { file: Some(_), .. }) => disk::take_down(&resting.container_dir),
        Some(Disk { file: None, .. }) | None => Ok(()),
    }
}

fn apart() -> Result<(), Failure> {
    sys::unshare(libc::CLONE_NEWNS).at("unshare", "create", "a mount namespace")?;
    mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC).at(
        "mount-private",
        "make mounts private",
        "/",
    )
}

/// The same in the mount namespace of the caller.
///
/// # Errors
/// As [`open`].
pub fn mount(resting: &Resting) -> Result<OwnedFd, Failure> {
    rootfs::mount_at(&resting.rootfs, &resting.container_dir, resting.disk.as_ref(), false)?;
    let path = rootfs::root_of(&resting.rootfs, &resting.container_dir);
    let root = openat(CWD, &path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).at(
        "open-rootfs",
        "open the root file system",
        path.display().to_string(),
    )?;
    let lasts = |m: &&Mount| !matches!(m.source, MountSource::New { .. } | MountSource::Layered { .. });
    for mount in resting.mounts.iter().filter(lasts) {
        let volume = mounts::volume_of(mount)?;
        mounts::add(&root, mount, volume.as_ref(), resting.user)?;
    }
    Ok(root)
}
