//! `/etc/resolv.conf` and `/etc/hosts` of a container, from plain data, and the reading of the flags that shape them.

use crate::error::NetError;
use crate::slirp;
use rlrun_spec::container::NetworkMode;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};

/// Longest host name, and longest label of one (RFC 1035, 2.3.4).
const NAME_BYTES: usize = 253;
const LABEL_BYTES: usize = 63;

/// `--dns`, `--dns-search` and `--dns-option`. What is empty is taken from the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dns {
    /// Name servers.
    pub servers: Vec<IpAddr>,
    /// Search domains; one `.` means none.
    pub search: Vec<String>,
    /// Resolver options.
    pub options: Vec<String>,
}

/// `--add-host name[;name...]:address`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddHost {
    /// Names.
    pub names: Vec<String>,
    /// Where they point.
    pub address: HostAddress,
}

/// The address of an [`AddHost`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostAddress {
    /// This one.
    Ip(IpAddr),
    /// `host-gateway`: the host, where the container can reach it.
    Gateway,
}

/// What `/etc/hosts` is made of.
#[derive(Clone, Copy, Debug)]
pub struct Hosts<'a> {
    /// Which network.
    pub network: NetworkMode,
    /// Host name of the container.
    pub hostname: &'a str,
    /// Name of the container.
    pub name: &'a str,
    /// `--add-host`.
    pub added: &'a [AddHost],
    /// An address of the host that a private network reaches, from [`host_address`].
    pub host: Option<Ipv4Addr>,
    /// The host's `/etc/hosts`, which a container in the host's network shares.
    pub of_host: &'a str,
}

/// Reads one `--dns`.
///
/// # Errors
/// [`NetError::Invalid`] for anything but an address.
pub fn parse_dns(text: &str) -> Result<IpAddr, NetError> {
    text.parse()
        .map_err(|_| invalid("--dns", text, "not an IP address"))
}

/// Reads one `--dns-search`.
///
/// # Errors
/// [`NetError::Invalid`] for what is no domain.
pub fn parse_search(text: &str) -> Result<String, NetError> {
    let name = text.strip_suffix('.').unwrap_or(text);
    if text == "." || is_name(name) {
        return Ok(text.to_owned());
    }
    Err(invalid(
        "--dns-search",
        text,
        "not a domain name; '.' for none",
    ))
}

/// Reads one `--dns-option`.
///
/// # Errors
/// [`NetError::Invalid`] for what is no option of resolv.conf(5).
pub fn parse_option(text: &str) -> Result<String, NetError> {
    let fine = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b':');
    if !text.is_empty() && text.bytes().all(fine) {
        return Ok(text.to_owned());
    }
    Err(invalid(
        "--dns-option",
        text,
        "not an option of resolv.conf(5), such as ndots:2",
    ))
}

/// Reads one `--add-host`: `name:address`, `name:host-gateway`, several names with `;` between them.
///
/// # Errors
/// [`NetError::Invalid`] for a name or address that is none.
pub fn parse_add_host(text: &str) -> Result<AddHost, NetError> {
    let bad = |why: &str| invalid("--add-host", text, why);
    let (names, address) = text
        .split_once(':')
        .ok_or_else(|| bad("not of the form name:address"))?;
    let names: Vec<String> = names.split(';').map(str::to_owned).collect();
    if !names.iter().all(|name| is_name(name)) {
        return Err(bad("not a host name before ':'"));
    }
    let bare = address
        .strip_prefix('[')
        .and_then(|a| a.strip_suffix(']'))
        .unwrap_or(address);
    let address = match bare {
        "host-gateway" => HostAddress::Gateway,
        ip => HostAddress::Ip(
            ip.parse()
                .map_err(|_| bad("not an IP address or host-gateway after ':'"))?,
        ),
    };
    Ok(AddHost { names, address })
}

/// Letters, digits, `-` and `_` in labels of reasonable length: nothing that could end the line or the field.
fn is_name(name: &str) -> bool {
    let label = |label: &str| {
        let fine = label
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
        fine && !label.is_empty() && label.len() <= LABEL_BYTES && !label.starts_with('-')
    };
    name.len() <= NAME_BYTES && name.split('.').all(label)
}

fn invalid(flag: &'static str, text: &str, why: &str) -> NetError {
    let text = text.chars().filter(|c| !c.is_control()).take(80).collect();
    NetError::Invalid {
        flag,
        text,
        why: why.to_owned(),
    }
}

