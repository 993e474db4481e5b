//! Opens the parts that `robot.toml` names (cameras, link, model), and checks that they match each other.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use fathom_models::families::Loaded;
use fathom_models::nets::image::ImageSpec;
use firmware_bridge::joint::Unit;
use firmware_bridge::sim::{Joints, Sim, SimConfig, SimJoint};

use super::camera::CameraThread;
use super::error::RunError;
use super::reconnect::{Connector, Port};
use crate::action::ChunkPolicy;
#[cfg(feature = "v4l")]
use crate::camera::V4lCamera;
use crate::camera::{Camera, FolderCamera, Image};
use crate::config::{CameraSection, CameraSource, RobotConfig};
use crate::engine::Session;
use crate::events::Events;
use crate::fault::{Faults, FaultyCamera, Kind};
use crate::gpu::{GpuOptions, cache_folder};
use crate::link::{Link, LinkError};
use crate::policy::{Policy, PolicyFiles, PolicyOptions};
use crate::scene::{FixedJoints, JointSource, LiveWorld, Scene, SceneCamera, World};
use crate::waker::Waker;

/// Time limit of a camera's first image.
const FIRST: Duration = Duration::from_secs(5);

/// Time limit of a controller's first report, and of clearing a fault while its joints ramp to rest.
const CLEAR: Duration = Duration::from_secs(5);

/// Deadman time of the simulated controller. It shares the computer with the model's software driver, and a
/// pseudo-terminal's bytes pass through the kernel's work queues: a busy computer delays them more than a wire does.
const SIM_DEADMAN: Duration = Duration::from_secs(1);

/// An open and checked robot that does not move yet.
#[derive(Debug)]
pub struct Robot {
    pub(super) config: RobotConfig,
    /// One per view, in the model's order.
    pub(super) cameras: Vec<CameraThread>,
    pub(super) views: Vec<String>,
    pub(super) link: Link,
    pub(super) connector: Connector,
    pub(super) policy: Policy,
    pub(super) faults: Faults,
    pub(super) events: Events,
    /// The scene and the joints of its arm, if the controller is simulated.
    pub(super) arm: Option<(Arc<Scene>, Joints)>,
    /// The state of that scene.
    pub(super) world: Option<LiveWorld>,
    /// Runs as long as the robot.
    pub(super) sim: Option<Sim>,
}

/// Opens a robot, optionally with custom parts.
///
/// [`Robot::open`] opens a robot from its configuration alone.
///
/// ```
/// use fathom::camera::{Camera, CameraError, Image, PixelFormat};
/// use fathom::config::RobotConfig;
/// use fathom::control::{Robot, RunOptions};
/// use std::time::Duration;
///
/// struct Grey;
///
/// impl Camera for Grey {
///     fn describe(&self) -> String {
///         "a grey wall".to_owned()
///     }
///
///     fn capture(&mut self, into: &mut Image, _timeout: Duration) -> Result<(), CameraError> {
///         std::thread::sleep(Duration::from_millis(50));
///         into.reshape(PixelFormat::Rgb24, 64, 64);
///         into.data.fill(128);
///         into.stamp_ns = fathom::clock::monotonic_ns(); // the loop holds the arm on old images
///         Ok(())
///     }
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let scene = fathom::scene::Scene::built_in(0)?;
/// # let folder = tempfile::tempdir()?;
/// # fathom::untrained::write(folder.path(), &fathom_models::nets::presets::small(), &scene, 0)?;
/// # let checkpoint = folder.path();
/// let mut config = RobotConfig::new(checkpoint); // the simulated arm, and no camera
/// # config.gpu.software = true;
/// # config.control.max_image_age_ms = 60_000;
/// # config.control.max_image_skew_ms = 60_000;
/// # config.chunks.validity_ms = 60_000;
/// config.model.prompt = Some("reach for the red block".to_owned());
/// let robot = Robot::builder(config).camera("base", Grey).camera("wrist", Grey).open()?;
/// let outcome = robot.run(&RunOptions { seconds: Some(2.0), ..RunOptions::default() });
/// # // A busy machine may not finish an inference in this time.
/// # assert!(matches!(outcome, Ok(_) | Err(fathom::control::RunError::Idle { .. })), "{outcome:?}");
/// # Ok(())
/// # }
/// ```
pub struct RobotBuilder {
    config: RobotConfig,
    faults: Faults,
    clear_fault: bool,
    events: Events,
    cameras: BTreeMap<String, Box<dyn Camera>>,
    port: Option<(String, Port)>,
    scene: Option<Scene>,
}

