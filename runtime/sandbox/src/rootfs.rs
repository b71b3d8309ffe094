//! The root file system, mounted by the mapper below the container's directory before init is cloned.

use crate::at::{At, failed, last_words};
use crate::disk;
use rlrun_spec::plan::{Disk, Launch, Rootfs};
use rlrun_spec::{Failure, IdMapping, Kind};
use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags, Uid, chownat, openat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, unmount,
};
use std::ffi::CString;
use std::fmt::Write;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where init finds the root file system.
pub(crate) fn root(launch: &Launch) -> PathBuf {
    root_of(&launch.facts.rootfs, &launch.facts.container_dir)
}

/// Where the root file system of the container in `container` is, once it is mounted.
pub(crate) fn root_of(rootfs: &Rootfs, container: &Path) -> PathBuf {
    match rootfs {
        Rootfs::Directory { path } => path.clone(),
        Rootfs::Overlay { .. } | Rootfs::FuseOverlay { .. } => mount_point(container),
    }
}

/// Where a root file system of layers is mounted, seen from the mapper: `merged` where there is one. The kernel's overlay
/// does without and covers `upper`, which it has open: a directory less to make and to remove for each container.
#[must_use]
pub fn mount_point(container: &Path) -> PathBuf {
    let merged = container.join("merged");
    if merged.is_dir() { merged } else { container.join("upper") }
}

/// Mounts it.
pub(crate) fn mount(launch: &Launch) -> Result<(), Failure> {
    let facts = &launch.facts;
    mount_at(&facts.rootfs, &facts.container_dir, facts.disk.as_ref(), facts.remove)
}

/// Mounts the root file system of the container in `container`. What is `removed_at_the_end` need not reach the disk.
pub(crate) fn mount_at(
    rootfs: &Rootfs,
    container: &Path,
    limited: Option<&Disk>,
    removed_at_the_end: bool,
) -> Result<(), Failure> {
    let (written, on) = match limited {
        None => (None, On::Host),
        Some(Disk { size, file: None }) => (Some(mount_sized(container, *size)?), On::Host),
        Some(Disk { size, file: Some(programs) }) => (Some(disk::mount(container, *size, programs)?), On::Fuse),
    };
    mount_layers(rootfs, container, (written.as_deref().unwrap_or(container), on), removed_at_the_end)
}

/// What is below the layer that takes what is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum On {
    /// A file system of the kernel's.
    Host,
    /// fuse2fs.
    Fuse,
}

/// The same, where `written` has the directories for what is written.
fn mount_layers(
    rootfs: &Rootfs,
    container: &Path,
    (written, on): (&Path, On),
    removed_at_the_end: bool,
) -> Result<(), Failure> {
    if let Rootfs::Overlay { lowers } | Rootfs::FuseOverlay { lowers, .. } = rootfs
        && let Some(top) = lowers.first()
    {
        begin_like(written, top)?;
    }
    match rootfs {
        Rootfs::Overlay { lowers } => overlay(lowers, container, written, removed_at_the_end),
        Rootfs::FuseOverlay { lowers, binary, uids, gids } => {
            fuse(lowers, (container, written, on), binary, uids, gids)
        }
        Rootfs::Directory { .. } => Ok(()),
    }
}

/// Puts a file system in memory under what the container writes, in this mount namespace only: what is full answers
/// ENOSPC, and the end of the namespace frees it.
fn mount_sized(container: &Path, size: u64) -> Result<PathBuf, Failure> {
    let (step, at) = ("mount-sized", container.join("sized"));
    let object = at.display().to_string();
    let options =
        CString::new(format!("size={size},mode=0755")).map_err(|_| Errno::INVAL).at(step, "mount", &object)?;
    std::fs::create_dir_all(&at).at(step, "make", &object)?;
    let flags = MountFlags::NODEV | MountFlags::NOSUID;
    rustix::mount::mount("tmpfs", &at, "tmpfs", flags, Some(options.as_c_str())).at(step, "mount", &object)?;
    for name in ["upper", "work"] {
        std::fs::create_dir(at.join(name)).at(step, "make", at.join(name).display().to_string())?;
    }
    Ok(at)
}

/// What is written to the root file system, where that is kept in memory.
pub(crate) fn sized(launch: &Launch) -> Option<OwnedFd> {
    launch.facts.disk.as_ref().filter(|disk| disk.file.is_none())?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    // Without it that is not counted as memory; its own limit holds all the same.
    openat(CWD, launch.facts.container_dir.join("sized"), flags, Mode::empty()).ok()
}

/// Unmounts it; fuse-overlayfs ends by itself then.
pub(crate) fn take_down(launch: &Launch) -> Result<(), Failure> {
    let path = root(launch);
    if launch.facts.disk.as_ref().is_some_and(|disk| disk.file.is_none()) {
        let at = launch.facts.container_dir.join("sized");
        match unmount(&at, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            Ok(()) | Err(Errno::INVAL | Errno::NOENT) => {}
            Err(errno) => return Err(errno).at("unmount", "unmount", at.display().to_string()),
        }
    }
    match unmount(&path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        // EINVAL: nothing is mounted, because set-up failed before it was.
        Ok(()) | Err(Errno::INVAL | Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno).at("unmount", "unmount", path.display().to_string()),
    }
}

