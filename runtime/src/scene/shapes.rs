//! Rays against the solids of a scene.

use super::Shape;
use super::math::{Pose, Rotation, Vec3, vec3};

/// A ray; `direction` need not be of length 1, distances along the ray count in its lengths.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ray {
    pub(super) origin: Vec3,
    pub(super) direction: Vec3,
}

impl Ray {
    pub(super) fn at(&self, t: f32) -> Vec3 {
        self.origin + self.direction * t
    }
}

/// The point at which a ray enters a solid.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hit {
    /// Parameter along the ray.
    pub(super) t: f32,
    /// Outward normal in the world, of length 1.
    pub(super) normal: Vec3,
}

/// A solid in the world.
#[derive(Debug, Clone, Copy)]
pub(super) struct Solid {
    kind: Kind,
    /// Its system in the world. A capsule's z axis is its rod.
    pose: Pose,
    /// Radius of the ball about the position that holds the solid.
    pub(super) bound: f32,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Box { half_size: Vec3 },
    Cylinder { radius: f32, half_size: f32 },
    Sphere { radius: f32 },
    Capsule { radius: f32, half_size: f32 },
}

impl Solid {
    /// The shape in the system `pose`.
    pub(super) fn new(shape: &Shape, pose: Pose) -> Self {
        let (kind, pose, bound) = match *shape {
            Shape::Box { size } => {
                let half_size = size * 0.5;
                (Kind::Box { half_size }, pose, half_size.length())
            }
            Shape::Cylinder { radius, height } => {
                let half_size = height / 2.0;
                (Kind::Cylinder { radius, half_size }, pose, radius.hypot(half_size))
            }
            Shape::Sphere { radius } => (Kind::Sphere { radius }, pose, radius),
            Shape::Capsule { from, to, radius } => {
                let half_size = (to - from).length() / 2.0;
                let along = to - from;
                // Any direction across the rod will do.
                let across = if along.x.abs() < along.y.abs() { vec3(1.0, 0.0, 0.0) } else { vec3(0.0, 1.0, 0.0) };
                let rotation = Rotation::looking(along, across).unwrap_or(Rotation::IDENTITY);
                let inner = Pose { rotation, position: from.lerp(to, 0.5) };
                (Kind::Capsule { radius, half_size }, pose.then(inner), half_size + radius)
            }
        };
        Self { kind, pose, bound }
    }

    /// Middle of the bounding ball.
    pub(super) fn center(&self) -> Vec3 {
        self.pose.position
    }

    /// The point at which the ray first enters the solid from outside, between `near` and `far`.
    #[inline]
    pub(super) fn hit(&self, ray: &Ray, near: f32, far: f32) -> Option<Hit> {
        let to_center = self.center() - ray.origin;
        let along = to_center.dot(ray.direction);
        let length2 = ray.direction.dot(ray.direction);
        let miss2 = to_center.dot(to_center) * length2 - along * along;
        // Most rays miss the bounding ball.
        if miss2 > self.bound * self.bound * length2 {
            return None;
        }
        self.hit_inside(ray, to_center).filter(|hit| hit.t > near && hit.t < far)
    }

    fn hit_inside(&self, ray: &Ray, to_center: Vec3) -> Option<Hit> {
        let local = Ray {
            origin: -self.pose.rotation.unapply(to_center),
            direction: self.pose.rotation.unapply(ray.direction),
        };
        let hit = match self.kind {
            Kind::Box { half_size } => hit_box(&local, half_size),
            Kind::Cylinder { radius, half_size } => hit_cylinder(&local, radius, half_size),
            Kind::Sphere { radius } => hit_sphere(&local, Vec3::ZERO, radius),
            Kind::Capsule { radius, half_size } => hit_capsule(&local, radius, half_size),
        }?;
        Some(Hit { t: hit.t, normal: self.pose.rotation.apply(hit.normal) })
    }
}

fn hit_box(ray: &Ray, half_size: Vec3) -> Option<Hit> {
    let axes = [
        (ray.origin.x, ray.direction.x, half_size.x, vec3(1.0, 0.0, 0.0)),
        (ray.origin.y, ray.direction.y, half_size.y, vec3(0.0, 1.0, 0.0)),
        (ray.origin.z, ray.direction.z, half_size.z, vec3(0.0, 0.0, 1.0)),
    ];
    let mut enter = f32::NEG_INFINITY;
    let mut leave = f32::INFINITY;
    let mut normal = Vec3::ZERO;
    for (origin, direction, half_size, axis) in axes {
        if direction == 0.0 {
            if origin.abs() > half_size {
                return None;
            }
            continue;
        }
        let middle = -origin / direction;
        let reach = half_size / direction.abs();
        if middle - reach > enter {
            enter = middle - reach;
            normal = axis * -direction.signum();
        }
        leave = leave.min(middle + reach);
    }
    (enter <= leave).then_some(Hit { t: enter, normal })
}

