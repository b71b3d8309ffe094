//! The stream of entries.

use super::TarError;
use super::header::{BLOCK, Header};
use super::pax::Pax;
use super::sparse::{self, SparseMap};
use std::io::{self, BufRead, Read};

/// Longest pax header: room for a few attributes of 64 KiB, the most the kernel stores (XATTR_SIZE_MAX).
const MAX_PAX: u64 = 1 << 20;
/// Longest GNU long name. The kernel takes paths of 4096 bytes.
const MAX_NAME: u64 = 1 << 13;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    HardLink,
    Symlink,
    Directory,
    Fifo,
    /// Character or block device.
    Device,
}

/// One entry, as the archive describes it.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) kind: Kind,
    /// As written: may be absolute, have `..`, be empty.
    pub(crate) path: Vec<u8>,
    pub(crate) link: Vec<u8>,
    pub(crate) mode: u32,
    pub(crate) uid: u64,
    pub(crate) gid: u64,
    pub(crate) mtime: (i64, u32),
    /// Bytes of the file, with its holes.
    pub(crate) size: u64,
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(crate) sparse: Option<SparseMap>,
}

/// Reads entries one after the other; the body of an entry is read through [`TarReader::body`] before the next.
pub(crate) struct TarReader<R> {
    inner: R,
    /// Bytes of the current body that are still to come.
    body: u64,
    /// Bytes that fill the last block of the current body.
    padding: u64,
    begun: bool,
    ended: bool,
}

/// Headers that come before the entry they belong to.
#[derive(Default)]
struct Extensions {
    pax: Option<Pax>,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
}

impl<R: BufRead> TarReader<R> {
    pub(crate) fn new(inner: R) -> Self {
        TarReader { inner, body: 0, padding: 0, begun: false, ended: false }
    }

    /// Whether the archive's end mark was read; without it, it may have been cut off between two entries.
    pub(crate) fn ended(&self) -> bool {
        self.ended
    }

    pub(crate) fn into_inner(self) -> R {
        self.inner
    }

    /// The next entry, or None at the end.
    pub(crate) fn next_entry(&mut self) -> Result<Option<Entry>, TarError> {
        let mut extensions = Extensions::default();
        loop {
            self.skip_body()?;
            let Some(header) = self.next_header()? else { return Ok(None) };
            let size = header.size()?;
            match header.kind() {
                b'x' | b'X' => extensions.pax = Some(Pax::parse(&self.read_small(size, MAX_PAX)?)?),
                b'L' => extensions.long_name = Some(self.read_name(size)?),
                b'K' => extensions.long_link = Some(self.read_name(size)?),
                // Defaults for all entries. git puts a comment there, and nobody anything that matters here.
                b'g' => self.start_body(size),
                _ => return self.entry(&header, extensions).map(Some),
            }
        }
    }

    fn entry(&mut self, header: &Header, extensions: Extensions) -> Result<Entry, TarError> {
        let pax = extensions.pax.unwrap_or_default();
        let path =
            pax.sparse.name.clone().or(pax.path.clone()).or(extensions.long_name).unwrap_or_else(|| header.path());
        let stored = pax.size.map_or_else(|| header.size(), Ok)?;
        let kind = kind(header.kind(), &path)?;
        // Other kinds have no body, whatever their size field says; GNU tar writes the linked file's size there.
        self.start_body(if kind == Kind::File { stored } else { 0 });
        let sparse = if kind == Kind::File { self.sparse_map(header, &pax)? } else { None };
        Ok(Entry {
            kind,
            path,
            link: pax.link.or(extensions.long_link).unwrap_or_else(|| header.link()),
            mode: header.mode()?,
            uid: pax.uid.map_or_else(|| header.uid(), Ok)?,
            gid: pax.gid.map_or_else(|| header.gid(), Ok)?,
            mtime: pax.mtime.map_or_else(|| Ok::<_, TarError>((header.mtime()?, 0)), Ok)?,
            size: sparse.as_ref().map_or(self.body, |s| s.real_size),
            xattrs: pax.xattrs,
            sparse,
        })
    }

