//! The scene file's format.

use serde::Deserialize;

use super::check::Check;
use super::error::SceneError;
use super::layout::lay_out;
use super::math::Vec3;
use super::{Joint, Light, Part, Scene, Shape, Table, Tool};

/// A scene file; [`Scene`] and its parts document the fields.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SceneFile {
    name: String,
    table: Table,
    light: Light,
    #[serde(default)]
    base: Vec<Part>,
    joints: Vec<Joint>,
    tool: ToolEntry,
    #[serde(default)]
    objects: Vec<ObjectEntry>,
    cameras: Vec<CameraEntry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ToolEntry {
    joint: String,
    offset: Vec3,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ObjectEntry {
    pub(super) name: String,
    pub(super) shape: Shape,
    pub(super) color: Vec3,
    /// x and y of the place on the table, in metres.
    pub(super) position: [f32; 2],
    #[serde(default)]
    pub(super) yaw_rad: f32,
    /// The seed moves the object by up to this much each way in x and y, in metres.
    #[serde(default)]
    pub(super) random: [f32; 2],
    /// The seed turns the object by up to this much each way.
    #[serde(default)]
    pub(super) random_yaw_rad: f32,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CameraEntry {
    pub(super) name: String,
    /// Name of the joint whose system the camera moves with.
    pub(super) mount: Option<String>,
    pub(super) position: Vec3,
    pub(super) look_at: Vec3,
    #[serde(default = "up")]
    pub(super) up: Vec3,
    pub(super) vertical_fov_rad: f32,
    pub(super) width: u32,
    pub(super) height: u32,
}

fn up() -> Vec3 {
    Vec3::UP
}

impl SceneFile {
    /// Checks all values and lays the objects out.
    pub(super) fn into_scene(mut self, file: &str, seed: u64) -> Result<Scene, SceneError> {
        let check = Check { file };
        check.table(&self.table)?;
        check.light(&self.light)?;
        for (index, part) in self.base.iter().enumerate() {
            check.part(&format!("base[{index}]"), part)?;
        }
        check.that(!self.joints.is_empty(), "joints", "empty", "at least one joint")?;
        check.names("joints", self.joints.iter().map(|joint| joint.name.as_str()))?;
        for (index, joint) in self.joints.iter_mut().enumerate() {
            check.joint(&format!("joints[{index}]"), joint)?;
            joint.axis = joint.axis.normalized();
        }
        let joint_index = |key: &str, name: &str| {
            let names: Vec<&str> = self.joints.iter().map(|joint| joint.name.as_str()).collect();
            let expected = format!("the name of a joint: {}", names.join(", "));
            let index = names.iter().position(|known| *known == name);
            index.ok_or_else(|| check.wrong(key, &name, &expected))
        };
        let tool = Tool { joint: joint_index("tool.joint", &self.tool.joint)?, offset: self.tool.offset };
        check.place("tool.offset", tool.offset)?;
        check.that(!self.cameras.is_empty(), "cameras", "empty", "at least one camera")?;
        check.names("cameras", self.cameras.iter().map(|camera| camera.name.as_str()))?;
        let mut cameras = Vec::with_capacity(self.cameras.len());
        for (index, entry) in self.cameras.iter().enumerate() {
            let key = format!("cameras[{index}]");
            let mount = match &entry.mount {
                Some(name) => Some(joint_index(&format!("{key}.mount"), name)?),
                None => None,
            };
            cameras.push(check.camera(&key, entry, mount)?);
        }
        check.names("objects", self.objects.iter().map(|object| object.name.as_str()))?;
        for (index, entry) in self.objects.iter().enumerate() {
            check.object(&format!("objects[{index}]"), entry, &self.table)?;
        }
        let objects = lay_out(&self.objects, seed);
        let Self { name, table, light, base, joints, .. } = self;
        Ok(Scene { name, table, light, base, joints, tool, objects, cameras })
    }
}
