//! What 0.2 of the ABI says beside 0.1: the facts about containers and images, and the parts that are asked about.

use crate::bindings::exports::rlrun::policy2::{copy_out, exit, mount, secret};
use crate::bindings::rlrun::policy::types as wit;
use crate::bindings::rlrun::policy2::{contents, facts, provenance, subject};
use crate::evaluate_parts::Shown;
use crate::host::HostSide;
use crate::request;
use oci_spec::runtime::LinuxResources;
use rlrun_spec::SpecParts;
use rlrun_spec::container::{ImageIdentity, ImageWishes, SecretForm, SecretUse};
use rlrun_spec::life::Restart;
use rlrun_spec::policy::{
    Attestation, CopyOut, ExitEvent, ImageFacts, Origin, Outward, PortName, PrivilegedFile, PrivilegedFiles, Subject,
};

/// A container with everything that any hook may be shown of it.
pub(crate) fn shown(parts: &SpecParts, host: &HostSide) -> Shown {
    let container = request::container(parts, host);
    let subject =
        subject::Subject { id: container.id.clone(), name: container.name.clone(), image: container.image.clone() };
    let mounts = container.mounts.iter().filter(|m| is_asked_for(m)).map(|m| mount::Request {
        mount: m.clone(),
        volume: (m.kind == "volume").then(|| m.source.clone()),
        own_paths: container.own_paths.clone(),
    });
    Shown {
        facts: container_facts(parts),
        subject,
        ports: parts.ports.iter().map(PortName::from).collect(),
        mounts: mounts.collect(),
        secrets: parts.beside.secrets.iter().map(secret).collect(),
        container,
    }
}

