//! Sealed memory files: what is in them can never change again (`memfd_create(2)`, `fcntl(2)` F_ADD_SEALS).

use crate::at::{At, failed};
use rlrun_spec::{Failure, Kind};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, memfd_create};
use rustix::io::Errno;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

const ALL: SealFlags = SealFlags::SEAL.union(SealFlags::SHRINK).union(SealFlags::GROW).union(SealFlags::WRITE);

/// A sealed file with `bytes`, not executable.
///
/// # Errors
/// When the kernel refuses (no memory, no memfd).
pub fn sealed(name: &str, bytes: &[u8]) -> Result<OwnedFd, Failure> {
    let mut file = File::from(create(name, MemfdFlags::NOEXEC_SEAL)?);
    file.write_all(bytes).at("memfd", "write a memory file", name)?;
    file.rewind().at("memfd", "rewind a memory file", name)?;
    seal(file.into(), name)
}

/// A sealed, executable copy of the program at `path`.
pub(crate) fn sealed_program(path: &Path) -> Result<OwnedFd, Failure> {
    let object = path.display().to_string();
    let source = File::open(path).at("open-program", "open rlrun's own program", &object)?;
    let len = source.metadata().at("open-program", "stat rlrun's own program", &object)?.len();
    let fd = create("rlrun", MemfdFlags::EXEC)?;
    let mut copied = 0;
    while copied < len {
        let left = usize::try_from(len - copied).unwrap_or(usize::MAX);
        match rustix::fs::sendfile(&fd, &source, None, left).at("memfd", "copy rlrun's own program", &object)? {
            0 => break,
            n => copied += n as u64,
        }
    }
    seal(fd, "rlrun")
}

fn create(name: &str, flags: MemfdFlags) -> Result<OwnedFd, Failure> {
    let flags_all = flags | MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    match memfd_create(name, flags_all) {
        // The exec flags are 6.3; before it every memfd is executable.
        Err(Errno::INVAL) => memfd_create(name, flags_all - flags),
        other => other,
    }
    .at("memfd", "create a memory file", name)
}

fn seal(fd: OwnedFd, name: &str) -> Result<OwnedFd, Failure> {
    fcntl_add_seals(&fd, ALL).at("memfd", "seal a memory file", name)?;
    Ok(fd)
}

/// What is in a memory file, refused unless it is fully sealed.
pub(crate) fn read_sealed(fd: impl AsFd) -> Result<Vec<u8>, Failure> {
    let seals = fcntl_get_seals(&fd).at("read-plan", "read the plan", "descriptor")?;
    if !seals.contains(ALL) {
        return Err(failed(Kind::Internal, "read-plan", "read the plan", "", "it is not sealed"));
    }
    let mut file = File::from(fd.as_fd().try_clone_to_owned().at("read-plan", "read the plan", "")?);
    let mut bytes = Vec::new();
    file.rewind().at("read-plan", "read the plan", "")?;
    file.read_to_end(&mut bytes).at("read-plan", "read the plan", "")?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_file_reads_back_and_cannot_change() {
        let fd = sealed("test", b"plan").unwrap();
        assert_eq!(read_sealed(&fd).unwrap(), b"plan");
        assert_eq!(rustix::io::write(&fd, b"x"), Err(Errno::PERM));
        assert_eq!(rustix::fs::ftruncate(&fd, 0), Err(Errno::PERM));
    }

    #[test]
    fn an_unsealed_file_is_refused() {
        let fd = create("test", MemfdFlags::NOEXEC_SEAL).unwrap();
        assert!(read_sealed(&fd).is_err());
    }
}
