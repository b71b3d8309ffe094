//! What policies add to the seccomp profile: a second filter, stacked on the first.
//!
//! The kernel runs every filter and takes the strictest result (seccomp(2)), so whatever stands here can only
//! tighten the profile below it, conditions on arguments included; no rule of the profile has to be understood.

use super::SeccompAction;
use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction, LinuxSyscall};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// EPERM on every Linux architecture (errno(3)).
const EPERM: u32 = 1;
/// The kernel's MAX_ERRNO; larger values would be cut off.
const MAX_ERRNO: u32 = 4095;

/// Denials and an optional allow-list that hold beside the profile.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeccompOverlay {
    /// Per system call, what happens.
    denied: BTreeMap<String, Denial>,
    /// When set, every other system call fails with EPERM.
    keep_only: Option<BTreeSet<String>>,
}

/// Ordered by strictness, then by errno so that the merge of two is the same in either order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Denial {
    action: SeccompAction,
    errno: u32,
}

impl SeccompOverlay {
    /// Whether there is nothing to add.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.denied.is_empty() && self.keep_only.is_none()
    }

    pub(crate) fn deny(syscalls: &[String], action: SeccompAction, errno: Option<u32>) -> Result<Self, String> {
        let errno = match action {
            SeccompAction::Notify => return Err("`notify` needs a supervisor, which this version has not".to_owned()),
            SeccompAction::Errno => errno.unwrap_or(EPERM),
            SeccompAction::Log | SeccompAction::KillProcess => 0,
        };
        // An errno of 0 would report success for a call that never happened.
        if action == SeccompAction::Errno && !(1..=MAX_ERRNO).contains(&errno) {
            return Err(format!("{errno} is not an error number"));
        }
        // The filter is in force when the payload is executed.
        if action != SeccompAction::Log && syscalls.iter().any(|s| s == "execve") {
            return Err("without execve nothing can start: deny the container instead".to_owned());
        }
        let denied = checked(syscalls)?.into_iter().map(|name| (name, Denial { action, errno })).collect();
        Ok(SeccompOverlay { denied, keep_only: None })
    }

    pub(crate) fn keep_only(syscalls: &[String]) -> Result<Self, String> {
        let names = checked(syscalls)?;
        if !names.contains("execve") {
            return Err("without execve nothing can start: deny the container instead".to_owned());
        }
        Ok(SeccompOverlay { denied: BTreeMap::new(), keep_only: Some(names) })
    }

    pub(crate) fn meet(&self, other: &Self) -> Self {
        let mut denied = self.denied.clone();
        for (name, denial) in &other.denied {
            denied.entry(name.clone()).and_modify(|d| *d = (*d).max(*denial)).or_insert(*denial);
        }
        let keep_only = match (&self.keep_only, &other.keep_only) {
            (None, x) | (x, None) => x.clone(),
            (Some(a), Some(b)) => Some(a.intersection(b).cloned().collect()),
        };
        SeccompOverlay { denied, keep_only }
    }

    /// Whether `self` denies all that `other` denies.
    pub(crate) fn within(&self, other: &Self) -> bool {
        self.meet(other) == *self
    }

    /// The overlay as a seccomp section of its own, to be compiled to a filter of its own; None when it is empty.
    /// It speaks for the architectures of the profile, so a foreign one is no way around it.
    #[must_use]
    pub fn to_oci(&self, profile: Option<&LinuxSeccomp>) -> Option<LinuxSeccomp> {
        if self.is_empty() {
            return None;
        }
        let mut by_denial: BTreeMap<Denial, Vec<String>> = BTreeMap::new();
        let unkept = |name: &String| self.keep_only.as_ref().is_some_and(|kept| !kept.contains(name));
        for (name, denial) in &self.denied {
            // `log` lets a call through; one that the allow-list leaves out must not come back that way.
            if denial.action != SeccompAction::Log || !unkept(name) {
                by_denial.entry(*denial).or_default().push(name.clone());
            }
        }
        let mut rules: Vec<LinuxSyscall> = by_denial.into_iter().map(|(denial, names)| rule(names, denial)).collect();
        let mut section = LinuxSeccomp::default();
        section.set_architectures(profile.and_then(|p| p.architectures().clone()));
        match &self.keep_only {
            None => {
                section.set_default_action(LinuxSeccompAction::ScmpActAllow);
            }
            Some(names) => {
                section.set_default_action(LinuxSeccompAction::ScmpActErrno);
                section.set_default_errno_ret(Some(EPERM));
                let kept = names.iter().filter(|n| !self.denied.contains_key(*n)).cloned().collect();
                rules.push(syscall_rule(kept, LinuxSeccompAction::ScmpActAllow, None));
            }
        }
        section.set_syscalls(Some(rules));
        Some(section)
    }
}

