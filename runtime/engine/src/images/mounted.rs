//! `rlrun image mount` and `unmount`: an image to be looked at, in a shell inside the id map. The mount belongs to that
//! shell's mount namespace and ends with it, so that nothing keeps books: who asks reads /proc.

use super::Store;
use crate::containers::{Container, DISK};
use crate::host::programs::Search;
use crate::place::Place;
use crate::request::StorageDriver;
use rlrun_spec::{Failure, Kind, Stage};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Below the data directory: one directory an image, named by its id.
const MOUNTS: &str = "mounts";

/// A mounted image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mounted {
    /// Its id, `sha256:...`.
    pub image: String,
    /// Where.
    pub path: PathBuf,
}

/// Mounts an image read-only and says where.
///
/// # Errors
/// Outside of the id map, when there is no such image, or when it cannot be mounted.
pub fn mount(place: &Place, name: &str) -> Result<PathBuf, Failure> {
    inside("mount the image", name)?;
    let store = Store::new(&place.data);
    let _pin = store.pin()?;
    let image = store.resolve(name)?;
    let target = own(place, hex(&image.identity.id))?;
    // Once is enough: it is read-only, and a second layer of mounts would need a second unmount.
    if list(place)?.iter().any(|mounted| mounted.image == image.identity.id) {
        return Ok(target);
    }
    mount_at(place, image.layers, &target)?;
    Ok(target)
}

/// Mounts the files of a container read-only, as they are now, and says where. One that runs goes on changing them.
///
/// # Errors
/// As [`mount`], and when its files are in memory.
pub fn mount_container(place: &Place, container: &Container) -> Result<PathBuf, Failure> {
    let summary = &container.summary;
    inside("mount the files of", &summary.name)?;
    if container.directory.join("sized").exists() {
        return Err(Failure::new(Stage::Cli, Kind::Usage, "image-mount", "mount the files of", summary.name.clone())
            .why("they are in memory, where only the container sees them (--storage-opt size=)"));
    }
    if container.directory.join(DISK).exists() {
        return Err(Failure::new(Stage::Cli, Kind::Usage, "image-mount", "mount the files of", summary.name.clone())
            .why("they are in a file system of limited size, which only the container or one command at a time may serve")
            .hint("rlrun cp and rlrun export read them"));
    }
    let target = own(place, &summary.id)?;
    if mounted_container(place, &summary.id)?.is_some() {
        return Ok(target);
    }
    let store = Store::new(&place.data);
    let _pin = store.pin()?;
    let rootfs = || crate::files::root_directory(container);
    let lowers = match (summary.storage_driver, &summary.image) {
        (StorageDriver::Copy | StorageDriver::Directory, _) => vec![container.directory.join("merged")],
        (_, image) => {
            let layers = match image {
                Some(image) => store.resolve(&image.id)?.layers,
                None => rootfs()?.into_iter().collect(),
            };
            std::iter::once(container.directory.join("upper")).chain(layers).collect()
        }
    };
    mount_at(place, lowers, &target)?;
    Ok(target)
}

/// Where the files of the container with this id are mounted, if they are.
///
/// # Errors
/// When /proc cannot be read.
pub fn mounted_container(place: &Place, id: &str) -> Result<Option<PathBuf>, Failure> {
    let mounted = all(place)?.into_iter().find(|mounted| hex(&mounted.image) == id);
    Ok(mounted.map(|mounted| mounted.path))
}

/// Unmounts them.
///
/// # Errors
/// As [`unmount`].
pub fn unmount_container(place: &Place, id: &str, force: bool) -> Result<(), Failure> {
    inside("unmount the files of", id)?;
    let failure = || Failure::new(Stage::Cli, Kind::Runtime, "image-unmount", "unmount the files of", id);
    match all(place)?.into_iter().find(|mounted| hex(&mounted.image) == id) {
        Some(mounted) => take_away(&mounted, force, failure),
        None => {
            Err(failure().why("they are not mounted").hint("`rlrun mount` lists what is, in this shell and no other"))
        }
    }
}

