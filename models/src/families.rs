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
mod nearest;
mod open_pi_zero;
mod openpi;
mod origin;
mod pi0;

pub use origin::Origin;

/// A checkpoint's origin. Its name (of `--family`) is what `Display` gives and `FromStr` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Family {
    /// Fathom's own: `config.json` is a [`ModelConfig`] with `"model_type": "depthvla"`.
    DepthVla,
    /// lerobot's pi0, as `save_pretrained` writes it.
    LerobotPi0,
    /// lerobot's pi0.5.
    LerobotPi05,
    /// openpi's PyTorch port of pi0 or pi0.5, as `convert_jax_model_to_pytorch.py` writes it.
    Openpi,
    /// open-pi-zero's state dictionary as safetensors.
    OpenPiZero,
    /// Galaxea G0's.
    Galaxea,
}

impl Family {
    /// Every family.
    pub const ALL: [Family; 6] = [
        Family::DepthVla,
        Family::LerobotPi0,
        Family::LerobotPi05,
        Family::Openpi,
        Family::OpenPiZero,
        Family::Galaxea,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Family::DepthVla => "depthvla",
            Family::LerobotPi0 => "lerobot-pi0",
            Family::LerobotPi05 => "lerobot-pi05",
            Family::Openpi => "openpi",
            Family::OpenPiZero => "open-pi-zero",
            Family::Galaxea => "galaxea",
        }
    }

    /// What `config.json` says, where it says it.
    fn of(config: &serde_json::Value) -> Option<Family> {
        let kind = config.get("type").or_else(|| config.get("model_type")).and_then(serde_json::Value::as_str);
        match kind {
            Some("depthvla") => Some(Family::DepthVla),
            Some("pi0") => Some(Family::LerobotPi0),
            Some("pi05") => Some(Family::LerobotPi05),
            Some(_) => None,
            None => config.get("action_horizon").and(config.get("paligemma_variant")).map(|_| Family::Openpi),
        }
    }
}

impl std::fmt::Display for Family {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl TryFrom<String> for Family {
    type Error = ConfigError;

    fn try_from(name: String) -> Result<Family, ConfigError> {
        name.parse()
    }
}

impl std::str::FromStr for Family {
    type Err = ConfigError;

