//! An expert for the scene's tasks: what the arm should do next, from the state of the world alone.
//!
//! Nothing is remembered from one call to the next, so that any state has a label, however it came about: the jaws closed
//! beside the object, another object in the hand, the object dropped on the way. Phases overlap in place of a switch
//! between them: the hand goes down as far as it is aligned.

mod arm;

use std::f32::consts::{FRAC_PI_2, FRAC_PI_4};
use std::sync::Arc;

pub use arm::{Arm, Stance};
use arm::{grip_height, line_error};

use super::error::SceneError;
use super::gripper::{Gripper, yaw};
use super::math::{Pose, Vec3, vec3};
use super::random::Random;
use super::tasks::{REACH_ABOVE_M, Task, TaskKind};
use super::world::{Held, World};
use super::{Scene, Shape};

/// The hand waits this far above an object's top until it is aligned, in metres.
const ABOVE_M: f32 = REACH_ABOVE_M;
/// The tool's height over a top at which objects are carried, in metres.
const CARRY_M: f32 = 0.09;
/// The tool stays this far above what a grasped object stands on, so that the tips do not touch it, in metres.
const TIPS_M: f32 = 0.0145;
/// A picked object is lifted this far, in metres.
const LIFT_M: f32 = 0.07;
/// A carried object's bottom passes this far above the target's top, in metres.
const CLEAR_M: f32 = 0.05;
/// Above the object when it has been placed, in metres.
const AWAY_M: f32 = 0.06;
/// The jaws are opened this much wider than the object before they go round it, in metres.
const ROOM_M: f32 = 0.004;
/// Share of the joints' greatest speed.
const SPEED: f32 = 0.7;
/// Largest part of the way that one step goes.
const PART: f32 = 0.35;
/// Commanded past the held object's width, in radians: enough to hold it, too little to count as a stall.
const SQUEEZE_RAD: f32 = 0.12;

/// Plans the next joint targets for any task of a scene from any state of its world.
#[derive(Debug, Clone)]
pub struct Expert {
    scene: Arc<Scene>,
    arm: Arm,
    gripper: Gripper,
}

/// Where tool and jaw should go.
#[derive(Debug, Clone, Copy)]
struct Aim {
    point: Vec3,
    roll: Roll,
    jaw: f32,
}

/// How the hand should roll.
#[derive(Debug, Clone, Copy)]
enum Roll {
    /// As it is.
    Keep,
    /// Not at all.
    Zero,
    /// So that the jaws close along the sides of the object.
    Along { yaw: f32, sides: [bool; 2] },
}

impl Expert {
    /// An expert for the scene's arm.
    ///
    /// # Errors
    /// [`SceneError::NoExpert`] for a scene without a gripper, or with an arm of another form.
    pub fn new(scene: Arc<Scene>) -> Result<Self, SceneError> {
        let arm = Arm::of(scene.joints(), scene.tool());
        let (Some(arm), Some(gripper)) = (arm, scene.gripper().copied()) else {
            return Err(SceneError::NoExpert { scene: scene.name().to_owned() });
        };
        Ok(Self { scene, arm, gripper })
    }

    /// The next targets of the joints in radians, for a step of `dt_s` seconds: straight towards the goal in joint space, all
    /// joints together, slower near it.
    ///
    /// # Errors
    /// [`SceneError::NoObject`] for a task of another scene.
    pub fn step(&self, world: &World, task: &Task, dt_s: f32) -> Result<Vec<f32>, SceneError> {
        let goal = self.goal(world, task)?;
        let joints = self.scene.joints();
        let speed = |index: usize| joints.get(index).map_or(1.0, |joint| joint.velocity_limit_rad_s * SPEED);
        let ways: Vec<f32> = goal.iter().zip(world.joints()).map(|(to, from)| to - from).collect();
        let seconds = ways
            .iter()
            .enumerate()
            .filter(|(index, _)| *index != self.gripper.joint)
            .map(|(index, way)| way.abs() / speed(index))
            .fold(0.0, f32::max);
        let part = if seconds > dt_s { (dt_s / seconds).min(PART) } else { PART };
        let next = world.joints().iter().zip(ways).enumerate().map(|(index, (from, way))| {
            if index == self.gripper.joint {
                let most = speed(index) * dt_s;
                from + way.clamp(-most, most)
            } else {
                from + way * part
            }
        });
        Ok(next.collect())
    }

