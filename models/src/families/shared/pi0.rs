//! lerobot's and openpi's PyTorch checkpoints share the names of tensors, and sizes come from their shapes.

use crate::checkpoint::Checkpoint;
use crate::error::{ModelError, TensorProblem};
use crate::families::hints::Hints;
use crate::families::paligemma;
use crate::nets::config::{
    Attention, EmbedScale, Expert, Flow, FlowDirection, ModelConfig, NormalizationMode, Positions, PromptFormat,
    Resize, TimeConditioning, TimeEmbedding, Vit,
};

/// Values that the shapes do not give.
#[derive(Clone, Debug)]
pub(in crate::families) struct Settings {
    pub(in crate::families) views: Vec<String>,
    pub(in crate::families) resize: Resize,
    /// Side of the square that images become, if the origin's files say it; else the patches' own.
    pub(in crate::families) image_size: Option<usize>,
    pub(in crate::families) max_tokens: usize,
    pub(in crate::families) state_dim: usize,
    pub(in crate::families) action_dim: usize,
    pub(in crate::families) horizon: usize,
    pub(in crate::families) steps: usize,
    /// Shortest and longest.
    pub(in crate::families) periods: (f64, f64),
    pub(in crate::families) normalization: NormalizationMode,
    pub(in crate::families) time_conditioning: TimeConditioning,
    pub(in crate::families) prompt: PromptFormat,
    /// Sizes of the action expert, if the checkpoint has none.
    pub(in crate::families) action: Option<Expert>,
}

/// The configuration of a pi0 or pi0.5 with these settings and the checkpoint's sizes.
///
/// # Errors
/// [`ModelError::Tensors`] for a tensor without which a size is not known.
pub(in crate::families) fn config(s: &Shapes<'_>, hints: &Hints, c: Settings) -> Result<ModelConfig, ModelError> {
    // openpi's variants all have 8 heads and 1 key/value head; SigLIP So400m has 16.
    let heads = hints.heads.unwrap_or(8);
    let kv_heads = hints.kv_heads.unwrap_or(1);
    let [q, vlm_width] = s.get("joint_model.mixtures.vlm.layers.0.self_attn.q_proj.weight")?;
    let [vlm_mlp, _] = s.get("joint_model.mixtures.vlm.layers.0.mlp.gate_proj.weight")?;
    let action = match c.action {
        Some(action) => action,
        None => {
            let [_, width] = s.get("joint_model.mixtures.action.layers.0.self_attn.q_proj.weight")?;
            let [mlp, _] = s.get("joint_model.mixtures.action.layers.0.mlp.gate_proj.weight")?;
            Expert { width, mlp }
        }
    };
    let [vocab, _] = s.get("embed_tokens.weight")?;
    let vision = vision(s, hints, c.image_size)?;
    Ok(ModelConfig {
        views: c.views,
        resize: c.resize,
        vocab,
        max_tokens: c.max_tokens,
        state_dim: c.state_dim,
        action_dim: c.action_dim,
        horizon: c.horizon,
        layers: s.count("joint_model.mixtures.vlm.layers", "self_attn.k_proj.weight"),
        attention: Attention { heads, kv_heads, head_dim: q / heads.max(1), rope_theta: 10_000.0, softcap: None },
        rms_eps: 1e-6,
        vision,
        vlm: Expert { width: vlm_width, mlp: vlm_mlp },
        action,
        depth: None,
        state_token: c.time_conditioning == TimeConditioning::Token,
        embed: EmbedScale { text: (vlm_width as f32).sqrt(), image: 1.0, suffix: 1.0 },
        time_embedding: TimeEmbedding::Openpi { min_period: c.periods.0, max_period: c.periods.1 },
        flow: Flow { steps: c.steps, direction: FlowDirection::NoiseAtOne, clip: None, sig_min: None },
        positions: Positions::Global { base: 0 },
        action_head_layers: 1,
        relative_actions: Vec::new(),
        normalization: c.normalization,
        time_conditioning: c.time_conditioning,
        prompt: c.prompt,
    })
}

