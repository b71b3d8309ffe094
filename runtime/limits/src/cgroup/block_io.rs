//! Reading and writing of block devices: `io.max` and `io.weight` of version 2, `blkio.*` of version 1. Pure but for
//! [`unlimited`].

use super::settings::{Setting, set};
use oci_spec::runtime::{LinuxBlockIo, LinuxThrottleDevice};
use rlrun_spec::cgroup::Membership;
use std::fs;

/// What each kind of throttle is called in `io.max`, and its file in version 1.
const THROTTLES: [(&str, &str); 4] = [
    ("rbps", "blkio.throttle.read_bps_device"),
    ("wbps", "blkio.throttle.write_bps_device"),
    ("riops", "blkio.throttle.read_iops_device"),
    ("wiops", "blkio.throttle.write_iops_device"),
];

/// In the order of [`THROTTLES`].
fn throttles(asked: &LinuxBlockIo) -> [&Option<Vec<LinuxThrottleDevice>>; 4] {
    [
        asked.throttle_read_bps_device(),
        asked.throttle_write_bps_device(),
        asked.throttle_read_iops_device(),
        asked.throttle_write_iops_device(),
    ]
}

pub(super) fn settings(asked: &LinuxBlockIo, newer: bool) -> Vec<Setting> {
    let mut all = Vec::new();
    if let Some(weight) = asked.weight().filter(|n| *n > 0) {
        // Which of them there is depends on the schedulers; that none counts is known before.
        let optional = |file: &'static str, value: String| Setting {
            optional: true,
            ..set(if newer { "io" } else { "blkio" }, file, value)
        };
        let bfq = if newer { "io.bfq.weight" } else { "blkio.bfq.weight" };
        all.push(optional(bfq, weight.to_string()));
        if newer {
            all.push(optional("io.weight", format!("default {}", weight_2(weight))));
        } else {
            all.push(optional("blkio.weight", weight.to_string()));
        }
    }
    for ((name, file), devices) in THROTTLES.into_iter().zip(throttles(asked)) {
        for device in devices.iter().flatten() {
            let (number, rate) = (format!("{}:{}", device.major(), device.minor()), device.rate());
            all.push(if newer {
                set("io", "io.max", format!("{number} {name}={rate}"))
            } else {
                set("blkio", file, format!("{number} {rate}"))
            });
        }
    }
    all
}

/// 10 to 1000 of version 1 as 1 to 10000, as crun and runc do.
fn weight_2(weight: u16) -> u32 {
    let weight = u32::from(weight.clamp(10, 1000));
    1 + (weight - 10) * 9999 / 990
}

/// What lifts the limits that the kernel keeps now, before others are set.
#[must_use]
pub fn unlimited(membership: &Membership) -> Vec<Setting> {
    let lines = |file: &str| {
        let mut texts = membership.directories.iter().filter_map(|d| fs::read_to_string(d.join(file)).ok());
        let text = texts.next().unwrap_or_default();
        let device = |line: &str| line.split(' ').next().filter(|word| word.contains(':')).map(str::to_owned);
        text.lines().filter_map(device).collect::<Vec<_>>()
    };
    let newer = lines("io.max").into_iter().map(|device| set("io", "io.max", format!("{device} {}", all("max"))));
    let older = THROTTLES
        .into_iter()
        .flat_map(|(_, file)| lines(file).into_iter().map(move |device| set("blkio", file, format!("{device} 0"))));
    newer.chain(older).collect()
}

fn all(rate: &str) -> String {
    THROTTLES.map(|(name, _)| format!("{name}={rate}")).join(" ")
}

/// A device without a limit has no line.
pub(super) fn is_kept(value: &str, read: &str) -> bool {
    let words: Vec<&str> = value.split(' ').collect();
    let line = read.lines().map(|line| line.split_ascii_whitespace().collect::<Vec<_>>());
    match words[..] {
        [weight] => read.split_ascii_whitespace().last() == Some(weight),
        [device, ref limits @ ..] => match line.into_iter().find(|line| line.first() == Some(&device)) {
            Some(line) => limits.iter().all(|limit| line.contains(limit)),
            None => limits.iter().all(|limit| *limit == "0" || limit.ends_with("=max")),
        },
        [] => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::files::tests::group;
    use oci_spec::runtime::LinuxThrottleDeviceBuilder;

    fn asked() -> LinuxBlockIo {
        let device = |rate: u64| {
            let device = LinuxThrottleDeviceBuilder::default().major(8).minor(16).rate(rate).build();
            Some(vec![device.unwrap()])
        };
        let mut asked = LinuxBlockIo::default();
        asked.set_weight(Some(500)).set_throttle_read_bps_device(device(1 << 20));
        asked.set_throttle_write_iops_device(device(30));
        asked
    }

    fn written(newer: bool) -> Vec<String> {
        settings(&asked(), newer).iter().map(|s| format!("{}={}", s.file, s.value)).collect()
    }

    #[test]
    fn version_2() {
        let expected =
            ["io.bfq.weight=500", "io.weight=default 4950", "io.max=8:16 rbps=1048576", "io.max=8:16 wiops=30"];
        assert_eq!(written(true), expected);
        assert_eq!((weight_2(10), weight_2(1000)), (1, 10_000));
    }

    #[test]
    fn version_1() {
        let expected = [
            "blkio.bfq.weight=500",
            "blkio.weight=500",
            "blkio.throttle.read_bps_device=8:16 1048576",
            "blkio.throttle.write_iops_device=8:16 30",
        ];
        assert_eq!(written(false), expected);
    }

    #[test]
    fn what_is_not_kept_is_found_out() {
        assert!(is_kept("8:16 rbps=5", "8:0 rbps=1 wbps=max\n8:16 rbps=5 wbps=max riops=max wiops=max\n"));
        assert!(!is_kept("8:16 rbps=5", "8:16 rbps=max wbps=5 riops=max wiops=max\n"));
        assert!(!is_kept("8:16 rbps=5", ""));
        assert!(is_kept("8:16 rbps=max wbps=max", ""));
        assert!(is_kept("8:16 5", "8:16 5\n") && !is_kept("8:16 5", "8:1 5\n"));
        assert!(is_kept("8:16 0", ""));
        assert!(is_kept("default 4950", "default 4950\n8:0 1\n"));
        assert!(is_kept("500", "default 500\n") && is_kept("500", "500\n") && !is_kept("500", "100\n"));
    }

    #[test]
    fn what_the_kernel_keeps_is_lifted() {
        let lifted = |files: &[(&str, &str)]| -> Vec<String> {
            unlimited(&group(files).1).iter().map(|s| format!("{}={}", s.file, s.value)).collect()
        };
        let newer = lifted(&[("io.max", "8:16 rbps=5 wbps=max riops=max wiops=max\n")]);
        assert_eq!(newer, ["io.max=8:16 rbps=max wbps=max riops=max wiops=max"]);
        let older = lifted(&[("blkio.throttle.write_bps_device", "8:0 7\n"), ("blkio.throttle.read_bps_device", "")]);
        assert_eq!(older, ["blkio.throttle.write_bps_device=8:0 0"]);
        assert!(lifted(&[]).is_empty());
    }
}
