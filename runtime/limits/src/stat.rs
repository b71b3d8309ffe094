//! A line of /proc/PID/stat (proc_pid_stat(5)).

use rlrun_spec::usage::Traffic;

/// What of it matters here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stat {
    /// `R`, `S`, `T`.
    pub(crate) state: u8,
    /// 0 for a parent outside the pid namespace.
    pub(crate) parent: i32,
    pub(crate) group: i32,
    /// Pages that were mapped without reading a disk.
    pub(crate) faults: u64,
    /// Clock ticks that children used which it has waited for, in user and in kernel mode.
    pub(crate) waited: u64,
    pub(crate) threads: u64,
}

impl Stat {
    /// Reads a line; the name in parentheses may hold anything.
    pub(crate) fn parse(line: &[u8]) -> Option<Self> {
        let end = line.iter().rposition(|b| *b == b')')?;
        let mut fields = line.get(end + 2..)?.split(|b| *b == b' ');
        let state = *fields.next()?.first()?;
        let mut number = |skip: usize| -> Option<i64> { std::str::from_utf8(fields.nth(skip)?).ok()?.parse().ok() };
        let (parent, group) = (number(0)?, number(0)?);
        // Field 10, minflt; 16 and 17, cutime and cstime; 20, num_threads; each counted from the one before.
        let faults = number(4)?;
        let (user, kernel) = (number(5)?, number(0)?);
        let threads = number(2)?;
        Some(Stat {
            state,
            parent: i32::try_from(parent).ok()?,
            group: i32::try_from(group).ok()?,
            faults: u64::try_from(faults).ok()?,
            waited: u64::try_from(user.checked_add(kernel)?).ok()?,
            threads: u64::try_from(threads).ok()?,
        })
    }

    /// Stopped by a signal, not by a debugger.
    pub(crate) fn is_stopped(&self) -> bool {
        self.state == b'T'
    }

    /// It has, or waits for, a CPU.
    pub(crate) fn is_runnable(&self) -> bool {
        self.state == b'R'
    }

    /// Held by a debugger at this moment.
    pub(crate) fn is_traced(&self) -> bool {
        self.state == b't'
    }
}

/// Whether /proc/PID/status names a debugger (`TracerPid` in proc_pid_status(5)).
pub(crate) fn has_tracer(text: &[u8]) -> bool {
    let line = text.split(|b| *b == b'\n').find_map(|line| line.strip_prefix(b"TracerPid:"));
    line.is_some_and(|pid| pid.trim_ascii() != b"0")
}

/// `read_bytes` and `write_bytes` of /proc/PID/io.
pub(crate) fn block_io(text: &[u8]) -> (u64, u64) {
    let value = |name: &[u8]| -> u64 {
        let line = text.split(|b| *b == b'\n').find_map(|line| line.strip_prefix(name));
        line.and_then(|v| std::str::from_utf8(v).ok()?.trim().parse().ok()).unwrap_or(0)
    };
    (value(b"read_bytes:"), value(b"write_bytes:"))
}

/// Bytes of all interfaces but loopback of /proc/PID/net/dev: the first and the ninth column.
pub(crate) fn traffic(text: &[u8]) -> Traffic {
    let lines = text.split(|b| *b == b'\n').filter_map(|line| std::str::from_utf8(line).ok()?.split_once(':'));
    lines.filter(|(name, _)| name.trim() != "lo").fold(Traffic::default(), |sum, (_, columns)| {
        let mut numbers = columns.split_ascii_whitespace().map(|n| n.parse::<u64>().unwrap_or(0));
        let received = sum.received.saturating_add(numbers.next().unwrap_or(0));
        Traffic { received, sent: sum.sent.saturating_add(numbers.nth(7).unwrap_or(0)) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_anything() {
        let line = b"7 (a) R (b) T 3 5 5 0 -1 4194304 96 8 0 0 1 2 30 12 20 0 4 0 100 1 1";
        let stat = Stat::parse(line).unwrap();
        assert_eq!(stat, Stat { state: b'T', parent: 3, group: 5, faults: 96, waited: 42, threads: 4 });
    }

    #[test]
    fn our_own_line_is_understood() {
        let line = std::fs::read("/proc/self/stat").unwrap();
        let stat = Stat::parse(&line).unwrap();
        assert_eq!(stat.parent, i32::try_from(std::os::unix::process::parent_id()).unwrap());
    }

    #[test]
    fn bytes_of_devices_and_interfaces_are_read() {
        assert_eq!(block_io(b"rchar: 1\nread_bytes: 4096\nwrite_bytes: 512\ncancelled_write_bytes: 9\n"), (4096, 512));
        assert_eq!(block_io(b"x"), (0, 0));
        let text =
            b"Inter-|   Receive | Transmit\n face |bytes packets\n    lo: 9 9 0 0 0 0 0 0 9 9 0 0 0 0 0 0\n  tap0: 70 \
                     1 0 0 0 0 0 0 80 2 0 0 0 0 0 0\n";
        assert_eq!(traffic(text), Traffic { received: 70, sent: 80 });
    }

    #[test]
    fn a_debugger_is_seen() {
        assert!(has_tracer(b"Name:\tx\nTracerPid:\t12\nUid:\t0\n"));
        assert!(!has_tracer(b"Name:\tx\nTracerPid:\t0\nUid:\t0\n"));
        assert!(!has_tracer(&std::fs::read("/proc/self/status").unwrap()) && !has_tracer(b""));
    }

    #[test]
    fn half_a_line_is_none() {
        for bad in [&b""[..], b"1 (x", b"1 (x) ", b"1 (x) S a b", b"1 (x) S 1 2 3"] {
            assert_eq!(Stat::parse(bad), None);
        }
    }
}
