//! The network words. Ports, name servers and host names are read by `rlrun-net`.

use super::{Invalid, Network};
pub use rlrun_net::files::{AddHost, HostAddress};
use rlrun_net::files::{Dns, parse_add_host, parse_dns, parse_option, parse_search};
use rlrun_net::ports::PortRequest;
use rlrun_spec::container::NetworkMode;
use rlrun_spec::{Failure, Stage};

/// The words as written.
#[derive(Clone, Copy, Debug)]
pub struct Words<'a> {
    /// `--network`.
    pub network: &'a str,
    /// `-p`.
    pub publish: &'a [String],
    /// `--dns`.
    pub dns: &'a [String],
    /// `--dns-search`.
    pub search: &'a [String],
    /// `--dns-option`.
    pub options: &'a [String],
    /// `--add-host`.
    pub hosts: &'a [String],
}

/// Reads all of them.
///
/// # Errors
/// With the first word that is not what it should be.
pub fn parse(words: Words<'_>) -> Result<Network, Failure> {
    let mode = mode(words.network)?;
    let failure = |e: rlrun_net::NetError| e.into_failure(Stage::Cli);
    let mut ports = Vec::new();
    for word in words.publish {
        ports.extend(rlrun_net::ports::parse(word).map_err(failure)?);
    }
    let dns = Dns {
        servers: words.dns.iter().map(|w| parse_dns(w)).collect::<Result<_, _>>().map_err(failure)?,
        search: words.search.iter().map(|w| parse_search(w)).collect::<Result<_, _>>().map_err(failure)?,
        options: words.options.iter().map(|w| parse_option(w)).collect::<Result<_, _>>().map_err(failure)?,
    };
    let hosts = words.hosts.iter().map(|w| parse_add_host(w)).collect::<Result<_, _>>().map_err(failure)?;
    Ok(Network { mode, ports, dns, hosts, exposed: Vec::new(), publish_all: false })
}

/// `--expose PORT[-PORT][/udp]`.
///
/// # Errors
/// When it is no port.
pub fn exposed(word: &str) -> Result<Vec<PortRequest>, Failure> {
    if word.contains(':') {
        let invalid = Invalid::new("--expose", word, "names a port of the host");
        return Err(invalid.hint("-p publishes a port on one of the host's").into());
    }
    rlrun_net::ports::parse(word).map_err(|e| e.into_failure(Stage::Cli))
}

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
        // Seen with Debian's of 2023: it runs on when its namespace and whoever started it are gone.
        "pasta" => Err(invalid("pasta has nothing that ends it when rlrun is killed, and would outlive its container")
            .hint("use --network slirp4netns")),
        "ns" | "container" => Err(invalid("is not supported yet").hint("use --network slirp4netns")),
        _ => Err(invalid("no such network").hint("use slirp4netns, none or host")),
    }
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
}
