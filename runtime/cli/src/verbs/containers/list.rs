//! `ps`: which containers, in which order, and their columns.

use super::document::port;
use crate::arguments::look::{PsArgs, Sort};
use crate::format::{Filters, Format, Heading, Row, label_fits};
use crate::table::{self, ago, timestamp};
use rlrun_engine::containers::{self, Container, Status};
use rlrun_engine::life;
use rlrun_engine::place::Place;
use rlrun_engine::record::{Details, Reach};
use rlrun_engine::run::sweep;
use rlrun_spec::container::PortMapping;
use rlrun_spec::health::Status as Health;
use rlrun_spec::life::Restart;
use rlrun_spec::{Failure, Kind, Stage};
use serde_json::{Value, json};
use std::collections::BTreeMap;

const FILTERS: &[&str] = &[
    "ancestor",
    "annotation",
    "before",
    "command",
    "exited",
    "health",
    "id",
    "label",
    "label!",
    "name",
    "network",
    "pod",
    "restart-policy",
    "should-start-on-boot",
    "since",
    "status",
    "until",
    "volume",
];
const COLUMNS: &str = "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.CreatedHuman}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}";
const NAMESPACES: &str =
    "{{.ID}}\t{{.Names}}\t{{.Pid}}\t{{.CGROUPNS}}\t{{.IPC}}\t{{.MNT}}\t{{.NET}}\t{{.PIDNS}}\t{{.USERNS}}\t{{.UTS}}";
const HEADINGS: &[(&str, &str)] = &[
    ("ID", "CONTAINER ID"),
    ("CreatedHuman", "CREATED"),
    ("ExitCode", "EXIT CODE"),
    ("Pod", "POD ID"),
    ("PodName", "PODNAME"),
];
/// What a template has that wants namespaces.
const OF_NAMESPACES: &[&str] = &["NS", "UTS", ".IPC", ".MNT", ".NET", ".Cgroup", ".User", ".Namespaces"];
const BILLION: u64 = 1_000_000_000;
/// podman's words, and what is here.
const STATES: &[&str] = &[
    "created",
    "running",
    "paused",
    "stopping",
    "restarting",
    "exited",
    "dead",
    "stopped",
    "initialized",
    "removing",
    "unknown",
];
const HEALTH: &[&str] = &["healthy", "unhealthy", "starting", "none"];

pub(super) fn list(place: &Place, args: &PsArgs, now: u64) -> Result<String, Failure> {
    let filters = Filters::parse(&args.filter, FILTERS)?;
    sweep(place, Reach::All);
    let mut all = chosen(place, containers::list(place)?, &filters, now)?;
    let newest = if args.latest { Some(1) } else { args.last };
    match newest {
        Some(count) => drop(all.drain(..all.len().saturating_sub(count))),
        // A state that is asked for is shown, as in podman.
        None if args.all || filters.values("status").next().is_some() || filters.values("exited").next().is_some() => {}
        None => all.retain(life::is_looked_after),
    }
    all.sort_by(|a, b| order(args.sort, a, b));
    if args.quiet {
        return Ok(all.iter().map(|c| format!("{}\n", id(c, args.no_trunc))).collect());
    }
    let format = Format::parse(args.format.as_deref(), &columns(args))?;
    let wants_size = args.size || args.format.as_deref().is_some_and(|format| format.contains(".Size"));
    let sizes = if wants_size { containers::sizes(place, &all)? } else { Vec::new() };
    let sizes = sizes.into_iter().map(Some).chain(std::iter::repeat(None));
    let mut rows: Vec<(Option<(u64, u64)>, Row)> =
        all.iter().zip(sizes).map(|(c, size)| (size, row(c, args.no_trunc, size, now))).collect();
    // Not in the first line of the record.
    for field in ["CIDFile", "ExposedPorts"] {
        if args.format.as_deref().is_some_and(|format| format.contains(field)) {
            rows.iter_mut().zip(&all).for_each(|((_, row), c)| row.fields[field] = recorded(c, field));
        }
    }
    // Looked up in /proc for each: only where somebody wants them.
    if args.ns || args.format.as_deref().is_some_and(|format| OF_NAMESPACES.iter().any(|f| format.contains(f))) {
        for ((_, row), c) in rows.iter_mut().zip(&all) {
            let Some(fields) = row.fields.as_object_mut() else { continue };
            let all = namespaces(c);
            fields.extend(all.iter().map(|(key, value)| ((*key).to_owned(), json!(value))));
            fields.insert("Namespaces".to_owned(), Value::from_iter(all));
        }
    }
    if args.sort == Sort::Size {
        rows.sort_by_key(|(size, _)| *size);
    }
    let rows: Vec<Row> = rows.into_iter().map(|(_, row)| row).collect();
    format.list(&rows, HEADINGS, Heading::from(args.noheading))
}

