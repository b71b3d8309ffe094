//! The processes of a running container, read from the host's /proc: nothing in the container has to help, and nothing
//! in it can lie about more than its own name and words.

use crate::config::user::{Files, group_name, user_name};
use crate::containers::Container;
use crate::record::Details;
use crate::running::Running;
use oci_spec::runtime::LinuxIdMapping;
use rlrun_spec::{Failure, Kind, Stage};
use rustix::param::clock_ticks_per_second;
use std::collections::HashMap;
use std::fs;

/// One process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// Inside.
    pub pid: i32,
    /// Inside; 0 for a parent outside, which a command of `exec` has.
    pub ppid: i32,
    /// Inside.
    pub pgid: i32,
    /// On the host.
    pub hpid: i32,
    /// Its name.
    pub comm: String,
    /// Its words.
    pub args: Vec<String>,
    /// One letter (proc_pid_stat(5)).
    pub state: char,
    /// Terminal, as `/dev` names it: `pts/0`.
    pub tty: Option<String>,
    /// nice(2).
    pub nice: i32,
    /// Processor time, milliseconds.
    pub cpu_ms: u64,
    /// Since its start, milliseconds.
    pub elapsed_ms: u64,
    /// Started, milliseconds since the epoch.
    pub started_ms: u64,
    /// Kilobytes.
    pub vsz: u64,
    /// Kilobytes.
    pub rss: u64,
    /// Effective user.
    pub user: Id,
    /// Effective group.
    pub group: Id,
    /// Real user.
    pub real_user: Id,
    /// Real group.
    pub real_group: Id,
    /// Supplementary groups.
    pub groups: Vec<Id>,
    /// Bounding, effective, inheritable, permitted, ambient.
    pub capabilities: [u64; 5],
    /// `disabled`, `strict` or `filter`.
    pub seccomp: &'static str,
    /// Path of its cgroup, as the host sees it.
    pub cgroup: String,
    /// Label of a security module.
    pub label: String,
}

/// A user or group on both sides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Id {
    /// On the host.
    pub host: u32,
    /// The name inside, or the number.
    pub name: String,
}

/// What turns ids of the host into names inside.
struct Names {
    uids: Vec<LinuxIdMapping>,
    gids: Vec<LinuxIdMapping>,
    passwd: String,
    group: String,
}

impl Names {
    fn read(container: &Container, running: &Running) -> Result<Names, Failure> {
        let details = Details::read(&container.directory).map_err(|e| failure(container, &e.to_string()))?;
        let linux = details.spec.oci.linux().clone().unwrap_or_default();
        // Without the files there are numbers.
        let text = |path| running.text(path).unwrap_or_default();
        Ok(Names {
            uids: linux.uid_mappings().clone().unwrap_or_default(),
            gids: linux.gid_mappings().clone().unwrap_or_default(),
            passwd: text("etc/passwd"),
            group: text("etc/group"),
        })
    }

    fn files(&self) -> Files<'_> {
        Files { passwd: &self.passwd, group: &self.group }
    }

    fn user(&self, host: u32) -> Id {
        let inside = inside(&self.uids, host);
        Id { host, name: user_name(inside, self.files()).unwrap_or_else(|| inside.to_string()) }
    }

    fn group(&self, host: u32) -> Id {
        let inside = inside(&self.gids, host);
        Id { host, name: group_name(inside, self.files()).unwrap_or_else(|| inside.to_string()) }
    }
}

/// An id that the map lacks is the overflow id (user_namespaces(7)).
fn inside(lines: &[LinuxIdMapping], host: u32) -> u32 {
    let one = |line: &LinuxIdMapping| {
        let offset = host.checked_sub(line.host_id()).filter(|offset| *offset < line.size())?;
        line.container_id().checked_add(offset)
    };
    lines.iter().find_map(one).unwrap_or(65_534)
}

fn failure(container: &Container, why: &str) -> Failure {
    Failure::new(Stage::Cli, Kind::Runtime, "top", "look at the processes of", container.summary.name.clone()).why(why)
}

/// The processes, by their numbers inside.
///
/// # Errors
/// When the container does not run, or its record cannot be read.
pub fn processes(container: &Container) -> Result<Vec<Process>, Failure> {
    let running = Running::of(container)?;
    let names = Names::read(container, &running)?;
    let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let Some(own) = namespace(&running.pid.to_string()) else { return Err(failure(container, "it has just ended")) };
    let entries = fs::read_dir("/proc").map_err(|e| failure(container, &e.to_string()))?;
    let clock = Clock::read();
    let mut found = Vec::new();
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.bytes().all(|b| b.is_ascii_digit()) || namespace(&name).as_ref() != Some(&own) {
            continue;
        }
        // One that ended meanwhile is none.
        found.extend(process(&name, &names, &clock));
    }
    let insides: HashMap<i32, i32> = found.iter().map(|p| (p.hpid, p.pid)).collect();
    for process in &mut found {
        process.ppid = insides.get(&process.ppid).copied().unwrap_or(0);
    }
    found.sort_by_key(|process| process.pid);
    Ok(found)
}

/// What ticks mean.
struct Clock {
    per_second: u64,
    up_ms: u64,
    now_ms: u64,
}

