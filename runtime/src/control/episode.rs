//! Episodes of a task in simulated time: the whole loop, from the scene's cameras through the policy on its GPU, the control core and
//! the firmware's controller, to the joints that move the scene's objects.
//!
//! The policy really infers; only its duration is simulated. The same configuration, seed and adapter give the same episode on any
//! machine, however busy it is.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use firmware_bridge::sim::SimConfig;

use super::core::Settings;
use super::error::RunError;
use super::robot::{open_policy, read_policy, sim_config};
use super::run::{freshness, planner};
use super::simulation::{Parts, Simulation, Surroundings};
use crate::camera::Image;
use crate::clock::{HostNs, NS_PER_S, duration_ns};
use crate::config::{CameraSource, RobotConfig};
use crate::events::{InferenceRequest, LoopMode};
use crate::policy::{Observation, Policy, PolicyOutput, ViewDepth};
use crate::scene::math::Pose;
use crate::scene::{Expert, Progress, Random, Renderer, SceneError, Task, TaskKind, World};

/// Time for which a task must stay done.
const HOLD_NS: u64 = NS_PER_S;
/// Interval at which progress is measured.
const LOOK_NS: u64 = 20_000_000;
/// Of this many inferences, the depth map of one is compared.
const DEPTH_EVERY: u32 = 5;

mod cameras;

use cameras::Cameras;
pub use cameras::DepthErrors;

/// Conditions of an episode.
#[derive(Clone, Debug, PartialEq)]
pub struct Conditions {
    /// Time limit after the loop became active.
    pub limit: Duration,
    /// Simulated duration of an inference.
    pub inference: Duration,
    /// Standard deviation of the noise that is added to every colour of every pixel, of 255.
    pub image_noise: f32,
    /// Probability that a camera's image is lost.
    pub lost_images: f32,
    /// Compares depth maps; the configuration must ask for them (`model.depth_map`).
    pub depth: bool,
    /// Only pixels whose true depth is at most this are compared, in metres: a model knows no depths beyond its training's.
    pub depth_within_m: f32,
    /// Keeps a [`Moment`] at this interval.
    pub moments: Option<Duration>,
    /// Seed of noise, of losses, and of the policy.
    pub seed: u64,
}

impl Default for Conditions {
    /// 8 s, 100 ms for an inference, without disturbances.
    fn default() -> Conditions {
        Conditions {
            limit: Duration::from_secs(8),
            inference: Duration::from_millis(100),
            image_noise: 0.0,
            lost_images: 0.0,
            depth: false,
            depth_within_m: f32::INFINITY,
            moments: None,
            seed: 0,
        }
    }
}

/// The world at one moment of an episode.
#[derive(Clone, Debug, PartialEq)]
pub struct Moment {
    /// The joints' positions in radians.
    pub joints: Vec<f32>,
    /// Of each object of the scene.
    pub objects: Vec<Pose>,
    /// The depth maps of the last inference, if the configuration asks for them.
    pub depth: Arc<[ViewDepth]>,
}

/// The result of an episode.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Episode {
    /// The task was done, and stayed so for a second or to the end.
    pub success: bool,
    /// When the task was done for the last time, in seconds after the loop became active.
    pub done_s: Option<f64>,
    /// Whether the task was done at any moment.
    pub ever: bool,
    /// What was missing at the end, in metres ([`Progress::distance_m`]).
    pub distance_m: f32,
    /// Its direction and length at the end ([`Progress::offset`]), in metres.
    pub offset: [f32; 3],
    /// The smallest distance.
    pub nearest_m: f32,
    /// Another object than the task's was held, or was the nearest to the tool at the end of a reach.
    pub wrong_object: bool,
    /// The tool was below the table's top.
    pub below_table: bool,
    /// The greatest acceleration of a joint over 20 ms, in rad/s².
    pub peak_acceleration: f32,
    /// Inferences.
    pub inferences: u32,
    /// Chunks that came too late or were refused.
    pub lost_chunks: u64,
    /// Length of the episode in simulated seconds.
    pub seconds: f64,
    /// The reason, if the loop ended in a fault.
    pub fault: Option<String>,
    /// Errors of the depth maps, over all pixels and over those of the arm and of objects.
    pub depth: [DepthErrors; 2],
    /// The tool's way, in metres.
    pub path: Vec<[f32; 3]>,
    /// The world at equal intervals, if the conditions ask for it.
    pub moments: Vec<Moment>,
}

/// Where actions come from.
#[derive(Debug)]
enum Actor {
    Policy(Box<Policy>),
    /// The scene's expert, which knows the state of the world: what the loop makes of perfect actions.
    Expert {
        /// Steps of its chunks.
        horizon: usize,
    },
}

