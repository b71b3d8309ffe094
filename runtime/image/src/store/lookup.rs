//! From a user's words to an image in the store; reads only.

use super::Store;
use super::record::{Record, RecordName};
use crate::config::ImageConfig;
use crate::digest::Digest;
use crate::error::{ImageError, store_io};
use crate::provenance::Provenance;
use crate::reference::{DEFAULT_DOMAIN, LOCAL_DOMAIN, Partial, Reference};
use crate::registry::Registries;
use rlrun_spec::ImageIdentity;
use std::collections::BTreeMap;
use std::os::unix::fs::DirEntryExt as _;
use std::path::{Path, PathBuf};

/// An image, ready to be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedImage {
    /// Which image.
    pub identity: ImageIdentity,
    /// What it says about containers made from it.
    pub config: ImageConfig,
    /// Extracted layers, absolute, top first. Their last components are short, for `lowerdir=` relative to their parent.
    pub layers: Vec<PathBuf>,
    /// `/etc/passwd` of the image, if it has one of at most 1 MiB.
    pub passwd: Option<String>,
    /// `/etc/group`, likewise.
    pub group: Option<String>,
    /// What was found out about it when it came in.
    pub provenance: Provenance,
}

/// The shortest id prefix that is taken for one.
const MIN_ID: usize = 3;

impl Store {
    /// Finds an image by name (`busybox`, `localhost/app:1`, `name@sha256:...`) or by id or at least three digits of it.
    /// A short name means `localhost/` first, then docker.io, then what registries.conf(5) says.
    ///
    /// # Errors
    /// [`ImageError::Unknown`], [`ImageError::Ambiguous`], [`ImageError::Reference`], or the store cannot be read.
    pub fn resolve(&self, name: &str) -> Result<ResolvedImage, ImageError> {
        let (reference, record) = self.find(name)?;
        let dir = self.layers();
        let mut layers: Vec<PathBuf> = record.layers.iter().map(|layer| dir.join(layer)).collect();
        if layers.is_empty() {
            layers.push(self.empty());
        }
        Ok(ResolvedImage {
            identity: ImageIdentity {
                reference,
                digest: record.manifest.to_string(),
                id: record.id.to_string(),
                platform: record.config.platform(),
            },
            layers,
            config: record.config,
            passwd: record.passwd,
            group: record.group,
            provenance: record.provenance,
        })
    }

