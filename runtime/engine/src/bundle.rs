//! A bundle of the OCI runtime specification: a directory with a root file system and `config.json`. What it asks for
//! becomes the same configuration that `run` makes, judged by the same policies and held by the same limits. What
//! cannot be honoured is refused, or told where the specification demands that it be passed over.

mod limits;
mod normal;

use crate::config::{Built, controls};
use crate::host::cause::Surroundings;
use crate::host::idmap::{self, IdPlan};
use crate::request::{self, Launching, LimitsLevel, Network, ReadOnly, RunRequest, StorageDriver};
use crate::storage::Storage;
pub use limits::change;
use normal::Normal;
use oci_spec::runtime::{LinuxIdMapping, LinuxNamespaceType, Spec};
use rlrun_image::{ImageConfig, ResolvedImage};
use rlrun_spec::container::{Beside, NetworkMode, UserNamespace};
use rlrun_spec::host::HostFacts;
use rlrun_spec::policy::SeccompOverlay;
use rlrun_spec::{
    ContainerSpec, Failure, IdMapping, IdMaps, IdRange, ImageIdentity, Kind, MapWriter, SpecParts, Stage,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// Longer ones are nobody's: a hundred mounts and a large filter are 100 KiB.
const MOST_BYTES: u64 = 4 << 20;

const SIGTERM: i32 = 15;

/// What a container is made of that has no image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bundle {
    /// The directory.
    pub directory: PathBuf,
    /// Its root file system.
    pub root: PathBuf,
    /// `config.json` as it was when the container was created.
    pub config: Box<Spec>,
}

pub(crate) fn refused(field: &str, why: impl Into<String>) -> Failure {
    let failure = Failure::new(Stage::Cli, Kind::Usage, "bundle", "honour config.json", field).why(why.into());
    failure.hint("change it in config.json, or leave it out")
}

impl Bundle {
    /// Reads one. The strings are what the user is to be told: properties that nobody here knows, which the
    /// specification forbids to be an error.
    ///
    /// # Errors
    /// When there is no readable `config.json`, it is of another specification, or the root file system is not there.
    pub fn read(directory: &Path) -> Result<(Bundle, Vec<String>), Failure> {
        let unusable = |operation: &str, path: &Path, why: String| {
            let failure = Failure::new(Stage::Cli, Kind::Usage, "bundle", operation, path.display().to_string());
            failure.why(why).hint("a bundle is a directory with config.json and a root file system")
        };
        let directory = directory.canonicalize().map_err(|e| unusable("find the bundle", directory, e.to_string()))?;
        let path = directory.join("config.json");
        let mut text = String::new();
        File::open(&path)
            .and_then(|file| file.take(MOST_BYTES + 1).read_to_string(&mut text))
            .map_err(|e| unusable("read the configuration", &path, e.to_string()))?;
        if text.len() as u64 > MOST_BYTES {
            return Err(unusable("read the configuration", &path, format!("it has more than {MOST_BYTES} bytes")));
        }
        let no_json = |e: serde_json::Error| unusable("read the configuration", &path, e.to_string());
        let written: Value = serde_json::from_str(&text).map_err(no_json)?;
        let config: Spec = serde_json::from_str(&text).map_err(no_json)?;
        if config.version().split('.').next() != Some("1") {
            return Err(refused("/ociVersion", format!("{:?} is not a version 1", config.version())));
        }
        let Some(root) = config.root() else { return Err(refused("/root", "is missing")) };
        let root = directory.join(root.path());
        let root = root.canonicalize().map_err(|e| unusable("find the root file system", &root, e.to_string()))?;
        if !root.is_dir() {
            return Err(unusable("use the root file system", &root, "it is no directory".to_owned()));
        }
        let understood = serde_json::to_value(&config).map_err(no_json)?;
        let mut unknown = Vec::new();
        passed_over(&written, &understood, "", &mut unknown);
        let told = unknown.into_iter().map(|field| format!("config.json: {field} is not known and passed over"));
        Ok((Bundle { directory, root, config: Box::new(config) }, told.collect()))
    }

