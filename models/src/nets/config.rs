//! The configuration of a model. Every size, and every point that the DepthVLA paper leaves open, is a field.

use std::path::Path;

use fathom_shaders::params::MAX_HEAD_DIM;
use serde::{Deserialize, Serialize};

use crate::error::ConfigError;
use crate::io::FileError;
use crate::io::json::read_json;

/// A DepthVLA, or (with `depth: None`) a pi0.
///
/// Serialised as the `config.json` of a Fathom model directory (`"model_type": "depthvla"`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Camera views in the order of the prefix.
    pub views: Vec<String>,
    /// How an image becomes the towers' square input.
    pub resize: Resize,
    /// Rows of the text embedding table.
    pub vocab: usize,
    /// Longest prompt, in tokens.
    pub max_tokens: usize,
    /// Width of the state vector the model takes (shorter states are padded with zeros).
    pub state_dim: usize,
    /// Width of an action the model gives (the robot's own may be shorter).
    pub action_dim: usize,
    /// Actions in a chunk.
    pub horizon: usize,
    /// Layers of every expert: they share each layer's attention.
    pub layers: usize,
    /// The attention that all experts share.
    pub attention: Attention,
    /// Epsilon of every RMSNorm of the experts.
    pub rms_eps: f32,
    /// SigLIP tower.
    pub vision: Vit,
    /// VLM expert (Gemma).
    pub vlm: Expert,
    /// Action expert.
    pub action: Expert,
    /// Depth branch; `None` makes the model a pi0.
    pub depth: Option<Depth>,
    /// Whether the robot's state enters as a token of its own.
    pub state_token: bool,
    /// Factors on the experts' input embeddings.
    pub embed: EmbedScale,
    /// Sinusoidal embedding of the flow time.
    pub time_embedding: TimeEmbedding,
    /// Flow-matching sampler.
    pub flow: Flow,
    /// How the experts number their tokens for RoPE.
    pub positions: Positions,
    /// Linear layers of the action head: 1, or 2 with a SiLU between.
    pub action_head_layers: usize,
    /// How the statistics in `norm_stats.json` are used.
    #[serde(default)]
    pub normalization: NormalizationMode,
    /// Elements of an action that are relative to the state of the same element (openpi's delta mask); shorter than an
    /// action where the rest is absolute.
    #[serde(default)]
    pub relative_actions: Vec<bool>,
    /// How the flow time reaches the action expert.
    #[serde(default)]
    pub time_conditioning: TimeConditioning,
    /// The form of the prompt's text.
    #[serde(default)]
    pub prompt: PromptFormat,
}

/// How the flow time reaches the action expert.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeConditioning {
    /// An MLP joins it with every action token (pi0).
    #[default]
    Token,
    /// An MLP makes it the condition of every norm of the action expert: scale, shift, and gate of the residual (pi0.5).
    AdaRms,
}

/// The form of the prompt's text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PromptFormat {
    /// The task without surrounding blanks, underscores and line breaks, and a newline of its own (openpi's pi0).
    #[default]
    Task,
    /// `Task: …, State: 12 255 …;\nAction: ` with the normalised state in 256 bins (pi0.5).
    TaskAndState,
    /// The task as it is, and a newline if it does not end in one (lerobot's pi0).
    Lerobot,
    /// The task as it is, and a newline (open-pi-zero).
    OpenPiZero,
    /// `Task: [Low]: …, ` with the task as it is; the begin of sequence comes before the images (Galaxea).
    Galaxea,
}

/// How an image of any size becomes a square input. All modes but those that stretch keep the aspect ratio and pad with
/// black, centred if nothing else is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resize {
    /// Pillow's `BILINEAR` on u8, antialiased when shrinking, each pass rounded to u8 (openpi's client).
    PillowBilinear,
    /// torch's `interpolate(bilinear, align_corners=False)` on f32, not antialiased (lerobot).
    TorchBilinear,
    /// The same, padded on the left and at the top only (lerobot 0.3 and before).
    TorchBilinearPadTopLeft,
    /// torchvision's `Resize((side, side))` of u8 tensors, antialiased: the aspect ratio goes (Galaxea).
    TorchvisionStretch,
    /// `cv2.resize` with `INTER_LANCZOS4`: the aspect ratio goes (open-pi-zero).
    CvLanczos4Stretch,
}