    /// Whether [`Store::resolve`] would find it, for `--pull missing`.
    ///
    /// # Errors
    /// As [`Store::resolve`], but for [`ImageError::Unknown`].
    pub fn has(&self, name: &str) -> Result<bool, ImageError> {
        match self.find(name) {
            Ok(_) => Ok(true),
            Err(ImageError::Unknown { .. }) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// The id of the image that [`Store::resolve`] would find, here or in an additional store; None when there is none.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn id_of(&self, name: &str) -> Result<Option<String>, ImageError> {
        match self.find(name) {
            Ok((_, record)) => Ok(Some(record.id.to_string())),
            Err(ImageError::Unknown { .. }) => Ok(self.elsewhere(name)?.map(|found| found.record.id.to_string())),
            // A pattern, or the beginning of several ids.
            Err(ImageError::Reference { .. } | ImageError::Ambiguous { .. }) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Finds a record, and the reference it was found by.
    pub(crate) fn find(&self, name: &str) -> Result<(String, Record), ImageError> {
        match self.find_by_name(name) {
            Ok(Some((reference, record))) => Ok((reference.to_string(), record)),
            // 64 digits and `sha256:...` are ids and no names.
            Ok(None) | Err(ImageError::Reference { .. }) if id_digits(name).is_some() => self.find_by_id(name),
            Ok(None) => Err(ImageError::Unknown { name: name.to_owned() }),
            Err(e) => Err(e),
        }
    }

    pub(crate) fn find_by_name(&self, name: &str) -> Result<Option<(Reference, Record)>, ImageError> {
        let partial = Partial::parse(name)?;
        let found = self.first_of(local_candidates(&partial)?)?;
        if found.is_some() || partial.domain.is_some() {
            return Ok(found);
        }
        // Off the hot path: only names that neither localhost nor docker.io has come here.
        self.first_of(Registries::from_system()?.candidates(&partial)?)
    }

    fn first_of(&self, candidates: Vec<Reference>) -> Result<Option<(Reference, Record)>, ImageError> {
        let refs = self.refs();
        for reference in candidates {
            if let Some(record) = Record::read(&refs.join(reference.file_name()))? {
                return Ok(Some((reference, record)));
            }
        }
        Ok(None)
    }

    fn find_by_id(&self, name: &str) -> Result<(String, Record), ImageError> {
        let unknown = || ImageError::Unknown { name: name.to_owned() };
        let found = self.records_by_id(name)?;
        let first = found.first().ok_or_else(unknown)?;
        let record = Record::read(&self.record_path(first))?.ok_or_else(unknown)?;
        // A policy judges the name, so an id is given back the name that it was pulled under.
        let mut names = self.names_by_record()?.remove(first).unwrap_or_default();
        names.sort_by_key(|r| (r.tag().is_none(), r.to_string()));
        let reference = names.first().map_or_else(|| record.id.to_string(), ToString::to_string);
        Ok((reference, record))
    }

    /// All records of the one image whose id begins with the digits of `name`.
    pub(super) fn records_by_id(&self, name: &str) -> Result<Vec<RecordName>, ImageError> {
        let Some(digits) = id_digits(name) else { return Ok(Vec::new()) };
        let mut found: Vec<RecordName> = self.record_names()?;
        found.retain(|r| r.id.hex().starts_with(digits));
        found.sort();
        match found.first().zip(found.last()) {
            Some((first, last)) if first.id != last.id => Err(ImageError::Ambiguous { name: name.to_owned() }),
            _ => Ok(found),
        }
    }

    pub(super) fn record_names(&self) -> Result<Vec<RecordName>, ImageError> {
        let names = read_dir_names(&self.images_dir())?;
        Ok(names.iter().filter_map(|n| RecordName::from_file_name(n)).collect())
    }

    pub(crate) fn names_by_record(&self) -> Result<BTreeMap<RecordName, Vec<Reference>>, ImageError> {
        let mut map = BTreeMap::<RecordName, Vec<Reference>>::new();
        for (reference, target) in self.links()? {
            if let Some(record) = RecordName::from_link_target(&target) {
                map.entry(record).or_default().push(reference);
            }
        }
        Ok(map)
    }

    /// All names and what they point to.
    pub(super) fn links(&self) -> Result<Vec<(Reference, PathBuf)>, ImageError> {
        let refs = self.refs();
        let mut links = Vec::new();
        for name in read_dir_names(&refs)? {
            let Some(reference) = Reference::from_file_name(&name) else { continue };
            // A link may vanish between the listing and here; then it is no longer a name.
            let Ok(target) = std::fs::read_link(refs.join(&name)) else { continue };
            links.push((reference, target));
        }
        Ok(links)
    }

    /// Every blob that is an image's.
    pub(crate) fn blobs_of(&self, name: &RecordName) -> Result<Vec<Digest>, ImageError> {
        Ok(Record::read(&self.record_path(name))?.map_or_else(Vec::new, |record| record.blobs))
    }
}

/// The hex digits, if `name` can be an image id or the beginning of one.
fn id_digits(name: &str) -> Option<&str> {
    let digits = name.strip_prefix("sha256:").unwrap_or(name);
    let hex = digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    ((MIN_ID..=64).contains(&digits.len()) && hex).then_some(digits)
}

fn local_candidates(partial: &Partial) -> Result<Vec<Reference>, ImageError> {
    if partial.domain.is_some() {
        return Ok(vec![partial.clone().in_domain(DEFAULT_DOMAIN)?]);
    }
    Ok(vec![partial.clone().in_domain(LOCAL_DOMAIN)?, partial.clone().in_domain(DEFAULT_DOMAIN)?])
}

/// Names in a directory of the store; none when the store was never written.
pub(super) fn read_dir_names(dir: &Path) -> Result<Vec<String>, ImageError> {
    Ok(read_dir(dir)?.into_iter().map(|(name, _)| name).collect())
}

/// The same, each with its inode.
pub(super) fn read_dir(dir: &Path) -> Result<Vec<(String, u64)>, ImageError> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(store_io("list the image store", dir)(e)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(store_io("list the image store", dir))?;
        // The store's own names are ASCII; anything else is not the store's.
        if let Ok(name) = entry.file_name().into_string() {
            names.push((name, entry.ino()));
        }
    }
    Ok(names)
}
