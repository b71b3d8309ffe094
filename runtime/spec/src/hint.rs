//! The one table of advice, keyed by the step that failed, its errno and the host: `doctor` and errors read the
//! same lines, so they cannot disagree. No I/O: the supervisor links it.

use crate::failure::Failure;
use crate::host::{HostFacts, Powerless, UsernsBlock};
use std::fmt;
use std::path::PathBuf;

mod packages;
mod table;

pub use packages::{Distro, Package};
pub use table::{
    DELEGATE, DEV_FUSE, DEV_NET_TUN, HOME, LOW_PORTS, NO_FUSE, NO_ROOM_FOR_IDS, NO_SUCH_HOST, NO_TUN, OWN_PROGRAM,
    PING_GROUP_RANGE, REINSTALL, ROWS,
};

/// How many subordinate ids a user should have: useradd(8) grants as many.
pub const USUAL_SUBIDS: u32 = 65536;

/// The step of a failure that is about who may have which ids.
pub const STEP_ID_MAP: &str = "id-map";

/// Which of the two files lack ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grant {
    /// /etc/subuid.
    Uids,
    /// /etc/subgid.
    Gids,
    /// Both.
    Both,
}

/// One piece of advice: a command to run or a file to change. Displayed, it reads the same wherever it is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Advice {
    /// Words that need nothing filled in; a row of the table.
    Fixed(&'static str),
    /// Grant `first .. first + count`.
    AddSubordinateIds {
        /// Where.
        grant: Grant,
        /// Login name.
        user: String,
        /// First id that nobody has yet.
        first: u32,
        /// How many.
        count: u32,
        /// usermod(8) knows the account.
        local_account: bool,
    },
    /// Give the caller's uid a name; useradd(8) grants subordinate ids with it.
    CreateAccount(u32),
    /// Install a package.
    Install(Package, Distro),
    /// Give a helper its set-user-ID bit back.
    MakeSetuid(PathBuf),
    /// Let this user start `rlrun` although AppArmor restricts user namespaces.
    AppArmorProfile,
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Advice::Fixed(words) => f.write_str(words),
            Advice::AddSubordinateIds { grant, user, first, count, local_account } => {
                f.write_str(&add_ids(*grant, user, *first, *count, *local_account))
            }
            Advice::CreateAccount(uid) => write!(f, "sudo useradd --uid {uid} user{uid}"),
            Advice::Install(package, distro) => f.write_str(&package.install(*distro)),
            Advice::MakeSetuid(path) => {
                let path = path.display();
                write!(f, "sudo chown root:root {path} && sudo chmod u+s {path}")
            }
            Advice::AppArmorProfile => f.write_str(table::APPARMOR),
        }
    }
}

fn add_ids(grant: Grant, user: &str, first: u32, count: u32, local_account: bool) -> String {
    let last = first.saturating_add(count.saturating_sub(1));
    match (local_account, grant) {
        (true, Grant::Uids) => format!("sudo usermod --add-subuids {first}-{last} {user}"),
        (true, Grant::Gids) => format!("sudo usermod --add-subgids {first}-{last} {user}"),
        (true, Grant::Both) => {
            format!("sudo usermod --add-subuids {first}-{last} --add-subgids {first}-{last} {user}")
        }
        // usermod(8) changes accounts of /etc/passwd only; the two files themselves take any name.
        (false, Grant::Uids) => format!("echo {user}:{first}:{count} | sudo tee -a /etc/subuid"),
        (false, Grant::Gids) => format!("echo {user}:{first}:{count} | sudo tee -a /etc/subgid"),
        (false, Grant::Both) => format!("echo {user}:{first}:{count} | sudo tee -a /etc/subuid /etc/subgid"),
    }
}

/// The advice for a failure: its own hint first, then the table. For callers that know nothing of the host.
#[must_use]
pub fn for_failure(failure: &Failure) -> Option<String> {
    failure.hint.clone().or_else(|| look_up(&failure.step, failure.errno.map(|e| e.0)).map(str::to_owned))
}

/// The advice for a failure on a known host: where the host explains the errno, that explanation wins.
#[must_use]
pub fn for_failure_on(failure: &Failure, host: &HostFacts) -> Option<String> {
    let by_host = match failure.step.as_str() {
        "clone-userns" => host.userns_blocked.map(|block| for_userns_block(block).to_string()),
        _ => None,
    };
    failure.hint.clone().or(by_host).or_else(|| for_failure(failure))
}

/// The words of the table for a step and an errno; a row for any errno comes last.
#[must_use]
pub fn look_up(step: &str, errno: Option<i32>) -> Option<&'static str> {
    let of_step = || ROWS.iter().filter(|row| row.step == step);
    let exact = errno.and_then(|n| of_step().find(|row| row.errnos.contains(&n)));
    exact.or_else(|| of_step().find(|row| row.errnos.is_empty())).map(|row| row.advice)
}

/// What lifts a ban on user namespaces.
#[must_use]
pub fn for_userns_block(block: UsernsBlock) -> Advice {
    match block {
        UsernsBlock::NotInKernel => Advice::Fixed(table::USERNS_NOT_IN_KERNEL),
        UsernsBlock::MaxUserNamespaces => Advice::Fixed(table::MAX_USER_NAMESPACES),
        UsernsBlock::UnprivilegedClone => Advice::Fixed(table::UNPRIVILEGED_CLONE),
        UsernsBlock::AppArmor => Advice::AppArmorProfile,
    }
}

/// What gives a helper its privilege back.
#[must_use]
pub fn for_powerless(path: PathBuf, why: Powerless) -> Advice {
    match why {
        Powerless::NotSetuid => Advice::MakeSetuid(path),
        Powerless::NosuidMount => Advice::Fixed(table::NOSUID_MOUNT),
        Powerless::NoNewPrivs => Advice::Fixed(table::NO_NEW_PRIVS),
    }
}

#[cfg(test)]
mod tests;
