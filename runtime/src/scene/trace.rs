//! Traces rays into a scene; colour and depth of the hits.

use super::Scene;
use super::math::{Vec3, vec3};
use super::shapes::{Hit, Ray, Solid};

/// Shadow rays start this far off the surface, in metres.
const SHADOW_OFFSET: f32 = 1e-4;
/// Entries of the table that turns light into sRGB bytes.
const SRGB_STEPS: usize = 4096;
/// Distance beyond which the floor fades into the sky, in metres.
const FADE: f32 = 6.0;

/// Colours of a surface, linear.
#[derive(Debug, Clone, Copy)]
pub(super) enum Paint {
    Plain(Vec3),
    /// The table's top: squares about a corner.
    Checker {
        colors: [Vec3; 2],
        corner: Vec3,
        size: f32,
    },
    /// The floor, fading into the sky.
    Floor(Vec3),
}

/// A solid with its paint and the part of the image that it can appear in.
#[derive(Debug)]
pub(super) struct Drawn {
    pub(super) solid: Solid,
    pub(super) paint: Paint,
    /// First column and row, and those after the last.
    pub(super) columns: [u32; 2],
    pub(super) rows: [u32; 2],
}

/// Solids whose balls are compared with a ray at once.
const LANES: usize = 8;

/// Bounding balls of the solids, [`LANES`] together.
#[derive(Debug, Default)]
pub(super) struct Balls(Vec<BallGroup>);

#[derive(Debug, Clone, Copy)]
struct BallGroup {
    x: [f32; LANES],
    y: [f32; LANES],
    z: [f32; LANES],
    /// Squares of the radii; negative where there is no ball.
    radius2: [f32; LANES],
}

impl Balls {
    /// Takes the balls of these solids.
    pub(super) fn fill(&mut self, drawn: &[Drawn]) {
        self.0.clear();
        for solids in drawn.chunks(LANES) {
            let mut group = BallGroup { x: [0.0; LANES], y: [0.0; LANES], z: [0.0; LANES], radius2: [-1.0; LANES] };
            let lanes = group.x.iter_mut().zip(&mut group.y).zip(&mut group.z).zip(&mut group.radius2);
            for ((((x, y), z), radius2), Drawn { solid, .. }) in lanes.zip(solids) {
                let center = solid.center();
                (*x, *y, *z, *radius2) = (center.x, center.y, center.z, solid.bound * solid.bound);
            }
            self.0.push(group);
        }
    }
}

impl BallGroup {
    /// Whether the ray from its origin onwards can touch each ball.
    #[inline]
    fn touched(&self, ray: &Ray, length2: f32) -> [bool; LANES] {
        let (origin, direction) = (ray.origin, ray.direction);
        let mut touched = [false; LANES];
        let lanes = self.x.iter().zip(&self.y).zip(&self.z).zip(&self.radius2);
        for (touched, (((x, y), z), radius2)) in touched.iter_mut().zip(lanes) {
            let (x, y, z) = (x - origin.x, y - origin.y, z - origin.z);
            let along = x * direction.x + y * direction.y + z * direction.z;
            let away2 = x * x + y * y + z * z;
            let near = away2 * length2 - along * along <= radius2 * length2;
            *touched = near & ((along >= 0.0) | (away2 <= *radius2));
        }
        touched
    }
}

/// Colours rays.
pub(super) struct Tracer<'a> {
    drawn: &'a [Drawn],
    balls: &'a Balls,
    srgb: &'a [u8],
    eye: Vec3,
    lamp: Vec3,
    ambient: f32,
    sky: Vec3,
    floor: f32,
    floor_color: Vec3,
}

impl<'a> Tracer<'a> {
    pub(super) fn new(scene: &Scene, drawn: &'a [Drawn], balls: &'a Balls, srgb: &'a [u8], eye: Vec3) -> Self {
        let (light, table) = (scene.light(), scene.table());
        Self {
            drawn,
            balls,
            srgb,
            eye,
            lamp: light.position,
            ambient: light.ambient,
            sky: linear(light.sky_color),
            floor: table.floor,
            floor_color: linear(table.floor_color),
        }
    }

    /// Writes the indices of the solids that can appear in row `y` of the image into `row`.
    pub(super) fn row(&self, y: u32, row: &mut Vec<usize>) {
        row.clear();
        let appears = |(_, drawn): &(usize, &Drawn)| drawn.rows[0] <= y && y < drawn.rows[1];
        row.extend(self.drawn.iter().enumerate().filter(appears).map(|(index, _)| index));
    }

