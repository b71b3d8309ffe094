//! How long the container runs and how long it stands still, so that it uses a given share of the processor. Pure: it
//! is told the time and the processor time used so far, and answers what to do until when.
//!
//! A bucket of credit fills at the allowed rate and is drained by use. At zero the container stops, and it runs again
//! when there is enough for one more turn of the period. What was used too much is owed and waited for, so the mean is
//! exact whatever the latency of the measurement; what was not used is lost after one quota, as with a cgroup.
//!
//! Whoever carries this out uses the processor too: when that becomes too much, because there are very many processes,
//! turns become longer. For the same reason nobody looks twice at what is nearly so: what a turn is short of at its end
//! is kept for the next one. A container that rests is looked at the less often the longer it does, as far as what it left
//! unused pays for what it may use before the next look.

use rlrun_spec::limits::Cpu;

/// A millionth of a CPU.
const CPU: i64 = 1_000_000;
/// Shorter turns cost more than they smooth.
const SHORTEST: i64 = 500_000;
/// A container that rests is looked at this often at first, and this often later.
const IDLE: i64 = 100_000_000;
const LONG_IDLE: i64 = 500_000_000;
/// What carrying out may cost, in millionths of a CPU, before turns become longer, and how long at most, in sixteenths.
const COST: i64 = 3_500;
const UNSTRETCHED: i64 = 16;
const STRETCHED: i64 = 5 * UNSTRETCHED;
/// So small a part of a turn is not waited for.
const NEARLY: i64 = 8;
/// Nobody looked for so long (a suspended machine, a stopped agent): what happened then is nobody's debt.
const FORGET: i64 = 3_000_000_000;

/// No debt is larger: a payload must not stand still for minutes because of one measurement.
const DEBT: i64 = 1_000_000_000;

/// What the container is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Run.
    Run,
    /// Stand still.
    Stop,
}

/// What throttling has cost so far, as `cpu.stat` of a cgroup counts it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Throttled {
    /// Periods in which the container was stopped.
    pub periods: u64,
    /// Nanoseconds that it stood still.
    pub ns: u64,
}

/// The controller.
#[derive(Clone, Debug)]
pub struct Throttle {
    period: i64,
    quota: i64,
    // Millionths of a CPU: allowed, and used when it last ran.
    rate: i64,
    speed: i64,
    parallel: i64,
    credit: i64,
    // Credit that was lost unused while it rested.
    spare: i64,
    // It is looked at as one that rests.
    rests: bool,
    // Sixteenths of a period in a turn; nanoseconds paid by then, when, and millionths of a CPU since.
    stretch: i64,
    paid: Option<(i64, i64)>,
    cost: i64,
    seen: Option<(i64, i64)>,
    order: Order,
    throttled: Throttled,
}

