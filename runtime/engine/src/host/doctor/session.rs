//! Checks: the login, its directories, its limits, and what belongs to rlrun itself.

use super::{Check, Directory, Linger, MandatoryDir, Survey};
use rlrun_spec::host::{Cgroup, CgroupAccess};
use rlrun_spec::{Enforced, hint};

pub(super) fn checks(survey: &Survey) -> Vec<Check> {
    let mut all = vec![home(survey), runtime_dir(survey), linger(survey), cgroup(survey)];
    all.extend(limits(survey));
    all.extend([programs(survey), mandatory(survey)]);
    all
}

/// By what each limit holds here. What holds only in part is no fault of the host that somebody could mend.
fn limits(survey: &Survey) -> Vec<Check> {
    const NAMES: [(&str, &str); 10] = [
        ("blkio-weight", "limit: io weight"),
        ("cpu-limit", "limit: cpus"),
        ("cpu-shares", "limit: cpu shares"),
        ("cpuset", "limit: cpuset"),
        ("device-read-bps", "limit: io reads"),
        ("device-write-bps", "limit: io writes"),
        ("disk-limit", "limit: disk"),
        ("memory-limit", "limit: memory"),
        ("memory-reservation", "limit: reserve"),
        ("pids-limit", "limit: pids"),
    ];
    let by = crate::config::limits::overview(&survey.host);
    let line = |(control, name): (&str, &'static str)| {
        let control = by.iter().find(|c| c.name == control)?;
        let finding = match control.enforced {
            Enforced::Yes => control.mechanism.clone(),
            Enforced::Partly => format!("{}; in part: {}", control.mechanism, control.why),
            Enforced::No => format!("not enforced: {}", control.why),
        };
        Some(Check::ok(name, finding))
    };
    NAMES.into_iter().filter_map(line).collect()
}

fn home(survey: &Survey) -> Check {
    let why = "images, settings and compiled policies are kept below it";
    let finding = match &survey.home {
        Directory::Writable(path) => return Check::ok("home", path.display().to_string()),
        Directory::Unset => "HOME is not set".to_owned(),
        Directory::Missing(path) => format!("{} is not there", path.display()),
        Directory::NotOurs(path) => format!("{} belongs to another user", path.display()),
        Directory::ReadOnly(path) => format!("{} cannot be written", path.display()),
    };
    Check::warn("home", finding, why).fix(hint::HOME)
}

fn runtime_dir(survey: &Survey) -> Check {
    let why = "logins to registries are read from there; rlrun itself does without";
    let finding = match &survey.runtime_dir {
        Directory::Writable(path) => return Check::ok("runtime directory", path.display().to_string()),
        Directory::Unset => return Check::ok("runtime directory", "XDG_RUNTIME_DIR is not set; rlrun does without"),
        Directory::Missing(path) => format!("{} (XDG_RUNTIME_DIR) is not there", path.display()),
        Directory::NotOurs(path) => format!("{} (XDG_RUNTIME_DIR) belongs to another user", path.display()),
        Directory::ReadOnly(path) => format!("{} (XDG_RUNTIME_DIR) cannot be written", path.display()),
    };
    Check::warn("runtime directory", finding, why).fix(hint::look_up("runtime-dir", None).unwrap_or_default())
}

fn linger(survey: &Survey) -> Check {
    match survey.linger {
        Linger::On => Check::ok("linger", "on: what you start survives your logout"),
        Linger::NoSystemd => Check::ok("linger", "no systemd: what you start survives your logout"),
        Linger::Off => Check::warn("linger", "off", "systemd ends what you started when you log out")
            .fix(format!("sudo loginctl enable-linger {}", survey.host.user)),
    }
}

fn cgroup(survey: &Survey) -> Check {
    match &survey.host.cgroup {
        Cgroup::V2 { delegated, access } if !delegated.is_empty() => {
            let from = match access {
                CgroupAccess::UserManager(_) => "from the systemd user manager".to_owned(),
                CgroupAccess::Directory(path) => format!("in {}", path.display()),
                CgroupAccess::None => "out of reach".to_owned(),
            };
            Check::ok("cgroup", format!("version 2, yours to use {from}: {}", delegated.join(" ")))
        }
        Cgroup::V2 { .. } => Check::warn("cgroup", "version 2, no controller is yours", NO_CGROUP).fix(hint::DELEGATE),
        Cgroup::V1 { writable } if !writable.is_empty() => {
            let names: Vec<&str> = writable.iter().map(|(name, _)| name.as_str()).collect();
            Check::ok("cgroup", format!("version 1, yours to write: {}", names.join(" ")))
        }
        Cgroup::V1 { .. } => Check::warn("cgroup", "version 1, of which nothing is yours", NO_CGROUP),
        Cgroup::None => Check::warn("cgroup", "not mounted", NO_CGROUP),
    }
}

const NO_CGROUP: &str = "limits are kept without the kernel's cgroups";

fn programs(survey: &Survey) -> Check {
    let missing = survey.lost_programs.join(" and ");
    let finding = format!("{missing} not found beside rlrun nor in ../libexec/rlrun");
    match survey.lost_programs.as_slice() {
        [] => Check::ok("programs", "rlrun-supervisor and rlrun-policyc are in place"),
        ["rlrun-policyc"] => {
            Check::warn("programs", finding, "a policy that is new cannot be compiled").fix(hint::REINSTALL)
        }
        _ => Check::fail("programs", finding, "rlrun-supervisor is what runs a container").fix(hint::REINSTALL),
    }
}

fn mandatory(survey: &Survey) -> Check {
    match &survey.mandatory {
        MandatoryDir::Absent => Check::ok("mandatory policies", "none on this host"),
        MandatoryDir::Trusted(path) => Check::ok("mandatory policies", format!("{}, root's alone", path.display())),
        MandatoryDir::Untrusted(path) => {
            let path = path.display();
            let why = "whoever may change it may change what binds everybody; rlrun does not trust it";
            Check::fail("mandatory policies", format!("{path} can be changed by others than root"), why)
                .fix(format!("sudo chown root:root {path} && sudo chmod go-w {path}"))
        }
    }
}
