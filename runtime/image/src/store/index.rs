//! What lists show of all images, in one file: where there are thousands, a list is a handful of system calls instead of
//! several for each.
//!
//! It is only ever a copy. It counts as long as the two directories that it was made of are as they were then: images and
//! names come and go by renames, each of which gives its directory another time. What is found out of date still spares
//! reading the records that are the same files. Losing it, or half of it, costs nothing but time.

use super::Store;
use super::list::ImageSummary;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::Permissions;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

const VERSION: u32 = 1;
/// Some hundred bytes an image.
const MAX_INDEX: u64 = 64 << 20;
/// Fewer records are read as quickly as the index.
const FEW: usize = 32;
/// A directory that changed so recently may change once more and keep its time: clocks of file systems have ticks.
const TICK: Duration = Duration::from_secs(3);

/// The directories of records and names at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Moment {
    images: Stamp,
    refs: Stamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp {
    device: u64,
    inode: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// The inode of a record, and what it says.
type Row = (u64, ImageSummary);

#[derive(Default, Serialize, Deserialize)]
struct FileFormat<'a> {
    version: u32,
    moment: Option<Moment>,
    rows: Cow<'a, [Row]>,
}

/// The index as one list finds it.
pub(super) struct Index {
    path: PathBuf,
    scratch: PathBuf,
    now: Option<Moment>,
    then: Option<Moment>,
    rows: Vec<Row>,
}

impl Index {
    /// To be called before the directories are listed.
    pub(super) fn read(store: &Store) -> Self {
        let path = store.root().join("images.index");
        let now = Stamp::of(&store.images_dir()).zip(Stamp::of(&store.refs()));
        let now = now.map(|(images, refs)| Moment { images, refs });
        let file = super::read_plain(&path, MAX_INDEX).ok();
        let file = file.and_then(|bytes| serde_json::from_slice::<FileFormat>(&bytes).ok());
        let FileFormat { moment: then, rows, .. } = file.filter(|f| f.version == VERSION).unwrap_or_default();
        Index { path, scratch: store.tmp(), now, then, rows: rows.into_owned() }
    }

    /// All images, if nothing has changed since.
    pub(super) fn current(&mut self) -> Option<Vec<ImageSummary>> {
        let same = self.now.is_some() && self.now == self.then;
        same.then(|| std::mem::take(&mut self.rows).into_iter().map(|(_, summary)| summary).collect())
    }

    /// What is known of records, by file name and inode; their names may be others by now.
    pub(super) fn known(&mut self) -> HashMap<(String, u64), ImageSummary> {
        let rows = std::mem::take(&mut self.rows).into_iter();
        rows.map(|(inode, summary)| ((summary.file_name(), inode), summary)).collect()
    }

    /// Keeps what a list has found, where the next is the faster for it; `read` is how many records had to be read.
    pub(super) fn keep(&self, rows: &[Row], read: usize) {
        if rows.len() < FEW || (self.now.is_none() && read < FEW) {
            return;
        }
        // Without an index the next list is slow, and nothing else.
        self.write(rows).ok();
    }

    fn write(&self, rows: &[Row]) -> std::io::Result<()> {
        let bytes = serde_json::to_vec(&FileFormat { version: VERSION, moment: self.now, rows: rows.into() })?;
        // As open as the records: whoever may read those reads it too.
        let mode = Permissions::from_mode(0o644);
        let mut file = tempfile::Builder::new().prefix("index-").permissions(mode).tempfile_in(&self.scratch)?;
        // Nothing waits for the disk: after a crash it is what it was, or no JSON.
        file.write_all(&bytes)?;
        file.persist(&self.path)?;
        Ok(())
    }
}

