//! Removal of trees that hold anything, relative to descriptors, never following a symlink.

use super::RemoveJob;
use super::failure::on;
use super::whiteout::open_dir;
use rlrun_spec::Failure;
use rustix::fs::{AtFlags, Dir, Mode, OFlags};
use rustix::io::Errno;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// Removes each path: first out of sight, so that no half of it is found when this is interrupted.
pub(super) fn run(job: &RemoveJob) -> Result<(), Failure> {
    let trash = open(&job.trash).map_err(on("open the directory", &job.trash))?;
    for path in &job.paths {
        if let (Some(parent), Some(name)) = (path.parent(), path.file_name()) {
            remove_one(parent, name.as_encoded_bytes(), &trash).map_err(on("remove the directory", path))?;
        }
    }
    Ok(())
}

fn remove_one(parent: &Path, name: &[u8], trash: &OwnedFd) -> Result<(), Errno> {
    let parent = open(parent)?;
    let hidden = [b"trash-", name].concat();
    match rustix::fs::renameat(&parent, name, trash, &hidden[..]) {
        Ok(()) => {}
        // Another process was faster.
        Err(Errno::NOENT) => return Ok(()),
        // The remains of an earlier try have the name.
        Err(Errno::NOTEMPTY | Errno::EXIST) => return remove_tree(&parent, name),
        Err(e) => return Err(e),
    }
    remove_tree(trash, &hidden)
}

fn open(path: &Path) -> Result<OwnedFd, Errno> {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// Removes `name` in `dir`, whatever it is; that it is gone already is fine.
pub(crate) fn remove_tree(dir: impl AsFd, name: &[u8]) -> Result<(), Errno> {
    let dir = dir.as_fd();
    if matches!(name, b"" | b"." | b"..") {
        // No caller has such a name; a mistake must not cost what is above.
        return Err(Errno::INVAL);
    }
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        // EPERM is what POSIX has for directories.
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(e) => return Err(e),
    }
    loop {
        empty(&open_dir(dir, name)?)?;
        match rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            // A listing may miss names while others are removed; the next one has them.
            Err(Errno::NOTEMPTY) => {}
            Err(e) => return Err(e),
        }
    }
}

pub(super) fn empty(dir: &OwnedFd) -> Result<(), Errno> {
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            remove_tree(dir, name)?;
        }
    }
    Ok(())
}
