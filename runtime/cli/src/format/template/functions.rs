//! The functions of templates: Go's own, and those that podman and docker add.

use super::print::{display, printf};
use super::run::{Datum, kind};
use serde_json::Value;
use std::cmp::Ordering;

const NAMES: &[&str] = &[
    "and", "eq", "ge", "gt", "index", "join", "json", "le", "len", "lower", "lt", "ne", "not", "or", "pad", "print",
    "printf", "println", "slice", "split", "title", "truncate", "upper",
];

/// The name, if there is such a function.
pub(super) fn known(name: &str) -> Result<String, String> {
    match NAMES.contains(&name) {
        true => Ok(name.to_owned()),
        false => Err(format!("function \"{name}\" not defined: there are {}", NAMES.join(", "))),
    }
}

pub(super) fn call<'a>(name: &str, arguments: &[Datum<'a>]) -> Result<Datum<'a>, String> {
    let wrong = |why: String| format!("{name}: {why}");
    match (name, arguments) {
        ("and", [first, rest @ ..]) => Ok(decide(first, rest, false)),
        ("or", [first, rest @ ..]) => Ok(decide(first, rest, true)),
        ("not", [one]) => Ok(Datum::made(!one.is_true())),
        ("len", [one]) => length(one).map(Datum::made).map_err(wrong),
        ("index", [of, keys @ ..]) => keys.iter().try_fold(of.clone(), |of, key| index(&of, key)).map_err(wrong),
        ("slice", [of, bounds @ ..]) => slice(of, bounds).map_err(wrong),
        ("print", all) => Ok(Datum::made(print(all))),
        ("println", all) => Ok(Datum::made(all.iter().map(display).collect::<Vec<_>>().join(" ") + "\n")),
        ("printf", [format, all @ ..]) => text(format).and_then(|f| printf(f, all)).map(Datum::made).map_err(wrong),
        ("json", [one]) => Ok(Datum::made(one.value().to_string())),
        ("eq", [one, others @ ..]) if !others.is_empty() => {
            let equal = others.iter().map(|o| compare(one, o)).collect::<Result<Vec<_>, _>>().map_err(wrong)?;
            Ok(Datum::made(equal.contains(&Ordering::Equal)))
        }
        ("ne" | "lt" | "le" | "gt" | "ge", [a, b]) => {
            compare(a, b).map(|order| Datum::made(holds(name, order))).map_err(wrong)
        }
        _ => strings(name, arguments).map(Datum::made).map_err(wrong),
    }
}

