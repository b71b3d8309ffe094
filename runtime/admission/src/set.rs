//! The policies that have to be asked, and the asking.

use crate::bindings::rlrun::policy::types as wit;
use crate::code::{Cache, Digest, State, TrustedCode, Work, compile, load};
use crate::error::LoadError;
use crate::evaluate::{self, Session, abstention, denial};
use crate::evaluate_parts::Shown;
use crate::host::HostSide;
use crate::mode::bounded;
use crate::policy::{Contents, Hook, Policy, is_contents, needs_a_grant};
use crate::sources::{self, Discovered, Found, LogLine, Origin, Sources};
use crate::{engine, file, limits, request, request_facts};
use rlrun_spec::policy::{
    Admitted, Answer, CopyOut, Denied, ExecRequest, ExitEvent, ImageFacts, Mode, Permit, PolicyId, PullRequest,
    Refusal, Roster, Subject, Tier, code, merge, permit,
};
use rlrun_spec::{Caller, ContainerSpec};
use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;
use wasmtime::component::{Component, HasSelf, Linker};
use wasmtime::{Engine, Store};

/// Every policy of every tier, loaded.
pub struct PolicySet {
    engine: Engine,
    policies: Vec<Policy>,
    roster: Roster,
    host: HostSide,
    notices: Vec<String>,
    told: Vec<String>,
    log: Option<LogLine>,
    /// Stores of the last evaluation. Unmapping their memory takes as long as asking; it need not stand between the
    /// verdict and the start, so it waits for the next evaluation or for the end of the set.
    spent: RefCell<Vec<Store<evaluate::State>>>,
}

impl std::fmt::Debug for PolicySet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PolicySet").field("roster", &self.roster).finish_non_exhaustive()
    }
}

impl PolicySet {
    /// Loads every policy. One that cannot be loaded fails the whole: nothing may start without its word.
    ///
    /// # Errors
    /// Names the policy or the file that cannot be used.
    pub fn load(sources: &Sources) -> Result<Self, LoadError> {
        let mut loader = Loader::new(sources)?;
        let Discovered { found, told } = sources.discover()?;
        let mut policies = Vec::with_capacity(found.len());
        for found in found {
            let mode = found.mode;
            match loader.load(found) {
                Ok(policy) => policies.push(policy),
                Err(error) if mode == Mode::Enforce => return Err(error),
                Err(error) => loader.notices.push(format!("a policy on trial is not asked: {error}")),
            }
        }
        Ok(PolicySet::of(loader, policies, told, sources))
    }

    /// One policy alone, with the settings beside it or others, and with every capability that it wants: for asking
    /// again about the past. A verdict of it starts nothing.
    ///
    /// # Errors
    /// When it is not a policy that can be asked.
    pub fn only(file: &Path, settings: Option<&Path>, sources: &Sources) -> Result<Self, LoadError> {
        let mut loader = Loader::new(sources)?;
        let mut found = sources::named(file, &sources.data_dir)?;
        if let Some(settings) = settings {
            found.settings = sources::named_settings(settings)?;
        }
        found.grants.insert("clock".to_owned());
        let policies = vec![loader.load(found)?];
        Ok(PolicySet::of(loader, policies, Vec::new(), sources))
    }

    fn of(mut loader: Loader, policies: Vec<Policy>, told: Vec<String>, sources: &Sources) -> Self {
        let notices = loader.finish();
        let ids = policies.iter().map(|p| p.id.clone());
        let roster = Roster::new(ids).unwrap_or_else(Roster::no_policy_installed);
        let host = if policies.is_empty() { HostSide::default() } else { HostSide::look(sources) };
        let (engine, log, spent) = (loader.engine, sources.log, RefCell::default());
        PolicySet { engine, policies, roster, host, notices, told, log, spent }
    }

    /// Asks from now on as if it were then: milliseconds since 1970, for those that may look at the clock.
    pub fn turn_back(&mut self, moment: u64) {
        self.policies.iter_mut().filter_map(|policy| policy.moment.as_mut()).for_each(|m| *m = moment);
    }

