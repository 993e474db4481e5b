//! An episode in simulated time: the expert drives the scene's arm, disturbed on purpose.

use std::sync::Arc;

use fathom::scene::{Expert, Progress, Random, Scene, SceneError, Task, World};

/// Steps of the expert a second.
pub(crate) const RATE_HZ: f32 = 15.0;
/// Time of a step in seconds.
pub(crate) const STEP_S: f32 = 1.0 / RATE_HZ;
/// Share of the way to its target that the arm goes within a step.
const FOLLOWS: f32 = 0.9;
/// Smooth noise of a joint's target, at its strongest: standard deviation in radians.
const NOISE: [f32; 6] = [0.10, 0.06, 0.06, 0.09, 0.12, 0.06];
/// Share of the noise that remains after a step.
const REMAINS: f32 = 0.85;
/// Purpose of the draws.
const PURPOSE: u64 = 1 << 40;
/// Most steps of the approach that a start in the middle of a task begins with.
const APPROACH: usize = 120;

/// What is done to the arm against its will.
#[derive(Debug, Clone)]
pub(crate) struct Disturbance {
    random: Random,
    /// Strength of the smooth noise, 0 to 1.
    noise: f32,
    /// How likely a kick is in a step, and a wrong jaw.
    kick: f32,
    wrong_jaw: f32,
    /// Starts in the middle of a task are among the starts.
    middle: bool,
}

impl Disturbance {
    /// None; the arm starts anywhere.
    pub(crate) fn none(seed: u64) -> Self {
        let random = Random::stream(seed, PURPOSE);
        Self { random, noise: 0.0, kick: 0.0, wrong_jaw: 0.0, middle: false }
    }

    /// As the seed draws it: a third of the episodes have hardly any.
    pub(crate) fn drawn(seed: u64) -> Self {
        let mut random = Random::stream(seed, PURPOSE);
        let calm = random.share() < 0.33;
        let noise = if calm { 0.0 } else { random.share() };
        let (kick, wrong_jaw) = if calm { (0.0, 0.0) } else { (0.015, 0.006) };
        Self { random, noise, kick, wrong_jaw, middle: true }
    }
}

/// One step of an episode.
pub(crate) struct Step {
    /// The targets that the arm was given, in radians.
    pub(crate) commanded: Vec<f32>,
    /// The state that it led to.
    pub(crate) after: Progress,
}

/// An episode that is being run.
pub(crate) struct Rollout<'a> {
    pub(crate) expert: &'a Expert,
    pub(crate) world: World,
    pub(crate) task: &'a Task,
    disturbance: Disturbance,
    /// Smooth noise of each joint, in radians.
    noise: Vec<f32>,
    /// Steps for which the jaw stays wrong, and its angle.
    wrong: (u32, f32),
}

impl<'a> Rollout<'a> {
    /// Puts the arm to its start.
    pub(crate) fn begin(
        expert: &'a Expert,
        scene: &Arc<Scene>,
        task: &'a Task,
        mut disturbance: Disturbance,
    ) -> Result<Self, SceneError> {
        let mut world = World::new(Arc::clone(scene));
        let random = &mut disturbance.random;
        world.place(&expert.random_start(random))?;
        let tasks = scene.tasks();
        let kind = random.share();
        let other = tasks.get(random.index(tasks.len())).unwrap_or(task);
        let length = random.index(APPROACH);
        // In the middle of this task, or of any: over an object, in the hand, put down.
        let begun = match kind {
            _ if !disturbance.middle => None,
            0.0..0.15 => Some(task),
            0.15..0.40 => Some(other),
            _ => None,
        };
        if let Some(begun) = begun {
            for _ in 0..length {
                if world.progress(task)?.success {
                    break;
                }
                let next = expert.step(&world, begun, STEP_S)?;
                world.advance(&next)?;
            }
            if world.progress(task)?.success {
                // Nothing would be left to show.
                world = World::new(Arc::clone(scene));
                world.place(&expert.random_start(&mut disturbance.random))?;
            }
        }
        let noise = vec![0.0; world.joints().len()];
        Ok(Self { expert, world, task, disturbance, noise, wrong: (0, 0.0) })
    }

    pub(crate) fn progress(&self) -> Result<Progress, SceneError> {
        self.world.progress(self.task)
    }

    /// Goes one step of the expert's, with the disturbance.
    pub(crate) fn step(&mut self) -> Result<Step, SceneError> {
        let mut target = self.expert.step(&self.world, self.task, STEP_S)?;
        let Disturbance { random, noise, kick, wrong_jaw, .. } = &mut self.disturbance;
        let kicked = random.share() < *kick;
        let fresh = (1.0 - REMAINS * REMAINS).sqrt() * *noise;
        for (value, spread) in self.noise.iter_mut().zip(NOISE) {
            *value = *value * REMAINS + fresh * spread * random.normal();
            if kicked {
                *value += 1.5 * spread * random.normal();
            }
        }
        // The noise pushes the arm about its path: a part of it in each step.
        target.iter_mut().zip(&self.noise).for_each(|(to, noise)| *to += 0.3 * noise);
        let jaw = self.world.scene().gripper().map(|gripper| (gripper.joint, gripper.open_rad, gripper.closed_rad));
        if let Some((joint, open, closed)) = jaw {
            let (drawn, which, length) = (random.share() < *wrong_jaw, random.share() < 0.5, random.index(8));
            if self.wrong.0 == 0 && drawn {
                self.wrong = (3 + length as u32, if which { open } else { closed });
            }
            if self.wrong.0 > 0
                && let (Some(to), Some(from)) = (target.get_mut(joint), self.world.joints().get(joint))
            {
                self.wrong.0 -= 1;
                *to = from + (self.wrong.1 - from).clamp(-0.2, 0.2);
            }
        }
        let target = self.expert.within_limits(target);
        let reached: Vec<f32> =
            self.world.joints().iter().zip(&target).map(|(from, to)| from + (to - from) * FOLLOWS).collect();
        self.world.advance(&reached)?;
        Ok(Step { commanded: target, after: self.world.progress(self.task)? })
    }
}
