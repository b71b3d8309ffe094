//! Whether the caller may create user namespaces, by the switches that kernels and distributions have for it.

use rlrun_spec::host::UsernsBlock;
use std::path::Path;

/// What the switches say. A missing file is None.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Switches {
    /// `user.max_user_namespaces`.
    pub max_user_namespaces: Option<String>,
    /// `kernel.unprivileged_userns_clone`.
    pub unprivileged_clone: Option<String>,
    /// `kernel.apparmor_restrict_unprivileged_userns`.
    pub apparmor_restricts: Option<String>,
    /// The AppArmor label of this process.
    pub apparmor_label: Option<String>,
}

impl Switches {
    /// Reads them from a proc file system.
    #[must_use]
    pub fn read(proc: &Path) -> Self {
        let text = |path: &str| super::text::small(proc.join(path)).map(|text| text.trim().to_owned());
        let apparmor_restricts = text("sys/kernel/apparmor_restrict_unprivileged_userns");
        Switches {
            max_user_namespaces: text("sys/user/max_user_namespaces"),
            unprivileged_clone: text("sys/kernel/unprivileged_userns_clone"),
            apparmor_label: apparmor_restricts.as_ref().and_then(|_| text("self/attr/apparmor/current")),
            apparmor_restricts,
        }
    }

    /// The first switch that forbids, from the hardest to the softest.
    #[must_use]
    pub fn block(&self, uid: u32) -> Option<UsernsBlock> {
        let is = |switch: &Option<String>, value: &str| switch.as_deref() == Some(value);
        if self.max_user_namespaces.is_none() {
            return Some(UsernsBlock::NotInKernel);
        }
        if is(&self.max_user_namespaces, "0") {
            return Some(UsernsBlock::MaxUserNamespaces);
        }
        // The other two are about processes without CAP_SYS_ADMIN.
        if uid == 0 {
            return None;
        }
        if is(&self.unprivileged_clone, "0") {
            return Some(UsernsBlock::UnprivilegedClone);
        }
        // A profile may exempt us; it then stands here by name, `rlrun (unconfined)`, instead of `unconfined`.
        let exempt = self.apparmor_label.as_deref().is_some_and(|label| label != "unconfined");
        (is(&self.apparmor_restricts, "1") && !exempt).then_some(UsernsBlock::AppArmor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn debian() -> Switches {
        let on = |value: &str| Some(value.to_owned());
        Switches { max_user_namespaces: on("63000"), unprivileged_clone: on("1"), ..Switches::default() }
    }

    #[test]
    fn each_switch_forbids_alone() {
        assert_eq!(debian().block(1500), None);
        let off = Some("0".to_owned());
        assert_eq!(
            Switches { max_user_namespaces: off.clone(), ..debian() }.block(0),
            Some(UsernsBlock::MaxUserNamespaces)
        );
        assert_eq!(Switches { unprivileged_clone: off, ..debian() }.block(1500), Some(UsernsBlock::UnprivilegedClone));
        assert_eq!(Switches { max_user_namespaces: None, ..debian() }.block(1500), Some(UsernsBlock::NotInKernel));
    }

    #[test]
    fn root_is_not_unprivileged() {
        let strict =
            Switches { unprivileged_clone: Some("0".to_owned()), apparmor_restricts: Some("1".to_owned()), ..debian() };
        assert_eq!(strict.block(0), None);
    }

    #[test]
    fn an_apparmor_profile_exempts() {
        let ubuntu = |label: &str| Switches {
            apparmor_restricts: Some("1".to_owned()),
            apparmor_label: Some(label.to_owned()),
            ..debian()
        };
        assert_eq!(ubuntu("unconfined").block(1500), Some(UsernsBlock::AppArmor));
        assert_eq!(ubuntu("rlrun (unconfined)").block(1500), None);
        assert_eq!(Switches { apparmor_label: None, ..ubuntu("") }.block(1500), Some(UsernsBlock::AppArmor));
    }
}
