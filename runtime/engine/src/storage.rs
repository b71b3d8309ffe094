//! How the layers of an image become one root file system: the kernel's overlay where it works, fuse-overlayfs where
//! it does not, a copy last.

use crate::host::cause::Surroundings;
use crate::request::StorageDriver;
use rlrun_spec::container::UserNamespace;
use rlrun_spec::hint::{self, Advice, Package};
use rlrun_spec::host::HostFacts;
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
            // Only fuse-overlayfs can show owners shifted, which `keep-id` needs.
            (true, UserNamespace::Default, _) | (true, UserNamespace::KeepId { .. }, Err(_)) => {
                plain(StorageDriver::Overlay)
            }
            (true, UserNamespace::KeepId { .. }, Ok(fuse)) | (false, _, Ok(fuse)) => fuse,
            (false, _, Err(why)) => Storage { fell_back: Some(why), ..plain(StorageDriver::Copy) },
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

/// What makes fuse-overlayfs work on a host where it does not.
pub(crate) fn fuse_advice(host: &HostFacts) -> String {
    let advice = match host.fuse_overlayfs {
        Some(_) if host.dev_fuse => return "leave --storage-driver out".to_owned(),
        Some(_) if Path::new("/dev/fuse").exists() => Advice::Fixed(hint::DEV_FUSE),
        Some(_) => Advice::Fixed(hint::NO_FUSE),
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
