//! How often memory is looked at, how closely, and when it is too much. Pure: it is told the time and what was measured.
//!
//! There are two measurements. The rough one is cheap and never too little. The exact one costs time for every page, so
//! it is taken only when the rough one cannot rule out that the limit is reached, and not more often than its cost
//! allows. In between, a bound holds: what was exact, plus what each process grew by since, page faults included,
//! because a page that stops being shared is one fault and no growth.

use rlrun_spec::limits::Memory;

/// Bytes a second that a payload is believed able to fill when nothing is known of it.
const FAST: u64 = 1 << 30;
const MS: u64 = 1_000_000;
/// Nobody looks more often.
const SHORTEST: u64 = MS;
/// A payload that runs is looked at this often at least.
const LONGEST: u64 = 50 * MS;
/// One that rests is looked at so often: shorter costs more than nothing.
const IDLE_SHORTEST: u64 = 10 * MS;
/// And this often at least.
const IDLE_LONGEST: u64 = 100 * MS;
/// The exact measurement may take one part in so many of the time, and of a payload that has grown by a part of its limit
/// since the last one.
const PART: u64 = 10;
const PART_OF_FAST: u64 = 2;
const FAST_GROWTH: u64 = 8;
/// So often it is looked whether it has.
const NEAR: u64 = 4 * MS;

/// A measurement, in bytes as far as they count against the limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rough {
    /// Never less than what is used.
    pub bytes: u64,
    /// All that was ever added, whatever went meanwhile: only grows.
    pub grown: u64,
    /// Whether anything ran since the last measurement.
    pub moved: bool,
}

/// What to do after a measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// The limit is not reached: look again after so many nanoseconds.
    Rest(u64),
    /// It may be reached: measure exactly, now.
    Closer,
    /// The same of a payload that grows fast: it is to stand still meanwhile.
    Still,
    /// It is reached.
    Over,
}

/// The last exact measurement.
#[derive(Clone, Copy, Debug)]
struct Exact {
    bytes: u64,
    grown: u64,
    /// When the next one may be taken, and when of one that grows fast.
    next: u64,
    soon: u64,
}

/// The controller.
#[derive(Clone, Debug)]
pub struct Guard {
    limit: u64,
    extra: Option<u64>,
    exact: Option<Exact>,
    last: Option<(u64, u64)>,
    /// Bytes a second that it grew by lately.
    rate: u64,
}

impl Guard {
    /// For this limit.
    #[must_use]
    pub fn new(limit: Memory) -> Self {
        let extra = limit.with_swap.map(|both| both.saturating_sub(limit.limit));
        Guard { limit: limit.limit, extra, exact: None, last: None, rate: 0 }
    }

    /// Changes the limit.
    pub fn set_limit(&mut self, limit: Memory) {
        let fresh = Guard::new(limit);
        (self.limit, self.extra) = (fresh.limit, fresh.extra);
    }

    /// What may be used.
    #[must_use]
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// What counts against the limit of bytes in memory and bytes swapped out: swap beyond its own limit does too.
    #[must_use]
    pub fn counted(&self, memory: u64, swap: u64) -> u64 {
        let with_swap = self.extra.map_or(0, |extra| memory.saturating_add(swap).saturating_sub(extra));
        memory.max(with_swap)
    }

    /// Takes a rough measurement.
    pub fn rough(&mut self, now: u64, rough: Rough) -> Look {
        let bound = self.bound(rough);
        if bound <= self.limit {
            return Look::Rest(self.rest(now, bound, rough.moved));
        }
        let fast = |exact: &Exact| rough.grown.saturating_sub(exact.grown) >= self.limit / FAST_GROWTH;
        match &self.exact {
            // What an exact look costs must not become the payload's main work.
            Some(exact) if now < exact.soon => Look::Rest((exact.soon - now).clamp(SHORTEST, LONGEST)),
            Some(exact) if now < exact.next && !fast(exact) => Look::Rest((exact.next - now).clamp(SHORTEST, NEAR)),
            Some(exact) if !fast(exact) => Look::Closer,
            Some(_) | None => Look::Still,
        }
    }

    /// Takes an exact measurement, made directly after the rough one, that took `cost` nanoseconds.
    pub fn exact(&mut self, now: u64, bytes: u64, rough: Rough, cost: u64) -> Look {
        let after = |part| now.saturating_add(cost.saturating_mul(part));
        self.exact = Some(Exact { bytes, grown: rough.grown, next: after(PART), soon: after(PART_OF_FAST) });
        if bytes > self.limit { Look::Over } else { Look::Rest(self.rest(now, bytes, rough.moved)) }
    }

    fn bound(&self, rough: Rough) -> u64 {
        let Some(exact) = self.exact else { return rough.bytes };
        let grown = rough.grown.saturating_sub(exact.grown);
        rough.bytes.min(exact.bytes.saturating_add(grown))
    }

