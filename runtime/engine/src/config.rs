//! From a request, an image and the host's facts to the one configuration that policies judge and `plan` prints.
//! Reads nothing but what it is given, except the real paths of volumes.

mod block_io;
pub mod controls;
pub mod limits;
pub mod mounts;
pub mod paths;
pub mod process;
pub mod rootdir;
pub mod seccomp;
pub mod ulimits;
pub mod user;

use crate::host::cause::Surroundings;
use crate::host::idmap::IdPlan;
use crate::request::capability::{self, Set};
use crate::request::{KEEP_GROUPS, Personality, ReadOnly, RunRequest};
use crate::storage::Storage;
use oci_spec::runtime::{
    Capabilities, Linux, LinuxCapabilities, LinuxIdMapping, LinuxIdMappingBuilder, LinuxNamespace, LinuxNamespaceType,
    LinuxPersonality, LinuxPersonalityDomain, LinuxSeccomp, Process, Root, Spec, User,
};
use rlrun_image::ResolvedImage;
use rlrun_spec::container::{Beside, ImageWishes, InvalidSpec, NetworkMode, PortMapping, UserNamespace};
use rlrun_spec::host::HostFacts;
use rlrun_spec::policy::SeccompOverlay;
use rlrun_spec::{ContainerSpec, Failure, IdMapping, Kind, SpecParts, Stage, plan_from_oci};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// What a configuration is made of.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// The command line.
    pub request: &'a RunRequest,
    /// The image.
    pub image: &'a ResolvedImage,
    /// The host.
    pub host: &'a HostFacts,
    /// Id maps.
    pub ids: &'a IdPlan,
    /// User namespace with its ids.
    pub userns: &'a UserNamespace,
    /// Storage driver.
    pub storage: &'a Storage,
    /// Container id.
    pub id: &'a str,
    /// Container name.
    pub name: &'a str,
    /// Where volumes are.
    pub volumes: &'a Path,
    /// The images that it mounts.
    pub images: &'a [mounts::MountedImage],
    /// Published ports, host ports chosen.
    pub ports: &'a [PortMapping],
    /// Host name of the host, for `--network host`.
    pub host_name: &'a str,
    /// Name servers the container will see.
    pub dns: &'a [String],
}

/// A configuration and what is known beside it.
#[derive(Clone, Debug, PartialEq)]
pub struct Built {
    /// The configuration.
    pub spec: ContainerSpec,
    /// Told to the user before the start.
    pub warnings: Vec<String>,
    /// Account files that a `keep-id` user is added to: path inside, contents.
    pub account_files: Vec<(String, Vec<u8>)>,
    /// Signal that stops the container: the user's, the image's, SIGTERM.
    pub stop_signal: i32,
}

const SIGTERM: i32 = 15;

