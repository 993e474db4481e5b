//! A simulated scene: a small arm over a table with a few objects, drawn in pure Rust.
//!
//! It replaces robot and camera where there are none. A scene file gives joints, limits, cameras and
//! objects, a [`JointSource`] the joint positions. The same scene file, seed and joint positions give
//! the same bytes.

mod camera;
mod check;
mod error;
mod expert;
mod file;
mod gripper;
mod kinematics;
mod layout;
mod live;
pub mod math;
mod random;
mod render;
mod shapes;
mod tasks;
mod trace;
mod world;

use std::path::Path;

use serde::Deserialize;

pub use camera::{FixedJoints, JointSource, SceneCamera};
pub use error::SceneError;
pub use expert::{Arm, Expert, Stance};
use file::SceneFile;
pub use gripper::Gripper;
pub use kinematics::{Projection, View};
pub use live::{LiveWorld, Stop};
use math::{Pose, Vec3};
pub use random::Random;
pub use render::Renderer;
pub use tasks::{LIFT_M, Progress, REACH_ABOVE_M, REACH_WITHIN_M, Task, TaskKind};
pub use world::{Held, World};

/// The scene file that is built in.
const BUILT_IN: &str = include_str!("scene.toml");

/// A solid in its own coordinate system, centred on the origin unless noted.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Shape {
    /// A box along the axes.
    Box {
        /// Whole edge lengths, in metres.
        size: Vec3,
    },
    /// A cylinder along the z axis.
    Cylinder {
        /// Radius in metres.
        radius: f32,
        /// Whole height in metres.
        height: f32,
    },
    /// A ball.
    Sphere {
        /// Radius in metres.
        radius: f32,
    },
    /// A rod with round ends.
    Capsule {
        /// Middle of one end's ball, in metres.
        from: Vec3,
        /// Middle of the other end's ball, in metres.
        to: Vec3,
        /// Radius of rod and balls, in metres.
        radius: f32,
    },
}

/// A coloured solid of the arm.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// The solid.
    pub shape: Shape,
    /// Its origin in the parent's coordinate system, in metres.
    #[serde(default)]
    pub position: Vec3,
    /// sRGB, each part from 0 to 1.
    pub color: Vec3,
}

/// A rotary joint of the arm and the link behind it. Joints form a chain in the order of the file.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Joint {
    /// Name, unique in the scene.
    pub name: String,
    /// Axis of rotation in the system of the link before; of length 1 once read.
    pub axis: Vec3,
    /// The joint's origin in the coordinate system of the previous link, in metres.
    pub origin: Vec3,
    /// Least and greatest position, in radians.
    pub limits_rad: [f32; 2],
    /// Position at the start, in radians.
    pub initial_rad: f32,
    /// Greatest speed, in radians per second.
    pub velocity_limit_rad_s: f32,
    /// Solids of the link, in the joint's system.
    #[serde(default)]
    pub shapes: Vec<Part>,
}

/// The table, whose top is at z = 0, and the floor it stands on.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// Middle of the top, x and y in metres.
    pub center: [f32; 2],
    /// Size of the top, x and y in metres.
    pub size: [f32; 2],
    /// Thickness of the top in metres.
    pub thickness: f32,
    /// sRGB.
    pub color: Vec3,
    /// sRGB of every other square of the top's pattern.
    pub checker_color: Vec3,
    /// Edge of a square of the pattern, in metres.
    pub checker_size: f32,
    /// Height of the floor, negative, in metres.
    pub floor: f32,
    /// sRGB.
    pub floor_color: Vec3,
}

/// The lamp and the light from all around.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Light {
    /// The lamp's position, in metres.
    pub position: Vec3,
    /// The part of the light that comes from all around, 0 to 1.
    pub ambient: f32,
    /// sRGB of the background.
    pub sky_color: Vec3,
}

/// The point of the arm that does the work.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tool {
    /// Index of the joint that carries it.
    pub joint: usize,
    /// Where it lies in that joint's system, in metres.
    pub offset: Vec3,
}

/// Something on the table.
#[derive(Debug, Clone, PartialEq)]
pub struct Object {
    /// Name in plain language, such as "red block"; unique in the scene.
    pub name: String,
    /// The solid.
    pub shape: Shape,
    /// sRGB.
    pub color: Vec3,
    /// Where it lies in the world once the seed has placed it.
    pub pose: Pose,
}

/// A solid under an object, on the table. Nothing moves it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pedestal {
    /// The solid.
    pub shape: Shape,
    /// sRGB.
    pub color: Vec3,
    /// Where it lies in the world.
    pub pose: Pose,
}

/// A camera in the scene file.
#[derive(Debug, Clone, PartialEq)]
pub struct CameraSpec {
    /// Name, unique in the scene.
    pub name: String,
    /// Index of the joint whose system it moves with; `None` for the world.
    pub mount: Option<usize>,
    /// Its pose there: z along the line of sight, x right and y down in the image.
    pub pose: Pose,
    /// Vertical field of view in radians.
    pub vertical_fov_rad: f32,
    /// Width of its image in pixels.
    pub width: u32,
    /// Height of its image in pixels.
    pub height: u32,
}

