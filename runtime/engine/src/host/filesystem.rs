//! What file system a directory is on, and what that means for a store (statfs(2)).

use std::path::Path;

/// A file system, as far as a store cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileSystem {
    /// Its name.
    pub name: &'static str,
    /// Where its data is.
    pub place: Place,
}

/// Where the data of a file system is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// On this machine; holds subordinate ids and can be the upper layer of an overlay.
    Local,
    /// In memory.
    Memory,
    /// On this machine, but it cannot be the upper layer of an overlay.
    NoUpper,
    /// On a server that knows nothing of subordinate ids: files cannot be given to them.
    Remote,
    /// Not in the table.
    Unknown,
}

/// `f_type` of statfs(2) and the makers' sources.
const TABLE: &[(i64, &str, Place)] = &[
    (0xEF53, "ext4", Place::Local),
    (0x5846_5342, "xfs", Place::Local),
    (0x9123_683E, "btrfs", Place::Local),
    (0xF2F5_2010, "f2fs", Place::Local),
    (0xCA45_1A4E, "bcachefs", Place::Local),
    (0x0102_1994, "tmpfs", Place::Memory),
    (0x8584_58F6, "ramfs", Place::NoUpper),
    (0x2FC1_2FC1, "zfs", Place::Local),
    (0x794C_7630, "overlay", Place::NoUpper),
    (0x6175_6673, "aufs", Place::NoUpper),
    (0xF15F, "ecryptfs", Place::NoUpper),
    (0x4D44, "vfat", Place::NoUpper),
    (0x2011_BAB0, "exfat", Place::NoUpper),
    (0x5346_544E, "ntfs", Place::NoUpper),
    (0x6573_5546, "fuse", Place::NoUpper),
    (0x6969, "nfs", Place::Remote),
    (0xFF53_4D42, "cifs", Place::Remote),
    (0xFE53_4D42, "smb2", Place::Remote),
    (0x517B, "smb", Place::Remote),
    (0x0102_1997, "9p", Place::Remote),
    (0x5346_414F, "afs", Place::Remote),
    (0x00C3_6400, "ceph", Place::Remote),
    (0x0BD0_0BD0, "lustre", Place::Remote),
    (0x4750_4653, "gpfs", Place::Remote),
    (0x1983_0326, "beegfs", Place::Remote),
    (0xAAD7_AAEA, "panfs", Place::Remote),
    (0x0116_1970, "gfs2", Place::Remote),
    (0x7461_636F, "ocfs2", Place::Remote),
    (0x786F_4256, "vboxsf", Place::Remote),
    (0x6D6F_6369, "orangefs", Place::Remote),
];

impl FileSystem {
    /// Of the nearest existing directory: the store may not have been made yet.
    #[must_use]
    pub fn of(path: &Path) -> Self {
        let existing = path.ancestors().find_map(|dir| rustix::fs::statfs(dir).ok());
        existing.map_or(FileSystem { name: "unknown", place: Place::Unknown }, |fs| Self::from_magic(fs.f_type))
    }

    fn from_magic(magic: i64) -> Self {
        let row = TABLE.iter().find(|(known, ..)| *known == magic & 0xFFFF_FFFF);
        row.map_or(FileSystem { name: "unknown", place: Place::Unknown }, |(_, name, place)| FileSystem {
            name,
            place: *place,
        })
    }

    /// What does not work in a store there, in one sentence; None where everything does.
    #[must_use]
    pub fn remark(self) -> Option<&'static str> {
        match self.place {
            Place::Remote => Some(
                "a file server gives no file to a subordinate id, so that images cannot be unpacked there, and its locks \
                 and extended attributes may not hold",
            ),
            // The program behind it is a user's, and may give nothing away.
            Place::NoUpper if self.name == "fuse" => Some(
                "a FUSE file system may give no file to a subordinate id, and the kernel's overlay cannot write to it: \
                 images may not unpack there, and containers start slower",
            ),
            Place::NoUpper => Some("the kernel's overlay cannot write to it: fuse-overlayfs or a copy takes its place"),
            Place::Memory => Some("images are gone at the next start of the machine"),
            Place::Local | Place::Unknown => None,
        }
    }

    /// Whether what the system refuses there may be the file system's doing.
    #[must_use]
    pub fn is_to_blame(self, errno: i32) -> bool {
        use rustix::io::Errno;
        let refusals = [
            Errno::PERM,
            Errno::ACCESS,
            Errno::INVAL,
            Errno::OPNOTSUPP,
            Errno::NOSYS,
            Errno::NOLCK,
            Errno::STALE,
            Errno::REMOTEIO,
            Errno::XDEV,
            Errno::OVERFLOW,
        ];
        matches!(self.place, Place::Remote | Place::NoUpper) && refusals.iter().any(|e| e.raw_os_error() == errno)
    }

    /// Whether the kernel's overlay can have its upper layer here. Needs Linux 5.11 in a user namespace, and on
    /// tmpfs the user.* attributes of 6.6.
    #[must_use]
    pub fn can_be_upper(self, kernel: (u32, u32)) -> bool {
        kernel >= (5, 11)
            && match self.place {
                Place::Local | Place::Unknown => true,
                Place::Memory => kernel >= (6, 6),
                Place::NoUpper | Place::Remote => false,
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_is_in_no_table_and_a_missing_path_takes_its_parents() {
        assert_eq!(FileSystem::of(Path::new("/proc/self")).place, Place::Unknown);
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(FileSystem::of(&dir.path().join("not/yet/there")), FileSystem::of(dir.path()));
    }

    #[test]
    fn upper_layers_need_a_kernel_and_a_file_system() {
        let ext4 = FileSystem::from_magic(0xEF53);
        assert!(ext4.can_be_upper((5, 11)) && !ext4.can_be_upper((5, 10)));
        let tmpfs = FileSystem::from_magic(0x0102_1994);
        assert!(tmpfs.can_be_upper((6, 6)) && !tmpfs.can_be_upper((6, 5)));
        // A 32-bit kernel shows the magic of cifs as a negative number.
        assert_eq!(FileSystem::from_magic(-0x00AC_B2BE_i64).name, "cifs");
        assert!(!FileSystem::from_magic(0x6969).can_be_upper((6, 18)));
    }

    #[test]
    fn a_file_server_is_blamed_for_what_it_refuses() {
        let nfs = FileSystem::from_magic(0x6969);
        let (perm, noent) = (rustix::io::Errno::PERM.raw_os_error(), rustix::io::Errno::NOENT.raw_os_error());
        assert!(nfs.is_to_blame(perm) && !nfs.is_to_blame(noent) && nfs.remark().is_some());
        let ext4 = FileSystem::from_magic(0xEF53);
        assert!(!ext4.is_to_blame(perm) && ext4.remark().is_none());
    }
}
