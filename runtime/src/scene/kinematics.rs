//! Poses of the arm's links, its tool and the cameras, and the projection of points into an image.

use super::Scene;
use super::error::SceneError;
use super::math::{Pose, Rotation, Vec3, vec3};

/// A camera at a moment: its pose in the world and its image's geometry. A pinhole without
/// distortion, its optical axis through the middle of the image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct View {
    /// In the world: z along the line of sight, x right and y down in the image.
    pub pose: Pose,
    /// Focal length in pixels, both ways.
    pub focal: f32,
    /// Width of the image in pixels.
    pub width: u32,
    /// Height of the image in pixels.
    pub height: u32,
}

/// The projection of a point into an image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Projection {
    /// Pixels from the left edge; the middle of the first pixel is at 0.5. May lie outside.
    pub x: f32,
    /// Pixels from the top edge.
    pub y: f32,
    /// Distance along the optical axis in metres.
    pub depth: f32,
}

impl View {
    /// The point of the image where the world's point `p` appears, hidden or not; `None` when it
    /// lies behind the camera.
    #[must_use]
    pub fn project(&self, p: Vec3) -> Option<Projection> {
        let local = self.pose.unapply(p);
        (local.z > 1e-6).then(|| Projection {
            x: self.width as f32 / 2.0 + self.focal * local.x / local.z,
            y: self.height as f32 / 2.0 + self.focal * local.y / local.z,
            depth: local.z,
        })
    }

    /// The direction in the world of the ray through the point `(x, y)` of the image, its part
    /// along the optical axis of length 1: a hit at ray parameter `t` has depth `t`.
    #[must_use]
    pub fn ray(&self, x: f32, y: f32) -> Vec3 {
        let right = (x - self.width as f32 / 2.0) / self.focal;
        let down = (y - self.height as f32 / 2.0) / self.focal;
        self.pose.rotation.apply(vec3(right, down, 1.0))
    }
}

impl Scene {
    /// Writes the pose in the world of every joint's link into `into`, in the order of the joints.
    ///
    /// `positions` are the joints' positions in radians; limits do not matter here.
    ///
    /// # Errors
    /// [`SceneError::JointCount`] and [`SceneError::JointPosition`].
    pub fn link_poses(&self, positions: &[f32], into: &mut Vec<Pose>) -> Result<(), SceneError> {
        self.check_positions(positions)?;
        into.clear();
        let mut pose = Pose::IDENTITY;
        for (joint, position) in self.joints().iter().zip(positions) {
            let rotation = Rotation::about(joint.axis, *position);
            pose = pose.then(Pose { rotation, position: joint.origin });
            into.push(pose);
        }
        Ok(())
    }

    /// The tool's position in the world, in metres, with the joints at `positions` (radians).
    ///
    /// # Errors
    /// [`SceneError::JointCount`] and [`SceneError::JointPosition`].
    pub fn end_effector(&self, positions: &[f32]) -> Result<Vec3, SceneError> {
        let tool = self.tool();
        Ok(self.link_pose(Some(tool.joint), positions)?.apply(tool.offset))
    }

    /// The camera of index `camera`, with the joints at `positions` (radians).
    ///
    /// # Errors
    /// [`SceneError::Camera`], [`SceneError::JointCount`] and [`SceneError::JointPosition`].
    pub fn view(&self, camera: usize, positions: &[f32]) -> Result<View, SceneError> {
        let Some(camera) = self.cameras().get(camera) else {
            return Err(self.unknown_camera(&camera.to_string()));
        };
        let pose = self.link_pose(camera.mount, positions)?.then(camera.pose);
        let focal = camera.height as f32 / 2.0 / (camera.vertical_fov_rad / 2.0).tan();
        Ok(View { pose, focal, width: camera.width, height: camera.height })
    }

    /// Pose of the link behind joint `joint`, or of the world.
    pub(super) fn link_pose(&self, joint: Option<usize>, positions: &[f32]) -> Result<Pose, SceneError> {
        self.check_positions(positions)?;
        let links = joint.map_or(0, |joint| joint + 1);
        let chain = self.joints().iter().zip(positions).take(links);
        Ok(chain.fold(Pose::IDENTITY, |pose, (joint, position)| {
            let rotation = Rotation::about(joint.axis, *position);
            pose.then(Pose { rotation, position: joint.origin })
        }))
    }

    pub(super) fn check_positions(&self, positions: &[f32]) -> Result<(), SceneError> {
        let expected = self.joints().len();
        if positions.len() != expected {
            return Err(SceneError::JointCount { expected, found: positions.len() });
        }
        match self.joints().iter().zip(positions).find(|(_, position)| !position.is_finite()) {
            Some((joint, value)) => Err(SceneError::JointPosition { joint: joint.name.clone(), value: *value }),
            None => Ok(()),
        }
    }
}
