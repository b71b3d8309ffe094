//! Files of a layer that give whoever executes them more than he has: set-user-ID and set-group-ID bits, capabilities.
//! They are noted while a layer is extracted, for policies. The layer is hostile: what cannot be noted is said to be missing.

use super::tree::{Tree, in_root, split};
use super::whiteout;
use crate::tarball::Entry;
use rustix::fs::{OFlags, Stat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

/// Files that are noted of one layer; Debian has about ten.
const FILES: usize = 256;
/// Bytes of a path.
const PATH: usize = 512;
/// Bytes of all paths of a layer.
const PATHS: usize = 32 << 10;
const SET_USER_ID: u32 = 0o4000;
const SET_GROUP_ID: u32 = 0o2000;

/// What is kept of a layer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Privileged {
    pub(crate) files: Vec<PrivilegedFile>,
    /// There are more, or some that cannot be told.
    pub(crate) truncated: bool,
}

/// One file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PrivilegedFile {
    /// Relative to the layer's root, with no symlink in it.
    pub(crate) path: String,
    /// The path is not UTF-8 and is escaped: it is for reading only.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) escaped: bool,
    pub(crate) set_user_id: bool,
    pub(crate) set_group_id: bool,
    pub(crate) capabilities: bool,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// Which file on disk, and what it has.
#[derive(Clone, Copy)]
struct Noted {
    inode: (u64, u64),
    mode: u32,
    capabilities: bool,
    owner: (u32, u32),
}

/// The notes about a layer that is being extracted.
#[derive(Default)]
pub(super) struct Notes {
    files: BTreeMap<Vec<u8>, Noted>,
    bytes: usize,
    truncated: bool,
}

impl Notes {
    /// A file was made of the entry.
    pub(super) fn file(&mut self, tree: &Tree, path: &[u8], entry: &Entry) {
        let capabilities = entry.xattrs.iter().any(|(name, _)| name == b"security.capability");
        if entry.mode & (SET_USER_ID | SET_GROUP_ID) == 0 && !capabilities {
            return;
        }
        let id = |id| u32::try_from(id).unwrap_or(u32::MAX);
        match locate(tree, path) {
            Ok(found) => {
                let owner = (id(entry.uid), id(entry.gid));
                let noted = Noted { inode: found.inode(), mode: entry.mode, capabilities, owner };
                self.keep(found.place, noted);
            }
            Err(_) => self.truncated = true,
        }
    }

    /// A further name was made, maybe of a file that is noted.
    pub(super) fn link(&mut self, tree: &Tree, path: &[u8]) {
        if self.files.is_empty() {
            return;
        }
        match locate(tree, path) {
            Ok(found) => {
                let known = self.files.values().find(|noted| noted.inode == found.inode()).copied();
                known.into_iter().for_each(|noted| self.keep(found.place.clone(), noted));
            }
            Err(_) => self.truncated = true,
        }
    }

    fn keep(&mut self, place: Vec<u8>, noted: Noted) {
        let new = !self.files.contains_key(&place);
        if new && (self.files.len() == FILES || place.len() > PATH || self.bytes + place.len() > PATHS) {
            self.truncated = true;
            return;
        }
        self.bytes += if new { place.len() } else { 0 };
        self.files.insert(place, noted);
    }

    /// What is still there when the layer is complete: a later entry of the same name may have replaced it.
    pub(super) fn finish(self, tree: &Tree) -> Privileged {
        let Notes { files, mut truncated, .. } = self;
        let mut kept = Vec::new();
        for (path, noted) in files {
            match locate(tree, &path) {
                Ok(found) => kept.extend(found.now(noted).map(|noted| told(&path, noted))),
                Err(Errno::NOENT | Errno::NOTDIR) => {}
                Err(_) => truncated = true,
            }
        }
        Privileged { files: kept, truncated }
    }
}

fn told(path: &[u8], noted: Noted) -> PrivilegedFile {
    let text = std::str::from_utf8(path).map(str::to_owned);
    PrivilegedFile {
        escaped: text.is_err(),
        path: text.unwrap_or_else(|_| path.escape_ascii().to_string()),
        set_user_id: noted.mode & SET_USER_ID != 0,
        set_group_id: noted.mode & SET_GROUP_ID != 0,
        capabilities: noted.capabilities,
        uid: noted.owner.0,
        gid: noted.owner.1,
    }
}

/// Something in the layer.
struct Found {
    /// Relative to the layer's root.
    place: Vec<u8>,
    dir: OwnedFd,
    stat: Stat,
}

impl Found {
    fn inode(&self) -> (u64, u64) {
        (self.stat.st_dev, self.stat.st_ino)
    }

    /// What a noted file still has. The number of a file that was removed may be another's by now.
    fn now(&self, noted: Noted) -> Option<Noted> {
        let mode = self.stat.st_mode & (SET_USER_ID | SET_GROUP_ID);
        let capabilities = noted.capabilities && self.has_capabilities();
        (self.inode() == noted.inode && (mode != 0 || capabilities)).then_some(Noted { mode, capabilities, ..noted })
    }