/// A scene that was read, checked and laid out by a seed.
#[derive(Debug, Clone, PartialEq)]
pub struct Scene {
    name: String,
    table: Table,
    light: Light,
    base: Vec<Part>,
    joints: Vec<Joint>,
    tool: Tool,
    gripper: Option<Gripper>,
    objects: Vec<Object>,
    pedestals: Vec<Pedestal>,
    tasks: Vec<Task>,
    cameras: Vec<CameraSpec>,
}

impl Scene {
    /// The built-in scene, its objects placed by `seed`.
    ///
    /// # Errors
    /// None in a release: a test reads the built-in file.
    pub fn built_in(seed: u64) -> Result<Self, SceneError> {
        Self::from_toml(BUILT_IN, "built-in scene", seed)
    }

    /// Reads the scene file at `path`, and places its objects by `seed`.
    ///
    /// # Errors
    /// [`SceneError::Read`], and those of [`Scene::from_toml`].
    pub fn load(path: &Path, seed: u64) -> Result<Self, SceneError> {
        let file = path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(text) => Self::from_toml(&text, &file, seed),
            Err(source) => Err(SceneError::Read { file, source }),
        }
    }

    /// Reads a scene from the text of a scene file; `file` is its name in errors.
    ///
    /// [`SceneError::Parse`] for unknown, missing or mistyped keys, [`SceneError::Value`] for invalid values. Both name
    /// the key.
    pub fn from_toml(text: &str, file: &str, seed: u64) -> Result<Self, SceneError> {
        let parsed: SceneFile = toml::from_str(text)
            .map_err(|source| SceneError::Parse { file: file.to_owned(), source: Box::new(source) })?;
        parsed.into_scene(file, seed)
    }

    /// The text of the built-in scene file, as a template.
    #[must_use]
    pub fn built_in_text() -> &'static str {
        BUILT_IN
    }

    /// The scene's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The arm's joints from the foot to the hand.
    #[must_use]
    pub fn joints(&self) -> &[Joint] {
        &self.joints
    }

    /// The solids of the arm's foot, in the world.
    #[must_use]
    pub fn base(&self) -> &[Part] {
        &self.base
    }

    /// Positions of all joints at the start, in radians.
    pub fn initial_positions(&self) -> impl Iterator<Item = f32> + '_ {
        self.joints.iter().map(|joint| joint.initial_rad)
    }

    /// The point that does the work.
    #[must_use]
    pub fn tool(&self) -> Tool {
        self.tool
    }

    /// The gripper, if the arm has one.
    #[must_use]
    pub fn gripper(&self) -> Option<&Gripper> {
        self.gripper.as_ref()
    }

    /// What some of the objects stand on.
    #[must_use]
    pub fn pedestals(&self) -> &[Pedestal] {
        &self.pedestals
    }

    /// The same scene with images of `side` × `side` pixels from every camera.
    #[must_use]
    pub fn with_image_side(mut self, side: u32) -> Self {
        for camera in &mut self.cameras {
            (camera.width, camera.height) = (side, side);
        }
        self
    }

    /// The objects on the table, where the seed has placed them.
    #[must_use]
    pub fn objects(&self) -> &[Object] {
        &self.objects
    }

    /// The cameras.
    #[must_use]
    pub fn cameras(&self) -> &[CameraSpec] {
        &self.cameras
    }

    /// The table.
    #[must_use]
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// The light.
    #[must_use]
    pub fn light(&self) -> &Light {
        &self.light
    }

    /// Index of the camera of this name.
    ///
    /// # Errors
    /// [`SceneError::Camera`], which lists the cameras that there are.
    pub fn camera_index(&self, name: &str) -> Result<usize, SceneError> {
        let index = self.cameras.iter().position(|camera| camera.name == name);
        index.ok_or_else(|| self.unknown_camera(name))
    }

    fn unknown_camera(&self, name: &str) -> SceneError {
        let known: Vec<&str> = self.cameras.iter().map(|camera| camera.name.as_str()).collect();
        SceneError::Camera { name: name.to_owned(), known: known.join(", ") }
    }

    /// The object that a prompt such as "reach for the red block" names: the one with the most words of its name in the
    /// prompt. `None` if there is none, or if two have equally many.
    #[must_use]
    pub fn find(&self, prompt: &str) -> Option<&Object> {
        let spoken = words(prompt);
        let score = |object: &Object| words(&object.name).iter().filter(|word| spoken.contains(word)).count();
        let best = self.objects.iter().map(score).max().filter(|best| *best > 0)?;
        let mut found = self.objects.iter().filter(|object| score(object) == best);
        let object = found.next()?;
        found.next().is_none().then_some(object)
    }
}

/// The words of a text, in lower case.
fn words(text: &str) -> Vec<String> {
    text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).map(str::to_lowercase).collect()
}
