//! The state of a scene: where joints and objects are, and what the gripper holds.

use std::sync::Arc;

use super::error::SceneError;
use super::gripper::upright;
use super::math::{Pose, Vec3, vec3};
use super::{Object, Scene};

/// A movement is divided into steps in which no joint moves further than this, in radians.
const STEP_RAD: f32 = 0.04;
/// Most steps of one movement.
const STEPS: f32 = 64.0;
/// A gap wider than the held object by this releases it, in metres: jaws and object give a little.
const SLACK: f32 = 0.004;
/// An object that was lowered into what carries it by up to this much stands on it, in metres.
const SINK: f32 = 0.012;
/// An object this close to what carries it stands on it, in metres.
const TOUCH: f32 = 0.002;

/// An object in the gripper.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Held {
    /// Index of the object.
    pub object: usize,
    /// Its pose in the hand's system.
    pub grasp: Pose,
    /// Its width between the jaws, in metres.
    pub width: f32,
    /// The moving jaw's angle at that width, beyond which it cannot close, in radians.
    pub stop_rad: f32,
    /// Height of the object's origin where it stood before, in metres.
    pub stood_z: f32,
}

/// A scene with its joints, objects and gripper at a moment.
///
/// It is kinematic: nothing has weight or speed. Jaws that close round an object whose middle lies between them carry it;
/// opened, it stands upright on what is below it. The same movements give the same state on every machine.
#[derive(Debug, Clone)]
pub struct World {
    scene: Arc<Scene>,
    /// Positions that the joints were given, in radians.
    given: Vec<f32>,
    /// Positions of the joints, which differ from `given` where the jaw is stopped by an object.
    joints: Vec<f32>,
    objects: Vec<Pose>,
    held: Option<Held>,
    /// The object between the open jaws.
    between: Option<usize>,
    /// Scratch of one step.
    step: Vec<f32>,
}

impl World {
    /// The scene as it was laid out, its joints at their initial positions.
    #[must_use]
    pub fn new(scene: Arc<Scene>) -> Self {
        let joints: Vec<f32> = scene.initial_positions().collect();
        let objects = scene.objects().iter().map(|object| object.pose).collect();
        let (given, step) = (joints.clone(), joints.clone());
        Self { scene, given, joints, objects, held: None, between: None, step }
    }

    /// The scene.
    #[must_use]
    pub fn scene(&self) -> &Arc<Scene> {
        &self.scene
    }

    /// Positions of the joints in radians. The moving jaw stops at the held object's width.
    #[must_use]
    pub fn joints(&self) -> &[f32] {
        &self.joints
    }

    /// Poses of the scene's objects in the world.
    #[must_use]
    pub fn objects(&self) -> &[Pose] {
        &self.objects
    }

    /// What the gripper holds.
    #[must_use]
    pub fn held(&self) -> Option<&Held> {
        self.held.as_ref()
    }

    /// Puts the joints at `positions` (radians) at once, without anything in between: nothing is grasped on the way, and
    /// what was held falls.
    ///
    /// # Errors
    /// [`SceneError::JointCount`] and [`SceneError::JointPosition`].
    pub fn place(&mut self, positions: &[f32]) -> Result<(), SceneError> {
        self.scene.check_positions(positions)?;
        self.held = None;
        self.between = None;
        self.given.copy_from_slice(positions);
        self.settle();
        self.move_to(positions)
    }

    /// Moves the joints straight from their last positions to `positions` (radians), and with them what is held.
    ///
    /// # Errors
    /// [`SceneError::JointCount`] and [`SceneError::JointPosition`].
    pub fn advance(&mut self, positions: &[f32]) -> Result<(), SceneError> {
        self.scene.check_positions(positions)?;
        let way = self.given.iter().zip(positions).map(|(from, to)| (to - from).abs()).fold(0.0, f32::max);
        let steps = (way / STEP_RAD).ceil().clamp(1.0, STEPS) as u32;
        let mut step = std::mem::take(&mut self.step);
        for index in 1..=steps {
            let share = index as f32 / steps as f32;
            step.clear();
            step.extend(self.given.iter().zip(positions).map(|(from, to)| from + (to - from) * share));
            if index == steps {
                step.copy_from_slice(positions);
            }
            self.move_to(&step)?;
        }
        self.step = step;
        self.given.copy_from_slice(positions);
        Ok(())
    }

    /// Top of the object of index `object` in the world: its middle, at its greatest height.
    #[must_use]
    pub fn top_of(&self, object: usize) -> Option<Vec3> {
        let (pose, shape) = (self.objects.get(object)?, &self.scene.objects().get(object)?.shape);
        Some(pose.position + vec3(0.0, 0.0, shape.top()))
    }

    /// Whether the object of index `object` stands on the one of index `target` and is not held.
    #[must_use]
    pub fn rests_on(&self, object: usize, target: usize) -> bool {
        let held = self.held.is_some_and(|held| held.object == object || held.object == target);
        let (Some(pose), Some(below)) = (self.objects.get(object), self.objects.get(target)) else { return false };
        let scene = &self.scene;
        let (Some(upper), Some(lower)) = (scene.objects().get(object), scene.objects().get(target)) else {
            return false;
        };
        let bottom = pose.position.z - upper.shape.lift();
        let top = below.position.z + lower.shape.top();
        !held && object != target && (bottom - top).abs() <= TOUCH && lower.shape.carries(below, pose.position)
    }

