//! Everything that `doctor` reads. Only here is I/O; the facts of the hot path are among it, and what only a person
//! who asks should wait for.

use crate::host::cause::{IdKind, Surroundings};
use crate::host::filesystem::FileSystem;
use crate::host::overlay::{self, Trial};
use crate::host::subid::{self, Fault};
use crate::place::{Place, own_program};
use rlrun_spec::{HostFacts, IdRange};
use rustix::fs::{Access, Mode, OFlags};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survey {
    /// The facts that a run reads too.
    pub host: HostFacts,
    /// Kernel release as the kernel spells it.
    pub release: String,
    /// For advice.
    pub around: Surroundings,
    /// /etc/subuid.
    pub subuid: Grants,
    /// /etc/subgid.
    pub subgid: Grants,
    /// /dev/fuse.
    pub dev_fuse: Device,
    /// /dev/net/tun.
    pub dev_net_tun: Device,
    /// Where images and containers are kept.
    pub store: PathBuf,
    /// What it is on.
    pub store_fs: FileSystem,
    /// Whether it can be written.
    pub store_dir: Directory,
    /// An overlay, really mounted.
    pub overlay: Trial,
    /// XDG_RUNTIME_DIR.
    pub runtime_dir: Directory,
    /// HOME.
    pub home: Directory,
    /// `net.ipv4.ping_group_range`, first and last gid.
    pub ping_group_range: Option<(u32, u32)>,
    /// Whether processes of the user survive its logout.
    pub linger: Linger,
    /// rlrun's own programs that were not found.
    pub lost_programs: Vec<&'static str>,
    /// The directory of the administrator's policies.
    pub mandatory: MandatoryDir,
}

/// One of the two files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants {
    /// Why it cannot be read.
    pub unreadable: Option<String>,
    /// Lines that grant nothing because they are faulty.
    pub faults: Vec<(usize, Fault)>,
    /// Other owners that hold some of the same ids.
    pub shared_with: Vec<String>,
}

/// A device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Device {
    /// It opens for reading and writing.
    Opens,
    /// There is none.
    Missing,
    /// It does not open.
    Refuses(String),
}

/// A directory named by a variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Directory {
    /// The variable is not set.
    Unset,
    /// It, or the nearest directory above where it would be made, is the caller's to write.
    Writable(PathBuf),
    /// It is not there.
    Missing(PathBuf),
    /// It belongs to another user.
    NotOurs(PathBuf),
    /// It cannot be written.
    ReadOnly(PathBuf),
}

/// `loginctl enable-linger`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Linger {
    /// On.
    On,
    /// Off.
    Off,
    /// No systemd, so nobody ends processes at logout.
    NoSystemd,
}

/// /etc/rlrun/policy.d.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MandatoryDir {
    /// There is none, and so no mandatory policy.
    Absent,
    /// It and everything above it is root's alone.
    Trusted(PathBuf),
    /// Somebody other than root may change it: this path is why.
    Untrusted(PathBuf),
}

impl Survey {
    /// Reads everything; takes the time of one short process.
    #[must_use]
    pub fn read(place: &Place, mandatory: &Path) -> Self {
        let host = crate::host::probe(&place.data);
        let xdg = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        let home = std::env::var_os("HOME").map(PathBuf::from);
        Survey {
            release: rustix::system::uname().release().to_string_lossy().into_owned(),
            around: Surroundings::read(),
            subuid: Grants::read(IdKind::User, &host),
            subgid: Grants::read(IdKind::Group, &host),
            dev_fuse: Device::of("/dev/fuse"),
            dev_net_tun: Device::of("/dev/net/tun"),
            store: place.data.clone(),
            store_fs: FileSystem::of(&place.data),
            store_dir: Directory::to_be_made(&place.data),
            overlay: try_overlay(&place.data),
            runtime_dir: xdg.map_or(Directory::Unset, |dir| Directory::of(&dir, host.uid)),
            home: home.map_or(Directory::Unset, |dir| Directory::of(&dir, host.uid)),
            ping_group_range: ping_group_range(),
            linger: Linger::of(&host.user),
            lost_programs: ["rlrun-supervisor", "rlrun-policyc"]
                .into_iter()
                .filter(|p| own_program(p).is_err())
                .collect(),
            mandatory: MandatoryDir::of(mandatory),
            host,
        }
    }
}

