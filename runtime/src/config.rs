//! `robot.toml`, the daemon's description of a robot. Unknown keys are errors; paths are relative to the file.

use std::path::{Path, PathBuf};

use fathom_models::families::Family;
use fathom_models::graph::precision::Float;
use firmware_bridge::message::Interpolation;
use serde::Deserialize;

use crate::action::ChunkPolicy;
use crate::camera::FolderConfig;
#[cfg(feature = "v4l")]
use crate::camera::V4lConfig;
use crate::engine::{Kernels, Wanted};
use crate::scene::{Scene, SceneError};

mod check;
mod renamed;

pub use check::ValueError;
pub use renamed::Renamed;

/// The whole file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RobotConfig {
    /// The model and its task.
    pub model: ModelSection,
    /// The GPU.
    #[serde(default)]
    pub gpu: GpuSection,
    /// The control loop.
    #[serde(default)]
    pub control: ControlSection,
    /// The joining of consecutive chunks.
    #[serde(default)]
    pub chunks: ChunkSection,
    /// The recording of the run; none if absent.
    pub record: Option<RecordSection>,
    /// The line to the motor controller.
    pub link: LinkSection,
    /// The simulated scene, which replaces the arm and its cameras.
    #[serde(default)]
    pub scene: SceneSection,
    /// One entry per camera.
    #[serde(rename = "camera")]
    pub cameras: Vec<CameraSection>,
}

/// The model and its task.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSection {
    /// Directory of the checkpoint.
    pub path: PathBuf,
    /// Checkpoint family; overrides detection.
    pub family: Option<&'static Family>,
    /// Views of the checkpoint without a camera: they are dropped; there are no placeholder images.
    #[serde(default)]
    pub skip_views: Vec<String>,
    /// The task in plain language; needs `tokenizer.json` in the directory. Alternative: `tokens`.
    pub prompt: Option<String>,
    /// The prompt's tokens.
    pub tokens: Option<Vec<i32>>,
    /// Seed of the noise; each inference uses the next seed.
    #[serde(default)]
    pub seed: u64,
    /// Whether to compute the depth map with each inference.
    #[serde(default)]
    pub depth_map: bool,
}

/// The GPU.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GpuSection {
    /// Part of the adapter's name; any hardware adapter if absent.
    pub adapter: Option<String>,
    /// Whether to allow a software driver.
    pub software: bool,
    /// Whether shaders check bounds.
    pub checked: bool,
    /// Kernel family; overrides the automatic choice.
    pub kernels: Option<Kernels>,
    /// Precision of keys and values. Default: chosen with the kernels.
    pub kv: Option<Float>,
    /// Precision of other tensors between kernels. Default: chosen with the kernels.
    pub activations: Option<Float>,
    /// Folder for compiled pipelines; default: `fathom` in the user's cache folder.
    pub cache: Option<PathBuf>,
}

impl GpuSection {
    /// The requested kernels and formats.
    pub fn wanted(&self) -> Wanted {
        Wanted { kernels: self.kernels, kv: self.kv, activations: self.activations }
    }
}

/// The control loop.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ControlSection {
    /// Steps of an action chunk per second.
    pub action_rate_hz: f64,
    /// Control ticks per second.
    pub tick_rate_hz: f64,
    /// The loop holds if an image is older than this when it is needed, in milliseconds.
    pub max_image_age_ms: u64,
    /// The loop holds if the newest images of two cameras are further apart than this, in milliseconds.
    pub max_image_skew_ms: u64,
    /// Whether to arm as soon as the loop is ready. Otherwise SIGUSR1 arms. SIGUSR2 disarms in either case.
    pub arm_at_start: bool,
    /// Arm again after the line was lost, the controller restarted, or the controller lost the host. Otherwise SIGUSR1
    /// arms.
    pub rearm: bool,
    /// Do everything except arming and sending.
    pub dry_run: bool,
    /// Real-time priority of the control thread, where the system allows it (`SCHED_FIFO`), with the memory in use locked; 0: none.
    pub realtime_priority: u32,
}

impl Default for ControlSection {
    fn default() -> ControlSection {
        ControlSection {
            action_rate_hz: 15.0,
            tick_rate_hz: 100.0,
            max_image_age_ms: 500,
            max_image_skew_ms: 300,
            arm_at_start: true,
            rearm: true,
            dry_run: false,
            realtime_priority: 0,
        }
    }
}

/// The joining of consecutive chunks.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ChunkSection {
    /// How steps that two chunks share are combined.
    pub policy: ChunkPolicy,
    /// Executed steps of a chunk before the next inference starts; 0: as soon as the model is idle.
    pub replan_steps: u32,
    /// Number of steps of a chunk to send, starting at the first step after its images; default: all.
    pub execution_horizon: Option<usize>,
    /// No step is executed later than this after its images were taken, in milliseconds.
    pub validity_ms: u64,
    /// The controller's motion between steps: `linear`, or `hermite` (cubic).
    #[serde(with = "InterpolationName")]
    pub interpolation: Interpolation,
}

/// Names of the interpolations.
#[derive(Deserialize)]
#[serde(remote = "Interpolation", rename_all = "snake_case")]
enum InterpolationName {
    Linear,
    Hermite,
}

impl Default for ChunkSection {
    fn default() -> ChunkSection {
        ChunkSection {
            policy: ChunkPolicy::Replace,
            replan_steps: 0,
            execution_horizon: None,
            validity_ms: 3000,
            interpolation: Interpolation::Linear,
        }
    }
}

/// The recording of a run.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordSection {
    /// The folder.
    pub folder: PathBuf,
    /// Size limit in megabytes; beyond it the oldest files are deleted.
    #[serde(default = "default_limit_mb")]
    pub limit_mb: u64,
}

