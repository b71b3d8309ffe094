//! Directories that a layer's archive leaves out. They cover those of the layers below, so they get their attributes:
//! a layer that has only `tmp/x` must not take the sticky bit from `/tmp`.

use super::entry::Attributes;
use super::merged::{Merged, components};
use super::tree::{in_root, split};
use rustix::fs::{AtFlags, FileType, OFlags};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::os::fd::OwnedFd;

/// Gives the `implied` directories of `layer` the attributes of `below`.
pub(super) fn adopt(layer: &OwnedFd, implied: &BTreeSet<Vec<u8>>, below: &Merged) -> Result<(), Errno> {
    // Children first: setting a child's owner does not change its parent's times, but the order shows that it need not.
    for path in implied.iter().rev() {
        let Some(found) = below.lookup(&components(path))? else { continue };
        if FileType::from_raw_mode(found.stat.st_mode) != FileType::Directory {
            continue;
        }
        let stat = found.stat;
        let attributes = Attributes {
            uid: stat.st_uid,
            gid: stat.st_gid,
            mode: stat.st_mode & 0o7777,
            mtime: (stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or(0)),
        };
        let dir = in_root(layer, path, OFlags::RDONLY | OFlags::DIRECTORY)?;
        attributes.apply(&dir)?;
        let (parent, name) = split(path);
        let parent = in_root(layer, parent, OFlags::PATH | OFlags::DIRECTORY)?;
        let name = if name.is_empty() { &b"."[..] } else { name };
        rustix::fs::utimensat(&parent, name, &attributes.times(), AtFlags::SYMLINK_NOFOLLOW)?;
    }
    Ok(())
}