/// Builds the configuration.
///
/// # Errors
/// When the request, the image and the host do not go together; nothing is guessed.
pub fn build(inputs: Inputs<'_>) -> Result<Built, Failure> {
    let request = inputs.request;
    if !inputs.ports.is_empty() && request.network.mode != NetworkMode::Slirp4netns {
        return Err(usage("publish", "publish ports", "--publish")
            .why("only the network slirp4netns publishes ports")
            .hint("leave out --network, or -p"));
    }
    ulimits::check(&request.limits.ulimits)?;
    limits::check(&request.limits, request.init)?;
    limits::check_disk(&request.limits, request.launching.remove, inputs.storage.driver, inputs.volumes)?;
    crate::storage::disk(&request.limits, request.launching.remove, inputs.host)?;
    let account = account(inputs)?;
    let caps = capabilities(inputs);
    let around = mounts::Around { request, id: inputs.id, volumes: inputs.volumes, images: inputs.images };
    let mounts = mounts::plan(around, &inputs.image.config, inputs.host, &inputs.ids.maps)?;
    let paths = paths::plan(&request.security, request.privileged);
    let seccomp = seccomp::choose(request, &caps)?;
    let names: Vec<String> = caps.iter().map(|n| capability::name_of(*n)).collect();
    let bounding = caps.iter().fold(0, |mask, number| mask | 1 << *number);
    let controls = controls::decide(controls::Effective {
        request,
        host: inputs.host,
        ids: inputs.ids,
        userns: inputs.userns,
        storage: inputs.storage,
        seccomp_profile: &seccomp.name,
        capabilities: &names.join(","),
        bounding,
        masked: paths.masked.len(),
        ports: inputs.ports,
    })?;
    let hostname = hostname(inputs);
    let mut oci = Spec::default();
    oci.set_root(Some(root(inputs)))
        .set_hostname(Some(hostname.clone()))
        .set_mounts(Some(mounts.all))
        .set_process(Some(process(inputs, &account, &caps, &hostname)))
        .set_linux(Some(linux(inputs, paths, seccomp.section)))
        .set_annotations(Some(annotations(request)));
    let account_files = account_files(inputs);
    let spec = ContainerSpec::new(SpecParts {
        id: inputs.id.to_owned(),
        name: inputs.name.to_owned(),
        image: request.rootfs.is_none().then(|| inputs.image.identity.clone()),
        privileged: request.privileged,
        network: request.network.mode,
        ports: inputs.ports.to_vec(),
        dns: inputs.dns.to_vec(),
        egress: None,
        userns: inputs.userns.clone(),
        init: request.init,
        interactive: request.interactive,
        seccomp_profile: seccomp.name,
        seccomp_overlay: SeccompOverlay::default(),
        resolved_sources: mounts.resolved,
        controls: controls.all,
        imposable: limits::imposable(&request.limits, inputs.host, bounding),
        beside: beside(inputs)?,
        oci,
    })
    .map_err(|invalid| invalid_spec(invalid, &request.image))?;
    Ok(Built { spec, warnings: controls.warnings, account_files, stop_signal: stop_signal(inputs) })
}

/// What policies are told beside the configuration.
fn beside(inputs: Inputs<'_>) -> Result<Beside, Failure> {
    let (launching, image) = (&inputs.request.launching, &inputs.image.config);
    Ok(Beside {
        restart: launching.life.restart,
        remove: launching.remove,
        detached: launching.life.detach,
        healthcheck: crate::prepare::health(inputs.request, image)?.is_some(),
        disk_bytes: inputs.request.limits.disk,
        image: Some(ImageWishes {
            user: image.user.clone(),
            env: image.env.clone(),
            labels: image.labels.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
            entrypoint: image.entrypoint.clone(),
            exposed_ports: image.exposed_ports.clone(),
            volumes: image.volumes.clone(),
            created: image.created.clone(),
        }),
        secrets: crate::secrets::uses(&inputs.request.secrets),
        origin: crate::images::origin(inputs.image),
    })
}

fn usage(step: &str, operation: &str, object: &str) -> Failure {
    Failure::new(Stage::Cli, Kind::Usage, step, operation, object)
}

fn invalid_spec(invalid: InvalidSpec, image: &str) -> Failure {
    let InvalidSpec::Field { field, why } = invalid;
    let failure = usage("build-config", "make a container of", image).why(format!("{why} ({field})"));
    match field.as_str() {
        "/oci/process/args" => failure.hint("name a command after the image"),
        // podman's code for what is not there to be executed.
        "/oci/process/args/0" => {
            Failure { kind: Kind::NotFound, ..failure.hint("name a command that the image has; was a variable empty?") }
        }
        _ => failure,
    }
}

/// The name the container knows itself by; in the host's network it is the host's, as in podman.
#[must_use]
pub fn hostname(inputs: Inputs<'_>) -> String {
    match (&inputs.request.hostname, inputs.request.network.mode) {
        (_, _) if inputs.request.shared.uts => inputs.host_name.to_owned(),
        (Some(name), _) => name.clone(),
        (None, NetworkMode::Host) => inputs.host_name.to_owned(),
        (None, NetworkMode::Slirp4netns | NetworkMode::None) => inputs.id.chars().take(12).collect(),
    }
}

