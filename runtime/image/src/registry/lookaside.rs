//! Where signatures of GnuPG are kept: beside the registry, in a directory or on a web server that registries.d names
//! (containers-registries.d(5)), each image's below its digest.

use super::client::agent;
use super::conf::config_home;
use super::pace::Paced;
use super::retry::{Failed, is_lost, is_passing, with_retries};
use super::tls::Verify;
use crate::digest::Digest;
use crate::error::{ImageError, store_io};
use crate::reference::Reference;
use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write as _};
use std::path::{Path, PathBuf};
use ureq::Agent;
use yaml_rust2::{Yaml, YamlLoader};

/// One has a few thousand bytes. What is longer is none, and not looked at.
pub(crate) const MAX_SIGNATURE: u64 = 256 << 10;
/// Somebody may have put thousands there.
pub(crate) const MAX_SIGNATURES: usize = 128;
const SYSTEM: &str = "/etc/containers/registries.d";

/// A signature as it is kept; nobody has looked at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RawSignature {
    /// What it is said to be about.
    pub(crate) about: Digest,
    pub(crate) bytes: Vec<u8>,
}

/// The place for one repository.
#[derive(Debug)]
pub(crate) struct Lookaside {
    base: Base,
    path: String,
}

#[derive(Debug, PartialEq, Eq)]
enum Base {
    Directory(PathBuf),
    Web(String),
}

/// One namespace.
#[derive(Debug, Default, PartialEq, Eq)]
struct Place {
    reading: Option<String>,
    writing: Option<String>,
}

/// The merged files.
#[derive(Debug, Default, PartialEq, Eq)]
struct Places {
    default: Option<Place>,
    docker: BTreeMap<String, Place>,
}

impl Lookaside {
    /// Where signatures of a repository are read.
    pub(crate) fn to_read(reference: &Reference) -> Result<Self, ImageError> {
        Self::find(reference, |place| place.reading.as_ref())
    }

    /// Where they are written; a directory.
    pub(crate) fn to_write(reference: &Reference) -> Result<Self, ImageError> {
        let lookaside = Self::find(reference, |place| place.writing.as_ref().or(place.reading.as_ref()))?;
        match lookaside.base {
            Base::Directory(_) => Ok(lookaside),
            Base::Web(url) => Err(ImageError::Registry {
                object: reference.to_string(),
                why: format!("the image has signatures, and {url}, where they are read, cannot be written to"),
                hint: Some(
                    "name a directory as `lookaside-staging` in registries.d, or leave them out with \
                     --remove-signatures"
                        .to_owned(),
                ),
            }),
        }
    }

    fn find(reference: &Reference, which: impl Fn(&Place) -> Option<&String>) -> Result<Self, ImageError> {
        let places = Places::from_system()?;
        let scopes = reference.scopes();
        let named = scopes.iter().filter_map(|scope| places.docker.get(scope)).chain(&places.default).find_map(which);
        let base = match named {
            Some(url) => base(url).ok_or_else(|| {
                let why = format!("the lookaside `{}` is neither file:///, http:// nor https://", url.escape_default());
                ImageError::configuration(Path::new("registries.d"), why)
            })?,
            // As other tools have it.
            None => {
                let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
                Base::Directory(home.join(".local/share/containers/sigstore"))
            }
        };
        Ok(Lookaside { base, path: reference.path().to_owned() })
    }

    /// The signatures of these manifests.
    pub(crate) fn signatures(&self, digests: &[&Digest]) -> Result<Vec<RawSignature>, ImageError> {
        let mut found = Vec::new();
        match &self.base {
            Base::Directory(dir) => {
                for digest in digests {
                    found.extend(numbered(digest, |number| read(&dir.join(self.file(digest, number))))?);
                }
            }
            Base::Web(url) => {
                let agent = web_agent(url)?;
                for digest in digests {
                    let one = |number| fetch(&agent, &format!("{url}/{}", self.file(digest, number)));
                    found.extend(numbered(digest, one)?);
                }
            }
        }
        Ok(found)
    }

