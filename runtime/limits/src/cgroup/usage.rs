//! What the kernel counts for a container's cgroups: better than any sum over processes, because it misses none.

use rlrun_spec::cgroup::Membership;
use rlrun_spec::usage::{Spent, Usage};
use std::fs;
use std::path::PathBuf;

/// What was counted since the cgroups were made; None: by no controller that is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Count {
    cpu_ns: Option<u64>,
    /// Periods and nanoseconds.
    throttled: (u64, u64),
    memory: Option<u64>,
    memory_peak: Option<u64>,
    memory_limit: Option<u64>,
    swap: Option<u64>,
    oom_kills: u64,
    tasks: Option<u64>,
    /// Bytes in and out.
    block: Option<(u64, u64)>,
}

/// Their files, whichever of them has one.
struct Files<'a>(&'a [PathBuf]);

impl Files<'_> {
    fn read(&self, name: &str) -> Option<String> {
        self.0.iter().find_map(|directory| fs::read_to_string(directory.join(name)).ok())
    }

    /// No limit reads as `max`, or as the largest number there is.
    fn number(&self, name: &str) -> Option<u64> {
        self.read(name)?.trim().parse().ok().filter(|n| *n < u64::MAX / 4)
    }
}

/// The number behind a name, in a text of such lines.
fn field(text: Option<&String>, name: &str) -> Option<u64> {
    let mut words = text?.lines().filter_map(|line| line.split_once(' '));
    words.find(|(word, _)| *word == name).and_then(|(_, n)| n.trim().parse().ok())
}

impl Count {
    /// Reads it, of either version.
    #[must_use]
    pub fn of(membership: &Membership) -> Count {
        let files = Files(&membership.directories);
        let (cpu, memory) = (files.read("cpu.stat"), files.read("memory.stat"));
        let (cpu, memory) = (cpu.as_ref(), memory.as_ref());
        // What was read and may be dropped at once is no use of memory, as docker counts.
        let cached = field(memory, "total_inactive_file").or(field(memory, "inactive_file"));
        let all = files.number("memory.current").or_else(|| files.number("memory.usage_in_bytes"));
        let microseconds = |name| field(cpu, name).map(|us| us.saturating_mul(1000));
        let killed = files.read("memory.events").or_else(|| files.read("memory.oom_control"));
        Count {
            cpu_ns: microseconds("usage_usec").or_else(|| files.number("cpuacct.usage")),
            throttled: (
                field(cpu, "nr_throttled").unwrap_or(0),
                microseconds("throttled_usec").or(field(cpu, "throttled_time")).unwrap_or(0),
            ),
            memory: all.map(|all| all.saturating_sub(cached.unwrap_or(0))),
            memory_peak: files.number("memory.peak").or_else(|| files.number("memory.max_usage_in_bytes")),
            memory_limit: files.number("memory.max").or_else(|| files.number("memory.limit_in_bytes")),
            swap: files.number("memory.swap.current").or(field(memory, "total_swap")),
            oom_kills: field(killed.as_ref(), "oom_kill").unwrap_or(0),
            tasks: files.number("pids.current"),
            block: files
                .read("io.stat")
                .map(|text| moved(&text))
                .or_else(|| files.read("blkio.throttle.io_service_bytes").map(|text| moved_1(&text))),
        }
    }

    /// What was added since `before`: cgroups outlive a restart.
    #[must_use]
    pub fn since(self, before: &Count) -> Count {
        let less = |now: Option<u64>, then: Option<u64>| now.map(|now| now.saturating_sub(then.unwrap_or(0)));
        let (read, written) = before.block.unwrap_or_default();
        Count {
            cpu_ns: less(self.cpu_ns, before.cpu_ns),
            throttled: (
                self.throttled.0.saturating_sub(before.throttled.0),
                self.throttled.1.saturating_sub(before.throttled.1),
            ),
            oom_kills: self.oom_kills.saturating_sub(before.oom_kills),
            block: self.block.map(|(r, w)| (r.saturating_sub(read), w.saturating_sub(written))),
            ..self
        }
    }

    /// How many processes the kernel has killed because there was no memory for them.
    #[must_use]
    pub fn oom_kills(&self) -> u64 {
        self.oom_kills
    }

    /// Takes the place of what was counted without cgroups, as far as they count.
    pub fn complete(&self, usage: &mut Usage) {
        let or = |place: &mut u64, counted: Option<u64>| *place = counted.unwrap_or(*place);
        or(&mut usage.cpu_ns, self.cpu_ns);
        or(&mut usage.memory, self.memory);
        or(&mut usage.swap, self.swap);
        or(&mut usage.tasks, self.tasks);
        or(&mut usage.memory_peak, self.memory_peak);
        usage.memory_limit = self.memory_limit.or(usage.memory_limit);
        usage.throttled_periods += self.throttled.0;
        usage.throttled_ns += self.throttled.1;
        usage.oom_kills += self.oom_kills;
        if let Some((read, written)) = self.block {
            (usage.block_read, usage.block_written) = (read, written);
        }
    }

