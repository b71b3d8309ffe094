//! What a test needs of the host. An unmet need skips the test and says so; `RLRUN_MUST_HAVE` (names separated by
//! commas, or `all`) turns that skip into a failure, so that a machine that is meant to have something cannot hide
//! that it has not.

use crate::user::Ordinary;
use std::path::Path;
use std::process::Stdio;
use std::sync::OnceLock;

/// One need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// User namespaces for an ordinary user.
    Userns,
    /// Subordinate ids and the programs that write them.
    Subid,
    /// Overlay mounts inside a user namespace.
    Overlay,
    /// fuse-overlayfs and /dev/fuse.
    Fuse,
    /// The same, and fuse2fs with mke2fs and e2fsck.
    Fuse2fs,
    /// slirp4netns and /dev/net/tun.
    Slirp,
    /// The test itself runs as root, to change the host.
    Root,
    /// docker-registry.
    Registry,
    /// openssl(1).
    Openssl,
    /// skopeo(1) and umoci(1), as independent writers of images.
    Skopeo,
    /// gpg(1) and gpgv(1).
    Gpg,
    /// podman(1), as another reader and writer of images.
    Podman,
    /// A cgroup of the ordinary user's, delegated or writable; `all` does not mean it, only its name.
    Cgroup,
    /// The same with the controller of block devices.
    CgroupIo,
    /// clang(1) with a C library for WebAssembly.
    WasmC,
    /// What packs Python into a component.
    WasmPython,
    /// runc(8), as another writer of bundles.
    Runc,
}

impl Need {
    fn name(self) -> &'static str {
        match self {
            Need::Userns => "userns",
            Need::Subid => "subid",
            Need::Overlay => "overlay",
            Need::Fuse => "fuse",
            Need::Fuse2fs => "fuse2fs",
            Need::Slirp => "slirp",
            Need::Root => "root",
            Need::Registry => "registry",
            Need::Openssl => "openssl",
            Need::Skopeo => "skopeo",
            Need::Gpg => "gpg",
            Need::Podman => "podman",
            Need::Cgroup => "cgroup",
            Need::CgroupIo => "cgroup-io",
            Need::WasmC => "wasm-c",
            Need::WasmPython => "wasm-python",
            Need::Runc => "runc",
        }
    }

    fn probe(self) -> bool {
        match self {
            Need::Userns => as_user("unshare", &["--user", "--map-root-user", "true"]),
            Need::Subid => as_user("unshare", &["--user", "--map-root-user", "--map-auto", "true"]),
            Need::Overlay => as_user("unshare", &["--user", "--map-root-user", "--mount", "sh", "-c", MOUNT_OVERLAY]),
            Need::Fuse => on_path("fuse-overlayfs") && opens("/dev/fuse"),
            Need::Fuse2fs => Need::Fuse.met() && ["fuse2fs", "mke2fs", "e2fsck", "dumpe2fs"].into_iter().all(on_path),
            Need::Slirp => on_path("slirp4netns") && opens("/dev/net/tun"),
            Need::Root => nix::unistd::geteuid().is_root(),
            Need::Registry => on_path("docker-registry"),
            Need::Openssl => on_path("openssl"),
            Need::Skopeo => on_path("skopeo") && on_path("umoci"),
            Need::Gpg => on_path("gpg") && on_path("gpgv"),
            Need::Podman => on_path("podman"),
            Need::Cgroup => as_user("sh", &["-c", HAS_CGROUP]),
            Need::CgroupIo => as_user("sh", &["-c", HAS_CGROUP_IO]),
            Need::WasmC => on_path("clang") && on_path("wasm-ld") && Path::new("/usr/include/wasm32-wasi").exists(),
            Need::WasmPython => on_path("componentize-py"),
            Need::Runc => on_path("runc"),
        }
    }

    fn met(self) -> bool {
        // Each need is probed at most once in a process.
        static ANSWERS: [OnceLock<bool>; 17] = [const { OnceLock::new() }; 17];
        *ANSWERS[self as usize].get_or_init(|| self.probe())
    }

    fn must_be_met(self) -> bool {
        let declared = std::env::var("RLRUN_MUST_HAVE").unwrap_or_default();
        declared
            .split(',')
            .map(str::trim)
            .any(|name| name == self.name() || (name == "all" && ![Need::Cgroup, Need::CgroupIo].contains(&self)))
    }
}

/// On a tmpfs of its own, so that nothing on the host is touched.
const MOUNT_OVERLAY: &str = "mount -t tmpfs none /tmp && mkdir /tmp/l /tmp/u /tmp/w /tmp/m \
    && mount -t overlay -o lowerdir=/tmp/l,upperdir=/tmp/u,workdir=/tmp/w,userxattr none /tmp/m";

/// A systemd user manager, or a cgroup of this process's own to make others in.
const HAS_CGROUP: &str = "test -w /run/user/$(id -u)/systemd/private -a -f /sys/fs/cgroup/cgroup.controllers && exit; \
    while IFS=: read -r _ controllers path; do for name in $(echo $controllers | tr , ' '); do \
    case $name in memory) test -w /sys/fs/cgroup/$name$path && exit 0;; esac; done; done </proc/self/cgroup; exit 1";

/// Whether all needs are met; says which is not.
pub(crate) fn all_met(needs: &[Need]) -> bool {
    let Some(unmet) = needs.iter().find(|need| !need.met()) else { return true };
    assert!(!unmet.must_be_met(), "this host must have {} (RLRUN_MUST_HAVE) and has not", unmet.name());
    println!("skipped: {}", unmet.name());
    false
}

fn as_user(program: &str, args: &[&str]) -> bool {
    let mut command = Ordinary::get().command(program);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn opens(device: &str) -> bool {
    as_user("sh", &["-c", &format!("exec 3<>{device}")])
}

fn on_path(program: &str) -> bool {
    ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"]
        .iter()
        .any(|directory| Path::new(directory).join(program).exists())
}

/// Version 1's own, or the directory above the one of this process.
const HAS_CGROUP_IO: &str = "while IFS=: read -r _ controllers path; do \
    case $controllers in blkio) test -w /sys/fs/cgroup/blkio$path && exit 0;; \
    '') above=/sys/fs/cgroup${path%/*}; test -w $above && grep -qw io $above/cgroup.controllers && exit 0;; esac; \
    done </proc/self/cgroup; exit 1";
