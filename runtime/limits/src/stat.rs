//! A line of /proc/PID/stat (proc_pid_stat(5)).

/// What of it matters here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stat {
    /// `R`, `S`, `T`.
    pub(crate) state: u8,
    /// 0 for a parent outside the pid namespace.
    pub(crate) parent: i32,
    pub(crate) group: i32,
    /// Clock ticks that children used which it has waited for, in user and in kernel mode.
    pub(crate) waited: u64,
}

impl Stat {
    /// Reads a line; the name in parentheses may hold anything.
    pub(crate) fn parse(line: &[u8]) -> Option<Self> {
        let end = line.iter().rposition(|b| *b == b')')?;
        let mut fields = line.get(end + 2..)?.split(|b| *b == b' ');
        let state = *fields.next()?.first()?;
        let mut number = |skip: usize| -> Option<i64> { std::str::from_utf8(fields.nth(skip)?).ok()?.parse().ok() };
        let (parent, group) = (number(0)?, number(0)?);
        // Fields 16 and 17, cutime and cstime, counted from field 5.
        let (user, kernel) = (number(10)?, number(0)?);
        Some(Stat {
            state,
            parent: i32::try_from(parent).ok()?,
            group: i32::try_from(group).ok()?,
            waited: u64::try_from(user.checked_add(kernel)?).ok()?,
        })
    }

    /// Stopped by a signal, not by a debugger.
    pub(crate) fn is_stopped(&self) -> bool {
        self.state == b'T'
    }

    /// Held by a debugger at this moment.
    pub(crate) fn is_traced(&self) -> bool {
        self.state == b't'
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_anything() {
        let line = b"7 (a) R (b) T 3 5 5 0 -1 4194304 96 8 0 0 1 2 30 12 20 0 1 0 100 1 1";
        let stat = Stat::parse(line).unwrap();
        assert_eq!(stat, Stat { state: b'T', parent: 3, group: 5, waited: 42 });
    }

    #[test]
    fn our_own_line_is_understood() {
        let line = std::fs::read("/proc/self/stat").unwrap();
        let stat = Stat::parse(&line).unwrap();
        assert_eq!(stat.parent, i32::try_from(std::os::unix::process::parent_id()).unwrap());
    }

    #[test]
    fn half_a_line_is_none() {
        for bad in [&b""[..], b"1 (x", b"1 (x) ", b"1 (x) S a b", b"1 (x) S 1 2 3"] {
            assert_eq!(Stat::parse(bad), None);
        }
    }
}
