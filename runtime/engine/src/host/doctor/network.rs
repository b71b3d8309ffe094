//! Checks: what a container's network needs.

use super::{Check, Device, Survey};
use rlrun_spec::hint::{self, Advice, Package};

const NO_NETWORK: &str = "containers then have only --network none or --network host";

pub(super) fn checks(survey: &Survey) -> Vec<Check> {
    vec![slirp4netns(survey), dev_net_tun(survey), ports(survey), ping(survey)]
}

fn slirp4netns(survey: &Survey) -> Check {
    match &survey.host.slirp4netns {
        Some(path) => Check::ok("slirp4netns", path.display().to_string()),
        None => Check::warn("slirp4netns", "not installed", NO_NETWORK)
            .fix(Advice::Install(Package::Slirp4netns, survey.around.distro)),
    }
}

fn dev_net_tun(survey: &Survey) -> Check {
    match &survey.dev_net_tun {
        Device::Opens => Check::ok("/dev/net/tun", "opens"),
        Device::Missing => Check::warn("/dev/net/tun", "missing", NO_NETWORK).fix(hint::NO_TUN),
        Device::Refuses(why) => Check::warn("/dev/net/tun", why.clone(), NO_NETWORK).fix(hint::DEV_NET_TUN),
    }
}

/// Both answers are ordinary: what is told is where `-p` begins.
fn ports(survey: &Survey) -> Check {
    match survey.host.unprivileged_port_start {
        0 | 1 => Check::ok("ports", "all can be published"),
        first => Check::ok("ports", format!("from {first} on can be published")).fix(hint::LOW_PORTS),
    }
}

fn ping(survey: &Survey) -> Check {
    match survey.ping_group_range {
        Some((first, last)) if (first..=last).contains(&survey.host.gid) => Check::ok("ping", "allowed"),
        Some((first, last)) => {
            let finding =
                format!("net.ipv4.ping_group_range is {first} {last}, without your group {}", survey.host.gid);
            Check::warn("ping", finding, "containers cannot ping hosts outside").fix(hint::PING_GROUP_RANGE)
        }
        None => Check::ok("ping", "this kernel does not say"),
    }
}
