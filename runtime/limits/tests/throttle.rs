//! The throttle against a simulated scheduler: whatever the payload does, its mean use is the limit or its own demand.
#![allow(clippy::unwrap_used, reason = "a test reports by panicking")]

use proptest::prelude::*;
use rlrun_limits::{Order, Throttle};
use rlrun_spec::limits::Cpu;

const MS: u64 = 1_000_000;
/// The simulation's grain.
const GRAIN: u64 = MS / 10;

/// How much of the machine a payload wants at a time, in thousandths of a CPU.
#[derive(Clone, Copy, Debug)]
enum Demand {
    /// So many processes or threads that never rest.
    Busy(u64),
    /// On and off.
    Bursts { on: u64, off: u64 },
    /// Children that live for `life` and are accounted for when they end, as reaped children are.
    Storm { life: u64 },
}

#[derive(Clone, Copy, Debug)]
struct World {
    millis: u64,
    cpus: u64,
    demand: Demand,
    /// The agent wakes up to so much too late.
    late: u64,
}

struct Outcome {
    used: u64,
    stops: u64,
    longest_stop: u64,
    wakes: u64,
}

fn simulate(world: World, duration: u64) -> Outcome {
    let limit = Cpu { quota_us: world.millis * 100, period_us: 100_000 };
    let mut throttle = Throttle::new(limit, usize::try_from(world.cpus).unwrap());
    let (mut used, mut hidden, mut order, mut stop_began) = (0, 0, Order::Run, 0);
    let mut outcome = Outcome { used: 0, stops: 0, longest_stop: 0, wakes: 0 };
    let mut due = 0;
    let mut now = 0;
    while now < duration {
        if now >= due {
            let seen = match world.demand {
                Demand::Storm { .. } => used - hidden,
                Demand::Busy(_) | Demand::Bursts { .. } => used,
            };
            let (next, wait) = throttle.step(now, seen);
            outcome.wakes += 1;
            if next == Order::Stop && order == Order::Run {
                (outcome.stops, stop_began) = (outcome.stops + 1, now);
            }
            if next == Order::Run && order == Order::Stop {
                outcome.longest_stop = outcome.longest_stop.max(now - stop_began);
            }
            order = next;
            // Not random, but of no simple period either.
            let late = if world.late == 0 { 0 } else { (now / GRAIN * 7919) % world.late };
            due = now + wait + late;
        }
        if order == Order::Run {
            let speed = match world.demand {
                Demand::Busy(count) => count.min(world.cpus) * 1000,
                Demand::Bursts { on, off } => {
                    if now % (on + off) < on {
                        1000
                    } else {
                        0
                    }
                }
                Demand::Storm { .. } => 2000.min(world.cpus * 1000),
            };
            used += GRAIN * speed / 1000;
        }
        if let Demand::Storm { life } = world.demand {
            // All that is younger than one life is not yet reaped, so not yet seen.
            hidden = used % life;
        }
        now += GRAIN;
    }
    outcome.used = used;
    outcome
}

fn share(world: World, seconds: u64) -> f64 {
    let outcome = simulate(world, seconds * 1000 * MS);
    f64::from(u32::try_from(outcome.used / MS).unwrap()) / f64::from(u32::try_from(seconds * 10).unwrap())
}

fn wanted(world: World) -> f64 {
    f64::from(u32::try_from(world.millis).unwrap()) / 10.0
}

fn world(millis: u64, cpus: u64, demand: Demand) -> World {
    World { millis, cpus, demand, late: MS }
}

#[test]
fn the_targets_of_the_benchmark_are_met() {
    for millis in [50, 100, 250, 500, 750, 900] {
        for demand in [Demand::Busy(1), Demand::Busy(8), Demand::Storm { life: 20 * MS }] {
            let world = world(millis, 2, demand);
            let error = (share(world, 10) - wanted(world)).abs();
            assert!(error <= 1.0, "{world:?} is off by {error} % of a CPU");
        }
    }
    let more = world(1500, 2, Demand::Busy(8));
    let error = (share(more, 10) - 150.0).abs();
    assert!(error <= 1.0, "{more:?} is off by {error} % of a CPU");
}

#[test]
fn a_payload_below_its_limit_is_never_stopped() {
    let calm = world(750, 2, Demand::Bursts { on: 10 * MS, off: 10 * MS });
    assert_eq!(simulate(calm, 10_000 * MS).stops, 0);
    assert!((share(calm, 10) - 50.0).abs() < 0.5);
}

#[test]
fn a_resting_payload_is_hardly_looked_at() {
    let idle = world(250, 2, Demand::Bursts { on: 0, off: MS });
    let wakes = simulate(idle, 10_000 * MS).wakes;
    assert!(wakes <= 40, "{wakes} wakes in ten seconds");
}

