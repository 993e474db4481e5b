//! The scene file's format.

use serde::Deserialize;

use super::check::Check;
use super::error::SceneError;
use super::expert::Arm;
use super::layout::{Laid, Reach, jittered, lay_out};
use super::math::{Pose, Rotation, Vec3, vec3};
use super::random::Random;
use super::tasks::{Task, TaskKind};
use super::{CameraSpec, Joint, Light, Part, Scene, Shape, Table, Tool};

/// Purposes of draws beside those of the objects.
const LIGHT: u64 = 1 << 32;
const CAMERAS: u64 = 1 << 33;

/// A scene file; [`Scene`] and its parts document the fields.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SceneFile {
    name: String,
    table: Table,
    light: Light,
    #[serde(default)]
    random_light: RandomLight,
    #[serde(default)]
    base: Vec<Part>,
    joints: Vec<Joint>,
    tool: ToolEntry,
    gripper: Option<GripperEntry>,
    #[serde(default)]
    objects: Vec<ObjectEntry>,
    #[serde(default)]
    tasks: Vec<TaskEntry>,
    cameras: Vec<CameraEntry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ToolEntry {
    joint: String,
    offset: Vec3,
}

/// How far the seed moves the light.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RandomLight {
    /// The lamp's position by up to this much each way, in metres.
    pub(super) position: Vec3,
    /// `ambient` by up to this much each way.
    pub(super) ambient: f32,
    /// Each part of the sky's colour by up to this much each way.
    pub(super) sky_color: f32,
}

/// The gripper; [`Gripper`](super::Gripper) documents the fields.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GripperEntry {
    pub(super) joint: String,
    pub(super) fixed_face: f32,
    pub(super) moving_face: f32,
    pub(super) half_width: f32,
    pub(super) depth: [f32; 2],
    pub(super) open_rad: f32,
    pub(super) closed_rad: f32,
}

/// A part of a ring about the arm's base, on the table.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sector {
    /// Least and greatest distance from the base's axis, in metres.
    pub(super) radius_m: [f32; 2],
    /// Least and greatest azimuth, in radians; 0 is straight ahead.
    pub(super) angle_rad: [f32; 2],
}

/// What an object may stand on.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PedestalEntry {
    /// How likely it is there.
    pub(super) probability: f32,
    /// Least and greatest height, in metres.
    pub(super) height_m: [f32; 2],
    /// sRGB.
    pub(super) color: Vec3,
}

/// Tasks of one kind: one for each object, and each target.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TaskEntry {
    pub(super) kind: TaskKind,
    /// The instruction, with `{object}` and `{target}` for their names.
    pub(super) prompt: String,
    pub(super) objects: Vec<String>,
    #[serde(default)]
    pub(super) targets: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ObjectEntry {
    pub(super) name: String,
    pub(super) shape: Shape,
    pub(super) color: Vec3,
    /// x and y of the place on the table, in metres; or else `sector`.
    pub(super) position: Option<[f32; 2]>,
    /// The seed chooses a place in it.
    pub(super) sector: Option<Sector>,
    #[serde(default)]
    pub(super) yaw_rad: f32,
    /// The seed moves the object by up to this much each way in x and y, in metres.
    #[serde(default)]
    pub(super) random: [f32; 2],
    /// The seed turns the object by up to this much each way.
    #[serde(default)]
    pub(super) random_yaw_rad: f32,
    /// The seed scales the shape by a factor from the first to the second.
    pub(super) random_size: Option<[f32; 2]>,
    /// The seed moves each part of the colour by up to this much each way.
    #[serde(default)]
    pub(super) random_color: f32,
    pub(super) pedestal: Option<PedestalEntry>,
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
    /// The seed moves the camera by up to this much each way along each axis, in millimetres.
    #[serde(default)]
    pub(super) random_position_mm: f32,
    /// The seed turns it by up to this much each way about each of its axes, in degrees.
    #[serde(default)]
    pub(super) random_turn_deg: f32,
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
            let mut camera = check.camera(&key, entry, mount)?;
            displace(&mut camera, entry, &mut Random::stream(seed, CAMERAS + index as u64));
            cameras.push(camera);
        }
        let gripper = match &self.gripper {
            Some(entry) => {
                let joint = joint_index("gripper.joint", &entry.joint)?;
                Some(check.gripper(entry, joint, &self.joints)?)
            }
            None => None,
        };
        check.names("objects", self.objects.iter().map(|object| object.name.as_str()))?;
        for (index, entry) in self.objects.iter().enumerate() {
            check.object(&format!("objects[{index}]"), entry, &self.table)?;
        }
        let tasks = tasks(&check, &self.tasks, &self.objects)?;
        check.random_light(&self.random_light)?;
        let named: Vec<usize> = tasks.iter().flat_map(|task| [Some(task.object), task.target]).flatten().collect();
        let arm = Arm::of(&self.joints, tool);
        let reach = Reach { joints: &self.joints, arm, gripper: gripper.as_ref(), named: &named };
        let Laid { objects, pedestals } = lay_out(&self.objects, &reach, file, seed)?;
        let light = lit(self.light, &self.random_light, seed);
        let Self { name, table, base, joints, .. } = self;
        Ok(Scene { name, table, light, base, joints, tool, gripper, objects, pedestals, tasks, cameras })
    }
}

