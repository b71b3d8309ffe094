//! The cache of machine code, and the index that says what is in it.

use super::digest::Digest;
use super::load::TrustedCode;
use crate::file::Checked;
use rustix::fs::{Mode, OFlags, Stat};
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

const INDEX: &str = "index";
const INDEX_HEADER: &str = "rlrun-policy-index 1";
const INDEX_BYTES: u64 = 1 << 20;
/// Entries of one kind that are kept, newest last.
const ENTRIES: usize = 256;
/// More than a refusal has.
const REFUSAL_BYTES: u64 = 64 << 10;
/// A file touched less than this before it was recorded could change again within the same timestamp.
const SETTLING_SECONDS: i64 = 2;

/// What stat(2) says that changes whenever the contents do. Only root can set ctime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity([i128; 5]);

impl Identity {
    fn of(stat: &Stat) -> Self {
        let nanoseconds = |s: i64, ns: u64| i128::from(s) * 1_000_000_000 + i128::from(ns);
        Identity([
            i128::from(stat.st_dev),
            i128::from(stat.st_ino),
            i128::from(stat.st_size),
            nanoseconds(stat.st_mtime, stat.st_mtime_nsec),
            nanoseconds(stat.st_ctime, stat.st_ctime_nsec),
        ])
    }

    fn parse(text: &str) -> Option<Self> {
        let mut fields = [0; 5];
        let mut words = text.split('.');
        for field in &mut fields {
            *field = words.next()?.parse().ok()?;
        }
        words.next().is_none().then_some(Identity(fields))
    }

    fn settled_at(self, recorded: i64) -> bool {
        let latest = self.0[3].max(self.0[4]);
        latest + i128::from(SETTLING_SECONDS) * 1_000_000_000 <= i128::from(recorded) * 1_000_000_000
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [dev, ino, size, mtime, ctime] = self.0;
        write!(f, "{dev}.{ino}.{size}.{mtime}.{ctime}")
    }
}

/// What a file's bytes hashed to, when it looked like this.
#[derive(Clone, Debug)]
struct Entry {
    /// `source` for policy files, the file name for machine code.
    name: String,
    identity: Identity,
    recorded: i64,
    digest: Digest,
}

impl Entry {
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let entry = Entry {
            name: words.next()?.to_owned(),
            identity: Identity::parse(words.next()?)?,
            recorded: words.next()?.parse().ok()?,
            digest: Digest::parse(words.next()?)?,
        };
        words.next().is_none().then_some(entry)
    }
}

const SOURCE: &str = "source";

/// The caller's cache directory.
pub(crate) struct Cache {
    dir: OwnedFd,
    entries: Vec<Entry>,
    changed: bool,
}

