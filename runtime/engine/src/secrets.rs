//! Secrets: small values that containers are given and that are told to nobody else. `<data>/secrets/<name>/` has
//! `secret.json`, what is known of it, and `value`, both for their owner alone. Each appears whole, by a rename.

use crate::journal;
use crate::names;
use crate::place::Place;
use crate::record;
use crate::request::Invalid;
use crate::request::secret::{SecretForm, SecretRequest};
use rlrun_spec::container::{SecretForm as Form, SecretUse};
use rlrun_spec::plan::SecretFile;
use rlrun_spec::{Failure, Kind, Stage};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{ErrorKind, Read, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Below the data directory.
pub const DIRECTORY: &str = "secrets";
/// The largest value; podman's limit.
pub const MAX_BYTES: u64 = 512_000;
const ABOUT: &str = "secret.json";
const VALUE: &str = "value";
/// Digits of an id, as podman has them.
const ID_DIGITS: usize = 25;

/// What is known of a secret, beside its value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret {
    /// 25 hex digits.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Nanoseconds since the epoch.
    pub created: u64,
    /// When its value was replaced last.
    pub updated: u64,
}

/// What becomes of a secret that has the name already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// It is an error.
    Refused,
    /// It gets the new value.
    Replaced,
    /// It stays as it is.
    Ignored,
}

fn about(operation: &str, name: &str) -> Failure {
    Failure::new(Stage::Cli, Kind::Usage, "secret", operation, name)
}

fn failed(operation: &str, path: &Path, error: &std::io::Error) -> Failure {
    record::failed("secret", operation, path, error)
}

/// The name of a secret.
///
/// # Errors
/// When podman would not take it either.
pub fn name(option: &'static str, word: &str) -> Result<String, Invalid> {
    let ok = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    let begins = word.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    if begins && word.len() <= 253 && word.bytes().all(ok) {
        return Ok(word.to_owned());
    }
    Err(Invalid {
        option,
        value: word.to_owned(),
        why: "is not the name of a secret".to_owned(),
        hint: Some("use letters, digits, `_`, `.` and `-`, beginning with a letter or digit".to_owned()),
    })
}

fn directory(place: &Place) -> PathBuf {
    place.data.join(DIRECTORY)
}

fn now() -> u64 {
    u64::try_from(SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos()).unwrap_or(u64::MAX)
}

/// Reads a value from a file or a stream, up to the limit.
///
/// # Errors
/// When it is empty, too large, or cannot be read.
pub fn value(source: &mut dyn Read, object: &str) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    source
        .take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| about("read the secret from", object).why(e.to_string()))?;
    checked(bytes, object)
}

/// The value, if it can be one.
///
/// # Errors
/// When it is empty or too large.
pub fn checked(bytes: Vec<u8>, object: &str) -> Result<Vec<u8>, Failure> {
    if bytes.is_empty() {
        return Err(about("read the secret from", object).why("it is empty"));
    }
    if bytes.len() as u64 > MAX_BYTES {
        return Err(about("read the secret from", object)
            .why(format!("it is larger than {MAX_BYTES} bytes"))
            .hint("mount larger things as a volume"));
    }
    Ok(bytes)
}

/// `rlrun secret create`: its id.
///
/// # Errors
/// When there is one of this name, or the disk is full.
pub fn create(
    place: &Place,
    name: &str,
    value: &[u8],
    labels: BTreeMap<String, String>,
    existing: Existing,
) -> Result<Secret, Failure> {
    let all = place.own(DIRECTORY)?;
    let there = read(&all.join(name));
    let id = names::container_id()?.chars().take(ID_DIGITS).collect();
    let mut secret = Secret { id, name: name.to_owned(), labels, created: now(), updated: now() };
    match (there, existing) {
        (Some(old), Existing::Ignored) => return Ok(old),
        (Some(old), Existing::Replaced) => secret.created = old.created,
        (Some(_), Existing::Refused) => return Err(taken(name)),
        (None, _) => {}
    }
    let unfinished = all.join(format!(".new-{}-{}", name, std::process::id()));
    let write = |file: &str, bytes: &[u8]| {
        let mut new = OpenOptions::new().write(true).create_new(true).mode(0o600).open(unfinished.join(file))?;
        new.write_all(bytes)
    };
    let text = serde_json::to_vec(&secret).map_err(|e| about("write the secret", name).why(e.to_string()))?;
    let written = clear(&unfinished)
        .and_then(|()| DirBuilder::new().mode(0o700).create(&unfinished))
        .and_then(|()| write(ABOUT, &text))
        .and_then(|()| write(VALUE, value));
    let placed = written.and_then(|()| put(&unfinished, &all.join(name), existing));
    // The old value, or a new one that found no place.
    let cleared = clear(&unfinished);
    match placed {
        Ok(()) => {
            cleared.map_err(|e| failed("remove the old value of", &unfinished, &e))?;
            journal::event("secret", "create", &secret.id, name, json!({}));
            Ok(secret)
        }
        Err(e) if e.kind() == ErrorKind::AlreadyExists => Err(taken(name)),
        Err(e) => Err(failed("write the secret", &all.join(name), &e)),
    }
}

