//! `top`: podman's descriptors from the host's /proc, or a `ps` of the container with words of its own.

use super::{Outcome, place, read};
use crate::arguments::look::TopArgs;
use crate::report;
use crate::table::{aligned, timestamp};
use clap::{ArgMatches, Args as _, Command};
use rlrun_engine::exec::{Started, exec, find};
use rlrun_engine::journal;
use rlrun_engine::request::capability::{self, ALL};
use rlrun_engine::request::exec::ExecWords;
use rlrun_engine::top::{Id, Process, processes};
use rlrun_engine::trace::Marks;

/// One column.
struct Column {
    name: &'static str,
    /// ps(1) writes it so; empty where it has none.
    code: &'static str,
    heading: &'static str,
    cell: fn(&Process) -> String,
}

const fn column(name: &'static str, code: &'static str, heading: &'static str, cell: fn(&Process) -> String) -> Column {
    Column { name, code, heading, cell }
}

const DEFAULT: [&str; 8] = ["user", "pid", "ppid", "pcpu", "etime", "tty", "time", "args"];

/// podman's descriptors (podman-top(1)).
const COLUMNS: &[Column] = &[
    column("args", "%a", "COMMAND", words),
    column("capamb", "", "AMBIENT CAPS", |p| capabilities(p.capabilities[4])),
    column("capbnd", "", "BOUNDING CAPS", |p| capabilities(p.capabilities[0])),
    column("capeff", "", "EFFECTIVE CAPS", |p| capabilities(p.capabilities[1])),
    column("capinh", "", "INHERITED CAPS", |p| capabilities(p.capabilities[2])),
    column("capprm", "", "PERMITTED CAPS", |p| capabilities(p.capabilities[3])),
    column("cgroup", "", "CGROUP", |p| p.cgroup.clone()),
    column("comm", "%c", "COMMAND", |p| p.comm.clone()),
    column("etime", "%t", "ELAPSED", |p| duration(p.elapsed_ms)),
    column("group", "%G", "GROUP", |p| p.group.name.clone()),
    column("groups", "", "GROUPS", |p| list(&p.groups, |id| id.name.clone())),
    column("hgroup", "", "HGROUP", |p| p.group.host.to_string()),
    column("hgroups", "", "HGROUPS", |p| list(&p.groups, |id| id.host.to_string())),
    column("hpid", "", "HPID", |p| p.hpid.to_string()),
    column("huser", "", "HUSER", |p| p.user.host.to_string()),
    column("label", "", "LABEL", |p| p.label.clone()),
    column("nice", "%n", "NI", |p| p.nice.to_string()),
    column("pcpu", "%C", "%CPU", share),
    column("pgid", "%r", "PGID", |p| p.pgid.to_string()),
    column("pid", "%p", "PID", |p| p.pid.to_string()),
    column("ppid", "%P", "PPID", |p| p.ppid.to_string()),
    column("rgroup", "%g", "RGROUP", |p| p.real_group.name.clone()),
    column("rss", "", "RSS", |p| p.rss.to_string()),
    column("ruser", "%u", "RUSER", |p| p.real_user.name.clone()),
    column("seccomp", "", "SECCOMP", |p| p.seccomp.to_owned()),
    column("state", "", "STATE", |p| p.state.to_string()),
    column("stime", "", "STIME", |p| timestamp(p.started_ms.saturating_mul(1_000_000))),
    column("time", "%x", "TIME", |p| duration(p.cpu_ms)),
    column("tty", "%y", "TTY", |p| p.tty.clone().unwrap_or_else(|| "?".to_owned())),
    column("user", "%U", "USER", |p| p.user.name.clone()),
    column("vsz", "%z", "VSZ", |p| p.vsz.to_string()),
];

/// The usage is written out, because clap would show the words after the container as a list of containers.
pub(super) fn define(command: Command) -> Command {
    TopArgs::augment_args(command).override_usage("rlrun top [OPTIONS] CONTAINER [DESCRIPTOR... | PS-OPTION...]")
}

