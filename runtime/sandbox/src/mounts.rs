//! What init puts into the root file system. Sources are resolved on the host, destinations inside the root by
//! `openat2(2)` with RESOLVE_IN_ROOT, and both are joined by descriptor: a symlink or `..` of a hostile image leads
//! nowhere but into the image.

use crate::at::{At, failed};
use crate::copy_up::{self, Own};
use crate::secrets;
use crate::sys;
use crate::volume;
use rlrun_spec::plan::{Launch, Mount, MountOptions, MountSource, Rootfs};
use rlrun_spec::{Failure, Kind};
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, PROC_SUPER_MAGIC, ResolveFlags, fstatfs, mkdirat, openat, openat2,
    readlinkat, statat, symlinkat,
};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path};

/// As many as the kernel follows (path_resolution(7)).
const MAX_LINKS: usize = 40;
/// A copy of what a descriptor leads to, and of nothing that is mounted below.
const THIS_MOUNT: OpenTreeFlags =
    OpenTreeFlags::OPEN_TREE_CLONE.union(OpenTreeFlags::OPEN_TREE_CLOEXEC).union(OpenTreeFlags::AT_EMPTY_PATH);
const DIRECTORY_MODE: Mode = Mode::from_raw_mode(0o755);
const FILE_MODE: Mode = Mode::from_raw_mode(0o644);
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
const DEVICE_LINKS: [(&str, &str); 6] = [
    ("/proc/kcore", "core"),
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
    ("pts/ptmx", "ptmx"),
];

/// Mounts everything the plan names below `root` and returns the root to enter.
pub(crate) fn populate(launch: &Launch, root: OwnedFd) -> Result<OwnedFd, Failure> {
    let root = match &launch.facts.rootfs {
        Rootfs::Directory { path } => bind_onto_itself(path)?,
        Rootfs::Overlay { .. } | Rootfs::FuseOverlay { .. } => root,
    };
    // Before the container's own directory is covered: its own volumes are in it.
    let volumes: Vec<Option<OwnedFd>> = launch.mounts.iter().map(volume_of).collect::<Result<_, _>>()?;
    let scratch = scratch(&launch.facts.container_dir)?;
    for (mount, volume) in launch.mounts.iter().zip(&volumes) {
        add(&root, mount, volume.as_ref(), (launch.process.uid, launch.process.gid))?;
    }
    for (index, (destination, contents)) in launch.facts.files.iter().enumerate() {
        add_file(&root, &scratch, &format!("f{index}"), destination, contents)?;
    }
    secrets::mount(&root, &scratch, &launch.facts.secrets)?;
    set_sysctls(&root, &launch.sysctls)?;
    for path in &launch.read_only_paths {
        make_read_only(&root, path)?;
    }
    for path in &launch.masked_paths {
        mask(&root, &scratch, path)?;
    }
    Ok(root)
}

