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
            what: format!(
                "egress rule {} {} {:?}",
                rule.cidr, rule.protocol, rule.ports
            ),
            why: why.to_owned(),
            hint: None,
        };
        let to = Cidr::parse(&rule.cidr)
            .ok_or_else(|| unsupported("not an address block such as 10.0.0.0/8"))?;
        let protocols: &[Option<Transport>] = match (rule.protocol.as_str(), rule.ports.is_empty())
        {
            ("any", true) => &[None],
            ("any", false) => &[Some(Transport::Tcp), Some(Transport::Udp)],
            ("tcp", _) => &[Some(Transport::Tcp)],
            ("udp", _) => &[Some(Transport::Udp)],
            _ => return Err(unsupported("the protocol must be tcp, udp or any")),
        };
        for &protocol in protocols {
            let ports = rule.ports.iter().map(|&port| Pass {
                to,
                protocol,
                port: Some(port),
            });
            passes.extend(ports);
            passes.extend(rule.ports.is_empty().then_some(Pass {
                to,
                protocol,
                port: None,
            }));
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
        Err(Errno::EOPNOTSUPP | Errno::EPROTONOSUPPORT | Errno::ENOENT) => {
            Err(NetError::Unsupported {
                what: "egress rules".to_owned(),
                why: "this kernel has no nftables for the container's network".to_owned(),
                hint: Some(
                    "sudo modprobe -a nf_tables nft_ct nft_reject_inet, or run with --network none"
                        .to_owned(),
                ),
            })
        }
        Err(errno) => Err(NetError::system(
            "configure-network",
            "install the egress rules",
            "nftables",
            errno,
        )),
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
    for pass in dns()
        .iter()
        .chain(if ipv6 { NEIGHBOURS } else { &[] })
        .chain(passes)
    {
        rule(&mut batch, |m| pass.encode(m));
    }
    rule(&mut batch, reject);
    batch.message(NFNL_MSG_BATCH_END, REQUEST, &boundary, |_| {});
    batch
}

/// The resolver is always reachable, and only as a resolver.
fn dns() -> [Pass; 2] {
    let to = Cidr::host(IpAddr::V4(slirp::DNS));
    [Transport::Udp, Transport::Tcp].map(|protocol| Pass {
        to,
        protocol: Some(protocol),
        port: Some(53),
    })
}

/// IPv6 finds its neighbours by ICMP: to multicast, to link-local addresses, and within slirp4netns' own network.
const NEIGHBOURS: &[Pass] = &[
    neighbour(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0), 16),
    neighbour(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10),
    neighbour(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0), 64),
];

const fn neighbour(address: Ipv6Addr, prefix: u8) -> Pass {
    Pass {
        to: Cidr::block(IpAddr::V6(address), prefix),
        protocol: Some(Transport::Icmp6),
        port: None,
    }
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
    batch.message(
        kind,
        REQUEST | ACK | flags,
        &[NFPROTO_INET, 0, 0, 0],
        attributes,
    );
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
        let (family, offset, octets) = match self.to.address() {
            IpAddr::V4(v4) => (NFPROTO_IPV4, 16, v4.octets().to_vec()),
            IpAddr::V6(v6) => (NFPROTO_IPV6, 24, v6.octets().to_vec()),
        };
        meta(m, META_NFPROTO);
        compare(m, CMP_EQ, &[family]);
        destination(m, offset, self.to.prefix(), &octets);
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

/// The destination lies in the block: the bytes that the prefix covers are loaded, its last bits masked, and compared.
fn destination(m: &mut Attributes<'_>, offset: u32, prefix: u8, octets: &[u8]) {
    let count = usize::from(prefix).div_ceil(8);
    let network = octets.get(..count).unwrap_or_default();
    if network.is_empty() {
        return;
    }
    payload(m, NETWORK_HEADER, offset, u32::from(prefix).div_ceil(8));
    let spare = count * 8 - usize::from(prefix);
    if spare > 0 {
        let mut mask = vec![0xff; count];
        if let Some(last) = mask.last_mut() {
            *last = 0xff << spare;
        }
        bitwise(m, &mask);
    }
    compare(m, CMP_EQ, network);
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
    let length = u32::try_from(mask.len()).unwrap_or(u32::MAX);
    expression(m, "bitwise", |m| {
        m.put_be32(1, REGISTER);
        m.put_be32(2, REGISTER);
        m.put_be32(3, length);
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
