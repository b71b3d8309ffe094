//! What is to become of the container: whether somebody stopped it, when it is killed, whether it starts again.

use nix::poll::PollTimeout;
use rlrun_spec::health::OnFailure;
use rlrun_spec::life::{Life, Restart};
use std::time::{Duration, Instant};

/// The first pause before a restart; every further one is twice as long, up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// A container that ran that long was well: the next pause is the first one again.
const WELL: Duration = Duration::from_secs(10);

/// Decided from the plan, the clock and what commands ask.
pub(crate) struct Fate {
    policy: Restart,
    timeout: Option<Duration>,
    kill_at: Option<Instant>,
    stopped: bool,
    /// It is to start anew, whatever the policy: its health check says so.
    renewed: bool,
    may_renew: bool,
    restarts: u32,
    pause: Duration,
}

impl Fate {
    pub(crate) fn new(life: &Life) -> Fate {
        let timeout = life.timeout_seconds.map(|s| Duration::from_secs(s.into()));
        let (policy, pause) = (life.restart, FIRST_PAUSE);
        let may_renew = life.health.as_ref().is_some_and(|h| h.on_failure == OnFailure::Restart);
        Fate { policy, timeout, kill_at: None, stopped: false, renewed: false, may_renew, restarts: 0, pause }
    }

    /// Whether the plan is needed again.
    pub(crate) fn may_restart(&self) -> bool {
        self.policy != Restart::No || self.may_renew
    }

    /// The payload runs.
    pub(crate) fn begins(&mut self, now: Instant) {
        self.kill_at = self.timeout.map(|timeout| now + timeout);
    }

    /// The user wants it to end, and within that time.
    pub(crate) fn stop(&mut self, now: Instant, patience: Duration) {
        self.stopped = true;
        let kill_at = now + patience;
        self.kill_at = Some(self.kill_at.map_or(kill_at, |at| at.min(kill_at)));
    }

    /// It is to end within that time, and to start anew.
    pub(crate) fn renew(&mut self, now: Instant, patience: Duration) {
        self.renewed = true;
        let kill_at = now + patience;
        self.kill_at = Some(self.kill_at.map_or(kill_at, |at| at.min(kill_at)));
    }

    /// Whether the time to kill it has come. Says so once.
    pub(crate) fn must_die(&mut self, now: Instant) -> bool {
        let due = self.kill_at.is_some_and(|at| at <= now);
        if due {
            self.kill_at = None;
        }
        due
    }

    /// When there is something to do that nothing else wakes this process for.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.kill_at
    }

    /// The container has ended, with this code, after that long: how long to wait before it is started again.
    pub(crate) fn again(&mut self, code: u8, ran: Duration) -> Option<Duration> {
        self.kill_at = None;
        let wanted = match self.policy {
            Restart::No => false,
            Restart::OnFailure { at_most } => code != 0 && at_most.is_none_or(|most| self.restarts < most),
            Restart::Always | Restart::UnlessStopped => true,
        };
        let renewed = std::mem::take(&mut self.renewed);
        if !(wanted || renewed) || self.stopped {
            return None;
        }
        self.restarts = self.restarts.saturating_add(1);
        if ran >= WELL {
            self.pause = FIRST_PAUSE;
        }
        let pause = self.pause;
        self.pause = (pause * 2).min(LONGEST_PAUSE);
        Some(pause)
    }
}

/// From `now` to `at`, rounded up, so that a wait never ends a moment too early.
pub(crate) fn until(at: Instant, now: Instant) -> PollTimeout {
    let millis = at.saturating_duration_since(now).as_micros().div_ceil(1000);
    PollTimeout::from(u16::try_from(millis).unwrap_or(u16::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rlrun_spec::life::Log;

    fn fate(restart: Restart, timeout_seconds: Option<u32>) -> Fate {
        let log = Log::None;
        Fate::new(&Life {
            detached: true,
            accompanied: false,
            hold: rlrun_spec::life::Hold::No,
            log,
            restart,
            stop_signal: 15,
            stop_seconds: 10,
            timeout_seconds,
            health: None,
        })
    }

    const MOMENT: Duration = Duration::from_millis(1);

    #[test]
    fn pauses_grow_and_a_long_run_forgives() {
        let mut fate = fate(Restart::Always, None);
        let pauses: Vec<u128> = (0..12).map(|_| fate.again(0, MOMENT).unwrap().as_millis()).collect();
        assert_eq!(pauses[..4], [100, 200, 400, 800]);
        assert_eq!(pauses[10..], [60_000, 60_000]);
        assert_eq!(fate.again(0, WELL).unwrap(), FIRST_PAUSE);
    }

    #[test]
    fn policies_are_podmans() {
        assert!(fate(Restart::No, None).again(1, MOMENT).is_none());
        let mut twice = fate(Restart::OnFailure { at_most: Some(2) }, None);
        assert!(twice.again(1, MOMENT).is_some() && twice.again(137, MOMENT).is_some());
        assert!(twice.again(1, MOMENT).is_none());
        assert!(fate(Restart::OnFailure { at_most: None }, None).again(0, MOMENT).is_none());
        assert!(fate(Restart::UnlessStopped, None).again(0, MOMENT).is_some());
    }

    #[test]
    fn what_the_user_stopped_rests_and_dies_in_time() {
        for policy in [Restart::Always, Restart::UnlessStopped, Restart::OnFailure { at_most: None }] {
            let mut fate = fate(policy, None);
            let now = Instant::now();
            fate.begins(now);
            fate.stop(now, Duration::from_secs(10));
            // A second stop may only hurry.
            fate.stop(now, Duration::from_secs(20));
            assert!(!fate.must_die(now + Duration::from_secs(9)));
            assert!(fate.must_die(now + Duration::from_secs(10)));
            assert!(!fate.must_die(now + Duration::from_secs(11)), "once");
            assert!(fate.again(137, MOMENT).is_none());
        }
    }

    #[test]
    fn a_timeout_counts_from_every_start() {
        let mut fate = fate(Restart::Always, Some(3));
        let now = Instant::now();
        assert_eq!(fate.due(), None);
        fate.begins(now);
        assert_eq!(fate.due(), Some(now + Duration::from_secs(3)));
        assert_eq!(until(now + Duration::from_secs(3), now), PollTimeout::from(3000_u16));
        assert!(fate.must_die(now + Duration::from_secs(3)));
        fate.again(137, MOMENT).unwrap();
        fate.begins(now + Duration::from_secs(5));
        assert!(!fate.must_die(now + Duration::from_secs(7)));
    }
}
