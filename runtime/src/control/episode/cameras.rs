//! The images of an episode's cameras, and the errors of depth maps of them.

use std::rc::Rc;

use fathom_models::checkpoint::random;

use crate::camera::{Image, PixelFormat};
use crate::policy::PolicyOutput;
use crate::scene::{Renderer, SceneError, World};

/// A pixel whose point lies this far above the table is of the arm or of an object, in metres.
const RAISED_M: f32 = 0.004;

/// Errors of depth maps, summed up over pixels.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct DepthErrors {
    /// Pixels.
    pub pixels: u64,
    /// Sum of `|map − truth| / truth`.
    pub relative: f64,
    /// Pixels with `max(map / truth, truth / map) < 1.25`.
    pub within_25_percent: u64,
}

impl DepthErrors {
    /// Adds a pixel's depth and its truth, both in metres.
    fn add(&mut self, found: f32, truth: f32) {
        let ratio = (found / truth).max(truth / found);
        self.pixels += 1;
        self.relative += f64::from((found - truth).abs() / truth);
        self.within_25_percent += u64::from(ratio < 1.25);
    }

    /// Adds other errors.
    pub fn merge(&mut self, other: &DepthErrors) {
        self.pixels += other.pixels;
        self.relative += other.relative;
        self.within_25_percent += other.within_25_percent;
    }
}

/// The scene's cameras, and the images of the last request.
pub(super) struct Cameras {
    /// Of each view, the index of the scene's camera.
    pub(super) indices: Vec<usize>,
    pub(super) renderers: Vec<Renderer>,
    pub(super) images: Vec<Image>,
    /// True depth of the first view, in metres.
    pub(super) depth: Vec<f32>,
    /// Standard deviation of the noise, of 255.
    pub(super) noise: f32,
    /// Seed of the next image's noise.
    pub(super) seed: u64,
}

impl Cameras {
    /// Draws the images of a request.
    pub(super) fn draw(&mut self, snapshots: &[Rc<World>]) -> Result<(), SceneError> {
        let views = self.renderers.iter_mut().zip(&mut self.images).zip(snapshots).enumerate();
        for (index, ((renderer, image), snapshot)) in views {
            let (width, height) = renderer.size();
            image.reshape(PixelFormat::Rgb24, width, height);
            let mut depth = vec![0.0; width as usize * height as usize];
            renderer.render_with(snapshot.joints(), snapshot.objects(), &mut image.data, &mut depth)?;
            if index == 0 {
                self.depth = depth;
            }
            if self.noise > 0.0 {
                self.seed = self.seed.wrapping_add(1);
                let noise = random::normal(self.seed, image.data.len());
                for (byte, noise) in image.data.iter_mut().zip(noise) {
                    // Saturates.
                    *byte = (f32::from(*byte) + noise * self.noise).round() as u8;
                }
            }
        }
        Ok(())
    }

    /// Compares the first view's depth map with the truth of its image, which shows `world`, where that is at most `within_m` metres.
    pub(super) fn compare_depth(
        &self,
        output: &PolicyOutput,
        world: &World,
        within_m: f32,
        errors: &mut [DepthErrors; 2],
    ) -> Result<(), SceneError> {
        let (Some(map), Some(renderer), Some(camera)) =
            (output.depth.first(), self.renderers.first(), self.indices.first())
        else {
            return Ok(());
        };
        let view = world.scene().view(*camera, world.joints())?;
        let (width, height) = renderer.size();
        let [all, raised] = errors;
        for (index, found) in map.values.iter().enumerate() {
            // The pixel of the image under the middle of the map's.
            let middle = |at: usize, size: u32| (at as f32 + 0.5) / map.side as f32 * size as f32;
            let (x, y) = (middle(index % map.side, width), middle(index / map.side, height));
            let truth = self.depth.get(y as usize * width as usize + x as usize).copied().unwrap_or(f32::INFINITY);
            if !truth.is_finite() || truth > within_m {
                continue;
            }
            all.add(*found, truth);
            let ray = view.ray(x.floor() + 0.5, y.floor() + 0.5);
            if (view.pose.position + ray * truth).z > RAISED_M {
                raised.add(*found, truth);
            }
        }
        Ok(())
    }
}