    /// The hand's pose in the world, if the scene has a gripper.
    pub(super) fn hand(&self) -> Option<Pose> {
        let gripper = self.scene.gripper()?;
        self.scene.link_pose(gripper.joint.checked_sub(1), &self.joints).ok()
    }

    /// One small step of the joints.
    fn move_to(&mut self, positions: &[f32]) -> Result<(), SceneError> {
        self.joints.copy_from_slice(positions);
        let scene = Arc::clone(&self.scene);
        let Some(gripper) = scene.gripper() else { return Ok(()) };
        let hand = scene.link_pose(gripper.joint.checked_sub(1), positions)?;
        let angle = positions.get(gripper.joint).copied().unwrap_or(0.0);
        if let Some(held) = self.held {
            if gripper.gap(&scene, angle, held.grasp.position.z) > held.width + SLACK {
                self.held = None;
                self.settle();
            } else {
                if let Some(pose) = self.objects.get_mut(held.object) {
                    *pose = hand.then(held.grasp);
                }
                if let Some(jaw) = self.joints.get_mut(gripper.joint) {
                    *jaw = jaw.min(held.stop_rad);
                }
            }
        } else {
            self.close_round(hand, angle);
        }
        Ok(())
    }

    /// What the jaws do to the objects: the one between them is pushed by either, and carried once they have closed on it.
    fn close_round(&mut self, hand: Pose, angle: f32) {
        let scene = Arc::clone(&self.scene);
        let Some(gripper) = scene.gripper() else { return };
        let mut between = None;
        let mut moved = false;
        for (index, (object, pose)) in scene.objects().iter().zip(&mut self.objects).enumerate() {
            let middle = hand.unapply(pose.position);
            let width = object.shape.width(pose, hand.rotation.y);
            // The middle of one that the jaws have just pinched may lie a little beyond the jaw's face.
            let pinching = self.between == Some(index) && gripper.reaches(middle);
            if !pinching && !gripper.holds_point(&scene, angle, middle) {
                continue;
            }
            let face = gripper.moving_face_at(&scene, angle, middle.z);
            let gap = face - gripper.fixed_face;
            let fits = gap > width;
            let pinched = !fits && pinching;
            let y = match fits {
                true => middle.y.clamp(gripper.fixed_face + width / 2.0, face - width / 2.0),
                false if pinched => gripper.fixed_face + width / 2.0,
                false => continue,
            };
            let push = hand.rotation.y * (y - middle.y);
            if y != middle.y {
                pose.position = pose.position + vec3(push.x, push.y, 0.0);
                moved = true;
            }
            if pinched {
                let grasp = Pose {
                    rotation: hand.rotation.inverse().after(pose.rotation),
                    position: hand.unapply(pose.position),
                };
                let stop_rad = gripper.angle_of(&scene, width, grasp.position.z);
                if let Some(jaw) = self.joints.get_mut(gripper.joint) {
                    *jaw = jaw.min(stop_rad);
                }
                let stood_z = pose.position.z;
                self.held = Some(Held { object: index, grasp, width, stop_rad, stood_z });
                between = None;
                break;
            }
            between = Some(index);
        }
        self.between = between;
        if moved {
            self.settle();
        }
    }

    /// Lets every object that is not held stand upright on what is below it.
    fn settle(&mut self) {
        let scene = Arc::clone(&self.scene);
        let held = self.held.map(|held| held.object);
        // An object can stand on one that has settled itself: as many rounds as there are objects.
        for _ in 0..scene.objects().len() {
            let mut moved = false;
            for (index, object) in scene.objects().iter().enumerate().filter(|(index, _)| Some(*index) != held) {
                let Some(mut pose) = self.objects.get(index).copied() else { continue };
                pose.rotation = upright(pose.rotation);
                let bottom = pose.position.z - object.shape.lift();
                let support = self.support(index, object, pose.position, bottom + SINK);
                pose.position.z = support + object.shape.lift();
                if let Some(old) = self.objects.get_mut(index)
                    && *old != pose
                {
                    moved |= (old.position - pose.position).length() > 1e-6;
                    *old = pose;
                }
            }
            if !moved {
                break;
            }
        }
    }

    /// Height of the highest thing below `most` that carries the object of index `index` at `at`.
    fn support(&self, index: usize, object: &Object, at: Vec3, most: f32) -> f32 {
        let (scene, held) = (&self.scene, self.held.map(|held| held.object));
        let table = scene.table();
        let on_table = (at.x - table.center[0]).abs() <= table.size[0] / 2.0
            && (at.y - table.center[1]).abs() <= table.size[1] / 2.0;
        // What fell beside the table stays on the floor; what is on the table never sinks through it.
        let fell = at.z - object.shape.lift() < -table.thickness;
        let mut height = if on_table && !fell { 0.0 } else { table.floor };
        for pedestal in scene.pedestals() {
            let top = pedestal.pose.position.z + pedestal.shape.top();
            if top <= most && pedestal.shape.carries(&pedestal.pose, at) {
                height = height.max(top);
            }
        }
        let others = scene.objects().iter().zip(&self.objects).enumerate();
        for (_, (other, pose)) in others.filter(|(other, _)| *other != index && Some(*other) != held) {
            let top = pose.position.z + other.shape.top();
            if top <= most && other.shape.carries(pose, at) {
                height = height.max(top);
            }
        }
        height
    }
}
