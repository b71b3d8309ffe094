//! An image archive, taken apart as it streams by: each file becomes a blob under its digest, and what the archive calls
//! it is remembered. Archives come from pipes, and say what they contain at their end.

use crate::decompress::{Bounded, decompressed};
use crate::digest::Digest;
use crate::error::{ImageError, from_io};
use crate::manifest::OCI_LAYER;
use crate::store::{BlobWriter, Ingest};
use crate::tarball::{Entry, Kind, TarError, TarReader};
use crate::work::Event;
use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::path::Path;

/// Names in archives: at most this many, each a blob or a link to one.
const MAX_FILES: usize = 10_000;
/// An archive has layers of up to the limit of one each; beyond this it is a bomb whatever they are.
const MAX_ARCHIVE: u64 = 1 << 40;
/// Links from link to link.
const MAX_LINKS: usize = 8;

/// The files of an archive or a directory.
#[derive(Debug)]
pub(super) struct Spool {
    /// What errors call it.
    pub(super) object: String,
    names: RefCell<HashMap<String, Name>>,
    /// Of a directory the files are taken when they are asked for: a layout may hold more than the one image.
    directory: Option<OwnedFd>,
}

#[derive(Clone, Debug)]
enum Name {
    Blob(Digest, u64),
    /// To another name, already resolved against its directory.
    Link(String),
}

impl Spool {
    pub(super) fn read(ingest: &Ingest<'_>, archive: &mut (dyn Read + Send), object: &str) -> Result<Self, ImageError> {
        let fail = |e: TarError| tar_error(object, e);
        let plain = decompressed(archive).map_err(|e| fail(e.into()))?;
        let mut reader = TarReader::new(BufReader::with_capacity(256 << 10, Bounded::new(plain, MAX_ARCHIVE)));
        let spool = Spool { object: object.to_owned(), names: RefCell::default(), directory: None };
        while let Some(entry) = reader.next_entry().map_err(fail)? {
            if spool.names.borrow().len() >= MAX_FILES {
                return Err(ImageError::malformed(object, "it has more than 10000 files"));
            }
            spool.take(ingest, &entry, &mut reader)?;
        }
        if spool.names.borrow().is_empty() {
            return Err(ImageError::malformed(object, "it is no image archive"));
        }
        if !reader.ended() {
            return Err(ImageError::malformed(object, "it is truncated: its end mark is missing"));
        }
        Ok(spool)
    }

    /// The files of a directory.
    pub(super) fn open(path: &Path) -> Result<Self, ImageError> {
        let object = path.display().to_string();
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(path, flags, Mode::empty());
        let directory =
            directory.map_err(|e| from_io("open-archive", "open the directory", object.clone(), &e.into()))?;
        Ok(Spool { object, names: RefCell::default(), directory: Some(directory) })
    }

    fn take<R: BufRead>(
        &self,
        ingest: &Ingest<'_>,
        entry: &Entry,
        reader: &mut TarReader<R>,
    ) -> Result<(), ImageError> {
        let Some(name) = clean(&entry.path) else { return Ok(()) };
        match entry.kind {
            Kind::File if entry.sparse.is_none() => {
                (ingest.work.progress)(&Event::BlobStarted { name: name.clone(), size: entry.size });
                let (digest, size) = keep(ingest, reader, &name, &self.object)?;
                (ingest.work.progress)(&Event::BlobDone(name.clone()));
                self.names.borrow_mut().insert(name, Name::Blob(digest, size));
            }
            // docker save writes a layer once and links to it from wherever else it belongs.
            Kind::Symlink => {
                let parent = name.rsplit_once('/').map_or("", |(parent, _)| parent);
                let target = resolve(parent, &String::from_utf8_lossy(&entry.link));
                self.names.borrow_mut().insert(name, Name::Link(target));
            }
            Kind::HardLink => {
                let target = resolve("", &String::from_utf8_lossy(&entry.link));
                self.names.borrow_mut().insert(name, Name::Link(target));
            }
            // Nothing else has a meaning in an image archive.
            Kind::File | Kind::Directory | Kind::Fifo | Kind::Device => {}
        }
        Ok(())
    }

    pub(super) fn is_directory(&self) -> bool {
        self.directory.is_some()
    }

