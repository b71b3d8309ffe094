//! `logs`: what a container wrote, out of all its files, and what it goes on to write.

use super::containers::named_or_newest;
use super::{Outcome, place, read};
use crate::arguments::look::LogsArgs;
use crate::format::moment;
use crate::table::{now, seconds_of};
use clap::ArgMatches;
use rlrun_engine::containers::{self, Container};
use rlrun_engine::logs::{Entry, Reader};
use rlrun_engine::trace::Marks;
use rlrun_spec::{Failure, Kind, Stage};
use std::io::{ErrorKind, Write as _};
use std::process::ExitCode;

/// What of each line is printed.
struct Shown {
    since: Option<u64>,
    until: Option<u64>,
    times: bool,
}

pub(super) fn logs(matches: &mut ArgMatches, _: Marks) -> Outcome {
    let args: LogsArgs = read(matches)?;
    let place = place()?;
    let bound = |option: &str, word: &Option<String>| -> Result<Option<u64>, Failure> {
        let Some(word) = word else { return Ok(None) };
        moment(word, now()).map(Some).ok_or_else(|| {
            Failure::new(Stage::Cli, Kind::Usage, "parse-arguments", &format!("invalid {option}"), word)
                .why("is no time")
                .hint("write it 2006-01-02T15:04:05Z, 2006-01-02, seconds since 1970, or how long ago: 10m")
        })
    };
    let shown =
        Shown { since: bound("--since", &args.since)?, until: bound("--until", &args.until)?, times: args.timestamps };
    let mut found: Vec<Container> = args.names.iter().map(|n| containers::find(&place, n)).collect::<Result<_, _>>()?;
    if args.latest || found.is_empty() {
        found.push(named_or_newest(&place, args.names.first().map(String::as_str), args.latest, "logs")?);
    }
    let several = found.len() > 1;
    let told = |(number, container): (usize, &Container)| tell(container, &args, &shown, several.then_some(number));
    if !(args.follow && several) {
        for one in found.iter().enumerate() {
            let code = told(one)?;
            if code != ExitCode::SUCCESS {
                return Ok(code);
            }
        }
        return Ok(ExitCode::SUCCESS);
    }
    // Each waits for its own container.
    let outcomes: Vec<Outcome> = std::thread::scope(|scope| {
        let threads: Vec<_> = found.iter().enumerate().map(|one| scope.spawn(move || told(one))).collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
    });
    let codes = outcomes.into_iter().collect::<Result<Vec<_>, _>>()?;
    Ok(codes.into_iter().find(|code| *code != ExitCode::SUCCESS).unwrap_or(ExitCode::SUCCESS))
}

/// All of one container's, `--follow` to its end. `number` tells it from others.
fn tell(container: &Container, args: &LogsArgs, shown: &Shown, number: Option<usize>) -> Outcome {
    let name = match (args.with_names, number) {
        (true, _) => container.summary.name.clone(),
        (false, None) => String::new(),
        (false, Some(_)) => format!("{:.12}", container.summary.id),
    };
    let prefix = match (name.as_str(), args.color) {
        ("", _) => String::new(),
        (name, false) => format!("{name} "),
        (name, true) => format!("\x1b[{}m{name}\x1b[0m ", 31 + number.unwrap_or_default() % 6),
    };
    let mut reader = Reader::open(container)?;
    let mut entries = reader.read()?;
    if let Some(tail) = args.tail.and_then(|n| usize::try_from(n).ok()) {
        entries = last(entries, tail);
    }
    let mut printer = Printer { shown, prefix: &prefix, at_start: true };
    let mut code = printer.print(&entries)?;
    while args.follow && code == ExitCode::SUCCESS {
        // Before the look at the log: what an ended container wrote is there.
        let ended = !Container::read(container.directory.clone()).is_some_and(|c| c.status.is_alive());
        code = printer.print(&reader.read()?)?;
        if ended {
            break;
        }
        reader.wait()?;
    }
    Ok(code)
}

/// The last whole lines; the beginnings of a line belong to it.
fn last(mut entries: Vec<Entry>, count: usize) -> Vec<Entry> {
    let mut lines = 0;
    let mut from = entries.len();
    while from > 0 {
        let ends_line = entries[from - 1].whole || from == entries.len();
        if ends_line && lines == count {
            break;
        }
        lines += usize::from(ends_line);
        from -= 1;
    }
    entries.split_off(from)
}

struct Printer<'a> {
    shown: &'a Shown,
    prefix: &'a str,
    /// The next entry begins a line.
    at_start: bool,
}

impl Printer<'_> {
    fn print(&mut self, entries: &[Entry]) -> Outcome {
        let (mut out, mut err) = (std::io::stdout().lock(), std::io::stderr().lock());
        for entry in entries {
            let time = seconds_of(&entry.time).unwrap_or_default();
            if self.shown.since.is_some_and(|s| time < s) || self.shown.until.is_some_and(|u| time >= u) {
                continue;
            }
            let mut text = Vec::new();
            if self.at_start {
                text.extend_from_slice(self.prefix.as_bytes());
                if self.shown.times {
                    text.extend_from_slice(entry.time.as_bytes());
                    text.push(b' ');
                }
            }
            text.extend_from_slice(&entry.text);
            if entry.whole {
                text.push(b'\n');
            }
            self.at_start = entry.whole;
            let written = if entry.to_stderr { err.write_all(&text) } else { out.write_all(&text) };
            match written.and_then(|()| out.flush()) {
                Ok(()) => {}
                Err(e) if e.kind() == ErrorKind::BrokenPipe => return Ok(ExitCode::from(128 + 13)),
                Err(e) => {
                    let failure = Failure::new(Stage::Cli, Kind::Runtime, "print", "write to", "standard output");
                    return Err(failure.why(e.to_string()));
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_counts_whole_lines() {
        let entry = |text: &str, whole| Entry { time: String::new(), to_stderr: false, text: text.into(), whole };
        let all = vec![entry("a", true), entry("b", false), entry("c", true), entry("d", true), entry("e", false)];
        let tail = |count| {
            last(all.clone(), count).iter().map(|e| String::from_utf8_lossy(&e.text).into_owned()).collect::<String>()
        };
        assert_eq!(
            (tail(0), tail(1), tail(2), tail(3), tail(9)),
            ("".into(), "e".into(), "de".into(), "bcde".into(), "abcde".into())
        );
    }
}
