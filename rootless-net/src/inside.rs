//! The child side: what is done inside the new network namespace, by a process with every capability there and one
//! thread, before the payload. Everything is installed before slirp4netns has made its device, because nothing here
//! names a device but loopback: the two overlap, and no second step is needed when the helper is ready.

mod filter;
mod netlink;
mod routes;

use crate::error::NetError;
use rlrun_spec::container::{EgressRule, NetworkMode};
use rlrun_spec::ids::IdMapping;
use rlrun_spec::plan::Launch;
use std::io::Write;

/// What the namespace is to be like.
#[derive(Clone, Copy, Debug)]
pub struct Config<'a> {
    /// Which network.
    pub network: NetworkMode,
    /// IPv6 beyond loopback.
    pub ipv6: bool,
    /// What may be reached; None: everything but the blocks that are always refused.
    pub egress: Option<&'a [EgressRule]>,
    /// Ports are published, so answers to connections from outside must pass the egress rules.
    pub published: bool,
    /// Group ids of the user namespace.
    pub gids: &'a [IdMapping],
}

impl<'a> Config<'a> {
    /// What the plan says.
    #[must_use]
    pub fn of(launch: &'a Launch) -> Self {
        Config {
            network: launch.network,
            ipv6: launch.facts.slirp.as_ref().is_some_and(|slirp| slirp.ipv6),
            egress: launch.egress.as_deref(),
            published: !launch.ports.is_empty(),
            gids: &launch.facts.id_maps.gids,
        }
    }
}

/// Refuses rules that cannot be enforced; for the engine, before anything starts.
///
/// # Errors
/// [`NetError::Unsupported`] naming the rule.
pub fn check(egress: &[EgressRule]) -> Result<(), NetError> {
    filter::compile(egress).map(drop)
}

/// Brings loopback up, makes cloud metadata addresses unreachable, installs the egress rules and sets the sysctls that
/// every private network gets. The caller is in the new namespace and sees a writable `/proc/sys`. Sysctls that the user
/// asked for come after this. Answers with what could not be made as comfortable as meant, each worth one warning.
///
/// # Errors
/// When loopback, a refused address or an egress rule cannot be set up.
pub fn configure(config: &Config<'_>) -> Result<Vec<NetError>, NetError> {
    match config.network {
        NetworkMode::Host => return Ok(Vec::new()),
        NetworkMode::None => routes::configure(&[])?,
        NetworkMode::Slirp4netns => {
            routes::configure(routes::refused(config.ipv6))?;
            if let Some(egress) = config.egress {
                filter::install(&filter::compile(egress)?, config)?;
            }
        }
    }
    Ok(set_sysctls(config.gids))
}

/// ping without CAP_NET_RAW (icmp(7)), and low ports for every user inside (ip(7)): the namespace is the container's own.
fn set_sysctls(gids: &[IdMapping]) -> Vec<NetError> {
    let mut failed = Vec::new();
    if let Some((low, high)) = ping_groups(gids) {
        failed.extend(set_sysctl("/proc/sys/net/ipv4/ping_group_range", &format!("{low} {high}")).err());
    }
    failed.extend(set_sysctl("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0").err());
    failed
}

/// The kernel compares the host's ids, so the range goes from the group with the lowest to the one with the highest.
fn ping_groups(gids: &[IdMapping]) -> Option<(u32, u32)> {
    let lines = || gids.iter().filter(|m| m.count > 0);
    let low = lines().min_by_key(|m| m.host)?;
    let high = lines().max_by_key(|m| m.host)?;
    Some((low.container, high.container.checked_add(high.count - 1)?))
}

fn set_sysctl(path: &'static str, value: &str) -> Result<(), NetError> {
    std::fs::OpenOptions::new().write(true).open(path).and_then(|mut file| file.write_all(value.as_bytes())).map_err(
        |error| NetError::system("set-sysctl", "set a kernel parameter of the container's network", path, &error),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ping_groups_span_the_host_ids_not_the_container_ids() {
        let line = |container, host, count| IdMapping { container, host, count };
        assert_eq!(ping_groups(&[]), None);
        assert_eq!(ping_groups(&[line(0, 1500, 1)]), Some((0, 0)));
        assert_eq!(ping_groups(&[line(0, 1500, 1), line(1, 100_000, 65_536)]), Some((0, 65_536)));
        // The caller's own id above its subordinate ids.
        assert_eq!(ping_groups(&[line(0, 900_000, 1), line(1, 100_000, 65_536)]), Some((1, 0)));
        assert_eq!(ping_groups(&[line(0, 1, 0)]), None);
    }
}