fn rule(names: Vec<String>, denial: Denial) -> LinuxSyscall {
    match denial.action {
        SeccompAction::Log => syscall_rule(names, LinuxSeccompAction::ScmpActLog, None),
        SeccompAction::Notify => syscall_rule(names, LinuxSeccompAction::ScmpActNotify, None),
        SeccompAction::Errno => syscall_rule(names, LinuxSeccompAction::ScmpActErrno, Some(denial.errno)),
        SeccompAction::KillProcess => syscall_rule(names, LinuxSeccompAction::ScmpActKillProcess, None),
    }
}

fn syscall_rule(names: Vec<String>, action: LinuxSeccompAction, errno: Option<u32>) -> LinuxSyscall {
    let mut rule = LinuxSyscall::default();
    rule.set_names(names).set_action(action).set_errno_ret(errno);
    rule
}

/// Names are checked for shape only: a call that this architecture lacks cannot be made, so ignoring it is safe.
fn checked(syscalls: &[String]) -> Result<BTreeSet<String>, String> {
    if syscalls.is_empty() {
        return Err("no system call is named".to_owned());
    }
    let shaped =
        |s: &String| !s.is_empty() && s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    match syscalls.iter().find(|s| !shaped(s)) {
        Some(bad) => Err(format!("`{bad}` is not the name of a system call")),
        None => Ok(syscalls.iter().cloned().collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|s| (*s).to_owned()).collect()
    }

    #[test]
    fn the_stricter_action_wins() {
        let errno = SeccompOverlay::deny(&names(&["ptrace", "bpf"]), SeccompAction::Errno, Some(38)).unwrap();
        let kill = SeccompOverlay::deny(&names(&["ptrace"]), SeccompAction::KillProcess, None).unwrap();
        let both = errno.meet(&kill);
        assert_eq!(both, kill.meet(&errno));
        let section = both.to_oci(None).unwrap();
        assert_eq!(section.default_action(), LinuxSeccompAction::ScmpActAllow);
        let rules = section.syscalls().clone().unwrap();
        assert_eq!(rules[0].names(), &names(&["bpf"]));
        assert_eq!(rules[0].errno_ret(), Some(38));
        assert_eq!(rules[1].names(), &names(&["ptrace"]));
        assert_eq!(rules[1].action(), LinuxSeccompAction::ScmpActKillProcess);
    }

    #[test]
    fn an_allow_list_leaves_out_what_is_denied() {
        let keep = SeccompOverlay::keep_only(&names(&["execve", "read", "ptrace"])).unwrap();
        let deny = SeccompOverlay::deny(&names(&["ptrace"]), SeccompAction::Errno, None).unwrap();
        let section = keep.meet(&deny).to_oci(None).unwrap();
        assert_eq!(section.default_action(), LinuxSeccompAction::ScmpActErrno);
        let allowed: Vec<_> =
            section.syscalls().iter().flatten().filter(|r| r.action() == LinuxSeccompAction::ScmpActAllow).collect();
        assert_eq!(allowed[0].names(), &names(&["execve", "read"]));
    }

    #[test]
    fn logging_does_not_bring_back_what_the_allow_list_leaves_out() {
        let keep = SeccompOverlay::keep_only(&names(&["execve"])).unwrap();
        let log = SeccompOverlay::deny(&names(&["ptrace"]), SeccompAction::Log, None).unwrap();
        let section = keep.meet(&log).to_oci(None).unwrap();
        assert!(section.syscalls().iter().flatten().all(|r| !r.names().contains(&"ptrace".to_owned())));
    }

    #[test]
    fn what_cannot_work_is_refused() {
        assert!(SeccompOverlay::deny(&names(&["mount"]), SeccompAction::Notify, None).is_err());
        assert!(SeccompOverlay::deny(&names(&["mount"]), SeccompAction::Errno, Some(4096)).is_err());
        assert!(SeccompOverlay::deny(&names(&["mount"]), SeccompAction::Errno, Some(0)).is_err());
        assert!(SeccompOverlay::deny(&names(&["MOUNT ME"]), SeccompAction::Errno, None).is_err());
        assert!(SeccompOverlay::deny(&[], SeccompAction::Errno, None).is_err());
        assert!(SeccompOverlay::keep_only(&names(&["read"])).is_err());
    }
}