/// The table that is shown when nobody says which.
fn columns(args: &PsArgs) -> String {
    if args.ns {
        return NAMESPACES.to_owned();
    }
    let pod = if args.pod { "\t{{.Pod}}\t{{.PodName}}" } else { "" };
    let size = if args.size { "\t{{.Size}}" } else { "" };
    format!("{COLUMNS}{pod}{size}")
}

/// Every container that fits the words of `--filter`, oldest first.
pub(super) fn fitting(place: &Place, words: &[String], now: u64) -> Result<Vec<Container>, Failure> {
    chosen(place, containers::list(place)?, &Filters::parse(words, FILTERS)?, now)
}

fn chosen(place: &Place, mut all: Vec<Container>, filters: &Filters, now: u64) -> Result<Vec<Container>, Failure> {
    let until = filters.moments("until", now)?;
    let ages = |key| {
        let found = filters.values(key).map(|name| containers::find(place, name).map(|c| c.summary.created));
        found.collect::<Result<Vec<_>, _>>()
    };
    let (before, since) = (ages("before")?, ages("since")?);
    let on_boot = filters.truth("should-start-on-boot")?;
    let (ids, names) = (filters.patterns("id")?, filters.patterns("name")?);
    filters.one_of("status", STATES)?;
    filters.one_of("health", HEALTH)?;
    if let Some(word) = filters.values("exited").find(|word| word.parse::<i32>().is_err()) {
        return Err(Failure::new(Stage::Cli, Kind::Usage, "filter", "understand --filter", format!("exited={word}"))
            .why("is no exit code"));
    }
    all.retain(|c| {
        let summary = &c.summary;
        let labels = || summary.labels.iter().map(|(k, v)| (k.as_str(), v.as_str()));
        let image = summary.image.as_ref();
        let network = serde_json::to_value(summary.network).unwrap_or_default();
        until.iter().all(|moment| summary.created / BILLION < *moment)
            && before.iter().all(|moment| summary.created < *moment)
            && since.iter().all(|moment| summary.created > *moment)
            && filters.any("id", |id| summary.id.starts_with(id) || ids.fit(&summary.id))
            && names.fit(&summary.name)
            // There are none.
            && filters.any("pod", |_| false)
            && filters
                .any("status", |word| c.status.word() == word || (word == "stopped" && c.status == Status::Exited))
            && filters.any("health", |word| health(c) == word)
            && filters.any("exited", |code| c.status == Status::Exited && c.state.exit_code.to_string() == code)
            && filters.any("ancestor", |word| image.is_some_and(|i| is_image(word, &i.reference, &i.id)))
            && filters.any("command", |word| summary.command.first().is_some_and(|first| first == word))
            && filters.any("network", |word| network == word)
            && filters.any("restart-policy", |word| summary.life.restart.word() == word)
            && on_boot.is_none_or(|wanted| wanted == starts_on_boot(c))
            && filters.any("volume", |word| summary.mounts.iter().any(|m| m.source == word || m.destination == word))
            && filters.all("label", |word| label_fits(word, labels()))
            && filters.all("label!", |word| !label_fits(word, labels()))
            && filters.all("annotation", |word| label_fits(word, annotations(c).iter().map(|(k, v)| (&**k, &**v))))
    });
    Ok(all)
}

