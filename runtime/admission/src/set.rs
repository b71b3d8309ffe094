//! The policies that have to be asked, and the asking.

use crate::bindings::rlrun::policy::types as wit;
use crate::error::LoadError;
use crate::evaluate::{self, Session, abstention, denial};
use crate::evaluate_parts::Shown;
use crate::host::HostSide;
use crate::loader::Loader;
use crate::mode::bounded;
use crate::policy::{Hook, Policy, is_contents};
use crate::sources::{self, Discovered, LogLine, Sources};
use crate::{limits, request, request_facts};
use rlrun_spec::policy::{
    Admitted, Answer, CopyOut, Denied, ExecRequest, ExitEvent, ImageFacts, Mode, Permit, PolicyId, PullRequest,
    Refusal, Roster, Subject, code, merge, permit,
};
use rlrun_spec::{Caller, ContainerSpec};
use std::cell::RefCell;
use std::path::Path;
use std::sync::Arc;
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
        let modes: Vec<Mode> = found.iter().map(|found| found.mode).collect();
        let mut policies = Vec::with_capacity(found.len());
        for (loaded, mode) in loader.load_all(found).into_iter().zip(modes) {
            match loaded {
                Ok(policy) => policies.push(policy),
                Err(error) if mode == Mode::Enforce => {
                    // What was compiled beside it need not be compiled again; the error says enough.
                    loader.finish();
                    return Err(error);
                }
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
            for (number, event) in events.iter().enumerate() {
                let rest = events.len() - number;
                if left == 0 {
                    let message = format!("{}: {rest} more that have ended were not told", code::FUEL);
                    log(&policy.id, "error", &message);
                    break;
                }
                // One end takes no more than its share, and leaves to the others what it does not need.
                let share = left / u64::try_from(rest).unwrap_or(u64::MAX);
                let (told, used) = self.tell_exit(policy, event, share, log);
                left = left.saturating_sub(used);
                if let Err(Refusal { diagnostics, .. }) = told {
                    diagnostics.iter().for_each(|d| log(&policy.id, "error", &format!("{}: {}", d.code, d.message)));
                }
            }
        }
    }

    /// The fuel that it took, beside.
    fn tell_exit(&self, policy: &Policy, event: &ExitEvent, share: u64, log: LogLine) -> (Result<(), Refusal>, u64) {
        match Session::open(&self.engine, policy, None, Some(log)) {
            Ok(mut session) => {
                let init = session.init_fuel();
                session.limit_to(share.saturating_sub(init));
                let before = session.left();
                let told = session.on_exit(&request_facts::exit(event));
                (told, init.saturating_add(before.saturating_sub(session.left())))
            }
            // It fails for every other end as well.
            Err(refusal) => (Err(refusal), u64::MAX),
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