/// How state and actions are brought into the model's range and back (openpi `transforms.Normalize`).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "mode", rename_all = "snake_case", deny_unknown_fields)]
pub enum NormalizationMode {
    /// `(x − mean) / (std + eps)`.
    Zscore {
        /// Keeps a constant value from dividing by zero.
        eps: f32,
    },
    /// `(x − q01) / (q99 − q01 + eps) · 2 − 1`.
    Quantile {
        /// As above.
        eps: f32,
    },
    /// `(x − min) / (max − min + eps) · 2 − 1`.
    Minmax {
        /// As above.
        eps: f32,
    },
}

impl NormalizationMode {
    /// Its name in a configuration.
    pub(crate) fn name(self) -> &'static str {
        match self {
            NormalizationMode::Zscore { .. } => "zscore",
            NormalizationMode::Quantile { .. } => "quantile",
            NormalizationMode::Minmax { .. } => "minmax",
        }
    }
}

impl Default for NormalizationMode {
    /// openpi's for pi0.
    fn default() -> NormalizationMode {
        NormalizationMode::Zscore { eps: 1e-6 }
    }
}

/// Attention sizes, common to all experts.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attention {
    /// Query heads.
    pub heads: usize,
    /// Key/value heads; each serves `heads / kv_heads` query heads.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// RoPE base θ.
    pub rope_theta: f32,
    /// `softcap · tanh(logit / softcap)` where given (open-pi-zero: 50).
    pub softcap: Option<f32>,
}

/// Width and MLP of one expert.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expert {
    /// Residual stream.
    pub width: usize,
    /// Hidden width of the GeGLU MLP.
    pub mlp: usize,
}

/// A vision transformer: SigLIP or DINOv2.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vit {
    /// Side of the square input, in pixels.
    pub image_size: usize,
    /// Side of a patch, in pixels.
    pub patch: usize,
    /// Residual stream.
    pub width: usize,
    /// Layers.
    pub layers: usize,
    /// Heads of width `width / heads`.
    pub heads: usize,
    /// Hidden width of the MLP.
    pub mlp: usize,
    /// LayerNorm epsilon.
    pub eps: f32,
}

impl Vit {
    /// Patches along one side.
    pub fn grid(&self) -> usize {
        self.image_size / self.patch
    }
    /// Patches of one view.
    pub fn patches(&self) -> usize {
        self.grid() * self.grid()
    }
    /// Inputs of the patch embedding: `3 · patch²`.
    pub fn patch_dim(&self) -> usize {
        3 * self.patch * self.patch
    }
}

/// Depth branch: encoder, expert and head.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Depth {
    /// Which of the model's views it reads.
    pub views: Vec<String>,
    /// DINOv2 encoder.
    pub encoder: Vit,
    /// Side of the checkpoint's grid of position embeddings (518-pixel training: 37).
    pub pos_grid: usize,
    /// How the position embeddings reach another grid.
    pub pos_interpolation: PosInterpolation,
    /// Depth expert.
    pub expert: Expert,
    /// Whether a Linear joins encoder and expert (else the widths are equal).
    pub in_proj: bool,
    /// Factor on the expert's input.
    pub scale_input: f32,
    /// RoPE position of the first depth token.
    pub pos_base: usize,
    /// Whether the state token attends to the depth tokens.
    pub proprio_sees_depth: bool,
    /// Depth head.
    pub head: DepthHead,
}

/// Which code the interpolation of DINOv2's position embeddings follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PosInterpolation {
    /// `transformers`: bicubic to the size.
    Size,
    /// The original: bicubic with scale `(grid + 0.1) / pos_grid`.
    Offset,
}

/// The head that turns a depth token into `patch²` depths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DepthHead {
    /// No head in the checkpoint: no depth map.
    None,
    /// A Linear whose output is log-depth.
    Log,
    /// A Linear whose output is depth.
    Linear,
    /// A Linear and a sigmoid.
    Sigmoid,
}

/// Factors on embeddings where they enter an expert.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmbedScale {
    /// Text tokens (√width of the VLM in every published family).
    pub text: f32,
    /// Projected image tokens.
    pub image: f32,
    /// State and action tokens.
    pub suffix: f32,
}