/// What can only be done from inside: the root itself becomes read-only once everything in it exists.
pub(crate) fn finish(launch: &Launch) -> Result<(), Failure> {
    if !launch.read_only {
        return Ok(());
    }
    let root = openat(CWD, "/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).at("read-only-root", "open", "/")?;
    sys::set_mount_attributes(root.as_fd(), libc::MOUNT_ATTR_RDONLY, 0, false).at(
        "read-only-root",
        "make read-only",
        "/",
    )
}

/// `pivot_root(2)` wants a mount, and a bundle is a directory.
fn bind_onto_itself(path: &Path) -> Result<OwnedFd, Failure> {
    let object = path.display().to_string();
    let tree = clone_tree(path, true).at("mount-rootfs", "bind the root file system", &object)?;
    attach(&tree, CWD, path).at("mount-rootfs", "bind the root file system", &object)?;
    Ok(tree)
}

/// A small tmpfs for files of rlrun's own. It covers the container's directory in this mount namespace, because
/// older kernels clone only from mounts that are attached (before 6.15), and goes with the host's root.
fn scratch(container: &Path) -> Result<OwnedFd, Failure> {
    let object = container.display().to_string();
    let options = MountOptions { nosuid: true, nodev: true, noexec: true, ..MountOptions::default() };
    let mount = new_file_system("tmpfs", "size=1m,mode=0755", options).at("scratch", "mount", &object)?;
    attach(&mount, CWD, container).at("scratch", "mount", &object)?;
    mkdirat(&mount, "empty", Mode::from_raw_mode(0o555)).at("scratch", "create", "an empty directory")?;
    Ok(mount)
}

/// The volume of a mount that has one, or its layers.
pub(crate) fn volume_of(mount: &Mount) -> Result<Option<OwnedFd>, Failure> {
    match &mount.source {
        MountSource::Volume { path, .. } => volume::open(path).map(Some),
        MountSource::Layered { at } => {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            openat(CWD, at, flags, Mode::empty()).map(Some).at("open-volume", "open the layers of", &mount.destination)
        }
        MountSource::Bind { .. } | MountSource::New { .. } => Ok(None),
    }
}

/// Makes one mount. `user` is who gets what is mounted with `U`.
pub(crate) fn add(root: &OwnedFd, mount: &Mount, volume: Option<&OwnedFd>, user: (u32, u32)) -> Result<(), Failure> {
    let destination = mount.destination.as_str();
    match &mount.source {
        MountSource::Bind { path, recursive } => {
            let object = path.display().to_string();
            let tree = clone_tree(path, *recursive).at("open-volume", "open the source of a mount", &object)?;
            bind(root, &Bound { tree, object, recursive: *recursive }, mount, user)
        }
        MountSource::Volume { path, subpath } => {
            let object = path.display().to_string();
            let Some(volume) = volume else { return Err(Errno::NOENT).at("open-volume", "open the volume", object) };
            let bound = open_volume(root, volume, subpath, mount, object)?;
            bind(root, &bound, mount, user)
        }
        MountSource::Layered { .. } => {
            let Some(merged) = volume else {
                return Err(Errno::NOENT).at("open-volume", "open the layers of", destination);
            };
            let tree = open_tree(merged, "", THIS_MOUNT).at("open-volume", "open the layers of", destination)?;
            bind(root, &Bound { tree, object: destination.to_owned(), recursive: false }, mount, user)
        }
        MountSource::New { kind, data } => {
            let step = format!("mount-{kind}");
            let tree =
                new_file_system(kind, data, mount.options).at(&step, &format!("mount {kind} on"), destination)?;
            let existed = resolve(root, destination).is_ok();
            let target = target(root, destination, FileType::Directory)?;
            if mount.options.copy_up && existed {
                let owner = if data.contains("mode=") { Own::Keep } else { Own::Copy };
                copy_up::copy(&target, &tree, owner).at("copy-up", "copy what the image has to", destination)?;
            }
            if mount.options.read_only {
                sys::set_mount_attributes(tree.as_fd(), libc::MOUNT_ATTR_RDONLY, 0, false).at(
                    &step,
                    "make read-only",
                    destination,
                )?;
            }
            attach_fd(&tree, &target).at(&step, &format!("mount {kind} on"), destination)?;
            if destination == "/dev" { fill_dev(&tree) } else { Ok(()) }
        }
    }
}

/// What is to be bound.
struct Bound {
    tree: OwnedFd,
    /// Its name on the host.
    object: String,
    recursive: bool,
}

fn open_volume(
    root: &OwnedFd,
    volume: &OwnedFd,
    subpath: &str,
    mount: &Mount,
    object: String,
) -> Result<Bound, Failure> {
    let fill = mount.options.copy_up && subpath.is_empty();
    let image = fill.then(|| open_in(root, &mount.destination, OFlags::PATH | OFlags::DIRECTORY).ok()).flatten();
    let data = volume::data(volume, image.as_ref(), &object)?;
    let part =
        resolve(&data, subpath).at("open-volume", "open the path in the volume", format!("{object}: {subpath}"))?;
    let tree = open_tree(&part, "", THIS_MOUNT).at("open-volume", "open the volume", &object)?;
    Ok(Bound { tree, object, recursive: false })
}

fn bind(root: &OwnedFd, bound: &Bound, mount: &Mount, user: (u32, u32)) -> Result<(), Failure> {
    let Bound { tree, object, recursive } = bound;
    let options = mount.options;
    if options.chown {
        volume::give(tree, user.0, user.1).at("give-volume", "give to the container's user", object)?;
    }
    let stat = rustix::fs::fstat(tree).at("open-volume", "stat the source of a mount", object)?;
    let propagation = if options.slave { libc::MS_SLAVE } else { libc::MS_PRIVATE };
    let set = attributes(options) | if options.read_only { libc::MOUNT_ATTR_RDONLY } else { 0 };
    sys::set_mount_attributes(tree.as_fd(), set, propagation, *recursive).at(
        "mount-volume",
        "set the options of the mount of",
        object,
    )?;
    let target = target(root, &mount.destination, FileType::from_raw_mode(stat.st_mode))?;
    attach_fd(tree, &target).at("mount-volume", "mount on", &mount.destination)
}

fn attributes(options: MountOptions) -> u64 {
    [
        (options.nosuid, libc::MOUNT_ATTR_NOSUID),
        (options.nodev, libc::MOUNT_ATTR_NODEV),
        (options.noexec, libc::MOUNT_ATTR_NOEXEC),
    ]
    .into_iter()
    .filter(|(on, _)| *on)
    .fold(0, |all, (_, bit)| all | bit)
}

fn clone_tree(path: &Path, recursive: bool) -> Result<OwnedFd, Errno> {
    let recursion = if recursive { OpenTreeFlags::AT_RECURSIVE } else { OpenTreeFlags::empty() };
    open_tree(CWD, path, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | recursion)
}

pub(crate) fn attach(tree: &OwnedFd, directory: BorrowedFd<'_>, path: &Path) -> Result<(), Errno> {
    move_mount(tree, "", directory, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

pub(crate) fn attach_fd(tree: &OwnedFd, target: &OwnedFd) -> Result<(), Errno> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(tree, "", target, "", flags)
}

/// The processes of this process's pid namespace, attached nowhere: whoever has the descriptor reads them.
pub(crate) fn processes() -> Result<OwnedFd, Errno> {
    new_file_system("proc", "", MountOptions::default())
}

/// A mounted, not yet attached file system (`fsopen(2)`, 5.2). Read-only comes later: some are filled first.
pub(crate) fn new_file_system(kind: &str, data: &str, options: MountOptions) -> Result<OwnedFd, Errno> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for option in data.split(',').filter(|o| !o.is_empty()) {
        match option.split_once('=') {
            Some((key, value)) => fsconfig_set_string(&context, key, value)?,
            None => fsconfig_set_flag(&context, option)?,
        }
    }
    fsconfig_create(&context)?;
    let attributes = [
        (options.nosuid, MountAttrFlags::MOUNT_ATTR_NOSUID),
        (options.nodev, MountAttrFlags::MOUNT_ATTR_NODEV),
        (options.noexec, MountAttrFlags::MOUNT_ATTR_NOEXEC),
        (options.strictatime, MountAttrFlags::MOUNT_ATTR_STRICTATIME),
        (options.noatime, MountAttrFlags::MOUNT_ATTR_NOATIME),
    ];
    let flags = attributes.into_iter().filter(|(on, _)| *on).fold(MountAttrFlags::empty(), |all, (_, bit)| all | bit);
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, flags)
}

