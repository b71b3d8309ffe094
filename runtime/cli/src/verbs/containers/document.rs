//! A container as `inspect` shows it, under podman's names.

mod host_config;

use crate::table::timestamp;
use rlrun_engine::containers::{Container, DISK, Status};
use rlrun_engine::place::Place;
use rlrun_engine::record::{Details, Mounted, RECORD};
use rlrun_engine::{images, usage, volumes};
use rlrun_spec::container::PortMapping;
use rlrun_spec::health::{HEALTH, Health};
use rlrun_spec::usage::{Spent, Traffic};
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
    let image = summary.image.as_ref();
    let ports = ports(&summary.ports);
    // Where its mapper sees it, when that is a file system of its own.
    let written = if directory.join(DISK).exists() { directory.join("disk") } else { directory.clone() };
    let mut document = json!({
        "Id": summary.id,
        "Created": moment(summary.created),
        "Path": summary.command.first(),
        "Args": summary.command.get(1..).unwrap_or_default(),
        "State": document_of_state(container),
        "Image": image.map_or("", |i| i.id.trim_start_matches("sha256:")),
        "Rootfs": details.request.rootfs.as_ref().map_or(std::path::Path::new(""), |root| &root.path),
        "ImageDigest": image.map_or("", |i| &i.digest),
        "ImageName": image.map_or("", |i| &i.reference),
        "StaticDir": directory,
        "OCIConfigPath": directory.join(RECORD),
        "OCIRuntime": "rlrun",
        "PidFile": details.request.launching.pidfile.clone().unwrap_or_default(),
        "Name": summary.name,
        "RestartCount": state.restarts,
        "Driver": summary.storage_driver.to_string(),
        "BoundingCaps": at(&oci, "/process/capabilities/bounding"),
        "EffectiveCaps": at(&oci, "/process/capabilities/effective"),
        "GraphDriver": {
            "Name": summary.storage_driver.to_string(),
            "Data": {
                "MergedDir": container.mount_point(),
                "UpperDir": written.join("upper"),
                "WorkDir": written.join("work"),
            },
        },
        "Mounts": summary.mounts.iter().filter(|m| !m.source.is_empty()).map(|m| mounted(place, m, &oci)).collect::<Vec<_>>(),
        "NetworkSettings": network(&ports),
        "Config": config(place, container, &details, &oci),
        "HostConfig": host_config::document(container, &details, &oci, &ports),
        "Statistics": statistics(container),
        "Controls": details.spec.controls,
        "Verdicts": details.verdicts,
    });
    // What rlrun has not; scripts look it up all the same.
    let nothing = ["Pod", "ResolvConfPath", "HostnamePath", "HostsPath", "ConmonPidFile", "Namespace"];
    let unlabelled = ["MountLabel", "ProcessLabel", "AppArmorProfile"];
    for name in nothing.into_iter().chain(unlabelled) {
        document[name] = json!("");
    }
    for name in ["ExecIDs", "Dependencies"] {
        document[name] = json!([]);
    }
    for name in ["IsInfra", "IsService"] {
        document[name] = json!(false);
    }
    Ok(document)
}

/// With what podman's templates know and its JSON leaves out where it is empty.
pub(super) fn complete(document: &mut Value) {
    let state = &mut document["State"];
    // Its name in podman 3.
    state["Healthcheck"] = state["Health"].clone();
    for name in ["CheckpointLog", "CheckpointPath", "RestoreLog"] {
        state[name] = json!("");
    }
    for name in ["Checkpointed", "Restored"] {
        state[name] = json!(false);
    }
    let config = &mut document["Config"];
    config["DomainName"] = config["Domainname"].clone();
    config["ChrootDirs"] = json!([]);
    config["SdNotifySocket"] = json!("");
    config["SystemdMode"] = json!(false);
    let network = &mut document["NetworkSettings"];
    network["Networks"] = json!({});
    for name in ["AdditionalMacAddresses", "SecondaryIPAddresses", "SecondaryIPv6Addresses"] {
        network[name] = json!([]);
    }
    let maps = &mut document["HostConfig"]["IDMappings"];
    (maps["UIDMap"], maps["GIDMap"]) = (maps["UidMap"].clone(), maps["GidMap"].clone());
    for name in ["SizeRw", "SizeRootFs"] {
        if document.get(name).is_none() {
            document[name] = Value::Null;
        }
    }
}

