//! Vectors, rotations and rigid poses in three dimensions, in metres and radians.

use std::ops::{Add, Mul, Neg, Sub};

use serde::Deserialize;

/// A point or direction; right-handed, z up in the world.
#[derive(Debug, Clone, Copy, PartialEq, Default, Deserialize)]
#[serde(from = "[f32; 3]")]
pub struct Vec3 {
    /// Forwards, away from the arm's base.
    pub x: f32,
    /// To the left.
    pub y: f32,
    /// Upwards.
    pub z: f32,
}

/// The vector `(x, y, z)`.
#[must_use]
pub const fn vec3(x: f32, y: f32, z: f32) -> Vec3 {
    Vec3 { x, y, z }
}

impl Vec3 {
    /// The origin.
    pub const ZERO: Self = vec3(0.0, 0.0, 0.0);
    /// The direction up.
    pub const UP: Self = vec3(0.0, 0.0, 1.0);

    /// Scalar product.
    #[must_use]
    pub fn dot(self, other: Self) -> f32 {
        self.x * other.x + self.y * other.y + self.z * other.z
    }

    /// Vector product.
    #[must_use]
    pub fn cross(self, other: Self) -> Self {
        vec3(
            self.y * other.z - self.z * other.y,
            self.z * other.x - self.x * other.z,
            self.x * other.y - self.y * other.x,
        )
    }

    /// Length.
    #[must_use]
    pub fn length(self) -> f32 {
        self.dot(self).sqrt()
    }

    /// The vector scaled to length 1; the zero vector stays zero.
    #[must_use]
    pub fn normalized(self) -> Self {
        let length = self.length();
        if length > 0.0 { self * (1.0 / length) } else { self }
    }

    /// Product by component.
    #[must_use]
    pub fn scale(self, other: Self) -> Self {
        vec3(self.x * other.x, self.y * other.y, self.z * other.z)
    }

    /// Whether no component is infinite or not a number.
    #[must_use]
    pub fn is_finite(self) -> bool {
        self.x.is_finite() && self.y.is_finite() && self.z.is_finite()
    }

    /// Linear interpolation from `self` (`t` = 0) to `other` (`t` = 1).
    #[must_use]
    pub fn lerp(self, other: Self, t: f32) -> Self {
        self + (other - self) * t
    }
}

impl From<[f32; 3]> for Vec3 {
    fn from([x, y, z]: [f32; 3]) -> Self {
        vec3(x, y, z)
    }
}

impl Add for Vec3 {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        vec3(self.x + other.x, self.y + other.y, self.z + other.z)
    }
}

impl Sub for Vec3 {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        vec3(self.x - other.x, self.y - other.y, self.z - other.z)
    }
}

impl Neg for Vec3 {
    type Output = Self;
    fn neg(self) -> Self {
        vec3(-self.x, -self.y, -self.z)
    }
}

impl Mul<f32> for Vec3 {
    type Output = Self;
    fn mul(self, factor: f32) -> Self {
        vec3(self.x * factor, self.y * factor, self.z * factor)
    }
}

/// A rotation, as the three axes of the turned coordinate system.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rotation {
    /// Image of the x axis.
    pub x: Vec3,
    /// Image of the y axis.
    pub y: Vec3,
    /// Image of the z axis.
    pub z: Vec3,
}

impl Rotation {
    /// No rotation.
    pub const IDENTITY: Self = Self { x: vec3(1.0, 0.0, 0.0), y: vec3(0.0, 1.0, 0.0), z: vec3(0.0, 0.0, 1.0) };

    /// Turn by `angle_rad` about `axis` (of length 1), right-handed.
    #[must_use]
    pub fn about(axis: Vec3, angle_rad: f32) -> Self {
        let (sin, cos) = angle_rad.sin_cos();
        let turn = |v: Vec3| v * cos + axis.cross(v) * sin + axis * (axis.dot(v) * (1.0 - cos));
        Self { x: turn(Self::IDENTITY.x), y: turn(Self::IDENTITY.y), z: turn(Self::IDENTITY.z) }
    }

    /// The rotation whose z axis points along `forward` and whose y axis points as far against
    /// `up` as it can: a camera with x to the right of the image and y down.
    ///
    /// `None` when the two are parallel or one of them is zero.
    #[must_use]
    pub fn looking(forward: Vec3, up: Vec3) -> Option<Self> {
        let z = forward.normalized();
        let right = z.cross(up);
        if right.length() <= 1e-6 * up.length() {
            return None;
        }
        let x = right.normalized();
        Some(Self { x, y: z.cross(x), z })
    }

    /// The vector `v` of the turned system in the outer one.
    #[must_use]
    pub fn apply(self, v: Vec3) -> Vec3 {
        self.x * v.x + self.y * v.y + self.z * v.z
    }

    /// The vector `v` of the outer system in the turned one.
    #[must_use]
    pub fn unapply(self, v: Vec3) -> Vec3 {
        vec3(self.x.dot(v), self.y.dot(v), self.z.dot(v))
    }

    /// The rotation that undoes this one.
    #[must_use]
    pub fn inverse(self) -> Self {
        let axes = Self::IDENTITY;
        Self { x: self.unapply(axes.x), y: self.unapply(axes.y), z: self.unapply(axes.z) }
    }

    /// First `inner`, then this rotation.
    #[must_use]
    pub fn after(self, inner: Self) -> Self {
        Self { x: self.apply(inner.x), y: self.apply(inner.y), z: self.apply(inner.z) }
    }
}

/// The pose of a coordinate system in an outer one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pose {
    /// Its axes.
    pub rotation: Rotation,
    /// Its origin, in metres.
    pub position: Vec3,
}

impl Pose {
    /// The outer coordinate system itself.
    pub const IDENTITY: Self = Self { rotation: Rotation::IDENTITY, position: Vec3::ZERO };

    /// The point `p` of this system in the outer one.
    #[must_use]
    pub fn apply(self, p: Vec3) -> Vec3 {
        self.position + self.rotation.apply(p)
    }

    /// The point `p` of the outer system in this one.
    #[must_use]
    pub fn unapply(self, p: Vec3) -> Vec3 {
        self.rotation.unapply(p - self.position)
    }

    /// The pose `inner`, given in this system, in the outer one.
    #[must_use]
    pub fn then(self, inner: Self) -> Self {
        Self { rotation: self.rotation.after(inner.rotation), position: self.apply(inner.position) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: Vec3, b: Vec3) -> bool {
        (a - b).length() < 1e-6
    }

    #[test]
    fn a_quarter_turn_about_z_takes_x_to_y() {
        let turn = Rotation::about(Vec3::UP, std::f32::consts::FRAC_PI_2);
        assert!(close(turn.apply(vec3(1.0, 0.0, 0.0)), vec3(0.0, 1.0, 0.0)));
        assert!(close(turn.unapply(vec3(0.0, 1.0, 0.0)), vec3(1.0, 0.0, 0.0)));
        assert!(close(turn.after(turn).apply(vec3(1.0, 2.0, 3.0)), vec3(-1.0, -2.0, 3.0)));
    }

    #[test]
    fn a_camera_looks_along_z_with_y_down() {
        let camera = Rotation::looking(vec3(1.0, 0.0, 0.0), Vec3::UP).unwrap();
        assert!(close(camera.z, vec3(1.0, 0.0, 0.0)));
        assert!(close(camera.x, vec3(0.0, -1.0, 0.0)), "right of forwards is -y");
        assert!(close(camera.y, vec3(0.0, 0.0, -1.0)));
        assert_eq!(Rotation::looking(Vec3::UP, Vec3::UP), None);
    }
}
