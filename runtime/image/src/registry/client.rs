//! One registry and one repository: requests, who we are, and errors a person can act on.

use super::conf::Endpoint;
use super::credentials::Credentials;
use super::pace::Paced;
use super::retry::{Failed, is_lost, is_passing, pause_of, with_retries};
use super::tls::{self, Verify};
use super::token::{Challenge, TokenAnswer, TokenServer};
use crate::digest::Digest;
use crate::error::ImageError;
use crate::manifest::{DOCKER_INDEX, DOCKER_MANIFEST, MAX_MANIFEST, OCI_INDEX, OCI_MANIFEST};
use crate::options::PullOptions;
use crate::reference::{DEFAULT_DOMAIN, Reference};
use rlrun_spec::Errno;
use std::io::Read;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use ureq::config::Config;
use ureq::http::{Response, Uri, header};
use ureq::unversioned::resolver::DefaultResolver;
use ureq::{Agent, Body};

/// Answers that are not blobs are small.
const MAX_ANSWER: u64 = 1 << 20;

/// Plain http is tried without being asked for only where nobody can listen in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transport {
    /// https, and the server proves who it is.
    Verified,
    /// As [`Transport::Verified`]; http if the server does not speak TLS at all.
    Loopback,
    /// https without proof; http if the server does not speak TLS.
    Insecure,
}

/// What a token is to allow where the registry does not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Pull,
    Push,
    /// Nothing but to be let in.
    Login,
}

/// A conversation with a registry about one repository.
pub(crate) struct Client {
    pub(super) agent: Agent,
    /// `https://host:port`.
    pub(super) base: String,
    pub(super) reference: Reference,
    purpose: Purpose,
    credentials: Option<Credentials>,
    /// `Authorization` of the last request that was let in.
    authorization: Mutex<Option<String>>,
}

/// A manifest as it came, with the digest that its bytes have.
#[derive(Debug)]
pub(crate) struct FetchedManifest {
    pub(crate) bytes: Vec<u8>,
    pub(crate) digest: Digest,
    pub(crate) content_type: Option<String>,
}

/// Makes a request with this `Authorization`.
type Send<'a> = &'a dyn Fn(Option<&str>) -> Result<Response<Body>, Failed>;

impl Client {
    /// Finds out how the registry wants to be spoken to.
    pub(crate) fn connect(
        endpoint: &Endpoint,
        credentials: Option<Credentials>,
        options: &PullOptions,
        purpose: Purpose,
    ) -> Result<Self, ImageError> {
        let transport = transport(endpoint, options.tls_verify);
        let verify = if transport == Transport::Insecure { Verify::No } else { Verify::Yes };
        let mut client = Client::new(endpoint, credentials, "https", (Some(verify), options.cert_dir.as_deref()))?;
        let probe = client.agent.get(format!("{}/v2/", client.base)).call();
        match probe {
            Err(e) if transport != Transport::Verified && (is_plain_http(&e) || hung_up(&e)) => {
                client = Client::new(endpoint, client.credentials, "http", (None, None))?;
            }
            Err(e) if !is_lost(&e) => return Err(client.unreachable(&e)),
            // Whatever it answers, it speaks TLS; the request that matters will tell the rest.
            Ok(_) | Err(_) => {}
        }
        Ok(Client { purpose, ..client })
    }

    fn new(
        endpoint: &Endpoint,
        credentials: Option<Credentials>,
        scheme: &str,
        (verify, certificates): (Option<Verify>, Option<&Path>),
    ) -> Result<Self, ImageError> {
        let domain = endpoint.reference.domain();
        let host = if domain == DEFAULT_DOMAIN { "registry-1.docker.io" } else { domain };
        Ok(Client {
            agent: agent(domain, verify, certificates)?,
            base: format!("{scheme}://{host}"),
            reference: endpoint.reference.clone(),
            purpose: Purpose::Pull,
            credentials,
            authorization: Mutex::new(None),
        })
    }

    /// Fetches the manifest or index of a tag or digest, and checks it against the digest, if there is one.
    pub(crate) fn manifest(&self, wanted: &str) -> Result<FetchedManifest, ImageError> {
        let url = format!("{}/v2/{}/manifests/{wanted}", self.base, self.reference.path());
        let accept = [OCI_INDEX, DOCKER_INDEX, OCI_MANIFEST, DOCKER_MANIFEST].join(", ");
        let fetched = with_retries(|| {
            let mut response = self.get(&url, &[("Accept", accept.clone())])?;
            self.fetched(&mut response)
        })?;
        match wanted.parse::<Digest>() {
            Ok(promised) if promised != fetched.digest => {
                Err(ImageError::mismatch(format!("{}: manifest", self.reference), promised, fetched.digest))
            }
            _ => Ok(fetched),
        }
    }

