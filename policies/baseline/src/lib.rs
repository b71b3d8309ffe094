//! `baseline`: what no ordinary container needs and what gives away the host.
//!
//! Modelled on the baseline level of the Kubernetes Pod Security Standards, seen from a rootless engine: the host that
//! is given away is the calling user's part of it. Every check can be opened in the settings, one by one.

mod mounts;

use rlrun_policy::{
    Caller, Container, Create, Diagnostic, Exec, ExecRequest, Policy, Severity, Verdict, finding, policy, settings,
};
use serde::Deserialize;

/// The policy.
pub struct Baseline;

/// `baseline.toml`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Settings {
    /// `--privileged` passes.
    pub allow_privileged: bool,
    /// `network`, `pid`, `ipc`, `uts`, `cgroup`
    pub allow_host_namespaces: Vec<String>,
    /// Beyond the harmless ones: `CAP_SYS_PTRACE`.
    pub allow_capabilities: Vec<String>,
    /// Host paths that may be mounted although they are sensitive, exactly as resolved; `*` stands for a segment.
    pub allow_mounts: Vec<String>,
}

settings!(Settings);

impl Policy for Baseline {
    type Settings = Settings;
}

/// Docker's default set: confined to the container's own user namespace they give nothing of the host away.
const HARMLESS: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

impl Create for Baseline {
    fn create(settings: &Settings, container: &Container, caller: &Caller) -> Verdict {
        let mut found = Vec::new();
        privileged(settings, container, &mut found);
        host_namespaces(settings, container, &mut found);
        capabilities(settings, container, &mut found);
        mounts::check(settings, container, caller, &mut found);
        if !found.is_empty() {
            return Verdict::judged(found);
        }
        loosened(container).into_iter().fold(Verdict::allow(), Verdict::warn)
    }
}

/// A command has the confinement of the container that was let through, unless it asks for more.
impl Exec for Baseline {
    fn exec(settings: &Settings, request: &ExecRequest, container: &Container, _: &Caller) -> Verdict {
        if !request.privileged || container.privileged || settings.allow_privileged {
            return Verdict::allow();
        }
        let finding =
            finding("BASE001", Severity::Critical, "a privileged command has what its container was not given")
                .at("/privileged")
                .help("start the container with what the command needs: --cap-add");
        Verdict::deny(finding)
    }
}

policy!(Baseline: create, exec);

fn privileged(settings: &Settings, container: &Container, found: &mut Vec<Diagnostic>) {
    if container.privileged && !settings.allow_privileged {
        found.push(
            finding("BASE001", Severity::Critical, "a privileged container is confined by nothing")
                .at("/privileged")
                .help("name what is missing: --cap-add, --device, --security-opt")
                .into(),
        );
    }
}

fn host_namespaces(settings: &Settings, container: &Container, found: &mut Vec<Diagnostic>) {
    for name in container.host_namespaces.iter().filter(|n| !settings.allow_host_namespaces.contains(n)) {
        let help = match name.as_str() {
            "network" => "use --network slirp4netns and publish ports with -p".to_owned(),
            _ => format!("leave out --{name} host"),
        };
        found.push(
            finding("BASE002", Severity::High, format!("the container shares the host's {name} namespace"))
                .at("/host-namespaces")
                .help(help)
                .into(),
        );
    }
}

fn capabilities(settings: &Settings, container: &Container, found: &mut Vec<Diagnostic>) {
    // With --privileged that one finding says it all.
    if container.privileged {
        return;
    }
    let allowed = |name: &String| HARMLESS.contains(&name.as_str()) || settings.allow_capabilities.contains(name);
    for name in container.capabilities.iter().filter(|n| !allowed(n)) {
        let option = name.trim_start_matches("CAP_");
        found.push(
            finding("BASE003", Severity::High, format!("{name} opens ways out of the container"))
                .at("/capabilities")
                .help(format!("leave out --cap-add {option}"))
                .into(),
        );
    }
}

/// Loosened on purpose, by an option that names it: the user is told, not stopped.
fn loosened(container: &Container) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    if container.seccomp.profile == "unconfined" {
        let text = "no system call is filtered";
        found.push(finding("BASE007", Severity::Medium, text).at("/seccomp/profile").into());
    }
    if !container.no_new_privileges {
        let text = "set-user-ID programs in the image can raise privileges";
        found.push(finding("BASE008", Severity::Low, text).at("/no-new-privileges").into());
    }
    // `unmask=ALL`; without those that are always covered by default, the kernel's own interfaces lie open.
    if container.masked_paths.is_empty() {
        let text = "nothing of /proc and /sys is masked, the kernel's list of keys among it";
        found.push(finding("BASE009", Severity::Medium, text).at("/masked-paths").into());
    }
    found
}

#[cfg(test)]
mod tests {
    #[test]
    fn fixtures() {
        rlrun_policy::fixtures::check::<super::Baseline>(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures"));
    }
}
