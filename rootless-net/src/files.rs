//! `/etc/resolv.conf` and `/etc/hosts` of a container, from plain data, and the reading of the flags that shape them.

use crate::error::NetError;
use crate::slirp;
use rlrun_spec::container::NetworkMode;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, UdpSocket};

/// Longest host name, and longest label of one (RFC 1035, 2.3.4).
const NAME_BYTES: usize = 253;
const LABEL_BYTES: usize = 63;

/// `--dns`, `--dns-search` and `--dns-option`. What is empty is taken from the host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dns {
    /// Name servers.
    pub servers: Vec<IpAddr>,
    /// Search domains; one `.` means none.
    pub search: Vec<String>,
    /// Resolver options.
    pub options: Vec<String>,
}

/// `--add-host name[;name...]:address`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddHost {
    /// Names.
    pub names: Vec<String>,
    /// Where they point.
    pub address: HostAddress,
}

/// The address of an [`AddHost`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
    text.parse().map_err(|_| invalid("--dns", text, "not an IP address"))
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
    Err(invalid("--dns-search", text, "not a domain name; '.' for none"))
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
    Err(invalid("--dns-option", text, "not an option of resolv.conf(5), such as ndots:2"))
}

/// Reads one `--add-host`: `name:address`, `name:host-gateway`, several names with `;` between them.
///
/// # Errors
/// [`NetError::Invalid`] for a name or address that is none.
pub fn parse_add_host(text: &str) -> Result<AddHost, NetError> {
    let bad = |why: &str| invalid("--add-host", text, why);
    let (names, address) = text.split_once(':').ok_or_else(|| bad("not of the form name:address"))?;
    let names: Vec<String> = names.split(';').map(str::to_owned).collect();
    if !names.iter().all(|name| is_name(name)) {
        return Err(bad("not a host name before ':'"));
    }
    let bare = address.strip_prefix('[').and_then(|a| a.strip_suffix(']')).unwrap_or(address);
    let address = match bare {
        "host-gateway" => HostAddress::Gateway,
        ip => HostAddress::Ip(ip.parse().map_err(|_| bad("not an IP address or host-gateway after ':'"))?),
    };
    Ok(AddHost { names, address })
}

/// Letters, digits, `-` and `_` in labels of reasonable length: nothing that could end the line or the field.
fn is_name(name: &str) -> bool {
    let label = |label: &str| {
        let fine = label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
        fine && !label.is_empty() && label.len() <= LABEL_BYTES && !label.starts_with('-')
    };
    name.len() <= NAME_BYTES && name.split('.').all(label)
}

