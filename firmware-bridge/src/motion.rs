//! The path of a chunk, and one joint's way along it within its limits.

use crate::joint::{JointSpec, JointVec};
use crate::message::{Chunk, Progress};
use crate::{MAX_CHUNK_STEPS, MAX_JOINTS};

/// A chunk in the controller's own memory.
pub(crate) struct StoredChunk {
    id: u32,
    start_us: u64,
    period_us: u32,
    validity_us: u32,
    joints: usize,
    steps: u16,
    positions: [f32; MAX_CHUNK_STEPS * MAX_JOINTS],
    present: bool,
}

/// A chunk's pose at one time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Sample {
    pub(crate) progress: Progress,
    /// Positions.
    pub(crate) target: JointVec,
    /// Velocities of the path, per second.
    pub(crate) slope: JointVec,
}

impl StoredChunk {
    pub(crate) const EMPTY: Self = Self {
        id: 0,
        start_us: 0,
        period_us: 1,
        validity_us: 0,
        joints: 0,
        steps: 0,
        positions: [0.0; MAX_CHUNK_STEPS * MAX_JOINTS],
        present: false,
    };

    /// Copies `chunk`, clamped to the joints' positions; the number of clamped positions.
    pub(crate) fn store(&mut self, chunk: &Chunk<'_>, start_us: u64, joints: &[JointSpec]) -> u32 {
        self.id = chunk.id;
        self.start_us = start_us;
        self.period_us = chunk.period_us;
        self.validity_us = chunk.validity_us;
        self.joints = usize::from(chunk.joints);
        self.steps = chunk.steps;
        self.present = true;
        let mut clamped = 0_u32;
        let values = chunk.positions.iter().zip(joints.iter().cycle());
        for (place, (value, joint)) in self.positions.iter_mut().zip(values) {
            *place = within(value, joint.min, joint.max);
            clamped = clamped.wrapping_add(u32::from(*place != value));
        }
        clamped
    }

    pub(crate) fn clear(&mut self) {
        self.present = false;
    }

    /// Whether there is a chunk and it has started.
    pub(crate) fn has_started(&self, now_us: u64) -> bool {
        self.present && self.start_us <= now_us
    }

    /// The pose at `now_us`; `None` before the start, after the last step's period, after the
    /// validity, and without a chunk. Never outside the chunk's own steps.
    pub(crate) fn sample(&self, now_us: u64) -> Option<Sample> {
        let elapsed_us = now_us.checked_sub(self.start_us)?;
        if !self.present || elapsed_us > u64::from(self.validity_us) {
            return None;
        }
        let period_us = u64::from(self.period_us);
        let step = u16::try_from(elapsed_us.checked_div(period_us)?).ok()?;
        let steps_left = self.steps.checked_sub(step)?.checked_sub(1)?;
        let into_us = elapsed_us.checked_rem(period_us)?;
        let share = into_us as f32 / self.period_us as f32;
        let period_s = self.period_us as f32 * 1e-6;

        let from = self.pose(step)?;
        // The last step is held for its period.
        let to = if steps_left > 0 { self.pose(step.checked_add(1)?)? } else { from };
        let mut target = JointVec::from_slice(from)?;
        let mut slope = target;
        let out = target.as_mut_slice().iter_mut().zip(slope.as_mut_slice());
        for ((target, slope), (from, to)) in out.zip(from.iter().zip(to)) {
            *slope = (to - from) / period_s;
            *target = from + (to - from) * share;
        }
        Some(Sample { progress: Progress { chunk: self.id, step, steps_left }, target, slope })
    }

    fn pose(&self, step: u16) -> Option<&[f32]> {
        let start = usize::from(step).checked_mul(self.joints)?;
        self.positions.get(start..start.checked_add(self.joints)?)
    }
}

/// One joint's command.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Setpoint {
    /// Position.
    pub(crate) position: f32,
    /// Velocity per second.
    pub(crate) velocity: f32,
}

/// The next setpoint towards a moving target, and whether the speed limit held it back.
///
/// The command never moves away from the target nor past it; where that contradicts the limit of
/// acceleration, it wins. Otherwise speed and acceleration stay within their limits, and the
/// command slows down in time to arrive at the target's own velocity.
pub(crate) fn follow(at: Setpoint, target: f32, slope: f32, joint: &JointSpec, dt_s: f32) -> (Setpoint, bool) {
    let exact = (target - at.position) / dt_s;
    let excess = exact - slope;
    let arrival = arrival_speed(excess.abs() * dt_s, joint.acceleration, dt_s);
    let wanted = slope + within(excess, -arrival, arrival);
    let limited = within(wanted, -joint.velocity, joint.velocity);
    let gain = joint.acceleration * dt_s;
    let reached = at.velocity + within(limited - at.velocity, -gain, gain);
    let reached = within(reached, -joint.velocity, joint.velocity);
    let velocity = within(reached, exact.min(0.0), exact.max(0.0));
    let position = if velocity == exact { target } else { at.position + velocity * dt_s };
    (Setpoint { position, velocity }, limited != wanted)
}

