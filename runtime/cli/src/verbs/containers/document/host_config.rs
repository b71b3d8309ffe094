//! `HostConfig`: what was asked for and what it came to.

use super::{at, cgroup, options};
use rlrun_engine::containers::Container;
use rlrun_engine::record::{Details, Mounted};
use rlrun_engine::request::UserNamespaceRequest;
use rlrun_engine::request::capability::{Named, name_of};
use rlrun_engine::request::limits::{DEFAULT_SHM, DEVICE_RATES, device_rate};
use rlrun_engine::request::network::{AddHost, HostAddress};
use rlrun_engine::request::security::Seccomp;
use rlrun_spec::life::{Log, Restart};
use serde_json::{Map, Value, json};

pub(super) fn document(container: &Container, details: &Details, oci: &Value, ports: &Value) -> Value {
    let (summary, request) = (&container.summary, &details.request);
    let word = |host: bool| if host { "host" } else { "private" };
    let restart = summary.life.restart;
    let mut document = json!({
        "Binds": summary.mounts.iter().filter(|m| !m.source.is_empty()).map(|m| bind(m, oci)).collect::<Vec<_>>(),
        "CgroupManager": if cgroup(container).is_empty() { "none" } else { "cgroupfs" },
        "CgroupMode": word(request.shared.cgroup),
        "ContainerIDFile": request.launching.cidfile.clone().unwrap_or_default(),
        "LogConfig": log(&summary.life.log),
        "NetworkMode": summary.network,
        "PortBindings": ports,
        "RestartPolicy": {
            "Name": restart.word(),
            "MaximumRetryCount": match restart {
                Restart::OnFailure { at_most } => at_most.unwrap_or(0),
                Restart::No | Restart::Always | Restart::UnlessStopped => 0,
            },
        },
        "AutoRemove": summary.remove,
        "CapAdd": capabilities(&request.capabilities.add),
        "CapDrop": capabilities(&request.capabilities.drop),
        "Dns": request.network.dns.servers,
        "DnsOptions": request.network.dns.options,
        "DnsSearch": request.network.dns.search,
        "ExtraHosts": request.network.hosts.iter().flat_map(extra_hosts).collect::<Vec<_>>(),
        "GroupAdd": request.groups,
        "Init": details.spec.init,
        "IpcMode": word(request.shared.ipc),
        "PidMode": "private",
        "UTSMode": word(request.shared.uts),
        "UsernsMode": match request.userns {
            UserNamespaceRequest::Default => "",
            UserNamespaceRequest::KeepId { .. } => "keep-id",
            UserNamespaceRequest::Mapped { .. } => "private",
        },
        "IDMappings": {"UidMap": id_map(oci, "uidMappings"), "GidMap": id_map(oci, "gidMappings")},
        "Privileged": details.spec.privileged,
        "PublishAllPorts": request.network.publish_all,
        "ReadonlyRootfs": at(oci, "/root/readonly"),
        "SecurityOpt": security(details),
        "Tmpfs": tmpfs(&summary.mounts, oci),
        "ShmSize": request.limits.shm.unwrap_or(DEFAULT_SHM),
        "Runtime": "rlrun",
        "ConsoleSize": [0, 0],
        "Devices": request.devices.iter().map(|device| json!({
            "PathOnHost": device.source,
            "PathInContainer": device.inside,
            "CgroupPermissions": "rwm",
        })).collect::<Vec<_>>(),
        "DiskQuota": request.limits.disk.unwrap_or(0),
        "Ulimits": at(oci, "/process/rlimits").as_array().into_iter().flatten().map(ulimit).collect::<Vec<_>>(),
    });
    resources(&mut document, oci);
    block_io(&mut document, &request.limits.block_io, oci);
    nothing(&mut document);
    document
}

/// What rlrun has not, under podman's names and with its values for that.
fn nothing(document: &mut Value) {
    for name in ["VolumeDriver", "Cgroup", "Isolation", "CgroupParent", "CpusetMems"] {
        document[name] = json!("");
    }
    document["Cgroups"] = json!("default");
    for name in ["VolumesFrom", "Links", "BlkioWeightDevice", "CgroupConf"] {
        document[name] = Value::Null;
    }
    for name in ["CpuRealtimePeriod", "CpuRealtimeRuntime", "KernelMemory", "CpuCount", "CpuPercent"] {
        document[name] = json!(0);
    }
    for name in ["IOMaximumIOps", "IOMaximumBandwidth"] {
        document[name] = json!(0);
    }
}

