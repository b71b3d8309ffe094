//! `rlrun events`: what happened, out of the journal.

use super::{Outcome, place, read};
use crate::arguments::journal::{EventsArgs, SpanArgs};
use crate::format::{Filters, Format, Heading, Row};
use crate::report;
use crate::table::{now, timestamp};
use clap::ArgMatches;
use rlrun_engine::journal::Lines;
use rlrun_engine::trace::Marks;
use rlrun_spec::{Failure, Kind, Stage};
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::process::ExitCode;

const FILTERS: &[&str] = &["container", "event", "image", "label", "network", "pod", "secret", "type", "volume"];
/// How podman shows an event without `--format`; the ends differ by type.
const BILLION: u64 = 1_000_000_000;

/// From when to when, in nanoseconds since the epoch.
pub(super) struct Span {
    since: Option<u64>,
    until: Option<u64>,
}

impl Span {
    pub(super) fn read(args: &SpanArgs) -> Result<Span, Failure> {
        let moment = |option: &str, word: &Option<String>| -> Result<Option<u64>, Failure> {
            let Some(word) = word else { return Ok(None) };
            match crate::format::moment(word, now()) {
                Some(seconds) => Ok(Some(seconds.saturating_mul(BILLION))),
                None => {
                    Err(Failure::new(Stage::Cli, Kind::Usage, "parse-arguments", &format!("invalid {option}"), word)
                        .why("is no time")
                        .hint("write it 2006-01-02T15:04:05Z, 2006-01-02, seconds since 1970, or how long ago: 10m"))
                }
            }
        };
        Ok(Span { since: moment("--since", &args.since)?, until: moment("--until", &args.until)? })
    }

    pub(super) fn has(&self, time: u64) -> bool {
        self.since.is_none_or(|since| time >= since) && self.until.is_none_or(|until| time < until)
    }
}

/// Events of the journal with what only earlier ones tell: the image of a container.
struct Events {
    lines: Lines,
    images: HashMap<String, String>,
    labels: HashMap<String, Map<String, Value>>,
    filters: Filters,
    span: Span,
    short: bool,
}

impl Events {
    /// The events of the next line that fit.
    fn next(&mut self) -> Result<Option<Vec<Value>>, Failure> {
        let Some(line) = self.lines.next_line()? else { return Ok(None) };
        let time = line["time"].as_u64().unwrap_or_default();
        let mut found = Vec::new();
        for event in line["events"].as_array().into_iter().flatten() {
            let text = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
            let id = text("id");
            if let Some(image) = event["attributes"]["image"].as_str() {
                self.images.insert(id.clone(), image.to_owned());
            }
            if let Some(labels) = event["attributes"]["labels"].as_object() {
                self.labels.insert(id.clone(), labels.clone());
            }
            let document = document(time, event, self.images.get(&id), self.labels.get(&id));
            if self.span.has(time) && fits(&self.filters, &document) {
                found.push(shortened(document, self.short));
            }
        }
        Ok(Some(found))
    }
}

/// Field names as in `podman events --format json`.
fn document(time: u64, event: &Value, image: Option<&String>, labels: Option<&Map<String, Value>>) -> Value {
    // A container's labels are among what podman tells of each of its events.
    let mut attributes = labels.cloned().unwrap_or_default();
    attributes.extend(event["attributes"].as_object().cloned().unwrap_or_default());
    attributes.remove("labels");
    let mut document = json!({
        "Type": event["type"],
        "Status": event["action"],
        "ID": event["id"],
        "Name": event["name"],
        "Image": image.cloned().unwrap_or_default(),
        "Time": timestamp(time),
        "TimeNano": time,
        "Attributes": attributes,
        "HealthStatus": event["attributes"]["health_status"].as_str().unwrap_or_default(),
        "Network": if event["type"] == "network" { event["name"].clone() } else { json!("") },
    });
    if let Some(code) = event["attributes"]["exitCode"].as_u64() {
        document["ContainerExitCode"] = json!(code);
    }
    document
}