/// The next setpoint of a ramp to rest; it ends within the joint's positions.
pub(crate) fn brake(at: Setpoint, joint: &JointSpec, dt_s: f32, deceleration: f32) -> Setpoint {
    let drop = deceleration * dt_s;
    let velocity = at.velocity - within(at.velocity, -drop, drop);
    let position = at.position + velocity * dt_s;
    Setpoint {
        // An arm that was armed outside its limits is not pulled inside by a stop.
        position: within(position, joint.min.min(at.position), joint.max.max(at.position)),
        velocity,
    }
}

/// The deceleration of a ramp to rest of at most `ramp_us`: the joint's own, or higher where
/// that would take longer.
pub(crate) fn deceleration(velocity: f32, joint: &JointSpec, ramp_us: u32) -> f32 {
    let ramp_s = (ramp_us as f32 * 1e-6).max(1e-6);
    (velocity.abs() / ramp_s).max(joint.acceleration)
}

/// Time to rest from `velocity` in microseconds, at most `ramp_us`.
pub(crate) fn ramp_time_us(velocity: f32, joint: &JointSpec, ramp_us: u32) -> u32 {
    let time_us = (velocity.abs() / joint.acceleration) * 1e6;
    // A cast of a float saturates.
    (time_us as u32).min(ramp_us)
}

/// The speed from which a joint comes to rest within `distance`, in ticks of `dt_s`.
fn arrival_speed(distance: f32, acceleration: f32, dt_s: f32) -> f32 {
    let half = dt_s * 0.5;
    acceleration * (sqrt(half * half + 2.0 * distance / acceleration) - half)
}

/// `value` between the limits; a NaN gives the lower one. Unlike `f32::clamp` it cannot panic.
pub(crate) fn within(value: f32, low: f32, high: f32) -> f32 {
    value.max(low).min(high)
}

/// Square root of a value that is not negative, by Newton's method: `core` has none.
fn sqrt(value: f32) -> f32 {
    if value <= 0.0 || !value.is_finite() {
        return 0.0;
    }
    let guess = (value.to_bits() >> 1).wrapping_add(0x1fbd_1df5);
    let mut root = f32::from_bits(guess);
    for _ in 0..3 {
        root = 0.5 * (root + value / root);
    }
    root
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::joint::{Name, Unit};

    fn joint() -> JointSpec {
        JointSpec {
            name: Name::new("joint").expect("short"),
            unit: Unit::Radian,
            min: -10.0,
            max: 10.0,
            velocity: 1.0,
            acceleration: 4.0,
            jump: 10.0,
        }
    }

    #[test]
    fn square_root_is_that_of_the_library() {
        for value in [1e-12_f32, 1e-3, 0.25, 1.0, 2.0, 1e6, 3.4e30] {
            let exact = f64::from(value).powf(0.5);
            assert!((f64::from(sqrt(value)) - exact).abs() < exact * 1e-6, "of {value}");
        }
    }

    /// A step of the target is followed within speed and acceleration, without overshoot, and
    /// with a soft arrival.
    #[test]
    fn a_step_is_followed_within_limits_and_not_passed() {
        let dt_s = 0.002;
        let mut at = Setpoint::default();
        let mut ticks = 0;
        while at.position != 1.0 && ticks < 2000 {
            let (next, _) = follow(at, 1.0, 0.0, &joint(), dt_s);
            assert!(next.position <= 1.0 && next.position >= at.position, "{next:?}");
            assert!(next.velocity <= 1.0 + 1e-6, "{next:?}");
            let acceleration = (next.velocity - at.velocity) / dt_s;
            assert!(acceleration.abs() < 4.0 * 1.05, "{acceleration} at {next:?}");
            at = next;
            ticks += 1;
        }
        // 0.25 s to speed, 0.75 s at speed, 0.25 s to rest.
        assert!((600..700).contains(&ticks), "arrived after {ticks} ticks");
    }

    /// A path that ends at full speed, as an underrun does, is followed to its end and no further.
    #[test]
    fn the_end_of_a_path_is_not_passed() {
        let dt_s = 0.002;
        let mut at = Setpoint::default();
        for tick in 1..1000_u16 {
            let target = (f32::from(tick) * dt_s * 0.9).min(0.9);
            let slope = if target < 0.9 { 0.9 } else { 0.0 };
            (at, _) = follow(at, target, slope, &joint(), dt_s);
            assert!(at.position <= target, "{at:?} is past {target}");
        }
        assert_eq!(at.position, 0.9);
    }

    #[test]
    fn a_brake_ends_in_its_time() {
        let mut at = Setpoint { position: 0.0, velocity: 1.0 };
        let deceleration = deceleration(at.velocity, &joint(), 50_000);
        for tick in 0..26 {
            assert!(tick > 24 || at.velocity != 0.0, "at rest at tick {tick}");
            at = brake(at, &joint(), 0.002, deceleration);
        }
        assert_eq!(at.velocity, 0.0);
        assert!((at.position - 0.025).abs() < 2e-3, "{at:?}");
    }
}
