//! Checks: may this user have user namespaces, and with which ids?

use super::{Check, Grants, Survey};
use crate::host::cause::{Cause, IdKind};
use crate::host::subid::Fault;
use rlrun_spec::IdRange;
use rlrun_spec::hint::{Advice, USUAL_SUBIDS};
use rlrun_spec::host::Helper;

const ONE_USER: &str = "a container then has one user, root: images with files of other users lose their owners";

pub(super) fn checks(survey: &Survey) -> Vec<Check> {
    let host = &survey.host;
    vec![
        kernel(survey),
        user_namespaces(survey),
        ranges("subuid", IdKind::User, &host.subuids, &survey.subuid, survey),
        ranges("subgid", IdKind::Group, &host.subgids, &survey.subgid, survey),
        helper("newuidmap", IdKind::User, &host.newuidmap, survey),
        helper("newgidmap", IdKind::Group, &host.newgidmap, survey),
    ]
}

/// 4.18 is what RHEL 8 has; older kernels lack calls that the sandbox is built on.
fn kernel(survey: &Survey) -> Check {
    let found = format!("Linux {}", survey.release);
    if survey.host.kernel < (4, 18) {
        return Check::fail("kernel", found, "rlrun needs 4.18").fix("boot a newer kernel");
    }
    if survey.host.kernel < (5, 11) {
        return Check::warn("kernel", found, "from 5.11 on overlays work without fuse-overlayfs")
            .fix("boot a newer kernel");
    }
    Check::ok("kernel", found)
}

fn user_namespaces(survey: &Survey) -> Check {
    let Some(block) = survey.host.userns_blocked else { return Check::ok("user namespaces", "allowed") };
    let cause = Cause::UsernsBlocked(block);
    let fix = cause.advice(&survey.host, &survey.around);
    Check::fail("user namespaces", cause.to_string(), "every container of an ordinary user is in one").fix(fix)
}

fn ranges(name: &'static str, kind: IdKind, ranges: &[IdRange], grants: &Grants, survey: &Survey) -> Check {
    let file = kind.file();
    if let Some(why) = &grants.unreadable {
        return Check::warn(name, format!("{file} cannot be read: {why}"), ONE_USER)
            .fix(format!("sudo chmod 0644 {file}"));
    }
    let advice = |cause: &Cause| cause.advice(&survey.host, &survey.around);
    if ranges.is_empty() {
        let no_range = || Cause::NoRange { kind, user: survey.host.user.clone() };
        let cause = Cause::nobody(&survey.host).unwrap_or_else(no_range);
        let fix = advice(&cause);
        return Check::warn(name, cause.to_string() + &faulty(grants), ONE_USER).fix(fix);
    }
    let total = ranges.iter().map(|range| range.count).fold(0, u32::saturating_add);
    let finding = format!("{total} ids for {}: {}{}", survey.host.user, list(ranges), faulty(grants));
    if let Some(other) = grants.shared_with.first() {
        let why = "processes of the other user's containers can reach yours";
        let finding = format!("{finding}; {other} has some of them too");
        return Check::warn(name, finding, why).fix(format!("give each user a range of its own in {file}"));
    }
    if total < USUAL_SUBIDS {
        let cause = Cause::NotMapped { kind, id: total + 1, mapped: total + 1, reason: None };
        return Check::warn(name, finding, "images use ids up to 65534 (nobody)").fix(advice(&cause));
    }
    if !grants.faults.is_empty() {
        return Check::warn(name, finding, "a faulty line grants nothing to anybody")
            .fix(format!("mend the lines in {file}"));
    }
    Check::ok(name, finding)
}

fn list(ranges: &[IdRange]) -> String {
    let last = |range: &IdRange| range.start.saturating_add(range.count - 1);
    ranges.iter().map(|range| format!("{}-{}", range.start, last(range))).collect::<Vec<_>>().join(", ")
}

fn faulty(grants: &Grants) -> String {
    let Some((line, fault)) = grants.faults.first() else { return String::new() };
    let why = match fault {
        Fault::Malformed => "is not owner:start:count",
        Fault::NotANumber => "has a number that is not plain decimal",
        Fault::Empty => "has a count of 0",
        Fault::BeyondLastId => "ends beyond the last id",
        Fault::GrantsRoot => "begins at 0, the host's root",
    };
    match grants.faults.len() {
        1 => format!("; line {line} {why}"),
        n => format!("; line {line} {why}, and {} more", n - 1),
    }
}

fn helper(name: &'static str, kind: IdKind, helper: &Helper, survey: &Survey) -> Check {
    let cause = match helper {
        Helper::Usable(path) => return Check::ok(name, path.display().to_string()),
        Helper::Unprivileged { path, why } => Cause::HelperPowerless { path: path.clone(), why: *why },
        Helper::Missing => Cause::HelperMissing { kind },
    };
    let fix: Advice = cause.advice(&survey.host, &survey.around);
    Check::warn(name, cause.to_string(), ONE_USER).fix(fix)
}