    /// In doubt it does.
    fn has_capabilities(&self) -> bool {
        let (_, name) = split(&self.place);
        let path = [format!("/proc/self/fd/{}/", self.dir.as_raw_fd()).as_bytes(), name].concat();
        let got = rustix::fs::lgetxattr(&path[..], "security.capability", &mut [0_u8; 64][..]);
        !matches!(got, Err(Errno::NODATA | Errno::NOTSUP))
    }
}

/// Where in the layer something is, whatever symlinks its entry's path leads through: a whiteout of such a symlink would
/// hide the name and not the file. The directory exists: the file was just made there.
fn locate(tree: &Tree, path: &[u8]) -> Result<Found, Errno> {
    let (parent, name) = split(path);
    let root = place_of(tree.root())?;
    let dir = in_root(tree.root(), parent, OFlags::PATH | OFlags::DIRECTORY)?;
    let stat = whiteout::stat(&dir, name)?;
    let at = place_of(&dir)?;
    let below = at.strip_prefix(&root[..]).ok_or(Errno::XDEV)?;
    let below = below.strip_prefix(b"/").unwrap_or(below);
    let place = if below.is_empty() { name.to_vec() } else { [below, name].join(&b'/') };
    Ok(Found { place, dir, stat })
}

fn place_of(fd: impl AsFd) -> Result<Vec<u8>, Errno> {
    let link = format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd());
    let place = std::fs::read_link(OsStr::from_bytes(link.as_bytes())).map_err(|e| super::failure::errno(&e))?;
    Ok(place.into_os_string().into_vec())
}

#[cfg(test)]
mod tests {
    use super::super::LayerJob;
    use super::super::idmap::IdMap;
    use super::super::layer::{Rules, extract};
    use super::*;
    use crate::digest::Digest;
    use crate::limits::Limits;

    /// Kind, name, mode, what it links to.
    fn noted(entries: &[(u8, &str, u32, &str)]) -> Privileged {
        let mut builder = tar::Builder::new(Vec::new());
        let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        for (kind, name, mode, link) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(tar::EntryType::new(*kind));
            header.set_size(0);
            header.set_mode(*mode);
            header.set_uid(uid.into());
            header.set_gid(gid.into());
            header.set_mtime(1);
            if !link.is_empty() {
                header.set_link_name(link).unwrap();
            }
            builder.append_data(&mut header, name, &[][..]).unwrap();
        }
        let bytes = builder.into_inner().unwrap();
        let scratch = tempfile::tempdir().unwrap();
        let blob = scratch.path().join("blob");
        std::io::Write::write_all(&mut std::fs::File::create(&blob).unwrap(), &bytes).unwrap();
        let all = IdMap::read("/proc/self/uid_map").unwrap();
        let rules = Rules { uids: all.clone(), gids: all, limits: Limits::default() };
        let digest = Digest::of(&bytes);
        let job = LayerJob { id: "layer".into(), blob, diff_id: digest.clone(), chain_id: digest };
        extract(&job, scratch.path(), &rules).unwrap().facts.privileged.unwrap()
    }

    fn paths(privileged: &Privileged) -> Vec<&str> {
        privileged.files.iter().map(|file| file.path.as_str()).collect()
    }

    #[test]
    fn files_that_raise_privileges_are_noted_and_others_are_not() {
        let found = noted(&[
            (b'5', "bin", 0o2755, ""),
            (b'0', "bin/su", 0o4755, ""),
            (b'0', "bin/wall", 0o2755, ""),
            (b'0', "bin/ls", 0o755, ""),
            (b'0', "tmp", 0o1777, ""),
            (b'1', "bin/again", 0, "bin/su"),
            (b'1', "bin/dir", 0, "bin/ls"),
        ]);
        assert_eq!(paths(&found), ["bin/again", "bin/su", "bin/wall"]);
        assert!(!found.truncated && found.files[0].set_user_id && !found.files[0].set_group_id);
        assert!(found.files[2].set_group_id && !found.files[2].set_user_id);
    }

    #[test]
    fn what_is_replaced_later_is_not_noted_and_symlinks_do_not_rename() {
        let found = noted(&[
            (b'0', "a", 0o4755, ""),
            (b'0', "a", 0o755, ""),
            (b'5', "d", 0o755, ""),
            (b'0', "d/su", 0o4755, ""),
            (b'2', "d", 0o777, "real"),
            (b'5', "real", 0o755, ""),
            (b'0', "d/sudo", 0o4755, ""),
        ]);
        assert_eq!(paths(&found), ["real/sudo"]);
        assert!(!found.truncated);
    }

    #[test]
    fn more_than_is_noted_is_said() {
        let names: Vec<String> = (0..FILES + 1).map(|n| format!("f{n}")).collect();
        let entries: Vec<_> = names.iter().map(|name| (b'0', name.as_str(), 0o4755, "")).collect();
        let found = noted(&entries);
        assert!(found.truncated && found.files.len() == FILES);
        let long = format!("{}/{}", "x".repeat(250), "y/".repeat(150)) + "su";
        let found = noted(&[(b'0', &long, 0o4755, "")]);
        assert!(found.truncated && found.files.is_empty());
    }
}
