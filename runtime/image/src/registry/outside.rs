//! Foreign layers: only their publisher distributes them, from where the manifest says. The manifest is hostile: nobody's
//! credentials go there, what comes has the promised size and digest or is thrown away, and the URL of a stranger's
//! manifest cannot make this machine ask its own services, its network's, or the cloud's that knows its keys.

use super::client::{is_loopback, settings};
use super::retry::{Failed, is_lost, is_passing};
use super::tls::{self, Verify};
use crate::error::ImageError;
use std::io;
use std::net::{IpAddr, Ipv4Addr, ToSocketAddrs as _};
use ureq::config::Config;
use ureq::http::{Response, Uri};
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;
use ureq::{Agent, Body, Error};

/// More of one layer are not tried.
const MAX_URLS: usize = 8;

/// How near an address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Nearness {
    /// Anywhere.
    Public,
    /// In a network of one's own.
    Private,
    /// This machine.
    Loopback,
}

impl Nearness {
    /// Of a registry, by its `host[:port]`: what its manifests may name is no nearer than itself.
    pub(super) fn of_registry(domain: &str) -> Self {
        // By its name, not by what a name server says today.
        if is_loopback(domain) {
            return Nearness::Loopback;
        }
        let uri = format!("https://{domain}").parse::<Uri>().ok();
        let host = uri.as_ref().and_then(Uri::host).unwrap_or_default();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let addresses = (bare, 443).to_socket_addrs().map(Vec::from_iter).unwrap_or_default();
        let private = |at: &std::net::SocketAddr| nearness(at.ip()) >= Some(Nearness::Private);
        if !addresses.is_empty() && addresses.iter().all(private) { Nearness::Private } else { Nearness::Public }
    }
}

/// None for an address that nobody has a layer at: links' own (with the metadata services of clouds), groups, none.
fn nearness(address: IpAddr) -> Option<Nearness> {
    // Beside the link-local ones.
    const METADATA: [Ipv4Addr; 3] =
        [Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(168, 63, 129, 16), Ipv4Addr::new(192, 0, 0, 192)];
    let address = address.to_canonical();
    let (nowhere, private) = match address {
        IpAddr::V4(v4) => {
            let shared = v4.octets()[0] == 100 && v4.octets()[1] & 0xc0 == 64;
            let this_network = v4.octets()[0] == 0;
            let metadata = METADATA.contains(&v4);
            (metadata || v4.is_link_local() || v4.is_broadcast() || this_network, v4.is_private() || shared)
        }
        IpAddr::V6(v6) => {
            let metadata = matches!(v6.segments(), [0xfd00, 0xec2, ..] | [0xfd20, 0xce, .., 0x254]);
            (metadata || v6.is_unicast_link_local() || v6.is_unspecified(), v6.is_unique_local())
        }
    };
    if nowhere || address.is_multicast() {
        None
    } else if address.is_loopback() {
        Some(Nearness::Loopback)
    } else if private {
        Some(Nearness::Private)
    } else {
        Some(Nearness::Public)
    }
}

/// Finds addresses that are no nearer than allowed; also of what redirects name.
#[derive(Debug)]
struct Fence {
    allowed: Nearness,
    inner: DefaultResolver,
}

impl Resolver for Fence {
    fn resolve(&self, uri: &Uri, config: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        let found = self.inner.resolve(uri, config, timeout)?;
        // The user's proxy is where he says, and decides itself what it reaches.
        if config.proxy().is_some_and(|proxy| proxy.uri().authority() == uri.authority()) {
            return Ok(found);
        }
        let mut kept = self.empty();
        let near = |at: &&std::net::SocketAddr| nearness(at.ip()).is_some_and(|near| near <= self.allowed);
        found.iter().filter(near).for_each(|at| kept.push(*at));
        match found.first() {
            Some(refused) if kept.is_empty() => {
                let why = format!("{} is nearer to this machine than the registry that names it", refused.ip());
                Err(Error::Io(io::Error::new(io::ErrorKind::PermissionDenied, why)))
            }
            _ => Ok(kept),
        }
    }
}

