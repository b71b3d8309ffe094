//! Reads the host facts. On the path of every `rlrun run`: a few dozen system calls, no process, no directory scan.

use super::account::{self, Account};
use super::cause::IdKind;
use super::filesystem::FileSystem;
use super::programs::Search;
use super::{cgroup, getsubids, overlay, subid, text, userns};
use rlrun_spec::{HostFacts, IdRange};
use rustix::fs::{Mode, OFlags};
use std::path::Path;

/// The facts as they are now. `store` is the directory that will hold layers; it need not exist yet.
#[must_use]
pub fn probe(store: &Path) -> HostFacts {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let kernel = kernel(&rustix::system::uname().release().to_string_lossy());
    let account = account::of(uid);
    let programs = Search::new();
    HostFacts {
        kernel,
        uid,
        gid,
        subuids: subordinate(IdKind::User, &account, uid, uid),
        subgids: subordinate(IdKind::Group, &account, uid, gid),
        user: account.name,
        local_account: account.local,
        newuidmap: programs.newuidmap(),
        newgidmap: programs.newgidmap(),
        userns_blocked: userns::Switches::read(Path::new("/proc")).block(uid),
        fuse_overlayfs: programs.find("fuse-overlayfs"),
        dev_fuse: opens("/dev/fuse"),
        slirp4netns: programs.find("slirp4netns"),
        dev_net_tun: opens("/dev/net/tun"),
        native_overlay: FileSystem::of(store).can_be_upper(kernel) && overlay::known_verdict(store) != Some(false),
        cgroup: cgroup::probe(uid),
        unprivileged_port_start: unprivileged_port_start(),
    }
}

/// Ranges that can be mapped beside the caller's own id. A file that cannot be read grants nothing; doctor says so.
fn subordinate(kind: IdKind, account: &Account, uid: u32, own: u32) -> Vec<IdRange> {
    let owner = subid::Owner { name: &account.name, uid };
    let mut granted = subid::granted(&subid::read(Path::new(kind.file())).unwrap_or_default(), owner);
    if granted.is_empty() && getsubids::configured() {
        granted = getsubids::ask(kind, &account.name);
    }
    let map = match kind {
        IdKind::User => "/proc/self/uid_map",
        IdKind::Group => "/proc/self/gid_map",
    };
    let known = text::small(map).map(|map| subid::known_ids(&map)).unwrap_or_default();
    subid::usable(&granted, own, &known)
}

/// Opening is the only true answer: a device cgroup or an LSM may refuse what the mode allows.
fn opens(device: &str) -> bool {
    rustix::fs::open(device, OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty()).is_ok()
}

/// Major and minor number of a release like `6.1.0-18-amd64`; what is no number is 0.
fn kernel(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// The sysctl came with Linux 4.11; before, and where IPv4 is off, the limit was 1024 (ip(7)).
fn unprivileged_port_start() -> u16 {
    let start = text::small("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    start.and_then(|text| text.trim().parse().ok()).unwrap_or(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_releases_of_all_makes() {
        assert_eq!(kernel("6.18.44-fc-v669"), (6, 18));
        assert_eq!(kernel("5.10-rc1"), (5, 10));
        assert_eq!(kernel("4.18.0-553.el8_10.x86_64"), (4, 18));
        assert_eq!(kernel("weird"), (0, 0));
    }

    #[test]
    fn a_probe_tells_this_host_without_fail() {
        let facts = probe(Path::new("/no/such/store"));
        assert!(facts.kernel >= (4, 0), "{facts:?}");
        assert_eq!(facts.uid, rustix::process::geteuid().as_raw());
        assert!(!facts.user.is_empty());
    }
}