fn shortened(mut document: Value, short: bool) -> Value {
    if short && let Some(id) = document["ID"].as_str().and_then(|id| id.get(..12)) {
        document["ID"] = json!(id);
    }
    document
}

fn fits(filters: &Filters, document: &Value) -> bool {
    let text = |key: &str| document[key].as_str().unwrap_or_default();
    let is = |kind: &str, word: &str| {
        text("Type") == kind && !word.is_empty() && (text("Name") == word || text("ID").starts_with(word))
    };
    let label = |word: &str| {
        let labels = document["Attributes"].as_object();
        crate::format::label_fits(
            word,
            labels.into_iter().flatten().filter_map(|(k, v)| Some((k.as_str(), v.as_str()?))),
        )
    };
    filters.any("type", |word| text("Type") == word)
        && filters.any("event", |word| text("Status") == word)
        && filters.any("container", |word| is("container", word))
        && filters.any("volume", |word| is("volume", word))
        && filters.any("network", |word| is("network", word))
        // There are none.
        && filters.any("pod", |_| false)
        && filters.any("secret", |word| is("secret", word))
        && filters.any("image", |word| text("Image").contains(word) || is("image", word))
        && filters.all("label", label)
}

/// A line stays one: labels are an image's words.
fn shown(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// `TIME container died ID (image=..., name=..., exitCode=3)`.
fn line(document: &Value) -> String {
    let text = |key: &str| document[key].as_str().unwrap_or_default();
    let mut about: Vec<String> = Vec::new();
    about.extend((!text("Image").is_empty()).then(|| format!("image={}", text("Image"))));
    about.extend((!text("Name").is_empty() && !text("ID").is_empty()).then(|| format!("name={}", text("Name"))));
    for (key, value) in document["Attributes"].as_object().into_iter().flatten().filter(|(k, _)| *k != "image") {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        about.push(shown(&format!("{key}={value}")));
    }
    let object = if text("ID").is_empty() { text("Name") } else { text("ID") };
    let about = if about.is_empty() { String::new() } else { format!(" ({})", about.join(", ")) };
    format!("{} {} {} {object}{about}\n", text("Time"), text("Type"), text("Status"))
}

pub(super) fn events(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let args: EventsArgs = read(matches)?;
    let format = args.format.as_deref().map(|words| Format::parse(Some(words), "")).transpose()?;
    let filters = Filters::parse(&args.filter, FILTERS)?;
    let span = Span::read(&args.span)?;
    // What has an end is shown and done; a stream without a beginning starts now, as in podman.
    let follow = args.stream && span.until.is_none();
    let lines = Lines::open(&place()?)?;
    let mut events =
        Events { lines, images: HashMap::new(), labels: HashMap::new(), filters, span, short: !args.no_trunc };
    if follow && events.span.since.is_none() {
        while events.next()?.is_some() {}
    }
    loop {
        while let Some(found) = events.next()? {
            let code = print(&found, format.as_ref())?;
            if code != ExitCode::SUCCESS {
                return Ok(code);
            }
        }
        if !follow {
            return Ok(ExitCode::SUCCESS);
        }
        events.lines.wait()?;
    }
}

fn print(found: &[Value], format: Option<&Format>) -> Outcome {
    let text = match format {
        None => found.iter().map(line).collect(),
        // One object a line, because a stream has no end that an array could have.
        Some(Format::Json) => found.iter().map(|d| format!("{d}\n")).collect(),
        Some(format) => {
            let row = |d: &Value| {
                let mut fields = d.clone();
                // Its embedded structure has a name of its own in podman.
                fields["Details"] = json!({"ID": d["ID"], "PodID": "", "Attributes": d["Attributes"]});
                fields["PodID"] = json!("");
                if d.get("ContainerExitCode").is_none() {
                    fields["ContainerExitCode"] = json!(0);
                }
                Row { document: d.clone(), fields }
            };
            format.list(&found.iter().map(row).collect::<Vec<_>>(), &[], Heading::Hidden)?
        }
    };
    report::print(&text)
}
