//! `guardrails`: what a container must have, and must not reach, after the OWASP Docker Security Cheat Sheet.
//!
//! | code | rule of the sheet | what |
//! |---|---|---|
//! | OWASP-1 | 1 | no socket of an engine is mounted |
//! | OWASP-2 | 2 | a user is set |
//! | OWASP-3 | 3 | capabilities are limited |
//! | OWASP-4 | 4 | programs cannot raise privileges |
//! | OWASP-5 | 5 | the network is the container's own |
//! | OWASP-6 | 6 | system calls are filtered |
//! | OWASP-7P | 7 | processes are limited (fork bombs) |
//! | OWASP-7M | 7 | memory is limited |
//! | OWASP-7D | 7 | the disk is limited |
//! | OWASP-7R | 7 | restarts are limited |
//! | OWASP-8 | 8 | the root file system is read-only |
//! | OWASP-12 | 12 | no secret is given in a variable |
//! | OWASP-13 | 13 | the image is pinned by its digest |
//! | NET001 | | no metadata service of a cloud can be reached |
//! | NET002 | | only the listed addresses can be reached |
//! | NET003 | | published ports are bound to an address |
//!
//! Without settings the rules 1, 3, 4, 5, 6, 7P, 12 and NET001 deny and nothing is demanded that a plain `rlrun run`
//! lacks. With `egress` every container is confined to these addresses.
//!
//! ```toml
//! require = ["OWASP-2", "OWASP-7M"]     # these too; a limit that nobody enforces is none
//! skip = ["OWASP-12"]
//! max-pids = 4096
//! max-memory-bytes = 8000000000
//! allow-capabilities = ["CAP_NET_RAW"]
//! allow-secrets = ["EXAMPLE_TOKEN"]
//! [[egress]]
//! cidr = "10.0.0.0/8"
//! ports = [443]
//! protocol = "tcp"
//! ```

use rlrun_policy::{
    Caller, Container, Create, Diagnostic, EgressRule, Enforced, Limits, Policy, Restriction, Severity, Validate,
    Verdict, finding, glue, policy, secret_scan,
};
use serde::Deserialize;

/// The policy.
pub struct Guardrails;

/// In force without settings.
const ALWAYS: [&str; 8] = ["OWASP-1", "OWASP-3", "OWASP-4", "OWASP-5", "OWASP-6", "OWASP-7P", "OWASP-12", "NET001"];
/// In force where they are required.
const ON_DEMAND: [&str; 7] = ["OWASP-2", "OWASP-7M", "OWASP-7D", "OWASP-7R", "OWASP-8", "OWASP-13", "NET003"];

/// Where clouds answer whoever asks with credentials.
const METADATA: [&str; 5] = ["169.254.0.0/16", "168.63.129.16", "100.100.100.200", "192.0.0.192", "fd00:ec2::/32"];

const SOCKETS: [&str; 7] =
    ["docker.sock", "podman.sock", "containerd.sock", "crio.sock", "cri-dockerd.sock", "buildkitd.sock", "rlrun.sock"];

/// Those that give nothing of the host away, as the sheet has it: all dropped, these added back where needed.
const ORDINARY: [&str; 14] = [
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

/// `guardrails.toml`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Settings {
    /// Codes of rules that are in force too.
    pub require: Vec<String>,
    /// Codes of rules that are not.
    pub skip: Vec<String>,
    /// A limit of processes above this is none; also put onto containers without one.
    pub max_pids: Option<u32>,
    /// The same for memory.
    pub max_memory_bytes: Option<u64>,
    /// The same for the writable layer; it cannot be put onto a container.
    pub max_disk_bytes: Option<u64>,
    /// Beyond the ordinary ones.
    pub allow_capabilities: Vec<String>,
    /// Names of variables that only look like secrets.
    pub allow_secrets: Vec<String>,
    /// The only addresses that containers reach. Absent: no rule; empty: none.
    pub egress: Option<Vec<Reach>>,
}

/// Where containers may connect to.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reach {
    /// `10.0.0.0/8`
    pub cidr: String,
    /// Empty: all.
    #[serde(default)]
    pub ports: Vec<u16>,
    /// `tcp`, `udp` or `any`.
    #[serde(default = "any")]
    pub protocol: String,
}

fn any() -> String {
    "any".to_owned()
}

