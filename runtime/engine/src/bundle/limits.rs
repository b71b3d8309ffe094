//! The limits that a configuration asks for, in the words of the command line, so that one ladder serves both.

use super::refused;
use crate::request::LimitsLevel;
use crate::request::limits::{LimitRequest, PERIODS, Pids, SHARES, Swap};
use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxResources, Spec};
use rlrun_spec::Failure;
use serde_json::Value;
use std::ops::RangeInclusive;

/// What the resources of `config` ask for.
///
/// # Errors
/// With the first field that means nothing without more power than an ordinary user has, or is out of its range.
pub(super) fn request(config: &Spec, level: LimitsLevel) -> Result<LimitRequest, Failure> {
    let oom_score_adj = config.process().as_ref().and_then(oci_spec::runtime::Process::oom_score_adj);
    let mut limits = LimitRequest { level, oom_score_adj, pids: Some(Pids::Unlimited), ..LimitRequest::default() };
    if let Some(resources) = config.linux().as_ref().and_then(|l| l.resources().as_ref()) {
        apply(resources, &mut limits)?;
    }
    Ok(limits)
}

/// Limits as `update` of an OCI runtime changes them: what `asked`, resources as in a configuration, does not name
/// stays.
///
/// # Errors
/// As a configuration with these resources.
pub fn change(asked: &Value, limits: &mut LimitRequest) -> Result<(), Failure> {
    let invalid = |e: serde_json::Error| refused("/linux/resources", e.to_string());
    let mut all = serde_json::to_value(crate::config::limits::resources(limits)).map_err(invalid)?;
    merge(&mut all, asked);
    let lifted = |field: &str| asked.pointer(field).and_then(Value::as_i64).is_some_and(|n| n <= 0);
    if lifted("/memory/limit") && asked.pointer("/memory/swap").is_none() {
        // Without a limit it means nothing.
        all["memory"]["swap"] = Value::Null;
    }
    let resources: LinuxResources = serde_json::from_value(all).map_err(invalid)?;
    let before = LimitRequest { cpu_millis: None, block_io: Vec::new(), pids: Some(Pids::Unlimited), ..limits.clone() };
    *limits = before;
    apply(&resources, limits)?;
    if let (Some(memory), Some(Swap::AtMost(both))) = (limits.memory, limits.memory_swap)
        && both < memory
        && asked.pointer("/memory/swap").is_none()
    {
        // As much swap as memory again.
        limits.memory_swap = None;
    }
    Ok(())
}

/// Objects word by word, everything else as a whole.
fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (name, value) in from {
                merge(into.entry(name).or_insert(Value::Null), value);
            }
        }
        (into, from) => into.clone_from(from),
    }
}

fn apply(resources: &LinuxResources, limits: &mut LimitRequest) -> Result<(), Failure> {
    refuse_unknown(resources)?;
    if let Some(limit) = resources.pids().map(|p| p.limit()).filter(|n| *n > 0) {
        limits.pids = Some(Pids::AtMost(u32::try_from(limit).unwrap_or(u32::MAX)));
    }
    if let Some(asked) = resources.memory() {
        memory(asked, limits)?;
    }
    if let Some(asked) = resources.cpu() {
        cpu(asked, limits)?;
    }
    if let Some(asked) = resources.block_io() {
        block_io(asked, limits)?;
    }
    Ok(())
}

fn absent(field: &str, is_set: bool) -> Result<(), Failure> {
    if !is_set {
        return Ok(());
    }
    Err(refused(&format!("/linux/resources/{field}"), "nothing enforces it for an ordinary user")
        .hint("leave it out of config.json"))
}

fn refuse_unknown(resources: &LinuxResources) -> Result<(), Failure> {
    absent("unified", resources.unified().as_ref().is_some_and(|all| !all.is_empty()))?;
    absent("rdma", resources.rdma().as_ref().is_some_and(|all| !all.is_empty()))?;
    absent("hugepageLimits", resources.hugepage_limits().as_ref().is_some_and(|all| !all.is_empty()))?;
    absent("network", resources.network().is_some())?;
    // What denies is kept: without power over the host nobody makes a device node, and none is there but what is bound.
    let allows = |rule: &oci_spec::runtime::LinuxDeviceCgroup| rule.allow();
    let all = resources.devices().iter().flatten().filter(|rule| allows(rule));
    absent("devices", all.into_iter().any(|rule| rule.major().is_none() && rule.minor().is_none()))
}

