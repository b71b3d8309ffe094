//! `-p [ip:]host:container[/udp]`: reading it, and choosing host ports.

use crate::error::NetError;
use nix::errno::Errno;
use rlrun_spec::container::{PortMapping, Protocol};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};

/// One port that the user wants published; a range makes several.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    let invalid = |why: String| NetError::Invalid {
        flag: "-p",
        text: printable(text),
        why,
    };
    let (rest, protocol) = split_protocol(text).map_err(invalid)?;
    let (host_ip, rest) = split_address(rest).map_err(invalid)?;
    let (host, container) = match (host_ip, rest.rsplit_once(':')) {
        (_, Some((host, container))) => (host, container),
        (None, None) => ("", rest),
        (Some(_), None) => {
            return Err(invalid(
                "an address must be followed by ':' and a port".to_owned(),
            ));
        }
    };
    let container = range(container).map_err(invalid)?;
    let host = if matches!(host, "" | "0") {
        None
    } else {
        Some(range(host).map_err(invalid)?)
    };
    if container.first == 0 {
        return Err(invalid("the container's port cannot be 0".to_owned()));
    }
    if let Some(host) = &host
        && host.count() != container.count()
    {
        let why = format!(
            "{} host ports for {} container ports",
            host.count(),
            container.count()
        );
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
        Some((_, "sctp")) => {
            Err("sctp cannot be published without root, only tcp and udp".to_owned())
        }
        Some((_, other)) => Err(format!(
            "unknown protocol '{}': tcp or udp",
            printable(other)
        )),
    }
}

/// Takes an address and its colon from the front, if there is one.
fn split_address(text: &str) -> Result<(Option<IpAddr>, &str), String> {
    if let Some(bracketed) = text.strip_prefix('[') {
        let (address, rest) = bracketed.split_once(']').ok_or("']' is missing")?;
        let address = address
            .parse()
            .map_err(|_| format!("'{}' is not an IPv6 address", printable(address)))?;
        let rest = rest
            .strip_prefix(':')
            .ok_or("an address must be followed by ':' and a port")?;
        return Ok((Some(IpAddr::V6(address)), rest));
    }
    match text.matches(':').count() {
        0 | 1 => Ok((None, text)),
        2 => {
            let (address, rest) = text.split_once(':').unwrap_or((text, ""));
            if address.is_empty() {
                return Ok((None, rest));
            }
            let v4: Ipv4Addr = address
                .parse()
                .map_err(|_| format!("'{}' is not an IPv4 address", printable(address)))?;
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
    if first > last {
        Err(format!("the range {first}-{last} runs backwards"))
    } else {
        Ok(Range { first, last })
    }
}

fn port(text: &str) -> Result<u16, String> {
    // u16's parser would take "+80".
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits
        .then(|| text.parse().ok())
        .flatten()
        .ok_or_else(|| match text {
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
    // All claims live until the end: a port chosen by the kernel must not be one that a later request names.
    let mut claims = Vec::with_capacity(requests.len());
    let mut mappings: Vec<Option<PortMapping>> = vec![None; requests.len()];
    let named_first = |request: &PortRequest| request.host_port.is_none();
    let mut order: Vec<usize> = (0..requests.len()).collect();
    order.sort_by_key(|&i| requests.get(i).is_some_and(named_first));
    for (request, slot) in order.iter().filter_map(|&i| Some((requests.get(i)?, i))) {
        let mut mapping = wanted(request)?;
        let claim = claim(&mapping)?;
        mapping.host_port = claim.port().map_err(|e| port_error(&mapping, &e))?;
        claims.push(claim);
        if let Some(slot) = mappings.get_mut(slot) {
            *slot = Some(mapping);
        }
    }
    Ok(mappings.into_iter().flatten().collect())
}

fn wanted(request: &PortRequest) -> Result<PortMapping, NetError> {
    let host_ip = request.host_ip.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    if host_ip.is_ipv6() {
        return Err(NetError::Unsupported {
            what: format!("-p [{host_ip}]"),
            why: "slirp4netns publishes ports on IPv4 addresses only".to_owned(),
            hint: Some("leave the address out, or name an IPv4 address of this host".to_owned()),
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
    let free = matches!(Errno::from_raw(errno), Errno::EACCES | Errno::EADDRINUSE)
        .then(|| free_port(mapping))
        .flatten();
    NetError::Port {
        mapping: mapping.clone(),
        errno,
        free,
    }
}

/// A free port near in mind to the one wanted: 80 gives 8080, 443 gives 8443; else any.
fn free_port(mapping: &PortMapping) -> Option<u16> {
    let alike = mapping
        .host_port
        .checked_add(8000)
        .filter(|_| mapping.host_port < 1024);
    let candidates = [alike, mapping.host_port.checked_add(1), Some(0)];
    candidates.into_iter().flatten().find_map(|port| {
        let address = SocketAddr::new(mapping.host_ip, port);
        Claim::new(address, mapping.protocol).ok()?.port().ok()
    })
}
