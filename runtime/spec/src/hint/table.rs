//! The rows. A row says what to type or which file to change; why it failed is the failure's own business.

// Numbers of x86_64 and aarch64 (errno(3)); this crate has no libc.
const EPERM: i32 = 1;
const ENOENT: i32 = 2;
const ENOEXEC: i32 = 8;
const EAGAIN: i32 = 11;
const EACCES: i32 = 13;
const ENODEV: i32 = 19;
const ENOTDIR: i32 = 20;
const EISDIR: i32 = 21;
const EINVAL: i32 = 22;
const ENOSPC: i32 = 28;
const EROFS: i32 = 30;
const ENOSYS: i32 = 38;
const ELOOP: i32 = 40;
const EOVERFLOW: i32 = 75;
const EOPNOTSUPP: i32 = 95;
const EADDRINUSE: i32 = 98;
const EADDRNOTAVAIL: i32 = 99;
const ETIMEDOUT: i32 = 110;
const ECONNREFUSED: i32 = 111;
const EDQUOT: i32 = 122;

/// One row.
#[derive(Debug)]
pub struct Row {
    /// [`crate::Failure::step`].
    pub step: &'static str,
    /// The errnos it is about; empty: any, and a failure without one.
    pub errnos: &'static [i32],
    /// What to do.
    pub advice: &'static str,
}

/// The kernel knows no user namespaces.
pub const USERNS_NOT_IN_KERNEL: &str = "boot a kernel built with CONFIG_USER_NS=y";
/// The sysctl allows none.
pub const MAX_USER_NAMESPACES: &str =
    "echo user.max_user_namespaces=28633 | sudo tee /etc/sysctl.d/60-rlrun.conf && sudo sysctl --system";
/// Debian's switch is off.
pub const UNPRIVILEGED_CLONE: &str =
    "echo kernel.unprivileged_userns_clone=1 | sudo tee /etc/sysctl.d/60-rlrun.conf && sudo sysctl --system";
/// AppArmor allows user namespaces to exempted programs only. The profile is the narrower cure than the sysctl.
pub const APPARMOR: &str = "allow rlrun alone: \
    printf 'abi <abi/4.0>,\\nprofile rlrun /**/rlrun flags=(unconfined) {\\n  userns,\\n}\\n' | sudo tee /etc/apparmor.d/rlrun \
    && sudo apparmor_parser -r /etc/apparmor.d/rlrun; or every program: \
    sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0";
/// A helper on a nosuid mount.
pub const NOSUID_MOUNT: &str = "install newuidmap and newgidmap on a file system that is not mounted nosuid";
/// Nothing below this process can gain privilege.
pub const NO_NEW_PRIVS: &str = "start rlrun from a process without no_new_privs: in a systemd unit NoNewPrivileges=no, in docker no --security-opt no-new-privileges";

/// Both files are full, or a container asks for an id that no host can give.
pub const NO_ROOM_FOR_IDS: &str =
    "use a smaller id in the container: no free range of host ids is large enough (/etc/subuid, /etc/subgid)";

const DOCTOR: &str = "rlrun doctor tells what forbids it on this host";
const TOO_MANY_NAMESPACES: &str = "a limit of user.max_*_namespaces (sysctl -a) or 32 nested user namespaces is \
    reached: end other containers, or sudo sysctl -w user.max_user_namespaces=28633";
const TOO_MANY_PROCESSES: &str = "ulimit -u is reached: end other processes of this user or raise the limit";
const NO_SUCH_COMMAND: &str = "name a command that the image has; --entrypoint replaces the image's own";
const NO_FILTERS: &str =
    "boot a kernel with CONFIG_SECCOMP_FILTER=y; --security-opt seccomp=unconfined does without the filter";
const KILLED: &str =
    "somebody else killed it, or the kernel for want of memory (dmesg tells); nothing of the container is left running";
const SPACE: &str = "rlrun images and rlrun rmi free space; RLRUN_DATA_HOME names a store on another file system";
const ELSEWHERE: &str = "RLRUN_DATA_HOME names a directory of yours on a local file system for the store";
const OTHER_DRIVER: &str =
    "--storage-driver fuse-overlayfs or RLRUN_STORAGE_DRIVER=fuse-overlayfs does without the kernel's overlay";