fn mount_at(place: &Place, mut lowers: Vec<PathBuf>, target: &Path) -> Result<(), Failure> {
    let mounts = place.own(MOUNTS)?;
    // An overlay without an upper layer wants two others; an image may have one, or none.
    for name in ["empty", "nothing"].iter().take(2usize.saturating_sub(lowers.len())) {
        own(place, name)?;
        lowers.push(mounts.join(name));
    }
    let fuse = Search::new().find("fuse-overlayfs");
    rlrun_sandbox::mount_image(&lowers, target, fuse.as_deref())
}

fn own(place: &Place, name: &str) -> Result<PathBuf, Failure> {
    place.own(&format!("{MOUNTS}/{name}"))
}

/// Unmounts an image and gives back its id.
///
/// # Errors
/// Outside of the id map, when it is not mounted, or in use.
pub fn unmount(place: &Place, name: &str, force: bool) -> Result<String, Failure> {
    inside("unmount the image", name)?;
    let id = Store::new(&place.data).resolve(name)?.identity.id;
    let failure = || Failure::new(Stage::Cli, Kind::Runtime, "image-unmount", "unmount the image", name);
    let mounted = list(place)?.into_iter().find(|mounted| mounted.image == id);
    let mounted = mounted.ok_or_else(|| {
        failure().why("it is not mounted").hint("`rlrun image mount` lists what is, in this shell and no other")
    })?;
    take_away(&mounted, force, failure)?;
    Ok(id)
}

/// Unmounts all images of this mount namespace and gives back their ids.
///
/// # Errors
/// As [`unmount`].
pub fn unmount_all(place: &Place, force: bool) -> Result<Vec<String>, Failure> {
    inside("unmount images", "--all")?;
    let mut ids = Vec::new();
    for mounted in list(place)? {
        let failure = || Failure::new(Stage::Cli, Kind::Runtime, "image-unmount", "unmount the image", &mounted.image);
        take_away(&mounted, force, failure)?;
        ids.push(mounted.image.clone());
    }
    Ok(ids)
}

fn take_away(mounted: &Mounted, force: bool, failure: impl FnOnce() -> Failure) -> Result<(), Failure> {
    use rustix::mount::{UnmountFlags, unmount};
    let how = if force { UnmountFlags::DETACH } else { UnmountFlags::empty() };
    unmount(&mounted.path, how | UnmountFlags::NOFOLLOW).map_err(|errno| {
        failure().errno(errno.raw_os_error()).hint("leave the directory, end what uses it, or add --force")
    })
}

/// Which images are mounted in this mount namespace.
///
/// # Errors
/// When /proc cannot be read.
pub fn list(place: &Place) -> Result<Vec<Mounted>, Failure> {
    let containers = place.data.join("containers");
    let mut mounted = all(place)?;
    mounted.retain(|mounted| !containers.join(hex(&mounted.image)).exists());
    Ok(mounted)
}

/// Images and containers.
fn all(place: &Place) -> Result<Vec<Mounted>, Failure> {
    let table = fs::read("/proc/self/mountinfo").map_err(|e| {
        Failure::new(Stage::Cli, Kind::Host, "mountinfo", "read", "/proc/self/mountinfo").why(e.to_string())
    })?;
    Ok(below(&table, &mounts(place)))
}

/// Whether a process of this user looks at the image. Directories of images that were never mounted do not exist, which
/// answers it for nearly all.
pub(crate) fn is_looked_at(place: &Place, id: &str) -> bool {
    let mounts = mounts(place);
    let Ok(own) = fs::metadata(mounts.join(hex(id))) else { return false };
    let Ok(processes) = fs::read_dir("/proc") else { return false };
    // Whoever is not this user's, or ends meanwhile, has no mounts of ours.
    let of_user = processes.flatten().filter(|p| p.metadata().is_ok_and(|m| m.uid() == own.uid()));
    let tables = of_user.filter_map(|p| fs::read(p.path().join("mountinfo")).ok());
    tables.into_iter().any(|table| below(&table, &mounts).iter().any(|mounted| mounted.image == id))
}

