//! Loopback and unreachable routes by rtnetlink(7).

use super::netlink::{ACK, Attributes, Batch, CREATE, EXCLUSIVE, REQUEST};
use crate::error::NetError;
use nix::sys::socket::SockProtocol;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const RTM_NEWLINK: u16 = 16;
const RTM_NEWROUTE: u16 = 24;
const IFF_UP: u32 = 1;
/// Loopback is the first device of every network namespace.
const LOOPBACK: u32 = 1;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_STATIC: u8 = 4;
const RT_SCOPE_UNIVERSE: u8 = 0;
const RTN_UNREACHABLE: u8 = 7;
const RTA_DST: u16 = 1;

/// A network: an address and how many bits of it count.
pub(super) type Network = (IpAddr, u8);

/// Where clouds tell a machine its credentials. Nearly all do it somewhere in the link-local network, which nothing else
/// behind a NAT can use: AWS (.169.254, roles of tasks at .170.2, of pods at .170.23), GCP, Azure, Tencent (.0.23),
/// Scaleway (.42.42). Outside of it are Azure's host, Alibaba, old Oracle. The IPv6 networks, of AWS and of GCP, come last,
/// for [`refused`].
const METADATA: [Network; 6] = [
    (IpAddr::V4(Ipv4Addr::new(169, 254, 0, 0)), 16),
    (IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)), 32),
    (IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)), 32),
    (IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)), 32),
    (IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0)), 32),
    (IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)), 128),
];

/// How many of them are IPv4.
const OF_IPV4: usize = 4;

/// The networks that are always refused. Without `ipv6` there is no route to any IPv6 address, and a kernel without
/// IPv6 would refuse the message.
pub(super) fn refused(ipv6: bool) -> &'static [Network] {
    if ipv6 { &METADATA } else { METADATA.split_at(OF_IPV4).0 }
}

/// Brings loopback up and makes `refused` fail at once with EHOSTUNREACH.
pub(super) fn configure(refused: &[Network]) -> Result<(), NetError> {
    encode(refused).exchange(SockProtocol::NetlinkRoute).map_err(|errno| {
        NetError::system("configure-network", "bring up loopback and refuse metadata addresses", "rtnetlink", errno)
    })
}

fn encode(refused: &[Network]) -> Batch {
    let mut batch = Batch::default();
    up(&mut batch);
    for network in refused {
        unreachable(&mut batch, *network);
    }
    batch
}

fn up(batch: &mut Batch) {
    // struct ifinfomsg: family, padding, type, index, flags, mask of the flags to change.
    let mut header = vec![0; 4];
    for word in [LOOPBACK, IFF_UP, IFF_UP] {
        header.extend(word.to_ne_bytes());
    }
    batch.message(RTM_NEWLINK, REQUEST | ACK, &header, |_| {});
}

fn unreachable(batch: &mut Batch, (address, bits): Network) {
    let family = if address.is_ipv4() { nix::libc::AF_INET } else { nix::libc::AF_INET6 };
    let family = u8::try_from(family).unwrap_or_default();
    // struct rtmsg: family, bits of destination and source, type of service, table, protocol, scope, type, flags.
    let header = [family, bits, 0, 0, RT_TABLE_MAIN, RTPROT_STATIC, RT_SCOPE_UNIVERSE, RTN_UNREACHABLE, 0, 0, 0, 0];
    let destination = |m: &mut Attributes<'_>| match address {
        IpAddr::V4(v4) => m.put(RTA_DST, &v4.octets()),
        IpAddr::V6(v6) => m.put(RTA_DST, &v6.octets()),
    };
    batch.message(RTM_NEWROUTE, REQUEST | ACK | CREATE | EXCLUSIVE, &header, destination);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `ip link set lo up` and `ip route add unreachable 169.254.0.0/16 protocol static` send them.
    #[test]
    fn messages_are_those_of_iproute2() {
        let batch = encode(&refused(false)[..1]);
        #[rustfmt::skip]
        let expected = [
            32, 0, 0, 0,  16, 0, 0x05, 0,  1, 0, 0, 0,  0, 0, 0, 0,
            0, 0, 0, 0,  1, 0, 0, 0,  1, 0, 0, 0,  1, 0, 0, 0,
            36, 0, 0, 0,  24, 0, 0x05, 0x06,  2, 0, 0, 0,  0, 0, 0, 0,
            2, 16, 0, 0,  254, 4, 0, 7,  0, 0, 0, 0,
            8, 0, 1, 0,  169, 254, 0, 0,
        ];
        assert_eq!(batch.bytes(), expected);
    }

    #[test]
    fn ipv6_is_refused_only_where_there_is_ipv6() {
        assert!(refused(false).iter().all(|(address, _)| address.is_ipv4()));
        assert_eq!(refused(true).iter().filter(|(address, _)| address.is_ipv6()).count(), 2);
        assert_eq!(refused(true).len(), refused(false).len() + 2);
        assert_eq!(encode(&refused(true)[OF_IPV4..]).bytes().len(), 32 + 2 * (16 + 12 + 20));
    }
}
