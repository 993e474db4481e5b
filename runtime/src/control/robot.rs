//! Opens what `robot.toml` names: cameras, link, model; checks that they fit each other.

use std::sync::Arc;
use std::time::Duration;

use fathom_models::ModelError;
use fathom_models::config::PromptFormat;
use fathom_models::depthvla::ForwardOptions;
use fathom_models::families;
use fathom_models::output_file::OutputError;
use fathom_models::prompt;
use fathom_models::tokenizer::Tokenizer;
use firmware_bridge::joint::Unit;
use firmware_bridge::sim::{Joints, Sim, SimConfig, SimError, SimJoint};

use super::camera::CameraThread;
use super::reconnect::Connector;
use crate::action::Policy;
use crate::bench::{BenchCamera, Scene, SceneError};
use crate::camera::{Camera, CameraError, FolderCamera, Image, V4lCamera};
use crate::clock::Waker;
use crate::config::{CameraSource, RobotConfig, RobotConfigError, ValueError};
use crate::engine::{EngineError, Session, log_model};
use crate::fault::{Faults, FaultyCamera, Kind};
use crate::gpu::{Gpu, GpuError, GpuOptions, cache_folder};
use crate::link::{Link, LinkError};
use crate::policy::{PolicyRunner, StatePrompt};
use crate::record::RecordError;

/// How long a camera may take for its first image.
const FIRST: Duration = Duration::from_secs(5);

/// How long a controller may take for its first report, and to clear a fault while its joints ramp to rest.
const CLEAR: Duration = Duration::from_secs(5);

/// Deadman time of the simulated controller. It shares the computer with the model's software driver, and a
/// pseudo-terminal's bytes go through the kernel's work queues: a busy computer holds them up longer than a wire does.
const SIM_DEADMAN: Duration = Duration::from_secs(1);

