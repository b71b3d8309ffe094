//! Paths of /proc and /sys that are hidden or read-only: what tells about or changes the host.

use crate::request::security::SecurityRequest;

/// Hidden by /dev/null or an empty directory; those that a kernel lacks are passed over.
const MASKED: [&str; 13] = [
    // Tables of the firmware, and switches of the machine.
    "/proc/acpi",
    "/sys/firmware",
    // Which device raises which interrupt: enough to follow keystrokes of others.
    "/proc/interrupts",
    // The kernel's memory.
    "/proc/kcore",
    // Keyrings have no namespace.
    "/proc/keys",
    // Names and timings of the host's processes.
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/timer_list",
    "/proc/timer_stats",
    // The host's disks.
    "/proc/scsi",
    "/sys/dev/block",
    // Energy counters leak what the CPU computes (CVE-2020-8694).
    "/sys/devices/virtual/powercap",
    "/sys/fs/selinux",
];

/// Visible, but writing to them would change the host.
const READ_ONLY: [&str; 6] = ["/proc/asound", "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Both lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// Hidden.
    pub masked: Vec<String>,
    /// Read-only.
    pub read_only: Vec<String>,
}

/// What `mask=`, `unmask=` and `--privileged` leave of the two lists.
#[must_use]
pub fn plan(security: &SecurityRequest, privileged: bool) -> Paths {
    let open = privileged || security.unmask.all;
    let kept = |list: &[&str]| -> Vec<String> {
        let listed = list.iter().filter(|path| !open && !security.unmask.paths.iter().any(|u| u == *path));
        listed.map(|path| (*path).to_owned()).collect()
    };
    let mut masked = kept(&MASKED);
    for path in &security.mask {
        if !masked.contains(path) {
            masked.push(path.clone());
        }
    }
    Paths { masked, read_only: kept(&READ_ONLY) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::security::request;

    fn paths(words: &[&str]) -> Paths {
        plan(&request(&words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>()).unwrap(), false)
    }

    #[test]
    fn unmasking_one_path_leaves_the_others() {
        let paths = paths(&["unmask=/proc/kcore:/proc/sys"]);
        assert_eq!((paths.masked.len(), paths.read_only.len()), (12, 5));
        assert!(!paths.masked.contains(&"/proc/kcore".to_owned()));
    }

    #[test]
    fn unmasking_all_keeps_what_the_user_masks() {
        let paths = paths(&["unmask=ALL", "mask=/proc/cpuinfo:/proc/cpuinfo"]);
        assert_eq!(paths, Paths { masked: vec!["/proc/cpuinfo".into()], read_only: vec![] });
    }
}
