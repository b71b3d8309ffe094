//! One directory of an image as its layers show it together, top first.

use crate::unpack::{is_opaque, is_whiteout, open_dir, stat};
use rustix::fs::{Dir, FileType, Stat};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::path::Path;

/// The directories of one path in the layers that show it.
pub(super) struct Lowers(Vec<OwnedFd>);

/// What has a name there.
pub(super) struct Below {
    pub(super) stat: Stat,
    /// The layer that has it.
    depth: usize,
}

impl Lowers {
    pub(super) fn open<P: AsRef<Path>>(layers: &[P]) -> Result<Self, Errno> {
        let open = |path: &P| open_dir(rustix::fs::CWD, path.as_ref().as_os_str().as_encoded_bytes());
        Ok(Lowers(layers.iter().map(open).collect::<Result<_, _>>()?))
    }

    pub(super) fn nothing() -> Self {
        Lowers(Vec::new())
    }

    pub(super) fn find(&self, name: &[u8]) -> Result<Option<Below>, Errno> {
        for (depth, layer) in self.0.iter().enumerate() {
            match stat(layer, name) {
                Ok(found) if is_whiteout(&found) => return Ok(None),
                Ok(stat) => return Ok(Some(Below { stat, depth })),
                Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(None)
    }

    /// Where a link points.
    pub(super) fn target(&self, name: &[u8], below: &Below) -> Result<Vec<u8>, Errno> {
        let layer = self.0.get(below.depth).ok_or(Errno::NOENT)?;
        Ok(rustix::fs::readlinkat(layer, name, Vec::new())?.into_bytes())
    }

    /// The directory of this name.
    pub(super) fn enter(&self, name: &[u8], below: &Below) -> Result<Lowers, Errno> {
        let mut all = Vec::new();
        if FileType::from_raw_mode(below.stat.st_mode) != FileType::Directory {
            return Ok(Lowers::nothing());
        }
        for layer in &self.0[below.depth..] {
            match open_dir(layer, name) {
                Ok(directory) => {
                    let opaque = is_opaque(&directory)?;
                    all.push(directory);
                    if opaque {
                        break;
                    }
                }
                Err(Errno::NOENT) => {}
                // A file or a whiteout hides what is below it.
                Err(Errno::NOTDIR | Errno::LOOP) => break,
                Err(errno) => return Err(errno),
            }
        }
        Ok(Lowers(all))
    }

    /// All names that show.
    pub(super) fn names(&self) -> Result<BTreeSet<Vec<u8>>, Errno> {
        let mut seen = BTreeSet::new();
        for layer in &self.0 {
            for entry in Dir::read_from(layer)? {
                let name = entry?.file_name().to_bytes().to_vec();
                if !matches!(&name[..], b"." | b"..") {
                    seen.insert(name);
                }
            }
        }
        let mut shown = BTreeSet::new();
        for name in seen {
            if self.find(&name)?.is_some() {
                shown.insert(name);
            }
        }
        Ok(shown)
    }
}
