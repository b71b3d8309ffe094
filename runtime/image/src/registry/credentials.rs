//! Who we are at a registry: auth.json (containers-auth.json(5)) and docker's config.json, read unchanged.

use super::conf::{Registries, config_home};
use super::helper;
use crate::error::{ImageError, store_io};
use crate::options::PullOptions;
use crate::reference::{DEFAULT_DOMAIN, Reference};
use base64::Engine as _;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What a registry or its token server is shown.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// User and password.
    Basic(String, String),
    /// A refresh token, as interactive logins leave it.
    Identity(String),
}

/// Passwords do not belong in messages.
impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials(..)")
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
#[serde(rename_all = "camelCase")]
struct FileFormat {
    auths: BTreeMap<String, Auth>,
    cred_helpers: BTreeMap<String, String>,
    creds_store: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Auth {
    auth: String,
    identitytoken: String,
}

impl Credentials {
    /// What the caller gave, else what the files and helpers have.
    pub(crate) fn chosen(reference: &Reference, options: &PullOptions) -> Result<Option<Self>, ImageError> {
        match &options.credentials {
            Some(given) => Ok(Some(given.clone())),
            None => Self::find(reference, options.authfile.as_deref()),
        }
    }

    /// The credentials for a reference; None to be anonymous. A file that was named must be there.
    pub(crate) fn find(reference: &Reference, authfile: Option<&Path>) -> Result<Option<Self>, ImageError> {
        for helper in Registries::from_system()?.credential_helpers() {
            if let Some(found) = helper::get(helper, reference.domain())? {
                return Ok(Some(found));
            }
        }
        let named = authfile.map(Path::to_owned).or_else(|| std::env::var_os("REGISTRY_AUTH_FILE").map(PathBuf::from));
        if let Some(path) = named {
            let text = std::fs::read_to_string(&path).map_err(store_io("read the credentials", &path))?;
            return in_file(&text, &path, reference);
        }
        for path in search_path() {
            let Ok(text) = std::fs::read_to_string(&path) else { continue };
            let found = in_file(&text, &path, reference)?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// The value of an `Authorization` header, when a password is what is wanted.
    pub(crate) fn basic(&self) -> Option<String> {
        match self {
            Credentials::Basic(user, password) => {
                let encoded = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
                Some(format!("Basic {encoded}"))
            }
            Credentials::Identity(_) => None,
        }
    }
}

fn search_path() -> Vec<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let runtime = set("XDG_RUNTIME_DIR").map(|d| d.join("containers/auth.json"));
    let config = config_home().map(|d| d.join("containers/auth.json"));
    let docker = set("DOCKER_CONFIG").or_else(|| set("HOME").map(|h| h.join(".docker"))).map(|d| d.join("config.json"));
    runtime.into_iter().chain(config).chain(docker).collect()
}

pub(super) fn in_file(text: &str, path: &Path, reference: &Reference) -> Result<Option<Credentials>, ImageError> {
    let bad = |why: String| ImageError::configuration(path, why);
    let file: FileFormat = serde_json::from_str(text).map_err(|e| bad(e.to_string()))?;
    let domain = reference.domain();
    let own = file.cred_helpers.iter().find(|(key, _)| normal_key(key) == domain).map(|(_, name)| name);
    if let Some(name) = own.or(Some(&file.creds_store).filter(|s| !s.is_empty()))
        && let Some(found) = helper::get(name, docker_key(domain))?
    {
        return Ok(Some(found));
    }
    for key in keys(reference) {
        let Some((_, auth)) = file.auths.iter().find(|(k, _)| normal_key(k) == key) else { continue };
        if !auth.identitytoken.is_empty() {
            return Ok(Some(Credentials::Identity(auth.identitytoken.clone())));
        }
        if auth.auth.is_empty() {
            continue;
        }
        // The value itself is a secret, and stays out of the message.
        let secret = || bad(format!("the credentials of `{key}` are not base64 of user:password"));
        let decoded = base64::engine::general_purpose::STANDARD.decode(auth.auth.trim()).map_err(|_| secret())?;
        let decoded = String::from_utf8(decoded).map_err(|_| secret())?;
        let (user, password) = decoded.split_once(':').ok_or_else(secret)?;
        return Ok(Some(Credentials::Basic(user.to_owned(), password.trim_end_matches('\0').to_owned())));
    }
    Ok(None)
}

/// `registry/team/app`, `registry/team`, `registry`: the most specific first.
fn keys(reference: &Reference) -> Vec<String> {
    let repository = reference.repository();
    let mut keys = vec![repository.clone()];
    let mut rest = repository.as_str();
    while let Some((parent, _)) = rest.rsplit_once('/') {
        keys.push(parent.to_owned());
        rest = parent;
    }
    keys
}

/// The helper that a file names for a registry.
pub(super) fn helper_in(path: &Path, domain: &str) -> Result<Option<String>, ImageError> {
    let Ok(text) = std::fs::read_to_string(path) else { return Ok(None) };
    let bad = |e: serde_json::Error| ImageError::configuration(path, e.to_string());
    let file: FileFormat = serde_json::from_str(&text).map_err(bad)?;
    Ok(file.cred_helpers.into_iter().find(|(key, _)| normal_key(key) == domain).map(|(_, name)| name))
}

/// Helpers know docker.io by the name that docker gives it.
fn docker_key(domain: &str) -> &str {
    if domain == DEFAULT_DOMAIN { "https://index.docker.io/v1/" } else { domain }
}

/// Docker writes URLs: `https://index.docker.io/v1/` is docker.io.
pub(super) fn normal_key(key: &str) -> String {
    let bare = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let is_url = bare.len() != key.len();
    let bare = bare.trim_end_matches('/');
    let bare = ["/v1", "/v2"].iter().find_map(|v| bare.strip_suffix(v)).unwrap_or(bare);
    let bare = if is_url { bare.split('/').next().unwrap_or(bare) } else { bare };
    match bare {
        "index.docker.io" | "registry-1.docker.io" => DEFAULT_DOMAIN.to_owned(),
        other => other.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(text: &str, name: &str) -> Option<Credentials> {
        in_file(text, Path::new("auth.json"), &Reference::parse(name).unwrap()).unwrap()
    }

    fn basic(user: &str) -> Option<Credentials> {
        Some(Credentials::Basic(user.to_owned(), "secret:x".to_owned()))
    }

    #[test]
    fn the_most_specific_key_wins() {
        // a:secret:x and b:secret:x
        let text =
            r#"{"auths":{"r.example":{"auth":"YTpzZWNyZXQ6eA=="},"r.example/team":{"auth":"YjpzZWNyZXQ6eA=="}}}"#;
        assert_eq!(find(text, "r.example/team/app"), basic("b"));
        assert_eq!(find(text, "r.example/other/app"), basic("a"));
        assert_eq!(find(text, "r.example:5000/app"), None, "another port is another registry");
        assert_eq!(find(text, "app"), None);
    }

    #[test]
    fn docker_keys_are_urls() {
        let text = r#"{"auths":{"https://index.docker.io/v1/":{"auth":"YTpzZWNyZXQ6eA=="},"https://h:5000":{"identitytoken":"t"}}}"#;
        assert_eq!(find(text, "busybox"), basic("a"));
        assert_eq!(find(text, "h:5000/x"), Some(Credentials::Identity("t".into())));
        assert_eq!(find(r#"{"auths":{"docker.io":{}}}"#, "busybox"), None);
    }

    #[test]
    fn secrets_stay_out_of_messages() {
        let text = r#"{"auths":{"r.example":{"auth":"c2VjcmV0"}}}"#;
        let error = in_file(text, Path::new("auth.json"), &Reference::parse("r.example/x").unwrap()).unwrap_err();
        assert!(!error.to_string().contains("c2VjcmV0") && !error.to_string().contains("secret"), "{error}");
        assert!(!format!("{:?}", Credentials::Basic("u".into(), "p".into())).contains('p'));
    }
}
