//! A policy's no.

use super::{Diagnostic, PolicyId, Severity, Tier};
use crate::failure::{Failure, Kind, Stage};
use serde::{Deserialize, Serialize};

/// Codes of the diagnostics that rlrun itself adds when a policy failed rather than answered.
pub mod code {
    /// The policy trapped.
    pub const TRAP: &str = "RLRUN-TRAP";
    /// The policy used up its fuel.
    pub const FUEL: &str = "RLRUN-FUEL";
    /// The policy asked for more memory than it may have.
    pub const MEMORY: &str = "RLRUN-MEMORY";
    /// The policy's answer could not be read or was too large.
    pub const OUTPUT: &str = "RLRUN-OUTPUT";
    /// The request is too large to be shown to a policy.
    pub const INPUT: &str = "RLRUN-INPUT";
    /// The policy could not be loaded or lacks what it should export.
    pub const LOAD: &str = "RLRUN-LOAD";
    /// The policy refused its settings.
    pub const SETTINGS: &str = "RLRUN-SETTINGS";
    /// The policy was installed and did not answer.
    pub const MISSING: &str = "RLRUN-MISSING";
    /// The policy answered with something that is not a tightening.
    pub const MUTATION: &str = "RLRUN-MUTATION";
    /// The policy requires an image digest that the image does not have.
    pub const DIGEST: &str = "RLRUN-DIGEST";
    /// A defect of rlrun: the merged configuration was looser than the request.
    pub const LOOSER: &str = "RLRUN-LOOSER";
    /// The policy denied without a reason.
    pub const UNEXPLAINED: &str = "RLRUN-UNEXPLAINED";
}

/// One policy's no with its reasons; never without a reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Who.
    pub policy: PolicyId,
    /// Its reasons; one synthetic diagnostic with a [`code`] when the policy itself failed.
    pub diagnostics: Vec<Diagnostic>,
}

impl Refusal {
    /// A refusal in the name of a policy that failed.
    #[must_use]
    pub fn synthetic(policy: PolicyId, code: &str, message: impl Into<String>, help: Option<String>) -> Self {
        let diagnostic =
            Diagnostic { code: code.to_owned(), severity: Severity::High, message: message.into(), path: None, help };
        Refusal { policy, diagnostics: vec![diagnostic] }
    }
}

/// Every policy that said no, or that could not be asked: both stop the start. Ordered by policy, so the same
/// request gives the same words on every machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Denied {
    refusals: Vec<Refusal>,
}

impl Denied {
    /// None when nobody refused.
    #[must_use]
    pub fn from_refusals(mut refusals: Vec<Refusal>) -> Option<Box<Self>> {
        if refusals.is_empty() {
            return None;
        }
        refusals.sort_by(|a, b| a.policy.cmp(&b.policy));
        refusals.dedup();
        Some(Box::new(Denied { refusals }))
    }

    /// One refusal.
    #[must_use]
    pub fn one(refusal: Refusal) -> Box<Self> {
        Box::new(Denied { refusals: vec![refusal] })
    }

    /// Who said no, at least one.
    #[must_use]
    pub fn refusals(&self) -> &[Refusal] {
        &self.refusals
    }

    /// The failure that the command line prints: the gravest finding leads, the others follow one a line.
    #[must_use]
    pub fn failure(&self, object: &str) -> Failure {
        let mut findings: Vec<(&PolicyId, &Diagnostic)> =
            self.refusals.iter().flat_map(|r| r.diagnostics.iter().map(move |d| (&r.policy, d))).collect();
        // Stable: equal severities keep the order of policies.
        findings.sort_by_key(|(_, d)| std::cmp::Reverse(d.severity));
        let lines: Vec<String> = findings.iter().map(|(policy, d)| finding_line(policy, d)).collect();
        let mut failure = Failure::new(Stage::Cli, Kind::Denied, "policy", "denied by policy", object);
        failure.detail = lines.join("\n  ");
        failure.hint = findings.iter().find_map(|(_, d)| d.help.clone());
        failure
    }
}

fn finding_line(policy: &PolicyId, d: &Diagnostic) -> String {
    let tier = match policy.tier {
        Tier::Builtin => "builtin",
        Tier::User => "user",
        Tier::Project => "project",
        Tier::Mandatory => "mandatory",
    };
    let path = d.path.as_deref().map(|p| format!(" ({p})")).unwrap_or_default();
    format!("{tier} policy {}{} [{}] {}{path}", policy.name, short(&policy.digest), d.code, d.message)
}

/// `@` and as much of a digest as tells two versions of a policy apart; nothing for a policy that was never read.
fn short(digest: &str) -> String {
    let hex = digest.strip_prefix("sha256:").unwrap_or(digest);
    hex.get(..12).map(|start| format!("@{start}")).unwrap_or_default()
}
