//! A small ray caster: RGB24 images with shadows, and true depth.

use std::sync::Arc;

use super::error::SceneError;
use super::kinematics::View;
use super::math::{Pose, Rotation, Vec3, vec3};
use super::shapes::Solid;
use super::trace::{Balls, Drawn, Paint, Tracer, linear, srgb_table};
use super::{Scene, Shape};

/// Neighbouring pixels whose colours differ by more than this (sum over the three parts of 255
/// each) are drawn again with more rays.
const EDGE: u32 = 20;
/// The rays of such a pixel, within the pixel: a turned square, as graphics cards use.
const SAMPLES: [(f32, f32); 4] = [(0.375, 0.125), (0.875, 0.375), (0.125, 0.625), (0.625, 0.875)];

/// Draws a scene as one of its cameras sees it. Keeps its memory from image to image.
#[derive(Debug)]
pub struct Renderer {
    scene: Arc<Scene>,
    camera: usize,
    width: u32,
    height: u32,
    links: Vec<Pose>,
    drawn: Vec<Drawn>,
    balls: Balls,
    /// Solids that can appear in the row that is drawn.
    row: Vec<usize>,
    /// Pixels to be drawn again, row-major.
    edges: Vec<bool>,
    srgb: Vec<u8>,
}

impl Renderer {
    /// A renderer for the camera of index `camera`.
    ///
    /// # Errors
    /// [`SceneError::Camera`].
    pub fn new(scene: Arc<Scene>, camera: usize) -> Result<Self, SceneError> {
        let initial: Vec<f32> = scene.initial_positions().collect();
        let View { width, height, .. } = scene.view(camera, &initial)?;
        Ok(Self {
            scene,
            camera,
            width,
            height,
            links: Vec::new(),
            drawn: Vec::new(),
            balls: Balls::default(),
            row: Vec::new(),
            edges: vec![false; pixels(width, height)],
            srgb: srgb_table(),
        })
    }

    /// Width and height of the image in pixels.
    #[must_use]
    pub fn size(&self) -> (u32, u32) {
        (self.width, self.height)
    }

    /// Draws the scene with the joints at `positions` (radians).
    ///
    /// * `rgb`: `(height, width, 3)` bytes, sRGB.
    /// * `depth`: `(height, width)` metres along the optical axis to the middle of each pixel, infinite for empty
    ///   pixels.
    ///
    /// # Errors
    /// [`SceneError::JointCount`], [`SceneError::JointPosition`], [`SceneError::Buffer`].
    pub fn render(&mut self, positions: &[f32], rgb: &mut [u8], depth: &mut [f32]) -> Result<(), SceneError> {
        self.draw(positions, None, rgb, depth)
    }

    /// Draws the scene with the joints at `positions` (radians) and its objects at `objects`, in the order of the scene; an
    /// object beyond the last stays where the seed has placed it. `rgb` and `depth` as in [`render`](Self::render).
    ///
    /// # Errors
    /// As [`render`](Self::render).
    pub fn render_with(
        &mut self,
        positions: &[f32],
        objects: &[Pose],
        rgb: &mut [u8],
        depth: &mut [f32],
    ) -> Result<(), SceneError> {
        self.draw(positions, Some(objects), rgb, depth)
    }

    fn draw(
        &mut self,
        positions: &[f32],
        objects: Option<&[Pose]>,
        rgb: &mut [u8],
        depth: &mut [f32],
    ) -> Result<(), SceneError> {
        let (width, height) = (self.width, self.height);
        let count = pixels(width, height);
        for (what, expected, found) in [("pixels", count * 3, rgb.len()), ("depth", count, depth.len())] {
            if found != expected {
                return Err(SceneError::Buffer { what, expected, found, width, height });
            }
        }
        let view = self.scene.view(self.camera, positions)?;
        self.place(positions, objects.unwrap_or_default(), &view)?;
        self.balls.fill(&self.drawn);
        let tracer = Tracer::new(&self.scene, &self.drawn, &self.balls, &self.srgb, view.pose.position);
        let solids = &mut self.row;
        let (rgb, _) = rgb.as_chunks_mut::<3>();
        let row_length = width.max(1) as usize;
        let rows = rgb.chunks_mut(row_length).zip(depth.chunks_mut(row_length));
        for (y, (rgb, depth)) in (0..height).zip(rows) {
            tracer.row(y, solids);
            for (x, (rgb, depth)) in (0..width).zip(rgb.iter_mut().zip(depth)) {
                let direction = view.ray(x as f32 + 0.5, y as f32 + 0.5);
                (*rgb, *depth) = tracer.trace(x, solids, direction);
            }
        }
        mark_edges(rgb, row_length, &mut self.edges);
        let rows = rgb.chunks_mut(row_length).zip(self.edges.chunks(row_length));
        for (y, (rgb, edges)) in (0..height).zip(rows) {
            tracer.row(y, solids);
            for (x, (rgb, edge)) in (0..width).zip(rgb.iter_mut().zip(edges)) {
                if *edge {
                    let mut sum = [2_u32; 3];
                    for (dx, dy) in SAMPLES {
                        let direction = view.ray(x as f32 + dx, y as f32 + dy);
                        let (sample, _) = tracer.trace(x, solids, direction);
                        sum.iter_mut().zip(sample).for_each(|(sum, part)| *sum += u32::from(part));
                    }
                    *rgb = sum.map(|sum| u8::try_from(sum / 4).unwrap_or(u8::MAX));
                }
            }
        }
        Ok(())
    }

