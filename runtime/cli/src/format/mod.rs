//! What list and inspect verbs print: columns, JSON or a Go template, as podman's `--format` has it. A verb makes JSON
//! values and names its columns; everything else is here.

mod filter;
mod template;

pub(crate) use filter::{Filters, label_fits, moment};

use crate::table;
use rlrun_spec::{Failure, Kind, Stage};
use serde_json::{Map, Value};
use template::Template;

/// How output was asked for.
#[derive(Debug)]
pub(crate) enum Format {
    Json,
    /// One line a row.
    Lines(Source),
    /// Columns, which the template separates by tabs.
    Table(Source),
}

/// A template with the text that messages show.
#[derive(Debug)]
pub(crate) struct Source {
    text: String,
    template: Template,
    /// The template walks over the list by itself.
    whole: bool,
}

/// One element of a list.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// What `--format json` prints.
    pub(crate) document: Value,
    /// What templates see: texts as the columns show them.
    pub(crate) fields: Value,
}

/// Whether a table gets its first line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heading {
    Shown,
    Hidden,
}

impl From<bool> for Heading {
    /// From `--noheading`.
    fn from(noheading: bool) -> Self {
        if noheading { Heading::Hidden } else { Heading::Shown }
    }
}

impl Format {
    /// Reads the words of `--format`; `columns` is the table that is shown without it, and for `table` alone:
    /// `{{.Id}}\t{{.Names}}`.
    pub(crate) fn parse(words: Option<&str>, columns: &str) -> Result<Self, Failure> {
        let text = words.unwrap_or("table").trim();
        if text == "json" {
            return Ok(Format::Json);
        }
        match text.strip_prefix("table") {
            Some("") => Source::parse(columns).map(Format::Table),
            Some(rest) if rest.starts_with([' ', '\t']) => Source::parse(&columns_of(rest.trim())).map(Format::Table),
            _ => Source::parse(text).map(Format::Lines),
        }
    }

    /// Prints a list. `headings` name the columns whose names in capitals would not do.
    pub(crate) fn list(&self, rows: &[Row], headings: &[(&str, &str)], heading: Heading) -> Result<String, Failure> {
        match self {
            Format::Json => {
                let documents = rows.iter().map(|row| row.document.clone()).collect();
                Ok(format!("{:#}\n", Value::Array(documents)))
            }
            Format::Lines(source) => source.lines(rows),
            Format::Table(source) => {
                let first = (heading == Heading::Shown).then(|| source.headings(rows, headings)).flatten();
                Ok(table::aligned(&(first.unwrap_or_default() + &source.lines(rows)?)))
            }
        }
    }
}

/// Whether `--format` of an inspection is a template: those may ask for what JSON leaves out.
pub(crate) fn is_template(words: Option<&str>) -> bool {
    !matches!(words.map(str::trim), None | Some("json" | ""))
}

/// Blanks between the columns of a table part them like tabs, as podman has it; those inside an action are its own.
fn columns_of(text: &str) -> String {
    let mut columns = String::with_capacity(text.len());
    for (index, part) in text.split("{{").enumerate() {
        let (action, between) = if index == 0 { ("", part) } else { part.split_once("}}").unwrap_or((part, "")) };
        if index > 0 {
            columns.push_str("{{");
            columns.push_str(action);
            columns.push_str(if action.len() == part.len() { "" } else { "}}" });
        }
        for (index, word) in between.split(' ').enumerate() {
            if index > 0 && !columns.ends_with('\t') {
                columns.push('\t');
            }
            columns.push_str(word);
        }
    }
    columns
}

/// Prints what `inspect` found: an array, or what a template makes of each element.
pub(crate) fn inspected(words: Option<&str>, documents: &[Value]) -> Result<String, Failure> {
    let text = match words.map(str::trim) {
        None | Some("json" | "") => return Ok(format!("{:#}\n", Value::Array(documents.to_vec()))),
        Some(text) => text,
    };
    let source = Source::parse(text)?;
    let lines = documents.iter().map(|document| source.execute(document).map(|line| line + "\n"));
    lines.collect()
}

impl Source {
    fn parse(text: &str) -> Result<Self, Failure> {
        // Shells hand over `\t` and `\n` as they are written between single quotes.
        let text = text.replace("\\t", "\t").replace("\\n", "\n");
        let template = Template::parse(&text).map_err(|why| wrong("read the template", &text, why))?;
        let start = text.trim_start_matches("{{-").trim_start_matches("{{").trim_start();
        let whole = text.starts_with("{{") && start.starts_with("range");
        Ok(Source { text, template, whole })
    }

    fn execute(&self, data: &Value) -> Result<String, Failure> {
        self.template.execute(data).map_err(|why| wrong("apply the template", &self.text, why))
    }

    fn lines(&self, rows: &[Row]) -> Result<String, Failure> {
        if self.whole {
            let list = Value::Array(rows.iter().map(|row| row.fields.clone()).collect());
            return self.execute(&list);
        }
        rows.iter().map(|row| self.execute(&row.fields).map(|line| line + "\n")).collect()
    }