    /// What is to be run of it, under the name `name`.
    ///
    /// # Errors
    /// When a limit of it means nothing here.
    pub fn request(self, name: &str, level: LimitsLevel) -> Result<RunRequest, Failure> {
        let process = self.config.process().clone().ok_or_else(|| refused("/process", "is missing"))?;
        let own_network = has(&self.config, LinuxNamespaceType::Network);
        let security = request::security::SecurityRequest {
            no_new_privileges: process.no_new_privileges().unwrap_or(false),
            ..request::security::SecurityRequest::default()
        };
        Ok(RunRequest {
            image: self.directory.display().to_string(),
            command: process.args().clone().unwrap_or_default(),
            name: Some(name.to_owned()),
            // In the background only somebody who is attached could type.
            interactive: process.terminal().unwrap_or(false),
            tty: process.terminal().unwrap_or(false),
            env: Vec::new(),
            mounts: Vec::new(),
            image_volumes: request::ImageVolumes::Ignore,
            workdir: None,
            user: None,
            groups: Vec::new(),
            entrypoint: None,
            hostname: self.config.hostname().clone(),
            read_only: match self.config.root().as_ref().and_then(oci_spec::runtime::Root::readonly) {
                Some(true) => ReadOnly::Bare,
                Some(false) | None => ReadOnly::No,
            },
            privileged: false,
            capabilities: request::capability::CapabilityRequest::default(),
            security,
            network: Network {
                mode: if own_network { NetworkMode::None } else { NetworkMode::Host },
                ports: Vec::new(),
                dns: rlrun_net::files::Dns::default(),
                hosts: Vec::new(),
                exposed: Vec::new(),
                publish_all: false,
            },
            userns: request::UserNamespaceRequest::Default,
            init: false,
            stop_signal: None,
            umask: process.user().umask().unwrap_or(0o022),
            sysctls: Vec::new(),
            labels: Vec::new(),
            annotations: self.config.annotations().iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect(),
            limits: limits::request(&self.config, level)?,
            secrets: Vec::new(),
            devices: Vec::new(),
            shared: request::share::Shared {
                ipc: !has(&self.config, LinuxNamespaceType::Ipc),
                uts: !has(&self.config, LinuxNamespaceType::Uts),
                cgroup: !has(&self.config, LinuxNamespaceType::Cgroup),
            },
            own_files: request::OwnFiles::default(),
            env_changes: request::env::Changes::default(),
            personality: None,
            rootfs: None,
            launching: Launching::default(),
            bundle: Some(self),
        })
    }

    /// The id maps it asks for, which must be the caller's to give.
    ///
    /// # Errors
    /// When they are not, or this host allows no user namespace.
    pub(crate) fn ids(&self, host: &HostFacts) -> Result<IdPlan, Failure> {
        let own = idmap::plan(host, &UserNamespace::Default);
        let own = own.map_err(|cause| cause.failure(host, &Surroundings::read()))?;
        let linux = self.config.linux().as_ref();
        let lines = |all: Option<&Vec<LinuxIdMapping>>| -> Vec<IdMapping> {
            let line =
                |m: &LinuxIdMapping| IdMapping { container: m.container_id(), host: m.host_id(), count: m.size() };
            all.into_iter().flatten().map(line).collect()
        };
        let uids = lines(linux.and_then(|l| l.uid_mappings().as_ref()));
        let gids = lines(linux.and_then(|l| l.gid_mappings().as_ref()));
        if uids.is_empty() && gids.is_empty() {
            return Ok(own);
        }
        let checked = [
            ("/linux/uidMappings", &uids, host.uid, &host.subuids),
            ("/linux/gidMappings", &gids, host.gid, &host.subgids),
        ];
        for (field, lines, id, ranges) in checked {
            belong(field, lines, id, ranges)?;
        }
        let single = |lines: &[IdMapping], id| matches!(lines, [one] if one.count == 1 && one.host == id);
        let writer = match single(&uids, host.uid) && single(&gids, host.gid) {
            true => MapWriter::Single,
            false => match own.single {
                None => own.maps.writer,
                Some(cause) => return Err(cause.failure(host, &Surroundings::read())),
            },
        };
        Ok(IdPlan { maps: IdMaps { uids, gids, writer }, single: None })
    }

    /// In the place of an image.
    pub(crate) fn stand_in(&self) -> ResolvedImage {
        ResolvedImage {
            identity: ImageIdentity {
                reference: self.directory.display().to_string(),
                digest: String::new(),
                id: String::new(),
                platform: String::new(),
            },
            config: ImageConfig::default(),
            layers: Vec::new(),
            passwd: None,
            group: None,
            provenance: rlrun_image::Provenance::default(),
        }
    }
}

/// Its root file system is used as it is.
pub(crate) const STORAGE: Storage = Storage { driver: StorageDriver::Directory, fuse_binary: None, fell_back: None };

fn has(config: &Spec, kind: LinuxNamespaceType) -> bool {
    let namespaces = config.linux().as_ref().and_then(|l| l.namespaces().as_ref());
    namespaces.into_iter().flatten().any(|namespace| namespace.typ() == kind)
}

