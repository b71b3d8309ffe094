//! A file system of limited size in a file of the container's directory, for what a container writes: made by mke2fs(8)
//! when it is needed first, checked by e2fsck(8) before each use, served by fuse2fs(1). It is mounted beside the root
//! file system, out of the container's sight, and the file is nowhere inside.

use crate::at::{At, failed, last_words};
use crate::limiter::children;
use crate::rootfs::{Fuse, mount_point, start_fuse};
use rlrun_spec::plan::DiskPrograms;
use rlrun_spec::{Failure, Kind};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, FlockOperation, Mode, OFlags, flock, fsync, openat};
use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{WaitOptions, getpid, wait};
use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const STEP: &str = "mount-disk";
/// The file, in the container's directory.
const IMAGE: &str = "disk.img";
/// Where it is mounted, in the mapper's mount namespace only.
const MOUNTED: &str = "disk";
/// How long whoever serves a file system may take to write what it holds.
const PATIENCE: Duration = Duration::from_secs(10);
/// The same for small and for large file systems: bytes for each file that there can be.
const RATIOS: [u64; 2] = [4096, 16384];
const LARGE: u64 = 512 << 20;

/// Where it is mounted.
pub(crate) fn mounted(container: &Path) -> PathBuf {
    container.join(MOUNTED)
}

/// Mounts it and gives back where; it has the directories for an overlay. The caller holds the container's lock.
pub(crate) fn mount(container: &Path, size: u64, programs: &DiskPrograms) -> Result<PathBuf, Failure> {
    let (image, at) = (container.join(IMAGE), mounted(container));
    let object = image.display().to_string();
    let file = match open(&image) {
        Err(e) if e.kind() == ErrorKind::NotFound => {
            make(container, size, programs)?;
            open(&image)
        }
        other => other,
    };
    let file = file.at(STEP, "open", &object)?;
    // Whoever served it before may have been killed a moment ago, and holds this as long as it can still write.
    flock(&file, FlockOperation::LockExclusive).at(STEP, "lock", &object)?;
    check(&image, programs)?;
    std::fs::create_dir_all(&at).at(STEP, "make", at.display().to_string())?;
    // fuse2fs inherits the lock, and with it everybody sees whether it is gone.
    fcntl_setfd(&file, FdFlags::empty()).at(STEP, "lend", &object)?;
    let options = "rw,fakeroot,default_permissions";
    let fuse =
        Fuse { step: STEP, operation: "mount what the container writes with", binary: &programs.fuse2fs, options };
    start_fuse(&fuse, Some(&image), container, &at)?;
    drop(file);
    for name in ["upper", "work"] {
        match std::fs::create_dir(at.join(name)) {
            Err(e) if e.kind() != ErrorKind::AlreadyExists => {
                return Err(e).at(STEP, "make", at.join(name).display().to_string());
            }
            Ok(()) | Err(_) => {}
        }
    }
    Ok(at)
}

fn open(image: &Path) -> std::io::Result<File> {
    OpenOptions::new().read(true).write(true).open(image)
}

/// Makes it aside: one that is there under its name is whole.
fn make(container: &Path, size: u64, programs: &DiskPrograms) -> Result<(), Failure> {
    let (aside, image) = (container.join("disk.img.new"), container.join(IMAGE));
    let object = aside.display().to_string();
    let file = File::create(&aside).at(STEP, "make", &object)?;
    file.set_len(length(size)).at(STEP, "size", &object)?;
    let ratio = ratio(size).to_string();
    // Nothing is written through the journal here, so there is none; who is root inside owns it.
    let arguments =
        ["-q", "-F", "-t", "ext4", "-O", "^has_journal,^resize_inode", "-b", "4096", "-m", "0", "-i", &ratio];
    let mut command = helper(&programs.mke2fs);
    command.args(arguments).args(["-E", "lazy_itable_init=1,nodiscard,root_owner=0:0"]).arg(&aside);
    let (code, said) = run(command, &programs.mke2fs)?;
    if code != Some(0) {
        return Err(failed(Kind::Host, STEP, "make a file system in", object, said));
    }
    std::fs::rename(&aside, &image).at(STEP, "rename", object)
}

fn ratio(size: u64) -> u64 {
    RATIOS[usize::from(size >= LARGE)]
}

