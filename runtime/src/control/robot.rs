//! Opens what `robot.toml` names: cameras, link, model; checks that they fit each other.

use std::sync::Arc;
use std::time::Duration;

use fathom_models::families::{self, Loaded};
use fathom_models::nets::config::PromptFormat;
use fathom_models::nets::depthvla::ForwardOptions;
use fathom_models::nets::image::ImageSpec;
use fathom_models::processing::prompt;
use fathom_models::processing::tokenizer::Tokenizer;
use firmware_bridge::joint::Unit;
use firmware_bridge::sim::{Joints, Sim, SimConfig, SimJoint};

use super::camera::CameraThread;
use super::error::RunError;
use super::reconnect::Connector;
use crate::action::Policy;
use crate::bench::{BenchCamera, Scene};
use crate::camera::{Camera, FolderCamera, Image, V4lCamera};
use crate::clock::Waker;
use crate::config::{CameraSection, CameraSource, RobotConfig};
use crate::engine::{Session, log_model};
use crate::events::Events;
use crate::fault::{Faults, FaultyCamera, Kind};
use crate::gpu::{Gpu, GpuOptions, cache_folder};
use crate::link::{Link, LinkError};
use crate::policy::{PolicyRunner, StatePrompt};

/// How long a camera may take for its first image.
const FIRST: Duration = Duration::from_secs(5);

/// How long a controller may take for its first report, and to clear a fault while its joints ramp to rest.
const CLEAR: Duration = Duration::from_secs(5);

/// Deadman time of the simulated controller. It shares the computer with the model's software driver, and a
/// pseudo-terminal's bytes go through the kernel's work queues: a busy computer holds them up longer than a wire does.
const SIM_DEADMAN: Duration = Duration::from_secs(1);

/// Options of opening a robot.
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    /// Faults on purpose that happen while it runs.
    pub faults: Faults,
    /// Clear a fault that the controller latched before; else it is an error.
    pub clear_fault: bool,
    /// The stream of events of its cameras, loop and recording.
    pub events: Events,
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
    pub(super) events: Events,
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

    /// As [`open`](Self::open), with options.
    ///
    /// # Errors
    /// As [`open`](Self::open), and [`RunError::Unfit`].
    pub fn open_with(config: RobotConfig, options: OpenOptions) -> Result<Robot, RunError> {
        let OpenOptions { faults, clear_fault, events } = options;
        config.check()?;
        check_faults(&config, &faults)?;
        faults.emit_to(&events);
        let (loaded, prompt) = load(&config)?;
        let views = loaded.model.config.views.clone();
        let scene = match &config.bench.scene {
            Some(path) => Scene::load(path, config.bench.seed)?,
            None => Scene::built_in(config.bench.seed)?,
        };
        let scene = Arc::new(scene);
        let sim = if config.link.is_simulated() { Some(Sim::start(sim_config(&scene))?) } else { None };
        let connector = connector(&config, sim.as_ref(), &scene, faults.clone(), events.clone());
        let mut link = connector.open_when_plugged_in()?;
        check_latched(&mut link, clear_fault)?;
        check_fit(&config, &link, &loaded)?;
        let options = gpu_options(&config);
        let mut session = open_session(&config, options.clone(), loaded)?;
        let bench = sim.as_ref().map(|sim| (Arc::clone(&scene), sim.joints()));
        let (mut cameras, mut images) = (Vec::new(), Vec::new());
        for section in views.iter().filter_map(|view| config.cameras.iter().find(|c| c.view == *view)) {
            let camera = open_camera(section, &scene, bench.as_ref().map(|(_, joints)| joints))?;
            let (camera, spec) = start_camera(section, camera, &faults, &connector.waker, &events)?;
            cameras.push(camera);
            images.push(spec);
        }
        let forward = ForwardOptions {
            images,
            prompt_tokens: prompt.tokens.len(),
            depth_map: config.model.depth_map,
            guided: matches!(config.chunks.policy, Policy::Rtc { .. }),
            taps: false,
        };
        session.prepare(&forward, &prompt.tokens)?;
        log_prepared(&session);
        let Prompt { tokens, state: prompt } = prompt;
        let wanted = config.gpu.wanted();
        let runner = PolicyRunner { session, forward, tokens, prompt, options, wanted };
        Ok(Robot { config, cameras, views, link, connector, runner, faults, events, bench, sim })
    }
}

/// The faults on purpose are such as this robot can have.
fn check_faults(config: &RobotConfig, faults: &Faults) -> Result<(), RunError> {
    if let Some(fault) = faults.first(Kind::is_of_controller).filter(|_| !config.link.is_simulated()) {
        return Err(RunError::Unfit { fault: fault.name(), needs: "the simulated controller" });
    }
    if faults.any(|k| k == Kind::DiskFull) && config.record.is_none() {
        return Err(RunError::Unfit { fault: "disk-full", needs: "a recording" });
    }
    Ok(())
}

/// The prompt's tokens, and the prompt that makes them anew where the state is part of it.
struct Prompt {
    tokens: Vec<i32>,
    state: Option<StatePrompt>,
}

