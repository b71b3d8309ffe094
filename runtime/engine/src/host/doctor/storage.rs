//! Checks: where layers are kept and how they become one root file system.

use super::{Check, Device, Directory, Survey};
use crate::host::filesystem::Place;
use crate::host::overlay::Trial;
use rlrun_spec::hint::{self, Advice, Package};

pub(super) fn checks(survey: &Survey) -> Vec<Check> {
    let native = survey.host.native_overlay && survey.overlay == Trial::Works;
    vec![store(survey), overlay(survey), fuse_overlayfs(survey, native), dev_fuse(survey, native)]
}

fn store(survey: &Survey) -> Check {
    let shown = format!("{} on {}", survey.store.display(), survey.store_fs.name);
    let elsewhere = hint::look_up("data-dir", None).unwrap_or_default();
    if let Directory::ReadOnly(_) = survey.store_dir {
        return Check::fail("store", format!("{shown}: cannot be written"), "images and containers have no place")
            .fix(elsewhere);
    }
    match (survey.store_fs.remark(), survey.store_fs.place) {
        (None, _) => Check::ok("store", shown),
        (Some(remark), Place::Remote) => Check::fail("store", shown, remark).fix(elsewhere),
        (Some(remark), _) => Check::warn("store", shown, remark).fix(elsewhere),
    }
}

fn overlay(survey: &Survey) -> Check {
    let finding = match &survey.overlay {
        Trial::Works if survey.host.native_overlay => return Check::ok("overlay", "the kernel mounts it for you"),
        Trial::Works => "the kernel mounts it for you, but not on the store's file system".to_owned(),
        Trial::Refused(why) => format!("the kernel refuses it: {why}"),
        Trial::NotTried(why) => format!("could not be tried: {why}"),
    };
    let fix = hint::look_up("mount-overlay", Some(rustix::io::Errno::PERM.raw_os_error())).unwrap_or_default();
    Check::warn("overlay", finding, "fuse-overlayfs or a copy takes its place: slower").fix(fix)
}

/// What stands in for the kernel's overlay is not missed while that works.
fn stand_in(name: &'static str, finding: String, native: bool, fix: impl ToString) -> Check {
    if native {
        return Check::ok(name, format!("{finding}; not needed here, except for --userns=keep-id"));
    }
    Check::warn(name, finding, "without it each container starts from a copy of its image").fix(fix)
}

fn fuse_overlayfs(survey: &Survey, native: bool) -> Check {
    match &survey.host.fuse_overlayfs {
        Some(path) => Check::ok("fuse-overlayfs", path.display().to_string()),
        None => {
            let fix = Advice::Install(Package::FuseOverlayfs, survey.around.distro);
            stand_in("fuse-overlayfs", "not installed".to_owned(), native, fix)
        }
    }
}

fn dev_fuse(survey: &Survey, native: bool) -> Check {
    match &survey.dev_fuse {
        Device::Opens => Check::ok("/dev/fuse", "opens"),
        Device::Missing => stand_in("/dev/fuse", "missing".to_owned(), native, hint::NO_FUSE),
        Device::Refuses(why) => stand_in("/dev/fuse", why.clone(), native, hint::DEV_FUSE),
    }
}
