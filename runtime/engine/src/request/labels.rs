//! `--label`, `--annotation` and `--sysctl`: names with values.

use super::Invalid;

/// `NAME=value`; a label without `=` has an empty value.
///
/// # Errors
/// When there is no name.
pub fn label(option: &'static str, word: &str) -> Result<(String, String), Invalid> {
    let (name, value) = word.split_once('=').unwrap_or((word, ""));
    if name.is_empty() {
        return Err(Invalid::new(option, word, "has no name").hint("write NAME=value"));
    }
    Ok((name.to_owned(), value.to_owned()))
}

/// `--annotation NAME=value`.
///
/// # Errors
/// When there is no name or no `=`.
pub fn annotation(word: &str) -> Result<(String, String), Invalid> {
    if !word.contains('=') {
        return Err(Invalid::new("--annotation", word, "has no value").hint("write NAME=value"));
    }
    label("--annotation", word)
}

/// `--sysctl name=value`: only names that belong to a namespace of the container (`namespaces(7)`); any other one
/// would be the host's.
///
/// # Errors
/// When it is not `name=value` or not such a name.
pub fn sysctl(word: &str) -> Result<(String, String), Invalid> {
    let Some((name, value)) = word.split_once('=') else {
        return Err(Invalid::new("--sysctl", word, "has no value").hint("write name=value"));
    };
    // `/` is the other spelling that sysctl(8) takes.
    let name = name.trim().replace('/', ".");
    let value = value.trim();
    let plain = name.split('.').all(|part| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b':'))
    });
    if !plain || value.contains(['\0', '\n']) {
        return Err(Invalid::new("--sysctl", word, "is not a sysctl"));
    }
    if !is_namespaced(&name) {
        return Err(Invalid::new("--sysctl", word, "this sysctl belongs to the whole host")
            .hint("net.*, kernel.msg*, kernel.sem, kernel.shm* and fs.mqueue.* can be set in a container"));
    }
    Ok((name, value.to_owned()))
}

fn is_namespaced(name: &str) -> bool {
    const IPC: [&str; 7] = [
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
    ];
    IPC.contains(&name)
        || name == "kernel.shm_rmid_forced"
        || name.starts_with("net.")
        || name.starts_with("fs.mqueue.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_annotations() {
        assert_eq!(label("--label", "a=b=c").unwrap(), ("a".into(), "b=c".into()));
        assert_eq!(label("--label", "a").unwrap(), ("a".into(), String::new()));
        assert!(label("--label", "=x").is_err());
        assert!(annotation("a").is_err());
    }

    #[test]
    fn only_sysctls_of_a_namespace_are_taken() {
        assert_eq!(sysctl("net/ipv4/ip_forward = 1").unwrap(), ("net.ipv4.ip_forward".into(), "1".into()));
        assert_eq!(sysctl("kernel.sem=1 2 3 4").unwrap().1, "1 2 3 4");
        for bad in ["vm.swappiness=1", "kernel.core_pattern=|/x", "net.../x=1", "net..x=1", "net", "net.a=1\n2"] {
            assert!(sysctl(bad).is_err(), "{bad:?}");
        }
    }
}
