//! The last steps before the payload: one table, in one order, none of which can be skipped, only configured.

use crate::at::At;
use crate::{scheduling, sys};
use rlrun_spec::limits::Memory;
use rlrun_spec::plan::{Launch, Rlimit as PlanRlimit};
use rlrun_spec::{Failure, Kind, MapWriter};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{
    CapabilitySet, CapabilitySets, Gid, Uid, clear_ambient_capability_set, configure_capability_in_ambient_set,
    remove_capability_from_bounding_set, set_capabilities, set_keep_capabilities, set_no_new_privs, set_thread_groups,
    set_thread_res_gid, set_thread_res_uid,
};

/// A step, by the name that a failure carries.
struct Step {
    name: &'static str,
    apply: fn(&Launch) -> Result<(), Failure>,
}

/// The order is the security argument:
/// keyring and limits while still root of the namespace; the bounding set before the ids, because dropping from it
/// needs CAP_SETPCAP; the filter early only when no_new_privs is off, because installing one then needs CAP_SYS_ADMIN,
/// which goes with the ids; otherwise last, so that it may forbid every call that confinement itself makes;
/// descriptors directly before, so that nothing opened on the way is inherited.
const STEPS: &[Step] = &[
    Step { name: "keyring", apply: keyring },
    Step { name: "oom-score", apply: oom_score },
    Step { name: "scheduling", apply: scheduling::apply },
    Step { name: "personality", apply: personality },
    Step { name: "rlimits", apply: rlimits },
    Step { name: "bounding-set", apply: bounding_set },
    Step { name: "seccomp-before-ids", apply: seccomp_without_nnp },
    Step { name: "ids", apply: ids },
    Step { name: "capabilities", apply: capabilities },
    Step { name: "working-directory", apply: working_directory },
    Step { name: "descriptors", apply: descriptors },
    Step { name: "no-new-privs", apply: no_new_privs },
    Step { name: "seccomp", apply: seccomp_with_nnp },
];

/// All steps but two, for a process that is yet to fork another into the container: the filter, which might forbid
/// that, is for the other to install ([`filter`]); the score, for which /proc is needed, was set before ([`oom_score`]).
pub(crate) fn apply_before_fork(launch: &Launch) -> Result<(), Failure> {
    run(launch, |step| step.name != LAST && step.name != "oom-score")
}

/// The last step, of a process that [`apply_before_fork`] has prepared.
pub(crate) fn filter(launch: &Launch) -> Result<(), Failure> {
    run(launch, |step| step.name == LAST)
}

const LAST: &str = "seccomp";

/// Applies all steps.
pub(crate) fn apply(launch: &Launch) -> Result<(), Failure> {
    run(launch, |_| true)
}

fn run(launch: &Launch, due: fn(&Step) -> bool) -> Result<(), Failure> {
    STEPS.iter().filter(|step| due(step)).try_for_each(|step| {
        (step.apply)(launch).map_err(|failure| Failure { step: format!("confine-{}", step.name), ..failure })
    })
}

/// The caller's keys stay outside (`keyrings(7)`).
fn keyring(_: &Launch) -> Result<(), Failure> {
    match sys::join_new_session_keyring() {
        // A kernel without keyrings has none to leak. EDQUOT: the caller's quota of keyrings is used up; the filter
        // refuses every keyring call later, so none of the inherited one can be used either.
        Ok(()) | Err(Errno::NOSYS | Errno::DQUOT) => Ok(()),
        Err(errno) => Err(errno).at("", "leave", "the caller's session keyring"),
    }
}

pub(crate) fn oom_score(launch: &Launch) -> Result<(), Failure> {
    let Some(score) = launch.process.oom_score_adj else { return Ok(()) };
    let path = "/proc/self/oom_score_adj";
    let file =
        rustix::fs::open(path, rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::CLOEXEC, rustix::fs::Mode::empty())
            .at("", "open", path)?;
    rustix::io::write(&file, score.to_string().as_bytes()).map(drop).at("", "write", path)
}

fn personality(launch: &Launch) -> Result<(), Failure> {
    let Some(domain) = launch.process.personality else { return Ok(()) };
    sys::set_personality(domain).at("", "change", "the personality")
}

fn rlimits(launch: &Launch) -> Result<(), Failure> {
    launch.process.rlimits.iter().try_for_each(|limit| {
        let object = format!("resource limit {} to {}:{}", limit.resource, limit.soft, limit.hard);
        let resource = resource(*limit).at("", "set", &object)?;
        let bound = |value| if value == u64::MAX { None } else { Some(value) };
        let value = Rlimit { current: bound(limit.soft), maximum: bound(limit.hard) };
        setrlimit(resource, value).at("", "set", object)
    })?;
    memory_wall(launch)
}

/// What one process alone can never get beyond, whoever watches or does not. Only lower: the user may have asked for
/// less, and more needs privilege.
fn memory_wall(launch: &Launch) -> Result<(), Failure> {
    let Some(wall) = launch.limits.memory.and_then(Memory::wall) else { return Ok(()) };
    let own = getrlimit(Resource::Data);
    let lower = |bound: Option<u64>| Some(bound.map_or(wall, |bound| bound.min(wall)));
    let value = Rlimit { current: lower(own.current), maximum: lower(own.maximum) };
    setrlimit(Resource::Data, value).at("", "set", format!("the size of a process's data to {wall}"))
}

