//! The scene as a sink of a run's events: the tool's path, the object that the prompt names, and a picture.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use firmware_bridge::sim::Joints;

use super::camera::CameraThread;
use super::error::RunError;
use crate::camera::Image;
use crate::clock::HostNs;
use crate::config::{CameraSource, RobotConfig};
use crate::events::{Inference, LoopEvent};
use crate::picture::{self, Panel};
use crate::scene::math::Vec3;
use crate::scene::{LiveWorld, Progress, Scene};

/// The scene, if the arm is simulated, and the tool's path.
#[derive(Debug)]
pub(super) struct RunScene {
    scene: Option<Arc<Scene>>,
    world: Option<LiveWorld>,
    path: Vec<Vec3>,
    /// Time of the path's last point.
    noted: Option<HostNs>,
    /// The joints' positions.
    measured: Vec<f32>,
    /// The last inference.
    inference: Option<Arc<Inference>>,
}

/// Side of a panel in the picture, in pixels.
const PANEL: usize = 448;
/// Points of the path that are kept; beyond that, every second point is dropped.
const POINTS: usize = 20_000;
/// Time between two points of the path.
const POINT_NS: u64 = 50_000_000;

impl RunScene {
    /// The scene of an arm at the positions `measured`.
    pub(super) fn new(scene: Option<(Arc<Scene>, Joints)>, world: Option<LiveWorld>, measured: Vec<f32>) -> RunScene {
        let scene = scene.map(|(scene, _)| scene);
        RunScene { scene, world, path: Vec::new(), noted: None, measured, inference: None }
    }

    pub(super) fn on(&mut self, event: &LoopEvent) {
        match event {
            LoopEvent::Report { report, received, .. } => {
                report.measured.as_slice().clone_into(&mut self.measured);
                if self.noted.is_none_or(|noted| received.since(noted) >= POINT_NS) {
                    self.noted = Some(*received);
                    self.note();
                }
            }
            LoopEvent::Inferred { inference, .. } => self.inference = Some(Arc::clone(inference)),
            LoopEvent::ClockJumped { .. } => self.noted = None,
            _ => {}
        }
    }

    fn note(&mut self) {
        let Some(point) = self.scene.as_ref().and_then(|scene| scene.end_effector(&self.measured).ok()) else { return };
        if self.path.len() >= POINTS {
            let mut odd = false;
            self.path.retain(|_| {
                odd = !odd;
                odd
            });
        }
        self.path.push(point);
    }

    /// Length of the tool's path in metres.
    pub(super) fn travelled(&self) -> Option<f32> {
        let way = self.path.windows(2).filter_map(|p| p.first().zip(p.last())).map(|(a, b)| (*b - *a).length()).sum();
        self.scene.is_some().then_some(way)
    }

    /// The task that the prompt asks for, and how far the world is from its end.
    pub(super) fn task(&self, prompt: Option<&str>) -> Option<(String, Progress)> {
        let world = self.world.as_ref()?.now();
        let task = self.scene.as_ref()?.task(prompt?).ok()?;
        Some((task.prompt.clone(), world.progress(task).ok()?))
    }

    /// The object that the prompt names, and the tool's smallest distance to it, in metres.
    pub(super) fn target(&self, prompt: Option<&str>) -> Option<(String, f32)> {
        let (scene, prompt) = (self.scene.as_ref()?, prompt?);
        // Of a prompt with two objects, the one that its task moves.
        let of_task = || scene.objects().get(scene.task(prompt).ok()?.object);
        let object = scene.find(prompt).or_else(of_task)?;
        let nearest = self.path.iter().map(|p| (*p - object.pose.position).length()).reduce(f32::min)?;
        Some((object.name.clone(), nearest))
    }

    /// One picture of the cameras' newest images, the arm's path over it, and the depth map.
    pub(super) fn picture(
        &self,
        path: &Path,
        config: &RobotConfig,
        views: &[String],
        cameras: &[CameraThread],
    ) -> Result<PathBuf, RunError> {
        let mut panels = Vec::new();
        let mut image = Image::default();
        for (i, (view, camera)) in views.iter().zip(cameras).enumerate() {
            camera.newest(&mut image);
            let mut panel = Panel::of_image(PANEL, &image);
            let section = config.cameras.iter().find(|c| c.view == *view);
            let drawn = section.is_some_and(|c| matches!(c.source, CameraSource::Scene(_)));
            let camera = self.scene.as_ref().filter(|_| drawn).and_then(|scene| {
                let index = scene.camera_index(view).ok()?;
                scene.view(index, &self.measured).ok()
            });
            // Only the first camera, which does not move, shows the path.
            if let Some(camera) = camera.filter(|_| i == 0) {
                let points = self.path.iter().map(|p| camera.project(*p).map(|at| (at.x, at.y)));
                panel.draw_path(points);
            }
            panels.push(panel);
        }
        let depth = self.inference.as_ref().map(|inference| inference.output.depth.as_slice()).unwrap_or_default();
        // A scene's camera also gives the true depth. The first view's map and the truth have one scale.
        let truth = cameras.first().map(CameraThread::depth).unwrap_or_default();
        let mut known = (!truth.is_empty()).then(|| picture::depth_range(&truth));
        for map in depth {
            let range = known.take().unwrap_or_else(|| picture::depth_range(&map.values));
            panels.push(Panel::of_depth(PANEL, &map.values, map.side, map.side, range));
        }
        if !truth.is_empty() && !depth.is_empty() {
            let width = truth.len().isqrt();
            let range = picture::depth_range(&truth);
            panels.push(Panel::of_depth(PANEL, &truth, width, truth.len() / width.max(1), range));
        }
        picture::write(path, &panels)?;
        Ok(path.to_owned())
    }
}