/// What was to be removed at the end is mounted again after all: the kernel takes no layer that was mounted `volatile`
/// before somebody said so (overlayfs, "Volatile mount").
pub(crate) fn mark_written(launch: &Launch) -> Result<(), Failure> {
    let path = launch.facts.container_dir.join("work");
    let object = path.display().to_string();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat(CWD, &path, flags, Mode::empty()) {
        Err(Errno::NOENT) => Ok(()),
        work => work.and_then(|work| crate::tree::empty(&work, None)).at("rootfs", "empty", object),
    }
}

/// The top of what is mounted has the owner and the mode of the layer that takes what is written (overlayfs), and that
/// of an image need not be root's, nor open to all. Once something was mounted, what the container has made of it counts:
/// overlayfs has put a directory into `work` then.
fn begin_like(written: &Path, lower: &Path) -> Result<(), Failure> {
    let (upper, work, object) = (written.join("upper"), written.join("work"), lower.display().to_string());
    let look = |path: &Path| rustix::fs::lstat(path).at("mount-overlay", "look at", path.display().to_string());
    let (is, wanted) = (look(&upper)?, look(lower)?);
    if (is.st_uid, is.st_gid, is.st_mode) == (wanted.st_uid, wanted.st_gid, wanted.st_mode) {
        return Ok(());
    }
    let mut begun = std::fs::read_dir(&work).at("mount-overlay", "look into", work.display().to_string())?;
    if begun.next().is_some() {
        return Ok(());
    }
    let (uid, gid) = (Uid::from_raw(wanted.st_uid), Gid::from_raw(wanted.st_gid));
    match chownat(CWD, &upper, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW) {
        // An owner that the id map lacks can only be seen, not given.
        Ok(()) | Err(Errno::INVAL | Errno::PERM) => {}
        Err(errno) => return Err(errno).at("mount-overlay", "look like", object),
    }
    let mode = Mode::from_raw_mode(wanted.st_mode & 0o7777);
    rustix::fs::chmod(&upper, mode).at("mount-overlay", "look like", object)
}

/// `lowerdir` of all layers below their common directory, so that a hundred of them fit the one page that mount(2)
/// takes; `,` `:` and `\` escaped as overlayfs wants them.
pub(crate) fn lowerdir(lowers: &[PathBuf]) -> (PathBuf, String) {
    let parent = lowers.first().and_then(|l| l.parent()).unwrap_or(Path::new("/")).to_path_buf();
    let names = lowers.iter().map(|l| escape(l.strip_prefix(&parent).unwrap_or(l)));
    let joined = names.collect::<Vec<_>>().join(":");
    (parent, joined)
}

fn escape(path: &Path) -> String {
    let mut text = String::new();
    for c in path.to_string_lossy().chars() {
        if matches!(c, ',' | ':' | '\\') {
            text.push('\\');
        }
        text.push(c);
    }
    text
}

fn overlay(lowers: &[PathBuf], container: &Path, written: &Path, removed_at_the_end: bool) -> Result<(), Failure> {
    let merged = mount_point(container);
    let object = merged.display().to_string();
    let (parent, lowerdir) = lowerdir(lowers);
    let (upper, work) = (escape(&written.join("upper")), escape(&written.join("work")));
    // userxattr: the attributes an unprivileged mounter may set (5.11).
    // volatile: unmounting syncs the whole file system below otherwise, for a layer that nobody will see again (5.10).
    let volatile = if removed_at_the_end { ",volatile" } else { "" };
    let options = format!("userxattr,lowerdir={lowerdir},upperdir={upper},workdir={work}{volatile}");
    rustix::process::chdir(&parent).at("mount-overlay", "enter", parent.display().to_string())?;
    if options.len() < MOUNT_OPTIONS {
        let options = CString::new(options).map_err(|_| Errno::INVAL).at("mount-overlay", "mount", &object)?;
        rustix::mount::mount("overlay", &merged, "overlay", MountFlags::NODEV, Some(options.as_c_str())).at(
            "mount-overlay",
            "mount the root file system",
            &object,
        )?;
    } else {
        let writable = Writable { upper: &written.join("upper"), work: &written.join("work"), removed_at_the_end };
        overlay_of_many(lowers, &parent, Some(&writable), &merged).map_err(|errno| {
            let why = format!(
                "{} layers need {} bytes of mount options, 4095 fit, and the kernel's way for more, of Linux 6.8, fails: {errno}",
                lowers.len(),
                options.len()
            );
            failed(Kind::Runtime, "mount-overlay", "mount the root file system", &object, why)
        })?;
    }
    rustix::process::chdir("/").at("mount-overlay", "leave", parent.display().to_string())
}

/// What mount(2) takes, with the NUL byte.
pub(crate) const MOUNT_OPTIONS: usize = 4096;

