//! The tree is walked over the data.

use super::functions;
use super::parse::{Base, Node, Operand, Pipeline};
use super::print::display;
use serde_json::{Map, Value};
use std::borrow::Cow;

/// Fields that hold names of the user's choosing: in a map a name that is missing is no mistake, and has no value.
const MAPS: &[&str] = &[
    "Annotations",
    "Data",
    "ExposedPorts",
    "Labels",
    "Networks",
    "Options",
    "Ports",
    "StorageOpt",
    "Sysctls",
    "Tmpfs",
    "Volumes",
];

/// A value on its way through a template.
#[derive(Clone, Debug)]
pub(super) enum Datum<'a> {
    /// A map has no such name.
    Absent,
    /// An object is a record: it has these fields and no others.
    Plain(Cow<'a, Value>),
    /// An object whose names are anything.
    Map(Cow<'a, Value>),
}

impl<'a> Datum<'a> {
    pub(super) fn made(value: impl Into<Value>) -> Self {
        Datum::Plain(Cow::Owned(value.into()))
    }

    fn of(value: &'a Value) -> Self {
        Datum::Plain(Cow::Borrowed(value))
    }

    pub(super) fn value(&self) -> &Value {
        match self {
            Datum::Absent => &Value::Null,
            Datum::Plain(value) | Datum::Map(value) => value,
        }
    }

    /// As Go has it: what is empty is false.
    pub(super) fn is_true(&self) -> bool {
        match self.value() {
            Value::Null => false,
            Value::Bool(b) => *b,
            Value::Number(n) => n.as_f64() != Some(0.0),
            Value::String(s) => !s.is_empty(),
            Value::Array(list) => !list.is_empty(),
            Value::Object(map) => !map.is_empty(),
        }
    }

    fn field(&self, name: &str) -> Result<Datum<'a>, String> {
        let is_map = MAPS.contains(&name);
        let wrap = |value| if is_map { Datum::Map(value) } else { Datum::Plain(value) };
        let found = match self {
            Datum::Absent => None,
            Datum::Plain(Cow::Borrowed(v)) => member(v, name).or_else(|| worded(v, name)).map(Cow::Borrowed),
            Datum::Plain(Cow::Owned(v)) => member(v, name).or_else(|| worded(v, name)).cloned().map(Cow::Owned),
            Datum::Map(Cow::Borrowed(v)) => member(v, name).map(Cow::Borrowed),
            Datum::Map(Cow::Owned(v)) => member(v, name).cloned().map(Cow::Owned),
        };
        match (found, self) {
            (Some(value), _) => Ok(wrap(value)),
            (None, Datum::Map(_)) => Ok(Datum::Absent),
            (None, Datum::Absent | Datum::Plain(_)) => Err(self.no_field(name)),
        }
    }

    fn no_field(&self, name: &str) -> String {
        match self.value() {
            Value::Object(map) if !map.is_empty() => format!("can't evaluate field {name}: there are {}", names(map)),
            Value::Object(_) => format!("can't evaluate field {name}"),
            Value::Null => format!("nil data; no entry for {name}"),
            other => format!("can't evaluate field {name} in {}", kind(other)),
        }
    }
}

/// Podman writes Id in documents and takes ID in templates.
fn member<'v>(value: &'v Value, name: &str) -> Option<&'v Value> {
    let map = value.as_object()?;
    let other = match name {
        "ID" => "Id",
        "Id" => "ID",
        other => other,
    };
    map.get(name).or_else(|| map.get(other))
}

/// The field that a document of OCI's calls `created_by` is CreatedBy in podman's templates.
fn worded<'v>(value: &'v Value, name: &str) -> Option<&'v Value> {
    let is_it = |key: &str| {
        let mut words = key.split('_').flat_map(|word| {
            let mut letters = word.chars();
            letters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(letters)
        });
        let mut wanted = name.chars();
        words.by_ref().all(|letter| wanted.next() == Some(letter)) && wanted.next().is_none()
    };
    value.as_object()?.iter().find(|(key, _)| is_it(key)).map(|(_, value)| value)
}

fn names(map: &Map<String, Value>) -> String {
    map.keys().cloned().collect::<Vec<_>>().join(", ")
}

pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nil",
        Value::Bool(_) => "a bool",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "a map",
    }
}

pub(super) fn execute(nodes: &[Node], data: &Value) -> Result<String, String> {
    let mut run = Run { out: String::new(), variables: vec![("", Datum::of(data))] };
    run.block(nodes, &Datum::of(data))?;
    Ok(run.out)
}

/// How a block ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    On,
    Break,
    Continue,
}

struct Run<'a> {
    out: String,
    /// Innermost last; the first is `$`.
    variables: Vec<(&'a str, Datum<'a>)>,
}

impl<'a> Run<'a> {
    /// What is declared in a block ends with it.
    fn block(&mut self, nodes: &'a [Node], dot: &Datum<'a>) -> Result<Flow, String> {
        let outer = self.variables.len();
        let mut flow = Flow::On;
        for node in nodes {
            flow = self.node(node, dot)?;
            if flow != Flow::On {
                break;
            }
        }
        self.variables.truncate(outer);
        Ok(flow)
    }

    fn node(&mut self, node: &'a Node, dot: &Datum<'a>) -> Result<Flow, String> {
        match node {
            Node::Text(text) => self.out.push_str(text),
            Node::Print(pipeline) => {
                let datum = self.pipeline(pipeline, dot)?;
                if pipeline.variables.is_empty() {
                    self.out.push_str(&display(&datum));
                }
            }
            Node::If { cases, otherwise } => return self.branch(cases, otherwise, dot),
            Node::With { of, then, otherwise } => {
                let outer = self.variables.len();
                let datum = self.pipeline(of, dot)?;
                let flow = if datum.is_true() { self.block(then, &datum) } else { self.block(otherwise, dot) };
                self.variables.truncate(outer);
                return flow;
            }
            Node::Range { over, each, otherwise } => return self.range(over, each, otherwise, dot).map(|()| Flow::On),
            Node::Break => return Ok(Flow::Break),
            Node::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::On)
    }

    fn branch(
        &mut self,
        cases: &'a [(Pipeline, Vec<Node>)],
        otherwise: &'a [Node],
        dot: &Datum<'a>,
    ) -> Result<Flow, String> {
        let outer = self.variables.len();
        let mut chosen = otherwise;
        for (condition, then) in cases {
            if self.pipeline(condition, dot)?.is_true() {
                chosen = then;
                break;
            }
        }
        let flow = self.block(chosen, dot);
        self.variables.truncate(outer);
        flow
    }

    fn range(
        &mut self,
        over: &'a Pipeline,
        each: &'a [Node],
        otherwise: &'a [Node],
        dot: &Datum<'a>,
    ) -> Result<(), String> {
        let outer = self.variables.len();
        // In `range $i, $x := ...` the variables are the elements', not the list's.
        let list = self.commands(over, dot)?;
        let items = items(&list)?;
        if items.is_empty() {
            self.block(otherwise, dot)?;
        }
        for (key, item) in items {
            match &over.variables[..] {
                [one] => self.set(one, item.clone(), over.assigns)?,
                [first, second] => {
                    self.set(first, key, over.assigns)?;
                    self.set(second, item.clone(), over.assigns)?;
                }
                _ => {}
            }
            let flow = self.block(each, &item)?;
            self.variables.truncate(outer);
            if flow == Flow::Break {
                break;
            }
        }
        Ok(())
    }

    fn set(&mut self, name: &'a str, datum: Datum<'a>, assigns: bool) -> Result<(), String> {
        if !assigns {
            self.variables.push((name, datum));
            return Ok(());
        }
        let slot = self.variables.iter_mut().rev().find(|(known, _)| *known == name);
        slot.ok_or_else(|| format!("undefined variable ${name}"))?.1 = datum;
        Ok(())
    }

