//! A container as `inspect` shows it, under podman's names.

use crate::table::timestamp;
use rlrun_engine::containers::{Container, Status};
use rlrun_engine::place::Place;
use rlrun_engine::record::{Details, Mounted};
use rlrun_engine::volumes;
use rlrun_spec::container::PortMapping;
use rlrun_spec::health::{HEALTH, Health};
use rlrun_spec::life::{Log, Restart};
use rlrun_spec::{Failure, Kind, Stage};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// `80/tcp` and `0.0.0.0:8080`.
pub(super) fn port(mapping: &PortMapping) -> (String, String) {
    let protocol = serde_json::to_value(mapping.protocol).unwrap_or_default();
    let inside = format!("{}/{}", mapping.container_port, protocol.as_str().unwrap_or_default());
    (inside, format!("{}:{}", mapping.host_ip, mapping.host_port))
}

/// The time of an event; podman's zero time for one that has not been.
fn moment(nanoseconds: u64) -> String {
    if nanoseconds == 0 { "0001-01-01T00:00:00Z".to_owned() } else { timestamp(nanoseconds) }
}

/// One element of the array.
pub(super) fn document(place: &Place, container: &Container) -> Result<Value, Failure> {
    let Container { summary, state, directory, .. } = container;
    let details = Details::read(directory).map_err(|e| {
        Failure::new(Stage::Cli, Kind::Runtime, "inspect", "read the record of", summary.name.clone())
            .why(e.to_string())
    })?;
    let oci = serde_json::to_value(&details.spec.oci).unwrap_or_default();
    let at = |pointer: &str| oci.pointer(pointer).cloned().unwrap_or(Value::Null);
    let log = match &summary.life.log {
        Log::None => json!({"Type": "none", "Path": ""}),
        Log::File { path, .. } => json!({"Type": "k8s-file", "Path": path}),
    };
    let labels: BTreeMap<_, _> = summary.labels.iter().cloned().collect();
    let mut ports = Map::new();
    for mapping in &summary.ports {
        let (inside, _) = port(mapping);
        let binding = json!({"HostIp": mapping.host_ip.to_string(), "HostPort": mapping.host_port.to_string()});
        if let Some(list) = ports.entry(inside).or_insert_with(|| json!([])).as_array_mut() {
            list.push(binding);
        }
    }
    let image = summary.image.as_ref();
    Ok(json!({
        "Id": summary.id,
        "Created": moment(summary.created),
        "Path": summary.command.first(),
        "Args": summary.command.get(1..).unwrap_or_default(),
        "State": document_of_state(container),
        "Image": image.map(|i| i.id.trim_start_matches("sha256:")),
        "ImageDigest": image.map(|i| &i.digest),
        "ImageName": image.map(|i| &i.reference),
        "Name": summary.name,
        "RestartCount": state.restarts,
        "Driver": summary.storage_driver.to_string(),
        "BoundingCaps": at("/process/capabilities/bounding"),
        "EffectiveCaps": at("/process/capabilities/effective"),
        "Mounts": summary.mounts.iter().map(|m| mounted(place, m)).collect::<Vec<_>>(),
        "NetworkSettings": {"Ports": ports},
        "Config": {
            "Hostname": at("/hostname"),
            "User": details.request.user.clone().unwrap_or_default(),
            "Tty": summary.tty,
            "OpenStdin": summary.interactive,
            "Env": at("/process/env"),
            "Cmd": summary.command,
            "Image": image.map(|i| &i.reference),
            "WorkingDir": at("/process/cwd"),
            "Labels": labels,
            "Annotations": at("/annotations"),
            "StopSignal": summary.life.stop_signal,
            "StopTimeout": summary.life.stop_seconds,
            "Healthcheck": summary.life.health.as_ref().map(healthcheck),
            "HealthcheckOnFailureAction": summary.life.health.as_ref().map(|h| h.on_failure.word()),
            "Secrets": details.spec.beside.secrets,
            "Umask": format!("{:04o}", details.request.umask),
        },
        "HostConfig": with_limits(&at, json!({
            "AutoRemove": summary.remove,
            "NetworkMode": summary.network,
            "PortBindings": ports,
            "Privileged": details.spec.privileged,
            "ReadonlyRootfs": at("/root/readonly"),
            "RestartPolicy": {
                "Name": summary.life.restart.word(),
                "MaximumRetryCount": match summary.life.restart {
                    Restart::OnFailure { at_most } => at_most.unwrap_or(0),
                    Restart::No | Restart::Always | Restart::UnlessStopped => 0,
                },
            },
            "LogConfig": log,
            "Init": details.spec.init,
        })),
        "Controls": details.spec.controls,
        "Verdicts": details.verdicts,
    }))
}

