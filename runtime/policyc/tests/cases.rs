//! The cases of the first-party policies once more, this time asked of the components through admission: what a
//! policy says natively it says inside too, and a configuration arrives in it as the ABI says.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod common;

use common::{Place, write};
use rlrun_admission::{LookInside, PolicySet, Sources};
use rlrun_policy as sdk;
use rlrun_policy::fixtures::{Ask, Case};
use rlrun_spec::container::{Beside, ImageIdentity, ImageWishes, NetworkMode, PortMapping, Protocol, UserNamespace};
use rlrun_spec::life::Restart;
use rlrun_spec::policy::{
    Answer, Attestation, CopyOut, Decision, Denied, ExecRequest, HistoryEntry, ImageFacts, Origin, Outward,
    PrivilegedFiles, PullRequest, SeccompOverlay, Signature, Subject,
};
use rlrun_spec::{Caller, ContainerSpec, Control, Enforced, Level, SpecParts};
use std::cell::RefCell;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

/// Where `make policies` leaves them; None says why not.
fn built(name: &str) -> Option<PathBuf> {
    let beside = || {
        let exe = std::env::current_exe().unwrap();
        exe.ancestors().map(|a| a.join("policies")).find(|dir| dir.join("baseline.wasm").exists())
    };
    let dir = std::env::var_os("RLRUN_POLICY_OUT").map(PathBuf::from).filter(|dir| dir.exists()).or_else(beside);
    let path = dir.map(|dir| dir.join(format!("{name}.wasm"))).filter(|path| path.exists());
    if path.is_none() {
        let required = std::env::var("RLRUN_MUST_HAVE").is_ok_and(|needs| needs.contains("policies"));
        assert!(!required, "{name}.wasm is not built: make policies");
        eprintln!("skipped: {name}.wasm is not built: make policies");
    }
    path
}

/// Cases of what no configuration of rlrun's can say, as it always makes a user namespace, and of where it is installed,
/// which it finds out itself.
const NATIVE_ONLY: &[&str] = &[
    "cis/fixtures/deny-5.31.json",
    "baseline/fixtures/deny-writable-program-by-its-directory.json",
    "baseline/fixtures/deny-home-of-the-environment-key.json",
    "baseline/fixtures/deny-home-of-the-environment-whole.json",
    "baseline/fixtures/deny-writable-program.json",
    "baseline/fixtures/deny-writable-helper-programs.json",
];

thread_local! {
    /// What is in the image of the case.
    static CONTENTS: RefCell<Option<PrivilegedFiles>> = const { RefCell::new(None) };
}

fn look(_: &Path, _: &ImageIdentity) -> PrivilegedFiles {
    CONTENTS.with_borrow(Clone::clone).unwrap()
}

