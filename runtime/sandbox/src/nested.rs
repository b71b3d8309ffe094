//! The second user namespace, which bounds the number of processes: the kernel counts all of them, whatever their ids,
//! against the one id of the first namespace that made it (getrlimit(2), RLIMIT_NPROC; by namespace since Linux 5.14).
//! Init moves there when it needs its power over the mounts no more; the mapper, one namespace up, writes its maps.

use crate::at::{At, failed};
use crate::channel::Channel;
use crate::{idmap, sys};
use rlrun_spec::limits::{Pids, PidsScope};
use rlrun_spec::plan::Launch;
use rlrun_spec::protocol::{Message, Step};
use rlrun_spec::{Failure, IdMapping, IdMaps, Kind};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{Uid, set_thread_res_uid};
use std::os::fd::{AsRawFd, OwnedFd};

/// The limit, when this container is to live in a second namespace.
pub(crate) fn limit(launch: &Launch) -> Option<Pids> {
    launch.limits.pids.filter(|pids| pids.scope == PidsScope::Container)
}

/// The id that owns the second namespace, and how many processes beside the container's count against it.
fn owner(maps: &IdMaps) -> (u32, u64) {
    let last = maps.uids.iter().map(|line| line.container + (line.count - 1)).max().unwrap_or(0);
    // Nobody ever runs as the last id outside; where root is the only id, the mapper does.
    (last, u64::from(last == 0))
}

/// Init's side: moves into the second namespace, where it is nobody until [`finish`].
pub(crate) fn enter(launch: &Launch, pids: Pids, mapper: &mut Channel) -> Result<(), Failure> {
    let (owner, beside) = owner(&launch.facts.id_maps);
    let own = getrlimit(Resource::Nproc);
    let wanted = u64::from(pids.max) + beside;
    // Above the caller's own limit is no limit of ours: the caller's holds then, one namespace up.
    let bound = own.maximum.map_or(wanted, |maximum| wanted.min(maximum));
    let object = "the number of processes";
    // The soft limit at the moment of creation is what the namespace keeps (create_user_ns()).
    let limit = Rlimit { current: Some(bound), maximum: own.maximum };
    setrlimit(Resource::Nproc, limit).at("limit-pids", "limit", object)?;
    set_thread_res_uid(Uid::ROOT, Uid::from_raw(owner), Uid::ROOT).at("limit-pids", "become the owner of", object)?;
    sys::unshare(libc::CLONE_NEWUSER).at("limit-pids", "create a second user namespace for", object)?;
    // The payload's own soft limit is another matter (--ulimit nproc).
    setrlimit(Resource::Nproc, own).at("limit-pids", "restore", "the caller's own limit")?;
    mapper.reached(Step::InitNested, None)
}

/// Init's side: root again, once the maps are written.
pub(crate) fn finish(mapper: &mut Channel) -> Result<(), Failure> {
    mapper.expect(Step::MapperNestedMapped)?;
    set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT).at("limit-pids", "become", "user 0 of the container")
}

/// The mapper's side. A failure goes to init, which tells the supervisor like any of its own.
pub(crate) fn map(launch: &Launch, pidfd: &OwnedFd, init: &mut Channel) {
    // An init that ended has said why on a channel of its own.
    if init.expect(Step::InitNested).is_err() {
        return;
    }
    let told = match write(&launch.facts.id_maps, pidfd) {
        Ok(()) => init.reached(Step::MapperNestedMapped, None),
        Err(failure) => init.send(&Message::Failed(Box::new(failure)), None),
    };
    if told.is_err() {
        // Nobody is left to be told; init's end is seen next.
    }
}

fn write(maps: &IdMaps, pidfd: &OwnedFd) -> Result<(), Failure> {
    let pid = pid_in_proc(pidfd)?;
    // Every id as itself, line by line: a line must not span two lines of the first namespace's map.
    let same = |lines: &[IdMapping]| -> Vec<IdMapping> {
        lines.iter().map(|line| IdMapping { host: line.container, ..*line }).collect()
    };
    idmap::write(pid, &same(&maps.uids), &same(&maps.gids))
}

/// The process's number in the /proc that this process sees, which is the host's (proc_pid_fdinfo(5)).
fn pid_in_proc(pidfd: &OwnedFd) -> Result<Pid, Failure> {
    let path = format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd());
    let text = std::fs::read_to_string(&path).at("limit-pids", "read", &path)?;
    let pid = text.lines().find_map(|line| line.strip_prefix("Pid:")).and_then(|n| n.trim().parse().ok());
    pid.and_then(Pid::from_raw).ok_or_else(|| failed(Kind::Internal, "limit-pids", "find init in", path, "no Pid line"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rlrun_spec::MapWriter;

    #[test]
    fn the_owner_is_an_id_that_nobody_runs_as() {
        let line = |container, count| IdMapping { container, host: 100_000 + container, count };
        let maps = |uids| IdMaps { uids, gids: Vec::new(), writer: MapWriter::Single };
        assert_eq!(owner(&maps(vec![line(0, 1), line(1, 65536)])), (65536, 0));
        assert_eq!(owner(&maps(vec![line(0, 1)])), (0, 1));
        assert_eq!(owner(&maps(vec![line(1000, 1)])), (1000, 0));
    }
}
