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

/// Colours rays.
pub(super) struct Tracer<'a> {
    drawn: &'a [Drawn],
    srgb: &'a [u8],
    eye: Vec3,
    lamp: Vec3,
    ambient: f32,
    sky: Vec3,
    floor: f32,
    floor_color: Vec3,
}

impl<'a> Tracer<'a> {
    pub(super) fn new(scene: &Scene, drawn: &'a [Drawn], srgb: &'a [u8], eye: Vec3) -> Self {
        let (light, table) = (scene.light(), scene.table());
        Self {
            drawn,
            srgb,
            eye,
            lamp: light.position,
            ambient: light.ambient,
            sky: linear(light.sky_color),
            floor: table.floor,
            floor_color: linear(table.floor_color),
        }
    }

    /// Colour and depth of the first hit of the ray through the pixel `(x, y)`.
    pub(super) fn trace(&self, x: u32, y: u32, direction: Vec3) -> ([u8; 3], f32) {
        let ray = Ray { origin: self.eye, direction };
        let mut nearest = f32::INFINITY;
        let mut seen = None;
        for drawn in self.drawn {
            let within = |range: [u32; 2], at: u32| range[0] <= at && at < range[1];
            if within(drawn.rows, y)
                && within(drawn.columns, x)
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
        let mut between = self.drawn.iter().skip(usize::from(above));
        between.any(|drawn| drawn.solid.hit(&ray, 0.0, 1.0).is_some())
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