    /// The same for what is known at the end.
    pub fn complete_spent(&self, spent: &mut Spent) {
        let Spent { cpu_ns, throttled_periods, throttled_ns, oom_kills, memory_peak } = *spent;
        let mut usage = Usage { cpu_ns, throttled_periods, throttled_ns, oom_kills, memory_peak, ..Usage::default() };
        self.complete(&mut usage);
        *spent = usage.spent();
    }
}

/// `8:0 rbytes=1 wbytes=2 ...`, over all devices.
fn moved(text: &str) -> (u64, u64) {
    let sum = |name: &str| {
        let words = text.split_ascii_whitespace().filter_map(|word| word.split_once('='));
        words.filter(|(word, _)| *word == name).filter_map(|(_, n)| n.parse::<u64>().ok()).sum()
    };
    (sum("rbytes"), sum("wbytes"))
}

/// `8:0 Read 1`, over all devices.
fn moved_1(text: &str) -> (u64, u64) {
    let sum = |name: &str| {
        let mut lines = text.lines().map(|line| line.split_ascii_whitespace().collect::<Vec<_>>());
        lines
            .by_ref()
            .filter_map(|words| {
                if let [_, word, n] = words[..] { (word == name).then_some(n) } else { None }
                    .and_then(|n| n.parse::<u64>().ok())
            })
            .sum()
    };
    (sum("Read"), sum("Write"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::files::tests::group;

    #[test]
    fn version_2() {
        let (_dir, membership) = group(&[
            ("memory.max", "67108864\n"),
            ("memory.current", "5000\n"),
            ("memory.peak", "9000\n"),
            ("memory.swap.current", "3\n"),
            ("memory.stat", "anon 4000\ninactive_file 900\n"),
            ("memory.events", "oom 3\noom_kill 2\n"),
            ("pids.current", "4\n"),
            ("cpu.stat", "usage_usec 9\nnr_periods 8\nnr_throttled 7\nthrottled_usec 6\n"),
            ("io.stat", "254:0 rbytes=10 wbytes=20 rios=1 wios=1\n8:0 rbytes=1 wbytes=2 rios=1 wios=1\n"),
        ]);
        let mut usage = Usage { tasks: 3, cpu_ns: 1, ..Usage::default() };
        Count::of(&membership).complete(&mut usage);
        let expected = Usage {
            cpu_ns: 9000,
            memory: 4100,
            memory_peak: 9000,
            swap: 3,
            tasks: 4,
            memory_limit: Some(64 << 20),
            oom_kills: 2,
            throttled_periods: 7,
            throttled_ns: 6000,
            block_read: 11,
            block_written: 22,
            ..Usage::default()
        };
        assert_eq!(usage, expected);
    }

    #[test]
    fn version_1() {
        let (_dir, membership) = group(&[
            ("memory.limit_in_bytes", "9223372036854771712\n"),
            ("memory.usage_in_bytes", "5000\n"),
            ("memory.stat", "inactive_file 100\ntotal_inactive_file 1000\n"),
            ("memory.oom_control", "under_oom 0\noom_kill 1\n"),
            ("cpuacct.usage", "77\n"),
            ("cpu.stat", "nr_periods 8\nnr_throttled 7\nthrottled_time 6\n"),
            ("blkio.throttle.io_service_bytes", "8:0 Read 5\n8:0 Write 6\n8:0 Sync 11\n8:0 Total 11\nTotal 11\n"),
        ]);
        let mut usage = Usage { memory_limit: Some(5), tasks: 2, ..Usage::default() };
        Count::of(&membership).complete(&mut usage);
        assert_eq!((usage.memory_limit, usage.throttled_periods, usage.throttled_ns), (Some(5), 7, 6));
        assert_eq!((usage.cpu_ns, usage.memory, usage.tasks, usage.oom_kills), (77, 4000, 2, 1));
        assert_eq!((usage.block_read, usage.block_written), (5, 6));
    }

    #[test]
    fn a_life_is_counted_for_itself() {
        let (_dir, before) =
            group(&[("cpu.stat", "usage_usec 5\nnr_throttled 1\n"), ("memory.events", "oom_kill 1\n")]);
        let (_dir, after) = group(&[("cpu.stat", "usage_usec 9\nnr_throttled 4\n"), ("memory.events", "oom_kill 1\n")]);
        let count = Count::of(&after).since(&Count::of(&before));
        let mut spent = Spent::default();
        count.complete_spent(&mut spent);
        assert_eq!(spent, Spent { cpu_ns: 4000, throttled_periods: 3, ..Spent::default() });
        let mut nothing = Spent { cpu_ns: 3, ..Spent::default() };
        Count::default().complete_spent(&mut nothing);
        assert_eq!(nothing.cpu_ns, 3);
    }
}
