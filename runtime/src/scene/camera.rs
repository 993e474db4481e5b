//! A scene's camera as a source of images.

use std::sync::Arc;
use std::time::Duration;

use super::Scene;
use super::error::SceneError;
use super::math::Pose;
use super::render::Renderer;
use crate::camera::{Camera, CameraError, Image, PixelFormat, StampSource};
use crate::clock::{Pace, monotonic_ns};

/// The arm's joint positions.
pub trait JointSource: Send + Sync {
    /// Writes the present positions in radians, in the order of the scene's joints.
    ///
    /// `into` holds the scene's initial positions; a joint that this does not write keeps its initial position.
    fn positions(&self, into: &mut [f32]);

    /// Writes the positions of one moment as [`positions`](Self::positions) does, and the objects' poses at that moment.
    ///
    /// `objects` holds the poses of the scene's layout; an object that this does not write stays there.
    fn snapshot(&self, into: &mut [f32], objects: &mut [Pose]) {
        let _ = objects;
        self.positions(into);
    }
}

impl<F: Fn(&mut [f32]) + Send + Sync> JointSource for F {
    fn positions(&self, into: &mut [f32]) {
        self(into);
    }
}

/// An arm that does not move.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct FixedJoints(
    /// Positions in radians; joints beyond the last keep their initial position.
    pub Vec<f32>,
);

impl JointSource for FixedJoints {
    fn positions(&self, into: &mut [f32]) {
        into.iter_mut().zip(&self.0).for_each(|(to, from)| *to = *from);
    }
}

/// One of a scene's cameras, at a steady rate. A [`JointSource`] moves the arm.
///
/// The camera reads the joints at the instant of exposure, which is the image's stamp, and draws afterwards, as a real
/// camera reads out after exposure. A late caller misses images.
pub struct SceneCamera {
    name: String,
    renderer: Renderer,
    joints: Arc<dyn JointSource>,
    initial: Vec<f32>,
    positions: Vec<f32>,
    objects: Vec<Pose>,
    depth: Vec<f32>,
    rate_hz: f32,
    pace: Pace,
}

impl SceneCamera {
    /// The camera named `camera` of the scene, at `rate_hz` images per second. At 0, each call gives an image.
    ///
    /// # Errors
    /// [`SceneError::Camera`].
    pub fn new(
        scene: Arc<Scene>,
        camera: &str,
        joints: Arc<dyn JointSource>,
        rate_hz: f32,
    ) -> Result<Self, SceneError> {
        let index = scene.camera_index(camera)?;
        let name = format!("camera \"{camera}\" of scene \"{}\"", scene.name());
        let initial: Vec<f32> = scene.initial_positions().collect();
        let objects = scene.objects().iter().map(|object| object.pose).collect();
        let renderer = Renderer::new(scene, index)?;
        let (width, height) = renderer.size();
        Ok(Self {
            name,
            renderer,
            joints,
            positions: initial.clone(),
            initial,
            objects,
            depth: vec![f32::INFINITY; width as usize * height as usize],
            rate_hz,
            pace: Pace::new(rate_hz),
        })
    }

    /// The joint positions of the latest image, in radians.
    #[must_use]
    pub fn positions(&self) -> &[f32] {
        &self.positions
    }
}

impl Camera for SceneCamera {
    fn describe(&self) -> String {
        let (width, height) = self.renderer.size();
        let rate = if self.rate_hz > 0.0 { format!("at {} Hz", self.rate_hz) } else { "on request".to_owned() };
        format!("{}: RGB24 {width}×{height} with true depth, {rate}", self.name)
    }

    fn capture(&mut self, into: &mut Image, timeout: Duration) -> Result<(), CameraError> {
        let Some(sequence) = self.pace.wait(timeout) else {
            return Err(CameraError::Silent { device: self.name.clone(), timeout });
        };
        let (width, height) = self.renderer.size();
        into.reshape(PixelFormat::Rgb24, width, height);
        self.positions.copy_from_slice(&self.initial);
        into.stamp_ns = monotonic_ns();
        self.joints.snapshot(&mut self.positions, &mut self.objects);
        self.renderer
            .render_with(&self.positions, &self.objects, &mut into.data, &mut self.depth)
            .map_err(|source| CameraError::Source { device: self.name.clone(), source: source.into() })?;
        into.stamp = StampSource::Host;
        into.dequeued_ns = monotonic_ns();
        into.sequence = sequence;
        Ok(())
    }

    fn true_depth(&self) -> Option<&[f32]> {
        Some(&self.depth)
    }
}