/// Adds the limits, under podman's names.
fn with_limits(at: &dyn Fn(&str) -> Value, mut config: Value) -> Value {
    let resources = [
        ("Memory", "memory/limit"),
        ("MemorySwap", "memory/swap"),
        ("MemoryReservation", "memory/reservation"),
        ("MemorySwappiness", "memory/swappiness"),
        ("OomKillDisable", "memory/disableOOMKiller"),
        ("CpuPeriod", "cpu/period"),
        ("CpuQuota", "cpu/quota"),
        ("CpuShares", "cpu/shares"),
        ("CpusetCpus", "cpu/cpus"),
        ("PidsLimit", "pids/limit"),
    ];
    for (name, field) in resources {
        config[name] = at(&format!("/linux/resources/{field}"));
    }
    config["NanoCpus"] = nano_cpus(at("/linux/resources/cpu/quota"), at("/linux/resources/cpu/period"));
    config["OomScoreAdj"] = at("/process/oomScoreAdj");
    config["Ulimits"] = at("/process/rlimits");
    config
}

/// Billionths of a CPU.
fn nano_cpus(quota: Value, period: Value) -> Value {
    match (quota.as_u64(), period.as_u64().filter(|period| *period > 0)) {
        (Some(quota), Some(period)) => json!(quota.saturating_mul(1_000_000_000) / period),
        _ => Value::Null,
    }
}

fn document_of_state(container: &Container) -> Value {
    let Container { state, status, .. } = container;
    json!({
        "Status": status.word(),
        "Running": status.is_alive(),
        "Paused": *status == Status::Paused,
        "Restarting": *status == Status::Restarting,
        "StoppedByUser": state.stopped,
        "OOMKilled": state.oom_killed,
        "Dead": *status == Status::Dead,
        "Pid": state.pid,
        "ConmonPid": state.supervisor,
        "ExitCode": state.exit_code,
        "Error": state.error,
        "StartedAt": moment(state.started),
        "FinishedAt": moment(state.finished),
        "Health": health(container),
    })
}

/// What the last checks found, as the supervisor wrote it; nothing where nothing is checked.
fn health(container: &Container) -> Value {
    if container.summary.life.health.is_none() {
        return Value::Null;
    }
    let text = std::fs::read(container.directory.join(HEALTH)).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_else(|_| json!({"Status": "starting", "FailingStreak": 0, "Log": []}))
}

/// In docker's form, with nanoseconds.
fn healthcheck(health: &Health) -> Value {
    let nanoseconds = |ms: u64| ms.saturating_mul(1_000_000);
    let test: Vec<&str> = std::iter::once("CMD").chain(health.command.iter().map(String::as_str)).collect();
    json!({
        "Test": test,
        "Interval": health.interval_ms.map_or(0, nanoseconds),
        "Timeout": nanoseconds(health.timeout_ms),
        "StartPeriod": nanoseconds(health.start_period_ms),
        "Retries": health.retries,
    })
}

fn mounted(place: &Place, mount: &Mounted) -> Value {
    let is_volume = mount.kind == "volume";
    let source = match is_volume {
        true => place.data.join(volumes::DIRECTORY).join(&mount.source).join(volumes::DATA).display().to_string(),
        false => mount.source.clone(),
    };
    json!({
        "Type": mount.kind,
        "Name": if is_volume { mount.source.as_str() } else { "" },
        "Source": source,
        "Destination": mount.destination,
        "Driver": if is_volume { "local" } else { "" },
        "RW": !mount.read_only,
    })
}