/// Every row; the first that matches is the advice.
pub const ROWS: &[Row] = &[
    // Namespaces and id maps.
    Row { step: "clone-userns", errnos: &[EPERM, EACCES], advice: DOCTOR },
    Row { step: "clone-userns", errnos: &[ENOSPC], advice: TOO_MANY_NAMESPACES },
    Row { step: "clone-userns", errnos: &[EINVAL], advice: USERNS_NOT_IN_KERNEL },
    Row { step: "clone-userns", errnos: &[EAGAIN], advice: TOO_MANY_PROCESSES },
    Row { step: "unshare", errnos: &[EPERM, EACCES], advice: DOCTOR },
    Row { step: "unshare", errnos: &[ENOSPC], advice: TOO_MANY_NAMESPACES },
    Row { step: "clone-init", errnos: &[EPERM, EACCES], advice: DOCTOR },
    Row { step: "clone-init", errnos: &[ENOSPC], advice: TOO_MANY_NAMESPACES },
    Row { step: "clone-init", errnos: &[EAGAIN], advice: TOO_MANY_PROCESSES },
    Row {
        step: "write-uid-map",
        errnos: &[],
        advice: "compare /etc/subuid with what newuidmap says; rlrun doctor shows the ranges and what is wrong with them",
    },
    Row {
        step: "write-gid-map",
        errnos: &[],
        advice: "compare /etc/subgid with what newgidmap says; rlrun doctor shows the ranges and what is wrong with them",
    },
    Row { step: super::STEP_ID_MAP, errnos: &[], advice: "rlrun doctor shows the ranges and what is wrong with them" },
    // Files in and out of containers.
    Row {
        step: "copy-files",
        errnos: &[ENOENT],
        advice: "name a path that is there; in a container, rlrun cp CONTAINER:DIRECTORY - | tar t lists them",
    },
    Row {
        step: "copy-files",
        errnos: &[ENOTDIR, EISDIR],
        advice: "--overwrite lets a file take the place of a directory, and the other way round",
    },
    Row { step: "copy-files", errnos: &[ELOOP], advice: "a link is in the way: name the place that it leads to" },
    Row {
        step: "copy-files",
        errnos: &[EACCES, EPERM, EROFS],
        advice: "the place must be yours, or the container's, and not mounted read-only",
    },
    Row { step: "copy-files", errnos: &[ENOSPC, EDQUOT], advice: SPACE },
    Row { step: "copy-files", errnos: &[], advice: "rlrun inspect CONTAINER tells its state, its mounts and its user" },
    // The root file system and what is mounted on it.
    Row { step: "mount-overlay", errnos: &[EPERM, EINVAL, ENODEV, EOPNOTSUPP], advice: OTHER_DRIVER },
    Row { step: "mount-overlay", errnos: &[ENOSPC, EDQUOT], advice: SPACE },
    Row { step: "mount-fuse", errnos: &[ENODEV], advice: NO_FUSE },
    Row { step: "mount-fuse", errnos: &[EPERM, EACCES], advice: DEV_FUSE },
    Row {
        step: "mount-fuse",
        errnos: &[],
        advice: "--storage-driver copy or RLRUN_STORAGE_DRIVER=copy does without FUSE",
    },
    Row { step: "mount-disk", errnos: &[ENOSPC, EDQUOT], advice: SPACE },
    Row {
        step: "mount-disk",
        errnos: &[],
        advice: "rlrun doctor tells whether FUSE works; without --storage-opt size= nothing of it is needed",
    },
    Row {
        step: "disk-helper",
        errnos: &[],
        advice: "start it again: what it has written is checked and mended first; sudo dmesg tells what the kernel killed for lack of memory",
    },
    Row {
        step: "rootfs-helper",
        errnos: &[],
        advice: "start it again; sudo dmesg tells what the kernel killed for lack of memory, and --storage-driver copy does without a helper",
    },
    Row {
        step: "mount-proc",
        errnos: &[EPERM],
        advice: "an outer container masks parts of /proc: start it with --security-opt unmask=ALL (podman) or --security-opt systempaths=unconfined (docker)",
    },
    Row {
        step: "open-volume",
        errnos: &[ENOENT],
        advice: "create the host path first: -v takes what is there and creates nothing",
    },
    Row {
        step: "open-volume",
        errnos: &[EACCES, EPERM],
        advice: "the host path must be readable by you, outside any container: ls -ld it",
    },
    Row {
        step: "open-volume",
        errnos: &[ENOTDIR, ELOOP],
        advice: "a part of the host path is no directory or a symlink to itself: namei -l shows which",
    },
    Row {
        step: "mount-volume",
        errnos: &[EACCES, EPERM],
        advice: "a FUSE file system shows itself to nobody but its owner: mount it with -o allow_other",
    },
    Row {
        step: "mount-target",
        errnos: &[ENOTDIR, EISDIR],
        advice: "mount a file on a file and a directory on a directory: choose another destination",
    },
    Row {
        step: "mount-target",
        errnos: &[EROFS],
        advice: "the image lacks the destination and nothing can be made there: leave the outer mount writable, or choose a destination that exists",
    },
    Row {
        step: "mount-target",
        errnos: &[EACCES, EOVERFLOW],
        advice: "the directory there may belong to an id that is not mapped (any more): a warning above says so; \
                 rlrun doctor shows the ranges",
    },
    Row {
        step: "mount-target",
        errnos: &[],
        advice: "choose a destination that is neither / nor inside /proc; a link of the image may lead there",
    },
    Row {
        step: "sysctl",
        errnos: &[],
        advice: "only a namespace's own can be set: net.*, kernel.shm*, kernel.msg*, kernel.sem, fs.mqueue.*",
    },
    // How the payload is confined.
    Row {
        step: "confine-ids",
        errnos: &[EINVAL],
        advice: "the user, group or a further group is not mapped: rlrun doctor shows how many ids there are",
    },
    Row {
        step: "confine-rlimits",
        errnos: &[EPERM],
        advice: "ask for no more than ulimit -Ha shows: only root raises a hard limit",
    },
    Row { step: "confine-seccomp", errnos: &[EINVAL, ENOSYS], advice: NO_FILTERS },
    Row { step: "confine-seccomp-before-ids", errnos: &[EINVAL, ENOSYS], advice: NO_FILTERS },
    Row {
        step: "terminal",
        errnos: &[ENOSPC],
        advice: "kernel.pty.max is reached: close other terminals, or sudo sysctl -w kernel.pty.max=8192",
    },
    Row {
        step: "terminal",
        errnos: &[ENOENT, ENOTDIR],
        advice: "leave /dev and /dev/pts to rlrun: a mount or a link of the image hides the terminals there",
    },
    Row { step: "wait", errnos: &[], advice: KILLED },
    // rlrun's own programs.
    Row {
        step: "memfd",
        errnos: &[EACCES],
        advice: "sudo sysctl -w vm.memfd_noexec=1: with 2 no program can be started from memory, where nobody can overwrite it",
    },
    Row { step: "exec-supervisor", errnos: &[], advice: REINSTALL },
    Row { step: "own-program", errnos: &[], advice: REINSTALL },
    // The payload.
    Row { step: "exec", errnos: &[ENOENT], advice: NO_SUCH_COMMAND },
    Row {
        step: "exec",
        errnos: &[EACCES, EPERM],
        advice: "chmod 755 the file in the image, or start it through its interpreter: sh FILE",
    },
    Row {
        step: "exec",
        errnos: &[ENOEXEC],
        advice: "use an image for this machine's architecture (uname -m); a script needs its #! line",
    },
    Row {
        step: "exec",
        errnos: &[ELOOP],
        advice: "a symlink in the image leads back to itself: name the program by its real path",
    },
    Row { step: "exec", errnos: &[], advice: NO_SUCH_COMMAND },
    Row {
        step: "confine-working-directory",
        errnos: &[ENOENT, ENOTDIR],
        advice: "-w must name a directory of the image",
    },
    Row {
        step: "confine-working-directory",
        errnos: &[EACCES],
        advice: "-w must name a directory that the user of -u may enter",
    },
    // Network.
    Row { step: "slirp-start", errnos: &[ENOENT, EACCES], advice: DEV_NET_TUN },
    Row { step: "slirp-start", errnos: &[], advice: "--network none or --network host does without slirp4netns" },
    Row {
        step: "slirp-run",
        errnos: &[],
        advice: "start it again; `slirp4netns --version` tells whether it works at all, and --network none does without it",
    },
    Row {
        step: "slirp-port",
        errnos: &[EADDRINUSE],
        advice: "choose another host port, or leave it out to get a free one: -p CONTAINERPORT; ss -lntup shows who listens",
    },
    Row { step: "slirp-port", errnos: &[EACCES, EPERM], advice: LOW_PORTS },
    Row {
        step: "slirp-port",
        errnos: &[EADDRNOTAVAIL],
        advice: "the address of -p must be one of this host: ip addr shows them",
    },
    Row {
        step: "pull-connect",
        errnos: &[ECONNREFUSED, ETIMEDOUT],
        advice: "rlrun images lists the images that are here; else check the registry's name and port, and that it runs (a proxy is taken from https_proxy)",
    },
    Row { step: "pull-connect", errnos: &[], advice: NO_SUCH_HOST },
    Row {
        step: "open-archive",
        errnos: &[],
        advice: "name an archive that this user may read; without a name it is read from standard input",
    },
    Row {
        step: "seccomp",
        errnos: &[ENOENT, EACCES],
        advice: "--security-opt seccomp=FILE takes a profile that this user may read; without it rlrun has its own",
    },
    // Where things are kept.
    Row { step: "store-space", errnos: &[], advice: SPACE },
    Row { step: "data-dir", errnos: &[ENOSPC, EDQUOT], advice: SPACE },
    Row { step: "state", errnos: &[ENOSPC, EDQUOT], advice: SPACE },
    Row { step: "data-dir", errnos: &[], advice: ELSEWHERE },
    Row {
        step: "runtime-dir",
        errnos: &[EACCES, EPERM, ENOENT, EROFS],
        advice: "unset XDG_RUNTIME_DIR, or set it to a directory of yours with mode 0700; after su or sudo it names another user's",
    },
    Row { step: "runtime-dir", errnos: &[], advice: "set XDG_RUNTIME_DIR to a directory of yours with mode 0700" },
];

