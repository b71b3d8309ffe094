//! Writing tar archives: ustar headers, with pax records before those whose names or attributes do not fit.

use rustix::fs::{FileType, Stat};
use std::io::{self, Read, Write};
use tar::{Builder, EntryType, Header};

/// Bytes of the name fields of a header.
const NAME: usize = 100;

/// An archive being written.
pub(super) struct Writer<W: Write> {
    builder: Builder<W>,
}

/// What an entry is.
pub(super) enum Body<'a> {
    Directory,
    /// A file of this size.
    File(u64, &'a mut dyn Read),
    Symlink(&'a [u8]),
    /// Another name of an earlier entry.
    HardLink(&'a [u8]),
    Fifo,
}

/// Owner, mode and time of an entry.
#[derive(Clone, Copy)]
pub(super) struct Meta {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mode: u32,
    pub(super) mtime: i64,
}

impl Meta {
    pub(super) fn of(stat: &Stat) -> Self {
        Meta { uid: stat.st_uid, gid: stat.st_gid, mode: stat.st_mode & 0o7777, mtime: stat.st_mtime }
    }
}

/// Attributes of an entry, name and value.
pub(super) type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

impl<W: Write> Writer<W> {
    pub(super) fn new(out: W) -> Self {
        Writer { builder: Builder::new(out) }
    }

    pub(super) fn entry(&mut self, path: &[u8], meta: Meta, xattrs: &Xattrs, body: Body<'_>) -> io::Result<()> {
        let mut name = path.to_vec();
        let mut link: &[u8] = b"";
        let mut empty = io::empty();
        let (kind, size, data): (EntryType, u64, &mut dyn Read) = match body {
            Body::Directory => {
                name.push(b'/');
                (EntryType::Directory, 0, &mut empty)
            }
            Body::File(size, data) => (EntryType::Regular, size, data),
            Body::Symlink(target) => {
                link = target;
                (EntryType::Symlink, 0, &mut empty)
            }
            Body::HardLink(target) => {
                link = target;
                (EntryType::Link, 0, &mut empty)
            }
            Body::Fifo => (EntryType::Fifo, 0, &mut empty),
        };
        self.extend(&name, link, meta.mtime, xattrs)?;
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(meta.mode);
        header.set_uid(u64::from(meta.uid));
        header.set_gid(u64::from(meta.gid));
        header.set_mtime(u64::try_from(meta.mtime).unwrap_or(0));
        header.set_size(size);
        let old = header.as_old_mut();
        put(&mut old.name, &name);
        put(&mut old.linkname, link);
        header.set_cksum();
        self.builder.append(&header, Exact { inner: data, left: size })
    }

    fn extend(&mut self, name: &[u8], link: &[u8], mtime: i64, xattrs: &Xattrs) -> io::Result<()> {
        let mut records: Vec<(String, Vec<u8>)> = Vec::new();
        for (key, value) in [("path", name), ("linkpath", link)] {
            if value.len() > NAME {
                records.push((key.to_owned(), value.to_vec()));
            }
        }
        if mtime < 0 {
            records.push(("mtime".to_owned(), mtime.to_string().into_bytes()));
        }
        for (key, value) in xattrs {
            records.push((format!("SCHILY.xattr.{}", String::from_utf8_lossy(key)), value.clone()));
        }
        if records.is_empty() {
            return Ok(());
        }
        self.builder.append_pax_extensions(records.iter().map(|(key, value)| (key.as_str(), value.as_slice())))
    }

    pub(super) fn finish(self) -> io::Result<()> {
        self.builder.into_inner()?.flush()
    }
}

fn put(field: &mut [u8; NAME], value: &[u8]) {
    let length = value.len().min(NAME);
    field[..length].copy_from_slice(&value[..length]);
}

/// Exactly as many bytes as the header says, whatever becomes of the file meanwhile.
struct Exact<'a> {
    inner: &'a mut dyn Read,
    left: u64,
}

impl Read for Exact<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if most == 0 {
            return Ok(0);
        }
        let read = match self.inner.read(&mut buffer[..most])? {
            0 => {
                // It was cut off meanwhile.
                buffer[..most].fill(0);
                most
            }
            read => read,
        };
        self.left -= read as u64;
        Ok(read)
    }
}

/// What of a file a tar archive can hold: sockets and devices it cannot, because nobody could make them again.
pub(super) fn fits(kind: FileType) -> bool {
    matches!(kind, FileType::RegularFile | FileType::Directory | FileType::Symlink | FileType::Fifo)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tarball::TarReader;

    #[test]
    fn long_names_links_and_attributes_come_back() {
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes);
        let meta = Meta { uid: 3_000_000, gid: 5, mode: 0o4755, mtime: -7 };
        let long = [&b"d/".repeat(90)[..], b"\xff"].concat();
        let target = b"../".repeat(60);
        let xattrs = vec![(b"user.x".to_vec(), b"a\nb\0c".to_vec())];
        // A file that is shorter than it was.
        writer.entry(&long, meta, &xattrs, Body::File(5, &mut &b"abc"[..])).unwrap();
        writer.entry(b"l", meta, &Vec::new(), Body::Symlink(&target)).unwrap();
        writer.entry(b"d", meta, &Vec::new(), Body::Directory).unwrap();
        writer.finish().unwrap();
        let mut reader = TarReader::new(&bytes[..]);
        let file = reader.next_entry().unwrap().unwrap();
        assert_eq!((file.path, file.size, file.uid, file.mode), (long, 5, 3_000_000, 0o4755));
        assert_eq!((file.xattrs, file.mtime), (xattrs, (-7, 0)));
        assert_eq!(reader.body(9).unwrap(), b"abc\0\0");
        let link = reader.next_entry().unwrap().unwrap();
        assert_eq!((link.path, link.link), (b"l".to_vec(), target));
        assert_eq!(reader.next_entry().unwrap().unwrap().path, b"d/");
        assert!(reader.next_entry().unwrap().is_none() && reader.ended());
    }
}