/// `/etc/resolv.conf`. `of_host` is the host's: a private network takes its search domains and options but not its
/// servers, which may be on the host's loopback; slirp4netns forwards to them.
#[must_use]
pub fn resolv_conf(network: NetworkMode, dns: &Dns, of_host: &str) -> String {
    let host = read_resolv_conf(of_host);
    let servers = match (dns.servers.is_empty(), network) {
        (false, _) => dns.servers.clone(),
        (true, NetworkMode::Slirp4netns) => vec![IpAddr::V4(slirp::DNS)],
        (true, NetworkMode::Host) => host.servers,
        (true, NetworkMode::None) => Vec::new(),
    };
    let of_host = |own: &[String], host: Vec<String>| match network {
        _ if !own.is_empty() => own.to_vec(),
        NetworkMode::Slirp4netns | NetworkMode::Host => host,
        NetworkMode::None => Vec::new(),
    };
    let search = of_host(&dns.search, host.search);
    let options = of_host(&dns.options, host.options);
    let mut text = String::new();
    if !search.is_empty() && search != ["."] {
        text.push_str(&format!("search {}\n", search.join(" ")));
    }
    for server in servers {
        text.push_str(&format!("nameserver {server}\n"));
    }
    if !options.is_empty() {
        text.push_str(&format!("options {}\n", options.join(" ")));
    }
    text
}

/// What of a resolv.conf(5) counts: every `nameserver`, the last `search` or `domain`, all `options`. What is malformed
/// is left out, as the resolver itself does.
fn read_resolv_conf(text: &str) -> Dns {
    let mut dns = Dns::default();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        match words.next() {
            Some("nameserver") => dns
                .servers
                .extend(words.next().and_then(|w| w.parse::<IpAddr>().ok())),
            Some("search") => dns.search = words.filter_map(|w| parse_search(w).ok()).collect(),
            Some("domain") => {
                dns.search = words.take(1).filter_map(|w| parse_search(w).ok()).collect()
            }
            Some("options") => dns
                .options
                .extend(words.filter_map(|w| parse_option(w).ok())),
            _ => {}
        }
    }
    dns
}

/// `/etc/hosts`. The names of the host (`host.containers.internal`, `host.docker.internal`) appear only where they would
/// lead there.
///
/// # Errors
/// [`NetError::Unsupported`] when `host-gateway` is asked for and the host cannot be reached.
pub fn hosts(hosts: &Hosts<'_>) -> Result<String, NetError> {
    let (own, host) = match hosts.network {
        NetworkMode::Slirp4netns => (Some(slirp::ADDRESS), hosts.host),
        NetworkMode::None => (Some(Ipv4Addr::LOCALHOST), None),
        NetworkMode::Host => (None, Some(Ipv4Addr::LOCALHOST)),
    };
    let mut text = String::new();
    // The user's entries stand first, because the first match wins (hosts(5)).
    for added in hosts.added {
        let address = match (added.address, host) {
            (HostAddress::Ip(ip), _) => ip,
            (HostAddress::Gateway, Some(host)) => IpAddr::V4(host),
            (HostAddress::Gateway, None) => return Err(no_gateway(added, hosts.network)),
        };
        text.push_str(&format!("{address}\t{}\n", added.names.join(" ")));
    }
    match own {
        Some(own) => {
            text.push_str("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n");
            text.push_str(&format!("{own}\t{}", hosts.hostname));
            if hosts.name != hosts.hostname {
                text.push_str(&format!(" {}", hosts.name));
            }
            text.push('\n');
        }
        None => {
            text.push_str(hosts.of_host);
            if !text.is_empty() && !text.ends_with('\n') {
                text.push('\n');
            }
        }
    }
    if let Some(host) = host {
        text.push_str(&format!(
            "{host}\thost.containers.internal host.docker.internal\n"
        ));
    }
    Ok(text)
}

fn no_gateway(added: &AddHost, network: NetworkMode) -> NetError {
    let why = match network {
        NetworkMode::None => "a container without a network cannot reach the host",
        NetworkMode::Slirp4netns | NetworkMode::Host => "this host has no address but loopback",
    };
    NetError::Unsupported {
        what: format!("--add-host {}:host-gateway", added.names.join(";")),
        why: why.to_owned(),
        hint: None,
    }
}

/// The host's own address that a private network reaches: loopback is refused to it, the others are not. `None` on a host
/// with loopback only.
#[must_use]
pub fn host_address() -> Option<Ipv4Addr> {
    // Connecting a datagram socket sends nothing; it makes the kernel choose the source address. 192.0.2.0/24 is
    // documentation's (RFC 5737).
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    match socket.local_addr().ok()?.ip() {
        IpAddr::V4(v4) if !v4.is_loopback() && !v4.is_unspecified() => Some(v4),
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    }
}
