//! `-p [ip:]host:container[/udp]`: reading it, and choosing host ports.

use crate::error::NetError;
use nix::errno::Errno;
use rlrun_spec::container::{PortMapping, Protocol};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};

/// One port that the user wants published; a range makes several.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRequest {
    /// Host address; every IPv4 address of the host when absent.
    pub host_ip: Option<IpAddr>,
    /// Host port; any free one when absent.
    pub host_port: Option<u16>,
    /// Port inside the container.
    pub container_port: u16,
    /// Transport.
    pub protocol: Protocol,
}

/// Reads `[[ip:][host]:]container[/tcp|/udp]`. Ports may be ranges of the same length, `8000-8010:80-90`; an IPv6
/// address stands in brackets; an absent or zero host port means any free one.
///
/// # Errors
/// [`NetError::Invalid`] with the part that is wrong.
pub fn parse(text: &str) -> Result<Vec<PortRequest>, NetError> {
    let invalid = |why: String| NetError::Invalid { flag: "-p", text: printable(text), why };
    let (rest, protocol) = split_protocol(text).map_err(invalid)?;
    let (host_ip, rest) = split_address(rest).map_err(invalid)?;
    let (host, container) = match (host_ip, rest.rsplit_once(':')) {
        (_, Some((host, container))) => (host, container),
        (None, None) => ("", rest),
        (Some(_), None) => {
            return Err(invalid("an address must be followed by ':' and a port".to_owned()));
        }
    };
    let container = range(container).map_err(invalid)?;
    let host = if matches!(host, "" | "0") { None } else { Some(range(host).map_err(invalid)?) };
    if container.first == 0 {
        return Err(invalid("the container's port cannot be 0".to_owned()));
    }
    if let Some(host) = &host
        && host.count() != container.count()
    {
        let why = format!("{} host ports for {} container ports", host.count(), container.count());
        return Err(invalid(why));
    }
    if host.as_ref().is_some_and(|host| host.first == 0) {
        return Err(invalid("port 0 cannot be part of a range".to_owned()));
    }
    let ports = (container.first..=container.last).zip(0..);
    Ok(ports
        .map(|(container_port, offset): (u16, u16)| PortRequest {
            host_ip,
            // Both ranges have the same length, so the sum stays within the host's.
            host_port: host.as_ref().map(|host| host.first.saturating_add(offset)),
            container_port,
            protocol,
        })
        .collect())
}

fn split_protocol(text: &str) -> Result<(&str, Protocol), String> {
    match text.split_once('/') {
        None | Some((_, "tcp")) => Ok((text.strip_suffix("/tcp").unwrap_or(text), Protocol::Tcp)),
        Some((rest, "udp")) => Ok((rest, Protocol::Udp)),
        Some((_, "sctp")) => Err("sctp cannot be published without root, only tcp and udp".to_owned()),
        Some((_, other)) => Err(format!("unknown protocol '{}': tcp or udp", printable(other))),
    }
}

/// Takes an address and its colon from the front, if there is one.
fn split_address(text: &str) -> Result<(Option<IpAddr>, &str), String> {
    if let Some(bracketed) = text.strip_prefix('[') {
        let (address, rest) = bracketed.split_once(']').ok_or("']' is missing")?;
        let address = address.parse().map_err(|_| format!("'{}' is not an IPv6 address", printable(address)))?;
        let rest = rest.strip_prefix(':').ok_or("an address must be followed by ':' and a port")?;
        return Ok((Some(IpAddr::V6(address)), rest));
    }
    match text.matches(':').count() {
        0 | 1 => Ok((None, text)),
        2 => {
            let (address, rest) = text.split_once(':').unwrap_or((text, ""));
            if address.is_empty() {
                return Ok((None, rest));
            }
            let v4: Ipv4Addr =
                address.parse().map_err(|_| format!("'{}' is not an IPv4 address", printable(address)))?;
            Ok((Some(IpAddr::V4(v4)), rest))
        }
        _ => Err("too many ':'; an IPv6 address stands in brackets, [::1]:80:80".to_owned()),
    }
}

/// Ports from `first` to `last`, both included.
struct Range {
    first: u16,
    last: u16,
}