/// The place of a mount, made if it is missing, of the kind that its source needs.
pub(crate) fn target(root: &OwnedFd, destination: &str, kind: FileType) -> Result<OwnedFd, Failure> {
    if !Path::new(destination).components().any(|c| matches!(c, Component::Normal(_))) {
        let why = "nothing can be mounted on the root itself";
        return Err(failed(Kind::Usage, "mount-target", "mount on", destination, why));
    }
    let found = match resolve(root, destination) {
        Err(Errno::NOENT) => make(root, destination, kind),
        other => other,
    }
    .at("mount-target", "find or make the place of a mount", destination)?;
    let stat = rustix::fs::fstat(&found).at("mount-target", "stat the place of a mount", destination)?;
    let top = rustix::fs::fstat(root).at("mount-target", "stat", "/")?;
    if (stat.st_dev, stat.st_ino) == (top.st_dev, top.st_ino) {
        // What is mounted there would be below what the container sees, or would hide all of it.
        let why = "it leads to the root itself: a link of the image does";
        return Err(failed(Kind::Usage, "mount-target", "mount on", destination, why));
    }
    let there = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    if there != (kind == FileType::Directory) {
        // The kernel only says that the call was invalid.
        let errno = if there { Errno::ISDIR } else { Errno::NOTDIR };
        return Err(errno).at("mount-target", "mount on", destination);
    }
    // A link of the image may lead there where the destination's own words do not (CVE-2019-19921).
    let fs = fstatfs(&found).at("mount-target", "find the file system of", destination)?;
    if fs.f_type == PROC_SUPER_MAGIC {
        let why = "it leads into /proc, where the kernel's own files must stay what they are";
        return Err(failed(Kind::Usage, "mount-target", "mount on", destination, why));
    }
    Ok(found)
}