    fn fetched(&self, response: &mut Response<Body>) -> Result<FetchedManifest, Failed> {
        let content_type = header(response, header::CONTENT_TYPE);
        let content_type = content_type.map(|t| t.split(';').next().unwrap_or_default().trim().to_owned());
        let bytes = self.read_small(response, MAX_MANIFEST)?;
        Ok(FetchedManifest { digest: Digest::of(&bytes), bytes, content_type })
    }

    /// As [`Client::manifest`] of a tag; None where the registry has no such thing.
    pub(crate) fn manifest_if_there(&self, wanted: &str) -> Result<Option<FetchedManifest>, ImageError> {
        let url = format!("{}/v2/{}/manifests/{wanted}", self.base, self.reference.path());
        let headers = [("Accept", [OCI_MANIFEST, DOCKER_MANIFEST].join(", "))];
        with_retries(|| {
            let response = self.exchange(&|authorization| self.send(&url, &headers, authorization))?;
            if response.status() == 404 {
                return Ok(None);
            }
            let mut response = self.check(response)?;
            self.fetched(&mut response).map(Some)
        })
    }

    /// A blob that is small enough to hold.
    pub(crate) fn small_blob(&self, digest: &Digest, max: u64) -> Result<Vec<u8>, ImageError> {
        let url = self.blob_url(digest);
        let bytes = with_retries(|| {
            let mut response = self.get(&url, &[])?;
            self.read_small(&mut response, max)
        })?;
        let actual = Digest::of(&bytes);
        let object = format!("{}: blob", self.reference);
        if &actual == digest { Ok(bytes) } else { Err(ImageError::mismatch(object, digest, actual)) }
    }

    pub(super) fn blob_url(&self, digest: &Digest) -> String {
        format!("{}/v2/{}/blobs/{digest}", self.base, self.reference.path())
    }

    /// One request, with the authorization that it turns out to need.
    pub(super) fn get(&self, url: &str, headers: &[(&str, String)]) -> Result<Response<Body>, Failed> {
        self.exchange(&|authorization| self.send(url, headers, authorization)).and_then(|r| self.check(r))
    }

    /// Whether the registry lets us in.
    pub(crate) fn ping(&self) -> Result<(), ImageError> {
        let url = format!("{}/v2/", self.base);
        with_retries(|| self.get(&url, &[])).map(drop)
    }

    /// Sends a request, and again with what the registry asks for; `send` is given the `Authorization`. The answer may
    /// be a refusal, but none for want of authorization that could be had.
    pub(super) fn exchange(&self, send: Send<'_>) -> Result<Response<Body>, Failed> {
        let known = self.authorization.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let response = send(known.as_deref())?;
        if response.status() != 401 {
            return Ok(response);
        }
        let challenge = header(&response, header::WWW_AUTHENTICATE).and_then(|h| Challenge::parse(&h));
        let authorization = self.authorize(challenge)?;
        let response = send(Some(&authorization))?;
        *self.authorization.lock().unwrap_or_else(PoisonError::into_inner) = Some(authorization);
        Ok(response)
    }

    /// A failed request: passing if the connection was lost.
    pub(super) fn failed(&self, error: &ureq::Error) -> Failed {
        if is_lost(error) {
            Failed::Passing(self.unreachable(error), None)
        } else {
            Failed::For(self.unreachable(error))
        }
    }

