//! `--blkio-weight` and the rates of devices: only a cgroup's io controller can hold them, and not everywhere all of it.

use super::controls::weak;
use super::limits::{limit, refused};
use crate::request::limits::device_rate;
use nix::sys::stat::{major, minor};
use oci_spec::runtime::{LinuxBlockIo, LinuxThrottleDevice, LinuxThrottleDeviceBuilder};
use rlrun_spec::host::{Cgroup, HostFacts};
use rlrun_spec::{Control, Enforced, Failure};
use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

/// Whether what is to be slowed down is there. The weight is no device's.
pub(super) fn check(option: &str, value: &str) -> Result<(), Failure> {
    let Some((path, _)) = device_rate(option, value) else { return Ok(()) };
    let found = fs::metadata(path).map_err(|e| refused(option, value, &e.to_string()))?;
    if !found.file_type().is_block_device() {
        return Err(refused(option, value, "it is no block device"));
    }
    match whole(found.rdev()) {
        // ENODEV from io.max otherwise.
        Some(disk) => Err(refused(option, value, "it is a partition, and the kernel limits whole devices")
            .hint(format!("this is the whole: {}", disk.display()))),
        None => Ok(()),
    }
}

/// The disk that a partition is of.
fn whole(device: u64) -> Option<PathBuf> {
    let sys = PathBuf::from(format!("/sys/dev/block/{}:{}", major(device), minor(device)));
    if !sys.join("partition").exists() {
        return None;
    }
    let name = fs::canonicalize(sys).ok()?.parent()?.file_name()?.to_owned();
    Some(Path::new("/dev").join(name))
}

/// The OCI section.
pub(super) fn resources(asked: &[(String, String)]) -> Option<LinuxBlockIo> {
    let mut all = LinuxBlockIo::default();
    let weight = asked.iter().rev().find(|(option, _)| option == "--blkio-weight");
    all.set_weight(weight.and_then(|(_, value)| value.parse().ok()));
    let of = |option: &str| {
        let values = asked.iter().filter(|(name, _)| name == option).map(|(_, value)| value);
        let devices: Vec<_> = values.filter_map(|value| device(option, value)).collect();
        (!devices.is_empty()).then_some(devices)
    };
    all.set_throttle_read_bps_device(of("--device-read-bps"));
    all.set_throttle_write_bps_device(of("--device-write-bps"));
    all.set_throttle_read_iops_device(of("--device-read-iops"));
    all.set_throttle_write_iops_device(of("--device-write-iops"));
    (all != LinuxBlockIo::default()).then_some(all)
}

fn device(option: &str, value: &str) -> Option<LinuxThrottleDevice> {
    let (path, rate) = device_rate(option, value)?;
    let number = fs::metadata(path).ok()?.rdev();
    let signed = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let (major, minor) = (signed(major(number)), signed(minor(number)));
    LinuxThrottleDeviceBuilder::default().major(major).minor(minor).rate(rate).build().ok()
}

/// Without a cgroup nothing holds.
pub(super) fn control(option: &str, value: &str) -> Control {
    let why = "only a cgroup with the io controller can limit it, and none is the caller's";
    weak(limit(option.trim_start_matches('-'), value, "none"), Enforced::No, why)
}

/// The file that holds it.
pub(super) fn file(option: &str, newer: bool) -> &'static str {
    match (option, newer) {
        ("--blkio-weight", true) => "io.weight",
        ("--blkio-weight", false) => "blkio.bfq.weight",
        (_, true) => "io.max",
        ("--device-read-bps", false) => "blkio.throttle.read_bps_device",
        ("--device-write-bps", false) => "blkio.throttle.write_bps_device",
        ("--device-read-iops", false) => "blkio.throttle.read_iops_device",
        (_, false) => "blkio.throttle.write_iops_device",
    }
}

