//! Locks of the store: flock(2) on two empty files, released by the kernel however a process ends.

use super::Store;
use crate::error::{ImageError, store_io};
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

/// While it lives, no image is removed. Hold it from [`Store::resolve`] until the container's record is on disk, and not
/// while images are added or removed: those wait for it.
#[derive(Debug)]
pub struct Pin {
    _lock: Option<OwnedFd>,
}

/// A held lock; dropping it releases it.
#[derive(Debug)]
pub(crate) struct Lock {
    _fd: OwnedFd,
}

/// While it lives, the store is nobody else's.
#[derive(Debug)]
pub struct ResetLock {
    _writers: Lock,
    _images: Lock,
}

impl Store {
    /// Keeps every image where it is until the pin is dropped. Short waits only: removal holds its lock briefly.
    ///
    /// # Errors
    /// [`ImageError::System`] when the lock file cannot be opened or locked.
    pub fn pin(&self) -> Result<Pin, ImageError> {
        let path = self.images_lock();
        let fd = match rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
            Ok(fd) => fd,
            // No store yet, so there is nothing to keep.
            Err(Errno::NOENT) => return Ok(Pin { _lock: None }),
            Err(e) => return Err(store_io("open the lock of the image store", &path)(e)),
        };
        flock(&fd, FlockOperation::LockShared).map_err(store_io("lock the image store", &path))?;
        Ok(Pin { _lock: Some(fd) })
    }

    /// Makes the file that pins lock, before there is anything to pin.
    pub(super) fn create_locks(&self) -> Result<(), ImageError> {
        self.lock_file(self.images_lock()).map(drop)
    }

    fn images_lock(&self) -> PathBuf {
        self.root.join("images.lock")
    }

    /// For removal: no container is starting while it is held.
    pub(super) fn lock_images(&self) -> Result<Lock, ImageError> {
        let (fd, path) = self.lock_file(self.images_lock())?;
        flock(&fd, FlockOperation::LockExclusive).map_err(store_io("lock the image store", &path))?;
        Ok(Lock { _fd: fd })
    }

    /// For commands that add: nothing is swept while it is held.
    pub(super) fn lock_shared(&self) -> Result<Lock, ImageError> {
        let (fd, path) = self.lock_file(self.root.join("writers.lock"))?;
        flock(&fd, FlockOperation::LockShared).map_err(store_io("lock the image store", &path))?;
        Ok(Lock { _fd: fd })
    }

    /// For commands that read blobs: nothing is swept while it is held. None when there is no store yet.
    pub(crate) fn lock_for_reading(&self) -> Result<Option<Lock>, ImageError> {
        if self.refs().is_dir() { self.lock_shared().map(Some) } else { Ok(None) }
    }

    /// For the sweep: None when another command is adding.
    pub(super) fn try_lock_exclusive(&self) -> Result<Option<Lock>, ImageError> {
        let (fd, path) = self.lock_file(self.root.join("writers.lock"))?;
        match flock(&fd, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Lock { _fd: fd })),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(e) => Err(store_io("lock the image store", &path)(e)),
        }
    }

    /// For whoever removes the whole store: no image is added, and no container started, while it lives.
    ///
    /// # Errors
    /// [`ImageError::InUse`] when another command is adding an image.
    pub fn lock_for_reset(&self) -> Result<ResetLock, ImageError> {
        self.create()?;
        let adding = || ImageError::InUse {
            name: self.root.display().to_string(),
            why: "another command is adding an image".to_owned(),
            hint: "wait for it, or end it, and try again".to_owned(),
        };
        Ok(ResetLock { _writers: self.try_lock_exclusive()?.ok_or_else(adding)?, _images: self.lock_images()? })
    }

    fn lock_file(&self, path: PathBuf) -> Result<(OwnedFd, PathBuf), ImageError> {
        let flags = OFlags::RDONLY | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let fd = rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR)
            .map_err(store_io("open the lock of the image store", &path))?;
        Ok((fd, path))
    }
}

fn flock(fd: &OwnedFd, operation: FlockOperation) -> Result<(), Errno> {
    rustix::io::retry_on_intr(|| rustix::fs::flock(fd, operation))
}
