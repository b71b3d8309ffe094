//! Verdicts and findings, built up.

use crate::{Decision, Diagnostic, Pair, Restriction, Severity, Verdict};

impl Verdict {
    fn new(decision: Decision) -> Self {
        Verdict { decision, diagnostics: Vec::new(), restrictions: Vec::new(), audit: Vec::new() }
    }

    /// Fine.
    #[must_use]
    pub fn allow() -> Self {
        Self::new(Decision::Allow)
    }

    /// No opinion.
    #[must_use]
    pub fn abstain() -> Self {
        Self::new(Decision::Abstain)
    }

    /// No, with the reason.
    #[must_use]
    pub fn deny(finding: impl Into<Diagnostic>) -> Self {
        Self::judged(vec![finding.into()])
    }

    /// No with all the reasons, or fine when there are none.
    #[must_use]
    pub fn judged(findings: Vec<Diagnostic>) -> Self {
        let decision = if findings.is_empty() { Decision::Allow } else { Decision::Deny };
        Verdict { diagnostics: findings, ..Self::new(decision) }
    }

    /// And one property that the result shall have.
    #[must_use]
    pub fn restrict(mut self, restriction: Restriction) -> Self {
        self.restrictions.push(restriction);
        self
    }

    /// And one narrowing, of a port or a mount.
    #[must_use]
    pub fn narrow<T>(self, narrowing: T) -> Narrowed<T> {
        Narrowed::from(self).narrow(narrowing)
    }

    /// And a warning for the user.
    #[must_use]
    pub fn warn(mut self, finding: impl Into<Diagnostic>) -> Self {
        self.diagnostics.push(finding.into());
        self
    }

    /// And a fact for the audit log.
    #[must_use]
    pub fn note(mut self, name: &str, value: &str) -> Self {
        self.audit.push(Pair { name: name.to_owned(), value: value.to_owned() });
        self
    }
}

/// A verdict on one port or mount, and what is to be narrowed about it.
#[derive(Clone, Debug)]
pub struct Narrowed<T> {
    /// The verdict; it holds no restrictions.
    pub verdict: Verdict,
    /// What holds of the port or mount if it is let pass.
    pub narrowings: Vec<T>,
}

impl<T> From<Verdict> for Narrowed<T> {
    fn from(verdict: Verdict) -> Self {
        Narrowed { verdict, narrowings: Vec::new() }
    }
}

impl<T> Narrowed<T> {
    /// And one narrowing more.
    #[must_use]
    pub fn narrow(mut self, narrowing: T) -> Self {
        self.narrowings.push(narrowing);
        self
    }
}

/// A finding being written; see [`finding`].
#[derive(Clone, Debug)]
pub struct Finding(Diagnostic);

/// A finding: a stable code, how grave, what is wrong.
#[must_use]
pub fn finding(code: &str, severity: Severity, message: impl Into<String>) -> Finding {
    Finding(Diagnostic { code: code.to_owned(), severity, message: message.into(), path: None, help: None })
}

impl Finding {
    /// Where in the request, as a JSON pointer.
    #[must_use]
    pub fn at(mut self, path: impl Into<String>) -> Self {
        self.0.path = Some(path.into());
        self
    }

    /// What to do about it.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.0.help = Some(help.into());
        self
    }
}

impl From<Finding> for Diagnostic {
    fn from(finding: Finding) -> Self {
        finding.0
    }
}
