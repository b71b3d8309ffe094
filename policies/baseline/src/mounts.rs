//! Host paths that a container must not see, or not write.

use crate::Settings;
use rlrun_policy::pattern::{Relation, relation};
use rlrun_policy::{Caller, Container, Diagnostic, Mount, Severity, finding};
use std::borrow::Cow;

/// Sockets through which an engine or the session takes orders: mounting one is mounting everything its owner has.
const SOCKETS: [&str; 13] = [
    "/run/docker.sock",
    "/run/user/*/docker.sock",
    "/run/podman/podman.sock",
    "/run/user/*/podman/podman.sock",
    "/run/containerd/containerd.sock",
    "/run/user/*/containerd/containerd.sock",
    "/run/crio/crio.sock",
    "/run/cri-dockerd.sock",
    "/run/buildkit/buildkitd.sock",
    "/run/user/*/buildkit/buildkitd.sock",
    "/run/user/*/rlrun",
    "/run/user/*/bus",
    "/run/dbus/system_bus_socket",
];

/// The same wherever they are.
const SOCKET_NAMES: [&str; 8] = [
    "docker.sock",
    "podman.sock",
    "containerd.sock",
    "crio.sock",
    "cri-dockerd.sock",
    "buildkitd.sock",
    "rlrun.sock",
    "system_bus_socket",
];

/// Neither the place nor anything above or below it.
const TREES: [&str; 17] = [
    "/boot",
    "/dev/kmem",
    "/dev/kmsg",
    "/dev/mem",
    "/dev/port",
    "/dev/sd*",
    "/dev/nvme*",
    "/dev/vd*",
    "/dev/dm-*",
    "/dev/mapper",
    "/etc/shadow*",
    "/etc/gshadow*",
    "/etc/sudoers*",
    "/etc/ssh",
    "/proc",
    "/sys",
    "/root",
];

/// The place itself and everything above it; single files below it are ordinary (`/etc/localtime`).
const PLACES: [&str; 9] = ["/dev", "/etc", "/home", "/run", "/usr", "/var", "/var/lib", "/var/log", "/run/user/*"];

/// Secrets of a user, relative to their home directory.
const HOME_SECRETS: [&str; 13] = [
    ".ssh",
    ".aws",
    ".azure",
    ".bash_history",
    ".config/containers/auth.json",
    ".config/gcloud",
    ".config/systemd",
    ".docker/config.json",
    ".gnupg",
    ".kube",
    ".netrc",
    ".password-store",
    ".bashrc",
];

/// Where rlrun keeps things in a home directory (XDG Base Directory Specification).
const OWN_IN_HOME: [&str; 3] = ["/.config/rlrun", "/.cache/rlrun", "/.local/share/rlrun"];

pub(crate) fn check(settings: &Settings, container: &Container, caller: &Caller, found: &mut Vec<Diagnostic>) {
    for (index, mount) in container.mounts.iter().enumerate().filter(|(_, m)| m.kind == "bind") {
        if let Some(mut finding) = judge(settings, container, caller, mount) {
            finding.path = Some(format!("/mounts/{index}/source"));
            found.push(finding);
        }
    }
}

fn judge(settings: &Settings, container: &Container, caller: &Caller, mount: &Mount) -> Option<Diagnostic> {
    // As written and as resolved: a symlink must not hide a place, nor a place be reached by the name of a symlink.
    let written = canonical(&mount.source);
    let resolved = mount.resolved_source.as_deref().map_or_else(|| written.clone(), canonical);
    if settings.allow_mounts.iter().any(|allowed| relation(&resolved, allowed) == Relation::Same) {
        return None;
    }
    if is_engines_own_sysfs(container, mount) {
        return None;
    }
    let look = |source: &str| {
        socket(source).or_else(|| own(container, mount, source)).or_else(|| sensitive(container, caller, source))
    };
    look(&written).or_else(|| (resolved != written).then(|| look(&resolved)).flatten())
}