    /// Half the time that it would take to fill what is left.
    fn rest(&mut self, now: u64, bytes: u64, moved: bool) -> u64 {
        if let Some((then, before)) = self.last {
            let elapsed = now.saturating_sub(then).max(SHORTEST / 4);
            let grown = u128::from(bytes.saturating_sub(before)) * 1_000_000_000 / u128::from(elapsed);
            let grown = u64::try_from(grown).unwrap_or(u64::MAX);
            self.rate = grown.max(self.rate / 8 * 7);
        }
        self.last = Some((now, bytes));
        let left = self.limit.saturating_sub(bytes);
        let rate = u128::from(self.rate.saturating_mul(2).max(FAST));
        let wait = u64::try_from(u128::from(left) * 1_000_000_000 / rate / 2).unwrap_or(u64::MAX);
        if moved { wait.clamp(SHORTEST, LONGEST) } else { wait.clamp(IDLE_SHORTEST, IDLE_LONGEST) }
    }
}

/// A process that could be killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its number.
    pub pid: i32,
    /// What it alone uses.
    pub bytes: u64,
    /// `oom_score_adj` of proc_pid_oom_score_adj(5).
    pub score: i64,
}

/// Whom to kill so that `excess` bytes become free, the first one first: the largest, as the kernel weighs them
/// (a score of 1000 is worth the whole limit). Nobody with a score of -1000, unless there is nobody else.
#[must_use]
pub fn victims(mut all: Vec<Candidate>, excess: u64, limit: u64) -> Vec<i32> {
    if all.iter().any(|c| c.score > -1000) {
        all.retain(|c| c.score > -1000);
    }
    let weight = |c: &Candidate| i128::from(c.bytes) + i128::from(c.score) * i128::from(limit) / 1000;
    // Of two equal ones the younger, which has done less.
    all.sort_by_key(|c| std::cmp::Reverse((weight(c), c.pid)));
    let mut freed = 0_u64;
    let enough = |c: &Candidate| {
        let more = freed < excess.max(1);
        freed = freed.saturating_add(c.bytes);
        more
    };
    all.into_iter().take_while(enough).map(|c| c.pid).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn guard(limit: u64) -> Guard {
        Guard::new(Memory { limit, with_swap: None, wait: false })
    }

    #[test]
    fn shared_pages_are_looked_at_once_and_then_bounded() {
        let mut guard = guard(100 * MIB);
        let rough = |bytes, grown| Rough { bytes: bytes * MIB, grown: grown * MIB, moved: true };
        assert_eq!(guard.rough(0, rough(500, 500)), Look::Still, "nothing is known of it");
        assert!(matches!(guard.exact(0, 50 * MIB, rough(500, 500), MS), Look::Rest(_)));
        assert!(matches!(guard.rough(MS, rough(500, 500)), Look::Rest(_)), "nothing has changed");
        assert!(matches!(guard.rough(2 * MS, rough(540, 540)), Look::Rest(_)), "40 more fit");
        assert!(matches!(guard.rough(MS, rough(560, 560)), Look::Rest(_)), "too soon for what it costs");
        assert_eq!(guard.clone().rough(3 * MS, rough(570, 570)), Look::Still, "it grows fast");
        assert!(matches!(guard.clone().rough(3 * MS, rough(510, 510)), Look::Rest(_)), "it does not");
        assert_eq!(guard.rough(11 * MS, rough(560, 560)), Look::Still);
        assert_eq!(guard.rough(11 * MS, rough(500, 560)), Look::Still, "one grew while another ended");
        assert!(matches!(guard.rough(11 * MS, rough(90, 560)), Look::Rest(_)), "it cannot be more than that");
        assert_eq!(guard.exact(11 * MS, 101 * MIB, rough(560, 560), MS), Look::Over);
    }

    #[test]
    fn swap_counts_beyond_its_own_limit() {
        let with = |both| Guard::new(Memory { limit: 100, with_swap: both, wait: false });
        assert_eq!(with(Some(150)).counted(90, 40), 90);
        assert_eq!(with(Some(150)).counted(90, 70), 110);
        assert_eq!(with(None).counted(90, 70_000), 90);
        assert_eq!(with(Some(100)).counted(90, 20), 110);
    }

    #[test]
    fn the_largest_goes_first_and_no_more_than_needed() {
        let one = |pid, bytes, score| Candidate { pid, bytes, score };
        let all = vec![one(2, 10, 0), one(3, 70, 0), one(4, 40, 0), one(5, 90, -1000)];
        assert_eq!(victims(all.clone(), 60, 100), [3]);
        assert_eq!(victims(all.clone(), 80, 100), [3, 4]);
        assert_eq!(victims(all, 0, 100), [3], "one at least");
        assert_eq!(victims(vec![one(2, 10, 900), one(3, 70, 0)], 5, 100), [2], "the score counts");
        assert_eq!(victims(vec![one(5, 90, -1000)], 5, 100), [5], "nobody else");
        assert!(victims(Vec::new(), 5, 100).is_empty());
    }
}