impl Range {
    fn count(&self) -> u32 {
        u32::from(self.last - self.first) + 1
    }
}

fn range(text: &str) -> Result<Range, String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (port(first)?, port(last)?);
    if first > last { Err(format!("the range {first}-{last} runs backwards")) } else { Ok(Range { first, last }) }
}

fn port(text: &str) -> Result<u16, String> {
    // u16's parser would take "+80".
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten().ok_or_else(|| match text {
        "" => "a port is missing".to_owned(),
        _ => format!("'{}' is not a port (1-65535)", printable(text)),
    })
}

/// What may be shown of a user's words in a message of one line.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(80).collect()
}

/// A host port that was bound for a moment; while it lives nobody else gets the port.
enum Claim {
    Tcp(TcpListener),
    Udp(UdpSocket),
}

impl Claim {
    fn new(address: SocketAddr, protocol: Protocol) -> std::io::Result<Self> {
        match protocol {
            Protocol::Tcp => TcpListener::bind(address).map(Claim::Tcp),
            Protocol::Udp => UdpSocket::bind(address).map(Claim::Udp),
        }
    }

    fn port(&self) -> std::io::Result<u16> {
        let address = match self {
            Claim::Tcp(socket) => socket.local_addr(),
            Claim::Udp(socket) => socket.local_addr(),
        };
        address.map(|a| a.port())
    }
}

/// Chooses the open host ports and makes sure that the others can be bound, so that a busy port is refused before anything
/// starts. The ports are free again on return, until slirp4netns takes them.
///
/// # Errors
/// [`NetError::Port`] with the reason of the kernel and a free port; [`NetError::Unsupported`] for an IPv6 host address.
pub fn resolve(requests: &[PortRequest]) -> Result<Vec<PortMapping>, NetError> {
    resolve_beside(requests, &[])
}

/// The same, where what is published as `freed` ends before the ports are bound, so that its ports may be busy now.
///
/// # Errors
/// As [`resolve`].
pub fn resolve_beside(requests: &[PortRequest], freed: &[PortMapping]) -> Result<Vec<PortMapping>, NetError> {
    // All claims live until the end: a port chosen by the kernel must not be one that a later request names.
    let mut claims = Vec::with_capacity(requests.len());
    let mut mappings: Vec<Option<PortMapping>> = vec![None; requests.len()];
    let named_first = |request: &PortRequest| request.host_port.is_none();
    let mut order: Vec<usize> = (0..requests.len()).collect();
    order.sort_by_key(|&i| requests.get(i).is_some_and(named_first));
    for (request, slot) in order.iter().filter_map(|&i| Some((requests.get(i)?, i))) {
        let mut mapping = wanted(request)?;
        if !freed.iter().any(|old| (old.host_port, old.protocol) == (mapping.host_port, mapping.protocol)) {
            let claim = claim(&mapping)?;
            mapping.host_port = claim.port().map_err(|e| port_error(&mapping, &e))?;
            claims.push(claim);
        }
        if let Some(slot) = mappings.get_mut(slot) {
            *slot = Some(mapping);
        }
    }
    Ok(mappings.into_iter().flatten().collect())
}

fn wanted(request: &PortRequest) -> Result<PortMapping, NetError> {
    let host_ip = request.host_ip.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let why = match (host_ip, request.protocol) {
        (IpAddr::V6(_), _) => "slirp4netns publishes ports on IPv4 addresses only",
        // It shows a client on loopback as the gateway, and answers to the gateway are host loopback, which is refused.
        (IpAddr::V4(v4), Protocol::Udp) if v4.is_loopback() => {
            "slirp4netns loses the answers to UDP clients on the host's loopback"
        }
        (IpAddr::V4(_), Protocol::Tcp | Protocol::Udp) => "",
    };
    if !why.is_empty() {
        return Err(NetError::Unsupported {
            what: format!("-p {}", SocketAddr::new(host_ip, request.host_port.unwrap_or(0))),
            why: why.to_owned(),
            hint: Some("name another IPv4 address of this host, or none: ip -brief -4 address".to_owned()),
        });
    }
    Ok(PortMapping {
        host_ip,
        host_port: request.host_port.unwrap_or(0),
        container_port: request.container_port,
        protocol: request.protocol,
    })
}

