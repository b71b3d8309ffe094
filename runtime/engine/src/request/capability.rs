//! `--cap-add` and `--cap-drop`.

use super::Invalid;
use oci_spec::runtime::Capability;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::str::FromStr as _;

/// Every capability by number, up to CAP_CHECKPOINT_RESTORE of Linux 5.9 (`capabilities(7)`).
pub const ALL: [Capability; 41] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::DacReadSearch,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Kill,
    Capability::Setgid,
    Capability::Setuid,
    Capability::Setpcap,
    Capability::LinuxImmutable,
    Capability::NetBindService,
    Capability::NetBroadcast,
    Capability::NetAdmin,
    Capability::NetRaw,
    Capability::IpcLock,
    Capability::IpcOwner,
    Capability::SysModule,
    Capability::SysRawio,
    Capability::SysChroot,
    Capability::SysPtrace,
    Capability::SysPacct,
    Capability::SysAdmin,
    Capability::SysBoot,
    Capability::SysNice,
    Capability::SysResource,
    Capability::SysTime,
    Capability::SysTtyConfig,
    Capability::Mknod,
    Capability::Lease,
    Capability::AuditWrite,
    Capability::AuditControl,
    Capability::Setfcap,
    Capability::MacOverride,
    Capability::MacAdmin,
    Capability::Syslog,
    Capability::WakeAlarm,
    Capability::BlockSuspend,
    Capability::AuditRead,
    Capability::Perfmon,
    Capability::Bpf,
    Capability::CheckpointRestore,
];

/// What a container gets unless asked otherwise: enough for a package manager and a server that changes its user,
/// no device nodes, no raw sockets, no audit records.
pub const DEFAULT: [Capability; 11] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Kill,
    Capability::NetBindService,
    Capability::Setfcap,
    Capability::Setgid,
    Capability::Setpcap,
    Capability::Setuid,
    Capability::SysChroot,
];

/// A set of capability numbers.
pub type Set = BTreeSet<u32>;

/// Capabilities that one option names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// `ALL` was among them.
    pub all: bool,
    /// The others, by number.
    pub each: Set,
}

/// Both options.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapabilityRequest {
    /// `--cap-add`.
    pub add: Named,
    /// `--cap-drop`.
    pub drop: Named,
}

/// The number of a capability.
#[must_use]
pub fn number(capability: Capability) -> u32 {
    rlrun_spec::plan_from_oci::number(capability)
}

/// Both options together, words as the user wrote them: any case, with or without `CAP_`, several divided by commas.
///
/// # Errors
/// When a capability is unknown or both added and dropped.
pub fn request(add: &[String], drop: &[String]) -> Result<CapabilityRequest, Invalid> {
    let request = CapabilityRequest { add: named("--cap-add", add)?, drop: named("--cap-drop", drop)? };
    if let Some(both) = request.add.each.intersection(&request.drop.each).next() {
        return Err(Invalid::new("--cap-add", name_of(*both), "is also dropped"));
    }
    if request.add.all && request.drop.all {
        return Err(Invalid::new("--cap-add", "ALL", "is also dropped"));
    }
    Ok(request)
}

impl CapabilityRequest {
    /// The set that the request makes of the default one: `ALL` first, then single names.
    #[must_use]
    pub fn apply(&self, default: &[Capability]) -> Set {
        let all = || ALL.into_iter().map(number).collect::<Set>();
        let base = match (self.drop.all, self.add.all) {
            (true, _) => Set::new(),
            (false, true) => all(),
            (false, false) => default.iter().copied().map(number).collect(),
        };
        base.union(&self.add.each).filter(|n| !self.drop.each.contains(n)).copied().collect()
    }
}

fn named(option: &'static str, words: &[String]) -> Result<Named, Invalid> {
    let mut named = Named::default();
    for word in words.iter().flat_map(|w| w.split(',')) {
        let upper = word.trim().to_ascii_uppercase();
        let short = upper.strip_prefix("CAP_").unwrap_or(&upper);
        if short == "ALL" {
            named.all = true;
            continue;
        }
        let capability = Capability::from_str(short)
            .map_err(|_| Invalid::new(option, word, "is not a capability").hint("capabilities(7) lists them"))?;
        named.each.insert(number(capability));
    }
    Ok(named)
}

/// `CAP_CHOWN` for 0.
#[must_use]
pub fn name_of(wanted: u32) -> String {
    ALL.into_iter().find(|c| number(*c) == wanted).map_or_else(|| wanted.to_string(), |c| format!("CAP_{c}"))
}

/// The capabilities of a set of numbers.
pub fn members(set: &Set) -> impl Iterator<Item = Capability> {
    ALL.into_iter().filter(|c| set.contains(&number(*c)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(add: &[&str], drop: &[&str]) -> Result<Vec<String>, Invalid> {
        let words = |w: &[&str]| w.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        Ok(request(&words(add), &words(drop))?.apply(&DEFAULT).into_iter().map(name_of).collect())
    }

    #[test]
    fn the_default_has_podmans_eleven() {
        assert_eq!(apply(&[], &[]).unwrap().len(), 11);
        assert!(!apply(&[], &[]).unwrap().contains(&"CAP_NET_RAW".to_owned()));
    }

    #[test]
    fn all_comes_before_single_names() {
        assert_eq!(apply(&["chown,CAP_kill"], &["all"]).unwrap(), ["CAP_CHOWN", "CAP_KILL"]);
        assert_eq!(apply(&["ALL"], &["sys_admin"]).unwrap().len(), 40);
        assert_eq!(apply(&["net_raw"], &["kill"]).unwrap().len(), 11);
    }

    #[test]
    fn contradictions_and_unknown_names_are_refused() {
        for (add, drop) in [("chown", "CHOWN"), ("all", "all"), ("cap_nonsense", ""), ("", "x")] {
            assert!(apply(&[add], &[drop]).is_err(), "{add} {drop}");
        }
    }

    #[test]
    fn the_table_is_in_the_order_of_the_kernel() {
        assert!(ALL.into_iter().enumerate().all(|(i, c)| number(c) as usize == i));
    }
}
