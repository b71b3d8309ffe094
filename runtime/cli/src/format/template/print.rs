//! Values as Go's fmt writes them.

use super::functions::text;
use super::run::{Datum, kind};
use serde_json::Value;
use std::iter::Peekable;
use std::str::Chars;

/// Wider is a mistake, and would fill the memory.
const MAX_WIDTH: usize = 4096;

pub(super) fn display(datum: &Datum<'_>) -> String {
    match datum.value() {
        Value::Null => "<no value>".to_owned(),
        value => plain(value),
    }
}

/// `%v`.
pub(super) fn plain(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::Bool(b) => b.to_string(),
        Value::Number(n) => n.to_string(),
        Value::String(s) => s.clone(),
        Value::Array(list) => format!("[{}]", list.iter().map(plain).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            let mut pairs: Vec<_> = map.iter().map(|(k, v)| format!("{k}:{}", plain(v))).collect();
            pairs.sort();
            format!("map[{}]", pairs.join(" "))
        }
    }
}

/// The part of fmt.Sprintf that formats use: `%v %s %q %d %x %X %t %f %%` with `-`, `0`, width and precision.
pub(super) fn printf(format: &str, arguments: &[Datum<'_>]) -> Result<String, String> {
    let mut out = String::new();
    let mut arguments = arguments.iter();
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let layout = Layout::read(&mut chars);
        match chars.next() {
            Some('%') => out.push('%'),
            Some(verb) => {
                let argument = arguments.next().ok_or_else(|| format!("%{verb} has no argument"))?;
                out.push_str(&layout.fill(&layout.verb(verb, argument)?));
            }
            None => return Err("a lone % at the end".to_owned()),
        }
    }
    match arguments.len() {
        0 => Ok(out),
        left => Err(format!("{left} more arguments than verbs")),
    }
}

struct Layout {
    left: bool,
    zeros: bool,
    width: usize,
    precision: Option<usize>,
}

impl Layout {
    fn read(chars: &mut Peekable<Chars<'_>>) -> Self {
        let mut layout = Layout { left: false, zeros: false, width: 0, precision: None };
        while let Some(flag) = chars.next_if(|c| matches!(c, '-' | '0' | '+' | ' ' | '#')) {
            layout.left |= flag == '-';
            layout.zeros |= flag == '0';
        }
        layout.width = number(chars);
        if chars.next_if_eq(&'.').is_some() {
            layout.precision = Some(number(chars));
        }
        layout
    }

    fn verb(&self, verb: char, argument: &Datum<'_>) -> Result<String, String> {
        let value = argument.value();
        let wrong = || format!("%{verb} cannot print {}", kind(value));
        let cut = |text: String| match self.precision {
            Some(precision) => text.chars().take(precision).collect(),
            None => text,
        };
        Ok(match verb {
            'v' | 's' => cut(display(argument)),
            'q' => Value::String(cut(text(argument)?.to_owned())).to_string(),
            'd' if value.is_i64() || value.is_u64() => value.to_string(),
            't' => value.as_bool().ok_or_else(wrong)?.to_string(),
            'f' => format!("{:.*}", self.precision.unwrap_or(6), value.as_f64().ok_or_else(wrong)?),
            'x' => hexadecimal(value).ok_or_else(wrong)?,
            'X' => hexadecimal(value).ok_or_else(wrong)?.to_uppercase(),
            _ => return Err(wrong()),
        })
    }

    fn fill(&self, text: &str) -> String {
        let missing = self.width.saturating_sub(text.chars().count());
        match (self.left, self.zeros) {
            (true, _) => format!("{text}{}", " ".repeat(missing)),
            (false, true) => match text.strip_prefix('-') {
                Some(digits) => format!("-{}{digits}", "0".repeat(missing)),
                None => format!("{}{text}", "0".repeat(missing)),
            },
            (false, false) => format!("{}{text}", " ".repeat(missing)),
        }
    }
}

fn number(chars: &mut Peekable<Chars<'_>>) -> usize {
    let digits: String = std::iter::from_fn(|| chars.next_if(char::is_ascii_digit)).collect();
    digits.parse().map_or(0, |n: usize| n.min(MAX_WIDTH))
}

fn hexadecimal(value: &Value) -> Option<String> {
    match value {
        Value::String(s) => Some(s.bytes().map(|b| format!("{b:02x}")).collect()),
        value => value.as_u64().map(|n| format!("{n:x}")),
    }
}