/// Whether every host id of a map is the caller's own or one of its subordinate ones. newuidmap(1) checks it again.
fn belong(field: &str, lines: &[IdMapping], own: u32, ranges: &[IdRange]) -> Result<(), Failure> {
    if lines.is_empty() {
        return Err(refused(field, "is missing, and the other one is there"));
    }
    let granted = |line: &IdMapping| {
        let end = line.host.checked_add(line.count);
        let within =
            |r: &IdRange| line.host >= r.start && end.is_some_and(|end| end <= r.start.saturating_add(r.count));
        (line.host == own && line.count == 1) || ranges.iter().any(within)
    };
    match lines.iter().find(|line| line.count == 0 || !granted(line)) {
        None => Ok(()),
        Some(line) => Err(refused(field, format!("{} ids from host id {} on are not yours", line.count, line.host))
            .hint("leave the mappings out to have all ids that are yours")),
    }
}

/// The pointers of what was written and has not been understood.
fn passed_over(written: &Value, understood: &Value, at: &str, found: &mut Vec<String>) {
    match (written, understood) {
        (Value::Object(written), Value::Object(understood)) => {
            for (name, value) in written {
                let at = format!("{at}/{name}");
                match understood.get(name) {
                    Some(understood) => passed_over(value, understood, &at, found),
                    None if is_nothing(value) => {}
                    None => found.push(at),
                }
            }
        }
        (Value::Array(written), Value::Array(understood)) if written.len() == understood.len() => {
            for (index, (value, understood)) in written.iter().zip(understood).enumerate() {
                passed_over(value, understood, &format!("{at}/{index}"), found);
            }
        }
        _ => {}
    }
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(all) => all.is_empty(),
        Value::Object(all) => all.is_empty(),
        Value::String(text) => text.is_empty(),
        Value::Bool(true) | Value::Number(_) => false,
    }
}

/// What a configuration is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Inputs<'a> {
    pub(crate) request: &'a RunRequest,
    pub(crate) bundle: &'a Bundle,
    pub(crate) host: &'a HostFacts,
    pub(crate) ids: &'a IdPlan,
    pub(crate) userns: &'a UserNamespace,
    pub(crate) id: &'a str,
    pub(crate) name: &'a str,
}

/// The configuration that policies judge.
///
/// # Errors
/// With the first thing that cannot be honoured.
pub(crate) fn build(inputs: Inputs<'_>) -> Result<Built, Failure> {
    let Inputs { request, bundle, host, ids, userns, .. } = inputs;
    crate::config::limits::check(&request.limits, false)?;
    let Normal { oci, resolved, mut warnings } = normal::normal(bundle, request, host, ids)?;
    let seccomp = match oci.linux().as_ref().and_then(|l| l.seccomp().as_ref()) {
        Some(_) => "config.json",
        None => "unconfined",
    };
    let sets = oci.process().as_ref().and_then(|p| p.capabilities().as_ref());
    let mut names: Vec<String> =
        sets.and_then(|s| s.bounding().as_ref()).into_iter().flatten().map(|c| format!("CAP_{c}")).collect();
    names.sort();
    let bounding = sets.and_then(|s| s.bounding().as_ref()).into_iter().flatten();
    let bounding = bounding.fold(0, |mask, c| mask | 1 << rlrun_spec::plan_from_oci::number(*c));
    let masked = oci.linux().as_ref().and_then(|l| l.masked_paths().as_ref()).map_or(0, Vec::len);
    let mut decided = controls::decide(controls::Effective {
        request,
        host,
        ids,
        userns,
        storage: &STORAGE,
        ports: &[],
        seccomp_profile: seccomp,
        capabilities: &names.join(","),
        bounding,
        masked,
    })?;
    for control in &mut decided.all {
        if control.name == "user-namespace" {
            "config.json".clone_into(&mut control.requested);
            if ids.maps.writer == MapWriter::Single {
                "the caller's own id only".clone_into(&mut control.mechanism);
            }
        }
    }
    warnings.extend(decided.warnings);
    let spec = ContainerSpec::new(SpecParts {
        id: inputs.id.to_owned(),
        name: inputs.name.to_owned(),
        image: None,
        privileged: false,
        network: request.network.mode,
        ports: Vec::new(),
        dns: Vec::new(),
        egress: None,
        userns: userns.clone(),
        init: false,
        interactive: request.interactive,
        seccomp_profile: seccomp.to_owned(),
        seccomp_overlay: SeccompOverlay::default(),
        resolved_sources: resolved,
        controls: decided.all,
        imposable: crate::config::limits::imposable(&request.limits, host, bounding),
        beside: Beside {
            remove: request.launching.remove,
            detached: request.launching.life.detach,
            ..Beside::default()
        },
        oci,
    })
    .map_err(|rlrun_spec::container::InvalidSpec::Field { field, why }| refused(&field, why))?;
    Ok(Built { spec, warnings, account_files: Vec::new(), stop_signal: SIGTERM })
}

#[cfg(test)]
mod tests;
