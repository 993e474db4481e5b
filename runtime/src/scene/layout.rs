//! How a seed lays a scene's objects on the table.

use super::error::SceneError;
use super::expert::Arm;
use super::file::{ObjectEntry, Sector};
use super::gripper::Gripper;
use super::math::{Pose, Rotation, Vec3, vec3};
use super::random::Random;
use super::{Joint, Object, Pedestal, Shape};

/// Room that is kept between objects, in metres.
const GAP: f32 = 0.012;
/// Places tried for an object before the whole layout is begun again.
const TRIES: usize = 64;
/// Layouts tried before the scene is refused.
const LAYOUTS: usize = 256;
/// A pedestal without a height is one in name only, in metres.
const FLAT: f32 = 1e-4;

/// Objects and pedestals where the seed has put them.
#[derive(Debug, Default)]
pub(super) struct Laid {
    pub(super) objects: Vec<Object>,
    pub(super) pedestals: Vec<Pedestal>,
}

/// What decides whether the arm can do what the tasks ask.
pub(super) struct Reach<'a> {
    pub(super) joints: &'a [Joint],
    pub(super) arm: Option<Arm>,
    pub(super) gripper: Option<&'a Gripper>,
    /// Indices of the objects that tasks name.
    pub(super) named: &'a [usize],
}

impl Reach<'_> {
    /// Whether the arm reaches the object for every task. An arm of another form is not judged.
    fn allows(&self, index: usize, shape: &Shape, pose: &Pose) -> bool {
        match &self.arm {
            Some(arm) if self.named.contains(&index) => arm.serves(self.joints, self.gripper, shape, pose),
            _ => true,
        }
    }
}

/// Places the objects on the table, apart from each other where the ranges allow it, and within reach where a task names
/// them.
pub(super) fn lay_out(entries: &[ObjectEntry], reach: &Reach<'_>, file: &str, seed: u64) -> Result<Laid, SceneError> {
    // A place that fits is needed where the seed may look anywhere for one.
    let strict = entries.iter().any(|entry| entry.sector.is_some());
    let mut missing = "";
    for layout in 0..LAYOUTS as u64 {
        match try_layout(entries, reach, seed, layout, strict) {
            Ok(laid) => return Ok(laid),
            Err(name) => missing = name,
        }
    }
    Err(SceneError::Layout { file: file.to_owned(), seed, object: missing.to_owned(), layouts: LAYOUTS })
}

/// One attempt; the name of the object that has no place if there is none.
fn try_layout<'e>(
    entries: &'e [ObjectEntry],
    reach: &Reach<'_>,
    seed: u64,
    layout: u64,
    strict: bool,
) -> Result<Laid, &'e str> {
    let mut laid = Laid::default();
    for (index, entry) in entries.iter().enumerate() {
        // Looks do not depend on how many places were tried.
        let mut looks = Random::stream(seed, 2 * index as u64 + 1);
        let mut places = Random::stream(seed.wrapping_add(layout << 32), 2 * index as u64 + 2);
        let shape = entry.random_size.map_or(entry.shape, |range| entry.shape.scaled(looks.within(range)));
        let color = jittered(entry.color, entry.random_color, &mut looks);
        let height = entry.pedestal.as_ref().map_or(0.0, |pedestal| {
            let (drawn, height) = (looks.share(), looks.within(pedestal.height_m));
            if drawn < pedestal.probability { height } else { 0.0 }
        });
        let mut place = || {
            let [x, y] = match &entry.sector {
                Some(sector) => within_sector(sector, &mut places),
                None => {
                    let [x, y] = entry.position.unwrap_or_default();
                    let [dx, dy] = entry.random;
                    [x + dx * places.sign(), y + dy * places.sign()]
                }
            };
            let yaw_rad = entry.yaw_rad + entry.random_yaw_rad * places.sign();
            let position = vec3(x, y, height + shape.lift());
            Pose { rotation: Rotation::about(Vec3::UP, yaw_rad), position }
        };
        let free = |pose: &Pose| {
            laid.objects.iter().all(|other| {
                let apart = pose.position - other.pose.position;
                apart.x.hypot(apart.y) >= shape.reach() + other.shape.reach() + GAP
            }) && reach.allows(index, &shape, pose)
        };
        let mut pose = place();
        let mut found = free(&pose);
        for _ in 1..TRIES {
            if found {
                break;
            }
            pose = place();
            found = free(&pose);
        }
        if strict && !found {
            return Err(&entry.name);
        }
        if let Some(pedestal) = entry.pedestal.as_ref().filter(|_| height > FLAT) {
            let shape = pedestal_under(&shape, height);
            let position = vec3(pose.position.x, pose.position.y, height / 2.0);
            laid.pedestals.push(Pedestal { shape, color: pedestal.color, pose: Pose { position, ..pose } });
        }
        laid.objects.push(Object { name: entry.name.clone(), shape, color, pose });
    }
    Ok(laid)
}

/// A place in the sector, every piece of it as likely as any other of its size.
fn within_sector(sector: &Sector, places: &mut Random) -> [f32; 2] {
    let [near, far] = sector.radius_m;
    let radius = places.within([near * near, far * far]).sqrt();
    let angle = places.within(sector.angle_rad);
    [radius * angle.cos(), radius * angle.sin()]
}

/// A solid of this height that is as wide as the object on it.
fn pedestal_under(shape: &Shape, height: f32) -> Shape {
    match *shape {
        Shape::Box { size } => Shape::Box { size: vec3(size.x, size.y, height) },
        _ => Shape::Cylinder { radius: shape.reach(), height },
    }
}

/// The colour, each part moved by up to `range`.
pub(super) fn jittered(color: Vec3, range: f32, looks: &mut Random) -> Vec3 {
    let mut part = |part: f32| (part + range * looks.sign()).clamp(0.0, 1.0);
    vec3(part(color.x), part(color.y), part(color.z))
}
