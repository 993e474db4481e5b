//! Hugging Face's PaliGemma: the VLM of a mixture, which has no action expert.

use serde::Deserialize;

use super::description::{Described, Directory, Family, Form, Mark};
use super::hints::Hints;
use super::shared::pi0::{self, Settings, Shapes};
use crate::error::{ConfigError, ModelError};
use crate::io::json;
use crate::nets::config::{Expert, NormalizationMode, PromptFormat, Resize, TimeConditioning};
use crate::processing::normalize::Normalization;

/// Hugging Face's PaliGemma.
pub static FAMILY: Family = Family {
    name: "paligemma",
    purpose: Some("the base of a mixture, for `fathom compose --paligemma`"),
    mark: Mark::ModelType("paligemma"),
    describe,
    names,
    has,
    ignored,
    forms: &[Form::Pi0],
    ..Family::POLICY
};

#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    text_config: Part,
    #[serde(default)]
    vision_config: Part,
}

#[derive(Default, Deserialize)]
struct Part {
    model_type: Option<String>,
    num_attention_heads: Option<usize>,
    num_key_value_heads: Option<usize>,
    /// Of the vision tower, which drops pixels beyond its last whole patch.
    image_size: Option<usize>,
}

/// Names that a parameter of Fathom's naming may have: the hub's, and those that transformers has had in memory since 4.52
/// and 5, or writes. They differ in the level `model` outside, and in the levels `model` and `vision_model` inside.
pub(super) fn names(own: &str) -> Vec<String> {
    let vlm = own.strip_prefix("joint_model.mixtures.vlm.").or(Some(own).filter(|own| *own == EMBEDDING));
    let inside = match vlm {
        Some(rest) => [format!("language_model.model.{rest}"), format!("language_model.{rest}")],
        None => [own.to_owned(), own.replacen("vision_tower.vision_model.", "vision_tower.", 1)],
    };
    let outside = inside.iter().map(|name| format!("model.{name}"));
    // The head is the table once more, and some checkpoints have only the head.
    let heads = ["lm_head.weight", "language_model.lm_head.weight"].iter().filter(|_| own == EMBEDDING);
    inside.iter().cloned().chain(outside).chain(heads.map(|head| (*head).to_owned())).collect()
}

const EMBEDDING: &str = "embed_tokens.weight";

/// Tensors that are not read as weights: the language model's head, and the vision tower's, which pools.
pub(super) fn ignored(name: &str) -> bool {
    name.ends_with("lm_head.weight")
        || name.contains("vision_tower.vision_model.head.")
        || name.contains("vision_tower.head.")
}

/// Whether a parameter is one that PaliGemma has.
fn has(own: &str) -> bool {
    ["embed_tokens.", "vision_tower.", "multi_modal_projector.", "joint_model.mixtures.vlm."]
        .iter()
        .any(|p| own.starts_with(p))
}

/// A pi0 around it with openpi's conventions, chunks of 16 actions of at most 32 values, and an action expert half as wide,
/// as Gemma-2B's is.
fn describe(Directory { dir, path, config, checkpoint, .. }: Directory<'_>) -> Result<Described, ModelError> {
    let c: Config = json::from_tree(&config).map_err(ModelError::json(&path))?;
    if let Some(kind) = c.text_config.model_type.filter(|kind| kind != "gemma") {
        let field = format!("{}: text_config.model_type", path.display());
        return Err(ConfigError::new(field, "gemma", kind).into());
    }
    let mut hints = Hints::read(dir)?;
    hints.heads = hints.heads.or(c.text_config.num_attention_heads);
    hints.kv_heads = hints.kv_heads.or(c.text_config.num_key_value_heads);
    hints.vision_heads = hints.vision_heads.or(c.vision_config.num_attention_heads);
    let s = Shapes { checkpoint, names };
    let [mlp, width] = s.get("joint_model.mixtures.vlm.layers.0.mlp.gate_proj.weight")?;
    let dim = 32;
    let settings = Settings {
        views: vec!["base".to_owned()],
        resize: Resize::PillowBilinear,
        image_size: c.vision_config.image_size,
        max_tokens: hints.max_tokens.unwrap_or(48),
        state_dim: dim,
        action_dim: dim,
        horizon: hints.horizon.unwrap_or(16),
        steps: hints.steps.unwrap_or(10),
        periods: (4e-3, 4.0),
        normalization: NormalizationMode::default(),
        time_conditioning: TimeConditioning::Token,
        prompt: PromptFormat::Task,
        action: Some(Expert { width: width / 2, mlp: mlp / 4 }),
    };
    let mut config = pi0::config(&s, &hints, settings)?;
    if let Some(views) = hints.views {
        config.views = views;
    }
    Described::of(dir, config, Normalization::default(), ["state", "actions"])
}