fn put(from: &Path, to: &Path, existing: Existing) -> std::io::Result<()> {
    let flags = if existing == Existing::Replaced { RenameFlags::EXCHANGE } else { RenameFlags::NOREPLACE };
    match renameat_with(CWD, from, CWD, to, flags) {
        // There is none to replace.
        Err(Errno::NOENT) if existing == Existing::Replaced => fs::rename(from, to),
        other => Ok(other?),
    }
}

fn taken(name: &str) -> Failure {
    about("create the secret", name).why("a secret of this name exists already").hint("--replace gives it a new value")
}

fn clear(path: &Path) -> std::io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn read(path: &Path) -> Option<Secret> {
    serde_json::from_slice(&fs::read(path.join(ABOUT)).ok()?).ok()
}

/// All secrets, by name.
///
/// # Errors
/// When their directory cannot be read; that there is none is no error.
pub fn list(place: &Place) -> Result<Vec<Secret>, Failure> {
    let base = directory(place);
    let entries = match fs::read_dir(&base) {
        Ok(entries) => entries,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(failed("read", &base, &e)),
    };
    let plain = entries.flatten().filter(|e| !e.file_name().to_string_lossy().starts_with('.'));
    let mut all: Vec<Secret> = plain.filter_map(|e| read(&e.path())).collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(all)
}

/// The secret with this name or id, or the only one whose id begins so.
///
/// # Errors
/// When there is none, or more than one.
pub fn find(place: &Place, word: &str) -> Result<Secret, Failure> {
    let all = list(place)?;
    if let Some(secret) = all.iter().find(|s| s.name == word || s.id == word) {
        return Ok(secret.clone());
    }
    let mut fitting = all.into_iter().filter(|s| !word.is_empty() && s.id.starts_with(word));
    match (fitting.next(), fitting.next()) {
        (Some(secret), None) => Ok(secret),
        (Some(_), Some(_)) => {
            Err(about("find the secret", word).why("more than one secret's id begins so").hint("write more of the id"))
        }
        (None, _) => Err(about("find the secret", word).why("no such secret").hint("rlrun secret ls lists them")),
    }
}

/// The value of a secret.
///
/// # Errors
/// When it cannot be read.
pub fn reveal(place: &Place, secret: &Secret) -> Result<Vec<u8>, Failure> {
    let path = directory(place).join(&secret.name).join(VALUE);
    fs::read(&path).map_err(|e| failed("read the secret", &path, &e))
}

/// `rlrun secret rm`: its id.
///
/// # Errors
/// When there is none.
pub fn remove(place: &Place, word: &str) -> Result<String, Failure> {
    let secret = find(place, word)?;
    let path = directory(place).join(&secret.name);
    let gone = directory(place).join(format!(".gone-{}-{}", secret.name, std::process::id()));
    clear(&gone)
        .and_then(|()| fs::rename(&path, &gone))
        .and_then(|()| clear(&gone))
        .map_err(|e| failed("remove the secret", &path, &e))?;
    journal::event("secret", "remove", &secret.id, &secret.name, json!({}));
    Ok(secret.id)
}

/// What a container is given at a start.
#[derive(Debug, Default)]
pub struct Given {
    /// Files in memory.
    pub files: Vec<SecretFile>,
    /// Variables of pid 1, `NAME=value`.
    pub variables: Vec<String>,
}