/// `-u`, else the caller with `keep-id`, else the image's user; every id must be mapped.
fn account(inputs: Inputs<'_>) -> Result<user::Account, Failure> {
    let files = files(inputs.image);
    let kept = match inputs.userns {
        UserNamespace::KeepId { uid, gid } => Some(format!("{uid}:{gid}")),
        UserNamespace::Default | UserNamespace::Mapped { .. } => None,
    };
    let words = inputs.request.user.as_deref().or(kept.as_deref()).unwrap_or(&inputs.image.config.user);
    let mut account = user::find(words, files)?;
    let unmapped = |cause: crate::host::cause::Cause| cause.failure(inputs.host, &Surroundings::read());
    inputs.ids.host_uid(account.uid).map_err(unmapped)?;
    inputs.ids.host_gid(account.gid).map_err(unmapped)?;
    // The primary group too: a file that denies a group must deny whoever is in it by gid alone (CVE-2022-36109).
    if !account.groups.contains(&account.gid) {
        account.groups.insert(0, account.gid);
    }
    // Memberships that the image lists and the map lacks cannot be had; nobody asked for them by name.
    account.groups.retain(|gid| inputs.ids.maps.host_gid(*gid).is_some());
    for word in inputs.request.groups.iter().filter(|word| *word != KEEP_GROUPS) {
        let gid = user::find_group(word, files)?;
        inputs.ids.host_gid(gid).map_err(unmapped)?;
        if !account.groups.contains(&gid) {
            account.groups.push(gid);
        }
    }
    if inputs.ids.single.is_some() || keeps_groups(inputs.request) {
        // With a single id setgroups(2) is denied (user_namespaces(7)); and what is kept is not set.
        account.groups.clear();
    }
    Ok(account)
}

fn files(image: &ResolvedImage) -> user::Files<'_> {
    user::Files {
        passwd: image.passwd.as_deref().unwrap_or_default(),
        group: image.group.as_deref().unwrap_or_default(),
    }
}

/// With `keep-id` the caller gets a line in the image's passwd and group, so that programs find a name for it.
fn account_files(inputs: Inputs<'_>) -> Vec<(String, Vec<u8>)> {
    let UserNamespace::KeepId { uid, gid } = inputs.userns else { return Vec::new() };
    let name = &inputs.host.user;
    let mut files = Vec::new();
    let with_line = |text: &str, line: String| {
        let newline = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
        format!("{text}{newline}{line}\n").into_bytes()
    };
    if let Some(passwd) = inputs.image.passwd.as_deref().filter(|p| !user::knows_uid(p, *uid)) {
        files.push(("/etc/passwd".to_owned(), with_line(passwd, format!("{name}:*:{uid}:{gid}:{name}:/:/bin/sh"))));
    }
    if let Some(group) = inputs.image.group.as_deref().filter(|g| !user::knows_gid(g, *gid)) {
        files.push(("/etc/group".to_owned(), with_line(group, format!("{name}:*:{gid}:"))));
    }
    files
}

fn capabilities(inputs: Inputs<'_>) -> Set {
    if inputs.request.privileged {
        return capability::ALL.into_iter().map(capability::number).collect();
    }
    inputs.request.capabilities.apply(&capability::DEFAULT)
}

/// A directory of the host is named, for policies to judge; what an image becomes has no name outside.
fn root(inputs: Inputs<'_>) -> Root {
    let directory = inputs.request.rootfs.as_ref().and_then(|_| inputs.image.layers.first().cloned());
    let mut root = Root::default();
    root.set_path(directory.unwrap_or_else(|| PathBuf::from("rootfs")));
    root.set_readonly(Some(inputs.request.read_only != ReadOnly::No));
    root
}

/// The user's, and the one by which policies see that groups are kept.
fn annotations(request: &RunRequest) -> HashMap<String, String> {
    let mut all: HashMap<String, String> = request.annotations.iter().cloned().collect();
    if keeps_groups(request) {
        all.insert(plan_from_oci::KEEP_GROUPS.to_owned(), "1".to_owned());
    }
    all
}

fn keeps_groups(request: &RunRequest) -> bool {
    request.groups.iter().any(|word| word == KEEP_GROUPS)
}