impl Clock {
    fn read() -> Clock {
        let up = fs::read_to_string("/proc/uptime").unwrap_or_default();
        let up = up.split_whitespace().next().unwrap_or_default();
        let (seconds, hundredths) = up.split_once('.').unwrap_or((up, "0"));
        let number = |text: &str| text.parse::<u64>().unwrap_or(0);
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_millis();
        Clock {
            per_second: clock_ticks_per_second().max(1),
            up_ms: number(seconds) * 1000 + number(hundredths) * 10,
            now_ms: u64::try_from(now).unwrap_or(u64::MAX),
        }
    }

    fn ms(&self, ticks: u64) -> u64 {
        ticks.saturating_mul(1000) / self.per_second
    }
}

fn process(pid: &str, names: &Names, clock: &Clock) -> Option<Process> {
    let read = |file: &str| fs::read(format!("/proc/{pid}/{file}")).ok();
    let status = String::from_utf8_lossy(&read("status")?).into_owned();
    let stat = String::from_utf8_lossy(&read("stat")?).into_owned();
    let line = |name: &str| status.lines().find_map(|l| l.strip_prefix(name)).map(str::trim).unwrap_or_default();
    let last = |name: &str| line(name).split_whitespace().last().and_then(|n| n.parse().ok()).unwrap_or(0);
    let id = |name: &str, at: usize| line(name).split_whitespace().nth(at).and_then(|n| n.parse().ok()).unwrap_or(0);
    let kilobytes = |name: &str| line(name).split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0);
    let set = |name: &str| u64::from_str_radix(line(name), 16).unwrap_or(0);
    // After the name in parentheses, which may hold anything; the first is field 3 (proc_pid_stat(5)).
    let fields: Vec<&str> = stat.get(stat.rfind(')')? + 2..)?.split(' ').collect();
    let number = |field: usize| fields.get(field - 3).and_then(|n| n.parse::<i64>().ok()).unwrap_or(0);
    let ticks = |field: usize| u64::try_from(number(field)).unwrap_or(0);
    let started = clock.ms(ticks(22));
    let words = read("cmdline").unwrap_or_default();
    let words = String::from_utf8_lossy(&words).into_owned();
    let label = read("attr/current").map(|l| String::from_utf8_lossy(&l).trim_end_matches(['\n', '\0']).to_owned());
    let cgroup = read("cgroup").map(|c| String::from_utf8_lossy(&c).into_owned()).unwrap_or_default();
    let elapsed = clock.up_ms.saturating_sub(started);
    Some(Process {
        pid: last("NSpid:"),
        ppid: id("PPid:", 0).try_into().ok()?,
        pgid: last("NSpgid:"),
        hpid: pid.parse().ok()?,
        comm: line("Name:").to_owned(),
        args: words.trim_end_matches('\0').split('\0').filter(|_| !words.is_empty()).map(str::to_owned).collect(),
        state: line("State:").chars().next().unwrap_or('?'),
        tty: terminal(number(7)),
        nice: i32::try_from(number(19)).unwrap_or(0),
        cpu_ms: clock.ms(ticks(14) + ticks(15)),
        elapsed_ms: elapsed,
        started_ms: clock.now_ms.saturating_sub(elapsed),
        vsz: kilobytes("VmSize:"),
        rss: kilobytes("VmRSS:"),
        user: names.user(id("Uid:", 1)),
        group: names.group(id("Gid:", 1)),
        real_user: names.user(id("Uid:", 0)),
        real_group: names.group(id("Gid:", 0)),
        groups: line("Groups:").split_whitespace().filter_map(|n| n.parse().ok()).map(|gid| names.group(gid)).collect(),
        capabilities: ["CapBnd:", "CapEff:", "CapInh:", "CapPrm:", "CapAmb:"].map(set),
        seccomp: match line("Seccomp:") {
            "1" => "strict",
            "2" => "filter",
            _ => "disabled",
        },
        cgroup: cgroup.lines().rev().find_map(|l| l.splitn(3, ':').nth(2)).unwrap_or_default().to_owned(),
        label: label.unwrap_or_default(),
    })
}

/// Major numbers of pseudo-terminals begin at 136 (devices.txt of the kernel).
fn terminal(device: i64) -> Option<String> {
    let device = u64::try_from(device).ok().filter(|d| *d > 0)?;
    let (major, minor) = ((device >> 8) & 0xfff, (device & 0xff) | ((device >> 12) & 0xfff00));
    Some(match major {
        136..=143 => format!("pts/{}", (major - 136) * 256 + minor),
        4 => format!("tty{minor}"),
        _ => format!("{major}:{minor}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::LinuxIdMappingBuilder;

    #[test]
    fn terminals_have_the_names_that_dev_gives_them() {
        assert_eq!(terminal(0), None);
        assert_eq!(terminal((136 << 8) | 3).as_deref(), Some("pts/3"));
        assert_eq!(terminal((4 << 8) | 1).as_deref(), Some("tty1"));
    }

    #[test]
    fn ids_are_shown_as_the_container_sees_them() {
        let line = LinuxIdMappingBuilder::default().container_id(1_u32).host_id(100_000_u32).size(10_u32).build();
        let lines = [line.unwrap()];
        assert_eq!((inside(&lines, 100_004), inside(&lines, 5)), (5, 65_534));
    }
}
