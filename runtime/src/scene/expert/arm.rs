//! Inverse kinematics of an arm with a turning foot, two links and a hand that rolls, in closed form.

use std::f32::consts::{FRAC_PI_2, PI};

use super::super::gripper::Gripper;
use super::super::math::{Pose, Vec3, vec3};
use super::super::{Joint, Shape, Tool};
use super::{ABOVE_M, CARRY_M};

/// Tried first: the hand straight down.
const DOWN: f32 = PI;
/// The flattest hand, as its angle from straight up, in radians.
const FLATTEST: f32 = 1.5;
/// Between two hands that are tried, in radians.
const PITCH_STEP: f32 = 0.05;
/// Halvings of that, for the steepest hand that reaches.
const HALVINGS: u32 = 10;
/// Flattest hand of a place at which objects are laid out, in radians.
const LAID_FLATTEST: f32 = DOWN - 0.8;
/// Cosine of the elbow beyond which the arm is as good as straight, or folded.
const STRAIGHT: f32 = 0.985;
/// Joints that the solution sets.
const SET: usize = 5;

/// Lengths of an arm: pan about z; lift, elbow and wrist about y; roll about z; in this order, straight up at 0.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Arm {
    /// Height of the lift joint in metres.
    shoulder: f32,
    /// From lift to elbow, from there to the wrist, and from there to the tool, in metres.
    upper: f32,
    lower: f32,
    hand: f32,
}

/// Joints that bring the tool to a point, without the roll.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stance {
    /// Turn of the foot in radians.
    pub pan: f32,
    /// Lift, elbow and wrist in radians.
    pub links: [f32; 3],
    /// Angle of the hand from straight up, in radians: their sum.
    pub pitch: f32,
}

impl Stance {
    /// The roll that turns the hand's y axis to the azimuth, in radians.
    #[must_use]
    pub fn roll_to(&self, azimuth: f32) -> f32 {
        let (sin, cos) = (azimuth - self.pan).sin_cos();
        (cos / (-self.pitch.cos()).max(0.2)).atan2(sin)
    }
}

impl Arm {
    /// The lengths of the scene's arm, if it has this form.
    #[must_use]
    pub fn of(joints: &[Joint], tool: Tool) -> Option<Self> {
        let [pan, lift, elbow, wrist, roll, ..] = joints else { return None };
        let along_z = |v: Vec3| v.x.abs() + v.y.abs() < 1e-6;
        let y = vec3(0.0, 1.0, 0.0);
        let chain = [(pan, Vec3::UP), (lift, y), (elbow, y), (wrist, y), (roll, Vec3::UP)];
        let right = chain.iter().all(|(joint, axis)| (joint.axis - *axis).length() < 1e-5 && along_z(joint.origin));
        (right && tool.joint == SET - 1 && along_z(tool.offset)).then_some(Self {
            shoulder: pan.origin.z + lift.origin.z,
            upper: elbow.origin.z,
            lower: wrist.origin.z,
            hand: roll.origin.z + tool.offset.z,
        })
    }

    /// Joints that bring the tool to `point`, the hand as steep as it reaches; `None` if it does not.
    #[must_use]
    pub fn solve(&self, joints: &[Joint], point: Vec3) -> Option<Stance> {
        let mut pitch = DOWN;
        let mut steep = None;
        while pitch > FLATTEST {
            if let Some(mut best) = self.at_pitch(joints, point, pitch) {
                // The steepest lies between this one and the last that did not reach.
                if let Some(mut not) = steep {
                    for _ in 0..HALVINGS {
                        let middle = (best.pitch + not) / 2.0;
                        match self.at_pitch(joints, point, middle) {
                            Some(better) => best = better,
                            None => not = middle,
                        }
                    }
                }
                return Some(best);
            }
            steep = Some(pitch);
            pitch -= PITCH_STEP;
        }
        None
    }

    fn at_pitch(&self, joints: &[Joint], point: Vec3, pitch: f32) -> Option<Stance> {
        let (sin, cos) = pitch.sin_cos();
        let out = point.x.hypot(point.y) - self.hand * sin;
        let up = point.z - self.hand * cos - self.shoulder;
        let (upper, lower) = (self.upper, self.lower);
        let bend = (out * out + up * up - upper * upper - lower * lower) / (2.0 * upper * lower);
        if bend.is_nan() || bend.abs() > STRAIGHT {
            return None;
        }
        let elbow = bend.acos();
        let lift = out.atan2(up) - (lower * elbow.sin()).atan2(upper + lower * elbow.cos());
        let stance = Stance { pan: point.y.atan2(point.x), links: [lift, elbow, pitch - lift - elbow], pitch };
        let mut set = std::iter::once(stance.pan).chain(stance.links).zip(joints);
        set.all(|(angle, joint)| (joint.limits_rad[0]..=joint.limits_rad[1]).contains(&angle)).then_some(stance)
    }

    /// Whether the arm can reach over, grasp and lift an object that lies there, and put another one on it.
    #[must_use]
    pub fn serves(&self, joints: &[Joint], gripper: Option<&Gripper>, shape: &Shape, pose: &Pose) -> bool {
        let top = pose.position.z + shape.top();
        let heights = [grip_height(gripper, shape, pose), top + ABOVE_M, top + CARRY_M];
        let [steepest, flattest] = [DOWN, LAID_FLATTEST];
        heights.into_iter().all(|z| {
            let stance = self.solve(joints, vec3(pose.position.x, pose.position.y, z));
            stance.is_some_and(|stance| (flattest..=steepest).contains(&stance.pitch))
        })
    }
}

/// Height of the tool when the jaws grasp an object: that of its middle, with the jaws' tips off what it stands on.
pub(super) fn grip_height(gripper: Option<&Gripper>, shape: &Shape, pose: &Pose) -> f32 {
    let bottom = pose.position.z - shape.lift();
    let tips = gripper.map_or(0.0, |_| super::TIPS_M);
    pose.position.z.max(bottom + tips)
}

/// The angle from -π/2 to π/2 by which a line of azimuth `a` differs from one of azimuth `b`, in radians.
pub(super) fn line_error(a: f32, b: f32) -> f32 {
    let turn = (a - b).rem_euclid(PI);
    if turn > FRAC_PI_2 { turn - PI } else { turn }
}