impl RobotBuilder {
    /// Uses this camera for a view, in place of the configuration's.
    #[must_use]
    pub fn camera(mut self, view: impl Into<String>, camera: impl Camera + 'static) -> RobotBuilder {
        self.cameras.insert(view.into(), Box::new(camera));
        self
    }

    /// Uses this line to the controller, named `name` in messages, in place of the configuration's device. `open`
    /// returns both ends of the line; it is called again after the line was lost. Reads should time out within about 20
    /// ms.
    #[must_use]
    pub fn line<R, W>(
        mut self,
        name: impl Into<String>,
        open: impl Fn() -> io::Result<(R, W)> + Send + Sync + 'static,
    ) -> RobotBuilder
    where
        R: io::Read + Send + 'static,
        W: io::Write + Send + 'static,
    {
        self.port = Some((name.into(), Port::own(open)));
        self
    }

    /// Uses this scene, in place of the configuration's.
    #[must_use]
    pub fn scene(mut self, scene: Scene) -> RobotBuilder {
        self.scene = Some(scene);
        self
    }

    /// Injects faults while the robot runs.
    #[must_use]
    pub fn faults(mut self, faults: Faults) -> RobotBuilder {
        self.faults = faults;
        self
    }

    /// Clears a fault that the controller has latched; otherwise it is an error.
    #[must_use]
    pub fn clear_fault(mut self, clear: bool) -> RobotBuilder {
        self.clear_fault = clear;
        self
    }

    /// Also sends every event of cameras, loop and recording there.
    #[must_use]
    pub fn events(mut self, events: Events) -> RobotBuilder {
        self.events = events;
        self
    }

    /// Opens the policy's files, the controller, the GPU and the cameras, in this order, and prepares the inference.
    ///
    /// # Errors
    /// The first [`RunError`].
    pub fn open(self) -> Result<Robot, RunError> {
        let RobotBuilder { config, faults, clear_fault, events, mut cameras, port, scene } = self;
        config.check()?;
        let simulated = port.is_none() && config.link.is_simulated();
        check_faults(&config, simulated, &faults)?;
        faults.emit_to(&events);
        let files = read_policy(&config, cameras.keys())?;
        let scene = match scene {
            Some(scene) => scene,
            None => config.scene.load(config.scene.seed)?,
        };
        let scene = Arc::new(scene);
        let sim = if simulated { Some(Sim::start(sim_config(&scene))?) } else { None };
        let connector = connector(&config, sim.as_ref(), port, &scene, faults.clone(), events.clone());
        let mut link = connector.open_when_plugged_in()?;
        check_latched(&mut link, clear_fault)?;
        check_fit(&config, &link, &files.loaded)?;
        let mut policy = open_policy(&config, files)?;
        let arm = sim.as_ref().map(|sim| (Arc::clone(&scene), sim.joints()));
        let world = arm.as_ref().map(|(scene, joints)| live_world(scene, joints)).transpose()?;
        let views = policy.views().to_vec();
        let (mut threads, mut images) = (Vec::new(), Vec::new());
        for view in &views {
            let camera = match (cameras.remove(view), config.cameras.iter().find(|section| section.view == *view)) {
                (Some(camera), _) => camera,
                (None, Some(section)) => open_camera(section, &scene, world.as_ref())?,
                (None, None) => continue,
            };
            let (thread, spec) = start_camera(view, camera, &faults, &connector.waker, &events)?;
            threads.push(thread);
            images.push(spec);
        }
        policy.prepare(images)?;
        log_prepared(&policy.session);
        Ok(Robot { config, cameras: threads, views, link, connector, policy, faults, events, arm, world, sim })
    }
}