    /// The next `horizon` targets of the joints in radians, `(horizon, joints)`, `dt_s` seconds apart, if the arm follows
    /// each.
    ///
    /// # Errors
    /// As [`Expert::step`].
    pub fn plan(&self, world: &World, task: &Task, dt_s: f32, horizon: usize) -> Result<Vec<Vec<f32>>, SceneError> {
        let mut world = world.clone();
        let mut steps = Vec::with_capacity(horizon);
        for _ in 0..horizon {
            let next = self.step(&world, task, dt_s)?;
            world.advance(&next)?;
            steps.push(next);
        }
        Ok(steps)
    }

    /// A pose of the arm over the table where objects are, in radians, every joint within its limits.
    #[must_use]
    pub fn random_start(&self, random: &mut Random) -> Vec<f32> {
        let mut start: Vec<f32> = self.scene.initial_positions().collect();
        for _ in 0..64 {
            let radius = random.within([0.19 * 0.19, 0.32 * 0.32]).sqrt() * random.within([0.75, 1.05]);
            let angle = random.within([-0.85, 0.85]);
            let point = vec3(radius * angle.cos(), radius * angle.sin(), random.within([0.08, 0.26]));
            if let Some(stance) = self.arm.solve(self.scene.joints(), point) {
                start = self.positions(&stance, 0.0, 0.0);
                break;
            }
        }
        let spread = [0.06, 0.06, 0.06, 0.06, 0.15, 0.12];
        start.iter_mut().zip(spread).for_each(|(to, spread)| *to += spread * random.normal());
        self.within_limits(start)
    }

    /// The joints' positions, no further than their limits.
    #[must_use]
    pub fn within_limits(&self, mut positions: Vec<f32>) -> Vec<f32> {
        for (position, joint) in positions.iter_mut().zip(self.scene.joints()) {
            *position = position.clamp(joint.limits_rad[0], joint.limits_rad[1]);
        }
        positions
    }

    /// Where the joints should be in the end of this phase, in radians.
    ///
    /// # Errors
    /// As [`Expert::step`].
    pub fn goal(&self, world: &World, task: &Task) -> Result<Vec<f32>, SceneError> {
        let tool = world.tool()?;
        let aim = self.aim(world, task, tool)?;
        let present = world.joints();
        let roll_now = present.get(4).copied().unwrap_or(0.0);
        let Some(stance) = self.stance(aim.point) else {
            let mut goal = present.to_vec();
            self.set_jaw(&mut goal, aim.jaw);
            return Ok(goal);
        };
        let roll = match aim.roll {
            Roll::Keep => roll_now,
            Roll::Zero => 0.0,
            Roll::Along { yaw, sides } => nearest_roll(&stance, yaw, sides, roll_now),
        };
        Ok(self.within_limits(self.positions(&stance, roll, aim.jaw)))
    }

    /// Joints for a point, or for one below or nearer where the arm does not reach it.
    fn stance(&self, point: Vec3) -> Option<Stance> {
        let nearer = [1.0, 0.95, 0.9, 0.8];
        let lower = [0.0, 0.02, 0.04, 0.06, 0.1];
        let tried = nearer.iter().flat_map(|near| lower.iter().map(move |low| (*near, *low)));
        let mut points = tried.map(|(near, low)| vec3(point.x * near, point.y * near, point.z - low));
        points.find_map(|point| self.arm.solve(self.scene.joints(), point))
    }

    fn positions(&self, stance: &Stance, roll: f32, jaw: f32) -> Vec<f32> {
        let mut positions: Vec<f32> = self.scene.initial_positions().collect();
        let set = std::iter::once(stance.pan).chain(stance.links).chain([roll]);
        positions.iter_mut().zip(set).for_each(|(to, from)| *to = from);
        self.set_jaw(&mut positions, jaw);
        positions
    }