/// How long the file is so that `size` bytes can be written: an inode has 256 bytes, each 128 MiB have two blocks of
/// bitmaps and a descriptor, there are a few more directories, and fuse2fs keeps back a tenth, 2048 blocks at most.
fn length(size: u64) -> u64 {
    let blocks = (size + size / ratio(size) * 256 + size / 8192 + (512 << 10)).div_ceil(4096);
    (blocks + (blocks / 9 + 1).min(2048)) * 4096
}

/// What was unmounted well is found so by one look.
fn check(image: &Path, programs: &DiskPrograms) -> Result<(), Failure> {
    // e2fsck(8), "EXIT CODE": 0 and 1 are well, 2 is for mounted ones. What is more needs an answer, which is yes.
    let mut last = String::new();
    for how in [&["-p"][..], &["-f", "-y"]] {
        let mut command = helper(&programs.e2fsck);
        command.args(how).arg(image);
        let (code, said) = run(command, &programs.e2fsck)?;
        match code {
            Some(0..=2) => return Ok(()),
            _ => last = said,
        }
    }
    Err(failed(Kind::Runtime, STEP, "check", image.display().to_string(), last))
}

fn helper(binary: &Path) -> Command {
    let mut command = Command::new(binary);
    command.env_clear().stdin(Stdio::null()).stdout(Stdio::null());
    command
}

/// How it ended, and the last that it said.
fn run(mut command: Command, binary: &Path) -> Result<(Option<i32>, String), Failure> {
    let output = command.output().at(STEP, "start", binary.display().to_string())?;
    Ok((output.status.code(), last_words(&output)))
}

/// Whether whoever served it is gone.
pub(crate) fn is_dead(container: &Path) -> bool {
    matches!(rustix::fs::statfs(mounted(container)), Err(Errno::NOTCONN | Errno::CONNABORTED))
}

/// Writes what it holds, and takes away it and the root file system on it. The caller is pid 1 of a pid namespace, in
/// which nothing is left but who serves them.
pub(crate) fn take_down(container: &Path) -> Result<(), Failure> {
    let at = mounted(container);
    let object = at.display().to_string();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match openat(CWD, &at, flags, Mode::empty()).and_then(|directory| fsync(&directory)) {
        // Who is dead has written all that it ever will: the next use mends it.
        Ok(()) | Err(Errno::NOTCONN | Errno::CONNABORTED | Errno::NOENT) => {}
        Err(errno) => return Err(errno).at(STEP, "write to the disk", &object),
    }
    for mount in [mount_point(container), at] {
        match unmount(&mount, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            Ok(()) | Err(Errno::INVAL | Errno::NOENT) => {}
            Err(errno) => return Err(errno).at("unmount", "unmount", mount.display().to_string()),
        }
    }
    if getpid().is_init() { outlive() } else { Ok(()) }
}

/// Ends them, and waits: killed, fuse2fs would leave the mark that everything must be checked.
fn outlive() -> Result<(), Failure> {
    let what = "what serves the file systems";
    let ended = children().map_err(std::io::Error::from).at("wait", "watch", what)?;
    match nix::sys::signal::kill(nix::unistd::Pid::from_raw(-1), nix::sys::signal::Signal::SIGTERM) {
        Ok(()) | Err(nix::errno::Errno::ESRCH) => {}
        Err(errno) => return Err(std::io::Error::from(errno)).at("wait", "end", what),
    }
    let until = Instant::now() + PATIENCE;
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some(_)) => continue,
            Err(Errno::CHILD) => return Ok(()),
            Err(errno) => return Err(errno).at("wait", "wait for", what),
            Ok(None) => {}
        }
        let rest = until.saturating_duration_since(Instant::now());
        // Whoever takes longer is killed with this process.
        if rest.is_zero() {
            return Ok(());
        }
        let rest = Timespec::try_from(rest).ok();
        match poll(&mut [PollFd::new(&ended, PollFlags::IN)], rest.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno).at("wait", "wait for", what),
        }
        while ended.read_signal().is_ok_and(|signal| signal.is_some()) {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_a_little_longer_than_what_can_be_written() {
        for size in [1 << 20, 64 << 20, LARGE, 10 << 30, 1 << 40] {
            let length = length(size);
            assert!(length > size && length.is_multiple_of(4096), "{size}");
            assert!(length - size <= size / 15 + (9 << 20), "{size}");
        }
    }
}
