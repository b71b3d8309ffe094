//! Files that are read only after a look at who could have written them.

use crate::error::LoadError;
use rustix::fs::{Mode, OFlags, Stat};
use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::path::Path;

/// Whose word counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trust {
    /// Root alone: the mandatory tier.
    Root,
    /// The calling user and root.
    User,
    /// The same, and no links: what lies in a directory of work can come from anywhere.
    Project,
    /// Whoever the user pointed at: `--policy FILE`.
    Named,
}

impl Trust {
    /// # Errors
    /// Why somebody else could have written it.
    pub(crate) fn check(self, stat: &Stat) -> Result<(), String> {
        let euid = rustix::process::geteuid().as_raw();
        let owner_ok = match self {
            Trust::Root => stat.st_uid == 0,
            Trust::User | Trust::Project => stat.st_uid == 0 || stat.st_uid == euid,
            Trust::Named => return Ok(()),
        };
        if !owner_ok {
            let rightful = if self == Trust::Root { "root" } else { "you" };
            return Err(format!("belongs to uid {}, not to {rightful}", stat.st_uid));
        }
        // With a private group per user (umask 002) that group is nobody else.
        let own_group =
            matches!(self, Trust::User | Trust::Project) && stat.st_gid == rustix::process::getegid().as_raw();
        let others = if own_group { 0o002 } else { 0o022 };
        if stat.st_mode & others != 0 {
            return Err(format!("others may write it (mode {:o})", stat.st_mode & 0o7777));
        }
        Ok(())
    }

    /// Root's directory names files, never links: a link could lead where others write.
    fn open_flags(self) -> OFlags {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        match self {
            Trust::Root | Trust::Project => flags | OFlags::NOFOLLOW,
            Trust::User | Trust::Named => flags,
        }
    }
}

/// What a user namespace shows of owners that it does not map: root too, where root is not mapped.
const NOBODY: u32 = 65534;

/// Whether somebody else could put the administrator's directory aside: who may write above it. The topmost directory
/// is the machine's.
///
/// # Errors
/// Names the one where somebody could.
pub(crate) fn check_above(directory: &Path) -> Result<(), LoadError> {
    let is_there = rustix::fs::stat(directory).is_ok();
    for path in directory.ancestors().skip(1).filter(|path| path.parent().is_some()) {
        let mut stat = match rustix::fs::stat(path) {
            Ok(stat) => stat,
            Err(rustix::io::Errno::NOENT) => continue,
            Err(errno) => return Err(LoadError::Unreadable { path: path.to_owned(), source: errno.into() }),
        };
        if !is_there && stat.st_uid == NOBODY {
            stat.st_uid = 0;
        }
        Trust::Root.check(&stat).map_err(|why| LoadError::Untrusted { path: path.to_owned(), why })?;
    }
    Ok(())
}

/// An open regular file that passed the check, with what fstat(2) said of it.
pub(crate) struct Checked {
    pub(crate) file: File,
    pub(crate) stat: Stat,
}

/// Opens a regular file; None when it does not exist.
pub(crate) fn open(path: &Path, trust: Trust) -> Result<Option<Checked>, LoadError> {
    let unreadable = |errno: rustix::io::Errno| LoadError::Unreadable { path: path.to_owned(), source: errno.into() };
    let fd: OwnedFd = match rustix::fs::open(path, trust.open_flags(), Mode::empty()) {
        Ok(fd) => fd,
        Err(rustix::io::Errno::NOENT) => return Ok(None),
        Err(rustix::io::Errno::LOOP) if trust.open_flags().contains(OFlags::NOFOLLOW) => {
            let why = "is a symbolic link, and could lead where others write: links are not followed here".to_owned();
            return Err(LoadError::Untrusted { path: path.to_owned(), why });
        }
        Err(errno) => return Err(unreadable(errno)),
    };
    // On the descriptor, not the path: the name could mean another file by now.
    let stat = rustix::fs::fstat(&fd).map_err(unreadable)?;
    let untrusted = |why: String| LoadError::Untrusted { path: path.to_owned(), why };
    if !rustix::fs::FileType::from_raw_mode(stat.st_mode).is_file() {
        return Err(LoadError::NotAFile { path: path.to_owned() });
    }
    trust.check(&stat).map_err(untrusted)?;
    Ok(Some(Checked { file: File::from(fd), stat }))
}

/// Reads a whole file of at most `limit` bytes.
pub(crate) fn read(file: &mut File, path: &Path, limit: u64) -> Result<Vec<u8>, LoadError> {
    let mut bytes = Vec::new();
    let unreadable = |source| LoadError::Unreadable { path: path.to_owned(), source };
    file.take(limit + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if u64::try_from(bytes.len()).is_ok_and(|len| len <= limit) {
        Ok(bytes)
    } else {
        Err(unreadable(std::io::Error::other(format!("is larger than {limit} bytes"))))
    }
}

/// Reads a text file of at most `limit` bytes; None when it does not exist.
pub(crate) fn read_text(path: &Path, trust: Trust, limit: u64) -> Result<Option<String>, LoadError> {
    let Some(mut checked) = open(path, trust)? else { return Ok(None) };
    let bytes = read(&mut checked.file, path, limit)?;
    let invalid = |_| LoadError::Settings { path: path.to_owned(), why: "is not UTF-8".to_owned() };
    String::from_utf8(bytes).map(Some).map_err(invalid)
}