impl Cache {
    /// Opens the directory, making it when it is not there.
    ///
    /// # Errors
    /// Why it cannot be used; policies are then compiled each time.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = match rustix::fs::open(path, flags, Mode::empty()) {
            Err(rustix::io::Errno::NOENT) => {
                make_private(path)?;
                rustix::fs::open(path, flags, Mode::empty())?
            }
            other => other?,
        };
        let stat = rustix::fs::fstat(&dir)?;
        if stat.st_uid != rustix::process::geteuid().as_raw() || stat.st_mode & 0o077 != 0 {
            return Err(io::Error::other(format!(
                "belongs to uid {} with mode {:o}, not to you alone (chmod 700)",
                stat.st_uid,
                stat.st_mode & 0o7777
            )));
        }
        let mut cache = Cache { dir, entries: Vec::new(), changed: false };
        cache.entries = cache.read_index().unwrap_or_default();
        Ok(cache)
    }

    /// An index that cannot be read is no index: everything is hashed and compiled again.
    fn read_index(&self) -> Option<Vec<Entry>> {
        let checked = self.open_own(INDEX)?;
        let mut text = String::new();
        checked.file.take(INDEX_BYTES).read_to_string(&mut text).ok()?;
        let mut lines = text.lines();
        (lines.next() == Some(INDEX_HEADER)).then(|| lines.map_while(Entry::parse).collect())
    }

    /// A regular file of the caller's that nobody else can read or write, not a link.
    fn open_own(&self, name: &str) -> Option<Checked> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.dir, name, flags, Mode::empty()).ok()?;
        let stat = rustix::fs::fstat(&fd).ok()?;
        let own = stat.st_uid == rustix::process::geteuid().as_raw()
            && stat.st_mode & 0o077 == 0
            && rustix::fs::FileType::from_raw_mode(stat.st_mode).is_file();
        own.then(|| Checked { file: File::from(fd), stat })
    }

    /// The digest of a policy file, without reading it when it is known and untouched.
    pub(crate) fn source_digest(&mut self, source: &Checked, limit: u64) -> io::Result<Digest> {
        let identity = Identity::of(&source.stat);
        let known = self.entries.iter().find(|e| e.name == SOURCE && e.identity == identity);
        if let Some(entry) = known.filter(|e| e.identity.settled_at(e.recorded)) {
            return Ok(entry.digest);
        }
        let digest = hash(&source.file, limit)?;
        self.record(Entry { name: SOURCE.to_owned(), identity, recorded: now(), digest });
        Ok(digest)
    }

    /// Machine code by its key, if what is there passes every check.
    pub(crate) fn find(&mut self, key: &str) -> Option<TrustedCode> {
        self.find_file(&file_name(key)).map(TrustedCode::vouch_for)
    }

    /// Why the compiler refused what has this key, if it did.
    pub(crate) fn find_refusal(&mut self, key: &str) -> Option<String> {
        let mut why = String::new();
        self.find_file(&refusal_name(key))?.take(REFUSAL_BYTES).read_to_string(&mut why).ok()?;
        Some(why)
    }

    fn find_file(&mut self, name: &str) -> Option<File> {
        let entry = self.entries.iter().rfind(|e| e.name == name)?.clone();
        let checked = self.open_own(name)?;
        let identity = Identity::of(&checked.stat);
        if identity != entry.identity || !identity.settled_at(entry.recorded) {
            // Touched, or too young to tell: the bytes decide.
            if hash(&checked.file, u64::MAX).ok()? != entry.digest {
                return None;
            }
            self.record(Entry { identity, recorded: now(), ..entry });
        }
        Some(checked.file)
    }

    /// Keeps machine code. Written under a temporary name and renamed: a parallel rlrun sees all or nothing.
    pub(crate) fn store(&mut self, key: &str, code: &TrustedCode) -> io::Result<()> {
        self.store_file(file_name(key), &code.bytes()?)
    }

    /// Keeps why the compiler refuses what has this key: it would say so again at each start, after as much work.
    pub(crate) fn store_refusal(&mut self, key: &str, why: &str) -> io::Result<()> {
        self.store_file(refusal_name(key), why.as_bytes())
    }

    fn store_file(&mut self, name: String, bytes: &[u8]) -> io::Result<()> {
        let stat = self.replace(&name, bytes)?;
        self.record(Entry { name, identity: Identity::of(&stat), recorded: now(), digest: Digest::of(bytes) });
        Ok(())
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<Stat> {
        let temporary = format!(".{name}.{}", std::process::id());
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // Left by a process of the same id that was killed.
        match rustix::fs::unlinkat(&self.dir, &*temporary, rustix::fs::AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
        let fd = rustix::fs::openat(&self.dir, &*temporary, flags, Mode::RUSR | Mode::WUSR)?;
        let mut file = File::from(fd);
        // No fsync: a file cut off by a crash does not have its recorded digest.
        let written =
            file.write_all(bytes).and_then(|()| Ok(rustix::fs::renameat(&self.dir, &*temporary, &self.dir, name)?));
        if let Err(error) = written {
            // The first error is the one to tell; a leftover is overwritten by the next process of this id.
            let _cleanup = rustix::fs::unlinkat(&self.dir, &*temporary, rustix::fs::AtFlags::empty());
            return Err(error);
        }
        // After the rename, which changes ctime.
        Ok(rustix::fs::fstat(file.as_fd())?)
    }

    fn record(&mut self, entry: Entry) {
        let same = |e: &Entry| e.name == entry.name && (e.name != SOURCE || e.identity == entry.identity);
        self.entries.retain(|e| !same(e));
        self.entries.push(entry);
        self.changed = true;
    }

    /// Writes the index if anything was learned, and drops machine code that it no longer names.
    pub(crate) fn save(mut self) -> io::Result<()> {
        if !self.changed {
            return Ok(());
        }
        let excess = self.entries.len().saturating_sub(ENTRIES);
        for dropped in self.entries.drain(..excess).filter(|e| e.name != SOURCE) {
            match rustix::fs::unlinkat(&self.dir, &*dropped.name, rustix::fs::AtFlags::empty()) {
                Ok(()) | Err(rustix::io::Errno::NOENT) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        let mut text = format!("{INDEX_HEADER}\n");
        for Entry { name, identity, recorded, digest } in &self.entries {
            text.push_str(&format!("{name} {identity} {recorded} {digest}\n"));
        }
        self.replace(INDEX, text.as_bytes())?;
        Ok(())
    }
}

fn file_name(key: &str) -> String {
    format!("{key}.cwasm")
}

fn refusal_name(key: &str) -> String {
    format!("{key}.refused")
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// Reads through its own offset, so the file can be handed on.
fn hash(file: &File, limit: u64) -> io::Result<Digest> {
    use std::os::unix::fs::FileExt as _;
    let mut bytes = Vec::new();
    let mut chunk = vec![0; 1 << 16];
    loop {
        let offset = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        if offset > limit {
            return Err(io::Error::other(format!("is larger than {limit} bytes")));
        }
        match file.read_at(&mut chunk, offset)? {
            0 => return Ok(Digest::of(&bytes)),
            read => bytes.extend_from_slice(chunk.get(..read).unwrap_or_default()),
        }
    }
}

/// `mkdir -p` with mode 0700 for what is new.
fn make_private(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}