    /// The template applied to the columns' names; none for one that looks into a column or walks by itself.
    fn headings(&self, rows: &[Row], headings: &[(&str, &str)]) -> Option<String> {
        let mut names = Map::new();
        let known = rows.first().and_then(|row| row.fields.as_object()).into_iter().flat_map(Map::keys);
        // An empty list has no rows to tell its columns.
        for field in known.cloned().chain(fields_of(&self.text)) {
            let special =
                headings.iter().find(|(name, _)| name.eq_ignore_ascii_case(&field)).map(|(_, text)| (*text).to_owned());
            let text = special.unwrap_or_else(|| capitals(&field));
            names.insert(field, Value::String(text));
        }
        let line = self.template.execute(&Value::Object(names)).ok()?;
        (!self.whole && !line.contains("<no value>")).then(|| line + "\n")
    }
}

fn wrong(operation: &str, text: &str, why: String) -> Failure {
    Failure::new(Stage::Cli, Kind::Usage, "format", operation, text)
        .why(why)
        .hint("--format takes json, `table TEMPLATE` or a template such as '{{.ID}}'; '{{json .}}' shows what there is")
}

/// Words after a dot.
fn fields_of(template: &str) -> impl Iterator<Item = String> + '_ {
    template.split('.').skip(1).filter_map(|rest| {
        let name: String = rest.chars().take_while(|c| c.is_ascii_alphanumeric()).collect();
        (!name.is_empty()).then_some(name)
    })
}

/// `CreatedAt` is CREATED AT.
fn capitals(name: &str) -> String {
    let mut text = String::new();
    let mut before = 'A';
    for c in name.chars() {
        if c.is_uppercase() && before.is_lowercase() {
            text.push(' ');
        }
        text.extend(c.to_uppercase());
        before = c;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const COLUMNS: &str = "{{.Id}}\t{{.CreatedAt}}";

    fn print(format: Option<&str>, count: usize) -> Result<String, String> {
        let row = |n: usize| Row {
            document: json!({"Id": format!("whole{n}")}),
            fields: json!({"Id": format!("id{n}"), "CreatedAt": "now", "Labels": {"k": "v"}}),
        };
        let rows: Vec<Row> = (0..count).map(row).collect();
        let format = Format::parse(format, COLUMNS).map_err(|f| f.to_string())?;
        format.list(&rows, &[("Id", "IMAGE ID")], Heading::Shown).map_err(|f| f.to_string())
    }

    #[test]
    fn a_table_has_podmans_headings_and_widths() {
        let want = "IMAGE ID    CREATED AT\nid0         now\n";
        for format in [None, Some("table"), Some("table {{.Id}}\\t{{.CreatedAt}}")] {
            assert_eq!(print(format, 1).as_deref(), Ok(want), "{format:?}");
        }
        assert_eq!(print(None, 0).as_deref(), Ok("IMAGE ID    CREATED AT\n"));
        assert_eq!(print(Some("table {{.ID}} {{.Labels.k}}"), 1).as_deref(), Ok("id0         v\n"));
        // Not within an action, nor once more where there is a tab.
        assert_eq!(columns_of("{{ .A }}  {{.B}} x\t {{.C"), "{{ .A }}\t{{.B}}\tx\t{{.C");
    }

    #[test]
    fn templates_make_a_line_a_row_or_walk_themselves() {
        assert_eq!(print(Some("{{.ID}}\\t{{.Labels.k}}"), 2).as_deref(), Ok("id0\tv\nid1\tv\n"));
        assert_eq!(print(Some("{{range .}}{{.Id}},{{end}}"), 2).as_deref(), Ok("id0,id1,"));
        assert_eq!(print(Some("{{.ID}}"), 0).as_deref(), Ok(""));
    }

    #[test]
    fn json_is_the_documents() {
        let text = print(Some("json"), 1).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), json!([{"Id": "whole0"}]));
        assert_eq!(print(Some("json"), 0).as_deref(), Ok("[]\n"));
    }

    #[test]
    fn a_field_that_is_not_there_is_an_error() {
        let error = print(Some("{{.Nope}}"), 1).unwrap_err();
        assert!(error.contains("apply the template: {{.Nope}}: can't evaluate field Nope"), "{error}");
        assert!(print(Some("table {{.Nope}}"), 1).is_err());
        assert!(print(Some("{{.Id"), 1).unwrap_err().contains("read the template"));
    }

    #[test]
    fn what_is_inspected_is_an_array() {
        let documents = [json!({"Id": "a"}), json!({"Id": "b"})];
        assert_eq!(inspected(Some("{{.Id}}"), &documents).unwrap(), "a\nb\n");
        let all: Value = serde_json::from_str(&inspected(None, &documents).unwrap()).unwrap();
        assert_eq!(all, json!(documents));
        assert_eq!(inspected(Some("json"), &documents).unwrap(), inspected(None, &documents).unwrap());
    }

    #[test]
    fn names_become_headings() {
        assert_eq!(
            (capitals("CreatedAt"), capitals("ID"), capitals("Names")),
            ("CREATED AT".into(), "ID".into(), "NAMES".into())
        );
    }
}
