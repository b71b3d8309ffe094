//! `stats` and `update`: what containers use, and may use.

use super::{Outcome, place, read};
use crate::arguments::usage::{StatsArgs, UpdateArgs};
use crate::format::{Format, Heading, Row};
use crate::report;
use crate::table::size;
use clap::ArgMatches;
use rlrun_engine::containers::{self, Container};
use rlrun_engine::place::Place;
use rlrun_engine::trace::Marks;
use rlrun_engine::usage::{self, Sample};
use rlrun_spec::usage::{Traffic, Usage};
use rlrun_spec::{Failure, Kind, Stage};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::process::ExitCode;
use std::time::Duration;

const COLUMNS: &str = "{{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t\
                       {{.PIDS}}\t{{.UpTime}}\t{{.AVGCPU}}";
const HEADINGS: &[(&str, &str)] = &[
    ("CPUPerc", "CPU %"),
    ("MemUsage", "MEM USAGE / LIMIT"),
    ("MemPerc", "MEM %"),
    ("NetIO", "NET IO"),
    ("BlockIO", "BLOCK IO"),
    ("PIDS", "PIDS"),
    ("UpTime", "CPU TIME"),
    ("AVGCPU", "AVG CPU %"),
];
/// Cursor to the corner, screen empty (console_codes(4)).
const RESET: &str = "\u{1b}[H\u{1b}[2J";
/// In place of what a container that does not run uses.
const NOTHING: &str = "--";

/// Processor time and moment of the look before, by id.
type Before = HashMap<String, (u64, u64)>;

pub(in super::super) fn stats(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let args: StatsArgs = read(matches)?;
    let place = place()?;
    let format = Format::parse(args.format.as_deref(), COLUMNS)?;
    let named = !args.names.is_empty() || args.latest;
    if named && args.all {
        let failure = Failure::new(Stage::Cli, Kind::Usage, "parse-arguments", "understand the command line", "--all");
        return Err(failure.why("names and --all cannot be given together"));
    }
    let mut before = Before::new();
    loop {
        let chosen = choose(&place, &args)?;
        let (mut rows, mut code) = (Vec::new(), ExitCode::SUCCESS);
        for container in chosen {
            match usage::sample(container) {
                Ok(sample) => rows.push(row(&sample, &mut before, args.no_trunc)),
                Err(failure) => code = report::failure(&failure),
            }
        }
        let text = format.list(&rows, HEADINGS, Heading::Shown)?;
        let reset = if args.no_stream || args.no_reset || args.format.is_some() { "" } else { RESET };
        report::print(&format!("{reset}{text}"))?;
        if args.no_stream || (named && rows.is_empty()) {
            return Ok(code);
        }
        std::thread::sleep(Duration::from_secs(args.interval.max(1).into()));
    }
}

fn choose(place: &Place, args: &StatsArgs) -> Result<Vec<Container>, Failure> {
    if !args.names.is_empty() {
        return args.names.iter().map(|name| containers::find(place, name)).collect();
    }
    let mut all = containers::list(place)?;
    if args.latest {
        all.drain(..all.len().saturating_sub(1));
    } else if !args.all {
        all.retain(|container| container.status.is_alive());
    }
    Ok(all)
}

/// Hundredths of a percent of `whole`.
fn share(part: u64, whole: u64) -> String {
    let hundredths = u128::from(part) * 10_000 / u128::from(whole.max(1));
    format!("{}.{:02}%", hundredths / 100, hundredths % 100)
}

/// A share as a number.
fn number(share: &str) -> f64 {
    share.trim_end_matches('%').parse().unwrap_or_default()
}

/// In units of 1024, as podman prints it.
fn binary(count: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let unit = UNITS.len().min(usize::try_from(count.max(1).ilog2() / 10).unwrap_or_default() + 1) - 1;
    let whole = 1_u128 << (10 * unit);
    let thousandths = u128::from(count) * 1000 / whole;
    let digits = format!("{}.{:03}", thousandths / 1000, thousandths % 1000);
    // Four digits that count, without zeros at the end.
    let cut = digits.get(..5).unwrap_or(&digits);
    format!("{}{}", cut.trim_end_matches('0').trim_end_matches('.'), UNITS[unit])
}

