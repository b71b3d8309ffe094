//! The default profile: `data/seccomp.toml`, decided for a set of capabilities.

use oci_spec::runtime::{
    Arch, Capabilities, Capability, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder,
    LinuxSeccompOperator, LinuxSyscall,
};

struct Group {
    /// For a reader of the generated table and for tests.
    #[cfg_attr(not(test), expect(dead_code, reason = "names the group in tests only"))]
    name: &'static str,
    action: Action,
    when: When,
    otherwise: Option<u32>,
    calls: &'static [&'static str],
    any_of: &'static [&'static [Condition]],
}

#[derive(Clone, Copy)]
enum Action {
    Allow,
    Errno(u32),
}

enum When {
    Always,
    With(&'static str),
    Without(&'static str),
}

struct Condition {
    arg: usize,
    mask: u64,
    value: u64,
}

include!(concat!(env!("OUT_DIR"), "/seccomp_groups.rs"));

/// The architectures of one kernel whose calls the profile decides. x32 is never among them: its calls look like
/// those of x86_64 with other numbers, and nothing uses it.
const ARCHITECTURES: &[Arch] = if cfg!(target_arch = "x86_64") {
    &[Arch::ScmpArchX86_64, Arch::ScmpArchX86]
} else if cfg!(target_arch = "aarch64") {
    &[Arch::ScmpArchAarch64, Arch::ScmpArchArm]
} else {
    &[Arch::ScmpArchNative]
};

/// The default profile of a container whose bounding set is `capabilities`.
#[must_use]
pub fn default_profile(capabilities: &Capabilities) -> LinuxSeccomp {
    let rules = GROUPS.iter().flat_map(|group| group.decide(capabilities)).collect::<Vec<_>>();
    let mut section = LinuxSeccomp::default();
    section
        .set_default_action(LinuxSeccompAction::ScmpActErrno)
        .set_default_errno_ret(Some(DEFAULT_ERRNO))
        .set_architectures(Some(ARCHITECTURES.to_vec()))
        .set_syscalls(Some(rules));
    section
}

impl Group {
    fn decide(&self, capabilities: &Capabilities) -> Vec<LinuxSyscall> {
        let has = |name: &str| {
            name.strip_prefix("CAP_").unwrap_or(name).parse().is_ok_and(|c: Capability| capabilities.contains(&c))
        };
        let applies = match self.when {
            When::Always => true,
            When::With(capability) => has(capability),
            When::Without(capability) => !has(capability),
        };
        match (applies, self.otherwise) {
            (true, _) if self.any_of.is_empty() => vec![self.rule(self.action, None)],
            (true, _) => self.any_of.iter().map(|all| self.rule(self.action, Some(all))).collect(),
            (false, Some(errno)) => vec![self.rule(Action::Errno(errno), None)],
            (false, None) => Vec::new(),
        }
    }

    fn rule(&self, action: Action, all: Option<&[Condition]>) -> LinuxSyscall {
        let (action, errno) = match action {
            Action::Allow => (LinuxSeccompAction::ScmpActAllow, None),
            Action::Errno(errno) => (LinuxSeccompAction::ScmpActErrno, Some(errno)),
        };
        let mut rule = LinuxSyscall::default();
        rule.set_names(self.calls.iter().map(|&name| name.to_owned()).collect())
            .set_action(action)
            .set_errno_ret(errno)
            .set_args(all.map(|all| all.iter().map(Condition::to_oci).collect()));
        rule
    }
}

impl Condition {
    /// OCI, as libseccomp, keeps the mask of a masked comparison in `value` and the datum in `valueTwo`.
    #[expect(clippy::expect_used, reason = "a builder whose fields all have a default does not fail")]
    fn to_oci(&self) -> LinuxSeccompArg {
        let arg = LinuxSeccompArgBuilder::default().index(self.arg).op(LinuxSeccompOperator::ScmpCmpMaskedEq);
        arg.value(self.mask).value_two(self.value).build().expect("every field has a default")
    }
}

#[cfg(test)]
pub(super) fn group_names() -> Vec<&'static str> {
    GROUPS.iter().map(|group| group.name).collect()
}
