//! Whom to trust: the system's authorities, those of `certs.d/HOST[:PORT]/*.crt`, and our own certificate beside them
//! (containers-certs.d(5)).

use super::conf::config_home;
use crate::error::{ImageError, store_io};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};

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

pub(super) fn config(host: &str, verify: Verify) -> Result<TlsConfig, ImageError> {
    let dirs = certs_dirs(host);
    let mut builder = TlsConfig::builder().client_cert(client_cert(&dirs)?);
    if verify == Verify::No {
        return Ok(builder.disable_verification(true).build());
    }
    let mut roots = system_roots()?;
    for path in files(&dirs, "crt") {
        roots.extend(certificates(&path)?);
    }
    // A machine without a bundle still has Mozilla's list, which is part of this program.
    builder =
        builder.root_certs(if roots.is_empty() { RootCerts::WebPki } else { RootCerts::Specific(Arc::new(roots)) });
    Ok(builder.build())
}

fn system_roots() -> Result<Vec<Certificate<'static>>, ImageError> {
    let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let bundle = named.or_else(|| BUNDLES.iter().map(PathBuf::from).find(|p| p.exists()));
    bundle.map_or(Ok(Vec::new()), |path| certificates(&path))
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

fn items(path: &Path) -> Result<Vec<PemItem<'static>>, ImageError> {
    let pem = std::fs::read(path).map_err(store_io("read the certificates", path))?;
    // What a bundle has beside certificates and keys is skipped by the parser.
    let items: Result<Vec<_>, _> = parse_pem(&pem).collect();
    items.map_err(|e| ImageError::malformed(path.display().to_string(), e.to_string()))
}

fn certificates(path: &Path) -> Result<Vec<Certificate<'static>>, ImageError> {
    let certificate = |item| if let PemItem::Certificate(c) = item { Some(c) } else { None };
    Ok(items(path)?.into_iter().filter_map(certificate).collect())
}

/// The first `NAME.cert` that has its `NAME.key` beside it.
fn client_cert(dirs: &[PathBuf]) -> Result<Option<ClientCert>, ImageError> {
    for path in files(dirs, "cert") {
        let key_path = path.with_extension("key");
        if !key_path.exists() {
            continue;
        }
        let key = |item| if let PemItem::PrivateKey(k) = item { Some(k) } else { None };
        let key: Option<PrivateKey<'static>> = items(&key_path)?.into_iter().find_map(key);
        let chain = certificates(&path)?;
        let Some(key) = key.filter(|_| !chain.is_empty()) else {
            return Err(ImageError::malformed(
                path.display().to_string(),
                "it and its .key hold no certificate and key",
            ));
        };
        return Ok(Some(ClientCert::new_with_certs(&chain, key)));
    }
    Ok(None)
}
