//! One evaluation: a fresh store for a policy, used for one request and thrown away.

use crate::answer;
use crate::bindings::rlrun::policy::{clock, data, log, oci, types};
use crate::bindings::rlrun::policy2::{self, contents, provenance};
use crate::file::{self, Trust};
use crate::limits;
use crate::policy::{Contents, Policy};
use crate::request_facts;
use crate::sources::LogLine;
use rlrun_spec::ContainerSpec;
use rlrun_spec::policy::{Answer, Decision, PolicyId, PrivilegedFiles, Refusal, code};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use wasmtime::component::Instance;
use wasmtime::{Engine, ResourceLimiter, Store, Trap};

/// What a policy can reach through its imports, and what bounds it.
pub(crate) struct State {
    policy: PolicyId,
    limiter: Limiter,
    data: Option<PathBuf>,
    subject: Option<Arc<ContainerSpec>>,
    /// Of an image that comes in.
    origin: Option<provenance::Origin>,
    log: Option<LogLine>,
    log_lines: usize,
    moment: Option<u64>,
    contents: Contents,
    /// Bytes that imported functions may still hand over.
    imported: usize,
    /// What `oci.config` has shown of the subject.
    config: Option<String>,
}

/// Linear memory and tables, summed over all instances of a component.
#[derive(Default)]
struct Limiter {
    memory: usize,
    table: usize,
}

#[derive(Debug)]
struct LimitExceeded {
    what: &'static str,
    code: &'static str,
}

impl fmt::Display for LimitExceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the policy wants more than its share of {}", self.what)
    }
}

impl std::error::Error for LimitExceeded {}

impl ResourceLimiter for Limiter {
    // An error traps. Reporting failure to the guest instead would let it carry on and answer something.
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        grow(&mut self.memory, current, desired, limits::MEMORY_BYTES, "memory")
    }

    fn table_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        grow(&mut self.table, current, desired, limits::TABLE_ELEMENTS, "table space")
    }

    fn instances(&self) -> usize {
        limits::INSTANCES
    }

    fn tables(&self) -> usize {
        limits::INSTANCES
    }

    fn memories(&self) -> usize {
        limits::INSTANCES
    }
}

fn grow(total: &mut usize, current: usize, desired: usize, limit: usize, what: &'static str) -> wasmtime::Result<bool> {
    let sum = total.saturating_add(desired.saturating_sub(current));
    if sum > limit {
        return Err(wasmtime::Error::new(LimitExceeded { what, code: code::MEMORY }));
    }
    *total = sum;
    Ok(true)
}

impl types::Host for State {}
impl policy2::facts::Host for State {}
impl policy2::answers::Host for State {}
impl policy2::subject::Host for State {}

impl policy2::provenance::Host for State {
    fn image(&mut self) -> wasmtime::Result<Option<provenance::Origin>> {
        let of_container =
            |parts: &rlrun_spec::SpecParts| parts.image.as_ref().map(|_| request_facts::origin(&parts.beside.origin));
        let origin =
            self.origin.clone().or_else(|| self.subject.as_deref().and_then(|spec| of_container(spec.parts())));
        let facts = origin.as_ref().map_or(0, |origin| origin.signatures.len() + origin.attestations.len());
        self.hand_over(facts * limits::FACT_BYTES)?;
        Ok(origin)
    }
}

impl contents::Host for State {
    fn privileged(&mut self) -> wasmtime::Result<Option<contents::PrivilegedFiles>> {
        let image = self.subject.as_deref().and_then(|spec| spec.parts().image.as_ref());
        let found = match (&self.contents, image) {
            (Contents::Given(files), _) => Some(files.clone()),
            (Contents::Store(data, look), Some(image)) => Some(look(data, image)),
            (Contents::Store(..) | Contents::Nothing, _) => None,
        };
        let weight = |files: &PrivilegedFiles| files.files.iter().map(|f| f.path.len() + limits::FACT_BYTES).sum();
        // Looking costs something even where nothing is found.
        self.hand_over(limits::LOOK_BYTES + found.as_ref().map_or(0, weight))?;
        Ok(found.map(request_facts::privileged))
    }
}

impl clock::Host for State {
    fn now_unix_ms(&mut self) -> wasmtime::Result<u64> {
        self.hand_over(0)?;
        // A policy that imports the clock without a grant is not loaded.
        Ok(self.moment.unwrap_or_default())
    }
}

