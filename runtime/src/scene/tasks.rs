//! Tasks of a scene: what a prompt asks for, and how far the world is from it.

use std::fmt;

use serde::Deserialize;

use super::error::SceneError;
use super::math::Vec3;
use super::world::World;
use super::{Scene, words};

/// What is to be done with an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TaskKind {
    /// Bring the tool over it.
    Reach,
    /// Grasp it and lift it.
    Pick,
    /// Put it on another object and let it go.
    Place,
}

impl TaskKind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Reach, Self::Pick, Self::Place];
}

impl fmt::Display for TaskKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reach => "reach",
            Self::Pick => "pick",
            Self::Place => "place",
        })
    }
}

/// The tool's goal of [`TaskKind::Reach`] lies this far above the middle of the object's top, in metres.
pub const REACH_ABOVE_M: f32 = 0.02;
/// [`TaskKind::Reach`] is done within this distance of its goal, in metres.
pub const REACH_WITHIN_M: f32 = 0.02;
/// [`TaskKind::Pick`] is done when the object is held this far above where it stood, in metres.
pub const LIFT_M: f32 = 0.05;

/// One task: a kind, an object, and for [`TaskKind::Place`] what the object goes on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Task {
    /// What is to be done.
    pub kind: TaskKind,
    /// The instruction in words.
    pub prompt: String,
    /// Index of the object in the scene.
    pub object: usize,
    /// Index of the object that it goes on.
    pub target: Option<usize>,
}

/// How far the world is from a task's end.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// Whether the task is done, as the world is now.
    pub success: bool,
    /// What is missing, in metres: to a reach's goal; of a pick's lift, and to the object while it is not held; to where a
    /// placed object would rest.
    pub distance_m: f32,
    /// From the tool to a reach's goal, from an object to where it would rest when placed; 0 for a pick. In metres.
    pub offset: Vec3,
    /// Index of the object whose middle is nearest to the tool.
    pub nearest: Option<usize>,
    /// Index of the object in the gripper.
    pub held: Option<usize>,
    /// Whether another object than the task's is held.
    pub wrong_object: bool,
    /// Whether the tips of the jaws, or the tool, are in the table.
    pub below_table: bool,
}

impl Scene {
    /// The tasks of the scene, in the order of the file: every object, and every target, of each entry.
    #[must_use]
    pub fn tasks(&self) -> &[Task] {
        &self.tasks
    }

    /// The task that a prompt asks for: the one whose own prompt shares the most words with it.
    ///
    /// # Errors
    /// [`SceneError::Prompt`] if no task's object is named, [`SceneError::AmbiguousPrompt`] if several fit as well.
    pub fn task(&self, prompt: &str) -> Result<&Task, SceneError> {
        let spoken = words(prompt);
        let named = |index: usize| {
            let object = self.objects().get(index);
            object.is_some_and(|object| words(&object.name).iter().any(|word| spoken.contains(word)))
        };
        let score = |task: &Task| {
            let known = words(&task.prompt);
            let shared = known.iter().filter(|word| spoken.contains(word)).count();
            // Of two with the same words in common, the one without others.
            (shared * 100).saturating_sub(known.len())
        };
        let fits: Vec<(&Task, usize)> = self
            .tasks
            .iter()
            .filter(|task| named(task.object) && task.target.is_none_or(named))
            .map(|task| (task, score(task)))
            .collect();
        let best = fits.iter().map(|(_, score)| *score).max();
        let mut best = fits.iter().filter(|(_, score)| Some(*score) == best);
        match (best.next(), best.next()) {
            (Some((task, _)), None) => Ok(task),
            (Some((one, _)), Some((other, _))) => Err(SceneError::AmbiguousPrompt {
                prompt: prompt.to_owned(),
                one: one.prompt.clone(),
                other: other.prompt.clone(),
            }),
            (None, _) => {
                let known: Vec<&str> = self.tasks.iter().map(|task| task.prompt.as_str()).collect();
                Err(SceneError::Prompt { prompt: prompt.to_owned(), known: known.join("; ") })
            }
        }
    }
}

impl World {
    /// The tool's position in the world.
    ///
    /// # Errors
    /// [`SceneError::JointPosition`].
    pub fn tool(&self) -> Result<Vec3, SceneError> {
        self.scene().end_effector(self.joints())
    }

    /// How far the world is from the task's end.
    ///
    /// # Errors
    /// [`SceneError::NoObject`] for a task of another scene.
    pub fn progress(&self, task: &Task) -> Result<Progress, SceneError> {
        let scene = self.scene();
        let tool = self.tool()?;
        let missing = |index: usize| SceneError::NoObject { index, count: scene.objects().len() };
        let place = |index: usize| self.objects().get(index).map(|pose| pose.position).ok_or_else(|| missing(index));
        let object = place(task.object)?;
        let held = self.held().filter(|held| held.object == task.object);
        let (success, distance_m, offset) = match task.kind {
            TaskKind::Reach => {
                let top = self.top_of(task.object).ok_or_else(|| missing(task.object))?;
                let offset = top + Vec3::UP * REACH_ABOVE_M - tool;
                (offset.length() <= REACH_WITHIN_M, offset.length(), offset)
            }
            TaskKind::Pick => match held {
                Some(held) => {
                    let lacks = (LIFT_M - (object.z - held.stood_z)).max(0.0);
                    (lacks == 0.0, lacks, Vec3::default())
                }
                None => (false, LIFT_M + (object - tool).length(), Vec3::default()),
            },
            TaskKind::Place => {
                let target = task.target.ok_or_else(|| missing(usize::MAX))?;
                let top = self.top_of(target).ok_or_else(|| missing(target))?;
                let lift = scene.objects().get(task.object).map_or(0.0, |object| object.shape.lift());
                let offset = top + Vec3::UP * lift - object;
                (self.rests_on(task.object, target), offset.length(), offset)
            }
        };
        let distances = self.objects().iter().map(|pose| (pose.position - tool).length()).enumerate();
        let nearest = distances.min_by(|a, b| a.1.total_cmp(&b.1)).map(|(index, _)| index);
        let holds = self.held().map(|held| held.object);
        let below_table = self.tip().unwrap_or(tool).z.min(tool.z) < 0.0;
        let wrong_object = holds.is_some_and(|holds| holds != task.object);
        Ok(Progress { success, distance_m, offset, nearest, held: holds, wrong_object, below_table })
    }

    /// The middle between the tips of the jaws, if the scene has a gripper.
    fn tip(&self) -> Option<Vec3> {
        let gripper = self.scene().gripper()?;
        Some(self.hand()?.apply(Vec3::UP * gripper.depth[1]))
    }
}
