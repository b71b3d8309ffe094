//! Layers, made on the spot: busybox, the probe and whatever a test adds, also what no honest tool would write.

use crate::archive::sha256;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;
use tar::{EntryType, Header};

const PROBE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/probe"));
const EAT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/eat"));

/// The probe, for images made by hand.
pub fn probe_program() -> &'static [u8] {
    PROBE
}

/// A layer in the making. Entries stand in the order in which they were added.
#[derive(Clone, Default)]
pub struct Rootfs {
    tar: Vec<u8>,
}

/// Owner and mode of an entry.
#[derive(Clone, Copy)]
struct Owner {
    uid: u32,
    gid: u32,
    mode: u32,
}

impl Rootfs {
    /// An empty layer.
    pub fn new() -> Rootfs {
        Rootfs::default()
    }

    /// A directory of root.
    #[must_use]
    pub fn dir(self, path: &str, mode: u32) -> Rootfs {
        self.entry(path, EntryType::Directory, Owner { uid: 0, gid: 0, mode }, "", b"")
    }

    /// A file of root.
    #[must_use]
    pub fn file(self, path: &str, mode: u32, data: impl AsRef<[u8]>) -> Rootfs {
        self.entry(path, EntryType::Regular, Owner { uid: 0, gid: 0, mode }, "", data.as_ref())
    }

    /// A file of somebody else.
    #[must_use]
    pub fn file_of(self, path: &str, (uid, gid): (u32, u32), mode: u32, data: impl AsRef<[u8]>) -> Rootfs {
        self.entry(path, EntryType::Regular, Owner { uid, gid, mode }, "", data.as_ref())
    }

    /// A directory of somebody else.
    #[must_use]
    pub fn dir_of(self, path: &str, (uid, gid): (u32, u32), mode: u32) -> Rootfs {
        self.entry(path, EntryType::Directory, Owner { uid, gid, mode }, "", b"")
    }

    /// A symbolic link.
    #[must_use]
    pub fn symlink(self, path: &str, target: &str) -> Rootfs {
        self.entry(path, EntryType::Symlink, Owner { uid: 0, gid: 0, mode: 0o777 }, target, b"")
    }

    /// A hard link.
    #[must_use]
    pub fn hard_link(self, path: &str, target: &str) -> Rootfs {
        self.entry(path, EntryType::Link, Owner { uid: 0, gid: 0, mode: 0o644 }, target, b"")
    }

    /// A block device, 8/0: a disk.
    #[must_use]
    pub fn device(self, path: &str) -> Rootfs {
        self.node(path, EntryType::Block, (8, 0))
    }

    /// A character device; 0/0 is what overlay file systems hide a name with.
    #[must_use]
    pub fn character_device(self, path: &str, numbers: (u32, u32)) -> Rootfs {
        self.node(path, EntryType::Char, numbers)
    }

    fn node(self, path: &str, kind: EntryType, (major, minor): (u32, u32)) -> Rootfs {
        let mut header = Rootfs::header(path, kind, Owner { uid: 0, gid: 0, mode: 0o666 }, "");
        header.set_device_major(major).unwrap();
        header.set_device_minor(minor).unwrap();
        self.append(header, b"")
    }

    /// Extended attributes of the entry that follows, as pax(1) archives have them.
    #[must_use]
    pub fn xattrs(self, attributes: &[(&str, &[u8])]) -> Rootfs {
        let mut records = Vec::new();
        for (name, value) in attributes {
            let record = [b" SCHILY.xattr.", name.as_bytes(), b"=", value, b"\n"].concat();
            // The length counts its own digits.
            let length = (1..).find(|digits| (record.len() + digits).to_string().len() == *digits).unwrap();
            records.extend_from_slice((record.len() + length).to_string().as_bytes());
            records.extend_from_slice(&record);
        }
        self.entry("pax", EntryType::XHeader, Owner { uid: 0, gid: 0, mode: 0o644 }, "", &records)
    }

    fn entry(self, path: &str, kind: EntryType, owner: Owner, link: &str, data: &[u8]) -> Rootfs {
        self.append(Rootfs::header(path, kind, owner, link), data)
    }

    /// An entry as it is, without the checks that a tar library makes: the name may be absolute or climb.
    fn header(path: &str, kind: EntryType, owner: Owner, link: &str) -> Header {
        let mut header = Header::new_ustar();
        let name = &mut header.as_old_mut().name;
        assert!(path.len() <= name.len() && link.len() <= 100, "the harness writes short names only");
        name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(owner.mode);
        header.set_uid(owner.uid.into());
        header.set_gid(owner.gid.into());
        header.set_mtime(1_700_000_000);
        header
    }

    fn append(mut self, mut header: Header, data: &[u8]) -> Rootfs {
        header.set_size(data.len() as u64);
        header.set_cksum();
        self.tar.extend_from_slice(header.as_bytes());
        self.tar.extend_from_slice(data);
        self.tar.resize(self.tar.len().next_multiple_of(512), 0);
        self
    }

    /// The layer as an uncompressed tar archive.
    pub fn tar(&self) -> Vec<u8> {
        let mut tar = self.tar.clone();
        tar.extend_from_slice(&[0; 1024]);
        tar
    }

    /// Its diff-id.
    pub fn diff_id(&self) -> String {
        sha256(&self.tar())
    }
}

/// The layer of the image that most tests run: busybox with all its names, the probe, a few users.
pub fn base_rootfs() -> &'static Rootfs {
    static BASE: OnceLock<Rootfs> = OnceLock::new();
    BASE.get_or_init(|| {
        let mut rootfs = Rootfs::new();
        for directory in ["bin", "etc", "home", "mnt", "proc", "sys", "dev", "usr", "usr/bin", "var", "run"] {
            rootfs = rootfs.dir(directory, 0o755);
        }
        rootfs = rootfs
            .dir("tmp", 0o1777)
            .dir("root", 0o700)
            .file("etc/passwd", 0o644, "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000:app:/home:/bin/sh\n")
            .file("etc/group", 0o644, "root:x:0:\napp:x:1000:\nstaff:x:50:app\n")
            .file("etc/base-image", 0o644, "base\n")
            .file("etc/not-executable", 0o644, "data\n")
            .file("bin/script", 0o755, "#!/bin/sh\necho script \"$@\"\n")
            // An executable for a machine that no test runs on: e_machine 0x5a5a.
            .file("bin/foreign", 0o755, foreign_program())
            .file("usr/bin/probe", 0o755, PROBE)
            .file("usr/bin/eat", 0o755, EAT);
        rootfs = rootfs.file("bin/busybox", 0o755, busybox());
        for applet in applets() {
            rootfs = rootfs.symlink(&format!("bin/{applet}"), "busybox");
        }
        rootfs
    })
}

fn busybox_path() -> &'static Path {
    let path = ["/bin/busybox", "/usr/bin/busybox"].iter().map(Path::new).find(|path| path.exists());
    path.expect("busybox-static is installed: run scripts/provision.sh")
}

fn busybox() -> Vec<u8> {
    std::fs::read(busybox_path()).unwrap()
}

fn applets() -> Vec<String> {
    let list = Command::new(busybox_path()).arg("--list").output().unwrap();
    let list = String::from_utf8(list.stdout).unwrap();
    list.lines().filter(|name| *name != "busybox").map(str::to_owned).collect()
}

fn foreign_program() -> Vec<u8> {
    let mut program = PROBE[..4096].to_vec();
    program[18..20].copy_from_slice(&[0x5a, 0x5a]);
    program
}