/// `path` inside the root, symlinks followed inside it; magic links (/proc/self/fd/N) never.
fn resolve(root: &OwnedFd, path: &str) -> Result<OwnedFd, Errno> {
    open_in(root, path, OFlags::PATH)
}

fn open_in(root: &OwnedFd, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    let path = path.trim_start_matches('/');
    let path = if path.is_empty() { "." } else { path };
    let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), how)
}

/// Makes what is missing of `path`, each part below the resolved part before it. A link whose target is missing is
/// followed inside the root, and its target made.
fn make(root: &OwnedFd, path: &str, kind: FileType) -> Result<OwnedFd, Errno> {
    let mut parts: Vec<String> = path.split('/').filter(|p| !p.is_empty() && *p != ".").map(str::to_owned).collect();
    let mut links = 0;
    let mut index = 0;
    let mut parent = resolve(root, "/")?;
    while index < parts.len() {
        let so_far = parts[..=index].join("/");
        match resolve(root, &so_far) {
            Ok(found) => (parent, index) = (found, index + 1),
            Err(Errno::NOENT) => {
                let directory = index + 1 < parts.len() || kind == FileType::Directory;
                match make_one(&parent, &parts[index], directory) {
                    Ok(()) => {}
                    // It is there and leads nowhere: a link.
                    Err(Errno::EXIST) if links < MAX_LINKS => {
                        links += 1;
                        parts = followed(&parent, &parts, index)?;
                        (parent, index) = (resolve(root, "/")?, 0);
                    }
                    Err(errno) => return Err(errno),
                }
            }
            Err(errno) => return Err(errno),
        }
    }
    Ok(parent)
}

fn make_one(parent: &OwnedFd, name: &str, directory: bool) -> Result<(), Errno> {
    if directory {
        return mkdirat(parent, name, DIRECTORY_MODE);
    }
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
    openat(parent, name, flags, FILE_MODE).map(drop)
}

/// The path with the link at `index` replaced by what it says; `..` is left to the kernel, which stops at the root.
fn followed(parent: &OwnedFd, parts: &[String], index: usize) -> Result<Vec<String>, Errno> {
    let target = readlinkat(parent, parts[index].as_str(), Vec::new())?;
    let target = target.to_str().map_err(|_| Errno::ILSEQ)?;
    let before = if target.starts_with('/') { &[] } else { &parts[..index] };
    let link = target.split('/').filter(|p| !p.is_empty() && *p != ".").map(str::to_owned);
    Ok(before.iter().cloned().chain(link).chain(parts[index + 1..].iter().cloned()).collect())
}

