//! Every control with what was asked for and what this host gives, decided before any policy is asked.

use super::limits;
use crate::host::cause::Surroundings;
use crate::host::idmap::IdPlan;
use crate::request::{RunRequest, StorageDriver};
use crate::storage::{Storage, fuse_advice};
use rlrun_spec::container::{NetworkMode, PortMapping, Protocol, UserNamespace};
use rlrun_spec::host::HostFacts;
use rlrun_spec::{Control, Enforced, Failure, Kind, Level, Stage, hint};
use std::path::Path;

/// All controls, and what the user is told about those that do not hold as asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Controls {
    /// Sorted by name.
    pub all: Vec<Control>,
    /// One line each, perhaps with a hint after a line feed.
    pub warnings: Vec<String>,
}

/// What the container will be, as far as a control says so.
#[derive(Clone, Copy, Debug)]
pub struct Effective<'a> {
    /// The command line.
    pub request: &'a RunRequest,
    /// The host.
    pub host: &'a HostFacts,
    /// Id maps.
    pub ids: &'a IdPlan,
    /// User namespace with its ids.
    pub userns: &'a UserNamespace,
    /// Storage driver.
    pub storage: &'a Storage,
    /// Name of the seccomp profile.
    pub seccomp_profile: &'a str,
    /// The bounding set, `CAP_CHOWN,...`.
    pub capabilities: &'a str,
    /// The same as a mask.
    pub bounding: u64,
    /// How many paths are masked.
    pub masked: usize,
    /// What is published.
    pub ports: &'a [PortMapping],
}

/// Decides all controls.
///
/// # Errors
/// When a required one cannot hold on this host.
pub fn decide(effective: Effective<'_>) -> Result<Controls, Failure> {
    let mut controls = Controls::default();
    user_namespace(&mut controls, effective);
    root_file_system(&mut controls, effective);
    confinement(&mut controls, effective);
    network(&mut controls, effective)?;
    limits::decide(
        &mut controls,
        &effective.request.limits,
        effective.host,
        (effective.bounding, effective.request.launching.remove),
    )?;
    labels(&mut controls, effective.request);
    controls.all.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(controls)
}

pub(super) fn held(name: &str, requested: impl Into<String>, mechanism: impl Into<String>) -> Control {
    Control {
        name: name.to_owned(),
        requested: requested.into(),
        mechanism: mechanism.into(),
        enforced: Enforced::Yes,
        level: Level::Require,
        why: String::new(),
    }
}

pub(super) fn weak(mut control: Control, enforced: Enforced, why: impl Into<String>) -> Control {
    control.enforced = enforced;
    control.level = Level::Prefer;
    control.why = why.into();
    control
}

fn user_namespace(controls: &mut Controls, e: Effective<'_>) {
    let requested = match e.userns {
        UserNamespace::Default => "default".to_owned(),
        UserNamespace::KeepId { uid, gid } => format!("keep-id:uid={uid},gid={gid}"),
        UserNamespace::Mapped { uids, gids } => {
            let words = |lines: &[rlrun_spec::IdMapping]| {
                lines.iter().map(|l| format!("{}:{}:{}", l.container, l.host, l.count)).collect::<Vec<_>>().join(",")
            };
            format!("uids={};gids={}", words(uids), words(gids))
        }
    };
    let control = held("user-namespace", requested, "newuidmap, newgidmap");
    let Some(cause) = &e.ids.single else { return controls.all.push(control) };
    controls.warnings.push(cause.warning(e.host, &Surroundings::read()));
    let control = weak(control, Enforced::Partly, cause.to_string());
    controls.all.push(Control { mechanism: "the caller's own id only".to_owned(), ..control });
}

fn root_file_system(controls: &mut Controls, e: Effective<'_>) {
    let driver = e.storage.driver;
    let requested = e.request.launching.storage_driver.map_or_else(|| "any".to_owned(), |d| d.to_string());
    controls.all.push(held("storage-driver", requested, driver.to_string()));
    if let Some(why) = e.storage.fell_back {
        let hint = fuse_advice(e.host);
        controls
            .warnings
            .push(format!("each start copies the whole image: no overlay works here, and {why}\nhint: {hint}"));
    }
    // The other drivers show owners as the map makes them (`storage::shown`).
    let shifted = *e.userns != UserNamespace::Default && e.request.rootfs.is_none();
    if shifted && driver != StorageDriver::FuseOverlayfs {
        let why = "with id maps other than the usual one only fuse-overlayfs shows files of the image under the owners that the image gives them";
        let control = held("image-owners", "as in the image", driver.to_string());
        controls.all.push(weak(control, Enforced::Partly, why));
        controls.warnings.push(format!("{why}\nhint: {}", fuse_advice(e.host)));
    }
}