fn strings(name: &str, arguments: &[Datum<'_>]) -> Result<Value, String> {
    Ok(match (name, arguments) {
        ("upper", [one]) => text(one)?.to_uppercase().into(),
        ("lower", [one]) => text(one)?.to_lowercase().into(),
        ("title", [one]) => title(text(one)?).into(),
        ("split", [one, separator]) => split(text(one)?, text(separator)?).into(),
        ("join", [list, separator]) => join(list.value(), text(separator)?)?.into(),
        ("pad", [one, before, after]) => pad(text(one)?, number(before)?, number(after)?).into(),
        ("truncate", [one, length]) => text(one)?.chars().take(number(length)?).collect::<String>().into(),
        _ => return Err(format!("wrong number of arguments: {}", arguments.len())),
    })
}

/// The first that decides, or the last.
fn decide<'a>(first: &Datum<'a>, rest: &[Datum<'a>], decisive: bool) -> Datum<'a> {
    let all = || std::iter::once(first).chain(rest);
    all().find(|d| d.is_true() == decisive).or(all().last()).unwrap_or(first).clone()
}

fn holds(name: &str, order: Ordering) -> bool {
    match name {
        "lt" => order.is_lt(),
        "le" => order.is_le(),
        "gt" => order.is_gt(),
        "ge" => order.is_ge(),
        _ => order.is_ne(),
    }
}

fn compare(a: &Datum<'_>, b: &Datum<'_>) -> Result<Ordering, String> {
    let incompatible = || format!("{} and {} cannot be compared", kind(a.value()), kind(b.value()));
    match (a.value(), b.value()) {
        (Value::String(a), Value::String(b)) => Ok(a.cmp(b)),
        (Value::Bool(a), Value::Bool(b)) => Ok(a.cmp(b)),
        (Value::Null, Value::Null) => Ok(Ordering::Equal),
        (Value::Number(a), Value::Number(b)) => match (a.as_i64(), b.as_i64()) {
            (Some(a), Some(b)) => Ok(a.cmp(&b)),
            _ => a.as_f64().zip(b.as_f64()).and_then(|(a, b)| a.partial_cmp(&b)).ok_or_else(incompatible),
        },
        _ => Err(incompatible()),
    }
}

fn length(of: &Datum<'_>) -> Result<usize, String> {
    match of.value() {
        Value::String(s) => Ok(s.len()),
        Value::Array(list) => Ok(list.len()),
        Value::Object(map) => Ok(map.len()),
        // An empty list of a document may be null.
        Value::Null => Ok(0),
        other => Err(format!("{} has no length", kind(other))),
    }
}

fn index<'a>(of: &Datum<'a>, key: &Datum<'a>) -> Result<Datum<'a>, String> {
    match of.value() {
        Value::Array(list) => {
            let at = number(key)?;
            list.get(at).cloned().map(Datum::made).ok_or_else(|| format!("index out of range: {at}"))
        }
        Value::Object(map) => Ok(map.get(text(key)?).cloned().map_or(Datum::Absent, Datum::made)),
        other => Err(format!("{} cannot be indexed", kind(other))),
    }
}

fn slice<'a>(of: &Datum<'a>, bounds: &[Datum<'a>]) -> Result<Datum<'a>, String> {
    let bounds: Vec<usize> = bounds.iter().map(number).collect::<Result<_, _>>()?;
    let end = length(of)?;
    let (from, to) = match bounds[..] {
        [] => (0, end),
        [from] => (from, end),
        [from, to] => (from, to),
        _ => return Err("more than two bounds".to_owned()),
    };
    let out_of_range = || format!("out of range: {from}:{to}");
    match of.value() {
        Value::String(s) => s.get(from..to).map(Datum::made).ok_or_else(out_of_range),
        Value::Array(list) => list.get(from..to).map(|l| Datum::made(l.to_vec())).ok_or_else(out_of_range),
        other => Err(format!("{} cannot be sliced", kind(other))),
    }
}

/// Blanks stand between two neighbours that are both no strings.
fn print(all: &[Datum<'_>]) -> String {
    let mut out = String::new();
    let mut before_is_text = true;
    for datum in all {
        let is_text = datum.value().is_string();
        if !is_text && !before_is_text {
            out.push(' ');
        }
        out.push_str(&display(datum));
        before_is_text = is_text;
    }
    out
}

pub(super) fn text<'d>(datum: &'d Datum<'_>) -> Result<&'d str, String> {
    datum.value().as_str().ok_or_else(|| format!("expected a string, got {}", kind(datum.value())))
}

fn number(datum: &Datum<'_>) -> Result<usize, String> {
    let number = datum.value().as_u64().and_then(|n| usize::try_from(n).ok());
    number.ok_or_else(|| format!("expected a whole number that is not negative, got {}", display(datum)))
}

/// The first letter of each word.
fn title(text: &str) -> String {
    let mut word = false;
    let capital = |c: char| {
        let begins = !std::mem::replace(&mut word, c.is_alphanumeric() || matches!(c, '_' | '\''));
        if begins { c.to_uppercase().collect() } else { c.to_string() }
    };
    text.chars().map(capital).collect()
}

fn split(text: &str, separator: &str) -> Vec<String> {
    match separator {
        "" => text.chars().map(String::from).collect(),
        separator => text.split(separator).map(str::to_owned).collect(),
    }
}

fn join(list: &Value, separator: &str) -> Result<String, String> {
    match list {
        Value::Null => Ok(String::new()),
        Value::Array(list) => Ok(list.iter().map(super::print::plain).collect::<Vec<_>>().join(separator)),
        other => Err(format!("expected a list, got {}", kind(other))),
    }
}

/// Widths beyond this are a mistake, and would fill the memory.
const MAX_PAD: usize = 4096;

fn pad(text: &str, before: usize, after: usize) -> String {
    match text {
        "" => String::new(),
        text => format!("{}{text}{}", " ".repeat(before.min(MAX_PAD)), " ".repeat(after.min(MAX_PAD))),
    }
}