/// The limits; 0 for none.
fn resources(document: &mut Value, oci: &Value) {
    let numbers = [
        ("Memory", "memory/limit"),
        ("MemorySwap", "memory/swap"),
        ("MemoryReservation", "memory/reservation"),
        ("MemorySwappiness", "memory/swappiness"),
        ("CpuPeriod", "cpu/period"),
        ("CpuQuota", "cpu/quota"),
        ("CpuShares", "cpu/shares"),
        ("PidsLimit", "pids/limit"),
    ];
    let or = |pointer: &str, nothing: Value| match at(oci, pointer) {
        Value::Null => nothing,
        value => value,
    };
    for (name, field) in numbers {
        document[name] = or(&format!("/linux/resources/{field}"), json!(0));
    }
    document["OomKillDisable"] = or("/linux/resources/memory/disableOOMKiller", json!(false));
    document["CpusetCpus"] = or("/linux/resources/cpu/cpus", json!(""));
    document["NanoCpus"] = nano_cpus(&document["CpuQuota"], &document["CpuPeriod"]);
    document["OomScoreAdj"] = or("/process/oomScoreAdj", json!(0));
}

/// Under the paths that were given: the configuration has only numbers.
fn block_io(document: &mut Value, asked: &[(String, String)], oci: &Value) {
    let weight = at(oci, "/linux/resources/blockIO/weight");
    document["BlkioWeight"] = if weight.is_null() { json!(0) } else { weight };
    let names = ["BlkioDeviceReadBps", "BlkioDeviceWriteBps", "BlkioDeviceReadIOps", "BlkioDeviceWriteIOps"];
    for ((option, _), name) in DEVICE_RATES.into_iter().zip(names) {
        let values = asked.iter().filter(|(other, _)| other == option).map(|(_, value)| value);
        let rates = values.filter_map(|value| device_rate(option, value));
        let rates: Vec<Value> = rates.map(|(path, rate)| json!({"Path": path, "Rate": rate})).collect();
        document[name] = if rates.is_empty() { Value::Null } else { json!(rates) };
    }
}

/// Its lines as `--uidmap` takes them, with ids of the host.
fn id_map(oci: &Value, name: &str) -> Vec<String> {
    let lines = at(oci, &format!("/linux/{name}"));
    let line = |l: &Value| format!("{}:{}:{}", l["containerID"], l["hostID"], l["size"]);
    lines.as_array().into_iter().flatten().map(line).collect()
}

/// Billionths of a CPU.
fn nano_cpus(quota: &Value, period: &Value) -> Value {
    match (quota.as_u64(), period.as_u64().filter(|period| *period > 0)) {
        (Some(quota), Some(period)) => json!(quota.saturating_mul(1_000_000_000) / period),
        _ => json!(0),
    }
}

fn ulimit(limit: &Value) -> Value {
    json!({"Name": limit["type"], "Soft": limit["soft"], "Hard": limit["hard"]})
}

fn capabilities(named: &Named) -> Vec<String> {
    let all = named.all.then(|| "ALL".to_owned());
    all.into_iter().chain(named.each.iter().map(|number| name_of(*number))).collect()
}

fn log(log: &Log) -> Value {
    let tag = if let Log::Journald { tag: Some(tag) } = log { tag } else { "" };
    let (kind, path, size) = match log {
        Log::None => ("none", String::new(), 0),
        Log::File { path, max_size, .. } => ("k8s-file", path.display().to_string(), *max_size),
        Log::Journald { .. } => ("journald", String::new(), 0),
    };
    json!({"Type": kind, "Config": null, "Path": path, "Tag": tag, "Size": crate::table::size(size)})
}

fn security(details: &Details) -> Vec<String> {
    let asked = &details.request.security;
    let seccomp = match &asked.seccomp {
        Seccomp::Default => None,
        Seccomp::Unconfined => Some("seccomp=unconfined".to_owned()),
        Seccomp::Profile(path) => Some(format!("seccomp={}", path.display())),
    };
    let privileges = (!asked.no_new_privileges).then(|| "no-new-privileges=false".to_owned());
    let mask = (!asked.mask.is_empty()).then(|| format!("mask={}", asked.mask.join(":")));
    let unmask = if asked.unmask.all { vec!["ALL".to_owned()] } else { asked.unmask.paths.clone() };
    let unmask = (!unmask.is_empty()).then(|| format!("unmask={}", unmask.join(":")));
    [seccomp, privileges, mask, unmask].into_iter().flatten().collect()
}

fn extra_hosts(host: &AddHost) -> Vec<String> {
    let address = match host.address {
        HostAddress::Ip(ip) => ip.to_string(),
        HostAddress::Gateway => "host-gateway".to_owned(),
    };
    host.names.iter().map(|name| format!("{name}:{address}")).collect()
}

fn bind(mount: &Mounted, oci: &Value) -> String {
    let access = if mount.read_only { "ro" } else { "rw" };
    let mut all = vec![access.to_owned()];
    all.extend(options(&mount.destination, oci).into_iter().filter(|o| o != "ro" && o != "rw"));
    format!("{}:{}:{}", mount.source, mount.destination, all.join(","))
}

fn tmpfs(mounts: &[Mounted], oci: &Value) -> Value {
    let tmpfs = mounts.iter().filter(|m| m.kind == "tmpfs");
    let entry = |m: &Mounted| (m.destination.clone(), json!(options(&m.destination, oci).join(",")));
    Value::Object(tmpfs.map(entry).collect::<Map<_, _>>())
}