/// A policy that is tried in a scene, in simulated time.
#[derive(Debug)]
pub struct Simulator {
    config: RobotConfig,
    actor: Actor,
    views: Vec<String>,
    /// Of each view, the scene's camera.
    cameras: Vec<String>,
    frame_ns: u64,
}

impl Simulator {
    /// Lets the scene's expert act, in chunks of `horizon` steps. It needs neither checkpoint nor GPU, and shows what delay and the
    /// joining of chunks cost.
    ///
    /// ```
    /// use std::sync::Arc;
    ///
    /// use fathom::config::{CameraSection, CameraSource, RobotConfig, SceneCameraConfig};
    /// use fathom::control::{Conditions, Simulator};
    /// use fathom::scene::{Scene, World};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let mut config = RobotConfig::new("no-model");
    /// config.model.prompt = Some("pick up the blue block".to_owned());
    /// let source = CameraSource::Scene(SceneCameraConfig { camera: None, rate_hz: 10.0 });
    /// config.cameras.push(CameraSection { view: "base".to_owned(), source });
    /// let scene = Arc::new(Scene::built_in(7)?);
    /// let task = scene.task("pick up the blue block")?;
    /// let mut simulator = Simulator::expert(config, 16)?;
    /// let episode = simulator.episode(World::new(Arc::clone(&scene)), task, &Conditions::default())?;
    /// assert!(episode.success && episode.done_s.is_some());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`RunError::NotSimulated`], and those of the configuration.
    pub fn expert(config: RobotConfig, horizon: usize) -> Result<Simulator, RunError> {
        config.check()?;
        let views = config.cameras.iter().map(|section| section.view.clone()).collect();
        Simulator::of(config, Actor::Expert { horizon }, views)
    }

    /// Opens the policy of a configuration whose cameras are all of kind `scene`.
    ///
    /// # Errors
    /// [`RunError::NotSimulated`] for another camera, and those of the configuration, the checkpoint and the GPU.
    pub fn open(config: RobotConfig) -> Result<Simulator, RunError> {
        config.check()?;
        let policy = open_policy(&config, read_policy(&config, std::iter::empty())?)?;
        let views = policy.views().to_vec();
        Simulator::of(config, Actor::Policy(Box::new(policy)), views)
    }

    fn of(config: RobotConfig, actor: Actor, views: Vec<String>) -> Result<Simulator, RunError> {
        let (mut cameras, mut rate_hz) = (Vec::new(), 0.0_f32);
        for view in &views {
            let Some(section) = config.cameras.iter().find(|section| section.view == *view) else { continue };
            let CameraSource::Scene(camera) = &section.source else {
                return Err(RunError::NotSimulated { view: view.clone(), found: section.source.kind() });
            };
            cameras.push(camera.camera.clone().unwrap_or_else(|| view.clone()));
            rate_hz = rate_hz.max(camera.rate_hz);
        }
        // Cameras at rate 0 give an image whenever one is wanted.
        let rate_hz = if rate_hz > 0.0 { f64::from(rate_hz) } else { 50.0 };
        Ok(Simulator { config, actor, views, cameras, frame_ns: (1e9 / rate_hz) as u64 })
    }

    /// The policy, unless the expert acts.
    #[must_use]
    pub fn policy(&self) -> Option<&Policy> {
        match &self.actor {
            Actor::Policy(policy) => Some(policy),
            Actor::Expert { .. } => None,
        }
    }

