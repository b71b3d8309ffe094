//! One policy, asked by hand: for its author's tests, traces and measurements. Its types are looked up in the component,
//! so this knows no hook by name. A verdict for a container never comes from here.

use crate::answer;
use crate::error::LoadError;
use crate::evaluate::{self, Session};
use crate::loader::Loader;
use crate::policy::{Contents, Policy};
use crate::sources::{self, LogLine, Sources};
use crate::{limits, value};
use rlrun_spec::policy::{PolicyId, PrivilegedFiles, Refusal};
use serde_json::{Map, Value};
use std::path::Path;
use std::time::{Duration, Instant};
use wasmtime::Engine;
use wasmtime::component::types::{ComponentFunc, ComponentItem};
use wasmtime::component::{Func, Val};

/// A function that a policy exports for being asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// `rlrun:policy/create@0.1.0`
    pub interface: String,
    /// `on-create`
    pub name: String,
    /// As cases call it: `create`, `pull`, `validate`, ...
    pub hook: String,
    /// The names of its parameters.
    pub params: Vec<String>,
}

/// A policy on the bench.
pub struct Workbench {
    engine: Engine,
    policy: Policy,
    functions: Vec<(Function, ComponentFunc)>,
    log: Option<LogLine>,
}

impl std::fmt::Debug for Workbench {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Workbench").field("policy", &self.policy.id).finish_non_exhaustive()
    }
}

/// What a policy said, and what it took.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The answer as JSON, or the refusal in its name because it failed.
    pub answer: Result<Value, Refusal>,
    /// Fuel for instantiation and `lifecycle.init`.
    pub init_fuel: u64,
    /// Fuel for the hook.
    pub fuel: u64,
    /// For instantiation and `lifecycle.init`.
    pub opened: Duration,
    /// For the hook.
    pub asked: Duration,
}

/// Why a question cannot be put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unaskable {
    /// The policy does not have the hook.
    NoSuchHook,
    /// The request does not have the form that the policy's type says.
    Request(String),
}

/// Whose settings a policy gets.
#[derive(Clone, Copy, Debug)]
pub enum Given<'a> {
    /// Those beside it, kept with its code as in a start.
    Beside,
    /// These, as JSON, given anew each time it is asked.
    Anew(&'a str),
}

impl Workbench {
    /// Loads a policy from a file.
    ///
    /// # Errors
    /// When it is not a policy that can be asked.
    pub fn open(file: &Path, given: Given<'_>, sources: &Sources) -> Result<Self, LoadError> {
        let mut loader = Loader::new(sources)?;
        let found = sources::named(file, &sources.data_dir)?;
        let policy = match given {
            Given::Beside => loader.load(found)?,
            Given::Anew(settings) => loader.load_plain(found, settings)?,
        };
        loader.finish();
        Ok(Workbench::of(&loader.engine, policy, sources.log))
    }

    /// Every policy that would be asked.
    ///
    /// # Errors
    /// When one of them cannot be loaded.
    pub fn all(sources: &Sources) -> Result<Vec<Self>, LoadError> {
        let mut loader = Loader::new(sources)?;
        let policies =
            sources.discover()?.found.into_iter().map(|found| loader.load(found)).collect::<Result<Vec<_>, _>>()?;
        loader.finish();
        Ok(policies.into_iter().map(|policy| Workbench::of(&loader.engine, policy, sources.log)).collect())
    }

    fn of(engine: &Engine, policy: Policy, log: Option<LogLine>) -> Self {
        let functions = functions(engine, &policy);
        Workbench { engine: engine.clone(), policy, functions, log }
    }

    /// With other settings.
    pub fn set(&mut self, settings: &str) {
        self.policy.settings = Some(settings.to_owned());
    }

    /// At another time, for a policy that looks at the clock: milliseconds since the epoch.
    pub fn set_moment(&mut self, moment: u64) {
        self.policy.moment = Some(moment);
    }

    /// With this in the image of whatever it is asked about.
    pub fn set_contents(&mut self, contents: Option<PrivilegedFiles>) {
        self.policy.contents = contents.map_or(Contents::Nothing, Contents::Given);
    }

    /// Who it is.
    #[must_use]
    pub fn id(&self) -> &PolicyId {
        &self.policy.id
    }

    /// What it can be asked, the newest version of each first.
    pub fn functions(&self) -> impl Iterator<Item = &Function> {
        self.functions.iter().map(|(function, _)| function)
    }