    /// Lays out all solids for this pose of the arm.
    fn place(&mut self, positions: &[f32], objects: &[Pose], view: &View) -> Result<(), SceneError> {
        self.scene.link_poses(positions, &mut self.links)?;
        self.drawn.clear();
        let drawn = &mut self.drawn;
        let mut add = |shape: &Shape, pose: Pose, paint: Paint| {
            let solid = Solid::new(shape, pose);
            let [columns, rows] = extent(&solid, view);
            // Solids outside the image are kept for their shadows.
            drawn.push(Drawn { solid, paint, columns, rows });
        };
        let shifted = |position: Vec3| Pose { rotation: Rotation::IDENTITY, position };
        let table = self.scene.table();
        let ([x, y], [width, length]) = (table.center, table.size);
        let corner = vec3(x - width / 2.0, y - length / 2.0, 0.0);
        let colors = [linear(table.color), linear(table.checker_color)];
        add(
            &Shape::Box { size: vec3(width, length, table.thickness) },
            shifted(vec3(x, y, -table.thickness / 2.0)),
            Paint::Checker { colors, corner, size: table.checker_size },
        );
        for part in self.scene.base() {
            add(&part.shape, shifted(part.position), Paint::Plain(linear(part.color)));
        }
        for (joint, link) in self.scene.joints().iter().zip(&self.links) {
            for part in &joint.shapes {
                let pose = link.then(shifted(part.position));
                add(&part.shape, pose, Paint::Plain(linear(part.color)));
            }
        }
        for pedestal in self.scene.pedestals() {
            add(&pedestal.shape, pedestal.pose, Paint::Plain(linear(pedestal.color)));
        }
        for (index, object) in self.scene.objects().iter().enumerate() {
            let pose = objects.get(index).copied().unwrap_or(object.pose);
            add(&object.shape, pose, Paint::Plain(linear(object.color)));
        }
        Ok(())
    }
}

/// Columns and rows of the image in which a solid's bounding ball can appear.
fn extent(solid: &Solid, view: &View) -> [[u32; 2]; 2] {
    let local = view.pose.unapply(solid.center());
    let radius = solid.bound;
    let range = |across: f32, size: u32| -> [u32; 2] {
        // Around the camera, or cutting the plane through it: anywhere.
        if local.z <= radius {
            return if local.z <= -radius { [0, 0] } else { [0, size] };
        }
        // The tangents of the ball's circle in the plane of this axis and the optical one.
        let reach = radius * (across * across + local.z * local.z - radius * radius).sqrt();
        let below = local.z * local.z - radius * radius;
        let pixel = |slope: f32| size as f32 / 2.0 + view.focal * slope;
        let first = pixel((across * local.z - reach) / below).floor() - 1.0;
        let last = pixel((across * local.z + reach) / below).ceil() + 1.0;
        // Cuts to the range of u32.
        [(first as u32).min(size), (last as u32).min(size)]
    };
    [range(local.x, view.width), range(local.y, view.height)]
}

/// Marks the pixels that differ much from the one to the right or below, and those two.
fn mark_edges(rgb: &[[u8; 3]], width: usize, edges: &mut [bool]) {
    edges.fill(false);
    let differ = |a: &[u8; 3], b: &[u8; 3]| {
        let parts = a.iter().zip(b);
        parts.map(|(a, b)| u32::from(a.abs_diff(*b))).sum::<u32>() > EDGE
    };
    for index in 0..rgb.len() {
        let Some(here) = rgb.get(index) else { continue };
        let right = index + 1;
        if right % width != 0 && rgb.get(right).is_some_and(|other| differ(here, other)) {
            mark(edges, index, right);
        }
        let below = index + width;
        if rgb.get(below).is_some_and(|other| differ(here, other)) {
            mark(edges, index, below);
        }
    }
}

fn mark(edges: &mut [bool], one: usize, other: usize) {
    for index in [one, other] {
        if let Some(edge) = edges.get_mut(index) {
            *edge = true;
        }
    }
}

/// Pixels of an image.
fn pixels(width: u32, height: u32) -> usize {
    (width as usize).saturating_mul(height as usize)
}