    /// Lets the policy try `task` in `world`.
    ///
    /// # Errors
    /// [`RunError::Joints`] if the policy is not for the scene's arm; [`RunError::Scene`] and [`RunError::Policy`] for what fails
    /// on the way. A loop that ends in a fault is no error.
    pub fn episode(&mut self, world: World, task: &Task, conditions: &Conditions) -> Result<Episode, RunError> {
        let scene = Arc::clone(world.scene());
        self.check_joints(scene.joints().len())?;
        let sim = sim_config(&scene);
        let controller = sim.controller()?;
        let SimConfig { lag_s, .. } = sim;
        let settings = Settings {
            device: "simulated".to_owned(),
            baud: self.config.link.baud,
            dry_run: false,
            arm_at_start: true,
            rearm: true,
            length_ns: Some(duration_ns(conditions.limit)),
        };
        let horizon = match &self.actor {
            Actor::Policy(policy) => policy.horizon(),
            Actor::Expert { horizon } => *horizon,
        };
        let parts = Parts {
            settings,
            freshness: freshness(&self.config, &self.views),
            planner: planner(&self.config, controller.joints.len().into(), horizon),
            seed: conditions.seed,
            controller,
            initial: world.joints().to_vec(),
            lag_s,
            cameras: self.cameras.len(),
            frame_ns: self.frame_ns,
            tick_ns: self.config.control.tick_ns(),
            period_us: self.config.control.period_us(),
            interpolation: self.config.chunks.interpolation,
        };
        let index = |name: &String| scene.camera_index(name);
        let cameras = self.cameras.iter().map(index).collect::<Result<Vec<usize>, SceneError>>()?;
        let renderers = cameras.iter().map(|camera| Renderer::new(Arc::clone(&scene), *camera));
        let trial = Trial {
            actor: match &mut self.actor {
                Actor::Policy(policy) => ActorNow::Policy(policy),
                Actor::Expert { horizon } => ActorNow::Expert(Expert::new(Arc::clone(&scene))?, *horizon),
            },
            period_s: self.config.control.period_us() as f32 * 1e-6,
            task,
            conditions,
            cameras: Cameras {
                renderers: renderers.collect::<Result<_, SceneError>>()?,
                images: vec![Image::default(); cameras.len()],
                depth: Vec::new(),
                noise: conditions.image_noise,
                seed: conditions.seed,
                indices: cameras,
            },
            losses: Random::stream(conditions.seed, 1),
            depth: Arc::default(),
            kept: None,
            began: None,
            done: None,
            looked: HostNs(0),
            joints: [Vec::new(), Vec::new()],
            episode: Episode { nearest_m: f32::INFINITY, distance_m: f32::INFINITY, ..Episode::default() },
            failure: None,
            world,
        };
        let mut simulation = Simulation::new(parts, trial);
        while !simulation.core.is_finished() && !simulation.surroundings.is_over(simulation.now) {
            simulation.run(LOOK_NS);
            let active = simulation.core.mode == LoopMode::Active;
            simulation.surroundings.look(simulation.now, active);
        }
        let counts = simulation.core.counts;
        let fault = matches!(simulation.core.mode, LoopMode::Fault(_)).then(|| simulation.core.fault.to_string());
        let (now, trial) = (simulation.now, simulation.surroundings);
        let mut episode = trial.end(now)?;
        (episode.fault, episode.lost_chunks) = (fault, counts.late + counts.refused);
        Ok(episode)
    }

    fn check_joints(&self, joints: usize) -> Result<(), RunError> {
        let Actor::Policy(policy) = &self.actor else { return Ok(()) };
        let loaded = policy.loaded();
        let wrong = |what, model| RunError::Joints { what, model, controller: joints };
        if loaded.action_dim != joints {
            return Err(wrong("actions", format!("{} actions", loaded.action_dim)));
        }
        let dims = &loaded.state_dims;
        if !dims.contains(&joints) {
            return Err(wrong("state", format!("a state of {} to {} values", dims.start(), dims.end())));
        }
        Ok(())
    }
}

/// Where the actions of an episode come from.
enum ActorNow<'a> {
    Policy(&'a mut Policy),
    Expert(Expert, usize),
}

/// An episode while it runs: the surroundings of its loop.
struct Trial<'a> {
    actor: ActorNow<'a>,
    /// Interval of a chunk's steps in seconds.
    period_s: f32,
    world: World,
    task: &'a Task,
    conditions: &'a Conditions,
    cameras: Cameras,
    losses: Random,
    /// The depth maps of the last inference.
    depth: Arc<[ViewDepth]>,
    /// Time of the last moment that was kept.
    kept: Option<HostNs>,
    /// When the loop became active.
    began: Option<HostNs>,
    /// Since when the task is done.
    done: Option<HostNs>,
    looked: HostNs,
    /// The joints 20 and 40 ms ago.
    joints: [Vec<f32>; 2],
    episode: Episode,
    failure: Option<RunError>,
}