impl rlrun_policy::Settings for Settings {
    fn read(json: &str) -> Result<Self, String> {
        let settings: Settings = glue::from_json(json)?;
        let known = |code: &String| ALWAYS.contains(&code.as_str()) || ON_DEMAND.contains(&code.as_str());
        if let Some(unknown) = settings.require.iter().chain(&settings.skip).find(|code| !known(code)) {
            return Err(format!("`{unknown}` is no rule: {}", [&ALWAYS[..], &ON_DEMAND].concat().join(", ")));
        }
        if let Some(both) = settings.require.iter().find(|code| settings.skip.contains(code)) {
            return Err(format!("{both} is required and skipped"));
        }
        Ok(settings)
    }
}

impl Settings {
    fn in_force(&self, code: &str) -> bool {
        let named = |list: &[String]| list.iter().any(|c| c == code);
        named(&self.require) || (ALWAYS.contains(&code) && !named(&self.skip))
    }
}

impl Policy for Guardrails {
    type Settings = Settings;
}

impl Create for Guardrails {
    fn create(settings: &Settings, container: &Container, _: &Caller) -> Verdict {
        let found = Findings { settings, found: Vec::new() };
        let found = found.confinement(container).network(container).limits(container).rest(container).found;
        if !found.is_empty() {
            return Verdict::judged(found);
        }
        restrictions(settings, container).into_iter().fold(Verdict::allow(), Verdict::restrict)
    }
}

impl Validate for Guardrails {
    /// What was tightened is a limit too, so that limits are looked at once all policies have had their say.
    fn validate(settings: &Settings, container: &Container, _: &Caller) -> Verdict {
        Verdict::judged(Findings { settings, found: Vec::new() }.final_limits(container).found)
    }
}

policy!(Guardrails: create, validate);

/// What is put onto a container that is let pass.
fn restrictions(settings: &Settings, container: &Container) -> Vec<Restriction> {
    let mut all = Vec::new();
    if settings.max_pids.is_some() || settings.max_memory_bytes.is_some() {
        let none = Limits { memory_bytes: None, pids: None, cpu_millis: None, nofile: None };
        all.push(Restriction::Limit(Limits {
            pids: settings.max_pids,
            memory_bytes: settings.max_memory_bytes,
            ..none
        }));
    }
    let rule = |r: &Reach| EgressRule { cidr: r.cidr.clone(), ports: r.ports.clone(), protocol: r.protocol.clone() };
    if let Some(egress) = settings.egress.as_ref().filter(|_| container.network != "none") {
        all.push(Restriction::EgressOnly(egress.iter().map(rule).collect()));
    }
    all
}

struct Findings<'a> {
    settings: &'a Settings,
    found: Vec<Diagnostic>,
}

