//! `history` and `image tree`: what an image is made of.

use super::{hex, short};
use crate::arguments::images::HistoryArgs;
use crate::format::{Format, Heading, Row};
use crate::table::{ago, seconds_of, size};
use rlrun_engine::images::{ImageDetails, LayerDetails};
use rlrun_spec::Failure;
use serde_json::{Value, json};
use std::collections::BTreeMap;
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

/// An image as far as a tree needs it: its layers, top first, and its names.
pub(super) type Stack = (Vec<LayerDetails>, Vec<String>);

/// What `rlrun image tree` prints: the layers of an image, or those that are built on its top one.
pub(super) fn tree(image: &ImageDetails, all: &[Stack], what_requires: bool) -> String {
    let total: u64 = image.layers.iter().map(|l| l.bytes).sum();
    let names = image.summary.names.join(", ");
    let mut out = format!(
        "Image ID: {}\nTags:     [{names}]\nSize:     {}\nImage Layers\n",
        short(&image.summary.id),
        size(total)
    );
    if let (true, Some(top)) = (what_requires, image.layers.first()) {
        above(&mut out, top, all, ("", true));
        return out;
    }
    let count = image.layers.len();
    for (index, layer) in image.layers.iter().rev().enumerate() {
        line(&mut out, layer, all, ("", index + 1 == count));
    }
    out
}

/// A layer with those that are built on it; what stands before it, and whether it is the last of its kind there.
fn above(out: &mut String, layer: &LayerDetails, all: &[Stack], (before, last): (&str, bool)) {
    line(out, layer, all, (before, last));
    let on_it = |(layers, _): &'_ Stack| {
        let at = layers.iter().position(|l| l.id == layer.id)?;
        Some((layers.get(at.checked_sub(1)?)?.id.clone(), at - 1))
    };
    // Several images may go on with the same layer.
    let next: BTreeMap<String, &LayerDetails> =
        all.iter().filter_map(|stack| on_it(stack).map(|(id, at)| (id, &stack.0[at]))).collect();
    let before = format!("{before}{}", if last { "    " } else { "│   " });
    for (index, layer) in next.values().enumerate() {
        above(out, layer, all, (&before, index + 1 == next.len()));
    }
}

fn line(out: &mut String, layer: &LayerDetails, all: &[Stack], (before, last): (&str, bool)) {
    let branch = if last { "└──" } else { "├──" };
    let ends = all.iter().filter(|(layers, _)| layers.first().is_some_and(|top| top.id == layer.id));
    let top: Vec<&str> = ends.flat_map(|(_, names)| names).map(String::as_str).collect();
    let top = if top.is_empty() { String::new() } else { format!(" Top Layer of: [{}]", top.join(", ")) };
    // Writing to a String cannot fail.
    writeln!(out, "{before}{branch} ID: {} Size: {:>8}{top}", &layer.id[..12.min(layer.id.len())], size(layer.bytes))
        .unwrap_or_default();
}