pub(super) fn top(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let args: TopArgs = read(matches)?;
    if args.list_descriptors {
        let names: Vec<&str> = COLUMNS.iter().map(|c| c.name).collect();
        return report::print(&(names.join("\n") + "\n"));
    }
    let mut words = args.words;
    let which = args.which.take(&mut words)?;
    let place = place()?;
    let container = find(&place, &which)?;
    let asked: Vec<&str> = words.iter().flat_map(|w| w.split(',')).map(str::trim).filter(|w| !w.is_empty()).collect();
    let asked = if asked.is_empty() { DEFAULT.to_vec() } else { asked };
    let known = |word: &&str| COLUMNS.iter().find(|c| c.name == *word || (!c.code.is_empty() && c.code == *word));
    let Some(columns) = asked.iter().map(known).collect::<Option<Vec<_>>>() else {
        return ps(&place, which, words);
    };
    let line = |cells: Vec<String>| cells.join("\t") + "\n";
    let mut text = line(columns.iter().map(|c| c.heading.to_owned()).collect());
    for process in processes(&container)? {
        text += &line(columns.iter().map(|c| (c.cell)(&process)).collect());
    }
    report::print(&aligned(&text))
}

/// The words are for a ps(1), which runs in the container as any command of `exec` does.
fn ps(
    place: &rlrun_engine::place::Place,
    container: rlrun_engine::request::exec::Which,
    words: Vec<String>,
) -> Outcome {
    let all: Vec<_> = std::env::args_os().collect();
    journal::begin("exec", &all);
    let command = std::iter::once("ps".to_owned()).chain(words).collect();
    let words = ExecWords::plain(container, command);
    let started = exec(place, &words, Vec::new()).inspect_err(|failure| {
        journal::finish(place, journal::Outcome::Failed(failure));
    });
    let Started::Detached(_) = started?;
    Ok(std::process::ExitCode::SUCCESS)
}

/// A tab or a line break of a process's own words would be another column or line here.
fn words(process: &Process) -> String {
    let shown = if process.args.is_empty() { format!("[{}]", process.comm) } else { process.args.join(" ") };
    shown.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn list(ids: &[Id], shown: fn(&Id) -> String) -> String {
    ids.iter().map(shown).collect::<Vec<_>>().join(",")
}

fn capabilities(mask: u64) -> String {
    let all = ALL.len();
    let names: Vec<String> = (0..)
        .take(all)
        .filter(|n| mask & (1 << n) != 0)
        .map(|n| capability::name_of(n).trim_start_matches("CAP_").to_owned())
        .collect();
    match names.len() {
        0 => "none".to_owned(),
        n if n == all => "full".to_owned(),
        _ => names.join(","),
    }
}

/// As podman writes it: `1h2m3.4s`.
fn duration(milliseconds: u64) -> String {
    let (seconds, rest) = (milliseconds / 1000, milliseconds % 1000);
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let fraction = format!("{rest:03}");
    let fraction = match fraction.trim_end_matches('0') {
        "" => String::new(),
        digits => format!(".{digits}"),
    };
    match (hours, minutes) {
        (0, 0) => format!("{seconds}{fraction}s"),
        (0, _) => format!("{minutes}m{seconds}{fraction}s"),
        _ => format!("{hours}h{minutes}m{seconds}{fraction}s"),
    }
}

/// Processor time in thousandths of a percent of the time since its start.
fn share(process: &Process) -> String {
    let thousandths = process.cpu_ms.saturating_mul(100_000) / process.elapsed_ms.max(1);
    format!("{}.{:03}", thousandths / 1000, thousandths % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_columns_are_sorted_and_the_usual_ones_known() {
        assert!(COLUMNS.is_sorted_by_key(|c| c.name));
        assert!(DEFAULT.iter().all(|name| COLUMNS.iter().any(|c| c.name == *name)));
    }

    #[test]
    fn durations_and_shares_are_podmans() {
        assert_eq!([0, 1500, 61_000, 3_723_040].map(duration), ["0s", "1.5s", "1m1s", "1h2m3.04s"]);
        let process = Process { cpu_ms: 25, elapsed_ms: 1000, ..Process::default() };
        assert_eq!(share(&process), "2.500");
    }

    #[test]
    fn sets_of_capabilities_in_words() {
        assert_eq!(capabilities(0), "none");
        assert_eq!(capabilities(3), "CHOWN,DAC_OVERRIDE");
        assert_eq!(capabilities(u64::MAX), "full");
    }

    #[test]
    fn a_processs_words_stay_on_their_line() {
        let process = Process { args: vec!["a\tb\nc\x1b[2J".to_owned()], ..Process::default() };
        assert_eq!(words(&process), "a b c [2J");
    }
}