/// The layer that takes what is written.
pub(crate) struct Writable<'a> {
    pub(crate) upper: &'a Path,
    pub(crate) work: &'a Path,
    pub(crate) removed_at_the_end: bool,
}

/// One fsconfig(2) a layer, each relative to `parent`, which is the working directory: no limit but the kernel's 500.
pub(crate) fn overlay_of_many(
    lowers: &[PathBuf],
    parent: &Path,
    writable: Option<&Writable<'_>>,
    target: &Path,
) -> Result<(), Errno> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_flag(&context, "userxattr")?;
    for lower in lowers {
        fsconfig_set_string(&context, "lowerdir+", lower.strip_prefix(parent).unwrap_or(lower))?;
    }
    if let Some(writable) = writable {
        fsconfig_set_string(&context, "upperdir", writable.upper)?;
        fsconfig_set_string(&context, "workdir", writable.work)?;
        if writable.removed_at_the_end {
            fsconfig_set_flag(&context, "volatile")?;
        }
    }
    fsconfig_create(&context)?;
    let mut attributes = MountAttrFlags::MOUNT_ATTR_NODEV;
    if writable.is_none() {
        attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY;
    }
    let mount = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    move_mount(&mount, "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

/// fuse-overlayfs daemonises when the mount is up: its parent's exit is the signal, and the daemon becomes a child of
/// the mapper, pid 1 here, and dies with it.
fn fuse(
    lowers: &[PathBuf],
    (container, written, on): (&Path, &Path, On),
    binary: &Path,
    uids: &[IdMapping],
    gids: &[IdMapping],
) -> Result<(), Failure> {
    let merged = container.join("merged");
    match std::fs::create_dir(&merged) {
        Err(e) if e.kind() != ErrorKind::AlreadyExists => {
            return Err(e).at("mount-fuse", "make", merged.display().to_string());
        }
        Ok(()) | Err(_) => {}
    }
    let (parent, lowerdir) = lowerdir(lowers);
    let (upper, work) = (escape(&written.join("upper")), escape(&written.join("work")));
    let mut options = format!("lowerdir={lowerdir},upperdir={upper},workdir={work}");
    for (name, mapping) in [("uidmapping", uids), ("gidmapping", gids)] {
        if !mapping.is_empty() {
            let lines: Vec<_> = mapping.iter().map(|m| format!("{}:{}:{}", m.host, m.container, m.count)).collect();
            // Writing to a String cannot fail.
            if write!(options, ",{name}={}", lines.join(":")).is_err() {
                options.clear();
            }
        }
    }
    if on == On::Fuse {
        // fuse2fs keeps no access lists as fuse-overlayfs wants them. What waits to be written there may not fit any more:
        // write(2) has to say so, and not close(2), which nobody asks.
        options.push_str(",noacl,writeback=0");
    }
    start_fuse(&Fuse::overlay(binary, &options), None, &parent, &merged)
}

/// A program that serves a file system, and the options it is given.
pub(crate) struct Fuse<'a> {
    /// The step of its failures.
    pub(crate) step: &'static str,
    /// What it does.
    pub(crate) operation: &'static str,
    pub(crate) binary: &'a Path,
    pub(crate) options: &'a str,
}

impl<'a> Fuse<'a> {
    /// fuse-overlayfs.
    pub(crate) fn overlay(binary: &'a Path, options: &'a str) -> Self {
        Fuse { step: "mount-fuse", operation: "mount the root file system with", binary, options }
    }
}

/// Paths in its options are relative to `parent`; it may want a `device`.
pub(crate) fn start_fuse(fuse: &Fuse<'_>, device: Option<&Path>, parent: &Path, target: &Path) -> Result<(), Failure> {
    let helper = fuse.binary.display().to_string();
    let output = Command::new(fuse.binary)
        .arg("-o")
        .arg(fuse.options)
        .args(device)
        .arg(target)
        .current_dir(parent)
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .output()
        .at(fuse.step, "start", &helper)?;
    let why = if output.status.success() {
        // What it says is not enough: whoever took over its name may do nothing.
        if rustix::fs::statfs(target).is_ok_and(|found| found.f_type == FUSE_SUPER_MAGIC) {
            return Ok(());
        }
        "it ended well and mounted nothing".to_owned()
    } else {
        last_words(&output)
    };
    Err(failed(Kind::Host, fuse.step, fuse.operation, helper, why))
}

/// `FUSE_SUPER_MAGIC`, linux/magic.h.
const FUSE_SUPER_MAGIC: rustix::fs::FsWord = 0x6573_5546;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_named_below_their_common_directory() {
        let lowers = [PathBuf::from("/s/layers/bb"), PathBuf::from("/s/layers/a,a")];
        assert_eq!(lowerdir(&lowers), (PathBuf::from("/s/layers"), "bb:a\\,a".to_owned()));
    }

    #[test]
    fn a_layer_elsewhere_keeps_its_whole_path() {
        let lowers = [PathBuf::from("/s/layers/bb"), PathBuf::from("/other/a:b")];
        assert_eq!(lowerdir(&lowers).1, "bb:/other/a\\:b");
    }
}
