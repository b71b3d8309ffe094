//! Egress rules as a lattice: a set of (block, port, protocol) atoms, met by pairwise intersection.
//!
//! Address blocks are nested or disjoint, never half overlapping, so the intersection of two atoms is an atom or
//! nothing, and dropping atoms that another one contains gives one normal form.

use crate::container::EgressRule;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// An address block, host bits cleared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Block {
    V4 { base: u32, prefix: u8 },
    V6 { base: u128, prefix: u8 },
}

impl Block {
    fn parse(cidr: &str) -> Result<Self, String> {
        let (address, prefix) = match cidr.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (cidr, None),
        };
        let address: IpAddr = address.parse().map_err(|_| format!("`{cidr}` is not an address block"))?;
        let bits: u8 = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => bits,
            Some(text) => text.parse().ok().filter(|p| *p <= bits).ok_or(format!("`{cidr}` has no valid prefix"))?,
        };
        Ok(match address {
            IpAddr::V4(a) => Block::V4 { base: u32::from(a) & mask32(prefix), prefix },
            IpAddr::V6(a) => Block::V6 { base: u128::from(a) & mask128(prefix), prefix },
        })
    }

    fn contains(self, other: Self) -> bool {
        match (self, other) {
            (Block::V4 { base, prefix }, Block::V4 { base: b, prefix: p }) => prefix <= p && b & mask32(prefix) == base,
            (Block::V6 { base, prefix }, Block::V6 { base: b, prefix: p }) => {
                prefix <= p && b & mask128(prefix) == base
            }
            (Block::V4 { .. }, Block::V6 { .. }) | (Block::V6 { .. }, Block::V4 { .. }) => false,
        }
    }

    fn meet(self, other: Self) -> Option<Self> {
        if self.contains(other) {
            Some(other)
        } else if other.contains(self) {
            Some(self)
        } else {
            None
        }
    }
}

impl std::fmt::Display for Block {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Block::V4 { base, prefix } => write!(f, "{}/{prefix}", std::net::Ipv4Addr::from(*base)),
            Block::V6 { base, prefix } => write!(f, "{}/{prefix}", std::net::Ipv6Addr::from(*base)),
        }
    }
}

fn mask32(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
}

fn mask128(prefix: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Transport {
    Tcp,
    Udp,
}

/// None stands for all ports, all protocols.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Atom {
    block: Block,
    transport: Option<Transport>,
    port: Option<u16>,
}

impl Atom {
    fn contains(self, other: Self) -> bool {
        self.block.contains(other.block)
            && (self.transport.is_none() || self.transport == other.transport)
            && (self.port.is_none() || self.port == other.port)
    }

    fn meet(self, other: Self) -> Option<Self> {
        let block = self.block.meet(other.block)?;
        let transport = meet_flat(self.transport, other.transport)?;
        let port = meet_flat(self.port, other.port)?;
        Some(Atom { block, transport, port })
    }
}

/// Meet where None is everything; the outer None is the empty set.
fn meet_flat<T: Copy + PartialEq>(a: Option<T>, b: Option<T>) -> Option<Option<T>> {
    match (a, b) {
        (None, x) | (x, None) => Some(x),
        (Some(x), Some(y)) if x == y => Some(Some(x)),
        (Some(_), Some(_)) => None,
    }
}

/// What may be reached, in normal form: no atom contains another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Egress {
    atoms: BTreeSet<Atom>,
}

impl Egress {
    pub(crate) fn parse(rules: &[EgressRule]) -> Result<Self, String> {
        let mut atoms = BTreeSet::new();
        for rule in rules {
            let block = Block::parse(&rule.cidr)?;
            let transport = match rule.protocol.as_str() {
                "tcp" => Some(Transport::Tcp),
                "udp" => Some(Transport::Udp),
                "any" => None,
                other => return Err(format!("`{other}` is not a protocol: tcp, udp or any")),
            };
            if rule.ports.is_empty() {
                atoms.insert(Atom { block, transport, port: None });
            }
            for port in &rule.ports {
                if *port == 0 {
                    return Err("port 0 cannot be reached".to_owned());
                }
                atoms.insert(Atom { block, transport, port: Some(*port) });
            }
        }
        Ok(Self::normal(atoms))
    }

