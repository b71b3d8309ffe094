//! `--network`. Ports, name servers and host names are read by `rlrun-net`.

use super::Invalid;
use rlrun_spec::container::NetworkMode;

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
