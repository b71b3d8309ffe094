//! A blob that arrives piece by piece, hashed on its way to the disk.

use super::Ingest;
use crate::digest::Digest;
use crate::error::{ImageError, store_io};
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Writes one blob of a running command. Dropped without [`BlobWriter::keep`], it goes with the command's directory.
pub(crate) struct BlobWriter {
    file: File,
    path: PathBuf,
    hash: Sha256,
    size: u64,
}

impl BlobWriter {
    /// `name` is unique within the command.
    pub(crate) fn new(ingest: &Ingest<'_>, name: &str) -> Result<Self, ImageError> {
        Self::at(&ingest.incoming(name))
    }

    /// As [`BlobWriter::new`], for threads, which do not share the command: `path` is from [`Ingest::incoming`].
    pub(crate) fn at(path: &Path) -> Result<Self, ImageError> {
        let file = File::options().read(true).write(true).create_new(true).open(path);
        let file = file.map_err(store_io("write a blob", path))?;
        Ok(BlobWriter { file, path: path.to_owned(), hash: Sha256::new(), size: 0 })
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), ImageError> {
        self.file.write_all(bytes).map_err(store_io("write a blob", &self.path))?;
        self.hash.update(bytes);
        self.size += bytes.len() as u64;
        Ok(())
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Begins again.
    pub(crate) fn restart(&mut self) -> Result<(), ImageError> {
        let rewound = self.file.set_len(0).and_then(|()| self.file.seek(SeekFrom::Start(0)));
        rewound.map_err(store_io("write a blob", &self.path))?;
        (self.hash, self.size) = (Sha256::new(), 0);
        Ok(())
    }

    /// The digest of what was written so far.
    pub(crate) fn digest(&self) -> Digest {
        Digest::from_hash(self.hash.clone())
    }

    /// The digest of what was written.
    pub(crate) fn finish(self) -> (Digest, u64, PathBuf) {
        (Digest::from_hash(self.hash), self.size, self.path)
    }

    /// The blob is complete; it gets its digest's name.
    pub(crate) fn keep(self, ingest: &Ingest<'_>) -> Result<(Digest, u64), ImageError> {
        let (digest, size, path) = self.finish();
        ingest.keep_blob(&path, &digest)?;
        Ok((digest, size))
    }
}
