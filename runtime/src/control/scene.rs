//! What the bench scene knows of a run: the tool's path, what the prompt names, and a picture.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use firmware_bridge::sim::Joints;

use super::camera::CameraThread;
use super::robot::RunError;
use crate::bench::Scene;
use crate::bench::math::Vec3;
use crate::camera::Image;
use crate::config::{CameraSource, RobotConfig};
use crate::picture::{self, Panel};

/// The scene, where the arm is its arm, and the tool's path.
#[derive(Debug)]
pub(super) struct RunScene {
    scene: Option<Arc<Scene>>,
    path: Vec<Vec3>,
    /// Depth maps of the latest inference: name, side, values.
    pub(super) depth: Vec<(String, usize, Vec<f32>)>,
}

/// Points of the path that are kept; beyond it every second one goes.
const POINTS: usize = 20_000;

impl RunScene {
    pub(super) fn new(bench: Option<(Arc<Scene>, Joints)>) -> RunScene {
        RunScene { scene: bench.map(|(scene, _)| scene), path: Vec::new(), depth: Vec::new() }
    }

    /// The arm is at these joint positions.
    pub(super) fn note(&mut self, measured: &[f32]) {
        if let Some(point) = self.scene.as_ref().and_then(|scene| scene.end_effector(measured).ok()) {
            if self.path.len() >= POINTS {
                let mut odd = false;
                self.path.retain(|_| {
                    odd = !odd;
                    odd
                });
            }
            self.path.push(point);
        }
    }

    /// Length of the tool's way in metres.
    pub(super) fn travelled(&self) -> Option<f32> {
        let way = self.path.windows(2).filter_map(|p| p.first().zip(p.last())).map(|(a, b)| (*b - *a).length()).sum();
        self.scene.is_some().then_some(way)
    }

    /// The object that the prompt names, and how near the tool came to it, in metres.
    pub(super) fn target(&self, prompt: Option<&str>) -> Option<(String, f32)> {
        let object = self.scene.as_ref()?.find(prompt?)?;
        let nearest = self.path.iter().map(|p| (*p - object.pose.position).length()).reduce(f32::min)?;
        Some((object.name.clone(), nearest))
    }

    /// One picture of what the cameras saw, the arm's path over it, and the depth map.
    pub(super) fn picture(
        &self,
        path: &Path,
        config: &RobotConfig,
        views: &[String],
        cameras: &[CameraThread],
        measured: &[f32],
    ) -> Result<PathBuf, RunError> {
        let mut panels = Vec::new();
        let mut image = Image::default();
        for (i, (view, camera)) in views.iter().zip(cameras).enumerate() {
            camera.newest(&mut image);
            let mut panel = Panel::of_image(&image);
            let section = config.cameras.iter().find(|c| c.view == *view);
            let drawn = section.is_some_and(|c| matches!(c.source, CameraSource::Bench(_)));
            let camera = self.scene.as_ref().filter(|_| drawn).and_then(|scene| {
                let index = scene.camera_index(view).ok()?;
                scene.view(index, measured).ok()
            });
            // The path is drawn where the camera stands still.
            if let Some(camera) = camera.filter(|_| i == 0) {
                let points = self.path.iter().map(|p| camera.project(*p).map(|at| (at.x, at.y)));
                panel.draw_path(points);
            }
            panels.push(panel);
        }
        for (_, side, values) in &self.depth {
            panels.push(Panel::of_depth(values, *side, *side));
        }
        // The bench scene knows the truth.
        let truth = cameras.first().map(CameraThread::depth).unwrap_or_default();
        if !truth.is_empty() && !self.depth.is_empty() {
            let width = truth.len().isqrt();
            panels.push(Panel::of_depth(&truth, width, truth.len() / width.max(1)));
        }
        picture::write(path, &panels)?;
        Ok(path.to_owned())
    }
}