/// What the user asked for; in the second line of the record, which a list reads for this alone.
fn annotations(c: &Container) -> Vec<(String, String)> {
    Details::read(&c.directory).map(|details| details.request.annotations).unwrap_or_default()
}

/// What `rlrun start --all --filter should-start-on-boot=true` starts after a reboot.
fn starts_on_boot(c: &Container) -> bool {
    match c.summary.life.restart {
        Restart::Always => true,
        Restart::UnlessStopped => !c.state.stopped,
        Restart::No | Restart::OnFailure { .. } => false,
    }
}

/// The reference, its end after a slash, each with or without its tag; or the beginning of the id.
fn is_image(word: &str, reference: &str, id: &str) -> bool {
    let bare = reference.rsplit_once(':').map_or(reference, |(bare, _)| bare);
    let ends = |text: &str| text == word || text.strip_suffix(word).is_some_and(|rest| rest.ends_with('/'));
    ends(reference) || ends(bare) || (word.len() >= 4 && id.trim_start_matches("sha256:").starts_with(word))
}

fn order(by: Sort, a: &Container, b: &Container) -> std::cmp::Ordering {
    let reference = |c: &Container| c.summary.image.as_ref().map(|i| i.reference.clone());
    let first = match by {
        Sort::Command => a.summary.command.cmp(&b.summary.command),
        Sort::Created => a.summary.created.cmp(&b.summary.created),
        Sort::Id => a.summary.id.cmp(&b.summary.id),
        Sort::Image => reference(a).cmp(&reference(b)),
        Sort::Names => a.summary.name.cmp(&b.summary.name),
        Sort::Runningfor => a.state.started.cmp(&b.state.started),
        Sort::Status => a.status.cmp(&b.status),
        // Known only once they are measured.
        Sort::Size => std::cmp::Ordering::Equal,
    };
    first.then_with(|| a.summary.id.cmp(&b.summary.id))
}

fn id(container: &Container, whole: bool) -> String {
    let id = &container.summary.id;
    if whole { id.clone() } else { id.chars().take(12).collect() }
}

/// As podman writes it.
fn shown_size(written: u64, whole: u64) -> String {
    let joined = |bytes| table::size(bytes).replace(' ', "");
    format!("{} (virtual {})", joined(written), joined(whole))
}

/// podman's word for a container's health; `none` without a check.
fn health(c: &Container) -> &'static str {
    if c.state.health == Health::None { "none" } else { c.state.health.word() }
}

/// What `STATUS` says: `Up 3 minutes`, `Exited (3) 5 seconds ago`.
fn status(c: &Container, now: u64) -> String {
    let since = |then: u64| ago(then / BILLION, now);
    match c.status {
        Status::Created => "Created".to_owned(),
        Status::Running => {
            let up = format!("Up {}", since(c.state.started).trim_end_matches(" ago"));
            if c.state.health == Health::None { up } else { format!("{up} ({})", c.state.health.word()) }
        }
        Status::Paused => format!("Up {} (Paused)", since(c.state.started).trim_end_matches(" ago")),
        Status::Stopping => "Stopping".to_owned(),
        Status::Restarting => format!("Restarting ({}) {}", c.state.exit_code, since(c.state.finished)),
        Status::Dead => "Dead".to_owned(),
        // Nobody knows when a container ended whose supervisor was killed.
        Status::Exited if c.state.finished == 0 => format!("Exited ({})", c.state.exit_code),
        Status::Exited => format!("Exited ({}) {}", c.state.exit_code, since(c.state.finished)),
    }
}

/// A field of the record's second line.
fn recorded(c: &Container, field: &str) -> Value {
    let Ok(Details { request, .. }) = Details::read(&c.directory) else { return Value::Null };
    if field == "CIDFile" {
        return json!(request.launching.cidfile.unwrap_or_default());
    }
    let exposed = request.network.exposed.iter().map(|port| (port.container_port, port.protocol));
    let published = c.summary.ports.iter().map(|port| (port.container_port, port.protocol));
    let mut all = BTreeMap::<String, Vec<Value>>::new();
    for (port, protocol) in exposed.chain(published) {
        all.entry(port.to_string()).or_default().push(json!(protocol));
    }
    json!(all)
}