fn process(inputs: Inputs<'_>, account: &user::Account, caps: &Set, hostname: &str) -> Process {
    let (request, image) = (inputs.request, &inputs.image.config);
    let around = process::Surroundings { hostname, home: &account.home };
    let mut user = User::default();
    user.set_uid(account.uid).set_gid(account.gid).set_umask(Some(request.umask));
    if !account.groups.is_empty() {
        user.set_additional_gids(Some(account.groups.clone()));
    }
    let ulimits = &request.limits.ulimits;
    let mut process = Process::default();
    process
        .set_terminal(Some(request.tty))
        .set_user(user)
        .set_args(Some(process::args(request, image)))
        .set_env(Some(process::environment(request, image, around)))
        .set_cwd(PathBuf::from(process::workdir(request, image)))
        .set_capabilities(Some(capability_sets(request, account.uid, caps)))
        .set_rlimits((!ulimits.is_empty()).then(|| ulimits.clone()))
        .set_oom_score_adj(request.limits.oom_score_adj)
        .set_no_new_privileges(Some(request.security.no_new_privileges));
    process
}

/// Root has the whole set in force. Another user has only what `--cap-add` names, in its ambient set, so that it
/// survives execve(2); the rest stays in the bounding set, for what root could still regain (capabilities(7)).
pub(crate) fn capability_sets(request: &RunRequest, uid: u32, caps: &Set) -> LinuxCapabilities {
    let members = |set: &Set| Some(capability::members(set).collect::<Capabilities>());
    let added: Set = request.capabilities.add.each.intersection(caps).copied().collect();
    let mut sets = LinuxCapabilities::default();
    let (in_force, ambient) = if uid == 0 { (caps, &Set::new()) } else { (&added, &added) };
    sets.set_bounding(members(caps))
        .set_effective(members(in_force))
        .set_permitted(members(in_force))
        .set_inheritable(members(ambient))
        .set_ambient(members(ambient));
    sets
}

fn linux(inputs: Inputs<'_>, paths: paths::Paths, seccomp: Option<LinuxSeccomp>) -> Linux {
    let mut linux = Linux::default();
    linux
        .set_namespaces(Some(namespaces(inputs.request)))
        .set_uid_mappings(Some(mappings(&inputs.ids.maps.uids)))
        .set_gid_mappings(Some(mappings(&inputs.ids.maps.gids)))
        .set_resources(Some(limits::resources(&inputs.request.limits)))
        .set_seccomp(seccomp)
        .set_masked_paths(Some(paths.masked))
        .set_readonly_paths(Some(paths.read_only));
    if !inputs.request.devices.is_empty() {
        linux.set_devices(Some(
            inputs.request.devices.iter().map(crate::request::device::DeviceRequest::to_oci).collect(),
        ));
    }
    if let Some(personality) = inputs.request.personality {
        let mut wanted = LinuxPersonality::default();
        wanted.set_domain(match personality {
            Personality::Linux => LinuxPersonalityDomain::PerLinux,
            Personality::Linux32 => LinuxPersonalityDomain::PerLinux32,
        });
        linux.set_personality(Some(wanted));
    }
    if !inputs.request.sysctls.is_empty() {
        linux.set_sysctl(Some(inputs.request.sysctls.iter().cloned().collect()));
    }
    linux
}

fn namespaces(request: &RunRequest) -> Vec<LinuxNamespace> {
    use LinuxNamespaceType as T;
    let own = [T::User, T::Mount, T::Pid];
    let others = [
        (request.shared.ipc, T::Ipc),
        (request.shared.uts, T::Uts),
        (request.shared.cgroup, T::Cgroup),
        (request.network.mode == NetworkMode::Host, T::Network),
    ];
    own.into_iter()
        .chain(others.into_iter().filter(|(shared, _)| !shared).map(|(_, kind)| kind))
        .map(|kind| {
            let mut namespace = LinuxNamespace::default();
            namespace.set_typ(kind);
            namespace
        })
        .collect()
}

fn mappings(lines: &[IdMapping]) -> Vec<LinuxIdMapping> {
    let mapping = |line: &IdMapping| {
        let built = LinuxIdMappingBuilder::default().container_id(line.container).host_id(line.host).size(line.count);
        // Every field of the builder has a default, so it cannot fail.
        built.build().unwrap_or_default()
    };
    lines.iter().map(mapping).collect()
}

fn stop_signal(inputs: Inputs<'_>) -> i32 {
    let of_image = || inputs.image.config.stop_signal.as_deref().and_then(crate::request::limits::signal_number);
    inputs.request.stop_signal.or_else(of_image).unwrap_or(SIGTERM)
}

#[cfg(test)]
pub(crate) mod tests;