impl RecordSection {
    /// The default limit in megabytes.
    pub const LIMIT_MB: u64 = 2000;
}

fn default_limit_mb() -> u64 {
    RecordSection::LIMIT_MB
}

/// The line to the motor controller.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkSection {
    /// The serial device, or `simulated`: the controller's own code on this computer, moving the scene's arm.
    pub device: String,
    /// Bits per second.
    #[serde(default = "default_baud")]
    pub baud: u32,
    /// Accept only the controller with this identity, which the log names. Default: any controller with these joints.
    pub controller: Option<String>,
    /// The controller's joints in its order, which is the order of the model's actions; the scene's if it is simulated.
    #[serde(default)]
    pub joints: Vec<String>,
}

impl LinkSection {
    /// Whether the controller runs on this computer.
    pub fn is_simulated(&self) -> bool {
        self.device == SIMULATED
    }
}

/// The device's name that selects the simulated controller.
const SIMULATED: &str = "simulated";

fn default_baud() -> u32 {
    1_000_000
}

/// The simulated scene.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SceneSection {
    /// Scene file; default: the built-in scene.
    pub file: Option<PathBuf>,
    /// Places the objects.
    pub seed: u64,
}

impl SceneSection {
    /// The scene, as `seed` lays it out.
    ///
    /// # Errors
    /// [`SceneError`].
    pub fn load(&self, seed: u64) -> Result<Scene, SceneError> {
        match &self.file {
            Some(path) => Scene::load(path, seed),
            None => Scene::built_in(seed),
        }
    }
}

/// One camera.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CameraSection {
    /// The model's view that this camera provides.
    pub view: String,
    /// The source of its images.
    pub source: CameraSource,
}

/// The source of a camera's images.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum CameraSource {
    /// A V4L2 device.
    #[cfg(feature = "v4l")]
    V4l(V4lConfig),
    /// Pictures of a folder.
    Folder(FolderConfig),
    /// A camera of the simulated scene.
    Scene(SceneCameraConfig),
}

impl CameraSource {
    /// The value of `kind` in `robot.toml`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            #[cfg(feature = "v4l")]
            CameraSource::V4l(_) => "v4l",
            CameraSource::Folder(_) => "folder",
            CameraSource::Scene(_) => "scene",
        }
    }
}

/// A camera of the simulated scene.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SceneCameraConfig {
    /// Its name in the scene; default: the view's name.
    pub camera: Option<String>,
    /// Images per second.
    pub rate_hz: f32,
}

/// Errors of `robot.toml`.
#[derive(Debug, thiserror::Error)]
pub enum RobotConfigError {
    /// It cannot be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not valid TOML or has a wrong key or type; the message has line and column.
    #[error("{}: {source}", path.display())]
    Toml {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Box<toml::de::Error>,
    },
    /// It has names of an older version.
    #[error("{}: {}", path.display(), keys.iter().map(Renamed::to_string).collect::<Vec<_>>().join("; "))]
    Renamed {
        /// The file.
        path: PathBuf,
        /// All old names in it.
        keys: Vec<Renamed>,
    },
    /// A value is outside its limits.
    #[error("{}: {source}", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// Which, and why.
        source: ValueError,
    },
}

impl RobotConfig {
    /// The configuration of a robot made in code: the checkpoint in `model`, the simulated arm, no camera, and the defaults of
    /// `robot.toml` for the rest.
    ///
    /// ```
    /// use fathom::config::RobotConfig;
    ///
    /// let mut config = RobotConfig::new("/var/lib/fathom/model");
    /// config.model.prompt = Some("reach for the red block".to_owned());
    /// config.control.action_rate_hz = 30.0;
    /// ```
    pub fn new(model: impl Into<PathBuf>) -> RobotConfig {
        RobotConfig {
            model: ModelSection {
                path: model.into(),
                family: None,
                skip_views: Vec::new(),
                prompt: None,
                tokens: None,
                seed: 0,
                depth_map: false,
            },
            gpu: GpuSection::default(),
            control: ControlSection::default(),
            chunks: ChunkSection::default(),
            record: None,
            link: LinkSection {
                device: SIMULATED.to_owned(),
                baud: default_baud(),
                controller: None,
                joints: Vec::new(),
            },
            scene: SceneSection::default(),
            cameras: Vec::new(),
        }
    }

    /// Reads and checks a file, and makes its paths absolute or relative to the working directory.
    ///
    /// # Errors
    /// [`RobotConfigError`].
    pub fn load(path: &Path) -> Result<RobotConfig, RobotConfigError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| RobotConfigError::Io { path: path.to_owned(), source })?;
        let mut config: RobotConfig = toml::from_str(&text).map_err(|source| match renamed::find(&text) {
            keys if keys.is_empty() => RobotConfigError::Toml { path: path.to_owned(), source: Box::new(source) },
            keys => RobotConfigError::Renamed { path: path.to_owned(), keys },
        })?;
        config.check().map_err(|source| RobotConfigError::Value { path: path.to_owned(), source })?;
        let base = path.parent().unwrap_or(Path::new(""));
        config.model.path = base.join(&config.model.path);
        if let Some(cache) = &mut config.gpu.cache {
            *cache = base.join(&*cache);
        }
        if let Some(file) = &mut config.scene.file {
            *file = base.join(&*file);
        }
        if let Some(record) = &mut config.record {
            record.folder = base.join(&record.folder);
        }
        for camera in &mut config.cameras {
            if let CameraSource::Folder(FolderConfig { folder, .. }) = &mut camera.source {
                *folder = base.join(&*folder);
            }
        }
        Ok(config)
    }
}