fn invalid(flag: &'static str, text: &str, why: &str) -> NetError {
    let text = text.chars().filter(|c| !c.is_control()).take(80).collect();
    NetError::Invalid { flag, text, why: why.to_owned() }
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
            Some("nameserver") => dns.servers.extend(words.next().and_then(|w| w.parse::<IpAddr>().ok())),
            Some("search") => dns.search = words.filter_map(|w| parse_search(w).ok()).collect(),
            Some("domain") => dns.search = words.take(1).filter_map(|w| parse_search(w).ok()).collect(),
            Some("options") => dns.options.extend(words.filter_map(|w| parse_option(w).ok())),
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
        text.push_str(&format!("{host}\thost.containers.internal host.docker.internal\n"));
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OF_HOST: &str = "# made by hand\nsearch old.example\ndomain also.old\nsearch corp.example lab.example\n\
        nameserver 127.0.0.53\nnameserver fe80::1%eth0\noptions edns0 trust-ad\noptions ndots:2 bad=option\nsortlist x\n";

    #[test]
    fn each_network_has_its_resolver() {
        let own = Dns::default();
        assert_eq!(
            resolv_conf(NetworkMode::Slirp4netns, &own, OF_HOST),
            "search corp.example lab.example\nnameserver 10.0.2.3\noptions edns0 trust-ad ndots:2\n"
        );
        assert_eq!(
            resolv_conf(NetworkMode::Host, &own, OF_HOST),
            "search corp.example lab.example\nnameserver 127.0.0.53\noptions edns0 trust-ad ndots:2\n"
        );
        assert_eq!(resolv_conf(NetworkMode::None, &own, OF_HOST), "");
        assert_eq!(resolv_conf(NetworkMode::Slirp4netns, &own, ""), "nameserver 10.0.2.3\n");
    }

    #[test]
    fn the_users_resolver_replaces_part_by_part() {
        let own = Dns { servers: vec!["9.9.9.9".parse().unwrap()], ..Dns::default() };
        let text = resolv_conf(NetworkMode::Slirp4netns, &own, OF_HOST);
        assert!(text.contains("nameserver 9.9.9.9\n") && !text.contains("10.0.2.3") && text.contains("search corp"));
        let own = Dns { search: vec![".".to_owned()], options: vec!["rotate".to_owned()], ..Dns::default() };
        let text = resolv_conf(NetworkMode::Slirp4netns, &own, OF_HOST);
        assert_eq!(text, "nameserver 10.0.2.3\noptions rotate\n");
    }

    fn facts<'a>(network: NetworkMode, added: &'a [AddHost], host: Option<Ipv4Addr>) -> Hosts<'a> {
        Hosts { network, hostname: "box", name: "web", added, host, of_host: "127.0.0.1 localhost desk" }
    }

    #[test]
    fn hosts_name_what_can_be_reached() {
        let host = Some(Ipv4Addr::new(198, 51, 100, 7));
        let added = [parse_add_host("db;db.lab:10.1.1.1").unwrap(), parse_add_host("me:host-gateway").unwrap()];
        assert_eq!(
            hosts(&facts(NetworkMode::Slirp4netns, &added, host)).unwrap(),
            "10.1.1.1\tdb db.lab\n198.51.100.7\tme\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
             10.0.2.100\tbox web\n198.51.100.7\thost.containers.internal host.docker.internal\n"
        );
        assert_eq!(
            hosts(&facts(NetworkMode::None, &[], host)).unwrap(),
            "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n127.0.0.1\tbox web\n"
        );
        assert_eq!(
            hosts(&facts(NetworkMode::Host, &[], None)).unwrap(),
            "127.0.0.1 localhost desk\n127.0.0.1\thost.containers.internal host.docker.internal\n"
        );
    }

    #[test]
    fn a_host_that_cannot_be_reached_is_not_promised() {
        let added = [parse_add_host("me:host-gateway").unwrap()];
        let refused = |network, host| hosts(&facts(network, &added, host)).unwrap_err().to_string();
        assert!(refused(NetworkMode::None, Some(Ipv4Addr::new(198, 51, 100, 7))).contains("without a network"));
        assert!(refused(NetworkMode::Slirp4netns, None).contains("no address but loopback"));
    }

    #[test]
    fn hostile_words_are_refused() {
        for text in [
            "",
            "a",
            "a:",
            ":1.2.3.4",
            "a b:1.2.3.4",
            "a\nb:1.2.3.4",
            "a:1.2.3.4\nx",
            "-a:1.2.3.4",
            "a..b:1.2.3.4",
            "a;:1.2.3.4",
            "a:1.2.3",
            "a:gateway",
        ] {
            assert!(parse_add_host(text).is_err(), "{text:?}");
        }
        assert_eq!(parse_add_host("a:[::1]").unwrap().address, HostAddress::Ip("::1".parse().unwrap()));
        assert_eq!(parse_add_host("a:fd00::1").unwrap().address, HostAddress::Ip("fd00::1".parse().unwrap()));
        assert!(parse_dns("9.9.9.9\noptions x").is_err() && parse_dns("dns.example").is_err());
        assert!(parse_search("a b").is_err() && parse_search("").is_err() && parse_search(&"a".repeat(64)).is_err());
        assert!(parse_search(".").is_ok() && parse_search("corp.example.").is_ok());
        assert!(parse_option("ndots:2\n").is_err() && parse_option("").is_err());
    }

    proptest! {
        #[test]
        fn no_resolv_conf_of_the_host_adds_a_line_of_another_kind(of_host in "(nameserver|search|options|[ a-z0-9.:%;#\\n\\t\u{1b}-]){0,40}") {
            for line in resolv_conf(NetworkMode::Host, &Dns::default(), &of_host).lines() {
                prop_assert!(["nameserver ", "search ", "options "].iter().any(|kind| line.starts_with(kind)));
                prop_assert!(!line.contains(char::is_control));
            }
        }

        #[test]
        fn an_accepted_name_is_one_field(text in "[a-z.;: 0-9\\n-]{0,30}") {
            if let Ok(added) = parse_add_host(&text) {
                prop_assert!(added.names.iter().all(|n| !n.is_empty() && !n.contains(char::is_whitespace)));
            }
        }
    }
}
