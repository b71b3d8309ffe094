//! `--network`, `--dns` and `--add-host`.

use super::Invalid;
use rlrun_spec::container::NetworkMode;
use std::net::IpAddr;

/// `--network`.
///
/// # Errors
/// For modes that do not exist yet, and for options behind a colon.
pub fn mode(word: &str) -> Result<NetworkMode, Invalid> {
    let invalid = |why: &str| Invalid::new("--network", word, why);
    let (name, options) = word.split_once(':').unwrap_or((word, ""));
    if !options.is_empty() {
        return Err(invalid("options of a network are not supported yet").hint(format!("write --network {name}")));
    }
    match name {
        "slirp4netns" => Ok(NetworkMode::Slirp4netns),
        "none" => Ok(NetworkMode::None),
        "host" => Ok(NetworkMode::Host),
        "private" => Err(invalid("leaves the choice open").hint("use --network slirp4netns")),
        "bridge" => Err(invalid("networks between containers are not supported yet")
            .hint("use --network slirp4netns, which reaches outside and takes -p")),
        "pasta" | "ns" | "container" => Err(invalid("is not supported yet").hint("use --network slirp4netns")),
        _ => Err(invalid("no such network").hint("use slirp4netns, none or host")),
    }
}

/// `--dns`.
///
/// # Errors
/// When it is not an address.
pub fn dns(word: &str) -> Result<IpAddr, Invalid> {
    word.parse().map_err(|_| Invalid::new("--dns", word, "is not an IP address"))
}

/// `--add-host NAME:ADDRESS`; several names divided by `;` share an address, as in podman.
///
/// # Errors
/// When the address is none, or a name is not one.
pub fn host(word: &str) -> Result<Vec<(String, IpAddr)>, Invalid> {
    let invalid = |why: &str| Invalid::new("--add-host", word, why);
    let Some((names, address)) = word.split_once(':') else {
        return Err(invalid("has no address").hint("write NAME:ADDRESS"));
    };
    if address == "host-gateway" {
        return Err(invalid("the host's loopback cannot be reached from a container"));
    }
    // An IPv6 address may stand in brackets, as in a URL.
    let bare = address.strip_prefix('[').and_then(|a| a.strip_suffix(']')).unwrap_or(address);
    let address = bare.parse::<IpAddr>().map_err(|_| invalid("the address is not an IP address"))?;
    let plain = |n: &str| n.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
    names
        .split(';')
        .map(|name| match !name.is_empty() && plain(name) {
            true => Ok((name.to_owned(), address)),
            false => Err(invalid("the name is not a host name")),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_that_do_not_exist_yet_say_what_to_use() {
        assert_eq!(mode("none").unwrap(), NetworkMode::None);
        for word in ["bridge", "private", "pasta", "container:x", "nonsense", "slirp4netns:mtu=1500"] {
            assert!(mode(word).unwrap_err().hint.is_some(), "{word}");
        }
    }

    #[test]
    fn hosts_have_names_and_addresses() {
        let v4 = "10.0.0.1".parse().unwrap();
        assert_eq!(host("a;b.c:10.0.0.1").unwrap(), [("a".to_owned(), v4), ("b.c".to_owned(), v4)]);
        assert_eq!(host("a:[::1]").unwrap()[0].1, "::1".parse::<IpAddr>().unwrap());
        assert_eq!(host("a:::1").unwrap()[0].1, "::1".parse::<IpAddr>().unwrap());
        for bad in ["a", ":1.2.3.4", "a b:1.2.3.4", "a\n:1.2.3.4", "a:host-gateway", "a:x", ";:1.1.1.1"] {
            assert!(host(bad).is_err(), "{bad:?}");
        }
        assert!(dns("8.8.8.8; x").is_err());
    }
}