/// What of a layer's URLs is tried, in their order: http and https, with no password in them.
pub(crate) fn usable(urls: &[String]) -> Vec<Uri> {
    let usable = |uri: &Uri| {
        let authority = uri.authority().map(|at| at.as_str());
        matches!(uri.scheme_str(), Some("http" | "https")) && authority.is_some_and(|at| !at.contains('@'))
    };
    urls.iter().filter_map(|url| url.parse().ok()).filter(usable).take(MAX_URLS).collect()
}

/// Asks a publisher, about whom nothing is known but an URL.
pub(super) fn agent(url: &Uri, allowed: Nearness) -> Result<Agent, ImageError> {
    let host = url.authority().map_or("", |authority| authority.as_str());
    // The digest says what is right, so that http will do, as in other engines.
    let tls = tls::config(host, Verify::Yes, None)?;
    Ok(tls::agent(settings(host, false), tls, Fence { allowed, inner: DefaultResolver::default() }))
}

/// One request, with no authorization.
pub(super) fn get(agent: &Agent, url: &Uri, headers: &[(&str, String)]) -> Result<Response<Body>, Failed> {
    let mut request = agent.get(url);
    for (name, value) in headers {
        request = request.header(*name, value);
    }
    let response = request.call().map_err(|e| failed(url, &e))?;
    let status = response.status();
    match status.as_u16() {
        200..=299 => Ok(response),
        code if is_passing(code) => Err(Failed::Passing(refused(url, format!("it answers {status}")), None)),
        _ => Err(Failed::For(refused(url, format!("it answers {status}")))),
    }
}

pub(super) fn failed(url: &Uri, error: &Error) -> Failed {
    let told = refused(url, error.to_string().trim_start_matches("io: ").to_owned());
    if is_lost(error) { Failed::Passing(told, None) } else { Failed::For(told) }
}

fn refused(url: &Uri, why: String) -> ImageError {
    let hint = "only its publisher distributes this layer; the image's manifest names the URL".to_owned();
    ImageError::Registry { object: url.to_string().escape_default().to_string(), why, hint: Some(hint) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_as_near_as_they_are() {
        let near = |text: &str| nearness(text.parse().unwrap());
        for public in ["1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:4700::1", "::ffff:8.8.8.8"] {
            assert_eq!(near(public), Some(Nearness::Public), "{public}");
        }
        for private in ["10.0.0.1", "172.16.5.4", "192.168.1.1", "100.64.0.1", "fd12::1", "::ffff:10.1.1.1"] {
            assert_eq!(near(private), Some(Nearness::Private), "{private}");
        }
        for here in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            assert_eq!(near(here), Some(Nearness::Loopback), "{here}");
        }
        for nowhere in [
            "169.254.169.254",
            "::ffff:169.254.169.254",
            "fe80::1",
            "fd00:ec2::254",
            "fd00:ec2::23",
            "fd20:ce::254",
            "100.100.100.200",
            "168.63.129.16",
            "192.0.0.192",
            "0.0.0.0",
            "0.1.2.3",
            "::",
            "224.0.0.1",
            "ff02::1",
            "255.255.255.255",
        ] {
            assert_eq!(near(nowhere), None, "{nowhere}");
        }
        assert_eq!(Nearness::of_registry("localhost:5000"), Nearness::Loopback);
        assert_eq!(Nearness::of_registry("10.0.0.1:5000"), Nearness::Private);
        assert_eq!(Nearness::of_registry("1.1.1.1"), Nearness::Public);
    }

    #[test]
    fn only_urls_of_the_web_are_tried() {
        let urls = ["file:///etc/passwd", "ftp://a/b", "http://u:p@a/b", "/x", "", "https://a/b", "http://[::1]:1/c"];
        let found = usable(&urls.map(str::to_owned));
        assert_eq!(found.iter().map(Uri::to_string).collect::<Vec<_>>(), ["https://a/b", "http://[::1]:1/c"]);
        assert_eq!(usable(&vec!["http://a/".to_owned(); 100]).len(), MAX_URLS);
    }

    #[test]
    fn a_strangers_manifest_asks_nothing_of_this_machine() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url: Uri = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
        listener.set_nonblocking(true).unwrap();
        for allowed in [Nearness::Public, Nearness::Private] {
            let agent = agent(&url, allowed).unwrap();
            let Err(Failed::For(error)) = get(&agent, &url, &[]) else { panic!("it was asked") };
            assert!(error.to_string().contains("nearer to this machine"), "{error}");
        }
        assert_eq!(listener.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
}