/// First root of `a t² + 2 b t + c`.
fn first_root(a: f32, b: f32, c: f32) -> Option<f32> {
    let square = b * b - a * c;
    (square >= 0.0 && a > 0.0).then(|| (-b - square.sqrt()) / a)
}

fn hit_sphere(ray: &Ray, center: Vec3, radius: f32) -> Option<Hit> {
    let origin = ray.origin - center;
    let direction = ray.direction;
    let t = first_root(direction.dot(direction), origin.dot(direction), origin.dot(origin) - radius * radius)?;
    Some(Hit { t, normal: (origin + direction * t) * (1.0 / radius) })
}

/// The parameter at which the ray enters the infinite cylinder about the z axis.
fn hit_tube(ray: &Ray, radius: f32) -> Option<f32> {
    let flat = |v: Vec3| vec3(v.x, v.y, 0.0);
    let (origin, direction) = (flat(ray.origin), flat(ray.direction));
    first_root(direction.dot(direction), origin.dot(direction), origin.dot(origin) - radius * radius)
}

fn side_normal(point: Vec3, radius: f32) -> Vec3 {
    vec3(point.x / radius, point.y / radius, 0.0)
}

fn hit_cylinder(ray: &Ray, radius: f32, half_size: f32) -> Option<Hit> {
    if let Some(t) = hit_tube(ray, radius) {
        let point = ray.at(t);
        if point.z.abs() <= half_size {
            return Some(Hit { t, normal: side_normal(point, radius) });
        }
    }
    // The end that faces the ray's origin.
    let end = half_size * -ray.direction.z.signum();
    let t = (end - ray.origin.z) / ray.direction.z;
    let point = ray.at(t);
    let inside = t.is_finite() && point.x * point.x + point.y * point.y <= radius * radius;
    inside.then_some(Hit { t, normal: vec3(0.0, 0.0, end.signum()) })
}

fn hit_capsule(ray: &Ray, radius: f32, half_size: f32) -> Option<Hit> {
    if let Some(t) = hit_tube(ray, radius) {
        let point = ray.at(t);
        if point.z.abs() <= half_size {
            return Some(Hit { t, normal: side_normal(point, radius) });
        }
    }
    let ends = [vec3(0.0, 0.0, half_size), vec3(0.0, 0.0, -half_size)];
    let hits = ends.into_iter().filter_map(|end| hit_sphere(ray, end, radius));
    hits.min_by(|a, b| a.t.total_cmp(&b.t))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hit(shape: Shape, origin: Vec3, direction: Vec3) -> Option<Hit> {
        Solid::new(&shape, Pose::IDENTITY).hit(&Ray { origin, direction }, 0.0, f32::INFINITY)
    }

    #[test]
    fn rays_enter_solids_where_geometry_says() {
        let down = vec3(0.0, 0.0, -2.0);
        let above = vec3(0.01, 0.02, 1.0);
        let cases = [
            (Shape::Box { size: vec3(0.2, 0.2, 0.4) }, (1.0 - 0.2) / 2.0),
            (Shape::Cylinder { radius: 0.1, height: 0.6 }, (1.0 - 0.3) / 2.0),
            (Shape::Sphere { radius: 0.3 }, (1.0 - (0.09_f32 - 0.0005).sqrt()) / 2.0),
            (
                Shape::Capsule { from: vec3(-0.5, 0.0, 0.0), to: vec3(0.5, 0.0, 0.0), radius: 0.1 },
                (1.0 - (0.01_f32 - 0.0004).sqrt()) / 2.0,
            ),
        ];
        for (shape, expected) in cases {
            let hit = hit(shape, above, down).unwrap();
            assert!((hit.t - expected).abs() < 1e-6, "{shape:?}: {} not {expected}", hit.t);
            assert!(hit.normal.z > 0.9 && (hit.normal.length() - 1.0).abs() < 1e-5, "{shape:?}");
        }
    }

    #[test]
    fn rays_beside_and_behind_miss() {
        let shapes = [
            Shape::Box { size: vec3(0.2, 0.2, 0.2) },
            Shape::Cylinder { radius: 0.1, height: 0.2 },
            Shape::Sphere { radius: 0.1 },
            Shape::Capsule { from: vec3(0.0, 0.0, -0.1), to: vec3(0.0, 0.0, 0.1), radius: 0.1 },
        ];
        for shape in shapes {
            assert!(hit(shape, vec3(0.11, 0.0, 1.0), vec3(0.0, 0.0, -1.0)).is_none(), "{shape:?}");
            assert!(hit(shape, vec3(0.0, 0.0, 1.0), vec3(0.0, 0.0, 1.0)).is_none(), "{shape:?}");
        }
    }
}
