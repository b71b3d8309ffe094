//! `login` and `logout`: the standard auth.json (containers-auth.json(5)), written as podman and docker read it.

use super::client::{Client, Purpose};
use super::conf::{Registries, config_home};
use super::credentials::{self, Credentials};
use super::helper;
use crate::error::{ImageError, store_io};
use crate::options::PullOptions;
use crate::reference::Reference;
use base64::Engine as _;
use serde_json::{Map, Value, json};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Where credentials were written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    /// A file.
    File(PathBuf),
    /// A credential helper.
    Helper(String),
}

/// Tries a user's password at a registry, or at a namespace of it, and keeps it if it is let in.
///
/// # Errors
/// When the registry does not let the user in, or the credentials cannot be kept.
pub fn login(registry: &str, user: &str, password: &str, options: &PullOptions) -> Result<Kept, ImageError> {
    let key = key(registry)?;
    let reference = Reference::parse(&format!("{key}/login"))?;
    let registries = Registries::from_system()?;
    let endpoint = registries.endpoint_of_registry(&reference)?;
    let credentials = Credentials::Basic(user.to_owned(), password.to_owned());
    Client::connect(&endpoint, Some(credentials), options, Purpose::Login)?.ping()?;
    let path = file(options.authfile.as_deref());
    if let Some(name) = helper_of(&registries, options.authfile.as_deref(), reference.domain())? {
        helper::store(&name, &key, user, password)?;
        return Ok(Kept::Helper(name));
    }
    let encoded = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
    change(&path, |auths| {
        auths.insert(key, json!({"auth": encoded}));
    })?;
    Ok(Kept::File(path))
}

/// Forgets what [`login`] kept; every registry's when none is named. Gives back what was forgotten.
///
/// # Errors
/// When the file cannot be changed.
pub fn logout(registry: Option<&str>, authfile: Option<&Path>) -> Result<Vec<String>, ImageError> {
    let path = file(authfile);
    let mut gone = Vec::new();
    let Some(registry) = registry else {
        change(&path, |auths| gone.extend(std::mem::take(auths).into_iter().map(|(key, _)| key)))?;
        return Ok(gone);
    };
    let key = key(registry)?;
    let domain = Reference::parse(&format!("{key}/login"))?.domain().to_owned();
    if let Some(name) = helper_of(&Registries::from_system()?, authfile, &domain)?
        && helper::erase(&name, &key)?
    {
        gone.push(key.clone());
    }
    change(&path, |auths| {
        auths.retain(|known, _| {
            let same = credentials::normal_key(known) == key;
            if same {
                gone.push(known.clone());
            }
            !same
        });
    })?;
    Ok(gone)
}

/// The user that is logged in at a registry.
///
/// # Errors
/// When a file of credentials cannot be understood.
pub fn logged_in(registry: &str, authfile: Option<&Path>) -> Result<Option<String>, ImageError> {
    let reference = Reference::parse(&format!("{}/login", key(registry)?))?;
    Ok(match Credentials::find(&reference, authfile)? {
        Some(Credentials::Basic(user, _)) => Some(user),
        Some(Credentials::Identity(_)) => Some("<token>".to_owned()),
        None => None,
    })
}

/// `https://index.docker.io/v1/` and `docker.io` are one.
fn key(registry: &str) -> Result<String, ImageError> {
    let key = credentials::normal_key(registry);
    match key.is_empty() || key.contains(['@', ' ']) {
        true => Err(ImageError::reference(registry, "this is no registry")),
        false => Ok(key),
    }
}

fn helper_of(registries: &Registries, authfile: Option<&Path>, domain: &str) -> Result<Option<String>, ImageError> {
    let own = credentials::helper_in(&file(authfile), domain)?;
    Ok(own.or_else(|| registries.credential_helpers().next().map(str::to_owned)))
}

/// As podman chooses it; where there is no run-time directory of the user's own, the one that outlives a login.
fn file(authfile: Option<&Path>) -> PathBuf {
    if let Some(path) = authfile {
        return path.to_owned();
    }
    if let Some(path) = std::env::var_os("REGISTRY_AUTH_FILE") {
        return path.into();
    }
    let own = |dir: &PathBuf| {
        let uid = rustix::process::geteuid().as_raw();
        std::fs::metadata(dir).is_ok_and(|m| m.is_dir() && m.uid() == uid)
    };
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(own);
    runtime.or_else(config_home).unwrap_or_default().join("containers/auth.json")
}

/// Rewrites the `auths` of a file; everything else in it stays.
fn change(path: &Path, act: impl FnOnce(&mut Map<String, Value>)) -> Result<(), ImageError> {
    let bad = |why: String| ImageError::configuration(path, why);
    let mut whole: Value = match std::fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|e| bad(e.to_string()))?,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => json!({}),
        Err(e) => return Err(store_io("read the credentials", path)(e)),
    };
    let object = whole.as_object_mut().ok_or_else(|| bad("it is no JSON object".to_owned()))?;
    let auths = object.entry("auths").or_insert_with(|| json!({}));
    act(auths.as_object_mut().ok_or_else(|| bad("`auths` is no JSON object".to_owned()))?);
    let fail = || store_io::<std::io::Error>("write the credentials", path);
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(parent).map_err(fail())?;
    // A temporary file is for nobody but its owner, and so is what it becomes.
    let mut file = tempfile::NamedTempFile::new_in(parent).map_err(fail())?;
    file.write_all(format!("{whole:#}\n").as_bytes()).map_err(fail())?;
    file.persist(path).map_err(|e| fail()(e.error)).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(path: &Path, text: &str) -> std::io::Result<()> {
        std::fs::File::create(path)?.write_all(text.as_bytes())
    }

    #[test]
    fn a_file_keeps_what_is_not_ours() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("containers/auth.json");
        change(&path, |auths| drop(auths.insert("a.example".into(), json!({"auth": "x"})))).unwrap();
        put(&path, r#"{"auths":{"a.example":{"auth":"x"}},"credHelpers":{"b":"c"}}"#).unwrap();
        change(&path, |auths| drop(auths.insert("b.example".into(), json!({"auth": "y"})))).unwrap();
        let whole: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let want =
            json!({"auths": {"a.example": {"auth": "x"}, "b.example": {"auth": "y"}}, "credHelpers": {"b": "c"}});
        assert_eq!(whole, want);
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(logout(Some("https://a.example/v1/"), Some(&path)).unwrap(), ["a.example"]);
        assert_eq!(logout(None, Some(&path)).unwrap(), ["b.example"]);
        put(&path, "[]").unwrap();
        assert!(logout(None, Some(&path)).is_err());
    }
}