fn run(name: &str) {
    let Some(component) = built(name) else { return };
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../policies").join(name).join("fixtures");
    let place = Place::new();
    let mut wrong = Vec::new();
    let told = |case: &Case| !NATIVE_ONLY.iter().any(|name| case.path.ends_with(name));
    for (index, case) in Case::load_dir(&dir).unwrap().into_iter().filter(told).enumerate() {
        // A directory each, so that settings lie beside the policy, and whatever it has to be granted is.
        let user_dir = place.path(&format!("config/{index}"));
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&user_dir).unwrap();
        write(&user_dir.join(format!("{name}.wasm")), &std::fs::read(&component).unwrap());
        let settings: toml::Table = serde_json::from_str(&case.settings).unwrap();
        write(&user_dir.join(format!("{name}.toml")), toml::to_string(&settings).unwrap().as_bytes());
        write(&user_dir.join("policy.toml"), format!("[grants]\n{name} = [\"clock\"]\n").as_bytes());
        let home = Some(place.path("home"));
        let data_dir = place.path("home/.local/share/rlrun");
        let moment = Some(case.now);
        CONTENTS.set(
            case.contents.as_ref().map(|files| serde_json::from_value(serde_json::to_value(files).unwrap()).unwrap()),
        );
        let look_inside = case.contents.as_ref().map(|_| look as LookInside);
        let set =
            PolicySet::load(&Sources { user_dir, data_dir, home, moment, look_inside, ..place.sources() }).unwrap();
        if let Err(difference) = ask(&set, &moved(case, &place)) {
            wrong.push(difference);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn baseline() {
    run("baseline");
}

#[test]
fn image_source() {
    run("image-source");
}

#[test]
fn least_privilege() {
    run("least-privilege");
}

#[test]
fn cis() {
    run("cis");
}

#[test]
fn guardrails() {
    run("guardrails");
}

#[test]
fn house_rules() {
    run("house-rules");
}

#[test]
fn image_hygiene() {
    run("image-hygiene");
}

/// The case with the home directory and rlrun's directories of its story where they are here.
fn moved(mut case: Case, place: &Place) -> Case {
    let root = place.path("").canonicalize().unwrap();
    let here = [
        ("/home/alice/.config/rlrun", root.join("config")),
        ("/home/alice/.cache", root.clone()),
        ("/home/alice", root.join("home")),
    ];
    let rename = |path: &mut String| {
        let known = here.iter().find_map(|(there, here)| Some((path.strip_prefix(there)?, here)));
        if let Some((rest, here)) = known {
            *path = format!("{}{rest}", here.to_str().unwrap().trim_end_matches('/'));
        }
    };
    if let Ask::Create(container, _) = &mut case.ask {
        for mount in &mut container.mounts {
            rename(&mut mount.source);
            mount.resolved_source.iter_mut().for_each(rename);
        }
    }
    case
}

fn ask(set: &PolicySet, case: &Case) -> Result<(), String> {
    let answers = match &case.ask {
        Ask::Create(container, asking) => {
            set.evaluate(spec(container), &caller(asking)).map(|admitted| admitted.answers().to_vec())
        }
        Ask::Validate(container, asking) => {
            set.evaluate(spec(container), &caller(asking)).map(|admitted| admitted.finals().to_vec())
        }
        Ask::Pull(request, asking) => set.on_pull(&pull(request), &caller(asking)).map(|p| p.answers().to_vec()),
        Ask::Image(info, asking) => set.on_image(&facts(info), &caller(asking)).map(|p| p.answers().to_vec()),
        // Parts of admission, which the tests of the hooks ask about.
        Ask::Publish(..) | Ask::Mount(..) | Ask::Secret(..) | Ask::Exit(_) => return Ok(()),
        Ask::CopyOut(request, subject, asking) => {
            set.on_copy_out(&copy_out(request), &about(subject), &caller(asking)).map(|p| p.answers().to_vec())
        }
        Ask::Exec(request, container, asking) => {
            set.on_exec(&exec(request), &spec(container), &caller(asking)).map(|p| p.answers().to_vec())
        }
    };
    match answers {
        Ok(answers) => admitted(case, &answers[0]),
        Err(denied) => refused(case, &denied),
    }
}

fn admitted(case: &Case, answer: &Answer) -> Result<(), String> {
    let decision = match answer.decision {
        Decision::Allow => sdk::Decision::Allow,
        Decision::Abstain => sdk::Decision::Abstain,
        Decision::Deny => sdk::Decision::Deny,
    };
    let codes: Vec<&str> = answer.diagnostics.iter().map(|d| d.code.as_str()).collect();
    // What is tightened is compared natively; here it has been applied, and its number is the same.
    let expected = case.expect.restrictions.clone().unwrap_or_default();
    if case.expect.restrictions.is_some() && expected.len() != answer.restrictions.len() {
        return Err(format!("{}: {:?}", case.path.display(), answer.restrictions));
    }
    case.compare(decision, &codes, &expected)
}

fn refused(case: &Case, denied: &Denied) -> Result<(), String> {
    let codes: Vec<&str> = denied.refusals()[0].diagnostics.iter().map(|d| d.code.as_str()).collect();
    case.compare(sdk::Decision::Deny, &codes, &[])
}

fn caller(caller: &sdk::Caller) -> Caller {
    Caller {
        uid: caller.uid,
        gid: caller.gid,
        user: caller.user.clone(),
        origin: caller.origin.clone(),
        tty: caller.tty,
        ci: caller.ci,
    }
}

fn pull(pull: &sdk::Pull) -> PullRequest {
    PullRequest {
        reference: pull.image.reference.clone(),
        digest: Some(pull.image.digest.clone()).filter(|d| !d.is_empty()),
        platform: pull.image.platform.clone(),
        insecure: pull.insecure,
        mirror: pull.mirror.clone(),
    }
}

fn entries(pairs: &[sdk::Pair]) -> Vec<String> {
    pairs.iter().map(|p| format!("{}={}", p.name, p.value)).collect()
}

fn facts(info: &sdk::ImageInfo) -> ImageFacts {
    ImageFacts {
        reference: info.image.reference.clone(),
        digest: info.image.digest.clone(),
        platform: info.image.platform.clone(),
        created: info.created.clone(),
        user: info.user.clone(),
        env: entries(&info.env),
        labels: info.labels.iter().map(|p| (p.name.clone(), p.value.clone())).collect(),
        entrypoint: info.entrypoint.clone(),
        exposed_ports: info.exposed_ports.clone(),
        volumes: info.volumes.clone(),
        layers: info.layers,
        size_bytes: info.size_bytes,
        history: info.history.clone(),
        signatures: info.signatures.iter().filter(|s| s.verified).map(signature).collect(),
        manifest: info.facts.manifest.clone(),
        config: info.facts.config.clone(),
        media_type: info.facts.media_type.clone(),
        annotations: info.facts.annotations.iter().map(|p| (p.name.clone(), p.value.clone())).collect(),
        layer_list: Vec::new(),
        history_list: info.facts.history.iter().map(history).collect(),
        attestations: info
            .facts
            .attestations
            .iter()
            .map(|a| Attestation { digest: a.digest.clone(), media_type: a.media_type.clone() })
            .collect(),
        looked: true,
    }
}

fn history(entry: &sdk::HistoryEntry) -> HistoryEntry {
    HistoryEntry {
        created_by: entry.created_by.clone(),
        comment: entry.comment.clone(),
        created: entry.created.clone(),
        empty_layer: entry.empty_layer,
    }
}

fn control(control: &sdk::Control) -> Control {
    Control {
        name: control.name.clone(),
        requested: control.requested.clone(),
        mechanism: control.mechanism.clone(),
        enforced: match control.enforced {
            sdk::Enforced::No => Enforced::No,
            sdk::Enforced::Partly => Enforced::Partly,
            sdk::Enforced::Yes => Enforced::Yes,
        },
        level: if control.required { Level::Require } else { Level::Prefer },
        why: control.why.clone(),
    }
}

fn signature(signature: &sdk::Signature) -> Signature {
    Signature {
        scheme: signature.scheme.clone(),
        identity: signature.identity.clone().unwrap_or_default(),
        key_id: signature.key_id.clone().unwrap_or_default(),
    }
}

fn copy_out(request: &sdk::CopyOutRequest) -> CopyOut {
    CopyOut {
        operation: match request.operation {
            sdk::Operation::Cp => Outward::Cp,
            sdk::Operation::Export => Outward::Export,
            sdk::Operation::Commit => Outward::Commit,
        },
        source: request.source.clone(),
        destination: request.destination.clone(),
    }
}

fn about(subject: &sdk::Subject) -> Subject {
    Subject { id: subject.id.clone(), name: subject.name.clone(), image: subject.image.as_ref().map(identity) }
}

fn identity(image: &sdk::ImageRef) -> ImageIdentity {
    ImageIdentity {
        reference: image.reference.clone(),
        digest: image.digest.clone(),
        id: image.digest.clone(),
        platform: image.platform.clone(),
    }
}

fn beside(facts: &sdk::ContainerFacts) -> Beside {
    let wishes = |config: &sdk::ImageConfig| ImageWishes {
        user: config.user.clone(),
        env: entries(&config.env),
        labels: config.labels.iter().map(|p| (p.name.clone(), p.value.clone())).collect(),
        entrypoint: config.entrypoint.clone(),
        exposed_ports: config.exposed_ports.clone(),
        volumes: config.volumes.clone(),
        created: config.created.clone(),
    };
    Beside {
        restart: match facts.restart.as_str() {
            "always" => Restart::Always,
            "unless-stopped" => Restart::UnlessStopped,
            "on-failure" => Restart::OnFailure { at_most: Some(facts.max_restarts).filter(|most| *most > 0) },
            _ => Restart::No,
        },
        remove: facts.remove,
        detached: facts.detached,
        healthcheck: facts.healthcheck,
        disk_bytes: facts.disk_bytes,
        image: facts.image_config.as_ref().map(wishes),
        secrets: Vec::new(),
        origin: Origin::default(),
    }
}

fn exec(request: &sdk::ExecRequest) -> ExecRequest {
    ExecRequest {
        container_id: request.container_id.clone(),
        args: request.args.clone(),
        env: entries(&request.env),
        uid: request.uid,
        tty: request.tty,
        privileged: request.privileged,
    }
}

/// A configuration that a policy sees as this.
fn spec(container: &sdk::Container) -> ContainerSpec {
    let resolved = container.mounts.iter().filter_map(|m| Some((m.destination.clone(), m.resolved_source.clone()?)));
    ContainerSpec::new(SpecParts {
        id: container.id.clone(),
        name: container.name.clone(),
        image: container.image.as_ref().map(identity),
        privileged: container.privileged,
        network: match container.network.as_str() {
            "host" => NetworkMode::Host,
            "none" => NetworkMode::None,
            _ => NetworkMode::Slirp4netns,
        },
        ports: container.ports.iter().map(port).collect(),
        dns: container.dns.clone(),
        egress: None,
        seccomp_overlay: SeccompOverlay::default(),
        userns: UserNamespace::Default,
        init: container.init,
        interactive: container.interactive,
        seccomp_profile: container.seccomp.profile.clone(),
        resolved_sources: resolved.collect(),
        controls: container.controls.iter().map(control).collect(),
        imposable: if container.controls.is_empty() { imposable() } else { Vec::new() },
        beside: beside(&container.facts),
        oci: oci(container),
    })
    .unwrap()
}

/// As on a host where limits that a policy puts on are held. Cases that speak of controls have their own.
fn imposable() -> Vec<Control> {
    let held = |name: &str| Control {
        name: name.to_owned(),
        requested: String::new(),
        mechanism: "cgroup".to_owned(),
        enforced: Enforced::Yes,
        level: Level::Prefer,
        why: String::new(),
    };
    ["cpu-limit", "memory-limit", "pids-limit"].map(held).to_vec()
}

fn port(port: &sdk::Port) -> PortMapping {
    PortMapping {
        host_ip: port.host_ip.parse().unwrap(),
        host_port: port.host_port,
        container_port: port.container_port,
        protocol: if port.protocol == "udp" { Protocol::Udp } else { Protocol::Tcp },
    }
}

fn oci(container: &sdk::Container) -> oci_spec::runtime::Spec {
    let mount = |m: &sdk::Mount| {
        let kind = if m.kind == "bind" { "none" } else { &m.kind };
        serde_json::json!({"destination": m.destination, "type": kind, "source": m.source, "options": m.options})
    };
    let mounts: Vec<serde_json::Value> = container.mounts.iter().map(mount).collect();
    let seccomp = match container.seccomp.default_action.as_str() {
        "allow" => serde_json::Value::Null,
        "kill-process" => serde_json::json!({"defaultAction": "SCMP_ACT_KILL_PROCESS"}),
        _ => serde_json::json!({"defaultAction": "SCMP_ACT_ERRNO"}),
    };
    let own = ["cgroup", "ipc", "network", "pid", "uts"]
        .iter()
        .filter(|n| !container.host_namespaces.iter().any(|h| h == *n));
    let namespaces: Vec<serde_json::Value> = own.map(|n| serde_json::json!({"type": n})).collect();
    let value = serde_json::json!({
        "ociVersion": "1.2.0",
        "hostname": container.hostname,
        "root": {"path": "rootfs", "readonly": container.read_only_rootfs},
        "process": {
            "terminal": container.terminal,
            "user": {"uid": container.uid, "gid": container.gid},
            "args": container.args,
            "cwd": container.cwd,
            "env": entries(&container.env),
            "noNewPrivileges": container.no_new_privileges,
            "capabilities": {"bounding": container.capabilities, "effective": [], "permitted": [], "inheritable": [],
                             "ambient": []},
        },
        "mounts": mounts,
        "linux": {
            "namespaces": namespaces,
            "maskedPaths": container.masked_paths,
            "readonlyPaths": container.read_only_paths,
            "cgroupsPath": container.facts.cgroup_parent,
            "seccomp": seccomp,
            "resources": {
                "pids": container.limits.pids.map(|limit| serde_json::json!({"limit": limit})),
                "memory": container.limits.memory_bytes.map(|limit| serde_json::json!({"limit": limit})),
            },
        },
    });
    serde_json::from_value(value).unwrap()
}
