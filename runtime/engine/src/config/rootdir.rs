//! `--rootfs`: a directory of the host in the place of an image.

use crate::request::RootDirectory;
use rlrun_image::{ImageConfig, Provenance, ResolvedImage};
use rlrun_spec::{Failure, ImageIdentity, Kind, Stage};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::path::Path;

/// As much as an image may have (`/etc/passwd`, `/etc/group`).
const MOST_BYTES: u64 = 1 << 20;

/// What there is in the place of an image: one layer, the directory itself, with every symlink resolved.
///
/// # Errors
/// When there is no such directory.
pub fn stand_in(root: &RootDirectory) -> Result<ResolvedImage, Failure> {
    let failure =
        || Failure::new(Stage::Cli, Kind::Usage, "open-rootfs", "use as root", root.path.display().to_string());
    let hint =
        "with --rootfs the first word is a directory with a root file system: rlrun run --rootfs DIRECTORY COMMAND";
    let real = root.path.canonicalize().map_err(|e| failure().why(e.to_string()).hint(hint))?;
    if !real.is_dir() {
        return Err(failure().why("it is no directory").hint(hint));
    }
    let Some(text) = real.to_str().map(str::to_owned) else {
        return Err(failure().why("its real path is not UTF-8").hint(hint));
    };
    let (passwd, group) = (file(&real, "etc/passwd"), file(&real, "etc/group"));
    Ok(ResolvedImage {
        identity: ImageIdentity { reference: text, digest: String::new(), id: String::new(), platform: String::new() },
        config: ImageConfig::default(),
        layers: vec![real],
        passwd,
        group,
        provenance: Provenance::default(),
    })
}

/// A file of its, found as a process inside would find it: a symlink leads nowhere but into the root.
fn file(root: &Path, path: &str) -> Option<String> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root: OwnedFd = openat(CWD, root, flags, Mode::empty()).ok()?;
    // Not blocking: it may be a pipe.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let file = File::from(openat2(&root, path, flags, Mode::empty(), how).ok()?);
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let mut text = String::new();
    file.take(MOST_BYTES).read_to_string(&mut text).ok()?;
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_are_those_of_the_root_whatever_its_links_say() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", dir.path().join("etc/passwd")).unwrap();
        std::os::unix::fs::symlink("../../other", dir.path().join("etc/group")).unwrap();
        let mut other = File::create(dir.path().join("other")).unwrap();
        std::io::Write::write_all(&mut other, b"g:x:7:\n").unwrap();
        let found = stand_in(&RootDirectory { path: dir.path().to_owned(), overlay: false }).unwrap();
        assert_eq!((found.passwd, found.group.as_deref()), (None, Some("g:x:7:\n")));
        assert_eq!(found.layers, [dir.path().canonicalize().unwrap()]);
        let missing = RootDirectory { path: dir.path().join("no"), overlay: false };
        assert!(stand_in(&missing).unwrap_err().hint.is_some());
    }
}