/// Prefixes of Fathom's names, and their counterparts in such checkpoints.
const RENAMED: [[&str; 2]; 7] = [
    ["joint_model.mixtures.action.", "paligemma_with_expert.gemma_expert.model."],
    ["proprio_encoder.", "state_proj."],
    ["action_encoder.linear_1.", "action_in_proj."],
    ["action_encoder.linear_2.", "action_time_mlp_in."],
    ["action_encoder.linear_3.", "action_time_mlp_out."],
    ["action_decoder.", "action_out_proj."],
    ["time_mlp_", "time_mlp_"],
];

/// The prefix of lerobot's names.
pub(in crate::families) const PREFIX: &str = "model.";

/// Names that a parameter of Fathom's naming may have, with [`PREFIX`] and without. PaliGemma's are below a
/// level of their own, those that transformers has in memory first.
pub(in crate::families) fn names(own: &str) -> Vec<String> {
    let renamed = RENAMED.iter().find_map(|[from, to]| Some(format!("{to}{}", own.strip_prefix(from)?)));
    let bare = match renamed {
        Some(name) => vec![name],
        None => paligemma::names(own).iter().map(|name| format!("paligemma_with_expert.paligemma.{name}")).collect(),
    };
    bare.iter().flat_map(|name| [format!("{PREFIX}{name}"), name.clone()]).collect()
}

/// Tensors that such checkpoints carry and inference does not read as weights: heads, and the statistics of lerobot 0.3.
pub(in crate::families) fn ignored(name: &str) -> bool {
    paligemma::ignored(name) || name.ends_with("gemma_expert.model.embed_tokens.weight") || is_statistics(name)
}

/// The statistics of lerobot 0.3.
pub(in crate::families) fn is_statistics(name: &str) -> bool {
    ["normalize_inputs.", "normalize_targets.", "unnormalize_outputs."].iter().any(|p| name.starts_with(p))
}

/// Shapes of the checkpoint's tensors by Fathom's names.
pub(in crate::families) struct Shapes<'a> {
    pub(in crate::families) checkpoint: &'a Checkpoint,
    /// Names that a parameter may have there.
    pub(in crate::families) names: fn(&str) -> Vec<String>,
}

impl Shapes<'_> {
    pub(in crate::families) fn get<const N: usize>(&self, own: &str) -> Result<[usize; N], ModelError> {
        let candidates = (self.names)(own);
        let found = candidates.iter().find_map(|name| Some((name, self.checkpoint.shape(name)?)));
        let problem = match found {
            Some((name, shape)) => match shape.try_into() {
                Ok(shape) => return Ok(shape),
                Err(_) => TensorProblem::Misshapen { name: name.clone(), expected: vec![0; N], found: shape.to_vec() },
            },
            None => {
                let name = self.checkpoint.likeliest(&candidates).unwrap_or_else(|| own.to_owned());
                TensorProblem::Missing { name, shape: vec![0; N] }
            }
        };
        Err(ModelError::Tensors { path: self.checkpoint.path().to_owned(), problems: vec![problem] })
    }

    /// Whether there is a tensor of this name.
    pub(in crate::families) fn has(&self, own: &str) -> bool {
        (self.names)(own).iter().any(|name| self.checkpoint.shape(name).is_some())
    }

    /// Layers `0 ..` of `{root}.{i}.{part}`.
    pub(in crate::families) fn count(&self, root: &str, part: &str) -> usize {
        (0..).take_while(|i| self.has(&format!("{root}.{i}.{part}"))).count()
    }
}

fn vision(s: &Shapes<'_>, hints: &Hints, image_size: Option<usize>) -> Result<Vit, ModelError> {
    let root = "vision_tower.vision_model";
    let [width, _, patch, _] = s.get(&format!("{root}.embeddings.patch_embedding.weight"))?;
    let [patches, _] = s.get(&format!("{root}.embeddings.position_embedding.weight"))?;
    let [mlp, _] = s.get(&format!("{root}.encoder.layers.0.mlp.fc1.weight"))?;
    let patch = hints.patch.unwrap_or(patch);
    let image_size = image_size.unwrap_or(patches.isqrt() * patch);
    Ok(Vit {
        image_size,
        patch,
        width,
        layers: s.count(&format!("{root}.encoder.layers"), "mlp.fc1.weight"),
        heads: hints.vision_heads.unwrap_or(16),
        mlp,
        eps: 1e-6,
    })
}