fn scaled(value: i64, by: i64, over: i64) -> i64 {
    let exact = i128::from(value) * i128::from(by) / i128::from(over.max(1));
    i64::try_from(exact).unwrap_or(if exact < 0 { i64::MIN } else { i64::MAX })
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

impl Throttle {
    /// For a container that can use `cpus` CPUs at once.
    #[must_use]
    pub fn new(limit: Cpu, cpus: usize) -> Self {
        let period = signed(limit.period_us.saturating_mul(1000)).max(1_000_000);
        let quota = scaled(signed(limit.quota_us), period, signed(limit.period_us)).max(1);
        let parallel = scaled(CPU, i64::try_from(cpus.max(1)).unwrap_or(1), 1);
        let rate = scaled(CPU, quota, period).max(1);
        let throttled = Throttled::default();
        Throttle {
            period,
            quota,
            rate,
            speed: parallel,
            parallel,
            credit: (quota / 8).max(SHORTEST),
            spare: 0,
            rests: false,
            stretch: UNSTRETCHED,
            paid: None,
            cost: 0,
            seen: None,
            order: Order::Run,
            throttled,
        }
    }

    /// Changes the limit of a running container.
    pub fn set_limit(&mut self, limit: Cpu, cpus: usize) {
        let fresh = Throttle::new(limit, cpus);
        (self.period, self.quota, self.rate) = (fresh.period, fresh.quota, fresh.rate);
        self.parallel = fresh.parallel;
        self.credit = self.credit.min(self.quota);
    }

    /// What throttling has cost so far.
    #[must_use]
    pub fn throttled(&self) -> Throttled {
        self.throttled
    }

    /// Takes a measurement: nanoseconds on a clock that never goes back, and of processor time used since the start.
    /// Returns what to do now, and after how many nanoseconds to measure again.
    pub fn step(&mut self, now: u64, used: u64) -> (Order, u64) {
        let (now, used) = (signed(now), signed(used));
        let (last_now, last_used) = self.seen.unwrap_or((now, used));
        let elapsed = now.saturating_sub(last_now).max(0);
        // A child that was reaped unseen may make a measurement fall behind the one before; it catches up.
        let spent = (used - last_used).max(0);
        self.seen = Some((now.max(last_now), used.max(last_used)));
        if elapsed > FORGET {
            self.credit = self.credit.max(0).min(self.quota);
        } else {
            self.account(elapsed, spent);
        }
        self.stretch(elapsed);
        self.decide()
    }

    /// Nanoseconds of processor time that whoever carries this out has used so far, told before each step.
    pub fn pay(&mut self, own: u64) {
        let own = signed(own);
        let before = self.paid.map_or(own, |(before, _)| before);
        let unsettled = self.paid.map_or(0, |(_, unsettled)| unsettled);
        self.paid = Some((own, unsettled.saturating_add(own.saturating_sub(before).max(0))));
    }

    /// Makes turns longer or shorter again, by what was paid for the last one.
    fn stretch(&mut self, elapsed: i64) {
        let Some((_, unsettled)) = &mut self.paid else { return };
        let paid = scaled(std::mem::take(unsettled), CPU, elapsed.max(SHORTEST));
        // A mean over about the last half of a second.
        let weight = elapsed.clamp(0, 5 * IDLE);
        self.cost = self.cost.saturating_add(scaled(paid.saturating_sub(self.cost), weight, 5 * IDLE));
        let step = match self.cost {
            // By a part of what it would take: the mean follows slowly.
            cost if cost > COST => (scaled(self.stretch, cost - COST, COST) / 4).max(1),
            cost if cost < COST / 2 => -(self.stretch / UNSTRETCHED),
            _ => 0,
        };
        if self.order == Order::Stop {
            self.stretch = (self.stretch + step).clamp(UNSTRETCHED, STRETCHED);
        }
    }

    /// What may be saved up.
    fn most(&self) -> i64 {
        scaled(self.quota, self.stretch, UNSTRETCHED)
    }

    fn account(&mut self, elapsed: i64, spent: i64) {
        match self.order {
            Order::Stop => self.throttled.ns += elapsed.unsigned_abs(),
            Order::Run if elapsed >= SHORTEST / 2 => {
                let speed = scaled(spent, CPU, elapsed).min(self.parallel);
                // What one that rested does now, it did only for a part of the time.
                self.speed = if self.rests { speed.max(self.speed) } else { i64::midpoint(self.speed, speed) };
            }
            Order::Run => {}
        }
        let earned = scaled(elapsed, self.rate, CPU);
        let credit = self.credit.saturating_add(earned).saturating_sub(spent);
        if self.rests && credit < 0 {
            // It rested before and was not looked at for long: what it left then pays.
            let used = self.spare.min(credit.saturating_neg());
            self.spare -= used;
            self.credit = (credit + used).max(-DEBT);
        } else {
            let most = scaled(self.parallel, LONG_IDLE, CPU);
            self.spare = self.spare.saturating_add(credit.saturating_sub(self.most()).max(0)).min(most);
            self.credit = credit.clamp(-DEBT, self.most());
        }
    }

    fn decide(&mut self) -> (Order, u64) {
        let turn = self.turn();
        let wait = match self.order {
            Order::Run if self.credit <= turn / NEARLY => {
                self.order = Order::Stop;
                (self.rests, self.spare) = (false, 0);
                self.throttled.periods += 1;
                self.refill(turn)
            }
            Order::Stop if self.credit < turn - turn / NEARLY => self.refill(turn),
            Order::Run | Order::Stop => {
                self.order = Order::Run;
                self.drain()
            }
        };
        (self.order, wait.max(SHORTEST).unsigned_abs())
    }

    /// The credit for one turn: with it, running at the last speed and refilling take one period together.
    fn turn(&self) -> i64 {
        let speed = self.speed.max(self.rate.saturating_add(self.rate / 16 + 1));
        let share = scaled(self.most(), speed - self.rate, speed);
        share.clamp(SHORTEST.min(self.quota), self.most())
    }

    fn refill(&self, turn: i64) -> i64 {
        scaled(turn.saturating_sub(self.credit), CPU, self.rate)
    }

    /// Until the credit is used up at the last speed; a payload that rests may start at any time, and is then looked
    /// at before it can owe much.
    fn drain(&mut self) -> i64 {
        let surplus = self.speed - self.rate;
        self.rests = self.speed < self.rate / 8;
        if !self.rests {
            self.spare = 0;
        }
        if surplus > 0 {
            // However fast it becomes, until then it owes nothing.
            let safe = scaled(self.credit, CPU, self.parallel - self.rate).min(LONG_IDLE);
            return scaled(self.credit, CPU, surplus).min(IDLE.max(safe));
        }
        scaled(self.spare, CPU, self.parallel.max(1)).clamp(self.period.min(IDLE), LONG_IDLE)
    }
}
