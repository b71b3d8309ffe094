//! Egress rules by nftables over nfnetlink: one output chain that accepts what the rules name and rejects the rest at
//! once. A filter rather than a choice of routes, because only a filter knows ports, lets answers to published ports
//! pass, and sees every packet of a socket that is bound to the device. It holds for payloads without CAP_NET_ADMIN
//! and CAP_NET_RAW in this namespace.

use super::Config;
use super::netlink::{ACK, APPEND, Attributes, Batch, CREATE, REQUEST};
use crate::cidr::Cidr;
use crate::error::NetError;
use crate::slirp;
use nix::errno::Errno;
use nix::sys::socket::SockProtocol;
use rlrun_spec::container::EgressRule;
use std::net::{IpAddr, Ipv6Addr};

const NFPROTO_INET: u8 = 1;
const NFPROTO_IPV4: u8 = 2;
const NFPROTO_IPV6: u8 = 10;
const NFNL_MSG_BATCH_BEGIN: u16 = 0x10;
const NFNL_MSG_BATCH_END: u16 = 0x11;
const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFT_MSG_NEWTABLE: u16 = NFNL_SUBSYS_NFTABLES << 8;
const NFT_MSG_NEWCHAIN: u16 = NFNL_SUBSYS_NFTABLES << 8 | 3;
const NFT_MSG_NEWRULE: u16 = NFNL_SUBSYS_NFTABLES << 8 | 6;
const NF_INET_LOCAL_OUT: u32 = 3;
const NF_DROP: u32 = 0;
const NF_ACCEPT: u32 = 1;

const VERDICT_REGISTER: u32 = 0;
const REGISTER: u32 = 1;
const CMP_EQ: u32 = 0;
const CMP_NEQ: u32 = 1;
const META_OIF: u32 = 5;
const META_NFPROTO: u32 = 15;
const META_L4PROTO: u32 = 16;
const CT_STATE: u32 = 0;
const CT_ESTABLISHED_OR_RELATED: u32 = 0b110;
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;
const REJECT_ICMPX: u32 = 2;
const ICMPX_ADMIN_PROHIBITED: u8 = 3;

const TABLE: &str = "rlrun";
const CHAIN: &str = "egress";
const LOOPBACK: u32 = 1;
/// More does not fit into a socket's default send buffer.
const MOST_BYTES: usize = 128 * 1024;

/// What a packet must be to pass: each part that is there must match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pass {
    to: Cidr,
    protocol: Option<Transport>,
    port: Option<u16>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transport {
    Tcp = 6,
    Udp = 17,
    Icmp6 = 58,
}

/// Reads the rules of the plan.
pub(super) fn compile(rules: &[EgressRule]) -> Result<Vec<Pass>, NetError> {
    let mut passes = Vec::new();
    for rule in rules {
        let unsupported = |why: &str| NetError::Unsupported {
            what: format!("egress rule {} {} {:?}", rule.cidr, rule.protocol, rule.ports),
            why: why.to_owned(),
            hint: None,
        };
        let to = Cidr::parse(&rule.cidr).ok_or_else(|| unsupported("not an address block such as 10.0.0.0/8"))?;
        let protocols: &[Option<Transport>] = match (rule.protocol.as_str(), rule.ports.is_empty()) {
            ("any", true) => &[None],
            ("any", false) => &[Some(Transport::Tcp), Some(Transport::Udp)],
            ("tcp", _) => &[Some(Transport::Tcp)],
            ("udp", _) => &[Some(Transport::Udp)],
            _ => return Err(unsupported("the protocol must be tcp, udp or any")),
        };
        for &protocol in protocols {
            let ports = rule.ports.iter().map(|&port| Pass { to, protocol, port: Some(port) });
            passes.extend(ports);
            passes.extend(rule.ports.is_empty().then_some(Pass { to, protocol, port: None }));
        }
    }
    if encode(&passes, true, true).len() > MOST_BYTES {
        return Err(NetError::Unsupported {
            what: format!("{} egress rules", passes.len()),
            why: "too many for one transaction".to_owned(),
            hint: Some("name larger address blocks, or leave ports out".to_owned()),
        });
    }
    Ok(passes)
}

/// Puts the rules in force.
pub(super) fn install(passes: &[Pass], config: &Config<'_>) -> Result<(), NetError> {
    let batch = encode(passes, config.published, config.ipv6);
    match batch.exchange(SockProtocol::NetlinkNetFilter) {
        Ok(()) => Ok(()),
        // The kernel has no nftables, or no module for one of its expressions.
        Err(Errno::EOPNOTSUPP | Errno::EPROTONOSUPPORT | Errno::ENOENT) => Err(NetError::Unsupported {
            what: "egress rules".to_owned(),
            why: "this kernel has no nftables for the container's network".to_owned(),
            hint: Some("sudo modprobe -a nf_tables nft_ct nft_reject_inet, or run with --network none".to_owned()),
        }),
        Err(errno) => Err(NetError::system("configure-network", "install the egress rules", "nftables", errno)),
    }
}

