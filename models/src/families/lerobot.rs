//! lerobot's pi0: `config.json`, `model.safetensors`, and the processors with their statistics.
//! All sizes come from the tensors' shapes.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use super::{Described, Family, Hints};
use crate::config::{
    Attention, EmbedScale, Expert, Flow, FlowDirection, ModelConfig, NormalizationMode, Positions, Resize,
    TimeEmbedding, Vit,
};
use crate::error::{ConfigError, ModelError, TensorProblem};
use crate::normalize::Normalization;
use crate::weights::Checkpoint;

/// The fields of lerobot's `PI0Config` that inference depends on.
#[derive(Deserialize)]
struct Pi0Config {
    input_features: serde_json::Map<String, serde_json::Value>,
    output_features: BTreeMap<String, Feature>,
    #[serde(default)]
    empty_cameras: usize,
    chunk_size: usize,
    max_state_dim: usize,
    max_action_dim: usize,
    tokenizer_max_length: usize,
    #[serde(alias = "num_steps")]
    num_inference_steps: usize,
    #[serde(default = "min_period")]
    min_period: f64,
    #[serde(default = "max_period")]
    max_period: f64,
    paligemma_variant: Option<String>,
    #[serde(default)]
    use_relative_actions: bool,
}

#[derive(Deserialize)]
struct Feature {
    #[serde(rename = "type")]
    kind: String,
    shape: Vec<usize>,
}

fn min_period() -> f64 {
    4e-3
}

fn max_period() -> f64 {
    4.0
}

/// Names that a parameter of Fathom's naming may have in a lerobot or openpi-PyTorch checkpoint, newest first.
pub(super) fn names(own: &str) -> Vec<String> {
    let vlm = |rest: &str| {
        vec![
            format!("paligemma_with_expert.paligemma.model.language_model.{rest}"),
            format!("paligemma_with_expert.paligemma.language_model.model.{rest}"),
        ]
    };
    let tower = |rest: &str| {
        vec![format!("paligemma_with_expert.paligemma.model.{rest}"), format!("paligemma_with_expert.paligemma.{rest}")]
    };
    let strip = |prefix: &str| own.strip_prefix(prefix);
    let bare = if own == "embed_tokens.weight" {
        let mut list = vlm("embed_tokens.weight");
        list.push("paligemma_with_expert.paligemma.lm_head.weight".to_owned());
        list.push("paligemma_with_expert.paligemma.language_model.lm_head.weight".to_owned());
        list
    } else if let Some(rest) = strip("joint_model.mixtures.vlm.") {
        vlm(rest)
    } else if let Some(rest) = strip("joint_model.mixtures.action.") {
        vec![format!("paligemma_with_expert.gemma_expert.model.{rest}")]
    } else if let Some(rest) = strip("proprio_encoder.") {
        vec![format!("state_proj.{rest}")]
    } else if let Some(rest) = strip("action_encoder.linear_1.") {
        vec![format!("action_in_proj.{rest}")]
    } else if let Some(rest) = strip("action_encoder.linear_2.") {
        vec![format!("action_time_mlp_in.{rest}")]
    } else if let Some(rest) = strip("action_encoder.linear_3.") {
        vec![format!("action_time_mlp_out.{rest}")]
    } else if let Some(rest) = strip("action_decoder.") {
        vec![format!("action_out_proj.{rest}")]
    } else {
        tower(own)
    };
    bare.iter().flat_map(|name| [format!("model.{name}"), name.clone()]).collect()
}

/// Tensors that such checkpoints carry and inference does not read.
pub(super) fn ignored(name: &str) -> bool {
    name.ends_with("lm_head.weight") || name.ends_with("gemma_expert.model.embed_tokens.weight")
}

/// Shapes of the checkpoint's tensors by Fathom's names.
struct Shapes<'a>(&'a Checkpoint);

impl Shapes<'_> {
    fn get<const N: usize>(&self, own: &str) -> Result<[usize; N], ModelError> {
        let candidates = names(own);
        let found = candidates.iter().find_map(|name| Some((name, self.0.shape(name)?)));
        let problem = match found {
            Some((name, shape)) => match shape.try_into() {
                Ok(shape) => return Ok(shape),
                Err(_) => TensorProblem::Misshapen { name: name.clone(), expected: vec![0; N], found: shape.to_vec() },
            },
            None => {
                let name = candidates.into_iter().next().unwrap_or_else(|| own.to_owned());
                TensorProblem::Missing { name, shape: vec![0; N] }
            }
        };
        Err(ModelError::Tensors { path: self.0.path().to_owned(), problems: vec![problem] })
    }

    /// Layers `0 ..` of `{root}.{i}.{part}`.
    fn count(&self, root: &str, part: &str) -> usize {
        let has = |i: usize| names(&format!("{root}.{i}.{part}")).iter().any(|n| self.0.shape(n).is_some());
        (0..).take_while(|i| has(*i)).count()
    }
}

