//! How a seed lays a scene's objects on the table.

use super::file::ObjectEntry;
use super::math::{Pose, Rotation, Vec3, vec3};
use super::{Object, Shape};

/// Room that is kept between objects, in metres.
const GAP: f32 = 0.012;
/// Places tried for an object before the last one is taken.
const TRIES: usize = 64;

/// Places the objects on the table, apart from each other where the ranges allow it.
pub(super) fn lay_out(entries: &[ObjectEntry], seed: u64) -> Vec<Object> {
    let mut random = Random(seed);
    let mut objects: Vec<Object> = Vec::with_capacity(entries.len());
    for entry in entries {
        let [x, y] = entry.position;
        let [dx, dy] = entry.random;
        let (lift, reach) = standing(&entry.shape);
        let mut place = || vec3(x + dx * random.sign(), y + dy * random.sign(), lift);
        let free = |at: Vec3| {
            objects.iter().all(|other| {
                let apart = at - other.pose.position;
                apart.x.hypot(apart.y) >= reach + standing(&other.shape).1 + GAP
            })
        };
        let mut position = place();
        for _ in 1..TRIES {
            if free(position) {
                break;
            }
            position = place();
        }
        let yaw_rad = entry.yaw_rad + entry.random_yaw_rad * random.sign();
        let pose = Pose { rotation: Rotation::about(Vec3::UP, yaw_rad), position };
        let ObjectEntry { name, shape, color, .. } = entry;
        objects.push(Object { name: name.clone(), shape: *shape, color: *color, pose });
    }
    objects
}

/// Height of a shape's origin when it stands on the table, and how far it reaches sideways.
fn standing(shape: &Shape) -> (f32, f32) {
    match *shape {
        Shape::Box { size } => (size.z / 2.0, size.x.hypot(size.y) / 2.0),
        Shape::Cylinder { radius, height } => (height / 2.0, radius),
        Shape::Sphere { radius } => (radius, radius),
        Shape::Capsule { from, to, radius } => {
            let reach = from.x.hypot(from.y).max(to.x.hypot(to.y)) + radius;
            (radius - from.z.min(to.z), reach)
        }
    }
}

/// SplitMix64 (Steele, Lea and Flood, 2014), enough to lay a table.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from -1 to below 1.
    fn sign(&mut self) -> f32 {
        // The upper 24 bits fill the significand of an f32 exactly.
        (self.next() >> 40) as f32 / (1_u32 << 23) as f32 - 1.0
    }
}
