//! Which container id is which host id. Planned from the host facts before anything starts; the maps never name an
//! id twice and never leave the grant, so newuidmap(1) has nothing to refuse.

mod own;

use super::cause::{Cause, IdKind};
use rlrun_spec::container::UserNamespace;
use rlrun_spec::host::{Helper, HostFacts};
use rlrun_spec::{IdMapping, IdMaps, IdRange, MapWriter};

pub use own::mapped;

/// The kernel's limit on lines, 5 before Linux 4.15 (user_namespaces(7)).
const MAX_LINES: usize = 340;
const MAX_LINES_BEFORE_4_15: usize = 5;

/// The kernel takes less than a page in the one write that it allows; 4096 is the smallest page there is.
const MAX_BYTES: usize = 4095;

/// The maps of a container and what they lack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdPlan {
    /// What the sandbox writes.
    pub maps: IdMaps,
    /// Why only one id is mapped; None when the subordinate ids are in use.
    pub single: Option<Cause>,
}

/// Plans both maps. Without a range or a helper it falls back to the caller's id alone and says why.
///
/// # Errors
/// When this host allows no user namespace at all; without a range or a helper also for maps in which root is not the
/// caller: nobody would be there to make the container.
pub fn plan(host: &HostFacts, mode: &UserNamespace) -> Result<IdPlan, Cause> {
    if let Some(block) = host.userns_blocked {
        return Err(Cause::UsernsBlocked(block));
    }
    let (uid, gid) = match mode {
        UserNamespace::Default => (0, 0),
        UserNamespace::KeepId { uid, gid } => (*uid, *gid),
        UserNamespace::Mapped { uids, gids } => {
            // Nobody's help is needed for the own ids alone, and newgidmap would deny setgroups(2) for them.
            let alone = |lines: &[IdMapping], id| matches!(lines, [one] if one.count == 1 && one.host == id);
            let writer = match alone(uids, host.uid) && alone(gids, host.gid) {
                true => MapWriter::Single,
                false => writer(host)?,
            };
            let maps = IdMaps { uids: uids.clone(), gids: gids.clone(), writer };
            return Ok(IdPlan { maps, single: None });
        }
    };
    match writer(host) {
        Ok(writer) => {
            let uids = fitting(lay_out(host.uid, uid, &host.subuids), uid, host.kernel);
            let gids = fitting(lay_out(host.gid, gid, &host.subgids), gid, host.kernel);
            Ok(IdPlan { maps: IdMaps { uids, gids, writer }, single: None })
        }
        Err(cause) if (uid, gid) != (0, 0) => Err(cause),
        Err(cause) => {
            let uids = lay_out(host.uid, uid, &[]);
            let gids = lay_out(host.gid, gid, &[]);
            Ok(IdPlan { maps: IdMaps { uids, gids, writer: MapWriter::Single }, single: Some(cause) })
        }
    }
}

/// Both helpers, or the first thing that stands in their way.
fn writer(host: &HostFacts) -> Result<MapWriter, Cause> {
    if let Some(cause) = Cause::nobody(host) {
        return Err(cause);
    }
    for (kind, ranges) in [(IdKind::User, &host.subuids), (IdKind::Group, &host.subgids)] {
        if ranges.is_empty() {
            return Err(Cause::NoRange { kind, user: host.user.clone() });
        }
    }
    Ok(MapWriter::Helpers {
        newuidmap: helper(IdKind::User, &host.newuidmap)?,
        newgidmap: helper(IdKind::Group, &host.newgidmap)?,
    })
}

fn helper(kind: IdKind, found: &Helper) -> Result<std::path::PathBuf, Cause> {
    match found {
        Helper::Usable(path) => Ok(path.clone()),
        Helper::Unprivileged { path, why } => Err(Cause::HelperPowerless { path: path.clone(), why: *why }),
        Helper::Missing => Err(Cause::HelperMissing { kind }),
    }
}

/// The caller's id at `inside`, the ranges in order around it: podman's layout of `keep-id`, and with `inside` 0
/// that of the default.
fn lay_out(own: u32, inside: u32, ranges: &[IdRange]) -> Vec<IdMapping> {
    let own_line = IdMapping { container: inside, host: own, count: 1 };
    let mut lines = Vec::with_capacity(ranges.len() + 2);
    let mut next = 0;
    for range in ranges {
        // The part below the caller's place, then the caller, then the part above.
        let below = inside.saturating_sub(next).min(range.count);
        if below > 0 {
            lines.push(IdMapping { container: next, host: range.start, count: below });
            next += below;
        }
        let above = range.count - below;
        if above > 0 {
            if next == inside {
                lines.push(own_line);
                next += 1;
            }
            lines.push(IdMapping { container: next, host: range.start + below, count: above });
            next += above;
        }
    }
    if next <= inside {
        lines.push(own_line);
    }
    lines
}

/// As many lines as the kernel takes in one write. The caller's own line is never the one left out: the
/// container's files belong to it.
fn fitting(mut lines: Vec<IdMapping>, own: u32, kernel: (u32, u32)) -> Vec<IdMapping> {
    let max_lines = if kernel < (4, 15) { MAX_LINES_BEFORE_4_15 } else { MAX_LINES };
    let mut bytes: usize = lines.iter().map(line_length).sum();
    while lines.len() > max_lines || bytes > MAX_BYTES {
        let Some(spare) = lines.iter().rposition(|line| line.container != own) else { break };
        bytes -= line_length(&lines.remove(spare));
    }
    lines
}

fn line_length(line: &IdMapping) -> usize {
    let digits = |n: u32| n.checked_ilog10().unwrap_or(0) as usize + 1;
    digits(line.container) + digits(line.host) + digits(line.count) + 3
}

impl IdPlan {
    /// The host uid of a container uid.
    ///
    /// # Errors
    /// When it is not mapped: the cause is the missing range or helper, else that the range is too small.
    pub fn host_uid(&self, id: u32) -> Result<u32, Cause> {
        self.maps.host_uid(id).ok_or_else(|| self.unmapped(IdKind::User, id, &self.maps.uids))
    }

    /// The host gid of a container gid.
    ///
    /// # Errors
    /// As [`IdPlan::host_uid`].
    pub fn host_gid(&self, id: u32) -> Result<u32, Cause> {
        self.maps.host_gid(id).ok_or_else(|| self.unmapped(IdKind::Group, id, &self.maps.gids))
    }

    fn unmapped(&self, kind: IdKind, id: u32, lines: &[IdMapping]) -> Cause {
        let mapped = lines.iter().map(|line| line.count).fold(0, u32::saturating_add);
        let reason = self.single.clone().map(Box::new);
        Cause::NotMapped { kind, id, mapped, reason }
    }
}

#[cfg(test)]
mod tests;