/// The standard nodes, bound from the host because a user namespace cannot make device nodes, and the usual links.
fn fill_dev(dev: &OwnedFd) -> Result<(), Failure> {
    for name in DEVICES {
        let source = Path::new("/dev").join(name);
        let tree = clone_tree(&source, false).at("mount-device", "open", source.display().to_string())?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDONLY | OFlags::CLOEXEC;
        let target = openat(dev, name, flags, FILE_MODE).at("mount-device", "create", name)?;
        attach_fd(&tree, &target).at("mount-device", "mount", name)?;
    }
    DEVICE_LINKS.iter().try_for_each(|(to, name)| symlinkat(*to, dev, *name).at("mount-device", "link", *name))
}

/// A file of rlrun's own (resolv.conf and the like) over the image's.
fn add_file(root: &OwnedFd, scratch: &OwnedFd, name: &str, destination: &str, contents: &[u8]) -> Result<(), Failure> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    let file = openat(scratch, name, flags, FILE_MODE).at("mount-file", "create", destination)?;
    let mut file = std::fs::File::from(file);
    std::io::Write::write_all(&mut file, contents).at("mount-file", "write", destination)?;
    let tree = clone_of(scratch, name).at("mount-file", "open", destination)?;
    let target = target(root, destination, FileType::RegularFile)?;
    attach_fd(&tree, &target).at("mount-file", "mount", destination)
}

pub(crate) fn clone_of(mount: &OwnedFd, name: &str) -> Result<OwnedFd, Errno> {
    open_tree(mount, name, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)
}

fn set_sysctls(root: &OwnedFd, sysctls: &[(String, String)]) -> Result<(), Failure> {
    sysctls.iter().try_for_each(|(name, value)| {
        let path = format!("/proc/sys/{}", name.replace('.', "/"));
        let file = open_in(root, &path, OFlags::WRONLY).at("sysctl", "open sysctl", name)?;
        rustix::io::write(&file, value.as_bytes()).map(drop).at("sysctl", "set sysctl", name)
    })
}

/// A read-only bind of the path on itself; a path that this kernel or image does not have needs none.
fn make_read_only(root: &OwnedFd, path: &str) -> Result<(), Failure> {
    let target = match resolve(root, path) {
        Err(Errno::NOENT) => return Ok(()),
        other => other.at("read-only-path", "open", path)?,
    };
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH
        | OpenTreeFlags::AT_RECURSIVE;
    let tree = open_tree(&target, "", flags).at("read-only-path", "bind", path)?;
    sys::set_mount_attributes(tree.as_fd(), libc::MOUNT_ATTR_RDONLY, 0, true).at(
        "read-only-path",
        "make read-only",
        path,
    )?;
    attach_fd(&tree, &target).at("read-only-path", "mount", path)
}

/// /dev/null over a file, an empty read-only directory over a directory.
fn mask(root: &OwnedFd, scratch: &OwnedFd, path: &str) -> Result<(), Failure> {
    let target = match resolve(root, path) {
        Err(Errno::NOENT) => return Ok(()),
        other => other.at("mask-path", "open", path)?,
    };
    let stat = statat(&target, "", AtFlags::EMPTY_PATH).at("mask-path", "stat", path)?;
    let tree = if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        clone_of(scratch, "empty")
    } else {
        clone_tree(Path::new("/dev/null"), false)
    };
    let tree = tree.at("mask-path", "open a cover for", path)?;
    let set = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC;
    sys::set_mount_attributes(tree.as_fd(), set, 0, false).at("mask-path", "make read-only", path)?;
    attach_fd(&tree, &target).at("mask-path", "cover", path)
}