    fn set_jaw(&self, positions: &mut [f32], jaw: f32) {
        if let Some(to) = positions.get_mut(self.gripper.joint) {
            *to = jaw;
        }
    }

    fn aim(&self, world: &World, task: &Task, tool: Vec3) -> Result<Aim, SceneError> {
        let open = self.gripper.open_rad;
        let mine = world.held().filter(|held| held.object == task.object && task.kind != TaskKind::Reach);
        if world.held().is_some() && mine.is_none() {
            return Ok(Aim { point: tool, roll: Roll::Keep, jaw: open });
        }
        match (task.kind, mine) {
            (TaskKind::Reach, _) => self.over(world, task.object, tool, ABOVE_M),
            (TaskKind::Pick, Some(held)) => {
                let height = self.placed(world, held.object)?.1.position.z - held.stood_z;
                let point = tool + Vec3::UP * (LIFT_M - height);
                Ok(Aim { point, roll: Roll::Keep, jaw: self.holding(held) })
            }
            (TaskKind::Place, Some(held)) => self.carry(world, task, held, tool),
            (TaskKind::Place, None) if task.target.is_some_and(|target| world.rests_on(task.object, target)) => {
                self.over(world, task.object, tool, AWAY_M)
            }
            (_, None) => self.fetch(world, task.object, tool),
        }
    }

    /// Shape and pose of an object.
    fn placed<'w>(&'w self, world: &'w World, object: usize) -> Result<(&'w Shape, &'w Pose), SceneError> {
        let found = self.scene.objects().get(object).zip(world.objects().get(object));
        let count = self.scene.objects().len();
        found.map(|(object, pose)| (&object.shape, pose)).ok_or(SceneError::NoObject { index: object, count })
    }

    /// Over the middle of an object's top, with open jaws.
    fn over(&self, world: &World, object: usize, tool: Vec3, above: f32) -> Result<Aim, SceneError> {
        let (shape, pose) = self.placed(world, object)?;
        let goal = pose.position + Vec3::UP * (shape.top() + above);
        Ok(Aim { point: travel(tool, goal, goal.z), roll: self.along(shape, pose), jaw: self.gripper.open_rad })
    }

    /// Down round an object, and close on it.
    fn fetch(&self, world: &World, object: usize, tool: Vec3) -> Result<Aim, SceneError> {
        let (shape, pose) = self.placed(world, object)?;
        let (gripper, scene) = (&self.gripper, &self.scene);
        let roll = self.along(shape, pose);
        let hand = world.hand().unwrap_or(Pose::IDENTITY);
        let middle = hand.unapply(pose.position);
        let jaw = world.joints().get(gripper.joint).copied().unwrap_or(0.0);
        let width = shape.width(pose, hand.rotation.y);
        let grip = vec3(pose.position.x, pose.position.y, grip_height(Some(gripper), shape, pose));
        let above = pose.position.z + shape.top() + ABOVE_M;

        let around = gripper.holds_point(scene, jaw, middle)
            && middle.x.abs() < gripper.half_width * 0.67
            && (tool.z - grip.z).abs() < 0.009;
        let gap = gripper.gap(scene, jaw, middle.z.clamp(gripper.depth[0], gripper.depth[1]));
        let fits = gap > width + ROOM_M;
        let turn = match roll {
            Roll::Along { yaw, sides } => {
                let azimuth = hand.rotation.y.y.atan2(hand.rotation.y.x);
                let errors = [yaw, yaw + FRAC_PI_2].map(|side| line_error(azimuth, side).abs());
                let fitting = errors.into_iter().zip(sides).filter(|(_, fits)| *fits);
                fitting.map(|(error, _)| error).fold(FRAC_PI_2, f32::min)
            }
            Roll::Keep | Roll::Zero => 0.0,
        };
        // Beside the object by this much, in metres; a turn that is off counts as well.
        let beside = (tool.x - grip.x).hypot(tool.y - grip.y) + 0.02 * (turn - 0.05).max(0.0);
        let up = match around || fits {
            true => ((beside - 0.005) / 0.012).clamp(0.0, 1.0),
            false => 1.0,
        };
        let goal = vec3(grip.x, grip.y, grip.z + (above - grip.z) * up);
        let jaw = if around && gap > width { gripper.closed_rad } else { gripper.open_rad };
        Ok(Aim { point: travel(tool, goal, above), roll, jaw })
    }

    /// To the target with the object, down, and let go.
    fn carry(&self, world: &World, task: &Task, held: &Held, tool: Vec3) -> Result<Aim, SceneError> {
        let target = task.target.unwrap_or(task.object);
        let (shape, pose) = self.placed(world, held.object)?;
        let (below, at) = self.placed(world, target)?;
        let top = at.position.z + below.top();
        let beside = vec3(pose.position.x - at.position.x, pose.position.y - at.position.y, 0.0).length();
        let height = pose.position.z - shape.lift() - top;
        let up = 0.002 + CLEAR_M * ((beside - 0.008) / 0.03).clamp(0.0, 1.0);
        // Where the tool is when the object's middle is there.
        let offset = tool - pose.position;
        let goal = at.position + offset + Vec3::UP * (below.top() + shape.lift() + up);
        let travelling = top + CLEAR_M + shape.lift() + offset.z;
        let lets_go = beside < 0.012 && height < 0.008;
        let jaw = if lets_go { self.gripper.open_rad } else { self.holding(held) };
        Ok(Aim { point: travel(tool, goal, travelling), roll: Roll::Zero, jaw })
    }

    /// The jaw's angle that holds the object.
    fn holding(&self, held: &Held) -> f32 {
        (held.stop_rad + SQUEEZE_RAD).min(self.gripper.closed_rad)
    }

    /// The rolls that fit an object: along those of its sides that the open jaws go round.
    fn along(&self, shape: &Shape, pose: &Pose) -> Roll {
        let Shape::Box { size } = *shape else { return Roll::Zero };
        let middle = (self.gripper.depth[0] + self.gripper.depth[1]) / 2.0;
        let room = self.gripper.gap(&self.scene, self.gripper.open_rad, middle) - 2.0 * ROOM_M;
        let sides = [size.x <= room, size.y <= room];
        Roll::Along { yaw: yaw(pose.rotation), sides: if sides == [false; 2] { [true; 2] } else { sides } }
    }
}