/// What can fail in a run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// `robot.toml`.
    #[error(transparent)]
    Config(#[from] RobotConfigError),
    /// A value of a configuration that was made without its file.
    #[error(transparent)]
    Value(#[from] ValueError),
    /// The model.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The GPU.
    #[error(transparent)]
    Gpu(#[from] GpuError),
    /// The model on the GPU.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A camera.
    #[error("camera of view {view}: {source}")]
    Camera {
        /// The view.
        view: String,
        /// Why.
        source: Box<CameraError>,
    },
    /// A camera gave no image in time.
    #[error("camera of view {view}: no image within {seconds} s")]
    NoImage {
        /// The view.
        view: String,
        /// How long was waited.
        seconds: u64,
    },
    /// The cameras are not the model's views.
    #[error(
        "cameras: expected one for each of the model's views {expected:?}, found {found:?}; a view without a camera is \
         named in model.skip_views"
    )]
    Views {
        /// The model's views.
        expected: Vec<String>,
        /// Views in `robot.toml`.
        found: Vec<String>,
    },
    /// The bench scene.
    #[error(transparent)]
    Scene(#[from] SceneError),
    /// The simulated controller.
    #[error(transparent)]
    Sim(#[from] SimError),
    /// The line to the controller.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// Model and controller do not fit each other.
    #[error("{what}: the model has {model}, the controller {controller} joints")]
    Joints {
        /// Actions or state.
        what: &'static str,
        /// The model's.
        model: String,
        /// The controller's.
        controller: usize,
    },
    /// A chunk is longer than the controller's buffer.
    #[error("chunks.execution_horizon: the controller takes {depth} steps, a chunk has {steps}")]
    Buffer {
        /// Steps that the controller takes.
        depth: usize,
        /// Steps that would be sent.
        steps: usize,
    },
    /// The recording.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The picture of the run.
    #[error(transparent)]
    Picture(#[from] OutputError),
    /// A fault on purpose that this robot cannot have.
    #[error("fault {fault}: needs {needs}")]
    Unfit {
        /// The fault.
        fault: &'static str,
        /// What it needs.
        needs: &'static str,
    },
    /// The loop ended in a fault.
    #[error("the loop ended in {state}: {detail}")]
    Fault {
        /// The state.
        state: super::mode::State,
        /// What was seen.
        detail: String,
    },
    /// The run's time was over before a chunk was obeyed.
    #[error("no action chunk was obeyed ({refused} refused): the model is too slow here, or the run too short")]
    Idle {
        /// Chunks that the controller refused.
        refused: u64,
    },
    /// A thread could not be started, or a signal handler not set.
    #[error("system: {0}")]
    System(#[from] std::io::Error),
}

/// What is to be done besides, when a robot is opened.
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    /// Faults on purpose that happen while it runs.
    pub faults: Faults,
    /// Clear a fault that the controller latched before; else it is an error.
    pub clear_fault: bool,
}

/// Everything open and checked, nothing moving.
#[derive(Debug)]
pub struct Robot {
    pub(super) config: RobotConfig,
    /// One a view, in the model's order.
    pub(super) cameras: Vec<CameraThread>,
    pub(super) views: Vec<String>,
    pub(super) link: Link,
    pub(super) connector: Connector,
    pub(super) runner: PolicyRunner,
    pub(super) faults: Faults,
    /// The arm's scene and its joints, where it is the bench's.
    pub(super) bench: Option<(Arc<Scene>, Joints)>,
    /// Kept running as long as the robot.
    pub(super) sim: Option<Sim>,
}

impl Robot {
    /// Opens the model's files, controller, GPU, cameras, in this order, and prepares the inference.
    ///
    /// # Errors
    /// The first [`RunError`].
    pub fn open(config: RobotConfig) -> Result<Robot, RunError> {
        Robot::open_with(config, OpenOptions::default())
    }

    /// As [`open`](Self::open), with what is to be done besides.
    ///
    /// # Errors
    /// As [`open`](Self::open), and [`RunError::Unfit`].
    pub fn open_with(config: RobotConfig, options: OpenOptions) -> Result<Robot, RunError> {
        let OpenOptions { faults, clear_fault } = options;
        config.check()?;
        if let Some(fault) = faults.first(Kind::is_of_controller).filter(|_| !config.link.is_simulated()) {
            return Err(RunError::Unfit { fault: fault.name(), needs: "the simulated controller" });
        }
        if faults.any(|k| k == Kind::DiskFull) && config.record.is_none() {
            return Err(RunError::Unfit { fault: "disk-full", needs: "a recording" });
        }
        let mut loaded = families::load_as(&config.model.path, config.model.family)?;
        loaded.skip_views(&config.model.skip_views)?;
        log_model(&loaded);
        let mut state_prompt = None;
        let tokens = match (&config.model.tokens, &config.model.prompt) {
            (Some(tokens), _) => tokens.clone(),
            (None, Some(task)) => {
                let tokenizer = Tokenizer::open_for(&config.model.path, loaded.model.config.vocab)?;
                let format = loaded.model.config.prompt;
                // The controller is asked later; until then the state is nothing in particular.
                let text = prompt::text(&loaded, task, &vec![0.0; *loaded.state_dims.start()]);
                let tokens = tokenizer.text(format, &text)?;
                if format == PromptFormat::TaskAndState {
                    state_prompt = Some(StatePrompt { tokenizer, task: task.clone() });
                }
                tokens
            }
            (None, None) => Vec::new(),
        };
        let views = loaded.model.config.views.clone();
        let found: Vec<String> = config.cameras.iter().map(|c| c.view.clone()).collect();
        let fits = found.len() == views.len() && views.iter().all(|v| found.contains(v));
        if !fits {
            return Err(RunError::Views { expected: views, found });
        }
        let scene = match &config.bench.scene {
            Some(path) => Scene::load(path, config.bench.seed)?,
            None => Scene::built_in(config.bench.seed)?,
        };
        let scene = Arc::new(scene);
        let sim = if config.link.is_simulated() { Some(Sim::start(sim_config(&scene))?) } else { None };
        let device = sim.as_ref().map_or(config.link.device.clone(), |s| s.path().display().to_string());
        let names: Vec<String> = match config.link.is_simulated() {
            true => scene.joints().iter().map(|j| j.name.clone()).collect(),
            false => config.link.joints.clone(),
        };
        let waker = Waker::default();
        let connector = Connector {
            device: device.clone(),
            baud: config.link.baud,
            joints: names,
            identity: config.link.controller.clone(),
            silence: config.link.is_simulated().then_some(SIM_DEADMAN),
            faults: faults.clone(),
            waker: waker.clone(),
        };
        let mut link = connector.open_when_plugged_in()?;
        if clear_fault {
            link.clear_latched(CLEAR)?;
        }
        let latched = link.latched(CLEAR)?;
        let hello = link.controller();
        if let Some(report) = latched {
            let cause = hello.map_or_else(String::new, |hello| report.describe(&hello.joints).to_string());
            return Err(LinkError::Latched { device, fault: report.fault, cause }.into());
        }
        let joints = hello.map_or(0, |hello| usize::from(hello.joints.len()));
        let (depth, horizon) = (hello.map_or(0, |hello| hello.buffer_depth.into()), loaded.model.config.horizon);
        let steps = config.chunks.execution_horizon.unwrap_or(horizon).min(horizon);
        if steps > depth {
            return Err(RunError::Buffer { depth, steps });
        }
        if let Some(hello) = hello {
            tracing::info!(device, identity = hello.identity.as_str(), joints, at_a_fault = %hello.joints.stop, "controller");
        }
        let (dims, actions) = (&loaded.state_dims, loaded.action_dim);
        if actions != joints {
            let model = format!("{actions} actions");
            return Err(RunError::Joints { what: "actions", model, controller: joints });
        }
        if !dims.contains(&joints) {
            let model = format!("a state of {} to {} values", dims.start(), dims.end());
            return Err(RunError::Joints { what: "state", model, controller: joints });
        }

        let options = GpuOptions {
            adapter: config.gpu.adapter.clone(),
            allow_software: config.gpu.software,
            checked: config.gpu.checked,
            timestamps: true,
            cache: config.gpu.cache.clone().or_else(cache_folder),
            timeout: None,
        };
        let (software, wanted, kept) = (config.gpu.software, config.gpu.wanted(), options.clone());
        let mut session = yielding(software, move || -> Result<Session, RunError> {
            let gpu = Gpu::open(&options)?;
            tracing::info!(adapter = %gpu.info(), "GPU");
            Ok(Session::open_with(gpu, loaded, wanted)?)
        })?;

        let joints = sim.as_ref().map(Sim::joints);
        let mut cameras = Vec::new();
        let mut images = Vec::new();
        for view in &views {
            let Some(section) = config.cameras.iter().find(|c| c.view == *view) else { continue };
            let camera = open_camera(section, &scene, joints.as_ref())?;
            tracing::info!(view, camera = camera.describe(), "camera");
            let camera = match faults.any_of_camera() {
                true => Box::new(FaultyCamera::new(camera, view, faults.clone())),
                false => camera,
            };
            let camera = CameraThread::start(view, camera, waker.clone())?;
            let mut image = Image::default();
            camera.first(&mut image, FIRST).map_err(|error| match error {
                Some(error) => RunError::Camera { view: view.clone(), source: Box::new(error) },
                None => RunError::NoImage { view: view.clone(), seconds: FIRST.as_secs() },
            })?;
            images.push(image.spec());
            cameras.push(camera);
        }

        let forward = ForwardOptions {
            images,
            prompt_tokens: tokens.len(),
            depth_map: config.model.depth_map,
            guided: matches!(config.chunks.policy, Policy::Rtc { .. }),
            taps: false,
        };
        session.prepare(&forward, &tokens)?;
        let (weights, arena) = session.gpu_bytes();
        let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
        tracing::info!(
            dispatches = session.dispatches(),
            pipelines = session.gpu().counts().pipelines,
            from_the_cache = session.gpu().counts().cached_pipelines,
            weights = mib(weights),
            arena = mib(arena),
            "inference prepared"
        );
        let bench = joints.map(|joints| (scene, joints));
        let runner = PolicyRunner { session, forward, tokens, prompt: state_prompt, options: kept, wanted };
        Ok(Robot { config, cameras, views, link, connector, runner, faults, bench, sim })
    }
}

impl Robot {
    /// Where the joints of the simulated controller are.
    pub fn joints(&self) -> Option<Joints> {
        self.bench.as_ref().map(|(_, joints)| joints.clone())
    }
}

/// Runs `open` on a thread of its own. A software driver computes on threads that inherit this one's priority: with
/// `software` they take only the time that the control loop leaves.
fn yielding<T: Send>(software: bool, open: impl FnOnce() -> Result<T, RunError> + Send) -> Result<T, RunError> {
    let opened = std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            if software && let Err(error) = rustix::process::nice(10) {
                tracing::debug!(%error, "the software driver keeps its priority");
            }
            open()
        });
        thread.join()
    });
    opened.unwrap_or_else(|_| Err(std::io::Error::other("the thread that opens the GPU ended").into()))
}