fn at(oci: &Value, pointer: &str) -> Value {
    oci.pointer(pointer).cloned().unwrap_or(Value::Null)
}

/// By port inside.
fn ports(mappings: &[PortMapping]) -> Value {
    let mut ports = Map::new();
    for mapping in mappings {
        let (inside, _) = port(mapping);
        let binding = json!({"HostIp": mapping.host_ip.to_string(), "HostPort": mapping.host_port.to_string()});
        if let Some(list) = ports.entry(inside).or_insert_with(|| json!([])).as_array_mut() {
            list.push(binding);
        }
    }
    Value::Object(ports)
}

/// A network of one container has no addresses that anybody else could use.
fn network(ports: &Value) -> Value {
    json!({
        "EndpointID": "",
        "Gateway": "",
        "IPAddress": "",
        "IPPrefixLen": 0,
        "IPv6Gateway": "",
        "GlobalIPv6Address": "",
        "GlobalIPv6PrefixLen": 0,
        "MacAddress": "",
        "Bridge": "",
        "SandboxID": "",
        "HairpinMode": false,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "Ports": ports,
        "SandboxKey": "",
    })
}

fn config(place: &Place, container: &Container, details: &Details, oci: &Value) -> Value {
    let summary = &container.summary;
    let labels: BTreeMap<_, _> = summary.labels.iter().cloned().collect();
    let (entrypoint, command) = summary.command.split_at(entrypoint_words(place, container, details));
    json!({
        "Hostname": at(oci, "/hostname"),
        "Domainname": "",
        "User": details.request.user.clone().unwrap_or_default(),
        "AttachStdin": false,
        "AttachStdout": false,
        "AttachStderr": false,
        "Tty": summary.tty,
        "OpenStdin": summary.interactive,
        "StdinOnce": false,
        "Env": at(oci, "/process/env"),
        "Cmd": command,
        "Image": summary.image.as_ref().map(|i| &i.reference),
        "Volumes": null,
        "WorkingDir": at(oci, "/process/cwd"),
        "Entrypoint": entrypoint.join(" "),
        "OnBuild": null,
        "Labels": labels,
        "Annotations": at(oci, "/annotations"),
        "StopSignal": summary.life.stop_signal,
        "Healthcheck": summary.life.health.as_ref().map(healthcheck),
        "HealthcheckOnFailureAction": summary.life.health.as_ref().map(|h| h.on_failure.word()),
        "CreateCommand": details.request.launching.argv,
        "Secrets": details.spec.beside.secrets,
        "Umask": format!("{:04o}", details.request.umask),
        "Timeout": summary.life.timeout_seconds.unwrap_or(0),
        "StopTimeout": summary.life.stop_seconds,
        "Passwd": !details.request.own_files.no_passwd,
        "sdNotifyMode": "ignore",
    })
}

/// How many of the words that are executed are the entry point; the rest is the command.
fn entrypoint_words(place: &Place, container: &Container, details: &Details) -> usize {
    let (all, request) = (&container.summary.command, &details.request);
    let words = match &request.entrypoint {
        Some(words) => words.len(),
        None if !request.command.is_empty() => all.len().saturating_sub(request.command.len()),
        None => {
            let image = container.summary.image.as_ref().and_then(|image| images::details(place, &image.id).ok());
            image.and_then(|image| Some(image.config.pointer("/config/Entrypoint")?.as_array()?.len())).unwrap_or(0)
        }
    };
    words.min(all.len())
}