    /// Whether any of them looks into images.
    #[must_use]
    pub fn looks_inside(&self) -> bool {
        let looks = |policy: &Policy| {
            policy.pre.component().component_type().imports(&self.engine).any(|(import, _)| is_contents(import))
        };
        self.policies.iter().any(looks)
    }

    /// What any of them is asked.
    #[must_use]
    pub fn hooks(&self) -> Vec<Hook> {
        Hook::ALL.into_iter().filter(|hook| *hook != Hook::Lifecycle && self.asks(*hook)).collect()
    }

    /// What the user should know although everything works: a cache that cannot be used.
    #[must_use]
    pub fn notices(&self) -> &[String] {
        &self.notices
    }

    /// What the user is told of where policies come from.
    #[must_use]
    pub fn told(&self) -> &[String] {
        &self.told
    }

    /// Who is asked.
    pub fn policies(&self) -> impl Iterator<Item = &PolicyId> {
        self.policies.iter().map(|p| &p.id)
    }

    /// Whether any policy would look at this; saves gathering what nobody asks for.
    #[must_use]
    pub fn asks(&self, hook: Hook) -> bool {
        self.policies.iter().any(|p| p.has(hook))
    }

    /// Asks about a container: every policy sees the same request, their answers merge, every policy may look at the
    /// result. This is the only way from a configuration to one that can be sealed.
    ///
    /// # Errors
    /// [`Denied`] names every policy that said no or failed.
    pub fn evaluate(&self, spec: ContainerSpec, caller: &Caller) -> Result<Admitted, Box<Denied>> {
        self.spent.borrow_mut().clear();
        let caller = request::caller(caller, &self.host);
        let spec = Arc::new(spec);
        let shown = self.shown(&spec)?;
        let mut sessions: Vec<(&Policy, Option<Session<'_>>)> = Vec::with_capacity(self.policies.len());
        let mut answers = Vec::with_capacity(self.policies.len());
        for policy in &self.policies {
            let (session, answer) = self.first_phase(policy, &spec, &shown, &caller);
            sessions.push((policy, session));
            answers.push(answer);
        }
        for session in sessions.iter_mut().filter_map(|(_, session)| session.as_mut()) {
            session.turn_to(None);
        }
        // Nobody else holds it now, so nothing is copied.
        let merged = merge(Arc::unwrap_or_clone(spec), &self.roster, answers)?;
        let finals = self.second_phase(&mut sessions, merged.spec(), &caller)?;
        let stores = sessions.into_iter().filter_map(|(_, session)| session).map(|session| session.into_parts().0);
        self.spent.borrow_mut().extend(stores);
        merged.confirm(finals)
    }

    fn second_phase(
        &self,
        sessions: &mut [(&Policy, Option<Session<'_>>)],
        merged: &ContainerSpec,
        caller: &wit::Caller,
    ) -> Result<Vec<Answer>, Box<Denied>> {
        if !self.asks(Hook::Validate) {
            return Ok(self.policies.iter().map(|p| abstention(&p.id)).collect());
        }
        let shown = self.shown(merged)?;
        let subject = Arc::new(merged.clone());
        let answer = |(policy, session): &mut (&Policy, Option<Session<'_>>)| match session {
            Some(session) => {
                session.turn_to(Some(Arc::clone(&subject)));
                bounded(policy.mode, session.on_final(&shown, caller))
            }
            None => abstention(&policy.id),
        };
        Ok(sessions.iter_mut().map(answer).collect())
    }

    fn first_phase<'p>(
        &'p self,
        policy: &'p Policy,
        spec: &Arc<ContainerSpec>,
        shown: &Shown,
        caller: &wit::Caller,
    ) -> (Option<Session<'p>>, Answer) {
        if !Hook::OF_ADMISSION.iter().any(|hook| policy.has(*hook)) {
            return (None, abstention(&policy.id));
        }
        match Session::open(&self.engine, policy, Some(Arc::clone(spec)), self.log) {
            Ok(mut session) => {
                let answer = session.on_admission(shown, caller);
                (Some(session), bounded(policy.mode, answer))
            }
            Err(refusal) => (None, bounded(policy.mode, denial(refusal))),
        }
    }

    /// Asks before an image is fetched.
    ///
    /// # Errors
    /// [`Denied`] names every policy that said no or failed.
    pub fn on_pull(&self, pull: &PullRequest, caller: &Caller) -> Result<Permit, Box<Denied>> {
        let (request, caller) = (request::pull(pull), request::caller(caller, &self.host));
        self.ask(Hook::Image, None, |session| session.on_pull(&request, &caller))
    }

    /// Asks about an image that was pulled, loaded or imported, before it gets its name.
    ///
    /// # Errors
    /// [`Denied`] names every policy that said no or failed.
    pub fn on_image(&self, image: &ImageFacts, caller: &Caller) -> Result<Permit, Box<Denied>> {
        let (info, caller) = (request::info(image), request::caller(caller, &self.host));
        let facts = request_facts::image_facts(image);
        self.ask(Hook::Image, None, |session| {
            session.tell_origin(request_facts::origin_of(image));
            session.on_image(&info, &facts, &caller)
        })
    }

    /// Asks before anything of a container leaves it.
    ///
    /// # Errors
    /// [`Denied`] names every policy that said no or failed.
    pub fn on_copy_out(&self, request: &CopyOut, subject: &Subject, caller: &Caller) -> Result<Permit, Box<Denied>> {
        let (request, subject) = (request_facts::copy_out(request), request_facts::subject(subject));
        let caller = request::caller(caller, &self.host);
        self.ask(Hook::CopyOut, None, |session| session.on_copy_out(&request, &subject, &caller))
    }

    /// Tells of containers that have ended. Nobody answers; what policies log goes to `log`, a failure among it.
    pub fn tell_exits(&self, events: &[ExitEvent], log: LogLine) {
        for policy in self.policies.iter().filter(|policy| policy.has(Hook::Exit)) {
            // Of all events together: the command that tells them has something else to do.
            let mut left = limits::SESSION_FUEL;
            for event in events {
                let told = match Session::open(&self.engine, policy, None, Some(log)) {
                    Ok(mut session) => {
                        session.limit_to(left.saturating_sub(session.init_fuel()));
                        let told = session.on_exit(&request_facts::exit(event));
                        left = session.left();
                        told
                    }
                    Err(refusal) => {
                        left = 0;
                        Err(refusal)
                    }
                };
                if let Err(Refusal { diagnostics, .. }) = told {
                    diagnostics.iter().for_each(|d| log(&policy.id, "error", &format!("{}: {}", d.code, d.message)));
                }
                if left == 0 {
                    break;
                }
            }
        }
    }

    /// Asks before a process joins a running container, given as it was admitted.
    ///
    /// # Errors
    /// [`Denied`] names every policy that said no or failed.
    pub fn on_exec(
        &self,
        exec: &ExecRequest,
        container: &ContainerSpec,
        caller: &Caller,
    ) -> Result<Permit, Box<Denied>> {
        let (request, caller) = (request::exec(exec), request::caller(caller, &self.host));
        let shown = self.shown(container)?;
        let subject = Arc::new(container.clone());
        self.ask(Hook::Exec, Some(&subject), |session| session.on_exec(&request, &shown, &caller))
    }

    fn ask(
        &self,
        hook: Hook,
        subject: Option<&Arc<ContainerSpec>>,
        mut call: impl FnMut(&mut Session<'_>) -> Answer,
    ) -> Result<Permit, Box<Denied>> {
        let answer = |policy: &Policy| {
            if !policy.has(hook) {
                return abstention(&policy.id);
            }
            let answer = match Session::open(&self.engine, policy, subject.map(Arc::clone), self.log) {
                Ok(mut session) => call(&mut session),
                Err(refusal) => denial(refusal),
            };
            bounded(policy.mode, answer)
        };
        permit(&self.roster, self.policies.iter().map(answer).collect())
    }

    fn shown(&self, spec: &ContainerSpec) -> Result<Shown, Box<Denied>> {
        let shown = request_facts::shown(spec.parts(), &self.host);
        let first = self.policies.first();
        match first.filter(|_| request::weight(&shown.container) > limits::INPUT_BYTES) {
            None => Ok(shown),
            Some(policy) => {
                let message = format!("the configuration is larger than {} bytes", limits::INPUT_BYTES);
                Err(Denied::one(Refusal::synthetic(policy.id.clone(), code::INPUT, message, None)))
            }
        }
    }
}

/// Makes policies of what was found, through the cache.
pub(crate) struct Loader {
    pub(crate) engine: Engine,
    linker: Linker<evaluate::State>,
    cache: Option<Cache>,
    policyc: PathBuf,
    target: String,
    notices: Vec<String>,
    /// Milliseconds since 1970, the same for all policies of a command.
    moment: u64,
    contents: Contents,
}

impl Loader {
    pub(crate) fn new(sources: &Sources) -> Result<Self, LoadError> {
        let broken = |e: wasmtime::Error| LoadError::Engine(format!("{e:#}"));
        let engine = engine::engine().map_err(broken)?;
        let linker = linker(&engine).map_err(broken)?;
        let mut notices = Vec::new();
        let cache = match Cache::open(&sources.cache_dir) {
            Ok(cache) => Some(cache),
            Err(error) => {
                let path = sources.cache_dir.display();
                notices.push(format!("policies are compiled each time: the cache {path} cannot be used: {error}"));
                None
            }
        };
        let policyc = sources.policyc.clone();
        let moment = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_millis();
        let moment = sources.moment.unwrap_or(u64::try_from(moment).unwrap_or(u64::MAX));
        let inside = |look| Contents::Store(sources.data_dir.clone(), look);
        let contents = sources.look_inside.map_or(Contents::Nothing, inside);
        Ok(Loader { engine, linker, cache, policyc, target: engine::target_key(), notices, moment, contents })
    }

    pub(crate) fn load(&mut self, found: Found) -> Result<Policy, LoadError> {
        let digest = self.digest(&found)?;
        if let Some((pinned, path)) = found.pinned.as_ref().filter(|(pinned, _)| *pinned != format!("sha256:{digest}"))
        {
            return Err(LoadError::NotAPolicy {
                name: found.name,
                why: format!("is not what was added: its digest is sha256:{digest}, {} has {pinned}", path.display()),
                hint: Some("put the old file back, or add the new one: rlrun policy add".to_owned()),
            });
        }
        let (component, settings) = self.component(&found, &digest)?;
        let granted = self.granted(&component, &found)?;
        let id = PolicyId { name: found.name, digest: format!("sha256:{digest}"), tier: found.tier };
        let policy = Policy::link(&self.linker, &component, id, settings, found.data)?;
        let (moment, contents) = (granted.then_some(self.moment), self.contents.clone());
        Ok(Policy { moment, contents, mode: found.mode, ..policy })
    }

    /// Whether a policy has the clock. One that wants it and may not have it is not asked.
    fn granted(&self, component: &Component, found: &Found) -> Result<bool, LoadError> {
        let ty = component.component_type();
        let wanted = ty.imports(&self.engine).find_map(|(import, _)| needs_a_grant(import));
        match wanted {
            None => Ok(false),
            Some(capability) if found.grants.contains(capability) => Ok(true),
            Some(capability) => Err(LoadError::NotAPolicy {
                why: format!("wants the {capability}, which nobody has granted it"),
                hint: Some(match found.tier {
                    Tier::Mandatory => format!("[grants] {} = [\"{capability}\"] in policy.toml", found.name),
                    Tier::Builtin | Tier::User => format!("rlrun policy add --grant {capability}"),
                    Tier::Project => "policies of a project are granted nothing".to_owned(),
                }),
                name: found.name.clone(),
            }),
        }
    }

    fn digest(&mut self, found: &Found) -> Result<Digest, LoadError> {
        match &found.wasm {
            Origin::Builtin(builtin) => Digest::parse(builtin.sha256)
                .ok_or_else(|| LoadError::not_a_policy(&found.name, "was built with a digest that is none")),
            Origin::File { path, checked } => {
                let unreadable = |source| LoadError::Unreadable { path: path.clone(), source };
                match &mut self.cache {
                    Some(cache) => cache.source_digest(checked, limits::POLICY_BYTES).map_err(unreadable),
                    None => {
                        let mut file = checked.file.try_clone().map_err(unreadable)?;
                        Ok(Digest::of(&file::read(&mut file, path, limits::POLICY_BYTES)?))
                    }
                }
            }
        }
    }

    /// The code, and the settings that are still to be given to it.
    fn component(&mut self, found: &Found, digest: &Digest) -> Result<(Component, Option<String>), LoadError> {
        let key = format!("{digest}-{}-{}", found.settings.digest(), self.target);
        for state in [State::SetUp, State::Plain] {
            let cached = self.cache.as_mut().and_then(|cache| cache.find(&state.named(&key)));
            // An error means another engine or another processor, whatever the name says: compile anew.
            if let Some(component) = cached.and_then(|code| load(&self.engine, code).ok()) {
                return Ok((component, state.settings(&found.settings)?));
            }
        }
        let (mut code, state) = self.compile(found, digest, Work::Code)?;
        if let Some(cache) = &mut self.cache
            && let Err(error) = cache.store(&state.named(&key), &mut code)
        {
            self.notices.push(format!("the compiled policy {} cannot be kept: {error}", found.name));
        }
        let component = load(&self.engine, code).map_err(|e| LoadError::not_a_policy(&found.name, format!("{e:#}")))?;
        Ok((component, state.settings(&found.settings)?))
    }

    fn compile(&self, found: &Found, digest: &Digest, work: Work) -> Result<(TrustedCode, State), LoadError> {
        let settings = found.settings.json()?;
        match &found.wasm {
            Origin::Builtin(builtin) => compile(&self.policyc, &found.name, builtin.wasm, &settings, work),
            Origin::File { path, checked } => {
                let bytes = reread(path, checked)?;
                // The bytes that are compiled are the bytes that were hashed: a file can be written in between.
                if Digest::of(&bytes) != *digest {
                    return Err(LoadError::not_a_policy(&found.name, "the file is changing"));
                }
                compile(&self.policyc, &found.name, &bytes, &settings, work)
            }
        }
    }

    /// The policy as its author's compiler left it, with settings that it is given each time it is asked: for tests
    /// with many settings, which one compilation serves.
    pub(crate) fn load_plain(&mut self, found: Found, settings: &str) -> Result<Policy, LoadError> {
        let digest = self.digest(&found)?;
        let key = format!("{digest}-plain-{}", self.target);
        let cached = self.cache.as_mut().and_then(|cache| cache.find(&key));
        let component = match cached.and_then(|code| load(&self.engine, code).ok()) {
            Some(component) => component,
            None => {
                let mut code = self.compile(&found, &digest, Work::Plain)?.0;
                if let Some(cache) = &mut self.cache {
                    // Without a place to keep it the next test compiles again.
                    cache.store(&key, &mut code).unwrap_or_default();
                }
                load(&self.engine, code).map_err(|e| LoadError::not_a_policy(&found.name, format!("{e:#}")))?
            }
        };
        let id = PolicyId { name: found.name, digest: format!("sha256:{digest}"), tier: found.tier };
        let policy = Policy::link(&self.linker, &component, id, Some(settings.to_owned()), found.data)?;
        // An author tries the clock before anybody grants it.
        Ok(Policy { moment: Some(self.moment), ..policy })
    }

    /// Saves what was learned and tells what the user should know.
    pub(crate) fn finish(&mut self) -> Vec<String> {
        if let Some(Err(error)) = self.cache.take().map(Cache::save) {
            self.notices.push(format!("the index of compiled policies cannot be written: {error}"));
        }
        std::mem::take(&mut self.notices)
    }
}

/// Everything that a policy may import.
pub(crate) fn linker(engine: &Engine) -> wasmtime::Result<Linker<evaluate::State>> {
    let mut linker = Linker::new(engine);
    crate::bindings::Asked::add_to_linker::<_, HasSelf<_>>(&mut linker, |state: &mut evaluate::State| state)?;
    Ok(linker)
}

fn reread(path: &Path, checked: &file::Checked) -> Result<Vec<u8>, LoadError> {
    use std::io::Seek as _;
    let unreadable = |source| LoadError::Unreadable { path: path.to_owned(), source };
    let mut file = checked.file.try_clone().map_err(unreadable)?;
    file.rewind().map_err(unreadable)?;
    file::read(&mut file, path, limits::POLICY_BYTES)
}