impl log::Host for State {
    fn log(&mut self, level: log::Level, message: String) -> wasmtime::Result<()> {
        self.hand_over(message.len())?;
        self.log_lines += 1;
        let Some(sink) = self.log.filter(|_| self.log_lines <= limits::LOG_LINES) else { return Ok(()) };
        let level = match level {
            log::Level::Trace => "trace",
            log::Level::Debug => "debug",
            log::Level::Info => "info",
            log::Level::Warn => "warn",
            log::Level::Error => "error",
        };
        sink(&self.policy, level, &answer::printable(&message));
        Ok(())
    }
}

impl data::Host for State {
    fn get(&mut self, key: String) -> wasmtime::Result<Option<String>> {
        let named = !key.is_empty() && !key.starts_with('.') && !key.contains(['/', '\0']);
        let path = self.data.as_deref().filter(|_| named).map(|data| data.join(&key));
        // Whoever may change the datum may change the verdict, so it is trusted like the policy itself. Nothing
        // tells an unreadable datum from an absent one: a policy has to decide without it either way.
        let datum = path.and_then(|path| file::read_text(&path, self.trust(), limits::SETTINGS_BYTES).ok().flatten());
        self.hand_over(key.len() + datum.as_ref().map_or(0, String::len))?;
        Ok(datum)
    }

    fn keys(&mut self) -> wasmtime::Result<Vec<String>> {
        let keys = self.data.as_deref().map(data_keys).unwrap_or_default();
        self.hand_over(keys.iter().map(|key| key.len() + limits::FACT_BYTES).sum())?;
        Ok(keys)
    }
}

impl State {
    /// Counts what an imported function has taken or gives: such work uses no fuel.
    fn hand_over(&mut self, bytes: usize) -> wasmtime::Result<()> {
        let left = self.imported.checked_sub(bytes.saturating_add(limits::CALL_BYTES));
        self.imported = left.ok_or_else(|| {
            wasmtime::Error::new(LimitExceeded { what: "what it may ask rlrun for", code: code::FUEL })
        })?;
        Ok(())
    }

    fn trust(&self) -> Trust {
        if self.policy.tier == rlrun_spec::policy::Tier::Mandatory { Trust::Root } else { Trust::User }
    }
}

fn data_keys(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let names = entries.filter_map(|e| e.file_name().into_string().ok());
    let mut keys: Vec<String> = names.filter(|n| !n.starts_with('.')).collect();
    keys.sort();
    keys
}

impl oci::Host for State {
    fn config(&mut self) -> wasmtime::Result<Option<String>> {
        if self.config.is_none() {
            self.config = self.subject.as_deref().and_then(config_of);
        }
        self.hand_over(self.config.as_ref().map_or(0, String::len))?;
        Ok(self.config.clone())
    }
}

/// By way of a value, whose maps are in order: the same request is the same bytes.
fn config_of(subject: &ContainerSpec) -> Option<String> {
    let mut config = serde_json::to_value(&subject.parts().oci).ok()?;
    rlrun_spec::container::sort_sets(&mut config);
    Some(config.to_string())
}

/// A policy at work on one request.
pub(crate) struct Session<'p> {
    pub(crate) policy: &'p Policy,
    store: Store<State>,
    instance: Instance,
    /// Fuel for all questions that are still to come.
    left: u64,
}

impl<'p> Session<'p> {
    /// Instantiates the policy and gives it its settings.
    ///
    /// # Errors
    /// A refusal in the policy's name when it fails or does not like its settings.
    pub(crate) fn open(
        engine: &Engine,
        policy: &'p Policy,
        subject: Option<Arc<ContainerSpec>>,
        log: Option<LogLine>,
    ) -> Result<Self, Refusal> {
        let state = State {
            policy: policy.id.clone(),
            limiter: Limiter::default(),
            data: policy.data.clone(),
            subject,
            origin: None,
            log,
            log_lines: 0,
            moment: policy.moment,
            contents: policy.contents.clone(),
            imported: limits::IMPORT_BYTES,
            config: None,
        };
        let mut store = Store::new(engine, state);
        store.limiter(|state| &mut state.limiter);
        store.set_hostcall_fuel(limits::OUTPUT_BYTES);
        let failed = |error: wasmtime::Error| refusal(&policy.id, &error);
        store.set_fuel(limits::INIT_FUEL).map_err(failed)?;
        let instance = policy.pre.instantiate(&mut store).map_err(failed)?;
        let mut session = Session { policy, store, instance, left: limits::SESSION_FUEL };
        session.init()?;
        Ok(session)
    }