/// Reads the values that a container asks for; at every start anew.
///
/// # Errors
/// When there is no such secret, or a variable cannot hold it.
pub fn give(place: &Place, requests: &[SecretRequest]) -> Result<Given, Failure> {
    let mut given = Given::default();
    for SecretRequest { name, form } in requests {
        let value = reveal(place, &find(place, name)?)?;
        match form {
            SecretForm::File { target, uid, gid, mode } => given.files.push(SecretFile {
                path: target.clone(),
                uid: *uid,
                gid: *gid,
                mode: *mode,
                contents: value,
            }),
            SecretForm::Variable(variable) => match String::from_utf8(value) {
                Ok(text) if !text.contains('\0') => given.variables.push(format!("{variable}={text}")),
                Ok(_) | Err(_) => {
                    return Err(about("give as a variable the secret", name)
                        .why("its value is not text")
                        .hint("--secret NAME without type=env gives it as a file"));
                }
            },
        }
    }
    Ok(given)
}

/// The values that a container has as variables, for a command that joins it.
///
/// # Errors
/// As [`give`].
pub fn variables(place: &Place, requests: &[SecretRequest]) -> Result<Vec<String>, Failure> {
    let wanted = requests.iter().filter(|request| matches!(request.form, SecretForm::Variable(_)));
    Ok(give(place, &wanted.cloned().collect::<Vec<_>>())?.variables)
}

/// What is told of the secrets of a container: name and use, never the value.
pub(crate) fn uses(requests: &[SecretRequest]) -> Vec<SecretUse> {
    let told = |SecretRequest { name, form }: &SecretRequest| {
        let (form, target, mode) = match form {
            SecretForm::File { target, mode, .. } => (Form::File, target, Some(*mode)),
            SecretForm::Variable(variable) => (Form::Environment, variable, None),
        };
        SecretUse { name: name.clone(), form, target: target.clone(), mode }
    };
    requests.iter().map(told).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::place::tests::place;
    use std::os::unix::fs::MetadataExt as _;

    #[test]
    fn a_secret_is_made_replaced_found_and_gone() {
        let (_dir, place) = place();
        assert!(list(&place).unwrap().is_empty());
        let make = |value: &[u8], existing| create(&place, "key", value, BTreeMap::new(), existing);
        let first = make(b"one", Existing::Replaced).unwrap();
        assert!(make(b"two", Existing::Refused).unwrap_err().to_string().contains("exists already"));
        assert_eq!(make(b"two", Existing::Ignored).unwrap(), first);
        let second = make(b"two", Existing::Replaced).unwrap();
        assert_eq!((second.created, first.id.len()), (first.created, 25));
        assert_eq!(reveal(&place, &find(&place, &second.id[..9]).unwrap()).unwrap(), b"two");
        let stat = fs::metadata(place.data.join("secrets/key/value")).unwrap();
        assert_eq!(stat.mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(place.data.join("secrets")).unwrap().count(), 1, "nothing of the old value stays");
        for nobody in ["", "k", "../key", "."] {
            assert!(find(&place, nobody).is_err(), "{nobody}");
        }
        assert_eq!(remove(&place, "key").unwrap(), second.id);
        assert_eq!(fs::read_dir(place.data.join("secrets")).unwrap().count(), 0);
    }

    #[test]
    fn values_have_a_size() {
        assert!(checked(Vec::new(), "x").is_err());
        assert!(checked(vec![0; 512_000], "x").is_ok());
        assert!(value(&mut std::io::repeat(1), "x").unwrap_err().to_string().contains("larger"));
    }

    #[test]
    fn what_is_told_is_the_use_and_not_the_value() {
        let (_dir, place) = place();
        create(&place, "key", b"hunter2\xff", BTreeMap::new(), Existing::Refused).unwrap();
        let requests = ["key", "key,type=env,target=K"].map(|w| crate::request::secret::secret(w).unwrap());
        let told: Vec<_> = uses(&requests).into_iter().map(|u| (u.target, u.mode)).collect();
        assert_eq!(told, [("/run/secrets/key".to_owned(), Some(0o444)), ("K".to_owned(), None)]);
        assert!(give(&place, &requests).unwrap_err().to_string().contains("not text"));
        assert_eq!(give(&place, &requests[..1]).unwrap().files[0].contents, b"hunter2\xff");
    }
}