impl Trial<'_> {
    /// Whether the task has stayed done long enough, or the episode failed.
    fn is_over(&self, now: HostNs) -> bool {
        self.failure.is_some() || self.done.is_some_and(|since| now.since(since) >= HOLD_NS)
    }

    /// Measures progress.
    fn look(&mut self, now: HostNs, active: bool) {
        if active && self.began.is_none() {
            self.began = Some(now);
        }
        let [last, before] = &self.joints;
        let seconds = now.since(self.looked) as f32 * 1e-9;
        let speeds = self.world.joints().iter().zip(last).zip(before).map(|((a, b), c)| (a - 2.0 * b + c).abs());
        let peak = speeds.fold(0.0, f32::max) / (seconds * seconds).max(1e-9);
        self.episode.peak_acceleration = self.episode.peak_acceleration.max(peak);
        self.looked = now;
        self.joints.swap(0, 1);
        let [last, _] = &mut self.joints;
        last.clear();
        last.extend_from_slice(self.world.joints());
        match self.world.progress(self.task).and_then(|progress| Ok((progress, self.world.tool()?))) {
            // An arm that has not been told anything yet has done nothing.
            Ok(_) if self.began.is_none() => {}
            Ok((progress, tool)) => {
                self.episode.path.push([tool.x, tool.y, tool.z]);
                self.note(now, progress);
                self.keep(now);
            }
            Err(error) => self.failure = Some(error.into()),
        }
    }

    /// Keeps this moment if one is due.
    fn keep(&mut self, now: HostNs) {
        let Some(interval) = self.conditions.moments else { return };
        if self.kept.is_none_or(|kept| now.since(kept) >= duration_ns(interval)) {
            self.kept = Some(now);
            self.episode.moments.push(Moment {
                joints: self.world.joints().to_vec(),
                objects: self.world.objects().to_vec(),
                depth: Arc::clone(&self.depth),
            });
        }
    }

    fn note(&mut self, now: HostNs, progress: Progress) {
        let episode = &mut self.episode;
        episode.distance_m = progress.distance_m;
        episode.offset = [progress.offset.x, progress.offset.y, progress.offset.z];
        episode.nearest_m = episode.nearest_m.min(progress.distance_m);
        episode.below_table |= progress.below_table;
        episode.wrong_object |= progress.wrong_object;
        if !progress.success {
            self.done = None;
            return;
        }
        episode.ever = true;
        if self.done.is_none() {
            self.done = Some(now);
            episode.done_s = self.began.map(|began| now.since(began) as f64 * 1e-9);
        }
    }

    fn end(mut self, now: HostNs) -> Result<Episode, RunError> {
        if let Some(error) = self.failure {
            return Err(error);
        }
        let progress = self.world.progress(self.task)?;
        let episode = &mut self.episode;
        episode.success = progress.success && self.began.is_some();
        episode.done_s = episode.done_s.filter(|_| progress.success);
        episode.seconds = self.began.map_or(0.0, |began| now.since(began) as f64 * 1e-9);
        if self.task.kind == TaskKind::Reach {
            episode.wrong_object |= progress.nearest.is_some_and(|nearest| nearest != self.task.object);
        }
        Ok(self.episode)
    }

    /// The actions for a request.
    fn act(&mut self, request: &InferenceRequest, snapshots: &[Rc<World>]) -> Result<PolicyOutput, RunError> {
        // Of several images the first counts.
        let world = snapshots.first().map_or(&self.world, |snapshot| snapshot);
        let policy = match &mut self.actor {
            ActorNow::Policy(policy) => policy,
            ActorNow::Expert(expert, horizon) => {
                let plan = expert.plan(world, self.task, self.period_s, *horizon)?;
                let action_dim = plan.first().map_or(0, Vec::len);
                return Ok(PolicyOutput { actions: plan.concat(), action_dim, ..PolicyOutput::default() });
            }
        };
        self.cameras.draw(snapshots)?;
        let guide = request.start.as_ref().and_then(|start| start.guide.as_ref());
        let observation = Observation::new(&self.task.prompt).ordered(&self.cameras.images).state(&request.state);
        let output = policy.infer(&observation.seed(request.seed).guide(guide))?;
        if self.conditions.moments.is_some() {
            self.depth = output.depth.as_slice().into();
        }
        if self.conditions.depth && self.episode.inferences.is_multiple_of(DEPTH_EVERY) {
            let within_m = self.conditions.depth_within_m;
            self.cameras.compare_depth(&output, world, within_m, &mut self.episode.depth)?;
        }
        Ok(output)
    }
}

impl Surroundings for Trial<'_> {
    type Image = Rc<World>;

    fn moved(&mut self, _now: HostNs, positions: &mut [f32]) {
        match self.world.advance(positions) {
            Ok(()) => positions.copy_from_slice(self.world.joints()),
            Err(error) => self.failure = Some(error.into()),
        }
    }

    fn expose(&mut self, _camera: usize) -> Option<Rc<World>> {
        let is_lost = self.began.is_some() && self.losses.share() < self.conditions.lost_images;
        (!is_lost).then(|| Rc::new(self.world.clone()))
    }

    fn infer(&mut self, request: &InferenceRequest, snapshots: &[Rc<World>]) -> Result<(PolicyOutput, u64), String> {
        let inferred = self.act(request, snapshots);
        self.episode.inferences += 1;
        match inferred {
            Ok(output) => Ok((output, duration_ns(self.conditions.inference))),
            Err(error) => {
                let why = error.to_string();
                self.failure = Some(error);
                Err(why)
            }
        }
    }
}