    fn normal(atoms: BTreeSet<Atom>) -> Self {
        let kept = atoms.iter().filter(|a| !atoms.iter().any(|b| b != *a && b.contains(**a))).copied().collect();
        Egress { atoms: kept }
    }

    pub(crate) fn meet(&self, other: &Self) -> Self {
        let pairs = self.atoms.iter().flat_map(|a| other.atoms.iter().filter_map(move |b| a.meet(*b)));
        Self::normal(pairs.collect())
    }

    /// Whether everything that `self` allows, `other` allows too.
    pub(crate) fn within(&self, other: &Self) -> bool {
        self.meet(other) == *self
    }

    pub(crate) fn rules(&self) -> Vec<EgressRule> {
        let mut grouped: BTreeMap<(Block, Option<Transport>, bool), Vec<u16>> = BTreeMap::new();
        for atom in &self.atoms {
            let ports = grouped.entry((atom.block, atom.transport, atom.port.is_none())).or_default();
            ports.extend(atom.port);
        }
        let name = |transport| match transport {
            Some(Transport::Tcp) => "tcp",
            Some(Transport::Udp) => "udp",
            None => "any",
        };
        grouped
            .into_iter()
            .map(|((block, transport, _), ports)| EgressRule {
                cidr: block.to_string(),
                ports,
                protocol: name(transport).to_owned(),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn egress(rules: &[(&str, &[u16], &str)]) -> Egress {
        let rules: Vec<EgressRule> = rules
            .iter()
            .map(|(cidr, ports, protocol)| EgressRule {
                cidr: (*cidr).to_owned(),
                ports: ports.to_vec(),
                protocol: (*protocol).to_owned(),
            })
            .collect();
        Egress::parse(&rules).unwrap()
    }

    #[test]
    fn nested_blocks_meet_in_the_smaller_one() {
        let wide = egress(&[("10.0.0.0/8", &[443], "any")]);
        let narrow = egress(&[("10.1.0.0/16", &[], "tcp"), ("192.168.0.0/16", &[], "any")]);
        assert_eq!(wide.meet(&narrow), egress(&[("10.1.0.0/16", &[443], "tcp")]));
        assert!(wide.meet(&narrow).within(&wide));
        assert!(!wide.within(&narrow));
    }

    #[test]
    fn disjoint_blocks_leave_nothing() {
        let both = egress(&[("10.0.0.0/8", &[], "any")]).meet(&egress(&[("::/0", &[], "any")]));
        assert_eq!(both.rules(), vec![]);
    }

    #[test]
    fn contained_rules_vanish_and_host_bits_are_cleared() {
        let e = egress(&[("10.9.8.7/8", &[], "any"), ("10.1.0.0/16", &[80], "tcp")]);
        assert_eq!(e.rules(), vec![EgressRule { cidr: "10.0.0.0/8".into(), ports: vec![], protocol: "any".into() }]);
    }

    #[test]
    fn the_whole_address_space_is_a_block() {
        assert!(egress(&[("1.2.3.4", &[53], "udp")]).within(&egress(&[("0.0.0.0/0", &[], "any")])));
    }

    #[test]
    fn nonsense_is_refused() {
        for (cidr, protocol) in [("10.0.0.0/33", "tcp"), ("ten", "tcp"), ("10.0.0.0/", "tcp"), ("10.0.0.0/8", "sctp")] {
            let rule = EgressRule { cidr: cidr.into(), ports: vec![], protocol: protocol.into() };
            assert!(Egress::parse(&[rule]).is_err(), "{cidr} {protocol}");
        }
    }
}