/// As the kernel writes it, without links.
fn mounts(place: &Place) -> PathBuf {
    let path = place.data.join(MOUNTS);
    fs::canonicalize(&path).unwrap_or(path)
}

/// The mount points below `mounts` in a mountinfo table (proc_pid_mountinfo(5)).
fn below(table: &[u8], mounts: &Path) -> Vec<Mounted> {
    let points = table.split(|&b| b == b'\n').filter_map(|line| line.split(|&b| b == b' ').nth(4));
    let points = points.map(|point| PathBuf::from(std::ffi::OsString::from_vec(unescape(point))));
    let image = |point: PathBuf| {
        let name = point.strip_prefix(mounts).ok()?.to_str().filter(|name| name.len() == 64)?;
        Some(Mounted { image: format!("sha256:{name}"), path: point })
    };
    let mut found: Vec<Mounted> = points.filter_map(image).collect();
    found.sort_by(|a, b| a.image.cmp(&b.image));
    found.dedup();
    found
}

/// Blanks and the like are written as three octal digits.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, after)) = rest.split_first() {
        let octal = |digits: &[u8]| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok();
        match after.get(..3).filter(|_| first == b'\\').and_then(octal) {
            Some(byte) => {
                out.push(byte);
                rest = &after[3..];
            }
            None => {
                out.push(first);
                rest = after;
            }
        }
    }
    out
}

fn hex(id: &str) -> &str {
    id.strip_prefix("sha256:").unwrap_or(id)
}

/// Mounting takes mapped root with a mount namespace of its own, which a shell inside the id map has.
fn inside(operation: &str, object: &str) -> Result<(), Failure> {
    if rustix::process::geteuid().is_root() && !maps_everything() {
        return Ok(());
    }
    Err(Failure::new(Stage::Cli, Kind::Usage, "image-mount", operation, object)
        .why("only root of a user namespace may mount, and this is none")
        .hint(
            "start a shell there with `rlrun unshare`, then repeat the command; the mount lasts as long as the shell",
        ))
}

/// The initial user namespace maps all ids to themselves (user_namespaces(7)).
fn maps_everything() -> bool {
    let map = fs::read("/proc/self/uid_map").unwrap_or_default();
    let fields: Vec<&OsStr> =
        map.split(u8::is_ascii_whitespace).filter(|f| !f.is_empty()).map(OsStr::from_bytes).collect();
    fields == ["0", "0", "4294967295"]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_found_in_the_table() {
        let id = "a".repeat(64);
        let table = format!(
            "22 1 254:0 / / rw - ext4 /dev/vda rw\n70 22 0:50 / /data\\040dir/mounts/{id} ro - overlay overlay ro\n\
             71 22 0:51 / /data\\040dir/mounts/{id}/sub ro - tmpfs none ro\n72 22 0:50 / /data\\040dir/mounts/empty ro - x y ro\n"
        );
        let found = below(table.as_bytes(), Path::new("/data dir/mounts"));
        let path = PathBuf::from(format!("/data dir/mounts/{id}"));
        assert_eq!(found, [Mounted { image: format!("sha256:{id}"), path }]);
        assert_eq!(below(b"\n broken", Path::new("/")), []);
    }

    #[test]
    fn escapes_are_undone_and_others_kept() {
        assert_eq!(unescape(b"a\\040b\\134c"), b"a b\\c");
        assert_eq!(unescape(b"\\9\\0"), b"\\9\\0");
        assert_eq!(unescape(b"\\777"), b"\\777");
    }
}