fn bytes(count: u64) -> String {
    size(count).replace(' ', "")
}

/// Seconds with six decimals, as Go prints a duration below a minute; minutes and hours before them.
fn duration(ns: u64) -> String {
    let (seconds, micros) = (ns / 1_000_000_000, ns % 1_000_000_000 / 1000);
    let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{rest}.{micros:06}s"),
        (0, minutes) => format!("{minutes}m{rest}.{micros:06}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{rest}.{micros:06}s"),
    }
}

fn row(sample: &Sample, before: &mut Before, whole: bool) -> Row {
    let summary = &sample.container.summary;
    let id = if whole { summary.id.clone() } else { summary.id.chars().take(12).collect() };
    let Some(usage) = &sample.usage else {
        let names = [
            "AVGCPU",
            "AvgCPU",
            "BlockIO",
            "BlockInput",
            "BlockOutput",
            "CPU",
            "CPUNano",
            "CPUPerc",
            "CPUSystemNano",
            "Duration",
            "MemLimit",
            "MemPerc",
            "MemUsage",
            "MemUsageBytes",
            "NetIO",
            "NetInput",
            "NetOutput",
            "PIDS",
            "PIDs",
            "PerCPU",
            "SystemNano",
            "Up",
            "UpTime",
        ];
        let mut fields = json!({"ID": id, "ContainerID": summary.id, "Name": summary.name});
        fields["ContainerStats"] = numbers(&summary.id, &summary.name, &Usage::default(), [0.0; 3]);
        names.into_iter().for_each(|name| fields[name] = json!(NOTHING));
        return Row { document: json!({"id": id, "name": summary.name}), fields };
    };
    let started = sample.container.state.started;
    let (then, used) = before.insert(summary.id.clone(), (sample.time, usage.cpu_ns)).unwrap_or((started, 0));
    let cpu = share(usage.cpu_ns.saturating_sub(used), sample.time.saturating_sub(then));
    let average = share(usage.cpu_ns, sample.time.saturating_sub(started));
    fields(usage, &id, sample, (cpu, average))
}

fn fields(usage: &Usage, id: &str, sample: &Sample, (cpu, average): (String, String)) -> Row {
    let summary = &sample.container.summary;
    let limit = usage.memory_limit.unwrap_or_else(usage::machine_memory);
    let Traffic { received, sent } = usage.network.unwrap_or_default();
    let network = usage.network.map_or(NOTHING.to_owned(), |_| format!("{} / {}", bytes(received), bytes(sent)));
    let block = format!("{} / {}", bytes(usage.block_read), bytes(usage.block_written));
    let memory = format!("{} / {}", bytes(usage.memory), bytes(limit));
    let memory_share = share(usage.memory, limit);
    let document = json!({
        "id": id,
        "name": summary.name,
        "cpu_time": duration(usage.cpu_ns),
        "cpu_percent": cpu,
        "avg_cpu": average,
        "mem_usage": memory,
        "mem_percent": memory_share,
        "net_io": network,
        "block_io": block,
        "pids": usage.tasks.to_string(),
        "cpu_nanoseconds": usage.cpu_ns,
        "mem_bytes": usage.memory,
        "mem_limit": limit,
        "swap_bytes": usage.swap,
        "throttled_periods": usage.throttled_periods,
        "throttled_nanoseconds": usage.throttled_ns,
        "oom_kills": usage.oom_kills,
    });
    let mut fields = json!({
        "ID": id,
        "ContainerID": summary.id,
        "Name": summary.name,
        "CPUPerc": cpu,
        "CPU": number(&cpu),
        "CPUNano": usage.cpu_ns,
        // No list: the clocks of a container are those of its processes, wherever they run.
        "PerCPU": [],
        "SystemNano": sample.time,
        "CPUSystemNano": sample.time,
        "AVGCPU": average,
        "AvgCPU": number(&average),
        "MemUsage": memory,
        "MemUsageBytes": format!("{} / {}", binary(usage.memory), binary(limit)),
        "MemLimit": limit,
        "MemPerc": memory_share,
        "Swap": usage.swap,
        "NetIO": network,
        "NetInput": received,
        "NetOutput": sent,
        "BlockIO": block,
        "BlockInput": usage.block_read,
        "BlockOutput": usage.block_written,
        "PIDS": usage.tasks,
        "PIDs": usage.tasks,
        // podman's names for the time that the processors worked.
        "Up": duration(usage.cpu_ns),
        "UpTime": duration(usage.cpu_ns),
        "Duration": usage.cpu_ns,
        "ThrottledPeriods": usage.throttled_periods,
        "ThrottledTime": duration(usage.throttled_ns),
        "OOMKills": usage.oom_kills,
    });
    let usage = Usage { memory_limit: Some(limit), ..*usage };
    let shares = [&cpu, &average, &memory_share].map(|share| number(share));
    fields["ContainerStats"] = numbers(&summary.id, &summary.name, &usage, shares);
    fields["ContainerStats"]["SystemNano"] = json!(sample.time);
    fields["ContainerStats"]["CPUSystemNano"] = json!(sample.time);
    Row { document, fields }
}

