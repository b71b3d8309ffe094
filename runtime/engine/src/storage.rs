//! How the layers of an image become one root file system: the kernel's overlay where it works, fuse-overlayfs where
//! it does not, a copy last.

use crate::host::cause::Surroundings;
use crate::host::programs::Search;
use crate::request::StorageDriver;
use crate::request::limits::LimitRequest;
use rlrun_spec::container::UserNamespace;
use rlrun_spec::hint::{self, Advice, Package};
use rlrun_spec::host::HostFacts;
use rlrun_spec::plan::{Disk, DiskPrograms};
use rlrun_spec::{Failure, IdMapping, Kind, Stage};
use std::path::{Path, PathBuf};

/// The decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Storage {
    /// Which driver.
    pub driver: StorageDriver,
    /// Absolute path of fuse-overlayfs, for that driver.
    pub fuse_binary: Option<PathBuf>,
    /// Why the first choice was passed over.
    pub fell_back: Option<&'static str>,
}

/// Decides, or takes what the user forces.
///
/// # Errors
/// When the forced driver cannot work on this host.
pub fn choose(forced: Option<StorageDriver>, host: &HostFacts, userns: &UserNamespace) -> Result<Storage, Failure> {
    let plain = |driver| Storage { driver, fuse_binary: None, fell_back: None };
    match forced {
        Some(StorageDriver::Overlay) if !host.native_overlay => Err(impossible("mount-overlay", "overlay")
            .why("this kernel and file system mount no overlay for an ordinary user")
            .hint("leave --storage-driver out, or use fuse-overlayfs or copy")),
        Some(StorageDriver::FuseOverlayfs) => {
            fuse(host).map_err(|why| impossible("mount-fuse", "fuse-overlayfs").why(why).hint(fuse_advice(host)))
        }
        Some(driver) => Ok(plain(driver)),
        None => Ok(match (host.native_overlay, userns, fuse(host)) {
            // Only fuse-overlayfs can show owners shifted, which other maps than the usual one need.
            (true, UserNamespace::Default, _) | (true, _, Err(_)) => plain(StorageDriver::Overlay),
            (true, _, Ok(fuse)) | (false, _, Ok(fuse)) => fuse,
            (false, _, Err(why)) => Storage { fell_back: Some(why), ..plain(StorageDriver::Copy) },
        }),
    }
}

/// Which program makes a mount of layers, one beside the root file system: as that is made, or as the host can.
///
/// # Errors
/// When it can not.
pub fn overlays(root: &Storage, host: &HostFacts) -> Result<Storage, Failure> {
    match root.driver {
        StorageDriver::Overlay | StorageDriver::FuseOverlayfs => Ok(root.clone()),
        StorageDriver::Copy | StorageDriver::Directory if host.native_overlay => {
            Ok(Storage { driver: StorageDriver::Overlay, fuse_binary: None, fell_back: None })
        }
        StorageDriver::Copy | StorageDriver::Directory => fuse(host).map_err(|why| {
            Failure::new(Stage::Cli, Kind::Host, "mount-overlay", "make", "an overlay").why(why).hint(fuse_advice(host))
        }),
    }
}

fn fuse(host: &HostFacts) -> Result<Storage, &'static str> {
    match (&host.fuse_overlayfs, host.dev_fuse) {
        (Some(binary), true) => {
            Ok(Storage { driver: StorageDriver::FuseOverlayfs, fuse_binary: Some(binary.clone()), fell_back: None })
        }
        (None, _) => Err("fuse-overlayfs is not installed"),
        (Some(_), false) => Err("/dev/fuse cannot be opened"),
    }
}

/// The driver to force where what is written is limited: only fuse-overlayfs can write on fuse2fs.
#[must_use]
pub fn forced(asked: Option<StorageDriver>, limits: &LimitRequest, remove: bool) -> Option<StorageDriver> {
    asked.or_else(|| (limits.disk.is_some() && !remove).then_some(StorageDriver::FuseOverlayfs))
}

/// How what is written is limited: in memory when it goes with the container anyway, else in a file.
///
/// # Errors
/// When the host lacks what it takes.
pub fn disk(limits: &LimitRequest, remove: bool, host: &HostFacts) -> Result<Option<Disk>, Failure> {
    let Some(size) = limits.disk else { return Ok(None) };
    if remove {
        return Ok(Some(Disk { size, file: None }));
    }
    match disk_programs(host) {
        Ok(programs) => Ok(Some(Disk { size, file: Some(programs) })),
        Err(why) => {
            let failure = Failure::new(Stage::Cli, Kind::Host, "limits", "limit", "what the container writes").why(why);
            let hint = match host.dev_fuse {
                false => dev_fuse_advice(),
                true => Advice::Install(Package::Fuse2fs, Surroundings::read().distro),
            };
            Err(failure.hint(format!("{hint}; with --rm it is kept in memory, which needs nothing")))
        }
    }
}

