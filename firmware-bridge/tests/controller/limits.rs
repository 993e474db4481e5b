//! Whatever chunks arrive and whenever they do, the commands stay within the joints' limits.

use firmware_bridge::message::{Chunk, Interpolation, Message, Mode, Positions, Reason};
use proptest::prelude::*;

use super::bench::{Bench, TICK_US, plan};

const VELOCITY: f32 = 2.0;
const ACCELERATION: f32 = 30.0;
const DT_S: f32 = 0.002;

/// A chunk to send: the path of both joints, its step in ticks, ticks until the next chunk is sent.
#[derive(Debug, Clone)]
struct Plan {
    path: Vec<f32>,
    period_ticks: u64,
    delay_ticks: u64,
    hermite: bool,
    start_ticks: i64,
}

fn plans() -> impl Strategy<Value = Plan> {
    let path = (1..=16_usize).prop_flat_map(|steps| proptest::collection::vec(-1.2_f32..1.2, steps * 2));
    (path, 1..=20_u64, 1..=150_u64, any::<bool>(), -20..20_i64).prop_map(
        |(path, period_ticks, delay_ticks, hermite, start_ticks)| Plan {
            path,
            period_ticks,
            delay_ticks,
            hermite,
            start_ticks,
        },
    )
}

impl Plan {
    fn chunk(&self, now_us: u64) -> Chunk<'_> {
        Chunk {
            period_us: (self.period_ticks * TICK_US) as u32,
            start_us: now_us.saturating_add_signed(self.start_ticks * TICK_US as i64),
            interpolation: if self.hermite { Interpolation::Hermite } else { Interpolation::Linear },
            ..plan(&self.path)
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Position, speed and acceleration, over any sequence of chunks that supersede each other or
    /// run out. Acceleration is exempt where a chunk ran out: the ramp to rest has its own bound.
    #[test]
    fn commands_stay_within_the_limits(plans in proptest::collection::vec(plans(), 1..6)) {
        let mut bench = Bench::new(VELOCITY, ACCELERATION);
        prop_assert_eq!(bench.send(&Message::Arm), Reason::Ok);
        let (mut last, mut speed) = (bench.base(), 0.0);
        for plan in &plans {
            let reason = bench.send(&Message::Chunk(plan.chunk(bench.now_us)));
            prop_assert!(matches!(reason, Reason::Ok | Reason::Expired), "{:?}", reason);
            for _ in 0..plan.delay_ticks {
                bench.run(TICK_US);
                let at = bench.base();
                let velocity = (at - last) / DT_S;
                // A position near 1 has 6e-8 of rounding, which is 3e-5 per second here and 0.03 per second squared.
                prop_assert!((-1.0..=1.0).contains(&at), "position {}", at);
                prop_assert!(velocity.abs() <= VELOCITY + 1e-3, "velocity {}", velocity);
                let acceleration = (velocity - speed) / DT_S;
                if bench.state().mode == Mode::Active {
                    prop_assert!(acceleration.abs() <= ACCELERATION * 1.01, "acceleration {}", acceleration);
                }
                (last, speed) = (at, velocity);
            }
        }
    }

    /// From rest, no command is outside the range of the start and the chunk's steps, however the
    /// chunk ends: nothing is extrapolated.
    #[test]
    fn nothing_is_extrapolated(plan in plans()) {
        let mut bench = Bench::new(VELOCITY, ACCELERATION);
        prop_assert_eq!(bench.send(&Message::Arm), Reason::Ok);
        let start_us = bench.now_us + 2 * TICK_US;
        let chunk = Chunk { start_us, ..plan.chunk(bench.now_us) };
        prop_assert_eq!(bench.send(&Message::Chunk(chunk)), Reason::Ok);
        let steps = || plan.path.iter().step_by(2).map(|value| value.clamp(-1.0, 1.0)).chain([0.0]);
        let (low, high) = (steps().fold(0.0, f32::min), steps().fold(0.0, f32::max));
        for _ in 0..600 {
            bench.run(TICK_US);
            let at = bench.base();
            prop_assert!((low - 1e-5..=high + 1e-5).contains(&at), "{} is outside {} to {}", at, low, high);
        }
        prop_assert_eq!(bench.state().mode, Mode::Holding);
    }

    /// No step is followed after its chunk's validity, wherever in the chunk that falls: what moves
    /// then is the ramp to rest, which ends within 50 ms and a tick.
    #[test]
    fn no_action_outlives_its_validity(plan in plans(), validity_ticks in 1..200_u64) {
        let mut bench = Bench::new(VELOCITY, ACCELERATION);
        prop_assert_eq!(bench.send(&Message::Arm), Reason::Ok);
        let start_us = bench.now_us + TICK_US;
        let validity_us = (validity_ticks * TICK_US) as u32;
        let chunk = Chunk { start_us, validity_us, ..plan.chunk(bench.now_us) };
        prop_assert_eq!(bench.send(&Message::Chunk(chunk)), Reason::Ok);
        let over_us = start_us + u64::from(validity_us);
        let mut rest = None;
        for _ in 0..600 {
            bench.run(TICK_US);
            prop_assert!(bench.now_us <= over_us || bench.state().mode == Mode::Holding);
            if bench.now_us > over_us + 50_000 + TICK_US {
                prop_assert_eq!(*rest.get_or_insert(bench.base()), bench.base());
            }
        }
    }
}

/// Ticks that come early and late move the joints as punctual ones would, and no further.
#[test]
fn unsteady_ticks_keep_the_limits() {
    let run = |waits: &[u64]| {
        let mut bench = Bench::new(VELOCITY, ACCELERATION);
        assert_eq!(bench.send(&Message::Arm), Reason::Ok);
        let path = [0.6, 0.0].repeat(40);
        assert_eq!(bench.send(&Message::Chunk(Chunk { period_us: 20_000, ..plan(&path) })), Reason::Ok);
        let start_us = bench.now_us;
        let mut furthest = 0.0_f32;
        for wait in waits.iter().cycle() {
            bench.tick_after(*wait);
            furthest = furthest.max(bench.base());
            if bench.now_us >= start_us + 140_000 {
                break;
            }
        }
        assert!(furthest <= 0.6, "{furthest}");
        (bench.base(), bench.now_us - start_us)
    };
    let (steady, _) = run(&[2_000]);
    for waits in [&[1_000, 3_000][..], &[400, 3_600], &[2_001, 1_999], &[6_000, 1_000, 1_000]] {
        let (unsteady, after_us) = run(waits);
        let most = VELOCITY * (after_us as f32 - 140_000.0 + 2_000.0) * 1e-6;
        assert!((unsteady - steady).abs() <= most, "{unsteady} with {waits:?}, {steady} with steady ticks");
    }
    // After a long gap it is not made up for.
    let (late, _) = run(&[100_000, 2_000]);
    assert!(late < 0.1, "{late}");
}

#[test]
fn a_cubic_path_is_smooth_where_a_straight_one_has_corners() {
    let corner = |interpolation| {
        let mut bench = Bench::new(1e3, 1e6);
        assert_eq!(bench.send(&Message::Arm), Reason::Ok);
        let path: Vec<f32> = (0..20).flat_map(|step| [(0.04 * (step * step) as f32 * 0.05).min(0.9), 0.0]).collect();
        let chunk = Chunk { period_us: 20_000, interpolation, positions: Positions::Native(&path), ..plan(&path) };
        assert_eq!(bench.send(&Message::Chunk(chunk)), Reason::Ok);
        let mut positions = Vec::new();
        while positions.len() < 180 {
            bench.run(TICK_US);
            positions.push(bench.base());
        }
        let bends = positions.windows(3).map(|at| (at[2] - 2.0 * at[1] + at[0]).abs());
        bends.fold(0.0, f32::max)
    };
    let (straight, cubic) = (corner(Interpolation::Linear), corner(Interpolation::Hermite));
    assert!(cubic < 0.3 * straight, "largest bend {cubic} of the cubic, {straight} of straight lines");
}