    pub(super) fn check(&self, mut response: Response<Body>) -> Result<Response<Body>, Failed> {
        let status = response.status().as_u16();
        if response.status().is_success() {
            return Ok(response);
        }
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs());
        let pause = header(&response, header::RETRY_AFTER).and_then(|asked| pause_of(&asked, now));
        let said = self.read_small(&mut response, MAX_ANSWER).ok().and_then(|body| spoken_error(&body));
        let why = match &said {
            Some(said) => format!("the registry answers {}: {said}", response.status()),
            None => format!("the registry answers {}", response.status()),
        };
        let object = self.reference.to_string();
        let registry = |hint: Option<&str>| ImageError::Registry {
            object: object.clone(),
            why: why.clone(),
            hint: hint.map(str::to_owned),
        };
        Err(match status {
            401 | 403 => Failed::For(ImageError::Unauthorized { object, why }),
            404 => Failed::For(registry(Some("check the name and the tag: the registry has no such image"))),
            // Only what is asked for from some byte on is answered so (RFC 9110, 15.5.17).
            416 => Failed::For(ImageError::Registry {
                object,
                why: "the registry has less of a blob than the manifest says".to_owned(),
                hint: Some("push the image there again".to_owned()),
            }),
            429 => Failed::Passing(registry(Some("the registry limits how often it is asked: wait, or log in")), pause),
            s if is_passing(s) => Failed::Passing(registry(Some("the registry has a problem: try again later")), pause),
            _ => Failed::For(registry(None)),
        })
    }

    fn authorize(&self, challenge: Option<Challenge>) -> Result<String, ImageError> {
        let object = || self.reference.to_string();
        let denied = |why: &str| ImageError::Unauthorized { object: object(), why: why.to_owned() };
        match challenge {
            None => Err(denied("the registry asks for a kind of login that rlrun does not know")),
            Some(Challenge::Basic) => self
                .credentials
                .as_ref()
                .and_then(Credentials::basic)
                .ok_or_else(|| denied("the registry asks for a user and a password, and there are none for it")),
            Some(Challenge::Bearer(server)) => self.token(&server).map(|token| format!("Bearer {token}")),
        }
    }

    fn token(&self, server: &TokenServer) -> Result<String, ImageError> {
        // A registry spoken to over TLS must not make us send a password in the clear.
        if self.base.starts_with("https:") && !server.realm.starts_with("https://") {
            let why = format!("its token server `{}` is not https", server.realm.escape_default());
            return Err(ImageError::Unauthorized { object: self.reference.to_string(), why });
        }
        let path = self.reference.path();
        let scope = server.scope.clone().unwrap_or_else(|| match self.purpose {
            Purpose::Pull => format!("repository:{path}:pull"),
            Purpose::Push => format!("repository:{path}:pull,push"),
            Purpose::Login => String::new(),
        });
        let service = server.service.clone().unwrap_or_default();
        let mut response = with_retries(|| {
            let sent = match &self.credentials {
                Some(Credentials::Identity(refresh)) => self.agent.post(&server.realm).send_form([
                    ("grant_type", "refresh_token"),
                    ("refresh_token", refresh.as_str()),
                    ("client_id", "rlrun"),
                    ("service", service.as_str()),
                    ("scope", scope.as_str()),
                ]),
                credentials => {
                    let mut request = self.agent.get(&server.realm).query("service", &service);
                    // Each of several is a parameter of its own (distribution, token authentication).
                    for scope in scope.split(' ').filter(|scope| !scope.is_empty()) {
                        request = request.query("scope", scope);
                    }
                    if let Some(basic) = credentials.as_ref().and_then(Credentials::basic) {
                        request = request.header(header::AUTHORIZATION, basic);
                    }
                    request.call()
                }
            };
            sent.map_err(|e| self.failed(&e)).and_then(|response| self.check(response))
        })?;
        let body = self.read_small(&mut response, MAX_ANSWER).map_err(Failed::into_error)?;
        let token = serde_json::from_slice::<TokenAnswer>(&body).ok().and_then(TokenAnswer::into_token);
        token.filter(|t| t.bytes().all(|b| b.is_ascii_graphic())).ok_or_else(|| ImageError::Unauthorized {
            object: self.reference.to_string(),
            why: "the token server gave no token".to_owned(),
        })
    }

    pub(super) fn read_small(&self, response: &mut Response<Body>, max: u64) -> Result<Vec<u8>, Failed> {
        let mut bytes = Vec::new();
        let body = Paced::new(response.body_mut().with_config().limit(u64::MAX).reader());
        let read = body.take(max + 1).read_to_end(&mut bytes);
        read.map_err(|e| self.failed(&ureq::Error::from(e)))?;
        if bytes.len() as u64 > max {
            return Err(Failed::For(self.broken(format!("its answer is longer than {max} bytes"))));
        }
        Ok(bytes)
    }

    pub(super) fn broken(&self, why: String) -> ImageError {
        ImageError::Registry { object: self.reference.to_string(), why, hint: None }
    }

    fn unreachable(&self, error: &ureq::Error) -> ImageError {
        let object = format!("{} ({})", self.reference, self.base);
        let domain = self.reference.domain();
        let registry = |why: String, hint: Option<String>| ImageError::Registry { object: object.clone(), why, hint };
        match error {
            ureq::Error::Io(e) if e.raw_os_error().is_some() => ImageError::System {
                step: "pull-connect",
                operation: "reach the registry",
                object,
                errno: Errno(e.raw_os_error().unwrap_or_default()),
            },
            e if is_no_such_host(e) => registry("no such host".into(), Some(rlrun_spec::hint::NO_SUCH_HOST.into())),
            e if is_plain_http(e) => registry(
                "it speaks no TLS".into(),
                Some(format!(
                    "--tls-verify=false, or insecure = true for `{domain}` in registries.conf, allows plain http"
                )),
            ),
            e if e.to_string().contains("certificate") => registry(
                format!("its certificate is not trusted: {}", e.to_string().trim_start_matches("io: ")),
                Some(format!("put the certificate of its authority into ~/.config/containers/certs.d/{domain}/ca.crt")),
            ),
            e => {
                let hint =
                    is_lost(e).then(|| "the registry was reached and did not answer: try again later".to_owned());
                registry(e.to_string().trim_start_matches("io: ").to_owned(), hint)
            }
        }
    }
}

