//! Whom to trust: the system's authorities, those of `certs.d/HOST[:PORT]/*.crt`, and our own certificate beside them
//! (containers-certs.d(5)).

mod connector;
mod verifier;

pub(super) use connector::agent;

use super::conf::config_home;
use crate::error::{ImageError, store_io};
use rustls::ClientConfig;
use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use verifier::{Named, Unverified};

/// Where distributions keep the bundle of all authorities.
const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Whether a server must prove who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verify {
    Yes,
    No,
}

/// How TLS is spoken to `host` (with its port, as the directories of certs.d are named); `given` is a directory in the
/// place of those.
pub(super) fn config(host: &str, verify: Verify, given: Option<&Path>) -> Result<Arc<ClientConfig>, ImageError> {
    let dirs = match given {
        Some(dir) if !dir.is_dir() => {
            return Err(ImageError::configuration(dir, "it is no directory with certificates"));
        }
        Some(dir) => vec![dir.to_owned()],
        None => certs_dirs(host),
    };
    let bad = |e: rustls::Error| ImageError::configuration(Path::new("certs.d").join(host).as_path(), e.to_string());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
    let builder = builder.map_err(bad)?.dangerous();
    let builder = match verify {
        Verify::Yes => builder.with_custom_certificate_verifier(named(&dirs, provider, host)?),
        Verify::No => builder.with_custom_certificate_verifier(Arc::new(Unverified::new(&provider))),
    };
    let config = match client_certificate(&dirs)? {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).map_err(bad)?,
        None => builder.with_no_client_auth(),
    };
    Ok(Arc::new(config))
}

fn named(dirs: &[PathBuf], provider: Arc<CryptoProvider>, host: &str) -> Result<Arc<Named>, ImageError> {
    let mut roots = RootCertStore::empty();
    match system_bundle() {
        Some(path) => drop(roots.add_parsable_certificates(certificates(&path)?)),
        // A machine without a bundle still has Mozilla's list, which is part of this program.
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
    }
    let mut own = Vec::new();
    for path in files(dirs, "crt") {
        own.extend(certificates(&path)?);
    }
    roots.add_parsable_certificates(own.iter().cloned());
    let named = Named::new(roots, provider, own);
    named.map(Arc::new).map_err(|e| ImageError::configuration(Path::new("certs.d").join(host).as_path(), e.to_string()))
}

fn system_bundle() -> Option<PathBuf> {
    let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    named.or_else(|| BUNDLES.iter().map(PathBuf::from).find(|p| p.exists()))
}

fn certs_dirs(host: &str) -> Vec<PathBuf> {
    let user = config_home().map(|c| c.join("containers/certs.d"));
    let system = ["/etc/containers/certs.d", "/etc/docker/certs.d"].map(PathBuf::from);
    user.into_iter().chain(system).map(|d| d.join(host)).filter(|d| d.is_dir()).collect()
}

fn files(dirs: &[PathBuf], extension: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = dirs
        .iter()
        .filter_map(|d| std::fs::read_dir(d).ok())
        .flat_map(|entries| entries.flatten().map(|e| e.path()))
        .filter(|p| p.extension().is_some_and(|e| e == extension))
        .collect();
    found.sort();
    found
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, ImageError> {
    let pem = std::fs::read(path).map_err(store_io("read the certificates", path))?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    found.map_err(|e| ImageError::configuration(path, e.to_string()))
}

type ClientCertificate = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// The first `NAME.cert` that has its `NAME.key` beside it.
fn client_certificate(dirs: &[PathBuf]) -> Result<Option<ClientCertificate>, ImageError> {
    let pair = |path: PathBuf| Some(path.with_extension("key")).filter(|key| key.exists()).map(|key| (path, key));
    let Some((path, key_path)) = files(dirs, "cert").into_iter().find_map(pair) else { return Ok(None) };
    let pem = std::fs::read(&key_path).map_err(store_io("read the key", &key_path))?;
    let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|e| ImageError::configuration(&key_path, e.to_string()))?;
    Ok(Some((certificates(&path)?, key)))
}