fn encode(passes: &[Pass], published: bool, ipv6: bool) -> Batch {
    let mut batch = Batch::default();
    let boundary = [0, 0, 0, 10];
    batch.message(NFNL_MSG_BATCH_BEGIN, REQUEST, &boundary, |_| {});
    table_and_chain(&mut batch);
    rule(&mut batch, |m| {
        meta(m, META_OIF);
        compare(m, CMP_EQ, &LOOPBACK.to_ne_bytes());
        accept(m);
    });
    if published {
        rule(&mut batch, answers);
    }
    for pass in dns().iter().chain(if ipv6 { NEIGHBOURS } else { &[] }).chain(passes) {
        rule(&mut batch, |m| pass.encode(m));
    }
    rule(&mut batch, reject);
    batch.message(NFNL_MSG_BATCH_END, REQUEST, &boundary, |_| {});
    batch
}

/// The resolver is always reachable, and only as a resolver.
fn dns() -> [Pass; 2] {
    let to = Cidr::host(IpAddr::V4(slirp::DNS));
    [Transport::Udp, Transport::Tcp].map(|protocol| Pass { to, protocol: Some(protocol), port: Some(53) })
}

/// IPv6 finds its neighbours by ICMP: to multicast, to link-local addresses, and within slirp4netns' own network.
const NEIGHBOURS: &[Pass] = &[
    neighbour(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0), 16),
    neighbour(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10),
    neighbour(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0), 64),
];

const fn neighbour(address: Ipv6Addr, prefix: u8) -> Pass {
    Pass { to: Cidr::block(IpAddr::V6(address), prefix), protocol: Some(Transport::Icmp6), port: None }
}

fn table_and_chain(batch: &mut Batch) {
    message(batch, NFT_MSG_NEWTABLE, CREATE, |m| {
        m.put_name(1, TABLE);
        m.put_be32(2, 0);
    });
    message(batch, NFT_MSG_NEWCHAIN, CREATE, |m| {
        m.put_name(1, TABLE);
        m.put_name(3, CHAIN);
        m.put_name(7, "filter");
        // Drop is what remains should the last rule not match; the last rule rejects, so that programs need not wait.
        m.put_be32(5, NF_DROP);
        m.nest(4, |m| {
            m.put_be32(1, NF_INET_LOCAL_OUT);
            m.put_be32(2, 0);
        });
    });
}

