//! openpi's PyTorch port of pi0 and pi0.5: `config.json` as `convert_jax_model_to_pytorch.py` writes it, the tensors, and
//! `assets/<asset_id>/norm_stats.json`. Which of the two it is, the tensors tell.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::pi0::{Settings, Shapes};
use super::{Described, Family, Hints, check_lengths, pi0};
use crate::config::{NormalizationMode, PromptFormat, Resize};
use crate::content::is_there;
use crate::error::{ConfigError, ModelError};
use crate::json::{self, Json};
use crate::normalize::Normalization;
use crate::weights::Checkpoint;

/// The cameras of openpi's models, in the order of the prefix.
pub(super) const VIEWS: [&str; 3] = ["base_0_rgb", "left_wrist_0_rgb", "right_wrist_0_rgb"];
/// Longest prompts of pi0 and pi0.5 (`Pi0Config.max_token_len`).
const MAX_TOKENS: [usize; 2] = [48, 200];
/// Default of `sample_actions`.
const STEPS: usize = 10;
/// `transforms.Normalize`.
const EPS: f32 = 1e-6;

/// The fields of the converter's `config.json` that inference depends on.
#[derive(Deserialize)]
struct Converted {
    action_dim: usize,
    action_horizon: usize,
    paligemma_variant: String,
}

pub(super) fn describe(
    dir: &Path,
    path: &Path,
    config: &Json<'_>,
    checkpoint: &Checkpoint,
) -> Result<Described, ModelError> {
    let c: Converted = json::from_tree(config).map_err(|source| ModelError::Json { path: path.to_owned(), source })?;
    let hints = Hints::read(dir)?;
    let refuse =
        |field: String, expected: String, found: String| Err(ModelError::from(ConfigError { field, expected, found }));
    if c.paligemma_variant != "gemma_2b" && (hints.heads.is_none() || hints.kv_heads.is_none()) {
        let expected = "gemma_2b, or heads and kv_heads in fathom.json".to_owned();
        return refuse(format!("{}: paligemma_variant", path.display()), expected, c.paligemma_variant);
    }

    let s = Shapes { checkpoint, names: pi0::names };
    let pi05 = s.has("time_mlp_in.weight");
    let (time_conditioning, prompt) = Settings::conditioning(pi05);
    let mode = if pi05 { NormalizationMode::Quantile { eps: EPS } } else { NormalizationMode::Zscore { eps: EPS } };
    let settings = Settings {
        views: VIEWS.map(str::to_owned).to_vec(),
        resize: Resize::PillowBilinear,
        image_size: None,
        max_tokens: hints.max_tokens.unwrap_or(MAX_TOKENS[usize::from(pi05)]),
        state_dim: c.action_dim,
        action_dim: c.action_dim,
        horizon: c.action_horizon,
        steps: hints.steps.unwrap_or(STEPS),
        periods: (4e-3, 4.0),
        normalization: mode,
        time_conditioning,
        prompt: if hints.state_in_prompt == Some(false) { PromptFormat::Task } else { prompt },
        action: None,
    };
    let config = pi0::config(&s, &hints, settings)?;
    let mut normalization = match statistics(dir, hints.asset_id.as_deref())? {
        Some(path) => Normalization::openpi_file(path, mode, hints.allow_constant)?,
        None => Normalization::default(),
    };
    normalization.relative = hints.relative();
    let state_dims = normalization.state_len().map_or(1..=config.state_dim, |n| n..=n);
    let action_dim = normalization.action_len().unwrap_or(config.action_dim);
    check_lengths(dir, [("state", *state_dims.start(), config.state_dim), ("actions", action_dim, config.action_dim)])?;
    Ok(Described { family: Family::Openpi, config, normalization, state_dims, action_dim })
}

/// `assets/<asset_id>/norm_stats.json`; the id may have several parts. The only one, where none is named.
fn statistics(dir: &Path, asset_id: Option<&str>) -> Result<Option<PathBuf>, ModelError> {
    let assets = dir.join("assets");
    let mut found = Vec::new();
    if is_there(&assets) {
        collect(&assets, 0, &mut found)?;
    }
    found.sort();
    let names: Vec<String> = found
        .iter()
        .filter_map(|file| Some(file.parent()?.strip_prefix(&assets).ok()?.display().to_string()))
        .collect();
    let refuse = |detail: String| Err(ModelError::Statistics { path: assets.clone(), detail });
    match (asset_id, found.as_slice()) {
        (Some(id), files) => match names.iter().position(|n| n == id).and_then(|i| files.get(i)) {
            Some(file) => Ok(Some(file.clone())),
            None => refuse(format!("asset_id in fathom.json: expected one of {names:?}, found {id:?}")),
        },
        (None, []) => Ok(None),
        (None, [file]) => Ok(Some(file.clone())),
        (None, _) => refuse(format!("expected asset_id in fathom.json to name one of {names:?}")),
    }
}

/// Every `norm_stats.json` below `dir`, four folders deep.
fn collect(dir: &Path, depth: usize, found: &mut Vec<PathBuf>) -> Result<(), ModelError> {
    let io = |source| ModelError::Io { path: dir.to_owned(), source };
    for entry in fs::read_dir(dir).map_err(io)? {
        let path = entry.map_err(io)?.path();
        if path.is_dir() && depth < 4 {
            collect(&path, depth + 1, found)?;
        } else if path.file_name().is_some_and(|name| name == "norm_stats.json") {
            found.push(path);
        }
    }
    Ok(())
}