/// What speaks to a host: TLS, or plain http where no verification is named.
pub(super) fn agent(domain: &str, verify: Option<Verify>, certificates: Option<&Path>) -> Result<Agent, ImageError> {
    // No way down from https, also when a redirect says so.
    let config = settings(domain, verify.is_some());
    Ok(match verify {
        Some(verify) => tls::agent(config, tls::config(domain, verify, certificates)?, DefaultResolver::default()),
        None => config.new_agent(),
    })
}

/// What holds for every request to a host.
pub(super) fn settings(domain: &str, https_only: bool) -> Config {
    let mut config = Agent::config_builder()
        .http_status_as_error(false)
        .https_only(https_only)
        .user_agent(concat!("rlrun/", env!("CARGO_PKG_VERSION")))
        .timeout_connect(Some(Duration::from_secs(15)))
        .timeout_recv_response(Some(Duration::from_secs(60)))
        .timeout_per_read(Some(Duration::from_secs(60)));
    if is_loopback(domain) {
        config = config.proxy(None);
    }
    config.build()
}

/// The error that a registry spells out in its answer (distribution spec, error codes).
fn spoken_error(body: &[u8]) -> Option<String> {
    let value: serde_json::Value = serde_json::from_slice(body).ok()?;
    let first = value.get("errors")?.get(0)?;
    let text = |key| first.get(key).and_then(serde_json::Value::as_str).unwrap_or_default();
    let said = format!("{} {}", text("code"), text("message"));
    // It goes to a terminal.
    let said: String = said.trim().chars().filter(|c| !c.is_control()).take(200).collect();
    (!said.is_empty()).then_some(said)
}

pub(super) fn header(response: &Response<Body>, name: header::HeaderName) -> Option<String> {
    Some(response.headers().get(name)?.to_str().ok()?.to_owned())
}

/// Whether nobody proves who answers there.
pub(crate) fn is_insecure(endpoint: &Endpoint, options: &PullOptions) -> bool {
    transport(endpoint, options.tls_verify) == Transport::Insecure
}

fn transport(endpoint: &Endpoint, tls_verify: Option<bool>) -> Transport {
    match tls_verify {
        Some(false) => Transport::Insecure,
        Some(true) => Transport::Verified,
        None if endpoint.insecure => Transport::Insecure,
        None if is_loopback(endpoint.reference.domain()) => Transport::Loopback,
        None => Transport::Verified,
    }
}

pub(super) fn is_loopback(domain: &str) -> bool {
    let uri = format!("http://{domain}").parse::<Uri>();
    let host = uri.as_ref().ok().and_then(Uri::host).unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare == "localhost" || bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// std's resolver says so in words only.
fn is_no_such_host(error: &ureq::Error) -> bool {
    matches!(error, ureq::Error::HostNotFound) || error.to_string().contains("failed to lookup address")
}

/// The server answered a TLS hello with something that is not TLS.
fn is_plain_http(error: &ureq::Error) -> bool {
    error.to_string().contains("corrupt message")
}

/// The server took a TLS hello for a request that it cannot read, and closed. Only where plain http is allowed anyway:
/// elsewhere it is a connection that broke.
fn hung_up(error: &ureq::Error) -> bool {
    matches!(error, ureq::Error::Io(e) if e.kind() == std::io::ErrorKind::UnexpectedEof)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_needs_a_reason() {
        let at = |name: &str, insecure| Endpoint { reference: Reference::parse(name).unwrap(), insecure };
        assert_eq!(transport(&at("r.example/x", false), None), Transport::Verified);
        assert_eq!(transport(&at("r.example/x", true), None), Transport::Insecure);
        assert_eq!(transport(&at("r.example/x", false), Some(false)), Transport::Insecure);
        assert_eq!(transport(&at("r.example/x", true), Some(true)), Transport::Verified);
        for local in ["localhost/x", "localhost:5000/x", "127.0.0.1:5000/x", "127.1.2.3/x", "[::1]:5000/x"] {
            assert_eq!(transport(&at(local, false), None), Transport::Loopback, "{local}");
        }
        for other in ["localhost.evil.example/x", "10.0.0.1:5000/x", "[::2]:5000/x"] {
            assert_eq!(transport(&at(other, false), None), Transport::Verified, "{other}");
        }
    }

    #[test]
    fn a_registrys_words_are_fit_for_a_terminal() {
        let body = br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest \u001b[31munknown"}]}"#;
        assert_eq!(spoken_error(body).unwrap(), "MANIFEST_UNKNOWN manifest [31munknown");
        assert_eq!(spoken_error(b"<html>"), None);
    }
}