    /// Keeps signatures of one manifest, in the place of those that were there.
    pub(crate) fn keep(&self, digest: &Digest, signatures: &[RawSignature]) -> Result<(), ImageError> {
        let Base::Directory(dir) = &self.base else { return Ok(()) };
        for (number, signature) in (1..).zip(signatures) {
            let path = dir.join(self.file(digest, number));
            write(&path, &signature.bytes).map_err(store_io("write a signature", &path))?;
        }
        for number in signatures.len() + 1..=MAX_SIGNATURES {
            match std::fs::remove_file(dir.join(self.file(digest, number))) {
                Ok(()) => {}
                // They are numbered without a gap.
                Err(_) => break,
            }
        }
        Ok(())
    }

    fn file(&self, digest: &Digest, number: usize) -> String {
        format!("{}@sha256={}/signature-{number}", self.path, digest.hex())
    }
}

/// The signatures `signature-1`, `signature-2`... that a reader finds.
pub(crate) fn read_signatures(
    about: &Digest,
    read: impl Fn(&str) -> Result<Option<Vec<u8>>, ImageError>,
) -> Result<Vec<RawSignature>, ImageError> {
    numbered(about, |number| read(&format!("signature-{number}")))
}

fn numbered(
    about: &Digest,
    one: impl Fn(usize) -> Result<Option<Vec<u8>>, ImageError>,
) -> Result<Vec<RawSignature>, ImageError> {
    let mut found = Vec::new();
    for number in 1..=MAX_SIGNATURES {
        let Some(bytes) = one(number)? else { break };
        if bytes.len() as u64 <= MAX_SIGNATURE {
            found.push(RawSignature { about: about.clone(), bytes });
        }
    }
    Ok(found)
}

/// A URL without the slashes at its end.
fn base(url: &str) -> Option<Base> {
    let url = url.trim_end_matches('/');
    match url.split_once("://")? {
        ("file", path) if path.starts_with('/') || path.is_empty() => Some(Base::Directory(format!("{path}/").into())),
        ("http" | "https", rest) if !rest.is_empty() => Some(Base::Web(url.to_owned())),
        _ => None,
    }
}

fn web_agent(url: &str) -> Result<Agent, ImageError> {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let host = rest.split('/').next().unwrap_or(rest);
    agent(host, url.starts_with("https").then_some(Verify::Yes), None)
}

fn fetch(agent: &Agent, url: &str) -> Result<Option<Vec<u8>>, ImageError> {
    let failed = |why: String| ImageError::Registry {
        object: url.to_owned(),
        why: format!("its signatures cannot be fetched: {why}"),
        hint: Some("registries.d says where they are (containers-registries.d(5))".to_owned()),
    };
    with_retries(|| {
        let mut response = agent.get(url).call().map_err(|e| match is_lost(&e) {
            true => Failed::Passing(failed(e.to_string()), None),
            false => Failed::For(failed(e.to_string())),
        })?;
        match response.status().as_u16() {
            404 => Ok(None),
            200 => {
                let mut bytes = Vec::new();
                let body = Paced::new(response.body_mut().with_config().limit(u64::MAX).reader());
                let read = body.take(MAX_SIGNATURE + 1).read_to_end(&mut bytes);
                read.map_err(|e| Failed::Passing(failed(e.to_string()), None))?;
                Ok(Some(bytes))
            }
            s if is_passing(s) => Err(Failed::Passing(failed(format!("the server answers {s}")), None)),
            s => Err(Failed::For(failed(format!("the server answers {s}")))),
        }
    })
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, ImageError> {
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(None),
        Err(e) => return Err(store_io("read a signature", path)(e)),
    };
    let mut bytes = Vec::new();
    file.take(MAX_SIGNATURE + 1).read_to_end(&mut bytes).map_err(store_io("read a signature", path))?;
    Ok(Some(bytes))
}

fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    std::fs::create_dir_all(parent)?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    let mut file = tempfile::Builder::new().prefix(".signature").permissions(mode).tempfile_in(parent)?;
    file.write_all(bytes)?;
    file.persist(path).map(drop).map_err(|e| e.error)
}