    pub(super) fn has(&self, name: &str) -> bool {
        let in_directory = |directory: &OwnedFd| rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).is_ok();
        self.names.borrow().contains_key(name) || self.directory.as_ref().is_some_and(in_directory)
    }

    /// Digest and size of the file of this name.
    pub(super) fn blob(&self, ingest: &Ingest<'_>, name: &str) -> Result<(Digest, u64), ImageError> {
        let mut at = name.strip_prefix("./").unwrap_or(name).to_owned();
        for _ in 0..MAX_LINKS {
            let known = self.names.borrow().get(&at).cloned();
            match known {
                Some(Name::Blob(digest, size)) => return Ok((digest, size)),
                Some(Name::Link(target)) => at = target,
                None => return self.take_from_directory(ingest, &at),
            }
        }
        Err(self.lacks(name))
    }

    fn lacks(&self, name: &str) -> ImageError {
        ImageError::malformed(&self.object, format!("it lacks the file `{}`", name.escape_default()))
    }

    fn take_from_directory(&self, ingest: &Ingest<'_>, name: &str) -> Result<(Digest, u64), ImageError> {
        let directory = self.directory.as_ref().ok_or_else(|| self.lacks(name))?;
        let object = format!("{}/{name}", self.object);
        let fail = |e: io::Error| from_io("open-archive", "read", object.clone(), &e);
        // Whoever made the directory chose what is in it: no link of it leads out, and no pipe of it stops us.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let file = match rustix::fs::openat2(directory, name, flags, Mode::empty(), resolve) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT) => return Err(self.lacks(name)),
            Err(e) => return Err(fail(e.into())),
        };
        if !file.metadata().map_err(fail)?.is_file() {
            return Err(ImageError::malformed(object, "it is no file"));
        }
        let (digest, size) = keep_file(ingest, file, name, &object)?;
        self.names.borrow_mut().insert(name.to_owned(), Name::Blob(digest.clone(), size));
        Ok((digest, size))
    }

    /// The blob of a digest under the name that its layout gives it; that its content has this digest is known.
    pub(super) fn promised(
        &self,
        ingest: &Ingest<'_>,
        name: &str,
        digest: &Digest,
        size: u64,
    ) -> Result<(), ImageError> {
        let (actual, actual_size) = self.blob(ingest, name)?;
        if &actual != digest {
            return Err(ImageError::mismatch(format!("{}: blob", self.object), digest, actual));
        }
        if actual_size != size {
            let object = format!("{}: {digest}", self.object);
            return Err(ImageError::wrong_size(object, size, actual_size));
        }
        Ok(())
    }
}

/// Copies a file to a blob.
fn keep_file(ingest: &Ingest<'_>, mut file: File, name: &str, object: &str) -> Result<(Digest, u64), ImageError> {
    (ingest.work.progress)(&Event::BlobStarted { name: name.to_owned(), size: 0 });
    let mut writer = BlobWriter::new(ingest, "file")?;
    let mut chunk = vec![0; 256 << 10];
    loop {
        let n = file.read(&mut chunk).map_err(|e| from_io("open-archive", "read", object.to_owned(), &e))?;
        if n == 0 {
            (ingest.work.progress)(&Event::BlobDone(name.to_owned()));
            return writer.keep(ingest);
        }
        writer.write(&chunk[..n])?;
        (ingest.work.progress)(&Event::BlobProgress { name: name.to_owned(), done: writer.size() });
    }
}

/// Contents of a small blob.
pub(crate) fn read_blob(ingest: &Ingest<'_>, digest: &Digest, max: u64, object: &str) -> Result<Vec<u8>, ImageError> {
    let missing = || ImageError::malformed(object, format!("the blob {digest} is missing"));
    let path = ingest.blob_path(digest).ok_or_else(missing)?;
    let fail = |e: io::Error| from_io("data-dir", "read a blob", path.display().to_string(), &e);
    let mut bytes = Vec::new();
    File::open(&path).map_err(fail)?.take(max + 1).read_to_end(&mut bytes).map_err(fail)?;
    if bytes.len() as u64 > max {
        return Err(ImageError::malformed(object, format!("the blob {digest} is larger than {max} bytes")));
    }
    Ok(bytes)
}

/// Writes a body to a blob.
fn keep<R: BufRead>(
    ingest: &Ingest<'_>,
    reader: &mut TarReader<R>,
    name: &str,
    object: &str,
) -> Result<(Digest, u64), ImageError> {
    let mut writer = BlobWriter::new(ingest, "file")?;
    loop {
        let piece = reader.body(u64::MAX).map_err(|e| tar_error(object, e))?;
        if piece.is_empty() {
            return writer.keep(ingest);
        }
        writer.write(piece)?;
        let n = piece.len();
        reader.consume(n);
        (ingest.work.progress)(&Event::BlobProgress { name: name.to_owned(), done: writer.size() });
    }
}

pub(super) fn tar_error(object: &str, error: TarError) -> ImageError {
    match error {
        TarError::Malformed(why) => ImageError::malformed(object, why),
        TarError::Io(e) => from_io("data-dir", "read the archive", object.to_owned(), &e),
    }
}

/// The media type of a layer, by its first bytes.
pub(super) fn layer_media_type(ingest: &Ingest<'_>, digest: &Digest) -> String {
    let mut magic = [0; 4];
    let read = ingest.blob_path(digest).and_then(|p| File::open(p).ok()?.read_exact(&mut magic).ok());
    let suffix = match magic {
        [0x1f, 0x8b, ..] if read.is_some() => "+gzip",
        [0x28, 0xb5, 0x2f, 0xfd] if read.is_some() => "+zstd",
        _ => "",
    };
    format!("{OCI_LAYER}{suffix}")
}

/// A name within the archive; None for one that leads out of it, which then nothing can refer to.
fn clean(path: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(path).ok()?;
    let parts: Vec<&str> = text.split('/').filter(|p| !p.is_empty() && *p != ".").collect();
    (!parts.is_empty() && !parts.contains(&"..")).then(|| parts.join("/"))
}

/// Where a link in `parent` leads, as text: links within an archive are names of other entries.
fn resolve(parent: &str, link: &str) -> String {
    let mut parts: Vec<&str> = parent.split('/').filter(|p| !p.is_empty()).collect();
    for part in link.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_names_within_the_archive() {
        assert_eq!(resolve("abc", "../def/layer.tar"), "def/layer.tar");
        assert_eq!(resolve("", "../../../etc/passwd"), "etc/passwd");
        assert_eq!(clean(b"./a//b").as_deref(), Some("a/b"));
        assert_eq!(clean(b"../a"), None);
        assert_eq!(clean(b"./"), None);
    }
}
