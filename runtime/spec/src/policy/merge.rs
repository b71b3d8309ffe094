//! Answers merged, and the types that prove it: [`merge`] makes a [`Merged`] configuration, the second phase makes
//! it [`Admitted`], and only that can be sealed.

use super::apply::{applicable, apply};
use super::egress::Egress;
use super::looser::looser;
use super::refusal::{Denied, Refusal, code};
use super::tightening::Tightening;
use super::{Answer, Decision, Diagnostic, PolicyId, Tier};
use crate::container::ContainerSpec;
use serde::Serialize;
use std::collections::BTreeSet;

/// Which policies are installed, all of which have to answer. An answer that is missing is a denial, so leaving
/// one out by mistake cannot admit anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roster {
    policies: BTreeSet<PolicyId>,
}

impl Roster {
    /// The policies that must answer; None when there are none, which is said with [`Roster::no_policy_installed`].
    #[must_use]
    pub fn new(policies: impl IntoIterator<Item = PolicyId>) -> Option<Self> {
        let policies: BTreeSet<PolicyId> = policies.into_iter().collect();
        (!policies.is_empty()).then_some(Roster { policies })
    }

    /// The user switched the builtin policy off, has none of their own, and the administrator requires none. For
    /// `rlrun-admission`, after it has looked.
    #[must_use]
    pub fn no_policy_installed() -> Self {
        Roster { policies: BTreeSet::new() }
    }

    /// Refusals of everyone who is missing, and of everyone who is not invited.
    fn check(&self, answers: &[Answer]) -> Vec<Refusal> {
        let present: BTreeSet<&PolicyId> = answers.iter().map(|a| &a.policy).collect();
        let missing = self.policies.iter().filter(|p| !present.contains(p));
        let missing = missing.map(|p| Refusal::synthetic(p.clone(), code::MISSING, "the policy gave no answer", None));
        let uninvited = present.iter().filter(|p| !self.policies.contains(**p));
        let uninvited = uninvited.map(|p| {
            Refusal::synthetic((*p).clone(), code::MISSING, "a policy that is not installed gave an answer", None)
        });
        missing.chain(uninvited).collect()
    }
}

/// Tightened by every policy, not yet looked at again.
#[derive(Clone, Debug, PartialEq)]
pub struct Merged {
    roster: Roster,
    spec: ContainerSpec,
    answers: Vec<Answer>,
}

/// Merges the first phase's answers: any denial denies, restrictions meet, and the result is checked against the
/// request once more.
///
/// # Errors
/// [`Denied`] names everyone who denied, did not answer, or asked for something that is not a tightening.
pub fn merge(spec: ContainerSpec, roster: &Roster, answers: Vec<Answer>) -> Result<Merged, Box<Denied>> {
    let mut refusals = roster.check(&answers);
    let mut all = Vec::with_capacity(answers.len());
    for answer in &answers {
        match judge(&spec, answer) {
            Ok(own) => all.push((&answer.policy, own)),
            Err(refusal) => refusals.push(refusal),
        }
    }
    refusals.extend(too_many_rules(&spec, &all));
    if let Some(denied) = Denied::from_refusals(refusals) {
        return Err(denied);
    }
    let tightening = all.iter().fold(Tightening::default(), |merged, (_, own)| merged.meet(own));
    let spec = tightened(spec, &tightening)?;
    Ok(Merged { roster: roster.clone(), spec, answers: sorted(answers) })
}

/// Refusals of everyone whose rules of egress, taken together, nobody could work out in good time.
fn too_many_rules(spec: &ContainerSpec, all: &[(&PolicyId, Tightening)]) -> Vec<Refusal> {
    let own = spec.parts().egress.as_deref().and_then(|rules| Egress::parse(rules).ok());
    let ruling = || all.iter().filter(|(_, own)| own.egress.is_some());
    if Egress::can_meet(ruling().filter_map(|(_, one)| one.egress.as_ref()).chain(&own)) {
        return Vec::new();
    }
    let refusal = |policy: &PolicyId| {
        let message = "egress-only: with those of the others there are more rules than can be worked out";
        Refusal::synthetic(
            policy.clone(),
            code::MUTATION,
            message,
            Some("name fewer and larger address blocks".to_owned()),
        )
    };
    ruling().map(|(policy, _)| refusal(policy)).collect()
}

fn tightened(spec: ContainerSpec, tightening: &Tightening) -> Result<ContainerSpec, Box<Denied>> {
    if *tightening == Tightening::default() {
        return Ok(spec);
    }
    let before = spec.parts();
    let mut after = before.clone();
    apply(tightening, &mut after).map_err(|e| defect(&e))?;
    if let Some(field) = looser(before, &after) {
        return Err(defect(&format!("{field} became looser than requested")));
    }
    ContainerSpec::new(after).map_err(|e| defect(&e.to_string()))
}