impl Places {
    /// The user's directory, if it is there, else the machine's.
    fn from_system() -> Result<Self, ImageError> {
        let user = config_home().map(|c| c.join("containers/registries.d")).filter(|dir| dir.is_dir());
        let dir = user.unwrap_or_else(|| SYSTEM.into());
        let entries = match std::fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                return Ok(Places::default());
            }
            Err(e) => return Err(store_io("read the registries' configuration", &dir)(e)),
        };
        let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        files.retain(|path| path.extension().is_some_and(|e| e == "yaml"));
        files.sort();
        let mut places = Places::default();
        for path in files {
            let text = std::fs::read_to_string(&path).map_err(store_io("read the registries' configuration", &path))?;
            places.add(&text).map_err(|why| ImageError::configuration(&path, why))?;
        }
        Ok(places)
    }

    fn add(&mut self, text: &str) -> Result<(), String> {
        for document in YamlLoader::load_from_str(text).map_err(|e| e.to_string())? {
            let default = &document["default-docker"];
            if !default.is_badvalue() && self.default.replace(place(default)?).is_some() {
                return Err("default-docker is defined twice".to_owned());
            }
            for (scope, content) in document["docker"].as_hash().into_iter().flatten() {
                let scope = scope.as_str().ok_or("a namespace below `docker` is no text")?;
                if self.docker.insert(scope.to_owned(), place(content)?).is_some() {
                    return Err(format!("the namespace `{}` is defined twice", scope.escape_default()));
                }
            }
        }
        Ok(())
    }
}

/// With the names that the keys had before.
fn place(content: &Yaml) -> Result<Place, String> {
    let text = |keys: [&str; 2]| {
        let given = keys.iter().map(|key| &content[*key]).find(|value| !value.is_badvalue());
        match given.map(|value| value.as_str().map(str::to_owned)) {
            None => Ok(None),
            Some(Some(url)) => Ok(Some(url).filter(|url| !url.is_empty())),
            Some(None) => Err(format!("`{}` is no text", keys[0])),
        }
    };
    Ok(Place { reading: text(["lookaside", "sigstore"])?, writing: text(["lookaside-staging", "sigstore-staging"])? })
}

/// For [`crate::fuzz`].
#[cfg(test)]
pub(super) fn fuzz_read(text: &str) {
    let mut places = Places::default();
    if places.add(text).is_ok() {
        places.docker.values().filter_map(|p| p.reading.as_deref()).for_each(|url| drop(base(url)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_d_is_read_as_the_manual_says() {
        let mut places = Places::default();
        let text = "default-docker:\n  sigstore: file:///var/sig\ndocker:\n  r.io/team:\n    lookaside: https://r.io/sig/\n    \
            lookaside-staging: file:///home/me/sig\n    use-sigstore-attachments: true\n  '*.lab.io': {}\n";
        places.add(text).unwrap();
        assert_eq!(places.default.as_ref().unwrap().reading.as_deref(), Some("file:///var/sig"));
        let team = &places.docker["r.io/team"];
        assert_eq!(base(team.reading.as_ref().unwrap()), Some(Base::Web("https://r.io/sig".to_owned())));
        assert_eq!(base(team.writing.as_ref().unwrap()), Some(Base::Directory("/home/me/sig".into())));
        assert_eq!(places.docker["*.lab.io"], Place::default());
        assert!(places.add("default-docker: {}").unwrap_err().contains("twice"));
        assert!(places.add("docker:\n  r.io/team: {}").unwrap_err().contains("twice"));
        for bad in ["docker: {a: {lookaside: [1]}}", "a: [", "docker: {1: {}}"] {
            assert!(Places::default().add(bad).is_err(), "{bad}");
        }
        for bad in ["/var/sig", "file://sig", "ftp://x/y", "https://", ""] {
            assert_eq!(base(bad), None, "{bad}");
        }
        Places::default().add("").unwrap();
    }
}
