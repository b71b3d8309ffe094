//! From what a policy answered to what the merge takes. Everything in an answer is hostile until it is here.

use crate::bindings::rlrun::policy::types as wit;
use crate::limits;
use rlrun_spec::container::EgressRule;
use rlrun_spec::policy::{
    Answer, Decision, Diagnostic, Limits, PolicyId, Refusal, Restriction, SeccompAction, Severity, code,
};

/// # Errors
/// A refusal in the policy's name when the answer holds more than anyone could want to say.
pub(crate) fn from_guest(policy: &PolicyId, verdict: wit::Verdict) -> Result<Answer, Refusal> {
    if verdict.restrictions.len() > limits::RESTRICTIONS || verdict.audit.len() > limits::RESTRICTIONS {
        return Err(too_much(policy));
    }
    Ok(Answer {
        policy: policy.clone(),
        decision: match verdict.decision {
            wit::Decision::Allow => Decision::Allow,
            wit::Decision::Deny => Decision::Deny,
            wit::Decision::Abstain => Decision::Abstain,
        },
        diagnostics: diagnostics(policy, verdict.diagnostics)?,
        restrictions: verdict.restrictions.into_iter().map(restriction).collect(),
        audit: verdict.audit.into_iter().map(|p| (printable(&p.name), printable(&p.value))).collect(),
    })
}

/// # Errors
/// A refusal in the policy's name when there are too many.
pub(crate) fn diagnostics(policy: &PolicyId, found: Vec<wit::Diagnostic>) -> Result<Vec<Diagnostic>, Refusal> {
    if found.len() > limits::DIAGNOSTICS {
        return Err(too_much(policy));
    }
    Ok(found.into_iter().map(diagnostic).collect())
}

fn too_much(policy: &PolicyId) -> Refusal {
    Refusal::synthetic(policy.clone(), code::OUTPUT, "the policy says more than an answer may hold", None)
}

fn diagnostic(d: wit::Diagnostic) -> Diagnostic {
    Diagnostic {
        code: printable(&d.code),
        severity: match d.severity {
            wit::Severity::Info => Severity::Info,
            wit::Severity::Low => Severity::Low,
            wit::Severity::Medium => Severity::Medium,
            wit::Severity::High => Severity::High,
            wit::Severity::Critical => Severity::Critical,
        },
        message: printable(&d.message),
        path: d.path.as_deref().map(printable),
        help: d.help.as_deref().map(printable),
    }
}

/// Text for a terminal: a policy must not move the cursor, recolour an error or forge a second line of it.
pub(crate) fn printable(text: &str) -> String {
    let mut end = text.len().min(limits::MESSAGE_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let kept = text.get(..end).unwrap_or_default();
    kept.chars().map(|c| if c.is_control() || is_direction(c) { '\u{fffd}' } else { c }).collect()
}

/// Characters that reorder what follows them (Unicode bidirectional controls).
fn is_direction(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}')
}

fn restriction(r: wit::Restriction) -> Restriction {
    match r {
        wit::Restriction::DropCapabilities(names) => Restriction::DropCapabilities(names),
        wit::Restriction::KeepOnlyCapabilities(names) => Restriction::KeepOnlyCapabilities(names),
        wit::Restriction::NoNewPrivileges => Restriction::NoNewPrivileges,
        wit::Restriction::ReadOnlyRootfs => Restriction::ReadOnlyRootfs,
        wit::Restriction::TightenMount(m) => {
            Restriction::TightenMount { destination: m.destination, add_options: m.add_options }
        }
        wit::Restriction::RemoveMount(path) => Restriction::RemoveMount(path),
        wit::Restriction::MaskPath(path) => Restriction::MaskPath(path),
        wit::Restriction::ReadOnlyPath(path) => Restriction::ReadOnlyPath(path),
        wit::Restriction::RemoveDevice(path) => Restriction::RemoveDevice(path),
        wit::Restriction::SeccompDeny(rule) => Restriction::SeccompDeny {
            syscalls: rule.syscalls,
            action: match rule.action {
                wit::SeccompAction::Log => SeccompAction::Log,
                wit::SeccompAction::Notify => SeccompAction::Notify,
                wit::SeccompAction::Errno => SeccompAction::Errno,
                wit::SeccompAction::KillProcess => SeccompAction::KillProcess,
            },
            errno: rule.errno,
        },
        wit::Restriction::SeccompKeepOnly(names) => Restriction::SeccompKeepOnly(names),
        wit::Restriction::EgressOnly(rules) => Restriction::EgressOnly(
            rules.into_iter().map(|r| EgressRule { cidr: r.cidr, ports: r.ports, protocol: r.protocol }).collect(),
        ),
        wit::Restriction::NoNetwork => Restriction::NoNetwork,
        wit::Restriction::Limit(l) => Restriction::Limit(Limits {
            memory_bytes: l.memory_bytes,
            pids: l.pids,
            cpu_millis: l.cpu_millis,
            nofile: l.nofile,
        }),
        wit::Restriction::UnsetEnv(name) => Restriction::UnsetEnv(name),
        wit::Restriction::RequireDigest(digest) => Restriction::RequireDigest(digest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_cannot_play_with_the_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb\nc\u{202e}d"), "a\u{fffd}[2Jb\u{fffd}c\u{fffd}d");
    }

    #[test]
    fn long_messages_are_cut_between_characters() {
        let cut = printable(&"é".repeat(limits::MESSAGE_BYTES));
        assert_eq!(cut.len(), limits::MESSAGE_BYTES);
    }
}