    fn pipeline(&mut self, pipeline: &'a Pipeline, dot: &Datum<'a>) -> Result<Datum<'a>, String> {
        let datum = self.commands(pipeline, dot)?;
        match &pipeline.variables[..] {
            [] => {}
            [one] => self.set(one, datum.clone(), pipeline.assigns)?,
            _ => return Err("two variables are for {{range}}".to_owned()),
        }
        Ok(datum)
    }

    fn commands(&mut self, pipeline: &'a Pipeline, dot: &Datum<'a>) -> Result<Datum<'a>, String> {
        let mut last = None;
        for command in &pipeline.commands {
            last = Some(self.command(command, last, dot)?);
        }
        Ok(last.unwrap_or(Datum::Absent))
    }

    /// A function with its arguments, the last of them from the pipe; or a value alone.
    fn command(
        &mut self,
        command: &'a [Operand],
        piped: Option<Datum<'a>>,
        dot: &Datum<'a>,
    ) -> Result<Datum<'a>, String> {
        let Some((first, rest)) = command.split_first() else { return Ok(Datum::Absent) };
        let Base::Function(name) = &first.base else {
            return match (rest, first.fields.split_last()) {
                ([], _) => self.operand(first, dot),
                // A method of podman's lists: `.Label "k"`.
                ([key], Some((name, before))) if name == "Label" => {
                    let (of, key) = (self.walk(&first.base, before, dot)?, self.operand(key, dot)?);
                    label(&of, &key)
                }
                _ => Err("a value takes no arguments".to_owned()),
            };
        };
        let arguments =
            rest.iter().map(|o| self.operand(o, dot)).chain(piped.map(Ok)).collect::<Result<Vec<_>, _>>()?;
        functions::call(name, &arguments)
    }

    fn operand(&mut self, operand: &'a Operand, dot: &Datum<'a>) -> Result<Datum<'a>, String> {
        self.walk(&operand.base, &operand.fields, dot)
    }

    fn walk(&mut self, base: &'a Base, fields: &'a [String], dot: &Datum<'a>) -> Result<Datum<'a>, String> {
        let base = match base {
            Base::Dot => dot.clone(),
            Base::Variable(name) => {
                let known = self.variables.iter().rev().find(|(known, _)| known == name);
                known.ok_or_else(|| format!("undefined variable ${name}"))?.1.clone()
            }
            Base::Literal(value) => Datum::of(value),
            Base::Function(name) => functions::call(name, &[])?,
            Base::Parenthesis(pipeline) => self.pipeline(pipeline, dot)?,
        };
        fields.iter().try_fold(base, |datum, name| datum.field(name))
    }
}

/// The label with that key, nothing where there is none.
fn label<'a>(of: &Datum<'a>, key: &Datum<'a>) -> Result<Datum<'a>, String> {
    let labels = of.field("Labels")?;
    let key = key.value().as_str().ok_or("a label's key is a string")?;
    Ok(match labels.value() {
        Value::Object(labels) => Datum::made(labels.get(key).cloned().unwrap_or_else(|| "".into())),
        // Of a heading.
        _ => Datum::made(key.to_uppercase()),
    })
}

/// Keys and elements.
fn items<'a>(datum: &Datum<'a>) -> Result<Vec<(Datum<'a>, Datum<'a>)>, String> {
    fn pairs(value: &Value) -> Result<Vec<(Value, &Value)>, String> {
        match value {
            Value::Null => Ok(Vec::new()),
            Value::Array(list) => Ok(list.iter().enumerate().map(|(i, v)| (Value::from(i), v)).collect()),
            Value::Object(map) => {
                let mut all: Vec<_> = map.iter().collect();
                all.sort_by_key(|(key, _)| *key);
                Ok(all.into_iter().map(|(key, v)| (Value::from(key.as_str()), v)).collect())
            }
            other => Err(format!("range can't iterate over {}", kind(other))),
        }
    }
    let key = |key| Datum::Plain(Cow::Owned(key));
    Ok(match datum {
        Datum::Absent => Vec::new(),
        Datum::Plain(Cow::Borrowed(v)) | Datum::Map(Cow::Borrowed(v)) => {
            pairs(v)?.into_iter().map(|(k, v)| (key(k), Datum::of(v))).collect()
        }
        Datum::Plain(Cow::Owned(v)) | Datum::Map(Cow::Owned(v)) => {
            pairs(v)?.into_iter().map(|(k, v)| (key(k), Datum::made(v.clone()))).collect()
        }
    })
}