impl Robot {
    /// A builder for a robot with custom parts.
    pub fn builder(config: RobotConfig) -> RobotBuilder {
        RobotBuilder {
            config,
            faults: Faults::default(),
            clear_fault: false,
            events: Events::default(),
            cameras: BTreeMap::new(),
            port: None,
            scene: None,
        }
    }

    /// Opens the robot that the configuration describes.
    ///
    /// # Errors
    /// As [`RobotBuilder::open`].
    pub fn open(config: RobotConfig) -> Result<Robot, RunError> {
        Robot::builder(config).open()
    }

    /// The joints of the simulated controller.
    pub fn joints(&self) -> Option<Joints> {
        self.arm.as_ref().map(|(_, joints)| joints.clone())
    }
}

/// Checks that the robot can have the injected faults.
fn check_faults(config: &RobotConfig, simulated: bool, faults: &Faults) -> Result<(), RunError> {
    if let Some(fault) = faults.first(Kind::is_of_controller).filter(|_| !simulated) {
        return Err(RunError::Unfit { fault: fault.name(), needs: "the simulated controller" });
    }
    if faults.any(|k| k == Kind::DiskFull) && config.record.is_none() {
        return Err(RunError::Unfit { fault: "disk-full", needs: "a recording" });
    }
    Ok(())
}

/// Reads the policy's files, and checks that each of its views has a camera, from the configuration or from `more`.
pub(crate) fn read_policy<'a>(
    config: &'a RobotConfig,
    more: impl Iterator<Item = &'a String>,
) -> Result<PolicyFiles, RunError> {
    let options = PolicyOptions {
        family: config.model.family,
        skip_views: config.model.skip_views.clone(),
        gpu: gpu_options(config),
        wanted: config.gpu.wanted(),
        depth_map: config.model.depth_map,
        guided: matches!(config.chunks.policy, ChunkPolicy::Rtc { .. }),
    };
    let mut files = PolicyFiles::read(&config.model.path, options)?;
    match (&config.model.tokens, &config.model.prompt) {
        (Some(tokens), _) => files.set_tokens(tokens),
        (None, Some(task)) => files.set_task(task)?,
        (None, None) => {}
    }
    let expected = &files.loaded.model.config.views;
    let found: BTreeSet<&String> = config.cameras.iter().map(|camera| &camera.view).chain(more).collect();
    if found.len() != expected.len() || !expected.iter().all(|view| found.contains(view)) {
        let found = found.into_iter().cloned().collect();
        return Err(RunError::Views { expected: expected.clone(), found });
    }
    Ok(files)
}

/// The parts from which the line to the controller is opened.
pub(crate) fn connector(
    config: &RobotConfig,
    sim: Option<&Sim>,
    port: Option<(String, Port)>,
    scene: &Scene,
    faults: Faults,
    events: Events,
) -> Connector {
    let device = sim.map_or(config.link.device.clone(), |s| s.path().display().to_string());
    let (device, port) = port.unwrap_or((device, Port::Serial { baud: config.link.baud }));
    Connector {
        device,
        port,
        joints: match sim.is_some() {
            true => scene.joints().iter().map(|j| j.name.clone()).collect(),
            false => config.link.joints.clone(),
        },
        identity: config.link.controller.clone(),
        silence: sim.is_some().then_some(SIM_DEADMAN),
        faults,
        events,
        waker: Waker::default(),
    }
}

/// Checks that the controller has no latched fault, or clears it.
fn check_latched(link: &mut Link, clear_fault: bool) -> Result<(), RunError> {
    if clear_fault {
        link.clear_latched(CLEAR)?;
    }
    let Some(report) = link.latched(CLEAR)? else { return Ok(()) };
    let cause = link.controller().map_or_else(String::new, |hello| report.describe(&hello.joints).to_string());
    Err(LinkError::Latched { device: link.device().to_owned(), fault: report.fault, cause }.into())
}