fn confinement(controls: &mut Controls, e: Effective<'_>) {
    let seccomp = if e.seccomp_profile == "unconfined" { "none" } else { "seccomp filter" };
    controls.all.push(held("seccomp", e.seccomp_profile, seccomp));
    let (wanted, mechanism) = match e.request.security.no_new_privileges {
        true => ("on", "prctl"),
        false => ("off", "none"),
    };
    controls.all.push(held("no-new-privileges", wanted, mechanism));
    let capabilities = if e.capabilities.is_empty() { "none" } else { e.capabilities };
    controls.all.push(held("capabilities", capabilities, "capability sets"));
    controls.all.push(held("masked-paths", e.masked.to_string(), "mounts"));
}

const TUN: &str = "/dev/net/tun";

fn network(controls: &mut Controls, e: Effective<'_>) -> Result<(), Failure> {
    let mode = e.request.network.mode;
    let (name, mechanism) = match mode {
        NetworkMode::Slirp4netns => ("slirp4netns", "slirp4netns in a network namespace"),
        NetworkMode::None => ("none", "network namespace"),
        NetworkMode::Host => ("host", "none"),
    };
    if mode == NetworkMode::Slirp4netns {
        let unusable = |what: &str, why: &str, advice: String| {
            Failure::new(Stage::Cli, Kind::Host, "slirp-start", "set up the network", what).why(why).hint(advice)
        };
        if e.host.slirp4netns.is_none() {
            let install = hint::Advice::Install(hint::Package::Slirp4netns, Surroundings::read().distro);
            return Err(unusable(
                "slirp4netns",
                "is not installed",
                format!("{install}; or use --network none or host"),
            ));
        }
        if !e.host.dev_net_tun {
            let advice = if Path::new(TUN).exists() { hint::DEV_NET_TUN } else { hint::NO_TUN };
            return Err(unusable(TUN, "cannot be opened", advice.to_owned()));
        }
    }
    controls.all.push(held("network", name, mechanism));
    if mode == NetworkMode::Slirp4netns {
        out_of_reach(controls, e.capabilities);
        udp_on_loopback(controls, e.ports);
    }
    Ok(())
}

/// On every address means on loopback too, where slirp4netns loses what the container answers ([`rlrun_net::ports`]).
fn udp_on_loopback(controls: &mut Controls, ports: &[PortMapping]) {
    let everywhere = |port: &&PortMapping| port.protocol == Protocol::Udp && port.host_ip.is_unspecified();
    let Some(port) = ports.iter().find(everywhere) else { return };
    let requested = format!("{}/udp on every address", port.host_port);
    let why = "slirp4netns loses the answers to clients on the host's loopback; others get theirs";
    controls.warnings.push(format!(
        "-p {requested}: {why}\nhint: let clients on this host use another of its addresses: ip -brief -4 address"
    ));
    controls.all.push(weak(held("publish-udp", requested, "slirp4netns"), Enforced::Partly, why));
}

/// The rules are in the container's own network namespace: who may change them there can take them away
/// (`CAP_NET_ADMIN`), and packets of raw sockets do not pass them all (`CAP_NET_RAW`).
fn out_of_reach(controls: &mut Controls, capabilities: &str) {
    let rules = held(
        "network-rules",
        "metadata addresses and what policies forbid are out of reach",
        "unreachable routes, nftables",
    );
    let breaks = |c: &&str| ["CAP_NET_ADMIN", "CAP_NET_RAW"].contains(c);
    controls.all.push(match capabilities.split(',').find(breaks) {
        None => rules,
        Some(capability) => {
            let why = format!("the container has {capability} and can get around them");
            controls.warnings.push(format!("network rules: {why}\nhint: --cap-drop {capability}"));
            weak(rules, Enforced::Partly, why)
        }
    });
}

fn labels(controls: &mut Controls, request: &RunRequest) {
    let relabel = request.mounts.iter().any(|m| m.flags().relabel);
    // Without SELinux there is nothing to label, and podman is silent too.
    if relabel && Path::new("/sys/fs/selinux/enforce").exists() {
        let why = "this version does not change SELinux labels";
        controls.all.push(weak(held("selinux-relabel", "z", "none"), Enforced::No, why));
        controls.warnings.push(format!("option z of a volume: {why}"));
    }
}