    /// Colour and depth of the first hit of the ray through a pixel in column `x` of the row with the solids `row`.
    pub(super) fn trace(&self, x: u32, row: &[usize], direction: Vec3) -> ([u8; 3], f32) {
        let ray = Ray { origin: self.eye, direction };
        let mut nearest = f32::INFINITY;
        let mut seen = None;
        for drawn in row.iter().filter_map(|index| self.drawn.get(*index)) {
            if drawn.columns[0] <= x
                && x < drawn.columns[1]
                && let Some(hit) = drawn.solid.hit(&ray, 0.0, nearest)
            {
                nearest = hit.t;
                seen = Some((hit, drawn.paint));
            }
        }
        let floor = (self.floor - ray.origin.z) / direction.z;
        if floor > 0.0 && floor < nearest {
            nearest = floor;
            let hit = Hit { t: floor, normal: Vec3::UP };
            seen = Some((hit, Paint::Floor(self.floor_color)));
        }
        let light = match seen {
            Some((hit, paint)) => self.shade(&ray, &hit, paint),
            None => self.sky,
        };
        ([light.x, light.y, light.z].map(|part| self.byte(part)), nearest)
    }

    /// Linear light from a hit towards the eye.
    fn shade(&self, ray: &Ray, hit: &Hit, paint: Paint) -> Vec3 {
        let point = ray.at(hit.t);
        let to_lamp = self.lamp - point;
        let toward = to_lamp.normalized();
        let facing = hit.normal.dot(toward);
        let lit = facing > 0.0 && !self.shadowed(point + hit.normal * SHADOW_OFFSET);
        let color = match paint {
            Paint::Plain(color) | Paint::Floor(color) => color,
            Paint::Checker { colors: [one, other], corner, size } => {
                let from = (point - corner) * (1.0 / size);
                let odd = (from.x.floor() as i32 ^ from.y.floor() as i32) & 1 == 1;
                if odd { other } else { one }
            }
        };
        // More of the light from all around comes from above.
        let around = self.ambient * (0.75 + 0.25 * hit.normal.z);
        let direct = if lit { (1.0 - self.ambient) * facing * 1.25 } else { 0.0 };
        let mut light = color * (around + direct);
        if lit && matches!(paint, Paint::Plain(_)) {
            let halfway = (toward - ray.direction.normalized()).normalized();
            let shine = halfway.dot(hit.normal).max(0.0).powi(32) * 0.12;
            light = light + vec3(shine, shine, shine);
        }
        if matches!(paint, Paint::Floor(_)) {
            let part = (hit.t / FADE).min(1.0);
            light = light.lerp(self.sky, part * part);
        }
        light
    }

    fn shadowed(&self, point: Vec3) -> bool {
        let ray = Ray { origin: point, direction: self.lamp - point };
        // The table, which comes first, never shades a point above it from a lamp above it.
        let above = point.z > 0.0 && self.lamp.z > 0.0;
        let first = usize::from(above);
        let length2 = ray.direction.dot(ray.direction);
        for (group, drawn) in self.balls.0.iter().zip(self.drawn.chunks(LANES)).enumerate().map(|(i, both)| {
            let skip = if i == 0 { first } else { 0 };
            (both.0.touched(&ray, length2), both.1.iter().enumerate().skip(skip))
        }) {
            for (lane, drawn) in drawn {
                if group.get(lane).copied().unwrap_or(true) && drawn.solid.hit(&ray, 0.0, 1.0).is_some() {
                    return true;
                }
            }
        }
        false
    }

    fn byte(&self, light: f32) -> u8 {
        // A float turned into an integer is cut to the range, and NaN is 0.
        let step = (light * (SRGB_STEPS - 1) as f32 + 0.5) as usize;
        self.srgb.get(step.min(SRGB_STEPS - 1)).copied().unwrap_or(u8::MAX)
    }
}

/// Linear light of an sRGB colour.
pub(super) fn linear(color: Vec3) -> Vec3 {
    let part = |part: f32| {
        if part <= 0.040_45 { part / 12.92 } else { ((part + 0.055) / 1.055).powf(2.4) }
    };
    vec3(part(color.x), part(color.y), part(color.z))
}

/// The table from which [`Tracer`] takes sRGB bytes.
pub(super) fn srgb_table() -> Vec<u8> {
    let last = (SRGB_STEPS - 1) as f32;
    (0..SRGB_STEPS).map(|step| srgb(step as f32 / last)).collect()
}

/// sRGB byte of linear light.
fn srgb(light: f32) -> u8 {
    let part = if light <= 0.003_130_8 { light * 12.92 } else { 1.055 * light.powf(1.0 / 2.4) - 0.055 };
    (part * 255.0 + 0.5) as u8
}
