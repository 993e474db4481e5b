//! The gripper's geometry: the room between the jaws, and how wide an object is there.

use std::f32::consts::FRAC_PI_2;

use super::math::{Pose, Rotation, Vec3, vec3};
use super::{Scene, Shape};

/// A gripper with one jaw fixed to the hand and one that turns about the hand's x axis; positive angles close it. The
/// hand is the link before the moving jaw's joint. Its x axis points along the jaws' edges, y from the fixed jaw to the
/// moving one, z towards the tips.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Gripper {
    /// Index of the moving jaw's joint.
    pub joint: usize,
    /// y of the fixed jaw's inner face in the hand's system, in metres.
    pub fixed_face: f32,
    /// y of the moving jaw's inner face in its joint's system, in metres.
    pub moving_face: f32,
    /// Half the jaws' width along x, in metres.
    pub half_width: f32,
    /// z in the hand's system where the room between the jaws begins and ends, in metres.
    pub depth: [f32; 2],
    /// The moving jaw's angle when it is open for a grasp, in radians.
    pub open_rad: f32,
    /// The moving jaw's angle that closes on any object, in radians.
    pub closed_rad: f32,
}

impl Gripper {
    /// y of the moving jaw's inner face in the hand's system at height `z` there, with the jaw at `angle` radians.
    pub(super) fn moving_face_at(&self, scene: &Scene, angle: f32, z: f32) -> f32 {
        let origin = scene.joints().get(self.joint).map_or(Vec3::ZERO, |joint| joint.origin);
        let (sin, cos) = angle.sin_cos();
        origin.y + self.moving_face * cos - (z - origin.z) * sin
    }

    /// Room between the jaws at height `z` in the hand's system, in metres; negative if the jaw is past the fixed one.
    #[must_use]
    pub fn gap(&self, scene: &Scene, angle: f32, z: f32) -> f32 {
        self.moving_face_at(scene, angle, z) - self.fixed_face
    }

    /// The angle at which the gap at height `z` is `width` metres, within the jaw's range.
    #[must_use]
    pub fn angle_of(&self, scene: &Scene, width: f32, z: f32) -> f32 {
        let limits = scene.joints().get(self.joint).map_or([0.0; 2], |joint| joint.limits_rad);
        let [mut open, mut closed] = [limits[0].max(-FRAC_PI_2), limits[1].min(FRAC_PI_2)];
        for _ in 0..24 {
            let middle = (open + closed) / 2.0;
            let bound = if self.gap(scene, middle, z) > width { &mut open } else { &mut closed };
            *bound = middle;
        }
        (open + closed) / 2.0
    }

    /// Whether the point `p` of the hand's system lies between the jaws with the moving one at `angle`.
    pub(super) fn holds_point(&self, scene: &Scene, angle: f32, p: Vec3) -> bool {
        self.reaches(p) && (self.fixed_face..=self.moving_face_at(scene, angle, p.z)).contains(&p.y)
    }

    /// Whether the point `p` of the hand's system lies in the plane in which the jaws close, as far as they reach.
    pub(super) fn reaches(&self, p: Vec3) -> bool {
        p.x.abs() <= self.half_width && (self.depth[0]..=self.depth[1]).contains(&p.z)
    }
}

impl Shape {
    /// Height of the shape's origin over what it stands on, in metres.
    #[must_use]
    pub fn lift(&self) -> f32 {
        match *self {
            Shape::Box { size } => size.z / 2.0,
            Shape::Cylinder { height, .. } => height / 2.0,
            Shape::Sphere { radius } => radius,
            Shape::Capsule { from, to, radius } => radius - from.z.min(to.z),
        }
    }

    /// Height of the shape's top over its origin, in metres.
    #[must_use]
    pub fn top(&self) -> f32 {
        match *self {
            Shape::Capsule { from, to, radius } => radius + from.z.max(to.z),
            _ => self.lift(),
        }
    }

    /// How far the shape reaches sideways from its origin, in metres.
    #[must_use]
    pub fn reach(&self) -> f32 {
        match *self {
            Shape::Box { size } => size.x.hypot(size.y) / 2.0,
            Shape::Cylinder { radius, .. } | Shape::Sphere { radius } => radius,
            Shape::Capsule { from, to, radius } => from.x.hypot(from.y).max(to.x.hypot(to.y)) + radius,
        }
    }

    /// Width of the upright shape along the horizontal direction `along`, in metres.
    #[must_use]
    pub fn width(&self, pose: &Pose, along: Vec3) -> f32 {
        let level = vec3(along.x, along.y, 0.0).normalized();
        match *self {
            Shape::Box { size } => {
                let turned = upright(pose.rotation);
                turned.x.dot(level).abs() * size.x + turned.y.dot(level).abs() * size.y
            }
            _ => 2.0 * self.reach(),
        }
    }

    /// Whether something can stand on the shape at the point `p` of the world, above or below its top.
    pub(super) fn carries(&self, pose: &Pose, p: Vec3) -> bool {
        let local = pose.unapply(vec3(p.x, p.y, pose.position.z));
        match *self {
            Shape::Box { size } => local.x.abs() <= size.x / 2.0 && local.y.abs() <= size.y / 2.0,
            Shape::Cylinder { radius, .. } => local.x.hypot(local.y) <= radius,
            Shape::Sphere { .. } | Shape::Capsule { .. } => false,
        }
    }

    /// The shape with all lengths times `factor`.
    pub(super) fn scaled(&self, factor: f32) -> Self {
        match *self {
            Shape::Box { size } => Shape::Box { size: size * factor },
            Shape::Cylinder { radius, height } => Shape::Cylinder { radius: radius * factor, height: height * factor },
            Shape::Sphere { radius } => Shape::Sphere { radius: radius * factor },
            Shape::Capsule { from, to, radius } => {
                Shape::Capsule { from: from * factor, to: to * factor, radius: radius * factor }
            }
        }
    }
}

/// The turn about the vertical that is nearest to `rotation`.
pub(super) fn upright(rotation: Rotation) -> Rotation {
    Rotation::about(Vec3::UP, yaw(rotation))
}

/// Azimuth of the x axis of `rotation`, in radians.
pub(super) fn yaw(rotation: Rotation) -> f32 {
    rotation.x.y.atan2(rotation.x.x)
}