fn resource(limit: PlanRlimit) -> Result<Resource, Errno> {
    const ALL: [Resource; 16] = [
        Resource::Cpu,
        Resource::Fsize,
        Resource::Data,
        Resource::Stack,
        Resource::Core,
        Resource::Rss,
        Resource::Nproc,
        Resource::Nofile,
        Resource::Memlock,
        Resource::As,
        Resource::Locks,
        Resource::Sigpending,
        Resource::Msgqueue,
        Resource::Nice,
        Resource::Rtprio,
        Resource::Rttime,
    ];
    usize::try_from(limit.resource).ok().and_then(|n| ALL.get(n).copied()).ok_or(Errno::INVAL)
}

fn bounding_set(launch: &Launch) -> Result<(), Failure> {
    let keep = launch.process.capabilities.bounding;
    for number in 0..64 {
        if keep & (1 << number) != 0 {
            continue;
        }
        match remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << number)) {
            Ok(()) => {}
            // Past the last capability that this kernel knows.
            Err(Errno::INVAL) => break,
            Err(errno) => return Err(errno).at("", "drop from the bounding set", format!("capability {number}")),
        }
    }
    Ok(())
}

fn ids(launch: &Launch) -> Result<(), Failure> {
    let process = &launch.process;
    set_keep_capabilities(true).at("", "keep capabilities over", "the change of ids")?;
    if !process.keep_groups && !matches!(launch.facts.id_maps.writer, MapWriter::Single) {
        let groups: Vec<Gid> = process.groups.iter().map(|&g| Gid::from_raw(g)).collect();
        set_thread_groups(&groups).at("", "set", format!("supplementary groups {:?}", process.groups))?;
    }
    let (uid, gid) = (Uid::from_raw(process.uid), Gid::from_raw(process.gid));
    set_thread_res_gid(gid, gid, gid).at("", "become", format!("group {} of the container", process.gid))?;
    set_thread_res_uid(uid, uid, uid).at("", "become", format!("user {} of the container", process.uid))?;
    set_keep_capabilities(false).at("", "stop keeping", "capabilities")
}

fn capabilities(launch: &Launch) -> Result<(), Failure> {
    let sets = launch.process.capabilities;
    let set = CapabilitySet::from_bits_retain;
    clear_ambient_capability_set().at("", "clear", "the ambient set")?;
    let wanted = CapabilitySets {
        effective: set(sets.effective),
        permitted: set(sets.permitted),
        inheritable: set(sets.inheritable),
    };
    set_capabilities(None, wanted).at("", "set", "the capability sets")?;
    for number in (0..64).filter(|n| sets.ambient & (1 << n) != 0) {
        configure_capability_in_ambient_set(set(1 << number), true).at(
            "",
            "raise in the ambient set",
            format!("capability {number}"),
        )?;
    }
    Ok(())
}

/// As the payload's user, so that a directory it may not enter is refused here and not by a shell inside.
fn working_directory(launch: &Launch) -> Result<(), Failure> {
    let cwd = &launch.process.cwd;
    let cannot = |failure: Failure| Failure { kind: Kind::CannotInvoke, ..failure };
    rustix::process::chdir(cwd).at("", "enter the working directory", cwd).map_err(cannot)?;
    // A path that led outside by a descriptor of ours would show here (CVE-2024-21626).
    let real = rustix::process::getcwd(Vec::new()).at("", "resolve the working directory", cwd)?;
    if real.as_bytes().starts_with(b"/") {
        Ok(())
    } else {
        Err(Errno::NOENT).at("", "enter the working directory", cwd).map_err(cannot)
    }
}

fn descriptors(launch: &Launch) -> Result<(), Failure> {
    sys::mark_cloexec_from(launch.process.preserved.saturating_add(3)).at(
        "",
        "mark close-on-exec",
        "inherited descriptors",
    )
}

fn no_new_privs(launch: &Launch) -> Result<(), Failure> {
    if launch.process.no_new_privs { set_no_new_privs(true).at("", "set", "no_new_privs") } else { Ok(()) }
}

fn seccomp_without_nnp(launch: &Launch) -> Result<(), Failure> {
    if launch.process.no_new_privs { Ok(()) } else { seccomp(launch) }
}

fn seccomp_with_nnp(launch: &Launch) -> Result<(), Failure> {
    if launch.process.no_new_privs { seccomp(launch) } else { Ok(()) }
}

/// An unconfined payload has no filters, and the plan says so explicitly (`plan_from_oci` checks that they agree).
fn seccomp(launch: &Launch) -> Result<(), Failure> {
    launch
        .facts
        .seccomp_filters
        .iter()
        .try_for_each(|filter| sys::install_seccomp(filter).at("", "install", "a seccomp filter"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(name: &str) -> usize {
        STEPS.iter().position(|s| s.name == name).unwrap()
    }

    #[test]
    fn the_order_of_confinement_is_fixed() {
        assert!(place("bounding-set") < place("ids"), "dropping needs CAP_SETPCAP");
        assert!(place("seccomp-before-ids") < place("ids"), "without no_new_privs it needs CAP_SYS_ADMIN");
        assert!(place("ids") < place("capabilities"));
        assert!(place("capabilities") < place("no-new-privs"));
        assert!(place("ids") < place("working-directory"), "as the payload's user");
        assert!(place("no-new-privs") < place("seccomp"));
        assert_eq!(place(LAST), STEPS.len() - 1, "nothing runs after the filter");
    }

    #[test]
    fn every_resource_of_the_plan_has_its_kernel_number() {
        for n in 0..16 {
            assert!(resource(PlanRlimit { resource: n, soft: 0, hard: 0 }).is_ok());
        }
        assert!(resource(PlanRlimit { resource: 16, soft: 0, hard: 0 }).is_err());
    }
}