/// Sinusoidal embedding of the flow time `t`, `[sin ∥ cos]`, computed on the host in f64.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum TimeEmbedding {
    /// `sin(2π t / p_i)`, `p_i = min · (max/min)^(i/(n−1))`; the MLP takes `[action ∥ time]`.
    Openpi {
        /// Shortest period.
        min_period: f64,
        /// Longest period.
        max_period: f64,
    },
    /// `sin(t · exp(−i · ln(max) / (n−1)))`; the MLP takes `[time ∥ action]`.
    OpenPiZero {
        /// Longest period.
        max_period: f64,
    },
}

/// Euler integration of the velocity field.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Flow {
    /// Flow steps.
    pub steps: usize,
    /// Where the noise is.
    pub direction: FlowDirection,
    /// Bound on the final normalised action, where given.
    pub clip: Option<f32>,
    /// Smallest noise of the training path (open-pi-zero: 0.001). Inference does not depend on it; it is kept, so that
    /// a configuration says what the checkpoint was trained with.
    #[serde(default)]
    pub sig_min: Option<f32>,
}

/// Direction of the flow time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FlowDirection {
    /// t runs 1 → 0, noise at 1 (openpi, lerobot).
    NoiseAtOne,
    /// t runs 0 → 1, noise at 0 (open-pi-zero, Galaxea).
    NoiseAtZero,
}

/// RoPE position ids of the VLM, state and action tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "mode", rename_all = "snake_case", deny_unknown_fields)]
pub enum Positions {
    /// Prefix from `base`, suffix continues after the last valid prefix token (openpi, lerobot).
    Global {
        /// First position.
        base: usize,
    },
    /// Each mixture numbers its own tokens from `base`; state and actions are one mixture (open-pi-zero, Galaxea).
    PerMixture {
        /// First position.
        base: usize,
    },
}

/// Largest width, vocabulary or number of tokens. With it, and the two below, no product of sizes overflows.
const MAX_SIZE: usize = 1 << 20;
/// Largest square image, in pixels a side.
const MAX_SIDE: usize = 1 << 13;
/// Most layers, flow steps, and rows of a grid of patches.
const MAX_REPEATS: usize = 1 << 10;

impl ModelConfig {
    /// Reads a DepthVLA's `config.json`, as a checkpoint's is read.
    ///
    /// # Errors
    /// [`FileError`] with the key, the expected and the found.
    pub fn read(path: &Path) -> Result<ModelConfig, FileError> {
        read_json(path)
    }