/// Binds the host side of a mapping for a moment, to learn whether and why it cannot be had.
pub(crate) fn try_bind(mapping: &PortMapping) -> Result<(), NetError> {
    claim(mapping).map(drop)
}

fn claim(mapping: &PortMapping) -> Result<Claim, NetError> {
    let address = SocketAddr::new(mapping.host_ip, mapping.host_port);
    Claim::new(address, mapping.protocol).map_err(|error| port_error(mapping, &error))
}

fn port_error(mapping: &PortMapping, error: &std::io::Error) -> NetError {
    let errno = error.raw_os_error().unwrap_or(Errno::EIO as i32);
    let free =
        matches!(Errno::from_raw(errno), Errno::EACCES | Errno::EADDRINUSE).then(|| free_port(mapping)).flatten();
    NetError::Port { mapping: mapping.clone(), errno, free }
}

/// A free port near in mind to the one wanted: 80 gives 8080, 443 gives 8443; else any.
fn free_port(mapping: &PortMapping) -> Option<u16> {
    let alike = mapping.host_port.checked_add(8000).filter(|_| mapping.host_port < 1024);
    let candidates = [alike, mapping.host_port.checked_add(1), Some(0)];
    candidates.into_iter().flatten().find_map(|port| {
        let address = SocketAddr::new(mapping.host_ip, port);
        Claim::new(address, mapping.protocol).ok()?.port().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(text: &str) -> String {
        let one = |r: PortRequest| {
            let ip = r.host_ip.map_or("*".to_owned(), |ip| ip.to_string());
            let host = r.host_port.map_or("?".to_owned(), |port| port.to_string());
            format!("{ip} {host} {} {:?}", r.container_port, r.protocol)
        };
        parse(text).unwrap().into_iter().map(one).collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn every_form_is_read() {
        for (text, expected) in [
            ("80", "* ? 80 Tcp"),
            ("80/udp", "* ? 80 Udp"),
            ("8080:80", "* 8080 80 Tcp"),
            ("8080:80/tcp", "* 8080 80 Tcp"),
            (":80", "* ? 80 Tcp"),
            ("0:80", "* ? 80 Tcp"),
            ("127.0.0.1:8080:80", "127.0.0.1 8080 80 Tcp"),
            ("127.0.0.1::80", "127.0.0.1 ? 80 Tcp"),
            ("::80", "* ? 80 Tcp"),
            ("[::1]:8080:80/udp", "::1 8080 80 Udp"),
            ("[::1]::80", "::1 ? 80 Tcp"),
            ("8000-8001:90-91", "* 8000 90 Tcp, * 8001 91 Tcp"),
            ("127.0.0.1::90-91", "127.0.0.1 ? 90 Tcp, 127.0.0.1 ? 91 Tcp"),
            ("65534-65535:65534-65535", "* 65534 65534 Tcp, * 65535 65535 Tcp"),
        ] {
            assert_eq!(shown(text), expected, "{text}");
        }
    }

    #[test]
    fn every_mistake_is_named() {
        for (text, why) in [
            ("", "a port is missing"),
            ("80:", "a port is missing"),
            ("0", "cannot be 0"),
            ("80:0", "cannot be 0"),
            ("65536", "not a port"),
            ("+80", "not a port"),
            ("80:http", "not a port"),
            ("80-", "a port is missing"),
            ("90-80", "runs backwards"),
            ("80-90:80-85", "11 host ports for 6 container ports"),
            ("0-1:80-81", "port 0"),
            ("80/sctp", "sctp"),
            ("80/TCP", "unknown protocol"),
            ("80/", "unknown protocol"),
            ("80/udp/tcp", "unknown protocol"),
            ("300.0.0.1:80:80", "not an IPv4 address"),
            ("localhost:80:80", "not an IPv4 address"),
            ("::1:80:80", "brackets"),
            ("[::1:80:80", "']' is missing"),
            ("[::1]80", "followed by ':'"),
            ("[::1]:80", "followed by ':'"),
            ("[127.0.0.1]:80:80", "not an IPv6 address"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.to_string().contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn messages_cannot_drive_the_terminal() {
        let error = parse("\u{1b}[2J:80\n").unwrap_err();
        assert!(!error.to_string().contains(char::is_control), "{error:?}");
    }

    proptest! {
        #[test]
        fn whatever_is_printed_is_read_back(
            ip in proptest::option::of(any::<IpAddr>()),
            host in proptest::option::of(1..=u16::MAX),
            container in 1..=u16::MAX,
            udp in any::<bool>(),
        ) {
            let ip_text = match ip {
                None => String::new(),
                Some(IpAddr::V4(v4)) => format!("{v4}:"),
                Some(IpAddr::V6(v6)) => format!("[{v6}]:"),
            };
            let host_text = host.map_or(String::new(), |port| port.to_string());
            let text = format!("{ip_text}{host_text}:{container}/{}", if udp { "udp" } else { "tcp" });
            let protocol = if udp { Protocol::Udp } else { Protocol::Tcp };
            let expected = PortRequest { host_ip: ip, host_port: host, container_port: container, protocol };
            prop_assert_eq!(parse(&text).unwrap(), vec![expected]);
        }

        #[test]
        fn ranges_pair_up(host in 1..60_000u16, container in 1..60_000u16, more in 0..200u16) {
            let text = format!("{host}-{}:{container}-{}", host + more, container + more);
            let requests = parse(&text).unwrap();
            prop_assert_eq!(requests.len(), usize::from(more) + 1);
            for (request, offset) in requests.iter().zip(0..) {
                prop_assert_eq!(request.host_port, Some(host + offset));
                prop_assert_eq!(request.container_port, container + offset);
            }
        }

        #[test]
        fn nothing_makes_the_reader_panic(text in "[0-9a-z:./\\[\\]-]{0,24}") {
            if let Ok(requests) = parse(&text) {
                prop_assert!(!requests.is_empty());
                prop_assert!(requests.iter().all(|r| r.container_port != 0 && r.host_port != Some(0)));
            }
        }
    }

    fn anywhere(host_port: Option<u16>, protocol: Protocol) -> PortRequest {
        PortRequest { host_ip: None, host_port, container_port: 80, protocol }
    }

    #[test]
    fn free_ports_are_chosen_and_differ() {
        let requests = vec![anywhere(None, Protocol::Tcp); 8];
        let mut ports: Vec<u16> = resolve(&requests).unwrap().iter().map(|m| m.host_port).collect();
        assert!(!ports.contains(&0));
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 8);
    }

    #[test]
    fn a_busy_port_is_refused_with_a_free_one() {
        let holder = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        let busy = holder.local_addr().unwrap().port();
        // The same number of the other transport is another port.
        resolve(&[anywhere(Some(busy), Protocol::Udp)]).unwrap();
        let error = resolve(&[anywhere(Some(busy), Protocol::Tcp)]).unwrap_err();
        let NetError::Port { errno, free: Some(free), .. } = error else { panic!("{error:?}") };
        assert_eq!(errno, Errno::EADDRINUSE as i32);
        assert_ne!(free, busy);
    }

    #[test]
    fn a_port_asked_for_twice_is_refused() {
        let free = resolve(&[anywhere(None, Protocol::Udp)]).unwrap().remove(0).host_port;
        let twice = vec![anywhere(Some(free), Protocol::Udp); 2];
        assert!(matches!(resolve(&twice), Err(NetError::Port { .. })));
    }

    #[test]
    fn addresses_that_cannot_be_bound_are_refused() {
        let request =
            |ip: &str, protocol| PortRequest { host_ip: Some(ip.parse().unwrap()), ..anywhere(None, protocol) };
        let error = resolve(&[request("203.0.113.77", Protocol::Tcp)]).unwrap_err();
        assert!(matches!(error, NetError::Port { errno, .. } if errno == Errno::EADDRNOTAVAIL as i32));
        for (ip, protocol) in [("::1", Protocol::Tcp), ("127.0.0.1", Protocol::Udp)] {
            let error = resolve(&[request(ip, protocol)]).unwrap_err();
            assert!(matches!(error, NetError::Unsupported { .. }), "{error:?}");
        }
        resolve(&[request("127.0.0.1", Protocol::Tcp)]).unwrap();
    }
}