/// One policy's answer to the pristine request.
fn judge(spec: &ContainerSpec, answer: &Answer) -> Result<Tightening, Refusal> {
    if answer.decision == Decision::Deny {
        return Err(denial(answer));
    }
    let illegal = |why: String| {
        let help = "a policy can only tighten; report this to its author".to_owned();
        Refusal::synthetic(answer.policy.clone(), code::MUTATION, why, Some(help))
    };
    let tightening = Tightening::parse(&answer.restrictions).map_err(illegal)?;
    applicable(&tightening, spec.parts()).map_err(illegal)?;
    let image = spec.parts().image.as_ref();
    if let Some(wanted) = tightening.digests.iter().find(|d| image.is_none_or(|i| i.digest != **d)) {
        let (has, help) = match image {
            Some(image) => (format!("the image is {}", image.digest), Some(format!("pull {wanted} by its digest"))),
            None => ("there is no image".to_owned(), None),
        };
        let message = format!("only {wanted} may run; {has}");
        return Err(Refusal::synthetic(answer.policy.clone(), code::DIGEST, message, help));
    }
    Ok(tightening)
}

fn denial(answer: &Answer) -> Refusal {
    if answer.diagnostics.is_empty() {
        return Refusal::synthetic(answer.policy.clone(), code::UNEXPLAINED, "denied without a reason", None);
    }
    Refusal { policy: answer.policy.clone(), diagnostics: answer.diagnostics.clone() }
}

fn defect(what: &str) -> Box<Denied> {
    let rlrun = PolicyId { name: "rlrun".to_owned(), digest: String::new(), tier: Tier::Builtin };
    let help = Some("this is a defect of rlrun: please report it".to_owned());
    Denied::one(Refusal::synthetic(rlrun, code::LOOSER, what, help))
}

fn sorted(mut answers: Vec<Answer>) -> Vec<Answer> {
    answers.sort_by(|a, b| a.policy.cmp(&b.policy));
    answers.dedup();
    answers
}

/// Answers where only yes or no is possible.
fn only_yes_or_no(roster: &Roster, answers: &[Answer]) -> Result<(), Box<Denied>> {
    let mut refusals = roster.check(answers);
    for answer in answers {
        if answer.decision == Decision::Deny {
            refusals.push(denial(answer));
        } else if let Some(first) = answer.restrictions.first() {
            let message = format!("{}: this hook only allows or denies", super::tightening::name(first));
            refusals.push(Refusal::synthetic(answer.policy.clone(), code::MUTATION, message, None));
        }
    }
    Denied::from_refusals(refusals).map_or(Ok(()), Err)
}

impl Merged {
    /// What the second phase looks at.
    #[must_use]
    pub fn spec(&self) -> &ContainerSpec {
        &self.spec
    }

    /// The second phase: policies see the merged result and can still say no, nothing else.
    ///
    /// # Errors
    /// [`Denied`] names everyone who denied, did not answer, or tried to change the result.
    pub fn confirm(self, finals: Vec<Answer>) -> Result<Admitted, Box<Denied>> {
        only_yes_or_no(&self.roster, &finals)?;
        Ok(Admitted { spec: self.spec, answers: self.answers, finals: sorted(finals) })
    }
}

/// A configuration that every policy let pass, tightened by all of them. Only [`Merged::confirm`] makes one.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Admitted {
    spec: ContainerSpec,
    answers: Vec<Answer>,
    finals: Vec<Answer>,
}

impl Admitted {
    /// The tightened configuration.
    #[must_use]
    pub fn spec(&self) -> &ContainerSpec {
        &self.spec
    }

    /// What each policy said to the request, in the order of their names.
    #[must_use]
    pub fn answers(&self) -> &[Answer] {
        &self.answers
    }

    /// What each policy said to the merged result, in the order of their names.
    #[must_use]
    pub fn finals(&self) -> &[Answer] {
        &self.finals
    }

    /// Findings of policies that let the request pass: warnings for the user.
    pub fn warnings(&self) -> impl Iterator<Item = (&PolicyId, &Diagnostic)> {
        self.answers.iter().chain(&self.finals).flat_map(|a| a.diagnostics.iter().map(move |d| (&a.policy, d)))
    }
}

/// Every policy agreed to something that has no configuration to tighten: a pull, an image, an exec.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Permit {
    answers: Vec<Answer>,
}

impl Permit {
    /// What each policy said, in the order of their names.
    #[must_use]
    pub fn answers(&self) -> &[Answer] {
        &self.answers
    }

    /// Findings of policies that agreed: warnings for the user.
    pub fn warnings(&self) -> impl Iterator<Item = (&PolicyId, &Diagnostic)> {
        self.answers.iter().flat_map(|a| a.diagnostics.iter().map(move |d| (&a.policy, d)))
    }
}

/// Merges answers to a hook that only allows or denies.
///
/// # Errors
/// [`Denied`] names everyone who denied, did not answer, or tried to change something.
pub fn permit(roster: &Roster, answers: Vec<Answer>) -> Result<Permit, Box<Denied>> {
    only_yes_or_no(roster, &answers)?;
    Ok(Permit { answers: sorted(answers) })
}
