//! Mounts that are made of layers: a directory of the host under one that takes what is written (`O`), an image. The
//! mapper mounts them beside the root file system; init binds them where they belong. What was written goes with the run.

use crate::at::At;
use crate::{rootfs, tree};
use rlrun_spec::Failure;
use rlrun_spec::plan::{Launch, Rootfs};
use rlrun_spec::plan_from_oci::OVERLAYS;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, openat, unlinkat};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};
use std::path::Path;

/// Mounts them.
pub(crate) fn mount(launch: &Launch) -> Result<(), Failure> {
    let facts = &launch.facts;
    if facts.layered.is_empty() {
        return Ok(());
    }
    // Of a run whose end nobody saw.
    discard(&facts.container_dir)?;
    let all = facts.container_dir.join(OVERLAYS);
    make(&all)?;
    for (index, (destination, layers)) in facts.layered.iter().enumerate() {
        let at = all.join(index.to_string());
        make(&at)?;
        for name in ["merged", "upper", "work"] {
            make(&at.join(name))?;
        }
        rootfs::mount_at(layers, &at, None, true).map_err(|failure| Failure {
            operation: "mount an overlay on".to_owned(),
            object: destination.clone(),
            ..failure
        })?;
    }
    Ok(())
}

fn make(path: &Path) -> Result<(), Failure> {
    std::fs::create_dir(path).at("mount-overlay", "make", path.display().to_string())
}

/// Unmounts them and removes what was written.
pub(crate) fn take_down(launch: &Launch) -> Result<(), Failure> {
    let facts = &launch.facts;
    for index in 0..facts.layered.len() {
        let merged = facts.container_dir.join(OVERLAYS).join(index.to_string()).join("merged");
        match unmount(&merged, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            // EINVAL: set-up failed before it was mounted.
            Ok(()) | Err(Errno::INVAL | Errno::NOENT) => {}
            Err(errno) => return Err(errno).at("unmount", "unmount", merged.display().to_string()),
        }
    }
    if facts.layered.is_empty() { Ok(()) } else { discard(&facts.container_dir) }
}

fn discard(container: &Path) -> Result<(), Failure> {
    let path = container.join(OVERLAYS);
    let object = path.display().to_string();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat(CWD, &path, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        all => all.and_then(|all| tree::empty(&all, None)).at("remove", "remove what was written to", &object)?,
    }
    unlinkat(CWD, &path, AtFlags::REMOVEDIR).at("remove", "remove", object)
}

/// The program that serves one of them, if one does.
pub(crate) fn helper(launch: &Launch) -> Option<&Path> {
    launch.facts.layered.iter().find_map(|(_, layers)| match layers {
        Rootfs::FuseOverlay { binary, .. } => Some(binary.as_path()),
        Rootfs::Overlay { .. } | Rootfs::Directory { .. } => None,
    })
}
