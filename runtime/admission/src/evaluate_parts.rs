//! The hooks, each asked in the words of the version that the policy exports.

use crate::answer;
use crate::bindings::exports::rlrun::policy::{exec, image};
use crate::bindings::exports::rlrun::policy2;
use crate::bindings::rlrun::policy::types;
use crate::bindings::rlrun::policy2::{answers, facts, subject};
use crate::evaluate::{Session, abstention, denial};
use crate::limits;
use rlrun_spec::policy::{Answer, Decision, PortName, Refusal, Restriction, code};

/// A container as policies are shown it.
pub(crate) struct Shown {
    pub(crate) container: types::Container,
    pub(crate) facts: facts::ContainerFacts,
    pub(crate) subject: subject::Subject,
    pub(crate) ports: Vec<PortName>,
    pub(crate) mounts: Vec<policy2::mount::Request>,
    pub(crate) secrets: Vec<policy2::secret::Request>,
}

/// Nothing to tighten.
fn plain(judgement: answers::Judgement) -> types::Verdict {
    let answers::Judgement { decision, diagnostics, audit } = judgement;
    types::Verdict { decision, diagnostics, restrictions: Vec::new(), audit }
}

impl Session<'_> {
    /// Everything that decides about a start before the merge, as one answer.
    pub(crate) fn on_admission(&mut self, shown: &Shown, caller: &types::Caller) -> Answer {
        let mut answer = self.on_create(shown, caller);
        for part in self.on_ports(shown, caller) {
            add(&mut answer, part);
        }
        for part in self.on_mounts(shown, caller) {
            add(&mut answer, part);
        }
        for part in self.on_secrets(shown, caller) {
            add(&mut answer, part);
        }
        answer
    }

    fn on_create(&mut self, shown: &Shown, caller: &types::Caller) -> Answer {
        let hooks = &self.policy.hooks;
        let container = &shown.container;
        match (&hooks.create2, &hooks.create) {
            (Some(indices), _) => self.ask(|store, instance| {
                indices.load(&mut *store, instance)?.call_on_create(store, container, &shown.facts, caller)
            }),
            (None, Some(indices)) => self
                .ask(|store, instance| indices.load(&mut *store, instance)?.call_on_create(store, container, caller)),
            (None, None) => abstention(&self.policy.id),
        }
    }

    pub(crate) fn on_final(&mut self, shown: &Shown, caller: &types::Caller) -> Answer {
        let hooks = &self.policy.hooks;
        let merged = &shown.container;
        match (&hooks.validate2, &hooks.validate) {
            (Some(indices), _) => self.ask(|store, instance| {
                let guest = indices.load(&mut *store, instance)?;
                guest.call_on_final(store, merged, &shown.facts, caller).map(plain)
            }),
            (None, Some(indices)) => {
                self.ask(|store, instance| indices.load(&mut *store, instance)?.call_on_final(store, merged, caller))
            }
            (None, None) => abstention(&self.policy.id),
        }
    }

    fn on_ports(&mut self, shown: &Shown, caller: &types::Caller) -> Vec<Answer> {
        use policy2::publish::{Narrowing, Verdict};
        let Some(indices) = &self.policy.hooks.publish else { return Vec::new() };
        let mut all = Vec::new();
        for (port, name) in shown.container.ports.iter().zip(&shown.ports) {
            let verdict = self.call(|store, instance| {
                let guest = indices.load(&mut *store, instance)?;
                guest.call_on_publish(store, port, &shown.subject, caller)
            });
            all.push(self.narrowed(verdict.map(|v| {
                let Verdict { decision, diagnostics, narrowings, audit } = v;
                let restrictions = narrowings.into_iter().map(|narrowing| match narrowing {
                    Narrowing::Withhold => Restriction::WithholdPort(*name),
                    Narrowing::LoopbackOnly => Restriction::LoopbackPort(*name),
                });
                (plain(answers::Judgement { decision, diagnostics, audit }), restrictions.collect())
            })));
        }
        all
    }

    fn on_mounts(&mut self, shown: &Shown, caller: &types::Caller) -> Vec<Answer> {
        use policy2::mount::{Narrowing, Verdict};
        let Some(indices) = &self.policy.hooks.mount else { return Vec::new() };
        let mut all = Vec::new();
        for request in &shown.mounts {
            let verdict = self.call(|store, instance| {
                let guest = indices.load(&mut *store, instance)?;
                guest.call_on_mount(store, request, &shown.subject, caller)
            });
            let destination = || request.mount.destination.clone();
            let add = |option: &str| Restriction::TightenMount {
                destination: destination(),
                add_options: vec![option.into()],
            };
            all.push(self.narrowed(verdict.map(|v| {
                let Verdict { decision, diagnostics, narrowings, audit } = v;
                let restrictions = narrowings.into_iter().map(|narrowing| match narrowing {
                    Narrowing::Withhold => Restriction::RemoveMount(destination()),
                    Narrowing::ReadOnly => add("ro"),
                    Narrowing::Nosuid => add("nosuid"),
                    Narrowing::Nodev => add("nodev"),
                    Narrowing::Noexec => add("noexec"),
                });
                (plain(answers::Judgement { decision, diagnostics, audit }), restrictions.collect())
            })));
        }
        all
    }

    /// What a hook said that narrows one thing.
    fn narrowed(&self, said: Result<(types::Verdict, Vec<Restriction>), Refusal>) -> Answer {
        let id = &self.policy.id;
        let answered = said.and_then(|(verdict, restrictions)| {
            if restrictions.len() > limits::RESTRICTIONS {
                let message = "the policy says more than an answer may hold";
                return Err(Refusal::synthetic(id.clone(), code::OUTPUT, message, None));
            }
            Ok(Answer { restrictions, ..answer::from_guest(id, verdict)? })
        });
        answered.unwrap_or_else(denial)
    }

    fn on_secrets(&mut self, shown: &Shown, caller: &types::Caller) -> Vec<Answer> {
        let Some(indices) = &self.policy.hooks.secret else { return Vec::new() };
        let ask = |request: &policy2::secret::Request| {
            self.ask(|store, instance| {
                let guest = indices.load(&mut *store, instance)?;
                guest.call_on_secret(store, request, &shown.subject, caller).map(plain)
            })
        };
        shown.secrets.iter().map(ask).collect()
    }

    pub(crate) fn on_pull(&mut self, request: &image::Pull, caller: &types::Caller) -> Answer {
        let hooks = &self.policy.hooks;
        match (&hooks.image2, &hooks.image) {
            (Some(indices), _) => {
                let image::Pull { image, insecure, mirror } = request.clone();
                let request = policy2::image::Pull { image, insecure, mirror };
                self.ask(|store, instance| {
                    indices.load(&mut *store, instance)?.call_on_pull(store, &request, caller).map(plain)
                })
            }
            (None, Some(indices)) => {
                self.ask(|store, instance| indices.load(&mut *store, instance)?.call_on_pull(store, request, caller))
            }
            (None, None) => abstention(&self.policy.id),
        }
    }

    pub(crate) fn on_image(&mut self, info: &image::Info, facts: &facts::ImageFacts, caller: &types::Caller) -> Answer {
        let hooks = &self.policy.hooks;
        match (&hooks.image2, &hooks.image) {
            (Some(indices), _) => {
                let info = second(info.clone());
                self.ask(|store, instance| {
                    indices.load(&mut *store, instance)?.call_on_image(store, &info, facts, caller).map(plain)
                })
            }
            (None, Some(indices)) => {
                self.ask(|store, instance| indices.load(&mut *store, instance)?.call_on_image(store, info, caller))
            }
            (None, None) => abstention(&self.policy.id),
        }
    }

    pub(crate) fn on_exec(&mut self, request: &exec::Request, shown: &Shown, caller: &types::Caller) -> Answer {
        let hooks = &self.policy.hooks;
        let container = &shown.container;
        match (&hooks.exec2, &hooks.exec) {
            (Some(indices), _) => {
                let exec::Request { container_id, args, env, uid, tty, privileged } = request.clone();
                let request = policy2::exec::Request { container_id, args, env, uid, tty, privileged };
                self.ask(|store, instance| {
                    let guest = indices.load(&mut *store, instance)?;
                    guest.call_on_exec(store, &request, container, &shown.facts, caller).map(plain)
                })
            }
            (None, Some(indices)) => self.ask(|store, instance| {
                indices.load(&mut *store, instance)?.call_on_exec(store, request, container, caller)
            }),
            (None, None) => abstention(&self.policy.id),
        }
    }

    pub(crate) fn on_copy_out(
        &mut self,
        request: &policy2::copy_out::Request,
        subject: &subject::Subject,
        caller: &types::Caller,
    ) -> Answer {
        let Some(indices) = &self.policy.hooks.copy_out else { return abstention(&self.policy.id) };
        self.ask(|store, instance| {
            indices.load(&mut *store, instance)?.call_on_copy_out(store, request, subject, caller).map(plain)
        })
    }

    /// # Errors
    /// When the policy fails; nothing depends on it but its own record.
    pub(crate) fn on_exit(&mut self, event: &policy2::exit::Event) -> Result<(), Refusal> {
        let Some(indices) = &self.policy.hooks.exit else { return Ok(()) };
        self.call(|store, instance| indices.load(&mut *store, instance)?.call_on_exit(store, event))
    }
}

/// The same in the words of 0.2.
fn second(info: image::Info) -> policy2::image::Info {
    policy2::image::Info {
        image: info.image,
        signatures: info.signatures,
        created: info.created,
        user: info.user,
        env: info.env,
        labels: info.labels,
        entrypoint: info.entrypoint,
        exposed_ports: info.exposed_ports,
        volumes: info.volumes,
        layers: info.layers,
        size_bytes: info.size_bytes,
        history: info.history,
    }
}

/// The stricter word, and everything that was said.
fn add(answer: &mut Answer, part: Answer) {
    // What denies has given the reason; the findings of parts that were let pass are warnings.
    let denied = answer.decision == Decision::Deny;
    match (denied, part.decision) {
        (true, Decision::Allow | Decision::Abstain) => return,
        (false, Decision::Deny) => answer.diagnostics.clear(),
        (true, Decision::Deny) | (false, Decision::Allow | Decision::Abstain) => {}
    }
    answer.decision = answer.decision.max(part.decision);
    answer.diagnostics.extend(part.diagnostics);
    answer.restrictions.extend(part.restrictions);
    answer.audit.extend(part.audit);
}