impl Findings<'_> {
    fn say(&mut self, wrong: bool, code: &str, path: &str, message: impl Into<String>, help: &str) {
        if wrong && self.settings.in_force(code) {
            self.found.push(finding(code, Severity::High, message).at(path).help(help).into());
        }
    }

    fn confinement(mut self, c: &Container) -> Self {
        for (index, mount) in c.mounts.iter().enumerate().filter(|(_, m)| m.kind == "bind") {
            let is_socket = |s: &str| SOCKETS.contains(&s.rsplit('/').next().unwrap_or_default());
            let socket = is_socket(&mount.source) || mount.resolved_source.as_deref().is_some_and(is_socket);
            let path = format!("/mounts/{index}/source");
            self.say(
                socket,
                "OWASP-1",
                &path,
                format!("{} gives orders to an engine", mount.source),
                "leave the mount out",
            );
        }
        self.say(c.uid == 0, "OWASP-2", "/uid", "the container runs as root", "--user 1000");
        let allowed = |n: &String| ORDINARY.contains(&n.as_str()) || self.settings.allow_capabilities.contains(n);
        let more: Vec<&str> = c.capabilities.iter().filter(|n| !allowed(n)).map(String::as_str).collect();
        let message = format!("more than the ordinary capabilities: {}", more.join(", "));
        self.say(
            c.privileged || !more.is_empty(),
            "OWASP-3",
            "/capabilities",
            message,
            "leave out --cap-add and --privileged",
        );
        let help = "leave out --security-opt no-new-privileges=false";
        self.say(!c.no_new_privileges, "OWASP-4", "/no-new-privileges", "programs in it can raise privileges", help);
        let off = c.seccomp.profile == "unconfined" || c.seccomp.default_action == "allow";
        let help = "leave out --security-opt seccomp=unconfined";
        self.say(off, "OWASP-6", "/seccomp/profile", "system calls are not filtered", help);
        self.say(
            !c.read_only_rootfs,
            "OWASP-8",
            "/read-only-rootfs",
            "the root file system can be written",
            "--read-only",
        );
        self
    }

    fn network(mut self, c: &Container) -> Self {
        let shared = c.network == "host" || c.host_namespaces.iter().any(|n| n == "network");
        self.say(shared, "OWASP-5", "/network", "the container is in the host's network", "leave out --network host");
        // Of the container's own network rlrun refuses these always; on the host's nobody does.
        let reached = shared || c.controls.iter().any(|x| x.name == "egress" && x.enforced == Enforced::No);
        let message = format!("metadata services can be reached: {}", METADATA.join(", "));
        self.say(reached, "NET001", "/network", message, "leave out --network host");
        for (index, port) in c.ports.iter().enumerate() {
            let everywhere = matches!(port.host_ip.as_str(), "" | "0.0.0.0" | "::");
            let (path, message) = (format!("/ports/{index}/host-ip"), "the port is published on every address");
            self.say(everywhere, "NET003", &path, message, "-p 127.0.0.1:8080:80");
        }
        if self.settings.egress.is_some() && shared {
            let text = "addresses are limited, and those of the host's network cannot be";
            let wrong = finding("NET002", Severity::High, text).at("/network").help("leave out --network host");
            self.found.push(wrong.into());
        }
        self
    }

    fn limits(mut self, c: &Container) -> Self {
        let endless = matches!(c.facts.restart.as_str(), "always" | "unless-stopped")
            || (c.facts.restart == "on-failure" && c.facts.max_restarts == 0);
        let help = "--restart on-failure:5";
        self.say(endless, "OWASP-7R", "/facts/restart", "the container is started again without end", help);
        let most = self.settings.max_disk_bytes.unwrap_or(u64::MAX);
        let unbounded = c.facts.disk_bytes.is_none_or(|bytes| bytes > most) && !c.read_only_rootfs;
        let help = "--storage-opt size=10g, or --read-only";
        self.say(unbounded, "OWASP-7D", "/facts/disk-bytes", "the writable layer is not limited", help);
        self
    }

    fn final_limits(mut self, c: &Container) -> Self {
        let enforced = |control: &str| !c.controls.iter().any(|x| x.name == control && x.enforced == Enforced::No);
        let most = self.settings.max_pids.unwrap_or(u32::MAX);
        let limited = c.limits.pids.is_some_and(|pids| pids <= most) && enforced("pids-limit");
        let text = "the number of processes is not limited";
        self.say(!limited, "OWASP-7P", "/limits/pids", text, "--pids-limit 1000");
        let most = self.settings.max_memory_bytes.unwrap_or(u64::MAX);
        let limited = c.limits.memory_bytes.is_some_and(|bytes| bytes <= most) && enforced("memory-limit");
        self.say(!limited, "OWASP-7M", "/limits/memory-bytes", "memory is not limited", "--memory 512m");
        self
    }

    fn rest(mut self, c: &Container) -> Self {
        let of_image = c.facts.image_config.as_ref().map(|image| image.env.as_slice()).unwrap_or_default();
        for (index, pair) in c.env.iter().enumerate() {
            // What the image brings is the image's; `image-hygiene` tells of it.
            let brought = of_image.iter().any(|p| p.name == pair.name && p.value == pair.value);
            if brought || self.settings.allow_secrets.contains(&pair.name) {
                continue;
            }
            if let Some(why) = secret_scan::variable(&pair.name, &pair.value) {
                let message = format!("the variable {} is a secret: {why}", pair.name);
                self.say(
                    true,
                    "OWASP-12",
                    &format!("/env/{index}"),
                    message,
                    "use --secret: a file that only the container reads",
                );
            }
        }
        let pinned = c.image.as_ref().is_none_or(|image| image.reference.contains("@sha256:"));
        let message = "the image can change: its digest is not named";
        self.say(!pinned, "OWASP-13", "/image/reference", message, "NAME@sha256:...");
        self
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn fixtures() {
        rlrun_policy::fixtures::check::<super::Guardrails>(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures"));
    }
}