/// Where its processes are counted and limited; empty where no cgroup is used.
fn cgroup(container: &Container) -> String {
    let membership = rlrun_engine::cgroup::of(&container.directory);
    let first = membership.and_then(|membership| membership.directories.into_iter().next());
    first.map(|path| path.display().to_string()).unwrap_or_default()
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
        "OciVersion": "1.0.2",
        "CgroupPath": cgroup(container),
        "CheckpointedAt": moment(0),
        "RestoredAt": moment(0),
    })
}

/// What it uses now, or had used when it ended last.
fn statistics(container: &Container) -> Value {
    let spent = |spent: &Spent| spent.named().map(|(name, n)| (name.to_owned(), json!(n))).collect();
    let live = match usage::sample(container.clone()) {
        Ok(sample) => sample.usage,
        // It runs and does not answer; all else about it is known.
        Err(failure) => return json!({"Error": failure.to_string()}),
    };
    let Some(usage) = live else { return Value::Object(spent(&container.state.spent)) };
    let mut statistics = spent(&usage.spent());
    let Traffic { received, sent } = usage.network.unwrap_or_default();
    for (name, number) in [
        ("MemUsage", usage.memory),
        ("MemLimit", usage.memory_limit.unwrap_or_else(usage::machine_memory)),
        ("Swap", usage.swap),
        ("PIDs", usage.tasks),
        ("BlockInput", usage.block_read),
        ("BlockOutput", usage.block_written),
        ("NetInput", received),
        ("NetOutput", sent),
    ] {
        statistics.insert(name.to_owned(), json!(number));
    }
    Value::Object(statistics)
}

/// What the last checks found, as the supervisor wrote it; nothing where nothing is checked.
fn health(container: &Container) -> Value {
    if container.summary.life.health.is_none() {
        return json!({"Status": "", "FailingStreak": 0, "Log": null});
    }
    let text = std::fs::read(container.directory.join(HEALTH)).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_else(|_| json!({"Status": "starting", "FailingStreak": 0, "Log": []}))
}

/// In docker's form, with nanoseconds.
fn healthcheck(health: &Health) -> Value {
    let nanoseconds = |ms: u64| ms.saturating_mul(1_000_000);
    let words: Vec<&str> = health.command.iter().map(String::as_str).collect();
    let test = match words[..] {
        ["/bin/sh", "-c", script] => vec!["CMD-SHELL", script],
        _ => [&["CMD"], &words[..]].concat(),
    };
    json!({
        "Test": test,
        "Interval": health.interval_ms.map_or(0, nanoseconds),
        "Timeout": nanoseconds(health.timeout_ms),
        "StartPeriod": nanoseconds(health.start_period_ms),
        "Retries": health.retries,
    })
}

fn mounted(place: &Place, mount: &Mounted, oci: &Value) -> Value {
    let is_volume = mount.kind == "volume";
    let source = match is_volume {
        true => place.data.join(volumes::DIRECTORY).join(&mount.source).join(volumes::DATA).display().to_string(),
        false => mount.source.clone(),
    };
    let options = options(&mount.destination, oci);
    let propagation = options.iter().rfind(|o| ["rslave", "slave", "rprivate", "private"].contains(&o.as_str()));
    let mut document = json!({
        "Type": mount.kind,
        "Source": source,
        "Destination": mount.destination,
        "Driver": if is_volume { "local" } else { "" },
        "Mode": "",
        "Options": options.iter().filter(|o| ["nosuid", "nodev", "noexec", "rbind", "bind"].contains(&o.as_str())).collect::<Vec<_>>(),
        "RW": !mount.read_only,
        "Propagation": propagation.map_or("rprivate", String::as_str),
    });
    if is_volume {
        document["Name"] = json!(mount.source);
    }
    document
}

/// How something is mounted, as it was admitted.
fn options(destination: &str, oci: &Value) -> Vec<String> {
    let mounts = oci.pointer("/mounts").and_then(Value::as_array);
    let mount = mounts.into_iter().flatten().find(|m| m["destination"] == destination);
    let options = mount.and_then(|m| m["options"].as_array());
    options.into_iter().flatten().filter_map(|o| o.as_str().map(str::to_owned)).collect()
}
