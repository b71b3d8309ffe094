//! The guard of memory against simulated payloads: whatever way they grow, they are stopped a bounded time after they
//! reach the limit, and never before.
#![allow(clippy::unwrap_used, reason = "a test reports by panicking")]

use proptest::prelude::*;
use rlrun_limits::{Guard, Look, Rough};
use rlrun_spec::limits::Memory;

const MS: u64 = 1_000_000;
const MIB: u64 = 1 << 20;
/// The longest that a running payload is left alone.
const LONGEST: u64 = 50 * MS;

/// A payload.
#[derive(Clone, Copy, Debug)]
struct World {
    limit: u64,
    /// Bytes a second once it starts.
    rate: u64,
    /// When it starts.
    begins: u64,
    /// When it stops to grow.
    target: u64,
    /// Bytes that the rough measurement counts twice, because they are shared.
    shared: u64,
    /// The agent wakes up to so much too late.
    late: u64,
    /// What an exact measurement takes.
    cost: u64,
}

impl World {
    fn used(&self, now: u64) -> u64 {
        let ran = now.saturating_sub(self.begins);
        let grown = u64::try_from(u128::from(self.rate) * u128::from(ran) / 1_000_000_000).unwrap();
        (self.shared + grown).min(self.target)
    }
}

struct Outcome {
    /// When it was found to be over, and with how much.
    over: Option<(u64, u64)>,
    looks: u64,
    exact: u64,
}

fn simulate(world: World, duration: u64) -> Outcome {
    let mut guard = Guard::new(Memory { limit: world.limit, with_swap: None, wait: false });
    let mut outcome = Outcome { over: None, looks: 0, exact: 0 };
    let (mut now, mut seen) = (0, 0);
    while now < duration {
        let used = world.used(now);
        let rough = Rough { bytes: used + world.shared, grown: used + world.shared, moved: used != seen };
        seen = used;
        outcome.looks += 1;
        let mut look = guard.rough(now, rough);
        if matches!(look, Look::Closer | Look::Still) {
            outcome.exact += 1;
            now += world.cost;
            look = guard.exact(now, used, rough, world.cost);
        }
        match look {
            Look::Rest(wait) => now += wait + if world.late == 0 { 0 } else { (now / MS * 7919) % world.late },
            Look::Over => {
                outcome.over = Some((now, world.used(now)));
                break;
            }
            Look::Closer | Look::Still => unreachable!("exact decides"),
        }
    }
    outcome
}

#[test]
fn a_resting_payload_is_hardly_looked_at() {
    let world = World { limit: 512 * MIB, rate: 0, begins: 0, target: 0, shared: 0, late: 0, cost: MS };
    let outcome = simulate(world, 10_000 * MS);
    assert!(outcome.looks <= 110 && outcome.exact == 0, "{} looks", outcome.looks);
}

#[test]
fn shared_pages_do_not_cost_more_than_their_part() {
    // A payload far below its limit, whose processes share so much that the rough sum is beyond it.
    let world =
        World { limit: 100 * MIB, rate: MIB, begins: 0, target: 95 * MIB, shared: 60 * MIB, late: 0, cost: 5 * MS };
    let outcome = simulate(world, 10_000 * MS);
    assert!(outcome.over.is_none());
    assert!(outcome.exact * 5 <= 1_100, "{} exact looks of 5 ms in ten seconds", outcome.exact);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn growth_is_stopped_a_bounded_time_after_the_limit(
        limit in 4..4096_u64, rate in 1..8192_u64, begins in 0..2000_u64, late in 0..4_u64, cost in 0..5_u64,
        shared in 0..64_u64
    ) {
        let world = World {
            limit: limit * MIB, rate: rate * MIB, begins: begins * MS, target: u64::MAX, shared: (shared * MIB).min(limit * MIB / 4),
            late: late * MS, cost: cost * MS,
        };
        let reached = begins * MS + (world.limit - world.shared) / (rate * MIB).div_ceil(1000) * MS;
        let outcome = simulate(world, reached + 10_000 * MS);
        let (_, used) = outcome.over.unwrap();
        // From rest it is looked at every hundred milliseconds at worst, while it grows every fifty, and an exact look
        // waits for ten times its cost.
        let blind = 2 * LONGEST + world.late + 12 * world.cost + MS;
        let most = world.limit + u64::try_from(u128::from(world.rate) * u128::from(blind) / 1_000_000_000).unwrap();
        prop_assert!(used <= most, "{:?}: {} MiB beyond", world, (used - world.limit) / MIB);
    }

    #[test]
    fn a_payload_as_fast_as_memory_overshoots_by_milliseconds(limit in 32..4096_u64, rate in 1..1024_u64) {
        let world = World {
            limit: limit * MIB, rate: rate * MIB, begins: 0, target: u64::MAX, shared: 0, late: 0, cost: 0,
        };
        let (_, used) = simulate(world, 8_000_000 * MS).over.unwrap();
        prop_assert!(used - world.limit <= 3 * rate * MIB / 1000 + MIB, "{:?}: {} KiB", world, (used - world.limit) >> 10);
    }

    #[test]
    fn what_stays_below_is_left_alone(
        limit in 8..4096_u64, part in 1..100_u64, rate in 1..8192_u64, shared in any::<bool>(), late in 0..4_u64
    ) {
        let target = limit * MIB * part / 100;
        let world = World {
            limit: limit * MIB, rate: rate * MIB, begins: MS, target, shared: if shared { target / 2 } else { 0 },
            late: late * MS, cost: MS,
        };
        prop_assert!(simulate(world, 20_000 * MS).over.is_none(), "{:?}", world);
    }

    #[test]
    fn no_measurement_makes_it_panic_or_sleep_for_long(
        limit in any::<u64>(), swap in proptest::option::of(any::<u64>()),
        steps in proptest::collection::vec((any::<u64>(), any::<u64>(), any::<u64>(), any::<bool>()), 0..20)
    ) {
        let mut guard = Guard::new(Memory { limit, with_swap: swap, wait: false });
        for (now, bytes, grown, moved) in steps {
            let rough = Rough { bytes: guard.counted(bytes, grown), grown, moved };
            let look = match guard.rough(now, rough) {
                Look::Closer | Look::Still => guard.exact(now, bytes, rough, grown),
                look => look,
            };
            if let Look::Rest(wait) = look {
                prop_assert!(wait > 0 && wait <= 100 * MS);
            }
        }
    }
}