fn message(batch: &mut Batch, kind: u16, flags: u16, attributes: impl FnOnce(&mut Attributes<'_>)) {
    // struct nfgenmsg: family, version, resource.
    batch.message(kind, REQUEST | ACK | flags, &[NFPROTO_INET, 0, 0, 0], attributes);
}

fn rule(batch: &mut Batch, expressions: impl FnOnce(&mut Attributes<'_>)) {
    message(batch, NFT_MSG_NEWRULE, CREATE | APPEND, |m| {
        m.put_name(1, TABLE);
        m.put_name(2, CHAIN);
        m.nest(4, expressions);
    });
}

impl Pass {
    fn encode(&self, m: &mut Attributes<'_>) {
        let (family, offset) = match self.to.address() {
            IpAddr::V4(_) => (NFPROTO_IPV4, 16),
            IpAddr::V6(_) => (NFPROTO_IPV6, 24),
        };
        meta(m, META_NFPROTO);
        compare(m, CMP_EQ, &[family]);
        destination(m, offset, self.to.prefix(), &self.to.octets(), &self.to.mask());
        if let Some(protocol) = self.protocol {
            meta(m, META_L4PROTO);
            compare(m, CMP_EQ, &[protocol as u8]);
        }
        if let Some(port) = self.port {
            payload(m, TRANSPORT_HEADER, 2, 2);
            compare(m, CMP_EQ, &port.to_be_bytes());
        }
        accept(m);
    }
}

/// The destination lies in the block. As nft(8) does it: the bytes that a prefix of whole bytes covers are compared, the
/// whole address under a mask otherwise.
fn destination(m: &mut Attributes<'_>, offset: u32, prefix: u8, octets: &[u8], mask: &[u8]) {
    let whole_bytes = prefix.is_multiple_of(8);
    let count = if whole_bytes { usize::from(prefix / 8) } else { octets.len() };
    let network = octets.get(..count).unwrap_or_default();
    if network.is_empty() {
        return;
    }
    payload(m, NETWORK_HEADER, offset, length(network));
    if !whole_bytes {
        bitwise(m, mask);
    }
    compare(m, CMP_EQ, network);
}

fn length(value: &[u8]) -> u32 {
    u32::try_from(value.len()).unwrap_or(u32::MAX)
}

fn answers(m: &mut Attributes<'_>) {
    expression(m, "ct", |m| {
        m.put_be32(2, CT_STATE);
        m.put_be32(1, REGISTER);
    });
    bitwise(m, &CT_ESTABLISHED_OR_RELATED.to_ne_bytes());
    compare(m, CMP_NEQ, &[0; 4]);
    accept(m);
}

fn reject(m: &mut Attributes<'_>) {
    expression(m, "reject", |m| {
        m.put_be32(1, REJECT_ICMPX);
        m.put(2, &[ICMPX_ADMIN_PROHIBITED]);
    });
}

fn expression(m: &mut Attributes<'_>, name: &str, data: impl FnOnce(&mut Attributes<'_>)) {
    m.nest(1, |m| {
        m.put_name(1, name);
        m.nest(2, data);
    });
}

fn meta(m: &mut Attributes<'_>, key: u32) {
    expression(m, "meta", |m| {
        m.put_be32(2, key);
        m.put_be32(1, REGISTER);
    });
}

fn payload(m: &mut Attributes<'_>, base: u32, offset: u32, length: u32) {
    expression(m, "payload", |m| {
        m.put_be32(1, REGISTER);
        m.put_be32(2, base);
        m.put_be32(3, offset);
        m.put_be32(4, length);
    });
}

fn bitwise(m: &mut Attributes<'_>, mask: &[u8]) {
    expression(m, "bitwise", |m| {
        m.put_be32(1, REGISTER);
        m.put_be32(2, REGISTER);
        m.put_be32(3, length(mask));
        m.nest(4, |m| m.put(1, mask));
        m.nest(5, |m| m.put(1, &vec![0; mask.len()]));
    });
}

fn compare(m: &mut Attributes<'_>, operation: u32, value: &[u8]) {
    expression(m, "cmp", |m| {
        m.put_be32(1, REGISTER);
        m.put_be32(2, operation);
        m.nest(3, |m| m.put(1, value));
    });
}

fn accept(m: &mut Attributes<'_>) {
    expression(m, "immediate", |m| {
        m.put_be32(1, VERDICT_REGISTER);
        m.nest(2, |m| m.nest(2, |m| m.put_be32(1, NF_ACCEPT)));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(cidr: &str, protocol: &str, ports: &[u16]) -> EgressRule {
        EgressRule { cidr: cidr.to_owned(), ports: ports.to_vec(), protocol: protocol.to_owned() }
    }

    /// `filter.golden.hex` holds the messages of nft(8) 1.0.6, one a line, for the table below, renumbered from 1, with
    /// the acknowledgement flag on each message between the boundaries and CREATE on the table.
    ///
    /// ```text
    /// table inet rlrun { chain egress {
    ///     type filter hook output priority 0; policy drop;
    ///     oif lo accept
    ///     ct state established,related accept
    ///     ip daddr 10.0.2.3 udp dport 53 accept
    ///     ip daddr 10.0.2.3 tcp dport 53 accept
    ///     ip daddr 10.16.0.0/12 tcp dport 8000 accept
    ///     ip6 daddr fd00::/8 meta l4proto udp accept
    ///     reject with icmpx type admin-prohibited
    /// } }
    /// ```
    #[test]
    fn messages_are_those_of_nft() {
        let passes = compile(&[rule("10.16.0.0/12", "tcp", &[8000]), rule("fd00::/8", "udp", &[])]).unwrap();
        let batch = encode(&passes, true, false);
        let mut rest = batch.bytes();
        for (line, golden) in include_str!("filter.golden.hex").lines().enumerate() {
            let (message, after) = rest.split_at(golden.len() / 2);
            let hex: String = message.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(hex, golden, "message {}", line + 1);
            rest = after;
        }
        assert!(rest.is_empty());
    }

    #[test]
    fn ports_of_any_protocol_are_those_of_tcp_and_udp() {
        let passes = compile(&[rule("192.0.2.0/24", "any", &[53, 80])]).unwrap();
        let pairs: Vec<_> = passes.iter().map(|p| (p.protocol, p.port)).collect();
        let (tcp, udp) = (Some(Transport::Tcp), Some(Transport::Udp));
        assert_eq!(pairs, [(tcp, Some(53)), (tcp, Some(80)), (udp, Some(53)), (udp, Some(80))]);
        assert_eq!(compile(&[rule("0.0.0.0/0", "any", &[])]).unwrap().len(), 1);
        assert_eq!(compile(&[]).unwrap(), []);
    }

    #[test]
    fn what_cannot_be_enforced_is_refused() {
        for (bad, why) in [
            (rule("10.0.0.0/33", "any", &[]), "not an address block"),
            (rule("example.org", "tcp", &[443]), "not an address block"),
            (rule("10.0.0.0/8", "sctp", &[]), "the protocol must be"),
            (rule("10.0.0.0/8", "", &[]), "the protocol must be"),
        ] {
            let error = compile(std::slice::from_ref(&bad)).unwrap_err();
            assert!(matches!(&error, NetError::Unsupported { .. }), "{error}");
            assert!(error.to_string().contains(why), "{error}");
        }
        let ports: Vec<u16> = (1..=60_000).collect();
        let error = compile(&[rule("10.0.0.0/8", "tcp", &ports)]).unwrap_err();
        assert!(error.to_string().contains("too many"), "{error}");
    }
}
