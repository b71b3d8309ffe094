//! Host paths that a container must not see, or not write.

use crate::Settings;
use rlrun_policy::pattern::{covers, glob, within};
use rlrun_policy::{Caller, Container, Diagnostic, Mount, Severity, finding};

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
const PLACES: [&str; 9] =
    ["/dev", "/etc", "/home", "/run", "/usr", "/var", "/var/lib", "/var/log", "/run/user/*"];

/// Secrets of a user, relative to their home directory.
const HOME_SECRETS: [&str; 13] = [
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
    ".ssh",
    ".bashrc",
];

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
    let spelled = [Some(mount.source.as_str()), mount.resolved_source.as_deref()];
    let sources: Vec<String> = spelled.into_iter().flatten().map(canonical).collect();
    let last = sources.last()?;
    if settings.allow_mounts.iter().any(|allowed| covers(last, allowed) && within(last, allowed)) {
        return None;
    }
    if is_engines_own_sysfs(container, mount) {
        return None;
    }
    sources.iter().find_map(|source| {
        socket(source).or_else(|| own(container, mount, source)).or_else(|| sensitive(caller, source))
    })
}

/// /var/run is /run wherever there is a /run (Filesystem Hierarchy Standard 3.0, 5.13).
fn canonical(source: &str) -> String {
    match source.strip_prefix("/var/run") {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => format!("/run{rest}"),
        _ => source.to_owned(),
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
    let is_socket = SOCKET_NAMES.contains(&name) || SOCKETS.iter().any(|s| within(source, s));
    let shows = SOCKETS.iter().find(|s| covers(source, s));
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
    let own = container.own_paths.iter().find(|own| within(source, own) || covers(source, own))?;
    Some(
        finding("BASE006", Severity::Critical, format!("{source} would let the container write {own}, which rlrun trusts"))
            .help("mount it read-only, or a directory beside it")
            .into(),
    )
}

fn sensitive(caller: &Caller, source: &str) -> Option<Diagnostic> {
    let everywhere = TREES.iter().find(|place| within(source, place) || covers(source, place));
    let here = PLACES.iter().find(|place| covers(source, place));
    let secret = home_secret(caller, source);
    let what = everywhere.or(here).map(|place| (*place).to_owned()).or(secret)?;
    let message = if glob(&what, source) { format!("{source} is not for containers") } else { format!("{source} shows {what}") };
    Some(
        finding("BASE005", Severity::High, message)
            .help("mount only the file or directory that is needed, or allow exactly this path with allow-mounts")
            .into(),
    )
}

fn home_secret(caller: &Caller, source: &str) -> Option<String> {
    if caller.home.is_empty() {
        return None;
    }
    HOME_SECRETS
        .iter()
        .map(|secret| format!("{}/{secret}", caller.home.trim_end_matches('/')))
        .find(|place| within(source, place) || covers(source, place))
}
