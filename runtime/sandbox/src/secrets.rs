//! Secrets as files in a file system in memory that nobody else mounts: they go with the container's last process.

use crate::at::At;
use crate::mounts::{attach, attach_fd, clone_of, new_file_system, target};
use crate::sys;
use rlrun_spec::Failure;
use rlrun_spec::plan::{MountOptions, SecretFile};
use rustix::fs::{FileType, Gid, Mode, OFlags, Uid, fchmod, fchown, mkdirat, openat};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// Where most of them are; the directory itself is in memory.
const DIRECTORY: &str = "/run/secrets";

/// Mounts them. `scratch` is a file system of rlrun's own, where this one is attached until it has its places.
pub(crate) fn mount(root: &OwnedFd, scratch: &OwnedFd, secrets: &[SecretFile]) -> Result<(), Failure> {
    if secrets.is_empty() {
        return Ok(());
    }
    let options = MountOptions { nosuid: true, nodev: true, noexec: true, ..MountOptions::default() };
    // Room for what there is, rounded up to pages, and for the directories.
    let size: usize = secrets.iter().map(|s| s.contents.len() + 8192).sum();
    let memory =
        new_file_system("tmpfs", &format!("size={size},mode=0755"), options).at("secrets", "mount", DIRECTORY)?;
    mkdirat(scratch, "secrets", Mode::RWXU).at("secrets", "create", DIRECTORY)?;
    attach(&memory, scratch.as_fd(), Path::new("secrets")).at("secrets", "mount", DIRECTORY)?;
    for part in ["named", "placed"] {
        mkdirat(&memory, part, Mode::from_raw_mode(0o755)).at("secrets", "create", part)?;
    }
    let mut named = false;
    for (index, secret) in secrets.iter().enumerate() {
        let name = secret.path.strip_prefix(DIRECTORY).and_then(|rest| rest.strip_prefix('/'));
        match name.filter(|name| !name.contains('/')) {
            Some(name) => {
                write(&memory, &format!("named/{name}"), secret)?;
                named = true;
            }
            None => write(&memory, &format!("placed/{index}"), secret)?,
        }
    }
    if named {
        bind(root, &memory, "named", DIRECTORY, FileType::Directory)?;
    }
    for (index, secret) in secrets.iter().enumerate() {
        let file = format!("placed/{index}");
        if rustix::fs::accessat(&memory, file.as_str(), rustix::fs::Access::EXISTS, rustix::fs::AtFlags::empty())
            .is_ok()
        {
            bind(root, &memory, &file, &secret.path, FileType::RegularFile)?;
        }
    }
    Ok(())
}

fn bind(root: &OwnedFd, memory: &OwnedFd, from: &str, to: &str, kind: FileType) -> Result<(), Failure> {
    let tree = clone_of(memory, from).at("secrets", "open", to)?;
    sys::set_mount_attributes(tree.as_fd(), libc::MOUNT_ATTR_RDONLY, 0, false).at("secrets", "make read-only", to)?;
    attach_fd(&tree, &target(root, to, kind)?).at("secrets", "mount", to)
}

fn write(memory: &OwnedFd, name: &str, secret: &SecretFile) -> Result<(), Failure> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    let file = openat(memory, name, flags, Mode::RUSR | Mode::WUSR).at("secrets", "create", &secret.path)?;
    fchown(&file, Some(Uid::from_raw(secret.uid)), Some(Gid::from_raw(secret.gid))).at(
        "secrets",
        "give away",
        &secret.path,
    )?;
    fchmod(&file, Mode::from_raw_mode(secret.mode)).at("secrets", "set the mode of", &secret.path)?;
    std::io::Write::write_all(&mut std::fs::File::from(file), &secret.contents).at("secrets", "write", &secret.path)
}