fn open_camera(
    section: &crate::config::CameraSection,
    scene: &Arc<Scene>,
    joints: Option<&Joints>,
) -> Result<Box<dyn Camera>, RunError> {
    let failed = |error| RunError::Camera { view: section.view.clone(), source: Box::new(error) };
    Ok(match &section.source {
        CameraSource::V4l(config) => Box::new(V4lCamera::open(config.clone()).map_err(failed)?),
        CameraSource::Folder(config) => Box::new(FolderCamera::open(config).map_err(failed)?),
        CameraSource::Bench(config) => {
            let name = config.camera.as_deref().unwrap_or(&section.view);
            let joints = joints.cloned();
            let source = move |into: &mut [f32]| {
                if let Some(joints) = &joints {
                    joints.read(into);
                }
            };
            Box::new(BenchCamera::new(Arc::clone(scene), name, Arc::new(source), config.rate_hz)?)
        }
    })
}

/// The scene's arm as the simulated controller has it.
fn sim_config(scene: &Scene) -> SimConfig {
    let joints = scene.joints().iter().map(|j| SimJoint {
        name: j.name.clone(),
        unit: Unit::Radian,
        min: j.limits_rad[0],
        max: j.limits_rad[1],
        velocity: j.velocity_limit_rad_s,
        acceleration: j.velocity_limit_rad_s * 8.0,
        // Command and arm are apart by lag × speed; this is well beyond it.
        jump: 0.5,
        initial: j.initial_rad,
    });
    SimConfig { deadman_us: SIM_DEADMAN.as_micros() as u32, ..SimConfig::new(joints.collect()) }
}