/// /dev/fuse is for root only.
pub const DEV_FUSE: &str = "sudo chmod 0666 /dev/fuse; to keep it: \
    echo 'KERNEL==\"fuse\", MODE=\"0666\"' | sudo tee /etc/udev/rules.d/60-rlrun-fuse.rules";
/// /dev/net/tun is for root only.
pub const DEV_NET_TUN: &str = "sudo chmod 0666 /dev/net/tun; to keep it: \
    echo 'KERNEL==\"tun\", MODE=\"0666\"' | sudo tee /etc/udev/rules.d/60-rlrun-tun.rules";
/// Ports that only root binds.
pub const LOW_PORTS: &str = "choose a host port of 1024 or more; or allow low ones to everybody: \
    sudo sysctl -w net.ipv4.ip_unprivileged_port_start=80";
/// A registry's name that leads nowhere; it may be a misspelt image of the store.
pub const NO_SUCH_HOST: &str =
    "rlrun images lists the images that are here; else check the registry's name, and this host's DNS and network";
/// The kernel has no FUSE yet.
pub const NO_FUSE: &str = "sudo modprobe fuse; to keep it: echo fuse | sudo tee /etc/modules-load.d/rlrun-fuse.conf";
/// The kernel has no tun driver yet.
pub const NO_TUN: &str = "sudo modprobe tun; to keep it: echo tun | sudo tee /etc/modules-load.d/rlrun-tun.conf";
/// Echo sockets without privilege (icmp(7)).
pub const PING_GROUP_RANGE: &str =
    "echo 'net.ipv4.ping_group_range=0 2147483647' | sudo tee /etc/sysctl.d/60-rlrun-ping.conf && sudo sysctl --system";
/// systemd keeps the controllers to itself.
pub const DELEGATE: &str = "sudo mkdir -p /etc/systemd/system/user@.service.d && \
    printf '[Service]\\nDelegate=cpu cpuset io memory pids\\n' | sudo tee /etc/systemd/system/user@.service.d/delegate.conf \
    && sudo systemctl daemon-reload; then log in again";
/// No home to keep things in.
pub const HOME: &str = "set HOME to a directory of yours, or RLRUN_DATA_HOME, XDG_CONFIG_HOME and XDG_CACHE_HOME";
/// Until it has executed the payload, a container's pid 1 runs from rlrun's own program.
pub const OWN_PROGRAM: &str = "a command or a #! line with /proc/self/exe leads there: name a program of the image";
/// A program of rlrun's own is gone.
pub const REINSTALL: &str = "run `make install` again";
