//! Address blocks.

use std::fmt;
use std::net::IpAddr;

/// An address block, host bits cleared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cidr {
    address: IpAddr,
    prefix: u8,
}

impl Cidr {
    /// A block of one address.
    pub(crate) const fn host(address: IpAddr) -> Self {
        let prefix = match address {
            IpAddr::V4(_) => 32,
            IpAddr::V6(_) => 128,
        };
        Cidr { address, prefix }
    }

    /// A block whose host bits are clear already.
    pub(crate) const fn block(address: IpAddr, prefix: u8) -> Self {
        Cidr { address, prefix }
    }

    /// `10.0.0.0/8`, `fd00::/8`, or one address. Host bits are cleared, because no packet would match them.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = match text.split_once('/') {
            None => return text.parse().ok().map(Cidr::host),
            Some((address, prefix)) => (address.parse().ok()?, prefix),
        };
        // u8's parser would take "+8".
        let digits = !prefix.is_empty() && prefix.bytes().all(|b| b.is_ascii_digit());
        let prefix: u8 = digits.then(|| prefix.parse().ok()).flatten()?;
        let widest = Cidr::host(address).prefix;
        (prefix <= widest).then(|| Cidr { address: mask(address, prefix), prefix })
    }

    pub(crate) fn address(&self) -> IpAddr {
        self.address
    }

    /// The address, in network order.
    pub(crate) fn octets(&self) -> Vec<u8> {
        octets(self.address)
    }

    /// The bits that count, in network order.
    pub(crate) fn mask(&self) -> Vec<u8> {
        let ones = match self.address {
            IpAddr::V4(_) => IpAddr::V4(u32::MAX.into()),
            IpAddr::V6(_) => IpAddr::V6(u128::MAX.into()),
        };
        octets(mask(ones, self.prefix))
    }

    pub(crate) fn prefix(&self) -> u8 {
        self.prefix
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// `address` with all bits after the first `prefix` cleared.
fn mask(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let keep = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0);
            IpAddr::V4((u32::from(v4) & keep).into())
        }
        IpAddr::V6(v6) => {
            let keep = u128::MAX.checked_shl(128 - u32::from(prefix.min(128))).unwrap_or(0);
            IpAddr::V6((u128::from(v6) & keep).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_read_and_their_host_bits_cleared() {
        for (text, shown) in [
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("192.0.2.7", "192.0.2.7/32"),
            ("192.0.2.7/32", "192.0.2.7/32"),
            ("fd00:1::1/16", "fd00::/16"),
            ("::/0", "::/0"),
            ("::1", "::1/128"),
        ] {
            assert_eq!(Cidr::parse(text).unwrap().to_string(), shown);
        }
        for text in [
            "",
            "/",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0.0/+8",
            "10.0.0/8",
            "::/129",
            "a.b",
            "10.0.0.0/8/8",
            "10.0.0.0/300",
        ] {
            assert_eq!(Cidr::parse(text), None, "{text}");
        }
    }
}