/// The point to aim at on the way to `goal`: up to `height` first where the tool is lower and far, then over it, then down.
fn travel(tool: Vec3, goal: Vec3, height: f32) -> Vec3 {
    let way = (tool.x - goal.x).hypot(tool.y - goal.y);
    let far = ((way - 0.02) / 0.03).clamp(0.0, 1.0);
    let low = ((height - 0.015 - tool.z) / 0.03).clamp(0.0, 1.0);
    let arc = (0.3 * (way - 0.03)).clamp(0.0, 0.03);
    let stay = far * low;
    let z = goal.z + (height.max(goal.z) - goal.z) * far + arc;
    vec3(goal.x + (tool.x - goal.x) * stay, goal.y + (tool.y - goal.y) * stay, z)
}

/// The roll along one of the sides that is nearest to the present one, without turning further than it has to.
fn nearest_roll(stance: &Stance, yaw: f32, sides: [bool; 2], present: f32) -> f32 {
    let most = if sides == [true; 2] { FRAC_PI_4 } else { FRAC_PI_2 } + 0.25;
    let turns = [0.0, 1.0, 2.0, 3.0].into_iter().zip(sides.into_iter().cycle());
    let rolls: Vec<f32> =
        turns.filter(|(_, fits)| *fits).map(|(turn, _)| stance.roll_to(yaw + turn * FRAC_PI_2)).collect();
    let near = rolls.iter().filter(|roll| roll.abs() <= most);
    let nearest = near.min_by(|a, b| (*a - present).abs().total_cmp(&(*b - present).abs()));
    let least = rolls.iter().min_by(|a, b| a.abs().total_cmp(&b.abs()));
    nearest.or(least).copied().unwrap_or(present)
}