/// What serves a file system in a file. Looked for only where it is asked for.
///
/// # Errors
/// With what is missing.
pub(crate) fn disk_programs(host: &HostFacts) -> Result<DiskPrograms, &'static str> {
    let search = Search::new();
    if !host.dev_fuse {
        return Err("/dev/fuse cannot be opened");
    }
    let mke2fs = search.find("mke2fs").ok_or("mke2fs is not installed")?;
    let e2fsck = search.find("e2fsck").ok_or("e2fsck is not installed")?;
    let fuse2fs = search.find("fuse2fs").ok_or("fuse2fs is not installed")?;
    Ok(DiskPrograms { mke2fs, e2fsck, fuse2fs })
}

/// What makes a /dev/fuse that cannot be opened one that can.
fn dev_fuse_advice() -> Advice {
    Advice::Fixed(if Path::new("/dev/fuse").exists() { hint::DEV_FUSE } else { hint::NO_FUSE })
}

/// What makes fuse-overlayfs work on a host where it does not.
pub(crate) fn fuse_advice(host: &HostFacts) -> String {
    let advice = match host.fuse_overlayfs {
        Some(_) if host.dev_fuse => return "leave --storage-driver out".to_owned(),
        Some(_) => dev_fuse_advice(),
        None => Advice::Install(Package::FuseOverlayfs, Surroundings::read().distro),
    };
    advice.to_string()
}

fn impossible(step: &str, driver: &str) -> Failure {
    Failure::new(Stage::Cli, Kind::Host, step, "use the storage driver", driver)
}

/// How owners on disk are to be shown. Layers were unpacked in the map `unpacked`; a container with the map `own` sees
/// those host ids under other numbers (`host` of the result), which are to be shown as the image's (`container`).
#[must_use]
pub fn shown(unpacked: &[IdMapping], own: &[IdMapping]) -> Vec<IdMapping> {
    let mut lines = Vec::new();
    for image in unpacked {
        for seen in own {
            let start = image.host.max(seen.host);
            let end = image.host.saturating_add(image.count).min(seen.host.saturating_add(seen.count));
            if start < end {
                lines.push(IdMapping {
                    container: image.container + (start - image.host),
                    host: seen.container + (start - seen.host),
                    count: end - start,
                });
            }
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::{idmap, test_facts};

    const KEEP: UserNamespace = UserNamespace::KeepId { uid: 1500, gid: 1500 };

    fn driver(host: &HostFacts, userns: &UserNamespace) -> StorageDriver {
        choose(None, host, userns).unwrap().driver
    }

    #[test]
    fn the_best_driver_that_works_is_chosen() {
        let mut host = test_facts();
        assert_eq!(driver(&host, &UserNamespace::Default), StorageDriver::Overlay);
        assert_eq!(driver(&host, &KEEP), StorageDriver::FuseOverlayfs);
        host.native_overlay = false;
        assert_eq!(driver(&host, &UserNamespace::Default), StorageDriver::FuseOverlayfs);
        host.dev_fuse = false;
        let last = choose(None, &host, &UserNamespace::Default).unwrap();
        assert_eq!((last.driver, last.fell_back), (StorageDriver::Copy, Some("/dev/fuse cannot be opened")));
    }

    #[test]
    fn a_forced_driver_that_cannot_work_is_an_error_with_advice() {
        let mut host = test_facts();
        (host.native_overlay, host.dev_fuse) = (false, false);
        for forced in [StorageDriver::Overlay, StorageDriver::FuseOverlayfs] {
            assert!(choose(Some(forced), &host, &KEEP).unwrap_err().hint.is_some(), "{forced}");
        }
        assert!(choose(Some(StorageDriver::Copy), &host, &KEEP).is_ok());
    }

    #[test]
    fn owners_are_shown_as_the_image_has_them() {
        let host = test_facts();
        let unpacked = idmap::plan(&host, &UserNamespace::Default).unwrap().maps;
        let own = idmap::plan(&host, &KEEP).unwrap().maps;
        let lines = shown(&unpacked.uids, &own.uids);
        for image_id in [0, 1, 1499, 1500, 1501, 65535] {
            let on_disk = unpacked.host_uid(image_id).unwrap();
            let seen = own.uids.iter().find(|m| (m.host..m.host + m.count).contains(&on_disk)).unwrap();
            let seen = seen.container + (on_disk - seen.host);
            let back = lines.iter().find(|l| (l.host..l.host + l.count).contains(&seen)).unwrap();
            assert_eq!(back.container + (seen - back.host), image_id);
        }
    }
}