pub(super) fn describe(
    dir: &Path,
    path: &Path,
    config: serde_json::Value,
    checkpoint: &Checkpoint,
) -> Result<Described, ModelError> {
    let json = |source| ModelError::Json { path: path.to_owned(), source };
    let c: Pi0Config = serde_json::from_value(config).map_err(json)?;
    let wrong = |field: &str, expected: &str, found: String| {
        ModelError::from(ConfigError {
            field: format!("{}: {field}", path.display()),
            expected: expected.to_owned(),
            found,
        })
    };
    if c.use_relative_actions {
        return Err(wrong("use_relative_actions", "false (absolute actions)", "true".to_owned()));
    }
    let mut views = Vec::new();
    let mut state_dim = None;
    for (name, feature) in &c.input_features {
        let feature: Feature = serde_json::from_value(feature.clone()).map_err(json)?;
        match feature.kind.as_str() {
            "VISUAL" => views.push(name.trim_start_matches("observation.images.").to_owned()),
            "STATE" => state_dim = feature.shape.first().copied(),
            _ => {}
        }
    }
    // lerobot appends cameras that are never there; a masked view changes nothing, so it is left out.
    views.retain(|v| {
        c.empty_cameras == 0 || !v.starts_with("observation.images.empty_camera") && !v.starts_with("empty_camera")
    });
    let action_dim = c.output_features.get("action").and_then(|f| f.shape.first().copied());
    let state_dim = state_dim.unwrap_or(c.max_state_dim);
    let action_dim = action_dim.unwrap_or(c.max_action_dim);
    for (field, own, most) in
        [("observation.state", state_dim, c.max_state_dim), ("action", action_dim, c.max_action_dim)]
    {
        if own > most {
            return Err(wrong(field, &format!("at most {most} values"), own.to_string()));
        }
    }

    let hints = Hints::read(dir)?;
    // openpi's variants all have 8 heads and 1 key/value head; SigLIP So400m has 16.
    let known = matches!(c.paligemma_variant.as_deref(), Some("gemma_2b" | "gemma_300m") | None);
    if !known && (hints.heads.is_none() || hints.kv_heads.is_none()) {
        let expected = "gemma_2b, or heads and kv_heads in fathom.json";
        return Err(wrong("paligemma_variant", expected, c.paligemma_variant.unwrap_or_default()));
    }
    let s = Shapes(checkpoint);
    let heads = hints.heads.unwrap_or(8);
    let kv_heads = hints.kv_heads.unwrap_or(1);
    let [q, vlm_width] = s.get("joint_model.mixtures.vlm.layers.0.self_attn.q_proj.weight")?;
    let [vlm_mlp, _] = s.get("joint_model.mixtures.vlm.layers.0.mlp.gate_proj.weight")?;
    let [_, width] = s.get("joint_model.mixtures.action.layers.0.self_attn.q_proj.weight")?;
    let [mlp, _] = s.get("joint_model.mixtures.action.layers.0.mlp.gate_proj.weight")?;
    let [vocab, _] = s.get("embed_tokens.weight")?;
    let vision = vision(&s, &hints)?;
    let config = ModelConfig {
        views,
        resize: Resize::TorchBilinear,
        vocab,
        max_tokens: c.tokenizer_max_length,
        state_dim: c.max_state_dim,
        action_dim: c.max_action_dim,
        horizon: c.chunk_size,
        layers: s.count("joint_model.mixtures.vlm.layers", "self_attn.q_proj.weight"),
        attention: Attention { heads, kv_heads, head_dim: q / heads.max(1), rope_theta: 10_000.0, softcap: None },
        rms_eps: 1e-6,
        vision,
        vlm: Expert { width: vlm_width, mlp: vlm_mlp },
        action: Expert { width, mlp },
        depth: None,
        state_token: true,
        embed: EmbedScale { text: (vlm_width as f32).sqrt(), image: 1.0, suffix: 1.0 },
        time_embedding: TimeEmbedding::Openpi { min_period: c.min_period, max_period: c.max_period },
        flow: Flow { steps: c.num_inference_steps, direction: FlowDirection::NoiseAtOne, clip: None, sig_min: None },
        positions: Positions::Global { base: 0 },
        action_head_layers: 1,
        normalization: NormalizationMode::default(),
    };
    let normalization = Normalization::lerobot(dir)?;
    let lengths = [("state", normalization.state_len(), state_dim), ("action", normalization.action_len(), action_dim)];
    for (what, found, expected) in lengths {
        if found.is_some_and(|n| n != expected) {
            let detail = format!("{what}: expected {expected} values as in config.json, found {}", found.unwrap_or(0));
            return Err(ModelError::Statistics { path: dir.to_owned(), detail });
        }
    }
    Ok(Described { family: Family::LerobotPi0, config, normalization, state_dims: state_dim..=state_dim, action_dim })
}

fn vision(s: &Shapes<'_>, hints: &Hints) -> Result<Vit, ModelError> {
    let root = "vision_tower.vision_model";
    let [width, _, patch, _] = s.get(&format!("{root}.embeddings.patch_embedding.weight"))?;
    let [patches, _] = s.get(&format!("{root}.embeddings.position_embedding.weight"))?;
    let [mlp, _] = s.get(&format!("{root}.encoder.layers.0.mlp.fc1.weight"))?;
    let patch = hints.patch.unwrap_or(patch);
    Ok(Vit {
        image_size: patches.isqrt() * patch,
        patch,
        width,
        layers: s.count(&format!("{root}.encoder.layers"), "mlp.fc1.weight"),
        heads: hints.vision_heads.unwrap_or(16),
        mlp,
        eps: 1e-6,
    })
}
