//! Why ids cannot be mapped as wanted: exactly one cause each, and what mends it.

use super::subid;
use rlrun_spec::hint::{self, Advice, Distro, Grant, Package, STEP_ID_MAP, USUAL_SUBIDS};
use rlrun_spec::host::{HostFacts, Powerless, UsernsBlock};
use rlrun_spec::{Failure, IdRange, Kind, Stage};
use std::fmt;
use std::path::{Path, PathBuf};

/// Users or groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdKind {
    /// /etc/subuid, newuidmap.
    User,
    /// /etc/subgid, newgidmap.
    Group,
}

impl IdKind {
    /// The file that grants.
    #[must_use]
    pub fn file(self) -> &'static str {
        match self {
            IdKind::User => "/etc/subuid",
            IdKind::Group => "/etc/subgid",
        }
    }

    /// The program that writes the map.
    #[must_use]
    pub fn helper(self) -> &'static str {
        match self {
            IdKind::User => "newuidmap",
            IdKind::Group => "newgidmap",
        }
    }
}

/// `uid` or `gid`.
impl fmt::Display for IdKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            IdKind::User => "uid",
            IdKind::Group => "gid",
        })
    }
}

/// Why ids cannot be mapped as wanted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Cause {
    /// The host allows the caller no user namespace.
    #[error("{}", blocked(*.0))]
    UsernsBlocked(UsernsBlock),
    /// The caller is nobody: newuidmap(1) serves only users with an account.
    #[error("uid {0} has no account, and newuidmap serves none without one")]
    NoAccount(u32),
    /// A file grants nothing.
    #[error("{} grants {user} no subordinate ids", kind.file())]
    NoRange {
        /// Which file.
        kind: IdKind,
        /// Login name.
        user: String,
    },
    /// A helper is not installed.
    #[error("{} is not installed", kind.helper())]
    HelperMissing {
        /// Which helper.
        kind: IdKind,
    },
    /// A helper would run without privilege.
    #[error("{} is {}", path.display(), powerless(*why))]
    HelperPowerless {
        /// Where it is.
        path: PathBuf,
        /// What is wrong.
        why: Powerless,
    },
    /// A container id has no host id.
    #[error("{}", not_mapped(*kind, *id, *mapped, reason.as_deref()))]
    NotMapped {
        /// Users or groups.
        kind: IdKind,
        /// The id inside.
        id: u32,
        /// How many ids are mapped.
        mapped: u32,
        /// Why only the caller's own id is mapped, if that is so.
        reason: Option<Box<Cause>>,
    },
}

fn blocked(block: UsernsBlock) -> &'static str {
    match block {
        UsernsBlock::NotInKernel => "this kernel has no user namespaces",
        UsernsBlock::MaxUserNamespaces => "user.max_user_namespaces is 0: no user namespace may be created",
        UsernsBlock::UnprivilegedClone => "kernel.unprivileged_userns_clone is 0: only root may create user namespaces",
        UsernsBlock::AppArmor => {
            "kernel.apparmor_restrict_unprivileged_userns is 1 and no AppArmor profile exempts this program"
        }
    }
}

fn powerless(why: Powerless) -> &'static str {
    match why {
        Powerless::NotSetuid => "neither set-user-ID root nor given its file capability",
        Powerless::NosuidMount => "set-user-ID, but its file system is mounted nosuid",
        Powerless::NoNewPrivs => "set-user-ID, but this process has no_new_privs set",
    }
}

fn not_mapped(kind: IdKind, id: u32, mapped: u32, reason: Option<&Cause>) -> String {
    match reason {
        Some(reason) => format!("container {kind} {id} has no host {kind}: only your own is mapped because {reason}"),
        None => {
            let granted = mapped.saturating_sub(1);
            format!("container {kind} {id} has no host {kind}: {} gives {granted}, beside your own", kind.file())
        }
    }
}

/// What advice needs to know and the hot path does not: read when something has already failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Surroundings {
    /// Names the package manager.
    pub distro: Distro,
    /// Where a grant of 65536 ids would fit in both files.
    pub first_free: Option<u32>,
}

impl Surroundings {
    /// Reads os-release(5) and both files. What cannot be read counts as empty: advice is better than none.
    #[must_use]
    pub fn read() -> Self {
        let text = |path: &str| subid::read(Path::new(path)).unwrap_or_default();
        let (uids, gids) = (text("/etc/subuid"), text("/etc/subgid"));
        let release = ["/etc/os-release", "/usr/lib/os-release"].into_iter().map(text).find(|t| !t.is_empty());
        Surroundings {
            distro: Distro::from_os_release(&String::from_utf8_lossy(&release.unwrap_or_default())),
            first_free: subid::first_free([&uids, &gids], USUAL_SUBIDS),
        }
    }
}

impl Cause {
    /// The caller has no account. The probe calls a user without a name by its uid.
    #[must_use]
    pub fn nobody(host: &HostFacts) -> Option<Cause> {
        (!host.local_account && host.user == host.uid.to_string()).then_some(Cause::NoAccount(host.uid))
    }

    /// What mends it.
    #[must_use]
    pub fn advice(&self, host: &HostFacts, around: &Surroundings) -> Advice {
        match self {
            Cause::UsernsBlocked(block) => hint::for_userns_block(*block),
            Cause::NoAccount(uid) => Advice::CreateAccount(*uid),
            Cause::HelperMissing { .. } => Advice::Install(Package::Uidmap, around.distro),
            Cause::HelperPowerless { path, why } => hint::for_powerless(path.clone(), *why),
            Cause::NotMapped { reason: Some(reason), .. } => reason.advice(host, around),
            Cause::NoRange { .. } => add_ids(0, USUAL_SUBIDS, host, around),
            Cause::NotMapped { id, mapped, reason: None, .. } => {
                let lacking = id.saturating_sub(*mapped).saturating_add(1);
                add_ids(*id, lacking.max(USUAL_SUBIDS), host, around)
            }
        }
    }

    /// As the one failure that the user sees.
    #[must_use]
    pub fn failure(&self, host: &HostFacts, around: &Surroundings) -> Failure {
        Failure::new(Stage::Cli, Kind::Host, STEP_ID_MAP, "map container ids", "")
            .why(self.to_string())
            .hint(self.advice(host, around).to_string())
    }

    /// As the one warning of a container that runs with the caller's id alone.
    #[must_use]
    pub fn warning(&self, host: &HostFacts, around: &Surroundings) -> String {
        format!(
            "only your own id is mapped, so a container has one user, root: {self}\nhint: {}",
            self.advice(host, around)
        )
    }
}

/// Where `id` inside has no place yet, `count` more ids. A range of the usual size is what advice is for, so a file
/// that already has one is left alone.
fn add_ids(id: u32, count: u32, host: &HostFacts, around: &Surroundings) -> Advice {
    let lacks = |ranges: &[IdRange]| {
        let total = ranges.iter().map(|range| range.count).fold(0, u32::saturating_add);
        total < id.max(USUAL_SUBIDS)
    };
    let grant = match (lacks(&host.subuids), lacks(&host.subgids)) {
        (true, false) => Grant::Uids,
        (false, true) => Grant::Gids,
        (true, true) | (false, false) => Grant::Both,
    };
    let first = around.first_free.filter(|first| first.checked_add(count).is_some());
    first.map_or(Advice::Fixed(hint::NO_ROOM_FOR_IDS), |first| Advice::AddSubordinateIds {
        grant,
        user: host.user.clone(),
        first,
        count,
        local_account: host.local_account,
    })
}