    /// Why it does not accept its settings.
    ///
    /// # Errors
    /// The refusal in its name.
    pub fn accepts(&self) -> Result<(), Refusal> {
        Session::open(&self.engine, &self.policy, None, None).map(drop)
    }

    /// Asks once, in a fresh store.
    ///
    /// # Errors
    /// When the question cannot be put to this policy; a policy that fails has answered.
    pub fn ask(&self, hook: &str, arguments: &Map<String, Value>) -> Result<Reply, Unaskable> {
        self.ask_often(hook, arguments, 1).map(|mut replies| replies.remove(0))
    }

    /// Asks the same instance several times.
    ///
    /// # Errors
    /// As [`Workbench::ask`].
    pub fn ask_often(&self, hook: &str, arguments: &Map<String, Value>, times: usize) -> Result<Vec<Reply>, Unaskable> {
        let (function, ty) =
            self.functions.iter().find(|(function, _)| function.hook == hook).ok_or(Unaskable::NoSuchHook)?;
        let params: Vec<Val> = ty
            .params()
            .map(|(name, ty)| value::lower(&ty, arguments.get(name), name))
            .collect::<Result<_, _>>()
            .map_err(Unaskable::Request)?;
        let start = Instant::now();
        let mut session = match Session::open(&self.engine, &self.policy, None, self.log) {
            Ok(session) => session,
            Err(refusal) => {
                let opened = start.elapsed();
                let reply = Reply { answer: Err(refusal), init_fuel: 0, fuel: 0, opened, asked: Duration::default() };
                return Ok(vec![reply]);
            }
        };
        let opened = start.elapsed();
        let init_fuel = session.init_fuel();
        let replies = (0..times.max(1)).map(|_| {
            let start = Instant::now();
            let (answer, fuel) = session.call_by_name(&function.interface, &function.name, &params);
            Reply { answer, init_fuel, fuel, opened, asked: start.elapsed() }
        });
        Ok(replies.collect())
    }
}

/// The interfaces of a newer version first, so that they are found first.
fn functions(engine: &Engine, policy: &Policy) -> Vec<(Function, ComponentFunc)> {
    let mut functions = Vec::new();
    for (interface, item) in policy.pre.component().component_type().exports(engine) {
        let ComponentItem::ComponentInstance(instance) = item.ty else { continue };
        if !interface.starts_with("rlrun:policy/") {
            continue;
        }
        for (name, item) in instance.exports(engine) {
            let ComponentItem::ComponentFunc(ty) = item.ty else { continue };
            // `init` is no question.
            let Some(hook) = name.strip_prefix("on-") else { continue };
            let function = Function {
                interface: interface.to_owned(),
                name: name.to_owned(),
                hook: if hook == "final" { "validate".to_owned() } else { hook.to_owned() },
                params: ty.params().map(|(name, _)| name.to_owned()).collect(),
            };
            functions.push((function, ty));
        }
    }
    functions.sort_by(|(a, _), (b, _)| b.interface.cmp(&a.interface));
    functions
}

impl Session<'_> {
    /// Calls an exported function by name. What comes back is bounded like any answer.
    fn call_by_name(&mut self, interface: &str, name: &str, params: &[Val]) -> (Result<Value, Refusal>, u64) {
        let id = self.policy_id().clone();
        let called = self.with_store(|store, instance| {
            store.set_fuel(limits::HOOK_FUEL)?;
            let missing = || wasmtime::format_err!("there is no {interface}#{name}");
            let (_, exported) = instance.get_export(&mut *store, None, interface).ok_or_else(missing)?;
            let (_, function) = instance.get_export(&mut *store, Some(&exported), name).ok_or_else(missing)?;
            let function: Func = instance.get_func(&mut *store, function).ok_or_else(missing)?;
            let mut results: Vec<Val> = function.ty(&*store).results().map(|_| Val::Bool(false)).collect();
            function.call(&mut *store, params, &mut results)?;
            Ok(results.first().map_or(Value::Null, value::lift))
        });
        let fuel = self.with_store(|store, _| limits::HOOK_FUEL.saturating_sub(store.get_fuel().unwrap_or_default()));
        let answer = called.map(printable).map_err(|error| evaluate::refusal(&id, &error));
        (answer, fuel)
    }
}

/// What a policy says goes to a terminal.
fn printable(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(answer::printable(&text)),
        Value::Array(items) => Value::Array(items.into_iter().map(printable).collect()),
        Value::Object(fields) => Value::Object(fields.into_iter().map(|(k, v)| (k, printable(v))).collect()),
        other => other,
    }
}