    fn init(&mut self) -> Result<(), Refusal> {
        let Some(settings) = &self.policy.settings else { return Ok(()) };
        let Some(indices) = &self.policy.hooks.lifecycle else { return Ok(()) };
        let id = &self.policy.id;
        let outcome = indices
            .load(&mut self.store, &self.instance)
            .and_then(|guest| guest.call_init(&mut self.store, settings))
            .map_err(|error| refusal(id, &error))?;
        match outcome {
            Ok(()) => Ok(()),
            Err(found) if found.is_empty() => {
                Err(Refusal::synthetic(id.clone(), code::SETTINGS, "the policy does not accept its settings", None))
            }
            Err(found) => Err(Refusal { policy: id.clone(), diagnostics: answer::diagnostics(id, found)? }),
        }
    }

    /// What `oci.config` shows from now on.
    pub(crate) fn turn_to(&mut self, subject: Option<Arc<ContainerSpec>>) {
        let state = self.store.data_mut();
        state.subject = subject;
        state.config = None;
    }

    /// What `provenance.image` shows from now on.
    pub(crate) fn tell_origin(&mut self, origin: provenance::Origin) {
        self.store.data_mut().origin = Some(origin);
    }

    /// The instance after `init`, for whoever wants to keep its state.
    pub(crate) fn into_parts(self) -> (Store<State>, Instance) {
        (self.store, self.instance)
    }

    pub(crate) fn policy_id(&self) -> &PolicyId {
        &self.policy.id
    }

    /// For asking without knowing the hook.
    pub(crate) fn with_store<R>(&mut self, call: impl FnOnce(&mut Store<State>, &Instance) -> R) -> R {
        call(&mut self.store, &self.instance)
    }

    /// Fuel that instantiation and settings have used.
    pub(crate) fn init_fuel(&self) -> u64 {
        limits::INIT_FUEL - self.store.get_fuel().unwrap_or(limits::INIT_FUEL)
    }

    pub(crate) fn ask(
        &mut self,
        call: impl FnOnce(&mut Store<State>, &Instance) -> wasmtime::Result<types::Verdict>,
    ) -> Answer {
        let verdict = self.call(call);
        verdict.and_then(|v| answer::from_guest(&self.policy.id, v)).unwrap_or_else(denial)
    }

    /// Fuel for all questions that are still to come.
    pub(crate) fn left(&self) -> u64 {
        self.left
    }

    /// Leaves it no more than that.
    pub(crate) fn limit_to(&mut self, left: u64) {
        self.left = self.left.min(left);
    }

    /// One call of the policy with a hook's fuel.
    ///
    /// # Errors
    /// A refusal in its name when it fails.
    pub(crate) fn call<T>(
        &mut self,
        call: impl FnOnce(&mut Store<State>, &Instance) -> wasmtime::Result<T>,
    ) -> Result<T, Refusal> {
        let fuel = limits::HOOK_FUEL.min(self.left.saturating_add(limits::FREE_FUEL));
        let fueled = self.store.set_fuel(fuel);
        let result = fueled.and_then(|()| call(&mut self.store, &self.instance));
        let used = fuel.saturating_sub(self.store.get_fuel().unwrap_or_default());
        self.left = self.left.saturating_sub(used.saturating_sub(limits::FREE_FUEL));
        result.map_err(|error| refusal(&self.policy.id, &error))
    }
}

/// The word of a policy that does not implement the hook.
pub(crate) fn abstention(policy: &PolicyId) -> Answer {
    Answer {
        policy: policy.clone(),
        decision: Decision::Abstain,
        diagnostics: Vec::new(),
        restrictions: Vec::new(),
        audit: Vec::new(),
    }
}

/// A policy that failed says no.
pub(crate) fn denial(refusal: Refusal) -> Answer {
    Answer {
        policy: refusal.policy,
        decision: Decision::Deny,
        diagnostics: refusal.diagnostics,
        restrictions: Vec::new(),
        audit: Vec::new(),
    }
}

/// What went wrong inside, by its type, never by its text.
pub(crate) fn refusal(policy: &PolicyId, error: &wasmtime::Error) -> Refusal {
    let synthetic = |code, message: String, help: Option<&str>| {
        Refusal::synthetic(policy.clone(), code, message, help.map(str::to_owned))
    };
    if let Some(exceeded) = error.downcast_ref::<LimitExceeded>() {
        return synthetic(exceeded.code, exceeded.to_string(), None);
    }
    match error.downcast_ref::<Trap>() {
        Some(Trap::OutOfFuel) => synthetic(
            code::FUEL,
            "the policy did not come to an end within its budget".to_owned(),
            Some("report it to the policy's author"),
        ),
        Some(trap) => {
            synthetic(code::TRAP, format!("the policy failed: {trap}"), Some("report it to the policy's author"))
        }
        None => synthetic(
            code::OUTPUT,
            format!("the policy's answer cannot be read: {}", answer::printable(&format!("{error:#}"))),
            None,
        ),
    }
}
