//! The path of a chunk, and a joint's motion along it within its limits.

use crate::joint::JointSpec;
use crate::message::{Chunk, Interpolation, Progress};
use crate::{MAX_CHUNK_STEPS, MAX_JOINTS};

/// A chunk in the controller's own memory.
pub(crate) struct StoredChunk {
    id: u32,
    start_us: u64,
    period_us: u32,
    validity_us: u32,
    interpolation: Interpolation,
    joints: usize,
    steps: u16,
    positions: [f32; MAX_CHUNK_STEPS * MAX_JOINTS],
    present: bool,
}

/// A chunk's pose at a time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Sample {
    pub(crate) progress: Progress,
    pub(crate) path: [PathPoint; MAX_JOINTS],
}

/// A joint's place on its path.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct PathPoint {
    /// Position.
    pub(crate) target: f32,
    /// Velocity of the path, per second.
    pub(crate) slope: f32,
    /// Lowest position from here to the path's end.
    pub(crate) low: f32,
    /// Highest position from here to the path's end.
    pub(crate) high: f32,
}

impl StoredChunk {
    pub(crate) const EMPTY: Self = Self {
        id: 0,
        start_us: 0,
        period_us: 1,
        validity_us: 0,
        interpolation: Interpolation::Linear,
        joints: 0,
        steps: 0,
        positions: [0.0; MAX_CHUNK_STEPS * MAX_JOINTS],
        present: false,
    };

    /// Copies `chunk` with its positions clamped to the joints' limits; returns the number of clamped positions.
    pub(crate) fn store(&mut self, chunk: &Chunk<'_>, start_us: u64, joints: &[JointSpec]) -> u32 {
        self.id = chunk.id;
        self.start_us = start_us;
        self.period_us = chunk.period_us;
        self.validity_us = chunk.validity_us;
        self.interpolation = chunk.interpolation;
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

    /// The progress of a chunk that has ended.
    pub(crate) fn ended(&self, now_us: u64) -> Progress {
        let elapsed_us = now_us.saturating_sub(self.start_us).min(u64::from(self.validity_us));
        let consumed = elapsed_us.checked_div(u64::from(self.period_us)).and_then(|steps| u16::try_from(steps).ok());
        Progress { chunk: self.id, consumed: consumed.unwrap_or(u16::MAX).min(self.steps), steps_left: 0 }
    }

    /// The pose at `now_us`; `None` before the start, after the last step's period, after the validity, and without a
    /// chunk. It is always between its two steps.
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
        // The path's slope continues before its start and is zero after its end.
        let before = step.checked_sub(1).and_then(|step| self.pose(step));
        let after = self.pose(step.saturating_add(2)).filter(|_| steps_left > 1);

        let mut path = [PathPoint::default(); MAX_JOINTS];
        for (joint, (point, (from, to))) in path.iter_mut().zip(from.iter().zip(to)).enumerate() {
            let rise = to - from;
            let rise_before = before.and_then(|pose| pose.get(joint)).map_or(rise, |before| from - before);
            let rise_after = after.and_then(|pose| pose.get(joint)).map_or(0.0, |after| after - to);
            let (position, slope) = match self.interpolation {
                Interpolation::Linear => (from + rise * share, rise),
                Interpolation::Hermite => {
                    hermite(*from, rise, tangent(rise_before, rise), tangent(rise, rise_after), share)
                }
            };
            let target = within(position, from.min(*to), from.max(*to));
            *point = PathPoint { target, slope: slope / period_s, low: target, high: target };
        }
        let rest = self.positions.chunks_exact(self.joints.max(1)).take(self.steps.into());
        for pose in rest.skip(usize::from(step).saturating_add(1)) {
            for (point, position) in path.iter_mut().zip(pose) {
                point.low = point.low.min(*position);
                point.high = point.high.max(*position);
            }
        }
        Some(Sample { progress: Progress { chunk: self.id, consumed: step, steps_left }, path })
    }

    fn pose(&self, step: u16) -> Option<&[f32]> {
        let start = usize::from(step).checked_mul(self.joints)?;
        self.positions.get(start..start.checked_add(self.joints)?)
    }
}

/// The rise per step at a step of the path, from the rises before and after it: their mean, reduced if the path would
/// overshoot a step, and 0 at a turning point.
fn tangent(before: f32, after: f32) -> f32 {
    if before * after <= 0.0 {
        return 0.0;
    }
    let most = 3.0 * before.abs().min(after.abs());
    within(0.5 * (before + after), -most, most)
}

/// The cubic from `from` to `from + rise` with these tangents, in rises per step: its value at `share` of the step, and
/// its rise per step there.
fn hermite(from: f32, rise: f32, tangent: f32, next_tangent: f32, share: f32) -> (f32, f32) {
    let rest = 1.0 - share;
    let position =
        from + share * share * (1.0 + 2.0 * rest) * rise + share * rest * (rest * tangent - share * next_tangent);
    let slope =
        6.0 * share * rest * rise + rest * (1.0 - 3.0 * share) * tangent + share * (3.0 * share - 2.0) * next_tangent;
    (position, slope)
}

/// One joint's command.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Setpoint {
    /// Position.
    pub(crate) position: f32,
    /// Velocity per second.
    pub(crate) velocity: f32,
}