#[test]
fn what_carries_out_much_stops_less_often() {
    // Two takes of two hundred processes a turn, and two signals to each.
    let wake = |cost: u64| {
        let mut throttle = Throttle::new(Cpu { quota_us: 50_000, period_us: 100_000 }, 1);
        let (mut now, mut used, mut own, mut stops) = (0, 0, 0, 0);
        let mut order = Order::Run;
        while now < 60_000 * MS {
            throttle.pay(own);
            let (next, wait) = throttle.step(now, used);
            stops += u64::from(next == Order::Stop && order == Order::Run);
            order = next;
            own += cost;
            now += wait;
            used += if order == Order::Run { wait } else { 0 };
        }
        // Billionths of a CPU over the last half, when it has settled.
        (own * 1_000 / (now / MS), stops, used * 100 / now)
    };
    let (cheap, often, share) = wake(MS / 100);
    assert!(cheap < 4_000_000 && often >= 540 && share == 50, "{cheap} {often} {share}");
    let (dear, seldom, share) = wake(MS / 2);
    assert!(dear < 4_500_000 && seldom < often / 2 && (49..=50).contains(&share), "{dear} {seldom} {share}");
}

#[test]
fn a_burst_after_a_long_rest_is_paid_by_the_rest() {
    // Ten seconds of rest, then one process that never rests, at 50 %: it runs freely for no longer than half a second.
    let mut throttle = Throttle::new(Cpu { quota_us: 50_000, period_us: 100_000 }, 1);
    let (mut now, mut used) = (0, 0);
    while now < 10_000 * MS {
        now += throttle.step(now, used).1;
    }
    let began = now;
    used += 500 * MS;
    now += 500 * MS;
    let mut free = 500 * MS;
    while now < began + 2_000 * MS {
        let (order, wait) = throttle.step(now, used);
        now += wait;
        if order == Order::Run {
            used += wait;
            free += wait;
        }
        assert!(wait <= 110 * MS, "it does not stand still for long for what it had left before: {wait}");
    }
    assert!(free <= (500 + 850) * MS, "{}", free / MS);
}

#[test]
fn stops_are_about_a_period_long() {
    let outcome = simulate(world(500, 2, Demand::Busy(1)), 10_000 * MS);
    assert!(outcome.longest_stop <= 100 * MS, "{} ms", outcome.longest_stop / MS);
    assert!((90..=110).contains(&outcome.stops), "{} stops in a hundred periods", outcome.stops);
}

#[test]
fn a_machine_that_slept_is_not_paid_for() {
    let mut throttle = Throttle::new(Cpu { quota_us: 10_000, period_us: 100_000 }, 1);
    throttle.step(0, 0);
    // An hour passed unseen, in which a minute was used.
    let (order, wait) = throttle.step(3_600_000 * MS, 60_000 * MS);
    assert!(order == Order::Run || wait <= 100 * MS, "{order:?} for {wait}");
}

#[test]
fn a_clock_that_goes_back_does_no_harm() {
    let mut throttle = Throttle::new(Cpu { quota_us: 50_000, period_us: 100_000 }, 1);
    throttle.step(1_000 * MS, 10 * MS);
    let (order, wait) = throttle.step(500 * MS, 5 * MS);
    assert_eq!(order, Order::Run);
    assert!(wait <= 100 * MS);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn the_mean_is_the_limit_or_the_demand(
        millis in 20..3000_u64, cpus in 1..8_u64, count in 1..32_u64, late in 0..4_u64, storm in any::<bool>()
    ) {
        let demand = if storm { Demand::Storm { life: 7 * MS } } else { Demand::Busy(count) };
        let world = World { millis, cpus, demand, late: late * MS };
        let able = match demand { Demand::Busy(n) => n.min(cpus), _ => cpus.min(2) };
        let expected = wanted(world).min(f64::from(u32::try_from(able * 100).unwrap()));
        let error = (share(world, 20) - expected).abs();
        prop_assert!(error <= 1.0 + expected * 0.01, "{:?} is off by {} % of a CPU", world, error);
    }

    #[test]
    fn bursts_never_get_more_than_the_limit(
        millis in 20..900_u64, on in 1..400_u64, off in 1..400_u64, late in 0..3_u64
    ) {
        let world = World { millis, cpus: 2, demand: Demand::Bursts { on: on * MS, off: off * MS }, late: late * MS };
        prop_assert!(share(world, 20) <= wanted(world) + 1.0, "{:?}", world);
    }

    #[test]
    fn no_measurement_makes_it_panic_or_sleep_for_long(
        quota in any::<u64>(), period in any::<u64>(), steps in proptest::collection::vec((any::<u64>(), any::<u64>()), 0..20)
    ) {
        let mut throttle = Throttle::new(Cpu { quota_us: quota, period_us: period }, 2);
        for (now, used) in steps {
            let (_, wait) = throttle.step(now, used);
            prop_assert!(wait > 0);
        }
    }
}
