//! Looking things up in layers as an overlay mount would show them, without a mount.

use super::whiteout::{self, is_opaque, is_whiteout, open_dir};
use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// As the kernel counts (path_resolution(7)).
const MAX_SYMLINKS: usize = 40;

/// Layers, top first.
pub(super) struct Merged {
    lowers: Vec<OwnedFd>,
}

/// What a name is in the merged tree: the topmost thing of that name.
pub(super) struct Found {
    pub(super) stat: Stat,
    parent: OwnedFd,
    name: Vec<u8>,
}

/// What one layer says of a path.
enum Word {
    /// Nothing; ask the next layer.
    Silent,
    /// It is gone, or what is below is hidden.
    Gone,
    Has(Found),
}

impl Merged {
    pub(super) fn open<P: AsRef<Path>>(lowers: impl IntoIterator<Item = P>) -> Result<Self, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = |path: P| rustix::fs::open(path.as_ref(), flags, Mode::empty());
        Ok(Merged { lowers: lowers.into_iter().map(open).collect::<Result<_, _>>()? })
    }

    /// Looks up components without following symlinks.
    pub(super) fn lookup(&self, path: &[Vec<u8>]) -> Result<Option<Found>, Errno> {
        for lower in &self.lowers {
            match ask(lower, path)? {
                Word::Silent => {}
                Word::Gone => return Ok(None),
                Word::Has(found) => return Ok(Some(found)),
            }
        }
        Ok(None)
    }

    /// A regular file's contents, following symlinks inside the tree; None when there is none or it is longer than `max`.
    pub(super) fn read_file(&self, path: &[u8], max: u64) -> Result<Option<Vec<u8>>, Errno> {
        let mut pending = components(path);
        pending.reverse();
        let mut resolved: Vec<Vec<u8>> = Vec::new();
        let mut symlinks = 0;
        while let Some(component) = pending.pop() {
            if component == b".." {
                resolved.pop();
                continue;
            }
            resolved.push(component);
            let Some(found) = self.lookup(&resolved)? else { return Ok(None) };
            match FileType::from_raw_mode(found.stat.st_mode) {
                FileType::Directory => {}
                FileType::RegularFile if pending.is_empty() => return found.read(max),
                FileType::Symlink if symlinks < MAX_SYMLINKS => {
                    symlinks += 1;
                    let target = rustix::fs::readlinkat(&found.parent, &found.name[..], Vec::new())?.into_bytes();
                    if target.starts_with(b"/") {
                        resolved.clear();
                    } else {
                        resolved.pop();
                    }
                    pending.extend(components(&target).into_iter().rev());
                }
                _ => return Ok(None),
            }
        }
        Ok(None)
    }
}

impl Found {
    fn read(&self, max: u64) -> Result<Option<Vec<u8>>, Errno> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.parent, &self.name[..], flags, Mode::empty())?;
        let mut bytes = Vec::new();
        let read = File::from(fd).take(max + 1).read_to_end(&mut bytes);
        read.map_err(|e| super::failure::errno(&e))?;
        Ok((bytes.len() as u64 <= max).then_some(bytes))
    }
}

/// Layers above another one, for asking what of it they hide. In doubt they hide nothing: whoever asks may be unable to
/// read directories of theirs.
pub(crate) struct Uppers {
    layers: Vec<PathBuf>,
    /// How often a layer may still be asked.
    looks: usize,
}

impl Uppers {
    pub(crate) fn new(looks: usize) -> Self {
        Uppers { layers: Vec::new(), looks }
    }

    /// The next layer is below this one.
    pub(crate) fn put_below(&mut self, layer: PathBuf) {
        self.layers.push(layer);
    }

    /// Whether a file of the layer below them is not seen: it is gone, or something else has its name.
    pub(crate) fn hide(&mut self, path: &[u8]) -> bool {
        let path = components(path);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        self.layers.iter().any(|layer| {
            let Some(looks) = self.looks.checked_sub(1) else { return false };
            self.looks = looks;
            let word = rustix::fs::open(layer, flags, Mode::empty()).and_then(|root| ask(&root, &path));
            matches!(word, Ok(Word::Gone | Word::Has(_)))
        })
    }
}

fn ask(lower: &OwnedFd, path: &[Vec<u8>]) -> Result<Word, Errno> {
    let Some((last, parents)) = path.split_last() else { return root(lower) };
    let mut dir = open_dir(lower, b".")?;
    // An opaque directory answers for everything below it.
    let mut answer = Word::Silent;
    for name in parents {
        dir = match open_dir(&dir, name) {
            Ok(next) => next,
            Err(Errno::NOENT) => return Ok(answer),
            // A whiteout, or a file or symlink where lower layers may have a directory.
            Err(Errno::NOTDIR | Errno::LOOP) => return Ok(Word::Gone),
            Err(e) => return Err(e),
        };
        if is_opaque(&dir)? {
            answer = Word::Gone;
        }
    }
    match whiteout::stat(&dir, last) {
        Ok(stat) if is_whiteout(&stat) => Ok(Word::Gone),
        Ok(stat) => Ok(Word::Has(Found { stat, parent: dir, name: last.clone() })),
        Err(Errno::NOENT) => Ok(answer),
        Err(e) => Err(e),
    }
}

fn root(lower: &OwnedFd) -> Result<Word, Errno> {
    let parent = open_dir(lower, b".")?;
    let stat = rustix::fs::fstat(&parent)?;
    Ok(Word::Has(Found { stat, parent, name: b".".to_vec() }))
}

/// Components of a path, `.` left out.
pub(super) fn components(path: &[u8]) -> Vec<Vec<u8>> {
    path.split(|&b| b == b'/').filter(|c| !c.is_empty() && *c != b".").map(<[u8]>::to_vec).collect()
}
