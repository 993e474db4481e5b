//! Where a checkpoint comes from: the names of its tensors, and how its configuration is read.

use std::fs;
use std::ops::RangeInclusive;
use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::config::ModelConfig;
use crate::depthvla::Model;
use crate::error::{ConfigError, ModelError};
use crate::normalize::Normalization;
use crate::params::Param;
use crate::weights::{Checkpoint, Weights};

mod lerobot;
mod lerobot_stats;
mod pi0;

/// A checkpoint's origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Fathom's own: `config.json` is a [`ModelConfig`] with `"model_type": "depthvla"`.
    DepthVla,
    /// lerobot's pi0, as `save_pretrained` writes it.
    LerobotPi0,
}

/// A model ready for inference.
#[derive(Debug)]
pub struct Loaded {
    /// Where it came from.
    pub family: Family,
    /// Configuration and parameters.
    pub model: Model,
    /// Its tensors, mapped.
    pub weights: Weights,
    /// Of state and actions.
    pub normalization: Normalization,
    /// Lengths the robot's own state may have; the model's is padded with zeros. One length where it is known.
    pub state_dims: RangeInclusive<usize>,
    /// Length of the robot's own action; the model's may be longer.
    pub action_dim: usize,
}

/// What a family's own files say.
struct Described {
    family: Family,
    config: ModelConfig,
    normalization: Normalization,
    state_dims: RangeInclusive<usize>,
    action_dim: usize,
}

/// Loads the model in the directory `dir`.
///
/// # Errors
/// Every way in which the directory is not a model: see [`ModelError`].
pub fn load(dir: &Path) -> Result<Loaded, ModelError> {
    let checkpoint = Checkpoint::open_model(dir)?;
    let path = dir.join("config.json");
    let config: serde_json::Value = read_json(&path)?;
    let kind = config.get("type").or_else(|| config.get("model_type")).and_then(serde_json::Value::as_str);
    let described = match kind {
        Some("depthvla") => describe_depthvla(dir, &path, config)?,
        Some("pi0") => lerobot::describe(dir, &path, config, &checkpoint)?,
        other => {
            let found = other.map_or("neither".to_owned(), |k| format!("{k:?}"));
            let expected = "\"model_type\": \"depthvla\" or \"type\": \"pi0\"".to_owned();
            return Err(ConfigError { field: path.display().to_string(), expected, found }.into());
        }
    };
    let Described { family, config, normalization, state_dims, action_dim } = described;
    let model = Model::new(config)?;
    let names = |p: &Param| match family {
        Family::DepthVla => vec![p.name.clone()],
        Family::LerobotPi0 => pi0::names(&p.name),
    };
    let ignored = |name: &str| family == Family::LerobotPi0 && pi0::ignored(name);
    let weights = Weights::resolve(checkpoint, &model.params, names, ignored)?;
    Ok(Loaded { family, model, weights, normalization, state_dims, action_dim })
}

fn describe_depthvla(dir: &Path, path: &Path, mut config: serde_json::Value) -> Result<Described, ModelError> {
    if let Some(object) = config.as_object_mut() {
        object.remove("model_type");
    }
    let config: ModelConfig =
        serde_json::from_value(config).map_err(|source| ModelError::Json { path: path.to_owned(), source })?;
    let normalization = Normalization {
        relative: config.relative_actions.clone(),
        ..Normalization::openpi(dir, config.normalization)?
    };
    let state_dims = normalization.state_len().map_or(1..=config.state_dim, |n| n..=n);
    let action_dim = normalization.action_len().unwrap_or(config.action_dim);
    for (what, own, models) in
        [("state", *state_dims.start(), config.state_dim), ("actions", action_dim, config.action_dim)]
    {
        if own > models {
            let detail = format!("{what}: {own} values for a model that takes {models}");
            return Err(ModelError::Statistics { path: dir.to_owned(), detail });
        }
    }
    Ok(Described { family: Family::DepthVla, config, normalization, state_dims, action_dim })
}

pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, ModelError> {
    let text = fs::read_to_string(path).map_err(|source| ModelError::Io { path: path.to_owned(), source })?;
    serde_json::from_str(&text).map_err(|source| ModelError::Json { path: path.to_owned(), source })
}

/// `fathom.json`: what neither tensor shapes nor the origin's configuration tell.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Hints {
    heads: Option<usize>,
    kv_heads: Option<usize>,
    vision_heads: Option<usize>,
    patch: Option<usize>,
}

impl Hints {
    fn read(dir: &Path) -> Result<Hints, ModelError> {
        let path = dir.join("fathom.json");
        if path.exists() { read_json(&path) } else { Ok(Hints::default()) }
    }
}