/// Checks that model and controller match.
pub(crate) fn check_fit<W>(config: &RobotConfig, link: &Link, loaded: &Loaded<W>) -> Result<(), RunError> {
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

pub(crate) fn gpu_options(config: &RobotConfig) -> GpuOptions {
    GpuOptions {
        adapter: config.gpu.adapter.clone(),
        allow_software: config.gpu.software,
        checked: config.gpu.checked,
        timestamps: true,
        cache: config.gpu.cache.clone().or_else(cache_folder),
        timeout: None,
    }
}

/// Opens the GPU and uploads the policy on a separate thread. A software driver computes on threads that inherit this
/// thread's priority, so it uses only the time that the control loop leaves.
pub(crate) fn open_policy(config: &RobotConfig, files: PolicyFiles) -> Result<Policy, RunError> {
    let software = config.gpu.software;
    let open = move || {
        if software && let Err(error) = rustix::process::nice(10) {
            tracing::debug!(%error, "the software driver keeps its priority");
        }
        Ok(files.open()?)
    };
    let opened = std::thread::scope(|scope| scope.spawn(open).join());
    opened.unwrap_or_else(|_| Err(io::Error::other("the thread that opens the GPU ended").into()))
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

/// Starts a camera's thread and waits for its first image. Returns the thread and the image's format.
fn start_camera(
    view: &str,
    camera: Box<dyn Camera>,
    faults: &Faults,
    waker: &Waker,
    events: &Events,
) -> Result<(CameraThread, ImageSpec), RunError> {
    tracing::info!(view, camera = camera.describe(), "camera");
    let camera = match faults.any_of_camera() {
        true => Box::new(FaultyCamera::new(camera, view, faults.clone())),
        false => camera,
    };
    let thread = CameraThread::start(view, camera, waker.clone(), events.clone())?;
    let mut image = Image::default();
    thread.first(&mut image, FIRST).map_err(|error| match error {
        Some(source) => RunError::Camera { view: view.to_owned(), source },
        None => RunError::NoImage { view: view.to_owned(), seconds: FIRST.as_secs() },
    })?;
    Ok((thread, image.spec()))
}

pub(crate) fn open_camera(
    section: &CameraSection,
    scene: &Arc<Scene>,
    world: Option<&LiveWorld>,
) -> Result<Box<dyn Camera>, RunError> {
    let failed = |error| RunError::Camera { view: section.view.clone(), source: Arc::new(error) };
    Ok(match &section.source {
        #[cfg(feature = "v4l")]
        CameraSource::V4l(config) => Box::new(V4lCamera::open(config.clone()).map_err(failed)?),
        CameraSource::Folder(config) => Box::new(FolderCamera::open(config).map_err(failed)?),
        CameraSource::Scene(config) => {
            let name = config.camera.as_deref().unwrap_or(&section.view);
            let source: Arc<dyn JointSource> = match world {
                Some(world) => Arc::new(world.clone()),
                None => Arc::new(FixedJoints::default()),
            };
            Box::new(SceneCamera::new(Arc::clone(scene), name, source, config.rate_hz)?)
        }
    })
}

/// The scene's world, moved by the simulated joints. An object between the jaws stops the jaw.
fn live_world(scene: &Arc<Scene>, joints: &Joints) -> Result<LiveWorld, RunError> {
    let (read, stopped) = (joints.clone(), joints.clone());
    let jaw = scene.gripper().map(|gripper| gripper.joint);
    let source = move |into: &mut [f32]| read.read(into);
    let stop = move |angle: Option<f32>| stopped.stop(jaw.zip(angle));
    LiveWorld::start(World::new(Arc::clone(scene)), Arc::new(source), Box::new(stop))
        .map_err(|source| RunError::Sim(source.into()))
}

/// The simulated controller's configuration for the scene's arm.
pub(crate) fn sim_config(scene: &Scene) -> SimConfig {
    let jaw = scene.gripper().map(|gripper| gripper.joint);
    let joints = scene.joints().iter().enumerate().map(|(index, j)| SimJoint {
        name: j.name.clone(),
        unit: Unit::Radian,
        min: j.limits_rad[0],
        max: j.limits_rad[1],
        velocity: j.velocity_limit_rad_s,
        acceleration: j.velocity_limit_rad_s * 8.0,
        // Command and arm differ by lag × speed; this is well beyond it. An object may stop the jaw at any angle.
        jump: if jaw == Some(index) { 2.0 } else { 0.5 },
        initial: j.initial_rad,
    });
    SimConfig { deadman_us: SIM_DEADMAN.as_micros() as u32, ..SimConfig::new(joints.collect()) }
}