/// Loads the model's files, and checks that each of its views has a camera.
fn load(config: &RobotConfig) -> Result<(Loaded, Prompt), RunError> {
    let mut loaded = families::load_as(&config.model.path, config.model.family)?;
    loaded.skip_views(&config.model.skip_views)?;
    log_model(&loaded);
    let mut state = None;
    let tokens = match (&config.model.tokens, &config.model.prompt) {
        (Some(tokens), _) => tokens.clone(),
        (None, Some(task)) => {
            let tokenizer = Tokenizer::open_for(&config.model.path, loaded.model.config.vocab)?;
            let format = loaded.model.config.prompt;
            // The controller is asked later; until then the state is nothing in particular.
            let text = prompt::text(&loaded, task, &vec![0.0; *loaded.state_dims.start()]);
            let tokens = tokenizer.text(format, &text)?;
            if format == PromptFormat::TaskAndState {
                state = Some(StatePrompt { tokenizer, task: task.clone() });
            }
            tokens
        }
        (None, None) => Vec::new(),
    };
    let expected = &loaded.model.config.views;
    let found: Vec<String> = config.cameras.iter().map(|c| c.view.clone()).collect();
    if found.len() != expected.len() || !expected.iter().all(|view| found.contains(view)) {
        return Err(RunError::Views { expected: expected.clone(), found });
    }
    Ok((loaded, Prompt { tokens, state }))
}

/// How the line to the controller is opened.
fn connector(config: &RobotConfig, sim: Option<&Sim>, scene: &Scene, faults: Faults, events: Events) -> Connector {
    Connector {
        device: sim.map_or(config.link.device.clone(), |s| s.path().display().to_string()),
        baud: config.link.baud,
        joints: match config.link.is_simulated() {
            true => scene.joints().iter().map(|j| j.name.clone()).collect(),
            false => config.link.joints.clone(),
        },
        identity: config.link.controller.clone(),
        silence: config.link.is_simulated().then_some(SIM_DEADMAN),
        faults,
        events,
        waker: Waker::default(),
    }
}

/// The controller has no fault latched, or it is cleared.
fn check_latched(link: &mut Link, clear_fault: bool) -> Result<(), RunError> {
    if clear_fault {
        link.clear_latched(CLEAR)?;
    }
    let Some(report) = link.latched(CLEAR)? else { return Ok(()) };
    let cause = link.controller().map_or_else(String::new, |hello| report.describe(&hello.joints).to_string());
    Err(LinkError::Latched { device: link.device().to_owned(), fault: report.fault, cause }.into())
}

/// Model and controller fit each other.
fn check_fit(config: &RobotConfig, link: &Link, loaded: &Loaded) -> Result<(), RunError> {
    let hello = link.controller();
    let joints = hello.map_or(0, |hello| usize::from(hello.joints.len()));
    let (depth, horizon) = (hello.map_or(0, |hello| hello.buffer_depth.into()), loaded.model.config.horizon);
    let steps = config.chunks.execution_horizon.unwrap_or(horizon).min(horizon);
    if steps > depth {
        return Err(RunError::Buffer { depth, steps });
    }
    if let Some(hello) = hello {
        let device = link.device();
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
    Ok(())
}

fn gpu_options(config: &RobotConfig) -> GpuOptions {
    GpuOptions {
        adapter: config.gpu.adapter.clone(),
        allow_software: config.gpu.software,
        checked: config.gpu.checked,
        timestamps: true,
        cache: config.gpu.cache.clone().or_else(cache_folder),
        timeout: None,
    }
}

/// Opens the GPU and puts the model on it, on a thread of its own: a software driver computes on threads that inherit this
/// one's priority, and takes only the time that the control loop leaves.
fn open_session(config: &RobotConfig, options: GpuOptions, loaded: Loaded) -> Result<Session, RunError> {
    let (software, wanted) = (config.gpu.software, config.gpu.wanted());
    let open = move || {
        if software && let Err(error) = rustix::process::nice(10) {
            tracing::debug!(%error, "the software driver keeps its priority");
        }
        let gpu = Gpu::open(&options)?;
        tracing::info!(adapter = %gpu.info(), "GPU");
        Ok(Session::open_with(gpu, loaded, wanted)?)
    };
    let opened = std::thread::scope(|scope| scope.spawn(open).join());
    opened.unwrap_or_else(|_| Err(std::io::Error::other("the thread that opens the GPU ended").into()))
}

fn log_prepared(session: &Session) {
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
}

/// Starts a camera's thread and waits for its first image; the thread, and the image's form.
fn start_camera(
    section: &CameraSection,
    camera: Box<dyn Camera>,
    faults: &Faults,
    waker: &Waker,
    events: &Events,
) -> Result<(CameraThread, ImageSpec), RunError> {
    let view = &section.view;
    tracing::info!(view, camera = camera.describe(), "camera");
    let camera = match faults.any_of_camera() {
        true => Box::new(FaultyCamera::new(camera, view, faults.clone())),
        false => camera,
    };
    let thread = CameraThread::start(view, camera, waker.clone(), events.clone())?;
    let mut image = Image::default();
    thread.first(&mut image, FIRST).map_err(|error| match error {
        Some(source) => RunError::Camera { view: view.clone(), source },
        None => RunError::NoImage { view: view.clone(), seconds: FIRST.as_secs() },
    })?;
    Ok((thread, image.spec()))
}

impl Robot {
    /// Where the joints of the simulated controller are.
    pub fn joints(&self) -> Option<Joints> {
        self.bench.as_ref().map(|(_, joints)| joints.clone())
    }
}

fn open_camera(
    section: &CameraSection,
    scene: &Arc<Scene>,
    joints: Option<&Joints>,
) -> Result<Box<dyn Camera>, RunError> {
    let failed = |error| RunError::Camera { view: section.view.clone(), source: Arc::new(error) };
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
