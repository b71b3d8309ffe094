//! Policies that are being tried out: what they say is told or written down, and not done.

use rlrun_spec::policy::{Answer, Decision, Mode, code};

/// What the merge gets to see of an answer. The request that a policy is shown is the one that is enforced, so what it
/// would say after other policies of its kind had their way is not known.
pub(crate) fn bounded(mode: Mode, answer: Answer) -> Answer {
    if mode == Mode::Enforce || answer.decision != Decision::Deny && answer.restrictions.is_empty() {
        return answer;
    }
    let mut audit = answer.audit;
    let mut note = |name: &str, value: String| audit.push((name.to_owned(), value));
    let mut diagnostics = answer.diagnostics;
    if answer.decision == Decision::Deny {
        let codes: Vec<&str> = diagnostics.iter().map(|d| d.code.as_str()).collect();
        let codes = if codes.is_empty() { code::UNEXPLAINED.to_owned() } else { codes.join(",") };
        note("would-deny", codes);
        for diagnostic in &mut diagnostics {
            diagnostic.message.insert_str(0, "would refuse: ");
        }
    }
    if !answer.restrictions.is_empty() {
        let asked = answer.restrictions.iter().map(|r| r.name().to_owned()).collect::<Vec<_>>();
        note("would-tighten", asked.join(","));
    }
    if mode == Mode::Audit {
        diagnostics.clear();
    }
    Answer { decision: Decision::Abstain, diagnostics, restrictions: Vec::new(), audit, ..answer }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rlrun_spec::policy::{Diagnostic, PolicyId, Restriction, Severity, Tier};

    fn answer(decision: Decision, restrictions: Vec<Restriction>) -> Answer {
        let diagnostic = Diagnostic {
            code: "X1".into(),
            severity: Severity::High,
            message: "is wrong".into(),
            path: None,
            help: None,
        };
        let policy = PolicyId { name: "p".into(), digest: String::new(), tier: Tier::User };
        Answer { policy, decision, diagnostics: vec![diagnostic], restrictions, audit: vec![] }
    }

    #[test]
    fn a_policy_on_trial_changes_nothing() {
        let no = answer(Decision::Deny, vec![Restriction::NoNetwork]);
        assert_eq!(bounded(Mode::Enforce, no.clone()), no);
        let warned = bounded(Mode::Warn, no.clone());
        assert_eq!((warned.decision, warned.restrictions.len()), (Decision::Abstain, 0));
        assert_eq!(warned.diagnostics[0].message, "would refuse: is wrong");
        let noted = bounded(Mode::Audit, no);
        assert!(noted.diagnostics.is_empty());
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(noted.audit, [pair("would-deny", "X1"), pair("would-tighten", "no-network")]);
    }

    #[test]
    fn a_yes_with_a_warning_stays_one() {
        let yes = answer(Decision::Allow, vec![]);
        assert_eq!(bounded(Mode::Warn, yes.clone()), yes);
    }
}