/// Not those that every container has.
fn is_asked_for(mount: &wit::Mount) -> bool {
    let inside = |place: &str| {
        mount.destination.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    match mount.kind.as_str() {
        "bind" | "volume" | "image" => true,
        "tmpfs" | "ramfs" | "devpts" => !inside("/dev") && !inside("/proc") && !inside("/sys"),
        _ => false,
    }
}

fn container_facts(parts: &SpecParts) -> facts::ContainerFacts {
    let beside = &parts.beside;
    let linux = parts.oci.linux().as_ref();
    let resources = linux.and_then(|l| l.resources().as_ref());
    let cpu = resources.and_then(|r: &LinuxResources| r.cpu().as_ref());
    let process = parts.oci.process().as_ref();
    let rlimits = process.and_then(|p| p.rlimits().as_deref()).unwrap_or_default();
    let (restart, max_restarts) = match beside.restart {
        Restart::No => ("no", 0),
        Restart::OnFailure { at_most } => ("on-failure", at_most.unwrap_or(0)),
        Restart::Always => ("always", 0),
        Restart::UnlessStopped => ("unless-stopped", 0),
    };
    facts::ContainerFacts {
        image_config: beside.image.as_ref().map(image_config),
        restart: restart.to_owned(),
        max_restarts,
        remove: beside.remove,
        detached: beside.detached,
        healthcheck: beside.healthcheck,
        disk_bytes: beside.disk_bytes,
        shm_bytes: shm_bytes(parts),
        cpu_shares: cpu.and_then(|c| c.shares()),
        cpuset: cpu.and_then(|c| c.cpus().clone()).filter(|set| !set.is_empty()),
        cgroup_parent: linux.and_then(|l| l.cgroups_path().as_ref()).map(|p| p.to_string_lossy().into_owned()),
        apparmor_profile: process.and_then(|p| p.apparmor_profile().clone()),
        selinux_label: process.and_then(|p| p.selinux_label().clone()),
        rlimits: rlimits
            .iter()
            .map(|l| facts::Rlimit { kind: l.typ().to_string(), hard: l.hard(), soft: l.soft() })
            .collect(),
        secrets: beside.secrets.iter().map(|s| s.name.clone()).collect(),
    }
}

/// The option `size` of the tmpfs there, `64m` or in bytes (tmpfs(5)).
fn shm_bytes(parts: &SpecParts) -> Option<u64> {
    let mounts = parts.oci.mounts().as_deref().unwrap_or_default();
    let shm = mounts.iter().rfind(|m| m.destination().as_os_str() == "/dev/shm")?;
    let size = shm.options().as_deref().unwrap_or_default().iter().find_map(|o| o.strip_prefix("size="))?;
    let (digits, unit) = match size.char_indices().find(|(_, c)| !c.is_ascii_digit()) {
        Some((at, unit)) => (size.get(..at)?, unit.to_ascii_lowercase()),
        None => (size, 'b'),
    };
    let factor = match unit {
        'b' => 1,
        'k' => 1 << 10,
        'm' => 1 << 20,
        'g' => 1 << 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

fn image_config(wishes: &ImageWishes) -> facts::ImageConfig {
    facts::ImageConfig {
        user: wishes.user.clone(),
        env: request::env(&wishes.env),
        labels: pairs(&wishes.labels),
        entrypoint: wishes.entrypoint.clone(),
        exposed_ports: wishes.exposed_ports.clone(),
        volumes: wishes.volumes.clone(),
        created: wishes.created.clone(),
    }
}

fn pairs(pairs: &[(String, String)]) -> Vec<wit::Pair> {
    pairs.iter().map(|(name, value)| wit::Pair { name: name.clone(), value: value.clone() }).collect()
}

fn secret(secret: &SecretUse) -> secret::Request {
    secret::Request {
        name: secret.name.clone(),
        form: match secret.form {
            SecretForm::File => secret::Form::File,
            SecretForm::Environment => secret::Form::Environment,
        },
        target: secret.target.clone(),
        mode: secret.mode.map(|mode| format!("{mode:04o}")).unwrap_or_default(),
    }
}

pub(crate) fn image_facts(image: &ImageFacts) -> facts::ImageFacts {
    facts::ImageFacts {
        manifest: image.manifest.clone(),
        config: image.config.clone(),
        media_type: image.media_type.clone(),
        annotations: pairs(&image.annotations),
        layers: image
            .layer_list
            .iter()
            .map(|l| facts::Layer {
                digest: l.digest.clone(),
                media_type: l.media_type.clone(),
                size_bytes: l.size_bytes,
            })
            .collect(),
        history: image
            .history_list
            .iter()
            .map(|h| facts::HistoryEntry {
                created_by: h.created_by.clone(),
                comment: h.comment.clone(),
                created: h.created.clone(),
                empty_layer: h.empty_layer,
            })
            .collect(),
        attestations: image.attestations.iter().map(attestation).collect(),
    }
}

fn attestation(attestation: &Attestation) -> facts::Attestation {
    facts::Attestation { digest: attestation.digest.clone(), media_type: attestation.media_type.clone() }
}

/// What `provenance.image` shows.
pub(crate) fn origin(origin: &Origin) -> provenance::Origin {
    provenance::Origin {
        pinned: origin.pinned,
        signatures: origin.signatures.iter().map(request::signature).collect(),
        looked: origin.looked,
        attestations: origin.attestations.iter().map(attestation).collect(),
        sbom: origin.attestations.iter().any(Attestation::is_sbom),
    }
}

/// What `contents.privileged` shows.
pub(crate) fn privileged(told: PrivilegedFiles) -> contents::PrivilegedFiles {
    let file = |file: PrivilegedFile| contents::PrivilegedFile {
        path: file.path,
        set_user_id: file.set_user_id,
        set_group_id: file.set_group_id,
        file_capabilities: file.file_capabilities,
        uid: file.uid,
        gid: file.gid,
        layer: file.layer,
    };
    let files = told.files.into_iter().map(file).collect();
    contents::PrivilegedFiles { files, truncated: told.truncated, unknown: told.unknown }
}

/// Of an image that comes in.
pub(crate) fn origin_of(image: &ImageFacts) -> provenance::Origin {
    origin(&Origin {
        pinned: image.reference.contains('@'),
        signatures: image.signatures.clone(),
        looked: image.looked,
        attestations: image.attestations.clone(),
    })
}

pub(crate) fn subject(subject: &Subject) -> subject::Subject {
    let image = |i: &ImageIdentity| wit::ImageRef {
        reference: i.reference.clone(),
        digest: i.digest.clone(),
        platform: i.platform.clone(),
    };
    subject::Subject { id: subject.id.clone(), name: subject.name.clone(), image: subject.image.as_ref().map(image) }
}

pub(crate) fn copy_out(request: &CopyOut) -> copy_out::Request {
    copy_out::Request {
        operation: match request.operation {
            Outward::Cp => copy_out::Operation::Cp,
            Outward::Export => copy_out::Operation::Export,
            Outward::Commit => copy_out::Operation::Commit,
        },
        source: request.source.clone(),
        destination: request.destination.clone(),
    }
}

pub(crate) fn exit(event: &ExitEvent) -> exit::Event {
    exit::Event {
        container: subject(&event.container),
        exit_code: event.exit_code,
        finished_unix_ns: event.finished,
        oom_killed: event.oom_killed,
    }
}