/// In the store, or where the store would be: doctor leaves no store behind where there was none.
fn try_overlay(store: &Path) -> Trial {
    if store.is_dir() {
        return overlay::try_native(store);
    }
    match store.ancestors().find(|dir| dir.is_dir()) {
        Some(dir) => overlay::attempt(dir),
        None => Trial::NotTried("the store has no directory to be in".to_owned()),
    }
}

impl Grants {
    fn read(kind: IdKind, host: &HostFacts) -> Self {
        let text = match subid::read(Path::new(kind.file())) {
            Ok(text) => text,
            Err(e) => return Grants { unreadable: Some(e.to_string()), ..Grants::default() },
        };
        Grants::of(&text, subid::Owner { name: &host.user, uid: host.uid })
    }

    /// From the text of the file.
    #[must_use]
    pub fn of(text: &[u8], owner: subid::Owner<'_>) -> Self {
        let own = subid::granted(text, owner);
        let shares = |range: IdRange| own.iter().any(|mine| subid::intersect(*mine, range).is_some());
        let mut grants = Grants::default();
        for (number, line) in subid::lines(text) {
            match line {
                Err(fault) => grants.faults.push((number, fault)),
                Ok(entry) if !owner.owns(entry.owner) && shares(entry.range) => {
                    grants.shared_with.push(String::from_utf8_lossy(entry.owner).into_owned());
                }
                Ok(_) => {}
            }
        }
        grants
    }
}

impl Device {
    fn of(path: &str) -> Self {
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK;
        match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(_) => Device::Opens,
            Err(rustix::io::Errno::NOENT) => Device::Missing,
            Err(errno) => Device::Refuses(io::Error::from(errno).to_string()),
        }
    }
}

impl Directory {
    fn of(path: &Path, uid: u32) -> Self {
        let path = path.to_owned();
        match path.metadata() {
            Ok(meta) if meta.is_dir() && meta.uid() != uid => Directory::NotOurs(path),
            Ok(meta) if !meta.is_dir() => Directory::Missing(path),
            Err(_) => Directory::Missing(path),
            Ok(_) if rustix::fs::access(&path, Access::WRITE_OK | Access::EXEC_OK).is_ok() => Directory::Writable(path),
            Ok(_) => Directory::ReadOnly(path),
        }
    }

    /// A directory that rlrun makes when it needs it.
    fn to_be_made(path: &Path) -> Self {
        let writable = |dir: &Path| rustix::fs::access(dir, Access::WRITE_OK | Access::EXEC_OK).is_ok();
        match path.ancestors().find(|dir| dir.is_dir()) {
            Some(dir) if writable(dir) => Directory::Writable(path.to_owned()),
            Some(_) | None => Directory::ReadOnly(path.to_owned()),
        }
    }
}

impl Linger {
    fn of(user: &str) -> Self {
        if !Path::new("/run/systemd/system").is_dir() {
            return Linger::NoSystemd;
        }
        // What loginctl itself leaves there; the name is a login name and no path.
        let on = !user.contains('/') && Path::new("/var/lib/systemd/linger").join(user).exists();
        if on { Linger::On } else { Linger::Off }
    }
}

impl MandatoryDir {
    /// The directory and all above it: whoever may change one of them may change the policies.
    fn of(dir: &Path) -> Self {
        let Ok(real) = dir.canonicalize() else { return MandatoryDir::Absent };
        let trusted = |path: &&Path| path.metadata().is_ok_and(|meta| meta.uid() == 0 && meta.mode() & 0o022 == 0);
        match real.ancestors().find(|path| !trusted(path)) {
            None => MandatoryDir::Trusted(real),
            Some(weak) => MandatoryDir::Untrusted(weak.to_owned()),
        }
    }
}

fn ping_group_range() -> Option<(u32, u32)> {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ping_group_range").ok()?;
    let mut numbers = text.split_whitespace().map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}