/// How much of it holds although the file takes it.
pub(super) fn truth(option: &str, control: Control, host: &HostFacts, lasting: bool) -> Control {
    if option == "--blkio-weight" {
        return match weighing() {
            Weighing::All => control,
            Weighing::Some(disks) => {
                let why = format!("only the scheduler bfq weighs, which is that of {disks} alone");
                weak(control, Enforced::Partly, why)
            }
            Weighing::None => {
                let why = "no disk has a scheduler that weighs (bfq), and io.cost is off: the kernel takes it and does \
                           nothing with it";
                weak(control, Enforced::No, why)
            }
        };
    }
    let kept_apart = matches!(host.cgroup, Cgroup::V2 { .. }) && host.cgroup.has("memory");
    if lasting || !host.native_overlay {
        let why =
            "what fuse-overlayfs or fuse2fs reads and writes for the root file system is theirs, not the container's";
        weak(control, Enforced::Partly, why)
    } else if option.contains("write") && !kept_apart {
        let why = "what goes through the page cache is written later by the kernel itself, for nobody";
        weak(control, Enforced::Partly, why)
    } else {
        control
    }
}

/// Which disks look at weights.
#[derive(Debug, PartialEq, Eq)]
enum Weighing {
    All,
    /// Their names.
    Some(String),
    None,
}

fn weighing() -> Weighing {
    let cost = fs::read_to_string("/sys/fs/cgroup/io.cost.qos").unwrap_or_default();
    if cost.contains("enable=1") {
        return Weighing::All;
    }
    let disks = fs::read_dir("/sys/block").into_iter().flatten().flatten();
    let scheduler = |disk: &fs::DirEntry| fs::read_to_string(disk.path().join("queue/scheduler")).ok();
    let all: Vec<(String, String)> =
        disks.filter_map(|disk| Some((disk.file_name().to_string_lossy().into_owned(), scheduler(&disk)?))).collect();
    weighed(&all)
}

/// A disk that is nothing but memory or a file has no scheduler to choose.
fn weighed(schedulers: &[(String, String)]) -> Weighing {
    let real: Vec<_> = schedulers.iter().filter(|(_, all)| all.trim() != "none").collect();
    let mut with: Vec<&str> =
        real.iter().filter(|(_, all)| all.contains("[bfq]")).map(|(name, _)| name.as_str()).collect();
    with.sort_unstable();
    match with.len() {
        0 => Weighing::None,
        n if n == real.len() => Weighing::All,
        _ => Weighing::Some(with.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(option: &str, value: &str) -> Vec<(String, String)> {
        vec![(option.to_owned(), value.to_owned())]
    }

    #[test]
    fn options_become_the_section() {
        assert_eq!(resources(&[]), None);
        assert_eq!(resources(&asked("--blkio-weight", "300")).unwrap().weight(), Some(300));
        // Character devices have numbers too; `check` is what refuses them.
        let section = resources(&asked("--device-write-iops", "/dev/null:7")).unwrap();
        let device = section.throttle_write_iops_device().as_ref().unwrap()[0];
        assert_eq!((device.major(), device.minor(), device.rate()), (1, 3, 7));
    }

    #[test]
    fn a_weight_counts_where_a_scheduler_weighs() {
        let disk = |name: &str, all: &str| (name.to_owned(), format!("{all}\n"));
        assert_eq!(weighed(&[disk("vda", "[none] mq-deadline"), disk("ram0", "none")]), Weighing::None);
        assert_eq!(weighed(&[disk("sda", "[bfq] none"), disk("loop0", "none")]), Weighing::All);
        let some = weighed(&[disk("sda", "[bfq] none"), disk("vda", "[mq-deadline] none")]);
        assert_eq!(some, Weighing::Some("sda".to_owned()));
    }

    #[test]
    fn what_holds_only_in_part_is_told() {
        let access = rlrun_spec::host::CgroupAccess::Directory("/x".into());
        let delegated = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
        let mut host = crate::host::test_facts();
        host.native_overlay = true;
        host.cgroup = Cgroup::V2 { delegated: delegated(&["io", "memory"]), access: access.clone() };
        let of =
            |option: &str, host: &HostFacts, lasting| truth(option, limit("x", "1", "io.max"), host, lasting).enforced;
        assert_eq!(of("--device-write-bps", &host, false), Enforced::Yes);
        assert_eq!(of("--device-read-bps", &host, true), Enforced::Partly);
        host.cgroup = Cgroup::V2 { delegated: delegated(&["io"]), access };
        assert_eq!(of("--device-write-bps", &host, false), Enforced::Partly);
        assert_eq!(of("--device-read-iops", &host, false), Enforced::Yes);
        host.native_overlay = false;
        assert_eq!(of("--device-read-bps", &host, false), Enforced::Partly);
    }
}