/// One task for each object, and each target, of each entry.
fn tasks(check: &Check<'_>, entries: &[TaskEntry], objects: &[ObjectEntry]) -> Result<Vec<Task>, SceneError> {
    let mut tasks: Vec<Task> = Vec::new();
    let names: Vec<&str> = objects.iter().map(|object| object.name.as_str()).collect();
    let find = |key: String, name: &str| {
        let index = names.iter().position(|known| *known == name);
        index.ok_or_else(|| check.wrong(&key, &name, &format!("the name of an object: {}", names.join(", "))))
    };
    for (index, entry) in entries.iter().enumerate() {
        let key = format!("tasks[{index}]");
        check.task(&key, entry)?;
        for (i, name) in entry.objects.iter().enumerate() {
            let object = find(format!("{key}.objects[{i}]"), name)?;
            let prompt = entry.prompt.replace("{object}", name);
            let mut add = |prompt: String, target: Option<usize>| {
                let unique = tasks.iter().all(|task| task.prompt != prompt);
                check.that(unique, &format!("{key}.prompt"), &prompt, "a prompt that no other task has")?;
                tasks.push(Task { kind: entry.kind, prompt, object, target });
                Ok(())
            };
            if entry.kind != TaskKind::Place {
                add(prompt, None)?;
                continue;
            }
            for (i, name) in entry.targets.iter().enumerate() {
                let target = find(format!("{key}.targets[{i}]"), name)?;
                let expected = "another object than the one that is placed";
                check.that(target != object, &format!("{key}.targets[{i}]"), name, expected)?;
                add(prompt.replace("{target}", name), Some(target))?;
            }
        }
    }
    Ok(tasks)
}

/// Moves and turns the camera within its tolerances.
fn displace(camera: &mut CameraSpec, entry: &CameraEntry, random: &mut Random) {
    let mut each = |range: f32| vec3(range * random.sign(), range * random.sign(), range * random.sign());
    let (moved, turned) = (each(entry.random_position_mm / 1000.0), each(entry.random_turn_deg.to_radians()));
    if moved == Vec3::ZERO && turned == Vec3::ZERO {
        return;
    }
    let axes = Rotation::IDENTITY;
    let turns = [(axes.x, turned.x), (axes.y, turned.y), (axes.z, turned.z)];
    let rotation = turns
        .into_iter()
        .fold(camera.pose.rotation, |rotation, (axis, angle)| rotation.after(Rotation::about(axis, angle)));
    camera.pose = Pose { rotation, position: camera.pose.position + moved };
}

/// The light, moved by the seed.
fn lit(light: Light, range: &RandomLight, seed: u64) -> Light {
    let mut random = Random::stream(seed, LIGHT);
    let sign = vec3(random.sign(), random.sign(), random.sign());
    Light {
        position: light.position + range.position.scale(sign),
        ambient: (light.ambient + range.ambient * random.sign()).clamp(0.0, 1.0),
        sky_color: jittered(light.sky_color, range.sky_color, &mut random),
    }
}