/// The next setpoint along a path, and whether the speed limit or the joint's distance from its goal held it back.
///
/// Speed and acceleration stay within their limits. The command slows down in time to arrive with the path's own
/// velocity, and to be at rest at the path's end. It leaves the range of the remaining path only as far as the joint
/// cannot stop within it, which happens when another path starts. It also slows down if it would lead the measured
/// position by more than [`JointSpec::jump`]: it never moves farther away from there, and `measured` has no other
/// effect.
pub(crate) fn follow(
    at: Setpoint,
    path: &PathPoint,
    measured: Option<f32>,
    joint: &JointSpec,
    dt_s: f32,
) -> (Setpoint, bool) {
    let gain = joint.acceleration * dt_s;
    let exact = (path.target - at.position) / dt_s;
    let excess = exact - path.slope;
    let arrival = arrival_speed(excess.abs() * dt_s, gain, dt_s);
    let wanted = path.slope + within(excess, -arrival, arrival);
    let limited = within(wanted, -joint.velocity, joint.velocity);
    let room = |distance: f32| arrival_speed(distance.max(0.0), gain, dt_s);
    let on_path = within(limited, -room(at.position - path.low), room(path.high - at.position));
    let near = measured.map_or(on_path, |measured| {
        let (low, high) = (measured - joint.jump, measured + joint.jump);
        within(on_path, -room(at.position - low), room(high - at.position))
    });
    let velocity = at.velocity + within(near - at.velocity, -gain, gain);
    let position = if velocity == exact { path.target } else { at.position + velocity * dt_s };
    (in_limits(at, Setpoint { position, velocity }, joint, dt_s), limited != wanted || near != on_path)
}

/// The next setpoint of a ramp to rest; it ends within the joint's positions.
pub(crate) fn brake(at: Setpoint, joint: &JointSpec, dt_s: f32, deceleration: f32) -> Setpoint {
    let drop = deceleration * dt_s;
    let velocity = at.velocity - within(at.velocity, -drop, drop);
    in_limits(at, Setpoint { position: at.position + velocity * dt_s, velocity }, joint, dt_s)
}

/// The setpoint after `at`, kept within the joint's positions, with the resulting velocity.
fn in_limits(at: Setpoint, next: Setpoint, joint: &JointSpec, dt_s: f32) -> Setpoint {
    let position = within(next.position, joint.min, joint.max);
    if position == next.position {
        return next;
    }
    Setpoint { position, velocity: (position - at.position) / dt_s }
}

/// The deceleration of a ramp to rest of at most `ramp_us`: the joint's own, or higher if that would take longer.
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

/// The highest speed from which a joint that loses `gain` of it each tick comes to rest within `distance`.
fn arrival_speed(distance: f32, gain: f32, dt_s: f32) -> f32 {
    // With the motion of one tick's gain in a tick as the unit, k ticks of braking take k (k + 1) / 2.
    let unit = gain * dt_s;
    let braking = 0.5 * (sqrt(1.0 + 8.0 * distance / unit) - 1.0);
    // A cast of a float saturates.
    let whole = (braking as u32) as f32;
    let ticks = if whole < braking { whole + 1.0 } else { whole.max(1.0) };
    distance / (ticks * dt_s) + gain * 0.5 * (ticks - 1.0)
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
        let name = Name::new("joint").expect("short");
        JointSpec { acceleration: 4.0, jump: 10.0, ..JointSpec::new(name, Unit::Radian, [-10.0, 10.0], 1.0) }
    }

    #[test]
    fn square_root_is_that_of_the_library() {
        for value in [1e-12_f32, 1e-3, 0.25, 1.0, 2.0, 1e6, 3.4e30] {
            let exact = f64::from(value).powf(0.5);
            assert!((f64::from(sqrt(value)) - exact).abs() < exact * 1e-6, "of {value}");
        }
    }

    /// Follows a step of the target within speed and acceleration, without overshoot, and with a soft arrival.
    #[test]
    fn a_step_is_followed_within_limits_and_not_passed() {
        let dt_s = 0.002;
        let path = PathPoint { target: 1.0, slope: 0.0, low: 1.0, high: 1.0 };
        let mut at = Setpoint::default();
        let mut ticks = 0;
        while at.position != 1.0 && ticks < 2000 {
            let (next, _) = follow(at, &path, Some(at.position), &joint(), dt_s);
            assert!(next.position <= 1.0 && next.position >= at.position, "{next:?}");
            assert!(next.velocity <= 1.0 + 1e-6, "{next:?}");
            let acceleration = (next.velocity - at.velocity) / dt_s;
            assert!(acceleration.abs() < 4.0 * 1.001, "{acceleration} at {next:?}");
            at = next;
            ticks += 1;
        }
        // 0.25 s to speed, 0.75 s at speed, 0.25 s to rest.
        assert!((620..630).contains(&ticks), "arrived after {ticks} ticks");
    }

    #[test]
    fn a_cubic_meets_its_steps_and_stays_between_them() {
        let (before, from, to, after) = (0.0, 2.0, 2.25, 6.25);
        let (start, end) = (tangent(from - before, to - from), tangent(to - from, after - to));
        assert_eq!((start, end), (0.75, 0.75), "less than the mean: it would overshoot");
        assert_eq!(hermite(from, to - from, start, end, 0.0), (from, start));
        assert_eq!(hermite(from, to - from, start, end, 1.0), (to, end));
        assert_eq!(tangent(0.5, -0.1), 0.0);
        assert_eq!(tangent(0.5, 0.75), 0.625);
        for percent in 0..=100_u8 {
            let (position, _) = hermite(from, to - from, start, end, f32::from(percent) / 100.0);
            assert!((from - 1e-6..=to + 1e-6).contains(&position), "{position}");
        }
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