impl Stamp {
    /// None while another change could not be told from the last.
    fn of(dir: &Path) -> Option<Self> {
        let about = std::fs::symlink_metadata(dir).ok()?;
        let settled = SystemTime::now().duration_since(about.modified().ok()?).ok()? > TICK;
        settled.then(|| Stamp {
            device: about.dev(),
            inode: about.ino(),
            modified: (about.mtime(), about.mtime_nsec()),
            changed: (about.ctime(), about.ctime_nsec()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::Reference;
    use rustix::fs::{AtFlags, CWD, Timespec, Timestamps};

    const IMAGES: usize = 40;

    fn digest(number: usize) -> String {
        format!("{number:064x}")
    }

    /// A store with records as a commit writes them, as far as lists look.
    fn store(dir: &Path) -> Store {
        let store = Store::new(dir);
        store.create().unwrap();
        (0..IMAGES).for_each(|number| put(&store, number, "tar"));
        store
    }

    fn put(store: &Store, number: usize, label: &str) {
        let digest = digest(number);
        let text = format!(
            r#"{{"version":1,"manifest":"sha256:{digest}","id":"sha256:{digest}","size":5,"unpacked":7,"added":9,
            "config":{{"labels":{{"from":"{label}"}},"architecture":"amd64","os":"linux"}}}}"#
        );
        let scratch = store.tmp().join("record");
        std::fs::File::create(&scratch).unwrap().write_all(text.as_bytes()).unwrap();
        std::fs::rename(scratch, store.images_dir().join(format!("{digest}.{digest}"))).unwrap();
        name(store, &format!("n{number}"), number);
    }

    fn name(store: &Store, name: &str, number: usize) {
        let digest = digest(number);
        let reference = Reference::parse(name).unwrap();
        let scratch = store.tmp().join("link");
        std::os::unix::fs::symlink(format!("../images/{digest}.{digest}"), &scratch).unwrap();
        std::fs::rename(scratch, store.refs().join(reference.file_name())).unwrap();
    }

    /// As if the last change were so many seconds ago.
    fn settle(store: &Store, seconds: i64) {
        let then = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
        let time = Timespec { tv_sec: i64::try_from(then).unwrap() - seconds, tv_nsec: 0 };
        let times = Timestamps { last_access: time, last_modification: time };
        for dir in [store.images_dir(), store.refs()] {
            rustix::fs::utimensat(CWD, &dir, &times, AtFlags::empty()).unwrap();
        }
    }

    fn names(store: &Store) -> Vec<String> {
        let mut names: Vec<String> = store.images(&|_| {}).unwrap().into_iter().flat_map(|row| row.names).collect();
        names.sort();
        names
    }

    fn lie(store: &Store) {
        let path = store.root().join("images.index");
        let text = std::fs::read_to_string(&path).unwrap().replace("docker.io/library/n7:", "docker.io/library/lie:");
        std::fs::File::create(path).unwrap().write_all(text.as_bytes()).unwrap();
    }

    #[test]
    fn a_list_is_kept_and_counts_until_something_changes() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        settle(&store, 1000);
        let all = names(&store);
        assert_eq!(all.len(), IMAGES);
        lie(&store);
        let lied = |names: &[String]| names.iter().any(|name| name.contains("lie"));
        assert!(lied(&names(&store)), "nobody looks at anything else");
        // Each of these changes a directory: the index does not count, and is made anew.
        name(&store, "more", 3);
        settle(&store, 900);
        assert_eq!(names(&store).len(), IMAGES + 1);
        assert!(!lied(&names(&store)));
        std::fs::remove_file(store.refs().join("docker.io+library+more:latest")).unwrap();
        settle(&store, 800);
        assert_eq!(names(&store), all);
        name(&store, "n1", 2);
        settle(&store, 700);
        let two = store.images(&|_| {}).unwrap().into_iter().find(|row| row.id.ends_with(&digest(2))).unwrap();
        assert_eq!(two.names, ["docker.io/library/n1:latest", "docker.io/library/n2:latest"]);
        put(&store, 4, "elsewhere");
        settle(&store, 600);
        let four = store.images(&|_| {}).unwrap().into_iter().find(|row| row.id.ends_with(&digest(4))).unwrap();
        assert_eq!((four.labels["from"].as_str(), four.size), ("elsewhere", 7));
    }

    #[test]
    fn what_has_just_changed_is_looked_at_again() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        settle(&store, 0);
        names(&store);
        lie(&store);
        assert!(names(&store).iter().all(|name| !name.contains("lie")));
    }

    #[test]
    fn half_an_index_and_another_versions_are_none() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        settle(&store, 1000);
        let all = names(&store);
        let path = store.root().join("images.index");
        let whole = std::fs::read(&path).unwrap();
        let other = String::from_utf8(whole.clone()).unwrap().replace("{\"version\":1", "{\"version\":2").into_bytes();
        let torn = [&whole[..whole.len() / 2], &vec![0; whole.len() / 2][..]].concat();
        for bad in [&whole[..whole.len() / 2], b"", &torn, &other] {
            std::fs::File::create(&path).unwrap().write_all(bad).unwrap();
            assert_eq!(names(&store), all);
        }
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert_eq!(names(&store), all, "where it cannot be written, lists are slower");
    }

    #[test]
    fn few_images_are_listed_without() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path());
        store.create().unwrap();
        put(&store, 1, "tar");
        settle(&store, 1000);
        assert_eq!(names(&store), ["docker.io/library/n1:latest"]);
        assert!(!store.root().join("images.index").exists());
    }
}