    /// Checks that the sizes fit each other and the kernels' limits.
    ///
    /// # Errors
    /// [`ConfigError`] naming the first field that does not fit.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let a = &self.attention;
        let positive = [
            ("vocab", self.vocab),
            ("max_tokens", self.max_tokens),
            ("state_dim", self.state_dim),
            ("action_dim", self.action_dim),
            ("horizon", self.horizon),
            ("attention.heads", a.heads),
            ("attention.kv_heads", a.kv_heads),
            ("attention.head_dim", a.head_dim),
            ("vlm.width", self.vlm.width),
            ("vlm.mlp", self.vlm.mlp),
            ("action.width", self.action.width),
            ("action.mlp", self.action.mlp),
        ];
        for (field, value) in positive {
            expect((1..=MAX_SIZE).contains(&value), field, format!("1 to {MAX_SIZE}"), value)?;
        }
        for (field, value) in [("layers", self.layers), ("flow.steps", self.flow.steps)] {
            expect((1..=MAX_REPEATS).contains(&value), field, format!("1 to {MAX_REPEATS}"), value)?;
        }
        for (field, value) in [("attention.softcap", a.softcap), ("flow.clip", self.flow.clip)] {
            let value = value.unwrap_or(1.0);
            expect(value > 0.0, field, "a number above 0, or null", value)?;
        }
        expect(a.rope_theta > 0.0, "attention.rope_theta", "a number above 0", a.rope_theta)?;
        expect(self.rms_eps > 0.0, "rms_eps", "a number above 0", self.rms_eps)?;
        let (least, most) = match self.time_embedding {
            TimeEmbedding::Openpi { min_period, max_period } => (min_period, max_period),
            TimeEmbedding::OpenPiZero { max_period } => (1.0, max_period),
        };
        let periods = 0.0 < least && least <= most;
        expect(periods, "time_embedding", "periods above 0, the longest last", format!("{least} to {most}"))?;
        expect(!self.views.is_empty(), "views", "at least one view", "none")?;
        expect(distinct(&self.views), "views", "different names", format!("{:?}", self.views))?;
        expect(
            a.heads.is_multiple_of(a.kv_heads),
            "attention.kv_heads",
            format!("a divisor of {} heads", a.heads),
            a.kv_heads,
        )?;
        let even = a.head_dim.is_multiple_of(2) && a.head_dim <= MAX_HEAD_DIM;
        expect(even, "attention.head_dim", format!("an even number, at most {MAX_HEAD_DIM}"), a.head_dim)?;
        let width = self.action.width;
        expect(width.is_multiple_of(2), "action.width", "an even number", width)?;
        let head = self.action_head_layers;
        expect((1..=2).contains(&head), "action_head_layers", "1 or 2", head)?;
        let relative = self.relative_actions.len();
        let most = self.action_dim.min(self.state_dim);
        expect(relative <= most, "relative_actions", format!("at most {most} elements"), relative)?;
        let apart = !(self.state_token && self.time_conditioning == TimeConditioning::AdaRms);
        expect(apart, "state_token", "false with \"time_conditioning\": \"ada_rms\"", "true")?;
        self.vision.validate("vision")?;
        if let Some(d) = &self.depth {
            d.encoder.validate("depth.encoder")?;
            for (field, value) in [("depth.expert.width", d.expert.width), ("depth.expert.mlp", d.expert.mlp)] {
                expect((1..=MAX_SIZE).contains(&value), field, format!("1 to {MAX_SIZE}"), value)?;
            }
            expect(
                (1..=MAX_REPEATS).contains(&d.pos_grid),
                "depth.pos_grid",
                format!("1 to {MAX_REPEATS}"),
                d.pos_grid,
            )?;
            let known = !d.views.is_empty() && d.views.iter().all(|v| self.views.contains(v)) && distinct(&d.views);
            expect(known, "depth.views", format!("some of {:?}, each once", self.views), format!("{:?}", d.views))?;
            let same = d.in_proj || d.encoder.width == d.expert.width;
            expect(same, "depth.in_proj", "true where encoder and expert differ in width", d.in_proj)?;
        }
        Ok(())
    }
}

impl Vit {
    pub(crate) fn validate(&self, field: &str) -> Result<(), ConfigError> {
        let sizes = [("width", self.width), ("heads", self.heads), ("mlp", self.mlp), ("patch", self.patch)];
        for (name, value) in sizes {
            expect((1..=MAX_SIZE).contains(&value), &format!("{field}.{name}"), format!("1 to {MAX_SIZE}"), value)?;
        }
        let (side, layers) = (self.image_size, self.layers);
        expect((1..=MAX_SIDE).contains(&side), &format!("{field}.image_size"), format!("1 to {MAX_SIDE}"), side)?;
        expect(layers <= MAX_REPEATS, &format!("{field}.layers"), format!("at most {MAX_REPEATS}"), layers)?;
        expect(self.eps > 0.0, &format!("{field}.eps"), "a number above 0", self.eps)?;
        let whole = self.patch <= self.image_size;
        expect(whole, &format!("{field}.patch"), format!("at most {}", self.image_size), self.patch)?;
        let head = self.width.is_multiple_of(self.heads) && self.width / self.heads <= MAX_HEAD_DIM;
        expect(
            head,
            &format!("{field}.heads"),
            format!("a divisor of {} with heads of at most {MAX_HEAD_DIM}", self.width),
            self.heads,
        )
    }
}

fn distinct(names: &[String]) -> bool {
    names.iter().enumerate().all(|(i, name)| !names.iter().take(i).any(|n| n == name))
}

pub(crate) fn expect(
    holds: bool,
    field: &str,
    expected: impl Into<String>,
    found: impl ToString,
) -> Result<(), ConfigError> {
    if holds {
        return Ok(());
    }
    Err(ConfigError { field: field.to_owned(), expected: expected.into(), found: found.to_string() })
}