    fn from_str(name: &str) -> Result<Family, ConfigError> {
        let expected = || format!("one of {}", Family::ALL.map(Family::name).join(", "));
        let found = Family::ALL.into_iter().find(|f| f.name() == name);
        found.ok_or_else(|| ConfigError { field: "family".to_owned(), expected: expected(), found: name.to_owned() })
    }
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

/// Checks that no length is beyond the model's.
fn check_lengths(dir: &Path, lengths: [(&str, usize, usize); 2]) -> Result<(), ModelError> {
    for (what, own, models) in lengths {
        if own > models {
            let detail = format!("{what}: {own} values for a model that takes {models}");
            return Err(ModelError::Statistics { path: dir.to_owned(), detail });
        }
    }
    Ok(())
}

/// Loads the model in the directory `dir`, whose files say which family it is of.
///
/// # Errors
/// Every way in which the directory is not a model: see [`ModelError`].
pub fn load(dir: &Path) -> Result<Loaded, ModelError> {
    load_as(dir, None)
}

/// As [`load`], of the given family.
///
/// # Errors
/// As [`load`].
pub fn load_as(dir: &Path, family: Option<Family>) -> Result<Loaded, ModelError> {
    let checkpoint = Checkpoint::open_model(dir)?;
    let names: Vec<String> = checkpoint.names().map(str::to_owned).collect();
    let (family, config) = identify(dir, family, &checkpoint, &names)?;
    resolve(dir, family, config, checkpoint).map_err(|problem| {
        let nearest = nearest::nearest(&names).filter(|n| n.family != Some(family));
        match (problem, nearest) {
            (problem @ ModelError::Tensors { .. }, Some(nearest)) => {
                ModelError::OtherFamily { problem: Box::new(problem), nearest: nearest.text(names.len()) }
            }
            (problem, _) => problem,
        }
    })
}

/// The family, where it is not given, and what `config.json` says, where the family has one.
fn identify(
    dir: &Path,
    family: Option<Family>,
    checkpoint: &Checkpoint,
    names: &[String],
) -> Result<(Family, serde_json::Value), ModelError> {
    let path = dir.join("config.json");
    // open-pi-zero writes none.
    let by_tensors = family.is_none() && !path.exists() && open_pi_zero::recognises(checkpoint);
    let family = if by_tensors { Some(Family::OpenPiZero) } else { family };
    let config: serde_json::Value = match family {
        Some(Family::OpenPiZero | Family::Galaxea) => serde_json::Value::Null,
        _ => read_json(&path)?,
    };
    let Some(family) = family.or_else(|| Family::of(&config)) else {
        let kind = config.get("type").or_else(|| config.get("model_type")).and_then(serde_json::Value::as_str);
        let mut found = kind.map_or("neither".to_owned(), |k| format!("{k:?}"));
        if let Some(known) = kind.and_then(nearest::known) {
            found += &format!(" ({known})");
        }
        if let Some(nearest) = nearest::nearest(names) {
            found += &format!("\nnearest known family: {}", nearest.text(names.len()));
        }
        let families = Family::ALL.map(Family::name).join(", ");
        let expected = format!(
            "\"model_type\": \"depthvla\" or \"type\": \"pi0\" or \"pi05\", or openpi's action_horizon, or --family with one of {families}"
        );
        return Err(ConfigError { field: path.display().to_string(), expected, found }.into());
    };
    Ok((family, config))
}

/// The model that a family's files describe, with its tensors.
fn resolve(
    dir: &Path,
    family: Family,
    config: serde_json::Value,
    checkpoint: Checkpoint,
) -> Result<Loaded, ModelError> {
    let path = dir.join("config.json");
    let described = match family {
        Family::DepthVla => describe_depthvla(dir, &path, config)?,
        Family::LerobotPi0 | Family::LerobotPi05 => lerobot::describe(family, dir, &path, config, &checkpoint)?,
        Family::Openpi => openpi::describe(dir, &path, config, &checkpoint)?,
        Family::OpenPiZero | Family::Galaxea => open_pi_zero::describe(family, dir, &checkpoint)?,
    };
    let Described { family, config, normalization, state_dims, action_dim } = described;
    let model = Model::new(config)?;
    let names = |p: &Param| match family {
        Family::DepthVla => vec![p.name.clone()],
        Family::LerobotPi0 | Family::LerobotPi05 | Family::Openpi => pi0::names(&p.name),
        Family::OpenPiZero | Family::Galaxea => open_pi_zero::names(&p.name),
    };
    let ignored = |name: &str| match family {
        Family::DepthVla => false,
        Family::LerobotPi0 | Family::LerobotPi05 | Family::Openpi => pi0::ignored(name),
        Family::OpenPiZero | Family::Galaxea => open_pi_zero::ignored(name),
    };
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
    let lengths = [("state", *state_dims.start(), config.state_dim), ("actions", action_dim, config.action_dim)];
    check_lengths(dir, lengths)?;
    Ok(Described { family: Family::DepthVla, config, normalization, state_dims, action_dim })
}

pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, ModelError> {
    let text = fs::read_to_string(path).map_err(|source| ModelError::Io { path: path.to_owned(), source })?;
    serde_json::from_str(&text).map_err(|source| ModelError::Json { path: path.to_owned(), source })
}

/// `fathom.json`: what neither tensor shapes nor the origin's configuration tell.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Hints {
    heads: Option<usize>,
    kv_heads: Option<usize>,
    vision_heads: Option<usize>,
    patch: Option<usize>,
    /// The cameras that there are, where the origin's files do not say; of openpi's three the others are left out, which is what masking them comes to.
    views: Option<Vec<String>>,
    /// openpi: which folder of `assets` has the statistics, where there are several.
    asset_id: Option<String>,
    /// openpi's `make_bool_mask`: `[6, -1]` is six elements relative to the state, and one absolute.
    relative_actions: Option<Vec<i32>>,
    /// Longest prompt, where the origin's files do not say.
    max_tokens: Option<usize>,
    /// Flow steps, where the origin's files do not say.
    steps: Option<usize>,
    /// open-pi-zero, Galaxea: actions in a chunk.
    horizon: Option<usize>,
    /// open-pi-zero, Galaxea: of the time embedding.
    max_period: Option<f64>,
    /// openpi's `discrete_state_input`.
    state_in_prompt: Option<bool>,
}

impl Hints {
    fn read(dir: &Path) -> Result<Hints, ModelError> {
        let path = dir.join("fathom.json");
        if path.exists() { read_json(&path) } else { Ok(Hints::default()) }
    }
}