    fn sparse_map(&mut self, header: &Header, pax: &Pax) -> Result<Option<SparseMap>, TarError> {
        let (numbers, real_size) = if header.kind() == b'S' {
            // The blocks of the list stand before the body and are not part of its size.
            sparse::old_gnu_numbers(header, || read_block(&mut self.inner)?.ok_or_else(truncated))?
        } else if pax.sparse.major == Some(1) {
            let (numbers, taken) = sparse::pax_1_0_numbers(|| read_block(&mut self.inner)?.ok_or_else(truncated))?;
            self.body = self.body.checked_sub(taken).ok_or_else(truncated)?;
            (numbers, pax.sparse.real_size.unwrap_or(0))
        } else if let Some(real_size) = pax.sparse.real_size {
            (pax.sparse.numbers.clone(), real_size)
        } else {
            return Ok(None);
        };
        SparseMap::new(&numbers, real_size, self.body).map(Some)
    }

    fn next_header(&mut self) -> Result<Option<Header>, TarError> {
        if self.ended {
            return Ok(None);
        }
        let short = if self.begun { truncated } else { no_archive };
        let Some(block) = read_block_or(&mut self.inner, short)? else { return Ok(None) };
        self.begun = true;
        let header = Header::parse(block)?;
        self.ended = header.is_none();
        Ok(header)
    }

    fn start_body(&mut self, size: u64) {
        self.body = size;
        let over = size % BLOCK as u64;
        self.padding = if over == 0 { 0 } else { BLOCK as u64 - over };
    }

    /// A piece of the current body: up to `max` bytes, empty at its end. [`TarReader::consume`] takes them.
    pub(crate) fn body(&mut self, max: u64) -> Result<&[u8], TarError> {
        let want = self.body.min(max);
        if want == 0 {
            return Ok(&[]);
        }
        let available = fill(&mut self.inner)?;
        if available.is_empty() {
            return Err(truncated());
        }
        let n = usize::try_from(want).unwrap_or(usize::MAX).min(available.len());
        Ok(&available[..n])
    }

    /// Takes `n` bytes that [`TarReader::body`] gave.
    pub(crate) fn consume(&mut self, n: usize) {
        self.inner.consume(n);
        self.body -= n as u64;
    }

    fn skip_body(&mut self) -> Result<(), TarError> {
        let rest = self.body.checked_add(self.padding).ok_or_else(|| TarError::malformed("a size is out of range"))?;
        let skipped = io::copy(&mut (&mut self.inner).take(rest), &mut io::sink())?;
        (self.body, self.padding) = (0, 0);
        if skipped == rest { Ok(()) } else { Err(truncated()) }
    }

    fn read_small(&mut self, size: u64, max: u64) -> Result<Vec<u8>, TarError> {
        if size > max {
            return Err(TarError::malformed(format!("a name or an extended header of {size} bytes is too long")));
        }
        self.start_body(size);
        let mut bytes = Vec::new();
        (&mut self.inner).take(size).read_to_end(&mut bytes)?;
        if (bytes.len() as u64) < size {
            return Err(truncated());
        }
        self.body = 0;
        Ok(bytes)
    }

    fn read_name(&mut self, size: u64) -> Result<Vec<u8>, TarError> {
        let mut name = self.read_small(size, MAX_NAME)?;
        // Ends with a NUL byte, or with the size.
        name.truncate(super::header::until_nul(&name).len());
        Ok(name)
    }
}

fn truncated() -> TarError {
    TarError::malformed("it is truncated")
}

fn no_archive() -> TarError {
    TarError::malformed("it is not a tar archive: it is shorter than the first header of one")
}

fn kind(flag: u8, path: &[u8]) -> Result<Kind, TarError> {
    Ok(match flag {
        // Archives from before 1988 mark a directory by its slash.
        b'0' | 0 | b'7' if path.ends_with(b"/") => Kind::Directory,
        b'0' | 0 | b'7' | b'S' => Kind::File,
        b'1' => Kind::HardLink,
        b'2' => Kind::Symlink,
        b'3' | b'4' => Kind::Device,
        b'5' => Kind::Directory,
        b'6' => Kind::Fifo,
        other => {
            let why = format!("an entry of the unknown kind `{}`: {}", other.escape_ascii(), path.escape_ascii());
            return Err(TarError::malformed(why));
        }
    })
}