/// The structure below podman's columns: nothing but numbers.
fn numbers(id: &str, name: &str, usage: &Usage, [cpu, average, memory]: [f64; 3]) -> Value {
    let Traffic { received, sent } = usage.network.unwrap_or_default();
    json!({
        "ContainerID": id,
        "Name": name,
        "CPU": cpu,
        "AvgCPU": average,
        "CPUNano": usage.cpu_ns,
        "CPUSystemNano": 0,
        "SystemNano": 0,
        "PerCPU": [],
        "MemUsage": usage.memory,
        "MemLimit": usage.memory_limit.unwrap_or_default(),
        "MemPerc": memory,
        "NetInput": received,
        "NetOutput": sent,
        "BlockInput": usage.block_read,
        "BlockOutput": usage.block_written,
        "PIDs": usage.tasks,
        "UpTime": usage.cpu_ns,
        "Duration": usage.cpu_ns,
    })
}

pub(in super::super) fn update(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let args: UpdateArgs = read(matches)?;
    let place = place()?;
    let nothing = |why: &str| Failure::new(Stage::Cli, Kind::Usage, "parse-arguments", "update the container", why);
    if args.is_empty() {
        return Err(nothing("no limit is given").hint("rlrun update --help lists what can be changed"));
    }
    let container = match &args.name {
        Some(name) => containers::find(&place, name)?,
        None => containers::list(&place)?.pop().ok_or_else(|| nothing("there is no container"))?,
    };
    for told in rlrun_engine::update::update(&place, &container, &|limits| args.apply(limits))? {
        rlrun_engine::warn(&told);
    }
    report::print(&format!("{}\n", container.summary.id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_and_times_read_as_podmans_do() {
        assert_eq!((share(1, 3), share(3, 2), share(0, 0)), ("33.33%".into(), "150.00%".into(), "0.00%".into()));
        assert_eq!(duration(1_500_000_000), "1.500000s");
        assert_eq!(duration(61_000_000_000), "1m1.000000s");
        assert_eq!(duration(3_661_000_001_000), "1h1m1.000001s");
        assert_eq!(bytes(4_460_000), "4.46MB");
        assert_eq!([0, 1023, 1536, 3_243_000, 1 << 34].map(binary), ["0B", "1023B", "1.5KiB", "3.092MiB", "16GiB"]);
        assert_eq!((number("33.33%"), number("--")), (33.33, 0.0));
    }
}
