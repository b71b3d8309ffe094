//! `history` and `image tree`: what an image is made of.

use super::{hex, short};
use crate::arguments::images::HistoryArgs;
use crate::format::{Format, Heading, Row};
use crate::table::{ago, seconds_of, size};
use rlrun_engine::images::{ImageDetails, LayerDetails};
use rlrun_spec::Failure;
use serde_json::{Value, json};
use std::fmt::Write as _;

const COLUMNS: &str = "{{.Id}}\t{{.Created}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}";
/// As wide as podman shows a command.
const WIDE: usize = 45;

/// What `rlrun history` prints: newest first.
pub(super) fn history(image: &ImageDetails, args: &HistoryArgs, now: u64) -> Result<String, Failure> {
    let format = Format::parse(args.format.as_deref(), COLUMNS)?;
    let rows = rows(image, args, now);
    if args.quiet {
        return Ok(rows.iter().map(|row| format!("{}\n", row.fields["Id"].as_str().unwrap_or_default())).collect());
    }
    format.list(&rows, &[], Heading::from(args.noheading))
}

fn rows(image: &ImageDetails, args: &HistoryArgs, now: u64) -> Vec<Row> {
    let empty = Vec::new();
    let entries = image.config.get("history").and_then(Value::as_array).unwrap_or(&empty);
    let mut layers = image.layers.iter();
    let mut rows = Vec::new();
    for (index, entry) in entries.iter().rev().enumerate() {
        let is_empty = entry.get("empty_layer").and_then(Value::as_bool).unwrap_or_default();
        let bytes = if is_empty { 0 } else { layers.next().map_or(0, |l| l.bytes) };
        rows.push(row(image, entry, (index == 0, bytes), args, now));
    }
    // An image may tell less than it has.
    for (index, layer) in layers.enumerate() {
        let first = index == 0 && rows.is_empty();
        rows.push(row(image, &Value::Null, (first, layer.bytes), args, now));
    }
    rows
}

fn row(image: &ImageDetails, entry: &Value, (first, bytes): (bool, u64), args: &HistoryArgs, now: u64) -> Row {
    let text = |key: &str| entry.get(key).and_then(Value::as_str).unwrap_or_default();
    let id = match first {
        true if args.no_trunc => image.summary.id.clone(),
        true => short(&image.summary.id).to_owned(),
        false => "<missing>".to_owned(),
    };
    let when = text("created");
    let created = match (args.human, seconds_of(when)) {
        (true, Some(then)) => ago(then, now),
        _ => printable(when),
    };
    let by = printable(text("created_by"));
    let by = if args.no_trunc || by.chars().count() <= WIDE {
        by
    } else {
        by.chars().take(WIDE - 3).collect::<String>() + "..."
    };
    let shown = if args.human { size(bytes) } else { bytes.to_string() };
    Row {
        document: json!({
            "id": if first { hex(&image.summary.id) } else { "" },
            "created": when,
            "CreatedBy": text("created_by"),
            "size": bytes,
            "comment": text("comment"),
            "emptyLayer": entry.get("empty_layer").and_then(Value::as_bool).unwrap_or_default(),
        }),
        fields: json!({
            "Id": id,
            "Created": created,
            "CreatedSince": created,
            "CreatedAt": when,
            "CreatedBy": by,
            "Size": shown,
            "Comment": printable(text("comment")),
            "Tags": if first { image.summary.names.clone() } else { Vec::new() },
        }),
    }
}

/// The image's words, fit for a terminal and for one line.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// What `rlrun image tree` prints; `others` tells the names of images that end with a layer.
pub(super) fn tree(image: &ImageDetails, others: impl Fn(&LayerDetails) -> Vec<String>) -> String {
    let total: u64 = image.layers.iter().map(|l| l.bytes).sum();
    let names = image.summary.names.join(", ");
    let mut out = format!(
        "Image ID: {}\nTags:     [{names}]\nSize:     {}\nImage Layers\n",
        short(&image.summary.id),
        size(total)
    );
    let count = image.layers.len();
    for (index, layer) in image.layers.iter().rev().enumerate() {
        let branch = if index + 1 == count { "└──" } else { "├──" };
        let top = others(layer);
        let top = if top.is_empty() { String::new() } else { format!(" Top Layer of: [{}]", top.join(", ")) };
        // Writing to a String cannot fail.
        writeln!(out, "{branch} ID: {} Size: {:>8}{top}", &layer.id[..12.min(layer.id.len())], size(layer.bytes))
            .unwrap_or_default();
    }
    out
}
