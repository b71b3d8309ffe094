//! Egress rules as a lattice: a set of (block, port, protocol) atoms, met by pairwise intersection.
//!
//! Address blocks are nested or disjoint, never half overlapping, so the intersection of two atoms is an atom or
//! nothing, and dropping atoms that another one contains gives one normal form.
//!
//! Rules come from policies, and a small answer can spell out a product of very many: what one policy may say, and what
//! several may make together, is bounded before it is worked out.

use crate::container::EgressRule;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Blocks, each with each of its ports, that one policy may name.
const ATOMS: usize = 1 << 10;
/// Pairs that may have to be looked at for all policies together.
const PAIRS: usize = 1 << 17;

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

    fn prefix(self) -> u8 {
        match self {
            Block::V4 { prefix, .. } | Block::V6 { prefix, .. } => prefix,
        }
    }

    /// The block with this many bits fixed that contains this one.
    fn widened(self, prefix: u8) -> Self {
        match self {
            Block::V4 { base, .. } => Block::V4 { base: base & mask32(prefix), prefix },
            Block::V6 { base, .. } => Block::V6 { base: base & mask128(prefix), prefix },
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
    /// Whether another of these contains it; `prefixes` are those that they have.
    fn is_contained(self, atoms: &BTreeSet<Atom>, prefixes: &BTreeSet<u8>) -> bool {
        let transports = [Some(self.transport), self.transport.map(|_| None)];
        let ports = [Some(self.port), self.port.map(|_| None)];
        prefixes.range(..=self.block.prefix()).any(|prefix| {
            let block = self.block.widened(*prefix);
            transports.into_iter().flatten().any(|transport| {
                let wider = |port| Atom { block, transport, port };
                ports.into_iter().flatten().map(wider).any(|wider| wider != self && atoms.contains(&wider))
            })
        })
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
        let prefixes = atoms.iter().map(|atom| atom.block.prefix()).collect();
        let kept = atoms.iter().filter(|atom| !atom.is_contained(&atoms, &prefixes)).copied().collect();
        Egress { atoms: kept }
    }

    /// Rules as a policy says them.
    ///
    /// # Errors
    /// What cannot be read, and what is more than one policy may say.
    pub(crate) fn of_policy(rules: &[EgressRule]) -> Result<Self, String> {
        let named = rules.iter().map(|rule| rule.ports.len().max(1)).fold(0, usize::saturating_add);
        if named > ATOMS {
            return Err(format!("{named} address blocks with their ports; {ATOMS} at most"));
        }
        Self::parse(rules)
    }

    /// Whether the meet of all these can be worked out in good time, in whichever order.
    pub(crate) fn can_meet<'a>(rules: impl Iterator<Item = &'a Self>) -> bool {
        let mut distinct: Vec<&Self> = Vec::new();
        for one in rules {
            if !distinct.contains(&one) {
                distinct.push(one);
            }
        }
        distinct.iter().map(|one| one.atoms.len().max(1)).fold(1, usize::saturating_mul) <= PAIRS || distinct.len() < 2
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

    /// By definition: no atom that another one contains.
    fn naive(atoms: &BTreeSet<Atom>) -> BTreeSet<Atom> {
        let contains = |a: &Atom, b: &Atom| {
            a.block.contains(b.block)
                && (a.transport.is_none() || a.transport == b.transport)
                && (a.port.is_none() || a.port == b.port)
        };
        atoms.iter().filter(|a| !atoms.iter().any(|b| b != *a && contains(b, a))).copied().collect()
    }

    #[test]
    fn the_normal_form_is_what_its_definition_says() {
        let blocks = ["0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "10.1.2.3", "::/0", "2001:db8::/32", "2001:db8::1"];
        let mut all = Vec::new();
        for block in blocks.map(|block| Block::parse(block).unwrap()) {
            for transport in [None, Some(Transport::Tcp), Some(Transport::Udp)] {
                all.extend([None, Some(80), Some(443)].map(|port| Atom { block, transport, port }));
            }
        }
        let mut state = 0x2545_f491_u64;
        for _ in 0..500 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let atoms: BTreeSet<Atom> = all
                .iter()
                .enumerate()
                .filter(|(at, _)| state.rotate_right(8) >> at & 1 == 1)
                .map(|(_, a)| *a)
                .collect();
            assert_eq!(Egress::normal(atoms.clone()).atoms, naive(&atoms));
        }
    }

    #[test]
    fn what_multiplies_is_bounded() {
        let ports = |count: u16| (1..=count).collect::<Vec<u16>>();
        let rule = |ports| EgressRule { cidr: "10.0.0.0/8".into(), ports, protocol: "tcp".into() };
        assert!(Egress::of_policy(&[rule(ports(1024))]).is_ok());
        assert!(Egress::of_policy(&[rule(ports(1000)), rule(ports(25))]).is_err());
        let (many, others) = (Egress::parse(&[rule(ports(512))]).unwrap(), Egress::parse(&[rule(ports(513))]).unwrap());
        assert!(Egress::can_meet([&many].into_iter()));
        // The same twice is the same.
        assert!(Egress::can_meet([&many, &many].into_iter()));
        assert!(!Egress::can_meet([&many, &others].into_iter()));
    }
}