/// The container's namespaces, as the kernel numbers them; podman's names, of which some have two.
fn namespaces(c: &Container) -> Vec<(&'static str, String)> {
    const ALL: [(&str, &str); 9] = [
        ("CGROUPNS", "cgroup"),
        ("Cgroup", "cgroup"),
        ("IPC", "ipc"),
        ("MNT", "mnt"),
        ("NET", "net"),
        ("PIDNS", "pid"),
        ("USERNS", "user"),
        ("User", "user"),
        ("UTS", "uts"),
    ];
    let number = |kind: &str| {
        let link = std::fs::read_link(format!("/proc/{}/ns/{kind}", c.state.pid)).ok()?;
        Some(link.to_str()?.rsplit_once('[')?.1.trim_end_matches(']').to_owned())
    };
    ALL.into_iter().map(|(name, kind)| (name, number(kind).unwrap_or_default())).collect()
}

/// With the member that podman has for several ports in a row, which here are several.
fn mapping(port: &PortMapping) -> Value {
    let mut mapping = json!(port);
    mapping["range"] = json!(1);
    mapping
}

fn row(c: &Container, whole: bool, size: Option<(u64, u64)>, now: u64) -> Row {
    let summary = &c.summary;
    let bundle = summary.bundle.as_ref().map(|directory| directory.display().to_string());
    let image = summary.image.as_ref().map(|i| i.reference.clone()).or(bundle).unwrap_or_default();
    let command = summary.command.join(" ");
    let shown = match command.char_indices().nth(17) {
        Some((at, _)) if !whole => format!("{}...", &command[..at]),
        _ => command,
    };
    let labels: BTreeMap<_, _> = summary.labels.iter().cloned().collect();
    let ports: Vec<String> =
        summary.ports.iter().map(port).map(|(inside, outside)| format!("{outside}->{inside}")).collect();
    let network = serde_json::to_value(summary.network).unwrap_or_default();
    let mounts: Vec<&str> = summary.mounts.iter().map(|m| m.destination.as_str()).collect();
    let human = ago(summary.created / BILLION, now);
    let document = json!({
        "Id": summary.id,
        "Names": [summary.name],
        "Image": image,
        "ImageID": summary.image.as_ref().map(|i| i.id.trim_start_matches("sha256:")),
        "Command": summary.command,
        "Created": summary.created / BILLION,
        "CreatedAt": human,
        "State": c.status.word(),
        "Status": status(c, now),
        "Pid": c.state.pid,
        "ExitCode": c.state.exit_code,
        "Exited": c.status == Status::Exited,
        "StartedAt": c.state.started / BILLION,
        "ExitedAt": c.state.finished / BILLION,
        "Restarts": c.state.restarts,
        "AutoRemove": summary.remove,
        "Labels": labels,
        "Mounts": mounts,
        "Networks": [network],
        "Ports": summary.ports.iter().map(mapping).collect::<Vec<_>>(),
        "Namespaces": {},
        "IsInfra": false,
        "Pod": "",
        "PodName": "",
        "Size": size.map(|(written, whole)| json!({"rwSize": written, "rootFsSize": whole})),
    });
    let mut fields = document.clone();
    let texts = [
        ("ID", json!(id(c, whole))),
        ("Names", json!(summary.name)),
        ("Command", json!(shown)),
        ("CreatedHuman", json!(human)),
        ("RunningFor", json!(human)),
        ("CreatedAt", json!(timestamp(summary.created))),
        ("Created", json!(timestamp(summary.created))),
        ("Ports", json!(ports.join(", "))),
        ("Mounts", json!(mounts.join(","))),
        ("Networks", network.clone()),
        ("Size", json!(size.map(|(written, whole)| shown_size(written, whole)).unwrap_or_default())),
    ];
    if let Some(object) = fields.as_object_mut() {
        object.remove("Id");
        object.extend(texts.into_iter().map(|(key, value)| (key.to_owned(), value)));
    }
    let fields: Value = fields;
    Row { document, fields }
}
