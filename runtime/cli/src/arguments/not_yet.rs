//! Options and verbs of podman that rlrun knows and does not have yet: an error that says so is worth more than
//! `unexpected argument`.

use rlrun_spec::{Failure, Kind, Stage};

/// Options of `podman run`, sorted.
const OPTIONS: &[&str] = &[
    "--attach",
    "--blkio-weight-device",
    "--cert-dir",
    "--cgroup-conf",
    "--cgroup-parent",
    "--chrootdirs",
    "--conmon-pidfile",
    "--cpu-rt-period",
    "--cpu-rt-runtime",
    "--cpuset-mems",
    "--decryption-key",
    "--detach-keys",
    "--device-cgroup-rule",
    "--device-read-iops",
    "--device-write-iops",
    "--disable-content-trust",
    "--gidmap",
    "--hosts-file",
    "--hostuser",
    "--init-ctr",
    "--init-path",
    "--ip",
    "--ip6",
    "--mac-address",
    "--passwd-entry",
    "--personality",
    "--pod",
    "--pod-id-file",
    "--preserve-fd",
    "--preserve-fds",
    "--rdt-class",
    "--requires",
    "--retry",
    "--retry-delay",
    "--rmi",
    "--rootfs",
    "--subgidname",
    "--subuidname",
    "--uidmap",
];

/// Short forms of some of them.
const SHORT: &[(&str, &str)] = &[("-a", "--attach")];

/// Verbs of podman, sorted.
const VERBS: &[&str] = &[
    "artifact",
    "auto-update",
    "build",
    "compose",
    "farm",
    "init",
    "kube",
    "machine",
    "manifest",
    "mount",
    "network",
    "play",
    "pod",
    "unmount",
];

/// The option as podman knows it, when `word` is one: `-d`, `--pod`, `--pod=x`.
pub(crate) fn option(word: &str) -> Option<&'static str> {
    let name = word.split('=').next().unwrap_or(word);
    let long = SHORT.iter().find_map(|(short, long)| (*short == name).then_some(*long)).unwrap_or(name);
    OPTIONS.binary_search(&long).ok().and_then(|i| OPTIONS.get(i).copied())
}

/// Whether podman has this verb.
pub(crate) fn is_verb(word: &str) -> bool {
    VERBS.binary_search(&word).is_ok()
}

/// Says that something is known and missing.
pub(crate) fn failure(what: &str) -> Failure {
    Failure::new(Stage::Cli, Kind::Usage, "parse-arguments", "understand the command line", what)
        .why("rlrun does not have this yet")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_are_sorted() {
        assert!(OPTIONS.is_sorted() && VERBS.is_sorted());
    }

    #[test]
    fn an_option_is_found_in_every_spelling() {
        assert_eq!(option("--pod=x"), Some("--pod"));
        assert_eq!(option("-a"), Some("--attach"));
        assert_eq!(option("--nonsense"), None);
    }
}
