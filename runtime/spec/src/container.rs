//! What a container is to be: the OCI runtime configuration and the facts beside it that OCI has no place for.
//! What `run` computes, a policy sees and `plan` prints is this one value.

use crate::control::Control;
use crate::ids::IdMapping;
use oci_spec::runtime::{LinuxSeccomp, Spec};
use serde::{Deserialize, Serialize};

/// Which image, exactly.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageIdentity {
    /// The normalised reference the user's words resolved to: `docker.io/library/busybox:latest`.
    pub reference: String,
    /// Digest of the manifest: `sha256:...`.
    pub digest: String,
    /// Digest of the image configuration, the image id of `images`: `sha256:...`.
    pub id: String,
    /// `linux/amd64`.
    pub platform: String,
}

/// Who asks, seen from outside any container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caller {
    /// Host uid.
    pub uid: u32,
    /// Host gid.
    pub gid: u32,
    /// Login name.
    pub user: String,
    /// `cli`, `api` or `oci`.
    pub origin: String,
    /// Whether a terminal is attached.
    pub tty: bool,
    /// Whether `CI` is set in the caller's environment.
    pub ci: bool,
}

/// The network a container gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetworkMode {
    /// A private network through slirp4netns(1).
    Slirp4netns,
    /// Loopback only.
    None,
    /// The host's network namespace.
    Host,
}

/// Transport of a published port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// `-p [ip:]host:container[/udp]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortMapping {
    /// Host address that is bound; 0.0.0.0 unless the user named one.
    pub host_ip: std::net::IpAddr,
    /// Host port; the engine has already chosen one where the user left it open.
    pub host_port: u16,
    /// Port inside the container.
    pub container_port: u16,
    /// Transport.
    pub protocol: Protocol,
}

/// What policies are told of a container that is no part of its configuration and changes nothing in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Beside {
    /// `--restart`.
    pub restart: crate::life::Restart,
    /// `--rm`.
    pub remove: bool,
    /// `-d`.
    pub detached: bool,
    /// A command tells whether it is well.
    pub healthcheck: bool,
    /// Bytes that its writable layer may have.
    pub disk_bytes: Option<u64>,
    /// What the image asks for.
    pub image: Option<ImageWishes>,
    /// The secrets that it is given.
    pub secrets: Vec<SecretUse>,
    /// Where the image is from.
    pub origin: crate::policy::Origin,
}

/// What an image asks for of the containers made from it: its word, for judging only.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageWishes {
    /// `User`.
    pub user: String,
    /// `Env`, `NAME=value`.
    pub env: Vec<String>,
    /// `Labels`.
    pub labels: Vec<(String, String)>,
    /// `Entrypoint`.
    pub entrypoint: Vec<String>,
    /// `ExposedPorts`, `8080/tcp`.
    pub exposed_ports: Vec<String>,
    /// `Volumes`.
    pub volumes: Vec<String>,
    /// When it was made.
    pub created: Option<String>,
}

/// How a container is given a secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretUse {
    /// Its name.
    pub name: String,
    /// As what.
    pub form: SecretForm,
    /// The path or the variable.
    pub target: String,
    /// Who may read the file; nothing for a variable.
    pub mode: Option<u32>,
}

/// What a secret is in the container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SecretForm {
    /// A file.
    File,
    /// A variable.
    Environment,
}

/// An address block the container may reach; set by policies (`egress-only`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct EgressRule {
    /// CIDR, `10.0.0.0/8`.
    pub cidr: String,
    /// Ports; empty means all.
    pub ports: Vec<u16>,
    /// `tcp`, `udp` or `any`.
    pub protocol: String,
}

/// How container ids relate to host ids.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UserNamespace {
    /// Container root is the calling user, further ids come from the subordinate ranges.
    Default,
    /// The calling user keeps its uid and gid inside.
    KeepId {
        /// uid inside.
        uid: u32,
        /// gid inside.
        gid: u32,
    },
    /// Maps of the user's own (`--uidmap`).
    Mapped {
        /// Users.
        uids: Vec<IdMapping>,
        /// Groups.
        gids: Vec<IdMapping>,
    },
}

/// Everything a [`ContainerSpec`] is made of, as plain data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SpecParts {
    /// 64 hex digits.
    pub id: String,
    /// `--name` or a generated one.
    pub name: String,
    /// The image, None for `--rootfs` and foreign bundles.
    pub image: Option<ImageIdentity>,
    /// `--privileged`, as an event that policies see; the configuration below already shows its effects.
    pub privileged: bool,
    /// Network.
    pub network: NetworkMode,
    /// Published ports.
    pub ports: Vec<PortMapping>,
    /// Name servers the container will see.
    pub dns: Vec<String>,
    /// None: anything but the blocks that are always refused (host loopback, cloud metadata).
    pub egress: Option<Vec<EgressRule>>,
    /// What policies add to the seccomp section of `oci`: a second, stacked filter; empty before the verdict.
    #[serde(default, skip_serializing_if = "crate::policy::SeccompOverlay::is_empty")]
    pub seccomp_overlay: crate::policy::SeccompOverlay,
    /// User namespace.
    pub userns: UserNamespace,
    /// A built-in init is pid 1.
    pub init: bool,
    /// `-i`: standard input stays open.
    pub interactive: bool,
    /// Name of the seccomp profile: `default`, `unconfined` or a path.
    pub seccomp_profile: String,
    /// For each bind mount of the configuration, destination and source with every symlink resolved.
    pub resolved_sources: Vec<(String, String)>,
    /// Every control, decided against the host facts.
    pub controls: Vec<Control>,
    /// How limits would hold that nobody has asked for so far, for policies that impose them.
    #[serde(skip)]
    pub imposable: Vec<Control>,
    /// What policies are told beside all that.
    #[serde(default)]
    pub beside: Beside,
    /// The OCI runtime configuration.
    pub oci: Spec,
}

