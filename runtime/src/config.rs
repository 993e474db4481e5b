//! `robot.toml`: what the daemon needs to know of a robot. Unknown keys are errors; paths are relative to the file.

use std::path::{Path, PathBuf};

use fathom_models::families::Family;
use fathom_models::graph::precision::Float;
use firmware_bridge::message::Interpolation;
use serde::Deserialize;

use crate::action::ChunkPolicy;
use crate::camera::{FolderConfig, V4lConfig};
use crate::engine::{Kernels, Wanted};

mod check;
mod renamed;

pub use check::ValueError;
pub use renamed::Renamed;

/// The whole file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RobotConfig {
    /// The model and what it is asked to do.
    pub model: ModelSection,
    /// The GPU.
    #[serde(default)]
    pub gpu: GpuSection,
    /// The control loop.
    #[serde(default)]
    pub control: ControlSection,
    /// How chunks follow each other.
    #[serde(default)]
    pub chunks: ChunkSection,
    /// Where the run is recorded; not at all if not given.
    pub record: Option<RecordSection>,
    /// The line to the motor controller.
    pub link: LinkSection,
    /// The simulated scene, which replaces the arm and its cameras.
    #[serde(default)]
    pub scene: SceneSection,
    /// One entry a camera.
    #[serde(rename = "camera")]
    pub cameras: Vec<CameraSection>,
}

/// The model and what it is asked to do.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSection {
    /// Directory of the checkpoint.
    pub path: PathBuf,
    /// Checkpoint family; overrides detection.
    pub family: Option<&'static Family>,
    /// Views of the checkpoint that the robot has no camera for: they are left out, not faked.
    #[serde(default)]
    pub skip_views: Vec<String>,
    /// What the robot is to do; needs `tokenizer.json` in the directory. Or `tokens`.
    pub prompt: Option<String>,
    /// The prompt's tokens.
    pub tokens: Option<Vec<i32>>,
    /// Seed of the noise; each inference takes the next.
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
    /// Part of the adapter's name; any hardware adapter if not given.
    pub adapter: Option<String>,
    /// Whether a software driver will do.
    pub software: bool,
    /// Whether shaders check their bounds.
    pub checked: bool,
    /// Kernels to take instead of those that suit the adapter.
    pub kernels: Option<Kernels>,
    /// What keys and values are stored in, instead of what suits the kernels.
    pub kv: Option<Float>,
    /// What other tensors between kernels are stored in, instead of what suits the kernels.
    pub activations: Option<Float>,
    /// Folder for compiled pipelines; fathom's in the user's cache folder if not given.
    pub cache: Option<PathBuf>,
}

impl GpuSection {
    /// What to compute with.
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
    /// The loop holds when an image is older than this when it is asked for, in milliseconds.
    pub max_image_age_ms: u64,
    /// The loop holds when the newest images of two cameras were taken further apart than this, in milliseconds.
    pub max_image_skew_ms: u64,
    /// Whether to arm as soon as the loop is ready. Else SIGUSR1 arms. SIGUSR2 disarms in either case.
    pub arm_at_start: bool,
    /// Whether an arm that was armed is armed again after the line was lost, the controller restarted or did not hear the
    /// host. Else SIGUSR1 does it.
    pub rearm: bool,
    /// Do all but arm and send.
    pub dry_run: bool,
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
        }
    }
}

/// How chunks follow each other.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ChunkSection {
    /// What the steps are that two chunks have in common.
    pub policy: ChunkPolicy,
    /// Steps of a chunk that are consumed before the next inference begins; 0: as soon as the model is free.
    pub replan_steps: u32,
    /// Steps of a chunk that are sent, from the one that belongs to its images on; all if not given.
    pub execution_horizon: Option<usize>,
    /// No step is followed later than this after the images were taken, in milliseconds.
    pub validity_ms: u64,
    /// How the controller moves from step to step: `linear`, or `hermite` (cubic).
    #[serde(with = "InterpolationName")]
    pub interpolation: Interpolation,
}

/// The names of the controller's ways from step to step.
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

/// Where a run is recorded.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordSection {
    /// The folder.
    pub folder: PathBuf,
    /// How much of it may be taken, in megabytes: the oldest files make room.
    #[serde(default = "default_limit_mb")]
    pub limit_mb: u64,
}

impl RecordSection {
    /// The limit where none is given, in megabytes.
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
    /// The only controller to obey: the identity that it tells and that the log names. Any with these joints if not given.
    pub controller: Option<String>,
    /// The controller's joints in its order, which is that of the model's actions; the scene's if it is simulated.
    #[serde(default)]
    pub joints: Vec<String>,
}

impl LinkSection {
    /// Whether the controller runs on this computer.
    pub fn is_simulated(&self) -> bool {
        self.device == SIMULATED
    }
}

/// The link's device that means the simulated controller.
const SIMULATED: &str = "simulated";

fn default_baud() -> u32 {
    1_000_000
}

/// The simulated scene.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SceneSection {
    /// Scene file; the built-in scene if not given.
    pub file: Option<PathBuf>,
    /// Places the objects.
    pub seed: u64,
}

/// One camera.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CameraSection {
    /// Which of the model's views it is.
    pub view: String,
    /// Where its images come from.
    pub source: CameraSource,
}

/// Where images come from.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum CameraSource {
    /// A V4L2 device.
    V4l(V4lConfig),
    /// Pictures of a folder.
    Folder(FolderConfig),
    /// A camera of the simulated scene.
    Scene(SceneCameraConfig),
}

/// A camera of the simulated scene.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SceneCameraConfig {
    /// Its name in the scene; the view's name if not given.
    pub camera: Option<String>,
    /// Images per second.
    pub rate_hz: f32,
}

/// What can be wrong with `robot.toml`.
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
    /// It is not what it should be; the message has line and column.
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
    /// A value that cannot be.
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