/// /var/run is /run wherever there is a /run (Filesystem Hierarchy Standard 3.0, 5.13).
fn canonical(source: &str) -> Cow<'_, str> {
    match source.strip_prefix("/var/run") {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => Cow::Owned(format!("/run{rest}")),
        _ => Cow::Borrowed(source),
    }
}

/// With the host's network a new sysfs cannot be mounted, so the engine binds the host's, read-only.
fn is_engines_own_sysfs(container: &Container, mount: &Mount) -> bool {
    mount.destination == "/sys"
        && mount.source == "/sys"
        && mount.read_only
        && container.host_namespaces.iter().any(|n| n == "network")
}

fn socket(source: &str) -> Option<Diagnostic> {
    let name = source.rsplit('/').next().unwrap_or_default();
    let mut is_socket = SOCKET_NAMES.contains(&name);
    let mut shows = None;
    for socket in SOCKETS {
        match relation(source, socket) {
            Relation::Same | Relation::Below => is_socket = true,
            Relation::Above => shows = Some(socket),
            Relation::Apart => {}
        }
    }
    let message = match (is_socket, shows) {
        (true, _) => format!("{source} gives orders to a program outside the container"),
        // The root and /run show far more than sockets; `sensitive` says so.
        (false, Some(_)) if source.trim_matches('/').is_empty() => return None,
        (false, Some(socket)) => format!("{source} holds {socket}, which gives orders outside the container"),
        (false, None) => return None,
    };
    Some(
        finding("BASE004", Severity::Critical, message)
            .help("run the tool beside the container, or allow exactly this path with allow-mounts")
            .into(),
    )
}

/// A writable policy, cache or image store is as good as the engine itself.
fn own(container: &Container, mount: &Mount, source: &str) -> Option<Diagnostic> {
    if mount.read_only {
        return None;
    }
    let own = container.own_paths.iter().find(|own| relation(source, own) != Relation::Apart)?;
    Some(
        finding(
            "BASE006",
            Severity::Critical,
            format!("{source} would let the container write {own}, which rlrun trusts"),
        )
        .help("mount it read-only, or a directory beside it")
        .into(),
    )
}

fn sensitive(container: &Container, caller: &Caller, source: &str) -> Option<Diagnostic> {
    let message = match sensitive_place(container, caller, source)? {
        (Relation::Above, place) => format!("{source} shows {place}"),
        _ => format!("{source} is not for containers"),
    };
    Some(
        finding("BASE005", Severity::High, message)
            .help("mount only the file or directory that is needed, or allow exactly this path with allow-mounts")
            .into(),
    )
}

fn sensitive_place(container: &Container, caller: &Caller, source: &str) -> Option<(Relation, String)> {
    let related = |place: &'static str| (relation(source, place), place);
    let tree = TREES.into_iter().map(related).find(|(r, _)| *r != Relation::Apart);
    let place = || PLACES.into_iter().map(related).find(|(r, _)| matches!(r, Relation::Above | Relation::Same));
    let found = tree.or_else(place).map(|(relation, place)| (relation, place.to_owned()));
    found.or_else(|| homes(container, caller).find_map(|home| home_secret(home, source)))
}

/// The account's home, and the one that HOME names where that is another (CI, `sudo -E`): rlrun's own directories are there.
fn homes<'a>(container: &'a Container, caller: &'a Caller) -> impl Iterator<Item = &'a str> {
    let above = |own: &'a String| OWN_IN_HOME.into_iter().find_map(|own_dir| own.strip_suffix(own_dir));
    let account = caller.home.trim_end_matches('/');
    std::iter::once(account).chain(container.own_paths.iter().filter_map(above)).filter(|home| !home.is_empty())
}

fn home_secret(home: &str, source: &str) -> Option<(Relation, String)> {
    match relation(source, home) {
        Relation::Apart => None,
        Relation::Above | Relation::Same => Some((Relation::Above, format!("{home}/{}", HOME_SECRETS[0]))),
        Relation::Below => HOME_SECRETS.into_iter().find_map(|secret| {
            let place = format!("{home}/{secret}");
            Some((relation(source, &place), place)).filter(|(r, _)| *r != Relation::Apart)
        }),
    }
}
