//! `--ipc`, `--uts`, `--cgroupns` and `--pid`: which namespaces are the host's.

use super::Invalid;
use serde::{Deserialize, Serialize};

/// Namespaces that are the host's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shared {
    /// `--ipc host`.
    pub ipc: bool,
    /// `--uts host`.
    pub uts: bool,
    /// `--cgroupns host`.
    pub cgroup: bool,
}

/// Whether a namespace is the host's, by the word of its option.
///
/// # Errors
/// When it is neither `private` nor `host`, or cannot be shared.
pub fn is_host(option: &'static str, word: &str) -> Result<bool, Invalid> {
    let invalid = |why: &str| Invalid::new(option, word, why);
    match word {
        "" | "private" | "shareable" | "none" if word != "none" || option == "--ipc" => Ok(false),
        "host" if option == "--pid" => {
            Err(invalid("a container without a pid namespace of its own could leave processes behind")
                .hint("rlrun top and rlrun exec look into a container from outside"))
        }
        "host" => Ok(true),
        _ if word.starts_with("container:") || word.starts_with("ns:") => {
            Err(invalid("another container's namespace cannot be joined").hint("use private or host"))
        }
        _ => Err(invalid("no such choice").hint("use private or host")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_are_private_or_the_hosts() {
        assert_eq!(is_host("--ipc", "host"), Ok(true));
        for word in ["private", "shareable", "none"] {
            assert_eq!(is_host("--ipc", word), Ok(false), "{word}");
        }
        assert!(is_host("--pid", "host").is_err() && is_host("--uts", "none").is_err());
        assert!(is_host("--ipc", "container:x").is_err() && is_host("--cgroupns", "x").is_err());
        assert_eq!(is_host("--pid", "private"), Ok(false));
    }
}
