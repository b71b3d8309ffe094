//! The layers of an image, mounted to be looked at: read-only, in the mount namespace of the caller, who is mapped root.

use crate::at::failed;
use crate::rootfs::{self, MOUNT_OPTIONS};
use rlrun_spec::{Failure, Kind};
use rustix::io::Errno;
use rustix::mount::MountFlags;
use std::ffi::CString;
use std::path::{Path, PathBuf};

const STEP: &str = "mount-overlay";

/// Mounts `lowers`, top first and at least two, at `target`: with the kernel's overlay, else with the fuse-overlayfs that
/// is named.
///
/// # Errors
/// When neither mounts them.
pub fn mount_image(lowers: &[PathBuf], target: &Path, fuse: Option<&Path>) -> Result<(), Failure> {
    let (parent, lowerdir) = rootfs::lowerdir(lowers);
    let mounted = rustix::process::chdir(&parent).and_then(|()| native(lowers, &parent, &lowerdir, target));
    let outcome = match (mounted, fuse) {
        (Ok(()), _) => Ok(()),
        (Err(_), Some(binary)) => {
            let options = format!("ro,lowerdir={lowerdir}");
            rootfs::start_fuse(&rootfs::Fuse::overlay(binary, &options), None, &parent, target)
        }
        (Err(errno), None) => {
            let why = format!("{errno}, and fuse-overlayfs cannot take its place");
            Err(failed(Kind::Host, STEP, "mount the image", target.display().to_string(), why))
        }
    };
    // The parent may not be where the caller wants to stay; relative paths have been resolved.
    rustix::process::chdir("/").ok();
    outcome
}

fn native(lowers: &[PathBuf], parent: &Path, lowerdir: &str, target: &Path) -> Result<(), Errno> {
    let options = format!("userxattr,lowerdir={lowerdir}");
    if options.len() >= MOUNT_OPTIONS {
        return rootfs::overlay_of_many(lowers, parent, None, target);
    }
    let options = CString::new(options).map_err(|_| Errno::INVAL)?;
    let flags = MountFlags::NODEV | MountFlags::RDONLY;
    rustix::mount::mount("overlay", target, "overlay", flags, Some(options.as_c_str()))
}