/// A container's whole configuration after defaults, image and command line are merged.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub struct ContainerSpec {
    parts: SpecParts,
}

/// Puts the sets of an OCI configuration, which come in any order, into one order: the same configuration is then the
/// same bytes.
pub fn sort_sets(oci: &mut serde_json::Value) {
    let sets = oci.pointer_mut("/process/capabilities").and_then(serde_json::Value::as_object_mut);
    for set in sets.into_iter().flatten().filter_map(|(_, set)| set.as_array_mut()) {
        set.sort_by(|a, b| a.as_str().cmp(&b.as_str()));
    }
}

/// Why parts do not make a container.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum InvalidSpec {
    /// A field holds what no container can have.
    #[error("{field}: {why}")]
    Field {
        /// JSON pointer into the parts.
        field: String,
        /// What is wrong with it.
        why: String,
    },
}

impl ContainerSpec {
    /// The only way to a `ContainerSpec`.
    ///
    /// # Errors
    /// When a field holds what no container can have: no arguments, a relative working directory, a NUL byte.
    pub fn new(parts: SpecParts) -> Result<Self, InvalidSpec> {
        let bad = |field: &str, why: &str| Err(InvalidSpec::Field { field: field.to_owned(), why: why.to_owned() });
        let Some(process) = parts.oci.process() else { return bad("/oci/process", "is missing") };
        let args = process.args().as_deref().unwrap_or_default();
        match args.first() {
            None => return bad("/oci/process/args", "no command: the image has none and none was given"),
            Some(program) if program.is_empty() => return bad("/oci/process/args/0", "the command is an empty word"),
            Some(_) => {}
        }
        if !process.cwd().is_absolute() {
            return bad("/oci/process/cwd", "is not an absolute path");
        }
        let env = process.env().as_deref().unwrap_or_default();
        if args.iter().chain(env).any(|s| s.contains('\0')) {
            return bad("/oci/process", "holds a NUL byte");
        }
        if parts.oci.linux().is_none() {
            return bad("/oci/linux", "is missing");
        }
        Ok(ContainerSpec { parts })
    }

    /// The parts, to read.
    #[must_use]
    pub fn parts(&self) -> &SpecParts {
        &self.parts
    }

    /// Shows the parts without the rules of the seccomp profile. They are by far the most of it, and cost as much to
    /// whoever copies or writes the parts.
    pub fn without_seccomp_rules<T>(&mut self, look: impl FnOnce(&SpecParts) -> T) -> T {
        fn seccomp(oci: &mut Spec) -> Option<&mut LinuxSeccomp> {
            oci.linux_mut().as_mut()?.seccomp_mut().as_mut()
        }
        let whole = seccomp(&mut self.parts.oci).map(|section| {
            let mut bare = LinuxSeccomp::default();
            bare.set_default_action(section.default_action()).set_default_errno_ret(section.default_errno_ret());
            bare.set_architectures(section.architectures().clone()).set_flags(section.flags().clone());
            bare.set_listener_path(section.listener_path().clone());
            bare.set_listener_metadata(section.listener_metadata().clone());
            std::mem::replace(section, bare)
        });
        let seen = look(&self.parts);
        if let (Some(section), Some(whole)) = (seccomp(&mut self.parts.oci), whole) {
            *section = whole;
        }
        seen
    }

    /// The parts, to build a changed copy that [`ContainerSpec::new`] validates again.
    #[must_use]
    pub fn into_parts(self) -> SpecParts {
        self.parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seccomp_rules_are_left_out_of_what_is_shown_and_nothing_else() {
        let parts = crate::policy::fixture::parts();
        let mut spec = ContainerSpec::new(parts.clone()).unwrap();
        let shown = spec.without_seccomp_rules(Clone::clone);
        assert_eq!(spec.parts(), &parts);
        let mut bare = serde_json::to_value(&parts).unwrap();
        let rules = bare.pointer_mut("/oci/linux/seccomp").and_then(|s| s.as_object_mut()?.remove("syscalls"));
        assert!(rules.is_some());
        assert_eq!(serde_json::to_value(shown).unwrap(), bare);

        let mut none = parts;
        none.oci.linux_mut().as_mut().unwrap().set_seccomp(None);
        let mut spec = ContainerSpec::new(none.clone()).unwrap();
        assert_eq!(spec.without_seccomp_rules(Clone::clone), none);
    }
}