fn within(field: &str, value: u64, range: RangeInclusive<u64>) -> Result<u64, Failure> {
    if range.contains(&value) {
        return Ok(value);
    }
    let (first, last) = (range.start(), range.end());
    Err(refused(&format!("/linux/resources/{field}"), format!("{value} is not from {first} to {last}")))
}

fn positive(value: Option<i64>) -> Option<u64> {
    value.and_then(|n| u64::try_from(n).ok()).filter(|n| *n > 0)
}

#[allow(deprecated, reason = "a limit that newer kernels do not have must not be passed over")]
fn memory(asked: &LinuxMemory, limits: &mut LimitRequest) -> Result<(), Failure> {
    absent("memory/kernel", positive(asked.kernel()).is_some())?;
    absent("memory/kernelTCP", positive(asked.kernel_tcp()).is_some())?;
    limits.memory = positive(asked.limit());
    limits.memory_reservation = positive(asked.reservation());
    limits.memory_swap = match (limits.memory, positive(asked.swap())) {
        (_, Some(both)) => Some(Swap::AtMost(both)),
        (Some(_), None) => Some(Swap::Unlimited),
        (None, None) => None,
    };
    limits.memory_swappiness = asked.swappiness().map(|n| within("memory/swappiness", n, 0..=100)).transpose()?;
    limits.oom_kill_disable = asked.disable_oom_killer().unwrap_or(false);
    Ok(())
}

fn cpu(asked: &LinuxCpu, limits: &mut LimitRequest) -> Result<(), Failure> {
    absent("cpu/idle", asked.idle().is_some_and(|n| n != 0))?;
    absent("cpu/burst", asked.burst().is_some_and(|n| n != 0))?;
    absent("cpu/realtimeRuntime", asked.realtime_runtime().is_some_and(|n| n != 0))?;
    absent("cpu/realtimePeriod", asked.realtime_period().is_some_and(|n| n != 0))?;
    absent("cpu/mems", asked.mems().as_deref().is_some_and(|s| !s.is_empty()))?;
    let set = |n: Option<u64>| n.filter(|n| *n > 0);
    limits.cpu_period = set(asked.period()).map(|n| within("cpu/period", n, PERIODS)).transpose()?;
    limits.cpu_quota =
        positive(asked.quota()).map(|n| within("cpu/quota", n, 1_000..=1_000_000_000_000)).transpose()?;
    if limits.cpu_quota.is_none() {
        // Engines write it beside no quota, where it says nothing.
        limits.cpu_period = None;
    }
    limits.cpu_shares = set(asked.shares()).map(|n| within("cpu/shares", n, SHARES)).transpose()?;
    if let Some(words) = asked.cpus().as_deref().filter(|s| !s.is_empty()) {
        let list = crate::request::limits::cpuset(words);
        limits.cpuset = Some(list.map_err(|invalid| refused("/linux/resources/cpu/cpus", invalid.to_string()))?);
    }
    Ok(())
}

fn block_io(asked: &LinuxBlockIo, limits: &mut LimitRequest) -> Result<(), Failure> {
    absent("blockIO/leafWeight", asked.leaf_weight().is_some())?;
    absent("blockIO/weightDevice", asked.weight_device().as_ref().is_some_and(|all| !all.is_empty()))?;
    if let Some(weight) = asked.weight().filter(|n| *n > 0) {
        within("blockIO/weight", weight.into(), 10..=1000)?;
        limits.block_io.push(("--blkio-weight".to_owned(), weight.to_string()));
    }
    let all = [
        ("--device-read-bps", asked.throttle_read_bps_device()),
        ("--device-write-bps", asked.throttle_write_bps_device()),
        ("--device-read-iops", asked.throttle_read_iops_device()),
        ("--device-write-iops", asked.throttle_write_iops_device()),
    ];
    for (option, devices) in all {
        // 0 is no limit.
        for device in devices.iter().flatten().filter(|device| device.rate() > 0) {
            let path = format!("/dev/block/{}:{}", device.major(), device.minor());
            let path = std::fs::canonicalize(&path).map_or(path, |found| found.display().to_string());
            limits.block_io.push((option.to_owned(), format!("{path}:{}", device.rate())));
        }
    }
    Ok(())
}
