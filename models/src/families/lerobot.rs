//! lerobot's pi0 and pi0.5: `config.json`, the tensors, and the processors with their statistics.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use super::pi0::{Settings, Shapes};
use super::{Described, Family, Hints, lerobot_stats, pi0};
use crate::config::{NormalizationMode, PromptFormat, Resize};
use crate::error::{ConfigError, ModelError};
use crate::weights::Checkpoint;

/// The fields of lerobot's `PI0Config` and `PI05Config` that inference depends on.
#[derive(Deserialize)]
struct Pi0Config {
    #[serde(default)]
    input_features: serde_json::Map<String, serde_json::Value>,
    #[serde(default)]
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
    /// Height and width that images are resized to.
    image_resolution: Option<[usize; 2]>,
    /// The same in 0.3 and before, which pad on the left and at the top.
    resize_imgs_with_padding: Option<[usize; 2]>,
    #[serde(default)]
    adapt_to_pi_aloha: bool,
    /// How 0.3 and before use the statistics beside the weights; later, the processors say it of state and action.
    #[serde(default)]
    normalization_mapping: BTreeMap<String, String>,
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

pub(super) fn describe(
    family: Family,
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
    if c.adapt_to_pi_aloha {
        return Err(wrong("adapt_to_pi_aloha", "false", "true".to_owned()));
    }
    if let Some(mode) = c.normalization_mapping.get("VISUAL").filter(|mode| *mode != "IDENTITY") {
        return Err(wrong("normalization_mapping.VISUAL", "IDENTITY", mode.clone()));
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
    // A base that was made for no robot names none.
    if views.is_empty() {
        views = hints.views.clone().unwrap_or_default();
    }
    let known = matches!(c.paligemma_variant.as_deref(), Some("gemma_2b" | "gemma_300m") | None);
    if !known && (hints.heads.is_none() || hints.kv_heads.is_none()) {
        let expected = "gemma_2b, or heads and kv_heads in fathom.json";
        return Err(wrong("paligemma_variant", expected, c.paligemma_variant.unwrap_or_default()));
    }
    let resolution = c.resize_imgs_with_padding.or(c.image_resolution);
    if let Some([height, width]) = resolution.filter(|[height, width]| height != width) {
        return Err(wrong("image_resolution", "a square", format!("{height} × {width}")));
    }
    let (time_conditioning, prompt) = Settings::conditioning(family == Family::LerobotPi05);
    let settings = Settings {
        views,
        resize: if c.resize_imgs_with_padding.is_some() {
            Resize::TorchBilinearPadTopLeft
        } else {
            Resize::TorchBilinear
        },
        image_size: resolution.map(|[side, _]| side),
        max_tokens: c.tokenizer_max_length,
        state_dim: c.max_state_dim,
        action_dim: c.max_action_dim,
        horizon: c.chunk_size,
        steps: c.num_inference_steps,
        periods: (c.min_period, c.max_period),
        normalization: NormalizationMode::default(),
        time_conditioning,
        prompt: if family == Family::LerobotPi0 { PromptFormat::Lerobot } else { prompt },
        action: None,
    };
    let config = pi0::config(&Shapes { checkpoint, names: pi0::names }, &hints, settings)?;
    let normalization =
        lerobot_stats::read(dir, checkpoint, &c.normalization_mapping, action_dim, hints.allow_constant)?;
    if c.use_relative_actions == normalization.relative.is_empty() {
        let expected = format!("{}, as the processors say", !c.use_relative_actions);
        return Err(wrong("use_relative_actions", &expected, c.use_relative_actions.to_string()));
    }
    let lengths = [("state", normalization.state_len(), state_dim), ("action", normalization.action_len(), action_dim)];
    for (what, found, expected) in lengths {
        if found.is_some_and(|n| n != expected) {
            let detail = format!("{what}: expected {expected} values as in config.json, found {}", found.unwrap_or(0));
            return Err(ModelError::Statistics { path: dir.to_owned(), detail });
        }
    }
    Ok(Described { family, config, normalization, state_dims: state_dim..=state_dim, action_dim })
}