fn fill<R: BufRead>(inner: &mut R) -> Result<&[u8], TarError> {
    // The borrow checker wants the retry apart from the return (rust-lang/rust#54663).
    while let Err(e) = inner.fill_buf() {
        if e.kind() != io::ErrorKind::Interrupted {
            return Err(e.into());
        }
    }
    Ok(inner.fill_buf()?)
}

/// None at the end of the stream.
fn read_block(inner: &mut impl Read) -> Result<Option<[u8; BLOCK]>, TarError> {
    read_block_or(inner, truncated)
}

/// As [`read_block`], with what a block that is cut off means.
fn read_block_or(inner: &mut impl Read, short: fn() -> TarError) -> Result<Option<[u8; BLOCK]>, TarError> {
    let mut block = [0; BLOCK];
    let mut have = 0;
    while have < BLOCK {
        match inner.read(&mut block[have..]) {
            Ok(0) if have == 0 => return Ok(None),
            Ok(0) => return Err(short()),
            Ok(n) => have += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(Some(block))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Path and body.
    type Member = (Vec<u8>, Vec<u8>);

    fn names(archive: &[u8]) -> Result<Vec<Member>, TarError> {
        let mut reader = TarReader::new(archive);
        let mut found = Vec::new();
        while let Some(entry) = reader.next_entry()? {
            let mut body = Vec::new();
            loop {
                let piece = reader.body(u64::MAX)?;
                if piece.is_empty() {
                    break;
                }
                let n = piece.len();
                body.extend_from_slice(piece);
                reader.consume(n);
            }
            found.push((entry.path, body));
        }
        Ok(found)
    }

    fn archive(entries: &[(&str, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, body) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_size(body.len() as u64);
            header.set_mode(0o644);
            builder.append_data(&mut header, name, *body).unwrap();
        }
        builder.into_inner().unwrap()
    }

    #[test]
    fn long_names_and_bodies_come_back() {
        let long = "d/".repeat(150) + "f";
        let bytes = archive(&[("a", b"1"), (&long, &[7; 1000]), ("z", b"")]);
        let found = names(&bytes).unwrap();
        assert_eq!(found[0], (b"a".to_vec(), b"1".to_vec()));
        assert_eq!(found[1], (long.into_bytes(), vec![7; 1000]));
        assert_eq!(found[2], (b"z".to_vec(), Vec::new()));
    }

    #[test]
    fn a_cut_anywhere_in_an_entry_is_noticed() {
        let bytes = archive(&[("a", &[1; 700])]);
        for cut in [1, 511, 513, 600, 1535] {
            let told = names(&bytes[..cut]).unwrap_err().to_string();
            assert_eq!(told.contains("not a tar archive"), cut < 512, "cut at {cut}: {told}");
        }
        let mut reader = TarReader::new(&bytes[..1536]);
        while reader.next_entry().unwrap().is_some() {}
        assert!(!reader.ended(), "the end mark is missing");
    }

    #[test]
    fn a_name_that_would_fill_memory_is_refused() {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::GNULongName);
        header.set_size(1 << 40);
        header.set_cksum();
        let error = names(header.as_bytes()).unwrap_err();
        assert!(error.to_string().contains("too long"), "{error}");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2048)) {
            drop(names(&bytes));
        }

        #[test]
        fn no_header_with_a_right_checksum_makes_it_panic(
            mut block in proptest::collection::vec(any::<u8>(), 512),
            kind in proptest::sample::select(b"0123456xgLKSXV7\0".to_vec()),
            body in proptest::collection::vec(any::<u8>(), 0..2048),
        ) {
            block[156] = kind;
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|&b| u32::from(b)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            // A small size, so that the reader gets beyond it.
            drop(names(&[block.clone(), body.clone()].concat()));
            block[124..136].copy_from_slice(b"00000001000\0");
            drop(names(&[block, body].concat()));
        }
    }
}
