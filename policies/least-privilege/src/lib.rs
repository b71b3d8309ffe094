//! `least-privilege`: takes from containers what they do not need, by rules in the settings.
//!
//! A rule is chosen by what the user asked for (the image's reference, who asks), never by what an image says of
//! itself. All rules that match apply; since each only tightens, their order does not matter.

use rlrun_policy::{
    Caller, Container, Create, EgressRule, Limits, MountTighten, Policy, Restriction, SeccompAction, SeccompRule,
    Verdict, pattern, policy, settings,
};
use serde::Deserialize;

/// The policy.
pub struct LeastPrivilege;

/// `least-privilege.toml`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// `[[rule]]`
    pub rule: Vec<Rule>,
}

/// Whom it concerns and what is taken away.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Rule {
    /// Patterns of references; empty: every container, those without an image too.
    pub images: Vec<String>,
    /// Login names; empty: everyone.
    pub users: Vec<String>,
    /// Keep at most these.
    pub keep_capabilities: Option<Vec<String>>,
    /// Remove these.
    pub drop_capabilities: Vec<String>,
    /// Set no_new_privs.
    pub no_new_privileges: bool,
    /// Root file system read-only.
    pub read_only_rootfs: bool,
    /// `ro`, `nosuid`, `nodev`, `noexec` on every bind mount.
    pub tighten_mounts: Vec<String>,
    /// Loopback only.
    pub no_network: bool,
    /// Reach at most these.
    pub egress: Option<Vec<Egress>>,
    /// System calls that fail.
    pub seccomp_deny: Vec<String>,
    /// How they fail.
    pub seccomp_action: Action,
    /// The only system calls that do not fail.
    pub seccomp_keep_only: Option<Vec<String>>,
    /// Hidden paths.
    pub mask_paths: Vec<String>,
    /// Read-only paths.
    pub read_only_paths: Vec<String>,
    /// Removed variables.
    pub unset_env: Vec<String>,
    /// Upper bounds.
    pub limits: Bounds,
}

/// An address block.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Egress {
    /// `10.0.0.0/8`
    pub cidr: String,
    /// Empty: all.
    #[serde(default)]
    pub ports: Vec<u16>,
    /// `tcp`, `udp` or `any`
    #[serde(default = "any")]
    pub protocol: String,
}

fn any() -> String {
    "any".to_owned()
}

/// How a system call fails.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Allowed and logged.
    Log,
    /// With EPERM.
    #[default]
    Errno,
    /// And the process with it.
    KillProcess,
}

/// Upper bounds.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Bounds {
    memory_bytes: Option<u64>,
    pids: Option<u32>,
    cpu_millis: Option<u32>,
    nofile: Option<u32>,
}

settings!(Settings);

impl Policy for LeastPrivilege {
    type Settings = Settings;
}

impl Create for LeastPrivilege {
    fn create(settings: &Settings, container: &Container, caller: &Caller) -> Verdict {
        let rules = settings.rule.iter().filter(|rule| rule.concerns(container, caller));
        let restrictions: Vec<Restriction> = rules.flat_map(|rule| rule.restrictions(container)).collect();
        if restrictions.is_empty() {
            return Verdict::abstain();
        }
        restrictions.into_iter().fold(Verdict::allow(), Verdict::restrict)
    }
}

policy!(LeastPrivilege: create);

impl Rule {
    fn concerns(&self, container: &Container, caller: &Caller) -> bool {
        let reference = container.image.as_ref().map_or("", |image| image.reference.as_str());
        (self.images.is_empty() || self.images.iter().any(|p| pattern::glob(p, reference)))
            && (self.users.is_empty() || self.users.contains(&caller.user))
    }

    fn restrictions(&self, container: &Container) -> Vec<Restriction> {
        let mut all = Vec::new();
        all.extend(self.keep_capabilities.clone().map(Restriction::KeepOnlyCapabilities));
        if !self.drop_capabilities.is_empty() {
            all.push(Restriction::DropCapabilities(self.drop_capabilities.clone()));
        }
        all.extend(self.no_new_privileges.then_some(Restriction::NoNewPrivileges));
        all.extend(self.read_only_rootfs.then_some(Restriction::ReadOnlyRootfs));
        all.extend(self.mounts(container));
        all.extend(self.no_network.then_some(Restriction::NoNetwork));
        all.extend(self.egress.as_deref().map(|rules| Restriction::EgressOnly(rules.iter().map(egress).collect())));
        all.extend(self.seccomp());
        all.extend(self.mask_paths.iter().cloned().map(Restriction::MaskPath));
        all.extend(self.read_only_paths.iter().cloned().map(Restriction::ReadOnlyPath));
        all.extend(self.unset_env.iter().cloned().map(Restriction::UnsetEnv));
        all.extend(self.limits.restriction());
        all
    }

    fn mounts(&self, container: &Container) -> Vec<Restriction> {
        if self.tighten_mounts.is_empty() {
            return Vec::new();
        }
        let tighten = |destination: &String| {
            let add_options = self.tighten_mounts.clone();
            Restriction::TightenMount(MountTighten { destination: destination.clone(), add_options })
        };
        container.mounts.iter().filter(|m| m.kind == "bind").map(|m| tighten(&m.destination)).collect()
    }

    fn seccomp(&self) -> Vec<Restriction> {
        let action = match self.seccomp_action {
            Action::Log => SeccompAction::Log,
            Action::Errno => SeccompAction::Errno,
            Action::KillProcess => SeccompAction::KillProcess,
        };
        let denied = (!self.seccomp_deny.is_empty()).then(|| {
            Restriction::SeccompDeny(SeccompRule { syscalls: self.seccomp_deny.clone(), action, errno: None })
        });
        denied.into_iter().chain(self.seccomp_keep_only.clone().map(Restriction::SeccompKeepOnly)).collect()
    }
}

impl Bounds {
    fn restriction(self) -> Option<Restriction> {
        let Bounds { memory_bytes, pids, cpu_millis, nofile } = self;
        let any = memory_bytes.is_some() || pids.is_some() || cpu_millis.is_some() || nofile.is_some();
        any.then_some(Restriction::Limit(Limits { memory_bytes, pids, cpu_millis, nofile }))
    }
}

fn egress(rule: &Egress) -> EgressRule {
    EgressRule { cidr: rule.cidr.clone(), ports: rule.ports.clone(), protocol: rule.protocol.clone() }
}

#[cfg(test)]
mod tests {
    #[test]
    fn fixtures() {
        rlrun_policy::fixtures::check::<super::LeastPrivilege>(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures"));
    }
}
